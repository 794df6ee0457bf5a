package engine

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pulumi/pulumi/pkg/v3/resource/stack"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/encoding"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/provisioners"
)

func TestUpMakesEverythingOnceAndDestroyRemovesIt(t *testing.T) {
	f := newFake()
	e := open(t, t.TempDir(), f)
	up(t, e, region(), 6)
	expect(t, "first up", f.called(), "create network/t-management", "create network/t-storage",
		"create node/t-cmp1", "create node/t-cmp2", "create node/t-ctl", "create volume/t-nas")
	if f.prepared != 1 {
		t.Errorf("the host was prepared %d times, want once", f.prepared)
	}

	got := f.specs[provisioners.Thing{Kind: provisioners.KindNode, Name: "t-ctl"}].(provisioners.Node)
	want, err := machine(region(), region().Nodes[0], owner)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := encode(t, got), encode(t, want); a != b {
		t.Errorf("the provisioner was asked for\n%s\nwant\n%s", a, b)
	}

	began := time.Now()
	up(t, e, region(), 0)
	if took := time.Since(began); took > time.Second {
		t.Errorf("an up without changes took %s", took)
	}
	expect(t, "second up", f.called())

	resources, err := e.Resources("t")
	if err != nil || len(resources) != 6 {
		t.Fatalf("resources: %v, %v", resources, err)
	}
	removed, err := e.Destroy(t.Context(), region(), owner)
	if err != nil || removed != 6 || len(f.things) != 0 {
		t.Fatalf("destroy: %d, %v; left: %v", removed, err, f.things)
	}
	if removed, err := e.Destroy(t.Context(), region(), owner); err != nil || removed != 0 {
		t.Fatalf("destroy of nothing: %d, %v", removed, err)
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestNodesAreMadeAtOnce(t *testing.T) {
	f := newFake()
	var together sync.WaitGroup
	together.Add(3)
	f.during = func(_ context.Context, call string) {
		if strings.HasPrefix(call, "create node/") {
			together.Done()
			together.Wait()
		}
	}
	up(t, open(t, t.TempDir(), f), region(), 6)
}

func TestDriftIsSeenAndMendedAlone(t *testing.T) {
	f := newFake()
	e := open(t, t.TempDir(), f)
	up(t, e, region(), 6)
	f.called()
	delete(f.things, provisioners.Thing{Kind: provisioners.KindNode, Name: "t-cmp1"})
	f.things[provisioners.Thing{Kind: provisioners.KindNode, Name: "t-cmp2"}] = provisioners.Stopped

	changes, err := e.Preview(t.Context(), region(), owner)
	if err != nil {
		t.Fatal(err)
	}
	if got := encode(t, changes); got != encode(t, []plan.Change{
		{Resource: "node/t-cmp1", Action: plan.Create},
		{Resource: "node/t-cmp2", Action: plan.Update, Fields: []plan.Field{{Path: "state", Before: "stopped", After: "running"}}},
	}) {
		t.Fatalf("preview: %s", got)
	}
	expect(t, "preview", f.called())
	up(t, e, region(), 2)
	expect(t, "up", f.called(), "create node/t-cmp1", "create node/t-cmp2")
	up(t, e, region(), 0)
}

func TestAnEditOfTheTopologyChangesWhatDiffers(t *testing.T) {
	tests := []struct {
		name  string
		edit  func(*plan.Plan)
		want  string
		calls []string
	}{
		{"limits in place", func(p *plan.Plan) { p.Nodes[1].CPUs = 2; p.Nodes[1].Memory = 4 << 30 },
			"update node/t-cmp1: cpus 0 > 2, memory 3221225472 > 4294967296", []string{"create node/t-cmp1"}},
		{"another image anew", func(p *plan.Plan) { p.Nodes[1].Image = "image:2" },
			"replace node/t-cmp1: image image:1 > image:2", []string{"create node/t-cmp1", "delete node/t-cmp1"}},
		{"a NIC less anew", func(p *plan.Plan) { p.Nodes[2].NICs = p.Nodes[2].NICs[:1] }, "",
			[]string{"create node/t-cmp1", "create node/t-cmp2", "create node/t-ctl", "delete node/t-cmp2"}},
		{"a network anew with its nodes", func(p *plan.Plan) { p.Networks[1].MTU = 9000 }, "",
			[]string{"create network/t-storage", "create node/t-cmp1", "create node/t-cmp2", "create node/t-ctl",
				"delete network/t-storage", "delete node/t-cmp1", "delete node/t-cmp2", "delete node/t-ctl"}},
		{"a volume keeps what is in it", func(p *plan.Plan) { p.Volumes[0].Size *= 2 },
			"update volume/t-nas: size 21474836480 > 42949672960", []string{"create volume/t-nas"}},
		{"a node less: the others learn of it in place", func(p *plan.Plan) { p.Nodes = p.Nodes[:2] }, "",
			[]string{"create node/t-cmp1", "create node/t-ctl", "delete node/t-cmp2"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFake()
			e := open(t, t.TempDir(), f)
			up(t, e, region(), 6)
			f.called()
			p := region()
			test.edit(p)
			changes, err := e.Preview(t.Context(), p, owner)
			if err != nil {
				t.Fatal(err)
			}
			if got := describe(changes); test.want != "" && got != test.want {
				t.Errorf("preview: %s\n   want: %s", got, test.want)
			}
			up(t, e, p, len(changes))
			expect(t, "up", f.called(), test.calls...)
			up(t, e, p, 0)
		})
	}
}

func describe(changes []plan.Change) string {
	var lines []string
	for _, c := range changes {
		var parts []string
		for _, f := range c.Fields {
			before, _ := json.Marshal(f.Before)
			after, _ := json.Marshal(f.After)
			parts = append(parts, f.Path+" "+strings.Trim(string(before), `"`)+" > "+strings.Trim(string(after), `"`))
		}
		lines = append(lines, string(c.Action)+" "+c.Resource+": "+strings.Join(parts, ", "))
	}
	return strings.Join(lines, "\n")
}

func TestAFailedCreateKeepsTheOthersAndIsRetriedAlone(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		f := newFake()
		f.leave = leaves
		cause := fault.New(fault.Timeout, "waited 3m for systemd")
		f.fail["create node/t-cmp1"] = cause
		e := open(t, t.TempDir(), f)
		changed, err := e.Up(t.Context(), region(), owner)
		var got *fault.Error
		if !errors.As(err, &got) || got != cause {
			t.Fatalf("up: %v, want the provisioner's own fault", err)
		}
		if changed != 5 {
			t.Errorf("changed %d, want 5", changed)
		}
		resources, err := e.Resources("t")
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{false: 5, true: 6}[leaves]; len(resources) != want {
			t.Errorf("half-made %t: the state has %d resources, want %d", leaves, len(resources), want)
		}
		f.called()
		delete(f.fail, "create node/t-cmp1")
		up(t, e, region(), 1)
		expect(t, "retry", f.called(), "create node/t-cmp1")
		up(t, e, region(), 0)
	}
}

func TestAKilledUpIsFinishedByTheNext(t *testing.T) {
	f := newFake()
	dir := t.TempDir()
	e := open(t, dir, f)
	// The state as it is while cmp1 and cmp2 are being made is what a kill leaves.
	state := filepath.Join(dir, ".pulumi", "stacks", "toastdev", "t.json")
	var killed []byte
	var mu sync.Mutex
	f.during = func(_ context.Context, call string) {
		if call == "create node/t-cmp1" || call == "create node/t-cmp2" {
			time.Sleep(100 * time.Millisecond) // until both have begun
			mu.Lock()
			defer mu.Unlock()
			if killed == nil {
				killed, _ = os.ReadFile(state)
			}
		}
	}
	up(t, e, region(), 6)
	f.during = nil
	checkpoint, _, _, err := stack.UnmarshalVersionedCheckpointToLatestCheckpoint(encoding.JSON, killed)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(checkpoint.Latest.PendingOperations); n < 2 {
		t.Fatalf("%d operations pending while two nodes are being made", n)
	}

	t.Run("up adopts", func(t *testing.T) {
		if err := os.WriteFile(state, killed, 0o600); err != nil {
			t.Fatal(err)
		}
		f.called()
		if _, err := e.Up(t.Context(), region(), owner); err != nil {
			t.Fatal(err)
		}
		if calls := f.called(); !slices.Contains(calls, "create node/t-cmp1") || slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, "delete") }) {
			t.Errorf("calls: %v", calls)
		}
		up(t, e, region(), 0)
		if pending := readCheckpoint(t, state).Latest.PendingOperations; len(pending) != 0 {
			t.Errorf("operations still pending: %v", pending)
		}
	})
	t.Run("up removes what is no longer wanted", func(t *testing.T) {
		if err := os.WriteFile(state, killed, 0o600); err != nil {
			t.Fatal(err)
		}
		p := region()
		p.Nodes = p.Nodes[:1]
		if _, err := e.Up(t.Context(), p, owner); err != nil {
			t.Fatal(err)
		}
		if f.has(provisioners.KindNode, "t-cmp1") || f.has(provisioners.KindNode, "t-cmp2") {
			t.Error("a node that is no longer wanted is still there")
		}
	})
	t.Run("destroy removes all", func(t *testing.T) {
		if err := os.WriteFile(state, killed, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Destroy(t.Context(), region(), owner); err != nil || len(f.things) != 0 {
			t.Errorf("destroy: %v; left: %v", err, f.things)
		}
	})
}

func TestAReplacementThatWasCutOffIsFinished(t *testing.T) {
	f := newFake()
	e := open(t, t.TempDir(), f)
	up(t, e, region(), 6)
	p := region()
	p.Nodes[1].Image = "image:2"
	f.fail["create node/t-cmp1"] = errors.New("no space left")
	if _, err := e.Up(t.Context(), p, owner); err == nil {
		t.Fatal("up did not fail")
	}
	if f.has(provisioners.KindNode, "t-cmp1") {
		t.Fatal("the old node is still there")
	}
	delete(f.fail, "create node/t-cmp1")
	f.called()
	up(t, e, p, 1)
	if !slices.Contains(f.called(), "create node/t-cmp1") {
		t.Error("the node was not made")
	}
	up(t, e, p, 0)
}

func TestCancelEndsAnUpSoonAndNothingIsLost(t *testing.T) {
	f := newFake()
	ctx, cancel := context.WithCancel(t.Context())
	f.during = func(ctx context.Context, call string) {
		if strings.HasPrefix(call, "create node/") {
			cancel()
			<-ctx.Done()
		}
	}
	e := open(t, t.TempDir(), f)
	began := time.Now()
	_, err := e.Up(ctx, region(), owner)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("up: %v, want canceled", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("up went on for %s after the cancel", took)
	}
	f.during = nil
	if _, err := e.Up(t.Context(), region(), owner); err != nil {
		t.Fatal(err)
	}
	up(t, e, region(), 0)
}

func TestTheStateIsWhatPulumiReads(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir, newFake())
	up(t, e, region(), 6)
	meta, err := os.ReadFile(filepath.Join(dir, ".pulumi", "meta.yaml"))
	if err != nil || string(meta) != "version: 1\n" {
		t.Errorf("meta.yaml: %q, %v", meta, err)
	}
	path := filepath.Join(dir, ".pulumi", "stacks", "toastdev", "t.json")
	checkpoint := readCheckpoint(t, path)
	if checkpoint.Stack != "organization/toastdev/t" {
		t.Errorf("stack %q", checkpoint.Stack)
	}
	count := map[string]int{}
	for _, r := range checkpoint.Latest.Resources {
		count[string(r.Type)]++
		if r.Type == typeNode && len(r.Dependencies) < 2 {
			t.Errorf("%s depends on %v", r.URN, r.Dependencies)
		}
	}
	for kind, want := range map[string]int{typeNetwork: 2, typeVolume: 1, typeNode: 3, "pulumi:pulumi:Stack": 1} {
		if count[kind] != want {
			t.Errorf("%d of %s, want %d", count[kind], kind, want)
		}
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.json"))
	if err != nil || len(files) != 1 {
		t.Errorf("stacks that the CLI would list: %v, %v", files, err)
	}

	// A file that was cut off when the host lost power: the one before it is taken.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if resources, err := e.Resources("t"); err != nil || len(resources) == 0 {
		t.Errorf("resources of a damaged state: %v, %v", resources, err)
	}
}

func readCheckpoint(t *testing.T, path string) *apitype.CheckpointV3 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	checkpoint, _, _, err := stack.UnmarshalVersionedCheckpointToLatestCheckpoint(encoding.JSON, data)
	if err != nil {
		t.Fatal(err)
	}
	return checkpoint
}

func TestProgressTellsOfEachResource(t *testing.T) {
	var mu sync.Mutex
	var done []string
	ctx := progress.With(t.Context(), progress.Func(func(e progress.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Message == "done" {
			done = append(done, e.Node)
			if e.N != 6 || e.I != len(done) {
				t.Errorf("%s: %d of %d, want %d of 6", e.Unit, e.I, e.N, len(done))
			}
		}
	}))
	if _, err := open(t, t.TempDir(), newFake()).Up(ctx, region(), owner); err != nil {
		t.Fatal(err)
	}
	slices.Sort(done)
	expect(t, "nodes", done, "", "", "", "cmp1", "cmp2", "ctl")
}

// mixed is the region with its last node made by another provisioner, which plugs it into the others' networks.
func mixed() *plan.Plan {
	p := region()
	for i := range p.Networks {
		p.Networks[i].Provisioner = "docker"
	}
	p.Volumes[0].Provisioner = "docker"
	for i := range p.Nodes {
		p.Nodes[i].Provisioner = "docker"
	}
	p.Nodes[2].Provisioner, p.Nodes[2].Disk = "libvirt", 30<<30
	return p
}

func TestANodeOfAnotherProvisionerIsOnTheSameNetworks(t *testing.T) {
	boxes, vms := newFake(), newFake()
	vms.networks = boxes
	e := Open(t.TempDir(), map[string]provisioners.Provisioner{"docker": boxes, "libvirt": vms}, nil)
	up(t, e, mixed(), 6)
	expect(t, "docker", boxes.called(), "create network/t-management", "create network/t-storage", "create node/t-cmp1", "create node/t-ctl", "create volume/t-nas")
	expect(t, "libvirt", vms.called(), "create node/t-cmp2")
	vm := vms.specs[provisioners.Thing{Kind: provisioners.KindNode, Name: "t-cmp2"}].(provisioners.Node)
	if vm.Disk != 30<<30 || vm.NICs[0].Bridge != "td-man" || vm.NICs[0].MTU != 1500 {
		t.Errorf("the VM is asked for as %s", encode(t, vm))
	}
	// What is recorded of containers is what it was before there were VMs.
	box := encode(t, boxes.specs[provisioners.Thing{Kind: provisioners.KindNode, Name: "t-cmp1"}])
	for _, word := range []string{`"bridge"`, `"mtu"`, `"disk"`} {
		if strings.Contains(box, word) {
			t.Errorf("a container is asked for with %s: %s", word, box)
		}
	}
	// The VM became a container, and is one machine all the time.
	p := region()
	for i := range p.Nodes {
		p.Nodes[i].Provisioner = "docker"
	}
	p.Networks, p.Volumes = mixed().Networks, mixed().Volumes
	up(t, e, p, 1)
	expect(t, "docker", boxes.called(), "create node/t-cmp2")
	expect(t, "libvirt", vms.called(), "delete node/t-cmp2")
	up(t, e, mixed(), 1)
	if removed, err := e.Destroy(t.Context(), mixed(), owner); err != nil || removed != 6 || len(boxes.things)+len(vms.things) != 0 {
		t.Errorf("destroy: %d, %v; left: %v %v", removed, err, boxes.things, vms.things)
	}
}

func TestAPIsArePublicWhereThisMachineIsNotOnTheirNetwork(t *testing.T) {
	p := mixed()
	p.API = netip.MustParseAddr("10.0.0.5")
	for i, by := range []string{"docker", "virtualbox"} {
		for j := range p.Networks {
			p.Networks[j].Provisioner = by
		}
		management, storage := network(p, p.Networks[0], owner), network(p, p.Networks[1], owner)
		if len(management.Public) != 6*i || len(storage.Public) != 0 {
			t.Errorf("%s: %v, %v", by, management.Public, storage.Public)
		}
	}
}

func TestASweepRemovesNodesBeforeTheNetworksOfAnotherProvisioner(t *testing.T) {
	for range 10 { // provisioners come in any order
		boxes, vms := newFake(), newFake()
		boxes.users = vms
		vms.networks = boxes
		e := Open(t.TempDir(), map[string]provisioners.Provisioner{"docker": boxes, "libvirt": vms}, nil)
		for _, n := range mixed().Networks {
			if err := boxes.CreateNetwork(t.Context(), network(mixed(), n, owner)); err != nil {
				t.Fatal(err)
			}
		}
		vm, err := machine(mixed(), mixed().Nodes[2], owner)
		if err != nil {
			t.Fatal(err)
		}
		if err := vms.CreateNode(t.Context(), vm); err != nil {
			t.Fatal(err)
		}
		if removed, err := e.Destroy(t.Context(), mixed(), owner); err != nil || removed != 3 {
			t.Fatalf("destroy: %d, %v", removed, err)
		}
	}
}
