package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/images"
	"github.com/toast-cloud/toastdev/images/build"
	"github.com/toast-cloud/toastdev/internal/health"
	"github.com/toast-cloud/toastdev/internal/host"
	"github.com/toast-cloud/toastdev/internal/openstack"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/salt/run"
	"github.com/toast-cloud/toastdev/topologies"
)

// Request is what up and plan are asked for.
type Request struct {
	Topology string   // a built-in's name or a file; empty: the environment's own, else the default
	Name     string   // empty: the topology's name, or the one environment that is up
	Set      []string // path=value
	NoCanary bool
	Instance string // boot an instance of this name and leave it, in place of the canary
	Fix      bool   // install and start what the host lacks
}

// healthDeadline is how long a region may take from its last highstate to healthy.
const healthDeadline = 5 * time.Minute

// Up makes an environment what its topology says, and changes only what differs. Killed at any moment, the next Up
// finishes what it began.
func (t *Toastdev) Up(ctx context.Context, request Request) (*Done, error) {
	topology, name, err := t.wanted(request)
	if err != nil {
		return nil, err
	}
	env := t.environment(name)
	release, err := env.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	old, err := env.Load()
	if err != nil {
		return nil, err
	}
	if err := t.prepare(ctx, request.Fix, old == nil || old.State == record.Down || old.State == record.Halted, topology.Provisioners()); err != nil {
		return nil, err
	}
	done := &Done{Environment: name}
	u := &up{Toastdev: t, env: env, done: done}
	steps := []step{
		{"plan", func(ctx context.Context) error { return u.resolve(ctx, topology, request.Set, old) }},
		{"image", u.images},
		{"nodes", u.nodes},
		{"overlays", u.overlay},
		{"salt", u.salt},
		{"region", u.region},
	}
	switch {
	case request.Instance != "":
		steps = append(steps, step{"instance", func(ctx context.Context) error { return u.instance(ctx, request.Instance) }})
	case !request.NoCanary:
		steps = append(steps, step{"canary", u.canary})
	}
	steps = append(steps, step{"record", func(context.Context) error {
		u.record.State = record.Up
		return env.Save(u.record)
	}})
	if err := done.walk(ctx, steps); err != nil {
		return nil, fmt.Errorf("up %s: %w", name, err)
	}
	return done, nil
}

// ErrAgain asks for the same command in a new process: libvirt's library was installed, and it is loaded when a process starts.
var ErrAgain = errors.New("libvirt's library was installed; the same command can use it now")

// prepare looks at the host, mends it when asked to, and refuses to begin what cannot end well with nodes of these provisioners.
// What is up already has its share of the host's memory.
func (t *Toastdev) prepare(ctx context.Context, fix, anew bool, makers []string) error {
	facts := host.Look(ctx, t.home.Dir)
	library := facts.Libvirt.Library
	checks := host.Checks(facts, makers...)
	mended := fix
	var err error
	if fix {
		err = host.Fix(ctx, checks)
	} else {
		mended, err = host.Wake(ctx, checks)
	}
	if err != nil {
		return err
	}
	if mended {
		facts = host.Look(ctx, t.home.Dir)
		checks = host.Checks(facts, makers...)
		if library == "" && facts.Libvirt.Library != "" && slices.Contains(makers, topologies.Libvirt) {
			return ErrAgain
		}
	}
	t.facts = &facts
	needed := host.Needed(makers...)
	if anew && slices.Contains(makers, topologies.Docker) { // VMs' memory is known to the byte: see roomForVMs
		needed = append(needed, "memory")
	}
	if err := host.Require(checks, needed...); err != nil {
		return err
	}
	_, err = t.provisioners(ctx, makers, true)
	return err
}

// wanted is the topology of a request and the name of its environment.
func (t *Toastdev) wanted(request Request) (*topologies.Topology, string, error) {
	records, err := t.List()
	if err != nil {
		return nil, "", err
	}
	name, ref, sets := request.Name, request.Topology, request.Set
	if ref == "" {
		var known *record.Record
		up := 0
		for _, r := range records {
			if r.Name == name {
				known = r
				break
			}
			if name == "" && r.State != record.Down {
				known, up = r, up+1
			}
		}
		if known != nil && up <= 1 {
			name, ref, sets = known.Name, known.Topology, append(known.Set, sets...)
		}
	}
	topology, err := topologies.Load(topologies.Source{Ref: ref, Sets: sets})
	if err != nil {
		return nil, "", err
	}
	if name == "" {
		name = topology.Name
	}
	return topology, name, topologies.CheckName(name)
}

// up is one Up on its way.
type up struct {
	*Toastdev
	env      *record.Environment
	record   *record.Record
	overlays []record.Overlay
	guest    openstack.Image
	cloud    *openstack.Cloud
	done     *Done
}

// resolve makes the plan and records it before anything is made of it: what exists is always what some record says.
func (u *up) resolve(ctx context.Context, topology *topologies.Topology, sets []string, old *record.Record) error {
	release, err := record.LockChoice(ctx, u.home)
	if err != nil {
		return err
	}
	defer release()
	p, overlays, err := u.plan(topology, u.env.Name, old)
	if err != nil {
		return err
	}
	if err := u.roomForVMs(ctx, p); err != nil {
		return err
	}
	u.overlays = overlays
	u.record = &record.Record{Name: u.env.Name, Topology: topology.File, Set: sets, State: record.Creating, Created: time.Now(), Plan: p}
	if old != nil {
		u.record.Created, u.record.Overlays, u.record.Owing = old.Created, old.Overlays, old.Owing
	}
	return u.env.Save(u.record)
}

// plan is what the topology comes to on this host, for an environment of that name, and what is laid over its code: what the
// topology declares, and what was laid by hand.
func (t *Toastdev) plan(topology *topologies.Topology, name string, old *record.Record) (*plan.Plan, []record.Overlay, error) {
	release, err := topologies.LoadRelease(topology.Release)
	if err != nil {
		return nil, nil, err
	}
	recipe, err := t.recipe(release, topology.Salt.Tree, topology.Salt.Base)
	if err != nil {
		return nil, nil, err
	}
	vms, err := images.VM(recipe, images.VMFiles())
	if err != nil {
		return nil, nil, err
	}
	facts := t.facts
	in := plan.Inputs{Topology: topology, Environment: name, Home: t.home.ID, Image: recipe.Ref(), VMImage: vms.Name(),
		Host: plan.Host{KernelOVS: facts.OpenVSwitch.There(), KernelNFS: facts.NFS.There(), KVM: facts.KVM.Usable, NestedKVM: facts.KVM.Nested,
			Engine: facts.Engine.State == host.EngineRunning, RemoteVMs: facts.Libvirt.Elsewhere()}}
	for _, s := range facts.Subnets {
		in.Host.Taken = append(in.Host.Taken, plan.Taken{Prefix: s.Prefix, By: s.Interface})
	}
	if old != nil {
		in.Recorded, in.Project = old.Plan, old.Plan.Project
	}
	shop, err := t.workshop(PatchRequest{Release: topology.Release}, in.Project)
	if err != nil {
		return nil, nil, err
	}
	in.Project = shop.dir()
	overlays, err := shop.declared(topology)
	if err != nil {
		return nil, nil, err
	}
	if old != nil {
		for _, l := range old.Overlays {
			if !l.Declared && !slices.ContainsFunc(overlays, l.Same) {
				overlays = append(overlays, l)
			}
		}
	}
	p, err := plan.Resolve(in)
	return p, overlays, err
}

// recipe is that of the node image of a release and a Salt tree: what the tree's install states install is baked into it.
func (t *Toastdev) recipe(release topologies.Release, userTree, base string) (*images.NodeRecipe, error) {
	tree, err := openTree(userTree, base)
	if err != nil {
		return nil, err
	}
	return images.Node(release, images.NodeFiles(), tree.Roots()...)
}

// images builds what is not there yet: the node image, the VMs' that is made of it, and beside them the guest's.
func (u *up) images(ctx context.Context) error {
	p := u.record.Plan
	recipe, err := u.recipe(p.Release, p.SaltTree, p.SaltBase)
	if err != nil {
		return err
	}
	guest, err := images.Guest(p.Release.OS.Suite, images.GuestFiles())
	if err != nil {
		return err
	}
	vms, err := images.VM(recipe, images.VMFiles())
	if err != nil {
		return err
	}
	makers := p.Provisioners()
	request := build.Request{Home: u.home, Node: recipe, Guest: guest, VM: vms, VDI: slices.Contains(makers, topologies.VirtualBox)}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if len(p.VMs()) < len(p.Nodes) {
			if _, err := build.Node(ctx, request); err != nil {
				return err
			}
		}
		if len(p.VMs()) > 0 { // of the node image, which an engine without containers may have lost
			_, err := build.VM(ctx, request)
			return err
		}
		return nil
	})
	group.Go(func() error {
		built, err := build.Guest(ctx, request)
		u.guest = openstack.Image{Name: openstack.GuestImage, Hash: built.Hash, File: built.File, DiskFormat: built.DiskFormat,
			MinDisk: built.MinDisk, MinRAM: built.MinRAM, Properties: built.Properties}
		return err
	})
	return group.Wait()
}

// nodes makes networks, volumes and nodes, and starts what does not run.
func (u *up) nodes(ctx context.Context) error {
	e, err := u.engine(u.env, u.record.Plan)
	if err != nil {
		return err
	}
	changed, err := e.Up(ctx, u.record.Plan, u.owner(u.env.Name))
	u.done.Changed += changed
	return err
}

// overlay lays patches and code over the nodes before their services start for the first time. On nodes that run, those whose
// code changed are restarted.
func (u *up) overlay(ctx context.Context) error {
	if len(u.overlays)+len(u.record.Overlays)+len(u.record.Owing) == 0 {
		return nil
	}
	o, err := u.openOverlays(u.record, OverlayRequest{})
	if err != nil {
		return err
	}
	err = o.deploy(ctx, u.overlays)
	u.done.Changed += o.done.Changed
	for _, note := range o.done.Notes {
		progress.Emit(ctx, progress.Event{Phase: "overlays", Message: note})
	}
	return err
}

// salt runs the highstate on the nodes that were not handed the same before.
func (u *up) salt(ctx context.Context) error {
	results, err := u.deploy(ctx, u.env, u.record.Plan, nil, run.Job{Skip: true})
	for _, r := range results {
		u.done.Changed += r.Changed
	}
	return err
}

// region waits until every API, agent and service is up, and then gives the newcomer what one needs: a port that is made
// before its node's agent is there stays unbound.
func (u *up) region(ctx context.Context) error {
	secrets, err := u.env.Secrets()
	if err != nil {
		return err
	}
	auth, err := u.auth(u.record, "admin")
	if err != nil {
		return err
	}
	founder := auth
	founder.Project = "admin" // the newcomer's own may not be there yet
	spec, err := openstack.SpecOf(u.record.Plan, secrets["demo"], []openstack.Image{u.guest})
	if err != nil {
		return err
	}
	cloud, _, err := health.Wait(ctx, founder, u.record.Plan, u.reachable(u.record.Plan), time.Duration(u.record.Plan.Patience())*healthDeadline)
	if err != nil {
		return err
	}
	changed, err := openstack.Newcomer(ctx, cloud, spec)
	u.done.Changed += changed
	if err != nil {
		return err
	}
	u.cloud, err = openstack.Connect(ctx, auth)
	return err
}

func (u *up) canary(ctx context.Context) error {
	if u.record.Plan.Apart() {
		progress.Emit(ctx, progress.Event{Phase: "canary", Message: "left out: this machine is not on the external network, and reaches no floating IP"})
		return nil
	}
	canary, err := health.Canary(ctx, u.cloud, u.record.Plan.Patience())
	if err != nil {
		return err
	}
	u.done.Canary = &canary
	return nil
}

func (u *up) instance(ctx context.Context, name string) error {
	instance, made, err := health.Instance(ctx, u.cloud, name, u.record.Plan.Patience())
	if err != nil {
		return err
	}
	if made {
		u.done.Changed++
	}
	u.done.Instance = &instance
	return nil
}
