package scenarios

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/images/guest/agent/probe"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// vantage is where probes run: a server, a node, a namespace of a node, or the client outside the region.
type vantage interface {
	// probe asks until it has what the request asks for, or until stop is closed; when ctx ends, it fails.
	probe(ctx context.Context, stop <-chan struct{}, q probe.Request) (*probe.Result, error)
}

// vantage is the one of that name: client, NODE, NODE/NAMESPACE, or a server's.
func (r *Run) vantage(ctx context.Context, from string) (vantage, error) {
	name, namespace, inNamespace := strings.Cut(from, "/")
	if from == clientName {
		c, err := r.client()
		if err != nil {
			return nil, err
		}
		return &prober{node: c, command: []string{r.World.Agent}}, nil
	}
	if _, ok := r.World.Plan.Node(name); ok {
		n := r.World.Node(name)
		agent, err := r.agentFile()
		if err != nil {
			return nil, err
		}
		p := &prober{node: n, agent: agent}
		if inNamespace {
			p.namespace, p.command = namespace, []string{"ip", "netns", "exec", namespace}
		}
		p.command = append(p.command, agent.path())
		return p, nil
	}
	if inNamespace || !slices.Contains(names(r, kindServer), from) {
		return nil, r.unknown("no server or node", name, append([]string{clientName}, names(r, kindServer)...))
	}
	s, err := r.server(ctx, from)
	if err != nil {
		return nil, err
	}
	return r.inside(s)
}

// unknown is the fault of a name that is neither one of some kinds nor a node's.
func (r *Run) unknown(what, name string, there []string) error {
	for _, n := range r.World.Plan.Nodes {
		there = append(there, n.Name)
	}
	return (&fault.Error{Code: fault.NotFound, Message: fmt.Sprintf("%s %q", what, name), Expected: strings.Join(there, ", ")}).Suggest(name, there)
}

// address is what TO means for a probe from FROM: a literal address; client; gateway, the host's address on the external
// network; a server's name, which for the client means its floating IP where it has one; SERVER:NETWORK; the name of a
// floating IP, port or router; a node's name, which is its management address; NODE:NETWORK.
func (r *Run) address(ctx context.Context, from, to string) (netip.Addr, error) {
	if literal, err := netip.ParseAddr(to); err == nil {
		return literal, nil
	}
	name, network, onNetwork := strings.Cut(to, ":")
	switch {
	case to == clientName:
		c, err := r.client()
		if err != nil {
			return netip.Addr{}, err
		}
		return c.address, nil
	case to == "gateway":
		external, ok := r.World.Plan.Network("external")
		if !ok {
			return netip.Addr{}, Skipped("the region has no external network")
		}
		return external.Gateway, nil
	case slices.Contains(names(r, kindServer), name):
		s, err := r.server(ctx, name)
		if err != nil {
			return netip.Addr{}, err
		}
		return s.address(from, network)
	case slices.Contains(names(r, kindFloatingIP), to):
		f, err := get[*FloatingIP](r, kindFloatingIP, to)
		if err != nil {
			return netip.Addr{}, err
		}
		return f.Address, nil
	}
	for _, kind := range []string{kindPort, kindRouter} {
		if slices.Contains(names(r, kind), to) {
			resource, err := get[*Resource](r, kind, to)
			if err != nil {
				return netip.Addr{}, err
			}
			if !resource.Address.IsValid() {
				return netip.Addr{}, fault.New(fault.Invalid, "%s %s has no address", kind, to)
			}
			return resource.Address, nil
		}
	}
	if n, ok := r.World.Plan.Node(name); ok {
		if !onNetwork {
			network = "management"
		}
		if a := n.Address(network); a.IsValid() {
			return a, nil
		}
		return netip.Addr{}, fault.New(fault.NotFound, "node %s has no address on a network %q", name, network)
	}
	there := []string{clientName, "gateway"}
	for _, kind := range []string{kindServer, kindFloatingIP, kindPort, kindRouter} {
		there = append(there, names(r, kind)...)
	}
	return netip.Addr{}, r.unknown("nothing that has an address is called", to, there)
}

// address of a server for a probe from somewhere, on a network of its own or on any.
func (s *Server) address(from, network string) (netip.Addr, error) {
	if network != "" {
		i := slices.Index(s.Networks, network)
		if i < 0 {
			return netip.Addr{}, (&fault.Error{Code: fault.NotFound, Message: fmt.Sprintf("server %s is not on a network %q", s.Name, network),
				Expected: strings.Join(s.Networks, ", ")}).Suggest(network, s.Networks)
		}
		return s.Fixed[i], nil
	}
	if from == clientName && len(s.Floating) > 0 {
		return s.Floating[0], nil
	}
	if len(s.Fixed) == 0 || !s.Fixed[0].IsValid() {
		return netip.Addr{}, fault.New(fault.NotFound, "server %s has no address: it is %s", s.Name, s.Status)
	}
	return s.Fixed[0], nil
}

// agentFile is the agent's binary: the guest image's, which nodes and the client run too.
type agentFile struct {
	content []byte
	hash    string
}

// agentFile is read once a run.
func (r *Run) agentFile() (*agentFile, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.binary == nil {
		content, err := os.ReadFile(r.World.Agent)
		if err != nil {
			return nil, fmt.Errorf("read the guest image's agent: %w", err)
		}
		r.binary = &agentFile{content, fmt.Sprintf("%x", sha256.Sum256(content))}
	}
	return r.binary, nil
}

// agentDir is where the agent lies on a node, until its next boot.
const agentDir = "/run/toastdev"

// path of the agent on a node.
func (a *agentFile) path() string { return agentDir + "/agent-" + a.hash[:12] }

// push brings the agent to a node, whole or not at all: another scenario may do the same now.
func (a *agentFile) push(ctx context.Context, n node.Node) error {
	var tarball bytes.Buffer
	w := tar.NewWriter(&tarball)
	half := "agent-" + rand.Text()
	if err := errors.Join(
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: half, Mode: 0o755, Size: int64(len(a.content)), ModTime: time.Now()}),
		second(w.Write(a.content)), w.Close()); err != nil {
		return err
	}
	if err := node.Push(ctx, n, agentDir, &tarball); err != nil {
		return err
	}
	_, err := node.Output(ctx, n, "mv", agentDir+"/"+half, a.path())
	return err
}

func second(_ int, err error) error { return err }

// prober is the agent as a process on a node or in the client's namespace. It ends when its stdin does, and so with
// whatever holds the other end of that.
type prober struct {
	node      node.Node
	agent     *agentFile // nil: it is there already
	namespace string     // of the node; empty: its own
	command   []string
}

// noAgent is the exit code of a node that does not have the agent yet.
const noAgent = 90

func (p *prober) probe(ctx context.Context, stop <-chan struct{}, q probe.Request) (*probe.Result, error) {
	args := append(slices.Clone(p.command), "probe", "--attached")
	if p.agent != nil {
		args = append([]string{"sh", "-c", fmt.Sprintf(`[ -x %s ] || exit %d; exec "$@"`, p.agent.path(), noAgent), "probe"}, args...)
	}
	result, err := p.once(ctx, stop, q, args)
	if exit, ok := errors.AsType[*node.ExitError](err); ok && exit.Code == noAgent && p.agent != nil {
		if err := p.agent.push(ctx, p.node); err != nil {
			return nil, err
		}
		result, err = p.once(ctx, stop, q, args)
	}
	return result, err
}

func (p *prober) once(ctx context.Context, stop <-chan struct{}, q probe.Request, args []string) (*probe.Result, error) {
	request, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	stdin, hold := io.Pipe()
	go hold.Write(request) // the end comes with stop, below
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-stop:
		case <-ctx.Done():
		case <-ended:
		}
		hold.Close()
	}()
	var out, errs bytes.Buffer
	err = p.node.Run(ctx, node.Cmd{Args: args, Stdin: stdin, Stdout: &out, Stderr: &errs})
	stdin.Close()
	if exit, ok := errors.AsType[*node.ExitError](err); ok && exit.Code != noAgent {
		if p.namespace != "" && strings.Contains(errs.String(), "network namespace") {
			return nil, &fault.Error{Code: fault.NotFound, Node: p.node.Name(), Message: fmt.Sprintf("there is no network namespace %s", p.namespace), Err: err}
		}
		return nil, &fault.Error{Code: fault.Failed, Node: p.node.Name(), Unit: "probe", Message: fmt.Sprintf("exit code %d", exit.Code), Log: node.LastLines(errs.String(), 5), Err: err}
	}
	if err != nil {
		return nil, err
	}
	return answer(out.Bytes())
}

// probe runs the guest's own agent. Nothing is asked of it before it can have an answer.
func (g *guest) probe(ctx context.Context, stop <-chan struct{}, q probe.Request) (*probe.Result, error) {
	request, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	expect := time.Duration(q.Count-1) * q.Interval.Duration()
	switch {
	case q.Forever:
		expect = untilStopped
	case q.For > 0:
		expect = q.For.Duration()
	}
	var out, errs bytes.Buffer
	cmd := node.Cmd{Args: []string{guestAgent, "probe"}, Stdin: bytes.NewReader(request), Stdout: &out, Stderr: &errs}
	if err := g.run(ctx, cmd, stop, expect); err != nil {
		if _, ok := errors.AsType[*node.ExitError](err); ok {
			err = &fault.Error{Code: fault.Failed, Node: g.name, Unit: "probe", Message: err.Error(), Log: node.LastLines(errs.String(), 5), Err: err}
		}
		return nil, err
	}
	return answer(out.Bytes())
}

// answer is what the prober printed.
func answer(out []byte) (*probe.Result, error) {
	var result probe.Result
	if err := json.Unmarshal(out, &result); err != nil {
		return nil, fmt.Errorf("the prober says %s: %w", short(string(out)), err)
	}
	return &result, nil
}
