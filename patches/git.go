package patches

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/source"
)

// scratch is a repository of our own for the time of a check: what git works on beside the user's trees and repositories,
// which are only read.
type scratch struct {
	source.Git
	root string
	made map[string]bool // objects that were written
	part bool            // it borrows from a partial clone: asking for an object fetches it
	zip  *zlib.Writer    // kept: a new one costs more than most objects
}

// newScratch makes one below dir, which exists; "" is the system's folder for temporary files.
func newScratch(ctx context.Context, dir string) (*scratch, error) {
	root, err := os.MkdirTemp(dir, "toastdev-patch-")
	if err != nil {
		return nil, fault.New(fault.Missing, "make a folder to work in: %w", err)
	}
	s := &scratch{Git: source.Git{Dir: root}, root: root, made: map[string]bool{}}
	version, err := s.Run(ctx, nil, "version")
	if err == nil && olderThan(string(version), 2, 38) {
		err = fault.New(fault.Missing, "patches need git 2.38 or newer, this is %s", strings.TrimSpace(string(version))).WithRemedy("install a newer git")
	}
	if err == nil {
		_, err = s.Run(ctx, nil, "init", "-q", "--bare", "--object-format=sha1", "--template=", "repo.git")
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	s.Env = []string{"GIT_DIR=" + filepath.Join(root, "repo.git"), "GIT_INDEX_FILE=" + filepath.Join(root, "index")}
	for _, setting := range []string{"core.fsync=none", "core.compression=0", "gc.auto=0", "core.logAllRefUpdates=false", "diff.renames=true", "core.quotePath=true"} {
		key, value, _ := strings.Cut(setting, "=")
		s.Env = append(s.Env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", (len(s.Env)-2)/2, key), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", (len(s.Env)-2)/2, value))
	}
	s.Env = append(s.Env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", (len(s.Env)-2)/2))
	return s, nil
}

func (s *scratch) Close() { os.RemoveAll(s.root) }

// olderThan reads "git version 2.39.5 (...)".
func olderThan(version string, major, minor int) bool {
	words := strings.Fields(version)
	if len(words) < 3 {
		return false
	}
	parts := strings.Split(words[2], ".")
	if len(parts) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (a < major || a == major && b < minor)
}

// hashed is how an object begins, and its name.
func hashed(kind string, content []byte) (head, name string) {
	head = fmt.Sprintf("%s %d\x00", kind, len(content))
	sum := sha1.New()
	io.WriteString(sum, head)
	sum.Write(content)
	return head, hex.EncodeToString(sum.Sum(nil))
}

// object writes a loose object (gitformat-loose, gitrepository-layout(5)) and returns its name. A process each would cost a
// hundred times as much.
func (s *scratch) object(kind string, content []byte) (string, error) {
	head, name := hashed(kind, content)
	if s.made[name] {
		return name, nil
	}
	dir := filepath.Join(s.root, "repo.git", "objects", name[:2])
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	var packed bytes.Buffer
	if s.zip == nil {
		var err error
		if s.zip, err = zlib.NewWriterLevel(&packed, zlib.NoCompression); err != nil {
			return "", err
		}
	} else {
		s.zip.Reset(&packed)
	}
	io.WriteString(s.zip, head)
	s.zip.Write(content)
	s.zip.Close() // into memory
	s.made[name] = true
	return name, os.WriteFile(filepath.Join(dir, name[2:]), packed.Bytes(), 0o444)
}

// commit writes a commit of a tree.
func (s *scratch) commit(tree string, parents ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "tree %s\n", tree)
	for _, p := range parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	b.WriteString("author toastdev <toastdev> 0 +0000\ncommitter toastdev <toastdev> 0 +0000\n\n")
	return s.object("commit", []byte(b.String()))
}

// blob is an object's content.
func (s *scratch) blob(ctx context.Context, name string) ([]byte, error) {
	return s.Run(ctx, nil, "cat-file", "blob", name)
}

func gitMode(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "120000"
	case mode&0o100 != 0:
		return "100755"
	}
	return "100644"
}
