// Package virtualbox makes nodes as machines of VirtualBox, by its command line. They are plugged into the host's Linux
// bridges where it has them, else into networks of VirtualBox's own.
package virtualbox

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/vm"
)

// The versions that are known to speak as we understand it.
var oldest, newest = version{6, 1}, version{7, 2}

// driverDevice is how a program reaches VirtualBox's kernel driver on Linux. Elsewhere only a start tells.
const driverDevice = "/dev/vboxdrv"

// Options of a Provisioner.
type Options struct {
	Log     hclog.Logger
	Program string // VBoxManage; "": the one that PATH finds
	Images  string // the folder in which <Node.Image>/disk.vdi is
	Folder  string // where machines and volumes are kept; the provisioner's own
	// Key is an environment's.
	Key func(environment string) (vm.Key, error)
}

// Provisioner makes things in the user's VirtualBox.
type Provisioner struct {
	log     hclog.Logger
	program string
	images  string
	folder  string
	key     func(string) (vm.Key, error)

	// What tests replace.
	exec      func(ctx context.Context, stdin []byte, args []string) (stdout string, err error)
	boot      func(ctx context.Context, m *vm.Machine, console func() string) error
	bridge    func(name string) bool // the host has an interface of that name
	freePort  func() (uint16, error) // a port of the loopback address that nobody listens on
	isFree    func(port uint16) bool // nobody listens on that one
	hasDriver func() bool

	mu    sync.Mutex
	nodes map[string]*vm.Machine // by name: each keeps its connection
}

var (
	_ provisioners.Provisioner = (*Provisioner)(nil)
	_ provisioners.Pauser      = (*Provisioner)(nil)
	_ provisioners.Killer      = (*Provisioner)(nil)
	_ provisioners.Unplugger   = (*Provisioner)(nil)
	_ provisioners.Consoler    = (*Provisioner)(nil)
	_ provisioners.Snapshotter = (*Provisioner)(nil)
	_ provisioners.Forwarder   = (*Provisioner)(nil)
)

// New makes a Provisioner. It does not run VBoxManage yet.
func New(opts Options) *Provisioner {
	p := &Provisioner{
		log: opts.Log, program: opts.Program, images: real(opts.Images), folder: real(opts.Folder), key: opts.Key,
		boot: func(ctx context.Context, m *vm.Machine, console func() string) error {
			return vm.WaitBooted(ctx, m, console)
		},
		bridge:    func(name string) bool { _, err := net.InterfaceByName(name); return err == nil },
		freePort:  func() (uint16, error) { return listen(0) },
		isFree:    func(port uint16) bool { _, err := listen(port); return err == nil },
		hasDriver: hasDriver,
		nodes:     map[string]*vm.Machine{},
	}
	if p.log == nil {
		p.log = hclog.NewNullLogger()
	}
	if p.program == "" {
		p.program = "VBoxManage"
	}
	p.exec = p.command
	return p
}

// real is a path as VirtualBox will tell it: absolute, with no symbolic links in what there is of it.
func real(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	if parent := filepath.Dir(path); parent != path {
		return filepath.Join(real(parent), filepath.Base(path))
	}
	return path
}

func hasDriver() bool {
	if runtime.GOOS != "linux" {
		return true
	}
	_, err := os.Stat(driverDevice)
	return err == nil
}

// listen is a port of the loopback address on which it could be listened; 0: any.
func listen(port uint16) (uint16, error) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(loopback, port).String())
	if err != nil {
		return 0, fmt.Errorf("look for a free port: %w", err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port), nil
}

// Check says what is wrong with VirtualBox: absent, of another version, without its kernel driver. It is nil when machines
// can be made and started.
func (p *Provisioner) Check(ctx context.Context) error {
	v, err := p.version(ctx)
	if err != nil {
		return err
	}
	if v.less(oldest) || newest.less(v) {
		return fault.New(fault.Unsupported, "VirtualBox is version %s", v).WithRemedy("install a version from %s to %s", oldest, newest)
	}
	if !p.hasDriver() {
		return noDriver()
	}
	return nil
}

// noDriver is why no machine starts without VirtualBox's kernel driver.
func noDriver() *fault.Error {
	return fault.New(fault.Missing, "VirtualBox's kernel driver is not loaded (there is no %s)", driverDevice).WithRemedy("load it: sudo modprobe vboxdrv; where this kernel has none, build it: sudo /sbin/vboxconfig " +
		"(Debian: apt-get install virtualbox-dkms and the kernel's headers); or use another provisioner: --set nodes.*.provisioner=libvirt")
}

// Mix refuses a region of which only a part are VirtualBox's nodes, on a host whose bridges they cannot be plugged into.
// others are the provisioners of the other nodes, bridges is Bridges().
func Mix(bridges bool, others ...string) error {
	others = slices.DeleteFunc(slices.Clone(others), func(name string) bool { return name == "virtualbox" })
	if bridges || len(others) == 0 {
		return nil
	}
	slices.Sort(others)
	e := fault.New(fault.Unsupported, "nodes of VirtualBox and of %s cannot be in one region on this host: it has no Linux bridges, "+
		"and into VirtualBox's own networks nobody else can be plugged", strings.Join(slices.Compact(others), " and "))
	e.Path = "nodes"
	return e.WithRemedy("let VirtualBox make all nodes: --set nodes.*.provisioner=virtualbox")
}

// Bridges says whether the host's kernel has Linux bridges, which VirtualBox's machines can be plugged into.
func Bridges() bool { return runtime.GOOS == "linux" }

// namespace of the machines' UUIDs.
var namespace = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://github.com/toast-cloud/toastdev/provisioners/virtualbox"))

// exclusive runs f while nobody else of this home makes or removes what machines share: the images' disks, ports of the host.
func (p *Provisioner) exclusive(ctx context.Context, f func() error) error {
	if err := os.MkdirAll(p.folder, 0o700); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(p.folder, "lock"))
	waiting, cancel := context.WithTimeout(ctx, exclusiveTimeout)
	defer cancel()
	if _, err := lock.TryLockContext(waiting, lockPoll); ctx.Err() == nil && waiting.Err() != nil {
		return fault.New(fault.Timeout, "waited %s for another toastdev that changes what machines of VirtualBox share", exclusiveTimeout).
			WithRemedy("end it; it has %s locked", lock.Path())
	} else if err != nil {
		return fmt.Errorf("wait for another toastdev that changes what machines of VirtualBox share: %w", err)
	}
	defer lock.Unlock()
	return f()
}

const (
	// lockPoll is how often exclusive asks, exclusiveTimeout for how long: a copy of an image's disk may be under way.
	lockPoll         = 100 * time.Millisecond
	exclusiveTimeout = 15 * time.Minute
)

// machineID is the UUID that an owner's node of that name has as a machine. So one that was cut off right after it was made,
// when it bore nothing but its name and its UUID, is known to be the owner's.
func machineID(owner provisioners.Owner, name string) string {
	return uuid.NewSHA1(namespace, []byte(owner.Home+"\x00"+owner.Environment+"\x00"+name)).String()
}

// digest of what was asked for. Two equal digests need no change.
func digest(spec any) string {
	data, err := json.Marshal(spec)
	if err != nil {
		panic(fmt.Sprintf("digest of %T: %v", spec, err)) // plain data: cannot happen
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// taken is the refusal to use a thing of another owner's, or of none.
func taken(kind provisioners.Kind, name string, by provisioners.Owner) error {
	whose := "something that is not toastdev's"
	if by.Environment != "" {
		whose = fmt.Sprintf("environment %q of the toastdev home %s", by.Environment, by.Home)
	}
	word := string(kind)
	if kind == provisioners.KindNode {
		word = "machine"
	}
	e := fault.New(fault.Busy, "VirtualBox has a %s of this name, of %s", word, whose).
		WithRemedy("remove it, or name the environment otherwise (--name)")
	e.Unit = string(kind) + " " + name
	return e
}

// check refuses a name that would lead out of the folders that things are kept in.
func check(name string) error {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return fault.New(fault.Invalid, "%q is no name for a machine or volume", name)
	}
	return nil
}

// Exists says whether the owner has a thing of that kind and name.
func (p *Provisioner) Exists(ctx context.Context, owner provisioners.Owner, kind provisioners.Kind, name string) (bool, error) {
	things, err := p.Owned(ctx, owner)
	return slices.Contains(things, provisioners.Thing{Kind: kind, Name: name}), err
}

// Owned lists what is the owner's: nodes, then networks, then volumes. A machine that became inaccessible goes by its UUID
// alone, which says nothing of its name: the folders that are left of nodes do.
func (p *Provisioner) Owned(ctx context.Context, owner provisioners.Owner) ([]provisioners.Thing, error) {
	step := fmt.Sprintf("list what belongs to environment %q", owner.Environment)
	machines, err := p.machines(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", step, err)
	}
	var things []provisioners.Thing
	names := map[string]bool{}
	for _, m := range machines {
		names[m.name] = true
	}
	folders, err := os.ReadDir(p.nodesFolder())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", step, err)
	}
	for _, f := range folders {
		names[f.Name()] = true
	}
	for name := range names {
		id := machineID(owner, name)
		if slices.ContainsFunc(machines, func(m machine) bool { return m.id == id }) {
			things = append(things, provisioners.Thing{Kind: provisioners.KindNode, Name: name})
		}
	}
	marks, err := p.marks(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", step, err)
	}
	for thing, m := range marks {
		if m.Owner == owner {
			things = append(things, thing)
		}
	}
	order := []provisioners.Kind{provisioners.KindNode, provisioners.KindNetwork, provisioners.KindVolume}
	slices.SortFunc(things, func(a, b provisioners.Thing) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)), cmp.Compare(a.Name, b.Name))
	})
	return things, nil
}
