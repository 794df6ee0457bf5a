// Package topologies is the language in which a region is declared: its types, its schema, its loader, the topologies
// built in, and the OpenStack releases as data.
package topologies

import (
	"cmp"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/goccy/go-yaml"
)

// Files is what is built in: NAME.yaml are topologies, releases/NAME.yaml are releases, schema.json is for editors.
//
//go:embed *.yaml schema.json releases/*.yaml
var Files embed.FS

// The roles of nodes.
const (
	Control = "control" // API services, database, message bus
	Network = "network" // DHCP, SNAT of DVR or the routers of legacy routing
	Compute = "compute" // instances
	Storage = "storage" // the NAS
	Proxy   = "proxy"   // the API's address and the load balancer before several control nodes
)

// Roles is every role of the language, in the order in which nodes are listed.
func Roles() []string { return []string{Control, Network, Compute, Storage, Proxy} }

// The networks of a region.
const (
	Management      = "management"
	Tunnel          = "tunnel"
	External        = "external"
	StorageNetwork  = "storage"
	DefaultRegion   = "kr1"
	DefaultRelease  = "zed"
	DefaultTopology = "mini"
)

// NetworkNames is every network of the language, in the order in which they are made.
func NetworkNames() []string { return []string{Management, Tunnel, External, StorageNetwork} }

// Topology is a region as declared, with defaults filled in, the region's own values merged and --set applied.
type Topology struct {
	File          string                 `json:"-"` // a built-in's name ("mini") or the file's absolute path
	Region        string                 `json:"-"` // kr1
	Name          string                 `json:"name"`
	Release       string                 `json:"release"`
	Routing       string                 `json:"routing"`        // dvr, legacy
	TenantNetwork string                 `json:"tenant_network"` // vxlan, vlan
	Datapath      string                 `json:"datapath"`       // auto, system, userspace
	Networks      map[string]NetworkSpec `json:"networks,omitempty"`
	Salt          Salt                   `json:"salt,omitzero"`
	Pillar        map[string]any         `json:"pillar,omitempty"` // laid over the pillar that is made from the plan
	Overlays      []Overlay              `json:"overlays,omitempty"`
	Nodes         map[string]Group       `json:"nodes"`
	Regions       map[string]Region      `json:"regions,omitempty"` // after Load the one region, whose values are merged
}

// NetworkSpec is what a topology says of a network.
type NetworkSpec struct {
	Subnet   netip.Prefix `json:"subnet,omitzero"`   // chosen when it is not given
	Floating Floating     `json:"floating,omitzero"` // external alone: the pool of floating addresses
}

// Floating is a pool of addresses by their host parts: 100-199 of 10.0.0.0/24 is 10.0.0.100 to 10.0.0.199.
type Floating struct {
	First, Last int
}

// Salt says which Salt tree deploys the region.
type Salt struct {
	Tree string `json:"tree,omitempty"` // a folder with states/ and pillar/; after Load an absolute path
	Base string `json:"base,omitempty"` // toastdev: the tree stands on ours; none: it replaces ours
}

// Overlay is what is laid over the installed OpenStack: of a component patches or a source tree, or a package of our own.
type Overlay struct {
	Component string         `json:"component,omitempty"`
	Patches   Patches        `json:"patches,omitzero"`
	Source    *OverlaySource `json:"source,omitempty"`
	Package   string         `json:"package,omitempty"`
}

// Patches is which of a component's series: all, or some by name.
type Patches struct {
	All   bool
	Names []string
}

// IsZero says whether there are none.
func (p Patches) IsZero() bool { return !p.All && len(p.Names) == 0 }

const allPatches = "all"

// MarshalJSON is the patches as they are written: all, or a list.
func (p Patches) MarshalJSON() ([]byte, error) {
	if p.All {
		return json.Marshal(allPatches)
	}
	return json.Marshal(p.Names)
}

// UnmarshalJSON reads what the schema allows.
func (p *Patches) UnmarshalJSON(text []byte) error {
	if string(text) == `"`+allPatches+`"` {
		p.All = true
		return nil
	}
	return json.Unmarshal(text, &p.Names)
}

// OverlaySource is a component's source tree.
type OverlaySource struct {
	Git string `json:"git"`           // a folder; after Load an absolute path
	Ref string `json:"ref,omitempty"` // "": the files as they are, with what is not committed
}

// Group is one key of nodes: a node of that name, or with a count that many, numbered from 1.
type Group struct {
	Roles       []string `json:"roles"`
	Count       *int     `json:"count,omitempty"`
	CPUs        float64  `json:"cpus,omitempty"`   // 0: no limit; of a VM, what its roles need
	Memory      Size     `json:"memory,omitempty"` // the same
	Disk        Size     `json:"disk,omitempty"`   // of a VM: its system's; with the role storage, the NAS's. 0: 20GiB
	Provisioner string   `json:"provisioner,omitempty"`
}

// Region is one key of regions: what differs from the keys beside it.
type Region struct {
	Identity      string          `json:"identity,omitempty"` // the region whose Keystone is the master
	Release       json.RawMessage `json:"release,omitempty"`
	Routing       json.RawMessage `json:"routing,omitempty"`
	TenantNetwork json.RawMessage `json:"tenant_network,omitempty"`
	Datapath      json.RawMessage `json:"datapath,omitempty"`
	Networks      json.RawMessage `json:"networks,omitempty"`
	Salt          json.RawMessage `json:"salt,omitempty"`
	Pillar        json.RawMessage `json:"pillar,omitempty"`
	Overlays      json.RawMessage `json:"overlays,omitempty"`
	Nodes         json.RawMessage `json:"nodes,omitempty"`
}

// YAML is the topology as a file that loads as the same.
func (t *Topology) YAML() ([]byte, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(text)
}

// Names is the names of the group's nodes: key itself, or with a count key1, key2, ...
func (g Group) Names(key string) []string {
	if g.Count == nil {
		return []string{key}
	}
	names := make([]string, *g.Count)
	for i := range names {
		names[i] = key + strconv.Itoa(i+1)
	}
	return names
}

// The provisioners of the language.
const (
	Docker     = "docker"     // containers
	Libvirt    = "libvirt"    // VMs
	VirtualBox = "virtualbox" // VMs
)

// MadeBy is the group's provisioner.
func (g Group) MadeBy() string { return cmp.Or(g.Provisioner, Docker) }

// VM says whether the group's nodes are virtual machines.
func (g Group) VM() bool { return g.MadeBy() != Docker }

// Provisioners is those that make the topology's nodes, by name.
func (t *Topology) Provisioners() []string {
	var names []string
	for _, key := range t.Keys() {
		if name := t.Nodes[key].MadeBy(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Has says whether the group's nodes have a role.
func (g Group) Has(role string) bool { return slices.Contains(g.Roles, role) }

// Keys is the keys of nodes in the order in which nodes are listed: by their first role, then by name. The order in
// the file means nothing, so that moving a line changes no plan.
func (t *Topology) Keys() []string {
	rank := func(key string) int {
		return slices.IndexFunc(Roles(), t.Nodes[key].Has)
	}
	keys := make([]string, 0, len(t.Nodes))
	for key := range t.Nodes {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return keys
}

// Size is a number of bytes, written with its unit: 3GiB, 512MiB, 20GB.
type Size int64

var sizePattern = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?[MGT]i?B$`)

// ParseSize reads a size with its unit.
func ParseSize(text string) (Size, error) {
	if !sizePattern.MatchString(text) {
		return 0, errors.New("it is not a number with one of the units MiB, GiB, TiB, MB, GB, TB")
	}
	bytes, err := humanize.ParseBytes(text)
	if err != nil || bytes > 1<<50 {
		return 0, errors.New("it is too large")
	}
	return Size(bytes), nil
}

// String is the size with the largest binary unit that needs no fraction, bytes where none does.
func (s Size) String() string {
	for _, u := range []struct {
		bytes Size
		name  string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1e6, "MB"}} {
		if s >= u.bytes && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseSize.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}

// ParseFloating reads a pool: 100-199.
func ParseFloating(text string) (Floating, error) {
	first, last, found := strings.Cut(text, "-")
	a, err := strconv.Atoi(first)
	b, err2 := strconv.Atoi(last)
	if !found || err != nil || err2 != nil || a < 1 || b < a {
		return Floating{}, errors.New("it is not a range of host parts")
	}
	return Floating{First: a, Last: b}, nil
}

// MarshalText is the pool as it is written.
func (f Floating) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%d-%d", f.First, f.Last), nil
}

// UnmarshalText is ParseFloating.
func (f *Floating) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFloating(string(text))
	return err
}
