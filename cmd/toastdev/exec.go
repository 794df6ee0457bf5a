package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/toast-cloud/toastdev/internal/node"
)

func execCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "exec NODE -- COMMAND [ARG...]",
		Short: "Run a command on a node",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onNode(cmd.Context(), args[0], node.Cmd{Args: args[1:]})
		},
	}
}

func sshCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh NODE",
		Short: "Open a shell on a node",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onNode(cmd.Context(), args[0], node.Cmd{Args: []string{"bash", "-l"}})
		},
	}
}

// onNode runs cmd on a node with the user's own streams; its exit code becomes toastdev's.
func (a *app) onNode(ctx context.Context, name string, cmd node.Cmd) error {
	t, err := a.toastdev()
	if err != nil {
		return err
	}
	n, err := t.Node(a.name, name)
	if err != nil {
		return err
	}
	return a.attached(ctx, n, cmd)
}

// attached runs cmd with the user's own streams, on a terminal of its own when the user sits at one.
func (a *app) attached(ctx context.Context, n node.Node, cmd node.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	if out, ok := a.out.(interface{ Fd() uintptr }); ok && term.IsTerminal(int(a.in.Fd())) && term.IsTerminal(int(out.Fd())) {
		before, err := term.MakeRaw(int(a.in.Fd()))
		if err != nil {
			return err
		}
		defer term.Restore(int(a.in.Fd()), before)
		cmd.TTY = true
	}
	err := n.Run(ctx, cmd)
	if exit, ok := errors.AsType[*node.ExitError](err); ok {
		return exitCode(exit.Code)
	}
	return err
}
