package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/roles"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/users"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/agents"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/pagination"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/openstack"
)

// sweep removes all that the run has in the cloud, by what its projects have and not by what the script remembers, and returns
// when it is gone. Run again it goes on where it could not. The error has everything that is left.
func (r *Run) sweep(ctx context.Context) error {
	return sweep(ctx, r.World, func(name string) bool { return name == r.project() || strings.HasPrefix(name, r.prefix()) })
}

// SweepStale removes what the scenarios of all runs have left in the cloud, and puts back what they changed on nodes. Nobody
// else may run scenarios meanwhile.
func SweepStale(ctx context.Context, w *World) error {
	return errors.Join(restoreKept(ctx, w), sweep(ctx, w, staleName.MatchString))
}

// staleName is what Run.project and Run.prefix make of names.
var staleName = regexp.MustCompile(`^scenario-(.+-[0-9a-f]{6}|[0-9a-f]{6}-.+)$`)

// sweep removes the projects, users, roles and key pairs whose names are mine, and all that is in those projects.
func sweep(ctx context.Context, w *World, mine func(string) bool) error {
	cloud, err := openstack.ConnectPatiently(ctx, w.Admin)
	if err != nil {
		return err
	}
	s := &sweeper{Cloud: cloud, world: w}
	var found struct{ projects, users, roles, keypairs []item }
	look, asking := errgroup.WithContext(ctx)
	look.Go(func() (err error) {
		found.projects, err = listed(asking, projects.List(s.Identity, nil), projects.ExtractProjects, func(p projects.Project) item { return item{p.ID, p.Name} })
		return err
	})
	look.Go(func() (err error) {
		found.users, err = listed(asking, users.List(s.Identity, nil), users.ExtractUsers, func(u users.User) item { return item{u.ID, u.Name} })
		return err
	})
	look.Go(func() (err error) {
		found.roles, err = listed(asking, roles.List(s.Identity, nil), roles.ExtractRoles, func(r roles.Role) item { return item{r.ID, r.Name} })
		return err
	})
	look.Go(func() (err error) {
		found.keypairs, err = listed(asking, keypairs.List(s.Compute, nil), keypairs.ExtractKeyPairs, func(k keypairs.KeyPair) item { return item{k.Name, k.Name} })
		return err
	})
	if err := look.Wait(); err != nil {
		return fmt.Errorf("look for what scenarios left: %w", err)
	}
	for _, items := range []*[]item{&found.projects, &found.users, &found.roles, &found.keypairs} {
		*items = slices.DeleteFunc(*items, func(i item) bool { return !mine(i.name) })
	}
	for _, u := range found.users {
		s.failed(s.keypairs(ctx, u))
	}
	var group errgroup.Group
	group.SetLimit(2)
	for _, p := range found.projects {
		group.Go(func() error {
			// A project that is not empty stays, for the next sweep to find what is in it.
			if s.empty(ctx, p) {
				s.remove(ctx, kindProject, []item{p})
			}
			return nil
		})
	}
	s.remove(ctx, kindKeypair, found.keypairs)
	s.remove(ctx, kindUser, found.users) // and with them their application credentials
	s.remove(ctx, kindRole, found.roles)
	group.Wait()
	return errors.Join(s.left...)
}

// item is something to be removed.
type item struct{ id, name string }

// listed is all items of a listing.
func listed[T any](ctx context.Context, pager pagination.Pager, extract func(pagination.Page) ([]T, error), as func(T) item) ([]item, error) {
	pages, err := pager.AllPages(ctx)
	if err != nil {
		return nil, err
	}
	all, err := extract(pages)
	var items []item
	for _, one := range all {
		items = append(items, as(one))
	}
	return items, err
}

// sweeper removes, and remembers what it could not.
type sweeper struct {
	*openstack.Cloud
	world *World

	mu   sync.Mutex
	left []error
}

// failed remembers an error, and says whether there was one.
func (s *sweeper) failed(err error) bool {
	if err == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = append(s.left, err)
	return true
}

// remove removes items of a kind side by side; gone says that all are.
func (s *sweeper) remove(ctx context.Context, kind string, items []item) (gone bool) {
	var group errgroup.Group
	group.SetLimit(4)
	for _, i := range items {
		group.Go(func() error {
			err := removers[kind].gone(ctx, s.Cloud, kind+" "+i.name, i.id, s.world.Deadline(removeDeadline))
			if s.failed(err) {
				return err
			}
			return nil
		})
	}
	return group.Wait() == nil
}

// empty removes all that a project has, what stands on something else before that.
func (s *sweeper) empty(ctx context.Context, project item) bool {
	var first, second errgroup.Group
	whole := func(ok bool) error {
		if !ok {
			return errLeft
		}
		return nil
	}
	first.Go(func() error { return whole(s.servers(ctx, project)) })
	first.Go(func() error {
		found, err := listed(ctx, floatingips.List(s.Network, floatingips.ListOpts{ProjectID: project.id}), floatingips.ExtractFloatingIPs,
			func(f floatingips.FloatingIP) item { return item{f.ID, f.FloatingIP} })
		return whole(s.found(ctx, project, kindFloatingIP, found, err))
	})
	first.Go(func() error {
		found, err := listed(ctx, images.List(s.Image, images.ListOpts{Owner: project.id}), images.ExtractImages, func(i images.Image) item { return item{i.ID, i.Name} })
		return whole(s.found(ctx, project, kindImage, found, err))
	})
	// One that could not be removed keeps others from it; they are tried, for there to be as little left as can be.
	ok := first.Wait() == nil
	second.Go(func() error { return whole(s.networks(ctx, project)) })
	second.Go(func() error { return whole(s.volumes(ctx, project)) })
	ok = second.Wait() == nil && ok
	if ok {
		s.quotas(ctx, project)
	}
	return ok
}

// errLeft says that something is left; what it is, the sweeper remembers.
var errLeft = errors.New("something is left")

// found removes what was found of a kind.
func (s *sweeper) found(ctx context.Context, project item, kind string, items []item, err error) bool {
	if err != nil {
		return !s.failed(fmt.Errorf("look for each %s of project %s: %w", kind, project.name, err))
	}
	return s.remove(ctx, kind, items)
}

// again is how long a server is waited for before Nova is told again to delete it: the first time it may have told a compute
// that does not live any more, and knows better by then.
const again = 15 * time.Second

// keypairs removes the key pairs of a user, which outlive it.
func (s *sweeper) keypairs(ctx context.Context, user item) error {
	client := *s.Compute
	client.Microversion = "2.10"
	of := keypairs.ListOpts{UserID: user.id}
	found, err := listed(ctx, keypairs.List(&client, of), keypairs.ExtractKeyPairs, func(k keypairs.KeyPair) item { return item{k.Name, k.Name} })
	for _, k := range found {
		err = errors.Join(err, absent(keypairs.Delete(ctx, &client, k.id, keypairs.DeleteOpts(of)).ExtractErr()))
	}
	if gophercloud.ResponseCodeIs(err, http.StatusNotAcceptable) {
		return nil // a Nova that knows none but its own users'
	}
	if err != nil {
		return fmt.Errorf("remove the key pairs of user %s: %w", user.name, err)
	}
	return nil
}

// servers deletes the project's servers, and with that detaches their volumes.
func (s *sweeper) servers(ctx context.Context, project item) bool {
	found, err := listed(ctx, servers.List(s.Compute, servers.ListOpts{AllTenants: true, TenantID: project.id}), servers.ExtractServers,
		func(i servers.Server) item { return item{i.ID, i.Name} })
	if err != nil {
		return !s.failed(fmt.Errorf("look for each server of project %s: %w", project.name, err))
	}
	var group errgroup.Group
	for _, i := range found {
		group.Go(func() error {
			var err error
			for end := time.Now().Add(s.world.Deadline(2 * time.Minute)); time.Now().Before(end) && ctx.Err() == nil; {
				if err = removers[kindServer].gone(ctx, s.Cloud, "server "+i.name, i.id, s.world.Deadline(again)); err == nil {
					return nil
				}
			}
			s.failed(errors.Join(err, ctx.Err()))
			return errLeft
		})
	}
	return group.Wait() == nil
}

// networks removes the project's routers with their interfaces, ports, networks with their subnets, and security groups.
func (s *sweeper) networks(ctx context.Context, project item) bool {
	all, unlisted := listed(ctx, networks.List(s.Network, networks.ListOpts{ProjectID: project.id}), networks.ExtractNetworks, func(n networks.Network) item { return item{n.ID, n.Name} })
	if err := s.unserve(ctx, all); err != nil {
		s.failed(fmt.Errorf("end DHCP on the networks of project %s: %w", project.name, err))
	}
	found, err := listed(ctx, routers.List(s.Network, routers.ListOpts{ProjectID: project.id}), routers.ExtractRouters, func(r routers.Router) item { return item{r.ID, r.Name} })
	ok := s.found(ctx, project, kindRouter, found, err)
	found, err = listed(ctx, ports.List(s.Network, ports.ListOpts{ProjectID: project.id}), ports.ExtractPorts, func(p ports.Port) item {
		if strings.HasPrefix(p.DeviceOwner, "network:") {
			return item{} // Neutron's own: they go with what they are for
		}
		return item{p.ID, strings.TrimSpace(p.Name + " " + p.MACAddress)}
	})
	found = slices.DeleteFunc(found, func(i item) bool { return i.id == "" })
	ok = s.found(ctx, project, kindPort, found, err) && ok
	ok = s.found(ctx, project, kindNetwork, all, unlisted) && ok
	// The default group too, which outlives its project otherwise. To ask for it again would make it again.
	found, err = listed(ctx, groups.List(s.Network, groups.ListOpts{ProjectID: project.id}), groups.ExtractGroups, func(g groups.SecGroup) item { return item{g.ID, g.Name} })
	return s.found(ctx, project, kindSecgroup, found, err) && ok
}

// unserve ends DHCP on networks. Where there is some, Neutron (Zed) tells the agent of a router interface that goes, without its
// addresses (DhcpAgentNotifyAPI._after_router_interface_deleted); the agent looks for them when another port's change waits in
// its queue (DHCPResourceUpdate.__lt__), fails, and what waited is lost: an instance of a scenario beside this one got no address.
func (s *sweeper) unserve(ctx context.Context, from []item) error {
	if len(from) == 0 {
		return nil
	}
	serving, err := listed(ctx, agents.List(s.Network, agents.ListOpts{AgentType: "DHCP agent"}), agents.ExtractAgents, func(a agents.Agent) item { return item{a.ID, a.Host} })
	for _, a := range serving {
		for _, n := range from {
			gone := agents.RemoveDHCPNetwork(ctx, s.Network, a.id, n.id).ExtractErr()
			if !gophercloud.ResponseCodeIs(gone, http.StatusConflict) { // another agent has it, or none
				err = errors.Join(err, absent(gone))
			}
		}
	}
	return err
}

// volumes removes the project's snapshots, and then its volumes.
func (s *sweeper) volumes(ctx context.Context, project item) bool {
	if s.Volume == nil {
		return true
	}
	found, err := listed(ctx, snapshots.ListDetail(s.Volume, snapshots.ListOpts{AllTenants: true, TenantID: project.id}), snapshots.ExtractSnapshots,
		func(v snapshots.Snapshot) item { return item{v.ID, v.Name} })
	ok := s.found(ctx, project, kindSnapshot, found, err)
	found, err = listed(ctx, volumes.List(s.Volume, volumes.ListOpts{AllTenants: true, TenantID: project.id}), volumes.ExtractVolumes,
		func(v volumes.Volume) item { return item{v.ID, v.Name} })
	if err != nil {
		return !s.failed(fmt.Errorf("look for each volume of project %s: %w", project.name, err))
	}
	var group errgroup.Group
	for _, i := range found {
		group.Go(func() error {
			if err := s.release(ctx, i); s.failed(err) {
				return err
			}
			return nil
		})
	}
	ok = group.Wait() == nil && ok
	return s.remove(ctx, kindVolume, found) && ok
}

// release waits until a volume can be removed; one that stays attached to a server that is no more is told that it is not.
func (s *sweeper) release(ctx context.Context, i item) error {
	for end := time.Now().Add(s.world.Deadline(again)); ; {
		v, err := volumes.Get(ctx, s.Volume, i.id).Extract()
		switch {
		case gophercloud.ResponseCodeIs(err, http.StatusNotFound):
			return nil
		case err == nil && (v.Status == "available" || v.Status == "deleting" || strings.HasPrefix(v.Status, "error")):
			return nil
		case err == nil && time.Now().After(end):
			err = volumes.ResetStatus(ctx, s.Volume, i.id, volumes.ResetStatusOpts{Status: "available", AttachStatus: "detached"}).ExtractErr()
			return absent(err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("volume %s is still in use", i.name), err, ctx.Err())
		case <-time.After(time.Second):
		}
	}
}

// quotas takes back what begin said of the project's: rows that nobody would find any more.
func (s *sweeper) quotas(ctx context.Context, project item) {
	for service, path := range map[string]string{"compute": "os-quota-sets/", "network": "quotas/", "volume": "os-quota-sets/"} {
		url, err := s.URL(service, path+project.id)
		if err != nil {
			continue // a region without volumes
		}
		answer, err := s.Do(ctx, openstack.Call{Method: http.MethodDelete, URL: url})
		if err == nil && answer.Status/100 != 2 && answer.Status != http.StatusNotFound {
			err = errors.New(shown(answer.Status, answer.Body))
		}
		if err != nil {
			s.failed(fmt.Errorf("forget the %s quotas of project %s: %w", service, project.name, err))
		}
	}
}
