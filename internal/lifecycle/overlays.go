package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/health"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/overlay"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/patches"
	"github.com/toast-cloud/toastdev/topologies"
)

// OverlayRequest is a change of what is laid over an environment's installed OpenStack.
type OverlayRequest struct {
	Environment string
	Nodes       []string // those alone; none: all that run the component
	Upstreams   []string // component=PATH_OR_URL
	Force       bool     // lay over files that were edited on a node, and a tree whose requirements a node does not meet
	Migrate     bool     // bring the databases to what the code wants
}

// Overlaid is what came of a change of overlays.
type Overlaid struct {
	Environment string           `json:"environment"`
	Changed     int              `json:"changed"`  // files, on all nodes
	Overlays    []record.Overlay `json:"overlays"` // all that are laid now
	Nodes       []OverlaidNode   `json:"nodes"`    // those that something changed on
	Migrated    []string         `json:"migrated"` // what the commands that migrate databases printed
	Notes       []string         `json:"notes"`    // what the user should know of the code
	Phases      []Phase          `json:"phases"`
}

// OverlaidNode is what changed on a node.
type OverlaidNode struct {
	Name      string   `json:"name"`
	Files     []string `json:"files"`     // paths that are other than before
	Restarted []string `json:"restarted"` // units
	Seconds   float64  `json:"seconds"`   // that their restart took
}

// overlayHealth is how long a region may take from the restart of units to healthy.
const overlayHealth = 3 * time.Minute

// overlaying is a change of overlays under way.
type overlaying struct {
	*Toastdev
	env     *record.Environment
	record  *record.Record
	shop    *workshop
	request OverlayRequest
	mu      sync.Mutex // of done and owing
	done    *Overlaid
	owing   map[string]bool // nodes that were owed a restart before
	opening sync.Mutex
	trees   map[[3]string]*overlay.Tree // by component, path and ref
	bases   sync.Map                    // *overlay.Base by node and component: what packages have
}

// openOverlays begins a change of an environment's overlays: its record, and the series of its release. Who calls holds the lock.
func (t *Toastdev) openOverlays(r *record.Record, request OverlayRequest) (*overlaying, error) {
	o := &overlaying{Toastdev: t, env: t.environment(r.Name), record: r, request: request, trees: map[[3]string]*overlay.Tree{}, owing: map[string]bool{},
		done: &Overlaid{Environment: r.Name, Nodes: []OverlaidNode{}, Migrated: []string{}, Notes: []string{}}}
	var err error
	if o.shop, err = t.workshop(PatchRequest{Release: r.Plan.ReleaseName, Upstreams: request.Upstreams}, r.Plan.Project); err != nil {
		return nil, err
	}
	o.shop.checker.Code = true
	return o, o.shop.loadAny()
}

// overlay changes the overlays of an environment that is up.
func (t *Toastdev) overlay(ctx context.Context, request OverlayRequest, change func(*overlaying) ([]record.Overlay, error)) (*Overlaid, error) {
	r, release, err := t.hold(ctx, request.Environment)
	if err != nil {
		return nil, err
	}
	defer release()
	// One whose up did not end may have failed for what is laid.
	if r.State != record.Creating {
		if err := mustBeUp(r); err != nil {
			return nil, err
		}
	}
	for _, name := range request.Nodes {
		if _, err := named(r.Plan, name); err != nil {
			return nil, err
		}
	}
	o, err := t.openOverlays(r, request)
	if err != nil {
		return nil, err
	}
	list, err := change(o)
	if err != nil {
		return nil, err
	}
	if err := o.realise(ctx, list); err != nil {
		return nil, err
	}
	return o.done, nil
}

// isUp is the record of an environment that is up.
func (t *Toastdev) isUp(name string) (*record.Record, error) {
	r, err := t.find(name)
	if err != nil {
		return nil, err
	}
	return r, mustBeUp(r)
}

// mustBeUp refuses an environment that is not.
func mustBeUp(r *record.Record) error {
	if r.State == record.Up {
		return nil
	}
	return fault.New(fault.Failed, "environment %s is not up: it is %s", r.Name, r.State).WithRemedy("bring it up: toastdev up --name %s", r.Name)
}

// wanted is what a component's code on a node is to be. Without layers it is the package's.
type wanted struct {
	node *plan.Node
	want overlay.Want
	some []string // the paths that are looked at; none: all
}

// realise makes the list what is laid, and waits until the region is healthy with it.
func (o *overlaying) realise(ctx context.Context, list []record.Overlay) error {
	if err := o.deploy(ctx, list); err != nil {
		return err
	}
	return o.walk(ctx, step{"health", o.healthy})
}

// deploy makes the list what is laid: it looks whether all of it fits before anything changes, lays it, and restarts the units
// whose code changed.
func (o *overlaying) deploy(ctx context.Context, list []record.Overlay) error {
	var wants []wanted
	return o.walk(ctx,
		step{"check", func(ctx context.Context) (err error) {
			// What a killed run took off is not among overlays any more, and may still be owed its restart.
			wants, err = o.wants(ctx, list, union(componentsOf(o.record.Overlays, list), o.record.Owing))
			return err
		}},
		step{"lay", func(ctx context.Context) error { return o.lay(ctx, wants, list) }},
		step{"restart", o.restart})
}

func (o *overlaying) walk(ctx context.Context, steps ...step) error {
	done := &Done{}
	err := done.walk(ctx, steps)
	o.done.Phases = append(o.done.Phases, done.Phases...)
	return err
}

// componentsOf is those of overlays, each once, by name.
func componentsOf(lists ...[]record.Overlay) []string {
	var all []string
	for _, l := range slices.Concat(lists...) {
		all = append(all, l.Component)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// runs is the nodes that run a component.
func (o *overlaying) runs(component string) []*plan.Node {
	var nodes []*plan.Node
	for i := range o.record.Plan.Nodes {
		n := &o.record.Plan.Nodes[i]
		if slices.ContainsFunc(o.record.Plan.Release.UnitsOf(n.Roles), func(u topologies.Unit) bool { return u.Component == component }) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// wants is what the components' code is to be on each node that runs them, by a list of overlays. What is the same for several
// nodes is found out once, on the first of them; a node whose package is another refuses it then.
func (o *overlaying) wants(ctx context.Context, list []record.Overlay, components []string) ([]wanted, error) {
	type kind struct{ component, overlays string }
	type found struct {
		on   *plan.Node
		once sync.Once
		want overlay.Want
		err  error
	}
	var wants []wanted
	kinds := map[kind]*found{}
	group, ctx := errgroup.WithContext(ctx)
	for _, component := range components {
		for _, n := range o.runs(component) {
			var on []record.Overlay
			for _, l := range list {
				if l.Component == component && (len(l.Nodes) == 0 || slices.Contains(l.Nodes, n.Name)) {
					on = append(on, l)
				}
			}
			k := kind{component, fmt.Sprint(on)}
			if kinds[k] == nil {
				kinds[k] = &found{on: n}
			}
			same := kinds[k]
			group.Go(func() error {
				same.once.Do(func() { same.want, same.err = o.want(ctx, same.on, component, on) })
				o.mu.Lock()
				defer o.mu.Unlock()
				wants = append(wants, wanted{node: n, want: same.want})
				return same.err
			})
		}
	}
	err := group.Wait()
	slices.Sort(o.done.Notes)
	o.done.Notes = slices.Compact(o.done.Notes)
	return wants, err
}

// want is what a component's code on a node is to be by the overlays on it: the source tree first, then patches in the order
// of their series.
func (o *overlaying) want(ctx context.Context, n *plan.Node, component string, on []record.Overlay) (overlay.Want, error) {
	want := overlay.Want{Component: component, Root: o.record.Plan.Release.Components[component].Code, Files: map[string]overlay.File{}}
	for _, l := range on {
		if l.Source == "" {
			continue
		}
		var err error
		if want, err = o.source(ctx, n, l); err != nil {
			return want, err
		}
	}
	var entries []patches.Entry
	for _, e := range o.shop.entries(component) {
		if slices.ContainsFunc(on, func(l record.Overlay) bool { return l.Patch == e.Name }) {
			entries = append(entries, e)
		}
	}
	for _, l := range on {
		if l.Patch != "" && !slices.ContainsFunc(entries, func(e patches.Entry) bool { return e.Name == l.Patch }) {
			return want, fault.New(fault.Invalid, "the series of %s on %s has no patch %s any more", component, o.record.Plan.ReleaseName, l.Patch).
				WithRemedy("put it back, or take it off: toastdev patch revert %s/%s", component, l.Patch)
		}
	}
	if len(entries) == 0 {
		return want, nil
	}
	verdicts, files, had, err := o.check(ctx, n, component, entries, want.Files)
	if err != nil {
		return want, err
	}
	for _, v := range verdicts {
		e := v.Entry
		switch v.State {
		case patches.Conflicts:
			f := fault.New(fault.Failed, "%s conflicts: %s", e.FullName(), v.Detail)
			f.File, f.Node = e.File, n.Name
			return want, f.WithRemedy("`toastdev patch list` shows the lines expected and found; nothing was changed")
		case patches.Upstream:
			o.note("%s: the code has it already", e.FullName())
		}
		sum := sha256.Sum256(e.Bytes())
		want.Layers = append(want.Layers, overlay.Layer{Name: "patch " + e.Name, Digest: hex.EncodeToString(sum[:])})
	}
	for p, f := range files {
		f.Base = overlay.NoFile
		if was, ok := had[p]; ok {
			sum := sha256.Sum256(was.Content)
			f.Base, f.Mode = hex.EncodeToString(sum[:]), 0
		}
		want.Files[p] = f
	}
	return want, nil
}

func (o *overlaying) note(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done.Notes = append(o.done.Notes, fmt.Sprintf(format, args...))
}

// check tries entries on a node's package with files laid over it, and tells what the package has of what they touch.
func (o *overlaying) check(ctx context.Context, n *plan.Node, component string, entries []patches.Entry, over patches.Files) ([]patches.Verdict, patches.Files, patches.Files, error) {
	reached, err := o.reach(n)
	if err != nil {
		return nil, nil, nil, err
	}
	root := o.record.Plan.Release.Components[component].Code
	var paths []string
	for i := range entries {
		if entries[i].Reference() { // what a pick needs is found while it is made
			base, err := o.base(ctx, reached, component)
			if err != nil {
				return nil, nil, nil, err
			}
			paths = slices.Collect(maps.Keys(base.Files))
			break
		}
		paths = append(paths, entries[i].Touches()...)
	}
	paths = slices.DeleteFunc(paths, func(p string) bool { return !patches.Code(component, p) })
	slices.Sort(paths)
	contents, err := overlay.Fetch(ctx, reached, component, root, slices.Compact(paths)...)
	if err != nil {
		return nil, nil, nil, err
	}
	had := patches.Files{}
	for p, content := range contents {
		had[p] = patches.File{Content: content}
	}
	verdicts, files, err := o.shop.checker.Check(ctx, patches.Over(had, over), entries)
	return verdicts, files, had, err
}

// source is what makes a node's package a source tree.
func (o *overlaying) source(ctx context.Context, n *plan.Node, l record.Overlay) (overlay.Want, error) {
	tree, err := o.tree(ctx, l)
	if err != nil {
		return overlay.Want{}, err
	}
	reached, err := o.reach(n)
	if err != nil {
		return overlay.Want{}, err
	}
	base, err := o.base(ctx, reached, l.Component)
	if err != nil {
		return overlay.Want{}, err
	}
	release := o.record.Plan.Release
	want, d, err := tree.Want(base, release.Name)
	if err != nil {
		return want, err
	}
	if len(d.Missing) > 0 {
		if !o.request.Force {
			f := fault.New(fault.Invalid, "the tree needs what %s does not have", n.Name)
			f.File, f.Log = l.Source, d.Missing
			return want, f.WithRemedy("install it by a state of your own (salt.tree in the topology), or lay the tree without: --force")
		}
		o.note("%s needs what the nodes do not have: %s", l.Component, strings.Join(d.Missing, ", "))
	}
	if len(d.Migrations) > 0 && !o.request.Migrate {
		o.note("%s has %d migrations of its database that the package does not have: %s; run them: toastdev code apply --migrate", l.Component, len(d.Migrations), strings.Join(d.Migrations, ", "))
	}
	for _, point := range d.EntryPoints {
		o.note("%s: entry point %s", l.Component, point)
	}
	return want, nil
}

// base is a component as a node's package has it, asked for once.
func (o *overlaying) base(ctx context.Context, n node.Node, component string) (*overlay.Base, error) {
	key := [2]string{n.Name(), component}
	if base, ok := o.bases.Load(key); ok {
		return base.(*overlay.Base), nil
	}
	base, err := overlay.Installed(ctx, n, component, o.record.Plan.Release.Components[component].Code)
	if err == nil {
		o.bases.Store(key, base)
	}
	return base, err
}

// tree opens a source tree once.
func (o *overlaying) tree(ctx context.Context, l record.Overlay) (*overlay.Tree, error) {
	o.opening.Lock()
	defer o.opening.Unlock()
	key := [3]string{l.Component, l.Source, l.Ref}
	if tree := o.trees[key]; tree != nil {
		return tree, nil
	}
	tree, err := overlay.OpenTree(ctx, overlay.Source{Component: l.Component, Path: l.Source, Ref: l.Ref})
	if err == nil {
		o.trees[key] = tree
	} else if f, ok := errors.AsType[*fault.Error](err); ok && f.Remedy == "" && slices.ContainsFunc(o.record.Overlays, l.Same) {
		f.Remedy = "put it back, or take it off: toastdev code revert " + l.Component
	}
	return tree, err
}

// lay makes every node's code what is wanted. When one node fails, the others get back what they had. What the nodes may have is
// at any moment among what is recorded.
func (o *overlaying) lay(ctx context.Context, wants []wanted, list []record.Overlay) error {
	had := o.record.Overlays
	both := slices.Clone(list)
	for _, l := range had {
		if !slices.ContainsFunc(list, l.Same) {
			both = append(both, l)
		}
	}
	if len(wants) == 0 {
		return o.recorded(list)
	}
	o.record.Owing = union(o.record.Owing, componentsOf(both))
	if err := o.recorded(both); err != nil {
		return err
	}
	if err := o.put(ctx, wants); err != nil {
		return errors.Join(err, o.back(ctx, had))
	}
	return o.recorded(list)
}

func (o *overlaying) recorded(list []record.Overlay) error {
	o.record.Overlays = list
	o.done.Overlays = append([]record.Overlay{}, list...)
	return o.env.Save(o.record)
}

// put lays on all nodes at once, on each its components one after the other, and waits for all.
func (o *overlaying) put(ctx context.Context, wants []wanted) error {
	var group errgroup.Group
	for _, name := range o.nodesOf(wants) {
		group.Go(func() error {
			for _, w := range wants {
				if w.node.Name != name {
					continue
				}
				if err := o.putOne(ctx, w); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// putOne lays a component on a node.
func (o *overlaying) putOne(ctx context.Context, w wanted) error {
	name := w.node.Name
	reached, err := o.reach(w.node)
	if err != nil {
		return err
	}
	var options []overlay.Option
	if o.request.Force {
		options = append(options, overlay.Force)
	}
	var outcome overlay.Outcome
	switch {
	case len(w.want.Layers) == 0:
		outcome, err = overlay.Lift(ctx, reached, w.want.Component, options...)
	case len(w.some) > 0:
		outcome, err = overlay.Amend(ctx, reached, w.want, w.some, options...)
	default:
		outcome, err = overlay.Lay(ctx, reached, w.want, options...)
	}
	if err != nil {
		return fmt.Errorf("%s on %s: %w", w.want.Component, name, err)
	}
	if len(outcome.Kept) > 0 {
		o.note("%s: the package was upgraded meanwhile; as it has them stay: %s", name, strings.Join(outcome.Kept, ", "))
	}
	o.changed(w, outcome)
	if len(outcome.Changed) > 0 {
		progress.Emit(ctx, progress.Event{Phase: "lay", Node: name, Unit: w.want.Component, Message: fmt.Sprintf("files changed: %d", len(outcome.Changed)), Done: true})
	}
	return nil
}

func (o *overlaying) nodesOf(wants []wanted) []string {
	var names []string
	for _, n := range o.record.Plan.Nodes {
		if slices.ContainsFunc(wants, func(w wanted) bool { return w.node.Name == n.Name }) {
			names = append(names, n.Name)
		}
	}
	return names
}

// changed notes what changed on a node, and which units that concerns.
func (o *overlaying) changed(w wanted, outcome overlay.Outcome) {
	if len(outcome.Changed)+len(outcome.Pending) == 0 {
		return
	}
	units := o.record.Plan.Release.Restarts(w.want.Component, outcome.Pending, w.node.Roles)
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.done.Nodes, func(n OverlaidNode) bool { return n.Name == w.node.Name })
	if i < 0 {
		i = len(o.done.Nodes)
		o.done.Nodes = append(o.done.Nodes, OverlaidNode{Name: w.node.Name, Files: []string{}, Restarted: []string{}})
	}
	if len(outcome.Pending) > len(outcome.Changed) {
		o.owing[w.node.Name] = true
	}
	n := &o.done.Nodes[i]
	n.Files, n.Restarted = append(n.Files, outcome.Changed...), append(n.Restarted, units...)
	o.done.Changed += len(outcome.Changed)
}

// back lays again what was laid before, after it failed on some node.
func (o *overlaying) back(ctx context.Context, had []record.Overlay) error {
	if len(o.done.Nodes) == 0 {
		return o.recorded(had)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	wants, err := o.wants(ctx, had, componentsOf(o.record.Overlays))
	if err == nil {
		err = o.put(ctx, slices.DeleteFunc(wants, func(w wanted) bool {
			n, err := o.reach(w.node)
			if err == nil {
				_, err = node.Output(ctx, n, "true")
			}
			return err != nil
		}))
	}
	if err == nil {
		// What runs there has never had other code.
		o.done.Nodes = slices.DeleteFunc(o.done.Nodes, func(n OverlaidNode) bool { return o.owing[n.Name] })
		err = o.settled(ctx)
	}
	if err != nil {
		return fault.New(fault.Failed, "what was laid before could not be laid again everywhere: %w", err).WithRemedy("when all nodes run, say it again, or take all off: toastdev patch revert; toastdev code revert")
	}
	return o.recorded(had)
}

// restart restarts the units whose code changed, on all nodes at once. A unit that does not run stays as it is: it gets the code
// when it starts.
func (o *overlaying) restart(ctx context.Context) error {
	if o.request.Migrate {
		if err := o.migrate(ctx); err != nil {
			return err
		}
	}
	group, nodes := errgroup.WithContext(ctx)
	for i := range o.done.Nodes {
		group.Go(func() error { return o.restartOn(nodes, &o.done.Nodes[i]) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return o.settled(ctx)
}

// settled is settle for all that is owed.
func (o *overlaying) settled(ctx context.Context) error {
	if err := o.settle(ctx); err != nil || len(o.record.Owing) == 0 {
		return err
	}
	o.record.Owing = nil
	return o.env.Save(o.record)
}

// restartScript prints those of its arguments, units, that run, and restarts these.
const restartScript = `for unit; do systemctl is-active --quiet "$unit" && echo "$unit"; done; exec systemctl try-restart "$@"`

// restartOn restarts the units of a node that are to be restarted, and leaves in changed those that ran.
func (o *overlaying) restartOn(ctx context.Context, changed *OverlaidNode) error {
	if len(changed.Restarted) == 0 {
		return nil
	}
	planned, _ := o.record.Plan.Node(changed.Name)
	n, err := o.reach(planned)
	if err != nil {
		return err
	}
	slices.Sort(changed.Restarted)
	began := time.Now()
	out, err := node.Output(ctx, n, append([]string{"sh", "-c", restartScript, "restart"}, slices.Compact(changed.Restarted)...)...)
	if err != nil {
		return err
	}
	changed.Restarted, changed.Seconds = append([]string{}, strings.Fields(string(out))...), time.Since(began).Seconds()
	progress.Emit(ctx, progress.Event{Phase: "restart", Node: changed.Name, Message: strings.Join(changed.Restarted, " "), Done: true})
	return nil
}

// settle notes on the nodes that what runs there has the code that is laid.
func (o *overlaying) settle(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, changed := range o.done.Nodes {
		planned, _ := o.record.Plan.Node(changed.Name)
		n, err := o.reach(planned)
		if err != nil {
			return err
		}
		group.Go(func() error {
			laid, err := overlay.Read(ctx, n)
			for _, l := range laid {
				if err == nil && len(l.Pending) > 0 {
					err = overlay.Settle(ctx, n, l.Component)
				}
			}
			return err
		})
	}
	return group.Wait()
}

// healthy waits until the region is healthy, and what was restarted has reported itself.
func (o *overlaying) healthy(ctx context.Context) error {
	if !slices.ContainsFunc(o.done.Nodes, func(n OverlaidNode) bool { return len(n.Restarted) > 0 }) {
		return nil
	}
	auth, err := o.auth(o.record, "admin")
	if err != nil {
		return err
	}
	auth.Project = "admin"
	_, _, err = health.Wait(ctx, auth, o.record.Plan, o.reachable(o.record.Plan), time.Duration(o.record.Plan.Patience())*overlayHealth)
	if err == nil || ctx.Err() != nil {
		return err
	}
	for _, changed := range o.done.Nodes {
		n := o.reachable(o.record.Plan)(changed.Name)
		for _, unit := range changed.Restarted {
			if _, down := node.Output(ctx, n, "systemctl", "is-active", "--quiet", unit); down != nil {
				out, _ := node.Output(ctx, n, "journalctl", "--no-pager", "--quiet", "--output=cat", "--lines=12", "--unit="+unit) // an aid to an error that is told anyway
				f := fault.New(fault.Failed, "the unit does not run with the code that was laid")
				f.Node, f.Unit, f.Log = changed.Name, unit, node.LastLines(string(out), 12)
				return errors.Join(f.WithRemedy("take it off: toastdev patch revert, or toastdev code revert"), err)
			}
		}
	}
	return err
}

// migrate runs the commands that bring databases to what the code wants, on the first control node.
func (o *overlaying) migrate(ctx context.Context) error {
	control := o.record.Plan.WithRole(topologies.Control)[0]
	n, err := o.reach(&control)
	if err != nil {
		return err
	}
	for _, l := range o.record.Overlays {
		if l.Source == "" {
			continue
		}
		for _, command := range o.record.Plan.Release.Components[l.Component].Migrate {
			progress.Emit(ctx, progress.Event{Phase: "migrate", Node: n.Name(), Unit: l.Component, Message: command})
			out, err := node.Output(ctx, n, "runuser", "-u", l.Component, "--", "sh", "-c", command+" 2>&1")
			if err != nil {
				return fmt.Errorf("migrate the database of %s: %w", l.Component, err)
			}
			o.done.Migrated = append(o.done.Migrated, append([]string{l.Component + ": " + command}, node.LastLines(string(out), 20)...)...)
		}
	}
	return nil
}
