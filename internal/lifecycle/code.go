package lifecycle

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/overlay"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/record"
)

// ApplyCode lays source trees, given as component=PATH, over the nodes that run their components; without any, those that are
// laid already, as they are now. With a ref it is that of the trees' repositories, else the files as they are.
func (t *Toastdev) ApplyCode(ctx context.Context, trees []string, ref string, request OverlayRequest) (*Overlaid, error) {
	given, err := components("component=PATH", trees, false)
	if err != nil {
		return nil, err
	}
	return t.overlay(ctx, request, func(o *overlaying) ([]record.Overlay, error) {
		list := slices.Clone(o.record.Overlays)
		if len(given) == 0 && !slices.ContainsFunc(list, func(l record.Overlay) bool { return l.Source != "" }) {
			return nil, fault.New(fault.Invalid, "no source tree is laid over %s yet", o.record.Name).WithRemedy("name one: toastdev code apply neutron=~/src/neutron")
		}
		for _, component := range slices.Sorted(maps.Keys(given)) {
			if err := o.known(component); err != nil {
				return nil, err
			}
			on, err := o.on(component, true)
			if err != nil {
				return nil, err
			}
			l := record.Overlay{Component: component, Source: given[component], Ref: ref, Nodes: on}
			if i := slices.IndexFunc(list, l.Same); i >= 0 {
				list[i] = l
			} else {
				list = append(list, l)
			}
		}
		return list, nil
	})
}

// known refuses a component that has no code in the release.
func (o *overlaying) known(component string) error {
	release := o.record.Plan.Release
	var names []string
	for _, name := range slices.Sorted(maps.Keys(release.Components)) {
		if release.Components[name].Code != "" {
			names = append(names, name)
		}
	}
	if slices.Contains(names, component) {
		return nil
	}
	e := fault.New(fault.Invalid, "release %s has no component %q", release.Name, component)
	e.Expected = strings.Join(names, ", ")
	return e.Suggest(component, names)
}

// RevertCode takes source trees off the nodes: of the components named, else all.
func (t *Toastdev) RevertCode(ctx context.Context, components []string, request OverlayRequest) (*Overlaid, error) {
	return t.overlay(ctx, request, func(o *overlaying) ([]record.Overlay, error) {
		for _, component := range components {
			if err := o.known(component); err != nil {
				return nil, err
			}
		}
		return o.without(func(l record.Overlay) bool {
			return l.Source != "" && (len(components) == 0 || slices.Contains(components, l.Component))
		}), nil
	})
}

// LaidCode is what is laid over a component's code on a node.
type LaidCode struct {
	Node      string    `json:"node"`
	Component string    `json:"component"`
	Layers    []string  `json:"layers"`   // in order
	Files     int       `json:"files"`    // that are laid
	Edited    []string  `json:"edited"`   // of these, those that were changed on the node since
	Pending   []string  `json:"pending"`  // paths whose units were not restarted yet
	Complete  bool      `json:"complete"` // false: a change was killed in its middle; the next one finishes or undoes it
	At        time.Time `json:"at"`
}

// Code is what is laid over an environment's nodes, by node and component.
func (t *Toastdev) Code(ctx context.Context, environment string) ([]LaidCode, error) {
	r, err := t.isUp(environment)
	if err != nil {
		return nil, err
	}
	o, err := t.openOverlays(r, OverlayRequest{})
	if err != nil {
		return nil, err
	}
	laid, err := o.read(ctx)
	if err != nil {
		return nil, err
	}
	list := []LaidCode{}
	for _, n := range r.Plan.Nodes {
		for _, l := range laid[n.Name] {
			c := LaidCode{Node: n.Name, Component: l.Component, Layers: layerNames(l.Layers), Files: len(l.Files), Edited: []string{},
				Pending: append([]string{}, l.Pending...), Complete: !l.Unfinished, At: l.At}
			for _, f := range l.Files {
				if f.State != overlay.AsLaid {
					c.Edited = append(c.Edited, f.Path)
				}
			}
			list = append(list, c)
		}
	}
	return list, nil
}

// Saved is what came of a save in a watched tree.
type Saved struct {
	Component string         `json:"component"`
	Files     []string       `json:"files"`   // that were saved
	Nodes     []OverlaidNode `json:"nodes"`   // what changed there
	Seconds   float64        `json:"seconds"` // from the save to the last unit's restart
	Error     error          `json:"-"`       // nothing was changed then
}

// WatchCode makes each save in a component's tree live until ctx ends: laid, its units restarted. The tree is the one given as
// component=PATH, else that which is laid already. A file that no interpreter would take changes nothing, and is told.
func (t *Toastdev) WatchCode(ctx context.Context, tree string, request OverlayRequest, told func(Saved)) error {
	component, _, given := strings.Cut(tree, "=")
	var trees []string
	if given {
		trees = []string{tree}
	}
	if _, err := t.ApplyCode(ctx, trees, "", request); err != nil {
		return err
	}
	r, err := t.isUp(request.Environment)
	if err != nil {
		return err
	}
	o, err := t.openOverlays(r, request)
	if err != nil {
		return err
	}
	if err := o.known(component); err != nil {
		return err
	}
	i := slices.IndexFunc(r.Overlays, record.Overlay{Component: component}.Same)
	if i < 0 {
		return fault.New(fault.Invalid, "no source tree of %s is laid over %s", component, r.Name).WithRemedy("name it: toastdev code watch %s=PATH", component)
	}
	watched, err := o.tree(ctx, r.Overlays[i])
	if err != nil {
		return err
	}
	progress.Emit(ctx, progress.Event{Phase: "watch", Unit: component, Message: watched.String(), Done: true})
	return watched.Watch(ctx, func(ctx context.Context, files map[string]overlay.File) error {
		saved := o.saved(ctx, component, watched.Path, slices.Sorted(maps.Keys(files)))
		if ctx.Err() == nil {
			told(saved)
		}
		return nil
	})
}

// saved lays a tree's files that were saved, and restarts the units that have them loaded: on their nodes first.
func (o *overlaying) saved(ctx context.Context, component, source string, files []string) Saved {
	s := Saved{Component: component, Files: files, Nodes: []OverlaidNode{}}
	began := time.Now()
	release, err := o.turn(ctx)
	if err != nil {
		s.Error = err
		return s
	}
	defer release()
	// Somebody may have laid something else meanwhile.
	if o.record, err = o.isUp(o.record.Name); err == nil && !slices.ContainsFunc(o.record.Overlays, func(l record.Overlay) bool { return l.Source == source && l.Component == component }) {
		err = fault.New(fault.Invalid, "the tree of %s is laid no more", component)
	}
	if err != nil {
		s.Error = err
		return s
	}
	o.done = &Overlaid{Nodes: []OverlaidNode{}}
	wants, err := o.wants(ctx, o.record.Overlays, []string{component})
	if err != nil {
		s.Error = err
		return s
	}
	var first, others []wanted
	for _, w := range wants {
		w.some = files
		if len(o.record.Plan.Release.Restarts(component, files, w.node.Roles)) > 0 {
			first = append(first, w)
		} else {
			others = append(others, w)
		}
	}
	group, nodes := errgroup.WithContext(ctx)
	for _, w := range first {
		group.Go(func() error { return o.live(nodes, w) })
	}
	if s.Error = group.Wait(); s.Error == nil {
		s.Seconds = time.Since(began).Seconds()
		s.Error = o.put(ctx, others)
	}
	if s.Error == nil {
		s.Nodes, s.Error = o.done.Nodes, o.settle(ctx)
	}
	return s
}

// live lays a component on a node and restarts its units there at once.
func (o *overlaying) live(ctx context.Context, w wanted) error {
	if err := o.putOne(ctx, w); err != nil {
		return err
	}
	o.mu.Lock()
	i := slices.IndexFunc(o.done.Nodes, func(n OverlaidNode) bool { return n.Name == w.node.Name })
	if i < 0 {
		o.mu.Unlock()
		return nil
	}
	changed := o.done.Nodes[i]
	o.mu.Unlock()
	err := o.restartOn(ctx, &changed)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done.Nodes[i] = changed
	return err
}

// turn waits until nobody else changes the environment or runs scenarios on it.
func (o *overlaying) turn(ctx context.Context) (func(), error) {
	waited := false
	for {
		release, err := o.env.Lock(ctx)
		if fault.CodeOf(err) != fault.Busy || err == nil {
			return release, err
		}
		if !waited {
			waited = true
			progress.Emit(ctx, progress.Event{Phase: "watch", Message: "waits: " + err.Error()})
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}
