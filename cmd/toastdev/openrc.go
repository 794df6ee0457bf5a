package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func openrcCommand(a *app) *cobra.Command {
	var as string
	cmd := &cobra.Command{
		Use:   "openrc",
		Short: "Print the environment's credentials for OpenStack clients",
		Long: `Prints the credentials for any OpenStack client on this host: eval "$(toastdev openrc)". They are the region's admin, scoped to
the newcomer's project demo; --as demo gives its plain user.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			text, err := t.Openrc(a.name, as)
			if err != nil {
				return err
			}
			fmt.Fprint(a.out, text)
			return nil
		},
	}
	cmd.Flags().StringVar(&as, "as", "admin", "whose credentials: admin, demo")
	return cmd
}

func openstackCommand(a *app) *cobra.Command {
	var as string
	cmd := &cobra.Command{
		Use:   "openstack -- ARG...",
		Short: "Run the openstack client on the control node",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			n, command, err := t.Client(a.name, as, args)
			if err != nil {
				return err
			}
			return a.attached(cmd.Context(), n, command)
		},
	}
	cmd.Flags().StringVar(&as, "as", "admin", "whose credentials: admin, demo")
	return cmd
}
