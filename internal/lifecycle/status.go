package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/health"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/openstack"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/provisioners"
)

// statusDeadline bounds the whole look: a paused node, or an API that hangs, is a finding and not a reason to wait.
const statusDeadline = 40 * time.Second

// Status is an environment as it is now.
type Status struct {
	Environment string            `json:"environment"`
	Healthy     bool              `json:"healthy"` // nothing is in Warnings
	Warnings    []string          `json:"warnings"`
	Regions     []Region          `json:"regions"`
	Nodes       []NodeStatus      `json:"nodes"`
	Services    []Service         `json:"services"`
	Endpoints   map[string]string `json:"endpoints"` // public, by catalog name
	Forwards    []Forward         `json:"forwards"`  // ports of this machine, where it is not on the nodes' networks
	NAS         string            `json:"nas"`       // how nodes reach the NAS
	Overlays    []record.Overlay  `json:"overlays"`  // what is laid over the installed code
}

// Region is one of an environment's regions.
type Region struct {
	Name    string `json:"name"`
	Release string `json:"release"`
}

// NodeStatus is a node as it is now. Addresses and MACs are those of its record; one that the node does not have is a warning.
type NodeStatus struct {
	Name        string            `json:"name"`
	Region      string            `json:"region"`
	Roles       []string          `json:"roles"`
	Provisioner string            `json:"provisioner"`
	State       string            `json:"state"`
	Addresses   map[string]string `json:"addresses"`        // by network
	MACs        map[string]string `json:"macs"`             // by network
	Memory      *int64            `json:"memory_pss_bytes"` // of this machine's; null where it is not known
}

// Forward is a port of this machine that leads to one of a node.
type Forward struct {
	Name string `json:"name"` // what it is for: ssh-mini-kr1-cmp1
	Host string `json:"host"` // 127.0.0.1:2222
	To   string `json:"to"`   // 172.16.68.31:22
}

// Service is a unit on a node, or what an OpenStack service says of itself there.
type Service struct {
	Component string `json:"component"`
	Name      string `json:"name"`
	Node      string `json:"node"`
	Up        bool   `json:"up"`
}

// Status looks at an environment: the nodes, their units and interfaces, every API, agents and services.
func (t *Toastdev) Status(ctx context.Context, name string) (*Status, error) {
	r, err := t.find(name)
	if err != nil {
		return nil, err
	}
	p := r.Plan
	s := &Status{Environment: r.Name, Warnings: []string{}, Regions: []Region{{p.Region, p.ReleaseName}}, Services: []Service{}, Endpoints: map[string]string{}, Overlays: append([]record.Overlay{}, r.Overlays...)}
	switch r.State {
	case record.Up:
	case record.Halted:
		s.warn("the environment is halted: toastdev up starts it again")
	default:
		s.warn("the last up of this environment did not end: run toastdev up")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.Patience())*statusDeadline)
	defer cancel()
	makers, err := t.provisioners(ctx, p.Provisioners(), true)
	if err != nil {
		return nil, err
	}
	looks := make([]look, len(p.Nodes))
	var group errgroup.Group
	for i := range p.Nodes {
		group.Go(func() (err error) {
			looks[i], err = t.look(ctx, makers[p.Nodes[i].Provisioner], p, &p.Nodes[i])
			return err
		})
	}
	var report health.Report
	group.Go(func() error {
		auth, err := t.auth(r, "admin")
		if err != nil {
			return err
		}
		cloud, err := openstack.Connect(ctx, auth)
		if err != nil {
			report.Endpoints = []health.Endpoint{{Type: "identity", Name: "keystone", URL: auth.URL, Reason: err.Error()}}
			return nil
		}
		report = health.Check(ctx, cloud, p, t.reachable(p))
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if s.Forwards, err = t.forwards(ctx, r); err != nil {
		return nil, err
	}
	var nas []string // the ways to the NAS, in the order of the nodes that go them
	ways := map[string][]string{}
	for _, l := range looks {
		s.Nodes = append(s.Nodes, l.node)
		s.Services = append(s.Services, l.services...)
		s.Warnings = append(s.Warnings, l.warnings...)
		if l.instances != "" {
			if ways[l.instances] == nil {
				nas = append(nas, l.instances)
			}
			ways[l.instances] = append(ways[l.instances], l.node.Name)
		}
	}
	for i, way := range nas {
		if len(nas) > 1 {
			nas[i] = strings.Join(ways[way], ", ") + ": " + way
		}
	}
	s.NAS = strings.Join(nas, "; ")
	for _, e := range report.Endpoints {
		s.Endpoints[e.Name] = e.URL
	}
	for _, service := range report.Services {
		known := slices.IndexFunc(s.Services, func(unit Service) bool { return unit.Name == service.Name && unit.Node == service.Node })
		if known < 0 {
			s.Services = append(s.Services, Service{Component: service.Component, Name: service.Name, Node: service.Node, Up: service.Up})
		} else if !service.Up {
			s.Services[known].Up = false // its unit runs, its heartbeat does not come
		}
	}
	s.Warnings = append(s.Warnings, report.Missing()...)
	s.Healthy = len(s.Warnings) == 0
	return s, nil
}

func (s *Status) warn(format string, args ...any) {
	s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...))
}

// look is what was seen of a node.
type look struct {
	node      NodeStatus
	services  []Service
	warnings  []string
	instances string // how a compute reaches the NAS
}

func (l *look) warn(format string, args ...any) {
	l.warnings = append(l.warnings, l.node.Name+": "+fmt.Sprintf(format, args...))
}

// lookScript prints, each behind a heading, a container's memory in bytes (the sum of its processes' proportional set sizes),
// a node's interfaces, the mount of the instances' folder, and the state of units. Arguments: container or vm, the units.
const lookScript = `[ "$1" = vm ] || { echo =memory; cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '/^Pss:/ {s += $2} END {print s * 1024}'; }
shift
echo =links; ip -br link
echo =instances; findmnt -nro FSTYPE,SOURCE /var/lib/nova/instances
echo =units; systemctl is-active "$@"; true`

func (t *Toastdev) look(ctx context.Context, maker provisioners.Provisioner, p *plan.Plan, n *plan.Node) (look, error) {
	l := look{node: NodeStatus{Name: n.Name, Region: p.Region, Roles: n.Roles, Provisioner: n.Provisioner,
		Addresses: map[string]string{}, MACs: map[string]string{}}}
	for _, nic := range n.NICs {
		l.node.Addresses[nic.Network], l.node.MACs[nic.Network] = nic.Addresses[0].Addr().String(), nic.MAC
	}
	state, err := maker.State(ctx, n.Resource)
	if err != nil {
		return l, err
	}
	l.node.State = string(state)
	units := p.Release.UnitsOf(n.Roles)
	if state != provisioners.Running {
		l.warn("is %s: toastdev up starts it", state)
		for _, u := range units {
			l.services = append(l.services, Service{Component: u.Component, Name: u.Name, Node: n.Name})
		}
		return l, nil
	}
	reached, err := t.reach(n)
	if err != nil {
		return l, err
	}
	kind := "container"
	if n.VM() {
		kind = "vm"
	}
	args := []string{"sh", "-c", lookScript, "look", kind}
	for _, u := range units {
		args = append(args, u.Name)
	}
	out, err := node.Output(ctx, reached, args...)
	if err != nil {
		l.warn("does not answer: %v", err)
		return l, nil
	}
	seen := sections(string(out))
	if l.node.Memory, err = memory(ctx, maker, n, seen["memory"]); err != nil {
		return l, fmt.Errorf("memory of %s: %w", n.Name, err)
	}
	for _, nic := range n.NICs {
		if !slices.ContainsFunc(seen["links"], func(line string) bool {
			fields := strings.Fields(line)
			link, _, _ := strings.Cut(fields[0], "@")
			return len(fields) > 2 && link == nic.Name && fields[2] == nic.MAC
		}) {
			l.warn("has no interface %s with MAC %s", nic.Name, nic.MAC)
		}
	}
	if n.Has("compute") {
		l.instances = instances(seen["instances"])
		if l.instances == "" {
			l.warn("/var/lib/nova/instances is not mounted from the NAS")
		}
	}
	for i, u := range units {
		up := i < len(seen["units"]) && seen["units"][i] == "active"
		l.services = append(l.services, Service{Component: u.Component, Name: u.Name, Node: n.Name, Up: up})
		if !up {
			l.warn("unit %s is not active: toastdev logs %s %s", u.Name, n.Name, u.Name)
		}
	}
	return l, nil
}

// memory is what a node has of this machine's, in bytes; nil: not known. A container's processes know; a VM's know what they
// have of the VM's.
func memory(ctx context.Context, maker provisioners.Provisioner, n *plan.Node, said []string) (*int64, error) {
	if !n.VM() {
		if len(said) != 1 {
			return nil, nil
		}
		bytes, err := strconv.ParseInt(said[0], 10, 64)
		return &bytes, err
	}
	resident, ok := maker.(provisioners.Resident)
	if !ok {
		return nil, nil
	}
	bytes, known, err := resident.Resident(ctx, n.Resource)
	if err != nil || !known {
		return nil, err
	}
	return &bytes, nil
}

// sections splits the script's output at its headings.
func sections(text string) map[string][]string {
	found := map[string][]string{}
	heading := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "="); ok {
			heading = name
		} else if line != "" {
			found[heading] = append(found[heading], line)
		}
	}
	return found
}

// instances says how the instances' folder is reached, by its mount.
func instances(mount []string) string {
	if len(mount) == 0 {
		return ""
	}
	kind, source, _ := strings.Cut(mount[0], " ")
	switch {
	case strings.HasPrefix(kind, "nfs"):
		return "volumes and instances on the NAS by the kernel's NFS client, " + source
	case kind == "fuse.sshfs":
		return "volumes and instances on the NAS by FUSE over ssh, for this kernel mounts no NFS, " + source
	}
	return ""
}
