package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	pulumi "github.com/pulumi/pulumi/pkg/v3/engine"
	"github.com/pulumi/pulumi/pkg/v3/resource/deploy"
	"github.com/pulumi/pulumi/pkg/v3/resource/stack"
	"github.com/pulumi/pulumi/sdk/v3/go/common/encoding"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/common/version"
)

// stateFile is a stack's checkpoint as the stock CLI's file backend lays it out (layout 1, by project).
type stateFile struct {
	dir   string
	stack tokens.StackName
}

func (s *stateFile) path() string {
	return filepath.Join(s.dir, ".pulumi", "stacks", project, s.stack.String()+".json")
}

// read is the state; an empty one when there is none yet, or after a crash of the host left the file cut off, its
// predecessor.
func (s *stateFile) read() (*deploy.Snapshot, error) {
	snapshot, err := s.readFile(s.path())
	if err != nil {
		if before, backup := s.readFile(s.path() + ".bak"); backup == nil {
			return before, nil
		}
		return nil, err
	}
	return snapshot, nil
}

func (s *stateFile) readFile(path string) (*deploy.Snapshot, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &deploy.Snapshot{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	checkpoint, _, _, err := stack.UnmarshalVersionedCheckpointToLatestCheckpoint(encoding.JSON, data)
	if err != nil {
		return nil, fmt.Errorf("read state %s: %w", path, err)
	}
	// No secrets are in it, so there is no provider of secrets.
	snapshot, err := stack.DeserializeCheckpoint(context.Background(), nil, checkpoint)
	if err != nil {
		return nil, fmt.Errorf("read state %s: %w", path, err)
	}
	if snapshot == nil {
		snapshot = &deploy.Snapshot{}
	}
	return snapshot, nil
}

// write replaces the state at once, and keeps the one before as .bak.
func (s *stateFile) write(snapshot *deploy.Snapshot) error {
	snapshot, err := snapshot.NormalizeURNReferences()
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	name := tokens.QName("organization/" + project + "/" + s.stack.String())
	checkpoint, err := stack.SerializeCheckpoint(name, snapshot, false)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	data, err := encoding.JSON.Marshal(checkpoint)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	path := s.path()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	meta := filepath.Join(s.dir, ".pulumi", "meta.yaml")
	if _, err := os.Stat(meta); err != nil {
		if err := os.WriteFile(meta, []byte("version: 1\n"), 0o600); err != nil {
			return fmt.Errorf("write state: %w", err)
		}
	}
	// Hidden and without .json: the CLI takes every other file of the folder for a stack.
	next := filepath.Join(filepath.Dir(path), "."+s.stack.String()+".next")
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	_ = os.Remove(path + ".bak")
	if err := os.Link(path, path+".bak"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// snapshots keeps the state up to date while the engine runs: each step that changes something is written down as pending
// before it begins, and as done when it has ended. (Pulumi's own, pkg/backend.SnapshotManager, which this follows, brings
// the SDKs of three clouds with it.)
type snapshots struct {
	write func(*deploy.Snapshot) error

	mu      sync.Mutex
	base    *deploy.Snapshot // the state before; the engine changes it in place when it refreshes
	news    []*resource.State
	gone    map[*resource.State]bool // states that a step has replaced or removed
	pending []resource.Operation
	dirty   bool // something was not worth a write of its own
}

func track(base *deploy.Snapshot, write func(*deploy.Snapshot) error) *snapshots {
	return &snapshots{base: base, write: write, gone: map[*resource.State]bool{}}
}

var _ pulumi.SnapshotManager = (*snapshots)(nil)

// BeginMutation writes a step down as pending.
func (s *snapshots) BeginMutation(step deploy.Step) (pulumi.SnapshotMutation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch step.Op() {
	case deploy.OpCreate, deploy.OpCreateReplacement:
		s.pending = append(s.pending, resource.NewOperation(step.New(), resource.OperationTypeCreating))
	case deploy.OpUpdate:
		s.pending = append(s.pending, resource.NewOperation(step.New(), resource.OperationTypeUpdating))
	case deploy.OpDelete, deploy.OpDeleteReplaced:
		s.pending = append(s.pending, resource.NewOperation(step.Old(), resource.OperationTypeDeleting))
	case deploy.OpSame, deploy.OpReplace, deploy.OpRefresh, deploy.OpRemovePendingReplace:
		return s, nil
	default:
		return nil, fmt.Errorf("%s: a step %q is not expected", step.URN(), step.Op())
	}
	return s, s.save()
}

// End writes down what came of a step.
func (s *snapshots) End(step deploy.Step, successful bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = slices.DeleteFunc(s.pending, func(op resource.Operation) bool {
		return op.Resource == step.New() || op.Resource == step.Old()
	})
	old, now := step.Old(), step.New()
	if successful {
		switch step.Op() {
		case deploy.OpSame, deploy.OpUpdate:
			s.gone[old] = true
			s.news = append(s.news, now)
		case deploy.OpCreate, deploy.OpCreateReplacement:
			s.news = append(s.news, now)
			if old != nil && old.PendingReplacement {
				s.gone[old] = true
			}
		case deploy.OpDelete, deploy.OpDeleteReplaced:
			// One that is to be replaced stays until its successor is there: a run that is killed in between knows of it.
			if !old.PendingReplacement {
				s.gone[old] = true
			}
		case deploy.OpRemovePendingReplace:
			s.gone[old] = true
		}
	}
	if op := step.Op(); op == deploy.OpSame || op == deploy.OpRefresh || op == deploy.OpReplace {
		s.dirty = true
		return nil
	}
	return s.save()
}

// RegisterResourceOutputs is called for the stack itself, which has none.
func (s *snapshots) RegisterResourceOutputs(deploy.Step) error { return nil }

// Write and RebuiltBaseState tell of changes of the base, which the engine makes in place.
func (s *snapshots) Write(*deploy.Snapshot) error { return nil }

func (s *snapshots) RebuiltBaseState() error { return nil }

// SetSnippets is for programs in PCL.
func (s *snapshots) SetSnippets([]resource.Snippet) error { return nil }

// Close writes what is not yet written.
func (s *snapshots) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return nil
	}
	return s.save()
}

// save writes the present state: what steps have left, then what no step has come to yet. Both are in order of their
// dependencies, and so is the sum: what a step has come to cannot depend on what none has.
func (s *snapshots) save() error {
	var resources []*resource.State
	for _, list := range [][]*resource.State{s.news, s.base.Resources} {
		for _, r := range list {
			if !s.gone[r] {
				resources = append(resources, r)
			}
		}
	}
	manifest := deploy.Manifest{Time: time.Now(), Version: version.Version}
	manifest.Magic = manifest.NewMagic()
	s.dirty = false
	return s.write(&deploy.Snapshot{Manifest: manifest, Resources: resources, PendingOperations: s.pending, Metadata: s.base.Metadata})
}
