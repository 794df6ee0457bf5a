package overlay

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

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
	condition   = regexp.MustCompile(`^(===|==|!=|>=|<=|~=|>|<)\s*([0-9][^\s]*)$`)
	separators  = regexp.MustCompile(`[-_.]+`)
)

// missing is the requirements that what is installed does not meet. One that is for another system or interpreter only
// (a marker) is passed over.
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
		for c := range strings.SplitSeq(conditions, ",") {
			if m := condition.FindStringSubmatch(strings.TrimSpace(c)); m != nil && !meets(version, m[1], m[2]) {
				lacking = append(lacking, fmt.Sprintf("%s%s (installed: %s)", name, conditions, version))
				break
			}
		}
	}
	return lacking
}

// meets compares the numbers of versions; what follows them (rc1, +git) does not count.
func meets(version, operator, other string) bool {
	if prefix, ok := strings.CutSuffix(other, ".*"); ok {
		same := version == prefix || strings.HasPrefix(version, prefix+".")
		return same == (operator != "!=")
	}
	order := slices.Compare(numbers(version), numbers(other))
	switch operator {
	case ">=", "~=":
		return order >= 0
	case ">":
		return order > 0
	case "<=":
		return order <= 0
	case "<":
		return order < 0
	case "!=":
		return order != 0
	}
	return order == 0
}

func numbers(version string) []int {
	var all []int
	for part := range strings.SplitSeq(version, ".") {
		digits := part[:len(part)-len(strings.TrimLeft(part, "0123456789"))]
		n, err := strconv.Atoi(digits)
		if err != nil {
			break
		}
		all = append(all, n)
		if digits != part {
			break
		}
	}
	for len(all) > 0 && all[len(all)-1] == 0 { // 1.0 is 1
		all = all[:len(all)-1]
	}
	return all
}
