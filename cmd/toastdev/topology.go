package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/table"
	"github.com/toast-cloud/toastdev/topologies"
)

func topologyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "topology", Short: "Show and check topologies"}
	cmd.AddCommand(topologyListCommand(a), topologyShowCommand(a), topologyValidateCommand(a))
	return cmd
}

// topologyResult is a line of `topology list` and of `topology validate`.
type topologyResult struct {
	Name    string   `json:"name"`
	File    string   `json:"file"`
	Release string   `json:"release"`
	Routing string   `json:"routing"`
	Nodes   []string `json:"nodes"`
}

func topologyResultOf(t *topologies.Topology) topologyResult {
	result := topologyResult{Name: t.Name, File: t.File, Release: t.Release, Routing: t.Routing}
	for _, key := range t.Keys() {
		result.Nodes = append(result.Nodes, t.Nodes[key].Names(key)...)
	}
	return result
}

type topologyResults struct {
	Topologies []topologyResult `json:"topologies"`
}

func topologyListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the topologies built in",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var results topologyResults
			for _, name := range topologies.Builtin() {
				t, err := topologies.Load(topologies.Source{Ref: name})
				if err != nil {
					return err
				}
				results.Topologies = append(results.Topologies, topologyResultOf(t))
			}
			return a.print(results, func(w io.Writer) {
				t := table.New(w)
				t.AppendHeader(table.Row{"Topology", "Release", "Routing", "Nodes"})
				for _, r := range results.Topologies {
					t.AppendRow(table.Row{r.Name, r.Release, r.Routing, words(r.Nodes)})
				}
				t.Render()
			})
		},
	}
}

func topologyShowCommand(a *app) *cobra.Command {
	var sets []string
	cmd := &cobra.Command{
		Use:   "show [TOPOLOGY]",
		Short: "Show a topology with its defaults filled in and --set applied",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			source := topologies.Source{Sets: sets}
			if len(args) > 0 {
				source.Ref = args[0]
			}
			t, err := topologies.Load(source)
			if err != nil {
				return err
			}
			text, err := t.YAML()
			if err != nil {
				return err
			}
			return a.print(t, func(w io.Writer) { w.Write(text) })
		},
	}
	cmd.Flags().StringArrayVar(&sets, "set", nil, "path=value: nodes.cmp.count=3; may be given several times")
	return cmd
}

func topologyValidateCommand(a *app) *cobra.Command {
	var sets []string
	cmd := &cobra.Command{
		Use:   "validate TOPOLOGY...",
		Short: "Check topologies, and say where they are wrong",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var results topologyResults
			var wrong []error
			for _, ref := range args {
				t, err := topologies.Load(topologies.Source{Ref: ref, Sets: sets})
				if err != nil {
					wrong = append(wrong, err)
					continue
				}
				results.Topologies = append(results.Topologies, topologyResultOf(t))
			}
			if len(wrong) > 0 {
				return errors.Join(wrong...)
			}
			return a.print(results, func(w io.Writer) {
				for i, ref := range args {
					fmt.Fprintf(w, "%s: valid, nodes %s\n", ref, words(results.Topologies[i].Nodes))
				}
			})
		},
	}
	cmd.Flags().StringArrayVar(&sets, "set", nil, "path=value: nodes.cmp.count=3; may be given several times")
	return cmd
}
