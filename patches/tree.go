package patches

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/source"
)

// What patches are tried on.
type (
	Tree  = source.Tree
	Files = source.Files
	File  = source.File
)

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

// OpenDir opens a component's tree, and refuses a folder that is not one: it has the component's Python package, and when
// it says what it is (setup.cfg), then that.
func OpenDir(component, dir string) (*source.Dir, error) {
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
	text, err := os.ReadFile(filepath.Join(dir, "setup.cfg"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, refused("%w", err)
	}
	setup, err := source.ParseSettings(text)
	if err != nil {
		return nil, refused("its setup.cfg cannot be read: %w", err)
	}
	name := setup["metadata"]["name"]
	if name != "" && name != component {
		return nil, refused("this is the tree of %s", name)
	}
	d := &source.Dir{Path: dir}
	if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
		d.Git = true
	} else if name == "" {
		d.Below = component // others' may lie beside it
	}
	if info, err := os.Stat(filepath.Join(dir, component)); err != nil || !info.IsDir() {
		return nil, refused("it has no folder %s", component)
	}
	return d, nil
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
