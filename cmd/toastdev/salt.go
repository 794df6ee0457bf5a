package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/table"
	"github.com/toast-cloud/toastdev/salt/run"
)

func saltCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "salt", Short: "Run Salt on the nodes"}
	cmd.AddCommand(saltApplyCommand(a))
	return cmd
}

func saltApplyCommand(a *app) *cobra.Command {
	var states []string
	var test bool
	cmd := &cobra.Command{
		Use:         "apply [NODE...]",
		Short:       "Run the highstate, or some states, on all nodes or on some",
		Annotations: live,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			results, err := t.Salt(cmd.Context(), a.name, args, states, test)
			if results == nil {
				return err
			}
			printErr := a.print(map[string]any{"nodes": results}, func(w io.Writer) { printSalt(w, results, test) })
			if err != nil {
				return err
			}
			return printErr
		},
	}
	cmd.Flags().StringSliceVar(&states, "state", nil, "run these states alone (may be given several times)")
	cmd.Flags().BoolVar(&test, "test", false, "say what would change, and change nothing")
	return cmd
}

func printSalt(w io.Writer, results []run.Result, test bool) {
	for _, r := range results {
		for _, c := range r.Changes {
			fmt.Fprintf(w, "%s  %s (%s): %s\n", r.Node, c.State, c.Fun, c.Comment)
		}
	}
	changed := "Changed"
	if test {
		changed = "Would change"
	}
	t := table.New(w)
	t.AppendHeader(table.Row{"Node", "States", changed, "Failed", "Seconds"})
	for _, r := range results {
		t.AppendRow(table.Row{r.Node, r.States, r.Changed, r.Failed, fmt.Sprintf("%.1f", r.Seconds)})
	}
	t.Render()
}
