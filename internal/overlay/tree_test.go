package overlay

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
)

const setupCfg = `[metadata]
name = neutron
description_file =
    README.rst

[files]
packages =
    neutron
data_files =
    etc/neutron =
        etc/api-paste.ini
    etc/neutron/rootwrap.d = etc/rootwrap.d/*

[entry_points]
console_scripts =
    neutron-l3-agent = neutron.cmd.l3:main
`

// fork is a git repository with what the package has, and a tag of its version.
func fork(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{"setup.cfg": setupCfg, "requirements.txt": "# none\n", ".gitignore": "*.swp\n4913\n"}
	for name, content := range packaged {
		if strings.HasPrefix(name, "neutron/") {
			all[name] = content
		}
	}
	maps.Copy(all, files)
	for name, content := range all {
		save(t, dir, name, content)
	}
	gitIn(t, dir, "init", "-q", "-b", "stable/zed")
	gitIn(t, dir, "add", "-A")
	gitIn(t, dir, "commit", "-q", "-m", "the package's")
	return dir
}

func save(t *testing.T, dir, name, content string) {
	t.Helper()
	at := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func gitIn(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
}

func open(t *testing.T, dir, ref string) *Tree {
	t.Helper()
	tree, err := OpenTree(t.Context(), Source{Component: "neutron", Path: dir, Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func beneath(t *testing.T, m *machine) *Base {
	t.Helper()
	base, err := Installed(t.Context(), m, "neutron", m.code)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

func TestATreeIsLaidWithWhatIsNotCommitted(t *testing.T) {
	m := installed(t)
	before := m.state()
	base := beneath(t, m)
	dir := fork(t, map[string]string{"neutron/agent/l3/agent.py": "NAME = 'fork'\n", "requirements.txt": "pbr!=2.1.0,>=4.0.0 # Apache\noslo.config>=8.0.0\n" +
		"neutron-lib>=3.2.0 # Apache\nrequests[x]>=1;sys_platform=='win32'\n"})
	gitIn(t, dir, "tag", "-m", "x", "21.1.0")
	save(t, dir, "neutron/agent/l3/dvr.py", "NAME = 'edited'\n")
	save(t, dir, "neutron/db/migration/alembic_migrations/versions/zed/expand/abc_toast.py", "")
	save(t, dir, "neutron/agent/.dvr.py.swp", "")
	save(t, dir, "neutron/agent/x.swp", "")
	save(t, dir, "neutron/tests/unit/test_new.py", "")
	save(t, dir, "setup.cfg", setupCfg+"neutron.service_plugins =\n    toast = neutron.toast:Plugin\n")
	if err := os.Remove(filepath.Join(dir, "neutron/agent/l3/old.py")); err != nil {
		t.Fatal(err)
	}
	tree := open(t, dir, "")
	if tree.Version != "21.1.0" || !tree.Edited || len(tree.Commit) != 40 || !strings.HasSuffix(tree.String(), ", edited)") {
		t.Errorf("%+v", tree)
	}
	w, d, err := tree.Want(base, "zed")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"EGG-INFO/entry_points.txt", "neutron/agent/l3/agent.py", "neutron/agent/l3/dvr.py", "neutron/agent/l3/old.py",
		"neutron/db/migration/alembic_migrations/versions/zed/expand/abc_toast.py"}
	if got := slices.Sorted(maps.Keys(w.Files)); !slices.Equal(got, want) {
		t.Errorf("files: %v", got)
	}
	if d.Changed != 2 || d.New != 1 || d.Removed != 1 || !slices.Equal(d.Migrations, want[4:]) || !slices.Equal(d.EntryPoints, []string{"+ neutron.service_plugins: toast = neutron.toast:Plugin"}) ||
		!slices.Equal(d.Missing, []string{"pbr!=2.1.0,>=4.0.0 (not installed)", "neutron-lib>=3.2.0 (installed: 3.1.0)"}) || !slices.Equal(d.Data, []string{"etc/api-paste.ini", "etc/rootwrap.d/*"}) {
		t.Errorf("%+v", d)
	}
	lay(t, m, w)
	if got := m.imports("agent.NAME, dvr.NAME"); got != "fork edited" {
		t.Errorf("a program sees %s", got)
	}
	text, err := os.ReadFile(m.path("neutron-21.0.0.egg-info/entry_points.txt"))
	if err != nil || string(text) != entryPoints+"\n[neutron.service_plugins]\ntoast = neutron.toast:Plugin\n" {
		t.Errorf("%s, %v", text, err)
	}
	// Of a ref the commit counts, not the work tree.
	w, d, err = open(t, dir, "stable/zed").Want(beneath(t, m), "zed")
	if err != nil || d.Changed != 1 || d.New+d.Removed+len(d.EntryPoints) != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	lay(t, m, w)
	if got := m.imports("agent.NAME, dvr.NAME"); got != "fork fork" {
		t.Errorf("a program sees %s", got)
	}
	lift(t, m)
	m.same("lifted", before, m.state())
}

func TestATreeThatIsNotOfTheReleaseIsRefused(t *testing.T) {
	m := installed(t)
	base := beneath(t, m)
	plain := fork(t, nil)
	kilo := fork(t, map[string]string{".gitreview": "[gerrit]\nproject=openstack/neutron.git\ndefaultbranch=stable/kilo\n"})
	later := fork(t, nil)
	gitIn(t, later, "tag", "-m", "x", "22.0.0")
	other := map[string]string{}
	for name := range packaged {
		if strings.HasPrefix(name, "neutron/") {
			other[name] = "OTHER = 1\n"
		}
	}
	unlike := fork(t, other)
	nova := fork(t, map[string]string{"setup.cfg": "[metadata]\nname = nova\n"})
	linked := fork(t, nil)
	if err := os.Symlink("agent.py", filepath.Join(linked, "neutron/agent/l3/link.py")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, ref, want string }{
		{kilo, "", "this tree is of kilo: so says its .gitreview"},
		{later, "", "this tree is of version 22.0.0"},
		{unlike, "", "this tree is of another release: of 14 installed files 0 are the same"},
		{nova, "", `this is a source tree of "nova"`},
		{filepath.Join(plain, "neutron"), "", "it has no setup.cfg"},
		{filepath.Join(plain, "nothing"), "", "there is no such folder"},
		{plain, "stable/nothing", `the repository has no commit "stable/nothing"`},
		{plain, "--help", `the repository has no commit "--help"`},
		{m.root, "x", "no git repository"},
		{linked, "", "this is no file"},
	} {
		tree, err := OpenTree(t.Context(), Source{Component: "neutron", Path: c.dir, Ref: c.ref})
		if err == nil {
			_, _, err = tree.Want(base, "zed")
		}
		if fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	zed := fork(t, map[string]string{".gitreview": "defaultbranch=unmaintained/zed\n"})
	gitIn(t, zed, "tag", "-m", "x", "22.0.0") // the branch counts
	for _, dir := range []string{plain, zed} {
		if w, d, err := open(t, dir, "").Want(base, "zed"); err != nil || len(w.Files) > 0 {
			t.Errorf("%+v %+v %v", w.Files, d, err)
		}
	}
}

func TestVersionsAreComparedAsPythonDoes(t *testing.T) {
	for _, c := range []struct {
		conditions, installed string
		met                   bool
	}{
		{">=3.1.0", "3.1", true},
		{">=3.1.0", "3.1.0rc1", false},
		{">=3.1.0", "3.10.0+ubuntu1", true},
		{"!=2.1.0, >=2.0.0", "2.1.0", false},
		{"~=1.2.0", "1.3.0", false},
		{"==1.2.*,>1", "1.2.7.dev3", true},
		{">=1.0", "unknown", true},
		{"", "1.0", true},
	} {
		lacking := missing([]byte("oslo.db"+c.conditions+" # Apache\n"), map[string]string{"oslo-db": c.installed})
		if c.met != (len(lacking) == 0) {
			t.Errorf("%q of %s: %v", c.conditions, c.installed, lacking)
		}
	}
}

func TestASaveIsSeenOnceHoweverItIsDone(t *testing.T) {
	dir := fork(t, nil)
	tree := open(t, dir, "")
	save(t, dir, "neutron/agent/l3/old.py", "NAME = 'before the watch began'\n")
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	type batch = map[string]File
	batches := make(chan batch, 10)
	ended := make(chan error)
	go func() {
		ended <- tree.Watch(ctx, func(_ context.Context, files map[string]File) error { batches <- files; return nil })
	}()
	next := func(what string, names ...string) batch {
		t.Helper()
		select {
		case b := <-batches:
			if got := slices.Sorted(maps.Keys(b)); !slices.Equal(got, names) {
				t.Fatalf("%s: %v", what, got)
			}
			return b
		case <-ctx.Done():
			t.Fatalf("%s: not seen", what)
			return nil
		}
	}
	next("saved before", "neutron/agent/l3/old.py")
	save(t, dir, "neutron/agent/l3/agent.py", "NAME = 'written in place'\n")
	if b := next("in place", "neutron/agent/l3/agent.py"); string(b["neutron/agent/l3/agent.py"].Content) != "NAME = 'written in place'\n" {
		t.Errorf("%+v", b)
	}
	save(t, dir, "neutron/agent/l3/4913", "")
	save(t, dir, "neutron/agent/l3/.agent.py.swx", "")
	save(t, dir, "neutron/agent/l3/agent.py.swp", "NAME = 'renamed over'\n")
	if err := os.Rename(filepath.Join(dir, "neutron/agent/l3/agent.py.swp"), filepath.Join(dir, "neutron/agent/l3/agent.py")); err != nil {
		t.Fatal(err)
	}
	next("renamed over", "neutron/agent/l3/agent.py")
	save(t, dir, "neutron/agent/l3/agent.py", "NAME = 'renamed over'\n") // the same again is no save
	save(t, dir, "neutron/agent/toast/deep/x.py", "X = 1\n")
	next("a file in new folders", "neutron/agent/toast/deep/x.py")
	save(t, dir, "neutron/agent/toast/deep/x.py", "X = 2\n")
	next("a save there", "neutron/agent/toast/deep/x.py")
	if err := os.RemoveAll(filepath.Join(dir, "neutron/agent/toast")); err != nil {
		t.Fatal(err)
	}
	if b := next("removed", "neutron/agent/toast/deep/x.py"); !b["neutron/agent/toast/deep/x.py"].Absent {
		t.Errorf("%+v", b)
	}
	save(t, dir, "neutron/agent/l3/agent.py", "")
	if b := next("emptied", "neutron/agent/l3/agent.py"); len(b["neutron/agent/l3/agent.py"].Content) > 0 {
		t.Errorf("%+v", b)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
