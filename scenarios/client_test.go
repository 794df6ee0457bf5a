package scenarios

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// TestClientsAreMachinesOfTheirOwn makes a host's bridge in a network namespace of the test's own, and clients on it.
func TestClientsAreMachinesOfTheirOwn(t *testing.T) {
	w := world()
	external, _ := w.Plan.Network("external")
	external.Bridge, external.MTU = "td-test", 1400
	err := elsewhere(func() error {
		host, err := netns.New()
		if err != nil {
			return err
		}
		defer host.Close()
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: external.Bridge, MTU: 1400}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		address, err := netlink.ParseAddr("192.0.2.1/24")
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.AddrAdd(bridge, address), netlink.LinkSetUp(bridge)); err != nil {
			return err
		}
		l, err := net.Listen("tcp4", "192.0.2.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				from, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
				io.WriteString(conn, from)
				conn.Close()
			}
		}()

		one, err := newClient(w)
		if err != nil {
			return err
		}
		two, err := newClient(w)
		if err != nil {
			return err
		}
		if one.address != netip.MustParseAddr("192.0.2.253") || two.address != netip.MustParseAddr("192.0.2.252") || len(one.link) != 15 {
			t.Errorf("%s on %s, %s on %s", one.address, one.link, two.address, two.link)
		}
		for _, c := range []*client{one, two} {
			err := c.within(func() error {
				conn, err := net.DialTimeout("tcp4", l.Addr().String(), 5*time.Second)
				if err != nil {
					return err
				}
				defer conn.Close()
				seen, err := io.ReadAll(conn)
				if string(seen) != c.address.String() {
					t.Errorf("the host sees %s", seen)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		var out bytes.Buffer
		if err := one.Run(t.Context(), node.Cmd{Args: []string{"cat", "/proc/net/dev"}, Stdout: &out}); err != nil || !strings.Contains(out.String(), "eth0") || strings.Contains(out.String(), "td-test") {
			t.Errorf("a command in the client sees %s, %v", out.String(), err)
		}
		if err := one.Run(t.Context(), node.Cmd{Args: []string{"false"}}); err == nil || err.Error() != "client: false: exit code 1" {
			t.Errorf("got %v", err)
		}
		if err := errors.Join(one.close(), two.close()); err != nil {
			return err
		}
		links, err := netlink.LinkList()
		if len(links) != 2 { // lo and the bridge
			t.Errorf("left: %v", links)
		}
		return err
	})
	if errors.Is(err, os.ErrPermission) {
		t.Skip("making network namespaces takes root")
	}
	if err != nil {
		t.Fatal(err)
	}
	external.Bridge = "td-nowhere"
	if _, err := newClient(w); fault.CodeOf(err) != fault.Missing {
		t.Errorf("without a bridge: %v", err)
	}
}
