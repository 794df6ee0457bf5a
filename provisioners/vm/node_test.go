package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// server is an ssh server in this process that runs commands on this machine.
type server struct {
	t        *testing.T
	listener net.Listener
	config   *ssh.ServerConfig
	most     int // sessions on one connection

	mu       sync.Mutex
	accepted []net.Conn
	sizes    []string // of terminals
}

func serve(t *testing.T, key Key) *server {
	t.Helper()
	signer, err := key.signer()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, most: 10, config: &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, offered ssh.PublicKey) (*ssh.Permissions, error) {
			if bytes.Equal(offered.Marshal(), signer.PublicKey().Marshal()) {
				return nil, nil
			}
			return nil, errors.New("another key")
		},
	}}
	s.config.AddHostKey(signer)
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.listener.Close(); s.cut() })
	go func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.accepted = append(s.accepted, conn)
			s.mu.Unlock()
			go s.talk(conn)
		}
	}()
	return s
}

// cut ends all connections without a word.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.accepted {
		conn.Close()
	}
}

func (s *server) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.accepted)
}

func (s *server) talk(conn net.Conn) {
	_, channels, requests, err := ssh.NewServerConn(conn, s.config)
	if err != nil {
		return
	}
	go func() {
		for r := range requests {
			_ = r.Reply(r.Type == "keepalive@openssh.com", nil)
		}
	}()
	open := make(chan struct{}, s.most)
	for c := range channels {
		select {
		case open <- struct{}{}:
		default:
			_ = c.Reject(ssh.Prohibited, "open failed")
			continue
		}
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { <-open }()
			s.session(channel, requests)
		}()
	}
}

func (s *server) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	for r := range requests {
		switch r.Type {
		case "pty-req":
			var pty struct {
				Term                         string
				Columns, Rows, Width, Height uint32
				Modes                        string
			}
			_ = ssh.Unmarshal(r.Payload, &pty)
			s.mu.Lock()
			s.sizes = append(s.sizes, fmt.Sprintf("%dx%d", pty.Columns, pty.Rows))
			s.mu.Unlock()
			_ = r.Reply(true, nil)
		case "exec":
			var command struct{ Line string }
			_ = ssh.Unmarshal(r.Payload, &command)
			_ = r.Reply(true, nil)
			go func() {
				for range requests { // until the channel ends
				}
			}()
			s.run(channel, command.Line)
			return
		default:
			_ = r.Reply(false, nil)
		}
	}
}

func (s *server) run(channel ssh.Channel, line string) {
	cmd := exec.Command("sh", "-c", line)
	cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(stdin, channel)
		stdin.Close()
	}()
	err = cmd.Run()
	status := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		status = exit.ExitCode()
		if w := exit.Sys().(syscall.WaitStatus); w.Signaled() {
			_, _ = channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
				Signal string
				Core   bool
				Text   string
				Lang   string
			}{"KILL", false, "", ""}))
			return
		}
	} else if err != nil {
		status = 255
	}
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
}

// machineOf is a node whose ssh server that is.
func machineOf(t *testing.T, s *server, key Key) *Machine {
	t.Helper()
	m := NewNode("ctl", func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", s.listener.Addr().String())
	}, func() (Key, error) { return key, nil })
	t.Cleanup(m.Hangup)
	return m
}

func TestCommandsHaveStreamsAndExitCodes(t *testing.T) {
	key := newKey(t)
	m := machineOf(t, serve(t, key), key)
	var stdout, stderr bytes.Buffer
	err := m.Run(t.Context(), node.Cmd{
		Args: []string{"sh", "-c", `cat; printf %s "$1 $GREETING $PWD" >&2; exit 7`, "x", `it's "quoted" $HOME`}, Env: []string{"GREETING=hel lo"},
		Stdin: strings.NewReader("in"), Stdout: &stdout, Stderr: &stderr,
	})
	if exit, ok := errors.AsType[*node.ExitError](err); !ok || exit.Code != 7 || exit.Node != "ctl" {
		t.Errorf("error %v, want exit code 7", err)
	}
	if stdout.String() != "in" || stderr.String() != `it's "quoted" $HOME hel lo /` {
		t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
	}
	if err := m.Run(t.Context(), node.Cmd{Args: []string{"true"}}); err != nil {
		t.Errorf("true: %v", err)
	}
	err = m.Run(t.Context(), node.Cmd{Args: []string{"sh", "-c", "kill -9 $$"}})
	if exit, ok := errors.AsType[*node.ExitError](err); !ok || exit.Code != 137 {
		t.Errorf("a command that was killed: %v, want exit code 137", err)
	}
	if err := m.Run(t.Context(), node.Cmd{}); err == nil {
		t.Error("no command: no error")
	}
}

func TestACommandThatDoesNotReadItsInputEndsAllTheSame(t *testing.T) {
	key := newKey(t)
	m := machineOf(t, serve(t, key), key)
	never, w := io.Pipe()
	defer w.Close()
	if err := m.Run(t.Context(), node.Cmd{Args: []string{"true"}, Stdin: never}); err != nil {
		t.Error(err)
	}
}

func TestACommandOnATerminalIsGivenOne(t *testing.T) {
	key := newKey(t)
	s := serve(t, key)
	m := machineOf(t, s, key)
	var out bytes.Buffer
	if err := m.Run(t.Context(), node.Cmd{Args: []string{"echo", "hello"}, TTY: true, Stdout: &out}); err != nil || out.String() != "hello\n" {
		t.Errorf("%q, %v", &out, err)
	}
	if fmt.Sprint(s.sizes) != "[80x24]" {
		t.Errorf("terminals: %v", s.sizes)
	}
}

func TestRunReturnsWhenItsContextEnds(t *testing.T) {
	key := newKey(t)
	m := machineOf(t, serve(t, key), key)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	// The server, as OpenSSH's, keeps the channel until the command has ended.
	if err := m.Run(ctx, node.Cmd{Args: []string{"sleep", "5"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestCommandsShareAConnectionAndMakeItAnewWhenItBroke(t *testing.T) {
	key := newKey(t)
	s := serve(t, key)
	m := machineOf(t, s, key)
	for range 3 {
		if err := m.Run(t.Context(), node.Cmd{Args: []string{"true"}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.connections(); n != 1 {
		t.Errorf("three commands made %d connections", n)
	}
	s.cut()
	if err := m.Run(t.Context(), node.Cmd{Args: []string{"true"}}); err != nil {
		t.Errorf("after the connection broke: %v", err)
	}
	m.Hangup()
	if err := m.Run(t.Context(), node.Cmd{Args: []string{"true"}}); err != nil {
		t.Errorf("after it was closed: %v", err)
	}
	if n := s.connections(); n != 3 {
		t.Errorf("%d connections in all, want 3", n)
	}
}

func TestACommandWhoseConnectionBreaksFails(t *testing.T) {
	key := newKey(t)
	s := serve(t, key)
	m := machineOf(t, s, key)
	time.AfterFunc(300*time.Millisecond, s.cut)
	if err := m.Run(t.Context(), node.Cmd{Args: []string{"sleep", "5"}}); err == nil {
		t.Error("no error")
	}
}

func TestMoreCommandsThanOneConnectionTakesGetConnectionsOfTheirOwn(t *testing.T) {
	key := newKey(t)
	s := serve(t, key)
	s.most = 2
	m := machineOf(t, s, key)
	failed := make(chan error)
	for range 6 {
		go func() { failed <- m.Run(t.Context(), node.Cmd{Args: []string{"sleep", "0.3"}}) }()
	}
	for range 6 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if n := s.connections(); n > 5 {
		t.Errorf("they made %d connections", n)
	}
}

func TestAMachineWithAnotherHostKeyIsRefusedAtOnce(t *testing.T) {
	s := serve(t, newKey(t))
	m := machineOf(t, s, newKey(t))
	began := time.Now()
	err := WaitBooted(t.Context(), m, func() string { return "one\ntwo\n" })
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Code != fault.Failed || !strings.Contains(e.Message, "another host key") || fmt.Sprint(e.Log) != "[one two]" {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestANodeThatDoesNotAnswerIsNotFound(t *testing.T) {
	key := newKey(t)
	s := serve(t, key)
	s.listener.Close()
	err := machineOf(t, s, key).Run(t.Context(), node.Cmd{Args: []string{"true"}})
	if fault.CodeOf(err) != fault.NotFound || !strings.Contains(err.Error(), "toastdev up") {
		t.Errorf("error %v", err)
	}
}

func TestAMachineHasBootedWhenSystemdSaysSo(t *testing.T) {
	bin := t.TempDir()
	// It is asked while it boots, and ends with units that failed.
	script := "#!/bin/sh\n[ -e " + bin + "/second ] && { echo degraded; exit 1; }\ntouch " + bin + "/second\necho starting\nexit 1\n"
	if err := os.WriteFile(bin+"/systemctl", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	key := newKey(t)
	if err := WaitBooted(t.Context(), machineOf(t, serve(t, key), key), nil); err != nil {
		t.Error(err)
	}
}

func TestAFileIsCopiedWholeInPlaceOfWhatWasThere(t *testing.T) {
	if _, err := exec.LookPath("scp"); err != nil {
		t.Skip("there is no scp")
	}
	key := newKey(t)
	m := machineOf(t, serve(t, key), key)
	path := t.TempDir() + "/new folder/file"
	for _, content := range []string{"first, longer", "second"} {
		if err := m.Copy(t.Context(), path, 0o640, []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	if err := m.Copy(t.Context(), "/dev/null/file", 0o640, nil); err == nil {
		t.Error("no error for a folder that cannot be made")
	}
}

func TestAKeyThatIsNoneIsAnErrorBeforeAnythingIsDialled(t *testing.T) {
	m := NewNode("ctl", func(context.Context) (net.Conn, error) { t.Error("dialled"); return nil, io.EOF }, func() (Key, error) { return Key{}, nil })
	if err := m.Run(t.Context(), node.Cmd{Args: []string{"true"}}); err == nil {
		t.Error("no error")
	}
}
