package vm

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path"

	scp "github.com/bramvdbogaerde/go-scp"

	"github.com/toast-cloud/toastdev/internal/node"
)

// Copy writes one file on the machine by scp, whole or not at all, and makes its folder. Many files go by node.Push.
func (m *Machine) Copy(ctx context.Context, file string, mode fs.FileMode, content []byte) error {
	fail := func(err error) error { return fmt.Errorf("copy to %s:%s: %w", m.hostname, file, err) }
	// scp knows nothing of a connection that broke; this command makes it anew.
	if _, err := node.Output(ctx, m, "mkdir", "-p", path.Dir(file)); err != nil {
		return fail(err)
	}
	client, _, err := m.connection(ctx, nil)
	if err != nil {
		return fail(err)
	}
	copier, err := scp.NewClientBySSH(client)
	if err != nil {
		return fail(err)
	}
	part := file + ".part"
	if err := copier.Copy(ctx, bytes.NewReader(content), part, fmt.Sprintf("%04o", mode.Perm()), int64(len(content))); err != nil {
		return fail(err)
	}
	if _, err := node.Output(ctx, m, "mv", part, file); err != nil {
		return fail(err)
	}
	return nil
}
