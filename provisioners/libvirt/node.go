package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/vm"
)

// CreateNode makes a domain of an image, starts it and waits until it has booted.
func (p *Provisioner) CreateNode(ctx context.Context, n provisioners.Node) error {
	whole, err := ask(ctx, p, fmt.Sprintf("look for node %q", n.Name), func(c *libvirt.Connect) (bool, error) {
		m, err := domainMark(c, n.Name)
		switch {
		case err != nil:
			return false, absent(err)
		case m.owner() != n.Owner:
			return false, taken(provisioners.KindNode, n.Name, m.owner())
		case m.Spec != fixed(n):
			return false, nil
		}
		// The domain is defined when its disks are complete; but they may have been removed by hand.
		left := 3 + len(n.Mounts)
		err = eachPart(c, n.Home, func(f part) {
			if f.environment == n.Environment && f.name == n.Name && (f.kind == systemDisk || f.kind == seedDisk || f.kind == consoleLog) {
				left--
			}
			for _, mount := range n.Mounts {
				if f == (part{n.Environment, mount.Volume, extraVolume}) {
					left--
				}
			}
		})
		return left == 0, err
	})
	if err != nil {
		return err
	}
	if whole {
		if err := p.redefine(ctx, n); err != nil {
			return err
		}
	} else if err := p.exclusive(ctx, func() error { return p.makeNode(ctx, n) }); err != nil {
		return err
	}
	if err := p.Start(ctx, n.Name); err != nil {
		return err
	}
	machine := p.machine(n.Name, n.Hostname)
	if err := renew(ctx, machine, n.Identity); err != nil {
		return err
	}
	for _, m := range n.Mounts {
		if err := vm.Mount(ctx, machine, "/dev/disk/by-id/virtio-"+serial(m.Volume), m.Path); err != nil {
			return err
		}
	}
	return nil
}

// makeNode makes a node's disks and its domain, in place of what there was. The domain comes last, so that what has one is
// complete.
func (p *Provisioner) makeNode(ctx context.Context, n provisioners.Node) error {
	key, err := p.key(n.Environment)
	if err != nil {
		return err
	}
	seed, err := vm.Seed(n.Identity, key)
	if err != nil {
		return err
	}
	if _, _, err := p.image(n.Image); err != nil {
		return err
	}
	base, err := askWithin(ctx, p, uploadTimeout, "give libvirt the image "+n.Image, func(c *libvirt.Connect) (string, error) {
		if err := p.remove(c, n.Owner, n.Name); err != nil {
			return "", err
		}
		pool, err := p.makePool(c, n.Home)
		if err != nil {
			return "", err
		}
		defer pool.Free()
		return p.makeBase(ctx, c, pool, n.Image)
	})
	if err != nil {
		return err
	}
	return p.do(ctx, fmt.Sprintf("create node %q", n.Name), func(c *libvirt.Connect) error {
		pool, err := p.makePool(c, n.Home)
		if err != nil {
			return err
		}
		defer pool.Free()
		if err := room(pool, int64(len(seed)), "node "+n.Name); err != nil {
			return err
		}
		size := n.Disk
		if size == 0 {
			size = defaultDisk
		}
		err = makeVolume(pool, libvirtxml.StorageVolume{
			Name: part{n.Environment, n.Name, systemDisk}.String(), Capacity: &libvirtxml.StorageVolumeSize{Value: uint64(size)},
			Target: &libvirtxml.StorageVolumeTarget{Format: &libvirtxml.StorageVolumeTargetFormat{Type: "qcow2"}},
			BackingStore: &libvirtxml.StorageVolumeBackingStore{
				Path: base, Format: &libvirtxml.StorageVolumeTargetFormat{Type: "qcow2"},
			},
		})
		if err != nil {
			return err
		}
		// A file of the pool, so that it can be read, and removed, by whom the daemon's own folders are closed to.
		for kind, content := range map[string][]byte{seedDisk: seed, consoleLog: nil} {
			name := part{n.Environment, n.Name, kind}.String()
			if _, err := upload(ctx, c, pool, name, bytes.NewReader(content), int64(len(content))); err != nil {
				return err
			}
		}
		folder, err := poolFolder(pool)
		if err != nil {
			return err
		}
		return p.define(c, n, folder)
	})
}

func (p *Provisioner) define(c *libvirt.Connect, n provisioners.Node, folder string) error {
	x, err := domainXML(n, folder, p.kvm)
	if err != nil {
		return err
	}
	text, err := x.Marshal()
	if err != nil {
		return err
	}
	d, err := c.DomainDefineXML(text)
	if err != nil {
		return err
	}
	return d.Free()
}

// redefine changes what can be changed of a node that is there: at once what libvirt can of a running one, the rest at its
// next start.
func (p *Provisioner) redefine(ctx context.Context, n provisioners.Node) error {
	return p.do(ctx, fmt.Sprintf("change node %q", n.Name), func(c *libvirt.Connect) error {
		pool, err := c.LookupStoragePoolByName(poolPrefix + n.Home)
		if err != nil {
			return err
		}
		defer pool.Free()
		folder, err := poolFolder(pool)
		if err != nil {
			return err
		}
		x, err := domainXML(n, folder, p.kvm)
		if err != nil {
			return err
		}
		has, err := domainMark(c, n.Name)
		if err != nil || strings.Contains(x.Metadata.XML, has.Definition) {
			return err
		}
		if err := p.define(c, n, folder); err != nil {
			return err
		}
		d, err := c.LookupDomainByName(n.Name)
		if err != nil {
			return err
		}
		defer d.Free()
		if active, err := d.IsActive(); err != nil || !active {
			return err
		}
		info, err := d.GetInfo()
		if err != nil {
			return err
		}
		want := uint64(x.Memory.Value)
		if want <= info.MaxMem && want != info.Memory {
			if err := d.SetMemoryFlags(want, libvirt.DOMAIN_MEM_LIVE); err == nil {
				info.Memory = want
			}
		}
		if info.Memory != want || info.NrVirtCpu != x.VCPU.Value {
			p.log.Warn("a running machine keeps its size until its next start", "node", n.Name,
				"memory", info.Memory<<10, "wanted", want<<10, "cpus", info.NrVirtCpu, "wanted-cpus", x.VCPU.Value)
		}
		return nil
	})
}

// renew gives a running node the identity as it is now, and the names that follow from it: its boot does it only at its
// next start.
func renew(ctx context.Context, m *vm.Machine, identity string) error {
	if identity == "" {
		return nil
	}
	has, err := node.Output(ctx, m, "cat", "/etc/toastdev/identity")
	if err != nil {
		return fmt.Errorf("read the identity of node %q: %w", m.Name(), err)
	}
	if string(has) == identity {
		return nil
	}
	if err := m.Copy(ctx, "/etc/toastdev/identity", 0o644, []byte(identity)); err != nil {
		return err
	}
	return m.Copy(ctx, "/etc/hosts", 0o644, []byte(provisioners.Hosts(identity)))
}

// DeleteNode switches the owner's node off and removes its domain and all its files.
func (p *Provisioner) DeleteNode(ctx context.Context, owner provisioners.Owner, name string) error {
	return p.exclusive(ctx, func() error {
		return p.do(ctx, fmt.Sprintf("delete node %q", name), func(c *libvirt.Connect) error {
			if err := p.remove(c, owner, name); err != nil {
				return err
			}
			pool, err := c.LookupStoragePoolByName(poolPrefix + owner.Home)
			if err != nil {
				return absent(err)
			}
			defer pool.Free()
			return prune(pool)
		})
	})
}

// remove removes a node and leaves the image it was made of.
func (p *Provisioner) remove(c *libvirt.Connect, owner provisioners.Owner, name string) error {
	d, err := c.LookupDomainByName(name)
	if err == nil {
		defer d.Free()
		m, err := readMark(d)
		if err != nil {
			return absent(err)
		}
		if m.owner() != owner {
			return nil
		}
		if err := d.Destroy(); err != nil && !isCode(err, libvirt.ERR_OPERATION_INVALID, libvirt.ERR_NO_DOMAIN) {
			return err
		}
		if err := undefine(d); err != nil {
			return err
		}
		p.forget(name)
		p.removeLog(name)
	} else if absent(err) != nil {
		return err
	}

	pool, err := c.LookupStoragePoolByName(poolPrefix + owner.Home)
	if err != nil {
		return absent(err)
	}
	defer pool.Free()
	if _, err := volumes(pool); err != nil { // it runs after that
		return err
	}
	if err := pool.Refresh(0); err != nil { // the log daemon's older files
		return err
	}
	files, err := volumes(pool)
	if err != nil {
		return err
	}
	for _, file := range files {
		f, ok := parsePart(file)
		if ok && f.environment == owner.Environment && f.name == name && f.kind != extraVolume {
			if err := deleteVolume(pool, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// undefine removes a domain with all that libvirt keeps for it.
func undefine(d *libvirt.Domain) error {
	err := d.UndefineFlags(libvirt.DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | libvirt.DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.DOMAIN_UNDEFINE_NVRAM)
	if isCode(err, libvirt.ERR_INVALID_ARG, libvirt.ERR_NO_SUPPORT) { // a driver that knows of none of it
		err = d.Undefine()
	}
	return absent(err)
}

// removeLog removes what QEMU said of a machine, which libvirt never does. Where its folder is another host's, or closed to
// this user, it stays, as that of any other machine.
func (p *Provisioner) removeLog(name string) {
	if p.remote() == nil && strings.HasSuffix(p.uri, "/system") {
		_ = os.Remove("/var/log/libvirt/qemu/" + name + ".log")
	}
}

func listNodes(c *libvirt.Connect, owner provisioners.Owner) ([]provisioners.Thing, error) {
	domains, err := c.ListAllDomains(0)
	if err != nil {
		return nil, err
	}
	var things []provisioners.Thing
	seen := map[string]bool{}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			things = append(things, provisioners.Thing{Kind: provisioners.KindNode, Name: name})
		}
	}
	for _, d := range domains {
		m, err := readMark(&d)
		name, other := d.GetName()
		if err == nil && other == nil && m.owner() == owner {
			add(name)
		}
		_ = d.Free()
	}
	err = eachPart(c, owner.Home, func(f part) {
		if f.environment == owner.Environment && f.kind != extraVolume {
			add(f.name)
		}
	})
	return things, err
}

// State of a node.
func (p *Provisioner) State(ctx context.Context, name string) (provisioners.State, error) {
	return ask(ctx, p, fmt.Sprintf("look for node %q", name), func(c *libvirt.Connect) (provisioners.State, error) {
		d, err := c.LookupDomainByName(name)
		if err != nil {
			return provisioners.Absent, absent(err)
		}
		defer d.Free()
		return state(d)
	})
}

func state(d *libvirt.Domain) (provisioners.State, error) {
	s, _, err := d.GetState()
	if err != nil {
		return provisioners.Absent, absent(err)
	}
	switch s {
	case libvirt.DOMAIN_RUNNING, libvirt.DOMAIN_BLOCKED, libvirt.DOMAIN_SHUTDOWN:
		return provisioners.Running, nil
	case libvirt.DOMAIN_PAUSED, libvirt.DOMAIN_PMSUSPENDED:
		return provisioners.Paused, nil
	}
	return provisioners.Stopped, nil
}

// withDomain makes calls on a node that must be there.
func (p *Provisioner) withDomain(ctx context.Context, name, step string, calls func(*libvirt.Connect, *libvirt.Domain) error) error {
	return p.do(ctx, fmt.Sprintf("%s node %q", step, name), func(c *libvirt.Connect) error {
		d, err := c.LookupDomainByName(name)
		if isCode(err, libvirt.ERR_NO_DOMAIN) {
			return missing(name)
		}
		if err != nil {
			return err
		}
		defer d.Free()
		return calls(c, d)
	})
}

func missing(name string) error {
	e := fault.New(fault.NotFound, "libvirt has no such node").WithRemedy("bring it back: toastdev up")
	e.Node = name
	return e
}

// Start starts a stopped node or resumes a paused one, and returns when it has booted.
func (p *Provisioner) Start(ctx context.Context, name string) error {
	var m mark
	thawed := false
	err := p.withDomain(ctx, name, "start", func(c *libvirt.Connect, d *libvirt.Domain) error {
		var err error
		if m, err = readMark(d); err != nil {
			return err
		}
		s, err := state(d)
		if err != nil || s == provisioners.Running {
			return err
		}
		if s == provisioners.Paused {
			thawed = true
			return d.Resume()
		}
		p.hangup(name)
		if err := startNetworks(c, d); err != nil {
			return err
		}
		return d.Create()
	})
	if err != nil || thawed {
		return err
	}
	return p.booted(ctx, name, m.Hostname)
}

// startNetworks starts those of a domain's networks that libvirt makes itself: a bridge is gone with its host's last life.
func startNetworks(c *libvirt.Connect, d *libvirt.Domain) error {
	text, err := d.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE)
	if err != nil {
		return err
	}
	var x libvirtxml.Domain
	if err := x.Unmarshal(text); err != nil {
		return err
	}
	networks, err := c.ListAllNetworks(libvirt.CONNECT_LIST_NETWORKS_INACTIVE)
	if err != nil {
		return err
	}
	for _, n := range networks {
		defer n.Free()
		name, err := n.GetName()
		if err != nil {
			return err
		}
		bridge, _ := n.GetBridgeName() // one without is none of ours
		for _, nic := range x.Devices.Interfaces {
			s := nic.Source
			if s != nil && (s.Network != nil && s.Network.Network == name || s.Bridge != nil && bridge != "" && s.Bridge.Bridge == bridge) {
				if err := startNetwork(c, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// booted waits until a started node is ready, and not for one that has ended meanwhile.
func (p *Provisioner) booted(ctx context.Context, name, hostname string) error {
	w, stop := p.watch(name)
	defer stop()
	booting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		for {
			select {
			case <-booting.Done():
				return
			case <-w.told:
			case <-time.After(lookAgain):
			}
			if s, err := p.State(booting, name); err == nil && (s == provisioners.Stopped || s == provisioners.Absent) {
				e := fault.New(fault.Failed, "the machine ended at boot")
				e.Node = hostname
				cancel(e)
			}
		}
	}()
	console := func() string {
		var b bytes.Buffer
		_ = p.Console(context.WithoutCancel(ctx), name, &b) // the fault is told without it
		return b.String()
	}
	err := vm.WaitBooted(booting, p.machine(name, hostname), console)
	if ended, ok := errors.AsType[*fault.Error](context.Cause(booting)); ok && err != nil {
		ended.Log = node.LastLines(console(), 15)
		err = ended
	}
	if err != nil {
		return fmt.Errorf("boot node %q: %w", name, err)
	}
	return nil
}

// Stop ends a node as its own shutdown would.
func (p *Provisioner) Stop(ctx context.Context, name string) error {
	err := p.withDomain(ctx, name, "stop", func(_ *libvirt.Connect, d *libvirt.Domain) error {
		s, err := state(d)
		if err != nil || s == provisioners.Stopped {
			return err
		}
		if s == provisioners.Paused {
			if err := d.Resume(); err != nil {
				return err
			}
		}
		if err := d.Shutdown(); err != nil && !isCode(err, libvirt.ERR_OPERATION_INVALID) { // it has ended meanwhile
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := p.wait(ctx, name, provisioners.Stopped, provisioners.StopTimeout); err != nil && fault.CodeOf(err) != fault.Timeout {
		return err
	}
	return p.Kill(ctx, name)
}

// machine is the node of that name, of which there is one, so that it keeps its connection.
func (p *Provisioner) machine(name, hostname string) *vm.Machine {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.machines[name]
	if m == nil {
		m = vm.NewNode(hostname,
			func(ctx context.Context) (net.Conn, error) {
				of, err := p.runs(ctx, name)
				if err != nil {
					return nil, err
				}
				return p.dial(ctx, of.Address)
			},
			func() (vm.Key, error) {
				of, err := p.runs(context.Background(), name) // the domain knows whose key it is
				if err != nil {
					return vm.Key{}, err
				}
				return p.key(of.Environment)
			})
		p.machines[name] = m
	}
	return m
}

// runs is what is noted of a node, when it runs; a fault when it does not.
func (p *Provisioner) runs(ctx context.Context, name string) (mark, error) {
	return ask(ctx, p, fmt.Sprintf("look for node %q", name), func(c *libvirt.Connect) (mark, error) {
		d, err := c.LookupDomainByName(name)
		if isCode(err, libvirt.ERR_NO_DOMAIN) {
			return mark{}, missing(name)
		}
		if err != nil {
			return mark{}, err
		}
		defer d.Free()
		m, err := readMark(d)
		if err != nil {
			return m, err
		}
		if s, err := state(d); err != nil || s != provisioners.Running {
			e := fault.New(fault.NotFound, "the node does not run: it is %s", s).WithRemedy("bring it back: toastdev up")
			e.Node, e.Err = name, err
			return m, e
		}
		return m, nil
	})
}

// hangup closes the connection to a node that is switched off.
func (p *Provisioner) hangup(name string) {
	p.mu.Lock()
	m := p.machines[name]
	p.mu.Unlock()
	if m != nil {
		m.Hangup()
	}
}

// forget is hangup of a node that is gone: the next of its name may have another host name.
func (p *Provisioner) forget(name string) {
	p.hangup(name)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.machines, name)
}

// dial connects to a node's ssh server: by way of the daemon's host, when that is another.
func (p *Provisioner) dial(ctx context.Context, address string) (net.Conn, error) {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return nil, fault.New(fault.Failed, "the node has no address on a network: %w", err).WithRemedy("make it anew: toastdev down, toastdev up")
	}
	if u := p.remote(); u != nil {
		return jump(ctx, u, ip)
	}
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", netip.AddrPortFrom(ip, 22).String())
}
