package patches

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/source"
)

// ReadCommit is the tree of a commit in the repository of a work tree.
func ReadCommit(ctx context.Context, dir, ref string) (Files, error) {
	if _, err := os.Lstat(filepath.Join(dir, ".git")); err != nil {
		e := fault.New(fault.Invalid, "this is no git work tree, so nothing says what was edited in it")
		e.File = dir
		return nil, e.WithRemedy("name a folder with the tree as it was: --base PATH")
	}
	if strings.HasPrefix(ref, "-") {
		return nil, fault.New(fault.Invalid, "%q is no commit", ref)
	}
	repo := source.Repository(dir)
	commit, err := repo.Find(ctx, ref)
	if _, ok := errors.AsType[*source.GitError](err); ok {
		return nil, fault.New(fault.NotFound, "%s has no commit %s", dir, ref)
	}
	if err != nil {
		return nil, err
	}
	return repo.Files(ctx, commit, func(string) bool { return true })
}

// Diff is the unified diff that makes after of before; empty when they are the same. A binary file is refused.
func (c *Checker) Diff(ctx context.Context, before, after Tree) ([]byte, error) {
	var both [2]Files
	for i, tree := range []Tree{before, after} {
		files, ok := tree.(Files)
		if !ok {
			paths, err := tree.Paths(ctx)
			if err != nil {
				return nil, err
			}
			files = Files{}
			for _, p := range paths {
				if files[p], err = tree.Read(p); err != nil {
					return nil, err
				}
			}
		}
		both[i] = files
	}
	r, err := c.begin(ctx, Files{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var trees [2]string
	for i := range both {
		var lines []string
		for _, p := range differ(both[0], both[1]) {
			file, ok := both[i][p]
			if !ok || file.Absent {
				lines = append(lines, "0 "+strings.Repeat("0", 40)+"\t"+p)
				continue
			}
			line, err := r.keep(p, file)
			if err != nil {
				return nil, err
			}
			lines = append(lines, line)
		}
		slices.Sort(lines)
		if err := r.add(ctx, lines); err != nil {
			return nil, err
		}
		if trees[i], err = r.tree(ctx); err != nil {
			return nil, err
		}
	}
	return r.between(ctx, trees[0], trees[1])
}

// between is the diff of two trees as our entries have it: without the hashes, which say nothing to a reader.
func (r *run) between(ctx context.Context, before, after string) ([]byte, error) {
	out, err := r.Run(ctx, nil, "diff-tree", "-p", "--no-renames", before, after)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	head := false
	for line := range bytes.Lines(out) {
		switch {
		case bytes.HasPrefix(line, []byte("diff --git ")):
			head = true
		case bytes.HasPrefix(line, []byte("@@ ")):
			head = false
		case head && bytes.HasPrefix(line, []byte("index ")):
			continue
		}
		b.Write(line)
	}
	return b.Bytes(), nil
}

// SetDiff gives e another diff, and checks it.
func (e *Entry) SetDiff(diff []byte) error {
	e.Diff, e.files = nil, nil
	return e.setDiff(diff, 1)
}

// Refresh is e as it has to be after the entries before it. With edits (a diff against the tree), these are what it is to do
// in the end: a patch of our own becomes them, for a commit what it does not do of them becomes the resolution. Without, a diff
// gets the lines it applies at, and what is not needed any more goes. What is open is in the verdict; then e is nil.
func (c *Checker) Refresh(ctx context.Context, base Tree, before []Entry, e Entry, edits []byte) (*Entry, Verdict, error) {
	r, err := c.begin(ctx, base)
	if err != nil {
		return nil, Verdict{}, err
	}
	defer r.Close()
	for i := range before {
		if _, err := r.entry(ctx, &before[i]); err != nil {
			return nil, Verdict{}, fmt.Errorf("%s: %w", before[i].Name, err)
		}
	}
	if e.Reference() {
		if err := r.resolve(ctx, &e, edits); err != nil {
			return nil, Verdict{}, err
		}
	} else if len(edits) > 0 {
		if err := e.SetDiff(edits); err != nil {
			return nil, Verdict{}, err
		}
	}
	r.c = &Checker{Upstream: c.Upstream, Cache: c.Cache, Diffs: true}
	from, err := r.wholeTree(ctx)
	if err != nil {
		return nil, Verdict{}, err
	}
	v, err := r.entry(ctx, &e)
	if err != nil || v.State == Conflicts {
		return nil, v, err
	}
	if !e.Reference() && v.State == Applies {
		to, err := r.tree(ctx)
		if err != nil {
			return nil, v, err
		}
		diff, err := r.between(ctx, from, to)
		if err != nil {
			return nil, v, err
		}
		if err := e.SetDiff(diff); err != nil {
			return nil, v, err
		}
		v.Offsets, v.Detail = nil, ""
	}
	v.Entry = &e
	return &e, v, nil
}

// resolve makes of e's commit what it leaves out and how it is resolved.
func (r *run) resolve(ctx context.Context, e *Entry, edits []byte) error {
	p, err := r.picked(ctx, e)
	if err != nil {
		return err
	}
	var conflicting []string
	for _, c := range p.Conflicts {
		if !slices.Contains(conflicting, c.File) {
			conflicting = append(conflicting, c.File)
		}
	}
	index, err := os.ReadFile(filepath.Join(r.root, "index"))
	if err != nil {
		return err
	}
	restore := func() error {
		r.now = nil
		return os.WriteFile(filepath.Join(r.root, "index"), index, 0o644)
	}
	switch {
	case len(edits) > 0:
		done := Entry{File: "the tree's edits"}
		if err := done.SetDiff(edits); err != nil {
			return err
		}
		_, conflicts, err := r.apply(ctx, &done)
		if err != nil {
			return err
		}
		if len(conflicts) > 0 {
			return fault.New(fault.Invalid, "the tree's edits do not fit what the entries before this one left: %s", summary(conflicts)).
				WithRemedy("make them on a tree that has these entries: toastdev patch export, git am")
		}
		after, err := r.tree(ctx)
		if err != nil {
			return err
		}
		if err := restore(); err != nil {
			return err
		}
		if err := r.lay(ctx, p); err != nil {
			return err
		}
		mechanical, err := r.tree(ctx)
		if err != nil {
			return err
		}
		diff, err := r.between(ctx, mechanical, after)
		if err != nil {
			return err
		}
		e.Diff, e.files, e.LeavesOut = nil, nil, nil
		if len(diff) > 0 {
			if err := e.SetDiff(diff); err != nil {
				return err
			}
		}
		touched := e.Touches()
		for _, path := range conflicting {
			if !slices.Contains(touched, path) {
				e.LeavesOut = append(e.LeavesOut, path)
			}
		}
		if err := restore(); err != nil {
			return err
		}
	case len(conflicting) == 0:
		e.Diff, e.files, e.LeavesOut = nil, nil, nil
	default: // what the tree does not have is left out without asking
		touched := e.Touches()
		e.LeavesOut = slices.DeleteFunc(e.LeavesOut, func(path string) bool { return !slices.Contains(conflicting, path) })
		for _, c := range p.Conflicts {
			if c.Hunk == 0 && r.absent(c.File) && !slices.Contains(touched, c.File) && !slices.Contains(e.LeavesOut, c.File) {
				e.LeavesOut = append(e.LeavesOut, c.File)
			}
		}
	}
	origin := "upstream, "
	if len(e.Diff) > 0 || len(e.LeavesOut) > 0 {
		origin = "backport, "
	}
	leaves := strings.Join(e.LeavesOut, "\n")
	if leaves != "" {
		leaves = "\n" + leaves
	}
	e.Header = e.Header.With("Origin", origin+e.Commit).With("Leaves-Out", leaves)
	return nil
}

// absent says that the tree so far has no such file.
func (r *run) absent(path string) bool {
	now, err := r.index(context.Background())
	return err == nil && now[path].Object == ""
}

// Shelf is a folder of the project that entries are written to: patches/<release>/<component>.
type Shelf struct {
	Files     fs.FS  // what there is of series: the project's over those built in
	Dir       string // the project's folder patches
	Release   string
	Component string
}

func (s Shelf) path(name string) string { return filepath.Join(s.Dir, s.Release, s.Component, name) }

// order is the series file as it is, the project's or the one built in.
func (s Shelf) order() ([]seriesLine, error) {
	name := s.Release + "/" + s.Component + "/" + SeriesFile
	text, err := fs.ReadFile(s.Files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseSeries(where(s.Files, name), text)
}

// Put writes an entry, at the end of the series when it is not in it.
func (s Shelf) Put(e *Entry) error {
	if !nameForm.MatchString(e.Name) {
		return &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("%q is no name of a patch", e.Name), Expected: "at most 100 of a-z, 0-9 and ._+-"}
	}
	lines, err := s.order()
	if err != nil {
		return err
	}
	e.Release, e.Component, e.File = s.Release, s.Component, s.path(e.Name+Ext)
	if _, err := ParseEntry(e.File, e.Bytes()); err != nil {
		return err
	}
	if err := replace(e.File, e.Bytes()); err != nil {
		return err
	}
	if !slices.ContainsFunc(lines, func(l seriesLine) bool { return l.name == e.Name }) {
		lines = append(lines, seriesLine{text: e.Name + Ext, name: e.Name})
		return s.write(lines)
	}
	return nil
}

// Move puts an entry before or after another one, or first or last when the other is empty. The comments right above it go
// with it.
func (s Shelf) Move(name, other string, after bool) error {
	lines, err := s.order()
	if err != nil {
		return err
	}
	var blocks [][]seriesLine
	var pending []seriesLine
	for _, l := range lines {
		pending = append(pending, l)
		if l.name == "" && strings.TrimSpace(l.text) == "" { // an empty line ends what belongs to the next entry
			blocks, pending = append(blocks, pending), nil
		} else if l.name != "" {
			blocks, pending = append(blocks, pending), nil
		}
	}
	is := func(name string) func([]seriesLine) bool {
		return func(b []seriesLine) bool { return b[len(b)-1].name == name }
	}
	i := slices.IndexFunc(blocks, is(name))
	if i < 0 {
		return fault.New(fault.Invalid, "the series of %s for %s has no %q", s.Component, s.Release, name)
	}
	block := blocks[i]
	blocks = slices.Delete(blocks, i, i+1)
	named := func(b []seriesLine) bool { return b[len(b)-1].name != "" }
	at := len(blocks)
	switch {
	case other != "":
		if at = slices.IndexFunc(blocks, is(other)); at < 0 {
			return fault.New(fault.Invalid, "the series of %s for %s has no other %q", s.Component, s.Release, other)
		}
		if after {
			at++
		}
	case !after:
		if at = slices.IndexFunc(blocks, named); at < 0 {
			at = 0
		}
	}
	blocks = slices.Insert(blocks, at, block)
	return s.write(append(slices.Concat(blocks...), pending...))
}

func (s Shelf) write(lines []seriesLine) error {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.text + "\n")
	}
	return replace(s.path(SeriesFile), []byte(b.String()))
}

// replace writes a file whole or not at all.
func replace(file string, text []byte) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	part, err := os.CreateTemp(dir, ".part-")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	_, err = part.Write(text)
	if err = errors.Join(err, part.Chmod(0o644), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), file)
}

// Reordered is entries with one moved as Shelf.Move does.
func Reordered(entries []Entry, name, other string, after bool) ([]Entry, error) {
	i := slices.IndexFunc(entries, func(e Entry) bool { return e.Name == name })
	if i < 0 || name == other {
		return nil, fault.New(fault.Invalid, "%q cannot be moved before or after itself", name)
	}
	moved := entries[i]
	rest := slices.Delete(slices.Clone(entries), i, i+1)
	at := 0
	if after {
		at = len(rest)
	}
	if other != "" {
		if at = slices.IndexFunc(rest, func(e Entry) bool { return e.Name == other }); at < 0 {
			var names []string
			for _, e := range rest {
				names = append(names, e.Name)
			}
			return nil, fault.New(fault.Invalid, "the series has no %q", other).Suggest(other, names)
		}
		if after {
			at++
		}
	}
	return slices.Insert(rest, at, moved), nil
}
