package patches

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Tree is a component's source tree, which patches are tried on.
type Tree interface {
	// Read is a file of the tree; fs.ErrNotExist when there is none, a *fault.Error when its path goes through a link.
	Read(path string) (File, error)
	// Paths is all files that belong to the component.
	Paths(ctx context.Context) ([]string, error)
}

// File is a file's content.
type File struct {
	Content []byte
	Mode    fs.FileMode // 0644, 0755; fs.ModeSymlink of a link, whose content is its target
	Absent  bool        // there is none
}

// Files is files by their paths: a tree that is held in memory, or what differs from one.
type Files map[string]File

func (f Files) Read(path string) (File, error) {
	if file, ok := f[path]; ok && !file.Absent {
		return file, nil
	}
	return File{}, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
}

func (f Files) Paths(context.Context) ([]string, error) {
	var paths []string
	for p, file := range f {
		if !file.Absent {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// Over is a tree with other files laid over it.
func Over(base Tree, files Files) Tree { return over{base, files} }

type over struct {
	base  Tree
	files Files
}

func (o over) Read(path string) (File, error) {
	if _, ok := o.files[path]; ok {
		return o.files.Read(path)
	}
	return o.base.Read(path)
}

func (o over) Paths(ctx context.Context) ([]string, error) {
	base, err := o.base.Paths(ctx)
	if err != nil {
		return nil, err
	}
	paths, _ := o.files.Paths(ctx)
	for _, p := range base {
		if _, ok := o.files[p]; !ok {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// Dir is a tree in a folder: a checkout, an unpacked release, or where packages are installed. It is only read.
type Dir struct {
	Path string

	whole bool // the folder is the component's alone; else, only what lies below inner is
	inner string
}

// OpenDir opens a component's tree, and refuses a folder that is not one: it has the component's Python package, and when
// it says what it is (setup.cfg), then that.
func OpenDir(component, dir string) (*Dir, error) {
	refused := func(format string, args ...any) error {
		e := fault.New(fault.Invalid, format, args...)
		e.File, e.Path = dir, "--tree "+component
		e.Expected = fmt.Sprintf("the source tree of %s: a folder with %s/__init__.py or setup.cfg", component, component)
		return e
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, refused("there is no such folder")
	case err != nil:
		return nil, refused("%w", err)
	case !info.IsDir():
		return nil, refused("this is no folder")
	}
	d := &Dir{Path: dir, inner: component}
	name := projectName(filepath.Join(dir, "setup.cfg"))
	if name != "" && name != component {
		return nil, refused("this is the tree of %s", name)
	}
	d.whole = name != ""
	if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
		d.whole = true
	}
	if info, err := os.Stat(filepath.Join(dir, component)); err != nil || !info.IsDir() {
		return nil, refused("it has no folder %s", component)
	}
	return d, nil
}

// projectName is the name in a setup.cfg's metadata, "" when there is none.
func projectName(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	section := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			section = line
		}
		if key, value, ok := strings.Cut(line, "="); ok && section == "[metadata]" && strings.TrimSpace(key) == "name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (d *Dir) Read(name string) (File, error) {
	at := d.Path
	for elem := range strings.SplitSeq(path.Dir(name), "/") {
		at = filepath.Join(at, elem)
		info, err := os.Lstat(at)
		if err != nil {
			return File{}, err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return File{}, fault.New(fault.Invalid, "the path %q goes through a link, %s", name, at)
		}
	}
	full := filepath.Join(d.Path, filepath.FromSlash(name))
	info, err := os.Lstat(full)
	switch {
	case err != nil:
		return File{}, err
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(full)
		return File{Content: []byte(target), Mode: fs.ModeSymlink}, err
	case info.IsDir():
		return File{}, fault.New(fault.Invalid, "the path %q is a folder in the tree", name)
	case !info.Mode().IsRegular():
		return File{}, fault.New(fault.Invalid, "the path %q is no file in the tree", name)
	}
	content, err := os.ReadFile(full)
	return File{Content: content, Mode: 0o644 | info.Mode()&0o111}, err
}

// Paths is what git would take of a work tree, else every file but what running and building leave behind.
func (d *Dir) Paths(ctx context.Context) ([]string, error) {
	if _, err := os.Lstat(filepath.Join(d.Path, ".git")); err == nil {
		out, err := git{dir: d.Path}.run(ctx, nil, "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "ls-files", "-z", "-c", "-o", "--exclude-standard", "--deduplicate")
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", d.Path, err)
		}
		var paths []string
		for p := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			if info, err := os.Lstat(filepath.Join(d.Path, p)); err == nil && !info.IsDir() {
				paths = append(paths, p)
			}
		}
		return paths, nil
	}
	root := d.Path
	if !d.whole {
		root = filepath.Join(d.Path, d.inner)
	}
	var paths []string
	err := filepath.WalkDir(root, func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if p != root && (name == "__pycache__" || strings.HasSuffix(name, ".egg-info") || strings.HasPrefix(name, ".") && filepath.Dir(p) == root) {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".pyc") || strings.HasSuffix(name, ".pyo") || !entry.Type().IsRegular() && entry.Type()&fs.ModeSymlink == 0 {
			return nil
		}
		rel, err := filepath.Rel(d.Path, p)
		paths = append(paths, filepath.ToSlash(rel))
		return err
	})
	return paths, err
}

// differ is the paths in either that are not the same in both.
func differ(a, b Files) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	var paths []string
	for p := range all {
		x, y := a[p], b[p]
		if _, ok := a[p]; !ok {
			x.Absent = true
		}
		if _, ok := b[p]; !ok {
			y.Absent = true
		}
		if x.Absent != y.Absent || x.Mode != y.Mode || !bytes.Equal(x.Content, y.Content) {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}
