package lifecycle

import (
	"context"

	"github.com/toast-cloud/toastdev/images"
	"github.com/toast-cloud/toastdev/images/build"
	"github.com/toast-cloud/toastdev/salt"
	"github.com/toast-cloud/toastdev/topologies"
)

// BuildImages builds the node image of each release (all that are built in when none is named) and the guest image that
// its regions get, and is these images. What was built before is not built again.
func (t *Toastdev) BuildImages(ctx context.Context, releases []string) ([]build.Image, error) {
	if len(releases) == 0 {
		releases = topologies.Releases()
	}
	wanted := map[string]bool{}
	for _, name := range releases {
		release, err := topologies.LoadRelease(name)
		if err != nil {
			return nil, err
		}
		node, err := images.Node(release, images.NodeFiles(), salt.States())
		if err != nil {
			return nil, err
		}
		guest, err := images.Guest(release.OS.Suite, images.GuestFiles())
		if err != nil {
			return nil, err
		}
		if _, err := build.Node(ctx, build.Request{Home: t.home, Node: node}); err != nil {
			return nil, err
		}
		if _, err := build.Guest(ctx, build.Request{Home: t.home, Guest: guest}); err != nil {
			return nil, err
		}
		wanted[node.Hash], wanted[guest.Hash] = true, true
	}
	all, err := t.Images(ctx)
	if err != nil {
		return nil, err
	}
	var built []build.Image
	for _, image := range all {
		if wanted[image.Hash] {
			built = append(built, image)
		}
	}
	return built, nil
}

// Images is the images that were built.
func (t *Toastdev) Images(ctx context.Context) ([]build.Image, error) {
	return build.List(ctx, t.home)
}

// PruneImages removes the images that no environment of this home has in its record, and all guest images but those that
// the releases' regions would get today; with all, every image that no container uses. It is what was removed.
func (t *Toastdev) PruneImages(ctx context.Context, all bool) ([]build.Image, error) {
	used := map[string]bool{}
	if !all {
		records, err := t.List()
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			for _, n := range r.Plan.Nodes {
				used[n.Image] = true
			}
		}
		for _, name := range topologies.Releases() {
			release, err := topologies.LoadRelease(name)
			if err != nil {
				return nil, err
			}
			guest, err := images.Guest(release.OS.Suite, images.GuestFiles())
			if err != nil {
				return nil, err
			}
			used[guest.Name()] = true
		}
	}
	return build.Prune(ctx, t.home, func(image build.Image) bool { return used[image.Name] })
}
