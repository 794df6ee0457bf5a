package lifecycle

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
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/overlay"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/patches"
	"github.com/toast-cloud/toastdev/topologies"
)

// PatchEdit is a change of a series in the project.
type PatchEdit struct {
	PatchRequest
	Component   string   // "" where a tree or a repository says it
	As          string   // import: the entry's name; "" makes one of the commit's subject
	Description []string // what it does, and then why
	Base        string   // what edits in a tree are measured from: a commit of its repository, or a folder; "" is HEAD
	Node        string   // new: the edits are those made by hand on this node of the environment, not in a tree
	Author      string
	Before      string // reorder: the entry that is to come next; After the one before; neither: first, or with Last last
	After       string
	Last        bool
}

// shelf is the folder of the project that a component's entries are written to.
func (w *workshop) shelf(component string) (patches.Shelf, error) {
	if w.folder == nil {
		return patches.Shelf{}, fault.New(fault.Invalid, "patches are kept in a project, and there is none here").
			WithRemedy("make this folder one: touch %s", project.FolderFile)
	}
	return patches.Shelf{Files: w.files, Dir: w.files.Dir, Release: w.release, Component: component}, nil
}

// edit opens the workshop for a change of a series.
func (t *Toastdev) edit(request *PatchEdit) (*workshop, error) {
	if request.Release == "" {
		request.Release = topologies.DefaultRelease
	}
	w, err := t.workshop(request.PatchRequest, "")
	if err != nil {
		return nil, err
	}
	if _, err := w.shelf(""); err != nil {
		return nil, err
	}
	return w, w.loadAny()
}

// entries is the series of a component.
func (w *workshop) entries(component string) []patches.Entry {
	for _, s := range w.series {
		if s.Component == component {
			return s.Entries
		}
	}
	return nil
}

// one is the component that a change is of: the one said, else that of the only tree, else of the only repository.
func (w *workshop) one(said string) (string, error) {
	if said != "" {
		return said, nil
	}
	for _, named := range []map[string]string{w.trees, w.checker.Upstream} {
		if len(named) == 1 {
			for component := range named {
				return component, nil
			}
		}
	}
	return "", fault.New(fault.Invalid, "it is not said which component this is of").WithRemedy("say --component NAME")
}

// edits is a component's tree as it was, and what was edited in it since. Without a base, and where the tree is no work tree
// of git's, nothing was.
func (w *workshop) edits(ctx context.Context, component, base string) (patches.Tree, []byte, error) {
	dir := w.trees[component]
	if dir == "" {
		return nil, nil, fault.New(fault.Invalid, "the tree of %s is not named", component).WithRemedy("say --tree %s=PATH", component)
	}
	tree, err := patches.OpenDir(component, dir)
	if err != nil {
		return nil, nil, err
	}
	var before patches.Tree
	if info, err := os.Stat(base); base != "" && err == nil && info.IsDir() {
		if before, err = patches.OpenDir(component, base); err != nil {
			return nil, nil, err
		}
	} else {
		if base == "" {
			if _, err := os.Lstat(filepath.Join(dir, ".git")); errors.Is(err, fs.ErrNotExist) {
				return tree, nil, nil
			}
			base = "HEAD"
		}
		if before, err = patches.ReadCommit(ctx, dir, base); err != nil {
			return nil, nil, err
		}
	}
	diff, err := w.checker.Diff(ctx, before, tree)
	if err != nil {
		return nil, nil, err
	}
	if m := openConflict.Find(diff); m != nil {
		return nil, nil, fault.New(fault.Invalid, "the tree %s has conflicts that are not resolved: %s", dir, m[1:]).WithRemedy("edit what stands between <<<<<<< and >>>>>>>")
	}
	return before, diff, nil
}

// openConflict is a mark that git leaves where a merge conflicts.
var openConflict = regexp.MustCompile(`(?m)^\+(<<<<<<<|>>>>>>>) .*$`)

// ImportPatch writes a commit of upstream's as an entry at the end of its component's series. With a tree it must apply
// there; edits in the tree then are how it is resolved.
func (t *Toastdev) ImportPatch(ctx context.Context, commit string, request PatchEdit) (*Patch, error) {
	w, err := t.edit(&request)
	if err != nil {
		return nil, err
	}
	component, err := w.one(request.Component)
	if err != nil {
		return nil, err
	}
	c, err := w.checker.Commit(ctx, component, commit)
	if err != nil {
		return nil, err
	}
	if err := w.checker.FindFirst(ctx, component, c); err != nil {
		return nil, err
	}
	e := patches.Entry{Release: w.release, Component: component, Name: request.As, Commit: c.ID, Header: c.Header(time.Now())}
	if e.Name == "" {
		e.Name = slug(c.Subject)
	}
	if len(request.Description) > 0 {
		e.Header = e.Header.With("Description", strings.Join(request.Description, "\n"))
	}
	series := w.entries(component)
	for _, had := range series {
		if had.Commit == c.ID {
			return nil, fault.New(fault.Invalid, "the series has commit %.12s already, as %s", c.ID, had.Name)
		}
	}
	if err := free(series, e.Name); err != nil {
		return nil, err
	}
	v := patches.Verdict{Entry: &e}
	if w.trees[component] != "" {
		base, edits, err := w.edits(ctx, component, request.Base)
		if err != nil {
			return nil, err
		}
		if v, err = w.refresh(ctx, base, series, &e, edits); err != nil {
			return nil, err
		}
	}
	return w.put(&e, v)
}

// refresh makes e what it has to be on a tree, or says what is open.
func (w *workshop) refresh(ctx context.Context, base patches.Tree, before []patches.Entry, e *patches.Entry, edits []byte) (patches.Verdict, error) {
	fresh, v, err := w.checker.Refresh(ctx, base, before, *e, edits)
	if err != nil {
		return v, err
	}
	if v.State == patches.Conflicts {
		f := fault.New(fault.Failed, "%s does not apply after the entries before it", e.Name)
		for _, c := range v.Conflicts {
			f.Log = append(f.Log, c.String())
			for _, l := range c.Expected {
				f.Log = append(f.Log, "  expected: "+l)
			}
			for _, l := range c.Found {
				f.Log = append(f.Log, "  found:    "+l)
			}
		}
		dir := w.trees[e.Component]
		f.Remedy = fmt.Sprintf("edit %s until it has what the patch is to do, and say the same again", dir)
		if e.Reference() {
			f.Remedy = fmt.Sprintf("resolve it in a work tree: git -C %s cherry-pick -n %.12s; edit, and say the same again: what differs becomes the resolution", dir, e.Commit)
		}
		return v, f
	}
	if v.State == patches.Upstream {
		return v, fault.New(fault.Invalid, "the tree has %s already: %s", e.Name, v.Detail)
	}
	*e = *fresh
	v.Entry = e
	return v, nil
}

// put writes an entry into the project.
func (w *workshop) put(e *patches.Entry, v patches.Verdict) (*Patch, error) {
	shelf, err := w.shelf(e.Component)
	if err != nil {
		return nil, err
	}
	if err := shelf.Put(e); err != nil {
		return nil, err
	}
	v.Entry = e
	p := patchOf(v)
	return &p, nil
}

func free(series []patches.Entry, name string) error {
	for _, e := range series {
		if e.Name == name {
			return fault.New(fault.Invalid, "the series has a patch %q already", name).WithRemedy("choose another name")
		}
	}
	return nil
}

var noWord = regexp.MustCompile(`[^a-z0-9]+`)

// slug is a name made of a subject.
func slug(subject string) string {
	name := strings.Trim(noWord.ReplaceAllString(strings.ToLower(subject), "-"), "-")
	if len(name) > 50 {
		name = name[:50]
		if i := strings.LastIndexByte(name, '-'); i > 20 {
			name = name[:i]
		}
	}
	if name == "" {
		return "change"
	}
	return name
}

// NewPatch writes the edits made in a tree as an entry of our own, at the end of the series.
func (t *Toastdev) NewPatch(ctx context.Context, name string, request PatchEdit) (*Patch, error) {
	if request.Node != "" {
		r, err := t.isUp(request.Environment)
		if err != nil {
			return nil, err
		}
		request.Release = r.Plan.ReleaseName
	}
	w, err := t.edit(&request)
	if err != nil {
		return nil, err
	}
	if len(request.Description) == 0 {
		return nil, fault.New(fault.Invalid, "it is not said what the patch does").WithRemedy("say -m WHAT -m WHY")
	}
	component, err := w.one(request.Component)
	if err != nil {
		return nil, err
	}
	series := w.entries(component)
	if err := free(series, name); err != nil {
		return nil, err
	}
	var base patches.Tree
	var edits []byte
	place := w.trees[component]
	if request.Node != "" {
		place = request.Node
		base, edits, err = t.nodeEdits(ctx, request.Environment, request.Node, component)
	} else {
		base, edits, err = w.edits(ctx, component, request.Base)
	}
	if err != nil {
		return nil, err
	}
	if len(edits) == 0 {
		e := fault.New(fault.Invalid, "nothing is edited in %s", place)
		if request.Node != "" {
			return nil, e.WithRemedy("edits are what differs from the package's files and from what is laid over them")
		}
		return nil, e.WithRemedy("edits are what differs from its last commit; say --base COMMIT or --base FOLDER for what differs from that")
	}
	e := patches.Entry{Release: w.release, Component: component, Name: name, File: "the edits in " + place,
		Header: patches.Header{{Name: "Description", Value: strings.Join(request.Description, "\n")}, {Name: "Origin", Value: "toastdev"}}}
	e.Header = e.Header.With("Author", request.Author).With("Last-Update", time.Now().Format(time.DateOnly))
	v, err := w.refresh(ctx, base, series, &e, edits)
	if err != nil {
		return nil, err
	}
	return w.put(&e, v)
}

// nodeEdits is a component's code on a node with what is laid over it, and what was edited there by hand since.
func (t *Toastdev) nodeEdits(ctx context.Context, environment, name, component string) (patches.Tree, []byte, error) {
	r, err := t.isUp(environment)
	if err != nil {
		return nil, nil, err
	}
	planned, err := named(r.Plan, name)
	if err != nil {
		return nil, nil, err
	}
	o, err := t.openOverlays(r, OverlayRequest{Nodes: []string{name}, Force: true})
	if err != nil {
		return nil, nil, err
	}
	if err := o.known(component); err != nil {
		return nil, nil, err
	}
	if _, err := o.on(component, true); err != nil {
		return nil, nil, err
	}
	n, err := o.reach(planned)
	if err != nil {
		return nil, nil, err
	}
	root := r.Plan.Release.Components[component].Code
	edits, err := overlay.Edits(ctx, n, component, root)
	if err != nil {
		return nil, nil, err
	}
	wants, err := o.wants(ctx, r.Overlays, []string{component})
	if err != nil {
		return nil, nil, err
	}
	var laid patches.Files
	for _, w := range wants {
		if w.node == planned {
			laid = w.want.Files
		}
	}
	var paths []string
	edited := patches.Files{}
	for _, e := range edits {
		paths = append(paths, e.Path)
		edited[e.Path] = patches.File{Content: e.Content, Absent: e.Absent}
	}
	for _, e := range o.shop.entries(component) {
		paths = append(paths, e.Touches()...)
	}
	slices.Sort(paths)
	contents, err := overlay.Fetch(ctx, n, component, root, slices.Compact(paths)...)
	if err != nil {
		return nil, nil, err
	}
	if err := t.pristine(ctx, r, planned, component, edits, contents); err != nil {
		return nil, nil, err
	}
	had := patches.Files{}
	for p, content := range contents {
		had[p] = patches.File{Content: content}
	}
	before := patches.Over(had, laid)
	diff, err := o.shop.checker.Diff(ctx, before, patches.Over(before, edited))
	return before, diff, err
}

// pristine puts the package's own bytes of files that were edited on a node into contents, from other nodes: all are of one
// image. New files are taken out.
func (t *Toastdev) pristine(ctx context.Context, r *record.Record, edited *plan.Node, component string, edits []overlay.Edit, contents map[string][]byte) error {
	lost := map[string]bool{}
	for _, e := range edits {
		if e.Over != overlay.OverLaid {
			delete(contents, e.Path)
		}
		if e.Over == overlay.OverPackage {
			lost[e.Path] = true
		}
	}
	root := r.Plan.Release.Components[component].Code
	for _, other := range r.Plan.Nodes {
		if len(lost) == 0 {
			return nil
		}
		if other.Name == edited.Name {
			continue
		}
		n, err := t.reach(&other)
		if err != nil {
			return err
		}
		theirs, err := overlay.Edits(ctx, n, component, root)
		if err != nil {
			return err
		}
		wanted := maps.Clone(lost)
		for _, e := range theirs {
			delete(wanted, e.Path)
		}
		found, err := overlay.Fetch(ctx, n, component, root, slices.Sorted(maps.Keys(wanted))...)
		if err != nil {
			return err
		}
		for path, content := range found {
			contents[path] = content
			delete(lost, path)
		}
	}
	if len(lost) > 0 {
		return fault.New(fault.Missing, "the package's own %s is on no node any more", strings.Join(slices.Sorted(maps.Keys(lost)), ", ")).
			WithRemedy("make the edits in a source tree: toastdev patch new NAME --tree %s=PATH", component)
	}
	return nil
}

// RefreshPatch rewrites an entry for a tree: by the edits made in it, or where there are none, by the lines it applies at.
func (t *Toastdev) RefreshPatch(ctx context.Context, name string, request PatchEdit) (*Patch, error) {
	w, err := t.edit(&request)
	if err != nil {
		return nil, err
	}
	found, err := w.find(name)
	if err != nil {
		return nil, err
	}
	e := *found
	base, edits, err := w.edits(ctx, e.Component, request.Base)
	if err != nil {
		return nil, err
	}
	if len(request.Description) > 0 {
		e.Header = e.Header.With("Description", strings.Join(request.Description, "\n"))
	}
	e.Header = e.Header.With("Last-Update", time.Now().Format(time.DateOnly))
	series := w.entries(e.Component)
	at := slices.IndexFunc(series, func(other patches.Entry) bool { return other.Name == e.Name })
	v, err := w.refresh(ctx, base, series[:at], &e, edits)
	if err != nil {
		return nil, err
	}
	return w.put(&e, v)
}

func (w *workshop) find(name string) (*patches.Entry, error) {
	e, err := patches.Find(w.series, name)
	if err == nil && e == nil {
		err = patches.Unknown(w.series, name)
	}
	return e, err
}

// ReorderPatch moves an entry in its series. With a tree, an order in which more conflicts than before is refused.
func (t *Toastdev) ReorderPatch(ctx context.Context, name string, request PatchEdit) ([]Patch, error) {
	w, err := t.edit(&request)
	if err != nil {
		return nil, err
	}
	e, err := w.find(name)
	if err != nil {
		return nil, err
	}
	other, after := request.Before, false
	if request.After != "" {
		other, after = request.After, true
	}
	other = other[strings.LastIndexByte(other, '/')+1:] // component/name
	old := w.entries(e.Component)
	order, err := patches.Reordered(old, e.Name, other, after || request.Last)
	if err != nil {
		return nil, err
	}
	verdicts := make([]patches.Verdict, len(order))
	for i := range order {
		verdicts[i].Entry = &order[i]
	}
	if w.trees[e.Component] != "" {
		before, err := w.check(ctx, e.Component, old)
		if err != nil {
			return nil, err
		}
		if verdicts, err = w.check(ctx, e.Component, order); err != nil {
			return nil, err
		}
		fitted := map[string]bool{}
		for _, v := range before {
			fitted[v.Entry.Name] = v.State != patches.Conflicts
		}
		for _, v := range verdicts {
			if v.State == patches.Conflicts && fitted[v.Entry.Name] {
				return nil, fault.New(fault.Invalid, "in that order %s conflicts: %s", v.Entry.Name, v.Detail).WithRemedy("leave the order, or refresh the patch afterwards: without --tree nothing is checked")
			}
		}
	}
	shelf, err := w.shelf(e.Component)
	if err != nil {
		return nil, err
	}
	if err := shelf.Move(e.Name, other, after || request.Last); err != nil {
		return nil, err
	}
	list := []Patch{}
	for _, v := range verdicts {
		list = append(list, patchOf(v))
	}
	return list, nil
}

// Exported is what an export wrote.
type Exported struct {
	Dir   string   `json:"dir"`
	Files []string `json:"files"` // below Dir, in order
}

// ExportPatches writes entries into a folder, for git am or for quilt: a folder a component. What is written is all that an
// entry does on the tree; without a tree that is known of patches of our own alone.
func (t *Toastdev) ExportPatches(ctx context.Context, dir, format string, request PatchRequest) (*Exported, error) {
	if request.Release == "" {
		request.Release = topologies.DefaultRelease
	}
	if format != "am" && format != "quilt" {
		return nil, &fault.Error{Code: fault.Invalid, Path: "--format", Message: fmt.Sprintf("%q is not known", format), Expected: "am, quilt"}
	}
	if found, err := os.ReadDir(dir); err == nil && len(found) > 0 {
		return nil, &fault.Error{Code: fault.Invalid, File: dir, Message: "this folder is not empty", Expected: "a new folder, or an empty one"}
	}
	w, err := t.loaded(request)
	if err != nil {
		return nil, err
	}
	wanted, err := w.named(request.Names)
	if err != nil {
		return nil, err
	}
	w.checker.Diffs = true
	files := map[string][]byte{}
	done := &Exported{Dir: dir, Files: []string{}}
	for _, s := range w.series {
		if len(w.trees) > 0 && w.trees[s.Component] == "" {
			continue
		}
		diffs := map[string][]byte{}
		if w.trees[s.Component] != "" {
			verdicts, err := w.check(ctx, s.Component, s.Entries)
			if err != nil {
				return nil, err
			}
			for _, v := range verdicts {
				if v.State == patches.Conflicts {
					return nil, fault.New(fault.Invalid, "%s conflicts: %s", v.Entry.FullName(), v.Detail).WithRemedy("`toastdev patch check` shows all of it; `toastdev patch refresh` mends it")
				}
				diffs[v.Entry.Name] = v.Diff
			}
		}
		var order []string
		for i := range s.Entries {
			e := &s.Entries[i]
			if len(wanted) > 0 && !wanted[e.File] {
				continue
			}
			diff, tried := diffs[e.Name]
			if tried && len(diff) == 0 {
				continue // the tree has it
			}
			if !tried {
				if diff, err = patches.Whole(e); err != nil {
					return nil, err
				}
			}
			name, text := e.Name+patches.Ext, patches.Quilt(e, diff)
			if format == "am" {
				var commit *patches.Commit
				if e.Reference() && w.checker.Upstream[e.Component] != "" {
					if commit, err = w.checker.Commit(ctx, e.Component, e.Commit); err != nil {
						return nil, err
					}
				}
				name, text = fmt.Sprintf("%04d-%s", len(order)+1, name), patches.Mail(e, diff, commit)
			}
			order = append(order, name)
			files[filepath.Join(s.Component, name)] = text
			done.Files = append(done.Files, filepath.Join(s.Component, name))
		}
		if format == "quilt" && len(order) > 0 {
			files[filepath.Join(s.Component, patches.SeriesFile)] = []byte(strings.Join(order, "\n") + "\n")
			done.Files = append(done.Files, filepath.Join(s.Component, patches.SeriesFile))
		}
	}
	if len(files) == 0 {
		return nil, fault.New(fault.Invalid, "there is nothing to export")
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			return nil, err
		}
	}
	return done, nil
}

// ShownPatch is an entry with all that its file says.
type ShownPatch struct {
	*Patch
	Header patches.Header    `json:"-"`
	Fields map[string]string `json:"fields"`
	Diff   string            `json:"diff"` // what it does on the tree when one is named, else the diff in its file
}

// Patch is one entry.
func (t *Toastdev) Patch(ctx context.Context, name string, request PatchRequest) (*ShownPatch, error) {
	w, err := t.loaded(request)
	if err != nil {
		return nil, err
	}
	e, err := w.find(name)
	if err != nil {
		return nil, err
	}
	v := patches.Verdict{Entry: e, Diff: e.Diff}
	if w.trees[e.Component] != "" {
		w.checker.Diffs = true
		series := w.series[slices.IndexFunc(w.series, func(s patches.Series) bool { return s.Component == e.Component && s.Release == e.Release })].Entries
		at := slices.IndexFunc(series, func(other patches.Entry) bool { return other.Name == e.Name })
		verdicts, err := w.check(ctx, e.Component, series[:at+1])
		if err != nil {
			return nil, err
		}
		v = verdicts[at]
	}
	p := patchOf(v)
	shown := &ShownPatch{Patch: &p, Header: e.Header, Fields: map[string]string{}, Diff: string(v.Diff)}
	for _, f := range e.Header {
		shown.Fields[f.Name] = f.Value
	}
	return shown, nil
}
