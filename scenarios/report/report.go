// Package report is what a run of scenarios leaves for people and machines: text on a terminal, report.json, JUnit's XML, and
// one HTML file with the drawings of what the captures show.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/scenarios"
)

// The files of a report's folder.
const (
	JSONFile  = "report.json"
	JUnitFile = "junit.xml"
	HTMLFile  = "index.html"
)

// Write writes report.json, junit.xml and index.html to a folder, which it makes. In them bundles and artefacts are named by
// paths from that folder, so that it can be moved as a whole. A comparison is shown in index.html; it may be nil.
func Write(dir string, r scenarios.Report, compared *Comparison) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r, err := from(dir, r)
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		make func() ([]byte, error)
	}{
		{JSONFile, func() ([]byte, error) { return json.MarshalIndent(r, "", "  ") }},
		{JUnitFile, func() ([]byte, error) { return junitXML(r) }},
		{HTMLFile, func() ([]byte, error) { return page(dir, r, compared) }},
	} {
		content, err := file.make()
		if err != nil {
			return fmt.Errorf("%s: %w", file.name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, file.name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Read is the report that was written to a folder.
func Read(dir string) (scenarios.Report, error) {
	var r scenarios.Report
	file := filepath.Join(dir, JSONFile)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fault.New(fault.NotFound, "no report in %s: there is no %s", dir, JSONFile).WithRemedy("name the folder that an earlier --report was written to")
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, &fault.Error{Code: fault.Invalid, File: file, Message: fmt.Sprintf("is no report: %v", err), Err: err}
	}
	r.Dir = dir
	return r, nil
}

// from is r with every path of it as seen from dir. Nothing of the given report is changed.
func from(dir string, r scenarios.Report) (scenarios.Report, error) {
	relative := func(path string) (string, error) {
		if path == "" {
			return "", nil
		}
		base, err := filepath.Abs(dir)
		if err != nil {
			return "", err
		}
		if path, err = filepath.Abs(path); err != nil {
			return "", err
		}
		path, err = filepath.Rel(base, path)
		return filepath.ToSlash(path), err
	}
	r.Scenarios, r.Artefacts, r.Beside, r.Dir = slices.Clone(r.Scenarios), slices.Clone(r.Artefacts), slices.Clone(r.Beside), dir
	if r.Scenarios == nil {
		r.Scenarios = []scenarios.Result{} // in JSON: none, not null
	}
	var err error
	for i := range r.Scenarios {
		if r.Scenarios[i].Bundle, err = relative(r.Scenarios[i].Bundle); err != nil {
			return r, err
		}
	}
	for i := range r.Artefacts {
		if r.Artefacts[i], err = relative(r.Artefacts[i]); err != nil {
			return r, err
		}
	}
	for i := range r.Beside {
		if r.Beside[i], err = from(dir, r.Beside[i]); err != nil {
			return r, err
		}
	}
	return r, nil
}

// count is how many scenarios came to each end; a flaky one is a failure too.
type count struct{ Passed, Failed, Skipped, Flaky int }

func tally(r scenarios.Report) (c count) {
	for _, r := range r.All() {
		for _, s := range r.Scenarios {
			switch s.Verdict {
			case scenarios.Pass:
				c.Passed++
			case scenarios.Skip:
				c.Skipped++
			default:
				c.Failed++
			}
			if s.Flaky() {
				c.Flaky++
			}
		}
	}
	return c
}

// duration is seconds as people read them: 4.2 s, 3 min 7 s, 1 h 10 min.
func duration(seconds float64) string {
	switch {
	case seconds < 99.95:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", seconds), ".0") + " s"
	case seconds < 3600:
		whole := int(seconds + 0.5)
		return fmt.Sprintf("%d min %d s", whole/60, whole%60)
	}
	minutes := int(seconds/60 + 0.5)
	return fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
}

// where is a script's line as editors jump to it.
func where(s scenarios.Result) string {
	if s.Line == 0 {
		return s.File
	}
	return fmt.Sprintf("%s:%d", s.File, s.Line)
}
