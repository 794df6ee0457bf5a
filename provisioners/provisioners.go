// Package provisioners is what makes networks, volumes and nodes, and hands out nodes that run commands.
package provisioners

import (
	"context"
	"net/netip"

	"github.com/toast-cloud/toastdev/internal/node"
)

// Owner is whom a thing belongs to; it becomes the labels toastdev.environment and toastdev.home.
type Owner struct {
	Environment string `json:"environment"`
	Home        string `json:"home"` // the home's id: two homes on one host never touch each other's things
}

// Network asks for a network of nodes and host. Its Name is unique in the engine.
type Network struct {
	Owner
	Name     string       `json:"name"`
	Bridge   string       `json:"bridge"` // the host's interface, at most 15 characters
	Subnet   netip.Prefix `json:"subnet"`
	Gateway  netip.Addr   `json:"gateway"` // the host's address
	MTU      int          `json:"mtu"`
	Internal bool         `json:"internal"`
}

// Volume asks for storage with a real file system.
type Volume struct {
	Owner
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes; 0: as much as there is
}

// Node asks for a running node.
type Node struct {
	Owner
	Name     string  `json:"name"`     // unique in the engine: mini-kr1-cmp1
	Hostname string  `json:"hostname"` // cmp1; also the label toastdev.node
	Image    string  `json:"image"`
	Identity string  `json:"identity"` // the file /etc/toastdev/identity, in place before the first start
	CPUs     float64 `json:"cpus"`     // 0: no limit
	Memory   int64   `json:"memory"`   // bytes; 0: no limit
	NICs     []NIC   `json:"nics"`
	Mounts   []Mount `json:"mounts"`
}

// NIC puts a node on a network; the first is the one with the default route.
type NIC struct {
	Network string     `json:"network"` // Network.Name
	Address netip.Addr `json:"address"`
	MAC     string     `json:"mac"`
}

// Mount is a volume in a node.
type Mount struct {
	Volume string `json:"volume"` // Volume.Name
	Path   string `json:"path"`
}

// State is a node's: running, stopped, paused, absent.
type State string

const (
	Running State = "running"
	Stopped State = "stopped"
	Paused  State = "paused"
	Absent  State = "absent"
)

// Provisioner makes and removes. Every Create adopts a thing that exists as asked for, replaces a half-made one, and
// refuses one that has its name and another owner. Every Delete succeeds when the thing is not there.
type Provisioner interface {
	CreateNetwork(context.Context, Network) error
	CreateVolume(context.Context, Volume) error
	// CreateNode returns when the node runs commands and has booted.
	CreateNode(context.Context, Node) error

	DeleteNetwork(ctx context.Context, name string) error
	DeleteVolume(ctx context.Context, name string) error
	DeleteNode(ctx context.Context, name string) error

	// Exists says whether a thing of that kind ("network", "volume", "node") and name is there.
	Exists(ctx context.Context, kind, name string) (bool, error)
	// Node is a node by its engine name and host name; it need not be there yet.
	Node(name, hostname string) node.Node
	// State of a node.
	State(ctx context.Context, name string) (State, error)
	// Start starts a stopped or paused node, and returns when it has booted.
	Start(ctx context.Context, name string) error
	// Stop ends a node as its own shutdown would.
	Stop(ctx context.Context, name string) error
	// Owned lists what carries an owner's labels, whatever the record says of it: kind/name.
	Owned(context.Context, Owner) ([]string, error)
}
