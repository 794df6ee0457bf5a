package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/itchyny/gojq"
	"github.com/spf13/pflag"
	"rsc.io/script"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// plain is an action that has no flags.
func plain(action Action) func(*pflag.FlagSet) Action {
	return func(*pflag.FlagSet) Action { return action }
}

// builtinCommands is the words that are about the script itself.
func builtinCommands() map[string]Command {
	return map[string]Command{
		"json": {
			Summary: "look into the last line's JSON", Args: "EXPR [--save VAR]", Min: 1, Max: 1,
			Detail: []string{
				"EXPR is a jq expression, in 'single quotes'. The line passes when EXPR yields something, and nothing of it is false or null; what it yields is printed.",
				"The script's variables are in env: 'any(.servers[]; .id == env.vm)'.",
				"--save VAR keeps what it yields in a variable.",
				"Example: json '.servers | length == 2'",
			},
			Check: func(args []string) error {
				_, err := query(args[0])
				return err
			},
			Flags: func(flags *pflag.FlagSet) Action {
				save := flags.String("save", "", "keep what EXPR yields in this variable")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) { return r.json(ctx, args[0], *save) }
			},
		},
		"save": {
			Summary: "keep what the last line printed in a variable", Args: "VAR", Min: 1, Max: 1, Keeps: true,
			Detail: []string{"Blanks and the newline at the end are left out.", "Example: save before"},
			Check: func(args []string) error {
				if !varName.MatchString(args[0]) {
					return fault.New(fault.Invalid, "%q is no variable's name", args[0]).WithRemedy("write letters, digits and _")
				}
				return nil
			},
			Sets: func(args []string) []string { return args[:1] },
			Flags: plain(func(_ context.Context, r *Run, args []string) (Outcome, error) {
				return Outcome{Set: map[string]string{args[0]: strings.TrimSpace(r.Last().Text)}}, nil
			}),
		},
		"status": {
			Summary: "expect the HTTP status of the last API call", Args: "CODE...", Min: 1, Max: -1, Keeps: true,
			Detail: []string{"One of several codes will do. The line before makes the call: `? api ...` where it may fail.", "Example: status 401"},
			Check: func(args []string) error {
				for _, arg := range args {
					if n, err := strconv.Atoi(arg); err != nil || n < 100 || n > 599 {
						return fault.New(fault.Invalid, "%q is not an HTTP status", arg).WithRemedy("write a number such as 200, 403")
					}
				}
				return nil
			},
			Flags: plain(func(_ context.Context, r *Run, args []string) (Outcome, error) {
				last := r.Last()
				if last.Status == 0 {
					return Outcome{}, fault.New(fault.Invalid, "the last line made no API call").WithRemedy("put `status` right behind the `api` line")
				}
				if !slices.Contains(args, strconv.Itoa(last.Status)) {
					return Outcome{}, &Mismatch{Expected: "status " + strings.Join(args, " or "), Seen: fmt.Sprintf("status %d: %s", last.Status, short(last.Text))}
				}
				return Outcome{}, nil
			}),
		},
		"mark": {
			Summary: "name this moment", Args: "NAME", Min: 1, Max: 1, Keeps: true,
			Detail: []string{"Reports show it as seconds since the scenario began; `elapsed` computes with it. A name given again means the later moment. The moment `start` is there from the beginning.", "Example: mark killed"},
			Flags: plain(func(_ context.Context, r *Run, args []string) (Outcome, error) {
				now := time.Now()
				r.mark(args[0], now)
				return Outcome{Text: fmt.Sprintf("%s is at %.1f s", args[0], r.into(now).Seconds())}, nil
			}),
		},
		"elapsed": {
			Summary: "show, and limit, the time between two moments", Args: "FROM TO [< DURATION]", Min: 2, Max: 4, Keeps: true,
			Detail: []string{"FROM and TO are names given by `mark`; `start` is the scenario's beginning. Reports show the time.", "A limit is taken as it is, on any machine.", "Example: elapsed killed answered < 60s"},
			Check: func(args []string) error {
				if len(args) == 2 {
					return nil
				}
				if len(args) != 4 || args[2] != "<" {
					return &fault.Error{Code: fault.Invalid, Message: "elapsed: a limit is written with a blank on both sides of <", Expected: "elapsed FROM TO [< DURATION]"}
				}
				_, err := duration(args[3])
				return err
			},
			Flags: plain(func(_ context.Context, r *Run, args []string) (Outcome, error) { return r.measure(args) }),
		},
		"skip": {
			Summary: "end the scenario here: it does not fit the region", Args: "[REASON]", Max: 1,
			Detail: []string{"It counts neither as passed nor as failed, and the reason is shown. Right after the header, `[!cond] skip 'reason'` says what the scenario needs.", "Example: [!dvr] skip 'routers are not distributed here'"},
			Flags: plain(func(_ context.Context, _ *Run, args []string) (Outcome, error) {
				if len(args) == 0 {
					return Outcome{}, Skipped("the script says so")
				}
				return Outcome{}, Skipped("%s", args[0])
			}),
		},
		"deadline": {
			Summary: "set the whole scenario's deadline", Args: "DURATION", Min: 1, Max: 1, Keeps: true,
			Detail: []string{fmt.Sprintf("It counts from the scenario's beginning; without this line it is %s. Where guests are emulated it is longer.", scenarioLimit), "Example: deadline 10m"},
			Check: func(args []string) error {
				_, err := duration(args[0])
				return err
			},
			Flags: plain(func(_ context.Context, r *Run, args []string) (Outcome, error) {
				d, err := duration(args[0])
				if err != nil {
					return Outcome{}, err
				}
				r.mu.Lock()
				r.deadline = r.Began.Add(r.waited + r.World.Deadline(d))
				r.mu.Unlock()
				return Outcome{}, nil
			}),
		},
		"alone": {
			Summary: "run no other scenario beside this one from here on", Alone: true, Keeps: true,
			Detail: []string{"For scenarios that change the whole region's settings, or that nothing may disturb. Faults (node, nic, partition, ...) have the same effect.",
				"What it waits for the others to end is no part of the scenario's time.", "Example: alone"},
			Flags: plain(func(context.Context, *Run, []string) (Outcome, error) { return Outcome{}, nil }),
		},
		"sleep": {
			Summary: "let time pass", Args: "DURATION", Min: 1, Max: 1, Keeps: true,
			Detail: []string{"Mostly `wait` is better: it goes on as soon as it can.", "Example: sleep 2s"},
			Check: func(args []string) error {
				_, err := duration(args[0])
				return err
			},
			Flags: plain(func(ctx context.Context, _ *Run, args []string) (Outcome, error) {
				d, err := duration(args[0])
				if err != nil {
					return Outcome{}, err
				}
				select {
				case <-ctx.Done():
					return Outcome{}, ctx.Err()
				case <-time.After(d):
					return Outcome{}, nil
				}
			}),
		},
	}
}

// query compiles a jq expression.
func query(text string) (*gojq.Query, error) {
	q, err := gojq.Parse(text)
	if err != nil {
		return nil, &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("json: %q is not a jq expression: %v", text, err), Expected: "one in 'single quotes': '.server.status == \"ACTIVE\"'", Err: err}
	}
	return q, nil
}

// json looks into the last line's JSON.
func (r *Run) json(ctx context.Context, text, save string) (Outcome, error) {
	last := r.Last()
	value, err := last.value()
	if err != nil {
		return last, err
	}
	q, err := query(text)
	if err != nil {
		return last, err
	}
	r.mu.Lock()
	environ := r.environ
	r.mu.Unlock()
	code, err := gojq.Compile(q, gojq.WithEnvironLoader(func() []string { return environ }))
	if err != nil {
		return last, fault.New(fault.Invalid, "json: %w", err)
	}
	// The next line may look into the same JSON.
	out := Outcome{JSON: last.JSON, Status: last.Status}
	if out.JSON == nil {
		out.JSON = value
	}
	var printed []string
	met := true
	iter := code.RunWithContext(ctx, value)
	for {
		v, ok := iter.Next()
		if !ok {
			break
		}
		if err, failed := v.(error); failed {
			return last, &Mismatch{Expected: text, Seen: fmt.Sprintf("%v in %s", err, short(compact(value)))}
		}
		met = met && v != nil && v != false
		if s, isText := v.(string); isText {
			printed = append(printed, s)
		} else {
			printed = append(printed, compact(v))
		}
	}
	out.Text = strings.Join(printed, "\n")
	if !met || len(printed) == 0 {
		return out, &Mismatch{Expected: text, Seen: short(compact(value))}
	}
	if save != "" {
		out.Set = map[string]string{save: out.Text}
	}
	return out, nil
}

// value is an outcome's JSON as jq takes it.
func (o Outcome) value() (any, error) {
	text := []byte(o.Text)
	if o.JSON != nil {
		var err error
		if text, err = json.Marshal(o.JSON); err != nil {
			return nil, err
		}
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return nil, &Mismatch{Expected: "JSON from the line before", Seen: short(o.Text)}
	}
	return value, nil
}

func compact(v any) string {
	text, err := gojq.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

// short is text as a message can have it.
func short(text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return "nothing"
	}
	if letters := []rune(text); len(letters) > 600 {
		return string(letters[:600]) + "..."
	}
	return text
}

// measure is the time between two marks.
func (r *Run) measure(args []string) (Outcome, error) {
	var said Outcome
	r.mu.Lock()
	moments := map[string]time.Time{"start": r.Began}
	names := []string{"start"}
	for _, m := range r.marks {
		moments[m.name] = m.at
		names = append(names, m.name)
	}
	r.mu.Unlock()
	for _, name := range args[:2] {
		if _, ok := moments[name]; !ok {
			return said, (&fault.Error{Code: fault.NotFound, Message: fmt.Sprintf("elapsed: no moment is called %q", name), Expected: strings.Join(names, ", ")}).Suggest(name, names)
		}
	}
	took := r.into(moments[args[1]]) - r.into(moments[args[0]])
	e := Elapsed{From: args[0], To: args[1], Seconds: took.Seconds()}
	var limit time.Duration
	if len(args) == 4 {
		var err error
		if limit, err = duration(args[3]); err != nil {
			return said, err
		}
		e.Limit = limit.Seconds()
	}
	r.mu.Lock()
	r.elapsed = append(r.elapsed, e)
	r.mu.Unlock()
	said.Text = fmt.Sprintf("%.1f s from %s to %s", took.Seconds(), args[0], args[1])
	if limit > 0 && took >= limit {
		return said, &Mismatch{Expected: fmt.Sprintf("less than %s from %s to %s", limit, args[0], args[1]), Seen: fmt.Sprintf("%.1f s", took.Seconds())}
	}
	return said, nil
}

// native is a command that rsc.io/script brings along.
type native struct {
	Summary string
	Args    string
	Detail  []string
	min     int
	max     int                        // -1: any number
	paths   func([]string) []string    // which arguments are files: they must lie in the script's own folder
	run     script.Cmd                 // nil: the engine has it under that name in another way
	text    func(*script.State) string // what a search looks into: an expectation
}

const withinArgs = "DURATION COMMAND [ARG...]"

// natives is what rsc.io/script brings along and does no harm.
func natives() map[string]native {
	all := func(args []string) []string { return args }
	last := func(args []string) []string { return args[max(0, len(args)-1):] }
	const search = "[-count=N] [-q] 'PATTERN'"
	return map[string]native{
		"within": {Summary: "give a line a deadline of its own", Args: withinArgs, min: 2, max: -1,
			Detail: []string{fmt.Sprintf("Without it a line may take %s. Where guests are emulated it is longer. With ! the line passes when it failed or took longer.", lineLimit), "Example: within 30s ping vm1 vm2"}},
		"join": {Summary: "wait for all background lines", run: script.Wait(),
			Detail: []string{"A line that ends with & runs beside the next ones. It fails here, if it fails. What `json`, `loss` and such look at is then the line that was started last.", "Example: ping vm1 vm2 --for 60s &"}},
		"stdout": {Summary: "expect a regular expression in what the last line printed", Args: search, min: 1, max: 1, run: script.Stdout(), text: (*script.State).Stdout,
			Detail: []string{"-count=N: so many matches. Variables in PATTERN are taken literally when it is not quoted.", "Example: stdout 'state=.*running'"}},
		"stderr": {Summary: "expect a regular expression in the last line's complaints", Args: search, min: 1, max: 1, run: script.Stderr(), text: (*script.State).Stderr},
		"grep":   {Summary: "expect a regular expression in a file of the script's", Args: search + " FILE", min: 2, max: 2, run: script.Grep(), paths: last},
		"cat":    {Summary: "print files of the script's", Args: "FILE...", min: 1, max: -1, run: script.Cat(), paths: all},
		"cmp": {Summary: "expect two files to be the same; stdout is what the last line printed", Args: "[-q] FILE FILE", min: 2, max: 2, run: script.Cmp(), paths: all,
			Detail: []string{"Example: cmp stdout wanted"}},
		"cmpenv": {Summary: "cmp with the variables in both files filled in", Args: "[-q] FILE FILE", min: 2, max: 2, run: script.Cmpenv(), paths: all},
		"cp":     {Summary: "copy files of the script's; stdout is what the last line printed", Args: "FILE... TO", min: 2, max: -1, run: script.Cp(), paths: all},
		"exists": {Summary: "expect files of the script's to be there", Args: "FILE...", min: 1, max: -1, run: script.Exists(), paths: all},
		"echo":   {Summary: "print words", Args: "WORD...", max: -1, run: script.Echo()},
		"env":    {Summary: "set variables, or show them", Args: "[NAME[=VALUE]...]", max: -1, run: script.Env(), Detail: []string{"Example: env size=1400"}},
		"stop":   {Summary: "end the scenario here: it has passed", Args: "[REASON]", max: 1, run: script.Stop()},
	}
}

// Usage is what the engine asks of a command.
func (n native) Usage() *script.CmdUsage { return n.run.Usage() }

// Run runs the command. A search that finds nothing is an expectation that was not met.
func (n native) Run(st *script.State, args ...string) (script.WaitFunc, error) {
	if n.paths != nil {
		for _, p := range n.paths(withoutFlags(args)) {
			if err := inside(p); err != nil {
				return nil, unusable{err}
			}
		}
	}
	wait, err := n.run.Run(st, args...)
	if err != nil && n.text != nil {
		words := withoutFlags(args)
		return nil, &Mismatch{Expected: "a line that matches " + words[len(words)-1], Seen: short(n.text(st))}
	}
	return wait, err
}

// inside says whether a path stays in the script's own folder.
func inside(p string) error {
	if p != "" && !strings.Contains(p, held) && !filepath.IsLocal(p) {
		return fault.New(fault.Invalid, "%q does not lie in the script's own folder", p).WithRemedy("put the file into the script, behind a line `-- %s --`", filepath.Base(p))
	}
	return nil
}

func withoutFlags(args []string) []string {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		args = args[1:]
	}
	return args
}

// check says what is wrong with a line's words.
func (n native) check(name string, args []string) error {
	words := withoutFlags(args)
	if len(words) < n.min || n.max >= 0 && len(words) > n.max {
		words = slices.Clone(words)
		for i, w := range words {
			words[i] = holding.ReplaceAllString(w, "$$$1")
		}
		return &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("%s takes %s, not %s", name, count(n.min, n.max), given(words)),
			Expected: strings.TrimSpace(name + " " + n.Args), Remedy: fmt.Sprintf("see `toastdev scenario help %s`", name)}
	}
	if n.paths != nil {
		for _, p := range n.paths(words) {
			if err := inside(p); err != nil {
				return err
			}
		}
	}
	return nil
}
