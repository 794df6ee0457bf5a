package lifecycle

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/host"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/topologies"
)

// machines is a provisioner of nodes that are only states.
type machines struct {
	provisioners.Provisioner
	states map[string]provisioners.State
	calls  []string
}

func (m *machines) State(_ context.Context, name string) (provisioners.State, error) {
	if s, ok := m.states[name]; ok {
		return s, nil
	}
	return provisioners.Absent, nil
}

func (m *machines) Start(_ context.Context, name string) error {
	m.calls, m.states[name] = append(m.calls, "start "+name), provisioners.Running
	return nil
}

func (m *machines) Stop(_ context.Context, name string) error {
	m.calls, m.states[name] = append(m.calls, "stop "+name), provisioners.Stopped
	return nil
}

// mixed is a Toastdev on a home with an environment whose nodes are in these states; each is in its own order of shutdown.
func mixed(t *testing.T, states map[string]provisioners.State) (*Toastdev, *machines, *plan.Plan) {
	t.Helper()
	m := &machines{states: states}
	toast := New(&project.Home{Dir: t.TempDir(), ID: "0badcafe"}, hclog.NewNullLogger())
	toast.makers.made = map[string]provisioners.Provisioner{topologies.Docker: m, topologies.Libvirt: m}
	p := &plan.Plan{Environment: "mixed", ReleaseName: "zed", Nodes: []plan.Node{
		{Name: "ctl", Resource: "ctl", Provisioner: "docker", Roles: []string{"control"}},
		{Name: "net", Resource: "net", Provisioner: "docker", Roles: []string{"network"}},
		{Name: "cmp", Resource: "cmp", Provisioner: "libvirt", Roles: []string{"compute"}, Memory: 3 << 30, VirtType: "qemu"},
		{Name: "nas", Resource: "nas", Provisioner: "libvirt", Roles: []string{"storage"}, Memory: 3 << 29, VirtType: "qemu"},
	}}
	if err := toast.environment("mixed").Save(&record.Record{Name: "mixed", State: record.Up, Plan: p}); err != nil {
		t.Fatal(err)
	}
	return toast, m, p
}

func TestHaltStopsNodesSoThatNoneMissesAnother(t *testing.T) {
	toast, m, _ := mixed(t, map[string]provisioners.State{"ctl": provisioners.Running, "net": provisioners.Stopped, "cmp": provisioners.Paused, "nas": provisioners.Running})
	for i, want := range []string{"start cmp, stop cmp, stop nas, stop ctl", ""} {
		m.calls = nil
		done, err := toast.Halt(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(m.calls, ", "); got != want || done.Changed != []int{3, 0}[i] {
			t.Errorf("halt %d: %s, changed %d", i+1, got, done.Changed)
		}
		r, err := toast.find("mixed")
		if err != nil || r.State != record.Halted {
			t.Errorf("state %s, %v", r.State, err)
		}
	}
	if _, err := toast.isUp("mixed"); fault.CodeOf(err) != fault.Failed || !strings.Contains(err.Error(), "halted") {
		t.Errorf("it is up: %v", err)
	}
}

func TestNodesThatHaveSeveralRolesEndWithTheLast(t *testing.T) {
	var got []string
	for _, wave := range shutdown(&plan.Plan{Nodes: []plan.Node{{Name: "one", Roles: []string{"control", "network", "compute", "storage"}}, {Name: "cmp1", Roles: []string{"compute"}},
		{Name: "cmp2", Roles: []string{"compute"}}}}) {
		var names []string
		for _, n := range wave {
			names = append(names, n.Name)
		}
		got = append(got, strings.Join(names, "+"))
	}
	if want := []string{"cmp1+cmp2", "one"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestVMsThatDoNotFitInMemoryAreRefused(t *testing.T) {
	toast, _, p := mixed(t, map[string]provisioners.State{})
	for _, c := range []struct {
		available int64
		running   string // the nodes that run
		libvirt   string
		want      string
	}{
		{7 << 30, "", "", "take 4.5 GiB of memory, the containers beside them some 3.5; this machine has 7.0 GiB available"},
		{8 << 30, "", "", ""},
		{4 << 30, "ctl net", "", "take 4.5 GiB of memory; this machine has 4.0 GiB available"},
		{5 << 30, "ctl net", "", ""}, // what runs has its share
		{1 << 30, "cmp nas", "", ""}, // no VM is to start
		{1 << 30, "", "qemu+ssh://faraway/system", ""},
	} {
		toast.facts = &host.Facts{Memory: host.Memory{Available: c.available}, Libvirt: host.Libvirt{Address: c.libvirt}}
		states := map[string]provisioners.State{}
		for name := range strings.FieldsSeq(c.running) {
			states[name] = provisioners.Running
		}
		toast.makers.made[topologies.Docker], toast.makers.made[topologies.Libvirt] = &machines{states: states}, &machines{states: states}
		err := toast.roomForVMs(t.Context(), p)
		if c.want == "" && err != nil || c.want != "" && (fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "cmp 3GiB")) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// forwarding is a provisioner with networks of its own.
type forwarding struct{ machines }

func (forwarding) Forwards(context.Context, provisioners.Owner) ([]provisioners.Forward, error) {
	return []provisioners.Forward{{Network: "v-kr1-management", Name: "public-172.16.0.5-5000", Host: netip.MustParseAddrPort("127.0.0.1:5001"), To: netip.MustParseAddrPort("172.16.0.5:5000")}}, nil
}

func TestAPIsAreReachedByForwardedPortsWhereThisMachineIsNotOnTheirNetwork(t *testing.T) {
	toast, _, p := mixed(t, nil)
	toast.makers.made[topologies.VirtualBox] = &forwarding{}
	for _, by := range []string{topologies.Docker, topologies.VirtualBox} {
		p.Networks = []plan.Network{{Name: "management", Provisioner: by}}
		auth, err := toast.auth(&record.Record{Name: "mixed", Plan: p}, "admin")
		if err != nil {
			t.Fatal(err)
		}
		if by == topologies.Docker && auth.Detour != nil || by != topologies.Docker && auth.Detour.Ports["172.16.0.5:5000"] != "127.0.0.1:5001" {
			t.Errorf("%s: %+v", by, auth.Detour)
		}
	}
}

func TestAVMsMemoryIsItsEmulators(t *testing.T) {
	box, vm := &plan.Node{Provisioner: topologies.Docker}, &plan.Node{Provisioner: topologies.Libvirt}
	for _, c := range []struct {
		node *plan.Node
		by   provisioners.Provisioner
		said []string
		want string
	}{
		{box, &machines{}, []string{"1024"}, "1024"},
		{box, &machines{}, nil, "null"},
		{vm, &machines{}, []string{"1024"}, "null"}, // what it has of its own memory
		{vm, &emulators{bytes: 2048}, nil, "2048"},
		{vm, &emulators{}, nil, "null"},
	} {
		bytes, err := memory(t.Context(), c.by, c.node, c.said)
		got := "null"
		if bytes != nil {
			got = fmt.Sprint(*bytes)
		}
		if err != nil || got != c.want {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
}

// emulators is a provisioner that knows what its nodes take.
type emulators struct {
	machines
	bytes int64
}

func (e *emulators) Resident(context.Context, string) (int64, bool, error) {
	return e.bytes, e.bytes > 0, nil
}

func TestAnUnknownProvisionerOfARecordIsRefused(t *testing.T) {
	toast, _, _ := mixed(t, nil)
	if _, err := toast.provisioner("libvrt"); fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), "libvirt") {
		t.Errorf("got %v", err)
	}
}

func TestDeadlinesFollowWhatIsEmulated(t *testing.T) {
	node := func(provisioner, virt string) plan.Node {
		return plan.Node{Roles: []string{"compute"}, Provisioner: provisioner, VirtType: virt}
	}
	for _, c := range []struct {
		nodes []plan.Node
		kvm   bool
		want  string
	}{
		{[]plan.Node{node("docker", "kvm")}, true, "1 1"},
		{[]plan.Node{node("docker", "qemu")}, false, "1 2"},
		{[]plan.Node{node("docker", "qemu"), node("libvirt", "qemu")}, false, "5 10"},
		{[]plan.Node{node("docker", "kvm"), node("libvirt", "qemu")}, true, "5 2"},
		{[]plan.Node{node("libvirt", "kvm")}, true, "1 1"},
	} {
		p := &plan.Plan{Nodes: c.nodes}
		if got := fmt.Sprintf("%d %v", p.Patience(), slowness(p, c.kvm)); got != c.want {
			t.Errorf("%+v: %s, want %s", c, got, c.want)
		}
	}
}
