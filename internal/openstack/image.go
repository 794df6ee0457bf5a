package openstack

import (
	"context"
	"fmt"
	"maps"
	"os"

	"github.com/gophercloud/gophercloud/v2"
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
	Kernel     string // paths of kernel and initial RAM disk, for an image that is booted with them; both or none
	Ramdisk    string
	MinDisk    int // GB
	MinRAM     int // MB
	Properties map[string]string
}

// image registers an image, unless it is there with its hash. One with another hash is replaced: removed when no server
// uses it, else hidden under another name, because moving such a server to another node needs it.
func (w *welcome) image(ctx context.Context, image Image) error {
	found, err := w.images(ctx, image.Name, false)
	if err != nil {
		return err
	}
	var old []images.Image
	for _, i := range found {
		if i.Properties[hashProperty] == image.Hash && i.Status == images.ImageStatusActive {
			return nil
		}
		old = append(old, i)
	}
	for _, part := range []string{"-kernel", "-ramdisk"} {
		if err := w.sweep(ctx, image.Name+part); err != nil {
			return err
		}
	}
	progress.Emit(ctx, progress.Event{Phase: "region", Unit: image.Name, Message: "upload the image " + image.Name})
	properties := maps.Clone(image.Properties)
	if properties == nil {
		properties = map[string]string{}
	}
	properties[hashProperty] = image.Hash
	if image.Kernel != "" {
		for part, file := range map[string]string{"kernel": image.Kernel, "ramdisk": image.Ramdisk} {
			// Hidden: nobody boots them, and lists of images are shorter without them.
			id, err := w.upload(ctx, file, images.CreateOpts{Name: image.Name + "-" + part, DiskFormat: "raw", ContainerFormat: "bare",
				Hidden: gophercloud.Enabled, Properties: map[string]string{hashProperty: image.Hash}})
			if err != nil {
				return err
			}
			properties[part+"_id"] = id
		}
	}
	_, err = w.upload(ctx, image.File, images.CreateOpts{Name: image.Name, DiskFormat: image.DiskFormat, ContainerFormat: "bare",
		MinDisk: image.MinDisk, MinRAM: image.MinRAM, Properties: properties})
	if err := w.made(err, "register image %q", image.Name); err != nil {
		return err
	}
	for _, i := range old {
		if err := w.retire(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// images are toastdev's own of that name.
func (w *welcome) images(ctx context.Context, name string, hidden bool) ([]images.Image, error) {
	pages, err := images.List(w.Image, images.ListOpts{Name: name, Hidden: hidden}).AllPages(ctx)
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

// sweep removes the parts of an image whose upload did not come to its end: nothing refers to them.
func (w *welcome) sweep(ctx context.Context, name string) error {
	parts, err := w.images(ctx, name, true)
	if err != nil || len(parts) == 0 {
		return err
	}
	pages, err := images.List(w.Image, images.ListOpts{}).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	shown, err := images.ExtractImages(pages)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	pages, err = images.List(w.Image, images.ListOpts{Hidden: true}).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	hidden, err := images.ExtractImages(pages)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	used := map[any]bool{}
	for _, i := range append(shown, hidden...) {
		used[i.Properties["kernel_id"]] = true
		used[i.Properties["ramdisk_id"]] = true
	}
	for _, p := range parts {
		if used[p.ID] {
			continue
		}
		if err := images.Delete(ctx, w.Image, p.ID).ExtractErr(); err != nil {
			return fmt.Errorf("remove image %q: %w", p.Name, err)
		}
	}
	return nil
}

// upload makes an image and sends its data.
func (w *welcome) upload(ctx context.Context, path string, opts images.CreateOpts) (string, error) {
	public := images.ImageVisibilityPublic
	opts.Visibility, opts.Tags = &public, []string{"toastdev"}
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("upload image %q: %w", opts.Name, err)
	}
	defer file.Close()
	patient, err := connect(ctx, w.Auth, uploadLimit)
	if err != nil {
		return "", err
	}
	image, err := images.Create(ctx, w.Image, opts).Extract()
	if err != nil {
		return "", fmt.Errorf("create image %q: %w", opts.Name, err)
	}
	if err := imagedata.Upload(ctx, patient.Image, image.ID, file).ExtractErr(); err != nil {
		return "", fmt.Errorf("upload image %q: %w", opts.Name, err)
	}
	return image.ID, nil
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
	for _, id := range []any{image.ID, image.Properties["kernel_id"], image.Properties["ramdisk_id"]} {
		id, ok := id.(string)
		if !ok {
			continue
		}
		err := images.Delete(ctx, w.Image, id).ExtractErr()
		if gophercloud.ResponseCodeIs(err, 404) {
			err = nil
		}
		if err := w.made(err, "remove the old image %q", image.Name); err != nil {
			return err
		}
	}
	return nil
}
