package lifecycle

import (
	"context"
	"fmt"

	"github.com/toast-cloud/toastdev/internal/fence"
	"github.com/toast-cloud/toastdev/internal/progress"
)

// Fence serves what powers an environment's computes off, until ctx ends.
func (t *Toastdev) Fence(ctx context.Context, name string) error {
	r, err := t.find(name)
	if err != nil {
		return err
	}
	secrets, err := t.environment(r.Name).Secrets()
	if err != nil {
		return err
	}
	makers, err := t.makersOf(ctx, r.Plan)
	if err != nil {
		return err
	}
	tell := func(line string) { progress.Emit(ctx, progress.Event{Phase: "fence", Message: line}) }
	f := fence.New(r.Plan, makers, secrets[fence.Secret], tell)
	l, err := f.Listen()
	if err != nil {
		return err
	}
	tell(fmt.Sprintf("computes of %s can be powered off at http://%s until Ctrl-C", r.Name, l.Addr()))
	return f.Serve(ctx, l)
}
