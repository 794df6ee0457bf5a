package overlay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
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

	files        map[string]File // below Path, of the component's package
	setup        settings
	requirements []byte
}

// OpenTree reads a component's source tree, and refuses what is none.
func OpenTree(ctx context.Context, s Source) (*Tree, error) {
	abs, err := filepath.Abs(s.Path)
	if err != nil {
		return nil, err
	}
	s.Path = abs
	t := &Tree{Source: s, files: map[string]File{}}
	if info, err := os.Stat(abs); err != nil || !info.IsDir() {
		return nil, t.refuse("there is no such folder", "a source tree of "+s.Component)
	}
	read, list, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	text, err := read("setup.cfg")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, t.refuse("this is no source tree: it has no setup.cfg", "a source tree of "+s.Component)
	}
	if err != nil {
		return nil, err
	}
	t.setup = parseSettings(text)
	if name := strings.ToLower(t.setup["metadata"]["name"]); name != s.Component {
		return nil, t.refuse(fmt.Sprintf("this is a source tree of %q: so says its setup.cfg", name), "a source tree of "+s.Component)
	}
	if err := t.describe(ctx, read); err != nil {
		return nil, err
	}
	if t.requirements, err = read("requirements.txt"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names, err := list(s.Component)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !t.takes(name) {
			continue
		}
		content, err := read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // tracked, and removed from the work tree
		}
		if err != nil {
			return nil, err
		}
		t.files[name] = File{Content: content, Mode: t.mode(name)}
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

// mode is 0 but for programs: the package's mode counts.
func (t *Tree) mode(name string) fs.FileMode {
	if t.Ref != "" {
		return 0
	}
	if info, err := os.Stat(filepath.Join(t.Path, name)); err == nil && info.Mode()&0o100 != 0 {
		return 0o755
	}
	return 0
}

type (
	reader func(name string) ([]byte, error) // a file of the tree
	lister func(dir string) ([]string, error)
)

// open says how the tree is read: the work tree with what is not committed, a ref's objects, or a folder.
func (t *Tree) open(ctx context.Context) (reader, lister, error) {
	top, err := t.git(ctx, nil, "rev-parse", "--git-dir")
	repository := err == nil && len(top) > 0
	if t.Ref != "" {
		if !repository {
			return nil, nil, t.refuse("this is no git repository, so it has no ref "+t.Ref, "a repository")
		}
		commit, err := t.git(ctx, nil, "rev-parse", "--verify", "--quiet", "--end-of-options", t.Ref+"^{commit}")
		if err != nil {
			return nil, nil, t.refuse(fmt.Sprintf("the repository has no commit %q", t.Ref), "a branch, a tag or a commit")
		}
		t.Commit = strings.TrimSpace(string(commit))
		return t.objects(ctx)
	}
	read := func(name string) ([]byte, error) {
		at := filepath.Join(t.Path, name)
		info, err := os.Lstat(at)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, &fault.Error{Code: fault.Invalid, File: at, Message: "this is no file", Expected: "a file: links of a source tree are not followed"}
		}
		return os.ReadFile(at)
	}
	if !repository {
		return read, func(dir string) (names []string, err error) {
			err = fs.WalkDir(os.DirFS(t.Path), dir, func(name string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					names = append(names, name)
				}
				return err
			})
			return names, err
		}, nil
	}
	if commit, err := t.git(ctx, nil, "rev-parse", "--verify", "--quiet", "HEAD"); err == nil {
		t.Commit = strings.TrimSpace(string(commit))
	}
	edits, err := t.git(ctx, nil, "status", "--porcelain", "--untracked-files=normal", "--", t.Component, "setup.cfg")
	if err != nil {
		return nil, nil, err
	}
	t.Edited = len(edits) > 0
	return read, func(dir string) ([]string, error) {
		out, err := t.git(ctx, nil, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", dir)
		names := strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
		slices.Sort(names)
		return slices.Compact(names), err
	}, nil
}

// objects reads a commit's files.
func (t *Tree) objects(ctx context.Context) (reader, lister, error) {
	out, err := t.git(ctx, nil, "ls-tree", "-r", "-z", t.Commit)
	if err != nil {
		return nil, nil, err
	}
	objects := map[string]string{}
	var names []string
	var ask bytes.Buffer
	for entry := range strings.SplitSeq(string(out), "\x00") {
		meta, name, ok := strings.Cut(entry, "\t")
		fields := strings.Fields(meta)
		if !ok || len(fields) < 3 {
			continue
		}
		if t.takes(name) && !strings.HasPrefix(fields[0], "100") {
			return nil, nil, &fault.Error{Code: fault.Invalid, File: name, Message: "this is no file", Expected: "a file: links of a source tree are not followed"}
		}
		if t.takes(name) || !strings.Contains(name, "/") {
			objects[name] = fields[2]
			names = append(names, name)
			fmt.Fprintln(&ask, fields[2])
		}
	}
	contents := map[string][]byte{}
	if out, err = t.git(ctx, ask.Bytes(), "cat-file", "--batch"); err != nil {
		return nil, nil, err
	}
	for r := bufio.NewReader(bytes.NewReader(out)); ; {
		head, err := r.ReadString('\n')
		if err == io.EOF {
			break
		}
		fields := strings.Fields(head)
		if err != nil || len(fields) != 3 {
			return nil, nil, fmt.Errorf("%s: git cat-file: %q", t.Path, head)
		}
		size, err := strconv.Atoi(fields[2])
		if err != nil {
			return nil, nil, fmt.Errorf("%s: git cat-file: %q", t.Path, head)
		}
		content := make([]byte, size+1)
		if _, err := io.ReadFull(r, content); err != nil {
			return nil, nil, fmt.Errorf("%s: git cat-file: %w", t.Path, err)
		}
		contents[fields[0]] = content[:size]
	}
	read := func(name string) ([]byte, error) {
		content, ok := contents[objects[name]]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return content, nil
	}
	return read, func(string) ([]string, error) { return names, nil }, nil
}

func (t *Tree) git(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = t.Path
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_") }),
		"GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(stdin)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil && ctx.Err() == nil {
		err = &fault.Error{Code: fault.Failed, File: t.Path, Message: fmt.Sprintf("git %s: %v", args[0], err), Log: node.LastLines(errs.String(), 5), Err: err}
	}
	return out, err
}

var (
	defaultBranch = regexp.MustCompile(`(?m)^\s*defaultbranch\s*=\s*(?:stable|unmaintained)/(\S+)`)
	versionLine   = regexp.MustCompile(`(?m)^Version:\s*(\S+)`)
)

// describe finds out which release the tree is of.
func (t *Tree) describe(ctx context.Context, read reader) error {
	review, err := read(".gitreview")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if m := defaultBranch.FindSubmatch(review); m != nil {
		t.Series = string(m[1])
	}
	if info, err := read("PKG-INFO"); err == nil {
		if m := versionLine.FindSubmatch(info); m != nil {
			t.Version = string(m[1])
		}
	}
	if t.Commit != "" {
		if tag, err := t.git(ctx, nil, "describe", "--tags", "--abbrev=0", "--match", "[0-9]*", t.Commit); err == nil {
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
	if points := t.setup.entryPoints(); len(points) > 0 {
		had := parseEntryPoints(base.EntryPoints)
		if d.EntryPoints = differences(had, points); len(d.EntryPoints) > 0 {
			w.Files[Metadata+"/entry_points.txt"] = File{Content: points.text()}
		}
	}
	d.Data = t.setup.dataFiles()
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
