package scenarios

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"rsc.io/script"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/topologies"
)

// Condition is what a line may depend on: [dvr], [!dvr], [nodes:compute>=2].
type Condition struct {
	Summary string
	Suffix  string // what stands behind the colon; empty: nothing
	check   func(suffix string) error
	holds   func(w *World, suffix string) bool
}

// Conditions is all conditions by name.
func Conditions() map[string]Condition { return conditions() }

func conditions() map[string]Condition {
	plain := func(summary string, holds func(w *World) bool) Condition {
		return Condition{Summary: summary, holds: func(w *World, _ string) bool { return holds(w) }}
	}
	return map[string]Condition{
		"dvr":       plain("routers are distributed", func(w *World) bool { return w.Plan.Routing == "dvr" }),
		"legacy":    plain("routers lie on the network nodes alone", func(w *World) bool { return w.Plan.Routing == "legacy" }),
		"vxlan":     plain("tenants' networks are VXLAN tunnels", func(w *World) bool { return w.Plan.TenantNetwork == "vxlan" }),
		"vlan":      plain("tenants' networks are VLANs", func(w *World) bool { return w.Plan.TenantNetwork == "vlan" }),
		"kvm":       plain("guests run on KVM", func(w *World) bool { return !w.Plan.Emulates() }),
		"emulation": plain("guests are emulated", func(w *World) bool { return w.Plan.Emulates() }),
		"netem":     plain("every node's kernel delays and loses packets on demand", func(w *World) bool { return w.Netem }),
		"has": {Summary: "the release has a capability: [has:forced-down]", Suffix: "CAPABILITY",
			check: func(suffix string) error {
				var known []string
				for _, name := range topologies.Releases() {
					r, err := topologies.LoadRelease(name)
					if err != nil {
						return err
					}
					known = append(known, r.Capabilities...)
				}
				slices.Sort(known)
				known = slices.Compact(known)
				if slices.Contains(known, suffix) {
					return nil
				}
				e := &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("no release has a capability %q", suffix), Expected: strings.Join(known, ", ")}
				return e.Suggest(suffix, known)
			},
			holds: func(w *World, suffix string) bool { return w.Plan.Release.Can(suffix) }},
		"patched": {Summary: "a patch of a component's series is laid over its code: [patched:neutron/fip-timing]", Suffix: "COMPONENT/NAME",
			check: func(suffix string) error {
				if component, name, both := strings.Cut(suffix, "/"); both && component != "" && name != "" {
					return nil
				}
				return &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("[patched:%s] is not understood", suffix), Expected: "a component and a patch of its series: [patched:neutron/fip-timing]"}
			},
			holds: func(w *World, suffix string) bool { return slices.Contains(w.Patched, suffix) }},
		"nodes": {Summary: "the region has so many nodes of a role: [nodes:compute>=2]", Suffix: "ROLE>=N",
			check: func(suffix string) error {
				m := nodesSuffix.FindStringSubmatch(suffix)
				if m == nil {
					return &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("[nodes:%s] is not understood", suffix), Expected: "a role, one of >= <= > < =, and a number: [nodes:compute>=2]"}
				}
				if roles := topologies.Roles(); !slices.Contains(roles, m[1]) {
					e := &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("no role %q", m[1]), Expected: strings.Join(roles, ", ")}
					return e.Suggest(m[1], roles)
				}
				return nil
			},
			holds: func(w *World, suffix string) bool {
				m := nodesSuffix.FindStringSubmatch(suffix)
				n, err := strconv.Atoi(m[3])
				if err != nil {
					return false
				}
				return compare(len(w.Plan.WithRole(m[1])), m[2], n)
			}},
	}
}

var nodesSuffix = regexp.MustCompile(`^([a-z]+)(>=|<=|>|<|=)(\d{1,4})$`)

// compare says whether a relation holds.
func compare[T int | float64](a T, relation string, b T) bool {
	switch relation {
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	case ">=":
		return a >= b
	}
	return a == b
}

func (c Condition) cond(w *World) script.Cond {
	if c.Suffix == "" {
		return script.BoolCondition(c.Summary, c.holds(w, ""))
	}
	return script.PrefixCondition(c.Summary, func(_ *script.State, suffix string) (bool, error) { return c.holds(w, suffix), nil })
}

// condition is a condition as a line has it: dvr, !nodes:compute>=2.
type condition string

func (c condition) cut() (negated bool, name, suffix string, hasSuffix bool) {
	text, negated := strings.CutPrefix(string(c), "!")
	name, suffix, hasSuffix = strings.Cut(text, ":")
	return negated, name, suffix, hasSuffix
}

// holds says whether it does in a world.
func (l *language) holds(c condition, w *World) bool {
	negated, name, suffix, _ := c.cut()
	return l.conditions[name].holds(w, suffix) != negated
}

// checkCondition says what is wrong with a condition.
func (l *language) checkCondition(c condition) error {
	_, name, suffix, hasSuffix := c.cut()
	known, ok := l.conditions[name]
	switch {
	case !ok:
		names := slices.Sorted(maps.Keys(l.conditions))
		e := &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("unknown condition [%s]", c), Expected: strings.Join(names, ", ")}
		return e.Suggest(name, names)
	case hasSuffix && known.Suffix == "":
		return fault.New(fault.Invalid, "[%s]: %s takes nothing behind a colon", c, name).WithRemedy("write [%s]", name)
	case !hasSuffix && known.Suffix != "":
		return fault.New(fault.Invalid, "[%s]: %s needs %s behind a colon", c, name, known.Suffix).WithRemedy("write [%s:%s]", name, known.Suffix)
	case known.check != nil:
		return known.check(suffix)
	}
	return nil
}

// roleVariable is a variable that names the nth node of a role: $compute1.
var roleVariable = regexp.MustCompile(`^(` + strings.Join(topologies.Roles(), "|") + `)([1-9])$`)

// Variables is the variables that every script has.
var Variables = map[string]string{
	"api":                "the address of the region's APIs, on the management network",
	"compute1, compute2": "the nodes with a role, in order; so control1, network1, storage1",
	"external_gateway":   "this machine's address on the external network",
	"id":                 "this run's id, part of the names that it gives outside its own project",
	"region":             "the region's name",
	"scenario":           "the scenario's name",
}

// variables is what a script may use without having set it.
func (w *World) variables(r *Run) map[string]string {
	v := map[string]string{"scenario": r.Name, "id": r.ID, "region": w.Plan.Region, "api": w.Plan.API.String()}
	if external, ok := w.Plan.Network("external"); ok {
		v["external_gateway"] = external.Gateway.String()
	}
	for _, role := range topologies.Roles() {
		for i, n := range w.Plan.WithRole(role) {
			v[role+strconv.Itoa(i+1)] = n.Name
		}
	}
	return v
}
