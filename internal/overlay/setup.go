package overlay

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// settings is a setup.cfg: values by section and key; a value of several lines has them behind newlines.
type settings map[string]map[string]string

func parseSettings(text []byte) settings {
	s := settings{}
	section, key := "", ""
	for line := range strings.Lines(string(text)) {
		bare := strings.TrimSpace(line)
		switch {
		case bare == "" || bare[0] == '#' || bare[0] == ';':
		case line[0] == ' ' || line[0] == '\t':
			if key != "" {
				s[section][key] += "\n" + bare
			}
		case bare[0] == '[':
			section, key = strings.Trim(bare, "[]"), ""
			if s[section] == nil {
				s[section] = map[string]string{}
			}
		default:
			name, value, _ := strings.Cut(bare, "=")
			key = strings.TrimSpace(name)
			if s[section] == nil {
				s[section] = map[string]string{}
			}
			s[section][key] = strings.TrimSpace(value)
		}
	}
	return s
}

// dataFiles is the files that the package is installed with beside its code.
func (s settings) dataFiles() []string {
	var files []string
	for line := range strings.Lines(s["files"]["data_files"]) {
		_, sources, found := strings.Cut(line, "=")
		if !found {
			sources = line
		}
		files = append(files, strings.Fields(sources)...)
	}
	return files
}

// points are entry points: targets by group and name.
type points map[string]map[string]string

func (s settings) entryPoints() points {
	p := points{}
	for group, text := range s["entry_points"] {
		p.add(group, text)
	}
	return p
}

func parseEntryPoints(text []byte) points {
	p := points{}
	group := ""
	for line := range strings.Lines(string(text)) {
		if bare := strings.TrimSpace(line); strings.HasPrefix(bare, "[") {
			group = strings.Trim(bare, "[]")
		} else {
			p.add(group, bare)
		}
	}
	return p
}

func (p points) add(group, text string) {
	for line := range strings.Lines(text) {
		name, target, found := strings.Cut(line, "=")
		if !found {
			continue
		}
		if p[group] == nil {
			p[group] = map[string]string{}
		}
		p[group][strings.TrimSpace(name)] = strings.TrimSpace(target)
	}
}

// text is an entry_points.txt.
func (p points) text() []byte {
	var b bytes.Buffer
	for i, group := range slices.Sorted(maps.Keys(p)) {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "[%s]\n", group)
		for _, name := range slices.Sorted(maps.Keys(p[group])) {
			fmt.Fprintf(&b, "%s = %s\n", name, p[group][name])
		}
	}
	return b.Bytes()
}

// differences is what b has otherwise than a. What only install scripts read is no difference.
func differences(a, b points) []string {
	var lines []string
	for _, one := range []struct {
		sign     string
		in, from points
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
