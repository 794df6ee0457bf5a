package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/lifecycle"
	"github.com/toast-cloud/toastdev/internal/table"
)

func codeCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "code", Short: "Lay source trees over the installed OpenStack, live"}
	cmd.AddCommand(codeApplyCommand(a), codeWatchCommand(a), codeStatusCommand(a), codeRevertCommand(a))
	return cmd
}

// overlayCommand makes cmd a verb that changes what is laid over an environment's nodes.
func overlayCommand(a *app, cmd *cobra.Command, request *lifecycle.OverlayRequest, change func(*lifecycle.Toastdev, context.Context, []string, lifecycle.OverlayRequest) (*lifecycle.Overlaid, error)) *cobra.Command {
	cmd.Annotations = live
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := a.toastdev()
		if err != nil {
			return err
		}
		request.Environment = a.name
		done, err := change(t, cmd.Context(), args, *request)
		if err != nil {
			return err
		}
		return a.overlaid(done)
	}
	overlayFlags(cmd, request)
	return cmd
}

// overlayFlags are the flags of the verbs that change what is laid.
func overlayFlags(cmd *cobra.Command, request *lifecycle.OverlayRequest) {
	cmd.Flags().StringArrayVar(&request.Nodes, "node", nil, "on this node alone; may be given several times (default: all that run the component)")
	cmd.Flags().BoolVar(&request.Force, "force", false, "also over files that were edited on a node, and of a tree that needs what nodes do not have")
	upstreamFlag(cmd, &request.Upstreams)
}

// overlaid prints what came of a change of overlays.
func (a *app) overlaid(done *lifecycle.Overlaid) error {
	return a.print(done, func(w io.Writer) {
		if len(done.Nodes) > 0 {
			t := table.New(w)
			t.AppendHeader(table.Row{"Node", "Files", "Restarted"})
			for _, n := range done.Nodes {
				t.AppendRow(table.Row{n.Name, len(n.Files), words(n.Restarted)})
			}
			t.Render()
		}
		for _, line := range done.Migrated {
			fmt.Fprintln(w, line)
		}
		for _, note := range done.Notes {
			fmt.Fprintln(w, "Note:", note)
		}
		var times []string
		for _, p := range done.Phases {
			times = append(times, fmt.Sprintf("%s %.1f s", p.Name, p.Seconds))
		}
		fmt.Fprintf(w, "Files changed: %d; overlays laid: %d (%s).\n", done.Changed, len(done.Overlays), strings.Join(times, ", "))
	})
}

func codeApplyCommand(a *app) *cobra.Command {
	var request lifecycle.OverlayRequest
	var ref string
	cmd := overlayCommand(a, &cobra.Command{
		Use:   "apply [COMPONENT=PATH...]",
		Short: "Lay a component's source tree over the nodes that run it",
		Long: `Lays source trees over the nodes that run their components, restarts the units whose code changed, and waits until the region is
healthy. A tree is a folder with its uncommitted changes, or with --ref what its repository has. It must be of the environment's release.
Without arguments, trees that are laid already are laid as they are now. On each node it is all or nothing.`,
	}, &request, func(t *lifecycle.Toastdev, ctx context.Context, trees []string, request lifecycle.OverlayRequest) (*lifecycle.Overlaid, error) {
		return t.ApplyCode(ctx, trees, ref, request)
	})
	cmd.Flags().StringVar(&ref, "ref", "", "a branch, a tag or a commit of the trees' repositories (default: the files as they are)")
	cmd.Flags().BoolVar(&request.Migrate, "migrate", false, "bring the databases to what the code wants")
	return cmd
}

func codeRevertCommand(a *app) *cobra.Command {
	return overlayCommand(a, &cobra.Command{
		Use:   "revert [COMPONENT...]",
		Short: "Take source trees off the nodes: the packages' code comes back, to the byte",
	}, new(lifecycle.OverlayRequest), (*lifecycle.Toastdev).RevertCode)
}

type codeResults struct {
	Code []lifecycle.LaidCode `json:"code"`
}

func codeStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what is laid over the nodes' code: trees and patches",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			list, err := t.Code(cmd.Context(), a.name)
			if err != nil {
				return err
			}
			return a.print(codeResults{list}, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "Nothing is laid over the nodes' code.")
					return
				}
				t := table.New(w)
				t.AppendHeader(table.Row{"Node", "Component", "Laid", "Files", "Since"})
				for _, c := range list {
					t.AppendRow(table.Row{c.Node, c.Component, strings.Join(c.Layers, "\n"), c.Files, since(c)})
				}
				t.Render()
				for _, c := range list {
					if !c.Complete {
						fmt.Fprintf(w, "%s: a change of %s was killed in its middle: the next apply or revert finishes or undoes it\n", c.Node, c.Component)
					}
					if len(c.Edited) > 0 {
						fmt.Fprintf(w, "%s: changed on the node since: %s\n", c.Node, words(c.Edited))
					}
					if len(c.Pending) > 0 {
						fmt.Fprintf(w, "%s: not restarted yet for %s\n", c.Node, words(c.Pending))
					}
				}
			})
		},
	}
}

func since(c lifecycle.LaidCode) string {
	if c.At.IsZero() {
		return "-"
	}
	return c.At.Local().Format("2006-01-02 15:04:05")
}

func codeWatchCommand(a *app) *cobra.Command {
	var request lifecycle.OverlayRequest
	cmd := &cobra.Command{
		Use:   "watch COMPONENT[=PATH]",
		Short: "Lay a source tree, and from then on each file that is saved in it",
		Long: `Lays a component's source tree as apply does, and then, until Ctrl-C, each save in it: the files are laid on all nodes that run the
component and the units that have them loaded are restarted. A file with a syntax error is told, and changes nothing. The tree
stays laid afterwards; toastdev code revert takes it off.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			request.Environment = a.name
			a.interrupted = "no longer watched; the tree stays laid: `toastdev code revert` takes it off"
			err = t.WatchCode(cmd.Context(), args[0], request, a.saved)
			if err == nil {
				fmt.Fprintln(a.err, a.interrupted)
			}
			return err
		},
	}
	overlayFlags(cmd, &request)
	return cmd
}

// saved prints what came of a save, in JSON a line each.
func (a *app) saved(s lifecycle.Saved) {
	if s.Error != nil {
		a.tell(s.Error)
		return
	}
	if a.json {
		a.line(s)
		return
	}
	var units []string
	for _, n := range s.Nodes {
		if len(n.Restarted) > 0 {
			units = append(units, fmt.Sprintf("%s: %s %.1f s", n.Name, words(n.Restarted), n.Seconds))
		}
	}
	if len(units) == 0 {
		units = []string{"nothing has it loaded"}
	}
	fmt.Fprintf(a.out, "%s: live after %.1f s (%s)\n", words(s.Files), s.Seconds, strings.Join(units, "; "))
}
