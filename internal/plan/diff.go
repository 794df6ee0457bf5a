package plan

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/toast-cloud/toastdev/topologies"
)

// Action is what happens to a resource.
type Action string

const (
	Create  Action = "create"
	Update  Action = "update" // in place
	Replace Action = "replace"
	Delete  Action = "delete"
)

// Change is what happens to one resource, and why.
type Change struct {
	Resource string  `json:"resource"` // network/mini-kr1-management, volume/mini-kr1-nas, node/mini-kr1-ctl, salt
	Action   Action  `json:"action"`
	Fields   []Field `json:"fields,omitempty"` // of update and replace
}

// Field is one value that differs.
type Field struct {
	Path   string `json:"path"`   // nics.tun0.mtu
	Before any    `json:"before"` // null: not there
	After  any    `json:"after"`
}

// SaltResource is the name in changes of what Salt makes of the nodes.
const SaltResource = "salt"

// thing is a resource as Diff sees it: values that ask for a replacement when they differ, and values that do not.
type thing struct {
	name   string
	firm   map[string]any
	soft   map[string]any
	stands []string // the resources it cannot outlive
}

// Diff is what has to happen for old to become new, in the order in which it happens; old is nil where there is nothing
// yet. absent are resources of old that were removed behind our back.
func Diff(old, new *Plan, absent map[string]bool) []Change {
	var changes []Change
	before := map[string]thing{}
	if old != nil {
		for _, t := range old.things() {
			before[t.name] = t
		}
	}
	replaced := map[string]bool{}
	wanted := map[string]bool{}
	for _, t := range new.things() {
		wanted[t.name] = true
		was, ok := before[t.name]
		if !ok || absent[t.name] {
			replaced[t.name] = ok
			changes = append(changes, Change{Resource: t.name, Action: Create})
			continue
		}
		firm, soft := fields(was.firm, t.firm), fields(was.soft, t.soft)
		for _, below := range t.stands {
			if replaced[below] && !slices.ContainsFunc(firm, func(f Field) bool { return strings.HasPrefix(f.Path, "nics.") }) {
				firm = append(firm, Field{Path: below, Before: "old", After: "new"})
			}
		}
		switch {
		case len(firm) > 0:
			replaced[t.name] = true
			changes = append(changes, Change{Resource: t.name, Action: Replace, Fields: append(firm, soft...)})
		case len(soft) > 0:
			changes = append(changes, Change{Resource: t.name, Action: Update, Fields: soft})
		}
	}
	if old == nil {
		return changes
	}
	if differ := fields(old.salted(), new.salted()); len(differ) > 0 {
		changes = append(changes, Change{Resource: SaltResource, Action: Update, Fields: differ})
	}
	gone := old.things()
	slices.Reverse(gone)
	for _, t := range gone {
		if !wanted[t.name] && !absent[t.name] {
			changes = append(changes, Change{Resource: t.name, Action: Delete})
		}
	}
	return changes
}

// things is the plan's resources, in the order in which they are made.
func (p *Plan) things() []thing {
	var things []thing
	at := map[string]string{}
	for _, n := range p.Networks {
		n.Floating = nil // nothing in the engine knows of it: it is Salt's and Neutron's
		t := thing{name: "network/" + n.Resource, firm: flat(n)}
		at[n.Name] = t.name
		things = append(things, t)
	}
	for _, v := range p.Volumes {
		// A volume is never replaced: that would be the loss of what is on it.
		things = append(things, thing{name: "volume/" + v.Resource, soft: flat(v)})
	}
	for _, n := range p.Nodes {
		t := thing{name: "node/" + n.Resource, soft: flat(struct {
			CPUs   float64           `json:"cpus"`
			Memory int64             `json:"memory"`
			Hosts  map[string]string `json:"hosts"`
		}{n.CPUs, n.Memory, p.hosts()})}
		for _, nic := range n.NICs {
			t.stands = append(t.stands, at[nic.Network])
		}
		nics := map[string]NIC{}
		for _, nic := range n.NICs {
			nics[nic.Name] = nic
		}
		t.firm = flat(map[string]any{"image": n.Image, "roles": n.Roles, "provisioner": n.Provisioner, "mounts": n.Mounts, "nics": nics})
		things = append(things, t)
	}
	return things
}

// hosts is the names in every node's /etc/hosts.
func (p *Plan) hosts() map[string]string {
	hosts := map[string]string{"api": p.API.String()}
	for _, n := range p.Nodes {
		hosts[n.Name] = n.Address(topologies.Management).String()
		if a := n.Address(topologies.StorageNetwork); a.IsValid() {
			hosts[n.Name+"-storage"] = a.String()
		}
	}
	return hosts
}

// salted is what Salt is told, but for what follows from networks and nodes.
func (p *Plan) salted() map[string]any {
	var floating *Range
	if external, ok := p.Network(topologies.External); ok {
		floating = external.Floating
	}
	return flat(map[string]any{
		"release": p.ReleaseName, "routing": p.Routing, "tenant_network": p.TenantNetwork, "datapath": p.Datapath, "nfs_client": p.NFSClient,
		"virt_type": p.VirtType, "pillar": p.Pillar, "salt": map[string]string{"tree": p.SaltTree, "base": p.SaltBase}, "floating": floating,
	})
}

// flat is a value's JSON as paths and scalars. A plan that was recorded and one that was not are equal that way.
func flat(v any) map[string]any {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // a plan can always be recorded
	}
	var decoded any
	if err := json.Unmarshal(text, &decoded); err != nil {
		panic(err)
	}
	values := map[string]any{}
	flatten(values, nil, decoded)
	return values
}

func flatten(into map[string]any, path []string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			flatten(into, append(slices.Clip(path), key), value)
		}
	case []any:
		for i, value := range v {
			flatten(into, append(slices.Clip(path), strconv.Itoa(i)), value)
		}
	case nil:
	default:
		into[strings.Join(path, ".")] = v
	}
}

// fields is where two flat values differ, by path.
func fields(before, after map[string]any) []Field {
	paths := map[string]bool{}
	for path := range before {
		paths[path] = true
	}
	for path := range after {
		paths[path] = true
	}
	var differ []Field
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if !reflect.DeepEqual(before[path], after[path]) {
			differ = append(differ, Field{Path: path, Before: before[path], After: after[path]})
		}
	}
	return differ
}
