package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"

	"github.com/toast-cloud/toastdev/internal/project"
)

// Image is an image that was built: a node image in the engine, or a VM or guest image in the home.
type Image struct {
	Name  string    `json:"name"` // toastdev/node-zed:<hash>; vm-zed-<hash>; guest-<hash>; the engine's id of a node image that got no name
	Hash  string    `json:"hash"` // of everything that went into it, in hex
	Bytes int64     `json:"bytes"`
	Built time.Time `json:"built"`

	id string // the engine's, of a node image
}

// List is the images that were built, by name. The engine's are shared by every home.
func List(ctx context.Context, home *project.Home) ([]Image, error) {
	e, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	return e.all(ctx, home)
}

// all is the engine's node images and the home's VM and guest images.
func (e *engine) all(ctx context.Context, home *project.Home) ([]Image, error) {
	nodes, err := e.images(ctx)
	if err != nil {
		return nil, err
	}
	vms, err := inHome(home, "vm-*", vmImage)
	if err != nil {
		return nil, err
	}
	guests, err := inHome(home, "guest-*", guestImage)
	return slices.Concat(nodes, vms, guests), err
}

func (e *engine) images(ctx context.Context) ([]Image, error) {
	found, err := e.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelHash))})
	if err != nil {
		return nil, fmt.Errorf("list the engine's images: %w", err)
	}
	var list []Image
	for _, i := range found {
		names := i.RepoTags
		if len(names) == 0 || names[0] == "<none>:<none>" {
			names = []string{i.ID} // the engine ended a commit whose toastdev was killed
		}
		for _, name := range names {
			list = append(list, Image{Name: name, Hash: i.Labels[labelHash], Bytes: i.Size, Built: time.Unix(i.Created, 0).UTC(), id: i.ID})
		}
	}
	slices.SortFunc(list, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func vmImage(dir string) (Image, error) {
	v, err := readVM(dir)
	if err == nil && v.VDI != "" {
		var info os.FileInfo
		if info, err = os.Stat(v.VDI); err == nil {
			v.Bytes += info.Size()
		}
	}
	return Image{Hash: v.Hash, Bytes: v.Bytes, Built: v.Built}, err
}

func guestImage(dir string) (Image, error) {
	g, err := readGuest(dir)
	return Image{Hash: g.Hash, Bytes: g.Bytes, Built: g.Built}, err
}

// inHome is the images whose folders have such a name.
func inHome(home *project.Home, pattern string, read func(dir string) (Image, error)) ([]Image, error) {
	folders, err := filepath.Glob(home.Path("images", pattern))
	if err != nil {
		return nil, err
	}
	var list []Image
	for _, folder := range folders {
		if strings.HasSuffix(folder, halfSuffix) {
			continue
		}
		found, err := read(folder)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found.Name = filepath.Base(folder)
		list = append(list, found)
	}
	return list, nil
}

// Prune removes the images that keep does not claim, and is what was removed. An image that a container uses stays.
func Prune(ctx context.Context, home *project.Home, keep func(Image) bool) ([]Image, error) {
	e, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	all, err := e.all(ctx, home)
	if err != nil {
		return nil, err
	}
	var removed []Image
	for _, i := range all {
		if keep(i) {
			continue
		}
		if i.id == "" {
			err = os.RemoveAll(home.Path("images", i.Name))
		} else {
			_, err = e.ImageRemove(ctx, i.Name, image.RemoveOptions{PruneChildren: true})
		}
		switch {
		case errdefs.IsConflict(err), errdefs.IsNotFound(err):
		case err != nil:
			return removed, fmt.Errorf("remove the image %s: %w", i.Name, err)
		default:
			removed = append(removed, i)
		}
	}
	return removed, nil
}
