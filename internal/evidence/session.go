package evidence

import (
	"context"
	"errors"

	"github.com/toast-cloud/toastdev/internal/node"
)

// Target is a machine, and the interfaces of it to capture on.
type Target struct {
	Name       string    // the node's, "client" for the external client
	Node       node.Node // nil: this host itself, whose namespaces are those of `ip netns`
	Interfaces []Interface
}

// Session is captures under way.
type Session struct{}

// Start starts captures on all targets at once, and returns when each of them listens.
func Start(ctx context.Context, name, dir string, targets []Target) (*Session, error) {
	return nil, errors.ErrUnsupported
}

// Stop ends the captures and brings their files to the capture's folder.
func (s *Session) Stop(ctx context.Context) (*Capture, error) { return nil, errors.ErrUnsupported }

// Load is the capture of a folder.
func Load(dir string) (*Capture, error) { return nil, errors.ErrUnsupported }
