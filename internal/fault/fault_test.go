package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestAnErrorSaysWhereWhatAndWhatToDo(t *testing.T) {
	for _, c := range []struct {
		err  *Error
		want string
	}{
		{New(Failed, "it broke"), "it broke"},
		{&Error{Message: "no such key", File: "a.yaml", Line: 3, Column: 5, Path: "nodes.ctl.rolse", Expected: "one of roles, count", Remedy: `write "roles"`},
			"a.yaml:3:5: nodes.ctl.rolse: no such key\n  expected: one of roles, count\n  remedy: write \"roles\""},
		{&Error{Message: "it is a folder", File: "a"}, "a: it is a folder"},
		{&Error{Message: "no column", File: "a.yaml", Line: 3}, "a.yaml:3:1: no column"},
		{&Error{Message: "exit code 1", Node: "ctl", Unit: "nova-api.service", Log: []string{"one", "two"}},
			"ctl: nova-api.service: exit code 1\n  | one\n  | two"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestACodeIsFoundInAChain(t *testing.T) {
	inner := New(Missing, "read: %w", fs.ErrNotExist)
	outer := fmt.Errorf("build the image: %w", inner)
	if got := CodeOf(outer); got != Missing {
		t.Errorf("code %s", got)
	}
	if !errors.Is(outer, fs.ErrNotExist) {
		t.Error("the cause is lost")
	}
	if got := CodeOf(fs.ErrNotExist); got != Failed {
		t.Errorf("code %s", got)
	}
}

func TestTheNearestName(t *testing.T) {
	names := []string{"roles", "count", "cpus", "memory", "disk", "provisioner"}
	for word, want := range map[string]string{
		"rolse": "roles", "cuont": "count", "role": "roles", "mem": "memory", "provisoner": "provisioner", "cpu": "cpus",
		"x": "", "": "", "flavor": "", "network": "",
	} {
		if got := Nearest(word, names); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	if got := Nearest("cpm", []string{"ctl", "cmp"}); got != "cmp" {
		t.Errorf("swapped letters: %q", got)
	}
	if e := New(Invalid, "x").Suggest("rolse", names); e.Remedy != `write "roles"` {
		t.Errorf("remedy %q", e.Remedy)
	}
	if e := New(Invalid, "x").Suggest("zzz", names); e.Remedy != "" {
		t.Errorf("remedy %q", e.Remedy)
	}
}
