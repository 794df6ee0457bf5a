package topologies

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mitchellh/go-homedir"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Source says which topology is meant, and what is changed of it.
type Source struct {
	Ref  string   // a built-in's name or a file's path; "" is DefaultTopology
	Sets []string // path=value, applied one after another when a region's values are merged
}

// Builtin is the names of the topologies built in.
func Builtin() []string { return builtin(".") }

func builtin(dir string) []string {
	entries, err := Files.ReadDir(dir)
	if err != nil {
		panic(err) // it is embedded
	}
	var names []string
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(entry.Name(), ".yaml"); ok {
			names = append(names, name)
		}
	}
	return names
}

// Load reads a topology, and refuses with a *fault.Error what is wrong in it or not built yet.
func Load(source Source) (*Topology, error) {
	if source.Ref == "" {
		source.Ref = DefaultTopology
	}
	file, dir, data, err := read(source.Ref)
	if err != nil {
		return nil, err
	}
	return load(source.Ref, file, dir, data, source.Sets)
}

// read is the text of a topology, the name of its file in messages, and the folder that its paths start from.
func read(ref string) (file, dir string, data []byte, err error) {
	if slices.Contains(Builtin(), ref) {
		data, err = Files.ReadFile(ref + ".yaml")
		return ref + ".yaml", ".", data, err
	}
	f, err := os.Open(ref)
	if errors.Is(err, fs.ErrNotExist) {
		e := &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("no topology %q", ref),
			Expected: "a file, or " + oneOf(Builtin()), Err: err}
		return "", "", nil, e.Suggest(ref, Builtin())
	}
	if err != nil {
		return "", "", nil, unreadable(ref, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", "", nil, unreadable(ref, err)
	}
	if !info.Mode().IsRegular() {
		e := &fault.Error{Code: fault.Invalid, File: ref, Message: "this is not a file", Expected: "a file, or " + oneOf(Builtin())}
		if info.IsDir() {
			e.Message = "this is a folder"
		}
		return "", "", nil, e
	}
	if data, err = io.ReadAll(io.LimitReader(f, maxBytes+utf8BOM+1)); err != nil {
		return "", "", nil, unreadable(ref, err)
	}
	return ref, filepath.Dir(ref), data, nil
}

const utf8BOM = 3 // bytes of a byte order mark, which parse skips

func unreadable(ref string, err error) error {
	return &fault.Error{Code: fault.Invalid, File: ref, Message: err.Error(), Expected: "a file that can be read", Err: err}
}

// load is Load of a text.
func load(ref, file, dir string, data []byte, sets []string) (*Topology, error) {
	tree, err := parse(file, data)
	if err != nil {
		return nil, err
	}
	if err := check(tree); err != nil {
		return nil, err
	}
	region, err := mergeRegion(tree)
	if err != nil {
		return nil, err
	}
	for _, set := range sets {
		if err := apply(tree, set); err != nil {
			return nil, err
		}
	}
	if err := check(tree); err != nil {
		return nil, err
	}
	t := &Topology{Release: DefaultRelease, Routing: "dvr", TenantNetwork: "vxlan", Datapath: "auto",
		Name: strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))}
	if err := tree.decode(t); err != nil {
		return nil, tree.at.fault(fault.Invalid, "", "", "%w", err)
	}
	t.File, t.Region, t.Regions = ref, region, map[string]Region{region: {}}
	if ref != strings.TrimSuffix(file, ".yaml") {
		if t.File, err = filepath.Abs(ref); err != nil {
			return nil, fmt.Errorf("find %s: %w", ref, err)
		}
	}
	if pillar := tree.get("pillar"); pillar != nil {
		t.Pillar = pillar.any().(map[string]any) // decoded JSON would make every number a float
	}
	if err := t.resolveTree(tree, dir); err != nil {
		return nil, err
	}
	if err := t.resolveSources(tree, dir); err != nil {
		return nil, err
	}
	return t, t.verify(tree)
}

// mergeRegion lays the one region's values over those beside it, and takes regions away; it returns the region's name.
func mergeRegion(tree *value) (string, error) {
	regions := tree.get("regions")
	if regions == nil {
		return DefaultRegion, nil
	}
	at := tree.place("regions")
	if len(regions.fields.keys) == 0 {
		return "", at.fault(fault.Invalid, "regions", "a region: kr1: {}", "no region is given")
	}
	for _, name := range regions.fields.keys {
		identity := regions.get(name).get("identity")
		if identity == nil {
			continue
		}
		if master, _ := identity.scalar.(string); regions.get(master) == nil {
			return "", identity.at.fault(fault.Invalid, "regions."+name+".identity", oneOf(regions.fields.keys), "no region %q", master).
				Suggest(master, regions.fields.keys)
		}
	}
	if len(regions.fields.keys) > 1 {
		second := regions.fields.keys[1]
		return "", regions.fields.at[second].fault(fault.Unsupported, "regions."+second, "one region", "more than one region is not supported yet")
	}
	name := regions.fields.keys[0]
	region := regions.get(name)
	region.remove("identity")
	tree.remove("regions")
	tree.merge(region)
	return name, nil
}

// apply lays one --set over the tree.
func apply(tree *value, set string) error {
	at := place{file: "--set " + set}
	path, text, found := strings.Cut(set, "=")
	keys := strings.Split(path, ".")
	if !found || slices.Contains(keys, "") {
		return at.fault(fault.Invalid, "", "path=value: nodes.cmp.count=3", "this is not a path and a value")
	}
	if keys[0] == "regions" {
		return at.fault(fault.Invalid, path, "a path that begins with a key of the topology", "--set is applied when the region's values are merged").
			WithRemedy("leave regions and the region's name out of the path")
	}
	parsed, err := parse(at.file, []byte("value: "+text))
	if err != nil {
		var e *fault.Error
		if errors.As(err, &e) {
			e.Line, e.Column, e.Path = 0, 0, path
		}
		return err
	}
	if len(parsed.fields.keys) != 1 {
		return at.fault(fault.Invalid, path, "one YAML value", "%q is not a value", text)
	}
	v := parsed.get("value")
	v.stamp(at)
	return v.setAt(tree, at, nil, keys)
}

// stamp gives a value and all in it one place.
func (v *value) stamp(at place) {
	v.at = at
	for _, item := range v.list {
		item.stamp(at)
	}
	if v.fields != nil {
		for key, field := range v.fields.value {
			v.fields.at[key] = at
			field.stamp(at)
		}
	}
}

// setAt lays v over what stands at keys below the map at, where * is every key.
func (v *value) setAt(into *value, at place, above, keys []string) error {
	key, rest := keys[0], keys[1:]
	here := append(slices.Clip(above), key)
	if key == "*" {
		if len(into.fields.keys) == 0 {
			return at.fault(fault.Invalid, dotted(here), "a map with keys", "there is nothing that * could be")
		}
		for _, each := range slices.Clone(into.fields.keys) {
			if err := v.setAt(into, at, above, append([]string{each}, rest...)); err != nil {
				return err
			}
		}
		return nil
	}
	below := into.get(key)
	if below == nil && v.isNull() {
		return at.fault(fault.Invalid, dotted(here), "a key that is there", "there is nothing to remove").Suggest(key, into.fields.keys)
	}
	if len(rest) == 0 {
		over := newMap(at)
		over.put(key, at, v.clone())
		into.merge(over)
		return nil
	}
	if below == nil {
		below = newMap(at)
		into.put(key, at, below)
	}
	if below.fields == nil {
		return at.fault(fault.Invalid, dotted(here), "a map", "this is %s, which has no keys", below.kind())
	}
	return v.setAt(below, at, here, rest)
}

// clone is a copy that shares nothing: one --set with a * puts a value into several maps.
func (v *value) clone() *value {
	c := *v
	if v.fields != nil {
		c.fields = newMap(v.at).fields
		for _, key := range v.fields.keys {
			c.put(key, v.fields.at[key], v.fields.value[key].clone())
		}
	}
	return &c
}

// resolveTree makes the Salt tree's path absolute, and says whether a tree is there.
func (t *Topology) resolveTree(tree *value, dir string) error {
	at := tree.place("salt", "tree")
	if t.Salt.Tree == "" {
		if t.Salt.Base == "none" {
			return tree.place("salt", "base").fault(fault.Invalid, "salt.base", "a tree beside it", "without a tree there is nothing to deploy by")
		}
		return nil
	}
	wrong := func(format string, args ...any) error {
		return at.fault(fault.Invalid, "salt.tree", "a folder with a folder states/, or with .sls files", format, args...)
	}
	dirOf, err := folder(at, dir, t.Salt.Tree)
	if err != nil {
		return wrong("%w", err)
	}
	states, err := os.Stat(filepath.Join(dirOf, "states"))
	if err != nil || !states.IsDir() {
		if files, _ := filepath.Glob(filepath.Join(dirOf, "*.sls")); len(files) == 0 {
			return wrong("%s is no Salt tree", dirOf)
		}
	}
	t.Salt.Tree, err = filepath.Abs(dirOf)
	return err
}

// resolveSources makes the paths of source trees absolute, and says whether there are folders.
func (t *Topology) resolveSources(tree *value, dir string) error {
	for i, overlay := range t.Overlays {
		if overlay.Source == nil {
			continue
		}
		path := []string{"overlays", fmt.Sprint(i), "source", "git"}
		at := tree.place(path...)
		source, err := folder(at, dir, overlay.Source.Git)
		if err != nil {
			return at.fault(fault.Invalid, dotted(path), "a folder: a source tree, or its git repository", "%w", err)
		}
		if overlay.Source.Git, err = filepath.Abs(source); err != nil {
			return err
		}
	}
	return nil
}

// folder is the path of a folder that a topology in dir names; the error says why it is none.
func folder(at place, dir, name string) (string, error) {
	name, err := homedir.Expand(name)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(name) && at.line > 0 { // a --set's is relative to where toastdev runs
		name = filepath.Join(dir, name)
	}
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("there is no %s", name)
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", fmt.Errorf("%s is not a folder", name)
	}
	return name, nil
}
