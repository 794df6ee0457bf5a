package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners"
)

// engine is a provisioner of the engine of this machine, an image that its nodes can be made of, and an owner whose
// things are removed at the end. Without an engine the test is skipped.
func engine(t *testing.T) (*Provisioner, string, provisioners.Owner) {
	t.Helper()
	p, err := New(Options{
		Capabilities: []string{"NET_ADMIN"},
		Boot: func(ctx context.Context, n node.Node) error {
			return node.Wait(ctx, "a command to run", 20*time.Second, func(ctx context.Context) (bool, error) {
				_, err := node.Output(ctx, n, "env", "container")
				return err == nil, err
			})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(t.Context()); err != nil {
		t.Skipf("no container engine to test with: %v", err)
	}
	owner := provisioners.Owner{Environment: fmt.Sprintf("tdtest%d", os.Getpid()), Home: "test"}
	name := owner.Environment + ":1"
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		things, err := p.Owned(ctx, owner)
		if err != nil {
			t.Error(err)
		}
		for _, thing := range things {
			if err := provisioners.Delete(ctx, p, owner, thing); err != nil {
				t.Error(err)
			}
		}
		if _, err := p.client.ImageRemove(ctx, name, image.RemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
	importImage(t, p, name)
	return p, name, owner
}

func importImage(t *testing.T, p *Provisioner, name string) {
	t.Helper()
	busy := filepath.Join(t.TempDir(), "busy")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", busy, "./testdata/busy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(busy)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := errors.Join(w.WriteHeader(&h), func() error { _, err := w.Write(data); return err }()); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busy", Mode: 0o755}, program)
	for _, link := range []string{"bin/tee", "bin/cat", "bin/say", "bin/env", "bin/sleep", entrypoint[1:]} {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: link, Linkname: "/bin/busy", Mode: 0o777}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := p.client.ImageImport(t.Context(), image.ImportSource{Source: &b, SourceName: "-"}, name, image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := new(bytes.Buffer).ReadFrom(r); err != nil {
		t.Fatal(err)
	}
}

// freeSubnet is a /24 that no route of this machine covers.
func freeSubnet(t *testing.T, n int) netip.Prefix {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 250 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, byte((n*80 + i) % 250), 0}), 24)
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

func TestARealEngineKeepsTheContract(t *testing.T) {
	p, img, owner := engine(t)
	ctx := t.Context()
	other := provisioners.Owner{Environment: owner.Environment, Home: "another"}
	name := func(s string) string { return owner.Environment + "-" + s }

	// Networks and volumes: created once, adopted, refused to others.
	var networks []provisioners.Network
	for i, s := range []string{"management", "storage"} {
		subnet := freeSubnet(t, i)
		networks = append(networks, provisioners.Network{
			Owner: owner, Name: name(s), Bridge: fmt.Sprintf("td-t%d%d", os.Getpid()%100000, i), Subnet: subnet, Gateway: at(subnet, 1),
			MTU: 1600 - 100*i, Internal: i == 1,
		})
	}
	volume := provisioners.Volume{Owner: owner, Name: name("nas")}
	for range 2 {
		for _, n := range networks {
			must(t, p.CreateNetwork(ctx, n))
		}
		must(t, p.CreateVolume(ctx, volume))
	}
	if b, err := net.InterfaceByName(networks[0].Bridge); os.Getenv("DOCKER_HOST") == "" && (err != nil || b.Name != networks[0].Bridge) {
		t.Errorf("the bridge on the host: %v, %v", b, err)
	}
	stolen := networks[0]
	stolen.Owner = other
	refused(t, p.CreateNetwork(ctx, stolen))
	refused(t, p.CreateVolume(ctx, provisioners.Volume{Owner: other, Name: volume.Name}))

	// A node on both, with addresses, MACs, a volume and its identity.
	spec := provisioners.Node{
		Owner: owner, Name: name("ctl"), Hostname: "ctl", Image: img,
		Identity: "hostname ctl\nhost 192.0.2.7 net\n", Mounts: []provisioners.Mount{{Volume: volume.Name, Path: "/srv"}},
	}
	for _, n := range networks {
		a := at(n.Subnet, 10).As4()
		spec.NICs = append(spec.NICs, provisioners.NIC{
			Network: n.Name, Address: netip.AddrFrom4(a), MAC: fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3]),
		})
	}
	must(t, p.CreateNode(ctx, spec))
	made := inspect(t, p, spec.Name)
	for _, nic := range spec.NICs {
		at := made.NetworkSettings.Networks[nic.Network]
		if at == nil || at.IPAddress != nic.Address.String() || at.MacAddress != nic.MAC {
			t.Errorf("on %s: %+v, want %+v", nic.Network, at, nic)
		}
	}
	n := p.Node(spec.Name, spec.Hostname)
	if got := output(t, n, "cat", "/etc/toastdev/identity"); got != spec.Identity {
		t.Errorf("identity %q", got)
	}
	stolenNode := spec
	stolenNode.Owner = other
	refused(t, p.CreateNode(ctx, stolenNode))
	must(t, p.DeleteNode(ctx, other, spec.Name))
	if state, err := p.State(ctx, spec.Name); err != nil || state != provisioners.Running {
		t.Errorf("another owner deleted the node: %s, %v", state, err)
	}

	// Commands.
	var stdout, stderr bytes.Buffer
	err := n.Run(ctx, node.Cmd{Args: []string{"say", "out", "err", "3"}, Stdout: &stdout, Stderr: &stderr})
	var exit *node.ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || stdout.String() != "out" || stderr.String() != "err" {
		t.Errorf("say: %v, %q, %q", err, &stdout, &stderr)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if out, err := node.Input(ctx, n, big, "cat"); err != nil || !bytes.Equal(out, big) {
		t.Errorf("cat gave %d bytes back, %v", len(out), err)
	}
	stdout.Reset()
	must(t, n.Run(ctx, node.Cmd{Args: []string{"env", "GREETING"}, Env: []string{"GREETING=hello"}, Stdout: &stdout, TTY: true}))
	if stdout.String() != "hello" {
		t.Errorf("on a terminal: %q", &stdout)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := n.Run(short, node.Cmd{Args: []string{"sleep"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("sleep: %v", err)
	}

	// What can change in place does; what cannot, by a new container.
	changed := spec
	changed.CPUs, changed.Memory = 0.5, 512<<20
	changed.Identity = "hostname ctl\nhost 192.0.2.8 net\n"
	must(t, p.CreateNode(ctx, changed))
	now := inspect(t, p, spec.Name)
	if now.ID != made.ID || now.HostConfig.NanoCPUs != 5e8 || now.HostConfig.Memory != 512<<20 {
		t.Errorf("limits: %d, %d, another container: %t", now.HostConfig.NanoCPUs, now.HostConfig.Memory, now.ID != made.ID)
	}
	if hosts := output(t, n, "cat", "/etc/hosts"); !strings.Contains(hosts, "192.0.2.8 net") {
		t.Errorf("hosts: %q", hosts)
	}
	must(t, p.CreateNode(ctx, spec)) // no limit again
	changed.NICs = changed.NICs[:1]
	must(t, p.CreateNode(ctx, changed))
	if now := inspect(t, p, spec.Name); now.ID == made.ID || len(now.NetworkSettings.Networks) != 1 {
		t.Errorf("a NIC less: %d networks, the same container: %t", len(now.NetworkSettings.Networks), now.ID == made.ID)
	}

	// Its states.
	for _, test := range []struct {
		do   func(context.Context, string) error
		want provisioners.State
	}{
		{p.Pause, provisioners.Paused}, {p.Pause, provisioners.Paused}, {p.Start, provisioners.Running},
		{p.Stop, provisioners.Stopped}, {p.Start, provisioners.Running}, {p.Pause, provisioners.Paused},
		{p.Stop, provisioners.Stopped}, {p.Start, provisioners.Running}, {p.Kill, provisioners.Stopped},
	} {
		must(t, test.do(ctx, spec.Name))
		if state, err := p.State(ctx, spec.Name); err != nil || state != test.want {
			t.Errorf("state %s, want %s, %v", state, test.want, err)
		}
	}
	must(t, p.CreateNode(ctx, changed))
	if state, _ := p.State(ctx, spec.Name); state != provisioners.Running {
		t.Errorf("create of a stopped node leaves it %s", state)
	}
	if err := p.Start(ctx, name("none")); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("start of a node that is not there: %v", err)
	}
	missing := spec
	missing.Name, missing.Image = name("net"), "toastdev/no-such-image:1"
	if err := p.CreateNode(ctx, missing); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("create of an image that is not there: %v", err)
	}

	// All that is ours is found by its labels and can be deleted in that order, twice.
	things, err := p.Owned(ctx, owner)
	if err != nil || fmt.Sprint(things) != fmt.Sprintf("[node/%s network/%s network/%s volume/%s]", spec.Name, networks[0].Name, networks[1].Name, volume.Name) &&
		fmt.Sprint(things) != fmt.Sprintf("[node/%s network/%s network/%s volume/%s]", spec.Name, networks[1].Name, networks[0].Name, volume.Name) {
		t.Errorf("owned: %v, %v", things, err)
	}
	for range 2 {
		for _, thing := range things {
			must(t, provisioners.Delete(ctx, p, owner, thing))
			if exists, err := p.Exists(ctx, owner, thing.Kind, thing.Name); err != nil || exists {
				t.Errorf("%s is still there: %v", thing, err)
			}
		}
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

func inspect(t *testing.T, p *Provisioner, name string) container.InspectResponse {
	t.Helper()
	c, err := p.client.ContainerInspect(t.Context(), name)
	must(t, err)
	return c
}

func output(t *testing.T, n node.Node, args ...string) string {
	t.Helper()
	out, err := node.Output(t.Context(), n, args...)
	must(t, err)
	return string(out)
}
