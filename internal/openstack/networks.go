package openstack

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/provider"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
)

// networks makes the external network, the newcomer's, and the router between them.
func (w *welcome) networks(ctx context.Context, project string) error {
	pages, err := networks.List(w.Network, nil).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	var all []existing
	if err := networks.ExtractNetworksInto(pages, &all); err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	yes, no := true, false
	// The physical network carries one flat network: one that a Salt tree of the user's own has made there is it, whatever
	// its name. It is not shared, so that a server without --network finds exactly one to be on.
	there := slices.IndexFunc(all, func(n existing) bool { return n.External && n.PhysicalNetwork == physnet && n.NetworkType == "flat" })
	ext, _, err := w.network(ctx, all, there, ExternalNetwork, external.CreateOptsExt{
		CreateOptsBuilder: provider.CreateOptsExt{
			CreateOptsBuilder: networks.CreateOpts{Name: ExternalNetwork, Description: described},
			Segments:          []provider.Segment{{NetworkType: "flat", PhysicalNetwork: physnet}},
		},
		External: &yes,
	}, subnets.CreateOpts{
		Name: ExternalNetwork + "-subnet", CIDR: w.spec.External.Subnet.String(), IPVersion: gophercloud.IPv4, EnableDHCP: &no,
		GatewayIP:       text(w.spec.External.Gateway),
		AllocationPools: []subnets.AllocationPool{{Start: w.spec.External.First.String(), End: w.spec.External.Last.String()}},
	})
	if err != nil {
		return err
	}
	there = slices.IndexFunc(all, func(n existing) bool { return n.Name == NewcomerNetwork && n.ProjectID == project })
	_, subnet, err := w.network(ctx, all, there, NewcomerNetwork,
		networks.CreateOpts{Name: NewcomerNetwork, ProjectID: project, Description: described},
		subnets.CreateOpts{Name: NewcomerNetwork + "-subnet", ProjectID: project, CIDR: w.spec.Subnet.String(), IPVersion: gophercloud.IPv4})
	if err != nil {
		return err
	}
	return w.router(ctx, project, ext, subnet)
}

func text(a netip.Addr) *string {
	s := a.String()
	return &s
}

// existing is a network as the admin sees it.
type existing struct {
	networks.Network
	external.NetworkExternalExt
	provider.NetworkProviderExt
}

// network makes a network and its subnet, unless they are there: the network at that place in all.
func (w *welcome) network(ctx context.Context, all []existing, there int, name string, create networks.CreateOptsBuilder, first subnets.CreateOpts) (id, subnet string, err error) {
	if there >= 0 {
		id = all[there].ID
		if len(all[there].Subnets) > 0 {
			return id, all[there].Subnets[0], nil
		}
	}
	if id == "" {
		n, err := networks.Create(ctx, w.Network, create).Extract()
		if err := w.made(err, "create network %q", name); err != nil {
			return "", "", err
		}
		id = n.ID
	}
	first.NetworkID, first.Description = id, described
	s, err := subnets.Create(ctx, w.Network, first).Extract()
	if err := w.made(err, "create subnet %q", first.Name); err != nil {
		return "", "", err
	}
	return id, s.ID, nil
}

// router makes the router, brings it to the spec's kind, and connects it to both sides.
func (w *welcome) router(ctx context.Context, project, ext, subnet string) error {
	pages, err := routers.List(w.Network, routers.ListOpts{Name: NewcomerRouter, ProjectID: project}).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list routers: %w", err)
	}
	found, err := routers.ExtractRouters(pages)
	if err != nil {
		return fmt.Errorf("list routers: %w", err)
	}
	gateway := &routers.GatewayInfo{NetworkID: ext}
	var router *routers.Router
	if len(found) == 0 {
		opts := routers.CreateOpts{Name: NewcomerRouter, ProjectID: project, Description: described, GatewayInfo: gateway, Distributed: &w.spec.Distributed}
		router, err = routers.Create(ctx, w.Network, opts).Extract()
		if err := w.made(err, "create router %q", NewcomerRouter); err != nil {
			return err
		}
	} else {
		router = &found[0]
		if router.Distributed != w.spec.Distributed {
			// Neutron changes a router's kind only while it is down.
			down, up := false, true
			if _, err = routers.Update(ctx, w.Network, router.ID, routers.UpdateOpts{AdminStateUp: &down}).Extract(); err == nil {
				_, err = routers.Update(ctx, w.Network, router.ID, routers.UpdateOpts{Distributed: &w.spec.Distributed, AdminStateUp: &up}).Extract()
			}
			if err := w.made(err, "make router %q distributed=%t", NewcomerRouter, w.spec.Distributed); err != nil {
				return err
			}
		}
		if router.GatewayInfo.NetworkID != ext {
			_, err = routers.Update(ctx, w.Network, router.ID, routers.UpdateOpts{GatewayInfo: gateway}).Extract()
			if err := w.made(err, "give router %q its gateway", NewcomerRouter); err != nil {
				return err
			}
		}
	}
	pages, err = ports.List(w.Network, ports.ListOpts{DeviceID: router.ID}).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list ports of router %q: %w", NewcomerRouter, err)
	}
	attached, err := ports.ExtractPorts(pages)
	if err != nil {
		return fmt.Errorf("list ports of router %q: %w", NewcomerRouter, err)
	}
	for _, port := range attached {
		for _, ip := range port.FixedIPs {
			if ip.SubnetID == subnet {
				return nil
			}
		}
	}
	_, err = routers.AddInterface(ctx, w.Network, router.ID, routers.AddInterfaceOpts{SubnetID: subnet}).Extract()
	return w.made(err, "connect router %q to %q", NewcomerRouter, NewcomerNetwork)
}

// securityGroup opens the project's default group for what the guest image answers: ping, ssh, HTTP.
func (w *welcome) securityGroup(ctx context.Context, project string) error {
	changed, err := w.Open(ctx, project, described, Opening{Protocol: rules.ProtocolICMP}, Opening{rules.ProtocolTCP, 22}, Opening{rules.ProtocolTCP, 80})
	w.changed.Add(int64(changed))
	return err
}
