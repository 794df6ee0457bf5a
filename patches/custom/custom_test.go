package custom

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
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

// nodeImage is the node image that was built last. A test that needs one is skipped where there is none: it is built by `up`.
func nodeImage(t *testing.T) string {
	out, err := exec.Command("docker", "image", "ls", "--filter", "reference=toastdev/node-zed", "--format", "{{.Repository}}:{{.Tag}}").Output()
	if err != nil {
		t.Skip("no container engine on this machine: ", err)
	}
	image, _, _ := strings.Cut(string(out), "\n")
	if image == "" {
		t.Skip("no node image in this engine: toastdev image build")
	}
	return image
}

// TestThePluginLivesInARealNeutron runs tests/live.py in a container of the node image: version 1, its upgrade while it
// runs, the API, the policy, its removal.
func TestThePluginLivesInARealNeutron(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	image := nodeImage(t)
	// A region may be tested beside it: that one has the first word on CPU time.
	out, err := exec.Command("docker", "run", "--detach", "--rm", "--init", "--network", "none", "--cpu-shares", "128", "--entrypoint", "sleep", image, "900").Output()
	if err != nil {
		t.Fatalf("start a container of %s: %v", image, err)
	}
	container := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("docker", "rm", "--force", container).CombinedOutput(); err != nil {
			t.Errorf("remove the container: %v\n%s", err, out)
		}
	})
	if out, err := exec.Command("docker", "cp", "toast-vpc", container+":/root/toast-vpc").CombinedOutput(); err != nil {
		t.Fatalf("copy the package: %v\n%s", err, out)
	}
	test := exec.Command("docker", "exec", "--workdir", "/root/toast-vpc", container, "nice", "python3", "-B", "-m", "unittest", "-v", "tests.live")
	if out, err := test.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
}

// handed is whether a node needs a file of a package.
func handed(name string) bool {
	return !strings.Contains(name, "/tests/") && (strings.HasSuffix(name, ".py") || strings.HasSuffix(name, "_HEAD") ||
		strings.HasSuffix(path.Dir(name), ".egg-info") || path.Base(name) == PackageFile)
}

func TestNodesAreHandedCodeAlone(t *testing.T) {
	var got []string
	err := fs.WalkDir(Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		got = append(got, name)
		if !handed(name) {
			t.Errorf("%s is handed over", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// All of it: a pattern of go:embed names one depth of folders.
	err = filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && handed(filepath.ToSlash(name)) && !slices.Contains(got, filepath.ToSlash(name)) {
			t.Errorf("%s is not handed over", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"toast-evacuator/toast_evacuator/__main__.py", "toast-vpc/toast_vpc.egg-info/entry_points.txt"} {
		if text, err := fs.ReadFile(Files(), name); err != nil || len(bytes.TrimSpace(text)) == 0 {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
	}
}

func TestAPackageIsSwitchedOnByItsPillar(t *testing.T) {
	for _, name := range []string{"toast-evacuator", "toast-vpc"} {
		pillar, err := Pillar(Files(), name)
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range pillar {
			defaults, err := os.ReadFile(filepath.Join("../../salt/states", key, "defaults.yaml"))
			if err != nil || !bytes.Contains(defaults, []byte("enabled: false")) {
				t.Errorf("%s: no state is off by pillar.%s: %v", name, key, err)
			}
			if on, ok := value.(map[string]any); !ok || on["enabled"] != true {
				t.Errorf("%s: pillar.%s is %v", name, key, value)
			}
		}
	}
	if _, err := Pillar(Files(), "toast-vcp"); err == nil || !strings.Contains(err.Error(), `write "toast-vpc"`) {
		t.Errorf("the nearest name is not told: %v", err)
	}
	broken := fstest.MapFS{"a/package.yaml": {Data: []byte("pilar: {}")}, "b/package.yaml": {Data: []byte("")}}
	for _, name := range []string{"a", "b"} {
		if _, err := Pillar(broken, name); err == nil || !strings.Contains(err.Error(), name+"/package.yaml") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
