package patches

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/source"
)

// State is how a patch stands to a tree.
type State string

const (
	Applies   State = "applies"
	Applied   State = "applied"  // toastdev laid it over the node; its record says so
	Upstream  State = "upstream" // the tree has it already
	Conflicts State = "conflicts"
)

// Verdict is how an entry stands to the tree that the entries before it left.
type Verdict struct {
	Entry     *Entry
	State     State
	Detail    string     // one line
	Offsets   []Offset   // hunks that fit at another line than they say
	Conflicts []Conflict // of each file the first place that does not fit
	Diff      []byte     // all it does to the tree, when the Checker has Diffs and it applies
}

// Offset is a hunk that fits at another line than it says.
type Offset struct {
	File  string `json:"file"`
	Hunk  int    `json:"hunk"`  // from 1
	Line  int    `json:"line"`  // where it fits
	Lines int    `json:"lines"` // how far that is; negative: further up
}

// Conflict is a place where an entry does not fit.
type Conflict struct {
	File     string   `json:"file"`
	Hunk     int      `json:"hunk"` // from 1; 0: the whole file
	Line     int      `json:"line"` // of the tree's file, where Found begins
	Reason   string   `json:"reason"`
	Expected []string `json:"expected"`
	Found    []string `json:"found"`
}

func (c Conflict) String() string {
	where := c.File
	if c.Hunk > 0 {
		where += fmt.Sprintf(": hunk %d, line %d", c.Hunk, c.Line)
	}
	return where + ": " + c.Reason
}

// Checker tries patches on trees, by git itself. Neither trees nor repositories are written to.
type Checker struct {
	Upstream map[string]string // a component's repository of upstream's: a path, or a URL
	Cache    string            // a folder that keeps clones and picks; "": none are kept
	Diffs    bool              // fill in Verdict.Diff
	Code     bool              // trees are what packages install: of an entry, what it does to code counts alone
}

// Check tries the entries on a tree in order, each on what those before it left. The files are all that differ from the tree
// then; they are nil when an entry conflicts. An error is what no verdict can be given on: an entry that touches what it must
// not, a repository that lacks a commit.
func (c *Checker) Check(ctx context.Context, base Tree, entries []Entry) ([]Verdict, Files, error) {
	r, err := c.begin(ctx, base)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	var diffs []Entry
	for _, e := range entries {
		if !e.Reference() {
			diffs = append(diffs, e)
		}
	}
	if err := r.loadDiffs(ctx, diffs); err != nil {
		return nil, nil, err
	}
	var verdicts []Verdict
	whole := true
	for i := range entries {
		e := &entries[i]
		if c.Code {
			e = e.code()
		}
		v, err := r.entry(ctx, e)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", e.Name, err)
		}
		v.Entry = &entries[i]
		whole = whole && v.State != Conflicts
		verdicts = append(verdicts, v)
	}
	if !whole {
		return verdicts, nil, nil
	}
	files, err := r.changed(ctx)
	if c.Code && len(entries) > 0 {
		maps.DeleteFunc(files, func(p string, _ File) bool { return !Code(entries[0].Component, p) })
	}
	return verdicts, files, err
}

// run is a check under way: a tree as far as it was needed, in the index of a scratch repository.
type run struct {
	*scratch
	c     *Checker
	base  Tree
	repos map[string]*repository

	had    map[string]source.Item // what was loaded of the tree; no object: the tree has no such file
	now    map[string]source.Item // the index; nil when it must be read
	listed bool                   // all of the tree is loaded
	unmade map[string]string      // objects of the tree that nothing has needed yet, and a path that has them
}

func (c *Checker) begin(ctx context.Context, base Tree) (*run, error) {
	dir := ""
	if c.Cache != "" {
		dir = filepath.Join(c.Cache, "tmp")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	s, err := newScratch(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &run{scratch: s, c: c, base: base, repos: map[string]*repository{}, had: map[string]source.Item{}, now: map[string]source.Item{}, unmade: map[string]string{}}, nil
}

// entry tries one entry, and leaves its result in the index when it applies.
func (r *run) entry(ctx context.Context, e *Entry) (Verdict, error) {
	before := ""
	if r.c.Diffs {
		var err error
		if before, err = r.wholeTree(ctx); err != nil {
			return Verdict{}, err
		}
	}
	v, err := r.step(ctx, e)
	v.Entry = e
	if err != nil || !r.c.Diffs || v.State != Applies {
		return v, err
	}
	after, err := r.tree(ctx)
	if err != nil {
		return v, err
	}
	v.Diff, err = r.Run(ctx, nil, "diff-tree", "-p", "--full-index", "--no-renames", before, after)
	return v, err
}

func (r *run) step(ctx context.Context, e *Entry) (Verdict, error) {
	if e.Reference() {
		return r.pick(ctx, e)
	}
	if len(e.files) == 0 {
		return Verdict{State: Applies, Detail: "it changes no code"}, nil
	}
	offsets, conflicts, err := r.apply(ctx, e)
	if err != nil {
		return Verdict{}, err
	}
	if len(conflicts) == 0 {
		return Verdict{State: Applies, Detail: moved(offsets), Offsets: offsets}, nil
	}
	there, err := r.there(ctx, e)
	if err != nil {
		return Verdict{}, err
	}
	if there {
		return Verdict{State: Upstream, Detail: "the tree has it"}, nil
	}
	return Verdict{State: Conflicts, Detail: summary(conflicts), Conflicts: conflicts}, nil
}

// moved tells of offsets.
func moved(offsets []Offset) string {
	if len(offsets) == 0 {
		return ""
	}
	o := offsets[0]
	text := fmt.Sprintf("%s: hunk %d at line %d, offset %+d", o.File, o.Hunk, o.Line, o.Lines)
	if len(offsets) > 1 {
		text += fmt.Sprintf("; %d more", len(offsets)-1)
	}
	return text
}

func summary(conflicts []Conflict) string {
	text := conflicts[0].String()
	if len(conflicts) > 1 {
		text += fmt.Sprintf("; %d more", len(conflicts)-1)
	}
	return text
}

// loadDiffs loads what the entries' diffs touch, at once.
func (r *run) loadDiffs(ctx context.Context, entries []Entry) error {
	var add []string
	for i := range entries {
		e := &entries[i]
		for _, f := range e.files {
			for _, p := range []string{f.Old, f.New} {
				line, err := r.fetch(p)
				if err != nil {
					return e.at(f.Line, err)
				}
				add = append(add, line)
			}
		}
	}
	return r.add(ctx, add)
}

// at gives a fault the place in e's file where it comes from.
func (e *Entry) at(line int, err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok && f.File == "" {
		f.File, f.Line = e.File, line
	}
	return err
}

// fetch reads one file of the tree, and returns its line for the index; "" when it is loaded or not there.
func (r *run) fetch(p string) (string, error) {
	if it, ok := r.had[p]; ok || p == "" {
		return "", r.make(it.Object)
	}
	file, err := r.base.Read(p)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		r.had[p] = source.Item{}
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if file.Mode&fs.ModeSymlink != 0 {
		return "", fault.New(fault.Invalid, "the path %q is a link in the tree", p)
	}
	return r.keep(p, file)
}

// keep writes a file of the tree, and returns its line for the index.
func (r *run) keep(p string, file File) (string, error) {
	object, err := r.object("blob", file.Content)
	if err != nil {
		return "", err
	}
	return r.note(p, source.Item{Mode: gitMode(file.Mode), Object: object}), nil
}

func (r *run) note(p string, it source.Item) string {
	r.had[p] = it
	if r.now != nil {
		r.now[p] = it
	}
	return it.Mode + " " + it.Object + "\t" + p
}

// make writes an object of the tree that was only named until now.
func (r *run) make(object string) error {
	p, ok := r.unmade[object]
	if !ok {
		return nil
	}
	delete(r.unmade, object)
	file, err := r.base.Read(p)
	if err != nil {
		return err
	}
	made, err := r.object("blob", file.Content)
	if err == nil && made != object {
		err = fault.New(fault.Failed, "%s changed while it was looked at", p).WithRemedy("run it again")
	}
	return err
}

// makeAll writes the objects of the tree that no lent repository has.
func (r *run) makeAll(ctx context.Context) error {
	if len(r.unmade) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(r.unmade))
	if r.part {
		for _, name := range names {
			if err := r.make(name); err != nil {
				return err
			}
		}
		return nil
	}
	out, err := r.Run(ctx, []byte(strings.Join(names, "\n")+"\n"), "cat-file", "--batch-check=%(objectname)")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		name, missing, _ := strings.Cut(strings.TrimSpace(line), " ")
		if missing == "" {
			delete(r.unmade, name)
			continue
		}
		if err := r.make(name); err != nil {
			return err
		}
	}
	return nil
}

// add puts lines into the index; empty ones are passed over.
func (r *run) add(ctx context.Context, lines []string) error {
	lines = slices.DeleteFunc(lines, func(l string) bool { return l == "" })
	if len(lines) == 0 {
		return nil
	}
	_, err := r.Run(ctx, []byte(strings.Join(lines, "\x00")+"\x00"), "update-index", "-z", "--index-info")
	return err
}

// list loads all of the tree.
func (r *run) list(ctx context.Context) error {
	if r.listed {
		return nil
	}
	paths, err := r.base.Paths(ctx)
	if err != nil {
		return err
	}
	r.listed = true
	var add []string
	for _, p := range paths {
		if _, ok := r.had[p]; ok {
			continue
		}
		file, err := r.base.Read(p)
		if err != nil {
			return err
		}
		_, object := hashed("blob", file.Content)
		if !r.made[object] {
			r.unmade[object] = p
		}
		add = append(add, r.note(p, source.Item{Mode: gitMode(file.Mode), Object: object}))
	}
	return r.add(ctx, add)
}

// index is what the tree so far has, of what was loaded.
func (r *run) index(ctx context.Context) (map[string]source.Item, error) {
	if r.now == nil {
		out, err := r.Run(ctx, nil, "ls-files", "-s", "-z")
		if err != nil {
			return nil, err
		}
		r.now = source.Items(out)
	}
	return r.now, nil
}

// tree is the index as a tree.
func (r *run) tree(ctx context.Context) (string, error) {
	out, err := r.Run(ctx, nil, "write-tree", "--missing-ok") // it may name what was not needed
	return strings.TrimSpace(string(out)), err
}

// changed is all files that differ from the tree.
func (r *run) changed(ctx context.Context) (Files, error) {
	now, err := r.index(ctx)
	if err != nil {
		return nil, err
	}
	files := Files{}
	var objects []string
	for p, had := range r.had {
		if had.Object != "" && now[p] == (source.Item{}) {
			files[p] = File{Absent: true}
		}
	}
	for p, is := range now {
		if r.had[p] != is {
			objects = append(objects, is.Object)
		}
	}
	contents, err := r.Blobs(ctx, objects)
	if err != nil {
		return nil, err
	}
	for p, is := range now {
		if r.had[p] != is {
			files[p] = File{Content: contents[is.Object], Mode: is.FileMode()}
		}
	}
	return files, nil
}

var (
	checking  = regexp.MustCompile(`^Checking patch (.*)\.\.\.$`)
	succeeded = regexp.MustCompile(`^Hunk #(\d+) succeeded at (\d+) \(offset (-?\d+) lines?\)\.$`)
	failedAt  = regexp.MustCompile(`^error: patch failed: (.*):(\d+)$`)
	failedFor = regexp.MustCompile(`^error: (.*): (already exists in index|does not exist in index|No such file or directory|.*)$`)
)

// apply lays e's diff over the index, or says why it does not fit; then the index is as it was.
func (r *run) apply(ctx context.Context, e *Entry) ([]Offset, []Conflict, error) {
	if err := r.loadDiffs(ctx, []Entry{*e}); err != nil {
		return nil, nil, err
	}
	_, told, err := r.Both(ctx, e.Diff, "apply", "--cached", "-p1", "-v", "--whitespace=nowarn", "-")
	if failed, ok := errors.AsType[*source.GitError](err); ok {
		conflicts, err := r.conflicts(ctx, e, failed.Stderr)
		return nil, conflicts, err
	}
	if err != nil {
		return nil, nil, err
	}
	r.now = nil
	var offsets []Offset
	file := ""
	for line := range strings.Lines(told) {
		line = strings.TrimSuffix(line, "\n")
		if m := checking.FindStringSubmatch(line); m != nil {
			file = unquote(m[1])
			if _, to, ok := strings.Cut(file, " => "); ok {
				file = to
			}
		} else if m := succeeded.FindStringSubmatch(line); m != nil {
			o := Offset{File: file}
			o.Hunk, _ = strconv.Atoi(m[1])
			o.Line, _ = strconv.Atoi(m[2])
			o.Lines, _ = strconv.Atoi(m[3])
			offsets = append(offsets, o)
		}
	}
	return offsets, nil, nil
}

// there says that the tree has what e's diff does: taken back, it applies.
func (r *run) there(ctx context.Context, e *Entry) (bool, error) {
	_, err := r.Run(ctx, e.Diff, "apply", "-R", "--cached", "--check", "-p1", "--whitespace=nowarn", "-")
	if _, ok := errors.AsType[*source.GitError](err); ok {
		return false, nil
	}
	return err == nil, err
}

func unquote(name string) string {
	if s, err := strconv.Unquote(name); err == nil {
		return s
	}
	return name
}

// conflicts reads what git apply says of a diff that does not fit.
func (r *run) conflicts(ctx context.Context, e *Entry, told string) ([]Conflict, error) {
	var conflicts []Conflict
	seen := map[string]bool{}
	note := func(c Conflict) {
		if !seen[c.File] {
			seen[c.File] = true
			conflicts = append(conflicts, c)
		}
	}
	for line := range strings.Lines(told) {
		line = strings.TrimSuffix(line, "\n")
		if m := failedAt.FindStringSubmatch(line); m != nil {
			start, _ := strconv.Atoi(m[2])
			c, err := r.misfit(ctx, e, unquote(m[1]), start)
			if err != nil {
				return nil, err
			}
			note(c)
		} else if m := failedFor.FindStringSubmatch(line); m != nil {
			c := Conflict{File: unquote(m[1]), Reason: m[2]}
			switch {
			case strings.HasPrefix(m[2], "already exists"):
				c.Reason = "the tree has this file already"
			case strings.HasPrefix(m[2], "does not exist"), strings.HasPrefix(m[2], "No such file"):
				c.Reason = "the tree has no such file"
			}
			note(c)
		}
	}
	if len(conflicts) == 0 {
		return nil, fault.New(fault.Failed, "git apply: %s", strings.TrimSpace(told))
	}
	return conflicts, nil
}

// misfit is where and why the hunk of a file that begins at a line does not fit.
func (r *run) misfit(ctx context.Context, e *Entry, file string, start int) (Conflict, error) {
	c := Conflict{File: file, Line: start, Reason: "the lines around it are not as expected"}
	now, err := r.index(ctx)
	if err != nil {
		return c, err
	}
	var content []byte
	if it := now[file]; it.Object != "" {
		if content, err = r.blob(ctx, it.Object); err != nil {
			return c, err
		}
	}
	for _, f := range e.files {
		if f.Old != file && f.New != file {
			continue
		}
		for i, h := range f.Hunks {
			if h.OldStart != start {
				continue
			}
			c.Hunk = i + 1
			if len(content) == 0 {
				c.Reason, c.Expected = "the tree's file is empty", h.before()
				return c, nil
			}
			c.Line, c.Expected, c.Found = nearest(splitLines(content), h.before(), h.OldStart)
			if len(c.Expected) == 0 {
				c.Reason = "the lines are there, but not where the hunk must be (the file's beginning or end, or before an earlier hunk)"
			} else if sameButEnds(c.Expected, c.Found) {
				c.Reason = "line ends differ: LF and CR LF"
			}
			return c, nil
		}
	}
	return c, nil
}

func splitLines(content []byte) []string {
	lines := strings.Split(string(content), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// nearest is the place in a file that is likest to what a hunk expects, nearest to its line among equals: what differs there,
// without the equal lines around.
func nearest(file, want []string, start int) (line int, expected, found []string) {
	best, at := -1, 0
	for i := range file {
		score := 0
		for j, w := range want {
			if i+j < len(file) && strings.TrimSuffix(file[i+j], "\r") == strings.TrimSuffix(w, "\r") {
				score++
			}
		}
		if score > best || score == best && abs(i+1-start) < abs(at+1-start) {
			best, at = score, i
		}
	}
	above, expected, found := differing(want, file[at:min(at+len(want), len(file))])
	if len(expected)+len(found) == 0 {
		above = 0
	}
	return at + 1 + above, expected, found
}

// differing is two runs of lines without those at the beginning and the end that are the same, and how many were at the beginning.
func differing(a, b []string) (above int, x, y []string) {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b, above = a[1:], b[1:], above+1
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return above, append([]string{}, a...), append([]string{}, b...)
}

func abs(n int) int { return max(n, -n) }

func sameButEnds(a, b []string) bool {
	return slices.EqualFunc(a, b, func(x, y string) bool { return strings.TrimSuffix(x, "\r") == strings.TrimSuffix(y, "\r") })
}
