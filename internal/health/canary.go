package health

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	extension "github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/openstack"
	"github.com/toast-cloud/toastdev/internal/progress"
)

// canaryPrefix begins the name (or the description) of all that a canary makes, so that the next one finds what a killed
// one left.
const canaryPrefix = "toastdev-canary"

// Deadlines of the canary's steps: generous multiples of what a loaded machine without KVM takes. Where nodes are emulated
// themselves all takes a multiple of that again: see patience.
const (
	activeDeadline  = 3 * time.Minute
	answerDeadline  = 2 * time.Minute
	cleanupDeadline = 90 * time.Second
)

// CanaryResult is the instance that proved the region.
type CanaryResult struct {
	Address string  `json:"address"` // its floating IP
	Node    string  `json:"node"`    // where it ran
	Seconds float64 `json:"seconds"` // from the request to its answer
}

// Canary boots a server from the guest image on the newcomer's network, and waits until it tells its own instance id on port
// 80 of a floating IP: it then had an address by DHCP, reached the metadata service, and was reached from this machine. All
// it makes is removed again, also when it fails, and so is what an earlier one left behind. cloud is the admin's, scoped to
// the newcomer's project. patience is how many times as long as usual its steps may take.
func Canary(ctx context.Context, cloud *openstack.Cloud, patience int) (CanaryResult, error) {
	return newCanary(cloud, patience).run(ctx)
}

// Instance is a canary that stays: a server of that name, for a newcomer to look at. One that is there already is only asked
// to answer; made says that it was not. What was made of one that fails is removed again.
func Instance(ctx context.Context, cloud *openstack.Cloud, name string, patience int) (result CanaryResult, made bool, err error) {
	c := newCanary(cloud, patience)
	c.name, c.mine = name, func(other string) bool { return other == name }
	found, err := c.find(ctx)
	if err != nil {
		return result, false, fmt.Errorf("look for the instance %s: %w", name, err)
	}
	if found {
		began := time.Now()
		if err := c.answer(ctx); err != nil {
			return result, false, c.explain(ctx, err)
		}
		return CanaryResult{Address: c.address, Node: c.server.Host, Seconds: time.Since(began).Seconds()}, false, nil
	}
	result, err = c.prove(ctx)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.within(cleanupDeadline))
		defer cancel()
		err = errors.Join(err, c.sweep(ctx))
	}
	return result, true, err
}

// find is the canary's server and floating IP, when both are there.
func (c *canary) find(ctx context.Context) (bool, error) {
	pages, err := servers.List(c.Compute, servers.ListOpts{Name: "^" + c.name + "$"}).AllPages(ctx)
	if err != nil {
		return false, fmt.Errorf("list servers: %w", err)
	}
	all, err := servers.ExtractServers(pages)
	if err != nil || len(all) == 0 {
		return false, err
	}
	pages, err = floatingips.List(c.Network, floatingips.ListOpts{ProjectID: c.ProjectID, Description: c.name}).AllPages(ctx)
	if err != nil {
		return false, fmt.Errorf("list floating IPs: %w", err)
	}
	addresses, err := floatingips.ExtractFloatingIPs(pages)
	if err != nil {
		return false, err
	}
	if len(addresses) == 0 {
		return false, fmt.Errorf("there is a server %s, which has no floating IP of toastdev's: give the instance another name", c.name)
	}
	c.server, c.address = &all[0], addresses[0].FloatingIP
	return true, nil
}

func newCanary(cloud *openstack.Cloud, patience int) *canary {
	return &canary{Cloud: cloud, patience: patience, mine: func(name string) bool { return strings.HasPrefix(name, canaryPrefix) }, name: canaryPrefix + "-" + strings.ToLower(rand.Text()[:8]),
		agent: http.Client{Timeout: time.Duration(patience) * 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}} // directly, whatever proxy the user has
}

func (c *canary) run(ctx context.Context) (result CanaryResult, err error) {
	if err := c.sweep(ctx); err != nil {
		return result, fmt.Errorf("canary: remove what an earlier one left: %w", err)
	}
	defer func() {
		// Interrupted, it still takes away what it made.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.within(cleanupDeadline))
		defer cancel()
		if sweepErr := c.sweep(ctx); sweepErr != nil {
			err = errors.Join(err, fmt.Errorf("canary: remove it: %w", sweepErr))
		}
	}()
	return c.prove(ctx)
}

// prove boots the canary and waits for its answer.
func (c *canary) prove(ctx context.Context) (result CanaryResult, err error) {
	began := time.Now()
	if err := c.boot(ctx); err != nil {
		return result, c.explain(ctx, err)
	}
	result.Address = c.address
	if err := c.answer(ctx); err != nil {
		return result, c.explain(ctx, err)
	}
	result.Node, result.Seconds = c.server.Host, time.Since(began).Seconds()
	progress.Emit(ctx, progress.Event{Phase: phaseCanary, Node: result.Node, Message: fmt.Sprintf("%s answered after %.1f s", result.Address, result.Seconds)})
	return result, nil
}

// canary is one run.
type canary struct {
	*openstack.Cloud
	patience int
	name     string
	mine     func(name string) bool // what sweep removes
	agent    http.Client
	address  string
	server   *servers.Server // as last seen; nil until it was asked for
}

func (c *canary) within(deadline time.Duration) time.Duration {
	return time.Duration(c.patience) * deadline
}

// boot makes a port, on it a server that is ACTIVE, and then a floating IP.
func (c *canary) boot(ctx context.Context) error {
	var image *images.Image
	var flavor, network, external string
	look, asking := errgroup.WithContext(ctx)
	look.Go(func() (err error) {
		if image, err = c.image(asking); err != nil {
			return err
		}
		flavor, err = c.flavor(asking, image)
		return err
	})
	look.Go(func() (err error) {
		network, external, err = c.networks(asking)
		return err
	})
	if err := look.Wait(); err != nil {
		return err
	}
	progress.Emit(ctx, progress.Event{Phase: phaseCanary, Message: "boot " + c.name})
	port, err := ports.Create(ctx, c.Network, ports.CreateOpts{Name: c.name, NetworkID: network}).Extract()
	if err != nil {
		return fmt.Errorf("make its port on %s: %w", openstack.NewcomerNetwork, err)
	}
	if err := c.start(ctx, image.ID, flavor, port.ID); err != nil {
		return err
	}
	// Not before: a DVR router that comes to a node together with a floating IP loses the rule for its way back there
	// (neutron's DvrLocalRouter adds it to a namespace that is not made yet, and not again when it tries once more).
	floating, err := floatingips.Create(ctx, c.Network, floatingips.CreateOpts{FloatingNetworkID: external, PortID: port.ID, Description: c.name}).Extract()
	if err != nil {
		return fmt.Errorf("make its floating IP: %w", err)
	}
	c.address = floating.FloatingIP
	return nil
}

// start makes the server and waits until it is ACTIVE.
func (c *canary) start(ctx context.Context, image, flavor, port string) error {
	server, err := servers.Create(ctx, c.Compute, servers.CreateOpts{Name: c.name, ImageRef: image, FlavorRef: flavor,
		Networks: []servers.Network{{Port: port}}}, nil).Extract()
	if err != nil {
		return fmt.Errorf("make its server: %w", err)
	}
	c.server = server
	return node.Wait(ctx, "the canary's server to be ACTIVE", c.within(activeDeadline), func(ctx context.Context) (bool, error) {
		s, err := servers.Get(ctx, c.Compute, server.ID).Extract()
		if err != nil {
			return false, err
		}
		c.server = s
		switch s.Status {
		case "ACTIVE":
			return true, nil
		case "ERROR":
			return true, errors.New("its server is in ERROR")
		}
		return false, fmt.Errorf("it is in %s", s.Status)
	})
}

// answer waits until the agent in the instance says who it is.
func (c *canary) answer(ctx context.Context) error {
	progress.Emit(ctx, progress.Event{Phase: phaseCanary, Node: c.server.Host, Message: "is ACTIVE; wait for its answer on " + c.address})
	// EC2's id, as Nova makes it: both it and the instance's name carry the same number.
	number := c.server.InstanceName[strings.LastIndex(c.server.InstanceName, "-")+1:]
	return node.Wait(ctx, "the canary to answer on http://"+c.address+"/ with its instance id", c.within(answerDeadline), func(ctx context.Context) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.address+"/", nil)
		if err != nil {
			return true, err
		}
		response, err := c.agent.Do(request)
		if err != nil {
			return false, err
		}
		defer response.Body.Close()
		var about struct {
			InstanceID string `json:"instance_id"`
		}
		if err := json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&about); err != nil {
			return false, fmt.Errorf("it answers (%s), but not as the guest image does: %w", response.Status, err)
		}
		switch about.InstanceID {
		case "i-" + number:
			return true, nil
		case "":
			return false, errors.New("it answers, but the metadata service has not told it its instance id")
		}
		return false, fmt.Errorf("it says that it is %s, not i-%s", about.InstanceID, number)
	})
}

// image is the guest image.
func (c *canary) image(ctx context.Context) (*images.Image, error) {
	pages, err := images.List(c.Image, images.ListOpts{Name: openstack.GuestImage, Status: images.ImageStatusActive}).AllPages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	found, err := images.ExtractImages(pages)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is no image %q", openstack.GuestImage)
	}
	return &found[0], nil
}

// flavor is the smallest that the image fits on.
func (c *canary) flavor(ctx context.Context, image *images.Image) (string, error) {
	pages, err := flavors.ListDetail(c.Compute, nil).AllPages(ctx)
	if err != nil {
		return "", fmt.Errorf("list flavors: %w", err)
	}
	all, err := flavors.ExtractFlavors(pages)
	if err != nil {
		return "", fmt.Errorf("list flavors: %w", err)
	}
	all = slices.DeleteFunc(all, func(f flavors.Flavor) bool {
		return f.RAM < image.MinRAMMegabytes || f.Disk < max(image.MinDiskGigabytes, 1)
	})
	if len(all) == 0 {
		return "", fmt.Errorf("no flavor has the %d MB of memory and %d GB of disk that the image %q needs", image.MinRAMMegabytes, max(image.MinDiskGigabytes, 1), image.Name)
	}
	return slices.MinFunc(all, func(a, b flavors.Flavor) int {
		return a.RAM*a.VCPUs + a.Disk - b.RAM*b.VCPUs - b.Disk
	}).ID, nil
}

func (c *canary) networks(ctx context.Context) (network, external string, err error) {
	pages, err := networks.List(c.Network, nil).AllPages(ctx)
	if err != nil {
		return "", "", fmt.Errorf("list networks: %w", err)
	}
	var all []struct {
		networks.Network
		extension.NetworkExternalExt
	}
	if err := networks.ExtractNetworksInto(pages, &all); err != nil {
		return "", "", fmt.Errorf("list networks: %w", err)
	}
	for _, n := range all {
		switch {
		case n.Name == openstack.NewcomerNetwork && n.ProjectID == c.ProjectID:
			network = n.ID
		case n.External && (external == "" || n.Name == openstack.ExternalNetwork):
			external = n.ID
		}
	}
	if network == "" || external == "" {
		return "", "", fmt.Errorf("there is no network %q of project %q, or no external network", openstack.NewcomerNetwork, c.Auth.Project)
	}
	return network, external, nil
}

// sweep removes every canary's server, floating IP and port, and waits until the servers are gone.
func (c *canary) sweep(ctx context.Context) error {
	pages, err := servers.List(c.Compute, nil).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list servers: %w", err)
	}
	left, err := servers.ExtractServers(pages)
	if err != nil {
		return fmt.Errorf("list servers: %w", err)
	}
	left = slices.DeleteFunc(left, func(s servers.Server) bool { return !c.mine(s.Name) })
	for _, s := range left {
		if err := gone(servers.Delete(ctx, c.Compute, s.ID).ExtractErr()); err != nil {
			return fmt.Errorf("remove server %s: %w", s.Name, err)
		}
	}
	pages, err = floatingips.List(c.Network, floatingips.ListOpts{ProjectID: c.ProjectID}).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list floating IPs: %w", err)
	}
	addresses, err := floatingips.ExtractFloatingIPs(pages)
	if err != nil {
		return fmt.Errorf("list floating IPs: %w", err)
	}
	for _, a := range addresses {
		if !c.mine(a.Description) {
			continue
		}
		if err := gone(floatingips.Delete(ctx, c.Network, a.ID).ExtractErr()); err != nil {
			return fmt.Errorf("remove floating IP %s: %w", a.FloatingIP, err)
		}
	}
	for _, s := range left {
		err := node.Wait(ctx, "the server "+s.Name+" to be gone", cleanupDeadline, func(ctx context.Context) (bool, error) {
			now, err := servers.Get(ctx, c.Compute, s.ID).Extract()
			if gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
				return true, nil
			}
			if err != nil {
				return false, err
			}
			return false, fmt.Errorf("it is in %s", now.Status)
		})
		if err != nil {
			return err
		}
	}
	pages, err = ports.List(c.Network, ports.ListOpts{ProjectID: c.ProjectID}).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list ports: %w", err)
	}
	all, err := ports.ExtractPorts(pages)
	if err != nil {
		return fmt.Errorf("list ports: %w", err)
	}
	for _, p := range all {
		if !c.mine(p.Name) {
			continue
		}
		if err := gone(ports.Delete(ctx, c.Network, p.ID).ExtractErr()); err != nil {
			return fmt.Errorf("remove port %s: %w", p.Name, err)
		}
	}
	return nil
}

// gone takes "not there" for removed.
func gone(err error) error {
	if gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// explain adds to a step's error what the region knows of the server: where it runs, its fault, its console's last lines.
func (c *canary) explain(ctx context.Context, err error) error {
	e := &fault.Error{Code: fault.CodeOf(err), Unit: c.name, Message: err.Error(), Err: err}
	if c.server == nil || ctx.Err() != nil {
		return e
	}
	e.Node = c.server.Host
	if f := c.server.Fault; f.Message != "" {
		e.Log = append(e.Log, "fault: "+f.Message)
		e.Log = append(e.Log, node.LastLines(f.Details, 5)...)
	}
	console, consoleErr := servers.ShowConsoleOutput(ctx, c.Compute, c.server.ID, servers.ShowConsoleOutputOpts{Length: 30}).Extract()
	if consoleErr != nil {
		e.Log = append(e.Log, "its console cannot be read: "+consoleErr.Error())
		return e
	}
	for _, line := range node.LastLines(console, 15) {
		e.Log = append(e.Log, "console: "+line)
	}
	return e
}
