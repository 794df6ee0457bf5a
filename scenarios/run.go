// Package scenarios is the scripts that prove a behaviour of a running environment, their language, and what runs them.
package scenarios

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/toast-cloud/toastdev/images/guest/agent/probe"
	"github.com/toast-cloud/toastdev/internal/evidence"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/openstack"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/provisioners"
)

// World is the environment that scenarios run on.
type World struct {
	Plan        *plan.Plan
	Owner       provisioners.Owner
	Admin       openstack.Auth                            // the region's admin
	Node        func(name string) node.Node               // nil: the plan has no such node
	Provisioner func(*plan.Node) provisioners.Provisioner // who made a node
	Secrets     map[string]string                         // the environment's, by name
	Agent       string                                    // the guest image's agent on this host: the prober that nodes and clients run too
	Scale       float64                                   // what deadlines are multiplied by: 1 where guests run on KVM
	Netem       bool                                      // every node's kernel delays and loses packets on demand; a VM's always does
	Patched     []string                                  // patches that are laid over its code: neutron/fip-timing

	// Turn waits until a scenario may begin, beside others. Nil: there are none.
	Turn func(ctx context.Context, disturbs bool) (Turn, error)
	// Healthy waits until the region has recovered from a scenario that disturbed it. Nil: nothing to wait for.
	Healthy func(context.Context) error

	questions questions
}

// Turn is a scenario's use of the environment.
type Turn interface {
	Alone(ctx context.Context) error   // waits until nobody else uses it, and lets nobody begin
	Settled(ctx context.Context) error // goes on beside others, who may begin again
	End()
}

// Run is one scenario under way. Its methods may be called from several goroutines.
type Run struct {
	World *World
	Name  string           // the scenario's
	ID    string           // of this run alone: six hex digits, part of all names that it gives
	Dir   string           // where its evidence is kept
	Cloud *openstack.Cloud // the region's admin, scoped to the scenario's own project
	Began time.Time

	turn Turn   // nil: nobody else uses the environment
	work string // the folder of the script's own files

	mu       sync.Mutex
	things   map[thing]any // what the script made or knows by a name
	undo     []undoing     // last in, first out
	deadline time.Time     // the scenario's
	alone    time.Time     // since when it may disturb others; zero: it has not begun to
	waited   time.Duration // to be alone: no part of what the scenario takes
	last     Outcome
	environ  []string // the script's variables as the line that runs now sees them: NAME=value
	notes    []string // lines for the log, until the script's own goroutine takes them
	marks    []mark
	elapsed  []Elapsed
	paths    []Path
	binary   *agentFile // nil: not read yet
	shown    remembered
	agents   listedAgents
}

// thing is a name in the script: kinds have names of their own.
type thing struct{ kind, name string }

type undoing struct {
	what string
	do   func(context.Context) error
}

type mark struct {
	name string
	at   time.Time
}

// Undo has something undone when the scenario ends, however it ends: the last first. What the scenario's project holds, or
// its prefix names, is swept and needs no Undo.
func (r *Run) Undo(what string, do func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.undo = append(r.undo, undoing{what, do})
}

// Deadline is a duration as this host needs it: an emulated guest takes longer.
func (w *World) Deadline(d time.Duration) time.Duration {
	return time.Duration(float64(d) * w.Scale)
}

// emulated is the Scale with which a probe's times are what a script says: an emulated guest answers in milliseconds. One in a
// node that is emulated itself takes seconds for an answer, and minutes until there is somebody to answer.
const emulated = 2

func (w *World) patient(q probe.Request) probe.Request {
	if w.Scale > emulated {
		q.Timeout *= probe.Seconds(w.Scale / emulated)
		q.Wait *= probe.Seconds(w.Scale)
	}
	return q
}

// disturb waits, when the scenario begins to disturb others, until there are none.
func (r *Run) disturb(ctx context.Context) error {
	if !r.alone.IsZero() {
		return nil
	}
	began := time.Now()
	if r.turn != nil {
		defer slow(ctx, r.Name, "waits to be alone: its next line disturbs those that still run")()
		if err := r.turn.Alone(ctx); err != nil {
			return fmt.Errorf("wait for other scenarios to end: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.alone = time.Now()
	r.waited = r.alone.Sub(began)
	r.deadline = r.deadline.Add(r.waited)
	return nil
}

// into is how far into the scenario a moment is, without its wait to be alone.
func (r *Run) into(at time.Time) time.Duration {
	if at.Before(r.alone) {
		return at.Sub(r.Began)
	}
	return at.Sub(r.Began) - r.waited
}

// slow tells what a scenario is at, when that has not ended after a second.
func slow(ctx context.Context, name, what string) (ended func()) {
	told := time.AfterFunc(time.Second, func() { progress.Emit(ctx, progress.Event{Phase: phase, Node: name, Message: what}) })
	return func() { told.Stop() }
}

// Last is what came of the last line; after `join`, of the background line that was started last.
func (r *Run) Last() Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// File is the path of one of the script's own files, those of its archive.
func (r *Run) File(name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fault.New(fault.Invalid, "%q is not a file of the script's archive", name).
			WithRemedy("put the file into the script, behind a line `-- %s --`", filepath.Base(name))
	}
	return filepath.Join(r.work, name), nil
}

// Logf adds a line to the scenario's log.
func (r *Run) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, strings.TrimSuffix(fmt.Sprintf(format, args...), "\n"))
}

// mark names a moment.
func (r *Run) mark(name string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marks = append(r.marks, mark{name, at})
}

type lineKey struct{}

// lineOf is the script's line, from 1, that an action's ctx belongs to.
func lineOf(ctx context.Context) int {
	n, _ := ctx.Value(lineKey{}).(int)
	return n
}

// path keeps a path for the reports.
func (r *Run) path(line int, capture string, p *evidence.Path) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paths = append(r.paths, Path{Line: line, Capture: capture, Path: p})
}
