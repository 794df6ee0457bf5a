package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// Git runs git in a folder. Neither the user's nor the machine's configuration changes what it does.
type Git struct {
	Dir string
	Env []string // over the process's own
}

// Repository is git on a repository that is only read, whoever owns it.
func Repository(dir string) Git {
	return Git{dir, []string{"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_CONFIG_KEY_1=core.fsmonitor", "GIT_CONFIG_VALUE_1=false"}}
}

// GitError is a git command that ended otherwise than with 0.
type GitError struct {
	Args   []string
	Code   int
	Stderr string
}

func (e *GitError) Error() string {
	text := strings.Join(node.LastLines(e.Stderr, 5), "; ")
	if text == "" {
		text = fmt.Sprintf("exit code %d", e.Code)
	}
	return fmt.Sprintf("git %s: %s", strings.Join(e.Args, " "), text)
}

// Run is git's stdout; a *GitError when it ends otherwise than with 0.
func (g Git) Run(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	out, _, err := g.Both(ctx, stdin, args...)
	return out, err
}

// Both is Run that tells git's stderr too.
func (g Git) Both(ctx context.Context, stdin []byte, args ...string) (stdout []byte, stderr string, err error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = g.Dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_") }),
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_NO_REPLACE_OBJECTS=1",
		"GIT_OPTIONAL_LOCKS=0", "LC_ALL=C")
	cmd.Env = append(cmd.Env, g.Env...)
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, "", fault.New(fault.Missing, "patches and source trees need git: %w", err).WithRemedy("install it: apt-get install git")
	}
	if ctx.Err() != nil {
		return nil, "", ctx.Err()
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = &GitError{Args: args, Code: exit.ExitCode(), Stderr: errs.String()}
	}
	return out.Bytes(), errs.String(), err
}

// Find is the full name of the commit that a word means; a *GitError when it means none.
func (g Git) Find(ctx context.Context, word string) (string, error) {
	out, err := g.Run(ctx, nil, "rev-parse", "--verify", "--quiet", "--end-of-options", word+"^{commit}")
	return strings.TrimSpace(string(out)), err
}

// Item is a file in git's index or in one of its trees.
type Item struct{ Mode, Object string }

// FileMode is the mode that File has of it.
func (i Item) FileMode() fs.FileMode {
	switch i.Mode {
	case "120000":
		return fs.ModeSymlink
	case "100755":
		return 0o755
	}
	return 0o644
}

// Items reads lines of `MODE [TYPE] OBJECT [STAGE]\tPATH`, as ls-files -s -z and ls-tree -r -z print them.
func Items(out []byte) map[string]Item {
	all := map[string]Item{}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		head, path, ok := strings.Cut(line, "\t")
		words := strings.Fields(head)
		if !ok || len(words) < 3 {
			continue
		}
		object := words[1]
		if len(object) != 40 {
			object = words[2]
		}
		all[path] = Item{Mode: words[0], Object: object}
	}
	return all
}

// Blobs is the contents of objects, by name.
func (g Git) Blobs(ctx context.Context, names []string) (map[string][]byte, error) {
	if len(names) == 0 {
		return nil, nil
	}
	out, err := g.Run(ctx, []byte(strings.Join(names, "\n")+"\n"), "cat-file", "--batch")
	if err != nil {
		return nil, err
	}
	contents := map[string][]byte{}
	for len(out) > 0 {
		head, rest, _ := bytes.Cut(out, []byte("\n"))
		words := strings.Fields(string(head))
		if len(words) != 3 {
			return nil, fault.New(fault.Failed, "git has no object %s", head)
		}
		size, err := strconv.Atoi(words[2])
		if err != nil || size >= len(rest) {
			return nil, fault.New(fault.Failed, "git cat-file: a short answer")
		}
		contents[words[0]] = rest[:size:size]
		out = rest[size+1:]
	}
	return contents, nil
}

// Files is the files of a commit that are taken; those of submodules are not its own.
func (g Git) Files(ctx context.Context, commit string, takes func(path string) bool) (Files, error) {
	out, err := g.Run(ctx, nil, "ls-tree", "-r", "-z", commit)
	if err != nil {
		return nil, err
	}
	all := Items(out)
	var objects []string
	for p, it := range all {
		if it.Mode == "160000" || !takes(p) {
			delete(all, p)
			continue
		}
		objects = append(objects, it.Object)
	}
	contents, err := g.Blobs(ctx, objects)
	if err != nil {
		return nil, err
	}
	files := Files{}
	for p, it := range all {
		files[p] = File{Content: contents[it.Object], Mode: it.FileMode()}
	}
	return files, nil
}
