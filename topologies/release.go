package topologies

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// AllNodes stands in a release for every role, AllUnits for every unit of a component.
const (
	AllNodes = "all"
	AllUnits = "all"
)

// Release is an OpenStack release as data.
type Release struct {
	Name         string               `json:"name"`
	Series       string               `json:"series"` // as Launchpad and the releases site number it: "2022.2"
	OS           OS                   `json:"os"`
	Install      string               `json:"install"` // packages
	Components   map[string]Component `json:"components"`
	Capabilities []string             `json:"capabilities"`
	Raw          map[string]any       `json:"-"` // the file as it is but for restarts and migrate, for the pillar
}

// OS is what the nodes of a release run.
type OS struct {
	Distribution string `json:"distribution"`
	Suite        string `json:"suite"`
}

// Component is one service of a release, OpenStack's own or one that it stands on.
type Component struct {
	Code     string                    `json:"code,omitempty"`     // where its source lies on a node; empty: not to be overlaid
	Packages map[string][]string       `json:"packages,omitempty"` // by role; "all" is every node
	Units    map[string][]string       `json:"units,omitempty"`    // by role
	Restarts map[string][]string       `json:"restarts,omitempty"` // by path of the code (see Release.Restarts): the units that have it loaded
	Migrate  []string                  `json:"migrate,omitempty"`  // commands that bring its databases to what the code wants, run in order as its user on a control node
	Config   map[string]map[string]any `json:"config,omitempty"`   // section, option, value: where this release differs
}

// Can says whether the release has a capability.
func (r Release) Can(capability string) bool { return slices.Contains(r.Capabilities, capability) }

// Releases is the names of the releases built in.
func Releases() []string { return builtin("releases") }

// LoadRelease reads the built-in release of that name.
func LoadRelease(name string) (Release, error) {
	known := Releases()
	if !slices.Contains(known, name) {
		e := &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("no release %q", name), Expected: oneOf(known)}
		return Release{}, e.Suggest(name, known)
	}
	file := "releases/" + name + ".yaml"
	data, err := Files.ReadFile(file)
	if err != nil {
		return Release{}, fmt.Errorf("read release %q: %w", name, err)
	}
	return parseRelease(file, data)
}

// parseRelease decodes a release strictly.
func parseRelease(file string, data []byte) (Release, error) {
	tree, err := parse(file, data)
	if err != nil {
		return Release{}, err
	}
	var r Release
	if err := tree.decode(&r); err != nil {
		return Release{}, tree.at.fault(fault.Invalid, "", "a release", "%w", err)
	}
	r.Raw, _ = tree.any().(map[string]any)
	if want := strings.TrimSuffix(path.Base(file), ".yaml"); r.Name != want {
		return Release{}, tree.place("name").fault(fault.Invalid, "name", want, "%q is not the file's name", r.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Components)) {
		c := r.Components[name]
		if components, ok := r.Raw["components"].(map[string]any); ok {
			if raw, ok := components[name].(map[string]any); ok {
				delete(raw, "restarts") // no state's business: an edit is no reason to run states again
				delete(raw, "migrate")
			}
		}
		for _, role := range slices.Sorted(maps.Keys(c.Packages)) {
			if err := checkRole(tree, "components", name, "packages", role); err != nil {
				return Release{}, err
			}
		}
		for _, role := range slices.Sorted(maps.Keys(c.Units)) {
			if err := checkRole(tree, "components", name, "units", role); err != nil {
				return Release{}, err
			}
		}
		if err := checkRestarts(tree, name, c); err != nil {
			return Release{}, err
		}
	}
	return r, nil
}

// checkRole says whether the last key of a path in a release is a role.
func checkRole(tree *value, at ...string) error {
	role, known := at[len(at)-1], append(Roles(), AllNodes)
	if slices.Contains(known, role) {
		return nil
	}
	return tree.keyPlace(at...).fault(fault.Invalid, dotted(at), oneOf(known), "no role %q", role).Suggest(role, known)
}

// checkRestarts says whether a component's restarts are paths of its code and units of its own.
func checkRestarts(tree *value, name string, c Component) error {
	units := []string{AllUnits}
	for _, role := range slices.Sorted(maps.Keys(c.Units)) {
		units = append(units, c.Units[role]...)
	}
	slices.Sort(units)
	units = slices.Compact(units)
	for _, pattern := range slices.Sorted(maps.Keys(c.Restarts)) {
		at := []string{"components", name, "restarts", pattern}
		top := path.Base(c.Code) + "/"
		if _, err := path.Match(pattern, ""); err != nil || c.Code == "" || !strings.HasPrefix(pattern, top) {
			return tree.keyPlace(at...).fault(fault.Invalid, dotted(at), "a path that begins with the code's folder ("+top+"), * or ** in its last part", "%q is no path of %s", pattern, name)
		}
		for i, unit := range c.Restarts[pattern] {
			if !slices.Contains(units, unit) {
				at := append(at, fmt.Sprint(i))
				return tree.place(at...).fault(fault.Invalid, dotted(at), oneOf(units), "%s has no unit %q", name, unit).Suggest(unit, units)
			}
		}
	}
	return nil
}

// Restarts is the units of a component, on a node of some roles, that have any of the paths loaded, in the release's order:
// what is restarted when these change. A path begins with the code's folder: neutron/agent/l3/agent.py.
//
// The component's restarts says it by the longest of its paths that fits: one that ends in /** fits everything below it,
// others as path.Match has it. What fits none is loaded by all of the component's units.
func (r Release) Restarts(component string, paths []string, roles []string) []string {
	c := r.Components[component]
	loaded := map[string]bool{}
	for _, p := range paths {
		units, longest := []string{AllUnits}, -1
		for pattern, those := range c.Restarts {
			if below, ok := strings.CutSuffix(pattern, "**"); ok {
				if strings.HasPrefix(p, below) && len(below) > longest {
					units, longest = those, len(below)
				}
			} else if fits, _ := path.Match(pattern, p); fits && len(pattern) > longest {
				units, longest = those, len(pattern)
			}
		}
		for _, unit := range units {
			loaded[unit] = true
		}
	}
	var units []string
	for _, u := range r.UnitsOf(roles) {
		if u.Component == component && (loaded[AllUnits] || loaded[u.Name]) {
			units = append(units, u.Name)
		}
	}
	return units
}

// Unit is a unit of systemd's on the nodes of a role.
type Unit struct {
	Component string
	Name      string
}

// UnitsOf is the units that run on a node of some roles, by component and in the release's order, each once.
func (r Release) UnitsOf(roles []string) []Unit {
	var units []Unit
	for _, name := range slices.Sorted(maps.Keys(r.Components)) {
		byRole := r.Components[name].Units
		for _, role := range append([]string{AllNodes}, roles...) {
			for _, unit := range byRole[role] {
				if u := (Unit{Component: name, Name: unit}); !slices.Contains(units, u) {
					units = append(units, u)
				}
			}
		}
	}
	return units
}
