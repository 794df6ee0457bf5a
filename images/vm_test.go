package images

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/salt"
	"github.com/toast-cloud/toastdev/topologies"
)

func vmFiles() fstest.MapFS {
	return fstest.MapFS{
		"recipe.yaml":     file("kernel: linux\ntools: [busybox]\narguments: quiet\nboot: 40\nsize: 2048\nmodules: [virtio_blk, virtio_net]\nenabled: [ssh.service]\nmasked: [x.mount]\n"),
		"init":            file("#!/bin/busybox sh\n"),
		"prepare":         file("#!/bin/sh\n"),
		"assemble":        file("#!/bin/sh\n"),
		"rootfs/usr/seed": file("#!/bin/sh\n"),
	}
}

func mustVM(t *testing.T, node *NodeRecipe, recipe fstest.MapFS) *VMRecipe {
	t.Helper()
	v, err := VM(node, recipe)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAVMImageIsNamedAfterWhatGoesIntoIt(t *testing.T) {
	v := mustVM(t, mustNode(t, release(), recipeFiles(), tree()), vmFiles())
	if want := "vm-zed-9f6fe2c38cfc"; v.Name() != want {
		t.Errorf("the name is %s, want %s: when the change is meant, raise vmRevision or the golden name", v.Name(), want)
	}
	for name, want := range map[string]string{
		"modules": "virtio_blk\nvirtio_net\n", "enabled": "ssh.service\n", "masked": "x.mount\n", "tools.list": "busybox\n",
		"syslinux.cfg": "DEFAULT node\nPROMPT 0\nTIMEOUT 0\nLABEL node\n  LINUX /vmlinuz\n  INITRD /initrd.img\n  APPEND quiet\n",
	} {
		if got := string(v.Work[name]); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestWhatMakesAnotherVMImageAndWhatDoesNot(t *testing.T) {
	before := mustVM(t, mustNode(t, release(), recipeFiles(), tree()), vmFiles()).Hash
	for name, test := range map[string]struct {
		edit    func(states, node, vm fstest.MapFS)
		another bool
	}{
		"another node image": {func(_, node, _ fstest.MapFS) { node["rootfs/usr/init"] = file("#!/bin/dash\n") }, true},
		"a kernel argument": {func(_, _, vm fstest.MapFS) {
			vm["recipe.yaml"].Data = []byte(strings.Replace(string(vm["recipe.yaml"].Data), "quiet", "debug", 1))
		}, true},
		"its initial RAM disk":    {func(_, _, vm fstest.MapFS) { vm["init"] = file("#!/bin/sh\n") }, true},
		"how the root is made":    {func(_, _, vm fstest.MapFS) { vm["prepare"] = file("#!/bin/dash\n") }, true},
		"how the disk is made":    {func(_, _, vm fstest.MapFS) { vm["assemble"] = file("#!/bin/dash\n") }, true},
		"a file of its rootfs":    {func(_, _, vm fstest.MapFS) { vm["rootfs/usr/seed"] = file("#!/bin/dash\n") }, true},
		"one more of its rootfs":  {func(_, _, vm fstest.MapFS) { vm["rootfs/etc/fstab"] = file("x") }, true},
		"a state that configures": {func(states, _, _ fstest.MapFS) { states["nova/init.sls"] = file("other") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			states, node, vm := tree(), recipeFiles(), vmFiles()
			test.edit(states, node, vm)
			if another := mustVM(t, mustNode(t, release(), node, states), vm).Hash != before; another != test.another {
				t.Errorf("another image: %v, want %v", another, test.another)
			}
		})
	}
}

func TestAFaultyRecipeOfAVMIsRefusedWithItsPlace(t *testing.T) {
	files := vmFiles()
	files["recipe.yaml"] = file("kernel: linux\nmodule: [virtio_blk]\n")
	_, err := VM(mustNode(t, release(), recipeFiles()), files)
	if e, ok := err.(*fault.Error); !ok || e.Code != fault.Invalid || e.Line != 2 || !strings.Contains(e.Error(), "module") {
		t.Errorf("got %v", err)
	}
}

func TestTheVMsRecipeBuiltInIsWhole(t *testing.T) {
	r, err := topologies.LoadRelease("zed")
	if err != nil {
		t.Fatal(err)
	}
	n, err := Node(r, NodeFiles(), salt.States())
	if err != nil {
		t.Fatal(err)
	}
	v, err := VM(n, VMFiles())
	if err != nil {
		t.Fatal(err)
	}
	if v.Kernel == "" || len(v.Tools) == 0 || v.Boot == 0 || v.Size <= v.Boot {
		t.Errorf("kernel %q, tools %q, %d MiB of which %d to boot from", v.Kernel, v.Tools, v.Size, v.Boot)
	}
	for _, name := range []string{"init", "prepare", "assemble"} {
		if Mode(v.Work[name]) != 0o755 {
			t.Errorf("%s is a program and has no #! line", name)
		}
	}
	for name, content := range v.Rootfs {
		if strings.HasPrefix(name, "usr/lib/toastdev/") && Mode(content) != 0o755 {
			t.Errorf("%s is a program and has no #! line", name)
		}
		if _, ok := n.Rootfs[name]; ok {
			t.Errorf("%s is the node image's, too", name)
		}
	}
	for unit := range strings.Lines(string(v.Work["enabled"])) {
		unit = strings.TrimSpace(unit)
		// ssh is of the base's packages.
		if _, ok := v.Rootfs["usr/lib/systemd/system/"+unit]; !ok && unit != "ssh.service" {
			t.Errorf("%s is enabled, and nothing brings it", unit)
		}
	}
}
