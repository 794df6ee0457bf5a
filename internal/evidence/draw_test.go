package evidence

import (
	"bytes"
	"encoding/xml"
	"io"
	"net/netip"
	"strings"
	"testing"
)

func labRegion() Region {
	subnet := netip.MustParsePrefix
	nics := func(tunnel string) []RegionNIC {
		return []RegionNIC{{Name: "tun0", Network: "tunnel", Address: netip.MustParseAddr(tunnel)}, {Name: "ext0", Network: "external"}}
	}
	return Region{Name: "mini", Routing: "dvr",
		Networks: []RegionNetwork{{"management", subnet("172.30.0.0/24")}, {"tunnel", subnet("172.30.1.0/24")}, {"external", subnet("172.31.7.0/24")}},
		Nodes: []RegionNode{
			{Name: "ctl", Roles: []string{"control"}},
			{Name: "net", Roles: []string{"network"}, NICs: nics(tunN)},
			{Name: "cmp1", Roles: []string{"compute"}, NICs: nics(tun1)},
			{Name: "cmp2", Roles: []string{"compute"}, NICs: nics(tun2)},
			{Name: "nas", Roles: []string{"storage"}},
		}}
}

// labelled is the lab's points with what they belong to.
func labelled(points []Point) []Point {
	for i := range points {
		switch points[i].Name {
		case "tap-vm1":
			points[i].Label = "vm1"
		case "tap-vm2":
			points[i].Label = "vm2"
		}
	}
	return points
}

func TestAnyPathCanBeDrawn(t *testing.T) {
	hop := Hop{Node: "cmp1", Interface: "tun0", Kind: Tunnel}
	lost := Hop{Node: "net", Namespace: "snat-1", Unknown: "no file"}
	for _, hops := range [][]Hop{
		nil, {lost}, {hop}, {hop, lost}, {lost, hop}, {lost, lost}, {hop, lost, hop}, {{Node: "x", Interface: "y"}, hop},
		{{Node: "x", Interface: "y", Namespace: "n"}, lost, {Node: "z", Interface: "y", Kind: Client}},
		{{Node: "z", Interface: "y", Kind: Client}, lost, {Node: "x", Interface: "y", Namespace: "n"}, lost},
	} {
		for _, region := range []Region{{}, labRegion()} {
			if err := Draw(io.Discard, region, Panel{Path: &Path{Hops: hops}}, Panel{}); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestADrawingSaysWhichNodesAreVMs(t *testing.T) {
	r := labRegion()
	r.Nodes[0].VM = true
	var b bytes.Buffer
	if err := Draw(&b, r, Panel{Path: &Path{Hops: []Hop{{Node: r.Nodes[0].Name, Interface: "tun0", Kind: Tunnel}}}}); err != nil {
		t.Fatal(err)
	}
	if strings.Count(b.String(), ", a VM") != 1 {
		t.Error(b.String())
	}
}

func TestADrawingIsOneFileThatNeedsNothingElse(t *testing.T) {
	names := map[string]string{vm1: "vm1", vm2: "vm2", client: "client"}
	dvr := newLab(t, labelled(region())...)
	dvr.capture.Addresses = names
	for n := range 3 {
		eastWest(dvr, n)
	}
	old := newLab(t, labelled(legacyRegion())...)
	old.capture.Addresses = names
	for n := range 3 {
		legacy(old, n)
	}
	out := newLab(t, labelled(region())...)
	out.capture.Addresses = names
	for n := range 3 {
		sourceNAT(out, 10+n)
		floatingIP(out, 20+n)
	}
	lacking := newLab(t, labelled(legacyRegion())...)
	lacking.capture.Addresses = names
	legacy(lacking, 1)
	for i := range lacking.capture.Points {
		if p := &lacking.capture.Points[i]; p.Node == "net" {
			p.File, p.Missing = "", "its file was not to be had: the node does not run"
		}
	}
	for name, panels := range map[string][]Panel{
		"dvr-and-legacy": {
			{Title: "DVR", Path: dvr.path(addrs(vm1), addrs(vm2))},
			{Title: "legacy", Path: old.path(addrs(vm1), addrs(vm2))},
		},
		"there-and-back": {
			{Title: "request", Path: out.path(addrs(client), addrs(vm1, floating))},
			{Title: "reply", Path: out.path(addrs(floating), addrs(client))},
		},
		"snat":    {{Title: "out", Path: out.path(addrs(vm1), addrs(client))}},
		"unknown": {{Title: "the network node died", Path: lacking.path(addrs(vm1), addrs(vm2))}},
		"nobody":  {{Title: "silence", Path: dvr.path(addrs("10.9.9.9"), addrs(vm2))}},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Draw(&b, labRegion(), panels...); err != nil {
				t.Fatal(err)
			}
			golden(t, "drawings/"+name+".svg", b.Bytes())
			for decoder := xml.NewDecoder(&b); ; {
				if _, err := decoder.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
