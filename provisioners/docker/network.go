package docker

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
)

// bridgeName is the option of a bridge network that names its interface on the host.
const bridgeName = "com.docker.network.bridge.name"

// CreateNetwork makes a bridge network whose interface on the host is called n.Bridge.
func (p *Provisioner) CreateNetwork(ctx context.Context, n provisioners.Network) error {
	spec := digest(n)
	old, err := p.network(ctx, n.Name)
	switch {
	case err == nil && !owns(n.Owner, old.Labels):
		return taken(provisioners.KindNetwork, n.Name, old.Labels)
	case err == nil && old.Labels[labelSpec] == spec:
		return nil
	case err == nil:
		if err := p.DeleteNetwork(ctx, n.Owner, n.Name); err != nil {
			return err
		}
	case !errdefs.IsNotFound(err):
		return p.fail(err, "look for network %q", n.Name)
	}

	labels := ownerLabels(n.Owner)
	labels[labelSpec] = spec
	pool := network.IPAMConfig{Subnet: n.Subnet.String()}
	if n.Gateway.IsValid() {
		pool.Gateway = n.Gateway.String()
	}
	options := map[string]string{bridgeName: n.Bridge}
	if n.MTU > 0 {
		options["com.docker.network.driver.mtu"] = strconv.Itoa(n.MTU)
	}
	_, err = p.client.NetworkCreate(ctx, n.Name, network.CreateOptions{
		Driver:   "bridge",
		Internal: n.Internal,
		IPAM:     &network.IPAM{Config: []network.IPAMConfig{pool}},
		Options:  options,
		Labels:   labels,
	})
	if err != nil && strings.Contains(err.Error(), "overlap") {
		e := fault.New(fault.Busy, "create network %q: subnet %s is used by another network: %w", n.Name, n.Subnet, err)
		return e.WithRemedy("remove the other network (docker network ls), or choose a subnet in the topology")
	}
	return p.fail(err, "create network %q", n.Name)
}

// DeleteNetwork removes the owner's network, and takes out of it what is still connected.
func (p *Provisioner) DeleteNetwork(ctx context.Context, owner provisioners.Owner, name string) error {
	n, err := p.network(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return p.fail(err, "look for network %q", name)
	}
	if !owns(owner, n.Labels) {
		return nil
	}
	for id := range n.Containers {
		if err := p.client.NetworkDisconnect(ctx, n.ID, id, true); err != nil && !errdefs.IsNotFound(err) {
			return p.fail(err, "disconnect container %.12s from network %q", id, name)
		}
	}
	ports := hostEnds(n)
	if err := p.client.NetworkRemove(ctx, n.ID); err != nil && !errdefs.IsNotFound(err) {
		return p.fail(err, "delete network %q", name)
	}
	return letGo(ctx, "network "+name, ports)
}

// network is the one of exactly that name: the engine would take a part of an id for one, too.
func (p *Provisioner) network(ctx context.Context, name string) (network.Inspect, error) {
	n, err := p.client.NetworkInspect(ctx, name, network.InspectOptions{})
	if err == nil && n.Name != name {
		return network.Inspect{}, fmt.Errorf("network %q: %w", name, errdefs.ErrNotFound)
	}
	return n, err
}

func (p *Provisioner) listNetworks(ctx context.Context, owned filters.Args) ([]provisioners.Thing, error) {
	networks, err := p.client.NetworkList(ctx, network.ListOptions{Filters: owned})
	var things []provisioners.Thing
	for _, n := range networks {
		things = append(things, provisioners.Thing{Kind: provisioners.KindNetwork, Name: n.Name})
	}
	return things, err
}
