package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/overlay"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/patches"
)

// ApplyPatches lays patches over the nodes that run their components: those named, else all of the release's series. What is laid
// already stays.
func (t *Toastdev) ApplyPatches(ctx context.Context, names []string, request OverlayRequest) (*Overlaid, error) {
	return t.overlay(ctx, request, func(o *overlaying) ([]record.Overlay, error) {
		list := slices.Clone(o.record.Overlays)
		var entries []*patches.Entry
		for _, name := range names {
			e, err := o.shop.find(name)
			if err != nil {
				return nil, err
			}
			entries = append(entries, e)
		}
		if len(names) == 0 {
			for i := range o.shop.series {
				for j := range o.shop.series[i].Entries {
					entries = append(entries, &o.shop.series[i].Entries[j])
				}
			}
		}
		if len(entries) == 0 {
			return nil, fault.New(fault.Invalid, "there are no patches for release %s", o.record.Plan.ReleaseName).WithRemedy("make one: toastdev patch new, or toastdev patch import")
		}
		for _, e := range entries {
			on, err := o.on(e.Component, len(names) > 0)
			if err != nil {
				return nil, err
			}
			if len(request.Nodes) > 0 && len(on) == 0 {
				continue
			}
			l := record.Overlay{Component: e.Component, Patch: e.Name, Nodes: on}
			i := slices.IndexFunc(list, l.Same)
			switch {
			case i < 0:
				list = append(list, l)
			case len(on) == 0:
				list[i].Nodes = nil
			case len(list[i].Nodes) > 0:
				list[i].Nodes = union(list[i].Nodes, on)
			}
		}
		return list, nil
	})
}

// on is those of the request's nodes that run a component, nil when it names none. With strict, each must.
func (o *overlaying) on(component string, strict bool) ([]string, error) {
	var on []string
	for _, name := range o.request.Nodes {
		switch {
		case slices.ContainsFunc(o.runs(component), func(n *plan.Node) bool { return n.Name == name }):
			on = append(on, name)
		case strict:
			e := fault.New(fault.Invalid, "%s runs nothing of %s", name, component)
			for _, n := range o.runs(component) {
				e.Expected = strings.TrimPrefix(e.Expected+", "+n.Name, ", ")
			}
			return nil, e
		}
	}
	return on, nil
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// RevertPatches takes patches off the nodes: those named, else all.
func (t *Toastdev) RevertPatches(ctx context.Context, names []string, request OverlayRequest) (*Overlaid, error) {
	return t.overlay(ctx, request, func(o *overlaying) ([]record.Overlay, error) {
		meant := map[string]bool{}
		for _, name := range names {
			found := false
			for _, l := range o.record.Overlays { // it may be gone from its series
				if l.Patch != "" && (l.Patch == name || l.Component+"/"+l.Patch == name) {
					meant[l.Component+"/"+l.Patch], found = true, true
				}
			}
			if found {
				continue
			}
			if _, err := o.shop.find(name); err != nil {
				return nil, err
			}
		}
		return o.without(func(l record.Overlay) bool {
			return l.Patch != "" && (len(names) == 0 || meant[l.Component+"/"+l.Patch])
		}), nil
	})
}

// without is what is laid without some of it, on the request's nodes.
func (o *overlaying) without(meant func(record.Overlay) bool) []record.Overlay {
	var list []record.Overlay
	for _, l := range o.record.Overlays {
		if meant(l) {
			if l.Declared {
				o.note("the topology declares the %s of %s: the next up lays it again", l, l.Component)
			}
			if len(o.request.Nodes) == 0 {
				continue
			}
			on := l.Nodes
			if len(on) == 0 {
				for _, n := range o.runs(l.Component) {
					on = append(on, n.Name)
				}
			}
			l.Nodes = slices.DeleteFunc(slices.Clone(on), func(name string) bool { return slices.Contains(o.request.Nodes, name) })
			if len(l.Nodes) == 0 {
				continue
			}
		}
		list = append(list, l)
	}
	return list
}

// laidPatches is the series of an environment's release and how each entry stands there: applied on its nodes, or how it stands to
// what they have.
func (t *Toastdev) laidPatches(ctx context.Context, r *record.Record, request PatchRequest) ([]Patch, error) {
	o, err := t.openOverlays(r, OverlayRequest{Upstreams: request.Upstreams, Force: true})
	if err != nil {
		return nil, err
	}
	laid, err := o.read(ctx)
	if err != nil {
		return nil, err
	}
	list := []Patch{}
	for _, s := range o.shop.series {
		nodes := o.runs(s.Component)
		if len(nodes) == 0 || len(s.Entries) == 0 {
			continue
		}
		under := overlay.Want{}
		for _, l := range o.record.Overlays {
			if l.Component == s.Component && l.Source != "" && (len(l.Nodes) == 0 || slices.Contains(l.Nodes, nodes[0].Name)) {
				if under, err = o.source(ctx, nodes[0], l); err != nil {
					return nil, err
				}
			}
		}
		verdicts, _, _, err := o.check(ctx, nodes[0], s.Component, s.Entries, under.Files)
		if err != nil {
			return nil, err
		}
		for _, v := range verdicts {
			i := slices.IndexFunc(o.record.Overlays, record.Overlay{Component: s.Component, Patch: v.Entry.Name}.Same)
			if i >= 0 {
				v.State, v.Detail = o.applied(v, o.record.Overlays[i], laid)
			}
			list = append(list, patchOf(v))
		}
	}
	return list, nil
}

// applied says whether a patch that is recorded is laid on all its nodes, and what is odd about it.
func (o *overlaying) applied(v patches.Verdict, l record.Overlay, laid map[string][]overlay.Laid) (patches.State, string) {
	sum := sha256.Sum256(v.Entry.Bytes())
	want := overlay.Layer{Name: "patch " + l.Patch, Digest: hex.EncodeToString(sum[:])}
	var odd []string
	there := 0
	for _, n := range o.runs(l.Component) {
		if len(l.Nodes) > 0 && !slices.Contains(l.Nodes, n.Name) {
			continue
		}
		i := slices.IndexFunc(laid[n.Name], func(on overlay.Laid) bool {
			return on.Component == l.Component && slices.ContainsFunc(on.Layers, func(layer overlay.Layer) bool { return layer.Name == want.Name })
		})
		if i < 0 {
			odd = append(odd, "not on "+n.Name)
			continue
		}
		there++
		on := laid[n.Name][i]
		if !slices.Contains(on.Layers, want) {
			odd = append(odd, "an older one on "+n.Name)
		}
		for _, f := range on.Files {
			if f.State != overlay.AsLaid && slices.Contains(v.Entry.Touches(), f.Path) {
				odd = append(odd, fmt.Sprintf("%s is %s on %s", f.Path, f.State, n.Name))
			}
		}
	}
	if there == 0 {
		return v.State, v.Detail
	}
	if len(odd) > 0 {
		odd = append(odd, "toastdev patch apply mends it")
	} else if len(l.Nodes) > 0 {
		odd = append(odd, "on "+strings.Join(l.Nodes, ", ")+" alone")
	}
	return patches.Applied, strings.Join(odd, "; ")
}

// read is what is laid on the environment's nodes, by their names. Nodes that nothing is recorded for are not asked.
func (o *overlaying) read(ctx context.Context) (map[string][]overlay.Laid, error) {
	laid := map[string][]overlay.Laid{}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	for i := range o.record.Plan.Nodes {
		planned := &o.record.Plan.Nodes[i]
		if !slices.ContainsFunc(componentsOf(o.record.Overlays), func(c string) bool { return slices.Contains(o.runs(c), planned) }) {
			continue
		}
		group.Go(func() error {
			n, err := o.reach(planned)
			if err != nil {
				return err
			}
			on, err := overlay.Read(ctx, n)
			mu.Lock()
			defer mu.Unlock()
			laid[planned.Name] = on
			return err
		})
	}
	return laid, group.Wait()
}
