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

	"github.com/mitchellh/go-homedir"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/patches"
	"github.com/toast-cloud/toastdev/topologies"
)

// PatchRequest is which patches are meant, and what they are tried on.
type PatchRequest struct {
	Environment string   // for a list: how they stand there; "": the only one that is up, none without
	Release     string   // "" means the default one, or all where no tree is named
	Names       []string // of entries; for check, files and commits too
	Trees       []string // component=PATH
	Upstreams   []string // component=PATH_OR_URL
}

// Patch is a patch, and how it stands to a tree.
type Patch struct {
	Name      string             `json:"name"`
	Component string             `json:"component"`
	Release   string             `json:"release"` // "" of what stands in no series
	State     patches.State      `json:"state"`   // "" when it was tried on no tree
	Detail    string             `json:"detail"`
	Summary   string             `json:"summary"`
	Origin    string             `json:"origin"` // toastdev, upstream, backport
	Commit    string             `json:"commit"`
	Bug       string             `json:"bug"`
	Since     string             `json:"since"` // the release of upstream's that has it first
	File      string             `json:"file"`
	Offsets   []patches.Offset   `json:"offsets"`
	Conflicts []patches.Conflict `json:"conflicts"`
}

func patchOf(v patches.Verdict) Patch {
	e := v.Entry
	origin, _, _ := strings.Cut(e.Header.Get("Origin"), ",")
	p := Patch{Name: e.Name, Component: e.Component, Release: e.Release, State: v.State, Detail: v.Detail, Summary: e.Header.Summary(), Origin: origin, Commit: e.Commit,
		Bug: strings.ReplaceAll(e.Header.Get("Bug"), "\n", " "), Since: e.Header.Get("Applied-Upstream"), File: e.File, Offsets: append([]patches.Offset{}, v.Offsets...)}
	p.Conflicts = []patches.Conflict{}
	for _, c := range v.Conflicts { // a list is never null
		c.Expected, c.Found = append([]string{}, c.Expected...), append([]string{}, c.Found...)
		p.Conflicts = append(p.Conflicts, c)
	}
	return p
}

// workshop is what the patch verbs work with: the project, the series, the trees and upstream's repositories.
type workshop struct {
	folder  *project.Folder // nil: none
	files   project.Layer
	release string // "" : all
	series  []patches.Series
	trees   map[string]string
	checker *patches.Checker
}

// workshop reads what a request names. The project is the one that toastdev is run in; without one that of a folder, which
// may be "".
func (t *Toastdev) workshop(request PatchRequest, folder string) (*workshop, error) {
	w := &workshop{release: request.Release, checker: &patches.Checker{Upstream: map[string]string{}, Cache: t.home.Path("patches")}}
	var err error
	w.folder, err = project.FindFolder(".")
	if w.folder == nil && err == nil && folder != "" {
		w.folder, err = project.FindFolder(folder)
	}
	if err != nil {
		return nil, err
	}
	w.files = project.Layer{Under: patches.Builtin(), Name: "patches"}
	if w.folder != nil {
		w.files.Dir = filepath.Join(w.folder.Dir, "patches")
		maps.Copy(w.checker.Upstream, w.folder.Upstream)
	}
	if w.trees, err = components("--tree", request.Trees, false); err != nil {
		return nil, err
	}
	upstreams, err := components("--upstream", request.Upstreams, true)
	if err != nil {
		return nil, err
	}
	maps.Copy(w.checker.Upstream, upstreams)
	return w, nil
}

// dir is the project's folder, "" without one.
func (w *workshop) dir() string {
	if w.folder == nil {
		return ""
	}
	return w.folder.Dir
}

// loaded is workshop with the series of the release read: of all releases where none is said, but for a tree the default one's.
func (t *Toastdev) loaded(request PatchRequest) (*workshop, error) {
	if request.Release == "" && len(request.Trees) > 0 {
		request.Release = topologies.DefaultRelease
	}
	w, err := t.workshop(request, "")
	if err != nil {
		return nil, err
	}
	return w, w.load()
}

// load reads the series of the release.
func (w *workshop) load() (err error) {
	if w.release == "" {
		w.series, err = patches.Load(w.files)
	} else {
		w.series, err = patches.LoadRelease(w.files, w.release)
	}
	return err
}

// loadAny is load of a release that may have no patches.
func (w *workshop) loadAny() error {
	if !slices.Contains(patches.Releases(w.files), w.release) {
		return nil
	}
	return w.load()
}

// components reads component=PATH.
func components(flag string, given []string, urls bool) (map[string]string, error) {
	all := map[string]string{}
	for _, word := range given {
		component, path, ok := strings.Cut(word, "=")
		if !ok || component == "" || path == "" {
			return nil, &fault.Error{Code: fault.Invalid, Path: flag, Message: fmt.Sprintf("%q is not a component and a place", word), Expected: "component=PATH: neutron=~/src/neutron"}
		}
		if all[component] != "" {
			return nil, &fault.Error{Code: fault.Invalid, Path: flag, Message: fmt.Sprintf("%s is named twice", component), Expected: "one for a component"}
		}
		if !urls || !project.IsURL(path) {
			var err error
			if path, err = homedir.Expand(path); err != nil {
				return nil, err
			}
			if path, err = filepath.Abs(path); err != nil {
				return nil, err
			}
		}
		all[component] = path
	}
	return all, nil
}

// Patches is the series, and how each entry stands to its component's tree, or without trees to an environment that is up.
func (t *Toastdev) Patches(ctx context.Context, request PatchRequest) ([]Patch, error) {
	w, err := t.loaded(request)
	if err != nil {
		return nil, err
	}
	var there []Patch
	if len(request.Trees) == 0 {
		r, err := t.isUp(request.Environment)
		if err != nil && request.Environment != "" {
			return nil, err
		}
		if err == nil && (request.Release == "" || request.Release == r.Plan.ReleaseName) {
			if there, err = t.laidPatches(ctx, r, request); err != nil {
				return nil, err
			}
		}
	}
	wanted, err := w.named(request.Names)
	if err != nil {
		return nil, err
	}
	list := []Patch{}
	for _, s := range w.series {
		verdicts := make([]patches.Verdict, len(s.Entries))
		for i := range s.Entries {
			verdicts[i] = patches.Verdict{Entry: &s.Entries[i]}
		}
		if w.trees[s.Component] != "" {
			if verdicts, err = w.check(ctx, s.Component, s.Entries); err != nil {
				return nil, err
			}
		}
		for _, v := range verdicts {
			if len(wanted) > 0 && !wanted[v.Entry.File] {
				continue
			}
			p := patchOf(v)
			if i := slices.IndexFunc(there, func(q Patch) bool { return q.File == p.File }); i >= 0 {
				p = there[i]
			}
			list = append(list, p)
		}
	}
	return list, nil
}

// named is the files of the entries that names mean.
func (w *workshop) named(names []string) (map[string]bool, error) {
	wanted := map[string]bool{}
	for _, name := range names {
		e, err := patches.Find(w.series, name)
		if err == nil && e == nil {
			err = patches.Unknown(w.series, name)
		}
		if err != nil {
			return nil, err
		}
		wanted[e.File] = true
	}
	return wanted, nil
}

// check tries entries on a component's tree.
func (w *workshop) check(ctx context.Context, component string, entries []patches.Entry) ([]patches.Verdict, error) {
	tree, err := patches.OpenDir(component, w.trees[component])
	if err != nil {
		return nil, err
	}
	verdicts, _, err := w.checker.Check(ctx, tree, entries)
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", component, err)
	}
	return verdicts, nil
}

// CheckPatches tries patches on source trees: without names the series of each tree's component, else entries of them, files
// and commits. An entry is tried on what those before it in its series left, files and commits in the order given.
func (t *Toastdev) CheckPatches(ctx context.Context, request PatchRequest) ([]Patch, error) {
	w, err := t.workshop(request, "")
	if err != nil {
		return nil, err
	}
	if len(w.trees) == 0 {
		return nil, fault.New(fault.Invalid, "no tree is named to check on").WithRemedy("say --tree COMPONENT=PATH: --tree neutron=~/src/neutron")
	}
	loose, names, err := w.loose(ctx, request.Names)
	if err != nil {
		return nil, err
	}
	list := []Patch{}
	if len(request.Names) == 0 || len(names) > 0 {
		if w.release == "" {
			w.release = topologies.DefaultRelease
		}
		if err := w.load(); err != nil {
			return nil, err
		}
		wanted, err := w.named(names)
		if err != nil {
			return nil, err
		}
		for _, component := range slices.Sorted(maps.Keys(w.trees)) {
			i := slices.IndexFunc(w.series, func(s patches.Series) bool { return s.Component == component })
			if i < 0 {
				e := fault.New(fault.Invalid, "release %s has no patches for %s", w.release, component)
				e.Path = "--tree"
				var have []string
				for _, s := range w.series {
					have = append(have, s.Component)
				}
				e.Expected = strings.Join(have, ", ")
				return nil, e.Suggest(component, have)
			}
			entries := w.series[i].Entries
			if len(wanted) > 0 {
				last := 0
				for i := range entries {
					if wanted[entries[i].File] {
						last = i + 1
					}
				}
				entries = entries[:last]
			}
			verdicts, err := w.check(ctx, component, entries)
			if err != nil {
				return nil, err
			}
			for _, v := range verdicts {
				if len(wanted) == 0 || wanted[v.Entry.File] {
					list = append(list, patchOf(v))
					delete(wanted, v.Entry.File)
				}
			}
			if len(names) > 0 && len(wanted) == 0 {
				break
			}
		}
		for file := range wanted {
			return nil, fault.New(fault.Invalid, "%s is of a component whose tree is not named", file).WithRemedy("say --tree COMPONENT=PATH for it too")
		}
	}
	for _, component := range slices.Sorted(maps.Keys(loose)) {
		verdicts, err := w.check(ctx, component, loose[component])
		if err != nil {
			return nil, err
		}
		for _, v := range verdicts {
			list = append(list, patchOf(v))
		}
	}
	return list, nil
}

var hash = regexp.MustCompile(`^[0-9a-f]{7,40}$`)

// loose is the files and commits among names, by component, and the names that are neither.
func (w *workshop) loose(ctx context.Context, names []string) (map[string][]patches.Entry, []string, error) {
	loose := map[string][]patches.Entry{}
	var others []string
	for _, name := range names {
		info, err := os.Stat(name)
		switch {
		case err == nil && !info.IsDir():
			e, err := patches.ReadFile(name)
			if err != nil {
				return nil, nil, err
			}
			if e.Component, err = w.componentOf(e); err != nil {
				return nil, nil, err
			}
			loose[e.Component] = append(loose[e.Component], *e)
		case hash.MatchString(name):
			e, err := w.commit(ctx, name)
			if err != nil {
				return nil, nil, err
			}
			loose[e.Component] = append(loose[e.Component], *e)
		case strings.HasSuffix(name, patches.Ext), strings.HasSuffix(name, ".diff"), strings.HasPrefix(name, "."), strings.HasPrefix(name, "/"):
			e := fault.New(fault.Invalid, "there is no file %s", name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				e = fault.New(fault.Invalid, "read the patch: %w", err)
			}
			return nil, nil, e
		default:
			others = append(others, name)
		}
	}
	return loose, others, nil
}

// componentOf is the component that a file's patch is for: the only one with a tree, else the one whose package it touches.
func (w *workshop) componentOf(e *patches.Entry) (string, error) {
	trees := slices.Sorted(maps.Keys(w.trees))
	if len(trees) == 1 {
		return trees[0], w.belongs(e, trees[0])
	}
	for _, path := range e.Touches() {
		first, _, _ := strings.Cut(path, "/")
		if w.trees[first] != "" {
			return first, nil
		}
	}
	return "", fault.New(fault.Invalid, "%s touches the package of none of %s", e.File, strings.Join(trees, ", ")).WithRemedy("check it with one --tree alone")
}

// belongs refuses a patch that is plainly another component's: the tree has none of the files that it changes.
func (w *workshop) belongs(e *patches.Entry, component string) error {
	changes := e.Changes()
	for _, path := range changes {
		if _, err := os.Lstat(filepath.Join(w.trees[component], path)); err == nil || strings.HasPrefix(path, component+"/") {
			return nil
		}
	}
	if len(changes) == 0 {
		return nil
	}
	f := fault.New(fault.Invalid, "this is no patch of %s: its tree has none of the %d files that are changed, %s the first", component, len(changes), changes[0])
	f.File = e.File
	first, _, _ := strings.Cut(changes[0], "/")
	return f.WithRemedy("name the tree that it is for: --tree %s=PATH", first)
}

// commit is an entry of a commit that is named on the line, of the component whose repository has it.
func (w *workshop) commit(ctx context.Context, name string) (*patches.Entry, error) {
	trees := slices.Sorted(maps.Keys(w.trees))
	var missing error
	for _, component := range trees {
		if w.checker.Upstream[component] == "" && len(trees) > 1 {
			continue
		}
		c, err := w.checker.Commit(ctx, component, name)
		if err == nil {
			return &patches.Entry{Component: component, Name: c.ID[:12], File: "commit " + c.ID[:12], Commit: c.ID, Header: c.Header(c.Date)}, nil
		}
		if fault.CodeOf(err) != fault.NotFound || len(trees) == 1 {
			return nil, err
		}
		missing = err
	}
	if missing != nil {
		return nil, missing
	}
	return nil, fault.New(fault.Missing, "%s is a commit, and no repository is named", name).WithRemedy("say --upstream COMPONENT=PATH_OR_URL")
}
