package scenarios

import (
	"slices"
	"time"

	"github.com/toast-cloud/toastdev/internal/evidence"
)

// Verdict is what came of a scenario.
type Verdict string

const (
	Pass Verdict = "pass"
	Fail Verdict = "fail"
	Skip Verdict = "skip" // it does not fit the region; Reason says why
)

// Report is what came of the scenarios that ran on one environment.
type Report struct {
	Environment string          `json:"environment"`
	Topology    string          `json:"topology"`
	Release     string          `json:"release"`
	Routing     string          `json:"routing"` // dvr, legacy
	Started     time.Time       `json:"started"`
	Seconds     float64         `json:"seconds"`
	Problem     string          `json:"problem,omitempty"` // why no scenario could run: the region did not come up
	Phases      []Phase         `json:"phases,omitempty"`  // of a nightly: up's, scenarios, down
	Scenarios   []Result        `json:"scenarios"`
	Artefacts   []string        `json:"artefacts,omitempty"` // files of the whole run: the nodes' logs; in report.json relative to its folder
	Region      evidence.Region `json:"region"`
	Beside      []Report        `json:"beside,omitempty"` // the same night on other topologies
	Dir         string          `json:"-"`                // the folder that it was read from or written to
}

// Phase is how long a part of a nightly took.
type Phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Result is what came of one scenario.
type Result struct {
	Name     string       `json:"name"`
	Summary  string       `json:"summary"`
	Verdict  Verdict      `json:"verdict"`
	Reason   string       `json:"reason,omitempty"` // of a failure or a skip, on one line
	Started  time.Time    `json:"started"`
	Seconds  float64      `json:"seconds"`
	Topology string       `json:"topology"`
	Routing  string       `json:"routing"`            // dvr, legacy
	Bundle   string       `json:"bundle,omitempty"`   // the folder of its evidence; in report.json relative to its folder
	File     string       `json:"file"`               // the script: a built-in's name or a file's path
	Line     int          `json:"line,omitempty"`     // of a failure, from 1
	Command  string       `json:"command,omitempty"`  // that line as it was run
	Expected string       `json:"expected,omitempty"` // of an expectation that was not met
	Seen     string       `json:"seen,omitempty"`
	Source   []ScriptLine `json:"source,omitempty"` // that line with its neighbours
	Marks    []Mark       `json:"marks,omitempty"`
	Elapsed  []Elapsed    `json:"elapsed,omitempty"`
	Paths    []Path       `json:"paths,omitempty"`
	Log      string       `json:"log,omitempty"`      // what the script printed
	Attempts []Attempt    `json:"attempts,omitempty"` // of --repeat: each of them
}

// ScriptLine is a line of a script.
type ScriptLine struct {
	Number int    `json:"number"` // from 1
	Text   string `json:"text"`
}

// Mark is a moment that a script named.
type Mark struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"` // since the scenario began
}

// Elapsed is the time between two marks that a script asked for.
type Elapsed struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Seconds float64 `json:"seconds"`
	Limit   float64 `json:"limit,omitempty"` // seconds; 0: the script set none
}

// Path is a path that a script computed from a capture.
type Path struct {
	Line    int    `json:"line"`    // of the script, from 1
	Capture string `json:"capture"` // the capture's name
	*evidence.Path
}

// Attempt is one of the runs of a repeated scenario.
type Attempt struct {
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason,omitempty"`
	Seconds float64 `json:"seconds"`
}

// All is the report and those beside it, in order.
func (r Report) All() []Report { return append([]Report{r}, r.Beside...) }

// Failed says whether an expectation was not met, in the report or one beside it.
func (r Report) Failed() bool {
	return slices.ContainsFunc(r.All(), func(r Report) bool {
		return slices.ContainsFunc(r.Scenarios, func(s Result) bool { return s.Verdict == Fail })
	})
}

// Took is how long all of its reports took, in seconds.
func (r Report) Took() float64 {
	took := 0.0
	for _, one := range r.All() {
		took += one.Seconds
	}
	return took
}

// Passed is how many of the scenario's attempts passed, and how many there were.
func (r Result) Passed() (n, of int) {
	if len(r.Attempts) == 0 {
		r.Attempts = []Attempt{{Verdict: r.Verdict}}
	}
	for _, a := range r.Attempts {
		if a.Verdict == Pass {
			n++
		}
	}
	return n, len(r.Attempts)
}

// Flaky says whether the scenario's attempts came to different verdicts.
func (r Result) Flaky() bool {
	n, of := r.Passed()
	return n > 0 && n < of
}
