package scenarios

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/evidence"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/plan"
)

const (
	kindCapture = "capture"
	kindPath    = "path"
	latest      = "the last" // the name of what a line means that names none

	clientNode  = "client"  // as a capture's target, and the end of a path
	gatewayNode = "gateway" // the host's address on the external network
)

// capturing is a capture under way, or the one that came of it.
type capturing struct {
	session *evidence.Session
	capture *evidence.Capture
}

// captureCommands are the words for evidence.
func captureCommands() map[string]Command {
	return map[string]Command{
		"capture": {
			Summary: "record frames on interfaces of nodes, and count them",
			Args:    "start NAME [NODE[:INTERFACE]...] | stop NAME | saw NAME NODE INTERFACE FILTER [COUNT] [--inside]",
			Detail: []string{
				"start returns when every interface is listened on. Without NODE it is: the tunnel and external NICs of all nodes, what is in the namespaces of the script's " +
					"routers and networks (and of floating IPs), the taps of its servers, and the external client's interface. NODE alone is all that of one node. INTERFACE is a " +
					"name or a pattern, within a namespace behind its own pattern: cmp1:tun0, cmp1:tap*, net:snat-*/qg-*. What is made after the start is not captured.",
				"stop brings the files to the scenario's folder, captures/NAME: pcap files with nanoseconds, for Wireshark, and capture.json. It prints each point with its number of frames.",
				"saw counts the frames on interfaces of a node that a pcap filter (see pcap-filter(7)) lets through, and compares: COUNT is 0, 3, >0, >=2, <=2; without it >0. " +
					"On a tunnel NIC all is VXLAN: with --inside the filter looks at the frames within. Frames that are missing from the file fail the line when they could change the answer.",
				"Example: capture start way",
				"         ping s1 s2",
				"         capture stop way",
				"         capture saw way net tun0 icmp 0 --inside",
			},
			Async: true, Spares: true, Min: 2, Max: -1,
			Check: checkCapture,
			Flags: func(f *pflag.FlagSet) Action {
				inside := f.Bool("inside", false, "the filter looks at what VXLAN carries")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					switch word, name := args[0], args[1]; word {
					case "start":
						return r.startCapture(ctx, name, args[2:])
					case "stop":
						return r.stopCapture(ctx, name)
					default:
						count := ">0"
						if len(args) == 6 {
							count = args[5]
						}
						return r.saw(ctx, name, args[2], args[3], args[4], count, *inside)
					}
				}
			},
		},
		"path": {
			Summary: "the way that packets took, by what a capture saw",
			Args:    "A B [--capture NAME] | includes NODE... | avoids NODE... | through NODE NAMESPACE | source ADDRESS | destination ADDRESS",
			Detail: []string{
				"A B prints the hops of the packets from A to B, in this direction alone; it fails when the capture, the last one stopped, saw none. A and B are servers, floating IPs, " +
					"routers, nodes, client, gateway or addresses. Where no capture shows how a packet came on there is a hop `?` with the reason.",
				"The others look at the path that was printed last. avoids is only true when all of that node's tunnel and external NICs were captured to the end. through: a namespace whose " +
					"name begins so (snat-, qrouter-, fip-). source and destination are those of the packets as they arrived, after all translation.",
				"Example: path s1 s2",
				"         path avoids net",
			},
			Spares: true, Min: 2, Max: -1,
			Check: checkPath,
			Flags: func(f *pflag.FlagSet) Action {
				capture := f.String("capture", "", "the `NAME` of a capture that was stopped")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					if assert, ok := assertions[args[0]]; ok {
						return r.assertPath(ctx, assert, args)
					}
					return r.findPath(ctx, args[0], args[1], *capture)
				}
			},
		},
	}
}

func checkCapture(args []string) error {
	switch n := len(args); args[0] {
	case "start":
	case "stop":
		if n != 2 {
			return fault.New(fault.Invalid, "capture stop NAME")
		}
	case "saw":
		if n < 5 || n > 6 {
			return fault.New(fault.Invalid, "capture saw NAME NODE INTERFACE FILTER [COUNT]").WithRemedy("put the filter into 'single quotes'")
		}
		if n == 6 {
			_, err := comparison(args[5])
			return err
		}
	default:
		return (&fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("capture %s: no such word", args[0]), Expected: "start, stop, saw"}).
			Suggest(args[0], []string{"start", "stop", "saw"})
	}
	return nil
}

// startCapture starts a capture on what the script chose.
func (r *Run) startCapture(ctx context.Context, name string, chosen []string) (Outcome, error) {
	if err := r.free(kindCapture, name); err != nil {
		return Outcome{}, err
	}
	targets, err := r.targets(ctx, chosen)
	if err != nil {
		return Outcome{}, err
	}
	session, err := evidence.Start(ctx, r.ID+"-"+name, filepath.Join(r.Dir, "captures", name), targets)
	if err != nil {
		return Outcome{}, err
	}
	r.Undo("capture "+name, func(ctx context.Context) error {
		_, err := session.Stop(ctx)
		return err
	})
	points := 0
	for _, t := range targets {
		points += len(t.Interfaces)
	}
	return Outcome{Text: fmt.Sprintf("capturing at %d points\n", points)}, r.put(kindCapture, name, &capturing{session: session})
}

// stopCapture ends a capture; it is then the one that path means.
func (r *Run) stopCapture(ctx context.Context, name string) (Outcome, error) {
	c, err := get[*capturing](r, kindCapture, name)
	if err != nil {
		return Outcome{}, err
	}
	if c.session.Addresses == nil {
		c.session.Addresses = r.known(ctx)
	}
	capture, err := c.session.Stop(ctx)
	if err != nil {
		return Outcome{}, err
	}
	c.capture = capture
	r.forget(kindCapture, latest)
	if err := r.put(kindCapture, latest, c); err != nil {
		return Outcome{}, err
	}
	var text strings.Builder
	for _, p := range capture.Points {
		fmt.Fprintf(&text, "%s: %d frames", p, p.Frames)
		if p.Missing != "" {
			fmt.Fprintf(&text, ", incomplete: %s", p.Missing)
		}
		fmt.Fprintln(&text)
	}
	return Outcome{Text: text.String(), JSON: capture}, nil
}

// stopped is a capture that was stopped; without a name the last one.
func (r *Run) stopped(name string) (*evidence.Capture, error) {
	if name == "" {
		if !slices.Contains(names(r, kindCapture), latest) {
			return nil, fault.New(fault.Invalid, "no capture was stopped yet").WithRemedy("write `capture stop NAME` before")
		}
		name = latest
	}
	c, err := get[*capturing](r, kindCapture, name)
	if err != nil {
		return nil, err
	}
	if c.capture == nil {
		return nil, fault.New(fault.Invalid, "the capture %s is under way", name).WithRemedy("write `capture stop %s` before", name)
	}
	return c.capture, nil
}

// saw counts frames at the points of a node.
func (r *Run) saw(ctx context.Context, name, where, pattern, filter, count string, inside bool) (Outcome, error) {
	capture, err := r.stopped(name)
	if err != nil {
		return Outcome{}, err
	}
	holds, err := comparison(count)
	if err != nil {
		return Outcome{}, err
	}
	points := capture.Matching(where, pattern)
	if len(points) == 0 {
		var there []string
		for _, p := range capture.Points {
			there = append(there, p.String())
		}
		return Outcome{}, &fault.Error{Code: fault.NotFound, Message: fmt.Sprintf("the capture %s has no point %s %s", name, where, pattern), Expected: strings.Join(there, ", ")}
	}
	reader := r.World.Node(r.World.Plan.WithRole("control")[0].Name)
	var total int
	var incomplete []evidence.Point
	for _, p := range points {
		if p.Missing != "" {
			incomplete = append(incomplete, p)
		}
		if p.File == "" {
			continue
		}
		n, err := capture.Saw(ctx, reader, p, filter, inside)
		if err != nil {
			return Outcome{}, err
		}
		total += n
	}
	outcome := Outcome{Text: fmt.Sprintln(total), JSON: total}
	expected := fmt.Sprintf("%s frames of %q at %s %s", count, filter, where, pattern)
	switch {
	case !holds(total):
		return outcome, &Mismatch{Expected: expected, Seen: strings.Join(append([]string{strconv.Itoa(total)}, evidence.Reasons(incomplete)...), "; ")}
	// Any number of frames more may have passed.
	case len(incomplete) > 0 && !holds(total+1_000_000):
		return outcome, &Mismatch{Expected: expected, Seen: fmt.Sprintf("%d, but the capture is incomplete: %s", total, strings.Join(evidence.Reasons(incomplete), "; "))}
	}
	return outcome, nil
}

// comparison is what a COUNT asks of a number.
func comparison(text string) (func(int) bool, error) {
	number := strings.TrimLeft(text, "<>=!")
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 {
		return nil, fault.New(fault.Invalid, "%q is not a count", text).WithRemedy("write 0, 3, >0, >=2, <5 or <=5")
	}
	switch strings.TrimSuffix(text, number) {
	case "", "=", "==":
		return func(seen int) bool { return seen == n }, nil
	case ">":
		return func(seen int) bool { return seen > n }, nil
	case ">=":
		return func(seen int) bool { return seen >= n }, nil
	case "<":
		return func(seen int) bool { return seen < n }, nil
	case "<=":
		return func(seen int) bool { return seen <= n }, nil
	}
	return nil, fault.New(fault.Invalid, "%q is not a count", text).WithRemedy("write 0, 3, >0, >=2, <5 or <=5")
}

// owned is what the scenario has on the nodes: labels by the names of namespaces and of devices.
type owned struct {
	namespaces map[string]string
	devices    map[string]string
	routers    bool // it has routers
}

// owned asks for the scenario's servers.
func (r *Run) owned(ctx context.Context) (owned, error) {
	o := owned{namespaces: map[string]string{}, devices: map[string]string{}}
	for _, name := range names(r, kindRouter) {
		id, err := r.id(kindRouter, name)
		if err != nil {
			return o, err
		}
		o.routers = true
		o.namespaces["qrouter-"+id], o.namespaces["snat-"+id] = name, name
		// A device's name has room for as much of an id: 15 characters together.
		o.devices["fpr-"+id[:min(10, len(id))]] = name
	}
	for _, name := range names(r, kindNetwork) {
		id, err := r.id(kindNetwork, name)
		if err != nil {
			return o, err
		}
		o.namespaces["qdhcp-"+id] = name
	}
	servers, err := r.servers(ctx)
	for _, s := range servers {
		for _, port := range s.Ports {
			o.devices["tap"+port[:min(11, len(port))]] = s.Name
		}
	}
	return o, err
}

// servers is all servers of the scenario as they are now.
func (r *Run) servers(ctx context.Context) ([]*Server, error) {
	all := names(r, kindServer)
	servers := make([]*Server, len(all))
	group, ctx := errgroup.WithContext(ctx)
	for i, name := range all {
		group.Go(func() (err error) {
			servers[i], err = r.server(ctx, name)
			return err
		})
	}
	return servers, group.Wait()
}

// known is what the region's addresses are, for people. What cannot be asked for is left out.
func (r *Run) known(ctx context.Context) map[string]string {
	known := map[string]string{}
	for _, n := range r.World.Plan.Nodes {
		for _, nic := range n.NICs {
			known[nic.MAC] = n.Name
			for _, a := range nic.Addresses {
				known[a.Addr().String()] = n.Name
			}
		}
	}
	for _, name := range names(r, kindFloatingIP) {
		if f, err := get[*FloatingIP](r, kindFloatingIP, name); err == nil {
			known[f.Address.String()] = name
		}
	}
	if _, _, addresses, ok := r.clientTarget(); ok {
		for _, a := range addresses {
			known[a.String()] = clientNode
		}
	}
	servers, _ := r.servers(ctx)
	for _, s := range servers {
		if s == nil {
			continue
		}
		for _, a := range s.Fixed {
			known[a.String()] = s.Name
		}
		for _, mac := range s.MACs {
			known[mac] = s.Name
		}
	}
	return known
}

// targets is what a capture is to be on. A node that does not answer is left out of the default choice.
func (r *Run) targets(ctx context.Context, chosen []string) ([]evidence.Target, error) {
	patterns := map[string][]string{} // of interfaces by node; nil: the default ones
	for _, c := range chosen {
		name, pattern, narrowed := strings.Cut(c, ":")
		if name != clientNode {
			if err := r.planned(name); err != nil {
				return nil, err
			}
		}
		if old, known := patterns[name]; narrowed && (!known || old != nil) {
			patterns[name] = append(old, pattern)
		} else {
			patterns[name] = nil
		}
	}
	o, err := r.owned(ctx)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var targets []evidence.Target
	group, groupCtx := errgroup.WithContext(ctx)
	for _, n := range r.World.Plan.Nodes {
		wanted, named := patterns[n.Name]
		switched := n.Address("tunnel").IsValid() || n.Address("external").IsValid()
		if len(chosen) > 0 && !named || len(chosen) == 0 && !switched {
			continue
		}
		group.Go(func() error {
			reached := r.World.Node(n.Name)
			found, err := interfaces(groupCtx, reached, &n, o)
			if err != nil && !named {
				r.Logf("%s is not captured: %v", n.Name, err)
				return nil
			}
			if err != nil {
				return err
			}
			found, err = choose(n.Name, found, wanted, o)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			targets = append(targets, evidence.Target{Name: n.Name, Node: reached, Interfaces: found})
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	order := func(t evidence.Target) int {
		return slices.IndexFunc(r.World.Plan.Nodes, func(n plan.Node) bool { return n.Name == t.Name })
	}
	slices.SortFunc(targets, func(a, b evidence.Target) int { return order(a) - order(b) })
	if _, named := patterns[clientNode]; named || len(chosen) == 0 {
		switch client, err := r.clientAsTarget(); {
		case err == nil:
			targets = append(targets, client)
		case named:
			return nil, err
		default:
			r.Logf("the client is not captured: %v", err)
		}
	}
	return targets, nil
}

// clientAsTarget is the external client, which is made when it is not there.
func (r *Run) clientAsTarget() (evidence.Target, error) {
	if _, err := r.client(); err != nil {
		return evidence.Target{}, err
	}
	namespace, name, addresses, _ := r.clientTarget()
	return evidence.Target{Name: clientNode, Namespace: namespace,
		Interfaces: []evidence.Interface{{Name: name, Kind: evidence.Client, Addresses: addresses}}}, nil
}

// listInterfaces prints a line for the node's own namespace and for each other: its name and its interfaces as JSON.
const listInterfaces = `echo "- $(ip -j addr)"
for namespace in /run/netns/*; do
	[ ! -e "$namespace" ] || echo "${namespace##*/} $(ip -j -n "${namespace##*/}" addr 2>/dev/null)"
done`

// interfaces is all interfaces of a node with their kinds; those without a kind are of nobody's interest by default.
func interfaces(ctx context.Context, n node.Node, planned *plan.Node, o owned) ([]evidence.Interface, error) {
	out, err := node.Output(ctx, n, "sh", "-c", listInterfaces)
	if err != nil {
		return nil, err
	}
	var found []evidence.Interface
	for line := range strings.Lines(string(out)) {
		namespace, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if namespace == "-" {
			namespace = ""
		}
		var list []struct {
			Name  string `json:"ifname"`
			MAC   string `json:"address"`
			Addrs []struct {
				Local netip.Addr `json:"local"`
			} `json:"addr_info"`
		}
		if text == "" || json.Unmarshal([]byte(text), &list) != nil {
			continue // the namespace went away
		}
		for _, l := range list {
			i := evidence.Interface{Name: l.Name, Namespace: namespace, MAC: l.MAC}
			for _, a := range l.Addrs {
				if a.Local.Is4() || a.Local.Is6() && !a.Local.IsLinkLocalUnicast() {
					i.Addresses = append(i.Addresses, a.Local)
				}
			}
			if namespace == "" {
				rootInterface(&i, planned, o)
			} else {
				i.Kind, i.Label = routedKind(i.Name), cmp.Or(o.namespaces[namespace], o.devices[i.Name])
			}
			found = append(found, i)
		}
	}
	return found, nil
}

// rootInterface fills in what an interface of a node's own namespace is. With the userspace switch a NIC's address is its
// bridge's.
func rootInterface(i *evidence.Interface, planned *plan.Node, o owned) {
	if server, ok := o.devices[i.Name]; ok {
		i.Kind, i.Label = evidence.Tap, server
		return
	}
	for _, nic := range planned.NICs {
		if nic.Name == i.Name {
			i.Kind = nic.Network
			i.Addresses = nil
			for _, a := range nic.Addresses {
				i.Addresses = append(i.Addresses, a.Addr())
			}
		}
	}
}

// routedKind is the kind of an interface in one of Neutron's namespaces, by its name's beginning.
func routedKind(name string) string {
	switch prefix, _, _ := strings.Cut(name, "-"); prefix {
	case "qr", "sg", "rfp":
		return evidence.Router
	case "qg", "fg", "fpr":
		return evidence.Gateway
	}
	if strings.HasPrefix(name, "tap") {
		return evidence.DHCP
	}
	return ""
}

// usual says whether an interface is captured when the script does not say.
func usual(i evidence.Interface, routers bool) bool {
	switch i.Kind {
	case evidence.Tunnel, evidence.External, evidence.Tap:
		return true
	case evidence.Router, evidence.Gateway, evidence.DHCP:
		// A floating IPs' namespace is all routers'.
		return i.Label != "" || strings.HasPrefix(i.Name, "fg-") || !routers
	}
	return false
}

// choose is the interfaces that match one of the patterns; without patterns the usual ones.
func choose(node string, all []evidence.Interface, patterns []string, o owned) ([]evidence.Interface, error) {
	if patterns == nil {
		return slices.DeleteFunc(all, func(i evidence.Interface) bool { return !usual(i, o.routers) }), nil
	}
	var chosen []evidence.Interface
	for _, pattern := range patterns {
		namespace, name, within := strings.Cut(pattern, "/")
		if !within {
			namespace, name = "", pattern
		}
		matched := false
		for _, i := range all {
			inNamespace, err := path.Match(namespace, i.Namespace)
			named, errName := path.Match(name, i.Name)
			if err := errors.Join(err, errName); err != nil {
				return nil, fault.New(fault.Invalid, "%q is not a pattern: %w", pattern, err)
			}
			if !inNamespace || !named || i.Name == "lo" {
				continue
			}
			matched = true
			if !slices.ContainsFunc(chosen, func(c evidence.Interface) bool { return c.Name == i.Name && c.Namespace == i.Namespace }) {
				chosen = append(chosen, i)
			}
		}
		if !matched {
			var there []string
			for _, i := range all {
				there = append(there, path.Join(i.Namespace, i.Name))
			}
			return nil, &fault.Error{Code: fault.NotFound, Node: node, Message: fmt.Sprintf("no interface %q", pattern), Expected: strings.Join(there, ", ")}
		}
	}
	return chosen, nil
}

// stopCaptures ends captures of a run that was killed, on all nodes that can be reached.
func stopCaptures(ctx context.Context, w *World) error {
	var group errgroup.Group
	for _, n := range w.Plan.Nodes {
		if n.Address("tunnel").IsValid() || n.Address("external").IsValid() {
			group.Go(func() error {
				_, _ = node.Output(ctx, w.Node(n.Name), "sh", "-c", evidence.Sweep)
				return nil
			})
		}
	}
	return group.Wait()
}
