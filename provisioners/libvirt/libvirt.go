// Package libvirt makes nodes as virtual machines of a libvirt daemon, on bridges of the host.
package libvirt

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"libvirt.org/go/libvirt"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/vm"
)

// oldest is the first libvirt that limits the emulator's cache of translated code, as major*1000000 + minor*1000 + release.
const oldest = 8_000_000

// callTimeout is how long one step may take: libvirt tries out emulators before it makes a machine of one, which takes minutes
// where KVM is there and does not work.
const callTimeout = 3 * time.Minute

// uploadTimeout is how long an image may take to the daemon's host.
const uploadTimeout = 20 * time.Minute

// Options of a Provisioner. Images and Key must be there; the rest has a meaning when it is not.
type Options struct {
	Log hclog.Logger
	URI string // of the daemon; "": LIBVIRT_DEFAULT_URI, else qemu:///system
	// Images is the folder that has a folder for each image, in it disk.qcow2.
	Images string
	// KVM says that it works on the daemon's host; without it machines are emulated.
	KVM bool
	// Key is an environment's.
	Key func(environment string) (vm.Key, error)
}

// Provisioner makes things of one libvirt daemon.
type Provisioner struct {
	log    hclog.Logger
	uri    string
	images string
	kvm    bool
	key    func(environment string) (vm.Key, error)

	connecting sync.Mutex
	connect    *libvirt.Connect // nil: none yet

	mu       sync.Mutex
	machines map[string]*vm.Machine
	watchers map[*watcher]bool
}

var (
	_ provisioners.Provisioner = (*Provisioner)(nil)
	_ provisioners.Pauser      = (*Provisioner)(nil)
	_ provisioners.Killer      = (*Provisioner)(nil)
	_ provisioners.Unplugger   = (*Provisioner)(nil)
	_ provisioners.Consoler    = (*Provisioner)(nil)
	_ provisioners.Snapshotter = (*Provisioner)(nil)
	_ provisioners.Resident    = (*Provisioner)(nil)
	_ provisioners.Checker     = (*Provisioner)(nil)
)

// New makes a Provisioner. It does not talk to the daemon yet.
func New(opts Options) *Provisioner {
	p := &Provisioner{
		log: opts.Log, uri: opts.URI, images: opts.Images, kvm: opts.KVM, key: opts.Key,
		machines: map[string]*vm.Machine{}, watchers: map[*watcher]bool{},
	}
	if p.log == nil {
		p.log = hclog.NewNullLogger()
	}
	if p.uri == "" {
		p.uri = os.Getenv("LIBVIRT_DEFAULT_URI")
	}
	if p.uri == "" {
		p.uri = "qemu:///system"
	}
	return p
}

// Close ends the connections to the daemon and to the nodes.
func (p *Provisioner) Close() error {
	p.mu.Lock()
	for _, m := range p.machines {
		m.Hangup()
	}
	p.mu.Unlock()
	p.connecting.Lock()
	defer p.connecting.Unlock()
	if p.connect == nil {
		return nil
	}
	_, err := p.connect.Close()
	p.connect = nil
	return err
}

// Check says what is wrong with libvirt: no library, no daemon, no permission, too old. It is nil when it can be used.
func (p *Provisioner) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	version, err := ask(ctx, p, "ask libvirt for its version", func(c *libvirt.Connect) (uint32, error) { return c.GetLibVersion() })
	if err != nil {
		return err
	}
	if version < oldest {
		return fault.New(fault.Missing, "the libvirt at %s has version %d.%d", p.uri, version/1_000_000, version/1000%1000).
			WithRemedy("install libvirt %d.0 or newer", oldest/1_000_000)
	}
	return nil
}

// ask makes one step of calls within callTimeout.
func ask[T any](ctx context.Context, p *Provisioner, step string, calls func(*libvirt.Connect) (T, error)) (T, error) {
	return askWithin(ctx, p, callTimeout, step, calls)
}

// askWithin makes one step of calls. When ctx ends first, it returns and the calls go on: what they make, the next Create finds.
func askWithin[T any](ctx context.Context, p *Provisioner, limit time.Duration, step string, calls func(*libvirt.Connect) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		var a answer
		c, err := p.connection()
		if err == nil {
			a.value, err = calls(c)
		}
		a.err = err
		answered <- a
	}()
	var none T
	select {
	case a := <-answered:
		return a.value, p.fail(a.err, step)
	case <-ctx.Done():
		return none, fmt.Errorf("%s: %w", step, ctx.Err())
	case <-time.After(limit):
		return none, fault.New(fault.Timeout, "waited %s for libvirt at %s to %s", limit, p.uri, step).
			WithRemedy("see what the daemon does (its log, `virsh list`); where KVM does not work, `toastdev doctor --for libvirt --fix` hides it from the daemon")
	}
}

// do is ask without an answer.
func (p *Provisioner) do(ctx context.Context, step string, calls func(*libvirt.Connect) error) error {
	_, err := ask(ctx, p, step, func(c *libvirt.Connect) (struct{}, error) { return struct{}{}, calls(c) })
	return err
}

// connection is the one that there is, or a new one when there is none or the daemon has closed it.
func (p *Provisioner) connection() (*libvirt.Connect, error) {
	p.connecting.Lock()
	defer p.connecting.Unlock()
	if p.connect != nil {
		if alive, err := p.connect.IsAlive(); err == nil && alive {
			return p.connect, nil
		}
		_, _ = p.connect.Close()
		p.connect = nil
	}
	if err := eventLoop(); err != nil {
		return nil, err
	}
	c, err := libvirt.NewConnect(p.uri)
	if err != nil {
		return nil, err
	}
	_ = c.SetKeepAlive(5, 6) // a connection within the process has none
	if _, err := c.DomainEventLifecycleRegister(nil, p.tell); err != nil {
		_, _ = c.Close()
		return nil, err
	}
	p.connect = c
	return c, nil
}

// fail is err with the step it happened in, and with a remedy where libvirt itself is what is wrong.
func (p *Provisioner) fail(err error, step string) error {
	if err == nil {
		return nil
	}
	failure, ok := errors.AsType[libvirt.Error](err)
	if !ok {
		if _, ok := errors.AsType[*fault.Error](err); ok {
			return err
		}
		return fmt.Errorf("%s: %w", step, err)
	}
	says := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(failure.Message, w) })
	}
	missing := func(what, remedy string, args ...any) error {
		e := fault.New(fault.Missing, "%s: %s: %s", step, what, failure.Message).WithRemedy(remedy, args...)
		e.Err = err
		return e
	}
	local := p.remote() == nil
	switch {
	case says("libvirt.so.0"):
		return missing("libvirt's library is not installed", "install it (sudo apt-get install libvirt0), or let toastdev install all of libvirt: toastdev doctor --for libvirt --fix")
	case failure.Code == libvirt.ERR_AUTH_FAILED, failure.Code == libvirt.ERR_AUTH_CANCELLED, failure.Code == libvirt.ERR_AUTH_UNAVAILABLE,
		failure.Code == libvirt.ERR_ACCESS_DENIED, says("system bus connection"), // polkit cannot be asked
		says("Failed to connect socket") && says("Permission denied"):
		name := "$USER"
		if u, err := user.Current(); err == nil && local {
			name = u.Username
		}
		return missing("no permission to use libvirt at "+p.uri, "add yourself to its group and log in again (sudo usermod -aG libvirt %s), or run toastdev by sudo", name)
	case says("Failed to connect socket", "Cannot recv data", "unable to connect to server"):
		if local {
			return missing("no libvirt daemon answers at "+p.uri, "start it: sudo systemctl start libvirtd; or let toastdev install and start it: toastdev doctor --for libvirt --fix")
		}
		return missing("no libvirt daemon answers at "+p.uri, "see that `virsh -c %s version` works", p.uri)
	case says("could not find capabilities for", "no emulator", "Cannot find QEMU binary", "Cannot check QEMU binary"):
		return missing("the daemon has no emulator", "install it: sudo apt-get install qemu-system-x86 qemu-utils")
	case says("No space left on device"):
		return missing("the disk of libvirt's pool is full", "free some space there; `virsh -c %s pool-list --details` shows how much each pool has", p.uri)
	case says("No such device"):
		return missing("the bridge of a network is not there", "see that what makes the networks runs (the container engine), then: toastdev up")
	case says("bridge helper"):
		return missing("this daemon may not plug into the bridges", "allow it: echo 'allow all' | sudo tee -a /etc/qemu/bridge.conf; or use qemu:///system")
	}
	return fmt.Errorf("%s: %w", step, said{failure})
}

// said is libvirt's error without its numbers.
type said struct{ err libvirt.Error }

func (s said) Error() string { return s.err.Message }
func (s said) Unwrap() error { return s.err }

func isCode(err error, codes ...libvirt.ErrorNumber) bool {
	e, ok := errors.AsType[libvirt.Error](err)
	return ok && slices.Contains(codes, e.Code)
}

// remote is the URI of a daemon on another host; nil for one on this.
func (p *Provisioner) remote() *url.URL {
	u, err := url.Parse(p.uri)
	if err != nil || u.Host == "" {
		return nil
	}
	return u
}

// taken is the refusal to use a thing of another owner, or of one that is not known.
func taken(kind provisioners.Kind, name string, owner provisioners.Owner) error {
	whose := "something else than this environment"
	if owner.Environment != "" {
		whose = fmt.Sprintf("environment %q of the toastdev home %s", owner.Environment, owner.Home)
	}
	word := map[provisioners.Kind]string{provisioners.KindNetwork: "network", provisioners.KindVolume: "volume", provisioners.KindNode: "domain"}[kind]
	e := fault.New(fault.Busy, "libvirt has a %s of this name, of %s", word, whose).
		WithRemedy("remove it (by virsh), or name the environment otherwise (--name)")
	e.Unit = string(kind) + " " + name
	return e
}

// Exists says whether the owner has a thing of that kind and name.
func (p *Provisioner) Exists(ctx context.Context, owner provisioners.Owner, kind provisioners.Kind, name string) (bool, error) {
	return ask(ctx, p, fmt.Sprintf("look for %s %q", kind, name), func(c *libvirt.Connect) (bool, error) {
		switch kind {
		case provisioners.KindNetwork:
			uuid, _, err := network(c, name)
			return err == nil && uuid == networkID(owner, name), absent(err)
		case provisioners.KindVolume:
			whose, found, err := volumeOwner(c, name)
			return found && whose == owner, err
		default:
			m, err := domainMark(c, name)
			return err == nil && m.owner() == owner, absent(err)
		}
	})
}

// absent is err but for a thing that is not there.
func absent(err error) error {
	if isCode(err, libvirt.ERR_NO_DOMAIN, libvirt.ERR_NO_NETWORK, libvirt.ERR_NO_STORAGE_POOL, libvirt.ERR_NO_STORAGE_VOL) {
		return nil
	}
	return err
}

// Owned lists what is the owner's: nodes, also those of which a killed toastdev made no more than disks; networks; volumes.
func (p *Provisioner) Owned(ctx context.Context, owner provisioners.Owner) ([]provisioners.Thing, error) {
	step := fmt.Sprintf("list what belongs to environment %q", owner.Environment)
	return ask(ctx, p, step, func(c *libvirt.Connect) ([]provisioners.Thing, error) {
		var all []provisioners.Thing
		for _, list := range []func(*libvirt.Connect, provisioners.Owner) ([]provisioners.Thing, error){listNodes, listNetworks, listVolumes} {
			things, err := list(c, owner)
			if err != nil {
				return nil, err
			}
			all = append(all, things...)
		}
		return all, nil
	})
}

// Node is the machine of that name; it need not be there yet.
func (p *Provisioner) Node(name, hostname string) node.Node { return p.machine(name, hostname) }
