package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// BootTimeout is how long a machine may take from its start to having booted: one that is emulated on a busy host, of several
// that start at once.
const BootTimeout = 6 * time.Minute

// WaitBooted returns when commands run on a node and its systemd has started all that it wants. Units that failed do not
// make it useless: Salt has not configured them yet. console is what the machine wrote to its serial port; its last lines
// are in the fault of a machine that does not come up. A node's *fault.Error about something else than a missing answer ends the wait at once.
func WaitBooted(ctx context.Context, n node.Node, console func() string) error {
	err := node.Wait(ctx, "systemd on "+n.Name(), BootTimeout, func(ctx context.Context) (bool, error) {
		var out bytes.Buffer
		err := n.Run(ctx, node.Cmd{Args: []string{"systemctl", "is-system-running", "--wait"}, Stdout: &out})
		switch strings.TrimSpace(out.String()) {
		case "running", "degraded", "maintenance":
			return true, nil
		}
		if e, ok := errors.AsType[*fault.Error](err); ok && e.Code != fault.NotFound {
			return true, err
		}
		return false, err
	})
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	e := fault.New(fault.CodeOf(err), "the machine did not come up: %w", err)
	if cause, ok := errors.AsType[*fault.Error](err); ok {
		e.Message, e.Remedy = fmt.Sprintf("the machine did not come up: %s", cause.Message), cause.Remedy
	}
	e.Node, e.Log = n.Name(), node.LastLines(console(), 15)
	return e
}
