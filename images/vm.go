package images

import (
	"fmt"
	"io/fs"
)

// vmRevision stands for what images/build does beyond the recipe. Raise it when that changes what is in a VM image.
const vmRevision = "1"

// VMRecipe is everything that goes into a VM image: a node image, as a disk that boots by itself. The kernel is what
// Debian's mirror has at the time.
type VMRecipe struct {
	Node   *NodeRecipe
	Kernel string   // the package that depends on it
	Tools  []string // packages that the build uses and the disk does not get
	Boot   int      // MiB
	Size   int      // MiB of the whole disk, most of which is empty
	Rootfs map[string][]byte
	Work   map[string][]byte // files of the build: its scripts prepare and assemble, and what these read
	Hash   string            // of all this, in hex
}

// Name is the image's folder in the home, what lists show, and what a plan's nodes name.
func (r *VMRecipe) Name() string { return "vm-" + r.Node.Release + "-" + r.Hash[:hashLength] }

type vmYAML struct {
	Kernel    string   `yaml:"kernel"`
	Tools     []string `yaml:"tools"`
	Arguments string   `yaml:"arguments"`
	Boot      int      `yaml:"boot"`
	Size      int      `yaml:"size"`
	Modules   []string `yaml:"modules"`
	Enabled   []string `yaml:"enabled"`
	Masked    []string `yaml:"masked"`
}

// VM is the recipe of the VM image (see VMFiles) that is made of a node image.
func VM(node *NodeRecipe, recipe fs.FS) (*VMRecipe, error) {
	var y vmYAML
	raw, err := decode(recipe, &y)
	if err != nil {
		return nil, err
	}
	r := &VMRecipe{Node: node, Kernel: y.Kernel, Tools: y.Tools, Boot: y.Boot, Size: y.Size, Work: map[string][]byte{
		"tools.list":   lines(y.Tools),
		"modules":      lines(y.Modules),
		"enabled":      lines(y.Enabled),
		"masked":       lines(y.Masked),
		"syslinux.cfg": loader("node", y.Arguments),
	}}
	parts := map[string][]byte{"revision": []byte(vmRevision), "node": []byte(node.Hash), "recipe": raw}
	for _, name := range []string{"init", "prepare", "assemble"} {
		content, err := fs.ReadFile(recipe, name)
		if err != nil {
			return nil, fmt.Errorf("read the VM's recipe: %w", err)
		}
		r.Work[name], parts[name] = content, content
	}
	rootfs, err := fs.Sub(recipe, "rootfs")
	if err != nil {
		return nil, err
	}
	if r.Rootfs, err = read(rootfs, "."); err != nil {
		return nil, fmt.Errorf("read the VM's rootfs: %w", err)
	}
	for name, content := range r.Rootfs {
		parts["rootfs/"+name] = content
	}
	r.Hash = hash(parts)
	return r, nil
}
