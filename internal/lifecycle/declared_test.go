package lifecycle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/topologies"
)

// folder is a shop in a project with these files.
func folder(t *testing.T, files map[string]string) *workshop {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	toastdev := &Toastdev{home: &project.Home{Dir: t.TempDir()}}
	shop, err := toastdev.workshop(PatchRequest{Release: "zed"}, dir)
	if err != nil {
		t.Fatal(err)
	}
	return shop
}

func TestATopologysOverlaysArePatchesTreesAndAPillar(t *testing.T) {
	shop := folder(t, map[string]string{"toastdev.yaml": "", "patches/custom/mine/package.yaml": "pillar: {mine: {enabled: true, size: 1}}\n"})
	topology := &topologies.Topology{Release: "zed", Overlays: []topologies.Overlay{
		{Component: "neutron", Patches: topologies.Patches{All: true}},
		{Component: "nova", Patches: topologies.Patches{Names: []string{"evacuate-policy"}}},
		{Component: "keystone", Source: &topologies.OverlaySource{Git: "/src/keystone", Ref: "mine"}},
		{Package: "toast-vpc"}, {Package: "mine"},
	}, Pillar: map[string]any{"mine": map[string]any{"size": 2}}}
	list, err := shop.declared(topology)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range list {
		if !l.Declared {
			t.Errorf("%s is not declared", l)
		}
		got = append(got, l.Component+": "+l.String())
	}
	if text := strings.Join(got, "; "); text != "neutron: patch fip-rule-with-namespace; neutron: patch fip-timing; nova: patch evacuate-policy; keystone: code /src/keystone (mine)" {
		t.Errorf("declared are %s", text)
	}
	mine, _ := topology.Pillar["mine"].(map[string]any)
	vpc, _ := topology.Pillar["vpc"].(map[string]any)
	if vpc["enabled"] != true || mine["enabled"] != true || mine["size"] != 2 {
		t.Errorf("the pillar is %v", topology.Pillar)
	}
}

func TestATopologysWrongOverlaysAreRefused(t *testing.T) {
	shop := folder(t, map[string]string{"toastdev.yaml": ""})
	for says, l := range map[string]topologies.Overlay{
		`overlays.0.patches: no patch "neutron/fip-timng"`: {Component: "neutron", Patches: topologies.Patches{Names: []string{"fip-timng"}}},
		`overlays.0.package: no package "toast-vcp"`:       {Package: "toast-vcp"},
	} {
		_, err := shop.declared(&topologies.Topology{File: "mine.yaml", Release: "zed", Overlays: []topologies.Overlay{l}})
		if err == nil || !strings.Contains(err.Error(), says) || !strings.HasPrefix(err.Error(), "mine.yaml: ") || !strings.Contains(err.Error(), "remedy: write") {
			t.Errorf("%v, not %s", err, says)
		}
	}
}

func TestOverlaysOfOneComponent(t *testing.T) {
	patch := record.Overlay{Component: "nova", Patch: "a"}
	for _, c := range []struct {
		other record.Overlay
		same  bool
	}{
		{record.Overlay{Component: "nova", Patch: "a", Nodes: []string{"cmp1"}}, true},
		{record.Overlay{Component: "nova", Patch: "b"}, false},
		{record.Overlay{Component: "neutron", Patch: "a"}, false},
		{record.Overlay{Component: "nova", Source: "/src/nova"}, false},
	} {
		if patch.Same(c.other) != c.same {
			t.Errorf("%s and %s", patch, c.other)
		}
	}
	if !(record.Overlay{Component: "nova", Source: "/a"}).Same(record.Overlay{Component: "nova", Source: "/b", Ref: "x"}) {
		t.Error("a component has two source trees")
	}
}
