package libvirt

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/provisioners"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; go test -update writes it anew. Got:\n%s", file, got)
	}
}

func compute() provisioners.Node {
	return provisioners.Node{
		Owner: provisioners.Owner{Environment: "mixed", Home: "0123abcd"}, Name: "mixed-kr1-cmp2", Hostname: "cmp2", Image: "vm-zed-0123456789ab",
		Identity: "hostname cmp2\nrole compute\nnic mgmt0 02:42:0a:d5:00:0a mtu 1500 10.213.0.10/24\nhost 10.213.0.9 ctl\n",
		CPUs:     1.5, Memory: 3 << 30, Disk: 30 << 30,
		NICs: []provisioners.NIC{
			{Network: "mixed-kr1-management", Bridge: "td-aaaaaaaaaa", MTU: 1500, Address: netip.MustParseAddr("10.213.0.10"), MAC: "02:42:0a:d5:00:0a"},
			{Network: "mixed-kr1-tunnel", Address: netip.MustParseAddr("10.213.1.10"), MAC: "02:42:0a:d5:01:0a"},
		},
		Mounts: []provisioners.Mount{{Volume: "mixed-kr1-nas", Path: "/srv/nas"}},
	}
}

func TestANodeIsThisDomain(t *testing.T) {
	for name, kvm := range map[string]bool{"domain-kvm.xml": true, "domain-emulated.xml": false} {
		d, err := domainXML(compute(), "/var/lib/libvirt/images/toastdev-0123abcd", kvm)
		if err != nil {
			t.Fatal(err)
		}
		text, err := d.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, text+"\n")
	}
}

func TestANodeThatAsksForNothingHasWhatANodeNeeds(t *testing.T) {
	d, err := domainXML(provisioners.Node{Name: "n"}, "/pool", false)
	if err != nil {
		t.Fatal(err)
	}
	if d.VCPU.Value != defaultCPUs || d.Memory.Value != defaultMemory>>10 {
		t.Errorf("%d processors, %d KiB", d.VCPU.Value, d.Memory.Value)
	}
}

func TestANetworkIsThisDefinition(t *testing.T) {
	n := provisioners.Network{
		Owner: provisioners.Owner{Environment: "vms", Home: "0123abcd"}, Name: "vms-kr1-management", Bridge: "td-aaaaaaaaaa",
		Subnet: netip.MustParsePrefix("10.213.0.0/24"), Gateway: netip.MustParseAddr("10.213.0.1"), MTU: 1500,
	}
	for _, name := range []string{"network.xml", "network-internal.xml"} {
		text, err := networkXML(n).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, text+"\n")
		n.Internal, n.MTU = true, 0
	}
}

func TestANetworkIsTheSameWithWhatLibvirtAddsAndNotWithAnotherMTU(t *testing.T) {
	n := provisioners.Network{Name: "n", Bridge: "td-a", Subnet: netip.MustParsePrefix("10.213.0.0/24"), Gateway: netip.MustParseAddr("10.213.0.1"), MTU: 1500}
	has := networkXML(n)
	has.MAC, has.IPs[0].Family = nil, ""
	if !sameNetwork(has, networkXML(n)) {
		t.Error("it is another")
	}
	n.MTU = 9000
	if sameNetwork(has, networkXML(n)) {
		t.Error("it is the same")
	}
}

func TestOnlyWhatCannotChangeInPlaceIsInTheDigest(t *testing.T) {
	n := compute()
	before := fixed(n)
	n.CPUs, n.Memory = 4, 1<<30
	n.Identity = strings.ReplaceAll(strings.ReplaceAll(n.Identity, "compute", "storage"), "10.213.0.9 ctl", "10.213.0.8 ctl")
	if fixed(n) != before {
		t.Error("size, roles and hosts change the digest")
	}
	n.Disk++
	if fixed(n) == before {
		t.Error("another disk does not change the digest")
	}
}

func TestAPoolsFilesSayWhatTheyBelongTo(t *testing.T) {
	for file, want := range map[string]part{
		"mini.mini-kr1-nas.volume":    {"mini", "mini-kr1-nas", extraVolume},
		"mini.mini-kr1-ctl.console.1": {"mini", "mini-kr1-ctl", "console.1"},
		"mini.a.b.disk":               {"mini", "a.b", systemDisk},
		"vm-zed-0123456789ab.base":    {},
		"somebody.qcow2":              {},
	} {
		got, ok := parsePart(file)
		if got != want || ok != (want != part{}) {
			t.Errorf("%s: %+v", file, got)
		}
		if ok && got.String() != file {
			t.Errorf("%s is written %s", file, got)
		}
	}
}
