package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/applicationcredentials"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/roles"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/openstack"
)

// Kinds of things that a script gives names to. A kind has names of its own.
const (
	kindNetwork    = "network"
	kindSubnet     = "subnet"
	kindRouter     = "router"
	kindSecgroup   = "secgroup"
	kindPort       = "port"
	kindFloatingIP = "floatingip"
	kindKeypair    = "keypair"
	kindVolume     = "volume"
	kindSnapshot   = "snapshot"
	kindImage      = "image"
	kindServer     = "server"
	kindProject    = "project"
	kindUser       = "user"
	kindRole       = "role"
	kindToken      = "token"
	kindCredential = "app-credential"
)

// ownProject is what a script calls the project that it runs in.
const ownProject = "own"

// Resource is something in the cloud that has no more to it than this.
type Resource struct {
	Kind    string
	Name    string // the script's
	ID      string
	Address netip.Addr // a port's, a router's on the external network, a subnet's gateway
	MAC     string     // a port's
}

// put remembers a value under a name. A name that is taken is an error.
func (r *Run) put(kind, name string, value any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.taken(kind, name); err != nil {
		return err
	}
	if r.things == nil {
		r.things = map[thing]any{}
	}
	r.things[thing{kind, name}] = value
	return nil
}

// get is what was remembered under a name.
func get[T any](r *Run, kind, name string) (T, error) {
	r.mu.Lock()
	value, ok := r.things[thing{kind, name}]
	r.mu.Unlock()
	if !ok {
		there := names(r, kind)
		e := (&fault.Error{Code: fault.NotFound, Message: fmt.Sprintf("no %s %q", kind, name), Expected: strings.Join(there, ", ")}).Suggest(name, there)
		if len(there) == 0 {
			e.Expected = "one that the script has made; there is none yet"
		}
		return *new(T), e
	}
	typed, ok := value.(T)
	if !ok {
		return typed, fmt.Errorf("%s %q is a %T, not a %T", kind, name, value, typed)
	}
	return typed, nil
}

// forget takes a name back.
func (r *Run) forget(kind, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.things, thing{kind, name})
}

// names is what there is of a kind, in order.
func names(r *Run, kind string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []string
	for t := range r.things {
		if t.kind == kind {
			found = append(found, t.name)
		}
	}
	slices.Sort(found)
	return found
}

// free says that a name is not taken: before something is made that would have to be removed again.
func (r *Run) free(kind, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken(kind, name)
}

// taken is the fault of a name that is; r.mu is held.
func (r *Run) taken(kind, name string) error {
	if _, taken := r.things[thing{kind, name}]; taken {
		return fault.New(fault.Invalid, "there is a %s %q already", kind, name).WithRemedy("give it another name")
	}
	return nil
}

// id is the cloud's name for a Resource.
func (r *Run) id(kind, name string) (string, error) {
	resource, err := get[*Resource](r, kind, name)
	if err != nil {
		return "", err
	}
	return resource.ID, nil
}

// made remembers a new Resource, and is the outcome of the line that made it.
func (r *Run) made(resource *Resource) (Outcome, error) {
	if err := r.put(resource.Kind, resource.Name, resource); err != nil {
		return Outcome{}, err
	}
	set := map[string]string{variable(resource.Name): resource.ID}
	text := fmt.Sprintf("%s %s %s", resource.Kind, resource.Name, resource.ID)
	if hasAddress[resource.Kind] {
		set[variable(resource.Name, "ip")] = ""
	}
	if resource.Address.IsValid() {
		set[variable(resource.Name, "ip")] = resource.Address.String()
		text += " " + resource.Address.String()
	}
	if resource.MAC != "" {
		set[variable(resource.Name, "mac")] = resource.MAC
		text += " " + resource.MAC
	}
	return Outcome{Text: text + "\n", Set: set}, nil
}

// hasAddress is which kinds set $NAME_ip, be it to nothing.
var hasAddress = map[string]bool{kindSubnet: true, kindRouter: true, kindPort: true}

// variable is a name, and what of it, as a script's variable: web-1 and ip give web_1_ip.
func variable(name string, of ...string) string {
	return strings.ReplaceAll(strings.Join(append([]string{name}, of...), "_"), "-", "_")
}

// sets is Command.Sets of a command whose first argument is a name: $NAME, and what of it.
func sets(of ...string) func([]string) []string {
	return func(args []string) []string {
		if len(args) == 0 {
			return nil
		}
		set := []string{variable(args[0])}
		for _, o := range of {
			set = append(set, variable(args[0], o))
		}
		return set
	}
}

// prefix begins the name of what is not in a project: keypairs, images, users, roles, and projects that the script makes.
func (r *Run) prefix() string { return "scenario-" + r.ID + "-" }

// project is the name of the scenario's own project.
func (r *Run) project() string { return "scenario-" + r.Name + "-" + r.ID }

// described is what all that is made in the cloud says of itself where it can.
const described = "made by a scenario of toastdev"

// begin makes the scenario's own project, open and without limits, with the region's admin in it, and a session there.
func (r *Run) begin(ctx context.Context) error {
	admin, err := openstack.ConnectPatiently(ctx, r.World.Admin)
	if err != nil {
		return err
	}
	if admin.Compute == nil || admin.Network == nil || admin.Image == nil {
		return fault.New(fault.Failed, "the catalog of region %s lacks compute, network or image", admin.Auth.Region)
	}
	project, err := projects.Create(ctx, admin.Identity, projects.CreateOpts{Name: r.project(), DomainID: "default", Description: described}).Extract()
	if err != nil {
		return fmt.Errorf("make project %s: %w", r.project(), err)
	}
	if err := r.put(kindProject, ownProject, &Resource{Kind: kindProject, Name: ownProject, ID: project.ID}); err != nil {
		return err
	}
	role, err := roleNamed(ctx, admin, "admin")
	if err != nil {
		return err
	}
	if err := roles.Assign(ctx, admin.Identity, role, roles.AssignOpts{UserID: admin.UserID, ProjectID: project.ID}).ExtractErr(); err != nil {
		return fmt.Errorf("make the admin one of project %s: %w", r.project(), err)
	}
	auth := r.World.Admin
	auth.Project = r.project()
	cloud, err := openstack.ConnectPatiently(ctx, auth)
	if err != nil {
		return err
	}
	r.Cloud = cloud
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		_, err := cloud.Unlimit(ctx, project.ID)
		return err
	})
	group.Go(func() error {
		tcp, udp := rules.ProtocolTCP, rules.ProtocolUDP
		_, err := cloud.Open(ctx, project.ID, described, openstack.Opening{Protocol: rules.ProtocolICMP},
			openstack.Opening{Protocol: tcp, Port: 22}, openstack.Opening{Protocol: tcp, Port: 80}, openstack.Opening{Protocol: tcp, Port: 7}, openstack.Opening{Protocol: udp, Port: 7})
		return err
	})
	return group.Wait()
}

// looked is the id of something of the region's own by its name, asked for once.
func (r *Run) looked(kind, name string, look func() (string, error)) (string, error) {
	r.mu.Lock()
	known, ok := r.things[thing{"the region's " + kind, name}]
	r.mu.Unlock()
	if ok {
		return known.(string), nil
	}
	id, err := look()
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.things[thing{"the region's " + kind, name}] = id
	return id, nil
}

// external is the id of the network that leads out of the region.
func (r *Run) external(ctx context.Context) (string, error) {
	return r.looked(kindNetwork, openstack.ExternalNetwork, func() (string, error) {
		pages, err := networks.List(r.Cloud.Network, external.ListOptsExt{ListOptsBuilder: networks.ListOpts{}, External: gophercloud.Enabled}).AllPages(ctx)
		if err != nil {
			return "", fmt.Errorf("list external networks: %w", err)
		}
		found, err := networks.ExtractNetworks(pages)
		if err != nil {
			return "", fmt.Errorf("list external networks: %w", err)
		}
		found = slices.DeleteFunc(found, func(n networks.Network) bool { return n.ProjectID == r.Cloud.ProjectID })
		if len(found) == 0 {
			return "", fault.New(fault.NotFound, "the region has no external network")
		}
		for _, n := range found {
			if n.Name == openstack.ExternalNetwork {
				return n.ID, nil
			}
		}
		return found[0].ID, nil
	})
}

// flavor is the id of a flavor.
func (r *Run) flavor(ctx context.Context, name string) (string, error) {
	return r.looked("flavor", name, func() (string, error) {
		pages, err := flavors.ListDetail(r.Cloud.Compute, nil).AllPages(ctx)
		if err != nil {
			return "", fmt.Errorf("list flavors: %w", err)
		}
		found, err := flavors.ExtractFlavors(pages)
		if err != nil {
			return "", fmt.Errorf("list flavors: %w", err)
		}
		var there []string
		for _, f := range found {
			if f.Name == name {
				return f.ID, nil
			}
			there = append(there, f.Name)
		}
		return "", unknown("flavor", name, there)
	})
}

// image is the id of an image: one that the script made, or one of the region's.
func (r *Run) image(ctx context.Context, name string) (string, error) {
	if slices.Contains(names(r, kindImage), name) {
		return r.id(kindImage, name)
	}
	return r.looked(kindImage, name, func() (string, error) {
		pages, err := images.List(r.Cloud.Image, images.ListOpts{Status: images.ImageStatusActive}).AllPages(ctx)
		if err != nil {
			return "", fmt.Errorf("list images: %w", err)
		}
		found, err := images.ExtractImages(pages)
		if err != nil {
			return "", fmt.Errorf("list images: %w", err)
		}
		there := names(r, kindImage)
		for _, i := range found {
			if i.Name == name {
				return i.ID, nil
			}
			there = append(there, i.Name)
		}
		return "", unknown(kindImage, name, there)
	})
}

func unknown(kind, name string, there []string) error {
	return (&fault.Error{Code: fault.NotFound, Message: fmt.Sprintf("no %s %q", kind, name), Expected: strings.Join(there, ", ")}).Suggest(name, there)
}

// planned says that the environment has a node of that name.
func (r *Run) planned(name string) error {
	if _, ok := r.World.Plan.Node(name); ok {
		return nil
	}
	var there []string
	for _, n := range r.World.Plan.Nodes {
		there = append(there, n.Name)
	}
	return unknown("node", name, there)
}

// absent takes "not there" for done.
func absent(err error) error {
	if gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// remove removes what the script made, and returns when it is gone.
func (r *Run) remove(ctx context.Context, kind, name string) error {
	var id string
	var err error
	switch kind {
	case kindServer:
		var s *started
		if s, err = get[*started](r, kind, name); err == nil {
			id = s.id
		}
	case kindFloatingIP:
		var f *FloatingIP
		if f, err = get[*FloatingIP](r, kind, name); err == nil {
			id = f.ID
		}
	case kindUser:
		var u *User
		if u, err = get[*User](r, kind, name); err == nil {
			id = u.ID
		}
	case kindCredential:
		var c *credential
		if c, err = get[*credential](r, kind, name); err == nil {
			err = applicationcredentials.Delete(ctx, r.Cloud.Identity, c.user, c.id).ExtractErr()
		}
		if err == nil {
			r.forget(kind, name)
		}
		return err
	default:
		if name == ownProject && kind == kindProject {
			return fault.New(fault.Invalid, "the scenario's own project goes with the scenario")
		}
		id, err = r.id(kind, name)
	}
	if err != nil {
		return err
	}
	if err := removers[kind].gone(ctx, r.Cloud, kind+" "+name, id, r.World.Deadline(removeDeadline)); err != nil {
		return err
	}
	r.forget(kind, name)
	return nil
}

// resourceCommands are the words that make and remove what a scenario works with.
func resourceCommands() map[string]Command {
	all := map[string]Command{}
	for _, commands := range []map[string]Command{networkCommands(), serverCommands(), volumeCommands(), identityCommands(), nodeCommands()} {
		for name, command := range commands {
			all[name] = command
		}
	}
	return all
}

var errNoVolumes = errors.New("the catalog of the region has no volume service")
