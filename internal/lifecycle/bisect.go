package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/internal/source"
	"github.com/toast-cloud/toastdev/scenarios"
)

// BisectRequest is what is searched for which change makes a scenario fail.
type BisectRequest struct {
	Environment string
	Scenario    string
	Component   string // of patches: its series alone; "": those of all components
	Tree        string // component=PATH: not patches, but commits of this repository
	Good, Bad   string // of patches, how many of them are laid: 0, 16; of a tree, commits. "": none or all; of a tree Bad is HEAD
	Fixes       bool   // which change mends it: it fails with Good and passes with Bad
	Upstreams   []string

	patched []string // a scenario that needs a patch is run without it too
}

// Bisected is what was found.
type Bisected struct {
	Environment string      `json:"environment"`
	Scenario    string      `json:"scenario"`
	Fixes       bool        `json:"fixes"`
	Changes     []string    `json:"changes"` // in order
	Culprit     string      `json:"culprit"` // the change of these
	Summary     string      `json:"summary"` // what it does
	Runs        []BisectRun `json:"runs"`
	Seconds     float64     `json:"seconds"`
}

// BisectRun is a run of the scenario.
type BisectRun struct {
	Changes int               `json:"changes"` // how many of them were laid
	Last    string            `json:"last"`    // the last of these
	Verdict scenarios.Verdict `json:"verdict"`
	Reason  string            `json:"reason"`
	Seconds float64           `json:"seconds"` // of laying and of the scenario
}

// change is one step of what is bisected.
type change struct {
	name, summary string
	overlays      []record.Overlay // what is laid with it, and all before it
}

// Bisect finds the first change that makes a scenario fail, or with Fixes pass: it tries the two ends, halves what lies between,
// and lays again what was laid before.
func (t *Toastdev) Bisect(ctx context.Context, request BisectRequest) (*Bisected, error) {
	scripts, err := scenarios.Load([]string{request.Scenario})
	if err != nil {
		return nil, err
	}
	if len(scripts) != 1 {
		return nil, fault.New(fault.Invalid, "%q means %d scenarios", request.Scenario, len(scripts)).WithRemedy("name one")
	}
	r, err := t.isUp(request.Environment)
	if err != nil {
		return nil, err
	}
	request.Environment = r.Name
	o, err := t.openOverlays(r, OverlayRequest{Upstreams: request.Upstreams})
	if err != nil {
		return nil, err
	}
	for _, s := range o.shop.series {
		for _, e := range s.Entries {
			request.patched = append(request.patched, e.FullName())
		}
	}
	var changes []change
	if request.Tree != "" {
		changes, err = o.commits(ctx, request)
	} else {
		changes, err = o.patchesBetween(request)
	}
	if err != nil {
		return nil, err
	}
	found := &Bisected{Environment: r.Name, Scenario: scripts[0].Name, Fixes: request.Fixes, Changes: []string{}, Runs: []BisectRun{}}
	for _, c := range changes[1:] {
		found.Changes = append(found.Changes, c.name)
	}
	began := time.Now()
	before := slices.Clone(r.Overlays)
	culprit, err := halve(len(changes)-1, func(n int) (bool, error) {
		run, err := t.try(ctx, request, changes[n])
		run.Changes = n
		found.Runs = append(found.Runs, run)
		if err != nil {
			return false, err
		}
		progress.Emit(ctx, progress.Event{Phase: "bisect", Done: true, Message: fmt.Sprintf("run %d: %s with %d of %d (%s): %s", len(found.Runs), run.Verdict, n, len(changes)-1, changes[n].name, run.Reason)})
		return (run.Verdict == scenarios.Fail) != request.Fixes, nil
	})
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), overlayHealth)
	defer cancel()
	_, again := t.overlay(back, OverlayRequest{Environment: r.Name, Upstreams: request.Upstreams}, func(*overlaying) ([]record.Overlay, error) { return before, nil })
	found.Seconds = time.Since(began).Seconds()
	if again != nil {
		again = fmt.Errorf("lay again what was laid before: %w", again)
	}
	if err == nil {
		err = again
	} else if again != nil {
		err = fmt.Errorf("%w\n%w", err, again)
	}
	if err != nil {
		return nil, err
	}
	found.Culprit, found.Summary = changes[culprit].name, changes[culprit].summary
	return found, nil
}

// halve is the first of the numbers 1 to n that is bad, by asking of 0, which must be good, of n, which must be bad, and then of
// the middle of what is left.
func halve(n int, bad func(int) (bool, error)) (int, error) {
	for _, end := range []struct {
		at   int
		want bool
		says string
	}{{0, false, "without any of the changes the scenario does already what is searched for"}, {n, true, "with all of the changes the scenario does not what is searched for"}} {
		is, err := bad(end.at)
		if err != nil {
			return 0, err
		}
		if is != end.want {
			return 0, fault.New(fault.Failed, "%s", end.says).WithRemedy("give other ends by --good and --bad; --fixes searches for the change that mends it")
		}
	}
	good, first := 0, n
	for first-good > 1 {
		middle := (good + first) / 2
		is, err := bad(middle)
		if err != nil {
			return 0, err
		}
		if is {
			first = middle
		} else {
			good = middle
		}
	}
	return first, nil
}

// try lays a change with all before it and runs the scenario. One that cannot be run proves nothing: that is an error.
func (t *Toastdev) try(ctx context.Context, request BisectRequest, c change) (BisectRun, error) {
	run := BisectRun{Last: c.name}
	began := time.Now()
	defer func() { run.Seconds = time.Since(began).Seconds() }()
	if _, err := t.overlay(ctx, OverlayRequest{Environment: request.Environment, Upstreams: request.Upstreams},
		func(*overlaying) ([]record.Overlay, error) { return c.overlays, nil }); err != nil {
		return run, fmt.Errorf("with %s: %w", c.name, err)
	}
	report, err := t.Scenarios(ctx, ScenarioRequest{Environment: request.Environment, Names: []string{request.Scenario}, Parallel: 1, patched: request.patched})
	if err != nil {
		return run, err
	}
	for _, s := range report.Scenarios {
		run.Verdict, run.Reason = s.Verdict, s.Reason
	}
	if run.Verdict == scenarios.Skip {
		return run, fault.New(fault.Invalid, "%s does not fit this environment: %s", request.Scenario, run.Reason)
	}
	run.Seconds = time.Since(began).Seconds()
	return run, nil
}

// patchesBetween is the series as changes, from Good to Bad of their numbers. What else is laid stays beneath all of them.
func (o *overlaying) patchesBetween(request BisectRequest) ([]change, error) {
	if request.Component != "" {
		if err := o.known(request.Component); err != nil {
			return nil, err
		}
	}
	beneath := slices.DeleteFunc(slices.Clone(o.record.Overlays), func(l record.Overlay) bool {
		return l.Patch != "" && (request.Component == "" || l.Component == request.Component)
	})
	all := []change{{name: "none", overlays: beneath}}
	for _, s := range o.shop.series {
		if request.Component != "" && s.Component != request.Component {
			continue
		}
		for _, e := range s.Entries {
			with := append(slices.Clone(all[len(all)-1].overlays), record.Overlay{Component: e.Component, Patch: e.Name})
			all = append(all, change{e.FullName(), e.Header.Summary(), with})
		}
	}
	good, err := number("--good", request.Good, 0, len(all)-1)
	if err != nil {
		return nil, err
	}
	bad, err := number("--bad", request.Bad, len(all)-1, len(all)-1)
	if err != nil {
		return nil, err
	}
	if good >= bad {
		return nil, fault.New(fault.Invalid, "there is nothing between %d and %d patches", good, bad).WithRemedy("`toastdev patch list` shows the series")
	}
	return all[good : bad+1], nil
}

// number reads how many patches are meant.
func number(flag, text string, otherwise, most int) (int, error) {
	if text == "" {
		return otherwise, nil
	}
	n := -1
	if _, err := fmt.Sscanf(text, "%d", &n); err != nil || n < 0 || n > most || fmt.Sprint(n) != text {
		return 0, &fault.Error{Code: fault.Invalid, Path: flag, Message: fmt.Sprintf("%q is no number of patches", text), Expected: fmt.Sprintf("0 to %d", most)}
	}
	return n, nil
}

// commits is the commits of a tree's repository from Good to Bad as changes, along the first parents.
func (o *overlaying) commits(ctx context.Context, request BisectRequest) ([]change, error) {
	given, err := components("--tree", []string{request.Tree}, false)
	if err != nil {
		return nil, err
	}
	component, _, _ := strings.Cut(request.Tree, "=")
	if err := o.known(component); err != nil {
		return nil, err
	}
	if request.Good == "" {
		return nil, fault.New(fault.Invalid, "it is not said which commit is good").WithRemedy("say --good COMMIT")
	}
	path := given[component]
	if request.Bad == "" {
		request.Bad = "HEAD"
	}
	commits, err := source.Repository(path).Between(ctx, request.Good, request.Bad)
	if err != nil {
		return nil, err
	}
	beneath := slices.DeleteFunc(slices.Clone(o.record.Overlays), func(l record.Overlay) bool { return l.Source != "" && l.Component == component })
	var all []change
	for _, c := range commits {
		l := record.Overlay{Component: component, Source: path, Ref: c.ID}
		all = append(all, change{c.ID[:10], c.Subject, append(slices.Clone(beneath), l)})
	}
	return all, nil
}
