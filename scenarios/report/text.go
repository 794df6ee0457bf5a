package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/toast-cloud/toastdev/internal/table"
	"github.com/toast-cloud/toastdev/scenarios"
)

// Print writes the summary for a person at a terminal: a line for each scenario, and then what failed in detail.
func Print(w io.Writer, r scenarios.Report) {
	for _, one := range r.All() {
		if len(r.Beside) > 0 {
			fmt.Fprintf(w, "On %s:\n\n", plain(one.Topology))
		}
		if len(one.Scenarios) > 0 {
			t := table.New(w)
			t.AppendHeader(table.Row{"Scenario", "Verdict", "Seconds", "Reason"})
			t.SetColumnConfigs([]table.ColumnConfig{
				{Name: "Seconds", Align: text.AlignRight},
				{Name: "Reason", WidthMax: 80, WidthMaxEnforcer: text.WrapSoft},
			})
			for _, s := range one.Scenarios {
				seconds := fmt.Sprintf("%.1f", s.Seconds)
				if s.Verdict == scenarios.Skip {
					seconds = ""
				}
				t.AppendRow(table.Row{plain(s.Name), verdict(s), seconds, short(s.Reason)})
			}
			t.Render()
			fmt.Fprintln(w)
		}
	}
	for _, r := range r.All() {
		for _, s := range r.Scenarios {
			if s.Verdict == scenarios.Fail {
				fmt.Fprintln(w, failure(s))
			}
		}
	}
	if slices.ContainsFunc(r.All(), func(r scenarios.Report) bool { return len(r.Scenarios) > 0 }) {
		fmt.Fprintf(w, "%s in %s.\n", total(r), duration(r.Took()))
	}
	for _, r := range r.All() {
		if r.Problem != "" {
			fmt.Fprintf(w, "No scenario ran on %s: %s\n", plain(r.Topology), plain(r.Problem))
		}
	}
}

// verdict is a scenario's verdict in a word; of a flaky one with how many of its attempts passed.
func verdict(s scenarios.Result) string {
	n, of := s.Passed()
	switch {
	case s.Flaky():
		return fmt.Sprintf("flaky, %d of %d", n, of)
	case of > 1 && s.Verdict != scenarios.Skip:
		return fmt.Sprintf("%s, %d of %d", s.Verdict, n, of)
	}
	return string(s.Verdict)
}

// total is the counts of a report as a sentence's beginning: 9 passed, 1 failed, 2 skipped.
func total(r scenarios.Report) string {
	c := tally(r)
	parts := []string{fmt.Sprintf("%d passed", c.Passed), fmt.Sprintf("%d failed", c.Failed)}
	if c.Flaky > 0 {
		parts[1] += fmt.Sprintf(" (%d of them flaky)", c.Flaky)
	}
	if c.Skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", c.Skipped))
	}
	return strings.Join(parts, ", ")
}

// failure is what went wrong, on as many lines as it needs: where, the script's lines, what was expected and what was seen.
func failure(s scenarios.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s failed at %s\n", plain(s.Name), plain(where(s)))
	for _, line := range s.Source {
		mark := " "
		if line.Number == s.Line {
			mark = ">"
		}
		fmt.Fprintf(&b, "  %s %3d  %s\n", mark, line.Number, strings.ReplaceAll(clean(line.Text), "\n", " "))
	}
	if len(s.Source) == 0 && s.Command != "" {
		fmt.Fprintf(&b, "  > %s\n", plain(s.Command))
	}
	if s.Expected != "" || s.Seen != "" {
		fmt.Fprintf(&b, "  expected  %s\n  seen      %s\n", indented(s.Expected), indented(s.Seen))
	} else {
		fmt.Fprintf(&b, "  %s\n", indented(s.Reason))
	}
	for i, a := range s.Attempts {
		if a.Verdict == scenarios.Fail {
			fmt.Fprintf(&b, "  attempt %d  %s\n", i+1, plain(a.Reason))
		}
	}
	if s.Bundle != "" {
		fmt.Fprintf(&b, "  evidence  %s\n", plain(s.Bundle))
	}
	return b.String()
}

// indented is text whose second and later lines stand below the first.
func indented(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range lines {
		lines[i] = plain(lines[i])
	}
	return strings.Join(lines, "\n            ")
}

// plain is text on one line.
func plain(s string) string { return strings.ReplaceAll(strings.TrimSpace(clean(s)), "\n", " ") }

// short is the beginning of a text that may be long: all of it stands elsewhere.
func short(s string) string {
	const most = 200
	runes := []rune(plain(s))
	if len(runes) <= most {
		return string(runes)
	}
	return string(runes[:most]) + "…"
}

// clean is text that moves no terminal's cursor and that XML has all characters of: what a region or a script says may hold
// anything.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return -1
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == 0xFFFE || r == 0xFFFF:
			return unicode.ReplacementChar
		}
		return r
	}, text.StripEscape(strings.ToValidUTF8(s, string(unicode.ReplacementChar))))
}
