// Package plan is a topology with every question answered: names, addresses, MACs, images, order. It is pure: the same
// topology, host facts and record always give the same plan, byte for byte.
package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/toast-cloud/toastdev/topologies"
)

// Plan is what an environment is to be. Slices are in the order in which things are made.
type Plan struct {
	Environment   string             `json:"environment"`
	Topology      string             `json:"topology"` // a built-in's name or a file's path
	Region        string             `json:"region"`
	Release       topologies.Release `json:"-"`
	ReleaseName   string             `json:"release"`
	Routing       string             `json:"routing"`        // dvr, legacy
	TenantNetwork string             `json:"tenant_network"` // vxlan, vlan
	Datapath      string             `json:"datapath"`       // system, userspace: resolved, never auto. Of the containers; where there are none, of the VMs
	NFSClient     string             `json:"nfs_client"`     // kernel, fuse; of the same
	VirtType      string             `json:"virt_type"`      // kvm, qemu; of the same
	API           netip.Addr         `json:"api"`            // the region's VIP, on the management network
	Networks      []Network          `json:"networks"`
	Volumes       []Volume           `json:"volumes"`
	Nodes         []Node             `json:"nodes"`
	Pillar        map[string]any     `json:"pillar,omitempty"` // the topology's own overrides
	SaltTree      string             `json:"salt_tree,omitempty"`
	SaltBase      string             `json:"salt_base,omitempty"` // none: the tree replaces ours
	Project       string             `json:"project,omitempty"`   // the user's project folder, where patches and packages may come from
}

// Network is one of the region's networks.
type Network struct {
	Name        string       `json:"name"`     // management, tunnel, external, storage
	Resource    string       `json:"resource"` // its name in the engine: mini-kr1-management
	Bridge      string       `json:"bridge"`   // its interface on the host: td-<hash>, at most 15 characters
	Subnet      netip.Prefix `json:"subnet"`
	Gateway     netip.Addr   `json:"gateway"` // the host's address on it
	MTU         int          `json:"mtu"`
	Internal    bool         `json:"internal"`           // no way out to the world
	Floating    *Range       `json:"floating,omitempty"` // external alone: the pool of floating addresses
	Provisioner string       `json:"provisioner"`
}

// Range is addresses from First to Last, both included.
type Range struct {
	First netip.Addr `json:"first"`
	Last  netip.Addr `json:"last"`
}

// Volume is storage that outlives its node's container: the NAS's export.
type Volume struct {
	Name        string `json:"name"`     // nas
	Resource    string `json:"resource"` // mini-kr1-nas
	Size        int64  `json:"size"`     // bytes; what a provisioner cannot enforce it leaves
	Provisioner string `json:"provisioner"`
}

// Node is one machine.
type Node struct {
	Name        string   `json:"name"`     // its host name: cmp1
	Group       string   `json:"group"`    // its key in the topology: cmp
	Resource    string   `json:"resource"` // mini-kr1-cmp1
	Roles       []string `json:"roles"`
	Provisioner string   `json:"provisioner"`
	Image       string   `json:"image"`            // toastdev/node-zed:<hash>; of a VM vm-zed-<hash>
	Datapath    string   `json:"datapath"`         // system, userspace: Open vSwitch's
	NFSClient   string   `json:"nfs_client"`       // kernel, fuse
	VirtType    string   `json:"virt_type"`        // kvm, qemu: of instances
	CPUs        float64  `json:"cpus,omitempty"`   // 0: no limit
	Memory      int64    `json:"memory,omitempty"` // bytes; 0: no limit
	Disk        int64    `json:"disk,omitempty"`   // bytes of a VM's system disk; 0: as large as its image
	Weight      int      `json:"weight,omitempty"` // its share of CPUs that are scarce; 0: as anyone
	NICs        []NIC    `json:"nics"`
	Mounts      []Mount  `json:"mounts,omitempty"`
	Wave        int      `json:"wave"` // Salt's order: 0 first
}

// NIC is an interface of a node. Addresses[0] is its own; others are VIPs that it carries.
type NIC struct {
	Name      string         `json:"name"`    // in the node: mgmt0, tun0, ext0, sto0
	Network   string         `json:"network"` // the network's Name
	MAC       string         `json:"mac"`
	MTU       int            `json:"mtu"`
	Addresses []netip.Prefix `json:"addresses"`
}

// Mount is a volume in a node.
type Mount struct {
	Volume string `json:"volume"` // the volume's Name
	Path   string `json:"path"`
}

// Node is the node of that name.
func (p *Plan) Node(name string) (*Node, bool) {
	for i := range p.Nodes {
		if p.Nodes[i].Name == name {
			return &p.Nodes[i], true
		}
	}
	return nil, false
}

// fencePort is IPMI's with a 0 behind it.
const fencePort = 6230

// Fence is where what powers the environment's nodes off answers them: the host, on their management network alone.
func (p *Plan) Fence() netip.AddrPort {
	management, _ := p.Network(topologies.Management)
	if management == nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(management.Gateway, fencePort)
}

// Public is the region's APIs: where the catalog's public endpoints are (salt/states/openstack).
func (p *Plan) Public() []netip.AddrPort {
	var public []netip.AddrPort
	for _, port := range []uint16{5000, 8774, 8776, 8778, 9292, 9696} {
		public = append(public, netip.AddrPortFrom(p.API, port))
	}
	return public
}

// Apart says whether this machine is not on the nodes' networks.
func (p *Plan) Apart() bool {
	return slices.ContainsFunc(p.Networks, func(n Network) bool { return n.Provisioner == topologies.VirtualBox })
}

// Network is the network of that name.
func (p *Plan) Network(name string) (*Network, bool) {
	for i := range p.Networks {
		if p.Networks[i].Name == name {
			return &p.Networks[i], true
		}
	}
	return nil, false
}

// WithRole is the nodes that have a role, in order.
func (p *Plan) WithRole(role string) []Node {
	var nodes []Node
	for _, n := range p.Nodes {
		if n.Has(role) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// VM says whether the node is a virtual machine, with a kernel of its own.
func (n *Node) VM() bool { return cmp.Or(n.Provisioner, topologies.Docker) != topologies.Docker }

// VMs is the nodes that are virtual machines, in order.
func (p *Plan) VMs() []Node {
	var nodes []Node
	for _, n := range p.Nodes {
		if n.VM() {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Provisioners is those that the plan's nodes, volumes and networks are made by, by name.
func (p *Plan) Provisioners() []string {
	var names []string
	for _, n := range p.Nodes {
		names = append(names, n.Provisioner)
	}
	for _, n := range p.Networks {
		names = append(names, n.Provisioner)
	}
	for _, v := range p.Volumes {
		names = append(names, v.Provisioner)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Emulates says whether some instances run by emulation.
func (p *Plan) Emulates() bool {
	return slices.ContainsFunc(p.WithRole(topologies.Compute), func(n Node) bool { return n.VirtType != "kvm" })
}

// emulatedNode is how many times as long as in a container things take in a VM without KVM (docs/measurements.md).
const emulatedNode = 5

// Patience is how many times as long as a region of containers this one may take for something. A VM whose instances are
// emulated may be emulated itself: a deadline that is too long does no harm.
func (p *Plan) Patience() int {
	if slices.ContainsFunc(p.VMs(), func(n Node) bool { return n.VirtType != "kvm" }) {
		return emulatedNode
	}
	return 1
}

// Complete fills in what the record of an older toastdev says of the region alone.
func (p *Plan) Complete() {
	for i := range p.Nodes {
		n := &p.Nodes[i]
		n.Datapath, n.NFSClient, n.VirtType = cmp.Or(n.Datapath, p.Datapath), cmp.Or(n.NFSClient, p.NFSClient), cmp.Or(n.VirtType, p.VirtType)
	}
}

// Has says whether the node has a role.
func (n *Node) Has(role string) bool {
	for _, r := range n.Roles {
		if r == role {
			return true
		}
	}
	return false
}

// Address is the node's own address on a network; the zero Addr where it has none.
func (n *Node) Address(network string) netip.Addr {
	for _, nic := range n.NICs {
		if nic.Network == network {
			return nic.Addresses[0].Addr()
		}
	}
	return netip.Addr{}
}
