package build

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/images"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/project"
)

// GuestImage is the guest image as Glance is told of it: one disk that boots by itself, with a partition table, so that
// booting from a volume, snapshots and rebuilding need nothing more.
type GuestImage struct {
	Hash       string            `json:"hash"`        // of its recipe, in hex
	File       string            `json:"-"`           // the disk's path
	Agent      string            `json:"-"`           // the path of its agent, which is the prober of nodes and of this host too
	Kernel     string            `json:"kernel"`      // its version
	DiskFormat string            `json:"disk_format"` // raw
	Container  string            `json:"container_format"`
	MinDisk    int               `json:"min_disk"` // GB
	MinRAM     int               `json:"min_ram"`  // MB
	Properties map[string]string `json:"properties"`
	Bytes      int64             `json:"bytes"`
	Built      time.Time         `json:"built"`
}

// guestSpace is what a build of the guest image takes at its height.
const guestSpace = gib / 2

// The files of a guest image's folder.
const (
	guestDisk  = "guest.raw"
	guestAgent = "agent"
	guestFile  = "guest.json"
)

// Guest is the recipe's guest image, which is built when the home does not have it. It needs no engine: mmdebstrap extracts
// the packages, and the disk is put together by what is in them.
func Guest(ctx context.Context, r Request) (GuestImage, error) {
	name := r.Guest.Name()
	dir := r.Home.Path("images", name)
	if built, err := readGuest(dir); !errors.Is(err, fs.ErrNotExist) {
		return built, err
	}
	unlock, err := lock(ctx, r.Home, name)
	if err != nil {
		return GuestImage{}, err
	}
	defer unlock()
	if built, err := readGuest(dir); !errors.Is(err, fs.ErrNotExist) {
		return built, err
	}
	if err := needMmdebstrap(); err != nil {
		return GuestImage{}, err
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		return GuestImage{}, fault.New(fault.Missing, "the guest image's agent is compiled by Go, which is not here").
			WithRemedy("install Go and have it in PATH")
	}
	if err := errors.Join(needSpace(dir, guestSpace, "building the guest image"), needSpace(os.TempDir(), guestSpace, "building the guest image")); err != nil {
		return GuestImage{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, guestDeadline)
	defer cancel()
	b := &guestBuild{home: r.Home, recipe: r.Guest, goTool: goTool, dir: dir}
	if b.journal, err = openJournal(r.Home, "guest", "image-"+name); err != nil {
		return GuestImage{}, err
	}
	defer b.journal.Close()
	began := time.Now()
	if err := b.run(ctx); err != nil {
		return GuestImage{}, fmt.Errorf("build the image %s: %w", name, err)
	}
	progress.Emit(ctx, progress.Event{Phase: phase, Unit: "guest", Message: fmt.Sprintf("built %s in %.0f s", name, time.Since(began).Seconds()), Done: true})
	return readGuest(dir)
}

func readGuest(dir string) (GuestImage, error) {
	var g GuestImage
	text, err := os.ReadFile(filepath.Join(dir, guestFile))
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal(text, &g); err != nil {
		return g, &fault.Error{Code: fault.Failed, File: filepath.Join(dir, guestFile), Message: "cannot be read: " + err.Error(),
			Remedy: "remove the folder; the next `toastdev image build` makes it anew", Err: err}
	}
	g.File, g.Agent = filepath.Join(dir, guestDisk), filepath.Join(dir, guestAgent)
	return g, nil
}

// guestBuild is one build on its way.
type guestBuild struct {
	home    *project.Home
	recipe  *images.GuestRecipe
	goTool  string
	dir     string // where the image is to be
	journal *journal
	scratch string // a folder in /tmp
	agent   []byte
	parts   map[string][]byte // what the assembling left
}

func (b *guestBuild) run(ctx context.Context) (err error) {
	var remove func()
	if b.scratch, remove, err = scratchFolder(scratchName(b.home.ID, b.recipe.Name())); err != nil {
		return err
	}
	defer remove()
	if err := b.journal.step(ctx, "agent", b.compile); err != nil {
		return err
	}
	if err := b.journal.step(ctx, "disk", b.assemble); err != nil {
		return err
	}
	return b.journal.step(ctx, "write", b.write)
}

// agentModule is the module that the agent is compiled as: its packages have the paths that they have here.
const agentModule = "github.com/toast-cloud/toastdev/images/guest/agent"

// compile compiles the agent, statically, with no module but Go's own.
func (b *guestBuild) compile(ctx context.Context, out *output) error {
	source := filepath.Join(b.scratch, "agent")
	if err := os.Mkdir(source, 0o700); err != nil {
		return err
	}
	files := maps.Clone(b.recipe.Agent)
	files["go.mod"] = []byte("module " + agentModule + "\n\ngo 1.25\n")
	for name, content := range files {
		file := filepath.Join(source, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, content, 0o600)); err != nil {
			return err
		}
	}
	binary := filepath.Join(b.scratch, "agent.bin")
	cmd := exec.CommandContext(ctx, b.goTool, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", binary, ".")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=", "GOWORK=off", "GO111MODULE=on")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	var err error
	b.agent, err = os.ReadFile(binary)
	return err
}

// assemble extracts the packages and puts the disk's parts together in the tree that they make.
func (b *guestBuild) assemble(ctx context.Context, out *output) error {
	h, err := lookAtHost(ctx, b.recipe.Suite)
	if err != nil {
		return err
	}
	files := map[string][]byte{"build/syslinux.cfg": b.recipe.Loader, "build/assemble": b.recipe.Assemble, "build/initrd/bin/agent": b.agent}
	for name, content := range b.recipe.Initrd {
		files["build/initrd/"+name] = content
	}
	tarball, err := tarOf("", files)
	if err != nil {
		return err
	}
	// Hooks run as the user that mmdebstrap becomes when it is not run by root.
	input := filepath.Join(b.scratch, "build.tar")
	if err := os.WriteFile(input, tarball, 0o644); err != nil {
		return err
	}
	out.watch = func(line string) bool {
		if doing, ok := strings.CutPrefix(line, "I: "); ok {
			out.tell(0, 0, "guest: "+doing)
		}
		return false
	}
	reader, writer := io.Pipe()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := h.mmdebstrap(ctx, b.scratch, b.recipe.Suite, writer, out,
			"--variant=extract", "--format=tar", "--include="+strings.Join(b.recipe.Packages, ","),
			`--aptopt=APT::Install-Recommends "false"`,
			// mmdebstrap mounts proc where there is a folder for it; syslinux needs it.
			`--setup-hook=mkdir -p "$1/proc" "$1/sys"`,
			"--extract-hook=tar -C \"$1\" -xf "+input,
			fmt.Sprintf(`--extract-hook=chmod 755 "$1/build/initrd/bin/agent"; chroot "$1" /bin/busybox sh /build/assemble %d %d`, b.recipe.Boot, b.recipe.Data),
			// The disk's parts alone are wanted of the tree.
			`--extract-hook=find "$1" -xdev -mindepth 1 -maxdepth 1 ! -name build ! -name proc ! -name sys ! -name dev ! -name etc ! -name var ! -name tmp -exec rm -rf {} +`)
		writer.CloseWithError(err) // io.EOF for the reader when err is nil
		return err
	})
	group.Go(func() error {
		var err error
		b.parts, err = untar(reader, "build/out/")
		if err == nil {
			_, err = io.Copy(io.Discard, reader)
		}
		reader.CloseWithError(err)
		return err
	})
	return group.Wait()
}

// untar is the files below a folder of a tar stream.
func untar(stream io.Reader, below string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for r := tar.NewReader(stream); ; {
		header, err := r.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read what mmdebstrap made: %w", err)
		}
		name, ok := strings.CutPrefix(strings.TrimPrefix(header.Name, "./"), below)
		if !ok || header.Typeflag != tar.TypeReg {
			continue
		}
		if files[name], err = io.ReadAll(r); err != nil {
			return nil, fmt.Errorf("read what mmdebstrap made: %w", err)
		}
	}
}

// write makes the image's folder, whole or not at all.
func (b *guestBuild) write(context.Context, *output) error {
	for _, name := range []string{"mbr.bin", "boot.img", "data.img", "kernel"} {
		if len(b.parts[name]) == 0 {
			return fmt.Errorf("the assembling left no %s", name)
		}
	}
	first, err := images.BootSector(b.parts["mbr.bin"], b.recipe.Boot, b.recipe.Data)
	if err != nil {
		return err
	}
	const mib = 1 << 20
	disk := append(first, bytes.Repeat([]byte{0}, mib-len(first))...)
	for name, size := range map[string]int{"boot.img": b.recipe.Boot, "data.img": b.recipe.Data} {
		if len(b.parts[name]) != size*mib {
			return fmt.Errorf("%s has %d bytes, not %d MiB", name, len(b.parts[name]), size)
		}
	}
	disk = append(append(disk, b.parts["boot.img"]...), b.parts["data.img"]...)
	about, err := json.MarshalIndent(GuestImage{
		Hash: b.recipe.Hash, Kernel: strings.TrimSpace(string(b.parts["kernel"])), DiskFormat: "raw", Container: "bare",
		MinDisk: 1, MinRAM: b.recipe.Memory,
		Properties: map[string]string{"os_distro": "debian", "architecture": "x86_64", "hw_qemu_guest_agent": "yes"},
		Bytes:      int64(len(disk)), Built: time.Now().UTC().Truncate(time.Second),
	}, "", "  ")
	if err != nil {
		return err
	}
	// What a killed build has left, or a folder without its description.
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	half := b.dir + halfSuffix
	if err := errors.Join(os.RemoveAll(half), os.Mkdir(half, 0o755)); err != nil {
		return err
	}
	defer os.RemoveAll(half)
	if err := os.WriteFile(filepath.Join(half, guestDisk), disk, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(half, guestAgent), b.agent, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(half, guestFile), append(about, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(half, b.dir)
}
