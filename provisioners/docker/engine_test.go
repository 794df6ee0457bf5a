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
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"

	"github.com/toast-cloud/toastdev/internal/host"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/conformance"
)

// testHome is no home's id.
const testHome = "test"

// engine is a provisioner of the engine of this machine, an image that its nodes can be made of, and an owner whose
// things are removed at the end. Without an engine the test is skipped.
func engine(t *testing.T) (*Provisioner, string, provisioners.Owner) {
	t.Helper()
	p, err := New(Options{
		Capabilities: []string{"NET_ADMIN"},
		Boot: func(ctx context.Context, n node.Node) error {
			return node.Wait(ctx, "a command to run", 20*time.Second, func(ctx context.Context) (bool, error) {
				_, err := node.Output(ctx, n, "printenv", "container")
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
	owner := provisioners.Owner{Environment: fmt.Sprintf("tdtest%d", os.Getpid()), Home: testHome}
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
	for _, link := range []string{"bin/tee", "bin/cat", "bin/say", "bin/printenv", "bin/sleep", entrypoint[1:]} {
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

// left is what there is of containers, networks and volumes, and of their interfaces on this host.
func left(p *Provisioner) func(t *testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		// Of other regions nothing is asked: they may come and go meanwhile.
		var list []string
		for _, home := range []string{testHome, "ffffffff"} {
			for _, lister := range []func(context.Context, filters.Args) ([]provisioners.Thing, error){p.listNodes, p.listNetworks, p.listVolumes} {
				things, err := lister(t.Context(), filters.NewArgs(filters.Arg("label", labelHome+"="+home)))
				must(t, err)
				list = append(list, fmt.Sprint(things))
			}
		}
		links, err := filepath.Glob(fmt.Sprintf("/sys/class/net/td-t%d*", os.Getpid()%100000))
		must(t, err)
		return strings.Join(append(list, links...), "\n")
	}
}

func TestARealEngineKeepsTheContract(t *testing.T) {
	p, img, owner := engine(t)
	conformance.Run(t, conformance.Suite{Provisioner: p, Owner: owner, Image: img, Left: left(p)})
}

func TestARealEngineKeepsTheContractWithARealNode(t *testing.T) {
	if testing.Short() {
		t.Skip("it boots containers")
	}
	p, err := New(Options{Capabilities: host.Look(t.Context(), t.TempDir()).Capabilities})
	must(t, err)
	if err := p.Check(t.Context()); err != nil {
		t.Skipf("no container engine to test with: %v", err)
	}
	images, err := p.client.ImageList(t.Context(), image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", "toastdev/node-*"))})
	must(t, err)
	i := slices.IndexFunc(images, func(i image.Summary) bool { return len(i.RepoTags) > 0 })
	if i < 0 {
		t.Skip("the engine has no node image: toastdev image build")
	}
	conformance.Run(t, conformance.Suite{
		Provisioner: p, Owner: provisioners.Owner{Environment: fmt.Sprintf("tdreal%d", os.Getpid()), Home: testHome},
		Image: images[i].RepoTags[0], System: true, Left: left(p),
	})
}

func TestTheEngineHasWhatWasAskedForAndChangesLimitsInPlace(t *testing.T) {
	p, img, owner := engine(t)
	ctx := t.Context()
	name := func(s string) string { return owner.Environment + "-" + s }
	var nics []provisioners.NIC
	for i := range byte(2) {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 214, byte(os.Getpid()%100)*2 + i, 0}), 24)
		at := func(host byte) netip.Addr { a := subnet.Addr().As4(); a[3] = host; return netip.AddrFrom4(a) }
		n := provisioners.Network{
			Owner: owner, Name: name(fmt.Sprint("net", i)), Bridge: fmt.Sprintf("td-u%d%d", os.Getpid()%100000, i), Subnet: subnet, Gateway: at(1), MTU: 1500, Internal: i == 1,
		}
		must(t, p.CreateNetwork(ctx, n))
		if b, err := net.InterfaceByName(n.Bridge); os.Getenv("DOCKER_HOST") == "" && (err != nil || b.Name != n.Bridge) {
			t.Errorf("the bridge on the host: %v, %v", b, err)
		}
		a := at(10).As4()
		nics = append(nics, provisioners.NIC{Network: n.Name, Address: at(10), MAC: fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])})
	}
	spec := provisioners.Node{Owner: owner, Name: name("ctl"), Hostname: "ctl", Image: img, Identity: "hostname ctl\n", NICs: nics}
	must(t, p.CreateNode(ctx, spec))
	made := inspect(t, p, spec.Name)
	for _, nic := range spec.NICs {
		at := made.NetworkSettings.Networks[nic.Network]
		if at == nil || at.IPAddress != nic.Address.String() || at.MacAddress != nic.MAC {
			t.Errorf("on %s: %+v, want %+v", nic.Network, at, nic)
		}
	}

	changed := spec
	changed.CPUs, changed.Memory = 0.5, 512<<20
	must(t, p.CreateNode(ctx, changed))
	now := inspect(t, p, spec.Name)
	if now.ID != made.ID || now.HostConfig.NanoCPUs != 5e8 || now.HostConfig.Memory != 512<<20 {
		t.Errorf("limits: %d, %d, another container: %t", now.HostConfig.NanoCPUs, now.HostConfig.Memory, now.ID != made.ID)
	}
	must(t, p.CreateNode(ctx, spec)) // no limit again
	changed.NICs = changed.NICs[:1]
	must(t, p.CreateNode(ctx, changed))
	if now := inspect(t, p, spec.Name); now.ID == made.ID || len(now.NetworkSettings.Networks) != 1 {
		t.Errorf("a NIC less: %d networks, the same container: %t", len(now.NetworkSettings.Networks), now.ID == made.ID)
	}
	must(t, p.Pause(ctx, spec.Name)) // a node that is frozen can be stopped
	must(t, p.Stop(ctx, spec.Name))
	if state, err := p.State(ctx, spec.Name); err != nil || state != provisioners.Stopped {
		t.Errorf("state %s, %v", state, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func inspect(t *testing.T, p *Provisioner, name string) container.InspectResponse {
	t.Helper()
	c, err := p.client.ContainerInspect(t.Context(), name)
	must(t, err)
	return c
}
