package topologies

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/internal/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a golden file, or writes it.
func golden(t *testing.T, file, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, text, want)
	}
}

// Each file of testdata/bad is refused with the message in the golden file beside it.
func TestBadTopologiesAreRefusedWhereTheyAreWrong(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	if len(files) < 22 {
		t.Fatalf("%d files in testdata/bad", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			_, err := Load(Source{Ref: file})
			e := refused(t, err)
			if e.Line < 1 || e.Column < 1 || e.File != file {
				t.Errorf("no place: %q %d:%d", e.File, e.Line, e.Column)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", string(e.Code)+"\n"+e.Error()+"\n")
		})
	}
}

// refused is the fault that a bad topology's error must be.
func refused(t *testing.T, err error) *fault.Error {
	t.Helper()
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		t.Fatalf("not a fault: %v", err)
	}
	if e.Code != fault.Invalid && e.Code != fault.Unsupported {
		t.Errorf("code %s", e.Code)
	}
	return e
}

func TestWhatIsNotATopologyFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, bytes.Repeat([]byte("# a comment\n"), maxBytes/12+1), 0o644); err != nil {
		t.Fatal(err)
	}
	latin := filepath.Join(dir, "latin.yaml")
	if err := os.WriteFile(latin, []byte("name: x\n# caf\xe9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, ref, want string }{
		{"a folder", dir, "this is a folder"},
		{"a device", "/dev/null", "this is not a file"},
		{"a file below a file", large + "/x", "not a directory"},
		{"nothing there", filepath.Join(dir, "none.yaml"), "no topology"},
		{"a built-in's name misspelt", "mimi", `write "mini"`},
		{"too large", large, "too large"},
		{"not UTF-8", latin, "latin.yaml:2:6: byte 0xe9 is not UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(Source{Ref: c.ref})
			if e := refused(t, err); !strings.Contains(e.Error(), c.want) {
				t.Errorf("got %q, want %q", e, c.want)
			}
		})
	}
}

func TestSetIsAppliedAfterTheMerge(t *testing.T) {
	for _, c := range []struct {
		name string
		sets []string
		get  func(*Topology) any
		want any
	}{
		{"a count", []string{"nodes.cmp.count=3"}, func(t *Topology) any { return *t.Nodes["cmp"].Count }, 3},
		{"the last one wins", []string{"nodes.cmp.count=3", "nodes.cmp.count=1"}, func(t *Topology) any { return *t.Nodes["cmp"].Count }, 1},
		{"every node", []string{"nodes.*.memory=3GiB"}, func(t *Topology) any { return t.Nodes["nas"].Memory }, Size(3 << 30)},
		{"null removes", []string{"nodes.cmp.count=null"}, func(t *Topology) any { return t.Nodes["cmp"].Count == nil }, true},
		{"maps are made on the way", []string{"networks.external.floating=50-60"}, func(t *Topology) any { return t.Networks["external"].Floating }, Floating{50, 60}},
		{"a map is merged", []string{"nodes.cmp={cpus: 2}"}, func(t *Topology) any { return []any{t.Nodes["cmp"].CPUs, *t.Nodes["cmp"].Count} }, []any{2.0, 2}},
		{"a list replaces", []string{"nodes.net=null", "nodes.ctl.roles=[control, network]"}, func(t *Topology) any { return t.Nodes["ctl"].Roles }, []string{"control", "network"}},
		{"a new node", []string{"nodes.gw.roles=[network]"}, func(t *Topology) any { return t.Nodes["gw"].Roles }, []string{"network"}},
		{"a value with an equals sign", []string{"pillar.nova.extra=a=b"}, func(t *Topology) any { return t.Pillar["nova"].(map[string]any)["extra"] }, "a=b"},
		{"a whole number stays one", []string{"pillar.nova.ram=8"}, func(t *Topology) any { return t.Pillar["nova"].(map[string]any)["ram"] }, uint64(8)},
	} {
		t.Run(c.name, func(t *testing.T) {
			topology, err := Load(Source{Ref: "mini", Sets: c.sets})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.get(topology); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v (%T), want %v (%T)", got, got, c.want, c.want)
			}
		})
	}
}

func TestBadSetsAreRefusedByName(t *testing.T) {
	var text strings.Builder
	for _, set := range []string{
		"nodes.cmp.count", "=3", "nodes..count=3", "nodes.cmp.count=many", "nodes.cmp.cuont=3", "nodes.cpm.count=3", "nodes.cpm=null",
		"nodes.ctl.count=3", "nodes.nas=null", "nodes.cmp.roles.0=control", "nodes.cmp.count=[1", "nodes.cmp.count=&a 3", "nodes.*.disk=1GiB",
		"regions.kr1.nodes.cmp.count=3", "overlays.*.patches=all", "routing=drv", "name=../x", "networks.external.subnet=10.0.0.0/8",
		"nodes.cmp.count=3\nname: y", "salt.tree=/nonexistent", "salt.base=none", "pillar.secrets.admin=x",
	} {
		_, err := Load(Source{Ref: "mini", Sets: []string{set}})
		e := refused(t, err)
		if e.File != "--set "+set || e.Line != 0 {
			// Roles that are missing at all are missed in the file.
			if set != "nodes.nas=null" {
				t.Errorf("%s: place %q:%d", set, e.File, e.Line)
			}
		}
		text.WriteString(e.Error() + "\n\n")
	}
	golden(t, "testdata/sets.golden", text.String())
}

func TestOneRegionIsMerged(t *testing.T) {
	topology, err := Load(Source{Ref: "testdata/good/region.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	if topology.Region != "jp1" || *topology.Nodes["cmp"].Count != 3 || topology.Nodes["cmp"].Memory != 2<<30 {
		t.Errorf("region %s, nodes %+v", topology.Region, topology.Nodes)
	}
	if _, ok := topology.Nodes["gw"]; ok {
		t.Error("null does not remove")
	}
	if topology.Routing != "legacy" || len(topology.Regions) != 1 {
		t.Errorf("routing %s, regions %v", topology.Routing, topology.Regions)
	}
}

func TestGoodTopologiesLoad(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.yaml")
	for _, ref := range append(Builtin(), files...) {
		if _, err := Load(Source{Ref: ref}); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if got := Builtin(); !slices.Equal(got, []string{"legacy", "mini", "mixed", "vagrant-style", "vms"}) {
		t.Errorf("built in: %v", got)
	}
}

func TestEveryNodeCanBeMadeAVMByOneWord(t *testing.T) {
	for _, ref := range []string{"mini", "mixed"} {
		topology, err := Load(Source{Ref: ref, Sets: []string{"nodes.*.provisioner=libvirt"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := topology.Provisioners(); !slices.Equal(got, []string{Libvirt}) {
			t.Errorf("%s: %v", ref, got)
		}
	}
	mixed, err := Load(Source{Ref: "mixed"})
	if err != nil {
		t.Fatal(err)
	}
	if got := mixed.Provisioners(); !slices.Equal(got, []string{Docker, Libvirt}) {
		t.Errorf("mixed: %v", got)
	}
}

func TestATopologyThatIsShownLoadsAsTheSame(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.yaml")
	for _, ref := range append(Builtin(), files...) {
		topology, err := Load(Source{Ref: ref})
		if err != nil {
			t.Fatal(err)
		}
		text, err := topology.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := load(ref, ref, ".", text, nil)
		if err != nil {
			t.Fatalf("%s: %v in\n%s", ref, err, text)
		}
		again.File = topology.File
		if !reflect.DeepEqual(again, topology) {
			t.Errorf("%s: got %+v, want %+v from\n%s", ref, again, topology, text)
		}
	}
}

func TestASaltTreeIsRelativeToItsFile(t *testing.T) {
	topology, err := Load(Source{Ref: "testdata/good/tree.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := filepath.Abs("testdata/good/tree"); topology.Salt.Tree != want || topology.Salt.Base != "none" {
		t.Errorf("got %+v, want %s", topology.Salt, want)
	}
}

func TestATopologyWithoutANameHasItsFiles(t *testing.T) {
	topology, err := Load(Source{Ref: "testdata/good/one-node.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	if topology.Name != "one-node" {
		t.Errorf("name %q", topology.Name)
	}
}

func TestSizesHaveUnits(t *testing.T) {
	for text, want := range map[string]Size{"3GiB": 3 << 30, "512MiB": 512 << 20, "1.5GiB": 3 << 29, "20GB": 20e9} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
		if back, err := ParseSize(got.String()); err != nil || back != got {
			t.Errorf("%s: written as %s", text, got)
		}
	}
	for _, text := range []string{"", "3", "GiB", "3 GiB", "3gib", "3G", "-3GiB", "3GiBs", "1.2.3GiB", "99999999999TiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// FuzzLoad: whatever the text, the loader takes it or says where it is wrong.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"*.yaml", "testdata/*/*.yaml", "releases/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		topology, err := load("fuzz.yaml", "fuzz.yaml", ".", text, nil)
		if err == nil {
			if topology == nil {
				t.Error("neither a topology nor an error")
			}
			return
		}
		e, ok := errors.AsType[*fault.Error](err)
		if !ok {
			t.Fatalf("not a fault: %v", err)
		}
		if e.File != "fuzz.yaml" || e.Line < 1 || e.Column < 1 {
			t.Errorf("no place: %v", e)
		}
	})
}
