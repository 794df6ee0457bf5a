package overlay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/source"
)

// Source says where a component's source tree is.
type Source struct {
	Component string
	Path      string // a work tree, a repository, or an unpacked release
	Ref       string // of its repository; "": the files as they are, with what is not committed
}

// Tree is a component's source tree. Its tests have no part in it: no unit loads them.
type Tree struct {
	Source
	Commit  string // what it stands on; "" without git
	Edited  bool   // files differ from Commit
	Series  string // the release that its .gitreview is of: zed; "" where it says none
	Version string // the last release before it: 21.0.0; "" where nothing says it

	git          source.Git
	files        map[string]File // below Path, of the component's package
	setup        source.Settings
	requirements []byte
}

// OpenTree reads a component's source tree, and refuses what is none.
func OpenTree(ctx context.Context, s Source) (*Tree, error) {
	abs, err := filepath.Abs(s.Path)
	if err != nil {
		return nil, err
	}
	s.Path = abs
	t := &Tree{Source: s, git: source.Repository(abs), files: map[string]File{}}
	if info, err := os.Stat(abs); err != nil || !info.IsDir() {
		return nil, t.refuse("there is no such folder", "a source tree of "+s.Component)
	}
	from, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	text, err := t.read(from, "setup.cfg")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, t.refuse("this is no source tree: it has no setup.cfg", "a source tree of "+s.Component)
	}
	if err != nil {
		return nil, err
	}
	if t.setup, err = source.ParseSettings(text.Content); err != nil {
		return nil, t.refuse(fmt.Sprintf("its setup.cfg cannot be read: %v", err), "a source tree of "+s.Component)
	}
	if name := strings.ToLower(t.setup["metadata"]["name"]); name != s.Component {
		return nil, t.refuse(fmt.Sprintf("this is a source tree of %q: so says its setup.cfg", name), "a source tree of "+s.Component)
	}
	if err := t.describe(ctx, from); err != nil {
		return nil, err
	}
	requirements, err := t.read(from, "requirements.txt")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	t.requirements = requirements.Content
	names, err := from.Paths(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !t.takes(name) {
			continue
		}
		file, err := t.read(from, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, err
		}
		t.files[name] = file
	}
	if len(t.files) == 0 {
		return nil, t.refuse("this tree has no code of "+s.Component, "a folder "+s.Component+"/ with Python files")
	}
	return t, nil
}

func (t *Tree) refuse(message, expected string) *fault.Error {
	return &fault.Error{Code: fault.Invalid, File: t.Path, Message: message, Expected: expected}
}

// takes says whether a path of the tree is code that is laid.
func (t *Tree) takes(name string) bool {
	base := path.Base(name)
	return strings.HasPrefix(name, t.Component+"/") && !strings.HasPrefix(name, t.Component+"/tests/") &&
		!strings.Contains(name, "__pycache__/") && !strings.HasSuffix(base, ".pyc") && !strings.HasPrefix(base, ".") && !strings.HasSuffix(base, "~")
}

// read is a file of the tree as it is laid.
func (t *Tree) read(from source.Tree, name string) (File, error) {
	file, err := from.Read(name)
	if err == nil && file.Mode&fs.ModeSymlink != 0 {
		err = &fault.Error{Code: fault.Invalid, File: filepath.Join(t.Path, name), Message: "this is no file", Expected: "a file: links of a source tree are not followed"}
	}
	file.Mode = mode(file.Mode)
	return file, err
}

// mode is 0 but for programs: the package's mode counts.
func mode(of fs.FileMode) fs.FileMode {
	if of&0o100 != 0 {
		return 0o755
	}
	return 0
}

// open says how the tree is read: the work tree with what is not committed, a ref's objects, or a folder.
func (t *Tree) open(ctx context.Context) (source.Tree, error) {
	_, err := t.git.Run(ctx, nil, "rev-parse", "--git-dir")
	repository := err == nil
	if t.Ref != "" {
		if !repository {
			return nil, t.refuse("this is no git repository, so it has no ref "+t.Ref, "a repository")
		}
		if t.Commit, err = t.git.Find(ctx, t.Ref); err != nil {
			return nil, t.refuse(fmt.Sprintf("the repository has no commit %q", t.Ref), "a branch, a tag or a commit")
		}
		return t.git.Files(ctx, t.Commit, func(name string) bool { return t.takes(name) || !strings.Contains(name, "/") })
	}
	if repository {
		t.Commit, _ = t.git.Find(ctx, "HEAD") // none where nothing is committed yet
		edits, err := t.git.Run(ctx, nil, "status", "--porcelain", "--untracked-files=normal", "--", t.Component, "setup.cfg")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Path, err)
		}
		t.Edited = len(edits) > 0
	}
	return &source.Dir{Path: t.Path, Git: repository, Below: t.Component}, nil
}

var (
	defaultBranch = regexp.MustCompile(`(?m)^\s*defaultbranch\s*=\s*(?:stable|unmaintained)/(\S+)`)
	versionLine   = regexp.MustCompile(`(?m)^Version:\s*(\S+)`)
)

// describe finds out which release the tree is of.
func (t *Tree) describe(ctx context.Context, from source.Tree) error {
	review, err := t.read(from, ".gitreview")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if m := defaultBranch.FindSubmatch(review.Content); m != nil {
		t.Series = string(m[1])
	}
	if info, err := t.read(from, "PKG-INFO"); err == nil {
		if m := versionLine.FindSubmatch(info.Content); m != nil {
			t.Version = string(m[1])
		}
	}
	if t.Commit != "" {
		if tag, err := t.git.Run(ctx, nil, "describe", "--tags", "--abbrev=0", "--match", "[0-9]*", t.Commit); err == nil {
			t.Version = strings.TrimSpace(string(tag))
		}
	}
	return ctx.Err()
}

// String is the tree as layers name it.
func (t *Tree) String() string {
	var how []string
	if t.Ref != "" {
		how = append(how, t.Ref)
	}
	if t.Commit != "" {
		how = append(how, "git "+t.Commit[:min(10, len(t.Commit))])
	}
	if t.Edited {
		how = append(how, "edited")
	}
	if len(how) == 0 {
		return t.Path
	}
	return t.Path + " (" + strings.Join(how, ", ") + ")"
}

// Difference is what a tree has otherwise than a node's package.
type Difference struct {
	Same, Changed, New, Removed int
	// What laying files does not do:
	Migrations  []string // new migrations of the database
	EntryPoints []string // "+ group: name = target" and "- ...": laid with the code; a console script has no program on the node
	Data        []string // setup.cfg's data_files, which lie elsewhere on nodes: configuration is Salt's
	Missing     []string // requirements that the node does not meet: "oslo.db>=12.1.0 (installed: 12.0.0)"
}

var migration = regexp.MustCompile(`/(alembic\w*|migrations?|migrate_repo)/(.*/)?versions/.*\.py$`)

// Want is what makes a node's package this tree, and how they differ. A tree that is not of the release is refused.
func (t *Tree) Want(base *Base, release string) (Want, Difference, error) {
	w := Want{Component: t.Component, Root: base.Root, Files: map[string]File{}}
	var d Difference
	for _, p := range slices.Sorted(maps.Keys(t.files)) {
		f := t.files[p]
		was, there := base.Files[p]
		switch {
		case !there:
			d.New++
			f.Base = NoFile
			if migration.MatchString(p) {
				d.Migrations = append(d.Migrations, p)
			}
		case was == sha(f.Content):
			d.Same++
			continue
		default:
			d.Changed++
			f.Mode, f.Base = 0, was
		}
		w.Files[p] = f
	}
	for p, was := range base.Files {
		if _, there := t.files[p]; !there && strings.HasSuffix(p, ".py") && t.takes(p) {
			d.Removed++
			w.Files[p] = File{Absent: true, Base: was}
		}
	}
	if err := t.belongs(base, release, d); err != nil {
		return Want{}, d, err
	}
	points, err := pointsOf(t.setup)
	if err != nil {
		return Want{}, d, t.refuse(fmt.Sprintf("the entry points in its setup.cfg cannot be read: %v", err), "lines of NAME = MODULE:ATTRIBUTE")
	}
	if len(points) > 0 {
		had, err := source.ParseEntryPoints(base.EntryPoints)
		if err != nil {
			return Want{}, d, fmt.Errorf("the entry points of the installed %s: %w", t.Component, err)
		}
		if d.EntryPoints = differences(had, points); len(d.EntryPoints) > 0 {
			w.Files[Metadata+"/entry_points.txt"] = File{Content: textOf(points)}
		}
	}
	d.Data = dataFiles(t.setup)
	d.Missing = missing(t.requirements, base.Distributions)
	w.Layers = []Layer{{Name: "code " + t.String(), Digest: w.Digest()}}
	return w, d, nil
}

// belongs says why the tree is not of the release that a node runs: by its .gitreview, else by its version, else by how
// much of the code is the same.
func (t *Tree) belongs(base *Base, release string, d Difference) error {
	major := func(v string) string { first, _, _ := strings.Cut(v, "."); return first }
	expected := fmt.Sprintf("a tree of %s's %s (%s)", release, t.Component, base.Version)
	switch {
	case t.Series != "" && t.Series != release:
		return t.refuse(fmt.Sprintf("this tree is of %s: so says its .gitreview", t.Series), expected)
	case t.Series != "":
		return nil
	case t.Version != "" && base.Version != "" && major(t.Version) != major(base.Version):
		return t.refuse(fmt.Sprintf("this tree is of version %s", t.Version), expected)
	case t.Version != "" && base.Version != "":
		return nil
	case d.Same < d.Changed+d.Removed:
		return t.refuse(fmt.Sprintf("this tree is of another release: of %d installed files %d are the same", d.Same+d.Changed+d.Removed, d.Same), expected)
	}
	return nil
}

func sha(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
