package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/overlay"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/patches/custom"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/salt"
	"github.com/toast-cloud/toastdev/topologies"
)

// declared is the overlays that a topology declares. Its packages become part of its pillar.
func (w *workshop) declared(topology *topologies.Topology) ([]record.Overlay, error) {
	var list []record.Overlay
	pillar := map[string]any{}
	at := func(i int, key string, err error) error {
		if f, ok := errors.AsType[*fault.Error](err); ok && f.File == "" {
			f.File, f.Path = topology.File, fmt.Sprintf("overlays.%d.%s", i, key)
		}
		return err
	}
	for i, l := range topology.Overlays {
		switch {
		case l.Package != "":
			over, err := custom.Pillar(customFiles(w.dir()), l.Package)
			if err != nil {
				return nil, at(i, "package", err)
			}
			pillar = salt.Merge(pillar, over)
		case l.Source != nil:
			list = append(list, record.Overlay{Component: l.Component, Source: l.Source.Git, Ref: l.Source.Ref, Declared: true})
		default:
			if err := w.loadAny(); err != nil {
				return nil, err
			}
			names := l.Patches.Names
			if l.Patches.All {
				for _, e := range w.entries(l.Component) {
					names = append(names, e.Name)
				}
			}
			for _, name := range names {
				e, err := w.find(l.Component + "/" + name)
				if err != nil {
					return nil, at(i, "patches", err)
				}
				list = append(list, record.Overlay{Component: e.Component, Patch: e.Name, Declared: true})
			}
		}
	}
	if len(pillar) > 0 {
		topology.Pillar = salt.Merge(pillar, topology.Pillar)
	}
	return list, nil
}

// staleOverlays is what up would lay over the running nodes of a plan, or take off.
func (t *Toastdev) staleOverlays(ctx context.Context, old *record.Record, p *plan.Plan, list []record.Overlay) ([]plan.Change, error) {
	if len(list)+len(old.Overlays) == 0 || old.State == record.Down {
		return nil, nil
	}
	running := *p
	running.Nodes = nil
	for _, n := range p.Nodes {
		state, err := t.state(ctx, &n)
		if err != nil {
			return nil, err
		}
		if state == provisioners.Running {
			running.Nodes = append(running.Nodes, n)
		}
	}
	now := *old
	now.Plan = &running
	o, err := t.openOverlays(&now, OverlayRequest{})
	if err != nil {
		return nil, err
	}
	wants, err := o.wants(ctx, list, componentsOf(old.Overlays, list))
	if err != nil {
		return nil, err
	}
	var changes []plan.Change
	for _, w := range wants {
		n, err := o.reach(w.node)
		if err != nil {
			return nil, err
		}
		laid, err := overlay.Read(ctx, n)
		if err != nil {
			return nil, err
		}
		before := overlay.Laid{}
		for _, l := range laid {
			if l.Component == w.want.Component {
				before = l
			}
		}
		if before.Intact() && (before.Digest == w.want.Digest() || len(before.Layers)+len(w.want.Layers) == 0) {
			continue
		}
		changes = append(changes, plan.Change{Resource: "overlay/" + w.node.Name + "/" + w.want.Component, Action: plan.Update,
			Fields: []plan.Field{{Path: "layers", Before: layerNames(before.Layers), After: layerNames(w.want.Layers)}}})
	}
	return changes, nil
}

func layerNames(layers []overlay.Layer) []string {
	names := []string{}
	for _, l := range layers {
		names = append(names, l.Name)
	}
	return names
}

// customFiles is the packages of our own, the project's over those built in.
func customFiles(folder string) fs.FS {
	layer := project.Layer{Under: custom.Files(), Name: "patches/custom"}
	if folder != "" {
		layer.Dir = filepath.Join(folder, "patches", "custom")
	}
	return layer
}
