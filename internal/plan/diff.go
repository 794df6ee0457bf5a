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

// SaltChange is what the nodes are told otherwise by new than by old, apart from what follows from networks and nodes;
// false when it is nothing.
func SaltChange(old, new *Plan) (Change, bool) {
	differ := fields(old.salted(), new.salted())
	return Change{Resource: SaltResource, Action: Update, Fields: differ}, len(differ) > 0
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
