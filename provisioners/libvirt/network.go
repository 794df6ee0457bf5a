package libvirt

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
)

// networkID is the UUID of an owner's network, by which it is known: before version 9.7 libvirt keeps no metadata of networks.
func networkID(o provisioners.Owner, name string) string {
	return id("network", o, name)
}

func id(kind string, o provisioners.Owner, name string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(strings.Join([]string{namespace, kind, o.Home, o.Environment, name}, "/"))).String()
}

// CreateNetwork makes a bridge on the daemon's host, called n.Bridge, with the host's address on it. Nothing listens there.
func (p *Provisioner) CreateNetwork(ctx context.Context, n provisioners.Network) error {
	return p.do(ctx, fmt.Sprintf("create network %q", n.Name), func(c *libvirt.Connect) error {
		whose, old, err := network(c, n.Name)
		if err != nil && !isCode(err, libvirt.ERR_NO_NETWORK) {
			return err
		}
		if err == nil {
			if whose != networkID(n.Owner, n.Name) {
				return taken(provisioners.KindNetwork, n.Name, provisioners.Owner{})
			}
			if sameNetwork(old, networkXML(n)) {
				return startNetwork(c, n.Name)
			}
			if err := deleteNetwork(c, n.Name); err != nil {
				return err
			}
		}
		text, err := networkXML(n).Marshal()
		if err != nil {
			return err
		}
		made, err := c.NetworkDefineXML(text)
		if err != nil {
			return inUse(err, n)
		}
		defer made.Free()
		if err := made.SetAutostart(true); err != nil {
			return err
		}
		if err := made.Create(); err != nil {
			_ = made.Undefine()
			return inUse(err, n)
		}
		return nil
	})
}

func inUse(err error, n provisioners.Network) error {
	if !strings.Contains(err.Error(), "already in use") && !strings.Contains(err.Error(), "already exists") {
		return err
	}
	return fault.New(fault.Busy, "create network %q: bridge %s or subnet %s is used by something else: %w", n.Name, n.Bridge, n.Subnet, err).
		WithRemedy("remove the other network (virsh net-list --all, ip address), or choose a subnet in the topology")
}

// networkXML is the network as libvirt wants it.
func networkXML(n provisioners.Network) *libvirtxml.Network {
	x := &libvirtxml.Network{
		Name:   n.Name,
		UUID:   networkID(n.Owner, n.Name),
		Bridge: &libvirtxml.NetworkBridge{Name: n.Bridge, STP: "off", Delay: "0"},
		// Neither names nor addresses are asked for here: with both off libvirt starts no dnsmasq.
		DNS: &libvirtxml.NetworkDNS{Enable: "no"},
	}
	if !n.Internal {
		x.Forward = &libvirtxml.NetworkForward{Mode: "nat"}
	}
	if n.MTU > 0 {
		x.MTU = &libvirtxml.NetworkMTU{Size: uint(n.MTU)}
	}
	if n.Gateway.IsValid() {
		family := "ipv4"
		if n.Gateway.Is6() {
			family = "ipv6"
		}
		x.IPs = []libvirtxml.NetworkIP{{Family: family, Address: n.Gateway.String(), Prefix: uint(n.Subnet.Bits())}}
	}
	return x
}

// sameNetwork says whether libvirt's network is as wanted; it adds a MAC and leaves out what is usual.
func sameNetwork(has, want *libvirtxml.Network) bool {
	said := func(n *libvirtxml.Network) string {
		var b strings.Builder
		if n.Bridge != nil {
			fmt.Fprintf(&b, "bridge %s\n", n.Bridge.Name)
		}
		if n.Forward != nil {
			fmt.Fprintf(&b, "forward %s\n", n.Forward.Mode)
		}
		if n.MTU != nil {
			fmt.Fprintf(&b, "mtu %d\n", n.MTU.Size)
		}
		for _, ip := range n.IPs {
			fmt.Fprintf(&b, "ip %s/%d\n", ip.Address, ip.Prefix)
		}
		return b.String()
	}
	return said(has) == said(want)
}

// network is the UUID and the definition of a network; libvirt's own error when there is none.
func network(c *libvirt.Connect, name string) (string, *libvirtxml.Network, error) {
	n, err := c.LookupNetworkByName(name)
	if err != nil {
		return "", nil, err
	}
	defer n.Free()
	text, err := n.GetXMLDesc(0)
	if err != nil {
		return "", nil, err
	}
	var x libvirtxml.Network
	err = x.Unmarshal(text)
	return x.UUID, &x, err
}

// startNetwork starts a network that is there and does not run, as after a restart of the host.
func startNetwork(c *libvirt.Connect, name string) error {
	n, err := c.LookupNetworkByName(name)
	if err != nil {
		return err
	}
	defer n.Free()
	if active, err := n.IsActive(); err != nil || active {
		return err
	}
	return n.Create()
}

// DeleteNetwork removes the owner's network and its bridge.
func (p *Provisioner) DeleteNetwork(ctx context.Context, owner provisioners.Owner, name string) error {
	return p.do(ctx, fmt.Sprintf("delete network %q", name), func(c *libvirt.Connect) error {
		whose, _, err := network(c, name)
		if err != nil || whose != networkID(owner, name) {
			return absent(err)
		}
		return deleteNetwork(c, name)
	})
}

func deleteNetwork(c *libvirt.Connect, name string) error {
	n, err := c.LookupNetworkByName(name)
	if err != nil {
		return absent(err)
	}
	defer n.Free()
	if active, err := n.IsActive(); err != nil {
		return absent(err)
	} else if active {
		if err := n.Destroy(); err != nil && !isCode(err, libvirt.ERR_NO_NETWORK, libvirt.ERR_OPERATION_INVALID) {
			return err
		}
	}
	return absent(n.Undefine())
}

func listNetworks(c *libvirt.Connect, owner provisioners.Owner) ([]provisioners.Thing, error) {
	networks, err := c.ListAllNetworks(0)
	if err != nil {
		return nil, err
	}
	var things []provisioners.Thing
	for _, n := range networks {
		name, err := n.GetName()
		whose, other := n.GetUUIDString()
		if err == nil && other == nil && whose == networkID(owner, name) {
			things = append(things, provisioners.Thing{Kind: provisioners.KindNetwork, Name: name})
		}
		_ = n.Free()
	}
	return things, nil
}
