package patches

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Header is a patch's fields, as DEP-3 (https://dep-team.pages.debian.net/deps/dep3/) has them, in the order of the file.
type Header []Field

// Field is one of them. Value has continuation lines as lines of its own, without the blank they begin with.
type Field struct {
	Name  string
	Value string
}

// Get is a field's value, "" when it is not there.
func (h Header) Get(name string) string {
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// With is h with a field set: where it stands, else at the end. An empty value takes it away.
func (h Header) With(name, value string) Header {
	h = slices.Clone(h)
	i := slices.IndexFunc(h, func(f Field) bool { return strings.EqualFold(f.Name, name) })
	switch {
	case value == "" && i >= 0:
		return slices.Delete(h, i, i+1)
	case value == "":
		return h
	case i >= 0:
		h[i].Value = value
		return h
	}
	return append(h, Field{name, value})
}

// Summary is the description's first line: what the patch does.
func (h Header) Summary() string {
	first, _, _ := strings.Cut(h.Get("Description"), "\n")
	return first
}

// Why is the description's other lines.
func (h Header) Why() string {
	_, rest, _ := strings.Cut(h.Get("Description"), "\n")
	return rest
}

// String is the fields as they stand in a file, without the line --- that ends them.
func (h Header) String() string {
	var b strings.Builder
	for _, f := range h {
		for i, line := range strings.Split(f.Value, "\n") {
			switch {
			case i == 0 && line == "":
				fmt.Fprintf(&b, "%s:\n", f.Name)
			case i == 0:
				fmt.Fprintf(&b, "%s: %s\n", f.Name, line)
			case line == "":
				b.WriteString(" .\n")
			default:
				fmt.Fprintf(&b, " %s\n", line)
			}
		}
	}
	return b.String()
}

var (
	// known are the fields an entry may have; X-... and Bug-<vendor> beside them.
	known = []string{"Description", "Subject", "Author", "From", "Origin", "Bug", "Applied-Upstream", "Leaves-Out", "Last-Update",
		"Forwarded", "Reviewed-by", "Acked-by", "Depends"}
	fieldForm = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9-]*):[ \t]*(.*)$`)
	originRef = regexp.MustCompile(`^(upstream|backport),[ \t]*(.*)$`)
)

// ParseEntry reads an entry of a series: its header, the line ---, and a diff or what is ours to a commit.
func ParseEntry(file string, text []byte) (*Entry, error) {
	e := &Entry{File: file}
	if err := textual(file, text); err != nil {
		return nil, err
	}
	n, ended := 0, false
	rest := text
	lines := map[string]int{}
	for len(rest) > 0 && !ended {
		n++
		var raw []byte
		raw, rest = cutLine(rest)
		line := string(raw)
		if strings.HasSuffix(line, "\r") {
			return nil, dosEnds(file, n)
		}
		switch m := fieldForm.FindStringSubmatch(line); {
		case line == "---":
			ended = true
		case strings.TrimSpace(line) == "":
			continue
		case line[0] == ' ' || line[0] == '\t':
			if len(e.Header) == 0 {
				return nil, wrong(file, n, "a field: Description: what the patch does", "a continuation of nothing")
			}
			value := strings.TrimRight(line[1:], " \t")
			if value == "." {
				value = ""
			}
			e.Header[len(e.Header)-1].Value += "\n" + value
		case m == nil:
			return nil, wrong(file, n, "fields (Description: ...), a line ---, then the diff", "%q is no field of a header", clip(line))
		default:
			name := m[1]
			i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, name) })
			switch {
			case i >= 0:
				name = known[i]
			case strings.HasPrefix(strings.ToLower(name), "x-"), strings.HasPrefix(strings.ToLower(name), "bug-"):
			default:
				return nil, wrong(file, n, strings.Join(known, ", ")+", X-...", "no field is called %q", name).Suggest(name, known)
			}
			if lines[name] > 0 {
				return nil, wrong(file, n, "each field once", "%s stands in line %d already", name, lines[name])
			}
			lines[name] = n
			e.Header = append(e.Header, Field{name, strings.TrimRight(m[2], " \t")})
		}
	}
	if !ended {
		return nil, wrong(file, max(n, 1), "a line --- after the fields", "the header does not end")
	}
	if strings.TrimSpace(e.Header.Summary()) == "" {
		return nil, wrong(file, max(lines["Description"], 1), "Description: what, and on lines that begin with a blank: why", "it does not say what it does")
	}
	if date := e.Header.Get("Last-Update"); date != "" {
		if _, err := time.Parse(time.DateOnly, date); err != nil {
			return nil, wrong(file, lines["Last-Update"], "Last-Update: 2026-01-31", "%q is no date", date)
		}
	}
	origin := e.Header.Get("Origin")
	first, _, _ := strings.Cut(origin, "\n")
	if m := originRef.FindStringSubmatch(first); m != nil {
		e.Commit = strings.TrimSpace(m[2])
		if !commitForm.MatchString(e.Commit) {
			return nil, wrong(file, lines["Origin"], "Origin: "+m[1]+", and the commit's 40 hex digits", "%q is no commit", e.Commit)
		}
	} else if first == "upstream" || first == "backport" || first == "" {
		return nil, wrong(file, max(lines["Origin"], 1), "Origin: toastdev, for a patch of our own; Origin: upstream, COMMIT or Origin: backport, COMMIT for a change of upstream's",
			"it does not say where it comes from")
	}
	for _, path := range strings.Fields(e.Header.Get("Leaves-Out")) {
		if err := inside(path); err != nil {
			return nil, wrong(file, lines["Leaves-Out"], "a path in the component's tree: neutron/tests/unit/test_x.py", "%w", err)
		}
		e.LeavesOut = append(e.LeavesOut, path)
	}
	if len(e.LeavesOut) > 0 && !e.Reference() {
		return nil, wrong(file, lines["Leaves-Out"], "Leaves-Out beside Origin: backport, COMMIT alone", "a patch of our own leaves nothing out of itself")
	}
	return e, e.setDiff(rest, n+1)
}

// setDiff gives e its diff, which begins in a line of its file, and checks it. A commit may have none.
func (e *Entry) setDiff(diff []byte, line int) error {
	e.Line = line
	if e.Reference() && len(bytes.TrimSpace(diff)) == 0 {
		return nil
	}
	files, err := ParseDiff(e.File, diff, line)
	if err != nil {
		return err
	}
	e.Diff, e.files = diff, files
	return nil
}

// ReadFile reads a patch that stands in no series: an entry's file, or any unified diff, as a mail of git's or from quilt.
func ReadFile(file string) (*Entry, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the patch: %w", err)
	}
	name := strings.TrimSuffix(filepath.Base(file), Ext)
	e, err := ParseEntry(file, text)
	if err == nil {
		e.Name = name
		return e, nil
	}
	if f, ok := errors.AsType[*fault.Error](err); ok && isEntry(text) {
		return nil, f
	}
	if err := textual(file, text); err != nil {
		return nil, err
	}
	e = &Entry{Name: name, File: file, Header: Header{{"Description", name}}}
	return e, e.setDiff(text, 1)
}

// isEntry says that a file is meant to be an entry of a series: it has the two fields that each has.
func isEntry(text []byte) bool {
	head, _, _ := bytes.Cut(append([]byte("\n"), text...), []byte("\n---\n"))
	return bytes.Contains(head, []byte("\nDescription:")) && bytes.Contains(head, []byte("\nOrigin:"))
}

// Bytes is the entry as its file.
func (e *Entry) Bytes() []byte {
	return append([]byte(e.Header.String()+"---\n"), e.Diff...)
}

// textual refuses what is no text with Unix line ends where the format is concerned.
func textual(file string, text []byte) error {
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return wrong(file, 1+bytes.Count(text[:i], []byte("\n")), "a text: a unified diff", "this is binary")
	}
	return nil
}

// wrong is a fault in a line of a file.
func wrong(file string, line int, expected, format string, args ...any) *fault.Error {
	f := fault.New(fault.Invalid, format, args...)
	f.File, f.Line, f.Expected = file, line, expected
	return f
}

func dosEnds(file string, line int) error {
	return wrong(file, line, "lines that end with LF", "lines end with CR LF, as on Windows").WithRemedy("take the CRs out: sed -i 's/\\r$//' %s", file)
}

func cutLine(text []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(text, []byte("\n"))
	return line, rest
}

// clip is the beginning of a long line, for a message.
func clip(line string) string {
	if len(line) > 80 {
		return line[:77] + "..."
	}
	return line
}
