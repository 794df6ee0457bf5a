package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/lifecycle"
	"github.com/toast-cloud/toastdev/internal/table"
	"github.com/toast-cloud/toastdev/topologies"
)

func planCommand(a *app) *cobra.Command {
	var want wanted
	cmd := &cobra.Command{
		Use:   "plan [TOPOLOGY]",
		Short: "Show what an environment would be, and what `up` would change",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			p, err := t.Plan(cmd.Context(), want.request(a, args))
			if err != nil {
				return err
			}
			return a.print(p, func(w io.Writer) { printPlan(w, p) })
		},
	}
	want.flags(cmd)
	return cmd
}

func printPlan(w io.Writer, p *lifecycle.Planned) {
	fmt.Fprintf(w, "environment %s, release %s, routing %s, tenant networks %s, API %s\n\n",
		p.Environment, p.ReleaseName, p.Routing, p.TenantNetwork, p.API)
	t := table.New(w)
	t.AppendHeader(table.Row{"Network", "Subnet", "Gateway", "MTU", "Interface"})
	for _, n := range p.Networks {
		t.AppendRow(table.Row{n.Name, n.Subnet, n.Gateway, n.MTU, n.Bridge})
	}
	t.Render()
	fmt.Fprintln(w)
	t = table.New(w)
	t.AppendHeader(table.Row{"Node", "Roles", "Provisioner", "Datapath", "NAS by", "Instances by", "Memory", "Addresses"})
	for _, n := range p.Nodes {
		var addresses []string
		for _, nic := range n.NICs {
			addresses = append(addresses, fmt.Sprintf("%s=%s", nic.Name, nic.Addresses[0].Addr()))
		}
		memory := ""
		if n.Memory > 0 {
			memory = topologies.Size(n.Memory).String()
		}
		t.AppendRow(table.Row{n.Name, words(n.Roles), n.Provisioner, n.Datapath, n.NFSClient, n.VirtType, memory, strings.Join(addresses, " ")})
	}
	t.Render()
	fmt.Fprintln(w)
	if len(p.Changes) == 0 {
		fmt.Fprintln(w, "Nothing would change.")
		return
	}
	for _, c := range p.Changes {
		fmt.Fprintf(w, "%-8s %s\n", c.Action, c.Resource)
		for _, f := range c.Fields {
			fmt.Fprintf(w, "         %s: %v -> %v\n", f.Path, f.Before, f.After)
		}
	}
}
