package project

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/mitchellh/go-homedir"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// FolderFile is the file that makes a folder a project's.
const FolderFile = "toastdev.yaml"

const folderBytes = 64 << 10 // no such file comes near

// Folder is the user's project: the folder where a toastdev.yaml stands, and what it says.
type Folder struct {
	Dir      string            `yaml:"-"`        // absolute
	Upstream map[string]string `yaml:"upstream"` // a component's repository of upstream's: a path, absolute when read, or a URL
}

// FindFolder is the project that dir lies in: the nearest folder upwards that has a toastdev.yaml. Without one it is nil.
func FindFolder(dir string) (*Folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for {
		file := filepath.Join(dir, FolderFile)
		if info, err := os.Stat(file); err == nil && !info.IsDir() {
			return readFolder(file)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.Invalid, "read the project: %w", err)
		}
		above := filepath.Dir(dir)
		if above == dir {
			return nil, nil
		}
		dir = above
	}
}

func readFolder(file string) (*Folder, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the project: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, folderBytes+1))
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the project: %w", err)
	}
	folder := &Folder{}
	if len(text) > folderBytes {
		return nil, &fault.Error{Code: fault.Invalid, File: file, Message: "this is no file of a project: it is too long", Expected: "at most 64 KiB"}
	}
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.DisallowUnknownField()).Decode(folder); err != nil && !errors.Is(err, io.EOF) {
		return nil, unreadable(file, err)
	}
	folder.Dir = filepath.Dir(file)
	for component, ref := range folder.Upstream {
		if ref == "" {
			return nil, &fault.Error{Code: fault.Invalid, File: file, Path: "upstream." + component, Message: "nothing is named", Expected: "a path or a URL of a git repository"}
		}
		if folder.Upstream[component], err = repositoryIn(folder.Dir, ref); err != nil {
			return nil, &fault.Error{Code: fault.Invalid, File: file, Path: "upstream." + component, Message: err.Error(), Err: err}
		}
	}
	return folder, nil
}

// unreadable is a decoder's error at its place.
func unreadable(file string, err error) error {
	e := &fault.Error{Code: fault.Invalid, File: file, Message: err.Error(), Expected: "the keys upstream", Err: err}
	var at yaml.Error
	if errors.As(err, &at) {
		e.Message = at.GetMessage()
		if t := at.GetToken(); t != nil && t.Position != nil {
			e.Line, e.Column = t.Position.Line, t.Position.Column
		}
	}
	if m := unknownField.FindStringSubmatch(e.Message); m != nil {
		e.Message = fmt.Sprintf("no key is called %q", m[1])
		return e.Suggest(m[1], []string{"upstream"})
	}
	return e
}

var (
	unknownField = regexp.MustCompile(`^unknown field "([^"]*)"`)
	scpForm      = regexp.MustCompile(`^[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:`)
)

// IsURL says that a repository is named by its address, not by a path.
func IsURL(ref string) bool { return strings.Contains(ref, "://") || scpForm.MatchString(ref) }

// repositoryIn is a repository's absolute path, seen from a folder, or its URL.
func repositoryIn(dir, ref string) (string, error) {
	if IsURL(ref) {
		return ref, nil
	}
	ref, err := homedir.Expand(ref)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(ref) {
		ref = filepath.Join(dir, ref)
	}
	return filepath.Clean(ref), nil
}

// Layer is a folder of the project laid over what is built in: a file is read from the project when it has it. Locate tells
// which of the two it came from.
type Layer struct {
	Dir   string // the project's folder; empty, or missing on disk: nothing is laid over
	Under fs.FS
	Name  string // what Under is called in messages
}

// Open opens the project's file or the one built in; a folder has the entries of both.
func (l Layer) Open(name string) (fs.File, error) {
	if l.Dir != "" {
		if f, err := os.DirFS(l.Dir).Open(name); !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return l.Under.Open(name)
}

// ReadDir is the entries of a folder in both, by name.
func (l Layer) ReadDir(name string) ([]fs.DirEntry, error) {
	all := map[string]fs.DirEntry{}
	entries, err := fs.ReadDir(l.Under, name)
	for _, e := range entries {
		all[e.Name()] = e
	}
	if l.Dir != "" {
		over, overErr := fs.ReadDir(os.DirFS(l.Dir), name)
		for _, e := range over {
			all[e.Name()] = e
		}
		if overErr == nil || !errors.Is(overErr, fs.ErrNotExist) {
			err = overErr
		}
	}
	var list []fs.DirEntry
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[name])
	}
	return list, err
}

// Locate is what a file is called for the user: its path in the project, or its name among what is built in.
func (l Layer) Locate(name string) string {
	if l.Dir != "" {
		path := filepath.Join(l.Dir, filepath.FromSlash(name))
		if _, err := os.Lstat(path); err == nil {
			return path
		}
	}
	return l.Name + "/" + name
}
