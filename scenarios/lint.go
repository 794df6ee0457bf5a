package scenarios

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"rsc.io/script"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// parse reads a line's words: flags into flags, and the number of the others.
func parse(name string, c Command, flags *pflag.FlagSet, args []string) error {
	usage := strings.TrimSpace(name + " " + c.Args)
	remedy := fmt.Sprintf("see `toastdev scenario help %s`", name)
	if err := flags.Parse(args); err != nil {
		e := &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("%s: %v", name, err), Expected: usage, Remedy: remedy, Err: err}
		var known []string
		flags.VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
			if near := fault.Nearest(unknown.GetSpecifiedName(), known); near != "" {
				e.Remedy = fmt.Sprintf("write --%s", near)
			} else if strings.Contains(c.Args, "--") && strings.Contains(c.Args, "CMD") {
				e.Remedy = "write -- before the command that is run"
			}
		}
		if errors.Is(err, pflag.ErrHelp) {
			e.Message = name + ": unknown flag: --help"
		}
		return e
	}
	if n := flags.NArg(); n < c.Min || c.Max >= 0 && n > c.Max {
		return &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("%s takes %s, not %s", name, count(c.Min, c.Max), given(flags.Args())), Expected: usage, Remedy: remedy}
	}
	return nil
}

// count is a number of arguments in words.
func count(least, most int) string {
	plural := func(n int) string {
		if n == 1 {
			return "1 argument"
		}
		return fmt.Sprintf("%d arguments", n)
	}
	switch {
	case most == 0:
		return "no arguments"
	case most < 0:
		return "at least " + plural(least)
	case least == most:
		return plural(least)
	}
	return fmt.Sprintf("%d to %s", least, plural(most))
}

func given(args []string) string {
	if len(args) == 0 {
		return "none"
	}
	return fmt.Sprintf("%d (%s)", len(args), strings.Join(args, ", "))
}

var (
	prefixes = regexp.MustCompile(`^\s*(?:(?:[!?]|\[[^\]\s]*\])(?:\s+|$))*`)
	quoted   = regexp.MustCompile(`'[^']*'`)
	varName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// held begins what stands for a variable's value while a script is checked; the variable's name follows.
const held = "\x00"

var holding = regexp.MustCompile(held + `(\w*)`)

// stands is what a variable in a line may turn out to be: a word, or whatever its flag's type asks for.
var stands = []string{"$$$1", "1s", "1", "true", "10.0.0.1"}

// checking is one script that is checked.
type checking struct {
	*language
	script *Script
	known  map[string]bool // variables set so far
	loose  int             // the line of a background command that nothing has joined yet; 0: none
	wrong  []error

	n      int    // the line, from 1
	column int    // where its command begins, from 1
	rest   string // from its command on
}

// check says all that is wrong with a script before anything is made: each error is a *fault.Error with file, line and
// remedy. It also finds out whether the script runs alone, and which nodes by role it names.
func (l *language) check(s *Script) []error {
	c := &checking{language: l, script: s, known: map[string]bool{"PWD": true, "/": true, ":": true}}
	for name := range Variables {
		c.known[name] = true
	}
	engine := &script.Engine{Cmds: map[string]script.Cmd{}}
	for _, name := range l.names() {
		engine.Cmds[name] = script.Command(script.CmdUsage{Async: true}, func(_ *script.State, args ...string) (script.WaitFunc, error) {
			c.command(name, args)
			return func(*script.State) (string, string, error) { return "", "", nil }, nil
		})
	}
	n := 0
	for line := range strings.Lines(s.Text()) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		c.line(engine, n, line)
	}
	if c.loose > 0 {
		c.n, c.column = c.loose, 1
		c.add(fault.New(fault.Invalid, "nothing waits for this background command: what came of it would not be seen").WithRemedy("add a line `join` where it must have ended"))
	}
	return c.wrong
}

// add notes what is wrong with the line.
func (c *checking) add(err error) {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		e = fault.New(fault.Invalid, "%w", err)
	}
	e.Code, e.File, e.Line, e.Column = fault.Invalid, c.script.File, c.n, c.column
	c.wrong = append(c.wrong, e)
}

// line checks one line.
func (c *checking) line(engine *script.Engine, n int, line string) {
	prefix := prefixes.FindString(line)
	c.n, c.column, c.rest = n, len(prefix)+1, line[len(prefix):]
	for _, m := range guard.FindAllStringSubmatch(prefix, -1) {
		if err := c.checkCondition(condition(strings.TrimSpace(m[1]))); err != nil {
			c.add(err)
		}
	}
	plain, _, _ := strings.Cut(quoted.ReplaceAllString(c.rest, " "), "#")
	words := strings.Fields(plain)
	if len(words) == 0 {
		if strings.TrimSpace(c.rest) == "" {
			c.add(fault.New(fault.Invalid, "a condition without a command").WithRemedy("write the command behind it, on the same line"))
		}
		return
	}
	if names := c.names(); !slices.Contains(names, words[0]) {
		e := fault.New(fault.Invalid, "unknown command %q", words[0]).WithRemedy("`toastdev scenario help` lists the commands")
		c.add(e.Suggest(words[0], names))
		return
	}
	os.Expand(plain, func(name string) string {
		if c.known[name] {
			return ""
		}
		if roleVariable.MatchString(name) {
			if !slices.Contains(c.script.nth, name) {
				c.script.nth = append(c.script.nth, name)
			}
			return ""
		}
		c.undefined(name)
		c.known[name] = true // told once
		return ""
	})
	// The engine itself takes the line apart, so that it is understood here as it will be then.
	st, err := script.NewState(context.Background(), os.TempDir(), []string{})
	if err != nil {
		c.add(err)
		return
	}
	os.Expand(plain, func(name string) string {
		if name != "/" && name != ":" {
			st.Setenv(name, held+name)
		}
		return ""
	})
	if err := engine.Execute(st, c.script.File, bufio.NewReader(strings.NewReader(c.rest)), io.Discard); err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
		c.add(err)
	}
}

func (c *checking) undefined(name string) {
	var known []string
	for k := range c.known {
		if varName.MatchString(k) && k != "PWD" {
			known = append(known, k)
		}
	}
	slices.Sort(known)
	e := fault.New(fault.Invalid, "no line before this one sets the variable $%s", name)
	e.Expected = "one of " + strings.Join(known, ", ") + ", or a node by its role: control1, network1, compute1, compute2, ..."
	if near := fault.Nearest(name, known); near != "" {
		e.Remedy = "write $" + near
	}
	if e.Remedy == "" {
		e.Remedy = "set it before (env " + name + "=VALUE), or write the text in 'single quotes' where it is no variable"
	}
	c.add(e)
}

// command checks the command of the line; args are its words.
func (c *checking) command(name string, args []string) {
	background := backgroundLine.MatchString(c.rest)
	if name == "join" {
		c.loose = 0
	}
	if n, ok := c.natives[name]; ok {
		if name == "within" {
			c.within(args, background)
			return
		}
		if background {
			c.background(name)
		}
		if err := n.check(name, args); err != nil {
			c.add(err)
		}
		if name == "env" {
			for _, arg := range args {
				if key, _, ok := strings.Cut(arg, "="); ok {
					c.known[key] = true
				}
			}
		}
		return
	}
	c.ours(name, args, background)
}

var backgroundLine = regexp.MustCompile(`\s&\s*(#.*)?$`)

func (c *checking) background(name string) {
	c.add(fault.New(fault.Invalid, "%s does not run in the background", name).WithRemedy("take the & away"))
}

// within checks a line with a deadline of its own.
func (c *checking) within(args []string, background bool) {
	if len(args) < 2 {
		c.add(&fault.Error{Code: fault.Invalid, Message: "within takes a duration and a command", Expected: "within " + withinArgs})
		return
	}
	if !strings.Contains(args[0], held) {
		if _, err := duration(args[0]); err != nil {
			c.add(err)
		}
	}
	if _, ok := c.words[args[1]]; !ok {
		e := fault.New(fault.Invalid, "within: no command %q that takes a while", args[1])
		var names []string
		for _, name := range c.names() {
			if _, ok := c.words[name]; ok {
				names = append(names, name)
			}
		}
		c.add(e.Suggest(args[1], names))
		return
	}
	c.ours(args[1], args[2:], background)
}

// ours checks a command of ours.
func (c *checking) ours(name string, args []string, background bool) {
	command := c.words[name]
	switch {
	case background && !command.Async:
		c.background(name)
	case background && c.loose == 0:
		c.loose = c.n
	}
	c.script.Alone = c.script.Alone || command.Alone
	certain := !slices.ContainsFunc(args, func(w string) bool { return strings.Contains(w, held) })
	tries := stands
	if certain {
		tries = stands[:1]
	}
	var flags *pflag.FlagSet // of the first try that the flags' types take
	var misread error
	var complaints []error
	for _, stand := range tries {
		tried := newFlags(name)
		command.Flags(tried)
		filled := make([]string, len(args))
		for i, arg := range args {
			filled[i] = holding.ReplaceAllString(arg, stand)
		}
		err := parse(name, command, tried, filled)
		if _, value := errors.AsType[*pflag.InvalidValueError](err); value {
			misread = err
			continue
		}
		if err != nil {
			c.add(err)
			return
		}
		flags = cmp.Or(flags, tried)
		if command.Check != nil {
			complaints = append(complaints, command.Check(tried.Args()))
		}
	}
	if flags == nil {
		c.add(misread)
		return
	}
	if certain || len(complaints) > 1 {
		if err := agreed(complaints); err != nil {
			c.add(err)
		}
	}
	words := flags.Args()
	if command.Sets != nil {
		for _, name := range command.Sets(words) {
			c.known[name] = true
		}
	}
	if save := flags.Lookup("save"); save != nil && save.Changed {
		if name := save.Value.String(); varName.MatchString(name) {
			c.known[name] = true
		} else {
			c.add(fault.New(fault.Invalid, "%q is no variable's name", name).WithRemedy("write letters, digits and _"))
		}
	}
}

// agreed is the error that all have in common: what is wrong with a line whatever its variables turn out to be. One that
// names a variable's value differs from the others.
func agreed(errs []error) error {
	for _, err := range errs {
		if err == nil || err.Error() != errs[0].Error() {
			return nil
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}

// duration reads a duration that is more than nothing.
func duration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("%q is not a duration", text), Expected: "a number with its unit: 500ms, 30s, 2m"}
	}
	return d, nil
}
