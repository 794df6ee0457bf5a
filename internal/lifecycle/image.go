package lifecycle

import (
	"context"
	"slices"

	"github.com/toast-cloud/toastdev/images"
	"github.com/toast-cloud/toastdev/images/build"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/salt"
	"github.com/toast-cloud/toastdev/topologies"
)

// BuildImages builds what each release (all that are built in when none is named) needs of images on these provisioners:
// the node image, the VM image made of it where a provisioner makes VMs, and the guest image that its regions get. It is
// these images. What was built before is not built again. With fix, what these provisioners lack is installed and started first.
func (t *Toastdev) BuildImages(ctx context.Context, releases, provisioners []string, fix bool) ([]build.Image, error) {
	known := []string{topologies.Docker, topologies.Libvirt, topologies.VirtualBox}
	for _, name := range provisioners {
		if !slices.Contains(known, name) {
			return nil, fault.New(fault.Invalid, "no provisioner is named %q", name).WithRemedy("there are docker, libvirt and virtualbox").Suggest(name, known)
		}
	}
	if fix { // images are built in the container engine, whatever they are for
		if err := t.prepare(ctx, true, false, append([]string{topologies.Docker}, provisioners...)); err != nil {
			return nil, err
		}
	}
	vdi := slices.Contains(provisioners, topologies.VirtualBox)
	vms := vdi || slices.Contains(provisioners, topologies.Libvirt)
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
		if vms {
			vm, err := images.VM(node, images.VMFiles())
			if err != nil {
				return nil, err
			}
			if _, err := build.VM(ctx, build.Request{Home: t.home, VM: vm, VDI: vdi}); err != nil {
				return nil, err
			}
			wanted[vm.Hash] = true
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
// the releases' regions would get today; with all, every image that no container uses and no recorded VM was made of. It
// is what was removed.
func (t *Toastdev) PruneImages(ctx context.Context, all bool) ([]build.Image, error) {
	records, err := t.List()
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, r := range records {
		for _, n := range r.Plan.Nodes {
			// The engine knows what its containers use; only the record knows it of VMs.
			if !all || n.Provisioner != topologies.Docker {
				used[n.Image] = true
			}
		}
	}
	if !all {
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
