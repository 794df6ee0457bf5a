package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/provisioners"
)

// fake is a provisioner that makes things in a map.
type fake struct {
	mu       sync.Mutex
	things   map[provisioners.Thing]provisioners.State
	specs    map[provisioners.Thing]any
	calls    []string
	fail     map[string]error              // by "create node/x"
	leave    bool                          // a create that fails leaves something half-made
	during   func(context.Context, string) // called in every create and delete, with the call
	prepared int
	networks *fake // nil: itself; who makes the networks that its nodes are on
	users    *fake // nil: nobody; whose nodes are on its networks, too
}

func newFake() *fake {
	return &fake{things: map[provisioners.Thing]provisioners.State{}, specs: map[provisioners.Thing]any{}, fail: map[string]error{}}
}

func (f *fake) do(ctx context.Context, verb string, kind provisioners.Kind, name string, spec any) error {
	t := provisioners.Thing{Kind: kind, Name: name}
	call := verb + " " + t.String()
	if f.during != nil {
		f.during(ctx, call)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	if err := ctx.Err(); err != nil {
		return err
	}
	err := f.fail[call]
	switch {
	case verb == "delete" && err == nil:
		delete(f.things, t)
	case verb == "create" && (err == nil || f.leave):
		f.things[t], f.specs[t] = provisioners.Running, spec
	}
	return err
}

func (f *fake) CreateNetwork(ctx context.Context, n provisioners.Network) error {
	return f.do(ctx, "create", provisioners.KindNetwork, n.Name, n)
}
func (f *fake) CreateVolume(ctx context.Context, v provisioners.Volume) error {
	return f.do(ctx, "create", provisioners.KindVolume, v.Name, v)
}
func (f *fake) CreateNode(ctx context.Context, n provisioners.Node) error {
	networks := cmp.Or(f.networks, f)
	for _, nic := range n.NICs {
		if !networks.has(provisioners.KindNetwork, nic.Network) {
			return fmt.Errorf("node %s: no network %s", n.Name, nic.Network)
		}
	}
	return f.do(ctx, "create", provisioners.KindNode, n.Name, n)
}
func (f *fake) DeleteNetwork(ctx context.Context, _ provisioners.Owner, name string) error {
	for _, maker := range []*fake{f, f.users} {
		if maker == nil {
			continue
		}
		if by := maker.user(name); by != "" {
			return fmt.Errorf("network %s is used by %s", name, by)
		}
	}
	return f.do(ctx, "delete", provisioners.KindNetwork, name, nil)
}

// user is a node on a network; "" when there is none.
func (f *fake) user(network string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for t := range f.things {
		if t.Kind != provisioners.KindNode {
			continue
		}
		for _, nic := range f.specs[t].(provisioners.Node).NICs {
			if nic.Network == network {
				return t.String()
			}
		}
	}
	return ""
}

func (f *fake) DeleteVolume(ctx context.Context, _ provisioners.Owner, name string) error {
	return f.do(ctx, "delete", provisioners.KindVolume, name, nil)
}
func (f *fake) DeleteNode(ctx context.Context, _ provisioners.Owner, name string) error {
	return f.do(ctx, "delete", provisioners.KindNode, name, nil)
}
func (f *fake) has(kind provisioners.Kind, name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.things[provisioners.Thing{Kind: kind, Name: name}]
	return ok
}
func (f *fake) Exists(ctx context.Context, _ provisioners.Owner, kind provisioners.Kind, name string) (bool, error) {
	return f.has(kind, name), ctx.Err()
}
func (f *fake) Node(string, string) node.Node { return nil }
func (f *fake) State(_ context.Context, name string) (provisioners.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if state, ok := f.things[provisioners.Thing{Kind: provisioners.KindNode, Name: name}]; ok {
		return state, nil
	}
	return provisioners.Absent, nil
}
func (f *fake) Start(context.Context, string) error { return errors.New("not asked for") }
func (f *fake) Stop(context.Context, string) error  { return errors.New("not asked for") }
func (f *fake) Owned(context.Context, provisioners.Owner) ([]provisioners.Thing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.things)), nil
}
func (f *fake) Prepare(context.Context, []provisioners.Network, string) error {
	f.prepared++
	return nil
}

// called is the calls since the last time, sorted.
func (f *fake) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	slices.Sort(calls)
	return calls
}

var owner = provisioners.Owner{Environment: "t", Home: "h"}

// region is a plan of two networks, a volume and nodes ctl, cmp1 and cmp2.
func region() *plan.Plan {
	p := &plan.Plan{Environment: "t", API: netip.MustParseAddr("10.0.0.5")}
	for i, name := range []string{"management", "storage"} {
		p.Networks = append(p.Networks, plan.Network{
			Name: name, Resource: "t-" + name, Bridge: "td-" + name[:3], MTU: 1500, Provisioner: "fake",
			Subnet: netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i)), Gateway: netip.MustParseAddr(fmt.Sprintf("10.0.%d.1", i)),
		})
	}
	p.Volumes = []plan.Volume{{Name: "nas", Resource: "t-nas", Size: 20 << 30, Provisioner: "fake"}}
	for i, name := range []string{"ctl", "cmp1", "cmp2"} {
		n := plan.Node{Name: name, Resource: "t-" + name, Roles: []string{"compute"}, Provisioner: "fake", Image: "image:1", Memory: 3 << 30}
		for j, network := range []string{"management", "storage"} {
			n.NICs = append(n.NICs, plan.NIC{
				Name: []string{"mgmt0", "sto0"}[j], Network: network, MAC: fmt.Sprintf("02:42:0a:00:0%d:1%d", j, i), MTU: 1500,
				Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.%d.1%d/24", j, i))},
			})
		}
		p.Nodes = append(p.Nodes, n)
	}
	p.Nodes[0].Roles = []string{"control", "storage"}
	p.Nodes[0].NICs[0].Addresses = append(p.Nodes[0].NICs[0].Addresses, netip.MustParsePrefix("10.0.0.5/24"))
	p.Nodes[0].Mounts = []plan.Mount{{Volume: "nas", Path: "/srv/nas"}}
	return p
}

func open(t *testing.T, dir string, f *fake) *Engine {
	t.Helper()
	return Open(dir, map[string]provisioners.Provisioner{"fake": f}, nil)
}

func up(t *testing.T, e *Engine, p *plan.Plan, want int) {
	t.Helper()
	changed, err := e.Up(t.Context(), p, owner)
	if err != nil {
		t.Fatalf("up: %v", err)
	}
	if changed != want {
		t.Fatalf("up changed %d things, want %d", changed, want)
	}
}

func expect[T comparable](t *testing.T, what string, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s:\n got %v\nwant %v", what, got, want)
	}
}
