package overlay

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// machine is a folder of this machine as a node: what the program keeps in /var and /run is below it.
type machine struct {
	t       *testing.T
	root    string // /
	code    string // dist-packages/neutron
	prelude string // Python that runs before the program
	cut     int    // so many bytes of the program's last 40 and the request arrive; 0: all
}

func (m *machine) Name() string { return "cmp1" }

func (m *machine) Run(ctx context.Context, cmd node.Cmd) error {
	in, err := io.ReadAll(cmd.Stdin)
	if err != nil {
		return err
	}
	here := m.prelude + strings.Replace(program, `PREFIX = ""`, fmt.Sprintf("PREFIX = %q", m.root), 1)
	in = append([]byte(here), in[len(program):]...)
	if m.cut > 0 {
		in = in[:min(len(in), len(here)-40+m.cut)]
	}
	args := slices.Clone(cmd.Args)
	args[len(args)-1] = strconv.Itoa(len(here))
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(in), cmd.Stdout, cmd.Stderr
	err = c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &node.ExitError{Node: m.Name(), Args: cmd.Args[:1], Code: exit.ExitCode()}
	}
	return err
}

var packaged = map[string]string{
	"neutron/__init__.py":                "",
	"neutron/agent/__init__.py":          "",
	"neutron/agent/l3/__init__.py":       "",
	"neutron/agent/l3/agent.py":          "NAME = 'package'\n",
	"neutron/agent/l3/dvr.py":            "from neutron.agent.l3 import agent\nNAME = agent.NAME\n",
	"neutron/agent/l3/old.py":            "NAME = 'old'\n",
	"neutron/locale/ko/neutron.po":       "# 한국어\n",
	"neutron-21.0.0.egg-info/PKG-INFO":   "Name: neutron\nVersion: 21.0.0\n",
	"neutron-21.0.0.egg-info/x.txt":      "",
	"oslo.config-9.0.0.egg-info/x.txt":   "",
	"neutron_lib-3.1.0.egg-info/x.txt":   "",
	"neutronclient/__init__.py":          "",
	"neutron/hooks/run":                  "#!/bin/sh\n",
	"neutron/db/migration/cli.py":        "",
	"neutron/tests/unit/test_l3.py":      "",
	"neutron/agent/linux/utils.py":       "X = 1\n",
	"neutron/agent/linux/interface.py":   "Y = 1\n",
	"neutron/agent/linux/__init__.py":    "",
	"neutron-21.0.0.egg-info/requires":   "",
	"neutron/agent/metadata/agent.py":    "Z = 1\n",
	"neutron/agent/metadata/__init__.py": "",
}

const entryPoints = "[console_scripts]\nneutron-l3-agent = neutron.cmd.l3:main\n"

// installed is a node with a component installed by its package, compiled as packages are.
func installed(t *testing.T) *machine {
	t.Helper()
	if err := exec.Command("python3", "-c", "import sys; sys.exit(sys.version_info < (3, 8))").Run(); err != nil {
		t.Skip("no Python 3.8 on this machine")
	}
	m := &machine{t: t, root: t.TempDir()}
	m.code = filepath.Join(m.root, "usr/lib/python3/dist-packages/neutron")
	long := time.Now().Add(-1000 * time.Hour)
	var sums strings.Builder
	files := maps.Clone(packaged)
	files["neutron-21.0.0.egg-info/entry_points.txt"] = entryPoints
	for name, content := range files {
		at := filepath.Join(filepath.Dir(m.code), name)
		m.must(os.MkdirAll(filepath.Dir(at), 0o755))
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		m.must(os.WriteFile(at, []byte(content), mode))
		m.must(os.Chtimes(at, long, long))
		fmt.Fprintf(&sums, "%x  usr/lib/python3/dist-packages/%s\n", md5.Sum([]byte(content)), name)
	}
	m.must(os.MkdirAll(filepath.Join(m.root, "run"), 0o755))
	m.must(os.MkdirAll(filepath.Join(m.root, "var/lib/dpkg/info"), 0o755))
	m.must(os.WriteFile(filepath.Join(m.root, "var/lib/dpkg/info/python3-neutron.md5sums"), []byte(sums.String()), 0o644))
	m.must(os.WriteFile(filepath.Join(m.root, "var/lib/dpkg/info/bash.md5sums"), []byte("0123456789abcdef0123456789abcdef  bin/bash\n"), 0o644))
	if out, err := exec.Command("python3", "-m", "compileall", "-q", m.code).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return m
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) path(name string) string { return filepath.Join(filepath.Dir(m.code), name) }

func (m *machine) write(name, content string) {
	m.t.Helper()
	m.must(os.MkdirAll(filepath.Dir(m.path(name)), 0o755))
	m.must(os.WriteFile(m.path(name), []byte(content), 0o644))
}

// upgrade is the package bringing another content of a file.
func (m *machine) upgrade(name, content string) {
	m.t.Helper()
	m.write(name, content)
	list := filepath.Join(m.root, "var/lib/dpkg/info/python3-neutron.md5sums")
	text, err := os.ReadFile(list)
	m.must(err)
	lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(l string) bool { return strings.HasSuffix(l, "/"+name) || l == "" })
	lines = append(lines, fmt.Sprintf("%x  usr/lib/python3/dist-packages/%s\n", md5.Sum([]byte(content)), name))
	m.must(os.WriteFile(list, []byte(strings.Join(lines, "\n")), 0o644))
}

// state is every file and folder of the code, and all that is kept of overlays, with content, mode, owner and time.
func (m *machine) state() string {
	m.t.Helper()
	var b strings.Builder
	m.must(filepath.WalkDir(filepath.Dir(m.code), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		s := info.Sys().(*syscall.Stat_t)
		short, _ := filepath.Rel(filepath.Dir(m.code), name)
		if d.IsDir() {
			fmt.Fprintf(&b, "%s %s %d:%d\n", short, info.Mode(), s.Uid, s.Gid)
			return nil
		}
		if d.Type() == fs.ModeSymlink {
			to, err := os.Readlink(name)
			fmt.Fprintf(&b, "%s -> %s\n", short, to)
			return err
		}
		content, err := os.ReadFile(name)
		fmt.Fprintf(&b, "%s %s %d:%d %d %d %x\n", short, info.Mode(), s.Uid, s.Gid, s.Nlink, info.ModTime().UnixNano(), sha256.Sum256(content))
		return err
	}))
	return b.String()
}

// same fails with the lines that differ.
func (m *machine) same(what, want, got string) {
	m.t.Helper()
	if diff := differ(want, got); diff != "" {
		m.t.Fatalf("%s: differs:\n%s", what, diff)
	}
}

func differ(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	var diff []string
	for _, line := range a {
		if !slices.Contains(b, line) {
			diff = append(diff, "- "+line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			diff = append(diff, "+ "+line)
		}
	}
	return strings.Join(diff, "\n")
}

// spotless fails when anything is kept of overlays.
func (m *machine) spotless() {
	m.t.Helper()
	m.must(Settle(m.t.Context(), m, "neutron"))
	entries, err := os.ReadDir(filepath.Join(m.root, "var/lib/toastdev/overlay"))
	if !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatalf("overlays are kept: %v, %v", entries, err)
	}
}

// imports is what a program sees that imports the code.
func (m *machine) imports(expression string) string {
	m.t.Helper()
	c := exec.Command("python3", "-I", "-B", "-c", "import sys; sys.path.insert(0, sys.argv[1]); from neutron.agent.l3 import agent, dvr; print("+expression+")", filepath.Dir(m.code))
	out, err := c.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func (m *machine) want(files map[string]string) Want {
	w := Want{Component: "neutron", Root: m.code, Layers: []Layer{{"patch x", "1"}}, Files: map[string]File{}}
	for name, content := range files {
		w.Files[name] = File{Content: []byte(content), Absent: content == "absent"}
	}
	return w
}

// patched changes, adds (in folders that are not there), removes, and makes a file executable.
func (m *machine) patched() Want {
	w := m.want(map[string]string{
		"neutron/agent/l3/agent.py":       "NAME = 'patched'\n",
		"neutron/agent/l3/old.py":         "absent",
		"neutron/agent/toast/__init__.py": "",
		"neutron/agent/toast/data/a.json": "{}",
		"neutron/agent/toast/hook.py":     "HOOK = 1\n",
		"EGG-INFO/entry_points.txt":       entryPoints + "neutron-toast = neutron.agent.toast.hook:main\n",
	})
	w.Files["neutron/agent/linux/utils.py"] = File{Content: []byte(packaged["neutron/agent/linux/utils.py"]), Mode: 0o755}
	return w
}

func lay(t *testing.T, m *machine, w Want, options ...Option) Outcome {
	t.Helper()
	o, err := Lay(t.Context(), m, w, options...)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func lift(t *testing.T, m *machine, options ...Option) Outcome {
	t.Helper()
	o, err := Lift(t.Context(), m, "neutron", options...)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestWhatIsLaidIsLiveAndWhatIsLiftedIsAsItWas(t *testing.T) {
	m := installed(t)
	before := m.state()
	if o := lay(t, m, m.patched()); len(o.Changed) != 7 || !slices.Equal(o.Changed, o.Pending) {
		t.Errorf("%+v", o)
	}
	if got := m.imports("agent.NAME, dvr.NAME, __import__('neutron.agent.toast.hook').agent.toast.hook.HOOK"); got != "patched patched 1" {
		t.Errorf("a program sees %s", got)
	}
	if _, err := os.Stat(m.path("neutron/agent/l3/old.py")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("old.py: %v", err)
	}
	if info, err := os.Stat(m.path("neutron/agent/linux/utils.py")); err != nil || info.Mode() != 0o755 {
		t.Errorf("utils.py: %v, %v", info.Mode(), err)
	}
	if text, err := os.ReadFile(m.path("neutron-21.0.0.egg-info/entry_points.txt")); err != nil || !strings.Contains(string(text), "neutron-toast") {
		t.Errorf("entry points: %s, %v", text, err)
	}
	if o := lift(t, m); len(o.Changed) != 7 {
		t.Errorf("%+v", o)
	}
	m.same("lifted", before, m.state())
	m.spotless()
	if o := lift(t, m); len(o.Changed)+len(o.Pending) != 0 {
		t.Errorf("lifted twice: %+v", o)
	}
	m.same("lifted twice", before, m.state())
}

func TestLaidTwiceChangesNothing(t *testing.T) {
	m := installed(t)
	lay(t, m, m.patched())
	if err := Settle(t.Context(), m, "neutron"); err != nil {
		t.Fatal(err)
	}
	laid := m.state()
	if o := lay(t, m, m.patched()); len(o.Changed)+len(o.Pending) != 0 {
		t.Errorf("%+v", o)
	}
	m.same("laid twice", laid, m.state())
}

func TestTheNextLayTakesBackWhatItDoesNotWant(t *testing.T) {
	m := installed(t)
	before := m.state()
	lay(t, m, m.patched())
	o := lay(t, m, m.want(map[string]string{"neutron/agent/l3/agent.py": "NAME = 'again'\n"}))
	if len(o.Changed) != 7 || m.imports("agent.NAME") != "again" {
		t.Errorf("%+v, a program sees %s", o, m.imports("agent.NAME"))
	}
	if _, err := os.Stat(m.path("neutron/agent/toast")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	// Content that is the package's own is not laid.
	lay(t, m, m.want(map[string]string{"neutron/agent/l3/agent.py": packaged["neutron/agent/l3/agent.py"]}))
	m.same("wanted as the package has it", before, m.state())
	lift(t, m)
	m.spotless()
}

func TestAmendLeavesOtherFiles(t *testing.T) {
	m := installed(t)
	before := m.state()
	lay(t, m, m.patched())
	w := m.want(map[string]string{"neutron/agent/l3/dvr.py": "NAME = 'amended'\n"})
	if o, err := Amend(t.Context(), m, w, slices.Collect(maps.Keys(w.Files))); err != nil || !slices.Equal(o.Changed, []string{"neutron/agent/l3/dvr.py"}) || len(o.Pending) != 8 {
		t.Fatalf("%+v, %v", o, err)
	}
	if got := m.imports("agent.NAME, dvr.NAME"); got != "patched amended" {
		t.Errorf("a program sees %s", got)
	}
	laid, err := Read(t.Context(), m)
	if err != nil || len(laid) != 1 || len(laid[0].Files) != 8 || !laid[0].Intact() {
		t.Errorf("%+v, %v", laid, err)
	}
	w = m.want(map[string]string{"neutron/agent/toast/hook.py": "absent", "neutron/agent/l3/dvr.py": packaged["neutron/agent/l3/dvr.py"]})
	if o, err := Amend(t.Context(), m, w, slices.Collect(maps.Keys(w.Files))); err != nil || len(o.Changed) != 2 {
		t.Fatalf("%+v, %v", o, err)
	}
	if got := m.imports("agent.NAME, dvr.NAME"); got != "patched patched" {
		t.Errorf("a program sees %s", got)
	}
	// A path that is not wanted any more is the package's again.
	if o, err := Amend(t.Context(), m, m.want(nil), []string{"neutron/agent/l3/agent.py"}); err != nil || len(o.Changed) == 0 || m.imports("agent.NAME") == "patched" {
		t.Errorf("%+v, %v: a program sees %s", o, err, m.imports("agent.NAME"))
	}
	lift(t, m)
	m.same("lifted", before, m.state())
	m.spotless()
}

// Interpreters go by a source's size and second: two saves within one must both be seen.
func TestASaveInTheSameSecondIsSeen(t *testing.T) {
	m := installed(t)
	for i := range 5 {
		lay(t, m, m.want(map[string]string{"neutron/agent/l3/agent.py": fmt.Sprintf("NAME = 'save %d'\n", i)}))
		if got := m.imports("agent.NAME"); got != fmt.Sprintf("save %d", i) {
			t.Fatalf("after save %d a program sees %s", i, got)
		}
	}
	lift(t, m)
	if got := m.imports("agent.NAME"); got != "package" {
		t.Errorf("a program sees %s", got)
	}
}

func TestASyntaxErrorIsToldWithItsPlaceAndNothingIsReplaced(t *testing.T) {
	m := installed(t)
	before := m.state()
	for content, line := range map[string]int{"a = 1\nif a\n    b\n": 2, "x = 1\n  y\n": 2, "\xff = 1\n": 1, "a\x00b": 1, "# coding: nonsense\n": 0} {
		w := m.patched()
		w.Files["neutron/agent/l3/dvr.py"] = File{Content: []byte(content)}
		_, err := Lay(t.Context(), m, w)
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || e.Code != fault.Invalid || e.File != "neutron/agent/l3/dvr.py" || line > 0 && e.Line != line || e.Node != "cmp1" {
			t.Errorf("%q: %v", content, err)
		}
		m.same("refused", before, m.state())
	}
	m.spotless()
}

func TestPathsThatLeaveTheCodeAreRefused(t *testing.T) {
	m := installed(t)
	outside := filepath.Join(m.root, "outside")
	m.must(os.MkdirAll(outside, 0o755))
	m.must(os.Symlink(outside, m.path("neutron/agent/away")))
	m.must(os.Symlink("agent.py", m.path("neutron/agent/l3/link.py")))
	before := m.state()
	for name, want := range map[string]string{
		"../etc/passwd":                         "leaves",
		"/etc/passwd":                           "leaves",
		"neutron/../neutronclient/__init__.py":  "leaves",
		"neutronclient/__init__.py":             "leaves",
		"neutron":                               "leaves",
		"neutron/":                              "leaves",
		"neutron//agent/a.py":                   "leaves",
		"neutron/a\nb.py":                       "control characters",
		"neutron/__pycache__/a.cpython-311.pyc": "cache",
		"neutron/agent/away/a.py":               "this is a link",
		"neutron/agent/away/b/a.py":             "this is a link",
		"neutron/agent/l3/link.py":              "this is a link",
		"neutron/agent/metadata":                "this is a folder",
		"neutron/agent/l3/agent.py/x.py":        "this is no folder",
		"EGG-INFO/../neutron/x.py":              "leaves",
	} {
		w := m.patched()
		w.Files[name] = File{Content: []byte("X = 1\n")}
		_, err := Lay(t.Context(), m, w)
		if fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	w := m.want(map[string]string{"neutron/new": "", "neutron/new/x.py": ""})
	if _, err := Lay(t.Context(), m, w); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("a file and a folder: %v", err)
	}
	w = m.patched()
	w.Root = m.path("nova")
	w.Files = nil
	if _, err := Lay(t.Context(), m, w); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("not installed: %v", err)
	}
	for _, w := range []Want{{Component: "../x", Root: m.code}, {Component: "neutron", Root: "neutron"}, {Component: "neutron", Root: "/"}} {
		if _, err := Lay(t.Context(), m, w); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", w, err)
		}
	}
	m.same("refused", before, m.state())
	if entries, _ := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("outside: %v", entries)
	}
}

func TestACodeThatIsNotThePackagesIsNotLaidOver(t *testing.T) {
	m := installed(t)
	w := m.patched()
	f := w.Files["neutron/agent/l3/agent.py"]
	f.Base = fmt.Sprintf("%x", sha256.Sum256([]byte("another release's")))
	w.Files["neutron/agent/l3/agent.py"] = f
	if _, err := Lay(t.Context(), m, w); err == nil || !strings.Contains(err.Error(), "not the one that this was made for") {
		t.Errorf("another base: %v", err)
	}
	f.Base = fmt.Sprintf("%x", sha256.Sum256([]byte(packaged["neutron/agent/l3/agent.py"])))
	w.Files["neutron/agent/l3/agent.py"] = f
	w.Files["neutron/agent/toast/hook.py"] = File{Content: []byte("HOOK = 1\n"), Base: NoFile}
	lay(t, m, w)
	lay(t, m, w) // the base is that beneath
	lift(t, m)

	m.write("neutron/agent/l3/agent.py", "NAME = 'by hand'\n")
	edited := m.state()
	if _, err := Lay(t.Context(), m, m.patched()); err == nil || !strings.Contains(err.Error(), "python3-neutron: it was edited") {
		t.Errorf("edited: %v", err)
	}
	m.same("refused", edited, m.state())
	lay(t, m, m.patched(), Force)
	lift(t, m)
	m.same("lifted: the edit is the base", edited, m.state())
}

func TestAnEditOfWhatIsLaidIsNotLost(t *testing.T) {
	m := installed(t)
	before := m.state()
	lay(t, m, m.patched())
	m.write("neutron/agent/l3/agent.py", "NAME = 'by hand'\n")
	m.write("neutron/agent/l3/new.py", "NEW = 1\n")
	edited := m.state()
	for _, w := range []Want{m.patched(), m.want(map[string]string{"neutron/agent/l3/agent.py": "NAME = 'again'\n"}), m.want(nil)} {
		if _, err := Lay(t.Context(), m, w); err == nil || !strings.Contains(err.Error(), "edited since it was laid") {
			t.Errorf("lay: %v", err)
		}
	}
	if _, err := Lift(t.Context(), m, "neutron"); err == nil || !strings.Contains(err.Error(), "edited since it was laid") {
		t.Errorf("lift: %v", err)
	}
	m.same("refused", edited, m.state())
	laid, err := Read(t.Context(), m)
	if err != nil || laid[0].Intact() {
		t.Errorf("%+v, %v", laid, err)
	}
	edits, err := Edits(t.Context(), m, "neutron", m.code)
	if err != nil || len(edits) != 2 || string(edits[0].Content) != "NEW = 1\n" || edits[0].Over != "" ||
		string(edits[1].Content) != "NAME = 'by hand'\n" || edits[1].Over != "laid" {
		t.Errorf("%+v, %v", edits, err)
	}
	m.must(os.Remove(m.path("neutron/agent/l3/new.py")))
	lift(t, m, Force)
	m.same("forced", before, m.state())
	m.spotless()
}

func TestAPackageChangedUnderWhatIsLaidIsToldAndStays(t *testing.T) {
	m := installed(t)
	lay(t, m, m.patched())
	m.upgrade("neutron/agent/l3/agent.py", "NAME = 'upgraded'\n")
	m.upgrade("neutron/agent/l3/old.py", "NAME = 'older'\n")
	m.upgrade("neutron/agent/toast/hook.py", "HOOK = 'the package has it now'\n")
	m.must(os.Remove(m.path("neutron/agent/linux/utils.py")))
	m.upgrade("neutron/agent/linux/utils.py", packaged["neutron/agent/linux/utils.py"])
	upgraded := m.state()
	_, err := Lay(t.Context(), m, m.patched())
	if e, ok := errors.AsType[*fault.Error](err); !ok || !strings.Contains(e.Message, "package python3-neutron was changed under") || !strings.Contains(e.Remedy, "take it off first") {
		t.Fatalf("lay: %v", err)
	}
	m.same("refused", upgraded, m.state())
	laid, err := Read(t.Context(), m)
	if err != nil || laid[0].Intact() || !slices.ContainsFunc(laid[0].Files, func(f LaidFile) bool { return f.State == Replaced }) {
		t.Errorf("%+v, %v", laid, err)
	}
	if got, err := Fetch(t.Context(), m, "neutron", m.code, "neutron/agent/l3/agent.py"); err != nil || string(got["neutron/agent/l3/agent.py"]) != "NAME = 'upgraded'\n" {
		t.Errorf("beneath: %q, %v", got, err)
	}
	o := lift(t, m)
	if !slices.Equal(o.Kept, []string{"neutron/agent/l3/agent.py", "neutron/agent/l3/old.py", "neutron/agent/toast/hook.py"}) {
		t.Errorf("%+v", o)
	}
	if got := m.imports("agent.NAME, __import__('neutron.agent.toast.hook').agent.toast.hook.HOOK"); got != "upgraded the package has it now" {
		t.Errorf("a program sees %s", got)
	}
	if _, err := os.Stat(m.path("neutron/agent/toast/data")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("our own is left: %v", err)
	}
	m.spotless()
	lay(t, m, m.want(map[string]string{"neutron/agent/l3/agent.py": "NAME = 'patched'\n"}))
}

func TestWhatIsBeneathIsTold(t *testing.T) {
	m := installed(t)
	base, err := Installed(t.Context(), m, "neutron", m.code)
	if err != nil {
		t.Fatal(err)
	}
	lay(t, m, m.patched())
	beneath, err := Installed(t.Context(), m, "neutron", m.code)
	if err != nil || !maps.Equal(base.Files, beneath.Files) || base.Version != "21.0.0" || string(beneath.EntryPoints) != entryPoints || base.Distributions["neutron-lib"] != "3.1.0" ||
		base.Distributions["oslo-config"] != "9.0.0" || base.Files["neutron/agent/l3/agent.py"] == "" {
		t.Errorf("%+v, %v", beneath, err)
	}
	got, err := Fetch(t.Context(), m, "neutron", m.code, "neutron/agent/l3/agent.py", "neutron/agent/l3/old.py", "neutron/agent/toast/hook.py", "neutron/agent/l3/dvr.py", "EGG-INFO/entry_points.txt")
	if err != nil || len(got) != 4 || string(got["neutron/agent/l3/agent.py"]) != packaged["neutron/agent/l3/agent.py"] || string(got["neutron/agent/l3/old.py"]) != packaged["neutron/agent/l3/old.py"] ||
		string(got["EGG-INFO/entry_points.txt"]) != entryPoints {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Fetch(t.Context(), m, "neutron", m.code, "../x"); err == nil {
		t.Error("a path outside is fetched")
	}
	laid, err := Read(t.Context(), m)
	if err != nil || len(laid) != 1 || laid[0].Component != "neutron" || laid[0].Digest != m.patched().Digest() || laid[0].Layers[0] != (Layer{"patch x", "1"}) ||
		time.Since(laid[0].At) > time.Minute || !laid[0].Intact() || len(laid[0].Pending) != 7 {
		t.Errorf("%+v, %v", laid, err)
	}
}

func TestARequestThatBreaksOffChangesNothing(t *testing.T) {
	m := installed(t)
	before := m.state()
	for m.cut = 1; ; m.cut += 93 {
		_, err := Lay(t.Context(), m, m.patched())
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "broke off") {
			t.Fatalf("%d bytes: %v", m.cut, err)
		}
		m.same("broken off", before, m.state())
	}
	if m.cut < 500 {
		t.Errorf("%d bytes are a whole request", m.cut)
	}
}

func TestOfTwoAtOnceEachIsWhole(t *testing.T) {
	m := installed(t)
	a := m.want(map[string]string{"neutron/agent/l3/agent.py": "NAME = 'a'\n", "neutron/agent/l3/dvr.py": "NAME = 'a'\n", "neutron/agent/a/a.py": ""})
	b := m.want(map[string]string{"neutron/agent/l3/agent.py": "NAME = 'b'\n", "neutron/agent/l3/dvr.py": "NAME = 'b'\n", "neutron/agent/b/b.py": ""})
	before := m.state()
	var group sync.WaitGroup
	for _, w := range []Want{a, b, a, b} {
		group.Go(func() {
			if _, err := Lay(t.Context(), m, w); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := m.imports("agent.NAME, dvr.NAME"); got != "a a" && got != "b b" {
		t.Errorf("a program sees %s", got)
	}
	lift(t, m)
	m.same("lifted", before, m.state())
}

// hook is a prelude that does something before the nth change of the disk.
func hook(n int, do string) string {
	return fmt.Sprintf(`import sys, os, errno
def hook(event, args, seen=[0]):
    if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    if event in ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.utime"):
        seen[0] += 1
        if seen[0] == %d:
            %s
sys.addaudithook(hook)
`, n, do)
}

// every makes the tests break off every step. Without it they take some of them: a minute less, and what is left out is alike.
var every = flag.Bool("every", false, "break off every step")

// next is the step that is broken off after the nth.
func next(n int) int {
	if *every {
		return n + 1
	}
	return n + 23
}

// steps are the changes that are broken off: the first, one over another, and the last.
var steps = []struct {
	name  string
	begin func(*testing.T, *machine)
	do    func(context.Context, *machine) error
}{
	{"lay", func(*testing.T, *machine) {}, func(ctx context.Context, m *machine) error {
		_, err := Lay(ctx, m, m.patched())
		return err
	}},
	{"lay over", func(t *testing.T, m *machine) { lay(t, m, m.patched()) }, func(ctx context.Context, m *machine) error {
		_, err := Lay(ctx, m, m.over())
		return err
	}},
	{"lift", func(t *testing.T, m *machine) { lay(t, m, m.patched()) }, func(ctx context.Context, m *machine) error {
		_, err := Lift(ctx, m, "neutron")
		return err
	}},
}

func (m *machine) over() Want {
	return m.want(map[string]string{
		"neutron/agent/l3/agent.py":   "NAME = 'over'\n",
		"neutron/agent/l3/dvr.py":     "NAME = 'over'\n",
		"neutron/agent/toast/hook.py": "HOOK = 2\n",
		"neutron/agent/other/x.py":    "",
	})
}

// content is state without times: those of what is laid are the moment's.
func (m *machine) content() string {
	var b strings.Builder
	for line := range strings.Lines(m.state()) {
		f := strings.Fields(line)
		if strings.HasSuffix(f[0], ".pyc") {
			continue
		}
		if len(f) > 4 {
			f[4] = ""
		}
		b.WriteString(strings.Join(f, " ") + "\n")
	}
	return b.String()
}

// Killed before any change of the disk, every run is finished or undone by the next, whichever that is.
func TestAKilledRunIsFinishedOrUndone(t *testing.T) {
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			t.Parallel()
			m := installed(t)
			package_ := m.state()
			step.begin(t, m)
			old := m.content()
			if err := step.do(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			done := m.content()
			lift(t, m)
			outcomes := map[string]int{}
			for n := 1; ; n = next(n) {
				step.begin(t, m)
				m.must(Settle(t.Context(), m, "neutron"))
				m.prelude = hook(n, "os.kill(os.getpid(), 9)")
				err := step.do(t.Context(), m)
				m.prelude = ""
				if err == nil {
					t.Logf("%d places, %v", n-1, outcomes)
					break
				}
				switch n % 3 {
				case 0:
					laid, err := Mend(t.Context(), m)
					if err != nil {
						t.Fatalf("killed at %d, mended: %v", n, err)
					}
					got := m.content()
					switch got {
					case old:
						outcomes["undone"]++
					case done:
						outcomes["finished"]++
						if len(laid) != 1 || len(laid[0].Pending) == 0 {
							t.Fatalf("killed at %d, finished: units are to be restarted, but nothing says so: %+v", n, laid)
						}
					default:
						t.Fatalf("killed at %d, mended: neither old nor new:\n%s\n\n%s", n, differ(old, got), differ(done, got))
					}
				case 1:
					if err := step.do(t.Context(), m); err != nil {
						t.Fatalf("killed at %d, again: %v", n, err)
					}
					m.same(fmt.Sprintf("killed at %d, again", n), done, m.content())
				case 2:
					lay(t, m, m.over())
					if got := m.imports("agent.NAME, dvr.NAME"); got != "over over" {
						t.Fatalf("killed at %d, another laid: a program sees %s", n, got)
					}
				}
				lift(t, m)
				m.same(fmt.Sprintf("killed at %d, lifted", n), package_, m.state())
				m.spotless()
			}
			if *every && (outcomes["undone"] == 0 || outcomes["finished"] == 0) {
				t.Errorf("killed in one half alone: %v", outcomes)
			}
		})
	}
}

// What mends may be killed too.
func TestAKilledMendIsMended(t *testing.T) {
	t.Parallel()
	m := installed(t)
	package_ := m.state()
	for first := 10; ; first = next(first + 20) {
		m.prelude = hook(first, "os.kill(os.getpid(), 9)")
		_, err := Lay(t.Context(), m, m.patched())
		if err == nil {
			break
		}
		for n := 2; ; n = next(n) {
			m.prelude = hook(n, "os.kill(os.getpid(), 9)")
			if _, err := Mend(t.Context(), m); err == nil {
				break
			}
		}
		m.prelude = ""
		if laid, err := Mend(t.Context(), m); err != nil || len(laid) > 0 && !laid[0].Intact() {
			t.Fatalf("killed at %d: %+v, %v", first, laid, err)
		}
		lift(t, m)
		m.same(fmt.Sprintf("killed at %d, lifted", first), package_, m.state())
		m.spotless()
	}
}

// A disk that fails in the middle leaves all as it was, at once.
func TestAFailedRunIsUndone(t *testing.T) {
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			t.Parallel()
			m := installed(t)
			package_ := m.state()
			step.begin(t, m)
			m.must(Settle(t.Context(), m, "neutron"))
			old := m.state()
			if err := step.do(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			done := m.content()
			lift(t, m)
			for n := 1; n < 130; n = next(n) { // more than any has
				step.begin(t, m)
				m.must(Settle(t.Context(), m, "neutron"))
				old = m.state()
				m.prelude = hook(n, `raise OSError(errno.ENOSPC, "No space left on device")`)
				err := step.do(t.Context(), m)
				m.prelude = ""
				if err == nil { // the failure is of no account, or never came
					m.same(fmt.Sprintf("not failed at %d", n), done, m.content())
					lift(t, m)
					continue
				}
				if !strings.Contains(err.Error(), "No space left on device") {
					t.Fatalf("failed at %d: %v", n, err)
				}
				laid, err := Read(t.Context(), m)
				if err != nil {
					t.Fatal(err)
				}
				if len(laid) == 1 && laid[0].Unfinished { // it was done, and cleaning up failed
					if _, err := Mend(t.Context(), m); err != nil {
						t.Fatal(err)
					}
					m.same(fmt.Sprintf("failed at %d, mended", n), done, m.content())
				} else {
					m.same(fmt.Sprintf("failed at %d", n), old, m.state())
				}
				lift(t, m)
				m.same(fmt.Sprintf("failed at %d, lifted", n), package_, m.state())
				m.spotless()
			}
		})
	}
}

func TestAFileThatChangesBetweenAKillAndTheNextRunIsNotLost(t *testing.T) {
	m := installed(t)
	before := m.state()
	m.prelude = `import sys, os
def hook(event, args):
    if event == "os.rename" and args[1].endswith("l3/agent.py"):
        os.kill(os.getpid(), 9)
sys.addaudithook(hook)
`
	if _, err := Lay(t.Context(), m, m.patched()); err == nil {
		t.Fatal("it was not killed")
	}
	m.prelude = ""
	kept, err := os.ReadFile(m.path("neutron/agent/l3/agent.py"))
	m.must(err)
	info, err := os.Stat(m.path("neutron/agent/l3/agent.py"))
	m.must(err)
	m.must(os.Remove(m.path("neutron/agent/l3/agent.py")))
	m.write("neutron/agent/l3/agent.py", "NAME = 'by hand'\n")
	if _, err := Lift(t.Context(), m, "neutron"); err == nil || !strings.Contains(err.Error(), "changed since a run was killed") {
		t.Fatal(err)
	}
	m.write("neutron/agent/l3/agent.py", string(kept))
	m.must(os.Chtimes(m.path("neutron/agent/l3/agent.py"), info.ModTime(), info.ModTime()))
	lift(t, m)
	m.same("lifted", before, m.state())
}
