package libvirt

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
)

// Kill ends a node as a power cut does. It stays ended until Start.
func (p *Provisioner) Kill(ctx context.Context, name string) error {
	defer p.hangup(name)
	return p.withDomain(ctx, name, "kill", func(_ *libvirt.Connect, d *libvirt.Domain) error {
		if err := d.Destroy(); !isCode(err, libvirt.ERR_OPERATION_INVALID) { // it does not run
			return err
		}
		return nil
	})
}

// Pause freezes a node as it is.
func (p *Provisioner) Pause(ctx context.Context, name string) error {
	return p.withDomain(ctx, name, "pause", func(_ *libvirt.Connect, d *libvirt.Domain) error {
		if s, err := state(d); err != nil || s == provisioners.Paused {
			return err
		}
		return d.Suspend()
	})
}

// Unplug takes the carrier from the node's interface.
func (p *Provisioner) Unplug(ctx context.Context, name string, nic provisioners.NIC) error {
	return p.cable(ctx, name, nic, "down")
}

// Plug gives it back.
func (p *Provisioner) Plug(ctx context.Context, name string, nic provisioners.NIC) error {
	return p.cable(ctx, name, nic, "up")
}

func (p *Provisioner) cable(ctx context.Context, name string, nic provisioners.NIC, to string) error {
	return p.withDomain(ctx, name, fmt.Sprintf("take the link on %s %s of", nic.Network, to), func(_ *libvirt.Connect, d *libvirt.Domain) error {
		if s, err := state(d); err != nil || s != provisioners.Running {
			e := fault.New(fault.Failed, "the node is %s: it has no link", s)
			e.Node, e.Err = name, err
			return e
		}
		text, err := d.GetXMLDesc(0)
		if err != nil {
			return err
		}
		var x libvirtxml.Domain
		if err := x.Unmarshal(text); err != nil {
			return err
		}
		for _, has := range x.Devices.Interfaces {
			if has.MAC == nil || !strings.EqualFold(has.MAC.Address, nic.MAC) {
				continue
			}
			has.Link = &libvirtxml.DomainInterfaceLink{State: to}
			text, err := has.Marshal()
			if err != nil {
				return err
			}
			return d.UpdateDeviceFlags(text, libvirt.DOMAIN_DEVICE_MODIFY_LIVE)
		}
		e := fault.New(fault.NotFound, "the node has no interface %s on %s", nic.MAC, nic.Network)
		e.Node = name
		return e
	})
}

// Console writes what the node wrote to its serial port to w.
func (p *Provisioner) Console(ctx context.Context, name string, w io.Writer) error {
	return p.withDomain(ctx, name, "read the console of", func(c *libvirt.Connect, d *libvirt.Domain) error {
		m, err := readMark(d)
		if err != nil {
			return err
		}
		pool, err := c.LookupStoragePoolByName(poolPrefix + m.Home)
		if err != nil {
			return err
		}
		defer pool.Free()
		v, err := pool.LookupStorageVolByName(part{m.Environment, name, consoleLog}.String())
		if err != nil {
			return err
		}
		defer v.Free()
		return receive(c, v, w)
	})
}

// Snapshot keeps the node's memory and disks, all in its disk files. The node stands still meanwhile, and then goes on.
func (p *Provisioner) Snapshot(ctx context.Context, name, snapshot string) error {
	return p.withDomain(ctx, name, "snapshot", func(_ *libvirt.Connect, d *libvirt.Domain) error {
		text, err := (&libvirtxml.DomainSnapshot{Name: snapshot}).Marshal()
		if err != nil {
			return err
		}
		s, err := d.CreateSnapshotXML(text, 0)
		if err != nil {
			return err
		}
		return s.Free()
	})
}

// Restore makes the node what it was, running or not.
func (p *Provisioner) Restore(ctx context.Context, name, snapshot string) error {
	defer p.hangup(name)
	return p.withSnapshot(ctx, name, snapshot, "restore", func(s *libvirt.DomainSnapshot) error { return s.RevertToSnapshot(0) })
}

// DeleteSnapshot forgets a snapshot.
func (p *Provisioner) DeleteSnapshot(ctx context.Context, name, snapshot string) error {
	err := p.withSnapshot(ctx, name, snapshot, "delete a snapshot of", func(s *libvirt.DomainSnapshot) error { return s.Delete(0) })
	if fault.CodeOf(err) == fault.NotFound {
		return nil
	}
	return err
}

func (p *Provisioner) withSnapshot(ctx context.Context, name, snapshot, step string, calls func(*libvirt.DomainSnapshot) error) error {
	return p.withDomain(ctx, name, step, func(_ *libvirt.Connect, d *libvirt.Domain) error {
		s, err := d.SnapshotLookupByName(snapshot, 0)
		if isCode(err, libvirt.ERR_NO_DOMAIN_SNAPSHOT) {
			e := fault.New(fault.NotFound, "the node has no snapshot %q", snapshot)
			e.Node = name
			return e
		}
		if err != nil {
			return err
		}
		defer s.Free()
		return calls(s)
	})
}

// Snapshots are the names of a node's, in order.
func (p *Provisioner) Snapshots(ctx context.Context, name string) ([]string, error) {
	var names []string
	err := p.withDomain(ctx, name, "list the snapshots of", func(_ *libvirt.Connect, d *libvirt.Domain) error {
		var err error
		names, err = d.SnapshotListNames(0)
		return err
	})
	slices.Sort(names)
	return names, err
}
