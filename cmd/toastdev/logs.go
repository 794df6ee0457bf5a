package main

import (
	"github.com/spf13/cobra"
)

func logsCommand(a *app) *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use:   "logs [NODE [UNIT]]",
		Short: "Show the logs of all nodes, of one, or of a unit on it",
		Args:  cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			var node, unit string
			if len(args) > 0 {
				node = args[0]
			}
			if len(args) > 1 {
				unit = args[1]
			}
			return t.Logs(cmd.Context(), a.name, node, unit, lines, follow, a.out)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as new lines come")
	cmd.Flags().IntVarP(&lines, "lines", "n", 100, "how many lines to begin with")
	return cmd
}
