package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/toast-cloud/toastdev/images"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/project"
)

// VMImage is a VM image: a disk that boots by itself, and that nodes' disks stand on.
type VMImage struct {
	Hash   string    `json:"hash"`   // of its recipe, in hex
	Disk   string    `json:"-"`      // its path, qcow2
	VDI    string    `json:"-"`      // the same for VirtualBox; "" when it was not asked for yet
	Kernel string    `json:"kernel"` // its version
	Size   int64     `json:"size"`   // of the disk as a VM sees it, in bytes
	Bytes  int64     `json:"bytes"`  // of the qcow2 file
	Built  time.Time `json:"built"`
}

// The files of a VM image's folder.
const (
	vmDisk = "disk.qcow2"
	vmVDI  = "disk.vdi"
	vmFile = "vm.json"
)

// vmDeadline is several times what the slowest took on two emulating cores.
const vmDeadline = 20 * time.Minute

// What a build of a VM image takes at its height in the engine (the root's layer, the raw disk, the qcow2) and in the home,
// and what VirtualBox's format takes in either.
const (
	vmEngineSpace = 5 * gib
	vmHomeSpace   = 1 * gib
	vdiSpace      = 4 * gib
)

// VM is the recipe's VM image, which is built when the home does not have it, of the recipe's node image, which is built
// when the engine does not have it. It is made in the engine, by no right of this user's but to use it. A build that fails
// leaves its log and nothing else; what a killed one left is removed by the next.
func VM(ctx context.Context, r Request) (VMImage, error) {
	name := r.VM.Name()
	dir := r.Home.Path("images", name)
	if built, err := readVM(dir); !wanting(built, err, r.VDI) {
		return built, err
	}
	base, err := Node(ctx, Request{Home: r.Home, Node: r.VM.Node})
	if err != nil {
		return VMImage{}, err
	}
	unlock, err := lock(ctx, r.Home, name)
	if err != nil {
		return VMImage{}, err
	}
	defer unlock()
	built, err := readVM(dir)
	if !wanting(built, err, r.VDI) {
		return built, err
	}
	there := err == nil
	e, err := connect(ctx)
	if err != nil {
		return VMImage{}, err
	}
	defer e.Close()
	if err := errors.Join(e.sweep(ctx, r, name), sweepHalves(r.Home, name)); err != nil {
		return VMImage{}, err
	}
	if err := e.roomForVM(ctx, dir, there, r.VDI); err != nil {
		return VMImage{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, vmDeadline)
	defer cancel()
	b := &vmBuild{workshop: workshop{engine: e, scratch: scratchName(r.Home.ID, name)}, recipe: r.VM, base: base, dir: dir}
	if b.journal, err = openJournal(r.Home, "vm-"+r.VM.Node.Release, "image-"+name); err != nil {
		return VMImage{}, err
	}
	defer b.journal.Close()
	if b.host, err = lookAtHost(ctx, r.VM.Node.Suite); err != nil {
		return VMImage{}, err
	}
	began := time.Now()
	for _, part := range []struct {
		wanted bool
		make   func(context.Context) error
	}{{!there, b.disk}, {r.VDI, b.vdi}} {
		if !part.wanted {
			continue
		}
		if err := b.inContainer(ctx, part.make); err != nil {
			return VMImage{}, fmt.Errorf("build the image %s: %w", name, err)
		}
	}
	progress.Emit(ctx, progress.Event{Phase: phase, Unit: b.journal.unit, Message: fmt.Sprintf("built %s in %.0f s", name, time.Since(began).Seconds()), Done: true})
	return readVM(dir)
}

// wanting is whether there is something to make, given what readVM says.
func wanting(there VMImage, err error, vdi bool) bool {
	return errors.Is(err, fs.ErrNotExist) || err == nil && vdi && there.VDI == ""
}

// readVM is a folder's image, or fs.ErrNotExist when it has none.
func readVM(dir string) (VMImage, error) {
	var v VMImage
	about := filepath.Join(dir, vmFile)
	text, err := os.ReadFile(about)
	if err != nil {
		return v, err
	}
	damaged := func(why string) error {
		return &fault.Error{Code: fault.Failed, File: about, Message: why, Remedy: "remove the folder; the next `toastdev image build` makes it anew"}
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return v, damaged("cannot be read: " + err.Error())
	}
	v.Disk = filepath.Join(dir, vmDisk)
	if info, err := os.Stat(v.Disk); err != nil || info.Size() != v.Bytes {
		return v, damaged(vmDisk + " beside it is not the one that it tells of")
	}
	if vdi := filepath.Join(dir, vmVDI); exists(vdi) {
		v.VDI = vdi
	}
	return v, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// roomForVM is a fault unless the engine and the home have room for what is to be made.
func (e *engine) roomForVM(ctx context.Context, dir string, there, vdi bool) error {
	info, err := e.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask the engine for its disk: %w", err)
	}
	var engine, home int64
	if !there {
		engine, home = vmEngineSpace, vmHomeSpace
	}
	if vdi {
		engine, home = max(engine, vdiSpace), home+vdiSpace
	}
	return errors.Join(needSpace(info.DockerRootDir, engine, "building a VM image"), needSpace(dir, home, "building a VM image"))
}

// halfSuffix ends the name of what is not whole yet: a folder of an image, or a file in one.
const halfSuffix = ".half"

// sweepHalves removes the folders that killed builds of VM images left in the home.
func sweepHalves(home *project.Home, own string) error {
	halves, err := filepath.Glob(home.Path("images", "vm-*"+halfSuffix))
	if err != nil {
		return err
	}
	isDead := isDead(home, own)
	for _, half := range halves {
		if isDead(strings.TrimSuffix(filepath.Base(half), halfSuffix)) {
			if err := os.RemoveAll(half); err != nil {
				return fmt.Errorf("remove what a killed build left: %w", err)
			}
		}
	}
	return nil
}

// vmBuild is one build on its way.
type vmBuild struct {
	workshop
	recipe  *images.VMRecipe
	base    string // the node image in the engine
	dir     string // where the image is to be
	journal *journal
}

// The folders of a build's container: of what the recipe brings, and a volume for disks.
const (
	vmWork = workDir + "/vm"
	vmOut  = "/var/tmp"
)

// inContainer makes something in a container of its own and removes that.
func (b *vmBuild) inContainer(ctx context.Context, make func(context.Context) error) (err error) {
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		if removed := b.discard(clean); err == nil {
			err = removed
		}
	}()
	return make(ctx)
}

// disk makes the image's folder, with the disk in it.
func (b *vmBuild) disk(ctx context.Context) error {
	for _, step := range []struct {
		name string
		run  func(context.Context, *output) error
	}{{"download the kernel", b.download}, {"root", b.prepare}, {"clean", b.search}, {"disk", b.assemble}, {"write", b.write}} {
		if err := b.journal.step(ctx, step.name, step.run); err != nil {
			return err
		}
	}
	return nil
}

// start makes a container of the node image in which one may mount, and has a volume.
func (b *vmBuild) start(ctx context.Context, files map[string][]byte) error {
	return b.open(ctx, b.base, files, container.Config{Volumes: map[string]struct{}{vmOut: {}}}, container.HostConfig{
		CapAdd: []string{"SYS_ADMIN"}, SecurityOpt: []string{"apparmor=unconfined", "label=disable"},
	})
}

// download fetches the kernel and the build's tools, all of their dependencies with them, of which no use is made.
func (b *vmBuild) download(ctx context.Context, out *output) error {
	files := map[string][]byte{}
	for name, content := range b.recipe.Work {
		files["vm/"+name] = content
	}
	if err := b.start(ctx, files); err != nil {
		return err
	}
	err := b.do(ctx, out, `apt-get -q update
		apt-get -q -y install --download-only --no-install-recommends "$@"`, append([]string{b.recipe.Kernel}, b.recipe.Tools...)...)
	if err != nil {
		return b.aptFault(err)
	}
	return nil
}

// prepare makes the container's root a VM's.
func (b *vmBuild) prepare(ctx context.Context, out *output) error {
	tarball, err := tarOf("", b.recipe.Rootfs)
	if err != nil {
		return err
	}
	if err := node.Push(ctx, b.node, "/", bytes.NewReader(tarball)); err != nil {
		return err
	}
	return b.do(ctx, out, `exec "$1/prepare" "$1"`, vmWork)
}

// assemble makes the disk of the container's root.
func (b *vmBuild) assemble(ctx context.Context, out *output) error {
	return b.do(ctx, out, `exec "$1/assemble" "$1" "$2" "$3" "$4"`, vmWork, vmOut, strconv.Itoa(b.recipe.Boot), strconv.Itoa(b.recipe.Size))
}

// write makes the image's folder, whole or not at all.
func (b *vmBuild) write(ctx context.Context, out *output) error {
	kernel, err := node.Output(ctx, b.node, "cat", vmOut+"/kernel")
	if err != nil {
		return err
	}
	half := b.dir + halfSuffix
	// The image's own folder may be there without its description.
	if err := errors.Join(os.RemoveAll(b.dir), os.RemoveAll(half), os.Mkdir(half, 0o755)); err != nil {
		return err
	}
	defer os.RemoveAll(half)
	size, err := b.fetch(ctx, out, vmDisk, filepath.Join(half, vmDisk))
	if err != nil {
		return err
	}
	about, err := json.MarshalIndent(VMImage{Hash: b.recipe.Hash, Kernel: strings.TrimSpace(string(kernel)), Size: int64(b.recipe.Size) << 20, Bytes: size,
		Built: time.Now().UTC().Truncate(time.Second)}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(half, vmFile), append(about, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(half, b.dir)
}

// fetch copies a file of the volume into the home, and is its size in bytes.
func (b *vmBuild) fetch(ctx context.Context, out *output, name, to string) (int64, error) {
	told, err := node.Output(ctx, b.node, "stat", "-c", "%s", vmOut+"/"+name)
	if err != nil {
		return 0, err
	}
	file, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	err = b.node.Run(ctx, node.Cmd{Args: []string{"cat", vmOut + "/" + name}, Stdout: file, Stderr: out})
	if err := errors.Join(err, file.Close()); err != nil {
		return 0, fmt.Errorf("copy %s out of the engine: %w", name, err)
	}
	info, err := os.Stat(to)
	if err != nil {
		return 0, err
	}
	if got := strconv.FormatInt(info.Size(), 10); got != strings.TrimSpace(string(told)) {
		return 0, fmt.Errorf("copy %s out of the engine: %s of %s bytes came", name, got, strings.TrimSpace(string(told)))
	}
	return info.Size(), nil
}

// vdi makes the disk in VirtualBox's format of the one that is there.
func (b *vmBuild) vdi(ctx context.Context) error {
	return b.journal.step(ctx, "disk for VirtualBox", func(ctx context.Context, out *output) error {
		if err := b.start(ctx, nil); err != nil {
			return err
		}
		disk, err := os.Open(filepath.Join(b.dir, vmDisk))
		if err != nil {
			return err
		}
		defer disk.Close()
		err = b.node.Run(ctx, node.Cmd{Args: []string{"sh", "-ec", `cat >"$1/$2"; qemu-img convert -f qcow2 -O vdi -W "$1/$2" "$1/$3"`, "sh", vmOut, vmDisk, vmVDI},
			Stdin: disk, Stdout: out, Stderr: out})
		if err != nil {
			return err
		}
		half := filepath.Join(b.dir, vmVDI+halfSuffix)
		defer os.Remove(half)
		if _, err := b.fetch(ctx, out, vmVDI, half); err != nil {
			return err
		}
		return os.Rename(half, filepath.Join(b.dir, vmVDI))
	})
}
