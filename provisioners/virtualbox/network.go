package virtualbox

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
)

// What a NIC is plugged into, in VirtualBox's words.
const (
	bridged = "bridged"    // an interface of the host
	intnet  = "intnet"     // a network of machines alone; there is no more to it than its name
	natnet  = "natnetwork" // one that VirtualBox leads out of the host, and ports of the host into
)

// mark is what we note of a network or volume: VirtualBox has no place for it at the thing itself. It is in VirtualBox's
// own extra data, under the thing's kind and name, before the thing is made.
type mark struct {
	provisioners.Owner
	As   string `json:"as,omitempty"` // intnet, natnetwork; of a volume nothing
	Spec string `json:"spec"`
}

const markPrefix = "toastdev/"

func markKey(t provisioners.Thing) string { return markPrefix + t.String() }

func (p *Provisioner) marks(ctx context.Context) (map[provisioners.Thing]mark, error) {
	values, err := p.extra(ctx, "global")
	if err != nil {
		return nil, err
	}
	marks := map[provisioners.Thing]mark{}
	for key, value := range values {
		thing, ours := strings.CutPrefix(key, markPrefix)
		if !ours {
			continue
		}
		kind, name, ok := strings.Cut(thing, "/")
		var m mark
		if err := json.Unmarshal([]byte(value), &m); err != nil || !ok {
			return nil, garbled("getextradata global", 1, key+"="+value)
		}
		marks[provisioners.Thing{Kind: provisioners.Kind(kind), Name: name}] = m
	}
	return marks, nil
}

func (p *Provisioner) setMark(ctx context.Context, t provisioners.Thing, m mark) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = p.run(ctx, "setextradata", "global", markKey(t), string(data))
	return err
}

func (p *Provisioner) unmark(ctx context.Context, t provisioners.Thing) error {
	_, err := p.run(ctx, "setextradata", "global", markKey(t))
	return err
}

// CreateNetwork makes a network of VirtualBox's own, for a host without bridges: an internal one knows only machines, of
// another the machines reach the world, and the host n.Public by ports of its own.
func (p *Provisioner) CreateNetwork(ctx context.Context, n provisioners.Network) error {
	return p.exclusive(ctx, func() error { return p.createNetwork(ctx, n) })
}

func (p *Provisioner) createNetwork(ctx context.Context, n provisioners.Network) error {
	fail := func(err error) error { return fmt.Errorf("create network %q: %w", n.Name, err) }
	if first := n.Subnet.Masked().Addr().Next(); !n.Internal && n.Gateway != first {
		return fault.New(fault.Unsupported, "create network %q: in VirtualBox the gateway of %s is %s, not %s", n.Name, n.Subnet, first, n.Gateway).
			WithRemedy("use a provisioner that makes its networks of bridges")
	}
	thing := provisioners.Thing{Kind: provisioners.KindNetwork, Name: n.Name}
	marks, err := p.marks(ctx)
	if err != nil {
		return fail(err)
	}
	nats, err := p.natNetworks(ctx)
	if err != nil {
		return fail(err)
	}
	at := slices.IndexFunc(nats, func(nat natNetwork) bool { return nat.name == n.Name })
	old, marked := marks[thing]
	switch {
	case marked && old.Owner != n.Owner, !marked && at >= 0:
		return taken(provisioners.KindNetwork, n.Name, old.Owner)
	case marked && old.Spec == digest(n) && (old.As == intnet || at >= 0 && forwarded(nats[at], n.Public)):
		return nil
	}
	if at >= 0 {
		if _, err := p.run(ctx, "natnetwork", "remove", "--netname", n.Name); err != nil {
			return fail(err)
		}
		nats = slices.Delete(nats, at, at+1)
	}
	as := natnet
	if n.Internal {
		as = intnet
	}
	if err := p.setMark(ctx, thing, mark{Owner: n.Owner, As: as, Spec: digest(n)}); err != nil {
		return fail(err)
	}
	if n.Internal {
		return nil
	}
	if _, err := p.run(ctx, natNetworkArgs(n)...); err != nil {
		return fail(err)
	}
	for _, to := range n.Public {
		port, err := p.hostPort(to.Port(), nats)
		if err != nil {
			return fail(err)
		}
		f := forward{name: publicRule(to), host: netip.AddrPortFrom(loopback, port), to: to}
		if _, err := p.run(ctx, forwardArgs(n.Name, f)...); err != nil {
			return fail(err)
		}
	}
	return nil
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func publicRule(to netip.AddrPort) string { return fmt.Sprintf("public-%s-%d", to.Addr(), to.Port()) }

func sshRule(node string) string { return "ssh-" + node }

func forwarded(nat natNetwork, all []netip.AddrPort) bool {
	for _, to := range all {
		if !slices.ContainsFunc(nat.forwards, func(f forward) bool { return f.to == to }) {
			return false
		}
	}
	return true
}

// firstOpenPort is the first that a user without rights may listen on.
const firstOpenPort = 1024

// hostPort is a port of the host that is free now, and of no network that may be started: the wanted one if it can be had.
func (p *Provisioner) hostPort(wanted uint16, nats []natNetwork) (uint16, error) {
	used := func(port uint16) bool {
		return slices.ContainsFunc(nats, func(n natNetwork) bool {
			return slices.ContainsFunc(n.forwards, func(f forward) bool { return f.host.Port() == port })
		})
	}
	if wanted >= firstOpenPort && !used(wanted) && p.isFree(wanted) {
		return wanted, nil
	}
	for range 100 {
		port, err := p.freePort()
		if err != nil || !used(port) {
			return port, err
		}
	}
	return 0, fault.New(fault.Missing, "no port of %s is free", loopback).WithRemedy("remove environments that are not needed: toastdev list")
}

// DeleteNetwork removes the owner's network.
func (p *Provisioner) DeleteNetwork(ctx context.Context, owner provisioners.Owner, name string) error {
	return p.exclusive(ctx, func() error { return p.deleteNetwork(ctx, owner, name) })
}

func (p *Provisioner) deleteNetwork(ctx context.Context, owner provisioners.Owner, name string) error {
	fail := func(err error) error { return fmt.Errorf("delete network %q: %w", name, err) }
	thing := provisioners.Thing{Kind: provisioners.KindNetwork, Name: name}
	marks, err := p.marks(ctx)
	if err != nil {
		return fail(err)
	}
	m, marked := marks[thing]
	if !marked || m.Owner != owner {
		return nil
	}
	nats, err := p.natNetworks(ctx)
	if err != nil {
		return fail(err)
	}
	if slices.ContainsFunc(nats, func(nat natNetwork) bool { return nat.name == name }) {
		if _, err := p.run(ctx, "natnetwork", "remove", "--netname", name); err != nil {
			return fail(err)
		}
	}
	if err := p.unmark(ctx, thing); err != nil {
		return fail(err)
	}
	return nil
}

// adapters are a node's NICs as VirtualBox is told of them: in the networks that we made, else at the host's bridges.
func (p *Provisioner) adapters(ctx context.Context, n provisioners.Node) ([]adapter, error) {
	if len(n.NICs) > maxAdapters {
		return nil, fault.New(fault.Unsupported, "node %q has %d NICs", n.Name, len(n.NICs)).
			WithRemedy("a machine of VirtualBox has at most %d", maxAdapters)
	}
	marks, err := p.marks(ctx)
	if err != nil {
		return nil, err
	}
	var adapters []adapter
	for _, nic := range n.NICs {
		m, ours := marks[provisioners.Thing{Kind: provisioners.KindNetwork, Name: nic.Network}]
		switch {
		case ours && m.Owner != n.Owner:
			return nil, taken(provisioners.KindNetwork, nic.Network, m.Owner)
		case ours:
			adapters = append(adapters, adapter{as: m.As, network: nic.Network, mac: nic.MAC})
		case nic.Bridge != "" && p.bridge(nic.Bridge):
			adapters = append(adapters, adapter{as: bridged, network: nic.Bridge, mac: nic.MAC})
		default:
			e := fault.New(fault.NotFound, "network %q is neither VirtualBox's nor a bridge of this host (%q)", nic.Network, nic.Bridge).
				WithRemedy("bring it back: toastdev up")
			e.Node = n.Name
			return nil, e
		}
	}
	return adapters, nil
}

// openSSH lets a port of the host lead to the ssh server of a node whose first NIC is in a network that the host is not on.
func (p *Provisioner) openSSH(ctx context.Context, n provisioners.Node, adapters []adapter) error {
	if len(adapters) == 0 || adapters[0].as != natnet {
		return nil
	}
	return p.exclusive(ctx, func() error {
		nats, err := p.natNetworks(ctx)
		if err != nil {
			return err
		}
		to := netip.AddrPortFrom(n.NICs[0].Address, sshPort)
		if f, ok := sshForward(nats, n.Name); ok {
			if f.to == to {
				return nil
			}
			if err := p.closeSSH(ctx, nats, n.Name); err != nil {
				return err
			}
		}
		port, err := p.hostPort(0, nats)
		if err != nil {
			return err
		}
		_, err = p.run(ctx, forwardArgs(adapters[0].network, forward{name: sshRule(n.Name), host: netip.AddrPortFrom(loopback, port), to: to})...)
		return err
	})
}

// closeSSH takes a node's rules out of all networks.
func (p *Provisioner) closeSSH(ctx context.Context, nats []natNetwork, name string) error {
	for _, nat := range nats {
		for _, f := range nat.forwards {
			if f.name != sshRule(name) {
				continue
			}
			if _, err := p.run(ctx, "natnetwork", "modify", "--netname", nat.name, "--port-forward-4", "delete", f.name); err != nil {
				return err
			}
		}
	}
	return nil
}

func sshForward(nats []natNetwork, name string) (forward, bool) {
	for _, nat := range nats {
		for _, f := range nat.forwards {
			if f.name == sshRule(name) {
				return f, true
			}
		}
	}
	return forward{}, false
}

// Forwards are the ports of the host that lead into the owner's networks.
func (p *Provisioner) Forwards(ctx context.Context, owner provisioners.Owner) ([]provisioners.Forward, error) {
	marks, err := p.marks(ctx)
	if err != nil {
		return nil, fmt.Errorf("list forwarded ports: %w", err)
	}
	nats, err := p.natNetworks(ctx)
	if err != nil {
		return nil, fmt.Errorf("list forwarded ports: %w", err)
	}
	var list []provisioners.Forward
	for _, nat := range nats {
		if marks[provisioners.Thing{Kind: provisioners.KindNetwork, Name: nat.name}].Owner != owner {
			continue
		}
		for _, f := range nat.forwards {
			list = append(list, provisioners.Forward{Network: nat.name, Name: f.name, Host: f.host, To: f.to})
		}
	}
	return list, nil
}
