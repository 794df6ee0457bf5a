package custom

import (
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// python is 3.11 or newer, as the nodes have it; the tests need nothing but its own library.
func python(t *testing.T) string {
	path, err := exec.LookPath("python3")
	if err == nil {
		err = exec.Command(path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))").Run()
	}
	if err != nil {
		t.Skip("no Python 3.11 on this machine")
	}
	return path
}

func TestPackagesPassTheirOwnTests(t *testing.T) {
	python := python(t)
	packages, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		if !p.IsDir() {
			continue
		}
		t.Run(p.Name(), func(t *testing.T) {
			cmd := exec.Command(python, "-B", "-W", "error", "-m", "unittest", "discover", "-t", ".", "-s", "tests")
			cmd.Dir = p.Name()
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			} else if strings.Contains(string(out), "Ran 0 tests") {
				t.Error("there are no tests")
			}
		})
	}
}

func TestNodesAreHandedCodeAlone(t *testing.T) {
	count := 0
	err := fs.WalkDir(Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		count++
		if !strings.HasSuffix(name, ".py") || strings.Contains(name, "/tests/") {
			t.Errorf("%s is handed over", name)
		}
		return nil
	})
	if err != nil || count == 0 {
		t.Errorf("%d files: %v", count, err)
	}
	if _, err := fs.Stat(Files(), "toast-evacuator/toast_evacuator/__main__.py"); err != nil {
		t.Error(err)
	}
}
