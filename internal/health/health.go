// Package health says whether a region works: its APIs, agents and services, and an instance that proves it.
package health

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	volumeservices "github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/services"
	computeservices "github.com/gophercloud/gophercloud/v2/openstack/compute/v2/services"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/agents"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/openstack"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
)

// The names under which Wait and Canary tell of their work.
const (
	phaseHealth = "health"
	phaseCanary = "canary"
)

// Report is what was found. It is healthy when nothing in it is down.
type Report struct {
	Endpoints []Endpoint `json:"endpoints"`
	Services  []Service  `json:"services"`
}

// Endpoint is an API.
type Endpoint struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	URL    string `json:"url"`
	Up     bool   `json:"up"` // it answered an authenticated call
	Reason string `json:"reason,omitempty"`
}

// Service is an agent or a service that reports itself, or that should.
type Service struct {
	Component string    `json:"component"` // nova, neutron, cinder
	Name      string    `json:"name"`      // nova-compute
	Node      string    `json:"node"`
	Up        bool      `json:"up"`
	Seen      time.Time `json:"seen,omitzero"` // its last heartbeat
	Reason    string    `json:"reason,omitempty"`
}

// Healthy says whether nothing is down.
func (r Report) Healthy() bool { return len(r.Missing()) == 0 }

// Missing is what is down, each with its reason.
func (r Report) Missing() []string {
	var missing []string
	for _, e := range r.Endpoints {
		if !e.Up {
			missing = append(missing, fmt.Sprintf("the API %s (%s): %s", e.Name, e.URL, e.Reason))
		}
	}
	for _, s := range r.Services {
		if !s.Up {
			missing = append(missing, fmt.Sprintf("%s on %s: %s", s.Name, s.Node, s.Reason))
		}
	}
	return missing
}

// Nodes gives a planned node's name something that runs commands there. With nil, a heartbeat from before a service's start
// cannot be told from one after it.
type Nodes func(name string) node.Node

// Check asks once. It does not fail: what cannot be asked is down, with the reason.
func Check(ctx context.Context, cloud *openstack.Cloud, p *plan.Plan, nodes Nodes) Report {
	return ask(ctx, cloud, p).judge(starts(ctx, p, nodes))
}

// pause is between two rounds of Wait: a round is a dozen calls of APIs that have enough to do just then.
const pause = 2 * time.Second

// Wait asks until the region is healthy; Keystone need not answer yet. The timeout's error says what is still missing.
func Wait(ctx context.Context, auth openstack.Auth, p *plan.Plan, nodes Nodes, deadline time.Duration) (*openstack.Cloud, Report, error) {
	var cloud *openstack.Cloud
	var report Report
	var told string
	err := node.WaitEvery(ctx, pause, "a healthy region", deadline, func(ctx context.Context) (bool, error) {
		// Every time anew: what is not there yet may be an entry of the catalog.
		session, err := openstack.Connect(ctx, auth)
		var missing []string
		if err != nil {
			missing = []string{err.Error()}
		} else {
			cloud = session
			from := ask(ctx, session, p)
			report = from.judge(nil)
			if report.Healthy() { // as far as the APIs know; nodes are asked only then, for each costs a process there
				report = from.judge(starts(ctx, p, nodes))
			}
			missing = report.Missing()
		}
		if len(missing) == 0 {
			return true, nil
		}
		what := fmt.Sprintf("%d not there yet: %s", len(missing), missing[0])
		if what != told && ctx.Err() == nil {
			told = what
			progress.Emit(ctx, progress.Event{Phase: phaseHealth, Message: what})
		}
		return false, &fault.Error{Code: fault.Failed, Message: "still missing", Log: missing}
	})
	return cloud, report, err
}

// answers is what the APIs tell, and what a region should have.
type answers struct {
	endpoints []Endpoint
	expected  []Service
	reported  []Service
	failed    map[string]error // by component: its services cannot be asked for
}

func ask(ctx context.Context, cloud *openstack.Cloud, p *plan.Plan) answers {
	told := answers{expected: expected(p, cloud.Volume != nil), failed: map[string]error{}}
	var mu sync.Mutex
	var all sync.WaitGroup
	all.Go(func() { told.endpoints = endpoints(ctx, cloud) })
	for component, list := range map[string]func(context.Context, *openstack.Cloud, *plan.Plan) ([]Service, error){
		"nova": novaServices, "neutron": neutronAgents, "cinder": cinderServices,
	} {
		all.Go(func() {
			found, err := list(ctx, cloud, p)
			mu.Lock()
			defer mu.Unlock()
			told.reported = append(told.reported, found...)
			if err != nil {
				told.failed[component] = err
			}
		})
	}
	all.Wait()
	return told
}

// expected is which services a plan's roles come to.
func expected(p *plan.Plan, volumes bool) []Service {
	var services []Service
	for _, n := range p.Nodes {
		add := func(component string, names ...string) {
			for _, name := range names {
				s := Service{Component: component, Name: name, Node: n.Name}
				if !slices.Contains(services, s) {
					services = append(services, s)
				}
			}
		}
		if n.Has("control") {
			add("nova", "nova-conductor", "nova-scheduler")
			if volumes {
				add("cinder", "cinder-scheduler")
			}
		}
		if n.Has("network") {
			add("neutron", "neutron-dhcp-agent", "neutron-l3-agent", "neutron-metadata-agent", "neutron-openvswitch-agent")
		}
		if n.Has("compute") {
			add("nova", "nova-compute")
			add("neutron", "neutron-openvswitch-agent")
			if p.Routing == "dvr" {
				add("neutron", "neutron-l3-agent", "neutron-metadata-agent")
			}
		}
		if n.Has("storage") && volumes {
			add("cinder", "cinder-volume")
		}
	}
	slices.SortFunc(services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Component, b.Component), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Name, b.Name))
	})
	return services
}

// judge compares what is expected with what reported itself. A heartbeat from before a service's start, or its node's, says
// nothing of what runs there now, however recent it is.
func (told answers) judge(started map[unit]time.Time) Report {
	judged := make([]Service, len(told.expected))
	for i, want := range told.expected {
		judged[i] = want
		s := &judged[i]
		boot, known := started[unit{node: s.Node}]
		start := started[unit{s.Node, s.Name}]
		if start.Before(boot) {
			start = boot // it was not started yet
		}
		s.Reason = "it has not reported itself"
		if err, ok := told.failed[s.Component]; ok {
			s.Reason = "cannot be asked: " + err.Error()
		} else if known && boot.IsZero() {
			s.Reason = "its node does not answer"
		}
		for _, r := range told.reported {
			if r.Name != s.Name || r.Node != s.Node {
				continue
			}
			s.Up, s.Seen, s.Reason = r.Up, r.Seen, r.Reason
			switch {
			case !s.Up:
			case known && boot.IsZero():
				s.Up, s.Reason = false, "its node does not answer"
			case known && !s.Seen.After(start.Truncate(time.Second)): // heartbeats are told in whole seconds
				s.Up, s.Reason = false, "it has not reported itself since its start"
			}
			if s.Up {
				break // of several rows, as a changed host name leaves them, one that lives is enough
			}
		}
	}
	return Report{Endpoints: told.endpoints, Services: judged}
}

// unit is a systemd unit of a node, named as its service is; without a name it is the node's first process.
type unit struct{ node, name string }

// startsScript prints what startsOf reads; its arguments are units. While systemd cannot be asked yet it prints of the node alone.
const startsScript = `cat /proc/uptime /proc/1/stat; systemctl show --property=Id,ActiveEnterTimestampMonotonic "$@" || true`

// starts is when each node's first process was started, and its services; the zero time for a node that does not answer, and
// nothing for a service that has not run since.
func starts(ctx context.Context, p *plan.Plan, nodes Nodes) map[unit]time.Time {
	started := map[unit]time.Time{}
	if nodes == nil {
		return started
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	services := expected(p, true)
	for _, n := range p.Nodes {
		command := []string{"sh", "-c", startsScript, "starts"}
		for _, s := range services {
			if s.Node == n.Name {
				command = append(command, s.Name+".service")
			}
		}
		all.Go(func() {
			var boot time.Time
			var units map[string]time.Time
			if out, err := node.Output(ctx, nodes(n.Name), command...); err == nil {
				boot, units = startsOf(string(out), time.Now())
			}
			mu.Lock()
			defer mu.Unlock()
			started[unit{node: n.Name}] = boot
			for name, at := range units {
				started[unit{n.Name, name}] = at
			}
		})
	}
	all.Wait()
	return started
}

// startsOf reads /proc/uptime, process 1's stat (proc(5): the 22nd field is its start after the kernel's, in hundredths of a
// second; a container's first process is younger than its kernel) and systemd's properties of units (microseconds after the
// kernel's start; 0 of one that never ran).
func startsOf(text string, now time.Time) (boot time.Time, units map[string]time.Time) {
	uptime, rest, _ := strings.Cut(text, "\n")
	stat, properties, _ := strings.Cut(rest, "\n")
	var up float64
	var ticks int64
	if _, err := fmt.Sscan(uptime, &up); err != nil {
		return boot, nil
	}
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:]) // the name before it may have spaces
	if len(fields) < 20 {
		return boot, nil
	}
	if _, err := fmt.Sscan(fields[19], &ticks); err != nil {
		return boot, nil
	}
	kernel := now.Add(-time.Duration(up * float64(time.Second)))
	units = map[string]time.Time{}
	for block := range strings.SplitSeq(properties, "\n\n") {
		var name string
		var at time.Duration
		for line := range strings.Lines(block) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key {
			case "Id":
				name = strings.TrimSuffix(value, ".service")
			case "ActiveEnterTimestampMonotonic":
				microseconds, _ := strconv.ParseInt(value, 10, 64) // systemd's own number
				at = time.Duration(microseconds) * time.Microsecond
			}
		}
		if at > 0 {
			units[name] = kernel.Add(at)
		}
	}
	return kernel.Add(time.Duration(ticks) * 10 * time.Millisecond), units
}

func novaServices(ctx context.Context, cloud *openstack.Cloud, p *plan.Plan) ([]Service, error) {
	if cloud.Compute == nil {
		return nil, errNoAPI
	}
	compute := *cloud.Compute
	if p.Release.Can("forced-down") {
		compute.Microversion = "2.11" // the first that tells of it
	}
	pages, err := computeservices.List(&compute, nil).AllPages(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := computeservices.ExtractServices(pages)
	var found []Service
	for _, r := range rows {
		s := service("nova", r.Binary, r.Host, r.State == "up" && !r.ForcedDown, r.Status != "disabled", r.DisabledReason, r.UpdatedAt)
		if r.ForcedDown {
			s.Reason = fmt.Sprintf("forced down, until the evacuator takes it back, or toastdev openstack -- --os-compute-api-version 2.11 compute service set --up %s %s", r.Host, r.Binary)
		}
		found = append(found, s)
	}
	return found, err
}

func neutronAgents(ctx context.Context, cloud *openstack.Cloud, _ *plan.Plan) ([]Service, error) {
	if cloud.Network == nil {
		return nil, errNoAPI
	}
	pages, err := agents.List(cloud.Network, nil).AllPages(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := agents.ExtractAgents(pages)
	var found []Service
	for _, r := range rows {
		found = append(found, service("neutron", r.Binary, r.Host, r.Alive, r.AdminStateUp, "", r.HeartbeatTimestamp))
	}
	return found, err
}

func cinderServices(ctx context.Context, cloud *openstack.Cloud, _ *plan.Plan) ([]Service, error) {
	if cloud.Volume == nil {
		return nil, nil
	}
	pages, err := volumeservices.List(cloud.Volume, nil).AllPages(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := volumeservices.ExtractServices(pages)
	var found []Service
	for _, r := range rows {
		host, _, _ := strings.Cut(r.Host, "@") // nas@backend
		found = append(found, service("cinder", r.Binary, host, r.State == "up", r.Status != "disabled", r.DisabledReason, r.UpdatedAt))
	}
	return found, err
}

// errNoAPI is why the services of a component cannot be asked for when the catalog does not have it.
var errNoAPI = fmt.Errorf("the catalog does not have its API")

func service(component, name, host string, alive, enabled bool, disabled string, seen time.Time) Service {
	s := Service{Component: component, Name: name, Node: host, Up: alive && enabled, Seen: seen}
	switch {
	case !alive && seen.IsZero():
		s.Reason = "no heartbeat yet"
	case !alive:
		s.Reason = "no heartbeat since " + seen.Local().Format(time.TimeOnly)
	case !enabled:
		s.Reason = "disabled"
		if disabled != "" {
			s.Reason += ": " + disabled
		}
	}
	return s
}

// endpoints makes one authenticated call to each API of the catalog: one that goes to its database.
func endpoints(ctx context.Context, cloud *openstack.Cloud) []Endpoint {
	found := make([]Endpoint, len(cloud.Catalog))
	var all sync.WaitGroup
	for i, s := range cloud.Catalog {
		all.Go(func() {
			found[i] = Endpoint{Type: s.Type, Name: s.Name, URL: s.URL, Up: true}
			if err := call(ctx, cloud, s); err != nil {
				found[i].Up, found[i].Reason = false, err.Error()
			}
		})
	}
	all.Wait()
	return found
}

func call(ctx context.Context, cloud *openstack.Cloud, s openstack.Service) error {
	var client *gophercloud.ServiceClient
	var path string
	switch s.Type {
	case "identity":
		client, path = cloud.Identity, "users?limit=1&name=admin"
	case "compute":
		client, path = cloud.Compute, "servers?limit=1"
	case "network":
		client, path = cloud.Network, "networks?limit=1&fields=id"
	case "image":
		client, path = cloud.Image, "images?limit=1"
	case "block-storage", "volumev3":
		client, path = cloud.Volume, "volumes?limit=1"
	case "placement":
		client, path = cloud.Placement, "resource_providers?name=none"
	default:
		// An API of the user's own: that it answers is all that can be asked.
		client = &gophercloud.ServiceClient{ProviderClient: cloud.Identity.ProviderClient, Endpoint: s.URL, Type: s.Type}
	}
	response, err := client.Get(ctx, client.ServiceURL(path), nil, &gophercloud.RequestOpts{
		OkCodes: []int{http.StatusOK, http.StatusMultipleChoices}, KeepResponseBody: true})
	if err != nil {
		return err
	}
	return response.Body.Close()
}
