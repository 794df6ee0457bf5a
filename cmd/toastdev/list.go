package main

import (
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/table"
)

// listed is an environment in `toastdev list -o json`.
type listed struct {
	Name     string    `json:"name"`
	Topology string    `json:"topology"`
	State    string    `json:"state"`
	Created  time.Time `json:"created"`
}

func listCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the environments of this home",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			records, err := t.List()
			if err != nil {
				return err
			}
			environments := make([]listed, 0, len(records))
			for _, r := range records {
				environments = append(environments, listed{Name: r.Name, Topology: r.Topology, State: string(r.State), Created: r.Created})
			}
			return a.print(map[string]any{"environments": environments}, func(w io.Writer) {
				t := table.New(w)
				t.AppendHeader(table.Row{"Name", "Topology", "State", "Created"})
				for _, e := range environments {
					t.AppendRow(table.Row{e.Name, e.Topology, e.State, e.Created.Local().Format("2006-01-02 15:04")})
				}
				t.Render()
			})
		},
	}
}
