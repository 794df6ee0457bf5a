package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/lifecycle"
	"github.com/toast-cloud/toastdev/internal/table"
	"github.com/toast-cloud/toastdev/patches"
)

func patchCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "patch", Short: "Keep series of patches, see whether they apply, and lay them over a region"}
	cmd.AddCommand(patchListCommand(a), patchShowCommand(a), patchCheckCommand(a), patchImportCommand(a), patchNewCommand(a), patchRefreshCommand(a),
		patchReorderCommand(a), patchExportCommand(a), patchApplyCommand(a), patchRevertCommand(a), patchBisectCommand(a))
	return cmd
}

// patchFlags are the flags that say which patches are meant and what they are tried on.
func patchFlags(cmd *cobra.Command, request *lifecycle.PatchRequest, release string) {
	cmd.Flags().StringVar(&request.Release, "release", "", "the release whose series are meant (default: "+release+")")
	cmd.Flags().StringArrayVar(&request.Trees, "tree", nil, "component=PATH: the component's source tree; may be given several times")
	upstreamFlag(cmd, &request.Upstreams)
}

func upstreamFlag(cmd *cobra.Command, upstreams *[]string) {
	cmd.Flags().StringArrayVar(upstreams, "upstream", nil, "component=PATH_OR_URL: upstream's git repository; may be given several times")
}

type patchResults struct {
	Patches []lifecycle.Patch `json:"patches"`
}

func patchListCommand(a *app) *cobra.Command {
	var request lifecycle.PatchRequest
	cmd := &cobra.Command{
		Use:   "list [NAME...]",
		Short: "List the patches, and how they stand to an environment or to trees",
		Long: `Lists the series. With --tree the state is how each entry stands to the component's source tree; without, where an environment is
up, how those of its release stand there: applied, applies, upstream (the package has it), conflicts.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			request.Names, request.Environment = args, a.name
			list, err := t.Patches(cmd.Context(), request)
			if err != nil {
				return err
			}
			return a.print(patchResults{list}, func(w io.Writer) {
				t := table.New(w)
				t.AppendHeader(table.Row{"Release", "Component", "Patch", "State", "What it does"})
				for _, p := range list {
					t.AppendRow(table.Row{p.Release, p.Component, p.Name, stateOf(p), p.Summary})
				}
				t.Render()
				for _, p := range list {
					if p.State != "" && p.Detail != "" {
						fmt.Fprintf(w, "%s/%s: %s\n", p.Component, p.Name, p.Detail)
					}
				}
			})
		},
	}
	patchFlags(cmd, &request, "all, with --tree the default topology's")
	return cmd
}

func stateOf(p lifecycle.Patch) string {
	if p.State == "" {
		return "-"
	}
	return string(p.State)
}

func patchCheckCommand(a *app) *cobra.Command {
	var request lifecycle.PatchRequest
	cmd := &cobra.Command{
		Use:   "check [NAME|FILE|COMMIT...]",
		Short: "Try patches on source trees: does each apply",
		Long: `Tries patches on source trees, which are only read: without arguments the series of each tree's component in order, else some of
its entries, patch files, and commits of upstream's. A patch applies, is upstream (the tree has it), or conflicts; the
verdict is git's. Exit code 1: one conflicts.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			request.Names = args
			list, err := t.CheckPatches(cmd.Context(), request)
			if err != nil {
				return err
			}
			conflicts := 0
			for _, p := range list {
				if p.State == patches.Conflicts {
					conflicts++
				}
			}
			if err := a.print(patchResults{list}, func(w io.Writer) { printChecked(w, list) }); err != nil {
				return err
			}
			if conflicts > 0 {
				return exitCode(exitFailed)
			}
			return nil
		},
	}
	patchFlags(cmd, &request, "the default topology's")
	return cmd
}

// printChecked is a table of verdicts, then what conflicts, then how many of each.
func printChecked(w io.Writer, list []lifecycle.Patch) {
	t := table.New(w)
	t.AppendHeader(table.Row{"Component", "Patch", "State", "Detail"})
	count := map[patches.State]int{}
	for _, p := range list {
		t.AppendRow(table.Row{p.Component, p.Name, p.State, p.Detail})
		count[p.State]++
	}
	t.Render()
	for _, p := range list {
		for _, c := range p.Conflicts {
			printConflict(w, p.Name, c)
		}
	}
	var counts []string
	for _, s := range []patches.State{patches.Applies, patches.Upstream, patches.Conflicts} {
		if count[s] > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", count[s], s))
		}
	}
	fmt.Fprintf(w, "\n%d patches: %s\n", len(list), strings.Join(counts, ", "))
}

func printConflict(w io.Writer, name string, c patches.Conflict) {
	fmt.Fprintf(w, "\n%s: %s\n", name, c)
	if len(c.Expected)+len(c.Found) > 0 {
		printLines(w, "expected", c.Expected)
		printLines(w, "found", c.Found)
	}
}

const shownLines = 12 // of what was expected and found

func printLines(w io.Writer, what string, lines []string) {
	if len(lines) == 0 {
		fmt.Fprintf(w, "  %s: nothing\n", what)
		return
	}
	fmt.Fprintf(w, "  %s:\n", what)
	for i, l := range lines {
		if i == shownLines {
			fmt.Fprintf(w, "    ... %d more\n", len(lines)-i)
			return
		}
		fmt.Fprintf(w, "    | %s\n", l)
	}
}
