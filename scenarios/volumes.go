package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/volumeattach"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/spf13/pflag"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// volumeCommands are the words for Cinder's and Glance's things.
func volumeCommands() map[string]Command {
	return map[string]Command{
		"volume": {
			Summary: "make a volume",
			Args:    "NAME SIZE [--image IMAGE] [--snapshot SNAPSHOT]",
			Detail: []string{"SIZE is in GB. It is empty, or has what an image or a snapshot has. It returns when the volume is available.",
				"Sets $NAME to its id.", "Example: volume data 1"},
			Async: true, Min: 2, Max: 2, Sets: sets(),
			Check: func(args []string) error {
				if size, err := strconv.Atoi(args[1]); err != nil || size < 1 {
					return fault.New(fault.Invalid, "%q is not a size in GB", args[1])
				}
				return nil
			},
			Flags: func(f *pflag.FlagSet) Action {
				image := f.String("image", "", "an `IMAGE` it is a copy of: a server boots from it")
				snapshot := f.String("snapshot", "", "a `SNAPSHOT` it is a copy of")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return r.volume(ctx, args[0], args[1], *image, *snapshot)
				}
			},
		},
		"snapshot": {
			Summary: "make a snapshot of a volume",
			Args:    "NAME VOLUME",
			Detail: []string{"Of a volume that a server has, too: as it is at that moment. It returns when the snapshot is available.",
				"Sets $NAME to its id.", "Example: snapshot before data"},
			Async: true, Min: 2, Max: 2, Sets: sets(),
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return r.snapshot(ctx, args[0], args[1])
				}
			},
		},
		"attach": {
			Summary: "attach a volume to a server",
			Args:    "SERVER VOLUME",
			Detail: []string{"It returns when Cinder and Nova agree that the server has it, and the guest sees it. (Not of a server made with --no-wait: its guest may have no agent.)",
				"Sets $VOLUME_device to the device in the guest.",
				"Example: attach s1 data"},
			Async: true, Min: 2, Max: 2,
			Sets: func(args []string) []string { return []string{variable(args[1], "device")} },
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return r.attach(ctx, args[0], args[1])
				}
			},
		},
		"detach": {
			Summary: "detach a volume from a server",
			Args:    "SERVER VOLUME",
			Detail:  []string{"It returns when Cinder and Nova agree that the server does not have it.", "Example: detach s1 data"},
			Async:   true, Min: 2, Max: 2,
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return Outcome{}, r.detach(ctx, args[0], args[1])
				}
			},
		},
		"image": {
			Summary: "make an image of a file, or of a server as it is",
			Args:    "NAME FILE|SERVER",
			Detail: []string{"FILE is one of the script's archive: a raw disk, or qcow2 when it is called so. It returns when the image is active.",
				"Sets $NAME to its id.", "Example: image golden s1"},
			Async: true, Min: 2, Max: 2, Sets: sets(),
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return r.makeImage(ctx, args[0], args[1])
				}
			},
		},
	}
}

func (r *Run) volume(ctx context.Context, name, size, image, snapshot string) (Outcome, error) {
	if r.Cloud.Volume == nil {
		return Outcome{}, errNoVolumes
	}
	if err := r.free(kindVolume, name); err != nil {
		return Outcome{}, err
	}
	gigabytes, err := strconv.Atoi(size)
	if err != nil {
		return Outcome{}, fault.New(fault.Invalid, "%q is not a size in GB", size)
	}
	opts := volumes.CreateOpts{Name: name, Size: gigabytes, Description: described}
	if image != "" {
		if opts.ImageID, err = r.image(ctx, image); err != nil {
			return Outcome{}, err
		}
	}
	if snapshot != "" {
		if opts.SnapshotID, err = r.id(kindSnapshot, snapshot); err != nil {
			return Outcome{}, err
		}
	}
	v, err := volumes.Create(ctx, r.Cloud.Volume, opts, nil).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("make volume %s: %w", name, err)
	}
	outcome, err := r.made(&Resource{Kind: kindVolume, Name: name, ID: v.ID})
	if err != nil {
		return outcome, err
	}
	return outcome, r.volumeStatus(ctx, name, "available", 2*time.Minute)
}

// volumeStatus waits until a volume has a status. One that begins with "error" ends the wait.
func (r *Run) volumeStatus(ctx context.Context, name, want string, deadline time.Duration) error {
	id, err := r.id(kindVolume, name)
	if err != nil {
		return err
	}
	return r.wait(ctx, fmt.Sprintf("volume %s to be %s", name, want), deadline, func(ctx context.Context) (bool, error) {
		v, err := volumes.Get(ctx, r.Cloud.Volume, id).Extract()
		switch {
		case err != nil:
			return false, err
		case v.Status == want:
			return true, nil
		case strings.HasPrefix(v.Status, "error"):
			return true, &Mismatch{Expected: "volume " + name + " " + want, Seen: v.Status}
		}
		return false, fmt.Errorf("it is %s", v.Status)
	})
}

func (r *Run) snapshot(ctx context.Context, name, volume string) (Outcome, error) {
	if err := r.free(kindSnapshot, name); err != nil {
		return Outcome{}, err
	}
	id, err := r.id(kindVolume, volume)
	if err != nil {
		return Outcome{}, err
	}
	s, err := snapshots.Create(ctx, r.Cloud.Volume, snapshots.CreateOpts{Name: name, VolumeID: id, Force: true, Description: described}).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("make snapshot %s: %w", name, err)
	}
	outcome, err := r.made(&Resource{Kind: kindSnapshot, Name: name, ID: s.ID})
	if err != nil {
		return outcome, err
	}
	return outcome, r.wait(ctx, "snapshot "+name+" to be available", 2*time.Minute, func(ctx context.Context) (bool, error) {
		now, err := snapshots.Get(ctx, r.Cloud.Volume, s.ID).Extract()
		switch {
		case err != nil:
			return false, err
		case now.Status == "available":
			return true, nil
		case strings.HasPrefix(now.Status, "error"):
			return true, &Mismatch{Expected: "snapshot " + name + " available", Seen: now.Status}
		}
		return false, fmt.Errorf("it is %s", now.Status)
	})
}

func (r *Run) attach(ctx context.Context, server, volume string) (Outcome, error) {
	s, err := get[*started](r, kindServer, server)
	if err != nil {
		return Outcome{}, err
	}
	id, err := r.id(kindVolume, volume)
	if err != nil {
		return Outcome{}, err
	}
	made, err := volumeattach.Create(ctx, r.Cloud.Compute, s.id, volumeattach.CreateOpts{VolumeID: id}).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("attach %s to %s: %w", volume, server, err)
	}
	outcome := Outcome{Text: made.Device + "\n", Set: map[string]string{variable(volume, "device"): made.Device}}
	if err := r.agreed(ctx, server, s.id, volume, id, true); err != nil || !s.agent {
		return outcome, err
	}
	return outcome, r.wait(ctx, fmt.Sprintf("the guest of %s to see %s", server, made.Device), time.Minute, func(ctx context.Context) (bool, error) {
		_, err := r.inGuest(ctx, server, []string{"test", "-b", made.Device})
		return err == nil, err
	})
}

func (r *Run) detach(ctx context.Context, server, volume string) error {
	s, err := get[*started](r, kindServer, server)
	if err != nil {
		return err
	}
	id, err := r.id(kindVolume, volume)
	if err != nil {
		return err
	}
	if err := volumeattach.Delete(ctx, r.Cloud.Compute, s.id, id).ExtractErr(); err != nil {
		return fmt.Errorf("detach %s from %s: %w", volume, server, err)
	}
	return r.agreed(ctx, server, s.id, volume, id, false)
}

// agreed waits until Cinder and Nova say the same of a volume: that the server has it, or that nobody has.
func (r *Run) agreed(ctx context.Context, server, serverID, volume, volumeID string, attached bool) error {
	what, status := fmt.Sprintf("server %s to have volume %s", server, volume), "in-use"
	if !attached {
		what, status = fmt.Sprintf("server %s not to have volume %s", server, volume), "available"
	}
	return r.wait(ctx, what, 90*time.Second, func(ctx context.Context) (bool, error) {
		v, err := volumes.Get(ctx, r.Cloud.Volume, volumeID).Extract()
		if err != nil {
			return false, err
		}
		if strings.HasPrefix(v.Status, "error") {
			return true, &Mismatch{Expected: "volume " + volume + " " + status, Seen: v.Status}
		}
		pages, err := volumeattach.List(r.Cloud.Compute, serverID).AllPages(ctx)
		if err != nil {
			return false, err
		}
		all, err := volumeattach.ExtractVolumeAttachments(pages)
		if err != nil {
			return false, err
		}
		there := slices.ContainsFunc(all, func(a volumeattach.VolumeAttachment) bool { return a.VolumeID == volumeID })
		if v.Status == status && there == attached {
			return true, nil
		}
		return false, fmt.Errorf("Cinder says that it is %s, Nova that the server has it: %t", v.Status, there)
	})
}

func (r *Run) makeImage(ctx context.Context, name, of string) (Outcome, error) {
	if err := r.free(kindImage, name); err != nil {
		return Outcome{}, err
	}
	var id string
	var err error
	if slices.Contains(names(r, kindServer), of) {
		id, err = r.imageOfServer(ctx, name, of)
	} else {
		id, err = r.imageOfFile(ctx, name, of)
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("make image %s: %w", name, err)
	}
	outcome, err := r.made(&Resource{Kind: kindImage, Name: name, ID: id})
	if err != nil {
		return outcome, err
	}
	return outcome, r.wait(ctx, "image "+name+" to be active", 3*time.Minute, func(ctx context.Context) (bool, error) {
		i, err := images.Get(ctx, r.Cloud.Image, id).Extract()
		switch {
		case err != nil:
			return false, err
		case i.Status == images.ImageStatusActive:
			return true, nil
		case i.Status == images.ImageStatusKilled || i.Status == images.ImageStatusDeleted:
			return true, &Mismatch{Expected: "image " + name + " active", Seen: string(i.Status)}
		}
		return false, fmt.Errorf("it is %s", i.Status)
	})
}

func (r *Run) imageOfServer(ctx context.Context, name, server string) (string, error) {
	s, err := get[*started](r, kindServer, server)
	if err != nil {
		return "", err
	}
	return servers.CreateImage(ctx, r.Cloud.Compute, s.id, servers.CreateImageOpts{Name: r.prefix() + name}).ExtractImageID()
}

func (r *Run) imageOfFile(ctx context.Context, name, file string) (string, error) {
	path, err := r.File(file)
	if err != nil {
		return "", err
	}
	data, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fault.New(fault.NotFound, "%q is neither a server nor a file of the script's archive", file)
	}
	if err != nil {
		return "", err
	}
	defer data.Close()
	format := "raw"
	if filepath.Ext(file) == ".qcow2" {
		format = "qcow2"
	}
	private := images.ImageVisibilityPrivate
	image, err := images.Create(ctx, r.Cloud.Image, images.CreateOpts{Name: r.prefix() + name, DiskFormat: format, ContainerFormat: "bare", Visibility: &private}).Extract()
	if err != nil {
		return "", err
	}
	return image.ID, imagedata.Upload(ctx, r.Cloud.Image, image.ID, data).ExtractErr()
}
