package project

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestAProjectIsTheNearestFolderUpwards(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if f, err := FindFolder(below); err != nil || f != nil {
		t.Fatalf("%v %+v", err, f)
	}
	write(t, filepath.Join(dir, FolderFile), "")
	if f, err := FindFolder(below); err != nil || f.Dir != dir {
		t.Fatalf("%v %+v", err, f)
	}
	write(t, filepath.Join(dir, "a", FolderFile), "upstream:\n  neutron: ../src/neutron\n  nova: https://example.org/nova\n  cinder: git@example.org:cinder\n  keystone: /src/keystone\n")
	f, err := FindFolder(below)
	if err != nil || f.Dir != filepath.Join(dir, "a") {
		t.Fatalf("%v %+v", err, f)
	}
	for component, want := range map[string]string{"neutron": filepath.Join(dir, "src/neutron"), "nova": "https://example.org/nova", "cinder": "git@example.org:cinder", "keystone": "/src/keystone"} {
		if f.Upstream[component] != want {
			t.Errorf("%s: %s", component, f.Upstream[component])
		}
	}
}

func TestABadProjectIsRefusedAtItsPlace(t *testing.T) {
	for text, want := range map[string]string{
		"upstraem: {}\n":                 `toastdev.yaml:1:1: no key is called "upstraem"`,
		"\nupstream: [neutron]\n":        "toastdev.yaml:2:",
		"upstream: {neutron: ''}\n":      "upstream.neutron: nothing is named",
		"upstream: {\n":                  "toastdev.yaml:1:",
		strings.Repeat("# long\n", 9999): "too long",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, FolderFile), text)
		if _, err := FindFolder(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func TestTheProjectsFilesLieOverThoseBuiltIn(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "zed/neutron/series"), "mine")
	write(t, filepath.Join(dir, "mine/nova/series"), "")
	l := Layer{Dir: dir, Name: "patches", Under: fstest.MapFS{"zed/neutron/series": {Data: []byte("ours")}, "zed/neutron/a.patch": {}, "kilo/nova/series": {}}}
	if text, err := fs.ReadFile(l, "zed/neutron/series"); err != nil || string(text) != "mine" {
		t.Error(err, string(text))
	}
	found, err := fs.Glob(l, "*/*/*")
	if want := []string{"kilo/nova/series", "mine/nova/series", "zed/neutron/a.patch", "zed/neutron/series"}; err != nil || !slices.Equal(found, want) {
		t.Error(err, found)
	}
	if got := l.Locate("zed/neutron/series"); got != filepath.Join(dir, "zed/neutron/series") {
		t.Error(got)
	}
	if got := l.Locate("zed/neutron/a.patch"); got != "patches/zed/neutron/a.patch" {
		t.Error(got)
	}
}
