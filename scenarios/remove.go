package scenarios

import (
	"context"
	"fmt"
	"net/http"
	"slices"
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
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/openstack"
)

// removeDeadline is how long a thing may take to be gone.
const removeDeadline = time.Minute

// remover is how a kind of thing is removed. ask is nil for what is gone at once; there is only for what has a cheaper way to
// be looked for than to ask for all of it.
type remover struct {
	service func(*openstack.Cloud) *gophercloud.ServiceClient
	remove  func(ctx context.Context, c *gophercloud.ServiceClient, id string) error
	ask     func(ctx context.Context, c *gophercloud.ServiceClient, id string) (status string, err error)
	there   func(ctx context.Context, c *gophercloud.ServiceClient, id string) (bool, error)
}

// removers is each kind's.
var removers = map[string]remover{
	kindNetwork: {network, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return networks.Delete(ctx, c, id).ExtractErr()
	}, nil, nil},
	kindSubnet: {network, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return subnets.Delete(ctx, c, id).ExtractErr()
	}, nil, nil},
	kindRouter: {network, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		if err := detachRouter(ctx, c, id); err != nil {
			return err
		}
		return routers.Delete(ctx, c, id).ExtractErr()
	}, nil, nil},
	kindSecgroup: {network, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return groups.Delete(ctx, c, id).ExtractErr()
	}, nil, nil},
	kindPort: {network, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return ports.Delete(ctx, c, id).ExtractErr()
	}, nil, nil},
	kindFloatingIP: {network, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return floatingips.Delete(ctx, c, id).ExtractErr()
	}, nil, nil},
	kindKeypair: {compute, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return keypairs.Delete(ctx, c, id, nil).ExtractErr()
	}, nil, nil},
	kindServer: {compute, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return servers.Delete(ctx, c, id).ExtractErr()
	}, func(ctx context.Context, c *gophercloud.ServiceClient, id string) (string, error) {
		s, err := servers.Get(ctx, c, id).Extract()
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s (%s) on %s", s.Status, s.TaskState, s.Host), nil
	}, func(ctx context.Context, c *gophercloud.ServiceClient, id string) (bool, error) {
		return hasServer(ctx, c, id)
	}},
	kindVolume: {volume, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return volumes.Delete(ctx, c, id, nil).ExtractErr()
	}, func(ctx context.Context, c *gophercloud.ServiceClient, id string) (string, error) {
		v, err := volumes.Get(ctx, c, id).Extract()
		if err != nil {
			return "", err
		}
		return v.Status, nil
	}, nil},
	kindSnapshot: {volume, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return snapshots.Delete(ctx, c, id).ExtractErr()
	}, func(ctx context.Context, c *gophercloud.ServiceClient, id string) (string, error) {
		s, err := snapshots.Get(ctx, c, id).Extract()
		if err != nil {
			return "", err
		}
		return s.Status, nil
	}, nil},
	kindImage: {image, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return images.Delete(ctx, c, id).ExtractErr()
	}, nil, nil},
	kindProject: {identity, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return projects.Delete(ctx, c, id).ExtractErr()
	}, nil, nil},
	kindUser: {identity, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return users.Delete(ctx, c, id).ExtractErr()
	}, nil, nil},
	kindRole: {identity, func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
		return roles.Delete(ctx, c, id).ExtractErr()
	}, nil, nil},
}

func network(c *openstack.Cloud) *gophercloud.ServiceClient  { return c.Network }
func compute(c *openstack.Cloud) *gophercloud.ServiceClient  { return c.Compute }
func volume(c *openstack.Cloud) *gophercloud.ServiceClient   { return c.Volume }
func image(c *openstack.Cloud) *gophercloud.ServiceClient    { return c.Image }
func identity(c *openstack.Cloud) *gophercloud.ServiceClient { return c.Identity }

// removable is the kinds that `remove` knows, in order.
func removable() []string {
	kinds := []string{kindCredential}
	for kind := range removers {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return kinds
}

// gone removes a thing and waits until it is not there. One that is not there in the first place is gone.
func (m remover) gone(ctx context.Context, cloud *openstack.Cloud, what, id string, deadline time.Duration) error {
	client := m.service(cloud)
	if err := m.remove(ctx, client, id); gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
		return nil
	} else if err != nil {
		return fmt.Errorf("remove %s: %w", what, err)
	}
	if m.ask == nil {
		return nil
	}
	looks, seen := 0, "there"
	return node.WaitEvery(ctx, 500*time.Millisecond, what+" to be gone", deadline, func(ctx context.Context) (bool, error) {
		if looks++; m.there != nil && looks%lookAnyway != 0 {
			there, err := m.there(ctx, client, id)
			if err == nil && there {
				err = fmt.Errorf("it was %s", seen)
			}
			return err == nil, err
		}
		var err error
		seen, err = m.ask(ctx, client, id)
		if gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		return false, fmt.Errorf("it is %s", seen)
	})
}
