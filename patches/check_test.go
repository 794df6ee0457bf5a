package patches

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// folder writes files (a txtar) into a folder of their own.
func folder(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range txtar.Parse([]byte(text)).Files {
		write(t, filepath.Join(dir, f.Name), string(f.Data))
	}
	return dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// repo is a git repository for a test; it needs git alone.
type repo struct {
	t   *testing.T
	dir string
}

func newRepo(t *testing.T) repo {
	r := repo{t, t.TempDir()}
	r.git("init", "-q", "-b", "main")
	return r
}

func (r repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "core.hooksPath=/dev/null"}, args...)...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes a file and commits all there is; the commit's name is returned.
func (r repo) commit(message, file, text string) string {
	r.t.Helper()
	if file != "" {
		write(r.t, filepath.Join(r.dir, file), text)
	}
	r.git("add", "-A")
	r.git("commit", "-q", "-m", message)
	return r.git("rev-parse", "HEAD")
}

// lineNumbers is lines 1 to n with some of them replaced.
func lineNumbers(n int, changes map[int]string) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		if line, ok := changes[i]; ok {
			if line != "" {
				b.WriteString(line + "\n")
			}
			continue
		}
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// diffOf is the diff that git makes of two texts of neutron/a.py.
func diffOf(t *testing.T, before, after string) []byte {
	t.Helper()
	c := &Checker{}
	diff, err := c.Diff(t.Context(), Files{"neutron/a.py": {Content: []byte(before), Mode: 0o644}}, Files{"neutron/a.py": {Content: []byte(after), Mode: 0o644}})
	if err != nil {
		t.Fatal(err)
	}
	return diff
}

func own(t *testing.T, name string, diff []byte) Entry {
	t.Helper()
	e := Entry{Component: "neutron", Name: name, File: name + ".patch", Header: Header{{"Description", name}, {"Origin", "toastdev"}}}
	if err := e.SetDiff(diff); err != nil {
		t.Fatal(err)
	}
	return e
}

func reference(commit string) Entry {
	return Entry{Component: "neutron", Name: "pick", File: "pick.patch", Commit: commit, Header: Header{{"Description", "pick"}, {"Origin", "upstream, " + commit}}}
}

func states(verdicts []Verdict) string {
	var all []string
	for _, v := range verdicts {
		all = append(all, string(v.State))
	}
	return strings.Join(all, " ")
}

// tree is neutron with one file.
func tree(text string) Files {
	return Files{"neutron/__init__.py": {Mode: 0o644}, "neutron/a.py": {Content: []byte(text), Mode: 0o644}}
}

func TestADiffAppliesWithItsOffsetIsThereOrConflicts(t *testing.T) {
	before := lineNumbers(60, nil)
	diff := diffOf(t, before, lineNumbers(60, map[int]string{20: "twenty", 50: "fifty"}))
	moved := "new\nnew\nnew\n" + before
	for name, c := range map[string]struct {
		tree, states, detail string
	}{
		"as it is":   {before, "applies", ""},
		"moved":      {moved, "applies", "neutron/a.py: hunk 1 at line 20, offset +3; 1 more"},
		"there":      {lineNumbers(60, map[int]string{20: "twenty", 50: "fifty"}), "upstream", "the tree has it"},
		"half of it": {lineNumbers(60, map[int]string{20: "twenty"}), "conflicts", "neutron/a.py: hunk 1, line 20: the lines around it are not as expected"},
		"another":    {lineNumbers(60, map[int]string{51: "another"}), "conflicts", "neutron/a.py: hunk 2, line 51: the lines around it are not as expected"},
		"empty":      {"", "conflicts", "neutron/a.py: hunk 1, line 17: the tree's file is empty"},
		"DOS":        {strings.ReplaceAll(before, "\n", "\r\n"), "conflicts", "neutron/a.py: hunk 1, line 17: line ends differ: LF and CR LF"},
	} {
		t.Run(name, func(t *testing.T) {
			verdicts, files, err := (&Checker{}).Check(t.Context(), tree(c.tree), []Entry{own(t, "p", diff)})
			if err != nil {
				t.Fatal(err)
			}
			if states(verdicts) != c.states || verdicts[0].Detail != c.detail {
				t.Errorf("%s: %s", states(verdicts), verdicts[0].Detail)
			}
			if (c.states == "conflicts") != (files == nil) {
				t.Errorf("files: %v", files)
			}
			// git's own verdict on a work tree
			dir := t.TempDir()
			write(t, filepath.Join(dir, "neutron/a.py"), c.tree)
			cmd := exec.Command("git", "apply", "--check", "-")
			cmd.Dir, cmd.Stdin = dir, strings.NewReader(string(diff))
			cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
			if err := cmd.Run(); (err == nil) != (c.states == "applies") {
				t.Errorf("git says %v", err)
			}
		})
	}
}

func TestAConflictShowsWhatWasExpectedAndFound(t *testing.T) {
	diff := diffOf(t, lineNumbers(30, nil), lineNumbers(30, map[int]string{20: "twenty"}))
	verdicts, _, err := (&Checker{}).Check(t.Context(), tree(lineNumbers(30, map[int]string{20: "other"})), []Entry{own(t, "p", diff)})
	if err != nil {
		t.Fatal(err)
	}
	c := verdicts[0].Conflicts[0]
	if c.Hunk != 1 || c.Line != 20 || !slices.Equal(c.Expected, []string{"line 20"}) || !slices.Equal(c.Found, []string{"other"}) {
		t.Errorf("%+v", c)
	}
}

func TestEachIsTriedOnWhatThoseBeforeItLeft(t *testing.T) {
	one, two, three := lineNumbers(30, nil), lineNumbers(30, map[int]string{10: "ten"}), lineNumbers(30, map[int]string{10: "TEN"})
	first, second := own(t, "first", diffOf(t, one, two)), own(t, "second", diffOf(t, two, three))
	make := Entry{Component: "neutron", Name: "make", File: "make.patch"}
	if err := make.SetDiff([]byte("--- /dev/null\n+++ b/neutron/new.py\n@@ -0,0 +1 @@\n+x = 1\n")); err != nil {
		t.Fatal(err)
	}
	c := &Checker{}
	verdicts, files, err := c.Check(t.Context(), tree(one), []Entry{first, make, second})
	if err != nil || states(verdicts) != "applies applies applies" {
		t.Fatal(err, states(verdicts))
	}
	if string(files["neutron/a.py"].Content) != three || string(files["neutron/new.py"].Content) != "x = 1\n" || len(files) != 2 {
		t.Errorf("%v", files)
	}
	verdicts, files, err = c.Check(t.Context(), tree(one), []Entry{second, first})
	if err != nil || states(verdicts) != "conflicts applies" || files != nil {
		t.Error(err, states(verdicts), files)
	}
	verdicts, _, err = c.Check(t.Context(), tree(one), []Entry{make, make})
	if err != nil || states(verdicts) != "applies upstream" {
		t.Error(err, states(verdicts))
	}
}

// upstream is a repository with a base, and changes after it; its work tree is at the base.
func upstream(t *testing.T) (r repo, base, clean, conflicting, gone string) {
	r = newRepo(t)
	write(t, filepath.Join(r.dir, "setup.cfg"), "[metadata]\nname = neutron\n")
	write(t, filepath.Join(r.dir, "neutron/a.py"), lineNumbers(60, nil))
	base = r.commit("base", "neutron/b.py", lineNumbers(30, nil))
	clean = r.commit("clean\n\nCloses-Bug: #1434824", "neutron/a.py", lineNumbers(60, map[int]string{10: "ten"}))
	r.commit("rewrite", "neutron/a.py", lineNumbers(60, map[int]string{10: "ten", 30: "thirty"}))
	r.commit("tests", "neutron/tests/test_a.py", "def test():\n    pass\n")
	write(t, filepath.Join(r.dir, "neutron/tests/test_a.py"), "def test():\n    assert 1\n")
	gone = r.commit("with a test", "neutron/b.py", lineNumbers(30, map[int]string{5: "five"}))
	write(t, filepath.Join(r.dir, "neutron/b.py"), lineNumbers(30, map[int]string{5: "five", 25: "twenty-five"}))
	conflicting = r.commit("conflicting", "neutron/a.py", lineNumbers(60, map[int]string{10: "ten", 30: "THIRTY", 50: "fifty"}))
	r.git("checkout", "-q", base)
	return r, base, clean, conflicting, gone
}

func TestACommitIsPickedAsCherryPickDoes(t *testing.T) {
	r, _, clean, conflicting, gone := upstream(t)
	d, err := OpenDir("neutron", r.dir)
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	c := &Checker{Upstream: map[string]string{"neutron": r.dir}, Cache: cache}
	resolution := diffOf(t, lineNumbers(60, map[int]string{50: "fifty"}), lineNumbers(60, map[int]string{30: "THIRTY", 50: "fifty"}))
	with := func(e Entry, leaves []string, diff []byte) Entry {
		e.LeavesOut = leaves
		if diff != nil {
			if err := e.SetDiff(diff); err != nil {
				t.Fatal(err)
			}
		}
		return e
	}
	for name, test := range map[string]struct {
		entries        []Entry
		states, detail string
	}{
		"clean":                    {[]Entry{reference(clean)}, "applies", ""},
		"twice":                    {[]Entry{reference(clean), reference(clean)}, "applies upstream", "the tree has it"},
		"conflicting":              {[]Entry{reference(conflicting)}, "conflicts", "neutron/a.py: hunk 1, line 30: the lines around it are not as the commit expects"},
		"resolved":                 {[]Entry{with(reference(conflicting), nil, resolution)}, "applies", ""},
		"left out":                 {[]Entry{with(reference(conflicting), []string{"neutron/a.py"}, nil)}, "applies", "left out: neutron/a.py"},
		"no such file":             {[]Entry{reference(gone)}, "conflicts", "neutron/tests/test_a.py: the tree has no such file"},
		"no such file, left out":   {[]Entry{with(reference(gone), []string{"neutron/tests/test_a.py"}, nil)}, "applies", "left out: neutron/tests/test_a.py"},
		"stale":                    {[]Entry{with(reference(clean), nil, resolution)}, "conflicts", "the resolution is stale: the commit applies without it"},
		"resolved twice":           {[]Entry{with(reference(conflicting), nil, resolution), with(reference(conflicting), nil, resolution)}, "applies upstream", "the tree has it"},
		"a resolution of no place": {[]Entry{with(reference(conflicting), nil, diffOf(t, lineNumbers(60, map[int]string{30: "no"}), lineNumbers(60, nil)))}, "conflicts", "the resolution: neutron/a.py: hunk 1, line 30: the lines around it are not as expected"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, c := range []*Checker{c, {Upstream: c.Upstream}, {Cache: cache}} { // made and kept, made without a cache, kept
				verdicts, _, err := c.Check(t.Context(), d, test.entries)
				if err != nil {
					t.Fatal(err)
				}
				if last := verdicts[len(verdicts)-1]; states(verdicts) != test.states || last.Detail != test.detail {
					t.Errorf("%s: %q", states(verdicts), last.Detail)
				}
			}
		})
	}
	_, files, err := c.Check(t.Context(), d, []Entry{with(reference(conflicting), nil, resolution)})
	if err != nil || string(files["neutron/a.py"].Content) != lineNumbers(60, map[int]string{30: "THIRTY", 50: "fifty"}) || len(files) != 2 {
		t.Errorf("%v %v", err, files)
	}
	if out := r.git("status", "--porcelain"); out != "" {
		t.Errorf("the work tree was written to: %s", out)
	}
}

func TestAPickFollowsARenamedFile(t *testing.T) {
	r, base, _, _, _ := upstream(t)
	change := r.git("rev-parse", "main~4") // clean
	r.git("checkout", "-q", "-b", "ours", base)
	r.git("mv", "neutron/a.py", "neutron/renamed.py")
	r.commit("rename", "", "")
	d, err := OpenDir("neutron", r.dir)
	if err != nil {
		t.Fatal(err)
	}
	verdicts, files, err := (&Checker{Upstream: map[string]string{"neutron": r.dir}}).Check(t.Context(), d, []Entry{reference(change)})
	if err != nil || states(verdicts) != "applies" || !strings.Contains(string(files["neutron/renamed.py"].Content), "ten") {
		t.Error(err, states(verdicts), files)
	}
}

func TestUpstreamsRepositoryIsNamedByURLToo(t *testing.T) {
	r, base, clean, _, _ := upstream(t)
	r.git("config", "uploadpack.allowFilter", "true")
	r.git("config", "uploadpack.allowAnySHA1InWant", "true")
	d, err := OpenDir("neutron", r.dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &Checker{Upstream: map[string]string{"neutron": "file://" + r.dir}, Cache: t.TempDir()}
	verdicts, _, err := c.Check(t.Context(), d, []Entry{reference(clean)})
	if err != nil || states(verdicts) != "applies" {
		t.Fatal(err, states(verdicts))
	}
	r.git("checkout", "-q", "main")
	later := r.commit("later", "neutron/b.py", lineNumbers(30, map[int]string{15: "fifteen"}))
	r.git("checkout", "-q", base)
	verdicts, _, err = c.Check(t.Context(), d, []Entry{reference(later)}) // fetched
	if err != nil || states(verdicts) != "applies" {
		t.Fatal(err, states(verdicts))
	}
}

func TestWhatNoVerdictCanBeGivenOn(t *testing.T) {
	r, base, clean, _, _ := upstream(t)
	d, err := OpenDir("neutron", r.dir)
	if err != nil {
		t.Fatal(err)
	}
	r.git("checkout", "-q", "-b", "side", base)
	r.commit("side", "neutron/c.py", "")
	r.git("merge", "-q", "--no-ff", "-m", "merge", clean)
	merge := r.git("rev-parse", "HEAD")
	r.git("checkout", "-q", base)
	if err := os.Symlink("/etc", filepath.Join(r.dir, "neutron/etc")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.py", filepath.Join(r.dir, "neutron/link.py")); err != nil {
		t.Fatal(err)
	}
	shallow := t.TempDir()
	r.git("clone", "-q", "--bare", "--depth", "1", "--branch", "main", "file://"+r.dir, shallow)
	add := func(path string) Entry {
		return own(t, "p", []byte("--- /dev/null\n+++ b/"+path+"\n@@ -0,0 +1 @@\n+x\n"))
	}
	for name, test := range map[string]struct {
		entry    Entry
		upstream string
		code     fault.Code
		want     string
	}{
		"no repository named": {reference(clean), "", fault.Missing, "none is named"},
		"no repository":       {reference(clean), t.TempDir(), fault.Invalid, "no git repository"},
		"no folder":           {reference(clean), "/nowhere", fault.Invalid, "no such folder"},
		"no commit":           {reference(strings.Repeat("12", 20)), r.dir, fault.NotFound, "has no commit 1212"},
		"a merge":             {reference(merge), r.dir, fault.Invalid, "is a merge"},
		"the first":           {reference(base), r.dir, fault.Invalid, "first"},
		"shallow":             {reference(r.git("rev-parse", "main")), shallow, fault.NotFound, "shallow"},
		"through a link":      {add("neutron/etc/passwd"), "", fault.Invalid, "goes through a link"},
		"a link":              {add("neutron/link.py"), "", fault.Invalid, "is a link"},
		"a folder":            {add("neutron"), "", fault.Invalid, "is a folder"},
	} {
		t.Run(name, func(t *testing.T) {
			_, files, err := (&Checker{Upstream: map[string]string{"neutron": test.upstream}}).Check(t.Context(), d, []Entry{test.entry})
			if fault.CodeOf(err) != test.code || err == nil || !strings.Contains(err.Error(), test.want) || files != nil {
				t.Errorf("%s: %v", fault.CodeOf(err), err)
			}
		})
	}
}

func TestATreeIsOfItsComponent(t *testing.T) {
	for name, test := range map[string]struct{ files, want string }{
		"checkout":      {"-- setup.cfg --\n[metadata]\nname = neutron\n-- neutron/a.py --\n", ""},
		"installed":     {"-- neutron/a.py --\n-- nova/a.py --\n", ""},
		"another's":     {"-- setup.cfg --\n[metadata]\nname = nova\n-- neutron/a.py --\n", "this is the tree of nova"},
		"nothing of it": {"-- nova/a.py --\n", "it has no folder neutron"},
	} {
		_, err := OpenDir("neutron", folder(t, test.files))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := OpenDir("neutron", "/nowhere"); err == nil {
		t.Error("a folder that is not there")
	}
}

func TestATreesPathsLeaveOutWhatRunningLeavesBehind(t *testing.T) {
	text := "-- neutron/a.py --\n-- neutron/__pycache__/a.pyc --\n-- neutron/b.pyc --\n-- nova/a.py --\n-- .tox/x.py --\n"
	installed, err := OpenDir("neutron", folder(t, text))
	if err != nil {
		t.Fatal(err)
	}
	if paths, err := installed.Paths(t.Context()); err != nil || !slices.Equal(paths, []string{"neutron/a.py"}) {
		t.Error(paths, err)
	}
	whole, err := OpenDir("neutron", folder(t, text+"-- setup.cfg --\n[metadata]\nname=neutron\n"))
	if err != nil {
		t.Fatal(err)
	}
	if paths, err := whole.Paths(t.Context()); err != nil || !slices.Equal(paths, []string{"neutron/a.py", "nova/a.py", "setup.cfg"}) {
		t.Error(paths, err)
	}
}

func TestACheckEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := (&Checker{}).Check(ctx, tree("x\n"), nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	cache := t.TempDir()
	c := &Checker{Cache: cache}
	if _, _, err := c.Check(t.Context(), tree("x\n"), []Entry{own(t, "p", diffOf(t, "x\n", "y\n"))}); err != nil {
		t.Fatal(err)
	}
	filepath.WalkDir(cache, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			t.Error(path, err)
		}
		return nil
	})
}
