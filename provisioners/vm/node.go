package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

const (
	// handshakeTimeout is for a node whose processor is emulated and busy.
	handshakeTimeout = 30 * time.Second
	// aliveEvery and aliveTimeout: a machine that lost its power says no farewell. Its connection is closed, and with it the
	// commands that wait for it, when a question has been unanswered for that long.
	aliveEvery   = 10 * time.Second
	aliveTimeout = 45 * time.Second
)

// Machine is a virtual machine as a node: commands go over one ssh connection, which is made when it is first needed and
// made again when it broke. Another is made when sshd takes no more sessions on it (MaxSessions, 10).
type Machine struct {
	hostname string
	dial     func(context.Context) (net.Conn, error)
	key      func() (Key, error)

	turn    chan struct{} // who holds it may look at and change clients
	clients []*ssh.Client
}

var _ node.Node = (*Machine)(nil)

// NewNode is a node by its host name. dial connects to its ssh server; a *fault.Error of it is taken as final by
// WaitBooted. key is asked for when a connection is made.
func NewNode(hostname string, dial func(context.Context) (net.Conn, error), key func() (Key, error)) *Machine {
	return &Machine{hostname: hostname, dial: dial, key: key, turn: make(chan struct{}, 1)}
}

func (m *Machine) Name() string { return m.hostname }

// Hangup closes the connections, as after a machine was switched off; the next command makes a new one.
func (m *Machine) Hangup() {
	m.turn <- struct{}{}
	defer func() { <-m.turn }()
	for _, c := range m.clients {
		c.Close()
	}
	m.clients = nil
}

// Run runs a command as the login shell of root does, with the folder / as its own. When ctx ends, the session does; a
// command without a terminal may go on.
func (m *Machine) Run(ctx context.Context, cmd node.Cmd) error {
	if len(cmd.Args) == 0 {
		return fmt.Errorf("%s: no command", m.hostname)
	}
	session, _, err := m.session(ctx)
	if err != nil {
		return m.fail(ctx, err, cmd)
	}
	defer session.Close()

	// sshd answers the end of a session when its command has ended: Run does not wait for that, and nothing is written any more.
	for stream, w := range map[*io.Writer]io.Writer{&session.Stdout: cmd.Stdout, &session.Stderr: cmd.Stderr} {
		if w != nil {
			g := &gate{w: w}
			defer g.close()
			*stream = g
		}
	}
	if cmd.TTY {
		stop, err := terminal(session, cmd.Stdout)
		if err != nil {
			return m.fail(ctx, err, cmd)
		}
		defer stop()
	}
	// Not session.Stdin: Wait would wait for the end of a stream that the command does not read to its end.
	stdin, err := session.StdinPipe()
	if err != nil {
		return m.fail(ctx, err, cmd)
	}
	if err := session.Start(commandLine(cmd)); err != nil {
		return m.fail(ctx, err, cmd)
	}
	if cmd.Stdin == nil {
		_ = stdin.Close()
	} else {
		go func() {
			_, _ = io.Copy(stdin, cmd.Stdin)
			_ = stdin.Close()
		}()
	}
	ended := make(chan error, 1)
	go func() { ended <- session.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok && ctx.Err() == nil {
		return &node.ExitError{Node: m.hostname, Args: cmd.Args, Code: exit.ExitStatus()}
	}
	return m.fail(ctx, err, cmd)
}

// gate is what a command's output goes through until its Run returns.
type gate struct {
	mu sync.Mutex
	w  io.Writer // nil: closed
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.w = nil
}

func (g *gate) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.w == nil {
		return 0, io.ErrClosedPipe
	}
	return g.w.Write(b)
}

// commandLine is for the shell that sshd gives every command to.
func commandLine(cmd node.Cmd) string {
	var b strings.Builder
	b.WriteString("cd /; exec")
	if len(cmd.Env) > 0 {
		b.WriteString(" env")
	}
	for _, word := range append(append([]string{}, cmd.Env...), cmd.Args...) {
		b.WriteString(" " + quote(word))
	}
	return b.String()
}

func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// terminal gives the session a terminal of the size of the user's own, where that is one, now and whenever it changes,
// until stop.
func terminal(session *ssh.Session, stdout io.Writer) (stop func(), err error) {
	kind := os.Getenv("TERM")
	if kind == "" {
		kind = "dumb"
	}
	file, ok := stdout.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func() {}, session.RequestPty(kind, 24, 80, ssh.TerminalModes{})
	}
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil {
		width, height = 80, 24
	}
	if err := session.RequestPty(kind, height, width, ssh.TerminalModes{}); err != nil {
		return nil, err
	}
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-changes:
				if width, height, err := term.GetSize(int(file.Fd())); err == nil {
					_ = session.WindowChange(height, width)
				}
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(changes); close(done) }, nil
}

// mostClients is how many connections to one machine there may be.
const mostClients = 16

// session opens a channel for one command on one of the machine's connections.
func (m *Machine) session(ctx context.Context) (*ssh.Session, *ssh.Client, error) {
	for i := 0; ; {
		client, fresh, err := m.connection(ctx, i)
		if err != nil {
			return nil, nil, err
		}
		s, err := open(ctx, client)
		switch {
		case err == nil:
			return s, client, nil
		case refused(err) && i+1 < mostClients:
			i++
		case fresh || refused(err) || ctx.Err() != nil:
			return nil, nil, err
		default:
			// It broke while nobody looked. No command has begun: a new connection is no second try of one.
			m.drop(client)
		}
	}
}

func refused(err error) bool {
	_, ok := errors.AsType[*ssh.OpenChannelError](err)
	return ok
}

// open is NewSession that ends with ctx, and after aliveTimeout at the latest.
func open(ctx context.Context, client *ssh.Client) (*ssh.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	type result struct {
		session *ssh.Session
		err     error
	}
	opened := make(chan result, 1)
	go func() {
		s, err := client.NewSession()
		opened <- result{s, err}
	}()
	select {
	case r := <-opened:
		return r.session, r.err
	case <-ctx.Done():
		go func() {
			if r := <-opened; r.err == nil {
				r.session.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// connection is the ith that there is, or a fresh one when there are fewer.
func (m *Machine) connection(ctx context.Context, i int) (client *ssh.Client, fresh bool, err error) {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	if i < len(m.clients) {
		return m.clients[i], false, nil
	}
	if client, err = m.connect(ctx); err != nil {
		return nil, false, err
	}
	m.clients = append(m.clients, client)
	return client, true, nil
}

// drop closes a connection that broke.
func (m *Machine) drop(client *ssh.Client) {
	client.Close()
	m.turn <- struct{}{}
	defer func() { <-m.turn }()
	m.clients = slices.DeleteFunc(m.clients, func(c *ssh.Client) bool { return c == client })
}

func (m *Machine) connect(ctx context.Context) (*ssh.Client, error) {
	key, err := m.key()
	if err != nil {
		return nil, err
	}
	signer, err := key.signer()
	if err != nil {
		return nil, err
	}
	conn, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	// Not a deadline of the connection: a tunnel has none.
	shaking, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(shaking, func() { conn.Close() })
	c, channels, requests, err := ssh.NewClientConn(conn, m.hostname, &ssh.ClientConfig{
		User:              "root",
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyAlgorithms: []string{signer.PublicKey().Type()},
		HostKeyCallback: func(_ string, at net.Addr, key ssh.PublicKey) error {
			if string(key.Marshal()) == string(signer.PublicKey().Marshal()) {
				return nil
			}
			e := fault.New(fault.Failed, "what answers at %s has another host key (%s) than the environment's nodes (%s)",
				at, ssh.FingerprintSHA256(key), ssh.FingerprintSHA256(signer.PublicKey()))
			e.Node = m.hostname
			return e.WithRemedy("see which machine has this address; or make the environment anew: toastdev down, toastdev up")
		},
	})
	if !stop() && err == nil {
		err = shaking.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	client := ssh.NewClient(c, channels, requests)
	go keepAlive(client)
	return client, nil
}

// keepAlive asks until the connection is closed, and closes it when there is no answer.
func keepAlive(client *ssh.Client) {
	ended := make(chan struct{})
	go func() { _ = client.Wait(); close(ended) }()
	for {
		select {
		case <-ended:
			return
		case <-time.After(aliveEvery):
		}
		answered := make(chan error, 1)
		go func() {
			_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
			answered <- err
		}()
		select {
		case err := <-answered:
			if err == nil {
				continue
			}
		case <-time.After(aliveTimeout):
		}
		client.Close()
		return
	}
}

// fail is err with the command it happened to. A node that does not answer may be brought back.
func (m *Machine) fail(ctx context.Context, err error, cmd node.Cmd) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %s: %w", m.hostname, cmd.Args[0], ctx.Err())
	}
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, io.EOF) {
		e := fault.New(fault.NotFound, "run %s: the node does not answer: %w", cmd.Args[0], err).WithRemedy("bring it back: toastdev up")
		e.Node = m.hostname
		return e
	}
	return fmt.Errorf("%s: run %s: %w", m.hostname, cmd.Args[0], err)
}
