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

func TestATurnAloneWaitsForTheOthers(t *testing.T) {
	env := &Environment{Name: "mini", Home: &project.Home{Dir: t.TempDir()}}
	one, err := env.Turn(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	two, err := env.Turn(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*pause)
	defer cancel()
	if _, err := env.Turn(ctx, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a turn alone was had beside others: %v", err)
	}
	one()
	order := make(chan string, 2)
	take := func(name string, alone bool) {
		release, err := env.Turn(t.Context(), alone)
		if err != nil {
			t.Error(err)
			return
		}
		order <- name
		release()
	}
	go take("alone", true)
	time.Sleep(2 * pause)
	go take("late", false)
	time.Sleep(2 * pause)
	two()
	if first, second := <-order, <-order; first != "alone" || second != "late" {
		t.Errorf("%s had its turn before %s", first, second)
	}
}
