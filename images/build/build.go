// Package build makes node, VM and guest images out of their recipes: mmdebstrap on the host, the rest in the engine.
package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/docker/docker/client"
	"github.com/gofrs/flock"

	"github.com/toast-cloud/toastdev/images"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/provisioners/docker"
)

// Request is what Node, VM and Guest are asked for.
type Request struct {
	Home  *project.Home
	Node  *images.NodeRecipe  // for Node
	VM    *images.VMRecipe    // for VM
	VDI   bool                // for VM: the disk in VirtualBox's format too
	Guest *images.GuestRecipe // for Guest
}

// The labels of a node image.
const (
	labelHash    = "toastdev.image"
	labelRelease = "toastdev.release"
)

const gib = 1 << 30

// engine is the container engine, as a build needs it.
type engine struct {
	*client.Client
	nodes *docker.Provisioner
}

// connect is the engine, or why it cannot be used.
func connect(ctx context.Context) (*engine, error) {
	nodes, err := docker.New(docker.Options{})
	if err != nil {
		return nil, err
	}
	if err := nodes.Check(ctx); err != nil {
		nodes.Close()
		return nil, err
	}
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		nodes.Close()
		return nil, err
	}
	return &engine{api, nodes}, nil
}

func (e *engine) Close() error {
	return errors.Join(e.Client.Close(), e.nodes.Close())
}

// lock keeps every other toastdev of this home from building what has this name, until the returned function. Where one
// builds it already, lock waits for it.
func lock(ctx context.Context, home *project.Home, name string) (unlock func(), err error) {
	held, err := lockFile(home, name)
	if err != nil {
		return nil, err
	}
	taken, err := held.TryLock()
	if err == nil && !taken {
		progress.Emit(ctx, progress.Event{Phase: phase, Unit: name, Message: "another toastdev builds it: wait"})
		_, err = held.TryLockContext(ctx, 300*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the building of %s: %w", name, err)
	}
	return func() { _ = held.Unlock() }, nil
}

func lockFile(home *project.Home, name string) (*flock.Flock, error) {
	dir := home.Path("images", "locks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return flock.New(filepath.Join(dir, name)), nil
}

// scratchFolder makes a build's folder (see scratchName) among the temporary files, open to what mmdebstrap runs as, and
// removes it again. The caller holds the build's lock: what is there already was left by a build that was killed.
func scratchFolder(name string) (dir string, remove func(), err error) {
	dir = filepath.Join(os.TempDir(), name)
	if err := os.RemoveAll(dir); err != nil {
		return "", nil, fmt.Errorf("remove what a killed build left: %w", err)
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		return "", nil, err
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}

// needSpace is a fault unless that many bytes are free in dir, or in the nearest folder above it that is there. What this
// user cannot see (an engine elsewhere) is not held against it.
func needSpace(dir string, need int64, what string) error {
	for {
		var s syscall.Statfs_t
		err := syscall.Statfs(dir, &s)
		if errors.Is(err, fs.ErrNotExist) && dir != "/" {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return nil
		}
		return enough(int64(s.Bavail)*int64(s.Bsize), need, dir, what)
	}
}

func enough(free, need int64, dir, what string) error {
	if free >= need {
		return nil
	}
	return fault.New(fault.Missing, "the disk is nearly full: %s needs %.1f GiB in %s, %.1f GiB are free", what, float64(need)/gib, dir, float64(free)/gib).
		WithRemedy("free some space there; `toastdev image prune` removes images that no environment uses, `docker system df` shows what the engine keeps")
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
