package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// An editor's save is several events within a few milliseconds; a checkout of another branch is many.
const (
	quiet   = 20 * time.Millisecond // after the last event
	longest = 500 * time.Millisecond
)

// Watch calls saved with the files of the work tree that changed, by path, Absent when they were removed, whenever some did:
// once for a save, however the editor does it. A file whose content is as before is none of them. While saved works, further
// saves wait. It returns when ctx ends, with nil, or with saved's error.
func (t *Tree) Watch(ctx context.Context, saved func(context.Context, map[string]File) error) error {
	if t.Ref != "" {
		return t.refuse("a ref's files do not change: there is nothing to watch", "a work tree")
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fault.New(fault.Missing, "watch %s: %w", t.Path, err).WithRemedy("raise fs.inotify.max_user_instances")
	}
	defer w.Close()
	touched := map[string]bool{}
	if err := t.follow(w, t.Component, touched); err != nil {
		return err
	}
	// What was saved between OpenTree and now is there to be seen.
	for name := range t.files {
		touched[name] = true
	}
	var first time.Time
	timer := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch %s: %w", t.Path, err)
			}
			if err := t.follow(w, t.Component, touched); err != nil {
				return err
			}
			timer.Reset(quiet)
		case e := <-w.Events:
			name, err := filepath.Rel(t.Path, e.Name)
			if err != nil || e.Op == fsnotify.Chmod {
				continue
			}
			name = filepath.ToSlash(name)
			if info, err := os.Lstat(e.Name); err == nil && info.IsDir() {
				if e.Has(fsnotify.Create) {
					if err := t.follow(w, name, touched); err != nil {
						return err
					}
				}
			} else if t.takes(name) {
				touched[name] = true
			} else if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
				t.below(name, touched) // it may have been a folder
			}
			if len(touched) == 0 {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			timer.Reset(max(0, min(quiet, time.Until(first.Add(longest)))))
		case <-timer.C:
			first = time.Time{}
			if _, err := os.Stat(filepath.Join(t.Path, "setup.cfg")); err != nil {
				return t.refuse("the tree is being removed: what is laid stays", "a source tree of "+t.Component)
			}
			changed, err := t.changed(ctx, touched)
			if err != nil {
				return err
			}
			if len(touched) > 0 {
				timer.Reset(longest)
			}
			if len(changed) == 0 {
				continue
			}
			if err := saved(ctx, changed); err != nil {
				return err
			}
		}
	}
}

// follow watches a folder and those in it; the files in them count as touched.
func (t *Tree) follow(w *fsnotify.Watcher, dir string, touched map[string]bool) error {
	return fs.WalkDir(os.DirFS(t.Path), dir, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !d.IsDir() {
			if t.takes(name) {
				touched[name] = true
			}
			return nil
		}
		if d.Name() == "__pycache__" || name == t.Component+"/tests" || strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		err = w.Add(filepath.Join(t.Path, name))
		if errors.Is(err, fs.ErrNotExist) {
			return fs.SkipDir
		}
		if err != nil {
			return fault.New(fault.Missing, "watch %s: %w", filepath.Join(t.Path, name), err).WithRemedy("raise fs.inotify.max_user_watches")
		}
		return nil
	})
}

// below touches what the tree has below a folder.
func (t *Tree) below(dir string, touched map[string]bool) {
	for name := range t.files {
		if strings.HasPrefix(name, dir+"/") {
			touched[name] = true
		}
	}
}

// changed is which of the touched files are other than the tree knows them; it knows them afterwards. A file that is empty
// all at once may be in the middle of a save: it stays touched, marked by false, and is believed when it is asked for again.
func (t *Tree) changed(ctx context.Context, touched map[string]bool) (map[string]File, error) {
	changed := map[string]File{}
	var fresh []string
	for _, name := range slices.Collect(maps.Keys(touched)) {
		once := touched[name]
		delete(touched, name)
		info, err := os.Lstat(filepath.Join(t.Path, name))
		known, is := t.files[name]
		if err != nil || !info.Mode().IsRegular() {
			if is {
				changed[name] = File{Absent: true}
				delete(t.files, name)
			}
			continue
		}
		content, err := os.ReadFile(filepath.Join(t.Path, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // an event follows
		}
		if err != nil {
			return nil, err
		}
		if is && string(known.Content) == string(content) {
			continue
		}
		if len(content) == 0 && len(known.Content) > 0 && once {
			touched[name] = false
			continue
		}
		if !is {
			fresh = append(fresh, name)
		}
		changed[name] = File{Content: content, Mode: mode(info.Mode())}
	}
	// What an editor puts beside a file is mostly ignored by git.
	if len(fresh) > 0 && t.Commit != "" {
		out, _ := t.git.Run(ctx, []byte(strings.Join(fresh, "\x00")+"\x00"), "check-ignore", "-z", "--stdin")
		for name := range strings.SplitSeq(string(out), "\x00") {
			delete(changed, name)
		}
	}
	for name, f := range changed {
		if !f.Absent {
			t.files[name] = f
		}
	}
	return changed, nil
}
