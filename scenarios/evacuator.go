package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/services"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/openstack"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/topologies"
)

// The evacuator on the nodes: patches/custom/toast-evacuator and salt/states/evacuator.
const (
	evacuatorUnit   = "toast-evacuator-"
	evacuatorState  = "/var/lib/toast-evacuator"
	evacuatorStatus = "/run/toast-evacuator/status.json"
	evacuatorMark   = "/var/lib/toastdev/evacuator" // on the decider, while a scenario has it run
)

// evacuatorWait is how long a step is waited for when the line does not say.
const evacuatorWait = time.Minute

// evacuatorSteps are what an incident can be waited for, in their order; and its alarm.
var evacuatorSteps = []string{"detected", "fenced", "forced_down", "evacuated", "back", "recovered", "withdrawn", "alarm"}

func evacuatorCommand() Command {
	return Command{
		Summary: "run the region's evacuator, and see what it did",
		Args:    "start | stop | status | wait NODE STEP [TIMEOUT] | timeline NODE",
		Detail: []string{
			"start has computes send heartbeats, the other nodes watch them and the control node decide; it returns when every compute is seen alive by every vantage point. stop ends it; so " +
				"does the end of the scenario. A compute's instances are only evacuated once it is fenced: see fence.",
			"status prints what is seen now. wait returns when what is done about a compute has come to a STEP: " + strings.Join(evacuatorSteps, ", ") + ". Of an incident that is over only " +
				"its end counts.",
			"timeline prints what was done about a compute, with seconds since its last heartbeat; the JSON has state, alarm, agreed, silent (the time of the last heartbeat), steps and " +
				"instances with all times in seconds since then, and proved: its fence saw it dead before Nova began with any instance. Its steps become marks: 'cmp1 fenced'.",
			"Example: evacuator wait $compute1 evacuated",
			"         evacuator timeline $compute1",
			"         json '.proved and .steps.evacuated < 60'",
		},
		Async: true, Alone: true, Min: 1, Max: 4,
		Check: checkEvacuator,
		Flags: plain(func(ctx context.Context, r *Run, args []string) (Outcome, error) {
			switch args[0] {
			case "start":
				return r.startEvacuator(ctx)
			case "stop":
				return Outcome{}, stopEvacuator(ctx, r.World)
			case "status":
				return r.evacuatorStatus(ctx)
			case "wait":
				return r.awaitEvacuator(ctx, args)
			}
			return r.timeline(ctx, args[1])
		}),
	}
}

func checkEvacuator(args []string) error {
	least, most := 1, 1
	switch args[0] {
	case "start", "stop", "status":
	case "wait":
		least, most = 3, 4
	case "timeline":
		least, most = 2, 2
	default:
		return oneOfWords("evacuator", "start", "stop", "status", "wait", "timeline")(args)
	}
	if n := len(args); n < least || n > most {
		return &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("evacuator %s: %d arguments", args[0], n-1), Expected: evacuatorCommand().Args}
	}
	if args[0] != "wait" {
		return nil
	}
	if !slices.Contains(evacuatorSteps, args[2]) {
		e := &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("evacuator wait: no step %q", args[2]), Expected: strings.Join(evacuatorSteps, ", ")}
		return e.Suggest(args[2], evacuatorSteps)
	}
	if len(args) == 4 {
		_, err := duration(args[3])
		return err
	}
	return nil
}

// evacuatorUnits is the units of a node, as the Salt state has them.
func evacuatorUnits(p *plan.Plan, n *plan.Node) []string {
	var units []string
	if n.Has(topologies.Compute) {
		units = append(units, evacuatorUnit+"beat")
	}
	if n.Has(topologies.Control) || n.Has(topologies.Network) || n.Has(topologies.Storage) {
		units = append(units, evacuatorUnit+"watch")
	}
	if n.Name == decider(p) {
		units = append(units, evacuatorUnit+"decide")
	}
	return units
}

// decider is the node that decides: the first control node by name.
func decider(p *plan.Plan) string {
	var names []string
	for _, n := range p.WithRole(topologies.Control) {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names[0]
}

// onEach runs a script on every node that runs, with the evacuator's units there as arguments.
func onEach(ctx context.Context, w *World, script string) error {
	var group errgroup.Group
	for i := range w.Plan.Nodes {
		m, err := w.machine(w.Plan.Nodes[i].Name)
		if err != nil {
			return err
		}
		units := evacuatorUnits(w.Plan, m.planned)
		if len(units) == 0 {
			continue
		}
		group.Go(func() error {
			if runs, err := m.runs(ctx); err != nil || !runs {
				return err
			}
			_, err := node.Output(ctx, m, append([]string{"sh", "-euc", script, "evacuator"}, units...)...)
			return err
		})
	}
	return group.Wait()
}

// status is what the decider sees; see decide.py.
type evacuatorSight struct {
	At            float64         `json:"at"`
	VantagePoints map[string]bool `json:"vantage_points"`
	Computes      map[string]struct {
		Alive  bool   `json:"alive"`
		Reason string `json:"reason"`
	} `json:"computes"`
}

// startEvacuator runs the evacuator until the end of the scenario. One that a pillar has turned on is left as it is.
func (r *Run) startEvacuator(ctx context.Context) (Outcome, error) {
	r.mu.Lock()
	r.shown.never = true
	r.mu.Unlock()
	control := r.World.Node(decider(r.World.Plan))
	state, err := node.Output(ctx, control, "sh", "-c", `[ -e "$1" ] && echo ours || systemctl is-active "$2" || true`, "state", evacuatorMark, evacuatorUnit+"decide")
	if err != nil {
		return Outcome{}, err
	}
	if strings.TrimSpace(string(state)) != "active" {
		if _, err := node.Output(ctx, control, "sh", "-c", `mkdir -p "${1%/*}" && : >"$1" && rm -f "$2"/*.json "$3"`, "mark", evacuatorMark, evacuatorState, evacuatorStatus); err != nil {
			return Outcome{}, err
		}
		r.Undo("stop the evacuator", func(ctx context.Context) error { return stopEvacuator(ctx, r.World) })
		err := onEach(ctx, r.World, `for unit; do
	systemctl cat "$unit" >/dev/null 2>&1 || { echo "the evacuator is not installed" >&2; exit 1; }
done
systemctl enable --quiet --now "$@"`)
		if err != nil && strings.Contains(err.Error(), "not installed") {
			return Outcome{}, fault.New(fault.Missing, "start the evacuator: %w", err).WithRemedy("let Salt install it: toastdev salt apply --state evacuator")
		}
		if err != nil {
			return Outcome{}, fmt.Errorf("start the evacuator: %w", err)
		}
	}
	var out []byte
	began := float64(time.Now().UnixMilli()) / 1000
	err = r.wait(ctx, "every compute's heartbeat at every vantage point", 30*time.Second, func(ctx context.Context) (bool, error) {
		var sight evacuatorSight
		if out, err = node.Output(ctx, control, "cat", evacuatorStatus); err != nil {
			return false, err
		}
		if err := json.Unmarshal(out, &sight); err != nil {
			return false, err
		}
		if sight.At < began-1 {
			if err := r.decides(ctx); err != nil {
				return true, err
			}
			return false, errors.New("the decider has not begun yet")
		}
		for name, heard := range sight.VantagePoints {
			if !heard {
				return false, fmt.Errorf("the decider does not hear %s", name)
			}
		}
		for name, c := range sight.Computes {
			if !c.Alive {
				return false, fmt.Errorf("%s: %s", name, c.Reason)
			}
		}
		return true, nil
	})
	return Outcome{Text: string(out)}, err
}

func (r *Run) evacuatorStatus(ctx context.Context) (Outcome, error) {
	out, err := node.Output(ctx, r.World.Node(decider(r.World.Plan)), "cat", evacuatorStatus)
	return Outcome{Text: string(out)}, err
}

// stopEvacuator ends what startEvacuator began, and tells Nova of computes that were forced down that they are not. It does
// nothing when no scenario began it.
func stopEvacuator(ctx context.Context, w *World) error {
	m, err := w.machine(decider(w.Plan))
	if err != nil {
		return err
	}
	if runs, err := m.runs(ctx); err != nil || !runs {
		return err
	}
	marked, err := node.Output(ctx, m, "sh", "-c", `[ ! -e "$1" ] || echo yes`, "marked", evacuatorMark)
	if err != nil || len(marked) == 0 {
		return err
	}
	if err := onEach(ctx, w, `systemctl disable --quiet --now "$@"`); err != nil {
		return fmt.Errorf("stop the evacuator: %w", err)
	}
	incidents, err := readIncidents(ctx, m)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(slices.Collect(maps.Values(incidents)), func(i incident) bool { return !i.over() && i.Steps["forced_down"] > 0 }) {
		if err := raise(ctx, w, incidents); err != nil {
			return err
		}
	}
	_, err = node.Output(ctx, m, "rm", "-f", evacuatorMark)
	return err
}

// raise tells Nova that computes are not forced down any more.
func raise(ctx context.Context, w *World, incidents map[string]incident) error {
	cloud, err := openstack.Connect(ctx, w.Admin)
	if err != nil {
		return err
	}
	compute := *cloud.Compute
	compute.Microversion = "2.53"
	pages, err := services.List(&compute, services.ListOpts{Binary: "nova-compute"}).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list nova's services: %w", err)
	}
	found, err := services.ExtractServices(pages)
	if err != nil {
		return fmt.Errorf("list nova's services: %w", err)
	}
	for _, s := range found {
		if _, ours := incidents[s.Host]; !ours || !s.ForcedDown {
			continue
		}
		// services.UpdateOpts leaves a false out. Nova refuses it until the compute has cleaned up, which its start begins with.
		body, options := map[string]any{"forced_down": false}, &gophercloud.RequestOpts{OkCodes: []int{http.StatusOK}}
		err := node.WaitEvery(ctx, time.Second, "Nova to take nova-compute on "+s.Host+" for up", time.Minute, func(ctx context.Context) (bool, error) {
			_, err := compute.Put(ctx, compute.ServiceURL("os-services", s.ID), body, nil, options)
			return err == nil, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// incident is what the evacuator's journal has of a compute; see journal.py. Times are seconds since the epoch.
type incident struct {
	Host      string             `json:"host"`
	State     string             `json:"state"`
	Steps     map[string]float64 `json:"steps"`
	Agreed    []string           `json:"agreed"`
	Instances map[string]struct {
		Name      string   `json:"name"`
		Status    string   `json:"status"`
		Requested *float64 `json:"requested"`
		Active    *float64 `json:"active"`
		Host      string   `json:"host"`
		Error     string   `json:"error"`
	} `json:"instances"`
	Alarm string `json:"alarm"`
}

func (i incident) over() bool { return i.State == "recovered" || i.State == "withdrawn" }

// reached says whether it has come to a step.
func (i incident) reached(step string) bool {
	if step == "alarm" {
		return i.Alarm != ""
	}
	_, done := i.Steps[step]
	return done && (!i.over() || step == "recovered" || step == "withdrawn")
}

func (i incident) String() string {
	s := i.Host + " is " + strings.ReplaceAll(i.State, "_", " ")
	if i.Alarm != "" {
		s += ", alarm: " + i.Alarm
	}
	return s
}

// readIncidents is the last incident of each compute.
func readIncidents(ctx context.Context, control node.Node) (map[string]incident, error) {
	out, err := node.Output(ctx, control, "sh", "-c", `cat "$1"/*.json 2>/dev/null || true`, "journal", evacuatorState)
	if err != nil {
		return nil, err
	}
	incidents := map[string]incident{}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var i incident
		if err := d.Decode(&i); err != nil {
			return nil, fmt.Errorf("read the evacuator's journal: %w", err)
		}
		incidents[i.Host] = i
	}
	return incidents, nil
}

func (r *Run) incident(ctx context.Context, host string) (incident, error) {
	incidents, err := readIncidents(ctx, r.World.Node(decider(r.World.Plan)))
	if err != nil {
		return incident{}, err
	}
	i, ok := incidents[host]
	if !ok {
		return i, fmt.Errorf("the evacuator has found nothing wrong with %s", host)
	}
	return i, nil
}

// nextVersion prints a checksum of the file $1 and then the file, as soon as the checksum is another than $2 or 5 seconds are
// over. To ask by a command each time would take a good part of the CPU that the evacuation needs.
const nextVersion = `n=0
while [ $n -lt 25 ] && [ "$(cksum 2>/dev/null <"$1")" = "$2" ]; do
	sleep 0.2
	n=$((n + 1))
done
cksum 2>/dev/null <"$1" || echo
cat "$1" 2>/dev/null || true`

// decides is the mismatch of an evacuator that does not run any more: nothing is to be waited for.
func (r *Run) decides(ctx context.Context) error {
	const unit = "toast-evacuator-decide"
	name := decider(r.World.Plan)
	out, err := node.Output(ctx, r.World.Node(name), "systemctl", "show", "--property=ActiveState,Result", "--value", unit)
	if err != nil {
		return nil // the node may be away for a moment; the wait says so when it does not come back
	}
	state := strings.Fields(string(out))
	if slices.ContainsFunc(state, func(word string) bool { return word == "failed" || word == "inactive" }) {
		return &Mismatch{Expected: "the evacuator running", Seen: fmt.Sprintf("%s on %s is %s", unit, name, strings.Join(state, ", "))}
	}
	return nil
}

func (r *Run) awaitEvacuator(ctx context.Context, args []string) (Outcome, error) {
	host, step, limit := args[1], args[2], evacuatorWait
	if err := r.planned(host); err != nil {
		return Outcome{}, err
	}
	if len(args) == 4 {
		d, err := duration(args[3])
		if err != nil {
			return Outcome{}, err
		}
		limit = d
	}
	var seen incident
	var version string
	err := node.WaitEvery(ctx, 0, fmt.Sprintf("the evacuator's step %s of %s", step, host), r.World.Deadline(limit), func(ctx context.Context) (bool, error) {
		out, err := node.Output(ctx, r.World.Node(decider(r.World.Plan)), "sh", "-c", nextVersion, "next", path.Join(evacuatorState, host+".json"), version)
		if err != nil {
			return false, err
		}
		var text string
		version, text, _ = strings.Cut(string(out), "\n")
		if err := r.decides(ctx); err != nil {
			return true, err
		}
		if text == "" {
			return false, fmt.Errorf("the evacuator has found nothing wrong with %s", host)
		}
		seen = incident{}
		if err := json.Unmarshal([]byte(text), &seen); err != nil {
			return false, err
		}
		if !seen.reached(step) {
			return false, errors.New(seen.String())
		}
		return true, nil
	})
	return Outcome{Text: seen.String() + "\n"}, err
}

// moved is an instance in a timeline; times are seconds since the compute's last heartbeat.
type moved struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Host      string   `json:"host,omitempty"`
	Requested *float64 `json:"requested,omitempty"`
	Begun     *float64 `json:"begun,omitempty"` // by Nova's own record, which has whole seconds
	Active    *float64 `json:"active,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// timelineJSON is what was done about a compute.
type timelineJSON struct {
	Host      string             `json:"host"`
	State     string             `json:"state"`
	Alarm     string             `json:"alarm,omitempty"`
	Agreed    []string           `json:"agreed"`
	Silent    time.Time          `json:"silent"`
	Steps     map[string]float64 `json:"steps"`
	Instances []moved            `json:"instances"`
	Proved    bool               `json:"proved"`
}

func (r *Run) timeline(ctx context.Context, host string) (Outcome, error) {
	if err := r.planned(host); err != nil {
		return Outcome{}, err
	}
	i, err := r.incident(ctx, host)
	if err != nil {
		return Outcome{}, err
	}
	begun := map[string]time.Time{}
	for id := range i.Instances {
		if begun[id], err = r.evacuationBegun(ctx, id, i.Steps["detected"]); err != nil {
			return Outcome{}, err
		}
	}
	t := i.timeline(begun)
	for step := range t.Steps {
		r.mark(host+" "+strings.ReplaceAll(step, "_", " "), stamp(i.Steps[step]))
	}
	for _, m := range t.Instances {
		if m.Active != nil {
			r.mark(m.Name+" evacuated", stamp(*i.Instances[m.ID].Active))
		}
	}
	return Outcome{Text: t.String(), JSON: t}, nil
}

// evacuationBegun is when Nova began to evacuate an instance, in whole seconds; the zero time when it has not since detected.
func (r *Run) evacuationBegun(ctx context.Context, id string, detected float64) (time.Time, error) {
	var answer struct {
		Actions []struct {
			Action string `json:"action"`
			Start  string `json:"start_time"`
		} `json:"instanceActions"`
	}
	if _, err := r.Cloud.Compute.Get(ctx, r.Cloud.Compute.ServiceURL("servers", id, "os-instance-actions"), &answer, nil); err != nil {
		return time.Time{}, fmt.Errorf("ask Nova for the actions on instance %s: %w", id, err)
	}
	var first time.Time
	for _, a := range answer.Actions {
		at, err := time.Parse("2006-01-02T15:04:05.999999", a.Start)
		if err != nil {
			return time.Time{}, fmt.Errorf("the actions on instance %s: %w", id, err)
		}
		if a.Action == "evacuate" && !at.Before(stamp(detected).Truncate(time.Second)) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first, nil
}

func stamp(seconds float64) time.Time { return time.UnixMicro(int64(seconds * 1e6)) }

// timeline of an incident; begun is when Nova began with each instance.
func (i incident) timeline(begun map[string]time.Time) *timelineJSON {
	zero := i.Steps["silent"]
	t := &timelineJSON{Host: i.Host, State: i.State, Alarm: i.Alarm, Agreed: i.Agreed, Silent: stamp(zero).UTC(), Steps: map[string]float64{}, Instances: []moved{}}
	for step, at := range i.Steps {
		if step != "silent" {
			t.Steps[step] = round(at - zero)
		}
	}
	dead, fenced := i.Steps["proved_dead"]
	t.Proved = fenced
	since := func(at *float64) *float64 {
		if at == nil {
			return nil
		}
		seconds := round(*at - zero)
		return &seconds
	}
	for _, id := range slices.Sorted(maps.Keys(i.Instances)) {
		kept := i.Instances[id]
		m := moved{ID: id, Name: kept.Name, Host: kept.Host, Requested: since(kept.Requested), Active: since(kept.Active), Error: kept.Error}
		if kept.Requested != nil && *kept.Requested <= dead {
			t.Proved = false
		}
		if at := begun[id]; !at.IsZero() {
			seconds := float64(at.UnixMicro()) / 1e6
			m.Begun = since(&seconds)
			if at.Before(stamp(dead).Truncate(time.Second)) {
				t.Proved = false
			}
		}
		t.Instances = append(t.Instances, m)
	}
	slices.SortStableFunc(t.Instances, func(a, b moved) int { return strings.Compare(a.Name, b.Name) })
	return t
}

func round(seconds float64) float64 { return float64(int64(seconds*1000+0.5)) / 1000 }

func (t *timelineJSON) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: last heartbeat at %s, found dead by %s\n", t.Host, t.Silent.Local().Format("15:04:05.000"), strings.Join(t.Agreed, ", "))
	type event struct {
		at   float64
		what string
	}
	var events []event
	for step, at := range t.Steps {
		events = append(events, event{at, strings.ReplaceAll(step, "_", " ")})
	}
	for _, m := range t.Instances {
		if m.Requested != nil {
			events = append(events, event{*m.Requested, m.Name + " is asked to be evacuated"})
		}
		if m.Active != nil {
			events = append(events, event{*m.Active, m.Name + " is on " + m.Host})
		}
	}
	slices.SortFunc(events, func(a, b event) int {
		if a.at != b.at {
			return int(1e6 * (a.at - b.at))
		}
		return strings.Compare(a.what, b.what)
	})
	for _, e := range events {
		fmt.Fprintf(&b, "%+8.1f s  %s\n", e.at, e.what)
	}
	for _, m := range t.Instances {
		if m.Error != "" {
			fmt.Fprintf(&b, "            %s is not evacuated: %s\n", m.Name, m.Error)
		}
	}
	if t.Alarm != "" {
		fmt.Fprintf(&b, "            ALARM: %s\n", t.Alarm)
	}
	return b.String()
}
