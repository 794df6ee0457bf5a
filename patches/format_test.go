package patches

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/toast-cloud/toastdev/internal/fault"
)

const ownPatch = `Description: Says hello
 So that one sees it.
 .
 Twice.
Origin: toastdev
Last-Update: 2026-01-31
---
--- a/neutron/a.py
+++ b/neutron/a.py
@@ -1 +1 @@
-a
+b
`

const backport = `Description: Keeps the namespace
Origin: backport, b220d10125c8a1a2a3a4a5a6a7a8a9b0b1b2b3b4
Bug: https://launchpad.net/bugs/1482521
Applied-Upstream: 7.0.0
Leaves-Out:
 neutron/tests/a.py
 neutron/tests/b.py
---
`

func TestAnEntryIsReadAndWrittenTheSame(t *testing.T) {
	e, err := ParseEntry("own.patch", []byte(ownPatch))
	if err != nil {
		t.Fatal(err)
	}
	if e.Reference() || e.Header.Summary() != "Says hello" || e.Header.Why() != "So that one sees it.\n\nTwice." || e.Line != 8 || !slices.Equal(e.Touches(), []string{"neutron/a.py"}) {
		t.Errorf("%+v", e)
	}
	if string(e.Bytes()) != ownPatch {
		t.Errorf("written as\n%s", e.Bytes())
	}
	e, err = ParseEntry("backport.patch", []byte(backport))
	if err != nil {
		t.Fatal(err)
	}
	if !e.Reference() || !slices.Equal(e.LeavesOut, []string{"neutron/tests/a.py", "neutron/tests/b.py"}) || len(e.Diff) > 0 {
		t.Errorf("%+v", e)
	}
	if string(e.Bytes()) != backport {
		t.Errorf("written as\n%s", e.Bytes())
	}
}

func TestABadEntryIsRefusedAtItsLine(t *testing.T) {
	head := "Description: x\nOrigin: toastdev\n---\n"
	reference := "Description: x\nOrigin: upstream, " + strings.Repeat("ab", 20) + "\n"
	for name, test := range map[string]struct {
		text string
		line int
		want string
	}{
		"nothing":               {"", 1, "the header does not end"},
		"no header":             {"--- a/x\n+++ b/x\n", 1, `"--- a/x" is no field`},
		"no end":                {"Description: x\nOrigin: toastdev\n", 2, "the header does not end"},
		"no description":        {"Origin: toastdev\n---\n", 1, "does not say what it does"},
		"no origin":             {"Description: x\n---\n", 1, "does not say where it comes from"},
		"upstream of nothing":   {"Description: x\nOrigin: upstream\n---\n", 2, "does not say where it comes from"},
		"a short commit":        {"Description: x\nOrigin: upstream, abcdef12\n---\n", 2, `"abcdef12" is no commit`},
		"a misspelt field":      {"Description: x\nOrgin: toastdev\n---\n", 2, `no field is called "Orgin"`},
		"twice":                 {"Description: x\nDescription: y\n---\n", 2, "stands in line 1 already"},
		"a date":                {"Description: x\nOrigin: toastdev\nLast-Update: yesterday\n---\n", 3, `"yesterday" is no date`},
		"continuation":          {" x\n---\n", 1, "a continuation of nothing"},
		"leaves out its own":    {"Description: x\nOrigin: toastdev\nLeaves-Out: a\n---\n", 3, "leaves nothing out of itself"},
		"leaves the tree out":   {reference + "Leaves-Out: ../a\n---\n", 3, "leaves the tree"},
		"no diff":               {head, 4, "this is no diff"},
		"words":                 {head + "please change a.py\n", 4, "this is no diff"},
		"a resolution of words": {reference + "---\nplease\n", 4, "this is no diff"},
		"DOS header":            {"Description: x\r\nOrigin: toastdev\r\n---\r\n", 1, "CR LF"},
		"DOS diff":              {head + "--- a/x\r\n+++ b/x\r\n@@ -1 +1 @@\r\n-a\r\n+b\r\n", 4, "CR LF"},
		"binary":                {head + "diff --git a/x b/x\nindex 1..2 100644\nGIT binary patch\nliteral 1\n", 6, "a binary file"},
		"binary differs":        {head + "diff --git a/x b/x\nBinary files a/x and b/x differ\n", 5, "a binary file"},
		"bytes":                 {head + "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\x00\n+b\n", 7, "this is binary"},
		"above":                 {head + "--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n", 4, "leaves the tree"},
		"above, made":           {head + "--- /dev/null\n+++ b/neutron/../../x\n@@ -0,0 +1 @@\n+b\n", 5, "leaves the tree"},
		"above, quoted":         {head + "--- \"a/\\056./x\"\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", 4, "leaves the tree"},
		"above, renamed":        {head + "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to ../y\n", 7, "leaves the tree"},
		"absolute":              {head + "--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", 4, "it is absolute"},
		"absolute, below b":     {head + "--- a//etc/passwd\n+++ b//etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", 4, "it is absolute"},
		"git's own":             {head + "--- /dev/null\n+++ b/.git/hooks/post-checkout\n@@ -0,0 +1 @@\n+b\n", 5, "git's own"},
		"-p0":                   {head + "--- neutron/a.py\n+++ neutron/a.py\n@@ -1 +1 @@\n-a\n+b\n", 4, "does not begin with a/ or b/"},
		"a link":                {head + "diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc\n", 5, "symbolic link"},
		"a submodule":           {head + "diff --git a/x b/x\nnew file mode 160000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+Subproject\n", 5, "submodule"},
		"ends early":            {head + "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\n-b\n", 8, "ends early"},
		"too long":              {head + "--- a/x\n+++ b/x\n@@ -1,2 +1 @@\n a\n+b\n", 8, "more lines"},
		"no line of a hunk":     {head + "--- a/x\n+++ b/x\n@@ -1 +1 @@\nwhat\n", 7, `"what" is no line of a hunk`},
		"no hunk":               {head + "--- a/x\n+++ b/x\n@@ one @@\n", 6, "begins no hunk"},
		"hunk of nothing":       {head + "@@ -1 +1 @@\n-a\n+b\n", 4, "a hunk of no file"},
		"half a file":           {head + "diff --git a/x b/x\n--- a/x\n@@ -1 +1 @@\n", 5, "half of a file's header"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseEntry("p.patch", []byte(test.text))
			f, ok := err.(*fault.Error)
			if !ok || f.Code != fault.Invalid || f.File != "p.patch" || f.Line != test.line || f.Expected == "" && f.Remedy == "" || !strings.Contains(f.Message, test.want) {
				t.Errorf("line %d: %v", test.line, err)
			}
		})
	}
}

func TestAPatchFileNeedsNoHeader(t *testing.T) {
	dir := t.TempDir()
	diff := ownPatch[strings.Index(ownPatch, "--- a/"):]
	for name, text := range map[string]string{
		"plain.diff":  diff,
		"quilt.patch": "Index: neutron/a.py\n=====\n" + diff,
		"mail.patch":  "From abc Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nSubject: [PATCH] x\n\nWhy.\n---\n neutron/a.py | 2 +-\n\ndiff --git a/neutron/a.py b/neutron/a.py\nindex 1..2 100644\n" + diff + "-- \n2.39.5\n\n",
		"entry.patch": ownPatch,
		"moved.diff":  "diff --git a/neutron/a.py b/neutron/b.py\nsimilarity index 100%\nrename from neutron/a.py\nrename to neutron/b.py\n",
		"back.diff":   "--- b/neutron/a.py\n+++ a/neutron/a.py\n@@ -1 +1 @@\n-b\n+a\n",
		"mode.diff":   "diff --git a/neutron/a.py b/neutron/a.py\nold mode 100644\nnew mode 100755\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if e, err := ReadFile(file); err != nil || e.Touches()[0] != "neutron/a.py" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASeriesIsQuilts(t *testing.T) {
	good := fstest.MapFS{
		"zed/neutron/series":       {Data: []byte("# ours\n\nfirst.patch\nsecond.patch -p1 # because\n")},
		"zed/neutron/first.patch":  {Data: []byte(ownPatch)},
		"zed/neutron/second.patch": {Data: []byte(backport)},
		"zed/neutron/other.patch":  {Data: []byte("not in the series")},
		"custom/toast/README.md":   {},
	}
	all, err := Load(good)
	if err != nil || len(all) != 1 || len(all[0].Entries) != 2 || all[0].Entries[1].FullName() != "neutron/second" || all[0].Entries[1].File != "patches/zed/neutron/second.patch" {
		t.Fatalf("%v %+v", err, all)
	}
	if e, err := Find(all, "neutron/first"); err != nil || e.Name != "first" {
		t.Error(e, err)
	}
	for name, test := range map[string]struct{ series, want string }{
		"missing":   {"first.patch\nfrist.patch\n", `patches/zed/neutron/series:2:1: there is no frist.patch`},
		"twice":     {"first.patch\nfirst.patch\n", "first.patch is in line 1 already"},
		"-p0":       {"first.patch -p0\n", `"-p0" cannot stand here`},
		"no patch":  {"first.diff\n", `"first.diff" is no name of a patch`},
		"elsewhere": {"../../first.patch\n", "is no name of a patch"},
	} {
		bad := fstest.MapFS{"zed/neutron/series": {Data: []byte(test.series)}, "zed/neutron/first.patch": {Data: []byte(ownPatch)}}
		if _, err := Load(bad); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadRelease(good, "zde"); err == nil || !strings.Contains(err.Error(), `write "zed"`) {
		t.Error(err)
	}
}

func TestTheSeriesBuiltInAreWhole(t *testing.T) {
	all, err := Load(Builtin())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		files := patchesIn(Builtin(), s.Release+"/"+s.Component)
		if len(files) != len(s.Entries) {
			t.Errorf("%s/%s has %d patches, its series %d", s.Release, s.Component, len(files), len(s.Entries))
		}
		for _, e := range s.Entries {
			if e.Header.Why() == "" || e.Header.Get("Last-Update") == "" {
				t.Errorf("%s does not say why, or when it was looked at last", e.File)
			}
			if e.Reference() && (e.Header.Get("Bug") == "" || e.Header.Get("Applied-Upstream") == "") {
				t.Errorf("%s does not name its bug, or the release that has it", e.File)
			}
			plain := strings.HasPrefix(e.Header.Get("Origin"), "upstream")
			if e.Reference() && plain != (len(e.Diff) == 0 && len(e.LeavesOut) == 0) {
				t.Errorf("%s: upstream is a clean pick, backport one that has something of ours", e.File)
			}
		}
	}
}

func shelf(t *testing.T, series string, names ...string) (Shelf, string) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "zed/neutron/series"), series)
	for _, n := range names {
		write(t, filepath.Join(dir, "zed/neutron", n+Ext), strings.Replace(ownPatch, "Says hello", n, 1))
	}
	return Shelf{Files: os.DirFS(dir), Dir: dir, Release: "zed", Component: "neutron"}, filepath.Join(dir, "zed/neutron/series")
}

func TestAnEntryMovesWithItsComments(t *testing.T) {
	series := "# ours\n\n# about one\none.patch\ntwo.patch\n# about three\nthree.patch\n# the end\n"
	for name, test := range map[string]struct {
		move, other string
		after       bool
		want        string
	}{
		"first":  {"three", "", false, "# ours\n\n# about three\nthree.patch\n# about one\none.patch\ntwo.patch\n# the end\n"},
		"last":   {"one", "", true, "# ours\n\ntwo.patch\n# about three\nthree.patch\n# about one\none.patch\n# the end\n"},
		"before": {"three", "two", false, "# ours\n\n# about one\none.patch\n# about three\nthree.patch\ntwo.patch\n# the end\n"},
		"after":  {"one", "two", true, "# ours\n\ntwo.patch\n# about one\none.patch\n# about three\nthree.patch\n# the end\n"},
	} {
		s, file := shelf(t, series, "one", "two", "three")
		if err := s.Move(test.move, test.other, test.after); err != nil {
			t.Fatal(name, err)
		}
		if text, err := os.ReadFile(file); err != nil || string(text) != test.want {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
		all, err := Load(s.Files)
		if err != nil {
			t.Fatal(err)
		}
		three, _ := shelf(t, series, "one", "two", "three")
		before, err := Load(three.Files)
		if err != nil {
			t.Fatal(err)
		}
		order, err := Reordered(before[0].Entries, test.move, test.other, test.after)
		if err != nil || !slices.EqualFunc(order, all[0].Entries, func(a, b Entry) bool { return a.Name == b.Name }) {
			t.Errorf("%s: Reordered and Move differ: %v", name, err)
		}
	}
	s, _ := shelf(t, series, "one", "two", "three")
	if s.Move("one", "four", false) == nil || s.Move("four", "one", false) == nil {
		t.Error("moved what is not there")
	}
}

func TestAnEntryIsPutAtTheEndOrInItsPlace(t *testing.T) {
	s, file := shelf(t, "# ours\none.patch\n", "one")
	e, err := ParseEntry("", []byte(ownPatch))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"two", "one"} {
		e.Name = name
		if err := s.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "# ours\none.patch\ntwo.patch\n" {
		t.Errorf("%v %s", err, text)
	}
	for _, name := range []string{"../x", "A", "", "x y"} {
		if e.Name = name; s.Put(e) == nil {
			t.Errorf("%q was taken", name)
		}
	}
	e.Name, e.Header = "three", Header{{"Origin", "toastdev"}}
	if s.Put(e) == nil {
		t.Error("an entry that does not say what it does was written")
	}
	if _, err := fs.Stat(s.Files, "zed/neutron/three.patch"); err == nil {
		t.Error("the refused entry is there")
	}
}

func TestARefreshedPatchHasTheLinesItAppliesAt(t *testing.T) {
	before := lineNumbers(60, nil)
	e := own(t, "p", diffOf(t, before, lineNumbers(60, map[int]string{30: "thirty"})))
	base := tree("new\nnew\n" + before)
	c := &Checker{}
	fresh, v, err := c.Refresh(t.Context(), base, nil, e, nil)
	if err != nil || v.State != Applies || !strings.Contains(string(fresh.Diff), "@@ -29,7 +29,7 @@") {
		t.Fatalf("%v %v\n%s", err, v.State, fresh.Diff)
	}
	if verdicts, _, err := c.Check(t.Context(), base, []Entry{*fresh}); err != nil || verdicts[0].Detail != "" {
		t.Error(err, verdicts)
	}
	edits := diffOf(t, before, lineNumbers(60, map[int]string{30: "THIRTY"}))
	fresh, _, err = c.Refresh(t.Context(), tree(before), nil, e, edits)
	if err != nil || !strings.Contains(string(fresh.Diff), "+THIRTY") || strings.Contains(string(fresh.Diff), "+thirty") {
		t.Errorf("%v\n%s", err, fresh.Diff)
	}
	if fresh, v, err := c.Refresh(t.Context(), tree("x\n"), nil, e, nil); err != nil || fresh != nil || v.State != Conflicts {
		t.Error(err, v.State)
	}
}

func TestEditsBeyondAPickBecomeItsResolution(t *testing.T) {
	r, base, clean, conflicting, gone := upstream(t)
	files, err := ReadCommit(t.Context(), r.dir, base)
	if err != nil {
		t.Fatal(err)
	}
	c := &Checker{Upstream: map[string]string{"neutron": r.dir}, Cache: t.TempDir()}
	if fresh, v, err := c.Refresh(t.Context(), files, nil, reference(conflicting), nil); err != nil || fresh != nil || v.State != Conflicts {
		t.Fatal(err, v.State)
	}
	edits := diffOf(t, lineNumbers(60, nil), lineNumbers(60, map[int]string{30: "THIRTY", 50: "fifty"}))
	fresh, v, err := c.Refresh(t.Context(), files, nil, reference(conflicting), edits)
	if err != nil || v.State != Applies {
		t.Fatal(err, v)
	}
	if text := string(fresh.Diff); !strings.Contains(text, "+THIRTY") || strings.Contains(text, "+fifty") || !strings.HasPrefix(fresh.Header.Get("Origin"), "backport, ") {
		t.Errorf("%s", fresh.Bytes())
	}
	// what the tree does not have is left out without asking
	fresh, v, err = c.Refresh(t.Context(), files, nil, reference(gone), nil)
	if err != nil || v.State != Applies || !slices.Equal(fresh.LeavesOut, []string{"neutron/tests/test_a.py"}) {
		t.Errorf("%v %+v", err, fresh)
	}
	if again, err := ParseEntry("p", fresh.Bytes()); err != nil || !slices.Equal(again.LeavesOut, fresh.LeavesOut) {
		t.Errorf("%v\n%s", err, fresh.Bytes())
	}
	// a resolution that is not needed any more goes
	stale := reference(clean)
	if err := stale.SetDiff(edits); err != nil {
		t.Fatal(err)
	}
	fresh, _, err = c.Refresh(t.Context(), files, nil, stale, nil)
	if err != nil || len(fresh.Diff) > 0 || !strings.HasPrefix(fresh.Header.Get("Origin"), "upstream, ") {
		t.Errorf("%v %s", err, fresh.Bytes())
	}
}

func TestAMailIsWhatGitAmTakes(t *testing.T) {
	r := newRepo(t)
	r.commit("base", "neutron/a.py", lineNumbers(30, nil))
	e := own(t, "p", diffOf(t, lineNumbers(30, nil), lineNumbers(30, map[int]string{10: "ten"})))
	e.Header = Header{{"Description", "Zählt\nWeil.\n--- kein Ende\ndiff auch nicht"}, {"Origin", "toastdev"}, {"Author", "Ä Ö <a@example.org>"}, {"Bug", "https://launchpad.net/bugs/1"}, {"Last-Update", "2026-01-31"}}
	file := filepath.Join(t.TempDir(), "0001-p.patch")
	if err := os.WriteFile(file, Mail(&e, e.Diff, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	r.git("am", "-q", file)
	if got := r.git("log", "-1", "--format=%an|%ad|%s|%b", "--date=short"); got != "Ä Ö|2026-01-31|Zählt|Weil.\n --- kein Ende\n diff auch nicht\n\nBug: https://launchpad.net/bugs/1" {
		t.Errorf("%q", got)
	}
	if text, err := os.ReadFile(filepath.Join(r.dir, "neutron/a.py")); err != nil || string(text) != lineNumbers(30, map[int]string{10: "ten"}) {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestACommitsOwnWordsMakeItsHeader(t *testing.T) {
	r, _, clean, _, _ := upstream(t)
	for _, tag := range []string{"7.0.0", "7.0.0.0rc1", "10.0.0", "mitaka-eol"} {
		r.git("tag", tag, "main")
	}
	c := &Checker{Upstream: map[string]string{"neutron": r.dir}}
	commit, err := c.Commit(t.Context(), "neutron", clean[:10])
	if err != nil {
		t.Fatal(err)
	}
	if err := c.FindFirst(t.Context(), "neutron", commit); err != nil {
		t.Fatal(err)
	}
	if commit.ID != clean || commit.Subject != "clean" || commit.First != "7.0.0" || !slices.Equal(commit.Bugs, []string{"1434824"}) {
		t.Errorf("%+v", commit)
	}
	if got := firstRelease([]string{"7.0.0", "10.0.0", "2015.1.1"}); got != "2015.1.1" {
		t.Error(got)
	}
}

func FuzzEntry(f *testing.F) {
	f.Add(ownPatch)
	f.Add(backport)
	f.Add("Description: x\nOrigin: toastdev\n---\ndiff --git a/x b/x\nold mode 100644\nnew mode 100755\n")
	f.Add("Description: x\nOrigin: toastdev\n---\ndiff --git \nrename to \"\\\n@@ -0,0 +0,0 @@\n")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseEntry("p", []byte(text))
		if err != nil {
			return
		}
		for _, path := range e.Touches() {
			if inside(path) != nil {
				t.Errorf("the path %q was taken", path)
			}
		}
		if again, err := ParseEntry("p", e.Bytes()); err != nil || again.Header.String() != e.Header.String() {
			t.Errorf("written, it is not read the same: %v\n%s", err, e.Bytes())
		}
	})
}
