// Package provisioners is what makes networks, volumes and nodes, and hands out nodes that run commands.
package provisioners

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

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
	// Public is what the host must be able to reach on it, for who cannot put the host on the network. (See Forwarder.)
	Public []netip.AddrPort `json:"public,omitempty"`
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
	Identity string  `json:"identity"`       // the file /etc/toastdev/identity, in place before the first start
	CPUs     float64 `json:"cpus"`           // 0: no limit
	Memory   int64   `json:"memory"`         // bytes; 0: no limit
	Weight   int     `json:"weight"`         // its share of CPUs that are scarce, in 1024ths of another's; 0: as another
	Disk     int64   `json:"disk,omitempty"` // bytes of a VM's system disk; 0: what the provisioner thinks is enough
	NICs     []NIC   `json:"nics"`
	Mounts   []Mount `json:"mounts"`
}

// NIC puts a node on a network; the first is the one with the default route.
type NIC struct {
	Network string     `json:"network"` // Network.Name
	Address netip.Addr `json:"address"`
	MAC     string     `json:"mac"`
	Bridge  string     `json:"bridge,omitempty"` // the network's interface on the host, for who plugs in there himself
	MTU     int        `json:"mtu,omitempty"`    // bytes
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
// refuses one that has its name and another owner. Every Delete leaves another owner's thing alone, and succeeds when
// there is nothing to delete. All may be called for several things at once.
type Provisioner interface {
	CreateNetwork(context.Context, Network) error
	CreateVolume(context.Context, Volume) error
	// CreateNode returns when the node runs commands and has booted. Of a node that is there it changes in place what
	// can be changed: limits and Identity's hosts and roles; it starts one that is stopped.
	CreateNode(context.Context, Node) error

	DeleteNetwork(ctx context.Context, owner Owner, name string) error
	DeleteVolume(ctx context.Context, owner Owner, name string) error
	// DeleteNode does not wait for the node's own shutdown.
	DeleteNode(ctx context.Context, owner Owner, name string) error

	// Exists says whether the owner has a thing of that kind and name.
	Exists(ctx context.Context, owner Owner, kind Kind, name string) (bool, error)
	// Node is a node by its engine name and host name; it need not be there yet.
	Node(name, hostname string) node.Node
	// State of a node.
	State(ctx context.Context, name string) (State, error)
	// Start starts a stopped or paused node, and returns when it has booted.
	Start(ctx context.Context, name string) error
	// Stop ends a node as its own shutdown would, and by force when that takes longer than StopTimeout.
	Stop(ctx context.Context, name string) error
	// Owned lists what carries an owner's labels, whatever the record says of it, nodes first: as it can be deleted.
	Owned(context.Context, Owner) ([]Thing, error)
}

// StopTimeout is how long a node may take for its own shutdown.
const StopTimeout = 20 * time.Second

// Kind of a thing.
type Kind string

const (
	KindNetwork Kind = "network"
	KindVolume  Kind = "volume"
	KindNode    Kind = "node"
)

// Thing is something a provisioner made.
type Thing struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
}

func (t Thing) String() string { return string(t.Kind) + "/" + t.Name }

// Delete removes a thing of any kind.
func Delete(ctx context.Context, p Provisioner, owner Owner, t Thing) error {
	switch t.Kind {
	case KindNetwork:
		return p.DeleteNetwork(ctx, owner, t.Name)
	case KindVolume:
		return p.DeleteVolume(ctx, owner, t.Name)
	case KindNode:
		return p.DeleteNode(ctx, owner, t.Name)
	}
	return fmt.Errorf("delete %s: no such kind", t)
}

// Optional abilities: asked for with a type assertion.
type (
	// Checker says what is wrong with what it makes things by: absent, not permitted, too old. It is nil when that can be used.
	Checker interface {
		Check(context.Context) error
	}
	// Preparer has work to do on the host that does not outlive a restart of the host. Up and Start end with it; when
	// nothing is to be done it costs next to nothing. image is a node image that exists.
	Preparer interface {
		Prepare(ctx context.Context, networks []Network, image string) error
	}
	// Pauser freezes a node as it is. Start thaws it.
	Pauser interface {
		Pause(ctx context.Context, name string) error
	}
	// Killer ends a node as a power cut does.
	Killer interface {
		Kill(ctx context.Context, name string) error
	}
	// Unplugger pulls the cable of a running node's interface, which loses its carrier and keeps all else, and puts it back.
	// Both change nothing when it is so already. A restart of the node puts it back, too.
	Unplugger interface {
		Unplug(ctx context.Context, name string, nic NIC) error
		Plug(ctx context.Context, name string, nic NIC) error
	}
	// Consoler keeps what nodes write to their serial ports.
	Consoler interface {
		// Console writes what the node has written so far to w.
		Console(ctx context.Context, name string, w io.Writer) error
	}
	// Snapshotter keeps states of a node, of its memory, too, when it runs, and brings them back.
	Snapshotter interface {
		Snapshot(ctx context.Context, name, snapshot string) error
		// Restore brings a snapshot's state back; the node's connections are from then.
		Restore(ctx context.Context, name, snapshot string) error
		Snapshots(ctx context.Context, name string) ([]string, error)
		// DeleteSnapshot succeeds when there is no such snapshot.
		DeleteSnapshot(ctx context.Context, name, snapshot string) error
	}
	// Resident says how much of the host's memory a node has, where the node itself knows only what it was given.
	Resident interface {
		// Resident is in bytes; known is false where it cannot be found out.
		Resident(ctx context.Context, name string) (bytes int64, known bool, err error)
	}
	// Forwarder lets ports of the host lead into networks that the host itself is not on.
	Forwarder interface {
		Forwards(context.Context, Owner) ([]Forward, error)
	}
)

// Forward is a port of the host that leads to one of a node.
type Forward struct {
	Network string         `json:"network"` // Network.Name
	Name    string         `json:"name"`    // what it is for: ssh-mini-kr1-cmp1, public-172.30.1.5-5000
	Host    netip.AddrPort `json:"host"`
	To      netip.AddrPort `json:"to"`
}
