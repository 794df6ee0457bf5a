package scenarios

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"rsc.io/script"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// tables is the commands of every file.
var tables = []func() map[string]Command{
	builtinCommands,
	resourceCommands,
	waitCommands,
	apiCommands,
	tokenCommands,
	captureCommands,
	probeCommands,
	faultCommands,
}

const (
	lineLimit     = 3 * time.Minute  // a line's deadline when `within` sets none
	scenarioLimit = 5 * time.Minute  // a scenario's when `deadline` sets none
	patience      = 15 * time.Second // how long a command may take to return once its deadline has passed
)

// The engine tells it in these words for a line by itself; where join tells of several lines it has nothing else to go by.
func init() { script.ErrUnexpectedSuccess = errors.New("it succeeded, and was to fail") }

// language is the words of scripts: our own, and those that rsc.io/script brings along.
type language struct {
	words      map[string]Command
	natives    map[string]native
	conditions map[string]Condition
}

// the language of scripts, put together once.
var standard = sync.OnceValue(func() *language {
	words := map[string]Command{}
	for _, table := range tables {
		maps.Copy(words, table())
	}
	return newLanguage(words)
})

func newLanguage(words map[string]Command) *language {
	return &language{words: words, natives: natives(), conditions: conditions()}
}

// Word is a command as `toastdev scenario help` shows it.
type Word struct {
	Name    string   `json:"name"`
	Summary string   `json:"summary"`
	Args    string   `json:"args"`
	Detail  []string `json:"detail"`
	Flags   string   `json:"flags"` // as pflag prints them
	Async   bool     `json:"async"` // it may run in the background
	Alone   bool     `json:"alone"` // it disturbs the whole region
}

// Words is all commands, by name.
func Words() []Word {
	l := standard()
	var words []Word
	for name, c := range l.words {
		flags := newFlags(name)
		c.Flags(flags)
		words = append(words, Word{name, c.Summary, c.Args, c.Detail, flags.FlagUsagesWrapped(100), c.Async, c.Alone})
	}
	for name, n := range l.natives {
		words = append(words, Word{Name: name, Summary: n.Summary, Args: n.Args, Detail: n.Detail})
	}
	slices.SortFunc(words, func(a, b Word) int { return strings.Compare(a.Name, b.Name) })
	return words
}

// names of all commands, in order.
func (l *language) names() []string {
	names := append(slices.Collect(maps.Keys(l.words)), slices.Collect(maps.Keys(l.natives))...)
	slices.Sort(names)
	return names
}

func newFlags(name string) *pflag.FlagSet {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.SortFlags = false
	return flags
}

// lines hands out a script one line a Read, so that it is known which line runs: the engine reads a line when it has done
// the one before.
type lines struct {
	rest  string
	n     int // of the line that was read last, from 1
	whole bool
	began func(n int, text string)
}

func (l *lines) Read(p []byte) (int, error) {
	if l.rest == "" {
		return 0, io.EOF
	}
	end := strings.IndexByte(l.rest, '\n') + 1
	if end == 0 {
		end = len(l.rest)
	}
	if l.n == 0 || l.whole {
		l.n++
		l.began(l.n, strings.TrimSpace(l.rest[:end]))
	}
	n := copy(p, l.rest[:end])
	l.rest = l.rest[n:]
	l.whole = n == end
	return n, nil
}

// play is one script on its way through the engine.
type play struct {
	*language
	run    *Run
	source *lines
}

// play runs a script's lines. The log is written when it returns. The error of a line that failed is a *script.CommandError.
func (l *language) play(ctx context.Context, r *Run, s *Script, log io.Writer, began func(n int, text string)) (err error) {
	p := &play{language: l, run: r, source: &lines{rest: string(s.archive.Comment), began: began}}
	engine := &script.Engine{Cmds: map[string]script.Cmd{"within": p.within()}, Conds: map[string]script.Cond{}}
	for name, c := range l.words {
		engine.Cmds[name] = script.Command(script.CmdUsage{Summary: c.Summary, Args: c.Args, Async: !c.Keeps},
			func(st *script.State, args ...string) (script.WaitFunc, error) { return p.start(st, name, c, args, 0) })
	}
	for name, n := range l.natives {
		if n.run != nil {
			engine.Cmds[name] = n
		}
	}
	for name, c := range l.conditions {
		engine.Conds[name] = c.cond(r.World)
	}
	st, err := script.NewState(ctx, r.work, []string{})
	if err != nil {
		return err
	}
	for name, value := range r.World.variables(r) {
		if err := st.Setenv(name, value); err != nil {
			return err
		}
	}
	if err := st.ExtractFiles(s.archive); err != nil {
		return err
	}
	err = engine.Execute(st, s.File, bufio.NewReader(p.source), log)
	// What still runs in the background has no say any more: the script ended, or failed.
	st.CloseAndWait(log)
	return err
}

// within is the prefix that gives a line a deadline of its own.
func (p *play) within() script.Cmd {
	return script.Command(script.CmdUsage{Args: withinArgs, Async: true}, func(st *script.State, args ...string) (script.WaitFunc, error) {
		if len(args) < 2 {
			return nil, unusable{fault.New(fault.Invalid, "within %s", withinArgs)}
		}
		limit, err := duration(args[0])
		if err != nil {
			return nil, unusable{err}
		}
		c, ok := p.words[args[1]]
		if !ok {
			return nil, unusable{fault.New(fault.Invalid, "within: no command %q", args[1])}
		}
		wait, err := p.start(st, args[1], c, args[2:], limit)
		if wait == nil && err == nil {
			wait = func(st *script.State) (string, string, error) { return st.Stdout(), "", nil }
		}
		return wait, err
	})
}

// unusable is the error of a line that could not be tried: neither a success nor the failure that `!` asks for. The engine
// knows such errors as those of a context that ended.
type unusable struct{ error }

func (u unusable) Unwrap() error { return u.error }

func (u unusable) Is(target error) bool { return target == context.Canceled }

// result is what an action returned.
type result struct {
	Outcome
	keeps bool
	err   error
}

// start begins a line of ours; limit is its own deadline, 0 the usual one.
func (p *play) start(st *script.State, name string, c Command, args []string, limit time.Duration) (script.WaitFunc, error) {
	flags := newFlags(name)
	action := c.Flags(flags)
	if err := parse(name, c, flags, args); err != nil {
		return nil, unusable{err}
	}
	if c.Check != nil {
		if err := c.Check(flags.Args()); err != nil {
			return nil, unusable{err}
		}
	}
	r := p.run
	if c.Alone {
		if err := r.disturb(st.Context()); err != nil {
			return nil, unusable{err}
		}
	}
	own := limit > 0
	if !own {
		limit = lineLimit
	}
	limit = r.World.Deadline(limit)
	r.mu.Lock()
	r.environ = st.Environ()
	end, whole, waited := time.Now().Add(limit), r.deadline, r.waited
	r.mu.Unlock()
	var what string
	switch {
	case !whole.IsZero() && whole.Before(end):
		end, own = whole, false
		what = fmt.Sprintf("the scenario's deadline of %s passed", whole.Sub(r.Began)-waited)
	default:
		what = fmt.Sprintf("the line's deadline of %s passed", limit)
	}
	line := p.source.n
	ctx, cancel := context.WithDeadline(context.WithValue(st.Context(), lineKey{}, line), end)
	done := make(chan result, 1)
	go func() {
		var res result
		defer func() {
			if broke := recover(); broke != nil {
				r.Logf("%s", debug.Stack())
				res.err = unusable{fmt.Errorf("%s broke: %v", name, broke)}
			}
			cancel()
			done <- res
		}()
		if !c.Spares && !c.Keeps {
			defer r.changing()()
		}
		res.Outcome, res.err = action(ctx, r, flags.Args())
	}()
	wait := func(st *script.State) (string, string, error) {
		var res result
		select {
		case res = <-done:
		case <-ctx.Done():
			select {
			case res = <-done:
			case <-time.After(patience):
				res.err = fmt.Errorf("%s did not end", name)
			}
		}
		late := res.err != nil && !time.Now().Before(end)
		res.keeps = c.Keeps
		return p.settle(st, res, late, own, what)
	}
	if !c.Keeps {
		return wait, nil
	}
	said, _, err := wait(st)
	if said != st.Stdout() {
		st.Logf("%s", said)
	}
	return nil, err
}

// settle takes an action's result over into the script's state.
func (p *play) settle(st *script.State, res result, late, own bool, what string) (stdout, stderr string, err error) {
	r := p.run
	r.mu.Lock()
	notes := r.notes
	if r.notes = nil; !res.keeps {
		r.last = res.Outcome
	}
	r.mu.Unlock()
	for _, note := range notes {
		st.Logf("[%s]\n", note)
	}
	for name, value := range res.Set {
		if err := st.Setenv(name, value); err != nil {
			return "", "", err
		}
	}
	if stdout = res.Text; stdout != "" && !strings.HasSuffix(stdout, "\n") {
		stdout += "\n"
	}
	switch {
	case res.err == nil:
		return stdout, "", nil
	case st.Context().Err() != nil: // the whole scenario ended
		return stdout, "", unusable{res.err}
	case late:
		e := fault.New(fault.Timeout, "%s", what)
		if seen := reason(res.err); seen != "" {
			e.Message += ": " + seen
		}
		if e.Err = res.err; own { // the script's own deadline: `!` may ask for it
			return stdout, "", e
		}
		return stdout, "", unusable{e}
	case untried(res.err):
		return stdout, "", unusable{res.err}
	}
	return stdout, "", res.err
}

// reason is what an error says beyond that a deadline passed.
func reason(err error) string {
	if err == context.DeadlineExceeded || err == context.Canceled {
		return ""
	}
	return err.Error()
}

// untried says whether a line could not be tried, for a reason that lies in the script or on this machine.
func untried(err error) bool {
	if _, ok := errors.AsType[skipped](err); ok {
		return true
	}
	e, ok := errors.AsType[*fault.Error](err)
	return ok && slices.Contains([]fault.Code{fault.Invalid, fault.NotFound, fault.Missing, fault.Unsupported, fault.Busy}, e.Code)
}
