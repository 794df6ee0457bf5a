package plan

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/topologies"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
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

// inputs is a topology on a host like the reference machine, which has neither module nor KVM.
func inputs(t *testing.T, ref string, sets ...string) Inputs {
	t.Helper()
	topology, err := topologies.Load(topologies.Source{Ref: ref, Sets: sets})
	if err != nil {
		t.Fatal(err)
	}
	topology.File = filepath.Base(topology.File) // the same wherever the checkout is
	return Inputs{Topology: topology, Environment: topology.Name, Home: "0badcafe", Image: "toastdev/node-zed:0123456789ab", VMImage: "vm-zed-ba9876543210",
		Host: Host{Taken: []Taken{{netip.MustParsePrefix("0.0.0.0/0"), "eth0"}, {netip.MustParsePrefix("172.17.0.0/16"), "docker0"}}}}
}

func resolve(t *testing.T, in Inputs) *Plan {
	t.Helper()
	p, err := Resolve(in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func shown(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}

// recorded is a plan as it is after its way through the record.
func recorded(t *testing.T, p *Plan) *Plan {
	t.Helper()
	var back Plan
	if err := json.Unmarshal([]byte(shown(t, p)), &back); err != nil {
		t.Fatal(err)
	}
	return &back
}

func TestPlans(t *testing.T) {
	for _, c := range []struct {
		name string
		ref  string
		sets []string
	}{
		{"mini", "mini", nil},
		{"legacy", "legacy", nil},
		{"one-node", "testdata/one-node.yaml", nil},
		{"given-subnets", "testdata/given-subnets.yaml", nil},
		{"mixed", "mixed", nil},
		{"vms", "vms", []string{"nodes.ctl.disk=30GiB", "nodes.cmp.disk=40GiB", "nodes.cmp.memory=4GiB", "nodes.cmp.cpus=1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := resolve(t, inputs(t, c.ref, c.sets...))
			var identities strings.Builder
			for _, n := range p.Nodes {
				fmt.Fprintf(&identities, "\n# %s: /etc/toastdev/identity\n%s", n.Name, p.Identity(n.Name))
			}
			golden(t, c.name, shown(t, p)+identities.String())
		})
	}
}

func TestTheSameInputsGiveTheSamePlan(t *testing.T) {
	in := inputs(t, "mini")
	first := shown(t, resolve(t, in))
	for range 20 {
		if again := shown(t, resolve(t, in)); again != first {
			t.Fatalf("got\n%s\nthen\n%s", first, again)
		}
	}
	in.Recorded = recorded(t, resolve(t, in))
	if again := shown(t, resolve(t, in)); again != first {
		t.Errorf("recorded, it differs:\n%s", again)
	}
	if change, differs := SaltChange(in.Recorded, resolve(t, in)); differs {
		t.Errorf("change %+v", change)
	}
}

func TestSubnetsFollowFromTheName(t *testing.T) {
	in := inputs(t, "mini")
	mini := resolve(t, in)
	in.Environment = "another"
	another := resolve(t, in)
	if mini.Networks[0].Subnet == another.Networks[0].Subnet || mini.Networks[0].Bridge == another.Networks[0].Bridge {
		t.Errorf("mini has %+v, another %+v", mini.Networks[0], another.Networks[0])
	}
	in.Home = "1badcafe"
	if elsewhere := resolve(t, in); elsewhere.Networks[0].Bridge == another.Networks[0].Bridge || len(elsewhere.Networks[0].Bridge) > 15 {
		t.Errorf("bridge %s in both homes", elsewhere.Networks[0].Bridge)
	}
}

func TestSubnetsThatTheHostHasAreLeftAlone(t *testing.T) {
	in := inputs(t, "mini")
	first := resolve(t, in)
	// Its own are no obstacle, whatever it is told of them.
	for _, n := range first.Networks {
		in.Host.Taken = append(in.Host.Taken, Taken{n.Subnet, n.Bridge}, Taken{n.Subnet, n.Resource})
	}
	in.Recorded = first
	if again := resolve(t, in); !reflect.DeepEqual(again.Networks, first.Networks) {
		t.Errorf("got %+v, want %+v", again.Networks, first.Networks)
	}
	// Another's are, recorded or not.
	in.Host.Taken = append(in.Host.Taken, Taken{first.Networks[1].Subnet, "tun7"})
	moved := resolve(t, in)
	if moved.Networks[1].Subnet.Overlaps(first.Networks[1].Subnet) || moved.Networks[0].Subnet != first.Networks[0].Subnet {
		t.Errorf("got %+v", moved.Networks)
	}
	// With the first pool gone there is a second.
	in.Recorded, in.Host.Taken = nil, []Taken{{netip.MustParsePrefix("172.16.0.0/12"), "tun7"}}
	if far := resolve(t, in); !netip.MustParsePrefix("10.208.0.0/12").Overlaps(far.Networks[0].Subnet) {
		t.Errorf("got %+v", far.Networks)
	}
	in.Host.Taken = append(in.Host.Taken, Taken{netip.MustParsePrefix("10.0.0.0/8"), "tun8"})
	if _, err := Resolve(in); fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), "no private subnets") {
		t.Errorf("got %v", err)
	}
}

func TestAGivenSubnetThatTheHostHasIsRefused(t *testing.T) {
	in := inputs(t, "mini", "networks.external.subnet=172.17.4.0/24")
	if _, err := Resolve(in); fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), "docker0 on this host has 172.17.0.0/16") {
		t.Errorf("got %v", err)
	}
}

func TestNodesKeepTheirAddresses(t *testing.T) {
	step := func(p *Plan, sets ...string) *Plan {
		in := inputs(t, "mini", sets...)
		if p != nil {
			in.Recorded = recorded(t, p)
		}
		return resolve(t, in)
	}
	two := step(nil)
	three := step(two, "nodes.cmp.count=3")
	back := step(three)
	golden(t, "count-3", shown(t, three))
	if shown(t, back) != shown(t, two) {
		t.Errorf("got\n%s\nwant\n%s", shown(t, back), shown(t, two))
	}
	for _, n := range two.Nodes {
		if now, _ := three.Node(n.Name); !reflect.DeepEqual(*now, n) {
			t.Errorf("%s was %+v, is %+v", n.Name, n, *now)
		}
	}
	// A new compute does not take the address of one that goes in the same step, though its place is before it.
	other := step(three, "nodes.cmp.count=2", "nodes.big.roles=[compute]")
	old, _ := three.Node("cmp3")
	for _, n := range other.Nodes {
		if n.Address("management") == old.Address("management") {
			t.Errorf("%s has the address of cmp3", n.Name)
		}
		if was, ok := three.Node(n.Name); ok && was.Address("management") != n.Address("management") {
			t.Errorf("%s moved to %s", n.Name, n.Address("management"))
		}
	}
}

func TestNoAddressOfANodeIsInTheFloatingPool(t *testing.T) {
	p := resolve(t, inputs(t, "mini", "nodes.cmp.count=50", "networks.external.floating=25-60"))
	seen := map[netip.Addr]string{p.API: "api"}
	pool := p.Networks[2].Floating
	for _, n := range p.Nodes {
		for _, nic := range n.NICs {
			a := nic.Addresses[0].Addr()
			if seen[a] != "" {
				t.Errorf("%s has the address of %s", n.Name, seen[a])
			}
			seen[a] = n.Name
			if nic.Network == "external" && a.Compare(pool.First) >= 0 && a.Compare(pool.Last) <= 0 {
				t.Errorf("%s has %s", n.Name, a)
			}
		}
	}
	in := inputs(t, "mini", "nodes.cmp.count=50", "networks.external={subnet: 10.1.0.0/26, floating: 10-61}")
	if _, err := Resolve(in); fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), "no address is left for node") {
		t.Errorf("got %v", err)
	}
}

func TestTheHostDecidesWhatIsLeftOpen(t *testing.T) {
	in := inputs(t, "mini")
	in.Host.KernelOVS, in.Host.KernelNFS, in.Host.KVM = true, true, true
	p := resolve(t, in)
	if p.Datapath != "system" || p.NFSClient != "kernel" || p.VirtType != "kvm" {
		t.Errorf("got %s, %s, %s", p.Datapath, p.NFSClient, p.VirtType)
	}
	// What an environment began with it keeps; but what the host has lost is lost.
	in.Recorded = &Plan{Datapath: "userspace", VirtType: "qemu"}
	if p := resolve(t, in); p.Datapath != "userspace" || p.VirtType != "qemu" {
		t.Errorf("got %s, %s", p.Datapath, p.VirtType)
	}
	in.Recorded, in.Host.KernelOVS = &Plan{Datapath: "system"}, false
	if p := resolve(t, in); p.Datapath != "userspace" {
		t.Errorf("datapath %s", p.Datapath)
	}
	in.Topology.Datapath = "system"
	if _, err := Resolve(in); fault.CodeOf(err) != fault.Missing {
		t.Errorf("got %v", err)
	}
}

func TestAVMHasWhatItsOwnKernelDoes(t *testing.T) {
	of := func(in Inputs, name string) string {
		n, _ := resolve(t, in).Node(name)
		return n.Datapath + " " + n.NFSClient + " " + n.VirtType
	}
	in := inputs(t, "mixed")
	if got := of(in, "cmp2") + ", " + of(in, "cmp1"); got != "userspace fuse qemu, system kernel qemu" {
		t.Errorf("got %s", got)
	}
	in.Host.KernelOVS, in.Host.KernelNFS, in.Host.KVM = true, true, true
	if got := of(in, "cmp2") + ", " + of(in, "cmp1"); got != "system kernel kvm, system kernel qemu" {
		t.Errorf("got %s", got)
	}
	in.Host.NestedKVM = true
	if got := of(in, "cmp1"); got != "system kernel kvm" {
		t.Errorf("got %s", got)
	}
	// What instances began with stays: on another processor they would not start.
	in.Host.NestedKVM = false
	in.Recorded = recorded(t, resolve(t, in))
	in.Host.NestedKVM = true
	if got := of(in, "cmp1"); got != "system kernel qemu" {
		t.Errorf("got %s", got)
	}
	in.Topology.Datapath = "userspace"
	if got := of(in, "cmp1"); got != "userspace kernel qemu" {
		t.Errorf("got %s", got)
	}
	// Where all have a kernel of their own, nothing is asked of the host's.
	all := inputs(t, "vms", "datapath=system")
	if p := resolve(t, all); p.Datapath != "system" || p.NFSClient != "kernel" || p.VirtType != "qemu" {
		t.Errorf("got %s, %s, %s", p.Datapath, p.NFSClient, p.VirtType)
	}
}

func TestWhoMakesTheNetworksFollowsFromTheNodes(t *testing.T) {
	for _, c := range []struct {
		ref    string
		sets   []string
		engine bool
		want   string
	}{
		{"mini", nil, true, "docker"},
		{"mixed", nil, true, "docker"},
		{"vms", nil, true, "libvirt"},
		{"vagrant-style", nil, true, "docker"},
		{"vagrant-style", nil, false, "virtualbox"},
		{"vms", []string{"nodes.cmp.provisioner=virtualbox"}, true, "docker"},
	} {
		in := inputs(t, c.ref, c.sets...)
		in.Host.Engine = c.engine
		p := resolve(t, in)
		for _, n := range p.Networks {
			if n.Provisioner != c.want {
				t.Errorf("%s %v: %s is made by %s, not %s", c.ref, c.sets, n.Name, n.Provisioner, c.want)
			}
		}
		// An engine that comes or goes moves nothing.
		in.Recorded, in.Host.Engine = recorded(t, p), !c.engine
		if again, err := Resolve(in); err == nil && again.Networks[0].Provisioner != c.want {
			t.Errorf("%s %v: moved to %s", c.ref, c.sets, again.Networks[0].Provisioner)
		}
	}
}

func TestNodesThatCannotMeetAreRefused(t *testing.T) {
	in := inputs(t, "vms", "nodes.cmp.provisioner=virtualbox")
	if _, err := Resolve(in); fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), "none answers") {
		t.Errorf("got %v", err)
	}
	in = inputs(t, "mixed")
	in.Host.RemoteVMs = "faraway"
	if _, err := Resolve(in); fault.CodeOf(err) != fault.Unsupported || !strings.Contains(err.Error(), "faraway") {
		t.Errorf("got %v", err)
	}
}

func TestTheRecordOfAnOlderToastdevIsCompleted(t *testing.T) {
	p := resolve(t, inputs(t, "mini"))
	want := shown(t, p)
	old := recorded(t, p)
	for i := range old.Nodes {
		n := &old.Nodes[i]
		n.Datapath, n.NFSClient, n.VirtType = "", "", ""
	}
	old.Complete()
	if got := shown(t, old); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSaltChange(t *testing.T) {
	old := resolve(t, inputs(t, "mini"))
	with := func(sets ...string) *Plan {
		in := inputs(t, "mini", sets...)
		in.Recorded = recorded(t, old)
		return resolve(t, in)
	}
	if change, differs := SaltChange(old, with("nodes.nas.memory=1GiB")); differs {
		t.Errorf("a node's memory is not Salt's: %v", change)
	}
	change, differs := SaltChange(old, with("routing=legacy", "pillar.nova.cpu_allocation_ratio=8", "networks.external.floating=120-140"))
	if !differs {
		t.Fatal("nothing differs")
	}
	golden(t, "diff-salt", shown(t, change))
}
