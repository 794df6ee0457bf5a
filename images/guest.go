package images

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// guestRevision stands for what images/build does beyond the recipe. Raise it when that changes what is in a guest image.
const guestRevision = "2"

// GuestRecipe is everything that goes into the guest image. The kernel is what Debian's mirror has at the time.
type GuestRecipe struct {
	Suite    string
	Packages []string
	Memory   int               // MiB that an instance needs at least
	Boot     int               // MiB
	Data     int               // MiB
	Initrd   map[string][]byte // files of the initial RAM disk, without the kernel's modules, busybox and the agent
	Agent    map[string][]byte // the agent's Go files by their path in its folder
	Loader   []byte            // syslinux.cfg
	Assemble []byte            // the script that puts the disk together
	Hash     string            // of all this, in hex
}

// Name is the image's folder in the home, and what lists show.
func (r *GuestRecipe) Name() string { return "guest-" + r.Hash[:hashLength] }

type guestYAML struct {
	Packages  []string `yaml:"packages"`
	Arguments string   `yaml:"arguments"`
	Memory    int      `yaml:"memory"`
	Boot      int      `yaml:"boot"`
	Data      int      `yaml:"data"`
	Modules   struct {
		First []string `yaml:"first"`
		Later []string `yaml:"later"`
		SCSI  []string `yaml:"scsi"`
	} `yaml:"modules"`
}

// Guest is the recipe of the guest image (see GuestFiles) with the kernel of a Debian suite.
func Guest(suite string, recipe fs.FS) (*GuestRecipe, error) {
	var y guestYAML
	raw, err := decode(recipe, &y)
	if err != nil {
		return nil, err
	}
	r := &GuestRecipe{Suite: suite, Packages: y.Packages, Memory: y.Memory, Boot: y.Boot, Data: y.Data, Initrd: map[string][]byte{}, Agent: map[string][]byte{}}
	parts := map[string][]byte{"revision": []byte(guestRevision), "suite": []byte(suite), "recipe": raw}
	for name, to := range map[string]string{"init": "init", "dhcp": "etc/dhcp", "assemble": ""} {
		content, err := fs.ReadFile(recipe, name)
		if err != nil {
			return nil, fmt.Errorf("read the guest's recipe: %w", err)
		}
		parts[name] = content
		if to == "" {
			r.Assemble = content
			continue
		}
		r.Initrd[to] = content
	}
	agent, err := read(recipe, "agent")
	if err != nil {
		return nil, fmt.Errorf("read the guest's agent: %w", err)
	}
	for name, content := range agent {
		if path.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go") {
			r.Agent[strings.TrimPrefix(name, "agent/")] = content
			parts[name] = content
		}
	}
	r.Initrd["modules/first"] = lines(y.Modules.First)
	r.Initrd["modules/later"] = lines(y.Modules.Later)
	r.Initrd["modules/scsi"] = lines(y.Modules.SCSI)
	r.Loader = loader("guest", y.Arguments)
	r.Hash = hash(parts)
	return r, nil
}

// loader is a syslinux.cfg that starts one kernel at once.
func loader(label, arguments string) []byte {
	return fmt.Appendf(nil, "DEFAULT %[1]s\nPROMPT 0\nTIMEOUT 0\nLABEL %[1]s\n  LINUX /vmlinuz\n  INITRD /initrd.img\n  APPEND %[2]s\n", label, arguments)
}

func lines(list []string) []byte { return []byte(strings.Join(list, "\n") + "\n") }

// A disk with a DOS partition table, in sectors of 512 bytes: the first partition begins at 1 MiB.
const (
	sector         = 512
	mib            = 1 << 20 / sector
	tableOffset    = 446
	partitionFAT16 = 0x0e // with LBA addressing
	partitionLinux = 0x83
)

// BootSector is a disk's first sector: boot code and a table of two partitions, the first of which is booted. Sizes are in MiB.
func BootSector(code []byte, boot, data int) ([]byte, error) {
	if len(code) > tableOffset-6 { // six bytes of disk signature stand before the table
		return nil, fmt.Errorf("boot code of %d bytes does not fit before the partition table", len(code))
	}
	block := make([]byte, sector)
	copy(block, code)
	entry := func(i int, active, kind byte, start, size int) {
		e := block[tableOffset+16*i:]
		// Cylinder, head and sector are what means "see the LBA fields".
		copy(e, []byte{active, 0xfe, 0xff, 0xff, kind, 0xfe, 0xff, 0xff})
		binary.LittleEndian.PutUint32(e[8:], uint32(start))
		binary.LittleEndian.PutUint32(e[12:], uint32(size))
	}
	entry(0, 0x80, partitionFAT16, mib, boot*mib)
	entry(1, 0, partitionLinux, (1+boot)*mib, data*mib)
	block[510], block[511] = 0x55, 0xaa
	return block, nil
}
