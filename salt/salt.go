// Package salt is the Salt states that make nodes a region, and what is handed to them: pure, the effects are in salt/run.
package salt

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/toast-cloud/toastdev/internal/plan"
)

// Root is where everything of Salt's lies on a node; its configuration folder too.
const Root = "/srv/toastdev/salt"

//go:embed all:states all:modules minion.yaml
var embedded embed.FS

// States is our own tree of states.
func States() fs.FS {
	states, err := fs.Sub(embedded, "states")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return states
}

// Tree is what a node's states are read from.
type Tree struct {
	States fs.FS // ours; nil where a user's own tree replaces it
	User   fs.FS // a user's own: states/ and pillar/, or states at its root; nil when there is none
	Custom fs.FS // packages of our own, each a folder: salt://NAME; nil when there are none
}

// states is where in the user's tree its states are.
func (t Tree) states() string {
	if _, err := fs.Stat(t.User, "states"); err != nil {
		return "."
	}
	return "states"
}

// Roots is the tree as Salt's file_roots: the user's states before ours.
func (t Tree) Roots() []fs.FS {
	var roots []fs.FS
	if t.User != nil {
		states, err := fs.Sub(t.User, t.states())
		if err != nil {
			panic(err) // the name is a valid one
		}
		roots = append(roots, states)
	}
	if t.States != nil {
		roots = append(roots, t.States)
	}
	return roots
}

// Handed is everything a node is given for one run: files by their path below Root, and their modes.
type Handed struct {
	files map[string][]byte
}

// Hand puts together what a node is given. The same tree, plan and secrets give the same bytes.
func Hand(tree Tree, p *plan.Plan, n *plan.Node, secrets map[string]string) (*Handed, error) {
	h := &Handed{files: map[string][]byte{}}
	minion, err := embedded.ReadFile("minion.yaml")
	if err != nil {
		return nil, err
	}
	h.files["minion"] = minion
	h.files["minion.d/node.conf"], err = yaml.Marshal(yaml.MapSlice{
		{Key: "id", Value: n.Name},
		{Key: "grains", Value: yaml.MapSlice{{Key: "roles", Value: n.Roles}, {Key: "region", Value: p.Region}}},
	})
	if err != nil {
		return nil, err
	}
	if err := h.add("", embedded, "modules"); err != nil {
		return nil, err
	}
	if tree.States != nil {
		if err := h.add("states", tree.States, "."); err != nil {
			return nil, err
		}
	}
	if tree.User != nil {
		to := "tree"
		if tree.states() == "." {
			to = "tree/states"
		}
		if err := h.add(to, tree.User, "."); err != nil {
			return nil, err
		}
	}
	if tree.Custom != nil {
		if err := h.add("custom", tree.Custom, "."); err != nil {
			return nil, err
		}
	}
	pillar, err := Pillar(p, n, secrets)
	if err != nil {
		return nil, err
	}
	h.files["pillar.json"], err = json.MarshalIndent(pillar, "", "  ")
	return h, err
}

func (h *Handed) add(to string, from fs.FS, root string) error {
	return fs.WalkDir(from, root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && (d.Name() == ".git" || d.Name() == "__pycache__") {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return fmt.Errorf("read the Salt tree: %w", err)
		}
		h.files[path.Join(to, name)] = text
		return nil
	})
}

func (h *Handed) names() []string {
	names := make([]string, 0, len(h.files))
	for name := range h.files {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Digest says whether two runs are handed the same: hex of a SHA-256.
func (h *Handed) Digest() string {
	sum := sha256.New()
	for _, name := range h.names() {
		fmt.Fprintf(sum, "%s %d\n", name, len(h.files[name]))
		sum.Write(h.files[name])
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Tar is the files as a tar stream with paths below Root. The pillar holds the secrets: it is root's alone. The files are
// of now, because Salt takes one with the time of its last run for unchanged, whatever is in it.
func (h *Handed) Tar() (io.Reader, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	now := time.Now()
	for _, name := range h.names() {
		mode := int64(0o644)
		if name == "pillar.json" {
			mode = 0o600
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, ModTime: now, Size: int64(len(h.files[name]))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(h.files[name]); err != nil {
			return nil, err
		}
	}
	return &b, w.Close()
}

// Pillar is a node's pillar: the plan as states see it, the environment's secrets, and the topology's own overrides,
// which have the last word.
func Pillar(p *plan.Plan, n *plan.Node, secrets map[string]string) (map[string]any, error) {
	nodes := map[string]any{}
	for i := range p.Nodes {
		nodes[p.Nodes[i].Name] = nodePillar(&p.Nodes[i])
	}
	networks := map[string]any{}
	for _, network := range p.Networks {
		networks[network.Name] = networkPillar(network)
	}
	node := nodePillar(n)
	node["name"] = n.Name
	nics := map[string]any{}
	for _, nic := range n.NICs {
		nics[nic.Network] = nic.Name
	}
	node["nics"] = nics
	pillar := map[string]any{
		"environment":    p.Environment,
		"region":         p.Region,
		"release":        p.Release.Raw,
		"node":           node,
		"nodes":          nodes,
		"networks":       networks,
		"api":            map[string]any{"address": p.API.String(), "name": "api"},
		"fence":          "http://" + p.Fence().String(),
		"datapath":       n.Datapath,
		"nfs_client":     n.NFSClient,
		"virt_type":      n.VirtType,
		"patience":       p.Patience(),
		"routing":        p.Routing,
		"tenant_network": p.TenantNetwork,
		"secrets":        secrets,
	}
	text, err := json.Marshal(pillar)
	if err != nil {
		return nil, fmt.Errorf("make the pillar of %s: %w", n.Name, err)
	}
	own := map[string]any{} // a copy in JSON's own types: the plan's maps stay as they are
	if err := json.Unmarshal(text, &own); err != nil {
		return nil, fmt.Errorf("make the pillar of %s: %w", n.Name, err)
	}
	return Merge(own, p.Pillar), nil
}

// Merge lays over onto m as the topology language merges: maps merge, lists replace, null removes.
func Merge(m, over map[string]any) map[string]any {
	for key, value := range over {
		theirs, isMap := value.(map[string]any)
		ours, wasMap := m[key].(map[string]any)
		switch {
		case value == nil:
			delete(m, key)
		case isMap && wasMap:
			m[key] = Merge(ours, theirs)
		default:
			m[key] = value
		}
	}
	return m
}

func nodePillar(n *plan.Node) map[string]any {
	addresses := map[string]any{}
	for _, nic := range n.NICs {
		addresses[nic.Network] = nic.Addresses[0].Addr().String()
	}
	return map[string]any{"roles": n.Roles, "addresses": addresses}
}

func networkPillar(n plan.Network) map[string]any {
	m := map[string]any{"subnet": n.Subnet.String(), "gateway": n.Gateway.String(), "mtu": n.MTU}
	if n.Floating != nil {
		m["floating"] = map[string]any{"start": n.Floating.First.String(), "end": n.Floating.Last.String()}
	}
	return m
}
