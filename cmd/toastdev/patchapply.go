package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/lifecycle"
	"github.com/toast-cloud/toastdev/internal/table"
)

func patchApplyCommand(a *app) *cobra.Command {
	return overlayCommand(a, &cobra.Command{
		Use:   "apply [NAME...]",
		Short: "Lay patches over the environment's nodes",
		Long: `Lays patches over the installed code of the nodes that run their components: those named, else all of the release's series, in the
series' order. Whether all fit is looked at before anything changes; on each node it is all or nothing. Exactly the units whose
code changed are restarted; it returns when the region is healthy with them.`,
	}, new(lifecycle.OverlayRequest), (*lifecycle.Toastdev).ApplyPatches)
}

func patchRevertCommand(a *app) *cobra.Command {
	return overlayCommand(a, &cobra.Command{
		Use:   "revert [NAME...]",
		Short: "Take patches off the environment's nodes: the packages' code comes back, to the byte",
	}, new(lifecycle.OverlayRequest), (*lifecycle.Toastdev).RevertPatches)
}

func patchBisectCommand(a *app) *cobra.Command {
	var request lifecycle.BisectRequest
	cmd := &cobra.Command{
		Use:   "bisect --scenario NAME",
		Short: "Find the patch that makes a scenario fail, or that mends it",
		Long: `Finds which patch of the release's series makes a scenario fail on the running environment: lays the series up to some patch, runs the
scenario, and halves what is left. --good and --bad are how many patches are laid (default: none, all). With --tree it is the
commits of a component's repository, between the commits --good and --bad. With --fixes: which one mends it. What was laid
before is laid again at the end.`,
		Args:        cobra.NoArgs,
		Annotations: live,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if request.Scenario == "" {
				return fault.New(fault.Invalid, "no scenario is named").WithRemedy("say --scenario NAME; `toastdev scenario list` shows them")
			}
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			request.Environment = a.name
			found, err := t.Bisect(cmd.Context(), request)
			if err != nil {
				return err
			}
			return a.print(found, func(w io.Writer) {
				t := table.New(w)
				t.AppendHeader(table.Row{"Run", "Laid", "Last", "Verdict", "Seconds"})
				for i, r := range found.Runs {
					t.AppendRow(table.Row{i + 1, r.Changes, r.Last, r.Verdict, fmt.Sprintf("%.0f", r.Seconds)})
				}
				t.Render()
				does := "makes it fail"
				if found.Fixes {
					does = "mends it"
				}
				fmt.Fprintf(w, "\n%s: %s %s%s\n", found.Scenario, found.Culprit, does, behind(": ", found.Summary))
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&request.Scenario, "scenario", "", "the scenario: a built-in name or a file")
	flags.StringVar(&request.Component, "component", "", "the component whose series is meant (default: all, one after another)")
	flags.StringVar(&request.Tree, "tree", "", "component=PATH: commits of this repository, not patches")
	flags.StringVar(&request.Good, "good", "", "how many patches are laid where it passes; with --tree a commit")
	flags.StringVar(&request.Bad, "bad", "", "how many patches are laid where it fails; with --tree a commit")
	flags.BoolVar(&request.Fixes, "fixes", false, "search for what mends it: it fails with --good, and passes with --bad")
	upstreamFlag(cmd, &request.Upstreams)
	return cmd
}
