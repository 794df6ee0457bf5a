package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inProject makes a project with a tree of neutron in git beside it, and works there.
func inProject(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for file, text := range map[string]string{"project/toastdev.yaml": "upstream: {neutron: ../neutron}\n", "neutron/setup.cfg": "[metadata]\nname = neutron\n",
		"neutron/neutron/a.py": lines("two", "five")} {
		put(t, filepath.Join(dir, file), text)
	}
	gitIn(t, dir, "init", "-q")
	gitIn(t, dir, "add", "-A")
	gitIn(t, dir, "commit", "-q", "-m", "base")
	t.Chdir(filepath.Join(dir, "project"))
	return dir
}

// lines is a text with two lines that change.
func lines(two, five string) string {
	return "one\n" + two + "\n" + strings.Repeat("and so on\n", 10) + five + "\nsix\nseven\n"
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=A", "-c", "user.email=a@example.org"}, args...)...)
	cmd.Dir = filepath.Join(dir, "neutron")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestAPatchFromTheFirstEditToGitAm walks the verbs as docs/patches.md does.
func TestAPatchFromTheFirstEditToGitAm(t *testing.T) {
	dir := inProject(t)
	do := func(want int, args ...string) (string, string) {
		t.Helper()
		code, out, diagnosis := runHere(t, append([]string{"patch"}, args...)...)
		if code != want {
			t.Fatalf("patch %v: exit code %d\n%s%s", args, code, out, diagnosis)
		}
		return out, diagnosis
	}
	on := []string{"--release", "mine", "--tree", "neutron=../neutron"}
	if _, says := do(exitUsage, append([]string{"new", "mine", "-m", "x"}, on...)...); !strings.Contains(says, "nothing is edited") {
		t.Error(says)
	}
	put(t, filepath.Join(dir, "neutron/neutron/a.py"), lines("TWO", "five"))
	do(0, append([]string{"new", "mine", "-m", "Two is louder", "-m", "It was not heard."}, on...)...)
	gitIn(t, dir, "commit", "-q", "-a", "-m", "two and five")
	put(t, filepath.Join(dir, "neutron/neutron/a.py"), lines("TWO", "FIVE"))
	gitIn(t, dir, "commit", "-q", "-a", "-m", "five\n\nCloses-Bug: #1234567")
	five := gitIn(t, dir, "rev-parse", "HEAD")
	gitIn(t, dir, "checkout", "-q", "HEAD~2")
	do(0, append([]string{"import", five, "--as", "five"}, on...)...)
	if _, says := do(exitUsage, append([]string{"import", five, "--as", "again"}, on...)...); !strings.Contains(says, "already, as five") {
		t.Error(says)
	}
	do(0, append([]string{"reorder", "five", "--before", "mine"}, on...)...)
	out, _ := do(0, append([]string{"check", "-o", "json"}, on...)...)
	var checked patchResults
	if err := json.Unmarshal([]byte(out), &checked); err != nil || len(checked.Patches) != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, name := range []string{"five", "mine"} {
		if p := checked.Patches[i]; p.Name != name || p.State != "applies" || p.Release != "mine" || p.Component != "neutron" {
			t.Errorf("%+v", p)
		}
	}
	if out, _ := do(0, append([]string{"show", "five"}, on...)...); !strings.Contains(out, "+FIVE") || !strings.Contains(out, "bugs/1234567") {
		t.Error(out)
	}
	do(0, append([]string{"export", "--to", "out"}, on...)...)
	mails, err := filepath.Glob("out/neutron/*.patch")
	if err != nil || len(mails) != 2 {
		t.Fatal(err, mails)
	}
	for _, m := range mails {
		gitIn(t, dir, "am", "-q", filepath.Join(dir, "project", m))
	}
	if text, err := os.ReadFile(filepath.Join(dir, "neutron/neutron/a.py")); err != nil || string(text) != lines("TWO", "FIVE") {
		t.Errorf("%v %s", err, text)
	}
	if out, _ := do(0, append([]string{"check"}, on...)...); !strings.Contains(out, "2 patches: 2 upstream") {
		t.Error(out)
	}
	put(t, filepath.Join(dir, "neutron/neutron/a.py"), "other\n")
	if out, _ := do(exitFailed, append([]string{"check"}, on...)...); !strings.Contains(out, "expected:") || !strings.Contains(out, "    | other") {
		t.Error(out)
	}
}

func TestWhatPatchRefuses(t *testing.T) {
	dir := inProject(t)
	put(t, "words.patch", "please change it\n")
	put(t, "escape.patch", "--- /dev/null\n+++ b/../x\n@@ -0,0 +1 @@\n+x\n")
	put(t, "fits.patch", "--- a/neutron/a.py\n+++ b/neutron/a.py\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n and so on\n")
	put(t, "nova.patch", "--- a/nova/b.py\n+++ b/nova/b.py\n@@ -1 +1 @@\n-two\n+TWO\n")
	put(t, "missing.patch", "--- a/neutron/b.py\n+++ b/neutron/b.py\n@@ -1 +1 @@\n-two\n+TWO\n")
	tree := []string{"--tree", "neutron=../neutron"}
	for _, refused := range []struct {
		code int
		args []string
		says string
	}{
		{exitUsage, []string{"check"}, "no tree is named"},
		{exitUsage, []string{"check", "--tree", "neutron"}, "component=PATH"},
		{exitUsage, []string{"check", "--tree", "neutron=/nowhere"}, "no such folder"},
		{exitUsage, []string{"check", "--tree", "nova=../neutron"}, "this is the tree of neutron"},
		{exitUsage, append([]string{"check", "--release", "klio"}, tree...), `write "kilo"`},
		{exitUsage, append([]string{"check", "nothing"}, tree...), `no patch "nothing"`},
		{exitUsage, append([]string{"check", "./nothing.patch"}, tree...), "there is no file"},
		{exitUsage, append([]string{"check", "words.patch"}, tree...), "words.patch:1:1: this is no diff"},
		{exitUsage, append([]string{"check", "escape.patch"}, tree...), "escape.patch:2:1: the path \"../x\" leaves the tree"},
		{exitFailed, append([]string{"check", "0123456789ab"}, tree...), "has no commit 0123456789ab"},
		{exitFailed, append([]string{"check", "missing.patch"}, tree...), ""},
		{exitUsage, append([]string{"check", "nova.patch"}, tree...), "this is no patch of neutron"},
		{0, append([]string{"check", "fits.patch"}, tree...), ""},
		{exitUsage, []string{"reorder", "x"}, "where is it to go"},
		{exitUsage, append([]string{"new", "Upper", "-m", "x"}, tree...), "nothing is edited"},
	} {
		if code, out, diagnosis := runHere(t, append([]string{"patch"}, refused.args...)...); code != refused.code || !strings.Contains(diagnosis, refused.says) {
			t.Errorf("patch %v: exit code %d, %s%s", refused.args, code, out, diagnosis)
		}
	}
	if out := gitIn(t, dir, "status", "--porcelain"); out != "" {
		t.Errorf("the tree was written to: %s", out)
	}
	if _, err := os.Stat("patches"); err == nil {
		t.Error("the project was written to")
	}
	t.Chdir(t.TempDir())
	if code, _, diagnosis := runHere(t, "patch", "reorder", "x", "--first"); code != exitUsage || !strings.Contains(diagnosis, "touch toastdev.yaml") {
		t.Errorf("exit code %d, %s", code, diagnosis)
	}
}
