package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/host"
	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/internal/table"
)

// diagnosis is `toastdev doctor -o json`.
type diagnosis struct {
	Ready  bool         `json:"ready"` // a region can come up here
	Checks []host.Check `json:"checks"`
	Facts  host.Facts   `json:"facts"`
}

func doctorCommand(a *app) *cobra.Command {
	var fix bool
	var wanted []string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Show what this machine can do, what follows from it, and what is missing",
		Long: `Shows what was found on this machine, what follows from it for a region, and the remedy for what is missing; nothing is
assumed. With --for what VM nodes need is among it. With --fix it installs and starts what can be (on Debian and Ubuntu, as root), and says first what that is.
The exit code is 1 while something is missing without which no region comes up.`,
		Args:        cobra.NoArgs,
		Annotations: live,
		RunE: func(cmd *cobra.Command, _ []string) error {
			home, err := project.OpenHome()
			if err != nil {
				return err
			}
			d := examine(cmd, home, wanted)
			if fix {
				if err := host.Fix(cmd.Context(), d.Checks); err != nil {
					return err
				}
				d = examine(cmd, home, wanted)
			}
			if err := a.print(d, func(w io.Writer) { printDiagnosis(w, d) }); err != nil {
				return err
			}
			if !d.Ready {
				return fault.New(fault.Missing, "no region comes up on this machine yet").WithRemedy("%s", remedyOf(d))
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&wanted, "for", nil, "also `provisioner`s that a topology wants beside docker: libvirt")
	cmd.Flags().BoolVar(&fix, "fix", false, "install and start what is missing")
	return cmd
}

func examine(cmd *cobra.Command, home *project.Home, wanted []string) diagnosis {
	facts := host.Look(cmd.Context(), home.Path())
	d := diagnosis{Checks: host.Checks(facts, wanted...), Facts: facts}
	d.Ready = !slices.ContainsFunc(d.Checks, func(c host.Check) bool { return c.State == host.Missing })
	return d
}

// remedyOf is the one command when it can mend everything that is missing, else where the remedies stand.
func remedyOf(d diagnosis) string {
	for _, c := range d.Checks {
		if c.State == host.Missing && c.Fix == nil && len(c.Packages) == 0 {
			return "see the remedies above"
		}
	}
	return "run `toastdev doctor --fix` as root"
}

func printDiagnosis(w io.Writer, d diagnosis) {
	t := table.New(w)
	t.AppendHeader(table.Row{"Check", "State", "Found", "What follows"})
	t.SetColumnConfigs([]table.ColumnConfig{
		{Name: "Found", WidthMax: 54, WidthMaxEnforcer: text.WrapSoft},
		{Name: "What follows", WidthMax: 54, WidthMaxEnforcer: text.WrapSoft},
	})
	for _, c := range d.Checks {
		t.AppendRow(table.Row{c.Name, c.State, c.Found, c.Follows})
	}
	t.Render()
	for _, state := range []host.State{host.Missing, host.Warn} {
		for _, c := range d.Checks {
			if c.State == state && c.Remedy != "" {
				fmt.Fprintf(w, "\n%s (%s): %s", c.Name, c.State, c.Remedy)
			}
		}
	}
	packages, doings := host.Fixes(d.Checks)
	if len(packages) > 0 {
		doings = append([]string{"install " + strings.Join(packages, " ")}, doings...)
	}
	if len(doings) > 0 {
		fmt.Fprintf(w, "\n\n`toastdev doctor --fix` would %s.", strings.Join(doings, ", "))
	}
	fmt.Fprintln(w)
}
