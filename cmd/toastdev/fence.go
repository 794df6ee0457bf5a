package main

import "github.com/spf13/cobra"

func fenceCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "fence",
		Short: "Let the region's evacuator power computes off, until Ctrl-C",
		Long: `Serves the environment's fence on the host's address of its management network, as a machine's management controller would: whoever has
the environment's secret powers a compute off by it, and asks whether it is off. The evacuator of the region evacuates no instance of a
compute that was not fenced. It runs where the topology's pillar says evacuator: {enabled: true}.

  toastdev up --set pillar.evacuator.enabled=true
  toastdev fence &
  docker kill mini-kr1-cmp1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			return t.Fence(cmd.Context(), a.name)
		},
	}
}
