package docker

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/volume"

	"github.com/toast-cloud/toastdev/provisioners"
)

// CreateVolume makes a volume of the local driver: a folder in the engine's own file system, which is not an overlay.
// The driver has no limit of size, so v.Size is not enforced.
func (p *Provisioner) CreateVolume(ctx context.Context, v provisioners.Volume) error {
	old, err := p.client.VolumeInspect(ctx, v.Name)
	switch {
	case err == nil && !owns(v.Owner, old.Labels):
		return taken(provisioners.KindVolume, v.Name, old.Labels)
	case err == nil:
		return nil
	case !errdefs.IsNotFound(err):
		return p.fail(err, "look for volume %q", v.Name)
	}
	_, err = p.client.VolumeCreate(ctx, volume.CreateOptions{Name: v.Name, Driver: "local", Labels: ownerLabels(v.Owner)})
	return p.fail(err, "create volume %q", v.Name)
}

// DeleteVolume removes the owner's volume and what is in it.
func (p *Provisioner) DeleteVolume(ctx context.Context, owner provisioners.Owner, name string) error {
	v, err := p.client.VolumeInspect(ctx, name)
	if errdefs.IsNotFound(err) || err == nil && !owns(owner, v.Labels) {
		return nil
	}
	if err != nil {
		return p.fail(err, "look for volume %q", name)
	}
	if err := p.client.VolumeRemove(ctx, name, false); err != nil && !errdefs.IsNotFound(err) {
		return p.fail(err, "delete volume %q", name)
	}
	return nil
}

func (p *Provisioner) listVolumes(ctx context.Context, owned filters.Args) ([]provisioners.Thing, error) {
	list, err := p.client.VolumeList(ctx, volume.ListOptions{Filters: owned})
	var things []provisioners.Thing
	for _, v := range list.Volumes {
		things = append(things, provisioners.Thing{Kind: provisioners.KindVolume, Name: v.Name})
	}
	return things, err
}
