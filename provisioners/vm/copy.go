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
	session, client, err := m.session(ctx)
	if err != nil {
		return fail(err)
	}
	defer session.Close()
	if err := session.Run(commandLine(node.Cmd{Args: []string{"mkdir", "-p", path.Dir(file)}})); err != nil {
		return fail(fmt.Errorf("make its folder: %w", err))
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
