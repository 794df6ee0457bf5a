package lifecycle

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/salt"
	"github.com/toast-cloud/toastdev/salt/run"
)

// busPort is the message bus's: the nodes of later waves need nothing else of the control node to begin.
const busPort = "5672"

// busDeadline is how long the bus may take to open: on a cold, busy machine several times the 20 s it needs.
const busDeadline = 5 * time.Minute

// deploy runs Salt on the plan's nodes in waves: the first at once, the others when the message bus is open. It waits for
// all, and returns their results in the plan's order with the first error.
func (t *Toastdev) deploy(ctx context.Context, env *record.Environment, p *plan.Plan, only []string, job run.Job) ([]run.Result, error) {
	hand, err := t.hands(env, p)
	if err != nil {
		return nil, err
	}
	nodes := p.Nodes
	if len(only) > 0 {
		nodes = nil
		for _, name := range only {
			n, err := named(p, name)
			if err != nil {
				return nil, err
			}
			nodes = append(nodes, *n)
		}
	}
	results := make([]run.Result, len(nodes))
	group, ctx := errgroup.WithContext(ctx)
	open := sync.OnceValue(func() error { return t.waitForBus(ctx, p) })
	bus := func(context.Context) error { return open() }
	for i := range nodes {
		group.Go(func() error {
			n := &nodes[i]
			results[i].Node = n.Name
			reached, err := t.reach(n)
			if err != nil {
				return err
			}
			job := job
			job.Patience = p.Patience()
			if job.Handed, err = hand(n); err != nil {
				return err
			}
			if n.Wave > 0 && !job.Test {
				job.Before = bus
			}
			results[i], err = run.Apply(ctx, reached, job)
			return err
		})
	}
	return results, group.Wait()
}

// hands is what gives each of the plan's nodes what it is handed.
func (t *Toastdev) hands(env *record.Environment, p *plan.Plan) (func(*plan.Node) (*salt.Handed, error), error) {
	secrets, err := env.Secrets()
	if err != nil {
		return nil, err
	}
	tree, err := openTree(p.SaltTree, p.SaltBase)
	tree.Custom = customFiles(p.Project)
	if err != nil {
		return nil, err
	}
	return func(n *plan.Node) (*salt.Handed, error) { return salt.Hand(tree, p, n, secrets) }, nil
}

// stale is the running nodes that were not handed what the plan hands them, as changes with what differs from the old plan.
func (t *Toastdev) stale(ctx context.Context, env *record.Environment, old, p *plan.Plan) ([]plan.Change, error) {
	hand, err := t.hands(env, p)
	if err != nil {
		return nil, err
	}
	why, _ := plan.SaltChange(old, p)
	var changes []plan.Change
	for i := range p.Nodes {
		n := &p.Nodes[i]
		state, err := t.state(ctx, n)
		if err != nil {
			return nil, err
		}
		if state != provisioners.Running {
			continue
		}
		handed, err := hand(n)
		if err != nil {
			return nil, err
		}
		reached, err := t.reach(n)
		if err != nil {
			return nil, err
		}
		current, err := run.Current(ctx, reached, handed)
		if err != nil {
			return nil, err
		}
		if !current {
			changes = append(changes, plan.Change{Resource: plan.SaltResource + "/" + n.Name, Action: plan.Update, Fields: why.Fields})
		}
	}
	return changes, nil
}

// waitForBus waits until the message bus listens on the control node.
func (t *Toastdev) waitForBus(ctx context.Context, p *plan.Plan) error {
	controls := p.WithRole("control")
	control, err := t.reach(&controls[0])
	if err != nil {
		return err
	}
	deadline := time.Duration(p.Patience()) * busDeadline
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	_, err = node.Output(ctx, control, "sh", "-c", "until ss -Hltn sport = :"+busPort+" | grep -q .; do sleep 0.3; done")
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.New(fault.Timeout, "waited %s for the message bus on %s (port %s)", deadline, control.Name(), busPort).
			WithRemedy("see why it does not open: toastdev logs %s rabbitmq-server", control.Name())
	}
	return err
}

// openTree is our states, the user's own on them, or with the base none the user's alone.
func openTree(user, base string) (salt.Tree, error) {
	tree := salt.Tree{States: salt.States()}
	if user == "" {
		return tree, nil
	}
	root, err := os.OpenRoot(user)
	if err != nil {
		return tree, fault.New(fault.Invalid, "the Salt tree: %w", err).WithRemedy("correct salt.tree in the topology")
	}
	tree.User = root.FS()
	if base == "none" {
		tree.States = nil
	}
	return tree, nil
}

// Salt runs the highstate, or some states, on all of an environment's nodes or on some.
func (t *Toastdev) Salt(ctx context.Context, name string, nodes, states []string, test bool) ([]run.Result, error) {
	r, release, err := t.hold(ctx, name)
	if err != nil {
		return nil, err
	}
	defer release()
	return t.deploy(ctx, t.environment(r.Name), r.Plan, nodes, run.Job{States: states, Test: test})
}
