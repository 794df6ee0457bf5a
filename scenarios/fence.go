package scenarios

import (
	"context"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/fence"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/provisioners"
)

const kindFence = "fence"

func fenceCommand() Command {
	return Command{
		Summary: "serve what powers computes off for the evacuator",
		Args:    "start|fail|stop",
		Detail: []string{
			"start serves the environment's fence on the host's address of the management network, until the end of the scenario: whoever has its secret powers a compute off by it, and " +
				"asks whether it is off, as by IPMI. fail has it refuse, until start. stop has nobody answer there.",
			"Example: fence start",
		},
		Alone: true, Min: 1, Max: 1,
		Check: oneOfWords("fence", "start", "fail", "stop"),
		Flags: plain(func(_ context.Context, r *Run, args []string) (Outcome, error) { return Outcome{}, r.fence(args[0]) }),
	}
}

// serving is a fence that is served.
type serving struct {
	*fence.Fence
	stop func()
}

func (r *Run) fence(verb string) error {
	f, err := get[*serving](r, kindFence, kindFence)
	switch {
	case err == nil && verb == "stop":
		r.forget(kindFence, kindFence)
		f.stop()
		return nil
	case err == nil:
		f.Refuse(verb == "fail")
		return nil
	case verb != "start":
		return fault.New(fault.Invalid, "fence %s: it is not served", verb).WithRemedy("serve it first: fence start")
	}
	provisioner := func(n *plan.Node) provisioners.Provisioner { return &noted{r.World.Provisioner(n), r, n} }
	f = &serving{Fence: fence.New(r.World.Plan, provisioner, r.World.Secrets[fence.Secret], func(line string) { r.Logf("fence: %s", line) })}
	l, err := f.Listen()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(ctx, l) }()
	f.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			r.Logf("fence: %v", err)
		}
	}
	r.Undo("stop the fence", func(context.Context) error {
		if _, err := get[*serving](r, kindFence, kindFence); err != nil {
			return nil
		}
		return r.fence("stop")
	})
	return r.put(kindFence, kindFence, f)
}

// noted is a node's provisioner that has the node started at the end when it kills it.
type noted struct {
	provisioners.Provisioner
	run  *Run
	node *plan.Node
}

func (n *noted) Kill(ctx context.Context, name string) error {
	killer, ok := n.Provisioner.(provisioners.Killer)
	if !ok {
		return fault.New(fault.Unsupported, "provisioner %s cannot kill a node", n.node.Provisioner)
	}
	if err := n.run.notePower(ctx, machine{n.run.World.Node(n.node.Name), n.node, n.Provisioner}); err != nil {
		return err
	}
	return killer.Kill(ctx, name)
}
