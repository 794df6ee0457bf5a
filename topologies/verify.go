package topologies

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"regexp"
	"slices"

	"github.com/toast-cloud/toastdev/internal/fault"
)

var namePattern = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$`)

// CheckName says whether an environment, a node or a region may have that name: it becomes part of host names, of
// file names and of names in the engine.
func CheckName(name string) error {
	if namePattern.MatchString(name) {
		return nil
	}
	return &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("%q is not a name", name),
		Expected: "at most 20 of a-z, 0-9 and -, beginning with a letter"}
}

// verify is what the schema cannot say: what one part of a topology demands of another, and what is not built yet.
func (t *Topology) verify(tree *value) error {
	if !namePattern.MatchString(t.Name) {
		return tree.at.fault(fault.Invalid, "name", "at most 20 of a-z, 0-9 and -, beginning with a letter",
			"no name is given, and the file's own, %q, cannot be one", t.Name)
	}
	for _, step := range []func(*value) error{t.verifyRelease, t.verifyNetworks, t.verifyPillar, t.verifyOverlays, t.verifyNodes, t.verifyRoles} {
		if err := step(tree); err != nil {
			return err
		}
	}
	return nil
}

func (t *Topology) verifyRelease(tree *value) error {
	known := Releases()
	if !slices.Contains(known, t.Release) {
		return tree.place("release").fault(fault.Invalid, "release", oneOf(known), "no release %q", t.Release).Suggest(t.Release, known)
	}
	release, err := LoadRelease(t.Release)
	if err != nil {
		return err
	}
	if t.Routing == "dvr" && !release.Can("dvr") {
		return tree.place("routing").fault(fault.Invalid, "routing", "legacy", "release %s has no DVR", t.Release)
	}
	return nil
}

// DefaultFloating is the pool of floating addresses where a topology says none.
var DefaultFloating = Floating{First: 100, Last: 199}

func (t *Topology) verifyNetworks(tree *value) error {
	given := map[string]netip.Prefix{}
	for _, name := range NetworkNames() {
		subnet := t.Networks[name].Subnet
		if !subnet.IsValid() {
			continue
		}
		for _, other := range NetworkNames() {
			if p, ok := given[other]; ok && p.Overlaps(subnet) {
				return tree.place("networks", name, "subnet").fault(fault.Invalid, "networks."+name+".subnet", "subnets apart from each other",
					"%s overlaps %s of networks.%s.subnet", subnet, p, other)
			}
		}
		given[name] = subnet
	}
	pool := t.Networks[External].Floating
	path := []string{"networks", External, "floating"}
	if pool == (Floating{}) {
		pool, path = DefaultFloating, []string{"networks", External, "subnet"}
	}
	last := 254 // of the /24 that is chosen when no subnet is given
	if subnet, ok := given[External]; ok {
		last = 1<<(32-subnet.Bits()) - 2
	}
	if pool.First < 2 || pool.Last > last {
		return tree.place(path...).fault(fault.Invalid, dotted(path), fmt.Sprintf("floating addresses from 2 to %d", last),
			"the floating addresses %d-%d are not in the subnet", pool.First, pool.Last).
			WithRemedy("give networks.external.floating within 2-%d, or a larger networks.external.subnet", last)
	}
	return nil
}

// made is what toastdev itself puts into the pillar, and the topology's own key for it where there is one.
var made = map[string]string{
	"environment": "name", "region": "regions", "release": "release", "node": "nodes", "nodes": "nodes", "networks": "networks", "api": "",
	"datapath": "datapath", "nfs_client": "", "virt_type": "", "routing": "routing", "tenant_network": "tenant_network", "secrets": "",
}

func (t *Topology) verifyPillar(tree *value) error {
	for _, key := range slices.Sorted(maps.Keys(t.Pillar)) {
		instead, ok := made[key]
		if !ok {
			continue
		}
		e := tree.keyPlace("pillar", key).fault(fault.Invalid, "pillar."+key, "a key that toastdev does not make", "toastdev makes this key of the pillar itself")
		if instead != "" {
			e.Remedy = fmt.Sprintf("say it by the topology's own key %s", instead)
		}
		return e
	}
	return nil
}

func (t *Topology) verifyOverlays(tree *value) error {
	if len(t.Overlays) == 0 {
		return nil
	}
	release, err := LoadRelease(t.Release)
	if err != nil {
		return err
	}
	var known []string
	for _, name := range slices.Sorted(maps.Keys(release.Components)) {
		if release.Components[name].Code != "" {
			known = append(known, name)
		}
	}
	trees := map[string]bool{}
	for i, overlay := range t.Overlays {
		at := []string{"overlays", fmt.Sprint(i)}
		wrong := func(key, expected, format string, args ...any) *fault.Error {
			if key != "" {
				at = append(at, key)
			}
			return tree.place(at...).fault(fault.Invalid, dotted(at), expected, format, args...)
		}
		said := 0
		for _, is := range []bool{!overlay.Patches.IsZero(), overlay.Source != nil, overlay.Package != ""} {
			if is {
				said++
			}
		}
		c := overlay.Component
		switch {
		case said != 1:
			return wrong("", "one of patches, source (with component), package", "%d of them are given", said)
		case overlay.Package != "" && c != "":
			return wrong("component", "a package alone", "a package is of no component")
		case overlay.Package == "" && c == "":
			return wrong("", "component: "+oneOf(known), "it is not said which component this is of")
		case c != "" && !slices.Contains(known, c):
			return wrong("component", oneOf(known), "release %s has no component %q", t.Release, c).Suggest(c, known)
		case overlay.Source != nil && trees[c]:
			return wrong("source", "one source tree for a component", "%s has a source tree already", c)
		}
		trees[c] = trees[c] || overlay.Source != nil
	}
	return nil
}

func (t *Topology) verifyNodes(tree *value) error {
	others := func(key string) []string {
		return slices.DeleteFunc(slices.Sorted(maps.Keys(t.Nodes)), func(k string) bool { return k == key })
	}
	keys := slices.Sorted(maps.Keys(t.Nodes))
	slices.SortStableFunc(keys, func(a, b string) int {
		return tree.keyPlace("nodes", a).line - tree.keyPlace("nodes", b).line
	})
	taken := map[string]string{"localhost": "every node itself", "api": "the region's API address"}
	for _, key := range keys {
		group := t.Nodes[key]
		path := "nodes." + key
		if len(group.Roles) == 0 {
			return tree.place("nodes", key).fault(fault.Invalid, path+".roles", "a list of roles", "no roles are given").Suggest(key, others(key))
		}
		if i := slices.Index(group.Roles, Proxy); i >= 0 {
			at := []string{"nodes", key, "roles", fmt.Sprint(i)}
			return tree.place(at...).fault(fault.Unsupported, path+".roles", "control, network, compute or storage", "the role proxy is not supported yet").
				WithRemedy("leave it out: the control node carries the API's address")
		}
		if err := group.verifySize(tree, key); err != nil {
			return err
		}
		for _, name := range group.Names(key) {
			at := tree.keyPlace("nodes", key)
			if !namePattern.MatchString(name) {
				return at.fault(fault.Invalid, path, "at most 20 of a-z, 0-9 and -, the number included", "%q is not a name", name)
			}
			for _, alias := range []string{name, name + "-storage"} {
				if of, ok := taken[alias]; ok {
					return at.fault(fault.Invalid, path, "host names that differ", "the host name %s is that of %s", alias, of)
				}
				taken[alias] = path
			}
		}
	}
	return nil
}

// What a node must have to boot, and what is there of a VM's disk before it does: its image.
const (
	leastMemory   = 256 << 20
	leastVMMemory = 1 << 30
	leastVMDisk   = 20 << 30
	leastVolume   = 1 << 30
)

// verifySize says whether a group's provisioner can give its nodes what is asked for.
func (g Group) verifySize(tree *value, key string) error {
	wrong := func(field string, code fault.Code, expected, format string, args ...any) *fault.Error {
		return tree.place("nodes", key, field).fault(code, "nodes."+key+"."+field, expected, format, args...)
	}
	if !g.VM() {
		switch {
		case g.Disk != 0:
			return wrong("disk", fault.Unsupported, "no disk", "a container has no disk of its own: it takes what it needs of this machine's").
				WithRemedy("leave it out, or make the node a VM: provisioner: libvirt")
		case g.Memory != 0 && g.Memory < leastMemory:
			return wrong("memory", fault.Invalid, "256MiB or more", "%s is too little for a node to boot", g.Memory)
		}
		return nil
	}
	switch {
	case g.CPUs != math.Trunc(g.CPUs):
		return wrong("cpus", fault.Invalid, "a whole number", "a VM has whole CPUs, not %v", g.CPUs)
	case g.Memory != 0 && g.Memory < leastVMMemory:
		return wrong("memory", fault.Invalid, "1GiB or more", "%s is too little for a VM to boot", g.Memory)
	case g.Disk != 0 && g.Has(Storage) && g.Disk < leastVolume:
		return wrong("disk", fault.Invalid, "1GiB or more", "%s is too little for the NAS", g.Disk)
	case g.Disk != 0 && !g.Has(Storage) && g.Disk < leastVMDisk:
		return wrong("disk", fault.Invalid, "20GiB or more", "a VM's disk is not smaller than its image, which is 20GiB: what nothing was written to takes no room")
	}
	return nil
}

// verifyRoles says whether the region has the nodes that it needs, and none that it cannot have yet.
func (t *Topology) verifyRoles(tree *value) error {
	for _, role := range []string{Control, Network, Compute, Storage} {
		count := 0
		for _, key := range t.Keys() {
			group := t.Nodes[key]
			if !group.Has(role) {
				continue
			}
			before := count
			count += len(group.Names(key))
			if count > 1 && (role == Control || role == Storage) {
				at := []string{"nodes", key, "roles"}
				if before == 0 {
					at[2] = "count"
				}
				return tree.place(at...).fault(fault.Unsupported, dotted(at), "one "+role+" node", "several %s nodes are not supported yet", role)
			}
		}
		if count == 0 {
			at := tree.at
			if tree.get("nodes") != nil {
				at = tree.place("nodes")
			}
			return at.fault(fault.Invalid, "nodes", "a node with each of the roles control, network, compute, storage", "no node has the role %s", role).
				WithRemedy("add %s to a node's roles", role)
		}
	}
	return nil
}
