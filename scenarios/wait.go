package scenarios

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	volumeservices "github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/services"
	computeservices "github.com/gophercloud/gophercloud/v2/openstack/compute/v2/services"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/agents"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/spf13/pflag"

	"github.com/toast-cloud/toastdev/images/guest/agent/probe"
	"github.com/toast-cloud/toastdev/internal/evidence"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/health"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners"
)

// waiting is one form of `wait`.
type waiting struct {
	words    string // its arguments: what is upper case is the script's
	deadline time.Duration
	does     func(ctx context.Context, r *Run, args []string, o waitOptions) error
}

type waitOptions struct {
	deadline time.Duration
	fresh    bool
}

// waitings is what can be waited for, by the first word.
var waitings = map[string]waiting{
	"server": {"SERVER STATUS", 2 * time.Minute, func(ctx context.Context, r *Run, args []string, o waitOptions) error {
		return r.status(ctx, args[0], strings.ToUpper(args[1]), o.deadline)
	}},
	"volume": {"VOLUME STATUS", time.Minute, func(ctx context.Context, r *Run, args []string, o waitOptions) error {
		return r.volumeStatus(ctx, args[0], args[1], o.deadline)
	}},
	"agent": {"l3|dhcp|metadata|ovs|compute|volume on NODE alive|dead", 90 * time.Second, func(ctx context.Context, r *Run, args []string, o waitOptions) error {
		return r.waitAgent(ctx, args[0], args[2], args[3] == "alive", o)
	}},
	"router": {"ROUTER on NODE", time.Minute, func(ctx context.Context, r *Run, args []string, o waitOptions) error {
		id, err := r.id(kindRouter, args[0])
		if err != nil {
			return err
		}
		router, err := routers.Get(ctx, r.Cloud.Network, id).Extract()
		if err != nil {
			return fmt.Errorf("ask for router %s: %w", args[0], err)
		}
		return r.waitRouter(ctx, router, args[2], o.deadline)
	}},
	"port": {"PORT STATUS", time.Minute, func(ctx context.Context, r *Run, args []string, o waitOptions) error {
		return r.waitPort(ctx, args[0], strings.ToUpper(args[1]), o.deadline)
	}},
	"guest": {"SERVER", 2 * time.Minute, func(ctx context.Context, r *Run, args []string, o waitOptions) error {
		return r.answers(ctx, args[0], o.deadline)
	}},
	"node": {"NODE running|stopped|paused", time.Minute, func(ctx context.Context, r *Run, args []string, o waitOptions) error {
		return r.waitNode(ctx, args[0], provisioners.State(args[1]), o.deadline)
	}},
	"region": {"healthy", 2 * time.Minute, func(ctx context.Context, r *Run, _ []string, o waitOptions) error {
		_, _, err := health.Wait(ctx, r.World.Admin, r.World.Plan, r.World.Node, r.World.Deadline(o.deadline))
		return late(err, "a healthy region", r.World.Deadline(o.deadline))
	}},
	"closed": {"FROM TO PORT", 30 * time.Second, func(ctx context.Context, r *Run, args []string, o waitOptions) error {
		return r.waitClosed(ctx, args[0], args[1], args[2], o.deadline)
	}},
	"arp": {"ADDRESS on NODE", time.Minute, func(ctx context.Context, r *Run, args []string, o waitOptions) error {
		return r.waitARP(ctx, args[0], args[2], o.deadline)
	}},
	"token": {"TOKEN accepted|refused", time.Minute, func(ctx context.Context, r *Run, args []string, o waitOptions) error {
		return r.waitToken(ctx, args[0], args[1] == "accepted", o.deadline)
	}},
}

// waitCommands is `wait`.
func waitCommands() map[string]Command {
	var forms []string
	for _, what := range slices.Sorted(maps.Keys(waitings)) {
		forms = append(forms, fmt.Sprintf("wait %s %s (%s)", what, waitings[what].words, brief(waitings[what].deadline)))
	}
	return map[string]Command{
		"wait": {
			Summary: "wait until something is so",
			Args:    "WHAT ... [TIMEOUT]",
			Detail: append([]string{"The forms, with the time that each has when TIMEOUT does not say otherwise:"}, append(forms,
				"agent is what Neutron, Nova and Cinder themselves say; --fresh asks for a heartbeat from after the line began. router: the node has its namespaces with all their interfaces. "+
					"guest: its agent answers. token: whether Keystone takes it. closed: TO no longer answers FROM (see tcp) on a TCP port, or with icmp for PORT a ping. "+
					fmt.Sprintf("arp: the client sends what is for ADDRESS to an interface of NODE, and has for %s, in which late announcements of the address arrive.", announced),
				"At the end of the time it fails and says what it saw last.", "Example: wait server s1 ACTIVE 60s")...),
			Async: true, Min: 2, Max: 6,
			Check: func(args []string) error {
				_, _, _, err := waitFor(args)
				return err
			},
			Flags: func(f *pflag.FlagSet) Action {
				fresh := f.Bool("fresh", false, "a heartbeat from before does not count")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					w, words, deadline, err := waitFor(args)
					if err != nil {
						return Outcome{}, err
					}
					return Outcome{}, w.does(ctx, r, words, waitOptions{deadline: deadline, fresh: *fresh})
				}
			},
		},
	}
}

// brief is a duration without its zeros: 2m.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	return text
}

// waitFor reads the line of a wait: its form, that form's arguments, and how long.
func waitFor(line []string) (w waiting, words []string, deadline time.Duration, err error) {
	w, ok := waitings[line[0]]
	if !ok {
		return w, nil, 0, unknown("thing to wait for", line[0], slices.Sorted(maps.Keys(waitings)))
	}
	wanted := strings.Fields(w.words)
	words, deadline = line[1:], w.deadline
	if len(words) == len(wanted)+1 {
		if deadline, err = time.ParseDuration(words[len(wanted)]); err != nil || deadline <= 0 {
			return w, nil, 0, fault.New(fault.Invalid, "%q is not a time", words[len(wanted)]).WithRemedy("write 30s, or 2m")
		}
		words = words[:len(wanted)]
	}
	if len(words) != len(wanted) {
		return w, nil, 0, &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("wait %s takes other arguments", line[0]), Expected: fmt.Sprintf("wait %s %s [TIMEOUT]", line[0], w.words)}
	}
	for i, form := range wanted {
		if form == strings.ToUpper(form) {
			continue
		}
		if choices := strings.Split(form, "|"); !slices.Contains(choices, words[i]) && !strings.HasPrefix(words[i], "$") {
			return w, nil, 0, unknown("word here", words[i], choices)
		}
	}
	return w, words, deadline, nil
}

// wait asks until ready says yes. The deadline is for a host with KVM; when it passes, or the line's own does, that is an
// expectation which was not met. Errors of calls that may come to succeed are what was seen last.
func (r *Run) wait(ctx context.Context, what string, deadline time.Duration, ready func(context.Context) (bool, error)) error {
	began := time.Now()
	err := node.WaitEvery(ctx, 500*time.Millisecond, what, r.World.Deadline(deadline), ready)
	return late(err, what, time.Since(began))
}

// late makes a mismatch of a wait's timeout.
func late(err error, what string, waited time.Duration) error {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Code != fault.Timeout {
		return err
	}
	seen := "nothing of it"
	if e.Err != nil {
		seen = e.Err.Error()
	}
	return &Mismatch{Expected: fmt.Sprintf("%s within %s", what, waited.Round(100*time.Millisecond)), Seen: seen}
}

// neutronAgents are the programs that report themselves as a kind of agent.
var neutronAgents = map[string]string{"l3": "neutron-l3-agent", "dhcp": "neutron-dhcp-agent", "metadata": "neutron-metadata-agent", "ovs": "neutron-openvswitch-agent"}

// waitAgent waits for an agent's life or death, as the service that it reports itself to sees it.
func (r *Run) waitAgent(ctx context.Context, kind, name string, alive bool, o waitOptions) error {
	if err := r.planned(name); err != nil {
		return err
	}
	asked := time.Now()
	began := asked.Truncate(time.Second) // heartbeats are in whole seconds
	want := "dead"
	if alive {
		want = "alive"
	}
	return r.wait(ctx, fmt.Sprintf("agent %s on %s %s", kind, name, want), o.deadline, func(ctx context.Context) (bool, error) {
		lives, seen, err := r.agentAlive(ctx, kind, name, asked)
		if err != nil {
			return false, err
		}
		if lives == alive && (!o.fresh || !seen.Before(began)) {
			return true, nil
		}
		verdict := "dead"
		if lives {
			verdict = "alive"
		}
		return false, fmt.Errorf("it is %s, its last heartbeat %s old", verdict, time.Since(seen).Round(time.Second))
	})
}

// agentAlive is what an agent's own service has said of it since a moment, and when it last reported itself.
func (r *Run) agentAlive(ctx context.Context, kind, name string, since time.Time) (alive bool, seen time.Time, err error) {
	nobody := fmt.Errorf("no agent %s on %s has reported itself", kind, name)
	switch kind {
	case "compute":
		pages, err := computeservices.List(r.Cloud.Compute, computeservices.ListOpts{Binary: "nova-compute", Host: name}).AllPages(ctx)
		if err != nil {
			return false, seen, err
		}
		all, err := computeservices.ExtractServices(pages)
		if err != nil || len(all) == 0 {
			return false, seen, errors.Join(nobody, err)
		}
		return all[0].State == "up", all[0].UpdatedAt, nil
	case "volume":
		if r.Cloud.Volume == nil {
			return false, seen, errNoVolumes
		}
		pages, err := volumeservices.List(r.Cloud.Volume, volumeservices.ListOpts{Binary: "cinder-volume"}).AllPages(ctx)
		if err != nil {
			return false, seen, err
		}
		all, err := volumeservices.ExtractServices(pages)
		for _, s := range all {
			if host, _, _ := strings.Cut(s.Host, "@"); host == name { // nas@backend
				return s.State == "up", s.UpdatedAt, nil
			}
		}
		return false, seen, errors.Join(nobody, err)
	}
	all, err := r.neutronAgents(ctx, since)
	if err != nil {
		return false, seen, err
	}
	i := slices.IndexFunc(all, func(a agents.Agent) bool { return a.Binary == neutronAgents[kind] && a.Host == name })
	if i < 0 {
		return false, seen, nobody
	}
	return all[i].Alive, all[i].HeartbeatTimestamp, nil
}

// listedAgents is Neutron's agents as they were at a time.
type listedAgents struct {
	asking sync.Mutex
	at     time.Time
	all    []agents.Agent
}

// neutronAgents is Neutron's agents as they have been since a moment, and not longer than a second ago: several lines may wait
// for one each.
func (r *Run) neutronAgents(ctx context.Context, since time.Time) ([]agents.Agent, error) {
	l := &r.agents
	l.asking.Lock()
	defer l.asking.Unlock()
	if now := time.Now(); l.at.Before(since) || now.Sub(l.at) >= time.Second {
		pages, err := agents.List(r.Cloud.Network, agents.ListOpts{}).AllPages(ctx)
		if err != nil {
			return nil, err
		}
		all, err := agents.ExtractAgents(pages)
		if err != nil {
			return nil, err
		}
		l.at, l.all = now, all
	}
	return l.all, nil
}

func (r *Run) waitPort(ctx context.Context, name, want string, deadline time.Duration) error {
	id, err := r.id(kindPort, name)
	if err != nil {
		return err
	}
	return r.wait(ctx, fmt.Sprintf("port %s to be %s", name, want), deadline, func(ctx context.Context) (bool, error) {
		p, err := ports.Get(ctx, r.Cloud.Network, id).Extract()
		if err != nil {
			return false, err
		}
		if p.Status == want {
			return true, nil
		}
		return false, fmt.Errorf("it is %s", p.Status)
	})
}

func (r *Run) waitNode(ctx context.Context, name string, want provisioners.State, deadline time.Duration) error {
	planned, ok := r.World.Plan.Node(name)
	if !ok {
		return r.planned(name)
	}
	return r.wait(ctx, fmt.Sprintf("node %s to be %s", name, want), deadline, func(ctx context.Context) (bool, error) {
		state, err := r.World.Provisioner(planned).State(ctx, planned.Resource)
		if err != nil {
			return false, err
		}
		if state == want {
			return true, nil
		}
		return false, fmt.Errorf("it is %s", state)
	})
}

func (r *Run) waitToken(ctx context.Context, name string, wanted bool, deadline time.Duration) error {
	t, err := get[*Token](r, kindToken, name)
	if err != nil {
		return err
	}
	want := "refuse"
	if wanted {
		want = "take"
	}
	return r.wait(ctx, fmt.Sprintf("Keystone to %s token %s", want, name), deadline, func(ctx context.Context) (bool, error) {
		err := r.accepted(ctx, t)
		switch {
		case err == nil && wanted, errors.Is(err, errRefused) && !wanted:
			return true, nil
		case err == nil:
			return false, fmt.Errorf("Keystone takes it; it expires %s", t.Expires.UTC().Format(time.RFC3339))
		}
		return false, err
	})
}

// waitClosed waits until nothing comes back from a TCP port any more, or from a ping: what a firewall that is told so comes to
// after a while.
func (r *Run) waitClosed(ctx context.Context, from, to, port string, deadline time.Duration) error {
	q := probe.Request{Kind: probe.Ping, Count: 1, Timeout: probe.In(time.Second)}
	if port != "icmp" {
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 {
			return fault.New(fault.Invalid, "%q is neither a port nor icmp", port)
		}
		q.Kind, q.Port = probe.TCP, n
	}
	return r.wait(ctx, fmt.Sprintf("no answer from %s to %s (%s)", to, from, port), deadline, func(ctx context.Context) (bool, error) {
		outcome, err := r.probe(ctx, from, to, q)
		if _, silent := errors.AsType[*Mismatch](err); silent {
			return true, nil
		}
		if err == nil {
			err = errors.New(strings.TrimSpace(outcome.Text))
		}
		return untried(err), err
	})
}

// announced is how long Neutron may go on announcing an address, also one that it has moved meanwhile: three times by
// gratuitous ARP, each a while after the other.
const announced = 6 * time.Second

// waitARP waits until the client has come to know an address as one of a node's interfaces.
func (r *Run) waitARP(ctx context.Context, to, name string, deadline time.Duration) error {
	if err := r.planned(name); err != nil {
		return err
	}
	address, err := r.address(ctx, clientName, to)
	if err != nil {
		return err
	}
	c, err := r.client()
	if err != nil {
		return err
	}
	planned, _ := r.World.Plan.Node(name)
	found, err := interfaces(ctx, r.World.Node(name), planned, owned{})
	if err != nil {
		return fmt.Errorf("look for the interfaces of %s: %w", name, err)
	}
	since := time.Time{}
	return r.wait(ctx, fmt.Sprintf("%s to be known to the client as on %s, for %s", address, name, announced), deadline, func(context.Context) (bool, error) {
		mac, err := c.neighbour(address)
		if err == nil && !slices.ContainsFunc(found, func(i evidence.Interface) bool { return i.MAC == mac }) {
			err = fmt.Errorf("it is known as %s, which is not on %s", cmp.Or(mac, "nothing"), name)
		}
		if err != nil {
			since = time.Time{}
			return false, err
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) < announced {
			return false, fmt.Errorf("it is, for %s", time.Since(since).Round(time.Second))
		}
		return true, nil
	})
}
