package virtualbox

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, commands [][]string) {
	t.Helper()
	var b strings.Builder
	for _, args := range commands {
		for i, arg := range args {
			switch {
			case i == 0:
			case strings.HasPrefix(arg, "--"):
				b.WriteString("\n    ")
			default:
				b.WriteString(" ")
			}
			b.WriteString(arg)
		}
		b.WriteString("\n")
	}
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, b.String(), want)
	}
}

func commands(d design) [][]string {
	list := append(d.machine(), d.link()...)
	list = append(list, d.writeSeed(1<<20))
	return append(list, d.rest()...)
}

func theDesign(n provisioners.Node, adapters []adapter) design {
	return design{
		node: n, adapters: adapters, id: machineID(n.Owner, n.Name), parent: "/home/user/.toastdev/virtualbox/nodes",
		folder: "/home/user/.toastdev/virtualbox/nodes/" + n.Name, base: "/home/user/.toastdev/images/vm-test/disk.vdi",
	}
}

func TestTheCommandsThatMakeANodeAreAsWritten(t *testing.T) {
	n := theNode(1)
	golden(t, "own-networks", commands(theDesign(n, []adapter{
		{as: natnet, network: "mini-kr1-management", mac: n.NICs[0].MAC}, {as: intnet, network: "mini-kr1-tunnel", mac: n.NICs[1].MAC},
	})))
	n.CPUs, n.Memory, n.Disk = 1.5, 0, 0
	d := theDesign(n, []adapter{{as: bridged, network: "td-0123456789ab", mac: n.NICs[0].MAC}, {as: bridged, network: "td-ba9876543210", mac: n.NICs[1].MAC}})
	d.nested, d.volumes = true, []volume{{name: "mini-kr1-nas", file: "/home/user/.toastdev/virtualbox/volumes/mini-kr1-nas.vdi"}}
	golden(t, "bridges", commands(d))
	golden(t, "networks", [][]string{
		natNetworkArgs(network("management", false)),
		forwardArgs("mini-kr1-management", forward{name: publicRule(network("management", false).Public[0]), host: network("management", false).Public[0], to: network("management", false).Public[0]}),
		volumeArgs("/v.vdi", 1<<30), resizeArgs("/v.vdi", 2<<30), attachArgs("ID", 3, "none"),
	})
}

func TestOnlyWhatCannotChangeInPlaceIsInTheDigest(t *testing.T) {
	n := theNode(1)
	adapters := []adapter{{as: natnet, network: "a", mac: n.NICs[0].MAC}}
	before := fixed(n, adapters)
	n.CPUs, n.Memory, n.Identity = 4, 4<<30, n.Identity+"role storage\nhost 1 n\n"
	if fixed(n, adapters) != before {
		t.Error("limits, roles and hosts change the digest")
	}
	if fixed(n, []adapter{{as: bridged, network: "a", mac: n.NICs[0].MAC}}) == before {
		t.Error("other networks do not change the digest")
	}
	n.Disk++
	if fixed(n, adapters) == before {
		t.Error("another disk does not change the digest")
	}
}

func TestAMachineIsKnownByItsUUID(t *testing.T) {
	id := machineID(owner, "mini-kr1-cmp1")
	if id != "82f338ed-6134-54c3-be7e-155b86752bea" {
		t.Errorf("it is %s: machines of before are not found", id)
	}
	for _, other := range []string{
		machineID(owner, "mini-kr1-cmp2"), machineID(provisioners.Owner{Environment: "mini", Home: "other"}, "mini-kr1-cmp1"),
		machineID(provisioners.Owner{Environment: "other", Home: owner.Home}, "mini-kr1-cmp1"),
	} {
		if other == id {
			t.Error("it is another's, too")
		}
	}
}

func TestAMixIsRefusedOnlyWhereThereAreNoBridges(t *testing.T) {
	for _, test := range []struct {
		bridges bool
		others  []string
		refused bool
	}{
		{true, []string{"docker", "libvirt"}, false},
		{false, nil, false},
		{false, []string{"virtualbox", "virtualbox"}, false},
		{false, []string{"docker", "virtualbox", "docker"}, true},
	} {
		err := Mix(test.bridges, test.others...)
		if (err != nil) != test.refused {
			t.Errorf("bridges %v, others %v: %v", test.bridges, test.others, err)
		}
		if test.refused && (fault.CodeOf(err) != fault.Unsupported || !strings.Contains(err.Error(), "of docker cannot") || !strings.Contains(err.Error(), "no Linux bridges")) {
			t.Errorf("the reason: %v", err)
		}
	}
}
