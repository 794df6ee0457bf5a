package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// guestAgent is the agent's path in the guest image.
const guestAgent = "/bin/agent"

// guest is a server as something that runs commands. It is reached by QEMU's guest agent's protocol, over libvirt on the
// node where it runs: nothing of it is on the networks, and it works when they do not.
type guest struct {
	name      string
	host      node.Node
	domain    string
	questions *questions
}

// inside is a server as something that runs commands.
func (r *Run) inside(s *Server) (*guest, error) {
	host := r.World.Node(s.Host)
	if host == nil || s.Domain == "" {
		return nil, fault.New(fault.NotFound, "server %s runs on no node of the region: it is %s", s.Name, s.Status).WithRemedy("wait server %s ACTIVE", s.Name)
	}
	return &guest{name: s.Name, host: host, domain: s.Domain, questions: &r.World.questions}, nil
}

// agent is nil when a server's agent answers now and the guest has the addresses that Neutron gave it.
func (r *Run) agent(ctx context.Context, s *Server) error {
	g, err := r.inside(s)
	if err != nil {
		return err
	}
	var interfaces []guestInterface
	if err := g.ask(ctx, "guest-network-get-interfaces", nil, &interfaces); err != nil {
		return err
	}
	return addressed(s, interfaces)
}

// guestInterface is one as a guest's agent tells of it.
type guestInterface struct {
	Name      string `json:"name"`
	MAC       string `json:"hardware-address"`
	Addresses []struct {
		Address string `json:"ip-address"`
	} `json:"ip-addresses"`
}

// addressed says which of a server's addresses the guest does not have.
func addressed(s *Server, interfaces []guestInterface) error {
	for i, mac := range s.MACs {
		if i >= len(s.Fixed) || !s.Fixed[i].IsValid() {
			continue
		}
		var found *guestInterface
		has := false
		for j := range interfaces {
			if strings.EqualFold(interfaces[j].MAC, mac) {
				found = &interfaces[j]
				for _, a := range found.Addresses {
					has = has || a.Address == s.Fixed[i].String()
				}
			}
		}
		switch {
		case found == nil:
			return fmt.Errorf("its agent answers, but the guest has no interface %s", mac)
		case !has:
			return fmt.Errorf("its agent answers, but DHCP has not given %s on %s (%s)", s.Fixed[i], found.Name, mac)
		}
	}
	return nil
}

func (g *guest) Name() string { return g.name }

// ask sends the agent a command. Its answer goes into `into`.
func (g *guest) ask(ctx context.Context, command string, arguments, into any) error {
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return err
	}
	out, err := g.questions.ask(ctx, g.host, g.domain, request)
	if err != nil {
		return fmt.Errorf("ask the agent in %s: %w", g.name, err)
	}
	var answer struct {
		Return json.RawMessage `json:"return"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return fmt.Errorf("the agent in %s answers %s to %s: %w", g.name, short(string(out)), command, err)
	}
	if err := json.Unmarshal(answer.Return, into); err != nil {
		return fmt.Errorf("the agent in %s answers %s to %s: %w", g.name, short(string(answer.Return)), command, err)
	}
	return nil
}

// busy says whether libvirt could not hand a command to the agent for now: it was not run.
func busy(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "agent is not") || strings.Contains(err.Error(), "cannot acquire state change lock"))
}

// guestExec is what the agent takes to run a command, as QEMU's guest agent has it.
type guestExec struct {
	Path    string   `json:"path"`
	Arg     []string `json:"arg"`
	Env     []string `json:"env,omitempty"`
	Input   []byte   `json:"input-data,omitempty"` // base64, as encoding/json has bytes
	Capture bool     `json:"capture-output"`
}

// Run runs a command in the guest. Its stdin is read to the end before it starts, its output is there when it has ended.
// When ctx ends, the command is killed.
func (g *guest) Run(ctx context.Context, cmd node.Cmd) error { return g.run(ctx, cmd, nil, 0) }

// run is Run of a command that is interrupted when stop is closed, and of which nothing is expected before a time has
// passed (untilStopped: before stop is closed): each look at it costs the node a process.
func (g *guest) run(ctx context.Context, cmd node.Cmd, stop <-chan struct{}, expect time.Duration) error {
	if len(cmd.Args) == 0 {
		return fmt.Errorf("%s: no command", g.name)
	}
	request := guestExec{Path: cmd.Args[0], Arg: cmd.Args[1:], Env: cmd.Env, Capture: true}
	if cmd.Stdin != nil {
		var err error
		if request.Input, err = io.ReadAll(cmd.Stdin); err != nil {
			return err
		}
	}
	var started struct {
		PID int `json:"pid"`
	}
	err := g.ask(ctx, "guest-exec", request, &started)
	for tries := 0; busy(err) && tries < 3; tries++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		err = g.ask(ctx, "guest-exec", request, &started)
	}
	if err != nil {
		return err
	}
	if expect != 0 {
		var expected <-chan time.Time
		if expect > 0 {
			expected = time.After(expect)
		}
		select {
		case <-ctx.Done():
		case <-stop:
		case <-expected:
		}
	}
	var status struct {
		Exited   bool   `json:"exited"`
		ExitCode int    `json:"exitcode"`
		Signal   int    `json:"signal"`
		Out      []byte `json:"out-data"`
		Err      []byte `json:"err-data"`
	}
	interrupted := false
	err = node.WaitEvery(ctx, guestPoll, "the end of "+cmd.Args[0]+" in "+g.name, guestLimit, func(ctx context.Context) (bool, error) {
		select {
		case <-stop:
			if !interrupted {
				interrupted = true
				g.signal(ctx, started.PID, syscall.SIGINT)
			}
		default:
		}
		err := g.ask(ctx, "guest-exec-status", map[string]int{"pid": started.PID}, &status)
		return err != nil && !busy(err) || status.Exited, err
	})
	if ctx.Err() != nil && !status.Exited {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		g.signal(ctx, started.PID, syscall.SIGKILL)
	}
	if err != nil {
		return err
	}
	for to, data := range map[io.Writer][]byte{cmd.Stdout: status.Out, cmd.Stderr: status.Err} {
		if to != nil {
			if _, err := io.Copy(to, bytes.NewReader(data)); err != nil {
				return err
			}
		}
	}
	if status.Signal != 0 {
		return &node.ExitError{Node: g.name, Args: cmd.Args, Code: 128 + status.Signal}
	}
	if status.ExitCode != 0 {
		return &node.ExitError{Node: g.name, Args: cmd.Args, Code: status.ExitCode}
	}
	return nil
}

const (
	guestPoll    = 250 * time.Millisecond
	guestLimit   = 30 * time.Minute // the line's own deadline is shorter
	untilStopped = -time.Second
)

// signal sends a process in the guest a signal; it may have ended meanwhile.
func (g *guest) signal(ctx context.Context, pid int, signal syscall.Signal) {
	var started struct{}
	_ = g.ask(ctx, "guest-exec", guestExec{Path: "/bin/kill", Arg: []string{fmt.Sprintf("-%d", signal), fmt.Sprint(pid)}}, &started)
}
