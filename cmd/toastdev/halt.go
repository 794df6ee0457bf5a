package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func haltCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "halt",
		Short: "Stop an environment's nodes and keep them",
		Long: `Shuts the nodes down, those first that need others for it. Nothing of the environment is removed: the next up starts the
same nodes with all that is on them.`,
		Args:        cobra.NoArgs,
		Annotations: live,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			halted, err := t.Halt(cmd.Context(), a.name)
			if err != nil {
				return err
			}
			return a.print(halted, func(w io.Writer) {
				printPhases(w, halted.Phases)
				fmt.Fprintf(w, "Environment %s is halted: `toastdev up` starts it again.\n", halted.Environment)
			})
		},
	}
}
