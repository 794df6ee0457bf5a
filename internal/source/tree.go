// Package source is a component's source tree: what is in its work tree, in a commit of its repository, or in a folder.
package source

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Tree is a component's source tree.
type Tree interface {
	// Read is a file of the tree; fs.ErrNotExist when there is none, a *fault.Error when its path goes through a link.
	Read(path string) (File, error)
	// Paths is all files that belong to the component.
	Paths(ctx context.Context) ([]string, error)
}

// File is a file of a tree, or what a file is to be.
type File struct {
	Content []byte
	Mode    fs.FileMode // 0644, 0755; fs.ModeSymlink of a link, whose content is its target; 0: as the file has it that is there
	Absent  bool        // there is none
	Base    string      // the SHA-256 in hex of the file that Content was made from; "": any
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

// Dir is a tree in a folder: a work tree, an unpacked release, or where packages are installed. It is only read.
type Dir struct {
	Path  string
	Git   bool   // a work tree of git's, which says what belongs to it
	Below string // only what lies below this folder in it is the component's; "": all
}

func (d *Dir) Read(name string) (File, error) {
	for i := range name {
		if name[i] != '/' {
			continue
		}
		at := filepath.Join(d.Path, name[:i])
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
	if d.Git {
		out, err := Repository(d.Path).Run(ctx, nil, "ls-files", "-z", "-c", "-o", "--exclude-standard", "--deduplicate", "--", filepath.Join(".", d.Below))
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
	root := filepath.Join(d.Path, d.Below)
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
