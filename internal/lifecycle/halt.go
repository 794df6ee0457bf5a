package lifecycle

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/topologies"
)

// Halt stops an environment's nodes and leaves all that there is of it: Up starts them again. Nodes end in an order in which
// none misses one that it needs for its own shutdown: computes, network nodes, the NAS, control nodes.
func (t *Toastdev) Halt(ctx context.Context, name string) (*Done, error) {
	r, release, err := t.hold(ctx, name)
	if err != nil {
		return nil, err
	}
	defer release()
	env := t.environment(r.Name)
	makers, err := t.makersOf(ctx, r.Plan)
	if err != nil {
		return nil, err
	}
	done := &Done{Environment: r.Name}
	err = done.walk(ctx, []step{{"nodes", func(ctx context.Context) error {
		for _, together := range shutdown(r.Plan) {
			stopped := make([]bool, len(together))
			group, ctx := errgroup.WithContext(ctx)
			for i, n := range together {
				group.Go(func() (err error) {
					stopped[i], err = halt(ctx, makers(n), n)
					return err
				})
			}
			if err := group.Wait(); err != nil {
				return err
			}
			for _, yes := range stopped {
				if yes {
					done.Changed++
				}
			}
		}
		if r.State == record.Up {
			r.State = record.Halted
		}
		return env.Save(r)
	}}})
	if err != nil {
		return nil, fmt.Errorf("halt %s: %w", r.Name, err)
	}
	return done, nil
}

// halt stops a node, and says whether there was something to stop. One that is paused could not shut itself down.
func halt(ctx context.Context, maker provisioners.Provisioner, n *plan.Node) (bool, error) {
	state, err := maker.State(ctx, n.Resource)
	if err != nil || state == provisioners.Stopped || state == provisioners.Absent {
		return false, err
	}
	progress.Emit(ctx, progress.Event{Phase: "nodes", Node: n.Name, Message: "stopping"})
	if state == provisioners.Paused {
		if err := maker.Start(ctx, n.Resource); err != nil {
			return false, err
		}
	}
	if err := maker.Stop(ctx, n.Resource); err != nil {
		return false, err
	}
	progress.Emit(ctx, progress.Event{Phase: "nodes", Node: n.Name, Message: "stopped", Done: true})
	return true, nil
}

// shutdown is the plan's nodes in the order in which they end, those that may end at once together.
func shutdown(p *plan.Plan) [][]*plan.Node {
	order := []string{topologies.Compute, topologies.Network, topologies.Storage, topologies.Control}
	waves := make([][]*plan.Node, len(order))
	for i := range p.Nodes {
		n := &p.Nodes[i]
		last := 0
		for at, role := range order {
			if n.Has(role) {
				last = at
			}
		}
		waves[last] = append(waves[last], n)
	}
	return slices.DeleteFunc(waves, func(w []*plan.Node) bool { return len(w) == 0 })
}
