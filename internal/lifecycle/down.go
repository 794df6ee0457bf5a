package lifecycle

import (
	"context"
	"fmt"

	"github.com/toast-cloud/toastdev/internal/record"
)

// Down removes all that an environment has outside the home; with purge also its folder in it. What is not there any
// more, or never was, is no error.
func (t *Toastdev) Down(ctx context.Context, name string, purge bool) (*Done, error) {
	r, release, err := t.hold(ctx, name)
	if err != nil {
		return nil, err
	}
	defer release()
	done := &Done{Environment: r.Name}
	env := t.environment(r.Name)
	steps := []step{{"nodes", func(ctx context.Context) error {
		r.State = record.Removing
		if err := env.Save(r); err != nil {
			return err
		}
		e, err := t.engine(env, r.Plan)
		if err != nil {
			return err
		}
		done.Changed, err = e.Destroy(ctx, r.Plan, t.owner(r.Name))
		if err != nil {
			return err
		}
		r.State = record.Down
		return env.Save(r)
	}}}
	if purge {
		steps = append(steps, step{"purge", func(context.Context) error { return env.Remove() }})
	}
	if err := done.walk(ctx, steps); err != nil {
		return nil, fmt.Errorf("down %s: %w", r.Name, err)
	}
	return done, nil
}
