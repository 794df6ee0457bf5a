// Package engine makes a plan real: it runs Pulumi's deployment engine in this process, with a program that declares the
// plan's networks, volumes and nodes, and a provider of our own that calls the provisioners. There is no Pulumi CLI, no
// plugin and no network access; the state is one file in the layout that the stock CLI reads with
// `pulumi login file://DIR`.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/pulumi/pulumi/pkg/v3/display"
	pulumi "github.com/pulumi/pulumi/pkg/v3/engine"
	"github.com/pulumi/pulumi/pkg/v3/resource/deploy"
	"github.com/pulumi/pulumi/pkg/v3/resource/plugin"
	"github.com/pulumi/pulumi/pkg/v3/util/cancel"
	"github.com/pulumi/pulumi/sdk/v3/go/common/diag"
	"github.com/pulumi/pulumi/sdk/v3/go/common/diag/colors"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/config"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/common/workspace"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/provisioners"
)

// project is the name of the Pulumi project; an environment is a stack of it.
const project = "toastdev"

// parallel is how many things are made at once: a region has fewer.
const parallel = 32

// Engine makes and removes the networks, volumes and nodes of environments. The caller locks the environment.
type Engine struct {
	dir          string
	provisioners map[string]provisioners.Provisioner
	log          hclog.Logger
}

// Open is an Engine with its state in dir, which need not be there yet, and the provisioners by name.
func Open(dir string, byName map[string]provisioners.Provisioner, log hclog.Logger) *Engine {
	if log == nil {
		log = hclog.NewNullLogger()
	}
	return &Engine{dir: dir, provisioners: byName, log: log}
}

// Resource is something the state has.
type Resource struct {
	provisioners.Thing
	Provisioner string `json:"provisioner"`
}

// Up makes what the plan has and the state or the host lacks, and removes what the plan no longer has. It says how many
// resources were changed, also when it fails: what was made stays, and the next Up goes on from there.
func (e *Engine) Up(ctx context.Context, p *plan.Plan, owner provisioners.Owner) (changed int, err error) {
	changes, err := e.run(ctx, p, operation{
		run:     pulumi.Update,
		options: pulumi.UpdateOptions{Refresh: true},
		program: program(p, owner),
		total:   len(things(p)),
	})
	if err != nil {
		return len(changes), err
	}
	return len(changes), e.Prepare(ctx, p, owner)
}

// Prepare does what the provisioners have to do on the host after it was restarted. Up ends with it.
func (e *Engine) Prepare(ctx context.Context, p *plan.Plan, owner provisioners.Owner) error {
	for name, provisioner := range e.provisioners {
		preparer, ok := provisioner.(provisioners.Preparer)
		if !ok {
			continue
		}
		var networks []provisioners.Network
		for _, n := range p.Networks {
			if n.Provisioner == name {
				networks = append(networks, network(p, n, owner))
			}
		}
		for _, n := range p.Nodes {
			if n.Provisioner == name {
				if err := preparer.Prepare(ctx, networks, n.Image); err != nil {
					return fmt.Errorf("prepare the networks of %s: %w", p.Environment, err)
				}
				break
			}
		}
	}
	return nil
}

// Preview is what Up would do, in the plan's order. It looks at the host: a node that was removed by hand
// shows as one to create.
func (e *Engine) Preview(ctx context.Context, p *plan.Plan, owner provisioners.Owner) ([]plan.Change, error) {
	changes, err := e.run(ctx, p, operation{
		run:     pulumi.Update,
		options: pulumi.UpdateOptions{Refresh: true},
		program: program(p, owner),
		dryRun:  true,
	})
	order := map[string]int{} // what the plan no longer has comes first
	for i, t := range things(p) {
		order[t.String()] = i + 1
	}
	slices.SortFunc(changes, func(a, b plan.Change) int {
		return cmp.Or(cmp.Compare(order[a.Resource], order[b.Resource]), cmp.Compare(a.Resource, b.Resource))
	})
	return changes, err
}

// Destroy removes all that the state has and all that carries the owner's labels. It says how many things it removed.
// The plan is the recorded one; of it only the environment's name counts.
func (e *Engine) Destroy(ctx context.Context, p *plan.Plan, owner provisioners.Owner) (removed int, err error) {
	resources, err := e.Resources(p.Environment)
	if err != nil {
		return 0, err
	}
	changes, err := e.run(ctx, p, operation{run: pulumi.Destroy, total: len(resources)})
	if err != nil {
		return len(changes), err
	}
	rest, err := e.sweep(ctx, owner)
	return len(changes) + rest, err
}

// sweep removes what carries the owner's labels and no state knows of. Nodes go first, whoever made them: they hold networks
// and volumes, and one provisioner's nodes may be on another's networks.
func (e *Engine) sweep(ctx context.Context, owner provisioners.Owner) (removed int, err error) {
	type found struct {
		provisioners.Thing
		by   provisioners.Provisioner
		name string
	}
	var all []found
	for name, p := range e.provisioners {
		things, err := p.Owned(ctx, owner)
		if err != nil {
			return 0, fmt.Errorf("sweep %s: %w", name, err)
		}
		for _, t := range things {
			all = append(all, found{t, p, name})
		}
	}
	for _, kind := range []provisioners.Kind{provisioners.KindNode, provisioners.KindNetwork, provisioners.KindVolume} {
		group, ctx := errgroup.WithContext(ctx)
		for _, f := range all {
			if f.Kind == kind {
				removed++
				group.Go(func() error {
					if err := provisioners.Delete(ctx, f.by, owner, f.Thing); err != nil {
						return fmt.Errorf("sweep %s: %w", f.name, err)
					}
					return nil
				})
			}
		}
		if err := group.Wait(); err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// Resources is what an environment's state has, in the order in which it was made.
func (e *Engine) Resources(environment string) ([]Resource, error) {
	s, err := e.state(environment)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.read()
	if err != nil {
		return nil, err
	}
	var resources []Resource
	for _, r := range snapshot.Resources {
		if kind, ok := kindOf(r.Type); ok && !r.PendingReplacement {
			provisioner, _ := r.Inputs[provisionerKey].V.(string)
			resources = append(resources, Resource{Thing: provisioners.Thing{Kind: kind, Name: r.URN.Name()}, Provisioner: provisioner})
		}
	}
	return resources, nil
}

// operation is one run of Pulumi's engine.
type operation struct {
	run     func(pulumi.UpdateInfo, *pulumi.Context, pulumi.UpdateOptions, bool) (*deploy.Plan, display.ResourceChanges, error)
	options pulumi.UpdateOptions
	program *declaration // nil: nothing is declared
	dryRun  bool
	total   int // how many resources it is about, for the progress
}

// run runs op and returns what it changed, or would have.
func (e *Engine) run(ctx context.Context, p *plan.Plan, op operation) ([]plan.Change, error) {
	state, err := e.state(p.Environment)
	if err != nil {
		return nil, err
	}
	snapshot, err := state.read()
	if err != nil {
		return nil, err
	}
	settle(snapshot, op.program.declares)

	provider := &provider{ctx: ctx, provisioners: e.provisioners}
	op.options.HostFactory = func(context.Context, diag.Sink, diag.Sink, plugin.DebugContext) (plugin.Host, error) {
		return &host{provider: provider, runtime: &runtime{ctx: ctx, program: op.program}}, nil
	}
	op.options.Parallel = parallel
	op.options.ContinueOnError = true
	op.options.SkipPluginPreInstall = true

	var snapshots *snapshots
	pctx := &pulumi.Context{}
	if !op.dryRun {
		snapshots = track(snapshot, state.write)
		pctx.SnapshotManager = snapshots
	}
	canceler, source := cancel.NewContext(context.Background())
	pctx.Cancel = canceler
	defer source.Terminate()
	defer context.AfterFunc(ctx, source.Cancel)()

	events := make(chan pulumi.Event)
	pctx.Events = events
	watcher := &watcher{ctx: ctx, log: e.log, total: op.total, quiet: op.dryRun}
	var drained sync.WaitGroup
	drained.Go(func() { watcher.drain(events) })

	info := pulumi.UpdateInfo{
		Root:    e.dir,
		Project: &workspace.Project{Name: project, Runtime: workspace.NewProjectRuntimeInfo(project, nil)},
		Target:  &deploy.Target{Name: state.stack, Decrypter: config.NewPanicCrypter(), Snapshot: snapshot},
	}
	_, _, err = op.run(info, pctx, op.options, op.dryRun)
	drained.Wait()
	if snapshots != nil {
		if closed := snapshots.Close(); err == nil && closed != nil {
			return watcher.changes, closed
		}
	}
	return watcher.changes, e.cause(ctx, provider, watcher, err)
}

// cause is why a run failed: what the provisioners said, each error as it was; Pulumi wraps them in words of its own.
func (e *Engine) cause(ctx context.Context, p *provider, w *watcher, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if failures := p.failures(); len(failures) > 0 {
		return errors.Join(failures...)
	}
	if len(w.errors) > 0 {
		return fmt.Errorf("%w: %s", err, strings.Join(w.errors, "; "))
	}
	return err
}

// watcher follows a run by its events.
type watcher struct {
	ctx     context.Context
	log     hclog.Logger
	total   int
	quiet   bool
	done    int
	changes []plan.Change
	errors  []string
}

// drain takes events until the run ends: the engine blocks on a channel nobody reads.
func (w *watcher) drain(events <-chan pulumi.Event) {
	for event := range events {
		switch payload := event.Payload().(type) {
		case pulumi.ResourcePreEventPayload:
			if kind, ok := kindOf(payload.Metadata.Type); ok {
				w.begins(kind, payload.Metadata)
			}
		case pulumi.ResourceOutputsEventPayload:
			if kind, ok := kindOf(payload.Metadata.Type); ok {
				w.ends(kind, payload.Metadata)
			}
		case pulumi.DiagEventPayload:
			message := strings.TrimSpace(colors.Never.Colorize(payload.Message))
			w.log.Debug("pulumi", "severity", payload.Severity, "message", message)
			if payload.Severity == diag.Error {
				w.errors = append(w.errors, message)
			}
		}
		if event.Type == pulumi.CancelEvent {
			return
		}
	}
}

var doing = map[display.StepOp]string{
	deploy.OpCreate: "creating", deploy.OpCreateReplacement: "creating anew", deploy.OpUpdate: "changing",
	deploy.OpDelete: "removing", deploy.OpDeleteReplaced: "removing, to create it anew",
}

var actions = map[display.StepOp]plan.Action{
	deploy.OpCreate: plan.Create, deploy.OpCreateReplacement: plan.Replace, deploy.OpUpdate: plan.Update, deploy.OpDelete: plan.Delete,
}

func (w *watcher) begins(kind provisioners.Kind, step pulumi.StepEventMetadata) {
	if word := doing[step.Op]; word != "" {
		w.emit(kind, step, word, false)
	}
}

func (w *watcher) ends(kind provisioners.Kind, step pulumi.StepEventMetadata) {
	if step.Op == deploy.OpSame {
		w.done++
	}
	action, ok := actions[step.Op]
	if !ok {
		return
	}
	w.done++
	change := plan.Change{Resource: provisioners.Thing{Kind: kind, Name: step.URN.Name()}.String(), Action: action}
	if (action == plan.Update || action == plan.Replace) && step.Old != nil && step.New != nil {
		change.Fields = fields(step.Old.State, step.New.State.Inputs)
	}
	w.changes = append(w.changes, change)
	w.emit(kind, step, "done", kind == provisioners.KindNode)
}

func (w *watcher) emit(kind provisioners.Kind, step pulumi.StepEventMetadata, message string, done bool) {
	if w.quiet {
		return
	}
	event := progress.Event{Phase: "nodes", Unit: string(kind) + " " + step.URN.Name(), I: w.done, N: w.total, Message: message, Done: done}
	if kind == provisioners.KindNode {
		event.Node = hostname(step)
	}
	progress.Emit(w.ctx, event)
}

func hostname(step pulumi.StepEventMetadata) string {
	for _, state := range []*pulumi.StepEventStateMetadata{step.New, step.Old} {
		if state != nil {
			if name, ok := state.State.Inputs["hostname"]; ok && name.IsString() {
				return name.StringValue()
			}
		}
	}
	return step.URN.Name()
}

// settle clears the operations that a killed run left pending. What it was creating and is still wanted is created again:
// Create adopts it, whole or half-made. What is no longer wanted is taken for made, so that it is deleted. What it was
// changing or deleting is still in the state as it was before.
func settle(snapshot *deploy.Snapshot, wanted func(resource.URN) bool) {
	known := map[resource.URN]bool{}
	for _, r := range snapshot.Resources {
		known[r.URN] = true
	}
	for _, op := range snapshot.PendingOperations {
		r := op.Resource
		if _, ours := kindOf(r.Type); !ours || op.Type != resource.OperationTypeCreating || known[r.URN] || wanted(r.URN) {
			continue
		}
		r.ID, r.Outputs = resource.ID(r.URN.Name()), outputs(r.Inputs, incomplete)
		snapshot.Resources = append(snapshot.Resources, r)
		known[r.URN] = true
	}
	snapshot.PendingOperations = nil
}

// state is where an environment's state is kept.
func (e *Engine) state(environment string) (*stateFile, error) {
	name, err := tokens.ParseStackName(environment)
	if err != nil {
		return nil, fmt.Errorf("environment %q: %w", environment, err)
	}
	return &stateFile{dir: e.dir, stack: name}, nil
}
