package patches

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/internal/source"
)

// repository is upstream's repository of a component: the user's own in place, which is only read, or a clone in the cache.
type repository struct {
	source.Git
	ref    string // what the user calls it
	common string // its git folder
	clone  bool   // ours: it may be fetched into
}

// repository opens upstream's repository of a component.
func (c *Checker) repository(ctx context.Context, component string) (*repository, error) {
	ref := c.Upstream[component]
	if ref == "" {
		return nil, fault.New(fault.Missing, "changes of upstream's are taken from a git repository of %s, and none is named", component).
			WithRemedy("say --upstream %s=PATH_OR_URL, or write into toastdev.yaml: upstream: {%s: PATH_OR_URL}", component, component)
	}
	r := &repository{ref: ref}
	path := ref
	if project.IsURL(ref) {
		r.clone = true
		var err error
		if path, err = c.cloned(ctx, component, ref); err != nil {
			return nil, err
		}
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		e := fault.New(fault.Invalid, "there is no such folder")
		e.File, e.Path, e.Expected = path, "--upstream "+component, "a git repository of "+component+", or its URL"
		return nil, e
	}
	out, err := source.Repository(path).Run(ctx, nil, "rev-parse", "--path-format=absolute", "--git-common-dir")
	if _, ok := errors.AsType[*source.GitError](err); ok {
		e := fault.New(fault.Invalid, "this is no git repository")
		e.File, e.Path, e.Expected, e.Err = path, "--upstream "+component, "a git repository of "+component+", or its URL", err
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	r.common = strings.TrimSpace(string(out))
	r.Git = source.Git{Dir: path, Env: []string{"GIT_DIR=" + r.common}}
	return r, nil
}

// cloned is the clone of a URL in the cache, made when it is not there: bare, and without the files' contents where the
// server can do that, which are then fetched as they are needed.
func (c *Checker) cloned(ctx context.Context, component, url string) (string, error) {
	if c.Cache == "" {
		return "", fault.New(fault.Failed, "clone %s: there is no cache to clone into", url)
	}
	dir := filepath.Join(c.Cache, "upstream")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%.8x.git", component, sha256.Sum256([]byte(url))))
	lock := flock.New(path + ".lock")
	if err := lock.Lock(); err != nil {
		return "", err
	}
	defer lock.Unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	progress.Emit(ctx, progress.Event{Phase: "upstream", Message: "clone " + url + ", once"})
	part := path + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	if _, err := (source.Git{Dir: dir}).Run(ctx, nil, "clone", "-q", "--bare", "--filter=blob:none", "--", url, part); err != nil {
		os.RemoveAll(part)
		e := fault.New(fault.Failed, "clone %s: %w", url, err)
		e.Path = "--upstream " + component
		return "", e.WithRemedy("see whether `git ls-remote %s` answers, or name a repository on this machine", url)
	}
	return path, os.Rename(part, path)
}

// resolve is the full name of the commit that a word means: a hash, a tag, a branch. A clone is fetched into when it does not have it.
func (r *repository) resolve(ctx context.Context, word string) (string, error) {
	if strings.HasPrefix(word, "-") {
		return "", fault.New(fault.Invalid, "%q is no commit", word)
	}
	name, err := r.Find(ctx, word)
	if err != nil && ctx.Err() == nil && r.clone {
		progress.Emit(ctx, progress.Event{Phase: "upstream", Message: "fetch " + r.ref})
		if _, err := r.Run(ctx, nil, "fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/heads/*"); err != nil {
			return "", fault.New(fault.Failed, "fetch %s: %w", r.ref, err)
		}
		name, err = r.Find(ctx, word)
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		e := fault.New(fault.NotFound, "the repository %s has no commit %s", r.ref, word)
		e.Remedy = "fetch it: git -C " + r.ref + " fetch --all; or name another repository with --upstream"
		if r.clone {
			e.Remedy = "name a repository that has it with --upstream"
		}
		return "", e
	}
	return name, nil
}

// lend makes the repository's objects readable in the scratch one.
func (r *repository) lend(ctx context.Context, s *scratch) error {
	dir := filepath.Join(s.root, "repo.git")
	if err := os.MkdirAll(filepath.Join(dir, "objects", "info"), 0o777); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "objects", "info", "alternates"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, filepath.Join(r.common, "objects"))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	// A partial clone fetches what it lacks when it is read; so must what reads its objects.
	get := func(args ...string) string {
		out, _ := r.Run(ctx, nil, append([]string{"config"}, args...)...)
		return strings.TrimSpace(string(out))
	}
	key, isOne, _ := strings.Cut(get("--get-regexp", `^remote\..*\.promisor$`), " ")
	if isOne != "true" {
		return nil
	}
	remote := strings.TrimSuffix(strings.TrimPrefix(key, "remote."), ".promisor")
	s.part = true
	url := get("--get", "remote."+remote+".url")
	if !project.IsURL(url) && !filepath.IsAbs(url) {
		url = filepath.Join(r.Dir, url)
	}
	for _, setting := range [][2]string{{"core.repositoryFormatVersion", "1"}, {"extensions.partialClone", remote}, {"remote." + remote + ".promisor", "true"},
		{"remote." + remote + ".url", url}, {"remote." + remote + ".partialCloneFilter", "blob:none"}} {
		if _, err := s.Run(ctx, nil, "config", setting[0], setting[1]); err != nil {
			return err
		}
	}
	return nil
}
