package openstack

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/toast-cloud/toastdev/internal/progress"
)

// hashProperty is where an image says what it was made from.
const hashProperty = "toastdev_hash"

// Image is a guest image to be registered, public.
type Image struct {
	Name       string
	Hash       string // of its contents: while the registered one has it, nothing is uploaded
	File       string // the disk's path
	DiskFormat string // raw, qcow2
	MinDisk    int    // GB
	MinRAM     int    // MB
	Properties map[string]string
}

// image registers an image, unless it is there with its hash. One with another hash is replaced: removed when no server
// uses it, else hidden under another name, because moving such a server to another node needs it.
func (w *welcome) image(ctx context.Context, image Image) error {
	own, err := w.images(ctx, image.Name)
	if err != nil {
		return err
	}
	current := slices.IndexFunc(own, func(i images.Image) bool {
		return i.Properties[hashProperty] == image.Hash && i.Status == images.ImageStatusActive
	})
	if current >= 0 {
		own = slices.Delete(own, current, current+1)
	} else {
		progress.Emit(ctx, progress.Event{Phase: "region", Unit: image.Name, Message: "upload the image " + image.Name})
		properties := map[string]string{hashProperty: image.Hash}
		maps.Copy(properties, image.Properties)
		err = w.upload(ctx, image.File, images.CreateOpts{Name: image.Name, DiskFormat: image.DiskFormat, ContainerFormat: "bare",
			MinDisk: image.MinDisk, MinRAM: image.MinRAM, Properties: properties})
		if err := w.made(err, "register image %q", image.Name); err != nil {
			return err
		}
	}
	for _, old := range own {
		if err := w.retire(ctx, old); err != nil {
			return err
		}
	}
	return nil
}

// images are toastdev's own of that name.
func (w *welcome) images(ctx context.Context, name string) ([]images.Image, error) {
	pages, err := images.List(w.Image, images.ListOpts{Name: name}).AllPages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images %q: %w", name, err)
	}
	all, err := images.ExtractImages(pages)
	if err != nil {
		return nil, fmt.Errorf("list images %q: %w", name, err)
	}
	var own []images.Image
	for _, i := range all {
		if _, ok := i.Properties[hashProperty]; ok {
			own = append(own, i)
		}
	}
	return own, nil
}

// upload makes an image and sends its data.
func (w *welcome) upload(ctx context.Context, path string, opts images.CreateOpts) error {
	public := images.ImageVisibilityPublic
	opts.Visibility, opts.Tags = &public, []string{"toastdev"}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("upload image %q: %w", opts.Name, err)
	}
	defer file.Close()
	patient, err := connect(ctx, w.Auth, direct(w.Auth.Detour), uploadLimit)
	if err != nil {
		return err
	}
	image, err := images.Create(ctx, w.Image, opts).Extract()
	if err != nil {
		return fmt.Errorf("create image %q: %w", opts.Name, err)
	}
	if err := imagedata.Upload(ctx, patient.Image, image.ID, file).ExtractErr(); err != nil {
		return fmt.Errorf("upload image %q: %w", opts.Name, err)
	}
	return nil
}

// retire takes an image away from those who look for its name.
func (w *welcome) retire(ctx context.Context, image images.Image) error {
	pages, err := servers.List(w.Compute, servers.ListOpts{Image: image.ID, AllTenants: true, Limit: 1}).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list servers of image %q: %w", image.Name, err)
	}
	users, err := servers.ExtractServers(pages)
	if err != nil {
		return fmt.Errorf("list servers of image %q: %w", image.Name, err)
	}
	if len(users) > 0 {
		_, err := images.Update(ctx, w.Image, image.ID, images.UpdateOpts{
			images.ReplaceImageName{NewName: fmt.Sprintf("%s-%.8s", image.Name, image.ID)}, images.ReplaceImageHidden{NewHidden: true}}).Extract()
		return w.made(err, "hide the old image %q", image.Name)
	}
	err = images.Delete(ctx, w.Image, image.ID).ExtractErr()
	return w.made(err, "remove the old image %q", image.Name)
}
