package openstack

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/roles"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/users"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/plan"
)

// Names of what a newcomer finds.
const (
	NewcomerProject = "demo"
	NewcomerUser    = "demo"
	NewcomerNetwork = "demo-net"
	NewcomerRouter  = "demo-router"
	ExternalNetwork = "external"
	GuestImage      = "toastdev-guest"
)

// physnet is the region's one flat physical network.
const physnet = "external"

// described is what every object that toastdev makes says of itself.
const described = "made by toastdev for newcomers"

// Spec is what a newcomer is to find.
type Spec struct {
	Password    string       // of the newcomer's user
	External    External     // where floating addresses come from
	Subnet      netip.Prefix // of the newcomer's network
	Distributed bool         // the router is a DVR
	Images      []Image
}

// External is the external network's subnet.
type External struct {
	Subnet  netip.Prefix
	Gateway netip.Addr
	First   netip.Addr // of the addresses that Neutron may give away
	Last    netip.Addr
}

// SpecOf is the spec that a plan comes to.
func SpecOf(p *plan.Plan, password string, images []Image) (Spec, error) {
	external, ok := p.Network("external")
	if !ok || external.Floating == nil {
		return Spec{}, fmt.Errorf("the plan of %s has no external network with floating addresses", p.Environment)
	}
	s := Spec{Password: password, Distributed: p.Routing == "dvr", Images: images, External: External{
		Subnet: external.Subnet, Gateway: external.Gateway, First: external.Floating.First, Last: external.Floating.Last,
	}}
	// The first that none of the region's own networks overlaps: a router cannot have both.
	for i := byte(10); !s.Subnet.IsValid(); i++ {
		candidate := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i, 0, 0}), 24)
		free := true
		for _, n := range p.Networks {
			free = free && !n.Subnet.Overlaps(candidate)
		}
		if free {
			s.Subnet = candidate
		}
	}
	return s, nil
}

// Newcomer brings the region to what a newcomer is to find there: the project and its user, a network with a router to the
// external one, an open default security group, guest images, no quotas. cloud is the admin's. What is there by its name
// is adopted; changed is how many objects were made or changed.
func Newcomer(ctx context.Context, cloud *Cloud, spec Spec) (changed int, err error) {
	if err := cloud.need(); err != nil {
		return 0, err
	}
	w := &welcome{Cloud: cloud, spec: spec}
	project, err := w.identity(ctx)
	if err != nil {
		return int(w.changed.Load()), err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.networks(ctx, project) })
	group.Go(func() error { return w.securityGroup(ctx, project) })
	group.Go(func() error {
		changed, err := w.Unlimit(ctx, project)
		w.changed.Add(int64(changed))
		return err
	})
	group.Go(func() error {
		for _, image := range spec.Images {
			if err := w.image(ctx, image); err != nil {
				return err
			}
		}
		return nil
	})
	err = group.Wait()
	return int(w.changed.Load()), err
}

// welcome is one run of Newcomer.
type welcome struct {
	*Cloud
	spec    Spec
	changed atomic.Int64
}

// made counts a change, and gives the step's error its name.
func (w *welcome) made(err error, format string, args ...any) error {
	if err != nil {
		return fmt.Errorf(format+": %w", append(args, err)...)
	}
	w.changed.Add(1)
	return nil
}

// identity makes project, user and role assignments, and returns the project's id.
func (w *welcome) identity(ctx context.Context) (string, error) {
	pages, err := projects.List(w.Identity, projects.ListOpts{Name: NewcomerProject}).AllPages(ctx)
	if err != nil {
		return "", fmt.Errorf("list projects: %w", err)
	}
	found, err := projects.ExtractProjects(pages)
	if err != nil {
		return "", fmt.Errorf("list projects: %w", err)
	}
	var project string
	if len(found) > 0 {
		project = found[0].ID
	} else {
		p, err := projects.Create(ctx, w.Identity, projects.CreateOpts{Name: NewcomerProject, DomainID: "default", Description: described}).Extract()
		if err := w.made(err, "create project %q", NewcomerProject); err != nil {
			return "", err
		}
		project = p.ID
	}
	pages, err = users.List(w.Identity, users.ListOpts{Name: NewcomerUser}).AllPages(ctx)
	if err != nil {
		return "", fmt.Errorf("list users: %w", err)
	}
	people, err := users.ExtractUsers(pages)
	if err != nil {
		return "", fmt.Errorf("list users: %w", err)
	}
	var user string
	if len(people) > 0 {
		user = people[0].ID
	} else {
		u, err := users.Create(ctx, w.Identity, users.CreateOpts{Name: NewcomerUser, Password: w.spec.Password, DomainID: "default", DefaultProjectID: project, Description: described}).Extract()
		if err := w.made(err, "create user %q", NewcomerUser); err != nil {
			return "", err
		}
		user = u.ID
	}
	return project, w.assign(ctx, project, map[string]string{user: "member", w.UserID: "admin"})
}

// assign gives users, by id, their roles on the project, by name.
func (w *welcome) assign(ctx context.Context, project string, wanted map[string]string) error {
	pages, err := roles.ListAssignments(w.Identity, roles.ListAssignmentsOpts{ScopeProjectID: project}).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list role assignments: %w", err)
	}
	assignments, err := roles.ExtractRoleAssignments(pages)
	if err != nil {
		return fmt.Errorf("list role assignments: %w", err)
	}
	pages, err = roles.List(w.Identity, nil).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list roles: %w", err)
	}
	all, err := roles.ExtractRoles(pages)
	if err != nil {
		return fmt.Errorf("list roles: %w", err)
	}
	ids := map[string]string{}
	for _, r := range all {
		ids[r.Name] = r.ID
	}
	for _, a := range assignments {
		if role, ok := wanted[a.User.ID]; ok && ids[role] == a.Role.ID {
			delete(wanted, a.User.ID)
		}
	}
	for user, name := range wanted {
		role, ok := ids[name]
		if !ok {
			r, err := roles.Create(ctx, w.Identity, roles.CreateOpts{Name: name}).Extract()
			if err := w.made(err, "create role %q", name); err != nil {
				return err
			}
			role = r.ID
		}
		err := roles.Assign(ctx, w.Identity, role, roles.AssignOpts{UserID: user, ProjectID: project}).ExtractErr()
		if err := w.made(err, "give role %q on project %q", name, NewcomerProject); err != nil {
			return err
		}
	}
	return nil
}
