package lifecycle

import (
	"context"

	"github.com/toast-cloud/toastdev/internal/host"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/record"
)

// Planned is what an environment would be, and what up would change.
type Planned struct {
	*plan.Plan
	Changes  []plan.Change    `json:"changes"`
	Overlays []record.Overlay `json:"overlays"`
}

// Plan says what Up would do, and does nothing.
func (t *Toastdev) Plan(ctx context.Context, request Request) (*Planned, error) {
	facts := host.Look(ctx, t.home.Dir)
	t.facts = &facts
	topology, name, err := t.wanted(request)
	if err != nil {
		return nil, err
	}
	env := t.environment(name)
	old, err := env.Load()
	if err != nil {
		return nil, err
	}
	p, overlays, err := t.plan(topology, name, old)
	if err != nil {
		return nil, err
	}
	e, err := t.engine(env, p)
	if err != nil {
		return nil, err
	}
	changes, err := e.Preview(ctx, p, t.owner(name))
	if err != nil {
		return nil, err
	}
	if old != nil {
		stale, err := t.stale(ctx, env, old.Plan, p)
		if err != nil {
			return nil, err
		}
		changes = append(changes, stale...)
		if stale, err = t.staleOverlays(ctx, old, p, overlays); err != nil {
			return nil, err
		}
		changes = append(changes, stale...)
	}
	return &Planned{Plan: p, Changes: changes, Overlays: append([]record.Overlay{}, overlays...)}, nil
}
