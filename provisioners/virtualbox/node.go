package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/vm"
)

const (
	sshPort = 22
	// offPoll is how often a machine is asked whether it is off: each time is a process and some 30 ms.
	offPoll = 500 * time.Millisecond
)

// CreateNode makes a machine with a disk linked to the image's, starts it and waits until it has booted. When it cannot be
// started it stays, whole: the next CreateNode starts it.
func (p *Provisioner) CreateNode(ctx context.Context, n provisioners.Node) error {
	if err := check(n.Name); err != nil {
		return err
	}
	adapters, err := p.adapters(ctx, n)
	if err != nil {
		return fmt.Errorf("create node %q: %w", n.Name, err)
	}
	m, err := p.machine(ctx, n.Name)
	switch {
	case err != nil:
		return fmt.Errorf("look for node %q: %w", n.Name, err)
	case m.id != "" && m.id != machineID(n.Owner, n.Name):
		return p.takenNode(ctx, m)
	case m.id != "":
		labels, err := p.extra(ctx, m.id)
		if err != nil {
			return fmt.Errorf("look for node %q: %w", n.Name, err)
		}
		if labels[keySpec] == fixed(n, adapters) {
			return p.adopt(ctx, n, adapters)
		}
	}
	if _, err := p.imageDisk(n.Image); err != nil {
		return fmt.Errorf("create node %q: %w", n.Name, err)
	}
	if err := p.DeleteNode(ctx, n.Owner, n.Name); err != nil {
		return err
	}
	if err := p.makeNode(ctx, n, adapters); err != nil {
		return fmt.Errorf("create node %q: %w", n.Name, err)
	}
	if err := p.Start(ctx, n.Name); err != nil {
		return err
	}
	return p.mount(ctx, n)
}

// adopt starts a machine that is whole, and gives it what may have changed.
func (p *Provisioner) adopt(ctx context.Context, n provisioners.Node, adapters []adapter) error {
	if err := p.openSSH(ctx, n, adapters); err != nil {
		return fmt.Errorf("forward a port to node %q: %w", n.Name, err)
	}
	if err := p.resize(ctx, n); err != nil {
		return fmt.Errorf("change the limits of node %q: %w", n.Name, err)
	}
	if err := p.Start(ctx, n.Name); err != nil {
		return err
	}
	if err := p.mount(ctx, n); err != nil {
		return err
	}
	return p.renewIdentity(ctx, n)
}

// resize gives a machine other numbers of processors and memory. It must be off for that.
func (p *Provisioner) resize(ctx context.Context, n provisioners.Node) error {
	id := machineID(n.Owner, n.Name)
	i, err := p.info(ctx, id)
	if err != nil {
		return err
	}
	cpus, memory := wanted(n)
	if i["cpus"] == strconv.Itoa(cpus) && i["memory"] == strconv.Itoa(memory) {
		return nil
	}
	if err := p.Stop(ctx, n.Name); err != nil {
		return err
	}
	_, err = p.run(ctx, append([]string{"modifyvm", id}, sizes(n)...)...)
	return err
}

// mount mounts a node's volumes.
func (p *Provisioner) mount(ctx context.Context, n provisioners.Node) error {
	for _, m := range n.Mounts {
		if err := vm.Mount(ctx, p.connection(n.Name, n.Hostname), device(m.Volume), m.Path); err != nil {
			return fmt.Errorf("volume %q on node %q: %w", m.Volume, n.Name, err)
		}
	}
	return nil
}

// renewIdentity writes what can change of a running node: its roles, and the names of the others.
func (p *Provisioner) renewIdentity(ctx context.Context, n provisioners.Node) error {
	if n.Identity == "" {
		return nil
	}
	m := p.connection(n.Name, n.Hostname)
	if err := m.Copy(ctx, "/etc/toastdev/identity", 0o644, []byte(n.Identity)); err != nil {
		return fmt.Errorf("give node %q its identity: %w", n.Name, err)
	}
	if _, err := node.Input(ctx, m, []byte(provisioners.Hosts(n.Identity)), "tee", "/etc/hosts"); err != nil {
		return fmt.Errorf("renew /etc/hosts of node %q: %w", n.Name, err)
	}
	return nil
}

func (p *Provisioner) makeNode(ctx context.Context, n provisioners.Node, adapters []adapter) error {
	d := design{
		node: n, adapters: adapters, id: machineID(n.Owner, n.Name), parent: p.nodesFolder(), folder: p.nodeFolder(n.Name),
	}
	if places := maxDisks - 2; len(n.Mounts) > places {
		return fault.New(fault.Unsupported, "it has %d volumes", len(n.Mounts)).WithRemedy("give a node of VirtualBox at most %d", places)
	}
	for _, m := range n.Mounts {
		d.volumes = append(d.volumes, volume{name: m.Volume, file: p.volumeFile(m.Volume)})
	}
	key, err := p.key(n.Environment)
	if err != nil {
		return err
	}
	seed, err := vm.Seed(n.Identity, key)
	if err != nil {
		return err
	}
	if d.nested, err = p.nested(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(d.parent, 0o700); err != nil {
		return err
	}
	if err := p.runAll(ctx, d.machine()); err != nil {
		return err
	}
	if err := p.link(ctx, &d); err != nil {
		return err
	}
	if _, err := p.feed(ctx, seed, d.writeSeed(len(seed))...); err != nil {
		return err
	}
	if err := p.openSSH(ctx, n, adapters); err != nil {
		return err
	}
	return p.runAll(ctx, d.rest())
}

// link makes the node's disk. While it does, nobody takes the image's disk for one that is not needed.
func (p *Provisioner) link(ctx context.Context, d *design) error {
	return p.exclusive(ctx, func() (err error) {
		if d.base, err = p.base(ctx, d.node.Image, d.node.Disk); err != nil {
			return err
		}
		return p.runAll(ctx, d.link())
	})
}

// nested says whether the host's processor lets a machine virtualise, too.
func (p *Provisioner) nested(ctx context.Context) (bool, error) {
	out, err := p.run(ctx, "list", "hostinfo")
	return strings.Contains(out, "Processor supports nested HW virtualization: yes"), err
}

// takenNode is the refusal to use another's machine.
func (p *Provisioner) takenNode(ctx context.Context, m machine) error {
	labels, err := p.extra(ctx, m.id)
	if err != nil {
		return fmt.Errorf("look for node %q: %w", m.name, err)
	}
	return taken(provisioners.KindNode, m.name, provisioners.Owner{Environment: labels[keyEnvironment], Home: labels[keyHome]})
}

// DeleteNode switches the owner's machine off and removes it, with its disks, its log and the port that led to it. Volumes stay.
func (p *Provisioner) DeleteNode(ctx context.Context, owner provisioners.Owner, name string) error {
	if err := check(name); err != nil {
		return err
	}
	fail := func(err error) error { return fmt.Errorf("delete node %q: %w", name, err) }
	machines, err := p.machines(ctx)
	if err != nil {
		return fail(err)
	}
	id := machineID(owner, name)
	at := slices.IndexFunc(machines, func(m machine) bool { return m.id == id })
	if at < 0 && slices.ContainsFunc(machines, func(m machine) bool { return m.name == name }) {
		return nil // another owner's
	}
	if at >= 0 {
		if err := p.removeMachine(ctx, machines[at]); err != nil {
			return fail(err)
		}
	}
	p.forget(name)
	err = p.exclusive(ctx, func() error {
		if err := p.sweep(ctx, p.nodeFolder(name)); err != nil {
			return err
		}
		nats, err := p.natNetworks(ctx)
		if err != nil {
			return err
		}
		if err := p.closeSSH(ctx, nats, name); err != nil {
			return err
		}
		return p.forgetBases(ctx)
	})
	if err != nil {
		return fail(err)
	}
	return nil
}

// inaccessible is the name that VirtualBox gives a machine whose settings' file it cannot read.
const inaccessible = "<inaccessible>"

func (p *Provisioner) removeMachine(ctx context.Context, m machine) error {
	if m.name == inaccessible {
		_, err := p.run(ctx, "unregistervm", m.id)
		return err
	}
	if err := p.off(ctx, m.id); err != nil {
		return err
	}
	i, err := p.info(ctx, m.id)
	if err != nil {
		return err
	}
	var volumes []int
	for place := range maxDisks {
		file := i[fmt.Sprintf("%s-%d-%d", controller, place/2, place%2)]
		// With snapshots the disk is one linked to what it was; the first two are never volumes.
		if place >= 2 && file != "" && file != "none" {
			volumes = append(volumes, place)
		}
	}
	if len(volumes) > 0 {
		// What was written to a volume since a snapshot is in the machine's folder. Without snapshots it is in the volume again.
		if err := p.deleteSnapshots(ctx, m.id); err != nil {
			return err
		}
	}
	for _, place := range volumes {
		if _, err := p.run(ctx, attachArgs(m.id, place, "none")...); err != nil {
			return err
		}
	}
	_, err = p.run(ctx, "unregistervm", m.id, "--delete")
	return err
}

// off switches a machine off as a power cut does.
func (p *Provisioner) off(ctx context.Context, id string) error {
	i, err := p.info(ctx, id)
	if err != nil {
		return err
	}
	if i.off() {
		return nil
	}
	_, err = p.run(ctx, "controlvm", id, "poweroff")
	if says(err, "not currently running") {
		return nil
	}
	return err
}

// off says whether no process runs the machine.
func (i info) off() bool {
	switch i["VMState"] {
	case "poweroff", "aborted", "saved", "aborted-saved":
		return true
	}
	return false
}

// machine is the one of that name; its id is "" when there is none.
func (p *Provisioner) machine(ctx context.Context, name string) (machine, error) {
	machines, err := p.machines(ctx)
	if err != nil {
		return machine{}, err
	}
	if at := slices.IndexFunc(machines, func(m machine) bool { return m.name == name }); at >= 0 {
		return machines[at], nil
	}
	return machine{}, nil
}

// there is the machine of that name, and what VirtualBox says of it; a fault when there is none.
func (p *Provisioner) there(ctx context.Context, name string) (machine, info, error) {
	m, err := p.machine(ctx, name)
	if err != nil {
		return m, nil, fmt.Errorf("look for node %q: %w", name, err)
	}
	if m.id == "" {
		e := fault.New(fault.NotFound, "there is no such machine in VirtualBox").WithRemedy("bring it back: toastdev up")
		e.Node = name
		return m, nil, e
	}
	i, err := p.info(ctx, m.id)
	if err != nil {
		return m, nil, fmt.Errorf("look for node %q: %w", name, err)
	}
	return m, i, nil
}

// State of a node. One that is about to start, stop or be stored runs.
func (p *Provisioner) State(ctx context.Context, name string) (provisioners.State, error) {
	_, i, err := p.there(ctx, name)
	if fault.CodeOf(err) == fault.NotFound {
		return provisioners.Absent, nil
	}
	if err != nil {
		return "", err
	}
	switch i["VMState"] {
	case "paused":
		return provisioners.Paused, nil
	case "gurumeditation": // VirtualBox gave it up
		return provisioners.Stopped, nil
	}
	if i.off() {
		return provisioners.Stopped, nil
	}
	return provisioners.Running, nil
}

// Start starts a stopped machine, or thaws a paused one, with all its cables in, and waits until it has booted.
func (p *Provisioner) Start(ctx context.Context, name string) error {
	m, i, err := p.there(ctx, name)
	if err != nil {
		return err
	}
	labels, err := p.extra(ctx, m.id)
	if err != nil {
		return fmt.Errorf("start node %q: %w", name, err)
	}
	if i["VMState"] == "gurumeditation" {
		if err := p.off(ctx, m.id); err != nil {
			return fmt.Errorf("start node %q: %w", name, err)
		}
		i["VMState"] = "poweroff"
	}
	switch {
	case i["VMState"] == "paused":
		if _, err := p.run(ctx, "controlvm", m.id, "resume"); err != nil {
			return fmt.Errorf("thaw node %q: %w", name, err)
		}
	case i.off():
		p.forget(name)
		if _, err := p.run(ctx, "startvm", m.id, "--type", "headless"); err != nil {
			return p.startFault(name, err)
		}
		for number := 1; number <= maxAdapters; number++ {
			if i[fmt.Sprintf("cableconnected%d", number)] != "off" {
				continue
			}
			if _, err := p.run(ctx, "controlvm", m.id, fmt.Sprintf("setlinkstate%d", number), "on"); err != nil {
				return fmt.Errorf("start node %q: %w", name, err)
			}
		}
	}
	n := p.connection(name, labels[keyNode])
	console := func() string {
		var b strings.Builder
		if err := p.Console(ctx, name, &b); err != nil {
			return err.Error()
		}
		return b.String()
	}
	if err := p.boot(ctx, n, console); err != nil {
		return fmt.Errorf("boot node %q: %w", name, err)
	}
	return nil
}

// startFault is why a machine did not start, as far as VirtualBox and the host let it be known.
func (p *Provisioner) startFault(name string, err error) error {
	var e *fault.Error
	switch {
	case says(err, "VERR_VM_DRIVER_VERSION_MISMATCH", "rc=-1912"):
		e = fault.New(fault.Missing, "VirtualBox's kernel driver is of another version").
			WithRemedy("build it anew and load it: sudo /sbin/vboxconfig")
	case says(err, "VERR_VM_DRIVER_NOT_INSTALLED", "VERR_VM_DRIVER_LOAD_ERROR", "VERR_VM_DRIVER_OPEN_ERROR", "rc=-1908", "Kernel driver not installed"), !p.hasDriver():
		e = noDriver()
	case says(err, "VERR_VM_DRIVER_NOT_ACCESSIBLE", "rc=-1909"):
		e = fault.New(fault.Missing, "no permission to use VirtualBox's kernel driver").
			WithRemedy("add yourself to its group and log in again: sudo usermod -aG vboxusers $USER")
	case says(err, "VERR_VMX_IN_VMX_ROOT_MODE", "VERR_SVM_IN_USE"):
		e = fault.New(fault.Busy, "another hypervisor (KVM) has the processor's virtualisation").
			WithRemedy("stop its machines; from Linux 6.12 on take KVM out of the kernel, too: sudo modprobe -r kvm_intel kvm_amd kvm")
	case says(err, "VERR_VMX_NO_VMX", "VERR_SVM_NO_SVM", "VERR_SVM_DISABLED", "VERR_VMX_MSR_ALL_VMX_DISABLED", "VERR_VMX_MSR_VMX_DISABLED"):
		e = fault.New(fault.Missing, "the processor has no virtualisation, or it is switched off; VirtualBox does not do without it").
			WithRemedy("switch it on in the firmware's setup, or use another provisioner: --set nodes.*.provisioner=libvirt")
	case says(err, "VERR_INTNET_FLT_IF_NOT_FOUND", "VERR_INTNET_FLT_IF_BUSY", "VERR_INTNET_FLT_IF_FAILED"):
		e = fault.New(fault.Missing, "VirtualBox cannot plug the machine into the host's bridges").
			WithRemedy("load its driver for that: sudo modprobe vboxnetflt")
	default:
		return fmt.Errorf("start node %q: %w", name, err)
	}
	e.Err, e.Node, e.Log = err, name, []string{err.Error()}
	return e
}

// Console writes what the machine wrote to its serial port since it was last started.
func (p *Provisioner) Console(ctx context.Context, name string, w io.Writer) error {
	if _, _, err := p.there(ctx, name); err != nil {
		return err
	}
	f, err := os.Open(consoleFile(p.nodeFolder(name)))
	if errors.Is(err, fs.ErrNotExist) { // it was never started
		return nil
	}
	if err == nil {
		defer f.Close()
		_, err = io.Copy(w, f)
	}
	if err != nil {
		return fmt.Errorf("read the console of node %q: %w", name, err)
	}
	return nil
}

// Stop ends a node as its own shutdown would: by its power button.
func (p *Provisioner) Stop(ctx context.Context, name string) error {
	m, i, err := p.there(ctx, name)
	if err != nil || i.off() {
		return err
	}
	defer p.forget(name)
	fail := func(err error) error { return fmt.Errorf("stop node %q: %w", name, err) }
	if i["VMState"] == "paused" {
		if _, err := p.run(ctx, "controlvm", m.id, "resume"); err != nil {
			return fail(err)
		}
	}
	if _, err := p.run(ctx, "controlvm", m.id, "acpipowerbutton"); err != nil && !says(err, "not currently running") {
		return fail(err)
	}
	err = node.WaitEvery(ctx, offPoll, "the machine to be off", provisioners.StopTimeout, func(ctx context.Context) (bool, error) {
		i, err := p.info(ctx, m.id)
		return err == nil && i.off(), err
	})
	if fault.CodeOf(err) == fault.Timeout {
		p.log.Warn("a node did not end by itself", "node", name, "after", provisioners.StopTimeout)
		err = p.off(ctx, m.id)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// Kill ends a node as a power cut does. It stays ended until Start.
func (p *Provisioner) Kill(ctx context.Context, name string) error {
	m, _, err := p.there(ctx, name)
	if err != nil {
		return err
	}
	defer p.forget(name)
	if err := p.off(ctx, m.id); err != nil {
		return fmt.Errorf("kill node %q: %w", name, err)
	}
	return nil
}

// Pause freezes a node as it is.
func (p *Provisioner) Pause(ctx context.Context, name string) error {
	m, i, err := p.there(ctx, name)
	if err != nil || i["VMState"] == "paused" {
		return err
	}
	if _, err := p.run(ctx, "controlvm", m.id, "pause"); err != nil {
		return fmt.Errorf("pause node %q: %w", name, err)
	}
	return nil
}

// Unplug pulls the cable of a node's NIC.
func (p *Provisioner) Unplug(ctx context.Context, name string, nic provisioners.NIC) error {
	return p.cable(ctx, name, nic, "off")
}

// Plug puts it in again.
func (p *Provisioner) Plug(ctx context.Context, name string, nic provisioners.NIC) error {
	return p.cable(ctx, name, nic, "on")
}

func (p *Provisioner) cable(ctx context.Context, name string, nic provisioners.NIC, to string) error {
	m, i, err := p.there(ctx, name)
	if err != nil {
		return err
	}
	for number := 1; number <= maxAdapters; number++ {
		if i[fmt.Sprintf("macaddress%d", number)] != plainMAC(nic.MAC) {
			continue
		}
		if i[fmt.Sprintf("cableconnected%d", number)] == to {
			return nil
		}
		args := []string{"controlvm", m.id, fmt.Sprintf("setlinkstate%d", number), to}
		if i.off() {
			args = []string{"modifyvm", m.id, fmt.Sprintf("--cableconnected%d", number), to}
		}
		if _, err := p.run(ctx, args...); err != nil {
			return fmt.Errorf("set the cable of node %q on %s %s: %w", name, nic.Network, to, err)
		}
		return nil
	}
	e := fault.New(fault.NotFound, "it has no NIC with the MAC %s", nic.MAC)
	e.Node = name
	return e
}

// Node is the machine of that name; it need not be there yet.
func (p *Provisioner) Node(name, hostname string) node.Node { return p.connection(name, hostname) }

// connection is the one way to a node's ssh server, kept open.
func (p *Provisioner) connection(name, hostname string) *vm.Machine {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, ok := p.nodes[name]
	if !ok {
		m = vm.NewNode(hostname,
			func(ctx context.Context) (net.Conn, error) { return p.dial(ctx, name) },
			func() (vm.Key, error) { return p.keyOf(name) })
		p.nodes[name] = m
	}
	return m
}

// forget closes a node's connection: its machine is off.
func (p *Provisioner) forget(name string) {
	p.mu.Lock()
	m, ok := p.nodes[name]
	p.mu.Unlock()
	if ok {
		m.Hangup()
	}
}

// keyOf is the key of the environment that the machine belongs to.
func (p *Provisioner) keyOf(name string) (vm.Key, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	m, _, err := p.there(ctx, name)
	if err != nil {
		return vm.Key{}, err
	}
	labels, err := p.extra(ctx, m.id)
	if err != nil {
		return vm.Key{}, err
	}
	return p.key(labels[keyEnvironment])
}

// dial connects to a node's ssh server: at its address, or where the host is not on its network by the port that leads to it.
func (p *Provisioner) dial(ctx context.Context, name string) (net.Conn, error) {
	m, i, err := p.there(ctx, name)
	if err != nil {
		return nil, err
	}
	if i.off() {
		e := fault.New(fault.NotFound, "the node does not run").WithRemedy("bring it back: toastdev up")
		e.Node = name
		return nil, e
	}
	to, err := p.sshAddress(ctx, m, i)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", to.String())
}

func (p *Provisioner) sshAddress(ctx context.Context, m machine, i info) (netip.AddrPort, error) {
	if i["nic1"] == natnet {
		nats, err := p.natNetworks(ctx)
		if err != nil {
			return netip.AddrPort{}, err
		}
		f, ok := sshForward(nats, m.name)
		if !ok {
			return netip.AddrPort{}, fmt.Errorf("node %q: no port of the host leads to it", m.name)
		}
		return f.host, nil
	}
	labels, err := p.extra(ctx, m.id)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a, err := netip.ParseAddr(labels[keyAddress])
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("node %q: its machine has no address to reach it at: %w", m.name, err)
	}
	return netip.AddrPortFrom(a, sshPort), nil
}
