package report

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/jstemmer/go-junit-report/v2/junit"

	"github.com/toast-cloud/toastdev/scenarios"
)

// junitXML is the report as CI systems read it: a suite for each topology, a case for each scenario. That a region did not
// come up is an error of a case called "up", so that no system takes an empty report for a good one.
func junitXML(r scenarios.Report) ([]byte, error) {
	suites := junit.Testsuites{Name: "toastdev", Time: seconds(r.Took())}
	for i, r := range r.All() {
		suite := junit.Testsuite{Name: clean(r.Topology), ID: i, Time: seconds(r.Seconds)}
		suite.SetTimestamp(r.Started)
		for _, property := range [][2]string{{"environment", r.Environment}, {"release", r.Release}, {"routing", r.Routing}} {
			suite.AddProperty(property[0], clean(property[1]))
		}
		class := "toastdev." + clean(r.Topology)
		if r.Problem != "" {
			suite.AddTestcase(junit.Testcase{Name: "up", Classname: class, Time: seconds(0),
				Error: &junit.Result{Message: plain(r.Problem), Type: "region", Data: clean(r.Problem)}})
		}
		for _, s := range r.Scenarios {
			test := junit.Testcase{Name: clean(s.Name), Classname: class, Time: seconds(s.Seconds)}
			switch s.Verdict {
			case scenarios.Pass:
			case scenarios.Skip:
				test.Skipped = &junit.Result{Message: plain(s.Reason)}
			default:
				test.Failure = &junit.Result{Message: plain(s.Reason), Type: "expectation", Data: failure(s)}
			}
			if out := output(s); out != "" {
				test.SystemOut = &junit.Output{Data: out}
			}
			suite.AddTestcase(test)
		}
		suites.AddSuite(suite)
	}
	var b bytes.Buffer
	b.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")
	if err := suites.WriteXML(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// output is the times that a scenario measured, and what it printed.
func output(s scenarios.Result) string {
	var b strings.Builder
	for _, e := range s.Elapsed {
		fmt.Fprintf(&b, "%s to %s: %s\n", clean(e.From), clean(e.To), duration(e.Seconds))
	}
	b.WriteString(clean(s.Log))
	return b.String()
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", s) }
