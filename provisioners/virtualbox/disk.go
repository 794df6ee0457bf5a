package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
)

// immutable is the type of a base disk. It is what makes the disk survive its last linked one: with such a one's machine
// VirtualBox deletes a parent of the type normal, too, when nothing else is made of it.
const immutable = "immutable"

func (p *Provisioner) basesFolder() string { return filepath.Join(p.folder, "bases") }

func (p *Provisioner) nodesFolder() string { return filepath.Join(p.folder, "nodes") }

func (p *Provisioner) nodeFolder(name string) string { return filepath.Join(p.nodesFolder(), name) }

func (p *Provisioner) volumeFile(name string) string {
	return filepath.Join(p.folder, "volumes", name+".vdi")
}

// imageDisk is the file of an image's disk.
func (p *Provisioner) imageDisk(image string) (string, error) {
	file := filepath.Join(p.images, image, "disk.vdi")
	if _, err := os.Stat(file); err != nil {
		return "", fault.New(fault.NotFound, "there is no disk of image %s for VirtualBox: %w", image, err).
			WithRemedy("build it: toastdev image build --for virtualbox")
	}
	return file, nil
}

// find is the disk in a file, as VirtualBox knows it; its id is "" when it does not.
func (p *Provisioner) find(ctx context.Context, file string) (medium, error) {
	media, err := p.media(ctx)
	if at := slices.IndexFunc(media, func(m medium) bool { return m.file == file }); at >= 0 {
		return media[at], err
	}
	return medium{}, err
}

// register is the disk in a file, made known to VirtualBox as immutable.
func (p *Provisioner) register(ctx context.Context, file string) (medium, error) {
	m, err := p.find(ctx, file)
	if err != nil || m.kind == immutable && m.state != unreadable {
		return m, err
	}
	if m.state == unreadable { // it was removed, and built anew: it has another UUID now
		if _, err := p.run(ctx, "closemedium", "disk", m.id); err != nil {
			return medium{}, err
		}
	}
	if _, err := p.run(ctx, "modifymedium", "disk", file, "--type", immutable); err != nil {
		return medium{}, err
	}
	if m, err = p.find(ctx, file); err == nil && m.id == "" {
		err = fmt.Errorf("VirtualBox does not know the disk %s, which it was told of", file)
	}
	return m, err
}

// unreadable is the state of a disk whose file is gone or another one.
const unreadable = "inaccessible"

// base is the disk that a node's of that size, in bytes, is linked to: the image's own, and for a larger one a copy that all
// nodes of that size share. (A linked disk can be made larger, too, but where its parent ends it cannot be read then.)
func (p *Provisioner) base(ctx context.Context, image string, size int64) (string, error) {
	file, err := p.imageDisk(image)
	if err != nil {
		return "", err
	}
	own, err := p.register(ctx, file)
	switch {
	case err != nil:
		return "", err
	case size == 0 || size == own.size:
		return file, nil
	case size < own.size:
		return "", fault.New(fault.Invalid, "its disk of %d MiB is smaller than the image's", size>>20).
			WithRemedy("let it have %d MiB or more", own.size>>20)
	}
	larger := filepath.Join(p.basesFolder(), fmt.Sprintf("%s-%d.vdi", image, size>>20))
	m, err := p.find(ctx, larger)
	if err != nil || m.kind == immutable && m.state != unreadable {
		return larger, err
	}
	// Immutable comes last: what is not is half-made.
	if m.id != "" {
		if _, err := p.run(ctx, "closemedium", "disk", m.id); err != nil {
			return "", err
		}
	}
	if err := os.Remove(larger); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(p.basesFolder(), 0o700); err != nil {
		return "", err
	}
	return larger, p.runAll(ctx, [][]string{
		{"clonemedium", "disk", file, larger}, resizeArgs(larger, size), {"modifymedium", "disk", larger, "--type", immutable},
	})
}

// forgetBases makes VirtualBox forget the bases that nothing is linked to any more, and removes the larger copies. The
// images' files are the images'.
func (p *Provisioner) forgetBases(ctx context.Context) error {
	media, err := p.media(ctx)
	if err != nil {
		return err
	}
	for _, m := range media {
		copied := within(p.basesFolder(), m.file)
		if !copied && !within(p.images, m.file) || slices.ContainsFunc(media, func(child medium) bool { return child.parent == m.id }) {
			continue
		}
		if _, err := p.run(ctx, "closemedium", "disk", m.id); err != nil {
			return err
		}
		if copied {
			if err := os.Remove(m.file); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	// What was left of a copy that was cut off is known to nobody.
	files, err := filepath.Glob(filepath.Join(p.basesFolder(), "*.vdi"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if !slices.ContainsFunc(media, func(m medium) bool { return m.file == file }) {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	return nil
}

func within(folder, file string) bool {
	return strings.HasPrefix(file, folder+string(filepath.Separator))
}

// sweep removes what is left in a folder of a node that is no machine: disks that VirtualBox knows, and all files.
func (p *Provisioner) sweep(ctx context.Context, folder string) error {
	media, err := p.media(ctx)
	if err != nil {
		return err
	}
	// Children first: VirtualBox keeps a disk that another is linked to.
	for left := true; left; {
		left = false
		for i, m := range media {
			if !within(folder, m.file) || slices.ContainsFunc(media, func(child medium) bool { return child.parent == m.id }) {
				continue
			}
			if _, err := p.run(ctx, "closemedium", "disk", m.id); err != nil {
				return err
			}
			media, left = slices.Delete(media, i, i+1), true
			break
		}
	}
	return os.RemoveAll(folder)
}

// defaultVolume is the size of a volume of no given size, in bytes. It takes only what is written to it.
const defaultVolume = 20 << 30

// CreateVolume makes a disk that outlives the nodes it is put into. One that is there keeps its size if it is larger.
func (p *Provisioner) CreateVolume(ctx context.Context, v provisioners.Volume) error {
	return p.exclusive(ctx, func() error { return p.createVolume(ctx, v) })
}

func (p *Provisioner) createVolume(ctx context.Context, v provisioners.Volume) error {
	fail := func(err error) error { return fmt.Errorf("create volume %q: %w", v.Name, err) }
	if err := check(v.Name); err != nil {
		return err
	}
	thing := provisioners.Thing{Kind: provisioners.KindVolume, Name: v.Name}
	marks, err := p.marks(ctx)
	if err != nil {
		return fail(err)
	}
	old, marked := marks[thing]
	if marked && old.Owner != v.Owner {
		return taken(provisioners.KindVolume, v.Name, old.Owner)
	}
	media, err := p.media(ctx)
	if err != nil {
		return fail(err)
	}
	file := p.volumeFile(v.Name)
	_, missing := os.Stat(file)
	known := slices.ContainsFunc(media, func(m medium) bool { return m.file == file })
	if marked && missing == nil && old.Spec == digest(v) {
		return nil
	}
	size := v.Size
	if size == 0 {
		size = defaultVolume
	}
	if marked && missing == nil && old.Spec != "" { // another size
		if _, err := p.run(ctx, resizeArgs(file, size)...); err != nil {
			return fail(err)
		}
		return p.setMark(ctx, thing, mark{Owner: v.Owner, Spec: digest(v)})
	}
	// The spec comes last: without it the disk is half-made, and made again.
	if err := p.setMark(ctx, thing, mark{Owner: v.Owner}); err != nil {
		return fail(err)
	}
	if known {
		if _, err := p.run(ctx, "closemedium", "disk", file); err != nil {
			return fail(err)
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fail(err)
	}
	if _, err := p.run(ctx, volumeArgs(file, size)...); err != nil {
		return fail(err)
	}
	if err := p.setMark(ctx, thing, mark{Owner: v.Owner, Spec: digest(v)}); err != nil {
		return fail(err)
	}
	return nil
}

// DeleteVolume removes the owner's disk and what is on it. It must be in no node.
func (p *Provisioner) DeleteVolume(ctx context.Context, owner provisioners.Owner, name string) error {
	return p.exclusive(ctx, func() error { return p.deleteVolume(ctx, owner, name) })
}

func (p *Provisioner) deleteVolume(ctx context.Context, owner provisioners.Owner, name string) error {
	fail := func(err error) error { return fmt.Errorf("delete volume %q: %w", name, err) }
	thing := provisioners.Thing{Kind: provisioners.KindVolume, Name: name}
	marks, err := p.marks(ctx)
	if err != nil {
		return fail(err)
	}
	m, marked := marks[thing]
	if !marked || m.Owner != owner {
		return nil
	}
	media, err := p.media(ctx)
	if err != nil {
		return fail(err)
	}
	file := p.volumeFile(name)
	if slices.ContainsFunc(media, func(m medium) bool { return m.file == file }) {
		if _, err := p.run(ctx, "closemedium", "disk", file); err != nil {
			return fail(err)
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	if err := p.unmark(ctx, thing); err != nil {
		return fail(err)
	}
	return nil
}
