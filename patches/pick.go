package patches

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/source"
)

// picked is what a commit picked onto a tree leaves, where hunks that conflict keep the tree's side.
type picked struct {
	Changes   map[string]pickedFile `json:"changes"` // what differs from the tree
	Conflicts []Conflict            `json:"conflicts"`
}

type pickedFile struct {
	Mode    string `json:"mode"` // empty: the file goes
	Content []byte `json:"content"`
}

// pick tries a commit, and what is ours to it.
func (r *run) pick(ctx context.Context, e *Entry) (Verdict, error) {
	p, err := r.picked(ctx, e)
	if err != nil {
		return Verdict{}, err
	}
	if len(p.Conflicts) == 0 {
		switch {
		case len(p.Changes) == 0:
			return Verdict{State: Upstream, Detail: "the tree has it"}, nil
		case len(e.Diff) > 0:
			c := Conflict{File: e.files[0].Path(), Reason: "the resolution is stale: the commit applies without it"}
			return Verdict{State: Conflicts, Detail: c.Reason, Conflicts: []Conflict{c}}, nil
		}
		v := Verdict{State: Applies}
		if len(e.LeavesOut) > 0 {
			v.Detail = "nothing conflicts here that Leaves-Out is for"
		}
		return v, r.lay(ctx, p)
	}
	settled := slices.Clone(e.LeavesOut)
	for _, f := range e.files {
		settled = append(settled, f.Old, f.New)
	}
	var open []Conflict
	for _, c := range p.Conflicts {
		if !slices.Contains(settled, c.File) && !(r.c.Code && !Code(e.Component, c.File)) {
			open = append(open, c)
		}
	}
	if len(open) > 0 {
		return Verdict{State: Conflicts, Detail: summary(open), Conflicts: open}, nil
	}
	index, err := os.ReadFile(filepath.Join(r.root, "index"))
	if err != nil {
		return Verdict{}, err
	}
	if err := r.lay(ctx, p); err != nil {
		return Verdict{}, err
	}
	v := Verdict{State: Applies}
	if len(e.LeavesOut) > 0 {
		v.Detail = "left out: " + strings.Join(e.LeavesOut, " ")
	}
	if len(e.Diff) > 0 {
		var conflicts []Conflict
		if v.Offsets, conflicts, err = r.apply(ctx, e); err != nil {
			return v, err
		}
		if len(conflicts) > 0 {
			there := false
			if len(p.Changes) == 0 {
				if there, err = r.there(ctx, e); err != nil {
					return v, err
				}
			}
			r.now = nil
			if err := os.WriteFile(filepath.Join(r.root, "index"), index, 0o644); err != nil {
				return v, err
			}
			if there {
				return Verdict{State: Upstream, Detail: "the tree has it, with our resolution"}, nil
			}
			return Verdict{State: Conflicts, Detail: "the resolution: " + summary(conflicts), Conflicts: conflicts}, nil
		}
		if text := moved(v.Offsets); text != "" {
			v.Detail = strings.TrimPrefix(v.Detail+"; "+text, "; ")
		}
	} else if len(p.Changes) == 0 {
		return Verdict{State: Upstream, Detail: "the tree has all but what is left out"}, nil
	}
	return v, nil
}

// lay puts what a pick changes into the index.
func (r *run) lay(ctx context.Context, p *picked) error {
	var lines []string
	for path, f := range p.Changes {
		if f.Mode == "" {
			lines = append(lines, "0 "+strings.Repeat("0", 40)+"\t"+path)
			continue
		}
		object, err := r.object("blob", f.Content)
		if err != nil {
			return err
		}
		lines = append(lines, f.Mode+" "+object+"\t"+path)
	}
	r.now = nil
	slices.Sort(lines) // removals first: a folder may come in a file's place
	return r.add(ctx, lines)
}

// picksVersion is part of a kept pick's name; it changes when what a pick is does.
const picksVersion = "1"

// picked is the mechanical pick of e's commit onto the index: kept from another time, or made by git.
func (r *run) picked(ctx context.Context, e *Entry) (*picked, error) {
	paths, err := r.touched(ctx, e)
	if err != nil {
		return nil, err
	}
	var add []string
	missing := false
	for _, p := range paths {
		line, err := r.fetch(p)
		if err != nil {
			return nil, e.at(1, err)
		}
		add = append(add, line)
	}
	if err := r.add(ctx, add); err != nil {
		return nil, err
	}
	now, err := r.index(ctx)
	if err != nil {
		return nil, err
	}
	key := sha256.New()
	fmt.Fprintln(key, picksVersion, e.Commit)
	for _, p := range paths {
		it := now[p]
		missing = missing || it.Object == ""
		fmt.Fprintln(key, it.Mode, it.Object, p)
	}
	tree := ""
	if missing { // it may have gone elsewhere: which depends on the whole tree
		if tree, err = r.wholeTree(ctx); err != nil {
			return nil, err
		}
		fmt.Fprintln(key, tree)
	}
	file := fmt.Sprintf("%x.json", key.Sum(nil))
	var p picked
	if r.kept(file, &p) {
		return &p, nil
	}
	if tree, err = r.wholeTree(ctx); err != nil {
		return nil, err
	}
	if _, err := r.repository(ctx, e); err != nil {
		return nil, err
	}
	if err := r.makeAll(ctx); err != nil {
		return nil, err
	}
	made, err := r.merge(ctx, tree, e.Commit)
	if err != nil {
		return nil, fmt.Errorf("pick %.12s: %w", e.Commit, err)
	}
	return made, r.keepResult(file, made)
}

func (r *run) wholeTree(ctx context.Context) (string, error) {
	if err := r.list(ctx); err != nil {
		return "", err
	}
	return r.tree(ctx)
}

// kept reads what was kept from another time.
func (r *run) kept(file string, into any) bool {
	if r.c.Cache == "" {
		return false
	}
	text, err := os.ReadFile(filepath.Join(r.c.Cache, "picks", file))
	return err == nil && json.Unmarshal(text, into) == nil
}

func (r *run) keepResult(file string, result any) error {
	if r.c.Cache == "" {
		return nil
	}
	dir := filepath.Join(r.c.Cache, "picks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text, err := json.Marshal(result)
	if err != nil {
		return err
	}
	part := filepath.Join(r.root, "kept")
	if err := os.WriteFile(part, text, 0o600); err != nil {
		return err
	}
	return os.Rename(part, filepath.Join(dir, file)) // the scratch folder lies in the cache
}

// repository is upstream's repository of e's component, whose objects can be read from then on, and which has the commit.
func (r *run) repository(ctx context.Context, e *Entry) (*repository, error) {
	repo := r.repos[e.Component]
	if repo == nil {
		var err error
		if repo, err = r.c.repository(ctx, e.Component); err != nil {
			return nil, err
		}
		if err := repo.lend(ctx, r.scratch); err != nil {
			return nil, err
		}
		r.repos[e.Component] = repo
	}
	_, err := repo.resolve(ctx, e.Commit)
	return repo, err
}

// touched is the paths that e's commit changes, in both trees' names.
func (r *run) touched(ctx context.Context, e *Entry) ([]string, error) {
	file := e.Commit + ".paths.json"
	var paths []string
	if r.kept(file, &paths) {
		return paths, nil
	}
	repo, err := r.repository(ctx, e)
	if err != nil {
		return nil, err
	}
	if err := repo.single(ctx, e.Commit); err != nil {
		return nil, err
	}
	out, err := r.Run(ctx, nil, "diff-tree", "-r", "-z", "--no-renames", e.Commit+"^", e.Commit)
	if err != nil {
		return nil, err
	}
	fields := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	for i := 0; i+1 < len(fields); i += 2 { // :MODE MODE OBJECT OBJECT STATUS, PATH
		words := strings.Fields(fields[i])
		if slices.Contains(words[:2], "160000") || words[0] == ":160000" || slices.Contains([]string{words[0], words[1]}, "120000") || words[0] == ":120000" {
			return nil, fault.New(fault.Unsupported, "commit %.12s changes %s, which is no plain file", e.Commit, fields[i+1])
		}
		paths = append(paths, fields[i+1])
	}
	return paths, r.keepResult(file, paths)
}

// single refuses a commit that cannot be picked: one with no parent, or with several.
func (repo *repository) single(ctx context.Context, commit string) error {
	out, err := repo.Run(ctx, nil, "cat-file", "commit", commit)
	if err != nil {
		return err
	}
	head, _, _ := strings.Cut(string(out), "\n\n")
	var parents []string
	for line := range strings.Lines(head) {
		if p, ok := strings.CutPrefix(line, "parent "); ok {
			parents = append(parents, strings.TrimSpace(p))
		}
	}
	switch {
	case len(parents) > 1:
		return fault.New(fault.Invalid, "commit %.12s is a merge", commit).WithRemedy("name the change that it merges: %s", parents[1])
	case len(parents) == 0:
		return fault.New(fault.Invalid, "commit %.12s is the repository's first: it changes nothing", commit)
	}
	if _, err := repo.Run(ctx, nil, "cat-file", "-e", parents[0]+"^{tree}"); err != nil {
		if _, ok := errors.AsType[*source.GitError](err); !ok {
			return err
		}
		return fault.New(fault.NotFound, "the repository %s has commit %.12s, but not the one before it: it is a shallow clone", repo.ref, commit).
			WithRemedy("fetch the rest: git -C %s fetch --unshallow", repo.ref)
	}
	return nil
}

// merge picks a commit onto a tree as git cherry-pick does: a three-way merge whose base is the commit's parent. The parent
// and the commit stand for their trees alone, so that nothing of the history before them is needed.
func (r *run) merge(ctx context.Context, tree, commit string) (*picked, error) {
	out, err := r.Run(ctx, nil, "rev-parse", commit+"^^{tree}", commit+"^{tree}")
	if err != nil {
		return nil, err
	}
	trees := strings.Fields(string(out))
	base, err := r.commit(trees[0])
	if err != nil {
		return nil, err
	}
	theirs, err := r.commit(trees[1], base)
	if err != nil {
		return nil, err
	}
	ours, err := r.commit(tree, base)
	if err != nil {
		return nil, err
	}
	out, err = r.Run(ctx, nil, "merge-tree", "--write-tree", "-z", "--no-messages", ours, theirs)
	if failed, ok := errors.AsType[*source.GitError](err); ok && failed.Code == 1 {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	merged, rest, _ := strings.Cut(string(out), "\x00")
	p := &picked{Changes: map[string]pickedFile{}, Conflicts: []Conflict{}}
	out, err = r.Run(ctx, nil, "diff-tree", "-r", "-z", "--no-renames", tree, merged)
	if err != nil {
		return nil, err
	}
	after := map[string]source.Item{}
	fields := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		words := strings.Fields(fields[i])
		after[fields[i+1]] = source.Item{Mode: words[1], Object: words[3]}
		if words[1] == "000000" {
			after[fields[i+1]] = source.Item{}
		}
	}
	stages := map[string]*[3]source.Item{}
	for line := range strings.SplitSeq(strings.TrimSuffix(rest, "\x00"), "\x00") {
		head, path, ok := strings.Cut(line, "\t")
		words := strings.Fields(head)
		if !ok || len(words) != 3 || len(words[2]) != 1 || words[2] < "1" || words[2] > "3" {
			continue
		}
		if stages[path] == nil {
			stages[path] = &[3]source.Item{}
		}
		stages[path][words[2][0]-'1'] = source.Item{Mode: words[0], Object: words[1]}
	}
	for _, path := range slices.Sorted(maps.Keys(stages)) {
		content, conflicts, err := r.side(ctx, path, *stages[path])
		if err != nil {
			return nil, err
		}
		p.Conflicts = append(p.Conflicts, conflicts...)
		delete(after, path)
		if content != nil {
			p.Changes[path] = *content
		}
	}
	var objects []string
	for _, it := range after {
		if it.Object != "" {
			objects = append(objects, it.Object)
		}
	}
	contents, err := r.Blobs(ctx, objects)
	if err != nil {
		return nil, err
	}
	for path, it := range after {
		p.Changes[path] = pickedFile{Mode: it.Mode, Content: contents[it.Object]}
	}
	return p, nil
}

// side is the tree's side of a path that conflicts, with all of the commit that does not conflict; nil when that is the
// tree's own file, or none.
func (r *run) side(ctx context.Context, path string, stage [3]source.Item) (*pickedFile, []Conflict, error) {
	base, ours, theirs := stage[0], stage[1], stage[2]
	file := func(reason string) []Conflict {
		return []Conflict{{File: path, Reason: reason, Expected: []string{}, Found: []string{}}}
	}
	switch {
	case ours.Object == "" && base.Object == "":
		return nil, file("the tree has no place for this new file: its folder went elsewhere"), nil
	case ours.Object == "":
		return nil, file("the tree has no such file"), nil
	case theirs.Object == "":
		return nil, file("the commit removes the file, and the tree's is another than it knows"), nil
	}
	var files []string
	var content []byte
	for i, it := range []source.Item{ours, base, theirs} {
		text := []byte{}
		if it.Object != "" {
			var err error
			if text, err = r.blob(ctx, it.Object); err != nil {
				return nil, nil, err
			}
		}
		if i == 0 {
			content = text
		}
		name := filepath.Join(r.root, []string{"ours", "base", "theirs"}[i])
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return nil, nil, err
		}
		files = append(files, name)
	}
	marked, err := r.Run(ctx, nil, append([]string{"merge-file", "-p", "--diff3", fmt.Sprintf("--marker-size=%d", markSize)}, files...)...)
	if failed, ok := errors.AsType[*source.GitError](err); ok && failed.Code < 128 {
		err = nil // so many conflicts
	}
	if err != nil {
		return nil, nil, err
	}
	reason := "the lines around it are not as the commit expects"
	if base.Object == "" {
		reason = "the commit adds a file that the tree has, with other content"
	}
	conflicts := marks(marked, path, reason)
	if len(conflicts) == 0 {
		conflicts = file("the commit and the tree change it in different ways")
	}
	merged, err := r.Run(ctx, nil, append([]string{"merge-file", "-p", "--ours"}, files...)...)
	if err != nil {
		return nil, nil, err
	}
	if string(merged) == string(content) {
		return nil, conflicts, nil
	}
	return &pickedFile{Mode: ours.Mode, Content: merged}, conflicts, nil
}

const markSize = 30 // long enough to stand in no file

// marks is the conflicts in what merge-file marked: the tree's line, what the commit's parent has there and what the tree has.
func marks(marked []byte, path, reason string) []Conflict {
	mark := func(c string) string { return strings.Repeat(c, markSize) }
	var all []Conflict
	var c Conflict
	part, n := "", 0 // n is the tree's lines so far
	for _, l := range splitLines(marked) {
		switch {
		case strings.HasPrefix(l, mark("<")):
			part, c = "ours", Conflict{File: path, Hunk: len(all) + 1, Line: n + 1, Reason: reason, Expected: []string{}, Found: []string{}}
		case strings.HasPrefix(l, mark("|")):
			part = "base"
		case strings.HasPrefix(l, mark("=")):
			part = "theirs"
		case strings.HasPrefix(l, mark(">")):
			part = ""
			above := 0
			above, c.Expected, c.Found = differing(c.Expected, c.Found)
			c.Line += above
			all = append(all, c)
		case part == "ours":
			c.Found = append(c.Found, l)
			n++
		case part == "base":
			c.Expected = append(c.Expected, l)
		case part == "":
			n++
		}
	}
	return all
}
