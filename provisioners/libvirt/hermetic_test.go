package libvirt

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/conformance"
	"github.com/toast-cloud/toastdev/provisioners/vm"
)

// hermetic is a provisioner of the daemon that libvirt's library has in itself, for tests: it keeps everything in memory.
func hermetic(t *testing.T) *Provisioner {
	t.Helper()
	key := conformance.Key(t)
	p := New(Options{URI: "test:///default", Images: t.TempDir(), Key: func(string) (vm.Key, error) { return key, nil }})
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Check(t.Context()); err != nil {
		t.Skipf("no libvirt to test with: %v", err)
	}
	return p
}

func owned(t *testing.T, p *Provisioner, o provisioners.Owner) string {
	t.Helper()
	things, err := p.Owned(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(things)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNetworksAndVolumesAreTheirOwners(t *testing.T) {
	p := hermetic(t)
	o, other := provisioners.Owner{Environment: "mini", Home: "0123abcd"}, provisioners.Owner{Environment: "mini", Home: "ffffffff"}
	n := provisioners.Network{
		Owner: o, Name: "mini-kr1-management", Bridge: "td-aaaaaaaaaa", MTU: 1500,
		Subnet: netip.MustParsePrefix("10.213.0.0/24"), Gateway: netip.MustParseAddr("10.213.0.1"),
	}
	v := provisioners.Volume{Owner: o, Name: "mini-kr1-nas", Size: 1 << 30}
	for range 2 {
		must(t, p.CreateNetwork(t.Context(), n))
		must(t, p.CreateVolume(t.Context(), v))
	}
	if got := owned(t, p, o); got != "[network/mini-kr1-management volume/mini-kr1-nas]" {
		t.Errorf("owned: %s", got)
	}
	stolen, taken := n, v
	stolen.Owner, taken.Owner = other, other
	if err := p.CreateNetwork(t.Context(), stolen); fault.CodeOf(err) != fault.Busy {
		t.Errorf("another's network: %v", err)
	}
	if err := p.CreateVolume(t.Context(), taken); fault.CodeOf(err) != fault.Busy || !strings.Contains(err.Error(), "home 0123abcd") {
		t.Errorf("another's volume: %v", err)
	}
	must(t, p.DeleteNetwork(t.Context(), other, n.Name))
	must(t, p.DeleteVolume(t.Context(), other, v.Name))
	if got := owned(t, p, o); got != "[network/mini-kr1-management volume/mini-kr1-nas]" {
		t.Errorf("after another deleted: %s", got)
	}

	n.MTU = 9000 // cannot be changed in place
	must(t, p.CreateNetwork(t.Context(), n))
	_, has, err := network(p.connect, n.Name)
	if err != nil || has.MTU.Size != 9000 {
		t.Errorf("%+v, %v", has, err)
	}
	// It is there and does not run, as after a restart of the host.
	found, err := p.connect.LookupNetworkByName(n.Name)
	must(t, err)
	defer found.Free()
	must(t, found.Destroy())
	must(t, p.CreateNetwork(t.Context(), n))
	if active, err := found.IsActive(); err != nil || !active {
		t.Errorf("it does not run: %v", err)
	}

	for range 2 {
		must(t, p.DeleteNetwork(t.Context(), o, n.Name))
		must(t, p.DeleteVolume(t.Context(), o, v.Name))
	}
	if got := owned(t, p, o); got != "[]" {
		t.Errorf("after all was deleted: %s", got)
	}
	if _, err := p.connect.LookupStoragePoolByName(poolPrefix + o.Home); !isCode(err, libvirt.ERR_NO_STORAGE_POOL) {
		t.Errorf("the pool is still there: %v", err)
	}
}

// defined is a node's domain and its files, without the image's content: the daemon in the library has no streams.
func defined(t *testing.T, p *Provisioner, n provisioners.Node) {
	t.Helper()
	n.NICs = nil // the bridge is not there
	must(t, p.do(t.Context(), "define", func(c *libvirt.Connect) error {
		pool, err := p.makePool(c, n.Home)
		if err != nil {
			return err
		}
		defer pool.Free()
		folder, err := poolFolder(pool)
		if err != nil {
			return err
		}
		x, err := domainXML(n, folder, false)
		if err != nil {
			return err
		}
		x.Type, x.OS.Type.Machine, x.OS.Type.Arch = "test", "", "i686"
		text, err := x.Marshal()
		if err != nil {
			return err
		}
		d, err := c.DomainDefineXML(text)
		if err != nil {
			return err
		}
		return d.Free()
	}))
}

func TestADomainHasItsOwnerAndItsStates(t *testing.T) {
	p := hermetic(t)
	n := compute()
	other := provisioners.Owner{Environment: n.Environment, Home: "ffffffff"}
	if s, err := p.State(t.Context(), n.Name); err != nil || s != provisioners.Absent {
		t.Errorf("before it is there: %s, %v", s, err)
	}
	defined(t, p, n)
	if got := owned(t, p, n.Owner); got != "[node/mixed-kr1-cmp2]" {
		t.Errorf("owned: %s", got)
	}
	for owner, want := range map[provisioners.Owner]bool{n.Owner: true, other: false} {
		if got, err := p.Exists(t.Context(), owner, provisioners.KindNode, n.Name); err != nil || got != want {
			t.Errorf("%v has it: %t, %v", owner, got, err)
		}
	}
	stolen := n
	stolen.Owner = other
	if err := p.CreateNode(t.Context(), stolen); fault.CodeOf(err) != fault.Busy {
		t.Errorf("another's node: %v", err)
	}
	// A domain that is nobody's of ours is not touched either.
	foreign := n
	foreign.Name = "test"
	if err := p.CreateNode(t.Context(), foreign); fault.CodeOf(err) != fault.Busy || !strings.Contains(err.Error(), "something else") {
		t.Errorf("a domain that is not ours: %v", err)
	}

	d, err := p.connect.LookupDomainByName(n.Name)
	must(t, err)
	defer d.Free()
	must(t, d.Create())
	is := func(want provisioners.State) {
		t.Helper()
		if s, err := p.State(t.Context(), n.Name); err != nil || s != want {
			t.Errorf("state %s, want %s, %v", s, want, err)
		}
	}
	is(provisioners.Running)
	must(t, p.Pause(t.Context(), n.Name))
	must(t, p.Pause(t.Context(), n.Name))
	is(provisioners.Paused)
	must(t, p.Start(t.Context(), n.Name))
	is(provisioners.Running)

	// An event ends the wait, not the next look.
	began := time.Now()
	time.AfterFunc(300*time.Millisecond, func() { _ = d.Destroy() })
	must(t, p.wait(t.Context(), n.Name, provisioners.Stopped, time.Minute))
	if took := time.Since(began); took > lookAgain {
		t.Errorf("the wait took %s", took)
	}
	err = p.Node(n.Name, n.Hostname).Run(t.Context(), node.Cmd{Args: []string{"true"}})
	if fault.CodeOf(err) != fault.NotFound || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("a command on a stopped node: %v", err)
	}
	must(t, p.Kill(t.Context(), n.Name))
	is(provisioners.Stopped)

	must(t, p.DeleteNode(t.Context(), other, n.Name))
	is(provisioners.Stopped)
	for range 2 {
		must(t, p.DeleteNode(t.Context(), n.Owner, n.Name))
		is(provisioners.Absent)
	}
	if got := owned(t, p, n.Owner); got != "[]" {
		t.Errorf("after it was deleted: %s", got)
	}
}

func plainVolume(name string) libvirtxml.StorageVolume {
	return libvirtxml.StorageVolume{Name: name, Capacity: &libvirtxml.StorageVolumeSize{Value: 1 << 20}}
}

func TestWhatAKilledRunLeftOfANodeIsItsOwnersAndRemoved(t *testing.T) {
	p := hermetic(t)
	n := compute()
	must(t, p.do(t.Context(), "make a disk", func(c *libvirt.Connect) error {
		pool, err := p.makePool(c, n.Home)
		if err != nil {
			return err
		}
		defer pool.Free()
		return makeVolume(pool, plainVolume(part{n.Environment, n.Name, systemDisk}.String()))
	}))
	if got := owned(t, p, n.Owner); got != "[node/mixed-kr1-cmp2]" {
		t.Errorf("owned: %s", got)
	}
	if exists, err := p.Exists(t.Context(), n.Owner, provisioners.KindNode, n.Name); err != nil || exists {
		t.Errorf("half a node exists: %v", err)
	}
	must(t, p.DeleteNode(t.Context(), n.Owner, n.Name))
	if got := owned(t, p, n.Owner); got != "[]" {
		t.Errorf("after it was deleted: %s", got)
	}
}

func TestANodeOfAnImageThatIsNotThereLeavesNothing(t *testing.T) {
	p := hermetic(t)
	n := compute()
	if err := p.CreateNode(t.Context(), n); fault.CodeOf(err) != fault.NotFound || !strings.Contains(err.Error(), "toastdev image build") {
		t.Errorf("error %v", err)
	}
	if got := owned(t, p, n.Owner); got != "[]" {
		t.Errorf("left: %s", got)
	}
}

func TestALibvirtThatCannotBeUsedIsAFaultWithARemedy(t *testing.T) {
	hermetic(t) // the library is there
	for uri, want := range map[string]string{
		"qemu:///system?socket=" + filepath.Join(t.TempDir(), "libvirt-sock"): "doctor --for libvirt --fix",
		"qemu+tcp://127.0.0.1:1/system":                                       "virsh -c qemu+tcp://127.0.0.1:1/system",
	} {
		p := New(Options{URI: uri})
		if err := p.Check(t.Context()); fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant a remedy with %q", uri, err, want)
		}
		if _, err := p.State(t.Context(), "x"); fault.CodeOf(err) != fault.Missing {
			t.Errorf("%s: state: %v, want the same fault", uri, err)
		}
	}
	denied := libvirt.Error{Code: libvirt.ERR_AUTH_UNAVAILABLE, Message: "authentication unavailable: no polkit agent available"}
	p := New(Options{})
	if err := p.fail(denied, "x"); fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), "usermod -aG libvirt") {
		t.Errorf("no permission: %v", err)
	}
	library := libvirt.Error{Message: "libvirt.so.0: cannot open shared object file: No such file or directory"}
	if err := p.fail(library, "x"); fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), "apt-get install libvirt0") {
		t.Errorf("no library: %v", err)
	}
	full := libvirt.Error{Message: "cannot fill file '/pool/x': No space left on device"}
	if err := p.fail(full, "x"); fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("no space: %v", err)
	}
}

func TestAPoolWithoutRoomIsAFaultBeforeAnythingIsWritten(t *testing.T) {
	p := hermetic(t)
	must(t, p.do(t.Context(), "make a pool", func(c *libvirt.Connect) error {
		pool, err := p.makePool(c, "0123abcd")
		if err != nil {
			return err
		}
		defer pool.Free()
		info, err := pool.GetInfo()
		if err != nil {
			return err
		}
		if err := room(pool, 0, "nothing"); err != nil {
			t.Error(err)
		}
		if err := room(pool, int64(info.Available), "everything"); fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), "everything needs") {
			t.Errorf("no room: %v", err)
		}
		return nil
	}))
}

func TestTheURIIsTheOptionsElseTheVariablesElseTheSystems(t *testing.T) {
	t.Setenv("LIBVIRT_DEFAULT_URI", "")
	os.Unsetenv("LIBVIRT_DEFAULT_URI")
	if p := New(Options{}); p.uri != "qemu:///system" || p.remote() != nil {
		t.Errorf("nothing said: %s", p.uri)
	}
	t.Setenv("LIBVIRT_DEFAULT_URI", "qemu+ssh://me@elsewhere/system")
	if p := New(Options{}); p.uri != "qemu+ssh://me@elsewhere/system" || p.remote().Hostname() != "elsewhere" {
		t.Errorf("the variable's: %s", p.uri)
	}
	if p := New(Options{URI: "test:///default"}); p.uri != "test:///default" {
		t.Errorf("the option's: %s", p.uri)
	}
}
