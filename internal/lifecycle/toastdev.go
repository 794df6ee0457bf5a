// Package lifecycle is what is done with environments, each as a list of named steps; only the command line imports it.
package lifecycle

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/health"
	"github.com/toast-cloud/toastdev/internal/host"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/topologies"
)

// Toastdev works on the environments of a home.
type Toastdev struct {
	home   *project.Home
	log    hclog.Logger
	facts  *host.Facts // nil until up or plan has looked
	makers *makers
}

// New is a Toastdev on a home.
func New(home *project.Home, log hclog.Logger) *Toastdev {
	return &Toastdev{home: home, log: log, makers: &makers{home: home, log: log}}
}

// Phase is how long a part of the work took.
type Phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Done is what came of an up or a down.
type Done struct {
	Environment string               `json:"environment"`
	Changed     int                  `json:"changed"` // resources made, changed or removed, nodes' Salt changes included
	Phases      []Phase              `json:"phases"`
	Canary      *health.CanaryResult `json:"canary,omitempty"`
	Instance    *health.CanaryResult `json:"instance,omitempty"`
}

// step is a named part of the work.
type step struct {
	name string
	run  func(context.Context) error
}

// walk does the steps one after the other, tells of each, and notes how long it took. The error says which step.
func (d *Done) walk(ctx context.Context, steps []step) error {
	for _, s := range steps {
		began := time.Now()
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		phase := Phase{Name: s.name, Seconds: time.Since(began).Seconds()}
		d.Phases = append(d.Phases, phase)
		progress.Emit(ctx, progress.Event{Phase: s.name, Message: fmt.Sprintf("done in %.1f s", phase.Seconds), Done: true})
	}
	return nil
}

// List is the records of the home's environments.
func (t *Toastdev) List() ([]*record.Record, error) { return record.List(t.home) }

func (t *Toastdev) environment(name string) *record.Environment {
	return &record.Environment{Name: name, Home: t.home}
}

// find is the record of the environment called name; without a name, of the only one that is not down.
func (t *Toastdev) find(name string) (*record.Record, error) {
	records, err := t.List()
	if err != nil {
		return nil, err
	}
	var names, up []string
	var only *record.Record
	for _, r := range records {
		if r.Name == name {
			return withRelease(r)
		}
		names = append(names, r.Name)
		if r.State != record.Down {
			up, only = append(up, r.Name), r
		}
	}
	switch {
	case name != "":
		e := fault.New(fault.NotFound, "no environment %q", name).WithRemedy("`toastdev up --name %s` makes it; `toastdev list` shows what there is", name)
		if len(names) > 0 {
			e.Expected = strings.Join(names, ", ")
		}
		return nil, e
	case len(up) == 0:
		return nil, fault.New(fault.NotFound, "no environment is up").WithRemedy("start one: toastdev up")
	case len(up) > 1:
		return nil, fault.New(fault.Invalid, "several environments are up: %s", strings.Join(up, ", ")).WithRemedy("say which with --name")
	}
	return withRelease(only)
}

// hold is find, with the environment taken for this process alone until release: the record is as the last one who had it left it.
func (t *Toastdev) hold(ctx context.Context, name string) (r *record.Record, release func(), err error) {
	if r, err = t.find(name); err != nil {
		return nil, nil, err
	}
	if release, err = t.environment(r.Name).Lock(ctx); err != nil {
		return nil, nil, err
	}
	if r, err = t.find(r.Name); err != nil {
		release()
		return nil, nil, err
	}
	return r, release, nil
}

// withRelease gives the recorded plan its release, which the record has by name alone.
func withRelease(r *record.Record) (*record.Record, error) {
	release, err := topologies.LoadRelease(r.Plan.ReleaseName)
	if err != nil {
		return nil, fmt.Errorf("environment %s: %w", r.Name, err)
	}
	r.Plan.Release = release
	return r, nil
}

func (t *Toastdev) owner(environment string) provisioners.Owner {
	return provisioners.Owner{Environment: environment, Home: t.home.ID}
}

// reach is a planned node as something that runs commands.
func (t *Toastdev) reach(n *plan.Node) (node.Node, error) {
	p, err := t.provisioner(n.Provisioner)
	if err != nil {
		return nil, err
	}
	return p.Node(n.Resource, n.Name), nil
}

// reachable is the plan's nodes by their names; nil for one that the plan does not have.
func (t *Toastdev) reachable(p *plan.Plan) health.Nodes {
	return func(name string) node.Node {
		planned, ok := p.Node(name)
		if !ok {
			return nil
		}
		n, err := t.reach(planned)
		if err != nil {
			return nil
		}
		return n
	}
}

// Node is a node of an environment by its name.
func (t *Toastdev) Node(environment, name string) (node.Node, error) {
	r, err := t.find(environment)
	if err != nil {
		return nil, err
	}
	n, err := named(r.Plan, name)
	if err != nil {
		return nil, err
	}
	return t.reach(n)
}

func named(p *plan.Plan, name string) (*plan.Node, error) {
	if n, ok := p.Node(name); ok {
		return n, nil
	}
	var names []string
	for _, n := range p.Nodes {
		names = append(names, n.Name)
	}
	return nil, (&fault.Error{Code: fault.NotFound, Message: fmt.Sprintf("environment %s has no node %q", p.Environment, name),
		Expected: strings.Join(names, ", ")}).Suggest(name, names)
}
