package images

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/topologies"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func recipeFiles() fstest.MapFS {
	return fstest.MapFS{
		"recipe.yaml":     file("base:\n  variant: minbase\n  packages: [systemd]\nsalt:\n  version: \"3006.27\"\n  constraints: pins.txt\n"),
		"pins.txt":        file("salt==3006.27\n"),
		"rootfs/usr/init": file("#!/bin/sh\n"),
	}
}

func release() topologies.Release {
	return topologies.Release{
		Name: "zed", Series: "2022.2", Install: "packages", OS: topologies.OS{Distribution: "debian", Suite: "bookworm"},
		Components: map[string]topologies.Component{
			"nova": {
				Code:     "/usr/lib/python3/dist-packages/nova",
				Packages: map[string][]string{"control": {"nova-api"}, "compute": {"nova-compute", "nova-api"}},
				Units:    map[string][]string{"control": {"nova-api"}},
			},
		},
	}
}

func tree() fstest.MapFS {
	return fstest.MapFS{
		"top.sls":                    file("base: {'*': [nova]}\n"),
		"map.jinja":                  file(`{% include "deep/other.jinja" %}`),
		"deep/other.jinja":           file("x"),
		"nova/install.sls":           file("{%- from 'map.jinja' import install with context -%}\ninclude:\n  - .repository\n  - schemas\n"),
		"nova/repository.sls":        file("/etc/key:\n  file.managed:\n    - source: salt://nova/files/key\n"),
		"nova/files/key":             file("key"),
		"nova/files/nova.conf":       file("conf"),
		"nova/init.sls":              file("nova-service: service.running\n"),
		"schemas/init.sls":           file("include: [nova.schema]\nx:\n  m.done: []\n"),
		"nova/schema.sls":            file("{% import_yaml './defaults.yaml' as defaults %}\n"),
		"nova/defaults.yaml":         file("a: 1\n"),
		"_modules/m.py":              file("pass\n"),
		"_states/m.py":               file("def done():\n    return __utils__['u.help']()\n"),
		"_utils/u.py":                file("pass\n"),
		"_states/uncalled.py":        file("pass\n"),
		"_modules/__pycache__/m.pyc": file("binary"),
	}
}

func mustNode(t *testing.T, r topologies.Release, recipe fstest.MapFS, trees ...fstest.MapFS) *NodeRecipe {
	t.Helper()
	var roots []fs.FS
	for _, tree := range trees {
		roots = append(roots, tree)
	}
	n, err := Node(r, recipe, roots...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestANodeImageIsNamedAfterWhatGoesIntoIt(t *testing.T) {
	n := mustNode(t, release(), recipeFiles(), tree())
	if want := "toastdev/node-zed:a55439a505ab"; n.Ref() != want {
		t.Errorf("the name is %s, want %s: when the change is meant, raise nodeRevision or the golden name", n.Ref(), want)
	}
	if want := []string{"nova.install"}; !slices.Equal(n.States, want) {
		t.Errorf("states %v, want %v", n.States, want)
	}
	if want := []string{"nova-api", "nova-compute"}; !slices.Equal(n.Packages, want) {
		t.Errorf("packages %v, want %v", n.Packages, want)
	}
	want := []string{"_modules/m.py", "_states/m.py", "_utils/u.py", "deep/other.jinja", "map.jinja", "nova/defaults.yaml", "nova/files/key", "nova/install.sls",
		"nova/repository.sls", "nova/schema.sls", "schemas/init.sls"}
	if got := slices.Sorted(maps.Keys(n.Trees[0])); !slices.Equal(got, want) {
		t.Errorf("a build is given %v, want %v", got, want)
	}
	var pillar map[string]any
	if err := json.Unmarshal(n.Pillar, &pillar); err != nil || pillar["baking"] != true {
		t.Errorf("pillar %s: %v", n.Pillar, err)
	}
}

func TestWhatMakesAnotherNodeImageAndWhatDoesNot(t *testing.T) {
	before := mustNode(t, release(), recipeFiles(), tree()).Hash
	for name, test := range map[string]struct {
		edit    func(r *topologies.Release, recipe, tree fstest.MapFS)
		another bool
	}{
		"a base package": {func(_ *topologies.Release, f, _ fstest.MapFS) {
			f["recipe.yaml"].Data = append(f["recipe.yaml"].Data, "# x\n"...)
		}, true},
		"a pin":                {func(_ *topologies.Release, f, _ fstest.MapFS) { f["pins.txt"] = file("salt==3006.28\n") }, true},
		"a file of the rootfs": {func(_ *topologies.Release, f, _ fstest.MapFS) { f["rootfs/usr/init"] = file("#!/bin/dash\n") }, true},
		"an install state": {func(_ *topologies.Release, _, s fstest.MapFS) {
			s["nova/install.sls"].Data = append(s["nova/install.sls"].Data, '\n')
		}, true},
		"a new install state":    {func(_ *topologies.Release, _, s fstest.MapFS) { s["glance/install.sls"] = file("") }, true},
		"a template it includes": {func(_ *topologies.Release, _, s fstest.MapFS) { s["deep/other.jinja"] = file("y") }, true},
		"a file it copies":       {func(_ *topologies.Release, _, s fstest.MapFS) { s["nova/files/key"] = file("other") }, true},
		"a module of the tree":   {func(_ *topologies.Release, _, s fstest.MapFS) { s["_modules/m.py"] = file("x = 1\n") }, true},
		"a package of the release": {func(r *topologies.Release, _, _ fstest.MapFS) {
			r.Components["nova"].Packages["compute"] = []string{"nova-compute"}
		}, true},
		"the suite":                   {func(r *topologies.Release, _, _ fstest.MapFS) { r.OS.Suite = "trixie" }, true},
		"a state that configures":     {func(_ *topologies.Release, _, s fstest.MapFS) { s["nova/init.sls"] = file("other") }, false},
		"a configuration file":        {func(_ *topologies.Release, _, s fstest.MapFS) { s["nova/files/nova.conf"] = file("other") }, false},
		"the top file":                {func(_ *topologies.Release, _, s fstest.MapFS) { s["top.sls"] = file("other") }, false},
		"a module that nothing calls": {func(_ *topologies.Release, _, s fstest.MapFS) { s["_states/uncalled.py"] = file("other") }, false},
		"what Python compiled":        {func(_ *topologies.Release, _, s fstest.MapFS) { s["_modules/__pycache__/m.pyc"] = file("other") }, false},
		"a unit of the release":       {func(r *topologies.Release, _, _ fstest.MapFS) { r.Components["nova"].Units["control"] = nil }, false},
		"a capability of the release": {func(r *topologies.Release, _, _ fstest.MapFS) { r.Capabilities = []string{"dvr"} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, recipe, states := release(), recipeFiles(), tree()
			test.edit(&r, recipe, states)
			if another := mustNode(t, r, recipe, states).Hash != before; another != test.another {
				t.Errorf("another image: %v, want %v", another, test.another)
			}
		})
	}
}

func TestAUsersTreeStandsBeforeOurs(t *testing.T) {
	ours := mustNode(t, release(), recipeFiles(), tree())
	t.Run("one that only configures makes no other image, and no part of it goes in", func(t *testing.T) {
		users := fstest.MapFS{"top.sls": file("x"), "nova/init.sls": file("y"), "_modules/theirs.py": file("pass")}
		n := mustNode(t, release(), recipeFiles(), users, tree())
		if n.Hash != ours.Hash || len(n.Trees) != 1 {
			t.Errorf("the same image: %v, of %d trees", n.Hash == ours.Hash, len(n.Trees))
		}
	})
	t.Run("an install state of its own counts instead of ours", func(t *testing.T) {
		users := fstest.MapFS{"nova/install.sls": file("nova: pkg.installed\n"), "map.jinja": file("theirs")}
		n := mustNode(t, release(), recipeFiles(), users, tree())
		var taken []string
		for _, tree := range n.Trees {
			if content, ok := tree["nova/install.sls"]; ok {
				taken = append(taken, string(content))
			}
		}
		if !slices.Equal(taken, []string{"nova: pkg.installed\n"}) {
			t.Errorf("taken: %q", taken)
		}
		if n.Hash == ours.Hash || !slices.Equal(n.States, ours.States) {
			t.Errorf("states %v, the same image: %v", n.States, n.Hash == ours.Hash)
		}
	})
}

func TestAFaultyRecipeIsRefusedWithItsPlace(t *testing.T) {
	files := recipeFiles()
	files["recipe.yaml"] = file("base:\n  variant: minbase\n  pakages: [systemd]\n")
	_, err := Node(release(), files)
	e, ok := err.(*fault.Error)
	if !ok || e.Code != fault.Invalid || e.Line != 3 || !strings.Contains(e.Error(), "pakages") {
		t.Errorf("got %v", err)
	}
}

func TestASourceThatIsComputedIsRefusedWithItsPlace(t *testing.T) {
	users := fstest.MapFS{"nova/install.sls": file("/etc/key:\n  file.managed:\n    - source: salt://nova/{{ key }}\n")}
	_, err := Node(release(), recipeFiles(), users, tree())
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Code != fault.Invalid || e.File != "nova/install.sls" || e.Line != 3 || e.Remedy == "" {
		t.Errorf("got %v", err)
	}
}

func TestTheRecipesBuiltInAreWhole(t *testing.T) {
	r, err := topologies.LoadRelease("zed")
	if err != nil {
		t.Fatal(err)
	}
	n, err := Node(r, NodeFiles())
	if err != nil {
		t.Fatal(err)
	}
	if n.Suite == "" || n.Variant == "" || n.Salt == "" || len(n.Base) == 0 || !strings.Contains(string(n.Constraints), "salt=="+n.Salt) {
		t.Errorf("the node's recipe lacks something: %s %s %s %v", n.Suite, n.Variant, n.Salt, n.Base)
	}
	for name, content := range n.Rootfs {
		if strings.HasPrefix(name, "usr/lib/toastdev/") && Mode(content) != 0o755 {
			t.Errorf("%s is a program and has no #! line", name)
		}
	}
}

func TestTheGuestsRecipe(t *testing.T) {
	g, err := Guest("bookworm", GuestFiles())
	if err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(string(g.Initrd["modules/first"]), "\n"); first != "virtio_ring" {
		t.Errorf("the first module is %q", first)
	}
	if !strings.Contains(string(g.Initrd["modules/first"]), "\nvirtio_net csum=0 gso=0\n") {
		t.Error("a module's options are lost")
	}
	if !strings.Contains(string(g.Loader), "APPEND console=ttyS0 quiet no_timer_check panic=1 nokaslr cryptomgr.notests noreplace-smp\n") {
		t.Errorf("syslinux.cfg: %s", g.Loader)
	}
	for _, name := range []string{"init", "etc/dhcp"} {
		if Mode(g.Initrd[name]) != 0o755 {
			t.Errorf("%s is not executable", name)
		}
	}
	for _, name := range []string{"main.go", "probe/probe.go"} {
		if _, ok := g.Agent[name]; !ok {
			t.Errorf("the agent lacks %s: %v", name, slices.Sorted(maps.Keys(g.Agent)))
		}
	}
	for name := range g.Agent {
		if strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s is in the image", name)
		}
	}
	other, err := Guest("trixie", GuestFiles())
	if err != nil || other.Hash == g.Hash {
		t.Errorf("another suite makes the same image: %v", err)
	}
}

func TestTheBootSectorHasBothPartitions(t *testing.T) {
	block, err := BootSector([]byte("boot code"), 24, 15)
	if err != nil {
		t.Fatal(err)
	}
	if len(block) != 512 || string(block[510:]) != "\x55\xaa" || !strings.HasPrefix(string(block), "boot code") {
		t.Fatalf("not a boot sector: %x", block)
	}
	for i, want := range []struct {
		active, kind byte
		start, size  uint32
	}{{0x80, 0x0e, 2048, 24 * 2048}, {0, 0x83, 25 * 2048, 15 * 2048}, {}, {}} {
		e := block[446+16*i:]
		if e[0] != want.active || e[4] != want.kind || binary.LittleEndian.Uint32(e[8:]) != want.start || binary.LittleEndian.Uint32(e[12:]) != want.size {
			t.Errorf("partition %d is %x", i+1, e[:16])
		}
	}
	if _, err := BootSector(make([]byte, 446), 24, 15); err == nil {
		t.Error("boot code over the disk's signature is accepted")
	}
}
