package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/lifecycle"
	"github.com/toast-cloud/toastdev/internal/table"
)

func patchShowCommand(a *app) *cobra.Command {
	var request lifecycle.PatchRequest
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show a patch: what it says of itself, what it does",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			p, err := t.Patch(cmd.Context(), args[0], request)
			if err != nil {
				return err
			}
			return a.print(p, func(w io.Writer) {
				fmt.Fprintf(w, "%s/%s, release %s, %s\n", p.Component, p.Name, p.Release, p.File)
				printState(w, p.Patch)
				fmt.Fprintf(w, "\n%s\n", p.Header)
				for _, c := range p.Conflicts {
					printConflict(w, p.Name, c)
				}
				fmt.Fprint(w, p.Diff)
			})
		},
	}
	patchFlags(cmd, &request, "all, with --tree the default topology's")
	return cmd
}

// printState says how a patch stands to the tree that it was tried on.
func printState(w io.Writer, p *lifecycle.Patch) {
	if p.State != "" {
		fmt.Fprintf(w, "On the tree: %s%s\n", p.State, behind(": ", p.Detail))
	}
}

// behind is text with something before it, or nothing.
func behind(sign, text string) string {
	if text == "" {
		return ""
	}
	return sign + text
}

// editFlags are the flags of the verbs that write an entry; what is what -m says of it.
func editFlags(cmd *cobra.Command, request *lifecycle.PatchEdit, what string) {
	patchFlags(cmd, &request.PatchRequest, "the default topology's")
	cmd.Flags().StringArrayVarP(&request.Description, "message", "m", nil, what+"; again: why")
	cmd.Flags().StringVar(&request.Base, "base", "", "what the tree's edits are measured from: a commit, or a folder (default: HEAD)")
}

// written prints an entry that was written.
func (a *app) written(p *lifecycle.Patch) error {
	return a.print(patchResults{[]lifecycle.Patch{*p}}, func(w io.Writer) {
		fmt.Fprintf(w, "%s/%s: %s\n", p.Component, p.Name, p.File)
		printState(w, p)
	})
}

func patchImportCommand(a *app) *cobra.Command {
	var request lifecycle.PatchEdit
	cmd := &cobra.Command{
		Use:   "import COMMIT",
		Short: "Add a change of upstream's to a series of the project",
		Long: `Adds a commit of upstream's to the end of its component's series, as a reference: the change stays in upstream's repository.
With --tree it must apply there. Where it conflicts, resolve it in a work tree (git cherry-pick -n COMMIT, edit) and say the
same again: what the tree has beyond the pick becomes the resolution.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			p, err := t.ImportPatch(cmd.Context(), args[0], request)
			if err != nil {
				return err
			}
			return a.written(p)
		},
	}
	editFlags(cmd, &request, "what it does (default: the commit's subject)")
	cmd.Flags().StringVar(&request.Component, "component", "", "the component (default: that of --tree or --upstream)")
	cmd.Flags().StringVar(&request.As, "as", "", "the patch's name (default: made of the commit's subject)")
	return cmd
}

func patchNewCommand(a *app) *cobra.Command {
	var request lifecycle.PatchEdit
	cmd := &cobra.Command{
		Use:   "new NAME (--tree COMPONENT=PATH | --component COMPONENT --node NODE) -m WHAT [-m WHY]",
		Short: "Make a patch of the edits in a source tree, or on a node",
		Long: `Writes what differs in a component's work tree from its last commit (or from --base) as a patch of your own, at the end of the
series. It must apply there: on the commit with the series laid over it, or on one that has the series already. With --node it is
what was edited by hand in the component's code on that node; toastdev patch apply NAME --force then lays it everywhere.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			request.Environment = a.name
			p, err := t.NewPatch(cmd.Context(), args[0], request)
			if err != nil {
				return err
			}
			return a.written(p)
		},
	}
	editFlags(cmd, &request, "what it does")
	cmd.Flags().StringVar(&request.Author, "author", "", "Name <address>")
	cmd.Flags().StringVar(&request.Component, "component", "", "the component (default: that of --tree)")
	cmd.Flags().StringVar(&request.Node, "node", "", "the environment's node that was edited by hand")
	return cmd
}

func patchRefreshCommand(a *app) *cobra.Command {
	var request lifecycle.PatchEdit
	cmd := &cobra.Command{
		Use:   "refresh NAME --tree COMPONENT=PATH",
		Short: "Write a patch anew for a source tree",
		Long: `Writes a patch anew, after the entries before it in its series. Where the work tree has edits, they are what the patch is to do:
all of a patch of your own; of a reference, what differs from the pick becomes its resolution. Where it has none, hunks get the
lines they apply at, and a resolution that is not needed any more goes.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			p, err := t.RefreshPatch(cmd.Context(), args[0], request)
			if err != nil {
				return err
			}
			return a.written(p)
		},
	}
	editFlags(cmd, &request, "what it does (default: as it says)")
	return cmd
}

func patchReorderCommand(a *app) *cobra.Command {
	var request lifecycle.PatchEdit
	var first bool
	cmd := &cobra.Command{
		Use:   "reorder NAME --before OTHER | --after OTHER | --first | --last",
		Short: "Move a patch in its series; with --tree only where all still apply",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			said := 0
			for _, is := range []bool{request.Before != "", request.After != "", first, request.Last} {
				if is {
					said++
				}
			}
			if said != 1 {
				return fault.New(fault.Invalid, "where is it to go?").WithRemedy("say one of --before OTHER, --after OTHER, --first, --last")
			}
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			list, err := t.ReorderPatch(cmd.Context(), args[0], request)
			if err != nil {
				return err
			}
			return a.print(patchResults{list}, func(w io.Writer) {
				t := table.New(w)
				t.AppendHeader(table.Row{"Component", "Patch", "State"})
				for _, p := range list {
					t.AppendRow(table.Row{p.Component, p.Name, stateOf(p)})
				}
				t.Render()
			})
		},
	}
	patchFlags(cmd, &request.PatchRequest, "the default topology's")
	cmd.Flags().StringVar(&request.Before, "before", "", "the patch that is to come next")
	cmd.Flags().StringVar(&request.After, "after", "", "the patch that is to come before")
	cmd.Flags().BoolVar(&first, "first", false, "before all others")
	cmd.Flags().BoolVar(&request.Last, "last", false, "after all others")
	return cmd
}

func patchExportCommand(a *app) *cobra.Command {
	var request lifecycle.PatchRequest
	var dir, format string
	cmd := &cobra.Command{
		Use:   "export [NAME...] --to DIR",
		Short: "Write patches for git am, or for quilt",
		Long: `Writes patches into a new folder, a folder a component: as mails for git am, or as a quilt series. A patch has all that it does on
the tree that --tree names; without one, only patches of our own can be written.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dir == "" {
				return fault.New(fault.Invalid, "no folder is named").WithRemedy("say --to DIR")
			}
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			request.Names = args
			done, err := t.ExportPatches(cmd.Context(), dir, format, request)
			if err != nil {
				return err
			}
			return a.print(done, func(w io.Writer) {
				for _, f := range done.Files {
					fmt.Fprintf(w, "%s/%s\n", done.Dir, f)
				}
			})
		},
	}
	patchFlags(cmd, &request, "the default topology's")
	cmd.Flags().StringVar(&dir, "to", "", "the folder, which must be new or empty")
	cmd.Flags().StringVar(&format, "format", "am", "am: mails for git am; quilt: a series for quilt")
	return cmd
}
