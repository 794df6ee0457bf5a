package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/conformance"
	"github.com/toast-cloud/toastdev/provisioners/vm"
)

// imageDisk is a VM image's disk: TOASTDEV_TEST_VM_DISK's, else the newest in the user's home.
func imageDisk(t testing.TB) string {
	t.Helper()
	if disk := os.Getenv("TOASTDEV_TEST_VM_DISK"); disk != "" {
		return disk
	}
	home := os.Getenv("TOASTDEV_HOME")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		home = filepath.Join(user, ".toastdev")
	}
	disks, err := filepath.Glob(filepath.Join(home, "images", "vm-*", "disk.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	if len(disks) == 0 {
		t.Skip("no VM image to test with: build one (toastdev image build --for libvirt), or name its disk in TOASTDEV_TEST_VM_DISK")
	}
	return slices.MaxFunc(disks, func(a, b string) int { return built(t, a).Compare(built(t, b)) })
}

func built(t testing.TB, file string) time.Time {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// daemon is a provisioner of this machine's daemon, with an image of that disk. Without a daemon the test is skipped.
func daemon(t testing.TB, disk string) (p *Provisioner, image string) {
	t.Helper()
	key := conformance.Key(t)
	images := t.TempDir()
	image = "vm-test"
	if err := os.Mkdir(filepath.Join(images, image), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(disk, filepath.Join(images, image, "disk.qcow2")); err != nil {
		t.Fatal(err)
	}
	p = New(Options{Images: images, Key: func(string) (vm.Key, error) { return key, nil }})
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Check(t.Context()); err != nil {
		t.Skipf("no libvirt to test with: %v", err)
	}
	return p, image
}

// testOwner is of a home that nobody else has.
func testOwner() provisioners.Owner {
	return provisioners.Owner{Environment: fmt.Sprintf("tdtest%d", os.Getpid()), Home: fmt.Sprintf("%08x", os.Getpid())}
}

// left is what there is, of the test's owner and interfaces alone: other regions come and go meanwhile.
func left(p *Provisioner) func(t testing.TB) string {
	return func(t testing.TB) string {
		t.Helper()
		var list []string
		c, err := p.connection()
		must(t, err)
		domains, err := c.ListAllDomains(0)
		must(t, err)
		for _, d := range domains {
			name, _ := d.GetName()
			list = append(list, "domain "+name)
			_ = d.Free()
		}
		networks, err := c.ListAllNetworks(0)
		must(t, err)
		for _, n := range networks {
			name, _ := n.GetName()
			list = append(list, "network "+name)
			_ = n.Free()
		}
		pools, err := c.ListAllStoragePools(0)
		must(t, err)
		for _, pool := range pools {
			name, _ := pool.GetName()
			list = append(list, "pool "+name)
			_ = pool.Free()
		}
		for _, pattern := range []string{"/var/lib/libvirt/images/*", "/var/lib/libvirt/qemu/*", "/var/lib/libvirt/qemu/*/*", "/var/lib/libvirt/dnsmasq/*", "/var/log/libvirt/qemu/*", "/run/libvirt/*/*", "/sys/class/net/td-t*"} {
			found, err := filepath.Glob(pattern)
			must(t, err)
			list = append(list, found...)
		}
		o := testOwner()
		list = slices.DeleteFunc(list, func(s string) bool {
			return !strings.Contains(s, o.Environment) && !strings.Contains(s, o.Home) && !strings.Contains(s, fmt.Sprintf("td-t%d", os.Getpid()%100000))
		})
		slices.Sort(list)
		return strings.Join(list, "\n")
	}
}

func TestARealDaemonKeepsTheContract(t *testing.T) {
	if testing.Short() {
		t.Skip("it boots machines")
	}
	p, image := daemon(t, imageDisk(t))
	conformance.Run(t, conformance.Suite{
		Provisioner: p, Owner: testOwner(), Image: image, System: true, Machine: true, Left: left(p),
	})
}

// emptyImage is a disk that nothing boots from.
func emptyImage(t *testing.T) string {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "empty.qcow2")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=full", disk, "8M").CombinedOutput(); err != nil {
		t.Skipf("no qemu-img to make an image with: %v: %s", err, out)
	}
	return disk
}

func TestWhatAKilledRunLeftOnARealDaemonIsReplaced(t *testing.T) {
	disk := emptyImage(t)
	p, image := daemon(t, disk)
	before := left(p)(t)
	n := compute()
	n.Owner, n.Image, n.NICs, n.Mounts = testOwner(), image, nil, nil
	n.Disk = 16 << 20
	t.Cleanup(func() { must(t, p.DeleteNode(context.WithoutCancel(t.Context()), n.Owner, n.Name)) })
	info, err := os.Stat(disk)
	must(t, err)

	// Killed while the image was uploaded, and, in another life, before the domain was defined.
	must(t, p.do(t.Context(), "leave halves", func(c *libvirt.Connect) error {
		pool, err := p.makePool(c, n.Home)
		if err != nil {
			return err
		}
		defer pool.Free()
		half := make([]byte, info.Size()/2)
		for _, name := range []string{image + baseImage, part{n.Environment, n.Name, systemDisk}.String()} {
			if _, err := upload(t.Context(), c, pool, name, bytes.NewReader(half), int64(len(half))); err != nil {
				return err
			}
		}
		return nil
	}))
	if got := owned(t, p, n.Owner); got != "[node/"+n.Name+"]" {
		t.Errorf("owned: %s", got)
	}
	made := func() { must(t, p.exclusive(t.Context(), func() error { return p.makeNode(t.Context(), n) })) }
	made()
	base, err := os.Stat(filepath.Join("/var/lib/libvirt/images", poolPrefix+n.Home, image+baseImage))
	if err != nil || base.Size() != info.Size() {
		t.Errorf("the image has %d bytes of %d, %v", base.Size(), info.Size(), err)
	}
	if exists, err := p.Exists(t.Context(), n.Owner, provisioners.KindNode, n.Name); err != nil || !exists {
		t.Errorf("the node is not there: %v", err)
	}
	small := n
	small.Disk = 4 << 20
	if err := p.makeNode(t.Context(), small); fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), "smaller than its image") {
		t.Errorf("a disk that is too small: %v", err)
	}
	made() // in place of the one that is there; the image stays as it is
	again, err := os.Stat(filepath.Join("/var/lib/libvirt/images", poolPrefix+n.Home, image+baseImage))
	if err != nil || !os.SameFile(base, again) || !again.ModTime().Equal(base.ModTime()) {
		t.Errorf("the image was uploaded again: %v", err)
	}

	// Another node of the image keeps it.
	other := n
	other.Name, other.Hostname = n.Name+"b", "cmp3"
	must(t, p.exclusive(t.Context(), func() error { return p.makeNode(t.Context(), other) }))
	must(t, p.DeleteNode(t.Context(), n.Owner, other.Name))
	if _, err := os.Stat(filepath.Join("/var/lib/libvirt/images", poolPrefix+n.Home, image+baseImage)); err != nil {
		t.Errorf("the image went with one of two: %v", err)
	}
	must(t, p.DeleteNode(t.Context(), n.Owner, n.Name))
	if after := left(p)(t); after != before {
		t.Errorf("something stays behind; before:\n%s\nafter:\n%s", before, after)
	}
}

func TestAnUploadThatIsCancelledLeavesNoFile(t *testing.T) {
	p, _ := daemon(t, emptyImage(t))
	o := testOwner()
	must(t, p.do(t.Context(), "upload", func(c *libvirt.Connect) error {
		pool, err := p.makePool(c, o.Home)
		if err != nil {
			return err
		}
		defer pool.Free()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := upload(ctx, c, pool, "x", bytes.NewReader(make([]byte, 1<<20)), 1<<20); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		return prune(pool)
	}))
}

// BenchmarkANodeIsMadeAndRemoved is from nothing, no pool and no network, to a machine that has booted, and back;
// -benchtime 5x does it five times.
func BenchmarkANodeIsMadeAndRemoved(b *testing.B) {
	p, image := daemon(b, imageDisk(b))
	o := testOwner()
	subnet := netip.MustParsePrefix("10.215.77.0/24")
	network := provisioners.Network{
		Owner: o, Name: o.Environment + "-management", Bridge: fmt.Sprintf("td-t%d", os.Getpid()%100000), Subnet: subnet, Gateway: subnet.Addr().Next(), MTU: 1500,
	}
	address := netip.MustParseAddr("10.215.77.10")
	n := provisioners.Node{
		Owner: o, Name: o.Environment + "-ctl", Hostname: "ctl", Image: image, CPUs: 2, Memory: 1 << 30,
		Identity: "hostname ctl\nnic mgmt0 02:42:0a:d7:4d:0a mtu 1500 10.215.77.10/24\nroute default 10.215.77.1\n",
		NICs:     []provisioners.NIC{{Network: network.Name, Bridge: network.Bridge, MTU: 1500, Address: address, MAC: "02:42:0a:d7:4d:0a"}},
	}
	before := left(p)(b)
	made, answered, removed := time.Duration(0), time.Duration(0), time.Duration(0)
	for b.Loop() {
		began := time.Now()
		must(b, p.CreateNetwork(b.Context(), network))
		done := make(chan error, 1)
		go func() { done <- p.CreateNode(b.Context(), n) }()
		must(b, node.Wait(b.Context(), "ssh", vm.BootTimeout, func(ctx context.Context) (bool, error) {
			err := p.Node(n.Name, n.Hostname).Run(ctx, node.Cmd{Args: []string{"true"}})
			return err == nil, err
		}))
		answered += time.Since(began)
		must(b, <-done)
		made += time.Since(began)
		began = time.Now()
		must(b, p.DeleteNode(b.Context(), o, n.Name))
		must(b, p.DeleteNetwork(b.Context(), o, network.Name))
		removed += time.Since(began)
		if after := left(p)(b); after != before {
			b.Fatalf("something stays behind; before:\n%s\nafter:\n%s", before, after)
		}
	}
	b.ReportMetric(answered.Seconds()/float64(b.N), "s-to-ssh/op")
	b.ReportMetric(made.Seconds()/float64(b.N), "s-booted/op")
	b.ReportMetric(removed.Seconds()/float64(b.N), "s-removed/op")
}
