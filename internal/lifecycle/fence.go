package lifecycle

import (
	"context"
	"fmt"

	"github.com/toast-cloud/toastdev/internal/fence"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/provisioners"
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
	p, err := t.provisioner()
	if err != nil {
		return err
	}
	if err := p.Check(ctx); err != nil {
		return err
	}
	tell := func(line string) { progress.Emit(ctx, progress.Event{Phase: "fence", Message: line}) }
	f := fence.New(r.Plan, func(*plan.Node) provisioners.Provisioner { return p }, secrets[fence.Secret], tell)
	l, err := f.Listen()
	if err != nil {
		return err
	}
	tell(fmt.Sprintf("computes of %s can be powered off at http://%s until Ctrl-C", r.Name, l.Addr()))
	return f.Serve(ctx, l)
}
