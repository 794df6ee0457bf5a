package virtualbox

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Snapshot stores a node's state under a name: its disks, and of a running one its memory, too. It stands still meanwhile.
func (p *Provisioner) Snapshot(ctx context.Context, name, snapshot string) error {
	m, _, err := p.there(ctx, name)
	if err != nil {
		return err
	}
	if _, err := p.run(ctx, "snapshot", m.id, "take", snapshot); err != nil {
		return fmt.Errorf("take snapshot %q of node %q: %w", snapshot, name, err)
	}
	return nil
}

// Restore makes a node what it was at a snapshot, and lets it run if it ran then.
func (p *Provisioner) Restore(ctx context.Context, name, snapshot string) error {
	m, i, err := p.there(ctx, name)
	if err != nil {
		return err
	}
	s, ok := i.snapshot(snapshot)
	if !ok {
		e := fault.New(fault.NotFound, "the node has no snapshot %q", snapshot)
		e.Node = name
		return e
	}
	defer p.forget(name)
	if err := p.off(ctx, m.id); err != nil {
		return fmt.Errorf("restore snapshot %q of node %q: %w", snapshot, name, err)
	}
	if _, err := p.run(ctx, "snapshot", m.id, "restore", s.id); err != nil {
		return fmt.Errorf("restore snapshot %q of node %q: %w", snapshot, name, err)
	}
	if _, i, err = p.there(ctx, name); err != nil || i["VMState"] != "saved" {
		return err
	}
	return p.Start(ctx, name)
}

// Snapshots are a node's by name, in order.
func (p *Provisioner) Snapshots(ctx context.Context, name string) ([]string, error) {
	_, i, err := p.there(ctx, name)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range i.snapshots() {
		names = append(names, s.name)
	}
	slices.Sort(names)
	return names, nil
}

// DeleteSnapshot removes one, if it is there. What the node is now does not change.
func (p *Provisioner) DeleteSnapshot(ctx context.Context, name, snapshot string) error {
	m, i, err := p.there(ctx, name)
	if err != nil {
		return err
	}
	s, ok := i.snapshot(snapshot)
	if !ok {
		return nil
	}
	if _, err := p.run(ctx, "snapshot", m.id, "delete", s.id); err != nil {
		return fmt.Errorf("delete snapshot %q of node %q: %w", snapshot, name, err)
	}
	return nil
}

// deleteSnapshots removes all of a machine's, from the newest of a line on.
func (p *Provisioner) deleteSnapshots(ctx context.Context, id string) error {
	i, err := p.info(ctx, id)
	if err != nil {
		return err
	}
	list := i.snapshots()
	slices.SortFunc(list, func(a, b snapshot) int { return len(b.path) - len(a.path) })
	for _, s := range list {
		if _, err := p.run(ctx, "snapshot", id, "delete", s.id); err != nil {
			return fmt.Errorf("delete snapshot %q: %w", s.name, err)
		}
	}
	return nil
}

// snapshot is one of a machine's; path is where in the tree of them: "", "-1", "-1-2".
type snapshot struct{ name, id, path string }

func (i info) snapshots() []snapshot {
	var list []snapshot
	for key, name := range i {
		if path, ok := strings.CutPrefix(key, "SnapshotName"); ok {
			list = append(list, snapshot{name: name, id: i["SnapshotUUID"+path], path: path})
		}
	}
	return list
}

// snapshot is the one of that name.
func (i info) snapshot(name string) (snapshot, bool) {
	list := i.snapshots()
	at := slices.IndexFunc(list, func(s snapshot) bool { return s.name == name })
	if at < 0 {
		return snapshot{}, false
	}
	return list[at], true
}
