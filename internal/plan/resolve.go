package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/topologies"
)

// Inputs is all that a plan depends on.
type Inputs struct {
	Topology    *topologies.Topology
	Environment string // its name
	Home        string // the home's id: two homes on one host get interfaces of different names
	Image       string // the node image
	VMImage     string // the one that VMs start from
	Project     string // the user's project folder; "": none
	Host        Host
	Recorded    *Plan // what exists, or existed; nil for a new environment
}

// Host is what a plan asks of the machine.
type Host struct {
	Taken     []Taken
	KernelOVS bool // the kernel has or loads Open vSwitch's module
	KernelNFS bool // the kernel has or loads an NFS client
	KVM       bool // and it works
	NestedKVM bool // and its guests have it, too
	Engine    bool // a container engine answers
	// RemoteVMs is the machine whose libvirt makes the VMs; "": this one.
	RemoteVMs string
}

// Taken is a part of the address space that something on the host has: an interface, a route, a network of the engine.
type Taken struct {
	Prefix netip.Prefix
	By     string // the interface or the engine's network; what is the environment's own is known by it
}

// Where the parts of a subnet lie, as numbers of hosts.
const (
	gatewayHost = 1
	apiHost     = 5
)

// firstHost is where the addresses of a role begin. With room between them a node keeps its address when a count changes.
var firstHost = map[string]int{topologies.Control: 10, topologies.Network: 20, topologies.Compute: 31, topologies.Storage: 50}

// network is what is the same in every environment: a network's MTU, its interface in nodes, and who is on it. The
// tunnel carries frames of 1500 with their VXLAN around them.
type network struct {
	name     string
	nic      string
	mtu      int
	internal bool
	roles    []string
}

func networks() []network {
	control, compute, storage := topologies.Control, topologies.Compute, topologies.Storage
	return []network{
		{topologies.Management, "mgmt0", 1500, false, topologies.Roles()},
		{topologies.Tunnel, "tun0", 1600, true, []string{topologies.Network, compute}},
		{topologies.External, "ext0", 1500, false, []string{topologies.Network, compute}},
		{topologies.StorageNetwork, "sto0", 1500, false, []string{control, compute, storage}},
	}
}

// Resolve answers every question that a topology leaves open. What is recorded is kept wherever it still fits.
func Resolve(in Inputs) (*Plan, error) {
	t := in.Topology
	if err := topologies.CheckName(in.Environment); err != nil {
		return nil, err
	}
	release, err := topologies.LoadRelease(t.Release)
	if err != nil {
		return nil, err
	}
	if in.Recorded == nil {
		in.Recorded = &Plan{}
	}
	p := &Plan{
		Environment: in.Environment, Topology: t.File, Region: t.Region, Release: release, ReleaseName: release.Name,
		Routing: t.Routing, TenantNetwork: t.TenantNetwork, NFSClient: choice(in.Host.KernelNFS, "kernel", "fuse"),
		VirtType: choice(in.Host.KVM && in.Recorded.VirtType != "qemu", "kvm", "qemu"), Pillar: t.Pillar, SaltTree: t.Salt.Tree, SaltBase: t.Salt.Base, Project: in.Project,
	}
	for _, step := range []func(Inputs) error{p.chooseDatapath, p.chooseSubnets, p.placeNodes, p.chooseKernels} {
		if err := step(in); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func choice(yes bool, then, otherwise string) string {
	if yes {
		return then
	}
	return otherwise
}

// resource is a thing's name in the engine.
func (p *Plan) resource(thing string) string { return p.Environment + "-" + p.Region + "-" + thing }

// chooseDatapath is about the nodes that have this host's kernel; those that have their own bring what they need.
func (p *Plan) chooseDatapath(in Inputs) error {
	p.Datapath = in.Topology.Datapath
	kernel := in.Host.KernelOVS
	if in.onlyVMs() {
		kernel, p.NFSClient, p.VirtType = true, "kernel", choice(in.nested(), "kvm", "qemu")
	}
	switch {
	case p.Datapath == "system" && !kernel:
		return (&fault.Error{Code: fault.Missing, Path: "datapath", Message: "this host's kernel has no Open vSwitch module"}).
			WithRemedy("set datapath to auto or userspace, or make all nodes VMs")
	case p.Datapath != "auto":
	case in.Recorded.Datapath == "userspace" && !in.onlyVMs(), in.Recorded.Datapath == "system" && kernel:
		p.Datapath = in.Recorded.Datapath
	default:
		p.Datapath = choice(kernel, "system", "userspace")
	}
	return nil
}

// onlyVMs says whether no node has this host's kernel.
func (in Inputs) onlyVMs() bool {
	return !slices.Contains(in.Topology.Provisioners(), topologies.Docker)
}

// nested says whether instances in VMs can run on the processor itself.
func (in Inputs) nested() bool { return in.Host.KVM && in.Host.NestedKVM }

// chooseKernels says of each node what its kernel does: that of a VM is the image's, which has all that there is.
func (p *Plan) chooseKernels(in Inputs) error {
	for i := range p.Nodes {
		n := &p.Nodes[i]
		n.Datapath, n.NFSClient, n.VirtType = p.Datapath, p.NFSClient, p.VirtType
		if !n.VM() {
			continue
		}
		before := ""
		if old, ok := in.Recorded.Node(n.Name); ok && old.VM() {
			before = old.VirtType
		}
		n.Datapath = choice(in.Topology.Datapath == "userspace", "userspace", "system")
		n.NFSClient, n.VirtType = "kernel", choice(in.nested() && before != "qemu", "kvm", "qemu")
	}
	return nil
}

// networkProvisioner is who makes the networks. The bridges of the container engine are everybody's.
func (in Inputs) networkProvisioner() (string, error) {
	all := in.Topology.Provisioners()
	by := topologies.Docker
	if len(all) == 1 {
		by = all[0]
	}
	if by == topologies.VirtualBox {
		// With the engine's networks this host reaches the nodes. What there is stays as it is.
		by = choice(in.Host.Engine, topologies.Docker, by)
		if len(in.Recorded.Networks) > 0 && !slices.ContainsFunc(in.Recorded.Nodes, func(n Node) bool { return n.Provisioner != topologies.VirtualBox }) {
			by = in.Recorded.Networks[0].Provisioner
		}
		return by, nil
	}
	switch {
	case by == topologies.Docker && !in.Host.Engine && in.onlyVMs():
		return "", (&fault.Error{Code: fault.Missing, Path: "nodes", Message: "VMs of libvirt and of VirtualBox meet on networks that a container engine makes, and none answers"}).
			WithRemedy("start the container engine (toastdev doctor --fix), or make all nodes by one provisioner")
	case by == topologies.Docker && in.Host.RemoteVMs != "" && slices.Contains(all, topologies.Libvirt):
		return "", (&fault.Error{Code: fault.Unsupported, Path: "nodes", Expected: "all nodes by libvirt, or a libvirt on this machine",
			Message: fmt.Sprintf("libvirt makes its VMs on %s: they cannot be on networks of this machine", in.Host.RemoteVMs)}).
			WithRemedy("unset LIBVIRT_DEFAULT_URI, or make all nodes VMs: --set 'nodes.*.provisioner=libvirt'")
	}
	return by, nil
}

// chooseSubnets makes the networks: with the subnet given, else the one recorded, else one that nothing on the host has.
func (p *Plan) chooseSubnets(in Inputs) error {
	by, err := in.networkProvisioner()
	if err != nil {
		return err
	}
	taken := slices.DeleteFunc(slices.Clone(in.Host.Taken), func(t Taken) bool { return t.Prefix.Bits() == 0 || p.owns(t.By, in.Home) })
	subnets := map[string]netip.Prefix{}
	fits := func(subnet netip.Prefix) error {
		for name, other := range subnets {
			if other.Overlaps(subnet) {
				return fmt.Errorf("network %s has %s", name, other)
			}
		}
		for _, t := range taken {
			if t.Prefix.Overlaps(subnet) {
				return fmt.Errorf("%s on this host has %s", t.By, t.Prefix)
			}
		}
		return nil
	}
	for _, n := range networks() {
		if subnet := in.Topology.Networks[n.name].Subnet; subnet.IsValid() {
			if err := fits(subnet); err != nil {
				return (&fault.Error{Code: fault.Invalid, Path: "networks." + n.name + ".subnet", Message: fmt.Sprintf("%s is taken: %v", subnet, err)}).
					WithRemedy("give another subnet, or none and let toastdev choose")
			}
			subnets[n.name] = subnet
		}
	}
	var open []string
	for _, n := range networks() {
		if _, ok := subnets[n.name]; ok {
			continue
		}
		// A subnet of another size was given, and is given no more.
		if old, ok := in.Recorded.Network(n.name); ok && old.Subnet.Bits() == chosenBits && fits(old.Subnet) == nil {
			subnets[n.name] = old.Subnet
			continue
		}
		open = append(open, n.name)
	}
	if len(open) > 0 && !choose(in.Environment, open, subnets, func(p netip.Prefix) bool { return fits(p) == nil }) {
		return fault.New(fault.Missing, "no private subnets are free on this host").
			WithRemedy("give subnets of your own: networks.management.subnet, and so on")
	}
	for _, n := range networks() {
		subnet := subnets[n.name]
		resource := p.resource(n.name)
		network := Network{Name: n.name, Resource: resource, Bridge: bridge(in.Home, resource), Subnet: subnet, Gateway: host(subnet, gatewayHost),
			MTU: n.mtu, Internal: n.internal, Provisioner: by}
		if n.name == topologies.External {
			pool := in.Topology.Networks[n.name].Floating
			if pool == (topologies.Floating{}) {
				pool = topologies.DefaultFloating
			}
			network.Floating = &Range{First: host(subnet, pool.First), Last: host(subnet, pool.Last)}
		}
		p.Networks = append(p.Networks, network)
	}
	p.API = host(subnets[topologies.Management], apiHost)
	return nil
}

// owns says whether an interface or a network of the engine is the environment's own.
func (p *Plan) owns(by, home string) bool {
	return slices.ContainsFunc(networks(), func(n network) bool {
		resource := p.resource(n.name)
		return by == resource || by == bridge(home, resource)
	})
}

// bridge is the name of a network's interface on the host: 15 characters, the most that Linux takes.
func bridge(home, resource string) string {
	sum := sha256.Sum256([]byte(home + "/" + resource))
	return "td-" + hex.EncodeToString(sum[:6])
}

// chosenBits is how large a subnet is that is chosen.
const chosenBits = 24

// pools is where subnets are chosen, four /24 side by side: first the part of 172.16.0.0/12 that no engine gives its own
// networks, then a part of 10.0.0.0/8 that few companies reach.
func pools() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("172.16.0.0/16"), netip.MustParsePrefix("10.208.0.0/12")}
}

// choose fills subnets for the networks that are open. The environment's name says where the search begins, so that an
// environment that is made anew has its old addresses.
func choose(environment string, open []string, subnets map[string]netip.Prefix, free func(netip.Prefix) bool) bool {
	sum := sha256.Sum256([]byte(environment))
	seed := binary.BigEndian.Uint32(sum[:])
	const blockBits = chosenBits - 2
	for _, pool := range pools() {
		blocks := uint32(1) << (blockBits - pool.Bits())
		for i := range blocks {
			block := (seed + i) % blocks
			first := add(pool.Addr(), int(block)<<(32-blockBits))
			chosen := map[string]netip.Prefix{}
			for j, n := range networks() {
				subnet := netip.PrefixFrom(add(first, j<<(32-chosenBits)), chosenBits)
				if slices.Contains(open, n.name) && free(subnet) {
					chosen[n.name] = subnet
				}
			}
			if len(chosen) == len(open) {
				for name, subnet := range chosen {
					subnets[name] = subnet
				}
				return true
			}
		}
	}
	return false
}

// add is an IPv4 address some addresses further on.
func add(a netip.Addr, n int) netip.Addr {
	raw := a.As4()
	binary.BigEndian.PutUint32(raw[:], binary.BigEndian.Uint32(raw[:])+uint32(n))
	return netip.AddrFrom4(raw)
}

// host is the address of a subnet with that number.
func host(subnet netip.Prefix, number int) netip.Addr { return add(subnet.Addr(), number) }

// hostOf is the number of an address in its subnet.
func hostOf(subnet netip.Prefix, a netip.Addr) int {
	base, raw := subnet.Addr().As4(), a.As4()
	return int(binary.BigEndian.Uint32(raw[:]) - binary.BigEndian.Uint32(base[:]))
}

// size is how many addresses a subnet has.
func size(subnet netip.Prefix) int { return 1 << (32 - subnet.Bits()) }

// controlWeight lets a control node go before the others while all start at once: they wait for it in the end.
const controlWeight = 4096

// What a VM has when its group does not say: memory for a system of its own and for what runs on it (docs/measurements.md),
// an instance or two on a compute, and a NAS's volume. Disks take no room before something is written to them.
const (
	vmCPUs   = 2
	vmSystem = 512 << 20
	vmVolume = 20 << 30
)

// vmMemory is in bytes.
func vmMemory(roles []string) int64 {
	memory := int64(vmSystem)
	for _, role := range roles {
		switch role {
		case topologies.Control:
			memory += 3584 << 20
		case topologies.Network:
			memory += 1536 << 20
		case topologies.Compute:
			memory += 2560 << 20
		case topologies.Storage:
			memory += 1024 << 20
		}
	}
	return memory
}

// placeNodes makes the nodes and their NICs. A node has the same host number on all its networks.
func (p *Plan) placeNodes(in Inputs) error {
	t := in.Topology
	for _, key := range t.Keys() {
		group := t.Nodes[key]
		for _, name := range group.Names(key) {
			n := Node{Name: name, Group: key, Resource: p.resource(name), Provisioner: group.MadeBy(), Image: in.Image,
				CPUs: group.CPUs, Memory: int64(group.Memory)}
			for _, role := range topologies.Roles() {
				if group.Has(role) {
					n.Roles = append(n.Roles, role)
				}
			}
			if n.Has(topologies.Control) {
				n.Weight = controlWeight
			} else {
				n.Wave = 1
			}
			if n.Has(topologies.Storage) {
				volume := Volume{Name: "nas", Resource: p.resource("nas"), Provisioner: n.Provisioner}
				if n.VM() {
					volume.Size = cmp.Or(int64(group.Disk), vmVolume)
				}
				p.Volumes = append(p.Volumes, volume)
				n.Mounts = append(n.Mounts, Mount{Volume: volume.Name, Path: "/srv/nas"})
			}
			if n.VM() {
				n.Image, n.CPUs, n.Memory = in.VMImage, cmp.Or(n.CPUs, vmCPUs), cmp.Or(n.Memory, vmMemory(n.Roles))
				if !n.Has(topologies.Storage) {
					n.Disk = int64(group.Disk)
				}
			}
			p.Nodes = append(p.Nodes, n)
		}
	}
	numbers := newNumbers(p, in.Recorded)
	for i := range p.Nodes {
		n := &p.Nodes[i]
		number, ok := numbers[n.Name]
		if !ok {
			return (&fault.Error{Code: fault.Invalid, Path: "nodes." + n.Group, Message: fmt.Sprintf("no address is left for node %s", n.Name)}).
				WithRemedy("ask for fewer nodes, for larger subnets or for a smaller networks.external.floating")
		}
		for _, spec := range networks() {
			if !on(n, spec) {
				continue
			}
			network, _ := p.Network(spec.name)
			own := netip.PrefixFrom(host(network.Subnet, number), network.Subnet.Bits())
			nic := NIC{Name: spec.nic, Network: spec.name, MAC: mac(own.Addr()), MTU: spec.mtu, Addresses: []netip.Prefix{own}}
			if spec.name == topologies.Management && n.Has(topologies.Control) {
				nic.Addresses = append(nic.Addresses, netip.PrefixFrom(p.API, network.Subnet.Bits()))
			}
			n.NICs = append(n.NICs, nic)
		}
	}
	return nil
}

// on says whether a node is on a network.
func on(n *Node, spec network) bool { return slices.ContainsFunc(spec.roles, n.Has) }

// mac is the hardware address that any engine gives or accepts for an IPv4 address.
func mac(a netip.Addr) string {
	raw := a.As4()
	return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", raw[0], raw[1], raw[2], raw[3])
}

// newNumbers gives each node its host number. Nodes that are recorded keep theirs; the numbers of nodes that are gone
// are given away last. A node that is missing in the answer found no place.
func newNumbers(p, recorded *Plan) map[string]int {
	numbers := map[string]int{}
	used := map[int]bool{gatewayHost: true, apiHost: true}
	gone := map[int]bool{}
	fits := func(n *Node, number int) bool {
		for _, spec := range networks() {
			network, _ := p.Network(spec.name)
			if !on(n, spec) {
				continue
			}
			a := host(network.Subnet, number)
			if number > size(network.Subnet)-2 || network.Floating != nil && a.Compare(network.Floating.First) >= 0 && a.Compare(network.Floating.Last) <= 0 {
				return false
			}
		}
		return number > 1 && !used[number]
	}
	for _, old := range recorded.Nodes {
		management, ok := recorded.Network(topologies.Management)
		if !ok || len(old.NICs) == 0 {
			continue
		}
		number := hostOf(management.Subnet, old.Address(topologies.Management))
		if n, ok := p.Node(old.Name); !ok {
			gone[number] = true
		} else if fits(n, number) {
			numbers[n.Name], used[number] = number, true
		}
	}
	management, _ := p.Network(topologies.Management)
	last := size(management.Subnet) - 2
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if _, ok := numbers[n.Name]; ok {
			continue
		}
		first := firstHost[n.Roles[0]]
		find := func(free func(int) bool) bool {
			for i := range last {
				number := (first-1+i)%last + 1 // from first to last, then from 1
				if fits(n, number) && free(number) {
					numbers[n.Name], used[number] = number, true
					return true
				}
			}
			return false
		}
		if !find(func(number int) bool { return !gone[number] }) {
			find(func(int) bool { return true })
		}
	}
	return numbers
}
