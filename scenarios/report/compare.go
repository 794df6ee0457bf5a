package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/table"
	"github.com/toast-cloud/toastdev/scenarios"
)

// A scenario got slower when it takes at least both of these longer.
const (
	slowerBy      = 0.20
	slowerAtLeast = 5.0 // seconds
)

// Comparison is what is not as it was in an earlier report.
type Comparison struct {
	Since   time.Time `json:"since"`   // when the earlier one began
	Fails   []Change  `json:"fails"`   // newly: it did not fail before, or was not there
	Passes  []Change  `json:"passes"`  // newly
	Slower  []Change  `json:"slower"`  // by more than a fifth and 5 s, passed then and now
	Missing []Change  `json:"missing"` // it ran, and was skipped or not there now
	before  map[key]scenarios.Result
	old     scenarios.Report
}

// Change is a scenario that is not as it was.
type Change struct {
	Topology string            `json:"topology"`
	Name     string            `json:"name"`
	What     string            `json:"what,omitempty"`   // of Slower: the marks that it lies between; empty: the whole scenario
	Before   scenarios.Verdict `json:"before,omitempty"` // empty: it was not there
	After    scenarios.Verdict `json:"after,omitempty"`
	From     float64           `json:"from,omitempty"` // seconds
	To       float64           `json:"to,omitempty"`
	Reason   string            `json:"reason,omitempty"`
}

// key is a scenario on a topology.
type key struct{ topology, name string }

func results(r scenarios.Report) (keys []key, found map[key]scenarios.Result) {
	found = map[key]scenarios.Result{}
	for _, r := range r.All() {
		for _, s := range r.Scenarios {
			k := key{r.Topology, s.Name}
			keys, found[k] = append(keys, k), s
		}
	}
	return keys, found
}

// Compare says what is not as it was. A scenario is the same when its name and its topology are.
func Compare(old, now scenarios.Report) Comparison {
	c := Comparison{Since: old.Started, Fails: []Change{}, Passes: []Change{}, Slower: []Change{}, Missing: []Change{}, old: old}
	keys, after := results(now)
	was, before := results(old)
	c.before = before
	for _, k := range keys {
		a, b := after[k], before[k]
		change := Change{Topology: k.topology, Name: k.name, Before: b.Verdict, After: a.Verdict, From: b.Seconds, To: a.Seconds, Reason: a.Reason}
		switch {
		case a.Verdict == scenarios.Fail && b.Verdict != scenarios.Fail:
			c.Fails = append(c.Fails, change)
		case a.Verdict == scenarios.Pass && b.Verdict == scenarios.Fail:
			c.Passes = append(c.Passes, change)
		case a.Verdict == scenarios.Skip && b.Verdict != "" && b.Verdict != scenarios.Skip:
			c.Missing = append(c.Missing, change)
		case a.Verdict == scenarios.Pass && b.Verdict == scenarios.Pass:
			if slower(b.Seconds, a.Seconds) {
				c.Slower = append(c.Slower, change)
			}
			for _, e := range a.Elapsed {
				i := slices.IndexFunc(b.Elapsed, func(o scenarios.Elapsed) bool { return o.From == e.From && o.To == e.To })
				if i >= 0 && slower(b.Elapsed[i].Seconds, e.Seconds) {
					part := change
					part.What, part.From, part.To = e.From+" to "+e.To, b.Elapsed[i].Seconds, e.Seconds
					c.Slower = append(c.Slower, part)
				}
			}
		}
	}
	for _, k := range was {
		if _, there := after[k]; !there && before[k].Verdict != scenarios.Skip {
			c.Missing = append(c.Missing, Change{Topology: k.topology, Name: k.name, Before: before[k].Verdict, From: before[k].Seconds, Reason: "not in this report"})
		}
	}
	return c
}

func slower(before, after float64) bool {
	return after-before > slowerAtLeast && after-before > slowerBy*before
}

// Same says whether nothing changed that the comparison looks at.
func (c *Comparison) Same() bool {
	return len(c.Fails)+len(c.Passes)+len(c.Slower)+len(c.Missing) == 0
}

// changes is the comparison's parts, each under its heading.
func (c *Comparison) changes() []changed {
	return slices.DeleteFunc([]changed{
		{"fail", "newly fails", c.Fails}, {"pass", "newly passes", c.Passes}, {"slow", "slower", c.Slower}, {"skip", "does not run any more", c.Missing},
	}, func(c changed) bool { return len(c.Changes) == 0 })
}

type changed struct {
	Kind, Title string
	Changes     []Change
}

// Told is the change in a few words.
func (c Change) Told() string {
	var words []string
	if c.What != "" {
		words = append(words, c.What+":")
	}
	if c.After == scenarios.Pass && c.Before == scenarios.Pass {
		words = append(words, fmt.Sprintf("%s, was %s (%+.0f %%)", duration(c.To), duration(c.From), 100*(c.To-c.From)/c.From))
	} else if c.Before == "" {
		words = append(words, "was not there before;", c.Reason)
	} else {
		words = append(words, c.Reason)
	}
	return strings.Join(words, " ")
}

// Print writes the comparison for a person.
func (c *Comparison) Print(w io.Writer) {
	since := c.Since.Local().Format("2006-01-02 15:04")
	if c.Same() {
		fmt.Fprintf(w, "\nNothing changed since %s.\n", since)
		return
	}
	fmt.Fprintf(w, "\nSince %s:\n", since)
	t := table.New(w)
	for _, part := range c.changes() {
		for _, change := range part.Changes {
			t.AppendRow(table.Row{part.Title, plain(change.Name), plain(change.Topology), plain(change.Told())})
		}
	}
	t.Render()
}
