package openstack

import (
	"context"
	"fmt"

	"github.com/gophercloud/gophercloud/v2"
	volumequotas "github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/quotasets"
	computequotas "github.com/gophercloud/gophercloud/v2/openstack/compute/v2/quotasets"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/quotas"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
)

// unlimited is a quota's "no limit".
const unlimited = -1

// Unlimit takes a project's limits away: the machine's own are near enough. changed is how many services were told so.
func (c *Cloud) Unlimit(ctx context.Context, project string) (changed int, err error) {
	none := gophercloud.IntToPointer(unlimited)
	n, err := computequotas.Get(ctx, c.Compute, project).Extract()
	if err != nil {
		return changed, fmt.Errorf("read Nova's quotas: %w", err)
	}
	if n.Instances != unlimited || n.Cores != unlimited || n.RAM != unlimited {
		if _, err := computequotas.Update(ctx, c.Compute, project, computequotas.UpdateOpts{Instances: none, Cores: none, RAM: none}).Extract(); err != nil {
			return changed, fmt.Errorf("set Nova's quotas: %w", err)
		}
		changed++
	}
	q, err := quotas.Get(ctx, c.Network, project).Extract()
	if err != nil {
		return changed, fmt.Errorf("read Neutron's quotas: %w", err)
	}
	if q.Port != unlimited || q.Network != unlimited || q.Subnet != unlimited || q.Router != unlimited || q.FloatingIP != unlimited || q.SecurityGroup != unlimited || q.SecurityGroupRule != unlimited {
		_, err := quotas.Update(ctx, c.Network, project, quotas.UpdateOpts{
			Port: none, Network: none, Subnet: none, Router: none, FloatingIP: none, SecurityGroup: none, SecurityGroupRule: none}).Extract()
		if err != nil {
			return changed, fmt.Errorf("set Neutron's quotas: %w", err)
		}
		changed++
	}
	if c.Volume == nil {
		return changed, nil
	}
	v, err := volumequotas.Get(ctx, c.Volume, project).Extract()
	if err != nil {
		return changed, fmt.Errorf("read Cinder's quotas: %w", err)
	}
	if v.Volumes != unlimited || v.Snapshots != unlimited || v.Gigabytes != unlimited {
		if _, err := volumequotas.Update(ctx, c.Volume, project, volumequotas.UpdateOpts{Volumes: none, Snapshots: none, Gigabytes: none}).Extract(); err != nil {
			return changed, fmt.Errorf("set Cinder's quotas: %w", err)
		}
		changed++
	}
	return changed, nil
}

// Opening is what a security group lets in from everywhere.
type Opening struct {
	Protocol rules.RuleProtocol
	Port     int // 0: all
}

// Open has a project's default security group let in what the openings say; changed is how many rules that took.
func (c *Cloud) Open(ctx context.Context, project, description string, openings ...Opening) (changed int, err error) {
	// Neutron makes a project's default group when it is first asked for that project's groups.
	pages, err := groups.List(c.Network, groups.ListOpts{Name: "default", ProjectID: project}).AllPages(ctx)
	if err != nil {
		return 0, fmt.Errorf("list security groups: %w", err)
	}
	found, err := groups.ExtractGroups(pages)
	if err != nil {
		return 0, fmt.Errorf("list security groups: %w", err)
	}
	if len(found) == 0 {
		return 0, fmt.Errorf("project %s has no default security group", project)
	}
	for _, open := range openings {
		there := false
		for _, r := range found[0].Rules {
			there = there || r.Direction == "ingress" && r.EtherType == "IPv4" && r.RemoteGroupID == "" && (r.RemoteIPPrefix == "" || r.RemoteIPPrefix == "0.0.0.0/0") &&
				(r.Protocol == "" || r.Protocol == string(open.Protocol) && r.PortRangeMin <= open.Port && open.Port <= r.PortRangeMax)
		}
		if there {
			continue
		}
		_, err := rules.Create(ctx, c.Network, rules.CreateOpts{SecGroupID: found[0].ID, ProjectID: project, Direction: rules.DirIngress, EtherType: rules.EtherType4,
			Protocol: open.Protocol, PortRangeMin: open.Port, PortRangeMax: open.Port, Description: description}).Extract()
		if err != nil {
			return changed, fmt.Errorf("open the default security group for %s %d: %w", open.Protocol, open.Port, err)
		}
		changed++
	}
	return changed, nil
}
