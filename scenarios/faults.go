package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/topologies"
)

// faultCommands are the words that break something. All is undone at the end.
func faultCommands() map[string]Command {
	return map[string]Command{
		"node": {
			Summary: "end, start, freeze or thaw a node",
			Args:    "kill|stop|start|pause|resume NODE",
			Detail: []string{
				"kill is a power cut, stop a shutdown. start returns when the node has booted; its services may need longer (see `wait`). pause freezes all its processes, " +
					"resume lets them go on: its network answers meanwhile, for that is the kernel's.",
				"At the end of the scenario a node that ran before runs again.",
				"Example: node kill $compute1",
			},
			Async: true, Alone: true, Min: 2, Max: 2,
			Check: oneOfWords("node", "kill", "stop", "start", "pause", "resume"),
			Flags: plain(func(ctx context.Context, r *Run, args []string) (Outcome, error) {
				return Outcome{}, r.power(ctx, args[0], args[1])
			}),
		},
		"nic": {
			Summary: "pull the cable of a node's interface, or put it back",
			Args:    "unplug|plug NODE NETWORK",
			Detail: []string{
				"The interface loses its carrier; its addresses and routes stay. NETWORK is management, tunnel, external or storage.",
				"Example: nic unplug $compute1 tunnel",
			},
			Async: true, Alone: true, Min: 3, Max: 3,
			Check: oneOfWords("nic", "unplug", "plug"),
			Flags: plain(func(ctx context.Context, r *Run, args []string) (Outcome, error) {
				return Outcome{}, r.cable(ctx, args[0], args[1], args[2])
			}),
		},
		"partition": {
			Summary: "cut nodes off from others, while all of them go on",
			Args:    "NODE... from NODE... [on NETWORK...] | heal",
			Detail: []string{
				"What the nodes on the left send to those on the right, and these to them, is dropped; `from rest` is all the others. Without `on` it is so on management, tunnel " +
					"and storage. (On external it is not to be had: instances' routers answer there by addresses of their own. See nic.)",
				"heal ends all partitions of the scenario.",
				"Example: partition $compute1 from rest on management",
			},
			Async: true, Alone: true, Min: 1, Max: -1,
			Check: func(args []string) error {
				_, err := parseSplit(args)
				return err
			},
			Flags: plain(func(ctx context.Context, r *Run, args []string) (Outcome, error) {
				s, err := parseSplit(args)
				switch {
				case err != nil:
					return Outcome{}, err
				case s == nil:
					return Outcome{}, r.heal(ctx)
				}
				return Outcome{}, r.partition(ctx, s)
			}),
		},
		"link": {
			Summary: "make what a node sends slow or lossy",
			Args:    "NODE NETWORK [--delay DURATION] [--loss PERCENT] [--rate RATE]",
			Detail: []string{
				"RATE is as tc(8) has it: 1mbit. Without flags the link is as it was. Where the node's kernel has no netem the scenario is skipped.",
				"Example: link $compute1 tunnel --delay 100ms --loss 5%",
			},
			Async: true, Alone: true, Min: 2, Max: 2,
			Flags: func(f *pflag.FlagSet) Action {
				var n netem
				f.DurationVar(&n.delay, "delay", 0, "how much later it arrives, a `DURATION`")
				f.StringVar(&n.loss, "loss", "", "how much of it is lost, a `PERCENT`")
				f.StringVar(&n.rate, "rate", "", "how much is let through, a `RATE`")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return Outcome{}, r.link(ctx, args[0], args[1], n)
				}
			},
		},
		"disk": {
			Summary: "fill a filesystem of a node's own",
			Args:    "fill NODE PATH [--leave SIZE]",
			Detail: []string{
				"PATH is a folder on the filesystem. It must be one with a size of its own, so that not the host's disk or memory is filled: a tmpfs made with size=, a loop device; " +
					"in a VM any disk. SIZE is as fallocate(1) has it: 1M. It is freed at the end.",
				"Example: exec $compute1 -- mount -t tmpfs -o size=32m none /var/crash",
				"         disk fill $compute1 /var/crash --leave 1M",
			},
			Async: true, Alone: true, Min: 3, Max: 3,
			Check: oneOfWords("disk", "fill"),
			Flags: func(f *pflag.FlagSet) Action {
				leave := f.String("leave", "0", "the `SIZE` that stays free")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return Outcome{}, r.fill(ctx, args[1], args[2], *leave)
				}
			},
		},
		"unit": {
			Summary: "end or start a unit of a node's systemd",
			Args:    "kill|stop|start|restart NODE UNIT",
			Detail: []string{
				"kill is SIGKILL to all its processes: mostly systemd starts it again. The others return when it has come about.",
				"At the end of the scenario the unit runs if it ran before.",
				"Example: unit restart $network1 neutron-l3-agent",
			},
			Async: true, Alone: true, Spares: true, Min: 3, Max: 3,
			Check: oneOfWords("unit", "kill", "stop", "start", "restart"),
			Flags: plain(func(ctx context.Context, r *Run, args []string) (Outcome, error) {
				return Outcome{}, r.unit(ctx, args[0], args[1], args[2])
			}),
		},
		"fence":     fenceCommand(),
		"evacuator": evacuatorCommand(),
	}
}

// oneOfWords checks a command's first argument.
func oneOfWords(command string, words ...string) func([]string) error {
	return func(args []string) error {
		if slices.Contains(words, args[0]) {
			return nil
		}
		e := &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("%s %s: no such word", command, args[0]), Expected: strings.Join(words, ", ")}
		return e.Suggest(args[0], words)
	}
}

// machine is a node to be broken.
type machine struct {
	node.Node
	planned     *plan.Node
	provisioner provisioners.Provisioner
}

func (w *World) machine(name string) (machine, error) {
	planned, ok := w.Plan.Node(name)
	if !ok {
		var there []string
		for _, n := range w.Plan.Nodes {
			there = append(there, n.Name)
		}
		return machine{}, unknown("node", name, there)
	}
	return machine{w.Node(name), planned, w.Provisioner(planned)}, nil
}

// nic is the node's interface on a network.
func (m machine) nic(network string) (plan.NIC, error) {
	var there []string
	for _, nic := range m.planned.NICs {
		if nic.Network == network {
			return nic, nil
		}
		there = append(there, nic.Network)
	}
	e := &fault.Error{Code: fault.NotFound, Message: fmt.Sprintf("%s is not on a network %q", m.planned.Name, network), Expected: strings.Join(there, ", ")}
	return plan.NIC{}, e.Suggest(network, there)
}

// runs says whether a command can be run on the node.
func (m machine) runs(ctx context.Context) (bool, error) {
	state, err := m.provisioner.State(ctx, m.planned.Resource)
	return state == provisioners.Running, err
}

// faultFolder is where a node keeps what undoes its faults, each a script. It is in memory: a restart undoes them as well.
const faultFolder = "/run/toastdev/faults"

const kindFault = "fault"

// afflict runs script with args on a node, when the script that undoes it is there. What undoes a fault of this name is the
// first that was given; doing it when nothing is to be undone must do no harm.
func (r *Run) afflict(ctx context.Context, m machine, name, undo, script string, args ...string) error {
	if r.put(kindFault, m.planned.Name+"/"+name, m) == nil {
		if err := note(ctx, m, name, undo); err != nil {
			return err
		}
		r.Undo(m.planned.Name+": "+name, func(ctx context.Context) error { return r.relieve(ctx, m, name) })
	}
	_, err := node.Output(ctx, m, append([]string{"sh", "-euc", script, name}, args...)...)
	return err
}

// note keeps on a node what undoes a fault.
func note(ctx context.Context, m machine, name, undo string) error {
	_, err := node.Input(ctx, m, []byte(undo), "sh", "-c", `mkdir -p "${1%/*}" && cat >"$1"`, "note", path.Join(faultFolder, name))
	return err
}

// relieve undoes a fault of afflict's.
func (r *Run) relieve(ctx context.Context, m machine, name string) error {
	r.forget(kindFault, m.planned.Name+"/"+name)
	if runs, err := m.runs(ctx); err != nil || !runs {
		return err
	}
	_, err := node.Output(ctx, m, "sh", "-c", `[ ! -e "$1" ] || { sh "$1" && rm -f "$1"; }`, "relieve", path.Join(faultFolder, name))
	return err
}

// power is what `node` does.
func (r *Run) power(ctx context.Context, verb, name string) error {
	m, err := r.World.machine(name)
	if err != nil {
		return err
	}
	state, err := m.provisioner.State(ctx, m.planned.Resource)
	if err != nil {
		return err
	}
	if state == provisioners.Running && verb != "start" && verb != "resume" {
		if err := r.notePower(ctx, m); err != nil {
			return err
		}
	}
	cannot := fault.New(fault.Unsupported, "provisioner %s cannot %s a node", m.planned.Provisioner, verb)
	switch verb {
	case "kill":
		killer, ok := m.provisioner.(provisioners.Killer)
		if !ok {
			return cannot
		}
		return killer.Kill(ctx, m.planned.Resource)
	case "stop":
		return m.provisioner.Stop(ctx, m.planned.Resource)
	case "pause":
		pauser, ok := m.provisioner.(provisioners.Pauser)
		if !ok {
			return cannot
		}
		return pauser.Pause(ctx, m.planned.Resource)
	}
	return m.provisioner.Start(ctx, m.planned.Resource)
}

// powerNote is the name of the note, on another node, that a node is to be started.
const powerNote = "power-"

// notePower has a node started at the end.
func (r *Run) notePower(ctx context.Context, m machine) error {
	if r.put(kindFault, m.planned.Name+"/power", m) != nil {
		return nil
	}
	var other machine
	for i := range r.World.Plan.Nodes {
		candidate, err := r.World.machine(r.World.Plan.Nodes[i].Name)
		if err != nil || candidate.planned == m.planned {
			continue
		}
		if runs, err := candidate.runs(ctx); err == nil && runs {
			other = candidate
			break
		}
	}
	if other.planned != nil {
		if err := note(ctx, other, powerNote+m.planned.Name, ""); err != nil {
			return err
		}
	}
	r.Undo("start "+m.planned.Name, func(ctx context.Context) error {
		err := m.provisioner.Start(ctx, m.planned.Resource)
		if err == nil && other.planned != nil {
			err = r.relieve(ctx, other, powerNote+m.planned.Name)
		}
		return err
	})
	return nil
}

// cable is what `nic` does.
func (r *Run) cable(ctx context.Context, verb, name, network string) error {
	m, err := r.World.machine(name)
	if err != nil {
		return err
	}
	nic, err := m.nic(network)
	if err != nil {
		return err
	}
	if verb == "plug" {
		return m.plug(ctx, r.World.Plan, nic, true)
	}
	if r.put(kindFault, name+"/cable-"+nic.Name, m) == nil {
		r.Undo("plug "+name+" into "+network, func(ctx context.Context) error { return m.plug(ctx, r.World.Plan, nic, true) })
	}
	return m.plug(ctx, r.World.Plan, nic, false)
}

// plug puts an interface's cable in, or pulls it. A node that does not run has it in when it starts.
func (m machine) plug(ctx context.Context, p *plan.Plan, nic plan.NIC, in bool) error {
	able, ok := m.provisioner.(provisioners.Unplugger)
	if !ok {
		return fault.New(fault.Unsupported, "provisioner %s cannot unplug an interface", m.planned.Provisioner)
	}
	network, _ := p.Network(nic.Network)
	port := provisioners.NIC{Network: network.Resource, Address: nic.Addresses[0].Addr(), MAC: nic.MAC}
	if !in {
		return able.Unplug(ctx, m.planned.Resource, port)
	}
	if runs, err := m.runs(ctx); err != nil || !runs {
		return err
	}
	return able.Plug(ctx, m.planned.Resource, port)
}

// split is a partition as a line has it.
type split struct {
	left, right []string
	on          []string
}

const (
	wordFrom = "from"
	wordOn   = "on"
	wordRest = "rest"
	wordHeal = "heal"
)

// parseSplit reads the words of `partition`; nil is heal.
func parseSplit(args []string) (*split, error) {
	expected := "NODE... from NODE... [on NETWORK...] | heal"
	if len(args) == 1 && args[0] == wordHeal {
		return nil, nil
	}
	s := &split{}
	from := slices.Index(args, wordFrom)
	if from < 1 {
		return nil, &fault.Error{Code: fault.Invalid, Message: "partition: it is not said who is cut off from whom", Expected: expected}
	}
	s.left, s.right = args[:from], args[from+1:]
	if on := slices.Index(s.right, wordOn); on >= 0 {
		s.right, s.on = s.right[:on], s.right[on+1:]
		if len(s.on) == 0 {
			return nil, &fault.Error{Code: fault.Invalid, Message: "partition: no network behind `on`", Expected: expected}
		}
	}
	if len(s.right) == 0 {
		return nil, &fault.Error{Code: fault.Invalid, Message: "partition: no node behind `from`", Expected: expected}
	}
	if slices.Contains(s.on, topologies.External) {
		return nil, fault.New(fault.Invalid, "partition: on the external network instances' routers answer by addresses of their own, which it does not cut").
			WithRemedy("pull the cable: nic unplug NODE external")
	}
	return s, nil
}

// cut is the peers that a node no longer reaches over one of its interfaces.
type cut struct {
	nic       string
	macs      []string
	addresses []netip.Addr
}

// cuts is what follows from a partition, by node: both sides drop what they send, for a frame that a userspace switch takes
// from its interface is never filtered where it arrives.
func cuts(p *plan.Plan, s *split) (map[string][]cut, error) {
	sides := [2][]string{s.left, s.right}
	if slices.Contains(s.right, wordRest) {
		sides[1] = nil
		for _, n := range p.Nodes {
			if !slices.Contains(s.left, n.Name) {
				sides[1] = append(sides[1], n.Name)
			}
		}
	}
	on := s.on
	if len(on) == 0 {
		on = []string{topologies.Management, topologies.Tunnel, topologies.StorageNetwork}
	}
	found := map[string][]cut{}
	for _, network := range on {
		if _, ok := p.Network(network); !ok {
			return nil, unknown("network", network, []string{topologies.Management, topologies.Tunnel, topologies.StorageNetwork})
		}
		var ends [2][]plan.NIC
		for side, nodes := range sides {
			for _, name := range nodes {
				n, ok := p.Node(name)
				if !ok {
					var there []string
					for _, n := range p.Nodes {
						there = append(there, n.Name)
					}
					return nil, unknown("node", name, there)
				}
				for _, nic := range n.NICs {
					if nic.Network == network {
						ends[side] = append(ends[side], nic)
					}
				}
			}
		}
		for side, nodes := range sides {
			for _, name := range nodes {
				n, _ := p.Node(name)
				for _, nic := range n.NICs {
					if nic.Network != network || len(ends[1-side]) == 0 {
						continue
					}
					c := cut{nic: nic.Name}
					for _, peer := range ends[1-side] {
						c.macs = append(c.macs, peer.MAC)
						for _, address := range peer.Addresses {
							c.addresses = append(c.addresses, address.Addr())
						}
					}
					found[name] = append(found[name], c)
				}
			}
		}
	}
	if len(found) == 0 {
		return nil, fault.New(fault.Invalid, "partition: these nodes share no such network: there is nothing to cut")
	}
	return found, nil
}

const partitionTable = "toastdev_partition"

// healRules removes the partition's table, and does no harm when there is none.
const healRules = "table netdev " + partitionTable + "\ndelete table netdev " + partitionTable + "\n"

// partitionRules is the table of a node, for nft: in place of one that is there.
func partitionRules(all []cut) string {
	byNIC := map[string]*cut{}
	var nics []string
	for _, c := range all {
		if byNIC[c.nic] == nil {
			byNIC[c.nic] = &cut{nic: c.nic}
			nics = append(nics, c.nic)
		}
		byNIC[c.nic].macs = append(byNIC[c.nic].macs, c.macs...)
		byNIC[c.nic].addresses = append(byNIC[c.nic].addresses, c.addresses...)
	}
	var b strings.Builder
	b.WriteString(healRules + "table netdev " + partitionTable + " {\n")
	for _, name := range nics {
		c := byNIC[name]
		slices.Sort(c.macs)
		slices.SortFunc(c.addresses, netip.Addr.Compare)
		var addresses []string
		for _, a := range slices.Compact(c.addresses) {
			addresses = append(addresses, a.String())
		}
		macs, ips := strings.Join(slices.Compact(c.macs), ", "), strings.Join(addresses, ", ")
		fmt.Fprintf(&b, `	chain %s {
		type filter hook egress device "%s" priority 0; policy accept;
		ether daddr { %s } drop
		ip daddr { %s } drop
		arp daddr ip { %s } drop
	}
`, name, name, macs, ips, ips)
	}
	b.WriteString("}\n")
	return b.String()
}

const (
	faultPartition = "partition"
	kindCuts       = "cuts" // by node: what the partitions so far have cut
)

// partition adds to what is cut.
func (r *Run) partition(ctx context.Context, s *split) error {
	more, err := cuts(r.World.Plan, s)
	if err != nil {
		return err
	}
	var group errgroup.Group
	for name, added := range more {
		group.Go(func() error {
			m, err := r.World.machine(name)
			if err != nil {
				return err
			}
			if old, err := get[[]cut](r, kindCuts, name); err == nil {
				added = append(slices.Clone(old), added...)
				r.forget(kindCuts, name)
			}
			if err := r.put(kindCuts, name, added); err != nil {
				return err
			}
			undo := "nft -f - <<RULES\n" + healRules + "RULES\n"
			return r.afflict(ctx, m, faultPartition, undo, "nft -f - <<RULES\n"+partitionRules(added)+"RULES\n")
		})
	}
	return group.Wait()
}

// heal ends all partitions.
func (r *Run) heal(ctx context.Context) error {
	var group errgroup.Group
	for _, name := range names(r, kindCuts) {
		r.forget(kindCuts, name)
		group.Go(func() error {
			m, err := r.World.machine(name)
			if err != nil {
				return err
			}
			return r.relieve(ctx, m, faultPartition)
		})
	}
	return group.Wait()
}

// netem is what is done to what a node sends; the zero value nothing.
type netem struct {
	delay      time.Duration
	loss, rate string
}

// args are tc's.
func (n netem) args() []string {
	var args []string
	if n.delay > 0 {
		args = append(args, "delay", fmt.Sprintf("%dus", n.delay.Microseconds()))
	}
	if n.loss != "" {
		args = append(args, "loss", n.loss)
	}
	if n.rate != "" {
		args = append(args, "rate", n.rate)
	}
	return args
}

// link is what `link` does.
func (r *Run) link(ctx context.Context, name, network string, n netem) error {
	m, err := r.World.machine(name)
	if err != nil {
		return err
	}
	nic, err := m.nic(network)
	if err != nil {
		return err
	}
	named := "link-" + nic.Name
	if n == (netem{}) {
		return r.relieve(ctx, m, named)
	}
	if !r.World.Netem && !m.planned.VM() {
		return Skipped("the nodes' kernel has no netem, which makes links slow or lossy")
	}
	undo := fmt.Sprintf("tc qdisc del dev %s root 2>/dev/null || true\n", nic.Name)
	err = r.afflict(ctx, m, named, undo, `tc qdisc replace dev "$@"`, append([]string{nic.Name, "root", "netem"}, n.args()...)...)
	if err != nil && strings.Contains(err.Error(), "qdisc kind is unknown") {
		return Skipped("the kernel of %s has no netem, which makes links slow or lossy", name)
	}
	return err
}

// refused is fillScript's exit code when it has done nothing; it has said why.
const refused = 3

// fillScript takes all of the filesystem below $1 but $2, in the file $3.
const fillScript = `
refuse() { echo "$1" >&2; exit 3; }
[ -d "$1" ] || refuse "no such folder"
set -- "$1" "$2" "$3" $(findmnt -nro FSTYPE,SOURCE --target "$1")
options=$(findmnt -nro OPTIONS --target "$1")
case $4 in
tmpfs)
	case ,$options, in *,size=*) ;; *) refuse "a tmpfs without size= is as large as half the host's memory" ;; esac
	[ "$(df --output=size -k "$1" | tail -n 1)" -le 1048576 ] || refuse "a tmpfs of more than 1 GiB takes too much of the host's memory" ;;
overlay | fuse* | nfs* | proc | sysfs | devtmpfs) refuse "$4 is not a filesystem of the node's own" ;;
*)
	case $5 in /dev/loop*) ;; *) systemd-detect-virt -cq && refuse "$5 is the host's disk" ;; esac ;;
esac
free=$(($(df --output=avail -k "$1" | tail -n 1) * 1024))
size=$((free - $(numfmt --from=iec "$2")))
[ "$size" -gt 0 ] || refuse "only $free bytes are free"
fallocate -l "$size" "$3" 2>/dev/null || head -c "$size" /dev/zero >"$3" || [ "$2" = 0 ]
`

// fill is what `disk fill` does.
func (r *Run) fill(ctx context.Context, name, folder, leave string) error {
	m, err := r.World.machine(name)
	if err != nil {
		return err
	}
	if !path.IsAbs(folder) || strings.ContainsAny(folder, "'\n") {
		return fault.New(fault.Invalid, "disk fill: %q is not a folder's whole path", folder)
	}
	file := path.Join(folder, ".toastdev-fill")
	named := "disk-" + strings.ReplaceAll(strings.Trim(folder, "/"), "/", "-")
	err = r.afflict(ctx, m, named, "rm -f '"+file+"'\n", fillScript, folder, leave, file)
	if exit, ok := errors.AsType[*node.ExitError](err); ok && exit.Code == refused {
		return fault.New(fault.Invalid, "disk fill refuses %s: %w", folder, err).
			WithRemedy("fill a filesystem that has a size of its own: exec %s -- mount -t tmpfs -o size=32m none %s", name, folder)
	}
	return err
}

// unit is what `unit` does.
func (r *Run) unit(ctx context.Context, verb, name, unit string) error {
	m, err := r.World.machine(name)
	if err != nil {
		return err
	}
	out, err := node.Output(ctx, m, "systemctl", "show", "--property=LoadState,ActiveState", "--value", "--", unit)
	if err != nil {
		return err
	}
	state := strings.Fields(string(out))
	if len(state) != 2 || state[0] == "not-found" {
		list, err := node.Output(ctx, m, "systemctl", "list-unit-files", "--no-legend", "--plain")
		if err != nil {
			return err
		}
		var there []string
		for line := range strings.Lines(string(list)) {
			file, _, _ := strings.Cut(line, " ")
			there = append(there, strings.TrimSuffix(file, ".service"))
		}
		e := &fault.Error{Code: fault.NotFound, Node: name, Message: fmt.Sprintf("no unit %q", unit)}
		return e.Suggest(strings.TrimSuffix(unit, ".service"), there)
	}
	before := "stop"
	if state[1] == "active" || state[1] == "activating" || state[1] == "reloading" {
		before = "start"
	}
	undo := fmt.Sprintf("systemctl %s -- '%s'\n", before, strings.ReplaceAll(unit, "'", ""))
	if verb == "kill" {
		return r.afflict(ctx, m, "unit-"+path.Base(unit), undo, `systemctl kill --signal=KILL -- "$1"`, unit)
	}
	return r.afflict(ctx, m, "unit-"+path.Base(unit), undo, `systemctl "$1" -- "$2"`, verb, unit)
}

// lookForFaults prints, on a node, the notes of nodes to be started and the interfaces without a carrier, and undoes the rest.
const lookForFaults = `cd ` + faultFolder + ` 2>/dev/null && for fault in *; do
	case $fault in
	'*') ;;
	` + powerNote + `*) echo "$fault"; rm -f "$fault" ;;
	*) sh "$fault" && rm -f "$fault" ;;
	esac
done
for nic; do [ "$(cat "/sys/class/net/$nic/carrier" 2>/dev/null)" != 0 ] || echo "nic-$nic"; done
true`

// undoFaults undoes the faults of a run that was killed.
func undoFaults(ctx context.Context, w *World) error {
	var mu sync.Mutex
	start := map[string]bool{} // nodes that another node has a note of, and frozen ones
	var group errgroup.Group
	for i := range w.Plan.Nodes {
		group.Go(func() error {
			m, err := w.machine(w.Plan.Nodes[i].Name)
			if err != nil {
				return err
			}
			noted, err := m.undoFaults(ctx, w.Plan)
			mu.Lock()
			defer mu.Unlock()
			for _, name := range noted {
				start[name] = true
			}
			return err
		})
	}
	err := group.Wait()
	for name := range start {
		m, unknown := w.machine(name)
		if unknown != nil {
			continue // a note of a node that there was
		}
		err = errors.Join(err, m.provisioner.Start(ctx, m.planned.Resource))
	}
	return err
}

// undoFaults undoes a node's own, and returns the nodes that are to be started.
func (m machine) undoFaults(ctx context.Context, p *plan.Plan) (start []string, err error) {
	state, err := m.provisioner.State(ctx, m.planned.Resource)
	switch {
	case err != nil:
		return nil, err
	case state == provisioners.Paused:
		return []string{m.planned.Name}, nil
	case state != provisioners.Running:
		return nil, nil
	}
	args := []string{"sh", "-c", lookForFaults, "look"}
	for _, nic := range m.planned.NICs {
		args = append(args, nic.Name)
	}
	out, err := node.Output(ctx, m, args...)
	if err != nil {
		return nil, err
	}
	for _, found := range strings.Fields(string(out)) {
		if name, ok := strings.CutPrefix(found, powerNote); ok {
			start = append(start, name)
			continue
		}
		for _, nic := range m.planned.NICs {
			if found == "nic-"+nic.Name {
				if err := m.plug(ctx, p, nic, true); err != nil {
					return start, err
				}
			}
		}
	}
	return start, nil
}
