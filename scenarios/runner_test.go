package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
)

// bench is a runner on an environment that is not there, and what it did.
type bench struct {
	*Runner
	mu   sync.Mutex
	done []string
}

func (b *bench) did(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = append(b.done, fmt.Sprintf(format, args...))
}

func newBench(t *testing.T) *bench {
	b := &bench{}
	words := fakes()
	words["fault"] = Command{Args: "NAME", Min: 1, Max: 1, Flags: plain(func(_ context.Context, r *Run, args []string) (Outcome, error) {
		r.Undo("heal "+args[0], func(ctx context.Context) error {
			b.did("healed %s, %v", args[0], ctx.Err())
			return nil
		})
		return Outcome{}, nil
	})}
	words["stubborn"] = Command{Flags: plain(func(_ context.Context, r *Run, _ []string) (Outcome, error) {
		r.Undo("heal what does not heal", func(context.Context) error { return errors.New("it is stuck") })
		return Outcome{}, nil
	})}
	words["expect"] = Command{Args: "WANT", Min: 1, Max: 1, Flags: plain(func(_ context.Context, _ *Run, args []string) (Outcome, error) {
		return Outcome{Text: "what was printed"}, &Mismatch{Expected: args[0], Seen: "nothing of it"}
	})}
	words["refused"] = Command{Flags: plain(func(context.Context, *Run, []string) (Outcome, error) { return Outcome{}, errors.New("refused") })}
	words["unknown"] = Command{Flags: plain(func(context.Context, *Run, []string) (Outcome, error) {
		return Outcome{}, fault.New(fault.NotFound, "no server %q", "wm").WithRemedy("write %q", "vm")
	})}
	words["unfit"] = Command{Flags: plain(func(context.Context, *Run, []string) (Outcome, error) {
		return Outcome{}, Skipped("the kernel has no netem")
	})}
	words["hang"] = Command{Async: true, Flags: plain(func(ctx context.Context, _ *Run, _ []string) (Outcome, error) {
		b.did("hangs")
		<-ctx.Done()
		return Outcome{}, fmt.Errorf("waited for vm to be ACTIVE: it is BUILD")
	})}
	words["panic"] = Command{Flags: plain(func(context.Context, *Run, []string) (Outcome, error) { panic("no such thing") })}
	tries := 0
	words["sometimes"] = Command{Flags: plain(func(context.Context, *Run, []string) (Outcome, error) {
		if tries++; tries == 2 {
			return Outcome{}, &Mismatch{Expected: "an answer", Seen: "none"}
		}
		return Outcome{}, nil
	})}
	words["list"] = Command{Flags: func(flags *pflag.FlagSet) Action {
		return func(context.Context, *Run, []string) (Outcome, error) {
			return Outcome{Status: 200, JSON: map[string]any{"servers": []map[string]any{{"id": "id-vm", "host": "cmp1"}}}}, nil
		}
	}}
	w := &World{Scale: 1, Plan: &plan.Plan{Routing: "dvr", TenantNetwork: "vxlan", VirtType: "qemu", Topology: "mini", Region: "kr1",
		Nodes: []plan.Node{{Name: "ctl", Roles: []string{"control"}}, {Name: "cmp1", Roles: []string{"compute"}}, {Name: "cmp2", Roles: []string{"compute"}}}}}
	b.Runner = &Runner{World: w, Dir: t.TempDir(), language: newLanguage(words),
		begin: func(r *Run, _ context.Context) error { b.did("began"); return nil },
		sweep: func(r *Run, ctx context.Context) error { b.did("swept, %v", ctx.Err()); return nil },
		bundle: func(r *Run, _ context.Context, _ *Script, log string) error {
			b.did("bundled")
			return os.WriteFile(filepath.Join(r.Dir, "scenario.log"), []byte(log), 0o600)
		}}
	return b
}

// run runs one script, which has nothing wrong with it.
func (b *bench) run(t *testing.T, ctx context.Context, text string) Result {
	t.Helper()
	s := scriptOf(t, text)
	for _, err := range b.language.check(s) {
		t.Fatal(err)
	}
	results, err := b.Run(ctx, []*Script{s})
	if err != ctx.Err() {
		t.Fatal(err)
	}
	if len(results) != 1 {
		t.Fatalf("%d results", len(results))
	}
	return results[0]
}

func TestAScenarioThatPasses(t *testing.T) {
	b := newBench(t)
	r := b.run(t, t.Context(), `# try: all is well
[!dvr] skip 'no DVR'
make vm --on $compute2
stdout 'made vm'
echo $vm on $compute2 at $vm_ip in $region
stdout 'id-vm on cmp2 at 10.0.0.1 in kr1'
list
json '.servers[0].id == env.vm'
json '.servers[0].host' --save host
echo $host
save place
stdout cmp1
list
status 200 204
! refused
fault net
mark broken
elapsed start broken < 60s
make b &
make c &
join
stdout 'made b'
cat words
cmp stdout words
stop 'that is enough'
expect never
-- words --
three words here
`)
	if r.Verdict != Pass || r.Reason != "" || r.Bundle != "" {
		t.Errorf("%+v\n%s", r, r.Log)
	}
	if len(r.Marks) != 1 || len(r.Elapsed) != 1 || r.Elapsed[0].Limit != 60 || r.Summary != "all is well" || r.Routing != "dvr" {
		t.Errorf("%+v", r)
	}
	if got := strings.Join(b.done, "; "); got != "began; healed net, <nil>; swept, <nil>" {
		t.Error(got)
	}
}

func TestAFailureSaysWhatWasExpectedAndSeenAndWhere(t *testing.T) {
	for name, c := range map[string]struct {
		script, reason, command, expected, seen string
	}{
		"expectation":        {"expect 'loss 0%'", "expected loss 0%, seen nothing of it", "expect 'loss 0%'", "loss 0%", "nothing of it"},
		"success":            {"! list", "it succeeded, and was to fail", "! list", "this line to fail", "it succeeded: nothing"},
		"error":              {"refused", "refused", "refused", "this line to succeed", "refused"},
		"not tried":          {"! unknown", `no server "wm"; remedy: write "vm"`, "! unknown", "this line to succeed", "no server \"wm\"\n  remedy: write \"vm\""},
		"background":         {"make a &\nexpect it &\njoin", "", "", "", ""},
		"search":             {"make vm\nstdout gone", "expected a line that matches gone, seen made vm", "stdout gone", "a line that matches gone", "made vm"},
		"jq":                 {"list\njson '.servers | length == 2'", "expected .servers | length == 2, seen {\"servers\":[{\"host\":\"cmp1\",\"id\":\"id-vm\"}]}", "json '.servers | length == 2'", ".servers | length == 2", ""},
		"status":             {"list\nstatus 403", "expected status 403, seen status 200: nothing", "status 403", "status 403", ""},
		"panic":              {"panic", "panic broke: no such thing", "panic", "", ""},
		"deadline":           {"within 10ms hang", "the line's deadline of 10ms passed: waited for vm to be ACTIVE: it is BUILD", "within 10ms hang", "", ""},
		"scenario's":         {"deadline 20ms\nhang", "the scenario's deadline of 20ms passed: waited for vm to be ACTIVE: it is BUILD", "hang", "", ""},
		"variables are read": {"make vm\nexpect $vm_ip", "", "expect 10.0.0.1", "10.0.0.1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if name == "background" {
				b.language.words["expect"] = func(c Command) Command { c.Async = true; return c }(b.language.words["expect"])
				c.reason, c.command, c.expected, c.seen = "expected it, seen nothing of it", "expect it", "it", "nothing of it"
			}
			r := b.run(t, t.Context(), "# try: it fails\n\nfault net\n"+c.script+"\n")
			line := 3 + strings.Count(c.script, "\n") + 1
			if name == "background" {
				line = 5
			}
			if r.Verdict != Fail || r.Line != line || r.Command != c.command || c.reason != "" && r.Reason != c.reason ||
				c.expected != "" && r.Expected != c.expected || c.seen != "" && r.Seen != c.seen {
				t.Errorf("%s line %d: %s\nreason   %s\nexpected %s\nseen     %s\n%s", r.Verdict, r.Line, r.Command, r.Reason, r.Expected, r.Seen, r.Log)
			}
			if got := strings.Join(b.done[len(b.done)-3:], "; "); got != "bundled; healed net, <nil>; swept, <nil>" {
				t.Error(got)
			}
			if r.Bundle != filepath.Join(b.Dir, "try") || !strings.Contains(r.Log, r.Reason) || len(r.Source) < 3 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestMustFailAcceptsADeadlineThatTheScriptSet(t *testing.T) {
	if r := newBench(t).run(t, t.Context(), "! within 10ms hang\n"); r.Verdict != Pass {
		t.Error(r.Reason)
	}
}

func TestWhatDoesNotFitIsSkippedWithItsReason(t *testing.T) {
	for script, reason := range map[string]string{
		"# try: it\n\n[!legacy] skip 'routers are distributed'\nexpect never\n": "routers are distributed",
		"[dvr] [vxlan] skip\nexpect never\n":                                    "needs not dvr or not vxlan",
		"expect $compute3\n":                                                    "needs 3 nodes of role compute, the region has 2",
		"fault net\nunfit\n":                                                    "the kernel has no netem",
		"[nodes:compute>=2] skip 'too many'\n":                                  "too many",
	} {
		b := newBench(t)
		r := b.run(t, t.Context(), script)
		if r.Verdict != Skip || r.Reason != reason || r.Line != 0 || slices.Contains(b.done, "bundled") {
			t.Errorf("%+v, want %s", r, reason)
		}
	}
}

func TestCleaningUpThatFailsIsAFailure(t *testing.T) {
	b := newBench(t)
	r := b.run(t, t.Context(), "fault first\nstubborn\n")
	if r.Verdict != Fail || r.Reason != "cleaning up: heal what does not heal: it is stuck" || !slices.Contains(b.done, "healed first, <nil>") || !slices.Contains(b.done, "swept, <nil>") {
		t.Errorf("%+v %v", r, b.done)
	}
}

func TestCtrlCCleansUp(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for {
			b.mu.Lock()
			hangs := slices.Contains(b.done, "hangs")
			b.mu.Unlock()
			if hangs {
				cancel()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	one := scriptOf(t, "# one: hangs\nfault a\nfault b\nhang\nexpect never\n")
	two := scriptOf(t, "# two: never begins\nfault c\n")
	results, err := b.Run(ctx, []*Script{one, two})
	if !errors.Is(err, context.Canceled) || len(results) != 1 || results[0].Verdict != Fail || results[0].Reason != "interrupted" {
		t.Errorf("%+v %v", results, err)
	}
	if got := strings.Join(b.done, "; "); got != "began; hangs; healed b, <nil>; healed a, <nil>; swept, <nil>" {
		t.Error(got)
	}
}

func TestRepeatTellsFlakiness(t *testing.T) {
	b := newBench(t)
	b.Repeat = 3
	r := b.run(t, t.Context(), "sometimes\n")
	if n, of := r.Passed(); r.Verdict != Fail || n != 2 || of != 3 || r.Reason != "flaky, failed 1 of 3 times: expected an answer, seen none" || r.Seen != "none" {
		t.Errorf("%+v", r)
	}
}

func TestKeepOnFailureHealsAndKeeps(t *testing.T) {
	b := newBench(t)
	b.KeepOnFailure = true
	var told []string
	ctx := progress.With(t.Context(), progress.Func(func(e progress.Event) { told = append(told, e.Message) }))
	b.run(t, ctx, "fault net\nexpect it\n")
	if slices.Contains(b.done, "swept, <nil>") || !slices.Contains(b.done, "healed net, <nil>") || !strings.Contains(strings.Join(told, "\n"), "is kept") {
		t.Error(b.done, told)
	}
	b = newBench(t)
	b.KeepOnFailure = true
	b.run(t, t.Context(), "fault net\n")
	if !slices.Contains(b.done, "swept, <nil>") {
		t.Error("a scenario that passed is kept too")
	}
}

// turn is one of several in a process.
type turn struct {
	region *sync.RWMutex
	end    func()
}

func (u *turn) Alone(context.Context) error {
	u.region.RUnlock()
	u.region.Lock()
	u.end = u.region.Unlock
	return nil
}

func (u *turn) Settled(context.Context) error {
	u.end()
	u.region.RLock()
	u.end = u.region.RUnlock
	return nil
}

func (u *turn) End() { u.end() }

func TestOneThatDisturbsIsAloneFromThatLineOn(t *testing.T) {
	b := newBench(t)
	b.Parallel = 2
	var region sync.RWMutex
	b.World.Turn = func(context.Context, bool) (Turn, error) {
		region.RLock()
		return &turn{&region, region.RUnlock}, nil
	}
	b.World.Healthy = func(context.Context) error {
		b.did("region looked at")
		return errors.New("cmp1 is down")
	}
	began, makes := make(chan struct{}), make(chan struct{})
	b.begin = func(r *Run, _ context.Context) error {
		if r.Name == "b" {
			close(began)
		}
		return nil
	}
	does := func(what string, do func()) Command {
		return Command{Alone: what == "disturbed", Flags: plain(func(context.Context, *Run, []string) (Outcome, error) {
			do()
			b.did("%s", what)
			return Outcome{}, nil
		})}
	}
	b.language.words["makes"] = does("made", func() {
		<-began
		close(makes)
	})
	b.language.words["disturbs"] = does("disturbed", func() {})
	b.language.words["goes-on"] = does("went on", func() {
		<-makes
		time.Sleep(300 * time.Millisecond)
	})
	var scripts []*Script
	for _, text := range []string{"# a: alone in the end\nmakes\ndeadline 200ms\ndisturbs\n", "# b: beside it\ngoes-on\n", "# c: fails before\nrefused\ndisturbs\n"} {
		s := scriptOf(t, text)
		b.language.check(s)
		scripts = append(scripts, s)
	}
	results, err := b.Run(t.Context(), scripts)
	if err != nil || len(results) != 3 || results[0].Name != "a" || results[0].Reason != "the region has not recovered: cmp1 is down" || results[1].Verdict != Pass || results[2].Reason != "refused" {
		t.Errorf("%+v %v", results, err)
	}
	if results[0].Seconds > 0.25 {
		t.Errorf("it took %.2f s: the wait is counted", results[0].Seconds)
	}
	if got := strings.Join(b.done, "; "); got != "made; went on; swept, <nil>; disturbed; region looked at; swept, <nil>; bundled; swept, <nil>" {
		t.Error(got)
	}
}

func TestTheNextBeginsWhileOneIsCleanedUp(t *testing.T) {
	for _, line := range []string{"make vm --on cmp1", "disturbs"} {
		b := newBench(t)
		b.language.words["disturbs"] = Command{Alone: true, Flags: plain(func(context.Context, *Run, []string) (Outcome, error) {
			b.did("disturbed")
			return Outcome{}, nil
		})}
		b.World.Healthy = func(context.Context) error {
			b.did("region looked at")
			return nil
		}
		next := make(chan struct{})
		began := 0
		b.begin = func(*Run, context.Context) error {
			b.did("began")
			if began++; began == 2 {
				close(next)
			}
			return nil
		}
		b.sweep = func(*Run, context.Context) error {
			select {
			case <-next:
				return nil
			case <-time.After(10 * time.Second):
				return errors.New("the next waits")
			}
		}
		var scripts []*Script
		for _, name := range []string{"one", "two"} {
			s := scriptOf(t, "# "+name+": x\n"+line+"\n")
			b.language.check(s)
			scripts = append(scripts, s)
		}
		results, err := b.Run(t.Context(), scripts)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Verdict != Pass {
				t.Errorf("%s: %s: %s", line, r.Name, r.Reason)
			}
		}
		if got := strings.Join(b.done, "; "); line == "disturbs" && got != "began; disturbed; region looked at; began; disturbed; region looked at" {
			t.Error(got)
		}
	}
}
