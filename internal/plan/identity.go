package plan

import (
	"fmt"
	"strings"

	"github.com/toast-cloud/toastdev/topologies"
)

// Identity is the file /etc/toastdev/identity of a node: what its boot unit makes it at every start. "" when the plan
// has no such node.
func (p *Plan) Identity(name string) string {
	n, ok := p.Node(name)
	if !ok {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "hostname %s\n", n.Name)
	for _, role := range n.Roles {
		fmt.Fprintf(&b, "role %s\n", role)
	}
	for _, nic := range n.NICs {
		fmt.Fprintf(&b, "nic %s %s mtu %d", nic.Name, nic.MAC, nic.MTU)
		for _, a := range nic.Addresses {
			b.WriteString(" " + a.String())
		}
		b.WriteByte('\n')
	}
	if management, ok := p.Network(topologies.Management); ok {
		fmt.Fprintf(&b, "route default %s\n", management.Gateway)
	}
	for _, other := range p.Nodes {
		fmt.Fprintf(&b, "host %s %s\n", other.Address(topologies.Management), other.Name)
	}
	fmt.Fprintf(&b, "host %s api\n", p.API)
	for _, other := range p.Nodes {
		if a := other.Address(topologies.StorageNetwork); a.IsValid() {
			fmt.Fprintf(&b, "host %s %s-storage\n", a, other.Name)
		}
	}
	return b.String()
}
