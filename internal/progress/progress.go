// Package progress is what toastdev tells of its work while it works: events on one sink.
package progress

import (
	"context"
	"time"
)

// Event is one step forward. Phase is set on every event, the rest where it applies.
type Event struct {
	Time    time.Time `json:"time"`
	Phase   string    `json:"phase"`             // "image", "nodes", "salt", "health", ...
	Node    string    `json:"node,omitempty"`    // the node it happens on
	Unit    string    `json:"unit,omitempty"`    // what is worked on: a Salt state id, a package, a resource
	I       int       `json:"i,omitempty"`       // step i ...
	N       int       `json:"n,omitempty"`       // ... of n; 0 where n is not known
	Message string    `json:"message,omitempty"` // for a person
	Done    bool      `json:"done,omitempty"`    // the phase (or, with Node, the node's part of it) has ended
}

// Sink takes events. Emit may be called from several goroutines and must not block for long.
type Sink interface {
	Emit(Event)
}

// Func is a function as a Sink.
type Func func(Event)

// Emit calls f.
func (f Func) Emit(e Event) { f(e) }

type key struct{}

// With is ctx with sink as the place its work is told to.
func With(ctx context.Context, sink Sink) context.Context {
	return context.WithValue(ctx, key{}, sink)
}

// Emit tells ctx's sink of e, with the time set; without a sink it does nothing.
func Emit(ctx context.Context, e Event) {
	sink, ok := ctx.Value(key{}).(Sink)
	if !ok {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	sink.Emit(e)
}
