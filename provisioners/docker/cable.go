package docker

import (
	"context"
	"fmt"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners"
)

// peerScript prints the index, on the host, of the other end of the interface that has the MAC $1. A bridge in the node may
// carry the same MAC: it has no other end.
const peerScript = `for device in /sys/class/net/*; do
	[ "$(cat "$device/address")" = "$1" ] && [ "$(cat "$device/iflink")" != "$(cat "$device/ifindex")" ] && exec cat "$device/iflink"
done
echo "no interface has the address $1" >&2
exit 1`

// cableScript sets the host's interface of index $1, which must be on the bridge $2, to $3: up or down.
const cableScript = `for device in /sys/class/net/*; do
	[ "$(cat "$device/ifindex")" = "$1" ] || continue
	bridge=$(readlink "$device/master")
	[ "${bridge##*/}" = "$2" ] && exec ip link set dev "${device##*/}" "$3"
done
echo "no interface $1 on $2" >&2
exit 1`

// Unplug takes the host's end of the node's interface down.
func (p *Provisioner) Unplug(ctx context.Context, name string, nic provisioners.NIC) error {
	return p.cable(ctx, name, nic, "down")
}

// Plug takes it up again.
func (p *Provisioner) Plug(ctx context.Context, name string, nic provisioners.NIC) error {
	return p.cable(ctx, name, nic, "up")
}

func (p *Provisioner) cable(ctx context.Context, name string, nic provisioners.NIC, to string) error {
	c, err := p.client.ContainerInspect(ctx, name)
	if err != nil {
		return p.missing(err, name)
	}
	if !c.State.Running || c.State.Paused {
		e := fault.New(fault.Failed, "the node is %s: its interfaces cannot be found", c.State.Status)
		e.Node = name
		return e
	}
	n, err := p.network(ctx, nic.Network)
	if err != nil {
		return p.fail(err, "look for network %q", nic.Network)
	}
	peer, err := node.Output(ctx, p.Node(name, c.Config.Labels[labelNode]), "sh", "-c", peerScript, "peer", nic.MAC)
	if err != nil {
		return err
	}
	owner := provisioners.Owner{Environment: c.Config.Labels[labelEnvironment], Home: c.Config.Labels[labelHome]}
	helper := owner.Environment + "-cable-" + strings.ReplaceAll(nic.MAC, ":", "")
	return p.onHost(ctx, owner, c.Image, helper, fmt.Sprintf("take the host's end of %s on %s %s", name, nic.Network, to),
		cableScript, strings.TrimSpace(string(peer)), n.Options[bridgeName], to)
}
