package source

import (
	"os/exec"
	"strings"
	"testing"
)

func TestTheCommitsBetweenTwo(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	git("init", "-q", "-b", "main")
	for _, subject := range []string{"one", "two"} {
		git("commit", "-q", "--allow-empty", "-m", subject)
	}
	git("checkout", "-q", "-b", "side")
	git("commit", "-q", "--allow-empty", "-m", "beside")
	git("tag", "beside")
	git("checkout", "-q", "main")
	git("commit", "-q", "--allow-empty", "-m", "three")
	git("merge", "-q", "--no-ff", "-m", "four", "side")
	commits, err := Repository(dir).Between(t.Context(), "HEAD~3", "main")
	if err != nil {
		t.Fatal(err)
	}
	var subjects []string
	for _, c := range commits[1:] {
		subjects = append(subjects, c.Subject)
	}
	if got := strings.Join(subjects, " "); got != "two three four" {
		t.Errorf("between are %s", got)
	}
	for _, c := range []struct{ from, to, says string }{
		{"nothing", "main", `no commit "nothing"`}, {"main", "HEAD~1", "no commit between"}, {"beside", "main", "not among the first parents"},
	} {
		if _, err := Repository(dir).Between(t.Context(), c.from, c.to); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
	}
}
