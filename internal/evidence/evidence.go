// Package evidence is what really happened on the wire: captures on the nodes' interfaces, the path that a flow took
// by them alone, and its drawing.
package evidence

import (
	"net/netip"
	"time"
)

// Kinds of points.
const (
	Tunnel     = "tunnel"     // a node's NIC on the network of that name; so the next three
	External   = "external"   //
	Management = "management" //
	Storage    = "storage"    //
	Tap        = "tap"        // an instance's interface on its compute node
	Router     = "router"     // qr-, sg- and rfp-: a router's interfaces to its networks
	Gateway    = "gateway"    // qg-, fg- and fpr-: a router's way out
	DHCP       = "dhcp"       // a DHCP server's interface
	Client     = "client"     // the external client's interface
)

// Interface is an interface of a node as it is when a capture starts.
type Interface struct {
	Name      string       `json:"name"`
	Namespace string       `json:"namespace,omitempty"` // empty: the node's own
	Kind      string       `json:"kind"`
	MAC       string       `json:"mac,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Label     string       `json:"label,omitempty"` // for people, what it belongs to: a server's or a router's name
}

// Point is where frames were captured.
type Point struct {
	Node string `json:"node"`
	Interface
	File    string `json:"file,omitempty"`    // in the capture's folder
	Frames  int    `json:"frames"`            // in the file
	Dropped int    `json:"dropped,omitempty"` // that passed and are not in the file
	Missing string `json:"missing,omitempty"` // why there is no file, or why it cannot be relied on: frames may have passed that are not in it
}

// Capture is what was seen at several points at once.
type Capture struct {
	Name      string            `json:"name"`
	Points    []Point           `json:"points"`
	Addresses map[string]string `json:"addresses,omitempty"` // MAC or address: what it is, for people
	Started   time.Time         `json:"started"`
	Stopped   time.Time         `json:"stopped"`
	Dir       string            `json:"-"` // where capture.json and the pcap files are
}

// Path is the way that the packets of a flow took, in one direction, by what captures saw.
type Path struct {
	From     string    `json:"from"`
	To       string    `json:"to"`
	Hops     []Hop     `json:"hops"`
	Packets  int       `json:"packets"`            // that took exactly this way
	Variants []Variant `json:"variants,omitempty"` // other ways, the most taken first
	Copies   []Hop     `json:"copies,omitempty"`   // where a switch flooded frames of the flow to, that went no further
	Seen     []Point   `json:"seen"`               // points that saw the flow
	Silent   []Point   `json:"silent,omitempty"`   // points that were watched to the end and saw nothing of it
	Missing  []Point   `json:"missing,omitempty"`  // points that cannot say that they saw nothing: see Point.Missing
}

// Variant is a way that some packets of a flow took, and most did not.
type Variant struct {
	Hops    []Hop `json:"hops"`
	Packets int   `json:"packets"`
}

// Hop is a packet passing an interface; or, with Unknown set, a part of its way that no capture shows.
type Hop struct {
	Node             string        `json:"node,omitempty"`
	Interface        string        `json:"interface,omitempty"`
	Namespace        string        `json:"namespace,omitempty"`
	Kind             string        `json:"kind,omitempty"`
	Label            string        `json:"label,omitempty"`         // the interface's
	Encapsulation    string        `json:"encapsulation,omitempty"` // vxlan, vlan; empty: none
	ID               int           `json:"id,omitempty"`            // VNI or VLAN
	Source           netip.Addr    `json:"source,omitzero"`
	Destination      netip.Addr    `json:"destination,omitzero"`
	SourceMAC        string        `json:"source_mac,omitempty"` // within the encapsulation
	DestinationMAC   string        `json:"destination_mac,omitempty"`
	OuterSource      netip.Addr    `json:"outer_source,omitzero"` // of VXLAN
	OuterDestination netip.Addr    `json:"outer_destination,omitzero"`
	NAT              *NAT          `json:"nat,omitempty"`     // what changed since the hop before
	After            time.Duration `json:"after"`             // nanoseconds since the first hop: the median of the packets
	Unknown          string        `json:"unknown,omitempty"` // why nothing is known of this part; all else may be empty
}

// NAT is a packet's addresses before and after a translation.
type NAT struct {
	Before Ends `json:"before"`
	After  Ends `json:"after"`
}

// Ends of a packet.
type Ends struct {
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
}

// Region is what a drawing shows beside the flow: the nodes and the networks between them.
type Region struct {
	Name     string          `json:"name"`    // of the environment
	Routing  string          `json:"routing"` // dvr, legacy
	Networks []RegionNetwork `json:"networks"`
	Nodes    []RegionNode    `json:"nodes"`
}

// RegionNetwork is one of the networks between nodes.
type RegionNetwork struct {
	Name   string       `json:"name"` // management, tunnel, external, storage
	Subnet netip.Prefix `json:"subnet"`
}

// RegionNode is a node and its interfaces to the networks.
type RegionNode struct {
	Name  string      `json:"name"`
	Roles []string    `json:"roles"`
	VM    bool        `json:"vm,omitempty"` // it has a kernel of its own
	NICs  []RegionNIC `json:"nics"`
}

// RegionNIC is a node's interface to a network.
type RegionNIC struct {
	Name    string     `json:"name"` // tun0
	Network string     `json:"network"`
	Address netip.Addr `json:"address,omitzero"`
}

// Panel is one of the drawings side by side.
type Panel struct {
	Title  string
	Region *Region // another region than the drawing's own: DVR beside legacy. Nil: the drawing's.
	Path   *Path
}
