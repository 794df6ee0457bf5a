package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/openstack"
)

// Server is an instance. Slices are in the order of its ports.
type Server struct {
	Name     string
	ID       string
	Host     string // the node it runs on
	Status   string // ACTIVE, SHUTOFF, ...
	Task     string // what Nova is doing with it; empty: nothing
	Fixed    []netip.Addr
	Floating []netip.Addr
	MACs     []string
	Ports    []string // their ids
	Networks []string // the script's names; an id where the script did not make the network
	Domain   string   // libvirt's: instance-0000000a

	networkIDs []string
}

// started is what the script asked for: what cannot be asked for again.
type started struct {
	id       string
	ports    []string // ids
	networks []string // ids
	agent    bool     // it was waited for its agent, which has answered
}

// serverOptions are the flags of `server`.
type serverOptions struct {
	networks, ports, secgroups                       []string
	node, flavor, image, volume, keypair, userDataIn string
	soon                                             bool
}

// serverCommands are the words for Nova's things.
func serverCommands() map[string]Command {
	commands := map[string]Command{
		"keypair": {
			Summary: "make a key pair for ssh",
			Args:    "NAME",
			Detail:  []string{"Prints the private key. Sets $NAME to its name in Nova.", "Example: keypair k1"},
			Min:     1, Max: 1, Sets: sets(),
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) { return r.keypair(ctx, args[0]) }
			},
		},
		"server": {
			Summary: "boot a server",
			Args:    "NAME (--network NETWORK)... [--port PORT]... [--on NODE] [--flavor F] [--image I] [--boot-volume VOLUME] [--secgroup SECGROUP]... [--keypair K] [--user-data FILE] [--no-wait]",
			Detail: []string{"It returns when the server is ACTIVE and its guest's agent answers; with --no-wait when Nova has taken the request. Several are booted side by " +
				"side with & and join.",
				"--on places it on a node; FILE is a file of the script's archive.",
				"Sets $NAME to its id, $NAME_ip to its first address, $NAME_mac to that port's MAC, $NAME_host to the node it runs on.",
				"Example: server s1 --network blue --on cmp1 &"},
			Async: true, Min: 1, Max: 1, Sets: sets("ip", "mac", "host"),
			Flags: func(f *pflag.FlagSet) Action {
				var o serverOptions
				f.StringArrayVar(&o.networks, "network", nil, "a `NETWORK` it is on; may be given several times")
				f.StringArrayVar(&o.ports, "port", nil, "a `PORT` it has; may be given several times")
				f.StringArrayVar(&o.secgroups, "secgroup", nil, "a `SECGROUP` of it instead of default; may be given several times")
				f.StringVar(&o.node, "on", "", "the `NODE` it runs on")
				f.StringVar(&o.flavor, "flavor", "m1.tiny", "its `FLAVOR`")
				f.StringVar(&o.image, "image", openstack.GuestImage, "the `IMAGE` it boots from")
				f.StringVar(&o.volume, "boot-volume", "", "the `VOLUME` it boots from, instead of an image")
				f.StringVar(&o.keypair, "keypair", "", "a `KEYPAIR`")
				f.StringVar(&o.userDataIn, "user-data", "", "a `FILE` of the archive")
				f.BoolVar(&o.soon, "no-wait", false, "do not wait for it")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) { return r.boot(ctx, args[0], o) }
			},
		},
	}
	for name, change := range map[string]struct {
		summary, detail string
		does            func(ctx context.Context, r *Run, id string, force bool) error
		until           string // the status it is waited for
		guest           bool   // its agent too
	}{
		"server-reboot": {"restart a server", "Its shutdown is awaited; --force cuts its power.", reboot, "ACTIVE", true},
		"server-stop": {"stop a server", "It returns when the server is SHUTOFF.", func(ctx context.Context, r *Run, id string, _ bool) error {
			return servers.Stop(ctx, r.Cloud.Compute, id).ExtractErr()
		}, "SHUTOFF", false},
		"server-start": {"start a server that is stopped", "It returns when its agent answers.", func(ctx context.Context, r *Run, id string, _ bool) error {
			return servers.Start(ctx, r.Cloud.Compute, id).ExtractErr()
		}, "ACTIVE", true},
		"server-rebuild": {"make a server anew from its image", "Its root disk is as the image has it; id, ports and volumes stay.", rebuild, "ACTIVE", true},
	} {
		commands[name] = Command{
			Summary: change.summary, Args: "SERVER [--no-wait]", Detail: []string{change.detail, "Example: " + name + " s1"}, Async: true, Min: 1, Max: 1,
			Flags: func(f *pflag.FlagSet) Action {
				soon := f.Bool("no-wait", false, "do not wait until it has come about")
				force := new(bool)
				if name == "server-reboot" {
					f.BoolVar(force, "force", false, "cut the power")
				}
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					s, err := get[*started](r, kindServer, args[0])
					if err != nil {
						return Outcome{}, err
					}
					if err := change.does(ctx, r, s.id, *force); err != nil {
						return Outcome{}, fmt.Errorf("%s %s: %w", name, args[0], err)
					}
					if *soon {
						return Outcome{}, nil
					}
					if err := r.status(ctx, args[0], change.until, 2*time.Minute); err != nil || !change.guest {
						return Outcome{}, err
					}
					return Outcome{}, r.answers(ctx, args[0], 2*time.Minute)
				}
			},
		}
	}
	commands["server-evacuate"] = Command{
		Summary: "have Nova make a server anew on another node than its own, which is down",
		Args:    "SERVER [--to NODE] [--no-wait]",
		Detail: []string{"Its disks are on shared storage and stay as they are. It returns when the server is ACTIVE elsewhere and its agent answers. Sets $SERVER_host.",
			"Example: server-evacuate s1 --to cmp2"},
		Async: true, Min: 1, Max: 1, Sets: func(args []string) []string { return []string{variable(args[0], "host")} },
		Flags: func(f *pflag.FlagSet) Action {
			to := f.String("to", "", "the `NODE` it comes to")
			soon := f.Bool("no-wait", false, "do not wait until it has come about")
			return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
				return r.evacuate(ctx, args[0], *to, !*soon)
			}
		},
	}
	commands["server-delete"] = Command{
		Summary: "delete a server",
		Args:    "SERVER",
		Detail:  []string{"It returns when the server is gone. Volumes that it had become available.", "Example: server-delete s1"},
		Async:   true, Min: 1, Max: 1,
		Flags: func(*pflag.FlagSet) Action {
			return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
				return Outcome{}, r.remove(ctx, kindServer, args[0])
			}
		},
	}
	return commands
}

func (r *Run) keypair(ctx context.Context, name string) (Outcome, error) {
	if err := r.free(kindKeypair, name); err != nil {
		return Outcome{}, err
	}
	k, err := keypairs.Create(ctx, r.Cloud.Compute, keypairs.CreateOpts{Name: r.prefix() + name}).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("make key pair %s: %w", name, err)
	}
	outcome, err := r.made(&Resource{Kind: kindKeypair, Name: name, ID: k.Name})
	outcome.Text = k.PrivateKey
	return outcome, err
}

// boot makes a server and, unless it is not to be waited for, returns when its agent answers.
func (r *Run) boot(ctx context.Context, name string, o serverOptions) (Outcome, error) {
	if err := r.free(kindServer, name); err != nil {
		return Outcome{}, err
	}
	if len(o.networks)+len(o.ports) == 0 {
		return Outcome{}, fault.New(fault.Invalid, "server %s is on no network", name).WithRemedy("give it --network NETWORK or --port PORT")
	}
	opts := servers.CreateOpts{Name: name, SecurityGroups: o.secgroups}
	asked := &started{}
	var nics []servers.Network
	for _, port := range o.ports {
		id, err := r.id(kindPort, port)
		if err != nil {
			return Outcome{}, err
		}
		nics, asked.ports = append(nics, servers.Network{Port: id}), append(asked.ports, id)
	}
	for _, network := range o.networks {
		id, err := r.id(kindNetwork, network)
		if err != nil {
			return Outcome{}, err
		}
		nics, asked.networks = append(nics, servers.Network{UUID: id}), append(asked.networks, id)
	}
	opts.Networks = nics
	for i, group := range o.secgroups {
		id, err := r.group(ctx, group)
		if err != nil {
			return Outcome{}, err
		}
		opts.SecurityGroups[i] = id
	}
	if o.node != "" {
		if err := r.planned(o.node); err != nil {
			return Outcome{}, err
		}
		opts.AvailabilityZone = "nova:" + o.node
	}
	var err error
	if opts.FlavorRef, err = r.flavor(ctx, o.flavor); err != nil {
		return Outcome{}, err
	}
	if o.volume != "" {
		id, err := r.id(kindVolume, o.volume)
		if err != nil {
			return Outcome{}, err
		}
		opts.BlockDevice = []servers.BlockDevice{{SourceType: servers.SourceVolume, DestinationType: servers.DestinationVolume, UUID: id, BootIndex: 0}}
	} else if opts.ImageRef, err = r.image(ctx, o.image); err != nil {
		return Outcome{}, err
	}
	if o.userDataIn != "" {
		file, err := r.File(o.userDataIn)
		if err != nil {
			return Outcome{}, err
		}
		if opts.UserData, err = os.ReadFile(file); err != nil {
			return Outcome{}, err
		}
	}
	var create servers.CreateOptsBuilder = opts
	if o.keypair != "" {
		key, err := r.id(kindKeypair, o.keypair)
		if err != nil {
			return Outcome{}, err
		}
		create = keypairs.CreateOptsExt{CreateOptsBuilder: opts, KeyName: key}
	}
	made, err := servers.Create(ctx, r.Cloud.Compute, create, nil).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("boot server %s: %w", name, err)
	}
	asked.id = made.ID
	if err := r.put(kindServer, name, asked); err != nil {
		return Outcome{}, err
	}
	if !o.soon {
		if err := r.active(ctx, name, 3*time.Minute); err != nil {
			return Outcome{}, err
		}
		s, err := r.answered(ctx, name, 2*time.Minute)
		if err != nil {
			return Outcome{}, err
		}
		asked.agent = true
		return s.outcome(), nil
	}
	s, err := r.server(ctx, name)
	if err != nil {
		return Outcome{}, err
	}
	return s.outcome(), nil
}

// outcome is a server as a line that made it shows it.
func (s *Server) outcome() Outcome {
	set := map[string]string{variable(s.Name): s.ID, variable(s.Name, "host"): s.Host, variable(s.Name, "ip"): "", variable(s.Name, "mac"): ""}
	text := fmt.Sprintf("server %s %s %s", s.Name, s.ID, s.Host)
	for i := range s.Ports {
		text += fmt.Sprintf(" %s %s", s.Fixed[i], s.MACs[i])
	}
	if len(s.Ports) > 0 {
		set[variable(s.Name, "ip")], set[variable(s.Name, "mac")] = s.Fixed[0].String(), s.MACs[0]
	}
	return Outcome{Text: text + "\n", JSON: s, Set: set}
}

// remembered is servers as Nova and Neutron showed them, by name: each costs them half a dozen requests of one another, and
// every probe and every path wants to know some. Nothing is remembered beyond a line that may change one, and nothing while
// such lines run, or where the evacuator moves servers by itself.
type remembered struct {
	known    map[string]*Server
	changing int  // lines under way that may change servers
	since    int  // counts such lines: what was asked for before one began is not true after it
	never    bool // others than the script move servers
}

// changing forgets the servers for as long as a line runs that may change them.
func (r *Run) changing() (done func()) {
	count := func(n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		m := &r.shown
		m.known, m.changing, m.since = nil, m.changing+n, m.since+1
	}
	count(1)
	return func() { count(-1) }
}

// server is a server of the script's as Nova and Neutron know it. A caller changes nothing in it.
func (r *Run) server(ctx context.Context, name string) (*Server, error) {
	r.mu.Lock()
	known, since := r.shown.known[name], r.shown.since
	r.mu.Unlock()
	if known != nil {
		return known, nil
	}
	s, err := r.lookAt(ctx, name)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := &r.shown; !m.never && m.changing == 0 && m.since == since && s.Status == "ACTIVE" && s.Task == "" {
		if m.known == nil {
			m.known = map[string]*Server{}
		}
		m.known[name] = s
	}
	return s, nil
}

// lookAt asks Nova and Neutron for a server.
func (r *Run) lookAt(ctx context.Context, name string) (*Server, error) {
	asked, err := get[*started](r, kindServer, name)
	if err != nil {
		return nil, err
	}
	s := &Server{Name: name, ID: asked.id}
	var attached []ports.Port
	var addresses []floatingips.FloatingIP
	group, asking := errgroup.WithContext(ctx)
	group.Go(func() error {
		now, err := servers.Get(asking, r.Cloud.Compute, asked.id).Extract()
		if err != nil {
			return err
		}
		s.Host, s.Status, s.Task, s.Domain = now.Host, now.Status, now.TaskState, now.InstanceName
		return nil
	})
	group.Go(func() error {
		pages, err := ports.List(r.Cloud.Network, ports.ListOpts{DeviceID: asked.id}).AllPages(asking)
		if err != nil {
			return err
		}
		attached, err = ports.ExtractPorts(pages)
		return err
	})
	group.Go(func() error {
		if len(names(r, kindFloatingIP)) == 0 {
			return nil
		}
		pages, err := floatingips.List(r.Cloud.Network, floatingips.ListOpts{ProjectID: r.Cloud.ProjectID}).AllPages(asking)
		if err != nil {
			return err
		}
		addresses, err = floatingips.ExtractFloatingIPs(pages)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("ask for server %s: %w", name, err)
	}
	networks := map[string]string{}
	for _, known := range names(r, kindNetwork) {
		if id, err := r.id(kindNetwork, known); err == nil {
			networks[id] = known
		}
	}
	// As the script named them: ports first, then networks.
	rank := func(p ports.Port) int {
		if i := slices.Index(asked.ports, p.ID); i >= 0 {
			return i
		}
		return len(asked.ports) + slices.Index(asked.networks, p.NetworkID)
	}
	slices.SortStableFunc(attached, func(a, b ports.Port) int { return rank(a) - rank(b) })
	for _, p := range attached {
		var first netip.Addr
		if len(p.FixedIPs) > 0 {
			first = address(p.FixedIPs[0].IPAddress)
		}
		network := networks[p.NetworkID]
		if network == "" {
			network = p.NetworkID
		}
		s.Ports, s.MACs, s.Fixed, s.networkIDs = append(s.Ports, p.ID), append(s.MACs, p.MACAddress), append(s.Fixed, first), append(s.networkIDs, p.NetworkID)
		s.Networks = append(s.Networks, network)
		for _, f := range addresses {
			if f.PortID == p.ID {
				s.Floating = append(s.Floating, address(f.FloatingIP))
			}
		}
	}
	return s, nil
}

// active waits until a server is ACTIVE, and Nova has nothing more to do with it.
func (r *Run) active(ctx context.Context, name string, deadline time.Duration) error {
	return r.status(ctx, name, "ACTIVE", deadline)
}

// status waits until a server has a status. ERROR ends the wait, with Nova's reason.
func (r *Run) status(ctx context.Context, name, want string, deadline time.Duration) error {
	asked, err := get[*started](r, kindServer, name)
	if err != nil {
		return err
	}
	busy := 0
	return r.wait(ctx, fmt.Sprintf("server %s to be %s", name, want), deadline, func(ctx context.Context) (bool, error) {
		// Nova asks Neutron twice for each server that it shows, and nothing for a list of ids.
		if busy++; busy%lookAnyway != 0 {
			if there, err := hasServer(ctx, r.Cloud.Compute, asked.id, want, "ERROR"); err != nil || !there {
				return false, err
			}
		}
		s, err := servers.Get(ctx, r.Cloud.Compute, asked.id).Extract()
		switch {
		case gophercloud.ResponseCodeIs(err, 404):
			return true, &Mismatch{Expected: "server " + name + " " + want, Seen: "no such server any more"}
		case err != nil:
			return false, err
		case s.Status == want && s.TaskState == "":
			return true, nil
		case s.Status == "ERROR":
			return true, r.failed(ctx, name, want, s)
		case s.TaskState != "":
			return false, fmt.Errorf("it is %s (%s)", s.Status, s.TaskState)
		}
		return false, fmt.Errorf("it is %s", s.Status)
	})
}

// lookAnyway is how often a server is looked at when it has neither the status that is waited for nor failed: what it has
// instead is told when the wait ends.
const lookAnyway = 8

// shortList asks for a server's id when it has one of some statuses.
type shortList struct {
	id       string
	statuses []string
}

// hasServer says whether Nova has a server, in one of some statuses where any are given.
func hasServer(ctx context.Context, c *gophercloud.ServiceClient, id string, statuses ...string) (bool, error) {
	pages, err := servers.ListSimple(c, shortList{id, statuses}).AllPages(ctx)
	if err != nil {
		return false, err
	}
	none, err := pages.IsEmpty()
	return !none, err
}

func (l shortList) ToServerListQuery() (string, error) {
	return "?" + url.Values{"all_tenants": {"1"}, "uuid": {l.id}, "status": l.statuses}.Encode(), nil
}

// failed is the mismatch of a server in ERROR, with Nova's reason in the log.
func (r *Run) failed(ctx context.Context, name, want string, s *servers.Server) error {
	seen := "ERROR"
	if s.Fault.Message != "" {
		seen += ": " + s.Fault.Message
	}
	for _, line := range node.LastLines(s.Fault.Details, 5) {
		r.Logf("Nova: %s", line)
	}
	return &Mismatch{Expected: fmt.Sprintf("server %s %s", name, want), Seen: seen}
}

// answers waits until a server's agent answers.
func (r *Run) answers(ctx context.Context, name string, deadline time.Duration) error {
	_, err := r.answered(ctx, name, deadline)
	return err
}

// answered is answers, and the server.
func (r *Run) answered(ctx context.Context, name string, deadline time.Duration) (*Server, error) {
	s, err := r.server(ctx, name)
	if err != nil {
		return nil, err
	}
	err = r.wait(ctx, "the agent in server "+name, deadline, func(ctx context.Context) (bool, error) {
		err := r.agent(ctx, s)
		return err == nil, err
	})
	if err == nil || ctx.Err() != nil {
		return s, err
	}
	e := &fault.Error{Code: fault.CodeOf(err), Node: s.Host, Unit: name, Message: err.Error(), Err: err}
	text, consoleErr := servers.ShowConsoleOutput(ctx, r.Cloud.Compute, s.ID, servers.ShowConsoleOutputOpts{Length: 30}).Extract()
	for _, line := range node.LastLines(text, 15) {
		e.Log = append(e.Log, "console: "+line)
	}
	if consoleErr != nil {
		e.Log = append(e.Log, "its console cannot be read: "+consoleErr.Error())
	}
	return nil, e
}

func reboot(ctx context.Context, r *Run, id string, force bool) error {
	how := servers.SoftReboot
	if force {
		how = servers.HardReboot
	}
	return servers.Reboot(ctx, r.Cloud.Compute, id, servers.RebootOpts{Type: how}).ExtractErr()
}

func rebuild(ctx context.Context, r *Run, id string, _ bool) error {
	s, err := servers.Get(ctx, r.Cloud.Compute, id).Extract()
	if err != nil {
		return err
	}
	image, _ := s.Image["id"].(string)
	if image == "" {
		return errors.New("it boots from a volume")
	}
	_, err = servers.Rebuild(ctx, r.Cloud.Compute, id, servers.RebuildOpts{ImageRef: image}).Extract()
	return err
}

func (r *Run) evacuate(ctx context.Context, name, to string, wait bool) (Outcome, error) {
	before, err := r.server(ctx, name)
	if err != nil {
		return Outcome{}, err
	}
	if to != "" {
		if err := r.planned(to); err != nil {
			return Outcome{}, err
		}
	}
	if err := servers.Evacuate(ctx, r.Cloud.Compute, before.ID, servers.EvacuateOpts{Host: to, OnSharedStorage: true}).Err; err != nil {
		return Outcome{}, fmt.Errorf("evacuate %s: %w", name, err)
	}
	host := before.Host
	if wait {
		err := r.wait(ctx, fmt.Sprintf("server %s to be ACTIVE on another node than %s", name, before.Host), 2*time.Minute, func(ctx context.Context) (bool, error) {
			s, err := servers.Get(ctx, r.Cloud.Compute, before.ID).Extract()
			switch {
			case err != nil:
				return false, err
			case s.Status == "ERROR" && s.TaskState == "":
				return true, r.failed(ctx, name, "ACTIVE", s)
			case s.Status == "ACTIVE" && s.TaskState == "" && s.Host != before.Host:
				host = s.Host
				return true, nil
			}
			return false, fmt.Errorf("it is %s on %s (%s)", s.Status, s.Host, s.TaskState)
		})
		if err == nil {
			err = r.answers(ctx, name, 2*time.Minute)
		}
		if err != nil {
			return Outcome{}, err
		}
	}
	return Outcome{Text: fmt.Sprintf("server %s %s\n", name, host), Set: map[string]string{variable(name, "host"): host}}, nil
}
