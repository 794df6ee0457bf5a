package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestANightlyWithoutARegionLeavesAReport runs it where there is no container engine.
func TestANightlyWithoutARegionLeavesAReport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "report")
	code, out, diagnosis := runHere(t, "nightly", "--report", dir)
	if code != exitFailed || !strings.Contains(out, "No scenario ran on mini") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, out, diagnosis)
	}
	junit, err := os.ReadFile(filepath.Join(dir, "junit.xml"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(junit), `errors="1"`) {
		t.Errorf("junit.xml has no error:\n%s", junit)
	}
}

func TestWhatANightlyRefuses(t *testing.T) {
	for _, refused := range []struct {
		args []string
		says string
	}{
		{[]string{"--shard", "4/3"}, "i/n"},
		{[]string{"--shard", "1"}, "i/n"},
		{[]string{"--topology", "minni"}, "mini"},
		{[]string{"--topology", "mini", "--topology", "mini"}, "both called mini"},
		{[]string{"--topology", "mini", "--topology", "legacy", "--name", "x"}, "one --name for 2"},
	} {
		if code, _, diagnosis := runHere(t, append([]string{"nightly", "--report", t.TempDir()}, refused.args...)...); code != exitUsage || !strings.Contains(diagnosis, refused.says) {
			t.Errorf("nightly %v: exit code %d, %s", refused.args, code, diagnosis)
		}
	}
	if code, _, diagnosis := runHere(t, "nightly", "--compare", t.TempDir()); code == 0 || !strings.Contains(diagnosis, "no report in") {
		t.Errorf("a comparison with nothing: exit code %d, %s", code, diagnosis)
	}
}

// runHere runs toastdev in this process, in a home of its own and with no container engine.
func runHere(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("TOASTDEV_HOME", t.TempDir())
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "no.sock"))
	diagnosis, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer diagnosis.Close()
	var out strings.Builder
	a := &app{in: os.Stdin, out: &out, err: diagnosis, close: func() {}}
	code = a.main(args)
	text, err := os.ReadFile(diagnosis.Name())
	if err != nil {
		t.Fatal(err)
	}
	return code, out.String(), string(text)
}
