package scenarios

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/evidence"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/plan"
)

// assertion is what a script asks of a path; nil: it holds.
type assertion func(ctx context.Context, r *Run, p *evidence.Path, args []string) (*Mismatch, error)

var assertions = map[string]assertion{
	"includes":    includes,
	"avoids":      avoids,
	"through":     through,
	"source":      arrivesFrom,
	"destination": arrivesFor,
}

func checkPath(args []string) error {
	switch _, asserts := assertions[args[0]]; {
	case args[0] == "through" && len(args) != 3:
		return fault.New(fault.Invalid, "path through NODE NAMESPACE")
	case (args[0] == "source" || args[0] == "destination") && len(args) != 2:
		return fault.New(fault.Invalid, "path %s ADDRESS", args[0])
	case !asserts && len(args) != 2:
		return fault.New(fault.Invalid, "path A B").WithRemedy("name the two ends of the path, and nothing else")
	}
	return nil
}

// findPath computes a path, which is then the one that the script asks about.
func (r *Run) findPath(ctx context.Context, from, to, name string) (Outcome, error) {
	capture, err := r.stopped(name)
	if err != nil {
		return Outcome{}, err
	}
	source, err := r.ends(ctx, from)
	if err != nil {
		return Outcome{}, err
	}
	destination, err := r.ends(ctx, to)
	if err != nil {
		return Outcome{}, err
	}
	p, err := capture.Path(source, destination)
	if err != nil {
		return Outcome{}, err
	}
	p.From, p.To = from, to
	r.forget(kindPath, latest)
	if err := r.put(kindPath, latest, p); err != nil {
		return Outcome{}, err
	}
	r.path(lineOf(ctx), strings.TrimPrefix(capture.Name, r.ID+"-"), p)
	outcome := Outcome{Text: p.String(), JSON: p}
	if p.Packets == 0 {
		seen := fmt.Sprintf("none at any of %d points", len(capture.Points))
		if reasons := evidence.Reasons(p.Missing); len(reasons) > 0 {
			seen += "; incomplete: " + strings.Join(reasons, "; ")
		}
		return outcome, &Mismatch{Expected: fmt.Sprintf("packets from %s to %s", from, to), Seen: seen}
	}
	return outcome, nil
}

func (r *Run) assertPath(ctx context.Context, assert assertion, args []string) (Outcome, error) {
	if !slices.Contains(names(r, kindPath), latest) {
		return Outcome{}, fault.New(fault.Invalid, "there is no path yet").WithRemedy("write `path A B` before")
	}
	p, err := get[*evidence.Path](r, kindPath, latest)
	if err != nil {
		return Outcome{}, err
	}
	mismatch, err := assert(ctx, r, p, args[1:])
	if err == nil && mismatch != nil {
		err = mismatch
	}
	return Outcome{Text: whole(p) + "\n", JSON: p}, err
}

// whole is a path on one line: cmp1, ?, cmp2.
func whole(p *evidence.Path) string {
	var nodes []string
	for _, h := range p.Hops {
		name := h.Node
		if h.Unknown != "" {
			name = "? (" + h.Unknown + ")"
		}
		if len(nodes) == 0 || nodes[len(nodes)-1] != name {
			nodes = append(nodes, name)
		}
	}
	return fmt.Sprintf("the path from %s to %s is %s", p.From, p.To, strings.Join(nodes, ", "))
}

func includes(_ context.Context, r *Run, p *evidence.Path, nodes []string) (*Mismatch, error) {
	for _, n := range nodes {
		if err := r.captured(n); err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(p.Hops, func(h evidence.Hop) bool { return h.Node == n }) {
			return &Mismatch{Expected: "a path that includes " + n, Seen: whole(p)}, nil
		}
	}
	return nil, nil
}

func avoids(_ context.Context, r *Run, p *evidence.Path, nodes []string) (*Mismatch, error) {
	for _, n := range nodes {
		if err := r.captured(n); err != nil {
			return nil, err
		}
		expected := "a path that avoids " + n
		if p.Includes(n) {
			return &Mismatch{Expected: expected, Seen: whole(p) + r.detour(p, n)}, nil
		}
		var nics []string
		if planned, ok := r.World.Plan.Node(n); ok {
			for _, nic := range planned.NICs {
				if nic.Network == evidence.Tunnel || nic.Network == evidence.External {
					nics = append(nics, nic.Name)
				}
			}
		}
		if why := p.Unwatched(n, nics); len(why) > 0 {
			return &Mismatch{Expected: expected, Seen: "it is not known, as a capture is missing: " + strings.Join(why, "; ")}, nil
		}
	}
	return nil, nil
}

// detour says of a node that only a variant of the path passes how many packets did.
func (r *Run) detour(p *evidence.Path, node string) string {
	n := 0
	for _, v := range p.Variants {
		if slices.ContainsFunc(v.Hops, func(h evidence.Hop) bool { return h.Node == node }) {
			n += v.Packets
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" for %d packets; %d others passed %s", p.Packets, n, node)
}

func through(_ context.Context, r *Run, p *evidence.Path, args []string) (*Mismatch, error) {
	n, prefix := args[0], args[1]
	if err := r.captured(n); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(p.Hops, func(h evidence.Hop) bool {
		return h.Node == n && h.Namespace != "" && strings.HasPrefix(h.Namespace, prefix)
	}) {
		return nil, nil
	}
	var namespaces []string
	for _, h := range p.Hops {
		if h.Node == n && h.Namespace != "" && !slices.Contains(namespaces, h.Namespace) {
			namespaces = append(namespaces, h.Namespace)
		}
	}
	seen := whole(p)
	if len(namespaces) > 0 {
		seen += ", on " + n + " through " + strings.Join(namespaces, ", ")
	}
	return &Mismatch{Expected: fmt.Sprintf("a path through a namespace %s* on %s", prefix, n), Seen: seen}, nil
}

func arrivesFrom(ctx context.Context, r *Run, p *evidence.Path, args []string) (*Mismatch, error) {
	return r.arrives(ctx, p, "source", args[0], func(h evidence.Hop) netip.Addr { return h.Source })
}

func arrivesFor(ctx context.Context, r *Run, p *evidence.Path, args []string) (*Mismatch, error) {
	return r.arrives(ctx, p, "destination", args[0], func(h evidence.Hop) netip.Addr { return h.Destination })
}

// arrives looks at the last hop that is known.
func (r *Run) arrives(ctx context.Context, p *evidence.Path, what, word string, of func(evidence.Hop) netip.Addr) (*Mismatch, error) {
	expected, err := r.ends(ctx, word)
	if err != nil {
		return nil, err
	}
	for _, h := range slices.Backward(p.Hops) {
		if h.Unknown != "" {
			continue
		}
		if slices.Contains(expected, of(h)) {
			return nil, nil
		}
		return &Mismatch{Expected: fmt.Sprintf("the %s address %s", what, expected[0]), Seen: fmt.Sprintf("%s at %s", of(h), h)}, nil
	}
	return &Mismatch{Expected: fmt.Sprintf("the %s address %s", what, expected[0]), Seen: "no packet"}, nil
}

// captured says that a path can have a node of that name.
func (r *Run) captured(name string) error {
	if name == clientNode {
		return nil
	}
	return r.planned(name)
}

// ends is the addresses of one end of a path.
func (r *Run) ends(ctx context.Context, word string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(word); err == nil {
		return []netip.Addr{a}, nil
	}
	switch {
	case word == clientNode:
		if _, _, addresses, ok := r.clientTarget(); ok {
			return addresses, nil
		}
		return nil, fault.New(fault.Invalid, "there is no client yet").WithRemedy("let it send something first: ping client ...")
	case word == gatewayNode:
		external, ok := r.World.Plan.Network("external")
		if !ok {
			return nil, fault.New(fault.NotFound, "the environment has no external network")
		}
		return []netip.Addr{external.Gateway}, nil
	case slices.Contains(names(r, kindServer), word):
		s, err := r.server(ctx, word)
		if err != nil {
			return nil, err
		}
		return slices.Concat(s.Fixed, s.Floating), nil
	case slices.Contains(names(r, kindFloatingIP), word):
		return r.behind(ctx, word)
	case slices.Contains(names(r, kindRouter), word):
		router, err := get[*Resource](r, kindRouter, word)
		if err != nil {
			return nil, err
		}
		if !router.Address.IsValid() {
			return nil, fault.New(fault.NotFound, "the router %s has no address on the external network", word)
		}
		return []netip.Addr{router.Address}, nil
	}
	if planned, ok := r.World.Plan.Node(word); ok {
		return nodeAddresses(planned), nil
	}
	there := slices.Concat(names(r, kindServer), names(r, kindFloatingIP), names(r, kindRouter), []string{clientNode, gatewayNode})
	return nil, unknown("server, floating IP, router, node or address", word, there)
}

// behind is a floating IP, and the addresses of the server that has it.
func (r *Run) behind(ctx context.Context, name string) ([]netip.Addr, error) {
	f, err := get[*FloatingIP](r, kindFloatingIP, name)
	if err != nil {
		return nil, err
	}
	addresses := []netip.Addr{f.Address}
	servers, err := r.servers(ctx)
	for _, s := range servers {
		if s != nil && slices.Contains(s.Floating, f.Address) {
			addresses = append(addresses, s.Fixed...)
		}
	}
	return addresses, err
}

func nodeAddresses(n *plan.Node) []netip.Addr {
	var addresses []netip.Addr
	for _, nic := range n.NICs {
		for _, a := range nic.Addresses {
			addresses = append(addresses, a.Addr())
		}
	}
	return addresses
}
