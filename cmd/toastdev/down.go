package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func downCommand(a *app) *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take an environment away",
		Long: `Removes all that the environment has outside toastdev's home: nodes, volumes, networks. Its record stays, so that the next
up has the same addresses; --purge removes that too, with its secrets, logs and reports.`,
		Args:        cobra.NoArgs,
		Annotations: live,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			down, err := t.Down(cmd.Context(), a.name, purge)
			if err != nil {
				return err
			}
			return a.print(down, func(w io.Writer) {
				printPhases(w, down.Phases)
				fmt.Fprintf(w, "Environment %s is down.\n", down.Environment)
			})
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "also remove its record, secrets, logs and reports")
	return cmd
}
