package scenarios

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/plan"
)

const (
	clientName      = "client"
	clientInterface = "eth0" // in its namespace
)

// client is a machine outside the region: a network namespace of this host with one interface, on the external network.
// The namespace has no name, and nothing but this process holds it: when the process ends, however it ends, the kernel
// removes the namespace and both ends of its link.
type client struct {
	ns      netns.NsHandle
	link    string // the host's end of its link
	address netip.Addr
}

// client is the run's client, which is made when it is first asked for.
func (r *Run) client() (*client, error) {
	r.mu.Lock()
	made, ok := r.things[thing{clientName, clientName}].(func() (*client, error))
	if !ok {
		made = sync.OnceValues(func() (*client, error) {
			c, err := newClient(r.World)
			if err == nil {
				r.Undo("the client's network namespace", func(context.Context) error { return c.close() })
			}
			return c, err
		})
		r.things[thing{clientName, clientName}] = made
	}
	r.mu.Unlock()
	return made()
}

// clientTarget is where the client's packets can be seen: its namespace's path, its interface, its addresses. ok is false
// when there is no client, or none yet.
func (r *Run) clientTarget() (namespace, iface string, addresses []netip.Addr, ok bool) {
	r.mu.Lock()
	_, asked := r.things[thing{clientName, clientName}]
	r.mu.Unlock()
	if !asked {
		return "", "", nil, false
	}
	c, err := r.client()
	if err != nil {
		return "", "", nil, false
	}
	return fmt.Sprintf("/proc/self/fd/%d", int(c.ns)), clientInterface, []netip.Addr{c.address}, true
}

// newClient makes a client with an address of its own.
func newClient(w *World) (*client, error) {
	external, ok := w.Plan.Network("external")
	if !ok {
		return nil, Skipped("the region has no external network")
	}
	bridge, err := netlink.LinkByName(external.Bridge)
	if err != nil {
		return nil, fault.New(fault.Missing, "the external network's bridge %s is not on this host: %w", external.Bridge, err).
			WithRemedy("run the scenario where the region's nodes run")
	}
	ns, err := newNamespace()
	if errors.Is(err, os.ErrPermission) {
		return nil, fault.New(fault.Missing, "a client outside the region is a network namespace, which takes root to make").WithRemedy("run the scenario as root")
	}
	if err != nil {
		return nil, fmt.Errorf("make the client's network namespace: %w", err)
	}
	c := &client{ns: ns}
	if err := c.connect(w, external, bridge); err != nil {
		return nil, errors.Join(fmt.Errorf("make the client on the external network: %w", err), c.close())
	}
	return c, nil
}

// connect gives the client its link and address. A link's name has the address in it: whoever makes the link has the
// address, also where several scenarios run at once.
func (c *client) connect(w *World, external *plan.Network, bridge netlink.Link) error {
	sum := sha256.Sum256([]byte(w.Owner.Home + "/" + w.Owner.Environment))
	for _, address := range clientAddresses(w.Plan, external) {
		bytes := address.As4()
		link := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("td-%x%x", sum[:4], bytes[2:]), MTU: external.MTU, MasterIndex: bridge.Attrs().Index},
			PeerName:  clientInterface, PeerNamespace: netlink.NsFd(c.ns),
			// The same address always comes with the same MAC: what the region remembers of an earlier client stays right.
			PeerHardwareAddr: net.HardwareAddr{0x02, 0x43, bytes[0], bytes[1], bytes[2], bytes[3]},
		}
		err := netlink.LinkAdd(link)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("add link %s: %w", link.Name, err)
		}
		c.link, c.address = link.Name, address
		// Open vSwitch's userspace datapath takes packets as they are: a checksum that was left to the hardware is never
		// filled in.
		if err := noChecksumOffload(c.link); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", link.Name, err)
		}
		return c.within(func() error { return c.configure(external) })
	}
	return fault.New(fault.Missing, "the external network %s has no free address for a client: all that are neither floating nor a node's are in use", external.Subnet).
		WithRemedy("leave some addresses out of networks.external.floating in the topology")
}

// configure makes the namespace ready, from inside it.
func (c *client) configure(external *plan.Network) error {
	if err := noChecksumOffload(clientInterface); err != nil {
		return err
	}
	for _, name := range []string{"lo", clientInterface} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if name == clientInterface {
			address := &netlink.Addr{IPNet: &net.IPNet{IP: c.address.AsSlice(), Mask: net.CIDRMask(external.Subnet.Bits(), 32)}}
			if err := netlink.AddrAdd(link, address); err != nil {
				return fmt.Errorf("give it %s: %w", c.address, err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	if err := netlink.RouteAdd(&netlink.Route{Gw: external.Gateway.AsSlice()}); err != nil {
		return fmt.Errorf("route by %s: %w", external.Gateway, err)
	}
	return nil
}

// neighbour is the MAC that the client knows an address of its network by; "" when it knows none.
func (c *client) neighbour(address netip.Addr) (mac string, err error) {
	err = c.within(func() error {
		link, err := netlink.LinkByName(clientInterface)
		if err != nil {
			return err
		}
		known, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
		for _, n := range known {
			if n.IP.Equal(address.AsSlice()) && n.HardwareAddr != nil {
				mac = n.HardwareAddr.String()
			}
		}
		return err
	})
	return mac, err
}

// clientAddresses is what a client's address may be, the last of the subnet first: neither floating, nor a node's, nor the
// host's.
func clientAddresses(p *plan.Plan, external *plan.Network) []netip.Addr {
	taken := map[netip.Addr]bool{external.Gateway: true}
	for _, n := range p.Nodes {
		for _, nic := range n.NICs {
			for _, a := range nic.Addresses {
				taken[a.Addr()] = true
			}
		}
	}
	first := external.Subnet.Masked().Addr()
	last := first.As4()
	binary.BigEndian.PutUint32(last[:], binary.BigEndian.Uint32(last[:])|(1<<(32-external.Subnet.Bits())-1))
	var free []netip.Addr
	for a := netip.AddrFrom4(last).Prev(); first.Less(a) && len(free) < 64; a = a.Prev() { // the last one is the broadcast's
		floating := external.Floating != nil && external.Floating.First.Compare(a) <= 0 && a.Compare(external.Floating.Last) <= 0
		if !taken[a] && !floating {
			free = append(free, a)
		}
	}
	return free
}

// close removes the client. The link goes at once, the namespace with the last one that has it open.
func (c *client) close() error {
	var err error
	if c.link != "" {
		if link, missing := netlink.LinkByName(c.link); missing == nil {
			err = netlink.LinkDel(link)
		}
	}
	return errors.Join(err, c.ns.Close())
}

func (c *client) Name() string { return clientName }

// Run runs a command of this host in the client's namespace. It is killed when ctx ends, and when this process does.
func (c *client) Run(ctx context.Context, cmd node.Cmd) error {
	return c.within(func() error { return local(ctx, cmd) })
}

// local runs a command on this thread.
func local(ctx context.Context, cmd node.Cmd) error {
	if len(cmd.Args) == 0 {
		return errors.New("client: no command")
	}
	process := exec.CommandContext(ctx, cmd.Args[0], cmd.Args[1:]...)
	process.Env = append(os.Environ(), cmd.Env...)
	process.Stdout, process.Stderr = cmd.Stdout, cmd.Stderr
	if cmd.Stdin != nil {
		// By a pipe of its own: a command that has ended does not wait for the rest of its input.
		stdin, err := process.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(stdin, cmd.Stdin)
			_ = stdin.Close()
		}()
	}
	// The signal comes when the thread ends that has started it: it is held to the end.
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := process.Run()
	switch exit, ok := errors.AsType[*exec.ExitError](err); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %s: %w", clientName, cmd.Args[0], ctx.Err())
	case ok:
		return &node.ExitError{Node: clientName, Args: cmd.Args, Code: exit.ExitCode()}
	}
	return err
}

// within calls f on a thread that is in the client's namespace meanwhile.
func (c *client) within(f func() error) error {
	return elsewhere(func() error {
		if err := netns.Set(c.ns); err != nil {
			return fmt.Errorf("enter the client's network namespace: %w", err)
		}
		return f()
	})
}

// newNamespace makes a network namespace that this process alone has.
func newNamespace() (ns netns.NsHandle, err error) {
	err = elsewhere(func() error {
		ns, err = netns.New()
		return err
	})
	return ns, err
}

// elsewhere calls f, which may change its thread's network namespace, and brings the thread back.
func elsewhere(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		err = f()
		// A thread that cannot come back ends with this goroutine: it stays locked.
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// noChecksumOffload has an interface fill in the checksums of what it sends (ethtool -K INTERFACE tx off).
func noChecksumOffload(name string) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer e.Close()
	if err := e.Change(name, map[string]bool{"tx-checksum-ip-generic": false}); err != nil {
		return fmt.Errorf("turn off %s's transmit checksums: %w", name, err)
	}
	return nil
}
