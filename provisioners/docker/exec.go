package docker

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"golang.org/x/term"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// machine is a container as a node.
type machine struct {
	p         *Provisioner
	container string
	hostname  string
}

// Node is the container of that name; it need not be there yet.
func (p *Provisioner) Node(name, hostname string) node.Node {
	return &machine{p: p, container: name, hostname: hostname}
}

func (m *machine) Name() string { return m.hostname }

// Run runs a command by exec. The engine cannot kill it: when ctx ends only its streams do.
func (m *machine) Run(ctx context.Context, cmd node.Cmd) error {
	if len(cmd.Args) == 0 {
		return fmt.Errorf("%s: no command", m.hostname)
	}
	options := container.ExecOptions{
		User: "0", Cmd: cmd.Args, Env: cmd.Env, Tty: cmd.TTY,
		AttachStdin: cmd.Stdin != nil, AttachStdout: true, AttachStderr: true,
	}
	made, err := m.p.client.ContainerExecCreate(ctx, m.container, options)
	if err != nil {
		return m.fail(err, cmd)
	}
	stream, err := m.p.client.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{Tty: cmd.TTY})
	if err != nil {
		return m.fail(err, cmd)
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, stream.Close)()

	if cmd.TTY {
		if terminal, ok := cmd.Stdout.(*os.File); ok && term.IsTerminal(int(terminal.Fd())) {
			defer m.follow(ctx, made.ID, terminal)()
		}
	}
	if cmd.Stdin != nil {
		go func() {
			_, _ = io.Copy(stream.Conn, cmd.Stdin)
			_ = stream.CloseWrite()
		}()
	}
	stdout, stderr := cmd.Stdout, cmd.Stderr
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	if cmd.TTY {
		_, err = io.Copy(stdout, stream.Reader)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, stream.Reader)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %s: %w", m.hostname, cmd.Args[0], ctx.Err())
	}
	if err != nil {
		return m.fail(err, cmd)
	}
	return m.exit(ctx, made.ID, cmd)
}

// exit is the command's exit code as an error. The streams may end a moment before the engine has noted it.
func (m *machine) exit(ctx context.Context, exec string, cmd node.Cmd) error {
	for delay := time.Millisecond; ; delay = min(2*delay, 100*time.Millisecond) {
		state, err := m.p.client.ContainerExecInspect(ctx, exec)
		if err != nil {
			return m.fail(err, cmd)
		}
		if !state.Running {
			if state.ExitCode != 0 {
				return &node.ExitError{Node: m.hostname, Args: cmd.Args, Code: state.ExitCode}
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %s: %w", m.hostname, cmd.Args[0], ctx.Err())
		case <-time.After(delay):
		}
	}
}

// follow gives the command the size of the user's terminal, now and whenever it changes, until the returned function.
func (m *machine) follow(ctx context.Context, exec string, terminal *os.File) (stop func()) {
	resize := func() {
		if width, height, err := term.GetSize(int(terminal.Fd())); err == nil {
			_ = m.p.client.ContainerExecResize(ctx, exec, container.ResizeOptions{Width: uint(width), Height: uint(height)})
		}
	}
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		resize()
		for {
			select {
			case <-changes:
				resize()
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(changes); close(done) }
}

func (m *machine) fail(err error, cmd node.Cmd) error {
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		e := fault.New(fault.NotFound, "the node does not run: %w", err).WithRemedy("bring it back: toastdev up")
		e.Node = m.hostname
		return e
	}
	return m.p.fail(err, "%s: run %s", m.hostname, cmd.Args[0])
}
