package main

import (
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/table"
	"github.com/toast-cloud/toastdev/topologies"
)

func releaseCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "release", Short: "Show the OpenStack releases that a region can have"}
	cmd.AddCommand(releaseListCommand(a), releaseShowCommand(a))
	return cmd
}

// releaseResult is a line of `release list`.
type releaseResult struct {
	Name         string        `json:"name"`
	Series       string        `json:"series"`
	OS           topologies.OS `json:"os"`
	Capabilities []string      `json:"capabilities"`
}

func releaseListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the releases",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var results struct {
				Releases []releaseResult `json:"releases"`
			}
			for _, name := range topologies.Releases() {
				r, err := topologies.LoadRelease(name)
				if err != nil {
					return err
				}
				results.Releases = append(results.Releases, releaseResult{r.Name, r.Series, r.OS, r.Capabilities})
			}
			return a.print(results, func(w io.Writer) {
				t := table.New(w)
				t.AppendHeader(table.Row{"Release", "Series", "Nodes run", "Capabilities"})
				for _, r := range results.Releases {
					t.AppendRow(table.Row{r.Name, r.Series, r.OS.Distribution + " " + r.OS.Suite, words(r.Capabilities)})
				}
				t.Render()
			})
		},
	}
}

func releaseShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show RELEASE",
		Short: "Show a release: its components, where their code lies, their packages and units by role",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := topologies.LoadRelease(args[0])
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) {
				t := table.New(w)
				t.AppendHeader(table.Row{"Component", "Role", "Packages", "Units", "Code"})
				for _, name := range slices.Sorted(maps.Keys(r.Components)) {
					c := r.Components[name]
					first := true
					for _, role := range append([]string{topologies.AllNodes}, topologies.Roles()...) {
						if len(c.Packages[role])+len(c.Units[role]) == 0 {
							continue
						}
						row := table.Row{name, role, words(c.Packages[role]), words(c.Units[role]), c.Code}
						if !first {
							row[0], row[4] = "", ""
						}
						first = false
						t.AppendRow(row)
					}
				}
				t.Render()
			})
		},
	}
}
