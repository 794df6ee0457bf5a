package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/images"
	"github.com/toast-cloud/toastdev/images/build"
	"github.com/toast-cloud/toastdev/internal/evidence"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/health"
	"github.com/toast-cloud/toastdev/internal/host"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/scenarios"
	"github.com/toast-cloud/toastdev/scenarios/report"
)

// ScenarioRequest is what is asked of scenarios.
type ScenarioRequest struct {
	Environment   string
	Names         []string // built-in names, files, globs; empty: all that are built in
	Dir           string   // of the report; evidence lies in its folder evidence. Empty: one of its own in the environment's folder
	Parallel      int      // how many run side by side; 0: as many as this machine bears
	Repeat        int      // how often each runs; 0: once
	KeepOnFailure bool
	Shard, Shards int      // the Shard-th, from 1, of Shards parts of the scenarios that fit; 0: all
	patched       []string // patches that count as laid, whether they are or not
}

const (
	emulated        = 2               // how much slower an emulated guest is
	emulatedTwice   = 10              // and one in a node that is emulated itself; it boots in minutes
	recoverDeadline = 3 * time.Minute // for the region, after a scenario that disturbed it
	evidenceDir     = "evidence"      // in a report's folder
)

// Scenarios runs scenarios on an environment and writes their report. A scenario that fails is in the report; the error says
// why they could not run, or that ctx ended: then the report has those that had begun.
func (t *Toastdev) Scenarios(ctx context.Context, request ScenarioRequest) (scenarios.Report, error) {
	r, err := t.scenarios(ctx, request)
	if r.Dir == "" {
		return r, err
	}
	return r, errors.Join(err, report.Write(r.Dir, r, nil))
}

// scenarios is Scenarios without the writing.
func (t *Toastdev) scenarios(ctx context.Context, request ScenarioRequest) (scenarios.Report, error) {
	scripts, err := scenarios.Load(request.Names)
	if err != nil {
		return scenarios.Report{}, err
	}
	r, err := t.isUp(request.Environment)
	if err != nil {
		return scenarios.Report{}, err
	}
	env := t.environment(r.Name)
	world, err := t.world(ctx, env, r)
	if err != nil {
		return scenarios.Report{}, err
	}
	release, err := env.LockShared(ctx, func() error { return scenarios.Recover(ctx, world) })
	if err != nil {
		return scenarios.Report{}, err
	}
	defer release()
	dir := request.Dir
	if dir == "" {
		dir = env.Path("reports", time.Now().UTC().Format("20060102-150405.000"))
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return scenarios.Report{}, err
	}
	for _, l := range r.Overlays {
		if l.Patch != "" && len(l.Nodes) == 0 {
			world.Patched = append(world.Patched, l.Component+"/"+l.Patch)
		}
	}
	world.Patched = append(world.Patched, request.patched...)
	runner := scenarios.NewRunner(world, filepath.Join(dir, evidenceDir))
	runner.Repeat, runner.KeepOnFailure, runner.Parallel = request.Repeat, request.KeepOnFailure, request.Parallel
	if runner.Parallel == 0 {
		runner.Parallel = t.bears(r.Plan)
	}
	if request.Shards > 0 {
		scripts = shard(runner, scripts, request.Shard, request.Shards)
	}
	began := time.Now()
	results, err := runner.Run(ctx, scripts)
	return scenarios.Report{Environment: r.Name, Topology: r.Plan.Topology, Release: r.Plan.ReleaseName, Routing: r.Plan.Routing,
		Started: began, Seconds: time.Since(began).Seconds(), Scenarios: results, Region: region(r.Plan), Dir: dir}, err
}

// world is an environment as scenarios need it.
func (t *Toastdev) world(ctx context.Context, env *record.Environment, r *record.Record) (*scenarios.World, error) {
	if t.facts == nil {
		facts := host.Look(ctx, t.home.Dir)
		t.facts = &facts
	}
	makers, err := t.makersOf(ctx, r.Plan)
	if err != nil {
		return nil, err
	}
	recipe, err := images.Guest(r.Plan.Release.OS.Suite, images.GuestFiles())
	if err != nil {
		return nil, err
	}
	guest, err := build.Guest(ctx, build.Request{Home: t.home, Guest: recipe})
	if err != nil {
		return nil, err
	}
	auth, err := t.auth(r, "admin")
	if err != nil {
		return nil, err
	}
	auth.Project = "admin"
	secrets, err := env.Secrets()
	if err != nil {
		return nil, err
	}
	world := &scenarios.World{
		Plan: r.Plan, Owner: t.owner(r.Name), Admin: auth, Node: t.reachable(r.Plan), Secrets: secrets, Agent: guest.Agent, Scale: 1, Netem: t.facts.Netem.There() || len(r.Plan.VMs()) == len(r.Plan.Nodes),
		Provisioner: makers,
		Turn:        func(ctx context.Context, disturbs bool) (scenarios.Turn, error) { return env.Turn(ctx, disturbs) },
	}
	world.Scale = slowness(r.Plan, t.facts.KVM.Usable || t.facts.Libvirt.Elsewhere() != "")
	world.Healthy = func(ctx context.Context) error {
		_, _, err := health.Wait(ctx, auth, r.Plan, world.Node, world.Deadline(recoverDeadline))
		return err
	}
	return world, nil
}

// slowness is how much slower things go than on containers with KVM. kvm says whether VMs have it, which is not to say that
// their instances do.
func slowness(p *plan.Plan, kvm bool) float64 {
	switch {
	case !kvm && len(p.VMs()) > 0:
		return emulatedTwice
	case p.Emulates():
		return emulated
	}
	return 1
}

// bears is how many scenarios this machine runs side by side. One and its region keep two processors busy, but for its pauses:
// there another takes its turn. Where nodes are emulated there are no pauses.
func (t *Toastdev) bears(p *plan.Plan) int {
	if p.Patience() > 1 {
		return 1
	}
	return min(1+t.facts.CPUs/2, 4)
}

// shard is one of several parts of the scripts that fit, taken in turns by name: the same on every machine.
func shard(runner *scenarios.Runner, scripts []*scenarios.Script, i, n int) []*scenarios.Script {
	var fit []*scenarios.Script
	for _, s := range scripts {
		if runner.Unfit(s) == "" {
			fit = append(fit, s)
		}
	}
	slices.SortFunc(fit, func(a, b *scenarios.Script) int { return strings.Compare(a.Name, b.Name) })
	var part []*scenarios.Script
	for k, s := range fit {
		if k%n == i-1 {
			part = append(part, s)
		}
	}
	return part
}

// region is a plan as drawings show it.
func region(p *plan.Plan) evidence.Region {
	r := evidence.Region{Name: p.Environment, Routing: p.Routing}
	for _, n := range p.Networks {
		r.Networks = append(r.Networks, evidence.RegionNetwork{Name: n.Name, Subnet: n.Subnet})
	}
	for _, n := range p.Nodes {
		drawn := evidence.RegionNode{Name: n.Name, Roles: n.Roles, VM: n.VM()}
		for _, nic := range n.NICs {
			drawn.NICs = append(drawn.NICs, evidence.RegionNIC{Name: nic.Name, Network: nic.Network, Address: nic.Addresses[0].Addr()})
		}
		r.Nodes = append(r.Nodes, drawn)
	}
	return r
}

// CapturedPath is the way that packets took from one end to the other by the captures in a folder, which may come from
// another machine. An end is an address or what the capture calls one.
func (t *Toastdev) CapturedPath(dir, from, to string) (*evidence.Path, error) {
	c, err := evidence.Load(dir)
	if err != nil {
		return nil, err
	}
	source, err := ends(c, from)
	if err != nil {
		return nil, err
	}
	destination, err := ends(c, to)
	if err != nil {
		return nil, err
	}
	p, err := c.Path(source, destination)
	if err != nil {
		return nil, err
	}
	p.From, p.To = from, to
	return p, nil
}

// ends is the addresses that a word means in a capture.
func ends(c *evidence.Capture, word string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(word); err == nil {
		return []netip.Addr{a}, nil
	}
	var found []netip.Addr
	var names []string
	for text, name := range c.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			continue // a MAC
		}
		if name == word {
			found = append(found, a)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(found) == 0 {
		slices.Sort(names)
		e := &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("the capture knows nothing called %q", word), Expected: "an address, or one of " + strings.Join(names, ", ")}
		return nil, e.Suggest(word, names)
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return found, nil
}

// DrawPath draws a path on its region, as SVG. The region is that of the report that the capture lies in, else the named
// environment's, else what the path itself shows of it.
func (t *Toastdev) DrawPath(w io.Writer, environment, dir string, p *evidence.Path) error {
	title := p.From + " to " + p.To
	return evidence.Draw(w, t.drawn(environment, dir, p), evidence.Panel{Title: title, Path: p})
}

func (t *Toastdev) drawn(environment, dir string, p *evidence.Path) evidence.Region {
	if dir, err := filepath.Abs(dir); err == nil {
		for above := filepath.Dir(dir); ; above = filepath.Dir(above) {
			if _, err := os.Stat(filepath.Join(above, report.JSONFile)); err == nil {
				if r, err := report.Read(above); err == nil {
					return r.Region
				}
			}
			if above == filepath.Dir(above) {
				break
			}
		}
	}
	if r, err := t.find(environment); err == nil {
		return region(r.Plan)
	}
	var drawn evidence.Region
	for _, point := range slices.Concat(p.Seen, p.Silent, p.Missing) {
		if !slices.ContainsFunc(drawn.Nodes, func(n evidence.RegionNode) bool { return n.Name == point.Node }) {
			drawn.Nodes = append(drawn.Nodes, evidence.RegionNode{Name: point.Node})
		}
	}
	return drawn
}
