package record

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/project"
)

func TestScenariosShareAnEnvironmentThatNothingElseChanges(t *testing.T) {
	env := &Environment{Name: "mini", Home: &project.Home{Dir: t.TempDir()}}
	var alone []int
	first := func(i int) func() error {
		return func() error {
			alone = append(alone, i)
			return nil
		}
	}
	one, err := env.LockShared(t.Context(), first(1))
	if err != nil {
		t.Fatal(err)
	}
	two, err := env.LockShared(t.Context(), first(2))
	if err != nil {
		t.Fatal(err)
	}
	if len(alone) != 1 || alone[0] != 1 {
		t.Errorf("%v cleaned up: the first alone has the environment for itself", alone)
	}
	if _, err := env.Lock(t.Context()); fault.CodeOf(err) != fault.Busy {
		t.Errorf("an environment that scenarios run on was taken: %v", err)
	}
	one()
	two()
	release, err := env.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := env.LockShared(t.Context(), func() error { return errors.New("it cannot be cleaned") }); err == nil {
		t.Error("what could not be cleaned up is no hindrance")
	}
	if release, err = env.Lock(t.Context()); err != nil {
		t.Fatal("a lock is left behind: ", err)
	}
	release()
}

func TestATurnIsAloneFromWhereItDisturbs(t *testing.T) {
	env := &Environment{Name: "mini", Home: &project.Home{Dir: t.TempDir()}}
	one, err := env.Turn(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	two, err := env.Turn(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	three, err := env.Turn(t.Context(), true)
	if err != nil {
		t.Fatal("one that is going to disturb begins beside others: ", err)
	}
	impatient := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 3*pause)
		t.Cleanup(cancel)
		return ctx
	}
	if _, err := env.Turn(impatient(), true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two that are going to disturb have begun: %v", err)
	}
	if err := three.Alone(impatient()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a turn alone was had beside others: %v", err)
	}
	three.End()
	one.End()
	order := make(chan string, 3)
	disturb := func(name string) {
		turn, err := env.Turn(t.Context(), true)
		if err == nil {
			err = turn.Alone(t.Context())
		}
		if err != nil {
			t.Error(err)
		}
		order <- name
		time.Sleep(2 * pause)
		order <- name + " ended"
		turn.End()
	}
	go disturb("alone")
	time.Sleep(2 * pause)
	go func() {
		turn, err := env.Turn(t.Context(), false)
		if err != nil {
			t.Error(err)
		}
		order <- "late"
		turn.End()
	}()
	time.Sleep(2 * pause)
	two.End()
	if first, second, third := <-order, <-order, <-order; first != "alone" || second != "alone ended" || third != "late" {
		t.Errorf("%s, %s, %s", first, second, third)
	}
}

func TestASettledTurnIsBesideOthers(t *testing.T) {
	env := &Environment{Name: "mini", Home: &project.Home{Dir: t.TempDir()}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	one, err := env.Turn(ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Alone(ctx); err != nil {
		t.Fatal(err)
	}
	if err := one.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	two, err := env.Turn(ctx, true)
	if err != nil {
		t.Fatal("the next that is going to disturb does not begin: ", err)
	}
	impatient, cancel := context.WithTimeout(ctx, 3*pause)
	defer cancel()
	if err := two.Alone(impatient); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it disturbs one that has not ended: %v", err)
	}
	one.End()
	two.End()
	three, err := env.Turn(ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := three.Alone(ctx); err != nil {
		t.Fatal("something is held still: ", err)
	}
	three.End()
}
