package scenarios

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"rsc.io/script"

	"github.com/toast-cloud/toastdev/internal/progress"
)

const (
	undoLimit  = time.Minute     // for each thing that is undone
	sweepLimit = 3 * time.Minute // for a scenario's project and all in it
	phase      = "scenario"      // of progress
)

// leftovers remove, at the beginning of a run that has the environment alone, what an earlier one left that was killed:
// what Run.Undo would have undone. They cost next to nothing where there is nothing.
var leftovers = []func(context.Context, *World) error{
	SweepStale,
	stopCaptures,
	undoFaults,
	stopEvacuator,
}

// Recover removes what killed runs left behind. Nobody else may run scenarios on the environment meanwhile.
func Recover(ctx context.Context, w *World) error {
	var wrong []error
	for _, remove := range leftovers {
		wrong = append(wrong, remove(ctx, w))
	}
	return errors.Join(wrong...)
}

// Runner runs scripts on an environment.
type Runner struct {
	World         *World
	Dir           string // where evidence is kept, a folder a scenario
	Parallel      int    // how many run side by side
	Repeat        int    // how often each runs
	KeepOnFailure bool   // leave a failed scenario's project as it is

	language *language
	begin    func(*Run, context.Context) error
	sweep    func(*Run, context.Context) error
	bundle   func(*Run, context.Context, *Script, string) error
}

// NewRunner is a runner that runs each script once, one after the other.
func NewRunner(w *World, dir string) *Runner {
	return &Runner{World: w, Dir: dir, Parallel: 1, Repeat: 1, language: standard(), begin: (*Run).begin, sweep: (*Run).sweep, bundle: (*Run).bundle}
}

// Run runs scripts and is what came of each, in their order: those that disturb the region begin after all others, one by one.
// When ctx ends, what has begun is cleaned up, what has not is left out, and the error is ctx's.
func (x *Runner) Run(ctx context.Context, scripts []*Script) ([]Result, error) {
	defer x.World.questions.end()
	results := make([]*Result, len(scripts))
	places := make(chan struct{}, max(1, x.Parallel))
	var group sync.WaitGroup
	// A place is free for the next when its script has been played: what it made is removed beside that.
	begin := func(i int) (played <-chan struct{}) {
		places <- struct{}{}
		done := make(chan struct{})
		group.Go(func() {
			leave := sync.OnceFunc(func() { <-places; close(done) })
			defer leave()
			if ctx.Err() == nil {
				results[i] = x.repeat(ctx, scripts[i], leave)
			}
		})
		return done
	}
	for i, s := range scripts {
		if !s.Alone {
			begin(i)
		}
	}
	// What one does before it disturbs anybody, it does beside the last of those, and beside what those like it remove.
	for i, s := range scripts {
		if s.Alone {
			<-begin(i)
		}
	}
	group.Wait()
	var done []Result
	for _, r := range results {
		if r != nil {
			done = append(done, *r)
		}
	}
	return done, ctx.Err()
}

// repeat runs a script as often as is asked for, and says when it has played the last time. Of several attempts the result is
// the first that failed, else the last.
func (x *Runner) repeat(ctx context.Context, s *Script, played func()) *Result {
	var result *Result
	var attempts []Attempt
	for i := range max(1, x.Repeat) {
		name := s.Name
		if i > 0 {
			name = fmt.Sprintf("%s.%d", s.Name, i+1)
		}
		last := func() {}
		if i == max(1, x.Repeat)-1 {
			last = played
		}
		r := x.attempt(ctx, s, name, last)
		attempts = append(attempts, Attempt{Verdict: r.Verdict, Reason: r.Reason, Seconds: r.Seconds})
		if result == nil || result.Verdict != Fail {
			result = r
		}
		if r.Verdict == Skip || ctx.Err() != nil {
			break
		}
	}
	if x.Repeat > 1 && result.Verdict != Skip {
		result.Attempts = attempts
		if n, of := result.Passed(); n < of {
			word := "failed"
			if result.Flaky() {
				word = "flaky, failed"
			}
			result.Reason = fmt.Sprintf("%s %d of %d times: %s", word, of-n, of, result.Reason)
		}
	}
	return result
}

// Unfit says why a script does not fit the environment; "" when it does.
func (x *Runner) Unfit(s *Script) string {
	for _, need := range s.Needs {
		if !slices.ContainsFunc(need.Unless, func(c string) bool { return !x.language.holds(condition(c), x.World) }) {
			if need.Reason != "" {
				return need.Reason
			}
			return "needs " + need.String()
		}
	}
	have := x.World.variables(&Run{})
	for _, name := range s.nth {
		if _, ok := have[name]; !ok {
			m := roleVariable.FindStringSubmatch(name)
			return fmt.Sprintf("needs %s nodes of role %s, the region has %d", m[2], m[1], len(x.World.Plan.WithRole(m[1])))
		}
	}
	return ""
}

// attempt runs a script once; name is that of its folder. It says when all is done but to remove what the script made.
func (x *Runner) attempt(ctx context.Context, s *Script, name string, played func()) *Result {
	res := &Result{Name: s.Name, Summary: s.Summary, Verdict: Pass, Started: time.Now(), Topology: x.World.Plan.Topology, Routing: x.World.Plan.Routing, File: s.File}
	if why := x.Unfit(s); why != "" {
		res.Verdict, res.Reason = Skip, oneLine(why)
		x.tell(ctx, name, res, "")
		return res
	}
	var turn Turn
	if x.World.Turn != nil {
		told := slow(ctx, name, "waits until it may begin: another runs that disturbs the region")
		var err error
		turn, err = x.World.Turn(ctx, s.Alone)
		told()
		if err != nil {
			res.fail(fmt.Errorf("wait for other scenarios to end: %w", err))
			return res
		}
		defer turn.End()
	}
	r := &Run{World: x.World, turn: turn, Name: s.Name, ID: newID(), Dir: filepath.Join(x.Dir, name), Began: time.Now(), things: map[thing]any{}}
	res.Started = r.Began
	r.deadline = r.Began.Add(r.World.Deadline(scenarioLimit))
	var log bytes.Buffer
	x.play(ctx, s, r, res, name, &log)
	res.Seconds = r.into(time.Now()).Seconds()
	if res.Reason != "" {
		fmt.Fprintf(&log, "%s: %s\n", res.Verdict, res.Reason)
	}
	if res.Verdict == Fail && ctx.Err() == nil {
		progress.Emit(ctx, progress.Event{Phase: phase, Node: name, Message: "failed: collecting evidence"})
		if err := x.bundle(r, ctx, s, log.String()); err != nil {
			fmt.Fprintf(&log, "the bundle is not whole: %v\n", err)
		}
	}
	cleaned := time.Now()
	wrong := x.undo(ctx, r)
	var unsettled error
	if !r.alone.IsZero() && ctx.Err() == nil {
		unsettled = x.settle(ctx, r)
	}
	played()
	if res.Verdict == Fail && x.KeepOnFailure && ctx.Err() == nil {
		progress.Emit(ctx, progress.Event{Phase: phase, Node: r.Name,
			Message: fmt.Sprintf("its project scenario-%s-%s is kept; the next `toastdev scenario run` removes it", r.Name, r.ID)})
	} else {
		wrong = errors.Join(wrong, within(ctx, r, sweepLimit, "removes what it made", func(ctx context.Context) error { return x.sweep(r, ctx) }))
	}
	if wrong != nil {
		fmt.Fprintf(&log, "cleaning up: %v\n", wrong)
		if res.Verdict == Fail {
			res.Reason += "; and cleaning up failed: " + oneLine(wrong.Error())
		} else {
			res.fail(fmt.Errorf("cleaning up: %w", wrong))
		}
	}
	if unsettled != nil && res.Verdict != Fail {
		res.fail(unsettled)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.marks {
		res.Marks = append(res.Marks, Mark{Name: m.name, Seconds: r.into(m.at).Seconds()})
	}
	res.Elapsed, res.Paths, res.Log = r.elapsed, r.paths, log.String()
	if kept, err := filepath.Glob(filepath.Join(r.Dir, "*")); err == nil && len(kept) > 0 {
		res.Bundle = r.Dir
	} else {
		os.Remove(r.Dir)
	}
	x.tell(ctx, name, res, fmt.Sprintf("in %.1f s, cleaned up in %.1f s", res.Seconds, time.Since(cleaned).Seconds()))
	return res
}

// tell ends a scenario's progress.
func (x *Runner) tell(ctx context.Context, name string, res *Result, how string) {
	message := string(res.Verdict)
	if how != "" {
		message += " " + how
	}
	if res.Reason != "" {
		message += ": " + res.Reason
	}
	progress.Emit(ctx, progress.Event{Phase: phase, Node: name, Message: message, Done: true})
}

// play makes the scenario's project and runs the script in it.
func (x *Runner) play(ctx context.Context, s *Script, r *Run, res *Result, name string, log *bytes.Buffer) {
	// A report's folder may be written to again: an old capture is no evidence of this run.
	r.work = filepath.Join(r.Dir, "files")
	if err := errors.Join(os.RemoveAll(r.Dir), os.MkdirAll(r.work, 0o755)); err != nil {
		res.fail(err)
		return
	}
	defer os.RemoveAll(r.work)
	total := strings.Count(s.Text(), "\n")
	progress.Emit(ctx, progress.Event{Phase: phase, Node: name, N: total, Message: "makes its project"})
	limited, cancel := context.WithDeadline(ctx, r.deadline)
	err := x.begin(r, limited)
	cancel()
	if err != nil {
		res.failed(ctx, s, fmt.Errorf("make the scenario's project: %w", err))
		return
	}
	steps := &steps{ctx: ctx, name: name, total: total}
	defer steps.tick()()
	err = x.language.play(ctx, r, s, log, steps.line)
	if err != nil {
		res.failed(ctx, s, err)
		if errors.Is(err, script.ErrUnexpectedSuccess) {
			res.Seen = "it succeeded: " + short(r.Last().Text)
		}
	}
}

// steps tells which line runs.
type steps struct {
	ctx   context.Context
	name  string
	total int

	mu    sync.Mutex
	at    progress.Event
	since time.Time
}

// line begins a line.
func (s *steps) line(n int, text string) {
	if text == "" || strings.HasPrefix(text, "#") {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.since = progress.Event{Phase: phase, Node: s.name, I: n, N: s.total, Unit: text}, time.Now()
	progress.Emit(s.ctx, s.at)
}

// tick tells now and then how long a line has been running, until stop.
func (s *steps) tick() (stop func()) {
	ticker := time.NewTicker(15 * time.Second)
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
			}
			s.mu.Lock()
			if took := time.Since(s.since); s.at.Unit != "" && took > 10*time.Second {
				e := s.at
				e.Message = fmt.Sprintf("(for %.0f s)", took.Seconds())
				progress.Emit(s.ctx, e)
			}
			s.mu.Unlock()
		}
	}()
	return func() {
		ticker.Stop()
		close(ended)
	}
}

// undo undoes what the run has to undo, the last first.
func (x *Runner) undo(ctx context.Context, r *Run) error {
	var wrong []error
	for {
		r.mu.Lock()
		if len(r.undo) == 0 {
			r.mu.Unlock()
			return errors.Join(wrong...)
		}
		last := r.undo[len(r.undo)-1]
		r.undo = r.undo[:len(r.undo)-1]
		r.mu.Unlock()
		wrong = append(wrong, within(ctx, r, undoLimit, last.what, last.do))
	}
}

// settle waits until the region has recovered from the run, and lets others begin.
func (x *Runner) settle(ctx context.Context, r *Run) error {
	if x.World.Healthy != nil {
		if err := x.World.Healthy(ctx); err != nil {
			return fmt.Errorf("the region has not recovered: %w", err)
		}
	}
	if r.turn != nil {
		return r.turn.Settled(ctx)
	}
	return nil
}

// within does a part of cleaning up, however much of ctx is left.
func within(ctx context.Context, r *Run, limit time.Duration, what string, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.World.Deadline(limit))
	defer cancel()
	progress.Emit(ctx, progress.Event{Phase: phase, Node: r.Name, Message: "cleans up: " + what})
	if err := do(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// fail makes it a failure for a reason that is no line's.
func (res *Result) fail(err error) {
	res.Verdict, res.Reason = Fail, oneLine(err.Error())
}

// failed takes over what an error of a script's says.
func (res *Result) failed(ctx context.Context, s *Script, err error) {
	if ctx.Err() != nil {
		res.fail(errors.New("interrupted"))
	} else {
		res.fail(err)
	}
	cause := err
	var line *script.CommandError
	for {
		inner, ok := errors.AsType[*script.CommandError](cause)
		if !ok {
			break
		}
		line, cause = inner, inner.Err
	}
	if line != nil {
		text := strings.Split(strings.TrimRight(s.Text(), "\n"), "\n")
		res.Line = line.Line
		res.Command = markers.FindString(prefixes.FindString(text[line.Line-1])) + quote(append([]string{line.Op}, line.Args...))
		for n := max(1, line.Line-3); n <= min(len(text), line.Line+3); n++ {
			res.Source = append(res.Source, ScriptLine{Number: n, Text: text[n-1]})
		}
	}
	if skip, ok := errors.AsType[skipped](cause); ok && ctx.Err() == nil {
		*res = Result{Name: res.Name, Summary: res.Summary, Verdict: Skip, Reason: oneLine(skip.reason), Started: res.Started, Topology: res.Topology, Routing: res.Routing, File: res.File}
		return
	}
	if ctx.Err() != nil || line == nil {
		return
	}
	res.Reason = oneLine(cause.Error())
	switch mismatch, ok := errors.AsType[*Mismatch](cause); {
	case ok:
		res.Expected, res.Seen = mismatch.Expected, mismatch.Seen
	case errors.Is(cause, script.ErrUnexpectedSuccess):
		res.Expected = "this line to fail"
	default:
		res.Expected, res.Seen = "this line to succeed", cause.Error()
	}
}

var markers = regexp.MustCompile(`[!?]\s+`)

// quote is words as a script has them.
func quote(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		if quoted[i] = w; w == "" || strings.ContainsAny(w, " \t'#$") {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", "''") + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// oneLine is a message of several lines on one.
func oneLine(text string) string {
	var parts []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}

func newID() string {
	b := make([]byte, 3)
	rand.Read(b)
	return hex.EncodeToString(b)
}
