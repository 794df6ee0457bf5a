package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/images/build"
	"github.com/toast-cloud/toastdev/internal/table"
)

func imageCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Build, list and remove the images that nodes and instances start from"}
	cmd.AddCommand(imageBuildCommand(a), imageListCommand(a), imagePruneCommand(a))
	return cmd
}

func imageBuildCommand(a *app) *cobra.Command {
	var provisioners []string
	var fix bool
	cmd := &cobra.Command{
		Use:   "build [RELEASE...]",
		Short: "Build the images of a release's nodes, and the guest image, unless they are there",
		Long: `Builds the node image of each release (all of them when none is named) and the guest image; for libvirt and virtualbox also
a VM image, which is the node image as a disk. up does the same when it needs them. An image is named after everything
that goes into it; what is there is not built again.`,
		Annotations: live,
		RunE: func(cmd *cobra.Command, releases []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			built, err := t.BuildImages(cmd.Context(), releases, provisioners, fix)
			if err != nil {
				return err
			}
			return a.printImages(built)
		},
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "install and start what these provisioners lack, as doctor --fix does")
	cmd.Flags().StringSliceVar(&provisioners, "for", []string{"docker"}, "the provisioners that will run the nodes: docker, libvirt, virtualbox")
	return cmd
}

func imageListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the images that were built",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			images, err := t.Images(cmd.Context())
			if err != nil {
				return err
			}
			return a.printImages(images)
		},
	}
}

func imagePruneCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove the images that no environment uses, and list them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			removed, err := t.PruneImages(cmd.Context(), all)
			if err != nil {
				return err
			}
			return a.printImages(removed)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that an environment's record names; what a container uses, or a recorded VM, stays")
	return cmd
}

func (a *app) printImages(images []build.Image) error {
	if images == nil {
		images = []build.Image{} // in JSON: no image, not null
	}
	return a.print(map[string]any{"images": images}, func(w io.Writer) {
		t := table.New(w)
		t.AppendHeader(table.Row{"Image", "Size", "Built"})
		for _, i := range images {
			t.AppendRow(table.Row{i.Name, fmt.Sprintf("%.0f MB", float64(i.Bytes)/1e6), i.Built.Local().Format("2006-01-02 15:04")})
		}
		t.Render()
	})
}
