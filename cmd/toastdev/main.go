// Command toastdev starts a miniature TOAST region on one machine, and takes it away.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/lifecycle"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/project"
)

// Exit codes, as `toastdev help` tells them.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitExpectation = 3
	exitInterrupted = 130
)

// app is what every verb is given: the streams, and the flags that all verbs share.
type app struct {
	in  *os.File
	out io.Writer
	err *os.File

	name      string // --name
	output    string // -o: text, json
	logFormat string // --log-format: text, json
	logLevel  string // --log-level
	json      bool   // output is json
	sink      progress.Sink
	close     func()

	interrupted string // what is said when the user interrupts
}

func main() {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, close: func() {}, interrupted: "interrupted; the same command goes on where it stopped"}
	os.Exit(a.main(os.Args[1:]))
}

func (a *app) main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process as it would any other
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	a.close()
	if errors.Is(err, lifecycle.ErrAgain) {
		err = again()
	}
	if err == nil {
		return 0
	}
	if ctx.Err() != nil {
		fmt.Fprintln(a.err, a.interrupted)
		return exitInterrupted
	}
	if exit, ok := errors.AsType[exitCode](err); ok {
		return int(exit)
	}
	a.tell(err)
	switch fault.CodeOf(err) {
	case fault.Invalid, fault.Unsupported:
		return exitUsage
	}
	return exitFailed
}

// again makes the process one that begins anew with the same command. It returns only when that fails.
func again() error {
	file, err := os.Executable()
	if err == nil {
		err = syscall.Exec(file, os.Args, os.Environ())
	}
	return fmt.Errorf("%w: %w", lifecycle.ErrAgain, err)
}

// exitCode is the exit code of a command that was run for the user: it has spoken for itself.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// tell prints an error for a person, or for a program with --log-format json.
func (a *app) tell(err error) {
	if a.logFormat == "json" {
		e, ok := errors.AsType[*fault.Error](err)
		if !ok {
			e = &fault.Error{Code: fault.Failed, Message: err.Error()}
		}
		json.NewEncoder(a.err).Encode(map[string]any{"error": e})
		return
	}
	fmt.Fprintln(a.err, "toastdev:", err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "toastdev",
		Short: "A miniature TOAST region on your machine",
		Long: `toastdev starts a miniature TOAST region (OpenStack, deployed by Salt, networked by Open vSwitch with DVR) out of
containers on this machine, from a declared topology, and takes it away again.

Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 a scenario's expectation not met, 130 interrupted.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return a.begin(cmd)
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fault.New(fault.Invalid, "%w", err).WithRemedy("see `%s --help`", cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.name, "name", "", "the environment (default: the topology's name; with one environment up, that one)")
	flags.StringVarP(&a.output, "output", "o", "text", "what results are printed as: text, json")
	flags.StringVar(&a.logFormat, "log-format", "text", "what progress and errors are printed as: text, json")
	flags.StringVar(&a.logLevel, "log-level", "warn", "diagnosis on stderr: trace, debug, info, warn, error")
	root.AddCommand(
		upCommand(a), planCommand(a), statusCommand(a), listCommand(a), haltCommand(a), downCommand(a),
		sshCommand(a), execCommand(a), logsCommand(a), openrcCommand(a), openstackCommand(a),
		topologyCommand(a), releaseCommand(a), saltCommand(a), scenarioCommand(a), patchCommand(a), codeCommand(a), nightlyCommand(a), fenceCommand(a), imageCommand(a), doctorCommand(a),
	)
	argsAreUsage(root)
	return root
}

// argsAreUsage makes a wrong number of arguments, or an unknown verb, a fault of usage.
func argsAreUsage(cmd *cobra.Command) {
	if args := cmd.Args; args != nil {
		cmd.Args = func(cmd *cobra.Command, given []string) error {
			if err := args(cmd, given); err != nil {
				return fault.New(fault.Invalid, "%w", err).WithRemedy("see `%s --help`", cmd.CommandPath())
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && cmd.RunE == nil {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return cmd.Help()
			}
			return fault.New(fault.Invalid, "unknown command %q for %q", given[0], cmd.CommandPath()).WithRemedy("see `%s --help`", cmd.CommandPath())
		}
	}
	for _, c := range cmd.Commands() {
		argsAreUsage(c)
	}
}

// begin checks the shared flags and opens the sink that progress goes to.
func (a *app) begin(cmd *cobra.Command) error {
	for flag, value := range map[string]string{"output": a.output, "log-format": a.logFormat} {
		if value != "text" && value != "json" {
			return &fault.Error{Code: fault.Invalid, Path: "--" + flag, Message: fmt.Sprintf("%q is not known", value), Expected: "text, json"}
		}
	}
	if hclog.LevelFromString(a.logLevel) == hclog.NoLevel {
		return &fault.Error{Code: fault.Invalid, Path: "--log-level", Message: fmt.Sprintf("%q is not known", a.logLevel), Expected: "trace, debug, info, warn, error, off"}
	}
	a.json = a.output == "json"
	switch {
	case a.logFormat == "json":
		a.sink = progress.JSON(a.err)
	case term.IsTerminal(int(a.err.Fd())) && cmd.Annotations["progress"] == "live":
		columns, _, err := term.GetSize(int(a.err.Fd()))
		if err != nil {
			return err
		}
		live := progress.Live(a.err, columns)
		a.sink, a.close = live, live.Close
	default:
		a.sink = progress.Plain(a.err)
	}
	cmd.SetContext(progress.With(cmd.Context(), a.sink))
	return nil
}

// live marks a verb that works for a while: on a terminal its progress is a live view.
var live = map[string]string{"progress": "live"}

// toastdev opens the home and what works on environments in it.
func (a *app) toastdev() (*lifecycle.Toastdev, error) {
	home, err := project.OpenHome()
	if err != nil {
		return nil, err
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "toastdev", Level: hclog.LevelFromString(a.logLevel), Output: a.err, JSONFormat: a.logFormat == "json"})
	return lifecycle.New(home, log), nil
}

// print writes a result: as JSON with -o json, else by text.
func (a *app) print(result any, text func(w io.Writer)) error {
	a.close()
	a.close = func() {}
	if !a.json {
		text(a.out)
		return nil
	}
	encoder := json.NewEncoder(a.out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(result)
}

// line writes one of several results as a line of JSON.
func (a *app) line(result any) { json.NewEncoder(a.out).Encode(result) }

// words joins a list for a table's cell.
func words(list []string) string { return strings.Join(list, " ") }
