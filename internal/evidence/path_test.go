package evidence

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// The lab's region: two computes and a network node; a router's interface has the same MAC on every compute, and a
// compute's own MAC stands for it on the wire.
const (
	routerID = "8f3c1b2a-1111-2222-3333-444444444444"
	qrouter  = "qrouter-" + routerID
	snat     = "snat-" + routerID
	fip      = "fip-99990000-1111-2222-3333-444444444444"

	vm1MAC, vm2MAC             = "fa:16:3e:00:00:05", "fa:16:3e:00:00:07"
	qrAMAC, qrBMAC             = "fa:16:3e:00:0a:01", "fa:16:3e:00:0b:01"
	dvr1MAC, dvr2MAC           = "fa:16:3f:00:00:01", "fa:16:3f:00:00:02"
	sgMAC, qgMAC               = "fa:16:3e:00:0a:02", "fa:16:3e:00:0e:02"
	rfpMAC, fprMAC, fgMAC      = "aa:00:00:00:00:01", "aa:00:00:00:00:02", "fa:16:3e:00:0f:01"
	clientMAC                  = "02:00:00:00:00:c1"
	vm1, vm2, floating, client = "10.1.0.5", "10.2.0.7", "172.31.7.110", "172.31.7.200"
	gateway                    = "172.31.7.120"
	tun1, tun2, tunN           = "172.30.1.11", "172.30.1.12", "172.30.1.20"
)

func point(node, namespace, name, kind, mac string, addresses ...string) Point {
	return Point{Node: node, Interface: Interface{Name: name, Namespace: namespace, Kind: kind, MAC: mac, Addresses: addrs(addresses...)}}
}

func region() []Point {
	return []Point{
		point("cmp1", "", "tun0", Tunnel, "", tun1),
		point("cmp1", "", "ext0", External, ""),
		point("cmp1", "", "tap-vm1", Tap, ""),
		point("cmp1", qrouter, "qr-a", Router, qrAMAC, "10.1.0.1"),
		point("cmp1", qrouter, "qr-b", Router, qrBMAC, "10.2.0.1"),
		point("cmp1", qrouter, "rfp-r", Router, rfpMAC, "169.254.0.1"),
		point("cmp1", fip, "fpr-r", Gateway, fprMAC, "169.254.0.2"),
		point("cmp1", fip, "fg-x", Gateway, fgMAC, "172.31.7.111"),
		point("cmp2", "", "tun0", Tunnel, "", tun2),
		point("cmp2", "", "ext0", External, ""),
		point("cmp2", "", "tap-vm2", Tap, ""),
		point("cmp2", qrouter, "qr-a", Router, qrAMAC, "10.1.0.1"),
		point("cmp2", qrouter, "qr-b", Router, qrBMAC, "10.2.0.1"),
		point("net", "", "tun0", Tunnel, "", tunN),
		point("net", "", "ext0", External, ""),
		point("net", snat, "sg-a", Router, sgMAC, "10.1.0.2"),
		point("net", snat, "qg-r", Gateway, qgMAC, gateway),
		point("client", "", "eth0", Client, clientMAC, client),
	}
}

// eastWest is a ping between two networks on two computes by a distributed router, and its answer.
func eastWest(l *lab, number int) {
	for _, hop := range []struct {
		node, name string
		frame      []gopacket.SerializableLayer
	}{
		{"cmp1", "tap-vm1", ping(vm1MAC, qrAMAC, vm1, vm2, number, false)},
		{"cmp1", "qr-a", ping(vm1MAC, qrAMAC, vm1, vm2, number, false)},
		{"cmp1", "qr-b", ping(qrBMAC, vm2MAC, vm1, vm2, number, false)},
		{"cmp1", "tun0", vxlan(57, tun1, tun2, ping(dvr1MAC, vm2MAC, vm1, vm2, number, false))},
		{"cmp2", "tun0", vxlan(57, tun1, tun2, ping(dvr1MAC, vm2MAC, vm1, vm2, number, false))},
		{"cmp2", "tap-vm2", ping(qrBMAC, vm2MAC, vm1, vm2, number, false)},
		{"cmp2", "tap-vm2", ping(vm2MAC, qrBMAC, vm2, vm1, number, true)},
		{"cmp2", "qr-b", ping(vm2MAC, qrBMAC, vm2, vm1, number, true)},
		{"cmp2", "qr-a", ping(qrAMAC, vm1MAC, vm2, vm1, number, true)},
		{"cmp2", "tun0", vxlan(56, tun2, tun1, ping(dvr2MAC, vm1MAC, vm2, vm1, number, true))},
		{"cmp1", "tun0", vxlan(56, tun2, tun1, ping(dvr2MAC, vm1MAC, vm2, vm1, number, true))},
		{"cmp1", "tap-vm1", ping(qrAMAC, vm1MAC, vm2, vm1, number, true)},
	} {
		l.see(hop.node, hop.name, hop.frame)
	}
}

// floatingIP is the client's ping to a floating IP, and its answer.
func floatingIP(l *lab, number int) {
	l.see("client", "eth0", ping(clientMAC, fgMAC, client, floating, number, false))
	l.see("cmp1", "ext0", ping(clientMAC, fgMAC, client, floating, number, false))
	l.see("cmp1", "fg-x", ping(clientMAC, fgMAC, client, floating, number, false))
	l.see("cmp1", "fpr-r", ping(fprMAC, rfpMAC, client, floating, number, false))
	l.see("cmp1", "rfp-r", ping(fprMAC, rfpMAC, client, floating, number, false))
	l.see("cmp1", "qr-a", ping(qrAMAC, vm1MAC, client, vm1, number, false))
	l.see("cmp1", "tap-vm1", ping(qrAMAC, vm1MAC, client, vm1, number, false))
	l.see("cmp1", "tap-vm1", ping(vm1MAC, qrAMAC, vm1, client, number, true))
	l.see("cmp1", "qr-a", ping(vm1MAC, qrAMAC, vm1, client, number, true))
	l.see("cmp1", "rfp-r", ping(rfpMAC, fprMAC, floating, client, number, true))
	l.see("cmp1", "fpr-r", ping(rfpMAC, fprMAC, floating, client, number, true))
	l.see("cmp1", "fg-x", ping(fgMAC, clientMAC, floating, client, number, true))
	l.see("cmp1", "ext0", ping(fgMAC, clientMAC, floating, client, number, true))
	l.see("client", "eth0", ping(fgMAC, clientMAC, floating, client, number, true))
}

// sourceNAT is an instance's way out through the network node. The router sends by the interface that it received on.
func sourceNAT(l *lab, number int) {
	l.see("cmp1", "tap-vm1", ping(vm1MAC, qrAMAC, vm1, client, number, false))
	l.see("cmp1", "qr-a", ping(vm1MAC, qrAMAC, vm1, client, number, false))
	l.see("cmp1", "qr-a", ping(qrAMAC, sgMAC, vm1, client, number, false))
	l.see("cmp1", "tun0", vxlan(56, tun1, tunN, ping(dvr1MAC, sgMAC, vm1, client, number, false)))
	l.see("net", "tun0", vxlan(56, tun1, tunN, ping(dvr1MAC, sgMAC, vm1, client, number, false)))
	l.see("net", "sg-a", ping(qrAMAC, sgMAC, vm1, client, number, false))
	l.see("net", "qg-r", ping(qgMAC, clientMAC, gateway, client, number, false))
	l.see("net", "ext0", ping(qgMAC, clientMAC, gateway, client, number, false))
	l.see("client", "eth0", ping(qgMAC, clientMAC, gateway, client, number, false))
}

// legacy is a ping between two networks by a router on the network node alone.
func legacy(l *lab, number int) {
	l.see("cmp1", "tap-vm1", ping(vm1MAC, qrAMAC, vm1, vm2, number, false))
	l.see("cmp1", "tun0", vxlan(56, tun1, tunN, ping(vm1MAC, qrAMAC, vm1, vm2, number, false)))
	l.see("net", "tun0", vxlan(56, tun1, tunN, ping(vm1MAC, qrAMAC, vm1, vm2, number, false)))
	l.see("net", "qr-a", ping(vm1MAC, qrAMAC, vm1, vm2, number, false))
	l.see("net", "qr-b", ping(qrBMAC, vm2MAC, vm1, vm2, number, false))
	l.see("net", "tun0", vxlan(57, tunN, tun2, ping(qrBMAC, vm2MAC, vm1, vm2, number, false)))
	l.see("cmp2", "tun0", vxlan(57, tunN, tun2, ping(qrBMAC, vm2MAC, vm1, vm2, number, false)))
	l.see("cmp2", "tap-vm2", ping(qrBMAC, vm2MAC, vm1, vm2, number, false))
}

func legacyRegion() []Point {
	points := region()[:0:0]
	for _, p := range region() {
		if !strings.HasPrefix(p.Namespace, "qrouter-") {
			points = append(points, p)
		}
	}
	return append(points, point("net", qrouter, "qr-a", Router, qrAMAC, "10.1.0.1"), point("net", qrouter, "qr-b", Router, qrBMAC, "10.2.0.1"))
}

func TestAPathIsWhatCapturesSaw(t *testing.T) {
	three := func(flow func(*lab, int)) func(*lab) {
		return func(l *lab) {
			for n := range 3 {
				flow(l, n)
			}
		}
	}
	missing := func(flow func(*lab, int), node, name string) func(*lab) {
		return func(l *lab) {
			flow(l, 1)
			p := l.point(node, name)
			p.File, p.Missing = "", "its file was not to be had: the node does not run"
		}
	}
	for _, test := range []struct {
		name     string
		points   []Point
		flow     func(*lab)
		from, to []netip.Addr
	}{
		{"east-west", region(), three(eastWest), addrs(vm1), addrs(vm2)},
		{"east-west-back", region(), three(eastWest), addrs(vm2), addrs(vm1)},
		{"floating-ip", region(), three(floatingIP), addrs(client), addrs(vm1, floating)},
		{"floating-ip-back", region(), three(floatingIP), addrs(vm1, floating), addrs(client)},
		{"snat", region(), three(sourceNAT), addrs(vm1), addrs(client)},
		{"legacy", legacyRegion(), three(legacy), addrs(vm1), addrs(vm2)},
		{"vlan", region(), func(l *lab) {
			l.see("cmp1", "tap-vm1", ping(vm1MAC, vm2MAC, vm1, vm2, 1, false))
			l.see("cmp1", "ext0", tagged(104, ping(vm1MAC, vm2MAC, vm1, vm2, 1, false)))
			l.see("cmp2", "ext0", tagged(104, ping(vm1MAC, vm2MAC, vm1, vm2, 1, false)))
			l.see("cmp2", "tap-vm2", ping(vm1MAC, vm2MAC, vm1, vm2, 1, false))
		}, addrs(vm1), addrs(vm2)},
		{"udp", region(), func(l *lab) { // an echo has the payload of what it answers
			l.see("cmp1", "tap-vm1", datagram(vm1MAC, vm2MAC, vm1, vm2, 40000, 7, "marker"))
			l.see("cmp1", "tap-vm1", datagram(vm2MAC, vm1MAC, vm2, vm1, 7, 40000, "marker"))
		}, addrs(vm2), addrs(vm1)},
		{"tcp", region(), func(l *lab) { // the first segment is sent again
			for i := range 2 {
				l.see("cmp1", "tap-vm1", segment(vm1MAC, qrAMAC, vm1, vm2, uint16(100+i), 5, true, false))
				l.see("cmp1", "qr-a", segment(vm1MAC, qrAMAC, vm1, vm2, uint16(100+i), 5, true, false))
			}
		}, addrs(vm1), addrs(vm2)},
		{"several-ways", region(), func(l *lab) { // the first packet takes the long way
			l.see("cmp1", "tap-vm1", ping(vm1MAC, qrAMAC, vm1, vm2, 0, false))
			l.see("cmp1", "tun0", vxlan(56, tun1, tunN, ping(vm1MAC, qrAMAC, vm1, vm2, 0, false)))
			l.see("net", "tun0", vxlan(56, tun1, tunN, ping(vm1MAC, qrAMAC, vm1, vm2, 0, false)))
			eastWest(l, 1)
			eastWest(l, 2)
		}, addrs(vm1), addrs(vm2)},
		{"flooded", region(), func(l *lab) { // the tunnel to the network node gets a copy of it
			l.see("cmp1", "tap-vm1", ping(vm1MAC, vm2MAC, vm1, vm2, 0, false))
			l.see("cmp1", "tun0", vxlan(56, tun1, tunN, ping(vm1MAC, vm2MAC, vm1, vm2, 0, false)))
			l.see("cmp1", "tun0", vxlan(56, tun1, tun2, ping(vm1MAC, vm2MAC, vm1, vm2, 0, false)))
			l.see("net", "tun0", vxlan(56, tun1, tunN, ping(vm1MAC, vm2MAC, vm1, vm2, 0, false)))
			l.see("cmp2", "tun0", vxlan(56, tun1, tun2, ping(vm1MAC, vm2MAC, vm1, vm2, 0, false)))
			l.see("cmp2", "tap-vm2", ping(vm1MAC, vm2MAC, vm1, vm2, 0, false))
		}, addrs(vm1), addrs(vm2)},
		{"dropped", region(), func(l *lab) { // in the namespace of the network node
			l.see("cmp1", "tap-vm1", ping(vm1MAC, qrAMAC, vm1, client, 0, false))
			l.see("cmp1", "qr-a", ping(vm1MAC, qrAMAC, vm1, client, 0, false))
			l.see("cmp1", "qr-a", ping(qrAMAC, sgMAC, vm1, client, 0, false))
			l.see("cmp1", "tun0", vxlan(56, tun1, tunN, ping(dvr1MAC, sgMAC, vm1, client, 0, false)))
			l.see("net", "tun0", vxlan(56, tun1, tunN, ping(dvr1MAC, sgMAC, vm1, client, 0, false)))
			l.see("net", "sg-a", ping(qrAMAC, sgMAC, vm1, client, 0, false))
		}, addrs(vm1), addrs(client)},
		{"nobody", region(), func(*lab) {}, addrs(vm1), addrs(vm2)},
		{"missing-router", legacyRegion(), missing(legacy, "net", "qr-a"), addrs(vm1), addrs(vm2)},
		{"missing-tunnel", region(), missing(eastWest, "cmp2", "tun0"), addrs(vm1), addrs(vm2)},
		{"missing-tap", region(), missing(eastWest, "cmp2", "tap-vm2"), addrs(vm1), addrs(vm2)},
		{"missing-node", legacyRegion(), func(l *lab) {
			legacy(l, 1)
			for i := range l.capture.Points {
				if p := &l.capture.Points[i]; p.Node == "net" {
					p.File, p.Missing = "", "its file was not to be had: the node does not run"
				}
			}
		}, addrs(vm1), addrs(vm2)},
		{"too-short", region(), func(l *lab) { // cut off between two frames: capture.json knows how many there were
			eastWest(l, 1)
			l.point("cmp2", "ext0").Frames = 3
		}, addrs(vm1), addrs(vm2)},
		{"truncated", region(), func(l *lab) {
			eastWest(l, 1)
			file := filepath.Join(l.capture.Dir, l.point("cmp1", "qr-b").File)
			info, err := os.Stat(file)
			if err != nil {
				l.t.Fatal(err)
			}
			if err := os.Truncate(file, info.Size()-10); err != nil {
				l.t.Fatal(err)
			}
		}, addrs(vm1), addrs(vm2)},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, test.points...)
			l.capture.Addresses = map[string]string{vm1: "vm1", vm2: "vm2", client: "client"}
			test.flow(l)
			golden(t, filepath.Join("paths", test.name+".txt"), []byte(l.path(test.from, test.to).String()))
		})
	}
}
