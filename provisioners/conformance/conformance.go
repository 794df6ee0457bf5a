// Package conformance is what every provisioner must do, as one test.
package conformance

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/vm"
)

// Suite is a provisioner, and what the test may expect of it.
type Suite struct {
	Provisioner provisioners.Provisioner
	Owner       provisioners.Owner // nothing is there that is his
	Image       string
	// System says that the image is a node's: systemd, a shell, tar, iproute2; what its boot makes of the identity is looked
	// at, too. Else it has cat, tee, sleep, printenv and say, which prints its first two arguments on stdout and stderr and
	// ends with the third.
	System bool
	// Machine says that nodes have a kernel of their own, which sees the memory, processors and disk that were asked for.
	Machine bool
	// Still says that nodes are made here, but cannot be started: the host lacks what that needs, and a fault says so. What can
	// be seen of a node that stands still is looked at.
	Still bool
	// Left lists what there is in the engine and on the host that a provisioner could leave behind; nil: what Owned says is all.
	Left func(t testing.TB) string
}

// Key is an environment's, of its record: for provisioners of VMs.
func Key(t testing.TB) vm.Key {
	t.Helper()
	secrets, err := (&record.Environment{Name: "test", Home: &project.Home{Dir: t.TempDir()}}).Secrets()
	if err != nil {
		t.Fatal(err)
	}
	return vm.Key{Private: []byte(secrets["ssh_private_key"]), Public: secrets["ssh_public_key"]}
}

// Run makes a node on two networks and does with it all that a provisioner can.
func Run(t *testing.T, s Suite) {
	r := &run{Suite: s, p: s.Provisioner}
	r.prepare(t)
	before := ""
	if s.Left != nil {
		before = s.Left(t)
	}
	t.Cleanup(func() { r.removeAll(t) })
	type step struct {
		name string
		do   func(*testing.T)
	}
	steps := []step{
		{"Networks and volumes are made once, and refused to others", r.networksAndVolumes},
		{"A node is made as planned", r.made},
		{"Commands have streams, exit codes, an environment and an end", r.commands},
		{"Files go there and back", r.files},
		{"What can change in place does", r.changed},
		{"A node that is frozen or loses its power comes back as it was", r.states},
		{"A cable can be pulled and put back", r.cable},
		{"What a node wrote to its console can be read", r.console},
		{"A snapshot brings a state back", r.snapshot},
		{"What cannot change in place is by a new node", r.replaced},
		{"A fault says what is not there", r.notThere},
		{"All that is the owner's is found and removed, twice", r.removed},
	}
	if s.Still {
		steps = []step{
			steps[0],
			{"A node is made, and the fault says why it does not start", r.still},
			{"A snapshot brings a state back", r.stillSnapshot},
			steps[len(steps)-2], steps[len(steps)-1],
		}
	}
	for _, step := range steps {
		if !t.Run(step.name, step.do) {
			return
		}
	}
	if s.Left != nil {
		if after := s.Left(t); after != before {
			t.Errorf("something stays behind; before:\n%s\nafter:\n%s", before, after)
		}
	}
}

// run is the suite under way.
type run struct {
	Suite
	p        provisioners.Provisioner
	other    provisioners.Owner
	networks []provisioners.Network
	volume   provisioners.Volume
	spec     provisioners.Node
	node     node.Node
}

func (r *run) name(s string) string { return r.Owner.Environment + "-" + s }

func (r *run) prepare(t *testing.T) {
	r.other = provisioners.Owner{Environment: r.Owner.Environment, Home: "ffffffff"}
	for i, s := range []string{"management", "storage"} {
		subnet := freeSubnet(t, i)
		r.networks = append(r.networks, provisioners.Network{
			Owner: r.Owner, Name: r.name(s), Bridge: fmt.Sprintf("td-t%d%d", os.Getpid()%100000, i), Subnet: subnet, Gateway: at(subnet, 1),
			MTU: 1600 - 100*i, Internal: i == 1,
		})
	}
	r.volume = provisioners.Volume{Owner: r.Owner, Name: r.name("nas"), Size: 1 << 30}
	r.spec = provisioners.Node{
		Owner: r.Owner, Name: r.name("ctl"), Hostname: "ctl", Image: r.Image,
		Mounts: []provisioners.Mount{{Volume: r.volume.Name, Path: "/srv/nas"}},
	}
	if r.Machine {
		r.spec.CPUs, r.spec.Memory, r.spec.Disk = 2, 768<<20, 25<<30
	}
	for _, n := range r.networks {
		a := at(n.Subnet, 10).As4()
		r.spec.NICs = append(r.spec.NICs, provisioners.NIC{
			Network: n.Name, Bridge: n.Bridge, MTU: n.MTU, Address: netip.AddrFrom4(a), MAC: fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3]),
		})
	}
	r.spec.Identity = r.identity(r.spec.NICs, "192.0.2.7 net")
	r.node = r.p.Node(r.spec.Name, r.spec.Hostname)
}

// identity is a node's, as a plan writes it.
func (r *run) identity(nics []provisioners.NIC, host string) string {
	var b strings.Builder
	b.WriteString("hostname ctl\nrole control\n")
	for i, nic := range nics {
		fmt.Fprintf(&b, "nic net%d %s mtu %d %s/%d\n", i, nic.MAC, nic.MTU, nic.Address, r.networks[i].Subnet.Bits())
	}
	fmt.Fprintf(&b, "route default %s\nhost %s\n", r.networks[0].Gateway, host)
	return b.String()
}

func (r *run) networksAndVolumes(t *testing.T) {
	for range 2 {
		for _, n := range r.networks {
			must(t, r.p.CreateNetwork(t.Context(), n))
		}
		must(t, r.p.CreateVolume(t.Context(), r.volume))
	}
	stolen := r.networks[0]
	stolen.Owner = r.other
	refused(t, r.p.CreateNetwork(t.Context(), stolen))
	refused(t, r.p.CreateVolume(t.Context(), provisioners.Volume{Owner: r.other, Name: r.volume.Name}))
}

func (r *run) made(t *testing.T) {
	began := time.Now()
	must(t, r.p.CreateNode(t.Context(), r.spec))
	t.Logf("from nothing to a node that has booted: %s", time.Since(began).Round(100*time.Millisecond))
	r.asPlanned(t)
	stolen := r.spec
	stolen.Owner = r.other
	refused(t, r.p.CreateNode(t.Context(), stolen))
	must(t, r.p.DeleteNode(t.Context(), r.other, r.spec.Name))
	r.is(t, provisioners.Running)
	if exists, err := r.p.Exists(t.Context(), r.other, provisioners.KindNode, r.spec.Name); err != nil || exists {
		t.Errorf("it is another's, too: %v", err)
	}
	r.write(t, "/marker", "first")
	must(t, r.p.CreateNode(t.Context(), r.spec)) // adopted
	r.keeps(t, "/marker", "first")
}

func (r *run) still(t *testing.T) {
	for range 2 { // made, adopted
		if err := r.p.CreateNode(t.Context(), r.spec); fault.CodeOf(err) != fault.Missing {
			t.Fatalf("create where nothing can be started: %v", err)
		}
		r.is(t, provisioners.Stopped)
	}
	if err := r.p.Start(t.Context(), r.spec.Name); fault.CodeOf(err) != fault.Missing {
		t.Errorf("start: %v", err)
	}
	must(t, r.p.Stop(t.Context(), r.spec.Name))
	stolen := r.spec
	stolen.Owner = r.other
	refused(t, r.p.CreateNode(t.Context(), stolen))
	must(t, r.p.DeleteNode(t.Context(), r.other, r.spec.Name))
	r.is(t, provisioners.Stopped)
	if err := r.node.Run(t.Context(), node.Cmd{Args: []string{"cat", "/marker"}}); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a command on a stopped node: %v", err)
	}
}

func (r *run) stillSnapshot(t *testing.T) {
	snapshotter, ok := r.p.(provisioners.Snapshotter)
	if !ok {
		t.Skip("there is none")
	}
	must(t, snapshotter.Snapshot(t.Context(), r.spec.Name, "before"))
	names, err := snapshotter.Snapshots(t.Context(), r.spec.Name)
	if err != nil || fmt.Sprint(names) != "[before]" {
		t.Errorf("snapshots: %v, %v", names, err)
	}
	must(t, snapshotter.Restore(t.Context(), r.spec.Name, "before"))
	r.is(t, provisioners.Stopped)
	for range 2 {
		must(t, snapshotter.DeleteSnapshot(t.Context(), r.spec.Name, "before"))
	}
	if err := snapshotter.Restore(t.Context(), r.spec.Name, "before"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a snapshot that is not there: %v", err)
	}
}

// asPlanned looks at the node from within.
func (r *run) asPlanned(t *testing.T) {
	t.Helper()
	if got := r.output(t, "cat", "/etc/toastdev/identity"); got != r.spec.Identity {
		t.Errorf("identity %q, want %q", got, r.spec.Identity)
	}
	if !r.System {
		return
	}
	if got := strings.TrimSpace(r.output(t, "hostname")); got != r.spec.Hostname {
		t.Errorf("host name %q", got)
	}
	for i, nic := range r.spec.NICs {
		link := fmt.Sprintf("net%d", i)
		if got := strings.TrimSpace(r.output(t, "cat", "/sys/class/net/"+link+"/address")); got != nic.MAC {
			t.Errorf("%s has the MAC %s, want %s", link, got, nic.MAC)
		}
		if got := strings.TrimSpace(r.output(t, "cat", "/sys/class/net/"+link+"/mtu")); got != fmt.Sprint(nic.MTU) {
			t.Errorf("%s has the MTU %s, want %d", link, got, nic.MTU)
		}
		if got, want := r.output(t, "ip", "-4", "-o", "address", "show", "dev", link), fmt.Sprintf(" %s/%d ", nic.Address, r.networks[i].Subnet.Bits()); !strings.Contains(got, want) {
			t.Errorf("%s has not the address %s: %s", link, want, got)
		}
	}
	if got, want := r.output(t, "ip", "route", "show", "default"), "via "+r.networks[0].Gateway.String(); !strings.Contains(got, want) {
		t.Errorf("default route %q, want %q", got, want)
	}
	for _, m := range r.spec.Mounts {
		r.output(t, "mountpoint", m.Path)
	}
	if !r.Machine {
		return
	}
	var kib, sectors int64
	var cpus float64
	fmt.Sscanf(r.output(t, "sh", "-c", "sed -n 's/^MemTotal: *//p' /proc/meminfo"), "%d", &kib)
	if kib<<10 > r.spec.Memory || kib<<10 < r.spec.Memory*3/4 {
		t.Errorf("memory %d, want nearly %d", kib<<10, r.spec.Memory)
	}
	fmt.Sscanf(r.output(t, "nproc"), "%f", &cpus)
	if cpus != r.spec.CPUs {
		t.Errorf("%v processors, want %v", cpus, r.spec.CPUs)
	}
	fmt.Sscanf(r.output(t, "sh", "-c", "cat /sys/block/[sv]da/size"), "%d", &sectors)
	if sectors*512 != r.spec.Disk {
		t.Errorf("a disk of %d bytes, want %d", sectors*512, r.spec.Disk)
	}
}

// say is a command that prints on stdout and stderr and ends with a code.
func (r *run) say(stdout, stderr string, code int) []string {
	if r.System {
		return []string{"sh", "-c", `printf %s "$1"; printf %s "$2" >&2; exit "$3"`, "say", stdout, stderr, fmt.Sprint(code)}
	}
	return []string{"say", stdout, stderr, fmt.Sprint(code)}
}

func (r *run) commands(t *testing.T) {
	var stdout, stderr bytes.Buffer
	err := r.node.Run(t.Context(), node.Cmd{Args: r.say("it's \"$HOME\"\n", "err", 3), Stdout: &stdout, Stderr: &stderr})
	if exit, ok := errors.AsType[*node.ExitError](err); !ok || exit.Code != 3 || stdout.String() != "it's \"$HOME\"\n" || stderr.String() != "err" {
		t.Errorf("say: %v, %q, %q", err, &stdout, &stderr)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if out, err := node.Input(t.Context(), r.node, big, "cat"); err != nil || !bytes.Equal(out, big) {
		t.Errorf("cat gave %d bytes back, %v", len(out), err)
	}
	stdout.Reset()
	must(t, r.node.Run(t.Context(), node.Cmd{Args: []string{"printenv", "GREETING"}, Env: []string{"GREETING=hel lo"}, Stdout: &stdout, TTY: true}))
	if strings.TrimSpace(stdout.String()) != "hel lo" {
		t.Errorf("on a terminal: %q", &stdout)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := r.node.Run(short, node.Cmd{Args: []string{"sleep", "60"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("sleep: %v", err)
	}
	// As many at once as a region's parts may run on a node.
	failed := make(chan error)
	const many = 20
	for range many {
		go func() {
			_, err := node.Input(t.Context(), r.node, []byte("x"), "cat")
			failed <- err
		}()
	}
	for range many {
		if err := <-failed; err != nil {
			t.Errorf("one of %d commands at once: %v", many, err)
		}
	}
}

func (r *run) files(t *testing.T) {
	r.write(t, "/written", "by a command")
	r.keeps(t, "/written", "by a command")
	if !r.System {
		return
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "sub/file", Mode: 0o640, Size: 7}))
	_, err := w.Write([]byte("content"))
	must(t, err)
	must(t, w.Close())
	must(t, node.Push(t.Context(), r.node, "/pushed/here", &b))
	if got := r.output(t, "stat", "-c", "%a %s %U", "/pushed/here/sub/file"); got != "640 7 root\n" {
		t.Errorf("pushed: %q", got)
	}
	b.Reset()
	must(t, node.Pull(t.Context(), r.node, "/pushed/here/sub/file", &b))
	got := tar.NewReader(&b)
	h, err := got.Next()
	must(t, err)
	content, err := io.ReadAll(got)
	must(t, err)
	if h.Name != "pushed/here/sub/file" || string(content) != "content" {
		t.Errorf("pulled: %s %q", h.Name, content)
	}
}

func (r *run) changed(t *testing.T) {
	r.spec.Identity = r.identity(r.spec.NICs, "192.0.2.8 net")
	if !r.Machine {
		r.spec.CPUs, r.spec.Memory = 0.5, 512<<20
	}
	must(t, r.p.CreateNode(t.Context(), r.spec))
	if hosts := r.output(t, "cat", "/etc/hosts"); !strings.Contains(hosts, "192.0.2.8 net") {
		t.Errorf("hosts: %q", hosts)
	}
	r.asPlanned(t)
	r.keeps(t, "/marker", "first")
}

func (r *run) states(t *testing.T) {
	if r.System {
		r.write(t, r.spec.Mounts[0].Path+"/kept", "on the volume")
	}
	if pauser, ok := r.p.(provisioners.Pauser); ok {
		for range 2 {
			must(t, pauser.Pause(t.Context(), r.spec.Name))
			r.is(t, provisioners.Paused)
		}
		r.start(t)
	}
	for range 2 {
		must(t, r.p.Stop(t.Context(), r.spec.Name))
		r.is(t, provisioners.Stopped)
	}
	if err := r.node.Run(t.Context(), node.Cmd{Args: []string{"cat", "/marker"}}); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a command on a stopped node: %v", err)
	}
	if r.Machine { // a size that a running machine cannot have at once
		r.spec.Memory += 128 << 20
	}
	must(t, r.p.CreateNode(t.Context(), r.spec)) // starts it
	r.is(t, provisioners.Running)
	r.asPlanned(t)
	if killer, ok := r.p.(provisioners.Killer); ok {
		must(t, killer.Kill(t.Context(), r.spec.Name))
		r.is(t, provisioners.Stopped)
		r.start(t)
		r.asPlanned(t)
	}
	r.keeps(t, "/marker", "first")
	if r.System {
		r.keeps(t, r.spec.Mounts[0].Path+"/kept", "on the volume")
	}
}

func (r *run) cable(t *testing.T) {
	unplugger, ok := r.p.(provisioners.Unplugger)
	if !ok || !r.System {
		t.Skip("there is none, or nothing to see it by")
	}
	carrier := func(want string) {
		t.Helper()
		must(t, node.Wait(t.Context(), "the carrier to be "+want, 30*time.Second, func(ctx context.Context) (bool, error) {
			got, err := node.Output(ctx, r.node, "cat", "/sys/class/net/net1/carrier")
			return strings.TrimSpace(string(got)) == want, err
		}))
	}
	for range 2 {
		must(t, unplugger.Unplug(t.Context(), r.spec.Name, r.spec.NICs[1]))
	}
	carrier("0")
	for range 2 {
		must(t, unplugger.Plug(t.Context(), r.spec.Name, r.spec.NICs[1]))
	}
	carrier("1")
}

func (r *run) console(t *testing.T) {
	consoler, ok := r.p.(provisioners.Consoler)
	if !ok {
		t.Skip("there is none")
	}
	r.output(t, "sh", "-c", "echo a line for the console >/dev/console")
	must(t, node.Wait(t.Context(), "the line to come out", 30*time.Second, func(ctx context.Context) (bool, error) {
		var b bytes.Buffer
		err := consoler.Console(ctx, r.spec.Name, &b)
		return strings.Contains(b.String(), "a line for the console"), err
	}))
}

func (r *run) snapshot(t *testing.T) {
	snapshotter, ok := r.p.(provisioners.Snapshotter)
	if !ok {
		t.Skip("there is none")
	}
	must(t, snapshotter.Snapshot(t.Context(), r.spec.Name, "before"))
	names, err := snapshotter.Snapshots(t.Context(), r.spec.Name)
	if err != nil || fmt.Sprint(names) != "[before]" {
		t.Errorf("snapshots: %v, %v", names, err)
	}
	r.write(t, "/marker", "second")
	must(t, snapshotter.Restore(t.Context(), r.spec.Name, "before"))
	r.is(t, provisioners.Running)
	r.keeps(t, "/marker", "first")
	for range 2 {
		must(t, snapshotter.DeleteSnapshot(t.Context(), r.spec.Name, "before"))
	}
	if err := snapshotter.Restore(t.Context(), r.spec.Name, "before"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a snapshot that is not there: %v", err)
	}
}

func (r *run) replaced(t *testing.T) {
	r.spec.NICs = r.spec.NICs[:1]
	r.spec.Identity = r.identity(r.spec.NICs, "192.0.2.8 net")
	must(t, r.p.CreateNode(t.Context(), r.spec))
	r.asPlanned(t)
	if _, err := node.Output(t.Context(), r.node, "cat", "/marker"); err == nil {
		t.Error("a node with a NIC less is the old one")
	}
	if r.System {
		r.keeps(t, r.spec.Mounts[0].Path+"/kept", "on the volume")
	}
}

func (r *run) notThere(t *testing.T) {
	if err := r.p.Start(t.Context(), r.name("none")); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("start of a node that is not there: %v", err)
	}
	if state, err := r.p.State(t.Context(), r.name("none")); err != nil || state != provisioners.Absent {
		t.Errorf("state of a node that is not there: %s, %v", state, err)
	}
	if err := r.p.Node(r.name("none"), "none").Run(t.Context(), node.Cmd{Args: []string{"cat"}}); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a command on a node that is not there: %v", err)
	}
	missing := r.spec
	missing.Name, missing.Image = r.name("net"), "toastdev/no-such-image:1"
	if err := r.p.CreateNode(t.Context(), missing); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("create of an image that is not there: %v", err)
	}
	things, err := r.p.Owned(t.Context(), r.Owner)
	if err != nil || len(things) != 4 {
		t.Errorf("after that there are %v, %v", things, err)
	}
}

func (r *run) removed(t *testing.T) {
	things, err := r.p.Owned(t.Context(), r.Owner)
	must(t, err)
	var kinds []string
	for _, thing := range things {
		kinds = append(kinds, string(thing.Kind))
	}
	if fmt.Sprint(kinds) != "[node network network volume]" {
		t.Errorf("owned: %v", things)
	}
	for range 2 {
		for _, thing := range things {
			must(t, provisioners.Delete(t.Context(), r.p, r.Owner, thing))
			if exists, err := r.p.Exists(t.Context(), r.Owner, thing.Kind, thing.Name); err != nil || exists {
				t.Errorf("%s is still there: %v", thing, err)
			}
		}
	}
	for _, n := range r.networks {
		if _, err := net.InterfaceByName(n.Bridge); err == nil {
			t.Errorf("the bridge %s is still there", n.Bridge)
		}
	}
	if things, err := r.p.Owned(t.Context(), r.Owner); err != nil || len(things) != 0 {
		t.Errorf("still there: %v, %v", things, err)
	}
}

// removeAll is for a test that did not come to its end.
func (r *run) removeAll(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	things, err := r.p.Owned(ctx, r.Owner)
	if err != nil {
		t.Error(err)
	}
	for _, thing := range things {
		if err := provisioners.Delete(ctx, r.p, r.Owner, thing); err != nil {
			t.Error(err)
		}
	}
}

func (r *run) is(t *testing.T, want provisioners.State) {
	t.Helper()
	if state, err := r.p.State(t.Context(), r.spec.Name); err != nil || state != want {
		t.Errorf("state %s, want %s, %v", state, want, err)
	}
}

func (r *run) start(t *testing.T) {
	t.Helper()
	began := time.Now()
	must(t, r.p.Start(t.Context(), r.spec.Name))
	t.Logf("started in %s", time.Since(began).Round(100*time.Millisecond))
	r.is(t, provisioners.Running)
}

func (r *run) output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := node.Output(t.Context(), r.node, args...)
	must(t, err)
	return string(out)
}

func (r *run) write(t *testing.T, path, content string) {
	t.Helper()
	_, err := node.Input(t.Context(), r.node, []byte(content), "tee", path)
	must(t, err)
	if r.System { // a power cut keeps what was written out
		r.output(t, "sync")
	}
}

func (r *run) keeps(t *testing.T, path, content string) {
	t.Helper()
	if got := r.output(t, "cat", path); got != content {
		t.Errorf("%s holds %q, want %q", path, got, content)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, err error) {
	t.Helper()
	if fault.CodeOf(err) != fault.Busy {
		t.Errorf("not refused to another owner: %v", err)
	}
}

// freeSubnet is a /24 that no address of this machine is in.
func freeSubnet(t *testing.T, n int) netip.Prefix {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 250 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, byte((n*80 + os.Getpid() + i) % 250), 0}), 24)
		free := true
		for _, a := range addresses {
			if used, err := netip.ParsePrefix(a.String()); err == nil && used.Overlaps(p) {
				free = false
			}
		}
		if free {
			return p
		}
	}
	t.Skip("no free subnet")
	return netip.Prefix{}
}

func at(p netip.Prefix, host byte) netip.Addr {
	a := p.Addr().As4()
	a[3] = host
	return netip.AddrFrom4(a)
}
