package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/toast-cloud/toastdev/internal/lifecycle"
	"github.com/toast-cloud/toastdev/internal/table"
)

// wanted is the flags that say what an environment is to be, shared by up and plan.
type wanted struct {
	set []string
}

func (w *wanted) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&w.set, "set", nil, "a value over the topology's: --set nodes.cmp.count=3 (may be given several times)")
}

// request is what up and plan are asked: the topology named on the line, else the environment's own, else mini.
func (w *wanted) request(a *app, args []string) lifecycle.Request {
	r := lifecycle.Request{Name: a.name, Set: w.set}
	if len(args) == 1 {
		r.Topology = args[0]
	}
	return r
}

func upCommand(a *app) *cobra.Command {
	var want wanted
	var noCanary, fix bool
	var instance string
	cmd := &cobra.Command{
		Use:   "up [TOPOLOGY]",
		Short: "Start an environment, or bring it to what its topology says",
		Long: `Brings the environment to what its topology says: images, nodes, Salt's highstate, OpenStack's objects for a newcomer,
and a canary instance that must answer on its floating IP. Run again, it changes only what differs; killed at any
moment and run again, it finishes. TOPOLOGY is a built-in's name (toastdev topology list) or a file.`,
		Args:        cobra.MaximumNArgs(1),
		Annotations: live,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.toastdev()
			if err != nil {
				return err
			}
			request := want.request(a, args)
			request.NoCanary, request.Instance, request.Fix = noCanary, instance, fix
			up, err := t.Up(cmd.Context(), request)
			if err != nil {
				return err
			}
			return a.print(up, func(w io.Writer) { printUp(w, up) })
		},
	}
	want.flags(cmd)
	cmd.Flags().BoolVar(&noCanary, "no-canary", false, "do not boot an instance to see that the region works")
	cmd.Flags().StringVar(&instance, "instance", "", "boot an instance of this name with a floating IP and leave it, in place of the canary")
	cmd.Flags().BoolVar(&fix, "fix", false, "install and start what this machine lacks (as `toastdev doctor --fix` does)")
	return cmd
}

func printUp(w io.Writer, up *lifecycle.Done) {
	printPhases(w, up.Phases)
	if up.Canary != nil {
		fmt.Fprintf(w, "\nThe canary instance answered on %s after %.0f s.\n", up.Canary.Address, up.Canary.Seconds)
	}
	if up.Instance != nil {
		fmt.Fprintf(w, "\nThe instance answers on %s: curl http://%s/\n", up.Instance.Address, up.Instance.Address)
	}
	fmt.Fprintf(w, `
Environment %s is up. Next:
  eval "$(toastdev openrc)"          any OpenStack client on this host now talks to it
  toastdev openstack -- server create --image toastdev-guest --flavor m1.tiny --network demo-net --wait mine
  toastdev status                    nodes, services, endpoints
  toastdev down                      take it away
`, up.Environment)
}

func printPhases(w io.Writer, phases []lifecycle.Phase) {
	t := table.New(w)
	t.AppendHeader(table.Row{"Phase", "Seconds"})
	total := time.Duration(0)
	for _, p := range phases {
		t.AppendRow(table.Row{p.Name, fmt.Sprintf("%.1f", p.Seconds)})
		total += time.Duration(p.Seconds * float64(time.Second))
	}
	t.AppendFooter(table.Row{"all", fmt.Sprintf("%.1f", total.Seconds())})
	t.Render()
}
