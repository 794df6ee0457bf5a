package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
)

// A home has a pool of its own, a folder, and in it, for libvirt keeps no notes on volumes, files whose names say what they
// are: ENVIRONMENT.NAME.KIND, and IMAGE.base for what nodes share.
const (
	systemDisk  = "disk"    // a node's changes to its image
	seedDisk    = "seed"    // what a node is given for its first boot
	consoleLog  = "console" // what a node writes to its serial port; the log daemon keeps older ones as console.0, ...
	extraVolume = "volume"  // a Volume
	baseImage   = ".base"

	poolPrefix = "toastdev-"
)

// spare is what must stay free in the pool, in bytes: a node's disk grows as it is written.
const spare = 2 << 30

// part is what a file of the pool belongs to.
type part struct {
	environment, name, kind string
}

func (f part) String() string { return f.environment + "." + f.name + "." + f.kind }

var partPattern = regexp.MustCompile(`^([^.]+)\.(.+?)\.(disk|seed|volume|console(?:\.[0-9]+)?)$`)

func parsePart(file string) (part, bool) {
	m := partPattern.FindStringSubmatch(file)
	if m == nil {
		return part{}, false
	}
	return part{m[1], m[2], m[3]}, true
}

// CreateVolume makes a disk that takes as much room as is written to it. The first node that mounts it formats it.
func (p *Provisioner) CreateVolume(ctx context.Context, v provisioners.Volume) error {
	return p.exclusive(ctx, func() error {
		return p.do(ctx, fmt.Sprintf("create volume %q", v.Name), func(c *libvirt.Connect) error {
			whose, found, err := volumeOwner(c, v.Name)
			switch {
			case err != nil:
				return err
			case found && whose != v.Owner:
				return taken(provisioners.KindVolume, v.Name, whose)
			case found:
				return nil
			}
			pool, err := p.makePool(c, v.Home)
			if err != nil {
				return err
			}
			defer pool.Free()
			size := uint64(v.Size)
			if size == 0 {
				info, err := pool.GetInfo()
				if err != nil {
					return err
				}
				size = info.Capacity
			}
			return makeVolume(pool, libvirtxml.StorageVolume{
				Name: part{v.Environment, v.Name, extraVolume}.String(), Capacity: &libvirtxml.StorageVolumeSize{Value: size},
				Target: &libvirtxml.StorageVolumeTarget{Format: &libvirtxml.StorageVolumeTargetFormat{Type: "qcow2"}},
			})
		})
	})
}

// DeleteVolume removes the owner's volume and what is in it.
func (p *Provisioner) DeleteVolume(ctx context.Context, owner provisioners.Owner, name string) error {
	return p.exclusive(ctx, func() error {
		return p.do(ctx, fmt.Sprintf("delete volume %q", name), func(c *libvirt.Connect) error {
			pool, err := c.LookupStoragePoolByName(poolPrefix + owner.Home)
			if err != nil {
				return absent(err)
			}
			defer pool.Free()
			if err := deleteVolume(pool, part{owner.Environment, name, extraVolume}.String()); err != nil {
				return err
			}
			return prune(pool)
		})
	})
}

func listVolumes(c *libvirt.Connect, owner provisioners.Owner) ([]provisioners.Thing, error) {
	var things []provisioners.Thing
	err := eachPart(c, owner.Home, func(f part) {
		if f.environment == owner.Environment && f.kind == extraVolume {
			things = append(things, provisioners.Thing{Kind: provisioners.KindVolume, Name: f.name})
		}
	})
	return things, err
}

// volumeOwner looks for a volume of that name in the pools of all homes.
func volumeOwner(c *libvirt.Connect, name string) (owner provisioners.Owner, found bool, err error) {
	pools, err := c.ListAllStoragePools(0)
	if err != nil {
		return owner, false, err
	}
	for _, pool := range pools {
		if poolName, err := pool.GetName(); err == nil && strings.HasPrefix(poolName, poolPrefix) {
			home := strings.TrimPrefix(poolName, poolPrefix)
			_ = eachPart(c, home, func(f part) { // a pool that goes meanwhile has none
				if f.name == name && f.kind == extraVolume {
					owner, found = provisioners.Owner{Environment: f.environment, Home: home}, true
				}
			})
		}
		_ = pool.Free()
	}
	return owner, found, nil
}

// eachPart goes through what belongs to environments of a home.
func eachPart(c *libvirt.Connect, home string, do func(part)) error {
	pool, err := c.LookupStoragePoolByName(poolPrefix + home)
	if err != nil {
		return absent(err)
	}
	defer pool.Free()
	files, err := volumes(pool)
	for _, name := range files {
		if f, ok := parsePart(name); ok {
			do(f)
		}
	}
	return err
}

// volumes is the names of a pool's files. One that does not run, as after a restart of the host, is started.
func volumes(pool *libvirt.StoragePool) ([]string, error) {
	if active, err := pool.IsActive(); err != nil {
		return nil, absent(err)
	} else if !active {
		if err := pool.Build(libvirt.STORAGE_POOL_BUILD_NEW); err != nil {
			return nil, err
		}
		if err := pool.Create(0); err != nil {
			return nil, err
		}
	}
	return pool.ListStorageVolumes()
}

// exclusive runs f while nobody else of this home makes or removes files of the pool, so that an image is uploaded once, and
// not removed by one while another builds on it.
func (p *Provisioner) exclusive(ctx context.Context, f func() error) error {
	dir := filepath.Join(p.images, "locks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(dir, "libvirt"))
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return fmt.Errorf("wait for another toastdev that changes libvirt's pool: %w", err)
	}
	defer lock.Unlock()
	return f()
}

// makePool is the home's pool, which is made, and started, when that is not so.
func (p *Provisioner) makePool(c *libvirt.Connect, home string) (*libvirt.StoragePool, error) {
	name := poolPrefix + home
	pool, err := c.LookupStoragePoolByName(name)
	if isCode(err, libvirt.ERR_NO_STORAGE_POOL) {
		var text string
		text, err = (&libvirtxml.StoragePool{
			Type: "dir", Name: name, Target: &libvirtxml.StoragePoolTarget{Path: filepath.Join(p.poolsFolder(), name)},
		}).Marshal()
		if err != nil {
			return nil, err
		}
		pool, err = c.StoragePoolDefineXML(text, 0)
	}
	if err != nil {
		return nil, err
	}
	if _, err := volumes(pool); err != nil {
		_ = pool.Free()
		return nil, err
	}
	if err := pool.SetAutostart(true); err != nil {
		_ = pool.Free()
		return nil, err
	}
	return pool, nil
}

// poolsFolder is where the daemon keeps images: libvirt's own, as its security profiles know it.
func (p *Provisioner) poolsFolder() string {
	if home, err := os.UserHomeDir(); err == nil && strings.HasSuffix(p.uri, "/session") {
		return filepath.Join(home, ".local/share/libvirt/images")
	}
	return "/var/lib/libvirt/images"
}

// poolFolder is the folder of a pool that there is.
func poolFolder(pool *libvirt.StoragePool) (string, error) {
	text, err := pool.GetXMLDesc(0)
	if err != nil {
		return "", err
	}
	var x libvirtxml.StoragePool
	if err := x.Unmarshal(text); err != nil {
		return "", err
	}
	if x.Target == nil {
		return "", fmt.Errorf("pool %q has no folder", x.Name)
	}
	return x.Target.Path, nil
}

func makeVolume(pool *libvirt.StoragePool, v libvirtxml.StorageVolume) error {
	text, err := v.Marshal()
	if err != nil {
		return err
	}
	made, err := pool.StorageVolCreateXML(text, 0)
	if err != nil {
		return err
	}
	return made.Free()
}

// deleteVolume removes a file of a pool, if it is there.
func deleteVolume(pool *libvirt.StoragePool, name string) error {
	v, err := pool.LookupStorageVolByName(name)
	if err != nil {
		return absent(err)
	}
	defer v.Free()
	return absent(v.Delete(0))
}

// prune removes the images of a pool that no node builds on any more, and a pool that is empty.
func prune(pool *libvirt.StoragePool) error {
	files, err := volumes(pool)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, name := range files {
		if f, ok := parsePart(name); ok && f.kind == systemDisk {
			base, err := backing(pool, name)
			if err != nil {
				return err
			}
			used[base] = true
		}
	}
	left := len(files)
	for _, name := range files {
		if strings.HasSuffix(name, baseImage) && !used[name] {
			if err := deleteVolume(pool, name); err != nil {
				return err
			}
			left--
		}
	}
	if left > 0 {
		return nil
	}
	if err := pool.Destroy(); err != nil {
		return absent(err)
	}
	// Delete refuses a folder that is not empty: something that is not ours lies in it.
	if err := pool.Delete(libvirt.STORAGE_POOL_DELETE_NORMAL); err != nil && !strings.Contains(err.Error(), "not empty") && !isCode(err, libvirt.ERR_NO_SUPPORT) {
		return err
	}
	return absent(pool.Undefine())
}

// backing is the file that a disk builds on.
func backing(pool *libvirt.StoragePool, disk string) (string, error) {
	v, err := pool.LookupStorageVolByName(disk)
	if err != nil {
		return "", absent(err)
	}
	defer v.Free()
	text, err := v.GetXMLDesc(0)
	if err != nil {
		return "", absent(err)
	}
	var x libvirtxml.StorageVolume
	if err := x.Unmarshal(text); err != nil || x.BackingStore == nil {
		return "", err
	}
	return filepath.Base(x.BackingStore.Path), nil
}

// image is the disk of an image on this machine.
func (p *Provisioner) image(name string) (string, int64, error) {
	path := filepath.Join(p.images, name, "disk.qcow2")
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", 0, fault.New(fault.NotFound, "there is no image %s: %w", name, err).WithRemedy("build it: toastdev image build --for libvirt")
	}
	if err != nil {
		return "", 0, err
	}
	return path, info.Size(), nil
}

// makeBase uploads an image to the pool, if it is not there already in its whole length: one whose upload was killed is
// shorter. It returns its path.
func (p *Provisioner) makeBase(ctx context.Context, c *libvirt.Connect, pool *libvirt.StoragePool, image string) (string, error) {
	local, size, err := p.image(image)
	if err != nil {
		return "", err
	}
	name := image + baseImage
	v, err := pool.LookupStorageVolByName(name)
	if err == nil {
		defer v.Free()
		info, err := v.GetInfoFlags(libvirt.STORAGE_VOL_GET_PHYSICAL)
		if err != nil {
			return "", err
		}
		if info.Allocation == uint64(size) {
			return v.GetPath()
		}
		if err := v.Delete(0); err != nil {
			return "", err
		}
	} else if absent(err) != nil {
		return "", err
	}
	if err := room(pool, size, "image "+image); err != nil {
		return "", err
	}
	f, err := os.Open(local)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return upload(ctx, c, pool, name, f, size)
}

// upload makes a file of the pool with that content and returns its path.
func upload(ctx context.Context, c *libvirt.Connect, pool *libvirt.StoragePool, name string, content io.Reader, size int64) (string, error) {
	err := makeVolume(pool, libvirtxml.StorageVolume{
		Name: name, Capacity: &libvirtxml.StorageVolumeSize{}, // of no length until it is written
		Target: &libvirtxml.StorageVolumeTarget{Format: &libvirtxml.StorageVolumeTargetFormat{Type: "raw"}},
	})
	if err != nil {
		return "", err
	}
	v, err := pool.LookupStorageVolByName(name)
	if err != nil {
		return "", err
	}
	defer v.Free()
	if err := send(ctx, c, v, content, uint64(size)); err != nil {
		_ = v.Delete(0)
		return "", fmt.Errorf("upload %s: %w", name, err)
	}
	return v.GetPath()
}

// chunk is how much a stream is given at once, in bytes: less than a message of libvirt's protocol may hold.
const chunk = 256 << 10

func send(ctx context.Context, c *libvirt.Connect, v *libvirt.StorageVol, content io.Reader, size uint64) error {
	stream, err := c.NewStream(0)
	if err != nil {
		return err
	}
	defer stream.Free()
	if err := v.Upload(stream, 0, size, 0); err != nil {
		return err
	}
	buffer := make([]byte, chunk)
	for {
		n, err := content.Read(buffer)
		for sent := 0; sent < n; {
			m, failed := stream.Send(buffer[sent:n])
			if failed != nil {
				return failed
			}
			sent += m
		}
		if err == io.EOF {
			return stream.Finish()
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			_ = stream.Abort()
			return err
		}
	}
}

// receive writes a file of the pool to w.
func receive(c *libvirt.Connect, v *libvirt.StorageVol, w io.Writer) error {
	stream, err := c.NewStream(0)
	if err != nil {
		return err
	}
	defer stream.Free()
	if err := v.Download(stream, 0, 0, 0); err != nil {
		return err
	}
	buffer := make([]byte, chunk)
	for {
		n, err := stream.Recv(buffer)
		if err == io.EOF {
			return stream.Finish()
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(buffer[:n]); err != nil {
			_ = stream.Abort()
			return err
		}
	}
}

// room is a fault unless the pool has that many bytes, and some to spare.
func room(pool *libvirt.StoragePool, need int64, what string) error {
	info, err := pool.GetInfo()
	if err != nil {
		return err
	}
	folder, err := poolFolder(pool)
	if err != nil {
		return err
	}
	if info.Available >= uint64(need)+spare {
		return nil
	}
	const gib = 1 << 30
	return fault.New(fault.Missing, "libvirt's pool is nearly full: %s needs %.1f GiB in %s, %.1f GiB are free", what,
		float64(need+spare)/gib, folder, float64(info.Available)/gib).
		WithRemedy("free some space there; `virsh vol-list --details POOL` shows what each pool holds")
}
