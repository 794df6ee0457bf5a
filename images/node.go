package images

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/topologies"
)

// nodeRevision stands for what images/build does beyond the recipe. Raise it when that changes what is in a node image.
const nodeRevision = "1"

// NodeRecipe is everything that goes into a node image. A build is given these files and nothing else, so that what the
// hash does not cover cannot come into the image.
type NodeRecipe struct {
	Release     string   // the release's name
	Suite       string   // Debian's
	Variant     string   // mmdebstrap's
	Base        []string // packages of the base
	Salt        string   // Salt's version
	Constraints []byte   // pip's constraints file
	Rootfs      map[string][]byte
	Trees       []Tree   // Salt's file_roots in their order: states and modules that installing needs
	States      []string // the install states: nova.install
	Packages    []string // every package of the release, so that they can be downloaded ahead of the states
	Pillar      []byte   // JSON
	Hash        string   // of all this, in hex
}

// Tree is files by their path.
type Tree map[string][]byte

// Ref is the image's name in an engine.
func (r *NodeRecipe) Ref() string {
	return fmt.Sprintf("toastdev/node-%s:%s", r.Release, r.Hash[:hashLength])
}

type nodeYAML struct {
	Base struct {
		Variant  string   `yaml:"variant"`
		Packages []string `yaml:"packages"`
	} `yaml:"base"`
	Salt struct {
		Version     string `yaml:"version"`
		Constraints string `yaml:"constraints"`
	} `yaml:"salt"`
}

// Node is the recipe of a release's node image, from the recipe's files (see NodeFiles) and trees of Salt states. Of
// trees that have the same file the first counts, as in Salt's file_roots.
//
// The image has what the states */install.sls install. The hash covers these, the files that they reach (a jinja
// import or include, an SLS include, a salt:// source, each written out, not computed), the trees' own Salt modules that
// any of these calls by name (folders that begin with _), the recipe, and of the release what says what is installed: not
// its units, not its configuration. A state that only configures is not covered, and changing it builds no image. A tree
// without an install state, of which none of the others needs a file, has no part in it.
func Node(release topologies.Release, recipe fs.FS, trees ...fs.FS) (*NodeRecipe, error) {
	var y nodeYAML
	raw, err := decode(recipe, &y)
	if err != nil {
		return nil, err
	}
	r := &NodeRecipe{Release: release.Name, Suite: release.OS.Suite, Variant: y.Base.Variant, Base: y.Base.Packages, Salt: y.Salt.Version}
	if r.Constraints, err = fs.ReadFile(recipe, y.Salt.Constraints); err != nil {
		return nil, fmt.Errorf("read Salt's constraints: %w", err)
	}
	rootfs, err := fs.Sub(recipe, "rootfs")
	if err != nil {
		return nil, err
	}
	if r.Rootfs, err = read(rootfs, "."); err != nil {
		return nil, fmt.Errorf("read the recipe's rootfs: %w", err)
	}
	if r.Trees, r.States, err = installing(trees); err != nil {
		return nil, fmt.Errorf("read the Salt tree: %w", err)
	}
	r.Trees = slices.DeleteFunc(r.Trees, func(t Tree) bool { return len(t) == 0 })
	if r.Pillar, r.Packages, err = pillar(release); err != nil {
		return nil, err
	}
	parts := map[string][]byte{
		"revision": []byte(nodeRevision), "suite": []byte(r.Suite), "recipe": raw, "constraints": r.Constraints, "pillar": r.Pillar,
	}
	for name, content := range r.Rootfs {
		parts["rootfs/"+name] = content
	}
	for i, tree := range r.Trees {
		for name, content := range tree {
			parts[fmt.Sprintf("tree/%d/%s", i, name)] = content
		}
	}
	r.Hash = hash(parts)
	return r, nil
}

// pillar is what the install states are told: of the release, the parts that say what is installed.
func pillar(release topologies.Release) (text []byte, packages []string, err error) {
	components := map[string]any{}
	for name, c := range release.Components {
		component := map[string]any{}
		if c.Code != "" {
			component["code"] = c.Code
		}
		if len(c.Packages) > 0 {
			component["packages"] = c.Packages
		}
		components[name] = component
		for _, names := range c.Packages {
			packages = append(packages, names...)
		}
	}
	text, err = json.Marshal(map[string]any{"baking": true, "release": map[string]any{
		"name": release.Name, "series": release.Series, "install": release.Install, "components": components,
		"os": map[string]any{"distribution": release.OS.Distribution, "suite": release.OS.Suite},
	}})
	slices.Sort(packages)
	return text, slices.Compact(packages), err
}

// References of a file to others, as they are written in states and templates.
var (
	jinjaReference = regexp.MustCompile(`\{%-?\s*(?:import|include|extends|from|import_yaml|import_json|import_text)\s+['"]([^'"]+)['"]`)
	saltReference  = regexp.MustCompile(`salt://([^\s'"?,\]}]+)`)
	computedSource = regexp.MustCompile(`salt://[^\s'"]*\{\{`)
	includeBlock   = regexp.MustCompile(`(?m)^include:[ \t]*(\[[^\]]*\]|(?:\s*\n[ \t]*-[ \t]*[^\n]+|[ \t]*\n)+)`)
	includeName    = regexp.MustCompile(`[\w.:/-]+`)
)

// installing is the part of the trees that the install states need, and the install states' names.
func installing(trees []fs.FS) ([]Tree, []string, error) {
	parts := make([]Tree, len(trees))
	for i := range parts {
		parts[i] = Tree{}
	}
	var states, todo []string
	modules := make([]Tree, len(trees)) // of trees that install something; not yet called for
	for i, tree := range trees {
		own, err := fs.Glob(tree, "*/install.sls")
		if err != nil {
			return nil, nil, err
		}
		for _, name := range own {
			todo = append(todo, name)
			states = append(states, path.Dir(name)+".install")
		}
		if len(own) == 0 {
			continue
		}
		if modules[i], err = saltModules(tree); err != nil {
			return nil, nil, err
		}
	}
	var texts strings.Builder
	seen := map[string]bool{}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		for i, tree := range trees {
			files, err := read(tree, name)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			for file, content := range files {
				if at := computedSource.FindIndex(content); at != nil && path.Ext(file) == ".sls" {
					e := fault.New(fault.Invalid, "a node image's file is named by a variable: %s", content[at[0]:at[1]]).WithRemedy("write the path out: only then is it known which files make another image")
					e.File, e.Line = file, 1+bytes.Count(content[:at[0]], []byte("\n"))
					return nil, nil, e
				}
				parts[i][file] = content
				texts.Write(content)
				todo = append(todo, references(file, string(content))...)
			}
			break
		}
	}
	for more := true; more; {
		more = false
		for i := range trees {
			for name, content := range modules[i] {
				call := `\b` + regexp.QuoteMeta(strings.TrimSuffix(path.Base(name), path.Ext(name))) + `\.`
				if called, err := regexp.MatchString(call, texts.String()); err != nil {
					return nil, nil, err
				} else if called {
					parts[i][name] = content
					texts.Write(content)
					delete(modules[i], name)
					more = true
				}
			}
		}
	}
	slices.Sort(states)
	return parts, slices.Compact(states), nil
}

// saltModules is the files of a tree's folders that begin with _: modules of Salt's that are the tree's own.
func saltModules(tree fs.FS) (Tree, error) {
	folders, err := fs.Glob(tree, "_*")
	if err != nil {
		return nil, err
	}
	modules := Tree{}
	for _, folder := range folders {
		files, err := read(tree, folder)
		if err != nil {
			return nil, err
		}
		for name, content := range files {
			if path.Ext(name) != ".pyc" {
				modules[name] = content
			}
		}
	}
	return modules, nil
}

// references is the paths that a file may mean, in the order in which Salt tries them. What does not exist is passed over.
func references(file, text string) []string {
	var found []string
	for _, match := range jinjaReference.FindAllStringSubmatch(text, -1) {
		name := match[1]
		if strings.HasPrefix(name, "./") || strings.HasPrefix(name, "../") {
			name = path.Join(path.Dir(file), name)
		}
		found = append(found, strings.TrimPrefix(name, "/"))
	}
	for _, match := range saltReference.FindAllStringSubmatch(text, -1) {
		found = append(found, strings.TrimSuffix(match[1], "/"))
	}
	for _, block := range includeBlock.FindAllStringSubmatch(text, -1) {
		for _, state := range includeName.FindAllString(block[1], -1) {
			name := strings.ReplaceAll(strings.TrimLeft(state, "."), ".", "/")
			if strings.HasPrefix(state, ".") {
				name = path.Join(path.Dir(file), name)
			}
			found = append(found, name+".sls", name+"/init.sls")
		}
	}
	return found
}
