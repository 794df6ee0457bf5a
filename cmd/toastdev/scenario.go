package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/lifecycle"
	"github.com/toast-cloud/toastdev/internal/table"
	"github.com/toast-cloud/toastdev/scenarios"
	"github.com/toast-cloud/toastdev/scenarios/report"
)

func scenarioCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "scenario", Short: "Prove what a region does, by scripts and with evidence"}
	cmd.AddCommand(scenarioListCommand(a), scenarioRunCommand(a), scenarioHelpCommand(a), scenarioPathCommand(a))
	return cmd
}

// listedScenario is a scenario in `scenario list`.
type listedScenario struct {
	Name    string   `json:"name"`
	Summary string   `json:"summary"`
	Needs   []string `json:"needs"` // conditions, all of which must hold
	Alone   bool     `json:"alone"` // it disturbs the region: nothing runs beside it from there on
	File    string   `json:"file"`
}

type scenarioList struct {
	Scenarios []listedScenario `json:"scenarios"`
}

func scenarioListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "list [NAME|FILE|GLOB...]",
		Short:             "List the scenarios built in, or those of files",
		ValidArgsFunction: completeScenarios,
		RunE: func(_ *cobra.Command, args []string) error {
			scripts, err := scenarios.Load(args)
			if err != nil {
				return err
			}
			list := scenarioList{Scenarios: []listedScenario{}}
			for _, s := range scripts {
				l := listedScenario{Name: s.Name, Summary: s.Summary, Needs: []string{}, Alone: s.Alone, File: s.File}
				for _, need := range s.Needs {
					l.Needs = append(l.Needs, need.String())
				}
				list.Scenarios = append(list.Scenarios, l)
			}
			return a.print(list, func(w io.Writer) {
				t := table.New(w)
				t.AppendHeader(table.Row{"Scenario", "Needs", "What it shows"})
				for _, s := range list.Scenarios {
					t.AppendRow(table.Row{s.Name, strings.Join(s.Needs, ", "), s.Summary})
				}
				t.Render()
			})
		},
	}
}

// ranScenario is a scenario in `scenario run`: what report.json has of it, without logs and paths.
type ranScenario struct {
	Name     string              `json:"name"`
	Summary  string              `json:"summary"`
	Verdict  scenarios.Verdict   `json:"verdict"`
	Reason   string              `json:"reason"`
	Seconds  float64             `json:"seconds"`
	Bundle   string              `json:"bundle"`
	File     string              `json:"file"`
	Line     int                 `json:"line"`
	Command  string              `json:"command"`
	Expected string              `json:"expected"`
	Seen     string              `json:"seen"`
	Marks    []scenarios.Mark    `json:"marks"`
	Elapsed  []scenarios.Elapsed `json:"elapsed"`
	Attempts []scenarios.Attempt `json:"attempts"`
}

type scenarioResults struct {
	Environment string        `json:"environment"`
	Scenarios   []ranScenario `json:"scenarios"`
	Seconds     float64       `json:"seconds"`
	Report      string        `json:"report"` // the report's folder
}

func scenarioResultsOf(r scenarios.Report) scenarioResults {
	results := scenarioResults{Environment: r.Environment, Scenarios: []ranScenario{}, Seconds: r.Seconds, Report: r.Dir}
	for _, s := range r.Scenarios {
		results.Scenarios = append(results.Scenarios, ranScenario{s.Name, s.Summary, s.Verdict, s.Reason, s.Seconds, s.Bundle, s.File, s.Line,
			s.Command, s.Expected, s.Seen, s.Marks, s.Elapsed, s.Attempts})
	}
	return results
}

func scenarioRunCommand(a *app) *cobra.Command {
	var request lifecycle.ScenarioRequest
	cmd := &cobra.Command{
		Use:   "run [NAME|FILE|GLOB...]",
		Short: "Run scenarios on an environment, and report",
		Long: `Runs scenarios on a running environment: those built in (toastdev scenario list) by name or glob, others by their files; without
arguments all that are built in and fit. Each works in a project of its own, and what it made or broke is put back when it
ends, also when it fails or is interrupted. The report (index.html, junit.xml, report.json) and the evidence of what failed
are in the report's folder. Exit code 3: an expectation was not met.`,
		Annotations:       live,
		ValidArgsFunction: completeScenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			if request.Parallel < 0 || request.Repeat < 1 {
				return fault.New(fault.Invalid, "--parallel and --repeat take a number from 1 on")
			}
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			request.Environment, request.Names = a.name, args
			a.interrupted = "interrupted; what the scenarios made is removed"
			told := context.AfterFunc(cmd.Context(), func() {
				fmt.Fprintln(a.err, "interrupted: what the scenarios made is being removed (Ctrl-C again leaves that to the next run)")
			})
			defer told()
			r, err := t.Scenarios(cmd.Context(), request)
			if r.Dir == "" {
				return err
			}
			printed := a.print(scenarioResultsOf(r), func(w io.Writer) {
				report.Print(w, r)
				fmt.Fprintf(w, "Report: %s\n", r.Dir)
			})
			if err = errors.Join(err, printed); err == nil && r.Failed() {
				return exitCode(exitExpectation)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&request.Dir, "report", "", "the report's folder (default: one of its own in the environment's folder)")
	cmd.Flags().IntVar(&request.Parallel, "parallel", 0, "how many run side by side (default: as many as this machine bears)")
	cmd.Flags().IntVar(&request.Repeat, "repeat", 1, "run each so many times, and tell those that fail at times")
	cmd.Flags().BoolVar(&request.KeepOnFailure, "keep-on-failure", false, "leave what a failed scenario made, to be looked at, until the next run")
	return cmd
}

// completeScenarios completes the names of scenarios, and files.
func completeScenarios(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	scripts, err := scenarios.Builtin()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, s := range scripts {
		if strings.HasPrefix(s.Name, word) {
			names = append(names, s.Name+"\t"+s.Summary)
		}
	}
	return names, cobra.ShellCompDirectiveDefault // files too
}

// scenarioLanguage is the script language in `scenario help`.
type scenarioLanguage struct {
	Commands   []scenarios.Word  `json:"commands"`
	Conditions map[string]string `json:"conditions"`
	Variables  map[string]string `json:"variables"`
}

func scenarioHelpCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND...]",
		Short: "Explain the script language, or some of its commands",
		ValidArgsFunction: func(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, w := range scenarios.Words() {
				if strings.HasPrefix(w.Name, word) {
					names = append(names, w.Name+"\t"+w.Summary)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			words := scenarios.Words()
			if len(args) > 0 {
				var chosen []scenarios.Word
				for _, arg := range args {
					w, err := word(words, arg)
					if err != nil {
						return err
					}
					chosen = append(chosen, w)
				}
				return a.print(scenarioLanguage{Commands: chosen}, func(w io.Writer) {
					for i, word := range chosen {
						if i > 0 {
							fmt.Fprintln(w)
						}
						printWord(w, word)
					}
				})
			}
			l := scenarioLanguage{Commands: words, Conditions: map[string]string{}, Variables: scenarios.Variables}
			for name, c := range scenarios.Conditions() {
				if c.Suffix != "" {
					name += ":" + c.Suffix
				}
				l.Conditions[name] = c.Summary
			}
			return a.print(l, func(w io.Writer) { printLanguage(w, l) })
		},
	}
}

func word(words []scenarios.Word, name string) (scenarios.Word, error) {
	var names []string
	for _, w := range words {
		if w.Name == name {
			return w, nil
		}
		names = append(names, w.Name)
	}
	e := fault.New(fault.Invalid, "scripts have no command %q", name).WithRemedy("`toastdev scenario help` lists them")
	return scenarios.Word{}, e.Suggest(name, names)
}

func printWord(w io.Writer, word scenarios.Word) {
	fmt.Fprintf(w, "%s\n\n  %s.\n", strings.TrimSpace(word.Name+" "+word.Args), sentence(word.Summary))
	for _, line := range word.Detail {
		if example, ok := strings.CutPrefix(line, "Example: "); ok {
			fmt.Fprintf(w, "\n  Example:\n    %s\n", example)
			continue
		}
		fmt.Fprintln(w, "  "+line)
	}
	if word.Flags != "" {
		fmt.Fprintf(w, "\n%s", word.Flags)
	}
	if word.Async {
		fmt.Fprintln(w, "\n  It may run in the background: a line that ends with &.")
	}
	if word.Alone {
		fmt.Fprintln(w, "\n  It disturbs the region: before it the scenario waits until no other runs, and none begins beside it from then on.")
	}
}

// sentence begins with a capital.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

func printLanguage(w io.Writer, l scenarioLanguage) {
	fmt.Fprint(w, `A scenario is a text file, NAME.txtar. Its first line is "# NAME: what it shows"; a line is a command:

  [CONDITION] [!CONDITION] [! or ?] COMMAND ARG... [&]    # a comment

  !  the command must fail; ?  it may; &  it goes on beside the next lines, until join.
  'single quotes' keep blanks, and $ as it is. $NAME is a variable; a command that makes vm sets $vm to its id.
  Files follow the script, each behind a line -- NAME --.

Commands (toastdev scenario help COMMAND explains one):
`)
	t := table.New(w)
	for _, word := range l.Commands {
		t.AppendRow(table.Row{"  " + word.Name, word.Summary})
	}
	t.Render()
	printWords(w, "Conditions", l.Conditions, "[%s]")
	printWords(w, "Variables", l.Variables, "$%s")
}

func printWords(w io.Writer, heading string, words map[string]string, form string) {
	fmt.Fprintf(w, "\n%s:\n", heading)
	t := table.New(w)
	for _, name := range slices.Sorted(maps.Keys(words)) {
		t.AppendRow(table.Row{"  " + fmt.Sprintf(form, name), words[name]})
	}
	t.Render()
}

func scenarioPathCommand(a *app) *cobra.Command {
	var svg string
	cmd := &cobra.Command{
		Use:   "path CAPTURE FROM TO",
		Short: "Compute the way that packets took from a capture's files, and draw it",
		Long: `Computes from a capture's files alone (a folder with capture.json and pcap files, in the evidence of a report) the hops that
packets took from one end to the other. An end is an address, or what the capture calls one. --svg draws it.`,
		Args: cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			p, err := t.CapturedPath(args[0], args[1], args[2])
			if err != nil {
				return err
			}
			if svg == "" {
				return a.print(p, func(w io.Writer) { fmt.Fprintln(w, strings.TrimRight(p.String(), "\n")) })
			}
			var drawing bytes.Buffer
			if err := t.DrawPath(&drawing, a.name, args[0], p); err != nil {
				return err
			}
			if svg == "-" {
				_, err := a.out.Write(drawing.Bytes())
				return err
			}
			return os.WriteFile(svg, drawing.Bytes(), 0o644)
		},
	}
	cmd.Flags().StringVar(&svg, "svg", "", "write the drawing to this file; - is stdout")
	return cmd
}
