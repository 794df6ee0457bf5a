// Package scenarios is the scripts that prove a behaviour of a running environment, their language, and what runs them.
package scenarios

import (
	"context"
	"sync"
	"time"

	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/openstack"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/provisioners"
)

// World is the environment that scenarios run on.
type World struct {
	Plan        *plan.Plan
	Owner       provisioners.Owner
	Admin       openstack.Auth                            // the region's admin
	Node        func(name string) node.Node               // nil: the plan has no such node
	Provisioner func(*plan.Node) provisioners.Provisioner // who made a node
	Agent       string                                    // the guest image's agent on this host: the prober that nodes and clients run too
	Scale       float64                                   // what deadlines are multiplied by: 1 where guests run on KVM
}

// Run is one scenario under way. Its methods may be called from several goroutines.
type Run struct {
	World *World
	Name  string           // the scenario's
	ID    string           // of this run alone: six hex digits, part of all names that it gives
	Dir   string           // where its evidence is kept
	Cloud *openstack.Cloud // the region's admin, scoped to the scenario's own project

	mu     sync.Mutex
	things map[thing]any // what the script made or knows by a name
	undo   []undoing     // last in, first out
}

// thing is a name in the script: kinds have names of their own.
type thing struct{ kind, name string }

type undoing struct {
	what string
	do   func(context.Context) error
}

// Undo has something undone when the scenario ends, however it ends: the last first.
func (r *Run) Undo(what string, do func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.undo = append(r.undo, undoing{what, do})
}

// Deadline is a duration as this host needs it: an emulated guest takes longer.
func (r *Run) Deadline(d time.Duration) time.Duration {
	return time.Duration(float64(d) * r.World.Scale)
}
