package main

import (
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/lifecycle"
	"github.com/toast-cloud/toastdev/internal/table"
)

func statusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show an environment's nodes, services and endpoints, and whether it is healthy",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			status, err := t.Status(cmd.Context(), a.name)
			if err != nil {
				return err
			}
			return a.print(status, func(w io.Writer) { printStatus(w, status) })
		},
	}
}

func printStatus(w io.Writer, s *lifecycle.Status) {
	health := "healthy"
	if !s.Healthy {
		health = "NOT healthy"
	}
	fmt.Fprintf(w, "%s is %s (%s)\n\n", s.Environment, health, s.NAS)
	t := table.New(w)
	t.AppendHeader(table.Row{"Node", "Roles", "Provisioner", "State", "Memory", "Addresses"})
	total := int64(0)
	for _, n := range s.Nodes {
		var addresses []string
		for network, address := range n.Addresses {
			addresses = append(addresses, network+"="+address)
		}
		sort.Strings(addresses)
		memory := ""
		if n.Memory != nil {
			memory = gigabytes(*n.Memory)
			total += *n.Memory
		}
		t.AppendRow(table.Row{n.Name, words(n.Roles), n.Provisioner, n.State, memory, strings.Join(addresses, " ")})
	}
	t.AppendFooter(table.Row{"", "", "", "", gigabytes(total), ""})
	t.Render()
	fmt.Fprintln(w)
	t = table.New(w)
	t.AppendHeader(table.Row{"Component", "Service", "Node", "Up"})
	for _, service := range s.Services {
		up := "up"
		if !service.Up {
			up = "DOWN"
		}
		t.AppendRow(table.Row{service.Component, service.Name, service.Node, up})
	}
	t.Render()
	fmt.Fprintln(w)
	t = table.New(w)
	for _, name := range sortedKeys(s.Endpoints) {
		t.AppendRow(table.Row{name, s.Endpoints[name]})
	}
	t.Render()
	if len(s.Forwards) > 0 {
		fmt.Fprintln(w)
		t = table.New(w)
		t.AppendHeader(table.Row{"Port of this machine", "Leads to", "For"})
		for _, f := range s.Forwards {
			t.AppendRow(table.Row{f.Host, f.To, f.Name})
		}
		t.Render()
	}
	if len(s.Overlays) > 0 {
		fmt.Fprintln(w)
		t = table.New(w)
		t.AppendHeader(table.Row{"Component", "Laid over its code", "On"})
		for _, l := range s.Overlays {
			on := words(l.Nodes)
			if on == "" {
				on = "all that run it"
			}
			t.AppendRow(table.Row{l.Component, l, on})
		}
		t.Render()
	}
	for _, warning := range s.Warnings {
		fmt.Fprintln(w, "warning:", warning)
	}
}

func gigabytes(bytes int64) string { return fmt.Sprintf("%.2f GB", float64(bytes)/1e9) }

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
