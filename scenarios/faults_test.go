package scenarios

import (
	"context"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/provisioners"
)

// nicOf is an interface of the nth node.
func nicOf(name, network string, n byte, extra ...string) plan.NIC {
	third := map[string]byte{"management": 1, "tunnel": 2, "external": 3, "storage": 4}[network]
	address := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, third, n}), 24)
	nic := plan.NIC{Name: name, Network: network, MAC: "02:42:0a:00:0" + string('0'+third) + ":" + string([]byte{'0' + n/10, '0' + n%10}), Addresses: []netip.Prefix{address}}
	for _, a := range extra {
		nic.Addresses = append(nic.Addresses, netip.MustParsePrefix(a))
	}
	return nic
}

func brokenPlan() *plan.Plan {
	return &plan.Plan{
		Environment: "mini",
		Networks:    []plan.Network{{Name: "management", Resource: "mini-kr1-management"}, {Name: "tunnel"}, {Name: "external"}, {Name: "storage"}},
		Nodes: []plan.Node{
			{Name: "ctl", Resource: "mini-kr1-ctl", Roles: []string{"control"}, NICs: []plan.NIC{nicOf("mgmt0", "management", 10, "10.0.1.5/24"), nicOf("sto0", "storage", 10)}},
			{Name: "net", Resource: "mini-kr1-net", Roles: []string{"network"}, NICs: []plan.NIC{nicOf("mgmt0", "management", 20), nicOf("tun0", "tunnel", 20)}},
			{Name: "cmp1", Resource: "mini-kr1-cmp1", Roles: []string{"compute"}, NICs: []plan.NIC{nicOf("mgmt0", "management", 31), nicOf("tun0", "tunnel", 31), nicOf("sto0", "storage", 31)}},
		},
	}
}

func TestAPartitionAsALineHasIt(t *testing.T) {
	for line, want := range map[string]*split{
		"cmp1 from ctl":                       {left: []string{"cmp1"}, right: []string{"ctl"}},
		"cmp1 net from ctl on management":     {left: []string{"cmp1", "net"}, right: []string{"ctl"}, on: []string{"management"}},
		"cmp1 from rest on management tunnel": {left: []string{"cmp1"}, right: []string{"rest"}, on: []string{"management", "tunnel"}},
		"heal":                                nil,
		"cmp1":                                nil,
		"from ctl":                            nil,
		"cmp1 from":                           nil,
		"cmp1 from ctl on":                    nil,
		"cmp1 from on management":             nil,
		"cmp1 from ctl on external":           nil,
	} {
		got, err := parseSplit(strings.Fields(line))
		if want == nil {
			if (err == nil) != (line == "heal") || got != nil {
				t.Errorf("%q: %+v, %v", line, got, err)
			}
			continue
		}
		if err != nil || !slices.Equal(got.left, want.left) || !slices.Equal(got.right, want.right) || !slices.Equal(got.on, want.on) {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
}

func TestBothSidesDropWhatTheySend(t *testing.T) {
	p := brokenPlan()
	all, err := cuts(p, &split{left: []string{"cmp1"}, right: []string{"rest"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"cmp1": `table netdev toastdev_partition
delete table netdev toastdev_partition
table netdev toastdev_partition {
	chain mgmt0 {
		type filter hook egress device "mgmt0" priority 0; policy accept;
		ether daddr { 02:42:0a:00:01:10, 02:42:0a:00:01:20 } drop
		ip daddr { 10.0.1.5, 10.0.1.10, 10.0.1.20 } drop
		arp daddr ip { 10.0.1.5, 10.0.1.10, 10.0.1.20 } drop
	}
	chain tun0 {
		type filter hook egress device "tun0" priority 0; policy accept;
		ether daddr { 02:42:0a:00:02:20 } drop
		ip daddr { 10.0.2.20 } drop
		arp daddr ip { 10.0.2.20 } drop
	}
	chain sto0 {
		type filter hook egress device "sto0" priority 0; policy accept;
		ether daddr { 02:42:0a:00:04:10 } drop
		ip daddr { 10.0.4.10 } drop
		arp daddr ip { 10.0.4.10 } drop
	}
}
`,
		"net": `table netdev toastdev_partition
delete table netdev toastdev_partition
table netdev toastdev_partition {
	chain mgmt0 {
		type filter hook egress device "mgmt0" priority 0; policy accept;
		ether daddr { 02:42:0a:00:01:31 } drop
		ip daddr { 10.0.1.31 } drop
		arp daddr ip { 10.0.1.31 } drop
	}
	chain tun0 {
		type filter hook egress device "tun0" priority 0; policy accept;
		ether daddr { 02:42:0a:00:02:31 } drop
		ip daddr { 10.0.2.31 } drop
		arp daddr ip { 10.0.2.31 } drop
	}
}
`,
	} {
		if got := partitionRules(all[name]); got != want {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

func TestAPartitionAddsToThoseBefore(t *testing.T) {
	p := brokenPlan()
	one, err := cuts(p, &split{left: []string{"cmp1"}, right: []string{"ctl"}, on: []string{"management"}})
	if err != nil {
		t.Fatal(err)
	}
	two, err := cuts(p, &split{left: []string{"cmp1"}, right: []string{"net"}, on: []string{"management"}})
	if err != nil {
		t.Fatal(err)
	}
	text := partitionRules(append(one["cmp1"], two["cmp1"]...))
	if strings.Count(text, "chain ") != 1 || !strings.Contains(text, "ip daddr { 10.0.1.5, 10.0.1.10, 10.0.1.20 } drop") {
		t.Error(text)
	}
}

func TestAPartitionOfNobody(t *testing.T) {
	for _, s := range []*split{
		{left: []string{"cmp9"}, right: []string{"ctl"}},
		{left: []string{"cmp1"}, right: []string{"clt"}},
		{left: []string{"ctl"}, right: []string{"net"}, on: []string{"tunnel"}},
		{left: []string{"ctl"}, right: []string{"net"}, on: []string{"tunel"}},
	} {
		if _, err := cuts(brokenPlan(), s); err == nil {
			t.Errorf("%+v", s)
		}
	}
}

// recorder is a node that notes what it is to run, and the provisioner of all such.
type recorder struct {
	provisioners.Provisioner
	mu    sync.Mutex
	state map[string]provisioners.State
	ran   []string
	power []string
	out   string
}

type recording struct {
	*recorder
	name string
}

func (n recording) Name() string { return n.name }

func (n recording) Run(_ context.Context, cmd node.Cmd) error {
	line := n.name + ": " + strings.Join(cmd.Args, " ")
	if cmd.Stdin != nil {
		text, _ := io.ReadAll(cmd.Stdin)
		line += " <<< " + string(text)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ran = append(n.ran, line)
	if cmd.Stdout != nil {
		io.WriteString(cmd.Stdout, n.out)
	}
	return nil
}

func (p *recorder) State(_ context.Context, name string) (provisioners.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.state[name]; s != "" {
		return s, nil
	}
	return provisioners.Running, nil
}

func (p *recorder) change(verb, name string, to provisioners.State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.power = append(p.power, verb+" "+name)
	p.state[name] = to
	return nil
}

func (p *recorder) Kill(_ context.Context, name string) error {
	return p.change("kill", name, provisioners.Stopped)
}
func (p *recorder) Stop(_ context.Context, name string) error {
	return p.change("stop", name, provisioners.Stopped)
}
func (p *recorder) Start(_ context.Context, name string) error {
	return p.change("start", name, provisioners.Running)
}
func (p *recorder) Pause(_ context.Context, name string) error {
	return p.change("pause", name, provisioners.Paused)
}
func (p *recorder) Unplug(_ context.Context, name string, nic provisioners.NIC) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.power = append(p.power, "unplug "+name+" "+nic.Network+" "+nic.MAC)
	return nil
}
func (p *recorder) Plug(_ context.Context, name string, nic provisioners.NIC) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.power = append(p.power, "plug "+name+" "+nic.Network+" "+nic.MAC)
	return nil
}

func breaking() (*Run, *recorder) {
	p := &recorder{state: map[string]provisioners.State{}}
	w := &World{Plan: brokenPlan(), Scale: 1, Provisioner: func(*plan.Node) provisioners.Provisioner { return p },
		Node: func(name string) node.Node { return recording{p, name} }}
	return &Run{World: w, Name: "broken", ID: "abc123", things: map[thing]any{}}, p
}

// undoAll is what the runner does at a scenario's end.
func undoAll(t *testing.T, r *Run) {
	t.Helper()
	for _, u := range slices.Backward(r.undo) {
		if err := u.do(t.Context()); err != nil {
			t.Errorf("%s: %v", u.what, err)
		}
	}
	r.undo = nil
}

func TestANodeRunsAgainAtTheEnd(t *testing.T) {
	for _, verb := range []string{"kill", "stop", "pause"} {
		r, p := breaking()
		for range 2 {
			if err := r.power(t.Context(), verb, "cmp1"); err != nil {
				t.Fatal(err)
			}
		}
		undoAll(t, r)
		if want := []string{verb + " mini-kr1-cmp1", verb + " mini-kr1-cmp1", "start mini-kr1-cmp1"}; !slices.Equal(p.power, want) {
			t.Errorf("%v", p.power)
		}
		if !strings.HasPrefix(p.ran[0], "ctl: ") || !strings.Contains(p.ran[0], faultFolder+"/power-cmp1") {
			t.Errorf("another node keeps no note of it: %v", p.ran)
		}
	}
	r, _ := breaking()
	if err := r.power(t.Context(), "kill", "cpm1"); fault.CodeOf(err) != fault.NotFound || !strings.Contains(err.Error(), `write "cmp1"`) {
		t.Error(err)
	}
}

func TestWhatTheFencePoweredOffRunsAgainAtTheEnd(t *testing.T) {
	r, p := breaking()
	n, _ := r.World.Plan.Node("cmp1")
	if err := (&noted{p, r, n}).Kill(t.Context(), n.Resource); err != nil {
		t.Fatal(err)
	}
	undoAll(t, r)
	if want := []string{"kill mini-kr1-cmp1", "start mini-kr1-cmp1"}; !slices.Equal(p.power, want) {
		t.Errorf("%v", p.power)
	}
}

func TestACableIsPutBack(t *testing.T) {
	r, p := breaking()
	if err := r.cable(t.Context(), "unplug", "cmp1", "management"); err != nil {
		t.Fatal(err)
	}
	undoAll(t, r)
	if want := []string{"unplug mini-kr1-cmp1 mini-kr1-management 02:42:0a:00:01:31", "plug mini-kr1-cmp1 mini-kr1-management 02:42:0a:00:01:31"}; !slices.Equal(p.power, want) {
		t.Errorf("%v", p.power)
	}
	if err := r.cable(t.Context(), "unplug", "ctl", "tunnel"); fault.CodeOf(err) != fault.NotFound {
		t.Error(err)
	}
}

func TestWhatUndoesAFaultIsThereBeforeIt(t *testing.T) {
	r, p := breaking()
	if err := r.partition(t.Context(), &split{left: []string{"cmp1"}, right: []string{"ctl"}, on: []string{"management"}}); err != nil {
		t.Fatal(err)
	}
	var on []string
	for _, line := range p.ran {
		if strings.HasPrefix(line, "cmp1: ") {
			on = append(on, line)
		}
	}
	if len(on) != 2 || !strings.Contains(on[0], faultFolder+"/partition <<< nft -f -") || !strings.Contains(on[1], "ip daddr { 10.0.1.5, 10.0.1.10 } drop") {
		t.Fatalf("%q", on)
	}
	p.ran = nil
	if err := r.heal(t.Context()); err != nil || len(p.ran) != 2 {
		t.Errorf("%v, %q", err, p.ran)
	}
	p.ran = nil
	p.state["mini-kr1-cmp1"] = provisioners.Stopped
	undoAll(t, r)
	if slices.ContainsFunc(p.ran, func(line string) bool { return strings.HasPrefix(line, "cmp1: ") }) {
		t.Errorf("a node that does not run is asked to run something: %q", p.ran)
	}
}

func TestALinkWithoutNetemSkipsTheScenario(t *testing.T) {
	r, _ := breaking()
	err := r.link(t.Context(), "cmp1", "tunnel", netem{loss: "5%"})
	if err == nil || !strings.Contains(err.Error(), "skipped: the nodes' kernel has no netem") {
		t.Error(err)
	}
	cmp1, _ := r.World.Plan.Node("cmp1")
	cmp1.Provisioner = "libvirt" // its kernel has it
	if err := r.link(t.Context(), "cmp1", "tunnel", netem{loss: "5%"}); err != nil {
		t.Error(err)
	}
	if got := strings.Join((netem{delay: 100e6, loss: "5%", rate: "1mbit"}).args(), " "); got != "delay 100000us loss 5% rate 1mbit" {
		t.Error(got)
	}
}

func TestAKilledRunsFaultsAreUndone(t *testing.T) {
	r, p := breaking()
	p.state["mini-kr1-net"], p.state["mini-kr1-cmp1"] = provisioners.Paused, provisioners.Stopped
	p.out = "power-cmp1\nnic-mgmt0\n"
	if err := undoFaults(t.Context(), r.World); err != nil {
		t.Fatal(err)
	}
	slices.Sort(p.power)
	if want := []string{"plug mini-kr1-ctl mini-kr1-management 02:42:0a:00:01:10", "start mini-kr1-cmp1", "start mini-kr1-net"}; !slices.Equal(p.power, want) {
		t.Errorf("%v", p.power)
	}
}

// fillWith runs fillScript with commands of this test's in place of the system's, and returns what it says and the file's size.
func fillWith(t *testing.T, kind, source, options, virt string, size, avail int, leave string) (string, int64) {
	t.Helper()
	dir, bin := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"findmnt":             `case "$*" in *OPTIONS*) echo "` + options + `" ;; *) echo "` + kind + " " + source + `" ;; esac`,
		"df":                  `echo title; case "$*" in *output=size*) echo ` + strconv.Itoa(size) + ` ;; *) echo ` + strconv.Itoa(avail) + ` ;; esac`,
		"systemd-detect-virt": virt,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "fill")
	cmd := exec.Command("sh", "-euc", fillScript, "fill", dir, leave, file)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() != refused {
		t.Errorf("%v: %s", err, out)
	}
	info, err := os.Stat(file)
	if err != nil {
		return strings.TrimSpace(string(out)), 0
	}
	return strings.TrimSpace(string(out)), info.Size()
}

func TestOnlyAFilesystemOfTheNodesOwnIsFilled(t *testing.T) {
	const container, vm = "exit 0", "exit 1"
	for name, c := range map[string]struct {
		kind, source, options, virt string
		size                        int
		says                        string
		fills                       int64
	}{
		"a tmpfs with a size":    {"tmpfs", "none", "rw,size=512k", container, 512, "", 412 * 1024},
		"a loop device":          {"ext4", "/dev/loop3", "rw", container, 512, "", 412 * 1024},
		"a disk of a VM":         {"ext4", "/dev/vda1", "rw", vm, 512, "", 412 * 1024},
		"a tmpfs without a size": {"tmpfs", "tmpfs", "rw,nosuid", container, 512, "a tmpfs without size= is as large as half the host's memory", 0},
		"a huge tmpfs":           {"tmpfs", "tmpfs", "rw,size=2g", container, 2 << 20, "a tmpfs of more than 1 GiB takes too much of the host's memory", 0},
		"the root":               {"overlay", "overlay", "rw", container, 512, "overlay is not a filesystem of the node's own", 0},
		"the NAS":                {"fuse.sshfs", "nas:/srv", "rw", container, 512, "fuse.sshfs is not a filesystem of the node's own", 0},
		"a volume of the engine": {"ext4", "/dev/vda[/var/lib/docker/volumes/nas]", "rw", container, 512, "/dev/vda[/var/lib/docker/volumes/nas] is the host's disk", 0},
	} {
		t.Run(name, func(t *testing.T) {
			says, fills := fillWith(t, c.kind, c.source, c.options, c.virt, c.size, 512, "100K")
			if says != c.says || fills != c.fills {
				t.Errorf("says %q, fills %d", says, fills)
			}
		})
	}
}
