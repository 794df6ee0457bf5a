package docker

import (
	"context"
	"strings"

	"github.com/safchain/ethtool"

	"github.com/toast-cloud/toastdev/provisioners"
)

// Prepare turns the transmit checksum offload of the networks' bridges off: Open vSwitch's userspace datapath in a node
// reads packets from the host as they are, and a checksum that was left to the hardware never gets filled in.
func (p *Provisioner) Prepare(ctx context.Context, networks []provisioners.Network, image string) error {
	var bridges []string
	var owner provisioners.Owner
	for _, n := range networks {
		if !n.Internal && offloads(n.Bridge) {
			bridges, owner = append(bridges, n.Bridge), n.Owner
		}
	}
	if len(bridges) == 0 {
		return nil
	}
	return p.onHost(ctx, owner, image, owner.Environment+"-offload", "turn off transmit checksums on "+strings.Join(bridges, ", "),
		`for bridge; do ethtool -K "$bridge" tx off || exit; done`, bridges...)
}

// offloads asks the kernel, which answers everybody. It says yes when it cannot tell: the interface may be on the host of
// a remote engine.
func offloads(bridge string) bool {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return true
	}
	defer e.Close()
	features, err := e.Features(bridge)
	return err != nil || features["tx-checksum-ip-generic"]
}
