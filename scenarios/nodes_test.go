package scenarios

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnOptionIsSetInItsSectionAndNothingElse(t *testing.T) {
	const text = "[DEFAULT]\nlog = x\n\n[token]\n# expiration = 3600\nexpiration=86400\nprovider = fernet\n\n[tokens]\nexpiration = 1\n"
	for _, c := range []struct{ section, option, value, want string }{
		{"token", "expiration", "5", strings.Replace(text, "expiration=86400", "expiration = 5", 1)},
		{"token", "caching", "false", strings.Replace(text, "provider = fernet\n", "provider = fernet\ncaching = false\n", 1)},
		{"cache", "enabled", "true", text + "[cache]\nenabled = true\n"},
		{"tokens", "expiration", "2", strings.Replace(text, "expiration = 1\n", "expiration = 2\n", 1)},
	} {
		if got := withOption(text, c.section, c.option, c.value); got != c.want {
			t.Errorf("%s.%s: got\n%s", c.section, c.option, got)
		}
	}
	if got := withOption("", "a", "b", "c"); got != "[a]\nb = c\n" {
		t.Errorf("of nothing: %q", got)
	}
}

func TestConfigIsReadBeforeAnythingIsDone(t *testing.T) {
	for line, good := range map[string]bool{
		"set ctl /etc/a.conf s o v": true, "set ctl /etc/a.conf s o v keystone": true, "keep ctl /etc/a": true, "keep ctl /etc/a u1 u2": true, "restore ctl /etc/a": true,
		"set ctl /etc/a.conf s o": false, "sett ctl /etc/a.conf s o v": false, "keep ctl etc/a": false, "keep ctl /etc/../x": false, "keep ctl /": false, "restore ctl /etc/a u": false,
	} {
		if err := checkConfig(strings.Fields(line)); (err == nil) != good {
			t.Errorf("config %s: %v", line, err)
		}
	}
}

func TestWhatIsKeptIsPutBackAndItsUnitsRestarted(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("bin/systemctl", "#!/bin/sh\necho \"$@\" >>"+dir+"/units\n", 0o755)
	sh := func(args ...string) {
		t.Helper()
		cmd := exec.Command("sh", append([]string{"-c"}, args...)...)
		cmd.Env = append(os.Environ(), "PATH="+dir+"/bin:"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	conf, key := write("etc/a.conf", "as it was\n", 0o640), write("etc/keys/1", "one", 0o600)
	kept := filepath.Join(dir, "kept", "abc123")
	sh(keepScript, "keep", kept+"/1", conf, "unit-a", "unit-b")
	sh(keepScript, "keep", kept+"/2", filepath.Dir(key), "unit-b")
	sh(keepScript, "keep", kept+"/3", write("etc/same", "same", 0o644), "unit-c")
	write("etc/a.conf", "changed", 0o640)
	write("etc/keys/2", "two", 0o600)
	sh(restoreScript, "restore", kept+"/3", kept+"/2", kept+"/1", kept+"/none")
	if text, _ := os.ReadFile(conf); string(text) != "as it was\n" {
		t.Errorf("the file is %q", text)
	}
	if keys, _ := os.ReadDir(filepath.Dir(key)); len(keys) != 1 {
		t.Errorf("the folder has %v", keys)
	}
	if units, _ := os.ReadFile(dir + "/units"); string(units) != "restart unit-a unit-b\n" {
		t.Errorf("restarted were %q", units)
	}
	if _, err := os.Stat(kept); !os.IsNotExist(err) {
		t.Errorf("what was kept is still there: %v", err)
	}
	sh(restoreScript, "restore")
}
