package source

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// worktree is a repository with one commit, edited since, reached by a link, in an environment that leads git elsewhere.
func worktree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "real")
	save := func(name, text string, mode os.FileMode) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) {
		t.Helper()
		if _, err := (Git{Dir: dir}).Run(t.Context(), nil, append([]string{"-c", "user.name=a", "-c", "user.email=a@b"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	save("neutron/a.py", "A = 1\n", 0o644)
	save("neutron/gone.py", "", 0o644)
	save("bin/run", "#!/bin/sh\n", 0o755)
	save(".gitignore", "*.swp\n", 0o644)
	if err := os.Symlink("a.py", filepath.Join(dir, "neutron/link.py")); err != nil {
		t.Fatal(err)
	}
	run("init", "-q")
	run("add", "-A")
	run("update-index", "--add", "--cacheinfo", "160000,0123456789012345678901234567890123456789,sub")
	run("commit", "-q", "-m", "one")
	save("neutron/a.py", "A = 2\n", 0o644)
	save("neutron/new.py", "", 0o644)
	save("neutron/a.py.swp", "", 0o644)
	if err := os.Remove(filepath.Join(dir, "neutron/gone.py")); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(filepath.Dir(dir), "link")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "core.worktree")
	t.Setenv("GIT_CONFIG_VALUE_0", "/nowhere")
	return link
}

func TestAWorkTreeIsWhatGitWouldTakeOfIt(t *testing.T) {
	dir := worktree(t)
	for _, c := range []struct {
		tree *Dir
		want []string
	}{
		{&Dir{Path: dir, Git: true}, []string{".gitignore", "bin/run", "neutron/a.py", "neutron/link.py", "neutron/new.py"}},
		{&Dir{Path: dir, Git: true, Below: "neutron"}, []string{"neutron/a.py", "neutron/link.py", "neutron/new.py"}},
		{&Dir{Path: dir, Below: "neutron"}, []string{"neutron/a.py", "neutron/a.py.swp", "neutron/link.py", "neutron/new.py"}},
	} {
		paths, err := c.tree.Paths(t.Context())
		slices.Sort(paths)
		if err != nil || !slices.Equal(paths, c.want) {
			t.Errorf("%+v: %v, %v", c.tree, paths, err)
		}
	}
	tree := &Dir{Path: dir}
	for name, want := range map[string]File{"neutron/a.py": {Content: []byte("A = 2\n"), Mode: 0o644}, "bin/run": {Content: []byte("#!/bin/sh\n"), Mode: 0o755},
		"neutron/link.py": {Content: []byte("a.py"), Mode: os.ModeSymlink}, ".gitignore": {Content: []byte("*.swp\n"), Mode: 0o644}} {
		if f, err := tree.Read(name); err != nil || string(f.Content) != string(want.Content) || f.Mode != want.Mode {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if _, err := (&Dir{Path: filepath.Dir(dir)}).Read("link/neutron/a.py"); fault.CodeOf(err) != fault.Invalid {
		t.Error("a path through a link: ", err)
	}
}

func TestACommitIsReadWithoutItsSubmodules(t *testing.T) {
	repo := Repository(worktree(t))
	id, err := repo.Find(t.Context(), "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	files, err := repo.Files(t.Context(), id, func(path string) bool { return path != ".gitignore" })
	if err != nil {
		t.Fatal(err)
	}
	paths, _ := files.Paths(t.Context())
	if !slices.Equal(paths, []string{"bin/run", "neutron/a.py", "neutron/gone.py", "neutron/link.py"}) || string(files["neutron/a.py"].Content) != "A = 1\n" ||
		files["bin/run"].Mode != 0o755 || files["neutron/link.py"].Mode != os.ModeSymlink {
		t.Errorf("%v %+v", paths, files)
	}
	if _, err := repo.Find(t.Context(), "--help"); err == nil {
		t.Error("an option is no commit")
	}
}
