package engine

import (
	"fmt"
	"strings"

	"github.com/toast-cloud/toastdev/internal/plan"
)

// Names that the identity gives a meaning to.
const (
	management = "management" // has the default route; a node's name is its address there
	storage    = "storage"    // a node's address there is NAME-storage
	apiName    = "api"        // the region's VIP
)

// Identity is the node's /etc/toastdev/identity: what its boot unit makes of it, at every start. A line is a fact:
// hostname, role, nic, route, host (images/node/rootfs/usr/lib/toastdev/boot reads it).
func Identity(p *plan.Plan, n plan.Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "hostname %s\n", n.Name)
	for _, role := range n.Roles {
		fmt.Fprintf(&b, "role %s\n", role)
	}
	for _, nic := range n.NICs {
		fmt.Fprintf(&b, "nic %s %s mtu %d", nic.Name, nic.MAC, nic.MTU)
		for _, address := range nic.Addresses {
			fmt.Fprintf(&b, " %s", address)
		}
		b.WriteByte('\n')
	}
	if network, ok := p.Network(management); ok && network.Gateway.IsValid() {
		fmt.Fprintf(&b, "route default %s\n", network.Gateway)
	}
	host := func(network, suffix string) {
		for i := range p.Nodes {
			if address := p.Nodes[i].Address(network); address.IsValid() {
				fmt.Fprintf(&b, "host %s %s%s\n", address, p.Nodes[i].Name, suffix)
			}
		}
	}
	host(management, "")
	if p.API.IsValid() {
		fmt.Fprintf(&b, "host %s %s\n", p.API, apiName)
	}
	host(storage, "-"+storage)
	return b.String()
}
