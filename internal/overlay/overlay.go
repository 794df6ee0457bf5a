// Package overlay lays files over a component's installed code on a node, and takes them off again: patches and code trees
// alike, by content. A change is all or nothing, also when the node or toastdev is killed in the middle of it: the next run
// finishes or undoes it. What the package had is kept on the node, and comes back to the byte, with mode, owner and times.
//
// The work is done on the node by one Python program (onnode.py), which every node can run: one command a change.
package overlay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/source"
)

// Metadata stands at the beginning of a path for the folder of a component's entry points, whose name has the installed
// version: EGG-INFO/entry_points.txt is neutron-21.0.0.egg-info/entry_points.txt.
const Metadata = "EGG-INFO"

// NoFile is the Base of a file that the package does not have.
const NoFile = "-"

// Want is what a component's code on a node is to be, beyond its package.
type Want struct {
	Component string
	Root      string // where the release says that the code lies: /usr/lib/python3/dist-packages/neutron
	Layers    []Layer
	Files     map[string]File // by path below Root's parent: neutron/agent/l3/agent.py
}

// Layer is one of the things that Files came from, in their order; it is told back, and means nothing to this package.
type Layer struct {
	Name   string `json:"name"`   // "patch fip-timing", "code ~/src/neutron (git 3f2a1c, edited)"
	Digest string `json:"digest"` // of its content
}

// File is what a file is to be. Its Mode 0 is the package's, 0644 for a new file; its Base is the package's file, or NoFile.
type File = source.File

// Digest is the same for equal wants.
func (w Want) Digest() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q\n", w.Component, w.Root)
	for _, l := range w.Layers {
		fmt.Fprintf(sum, "%q %q\n", l.Name, l.Digest)
	}
	for _, p := range slices.Sorted(maps.Keys(w.Files)) {
		f := w.Files[p]
		fmt.Fprintf(sum, "%q %v %o %x\n", p, f.Absent, f.Mode.Perm(), sha256.Sum256(f.Content))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Outcome is what a change did.
type Outcome struct {
	Changed []string // paths that are other than before
	Pending []string // paths that changed since the last Settle, Changed among them: what units are to be restarted for
	Kept    []string // paths that a package has replaced since they were laid, which Lift leaves as the package has them
	Mended  string   // finished or undone: what became of a run that was killed before
	Seconds float64
}

// Option changes what is refused.
type Option int

// Force lays over files, and takes off files, that somebody edited on the node: the edits are lost.
const Force Option = 1

// Lay makes a component's code on a node what is wanted: files that were laid and are not wanted become the package's again.
// What is as wanted is not touched. All or nothing; done when it returns nil. Every Python file is compiled before anything
// is replaced.
func Lay(ctx context.Context, n node.Node, w Want, options ...Option) (Outcome, error) {
	return change(ctx, n, "lay", w, w.Digest(), options)
}

// Amend is Lay that looks at some of the files alone: the others are known to be laid already, as wanted.
func Amend(ctx context.Context, n node.Node, w Want, paths []string, options ...Option) (Outcome, error) {
	digest := w.Digest()
	files := map[string]File{}
	for _, p := range paths {
		f, is := w.Files[p]
		if !is { // the package's again
			return Lay(ctx, n, w, options...)
		}
		files[p] = f
	}
	w.Files = files
	return change(ctx, n, "amend", w, digest, options)
}

// Lift makes a component's code on a node its package's again, to the byte, and leaves nothing behind.
func Lift(ctx context.Context, n node.Node, component string, options ...Option) (Outcome, error) {
	return change(ctx, n, "lift", Want{Component: component}, "", options)
}

// Settle says that the units were restarted for all that changed so far.
func Settle(ctx context.Context, n node.Node, component string) error {
	_, err := call(ctx, n, "settle", request{Component: component}, nil, nil)
	return err
}

func change(ctx context.Context, n node.Node, verb string, w Want, digest string, options []Option) (Outcome, error) {
	if err := w.check(verb); err != nil {
		return Outcome{}, err
	}
	began := time.Now()
	r := request{Component: w.Component, Root: w.Root, Layers: w.Layers, Digest: digest, Force: slices.Contains(options, Force), Files: map[string]wanted{}}
	if r.Layers == nil {
		r.Layers = []Layer{}
	}
	var bodies [][]byte
	for _, p := range slices.Sorted(maps.Keys(w.Files)) {
		f := w.Files[p]
		r.Files[p] = wanted{Body: len(bodies), Mode: uint32(f.Mode.Perm()), Absent: f.Absent, Base: f.Base}
		if !f.Absent {
			bodies = append(bodies, f.Content)
		}
	}
	var o struct {
		Changed, Pending, Kept []string
		Mended                 string
	}
	if _, err := call(ctx, n, verb, r, bodies, &o); err != nil {
		return Outcome{}, err
	}
	return Outcome{o.Changed, o.Pending, o.Kept, o.Mended, time.Since(began).Seconds()}, nil
}

var componentName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// check refuses what no node needs to be asked about. The node looks at links and folders.
func (w Want) check(verb string) error {
	if !componentName.MatchString(w.Component) {
		return fault.New(fault.Invalid, "%q is not a component's name", w.Component)
	}
	if verb == "lift" {
		return nil
	}
	if !path.IsAbs(w.Root) || path.Clean(w.Root) != w.Root || path.Dir(w.Root) == "/" {
		return fault.New(fault.Invalid, "%s's code is said to lie in %q", w.Component, w.Root)
	}
	top := path.Base(w.Root) + "/"
	for _, p := range slices.Sorted(maps.Keys(w.Files)) {
		e := &fault.Error{Code: fault.Invalid, File: p, Expected: "a path below " + top}
		switch {
		case !fs.ValidPath(p) || !strings.HasPrefix(p, top) && !strings.HasPrefix(p, Metadata+"/"):
			e.Message = "this path leaves the component's code"
		case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
			e.Message = "this path has control characters"
		case strings.Contains("/"+p, "/__pycache__/") || strings.HasSuffix(p, ".pyc"):
			e.Message, e.Expected = "this is an interpreter's cache", "source files"
		default:
			continue
		}
		return e
	}
	return nil
}

// Laid is what is laid over a component on a node.
type Laid struct {
	Component  string
	Root       string
	Layers     []Layer
	Digest     string // the Want's
	Files      []LaidFile
	At         time.Time
	Pending    []string // paths that changed since the last Settle
	Unfinished bool     // a run was killed in the middle of a change: the next Lay, Lift or Mend finishes or undoes it
}

// LaidFile is a file that is laid.
type LaidFile struct {
	Path   string    `json:"path"`
	State  FileState `json:"state"`
	New    bool      `json:"new"`    // the package does not have it
	Absent bool      `json:"absent"` // it is removed
	SHA256 string    `json:"sha256"`
}

// FileState says what became of a file that was laid.
type FileState string

const (
	AsLaid   FileState = "laid"
	Edited   FileState = "edited"   // by hand, on the node
	Replaced FileState = "replaced" // by its package
)

// Intact says whether all of it still is as laid.
func (l Laid) Intact() bool {
	return !l.Unfinished && !slices.ContainsFunc(l.Files, func(f LaidFile) bool { return f.State != AsLaid })
}

// Read is what is laid over a node's code now, by component. It changes nothing. A component of which only Pending or
// Unfinished is told has nothing laid over it, or not yet.
func Read(ctx context.Context, n node.Node) ([]Laid, error) { return read(ctx, n, request{}) }

// Mend is Read after what killed runs left is finished or undone.
func Mend(ctx context.Context, n node.Node, options ...Option) ([]Laid, error) {
	return read(ctx, n, request{Mend: true, Force: slices.Contains(options, Force)})
}

func read(ctx context.Context, n node.Node, r request) ([]Laid, error) {
	var answer struct {
		Laid []struct {
			Laid
			At float64
		}
	}
	if _, err := call(ctx, n, "read", r, nil, &answer); err != nil {
		return nil, err
	}
	laid := make([]Laid, len(answer.Laid))
	for i, l := range answer.Laid {
		laid[i] = l.Laid
		if l.At > 0 {
			laid[i].At = time.UnixMicro(int64(l.At * 1e6))
		}
	}
	return laid, nil
}

// Base is a component as its package has it, beneath whatever is laid.
type Base struct {
	Component     string
	Root          string
	Version       string            // of the installed code: 21.0.0; "" where nothing says it
	Files         map[string]string // SHA-256 by path, without caches
	EntryPoints   []byte            // entry_points.txt
	Distributions map[string]string // versions of what is installed beside it, by name: oslo-messaging
}

// Installed is what a node has installed of a component.
func Installed(ctx context.Context, n node.Node, component, root string) (*Base, error) {
	var answer struct {
		Files         map[string]string
		Version       string
		EntryPoints   string `json:"entry_points"`
		Distributions map[string]string
	}
	if _, err := call(ctx, n, "installed", request{Component: component, Root: root}, nil, &answer); err != nil {
		return nil, err
	}
	return &Base{component, root, answer.Version, answer.Files, []byte(answer.EntryPoints), answer.Distributions}, nil
}

// Fetch is the package's bytes of some paths, whatever is laid over them. A path that the package does not have is not among them.
func Fetch(ctx context.Context, n node.Node, component, root string, paths ...string) (map[string][]byte, error) {
	var answer struct{ Paths map[string]int }
	bodies, err := call(ctx, n, "fetch", request{Component: component, Root: root, Paths: paths}, nil, &answer)
	if err != nil {
		return nil, err
	}
	contents := map[string][]byte{}
	for p, i := range answer.Paths {
		contents[p] = bodies[i]
	}
	return contents, nil
}

// What a file that was edited was before. A new one was neither.
const (
	OverLaid    = "laid"
	OverPackage = "package"
)

// Edit is a file that was changed by hand on a node.
type Edit struct {
	Path    string
	Over    string // OverLaid, OverPackage, or "" for a new file
	Absent  bool   // it was removed
	Content []byte
}

// Edits is what was changed by hand of a component's code on a node: what is neither its package's nor as laid. A file that
// was removed is told when it was laid.
func Edits(ctx context.Context, n node.Node, component, root string) ([]Edit, error) {
	var answer struct {
		Edits []struct {
			Edit
			Body int
		}
	}
	bodies, err := call(ctx, n, "edits", request{Component: component, Root: root}, nil, &answer)
	if err != nil {
		return nil, err
	}
	var edits []Edit
	for _, e := range answer.Edits {
		if !e.Absent {
			e.Content = bodies[e.Body]
		}
		edits = append(edits, e.Edit)
	}
	return edits, nil
}
