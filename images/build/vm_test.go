package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/toast-cloud/toastdev/images"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/salt"
	"github.com/toast-cloud/toastdev/topologies"
)

func put(t *testing.T, home *project.Home, name, content string) {
	t.Helper()
	file := home.Path("images", name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestAVMImageIsWholeWithItsDescriptionAndTheDiskThatThisTellsOf(t *testing.T) {
	home := testHome(t)
	put(t, home, "vm-zed-1/disk.qcow2", "disk")
	dir := home.Path("images", "vm-zed-1")
	if _, err := readVM(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a description: %v", err)
	}
	put(t, home, "vm-zed-1/vm.json", `{"hash": "1", "kernel": "6.1", "bytes": 4}`)
	v, err := readVM(dir)
	if err != nil || v.Disk != filepath.Join(dir, "disk.qcow2") || v.VDI != "" || v.Kernel != "6.1" {
		t.Errorf("got %+v, %v", v, err)
	}
	if wanting(v, err, false) || !wanting(v, err, true) {
		t.Error("VirtualBox's disk alone is wanting")
	}
	put(t, home, "vm-zed-1/disk.vdi", "vdi")
	if v, err := readVM(dir); err != nil || v.VDI != filepath.Join(dir, "disk.vdi") || wanting(v, err, true) {
		t.Errorf("with VirtualBox's disk: %+v, %v", v, err)
	}
	put(t, home, "vm-zed-1/disk.qcow2", "di")
	if _, err := readVM(dir); fault.CodeOf(err) != fault.Failed || wanting(VMImage{}, err, true) || !strings.Contains(err.Error(), "remove the folder") {
		t.Errorf("with half a disk: %v", err)
	}
}

func TestWhatIsHalfMadeIsNoImage(t *testing.T) {
	home := testHome(t)
	about := `{"hash": "1", "bytes": 4}`
	for _, name := range []string{"vm-zed-1", "vm-zed-2.half", "vm-zed-3.half"} {
		put(t, home, name+"/disk.qcow2", "disk")
		put(t, home, name+"/vm.json", about)
	}
	put(t, home, "vm-zed-1/disk.vdi", "12345")
	list, err := inHome(home, "vm-*", vmImage)
	if err != nil || len(list) != 1 || list[0].Name != "vm-zed-1" || list[0].Bytes != 9 {
		t.Errorf("listed %+v, %v", list, err)
	}
	unlock, err := lock(context.Background(), home, "vm-zed-3")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := sweepHalves(home, "vm-zed-1"); err != nil {
		t.Fatal(err)
	}
	if exists(home.Path("images", "vm-zed-2.half")) || !exists(home.Path("images", "vm-zed-3.half")) || !exists(home.Path("images", "vm-zed-1")) {
		t.Error("what a killed build left goes, and what one that goes on makes stays")
	}
}

// TestADiskIsMadeVirtualBoxs runs where there is an engine with the node image of the release as it is now.
func TestADiskIsMadeVirtualBoxs(t *testing.T) {
	ctx := t.Context()
	release, err := topologies.LoadRelease("zed")
	if err != nil {
		t.Fatal(err)
	}
	recipe, err := images.Node(release, images.NodeFiles(), salt.States())
	if err != nil {
		t.Fatal(err)
	}
	vm, err := images.VM(recipe, images.VMFiles())
	if err != nil {
		t.Fatal(err)
	}
	e, err := connect(ctx)
	if err != nil {
		t.Skipf("no container engine to test with: %v", err)
	}
	defer e.Close()
	if there, err := e.has(ctx, recipe.Ref()); err != nil || !there {
		t.Skipf("the engine does not have %s", recipe.Ref())
	}
	home := testHome(t)
	b := &vmBuild{workshop: workshop{engine: e, scratch: scratchName(home.ID, "test"), host: &host{}}, base: recipe.Ref()}
	var disk bytes.Buffer
	err = b.inContainer(ctx, func(ctx context.Context) error {
		if err := b.start(ctx, nil); err != nil {
			return err
		}
		return b.node.Run(ctx, node.Cmd{Args: []string{"sh", "-c", "qemu-img create -q -f qcow2 /var/tmp/d 64M && cat /var/tmp/d"}, Stdout: &disk})
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, home, vm.Name()+"/disk.qcow2", disk.String())
	put(t, home, vm.Name()+"/vm.json", fmt.Sprintf(`{"bytes": %d}`, disk.Len()))
	v, err := VM(ctx, Request{Home: home, VM: vm, VDI: true})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(v.VDI)
	if err != nil || !bytes.HasPrefix(text, []byte("<<< QEMU VM Virtual Disk Image >>>")) {
		t.Errorf("%s: %.40q, %v", v.VDI, text, err)
	}
	left, err := e.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("name", "^/"+scratchName(home.ID, "")))})
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
