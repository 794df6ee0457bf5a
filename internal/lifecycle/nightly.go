package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/scenarios"
	"github.com/toast-cloud/toastdev/scenarios/report"
	"github.com/toast-cloud/toastdev/topologies"
)

const (
	nightlyLogLines = 5000            // of each log of a node that are kept
	nightlyLogs     = time.Minute     // for keeping them
	nightlyDown     = 5 * time.Minute // for the down at the end, after a Ctrl-C too
)

// NightlyRequest is what a nightly is asked for.
type NightlyRequest struct {
	Topologies    []string // built-ins' names or files, one after the other; none: the default
	Name          string   // the environment, of one topology alone; empty: nightly-TOPOLOGY
	Shard, Shards int      // run the scenarios of part Shard, from 1, of Shards; 0, 0: all
	Dir           string   // of the report
	Compare       string   // the folder of an earlier report; empty: none
	Keep          bool     // leave the environments up
}

// Night is what came of a nightly.
type Night struct {
	*scenarios.Report
	Compared *report.Comparison `json:"compared,omitempty"`
}

// night is one topology of a nightly.
type night struct {
	*Toastdev
	request NightlyRequest
	ref     string // of the topology
	dir     string // of the scenarios' evidence and the nodes' logs
	report  scenarios.Report
}

// Nightly makes an environment of each topology, runs the scenarios that fit, keeps the nodes' logs, writes the report, and takes
// the environment down, whatever happened before. An error is that a region did not come up, that its scenarios could not
// run, or that it did not go down; the report is written all the same. Scenarios that failed are no error: see Report.Failed.
func (t *Toastdev) Nightly(ctx context.Context, request NightlyRequest) (*Night, error) {
	nights, err := t.nights(request)
	if err != nil {
		return nil, err
	}
	var old scenarios.Report
	if request.Compare != "" { // now: the new report may be written to the same folder
		if old, err = report.Read(request.Compare); err != nil {
			return nil, err
		}
	}
	var wrong []error
	var all []scenarios.Report
	for _, n := range nights {
		wrong = append(wrong, n.run(ctx))
		all = append(all, n.report)
		if ctx.Err() != nil {
			break
		}
	}
	first := all[0]
	first.Beside, first.Dir = all[1:], request.Dir
	result := &Night{Report: &first}
	if request.Compare != "" {
		compared := report.Compare(old, first)
		result.Compared = &compared
	}
	wrong = append(wrong, report.Write(request.Dir, first, result.Compared))
	return result, errors.Join(wrong...)
}

// nights is the request's topologies, each with its environment and its folder.
func (t *Toastdev) nights(request NightlyRequest) ([]*night, error) {
	refs := request.Topologies
	if len(refs) == 0 {
		refs = []string{topologies.DefaultTopology}
	}
	if len(refs) > 1 && request.Name != "" {
		return nil, fault.New(fault.Invalid, "one --name for %d topologies", len(refs)).WithRemedy("leave it out: their environments are called nightly-TOPOLOGY")
	}
	var nights []*night
	seen := map[string]string{}
	for _, ref := range refs {
		topology, err := topologies.Load(topologies.Source{Ref: ref})
		if err != nil {
			return nil, err
		}
		n := &night{Toastdev: t, request: request, ref: ref, dir: request.Dir}
		if len(refs) > 1 {
			n.dir = filepath.Join(request.Dir, topology.Name)
		}
		n.report = scenarios.Report{Environment: request.Name, Topology: ref, Release: topology.Release, Routing: topology.Routing, Dir: n.dir}
		if request.Name == "" {
			n.report.Environment = strings.TrimRight(fmt.Sprintf("nightly-%.12s", topology.Name), "-") // a name has 20 characters
		}
		if err := topologies.CheckName(n.report.Environment); err != nil {
			return nil, err
		}
		if other, twice := seen[topology.Name]; twice {
			return nil, fault.New(fault.Invalid, "%s and %s are both called %s", other, ref, topology.Name)
		}
		seen[topology.Name] = ref
		nights = append(nights, n)
	}
	return nights, nil
}

// run is the night of one topology, from up to down.
func (n *night) run(ctx context.Context) (err error) {
	n.report.Started = time.Now()
	environment := n.report.Environment
	defer func() { n.report.Seconds = time.Since(n.report.Started).Seconds() }()
	defer func() {
		if n.request.Keep {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), nightlyDown)
		defer cancel()
		err = errors.Join(err, n.phase("down", func() error {
			_, err := n.Down(ctx, environment, false)
			if fault.CodeOf(err) == fault.NotFound { // up ended before there was anything
				return nil
			}
			return err
		}))
	}()
	began := time.Now()
	up, err := n.Up(ctx, Request{Topology: n.ref, Name: environment})
	if err != nil {
		n.report.Problem = err.Error()
		if ctx.Err() != nil {
			n.report.Problem = "interrupted while the region came up"
		}
		n.report.Phases = append(n.report.Phases, scenarios.Phase{Name: "up", Seconds: time.Since(began).Seconds()})
	} else {
		for _, p := range up.Phases {
			n.report.Phases = append(n.report.Phases, scenarios.Phase{Name: "up: " + p.Name, Seconds: p.Seconds})
		}
		err = n.phase("scenarios", func() error { return n.prove(ctx) })
	}
	if ctx.Err() != nil {
		return err
	}
	return errors.Join(err, n.phase("logs", func() error { return n.keepLogs(ctx) }))
}

// phase does a part of the night and notes how long it took.
func (n *night) phase(name string, do func() error) error {
	began := time.Now()
	err := do()
	n.report.Phases = append(n.report.Phases, scenarios.Phase{Name: name, Seconds: time.Since(began).Seconds()})
	return err
}

// prove runs the scenarios. What ran before an error is in the report.
func (n *night) prove(ctx context.Context) error {
	ran, err := n.scenarios(ctx, ScenarioRequest{Environment: n.report.Environment, Dir: n.dir, Shard: n.request.Shard, Shards: n.request.Shards})
	n.report.Scenarios, n.report.Region = ran.Scenarios, ran.Region
	switch {
	case ctx.Err() != nil && len(ran.Scenarios) == 0:
		n.report.Problem = "interrupted before a scenario ended"
	case err != nil && len(ran.Scenarios) == 0:
		n.report.Problem = err.Error()
	}
	return err
}

// keepLogs writes each node's logs to a file of the report. Why those of one could not be read stands in its file.
func (n *night) keepLogs(ctx context.Context) error {
	r, err := n.find(n.report.Environment)
	if fault.CodeOf(err) == fault.NotFound || err == nil && r.State == record.Down {
		return nil
	}
	if err != nil {
		return err
	}
	folder := filepath.Join(n.dir, "logs")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	progress.Emit(ctx, progress.Event{Phase: "logs", Message: "keeping the nodes' logs in " + folder})
	ctx, cancel := context.WithTimeout(ctx, nightlyLogs)
	defer cancel()
	var wrong []error
	for i := range r.Plan.Nodes {
		file := filepath.Join(folder, r.Plan.Nodes[i].Name+".log")
		n.report.Artefacts = append(n.report.Artefacts, file)
		wrong = append(wrong, n.keepLog(ctx, &r.Plan.Nodes[i], file))
	}
	return errors.Join(wrong...)
}

func (n *night) keepLog(ctx context.Context, node *plan.Node, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := n.Logs(ctx, n.report.Environment, node.Name, "", nightlyLogLines, false, f); err != nil {
		fmt.Fprintf(f, "The rest could not be read: %s\n", strings.TrimSpace(err.Error()))
	}
	return f.Close()
}
