package overlay

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	pep440 "github.com/aquasecurity/go-pep440-version"

	"github.com/toast-cloud/toastdev/internal/source"
)

// dataFiles is the files that the package is installed with beside its code.
func dataFiles(setup source.Settings) []string {
	var files []string
	for line := range strings.Lines(setup["files"]["data_files"]) {
		_, sources, found := strings.Cut(line, "=")
		if !found {
			sources = line
		}
		files = append(files, strings.Fields(sources)...)
	}
	return files
}

// pointsOf is the entry points of a setup.cfg: targets by group and name.
func pointsOf(setup source.Settings) (source.Settings, error) {
	var b bytes.Buffer
	for group, points := range setup["entry_points"] {
		fmt.Fprintf(&b, "[%s]\n%s\n", group, points)
	}
	return source.ParseEntryPoints(b.Bytes())
}

// textOf is entry points as an entry_points.txt.
func textOf(points source.Settings) []byte {
	var b bytes.Buffer
	for i, group := range slices.Sorted(maps.Keys(points)) {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "[%s]\n", group)
		for _, name := range slices.Sorted(maps.Keys(points[group])) {
			fmt.Fprintf(&b, "%s = %s\n", name, points[group][name])
		}
	}
	return b.Bytes()
}

// differences is what b has otherwise than a. What only install scripts read is no difference.
func differences(a, b source.Settings) []string {
	var lines []string
	for _, one := range []struct {
		sign     string
		in, from source.Settings
	}{{"-", a, b}, {"+", b, a}} {
		for group, names := range one.in {
			if group == "setuptools.installation" {
				continue
			}
			for name, target := range names {
				if one.from[group][name] != target {
					lines = append(lines, fmt.Sprintf("%s %s: %s = %s", one.sign, group, name, target))
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}

var (
	requirement = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*([^;#]*)(?:;([^#]*))?`)
	separators  = regexp.MustCompile(`[-_.]+`)
)

// missing is the requirements that what is installed does not meet. One that is for another system or interpreter only
// (a marker) is passed over, as are versions that are none of Python's.
func missing(requirements []byte, installed map[string]string) []string {
	var lacking []string
	for line := range strings.Lines(string(requirements)) {
		m := requirement.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || strings.TrimSpace(m[3]) != "" {
			continue
		}
		name, conditions := m[1], strings.TrimSpace(m[2])
		version, there := installed[strings.ToLower(separators.ReplaceAllString(name, "-"))]
		if !there {
			lacking = append(lacking, fmt.Sprintf("%s%s (not installed)", name, conditions))
			continue
		}
		has, err := pep440.Parse(version)
		if err != nil {
			continue
		}
		if wanted, err := pep440.NewSpecifiers(conditions); err == nil && !wanted.Check(has) {
			lacking = append(lacking, fmt.Sprintf("%s%s (installed: %s)", name, conditions, version))
		}
	}
	return lacking
}
