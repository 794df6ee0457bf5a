package libvirt

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"libvirt.org/go/libvirt"

	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/conformance"
	"github.com/toast-cloud/toastdev/provisioners/vm"
)

// newKey is an environment's key as its record makes it.
func newKey(t *testing.T) vm.Key {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return vm.Key{Private: pem.EncodeToMemory(block), Public: string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)))}
}

// imageDisk is a VM image's disk: TOASTDEV_TEST_VM_DISK's, else one in the user's home.
func imageDisk(t *testing.T) string {
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
	return disks[0]
}

// daemon is a provisioner of this machine's daemon, with an image of that disk. Without a daemon the test is skipped.
func daemon(t *testing.T, disk string) (p *Provisioner, image string) {
	t.Helper()
	key := newKey(t)
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

// left is what there is of domains, networks and pools, of their files and their interfaces.
func left(p *Provisioner) func(t *testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		var list []string
		c, err := p.connection()
		if err != nil {
			t.Fatal(err)
		}
		domains, err := c.ListAllDomains(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range domains {
			name, _ := d.GetName()
			list = append(list, "domain "+name)
			_ = d.Free()
		}
		networks, err := c.ListAllNetworks(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range networks {
			name, _ := n.GetName()
			list = append(list, "network "+name)
			_ = n.Free()
		}
		pools, err := c.ListAllStoragePools(libvirt.CONNECT_LIST_STORAGE_POOLS_ACTIVE)
		if err != nil {
			t.Fatal(err)
		}
		for _, pool := range pools {
			name, _ := pool.GetName()
			files, _ := pool.ListStorageVolumes()
			list = append(list, "pool "+name)
			for _, f := range files {
				list = append(list, "file "+name+"/"+f)
			}
			_ = pool.Free()
		}
		for _, pattern := range []string{"/var/lib/libvirt/images/*", "/var/lib/libvirt/qemu/*", "/var/lib/libvirt/dnsmasq/*", "/var/log/libvirt/qemu/*", "/sys/class/net/td-*", "/sys/class/net/vnet*"} {
			found, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, found...)
		}
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
