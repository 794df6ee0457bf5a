package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/lifecycle"
	"github.com/toast-cloud/toastdev/scenarios"
	"github.com/toast-cloud/toastdev/scenarios/report"
)

// nightlyResults is `nightly` in JSON. What report.json has more of is logs and paths.
type nightlyResults struct {
	Topologies []nightlyTopology  `json:"topologies"`
	Seconds    float64            `json:"seconds"`
	Report     string             `json:"report"` // the report's folder
	Compared   *report.Comparison `json:"compared"`
}

type nightlyTopology struct {
	Topology    string            `json:"topology"`
	Environment string            `json:"environment"`
	Problem     string            `json:"problem"` // why no scenario ran
	Phases      []scenarios.Phase `json:"phases"`
	Scenarios   []ranScenario     `json:"scenarios"`
}

func nightlyResultsOf(night *lifecycle.Night) nightlyResults {
	results := nightlyResults{Seconds: night.Seconds, Report: night.Dir, Compared: night.Compared}
	for _, r := range night.All() {
		results.Topologies = append(results.Topologies, nightlyTopology{r.Topology, r.Environment, r.Problem, r.Phases, scenarioResultsOf(r).Scenarios})
	}
	return results
}

func nightlyCommand(a *app) *cobra.Command {
	var request lifecycle.NightlyRequest
	var shard string
	cmd := &cobra.Command{
		Use:   "nightly",
		Short: "Bring a region up, run every scenario that fits, write the report, take it down",
		Long: `Makes an environment of its own (nightly-TOPOLOGY) from whatever images are there, runs every built-in scenario that fits the
topology, keeps the nodes' logs, writes the report (index.html, junit.xml, report.json, captures) and takes the
environment down, after a failure and Ctrl-C too. With several topologies it does so for one after the other.

Exit codes: 0 all passed, 3 a scenario's expectation not met, 1 the region did not come up or down (there is a report all
the same), 130 interrupted. docs/ci.md has pipeline files.`,
		Args:        cobra.NoArgs,
		Annotations: live,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if request.Shard, request.Shards, err = parseShard(shard); err != nil {
				return err
			}
			request.Name = a.name
			a.interrupted = "interrupted; the region is down, and the report has what ran before"
			if request.Keep {
				a.interrupted = "interrupted; the region is left as it is, and the report has what ran before"
			}
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			night, err := t.Nightly(cmd.Context(), request)
			if night != nil {
				err = errors.Join(err, a.print(nightlyResultsOf(night), func(w io.Writer) { printNight(w, night) }))
			}
			if err == nil && night.Failed() {
				return exitCode(exitExpectation)
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&request.Topologies, "topology", nil, "a built-in's name or a file (may be given several times; default: mini)")
	cmd.Flags().StringVar(&shard, "shard", "", "run part `i/n` of the scenarios: 1/3, 2/3 and 3/3 together are all, on machines that need not know of each other")
	cmd.Flags().StringVar(&request.Dir, "report", "report", "the folder of the report")
	cmd.Flags().StringVar(&request.Compare, "compare", "", "the folder of an earlier report: show what newly fails and what got slower")
	cmd.Flags().BoolVar(&request.Keep, "keep", false, "leave the environment up")
	return cmd
}

func printNight(w io.Writer, night *lifecycle.Night) {
	report.Print(w, *night.Report)
	if night.Compared != nil {
		night.Compared.Print(w)
	}
	fmt.Fprintf(w, "\nThe report is %s.\n", filepath.Join(night.Dir, report.HTMLFile))
}

// parseShard reads i/n, 1 <= i <= n; "" is 0, 0.
func parseShard(s string) (i, n int, err error) {
	if s == "" {
		return 0, 0, nil
	}
	if m := regexp.MustCompile(`^([1-9]\d{0,3})/([1-9]\d{0,3})$`).FindStringSubmatch(s); m != nil {
		i, _ = strconv.Atoi(m[1])
		n, _ = strconv.Atoi(m[2])
	}
	if i < 1 || i > n {
		return 0, 0, &fault.Error{Code: fault.Invalid, Path: "--shard", Message: fmt.Sprintf("%q is no part of a whole", s), Expected: "i/n with i from 1 to n: 2/3"}
	}
	return i, n, nil
}
