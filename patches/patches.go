// Package patches is the series of patches that a component gets on a release: their format, and by git itself whether
// each still applies. A folder <release>/<component> has a quilt series and its entries; docs/patches.md explains them.
package patches

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
)

//go:embed kilo zed
var embedded embed.FS

// Builtin is the series built in: kilo/neutron/series.
func Builtin() fs.FS { return embedded }

const (
	// SeriesFile is the name of the file that orders a folder's entries.
	SeriesFile = "series"
	// Ext ends an entry's file name.
	Ext = ".patch"
)

// Entry is one patch of a series: a diff of our own, or a change of upstream's and what is ours to it.
type Entry struct {
	Release   string
	Component string
	Name      string // the file's without .patch; for what stands in no series, its path or commit
	File      string // where it was read from, for messages
	Header    Header
	Commit    string   // 40 hex digits; empty: a diff of our own
	LeavesOut []string // of a commit: paths whose conflicting hunks are dropped
	Diff      []byte   // of a commit: the resolution, applied on top of what the pick left; may be empty
	Line      int      // of File, from 1, where Diff begins

	files []FileDiff // Diff taken apart
}

// Reference says that e is a change of upstream's.
func (e *Entry) Reference() bool { return e.Commit != "" }

// FullName is neutron/fip-timing.
func (e *Entry) FullName() string { return e.Component + "/" + e.Name }

// Series is the entries of a component on a release, in the order in which they are applied.
type Series struct {
	Release   string
	Component string
	Entries   []Entry
}

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9._+-]{0,99}$`)
	commitForm = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// Locator is a file system that knows what its files are called for the user.
type Locator interface{ Locate(name string) string }

func where(fsys fs.FS, name string) string {
	if l, ok := fsys.(Locator); ok {
		return l.Locate(name)
	}
	return path.Join("patches", name)
}

// Load reads all series below fsys, by release and component. The error has all that is wrong with them.
func Load(fsys fs.FS) ([]Series, error) { return LoadRelease(fsys, "*") }

// LoadRelease is Load of one release.
func LoadRelease(fsys fs.FS, release string) ([]Series, error) {
	names, err := fs.Glob(fsys, release+"/*/"+SeriesFile)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 && release != "*" {
		releases := Releases(fsys)
		e := fault.New(fault.Invalid, "there are no patches for release %q", release)
		e.Expected = strings.Join(releases, ", ")
		return nil, e.Suggest(release, releases)
	}
	var all []Series
	var wrong []error
	for _, name := range names {
		parts := strings.Split(name, "/")
		s, err := LoadSeries(fsys, parts[0], parts[1])
		wrong = append(wrong, err)
		if s != nil {
			all = append(all, *s)
		}
	}
	return all, errors.Join(wrong...)
}

// LoadSeries reads one series; nil without an error when there is none.
func LoadSeries(fsys fs.FS, release, component string) (*Series, error) {
	dir := path.Join(release, component)
	file := path.Join(dir, SeriesFile)
	text, err := fs.ReadFile(fsys, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "read %s: %w", where(fsys, file), err)
	}
	for _, word := range []string{release, component} {
		if !nameForm.MatchString(word) {
			return nil, &fault.Error{Code: fault.Invalid, File: where(fsys, file), Message: fmt.Sprintf("%q is no folder of a series", word), Expected: "a release, a component: kilo/neutron/series"}
		}
	}
	lines, err := parseSeries(where(fsys, file), text)
	if err != nil {
		return nil, err
	}
	s := &Series{Release: release, Component: component}
	var wrong []error
	for _, l := range lines {
		if l.name == "" {
			continue
		}
		name := path.Join(dir, l.name+Ext)
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			e := &fault.Error{Code: fault.Invalid, File: where(fsys, file), Line: l.line, Message: fmt.Sprintf("%s%s cannot be read", l.name, Ext), Expected: "a file beside the series", Err: err}
			if errors.Is(err, fs.ErrNotExist) {
				e.Message = fmt.Sprintf("there is no %s%s", l.name, Ext)
				e = e.Suggest(l.name+Ext, patchesIn(fsys, dir))
			}
			wrong = append(wrong, e)
			continue
		}
		entry, err := ParseEntry(where(fsys, name), text)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		entry.Release, entry.Component, entry.Name = release, component, l.name
		s.Entries = append(s.Entries, *entry)
	}
	return s, errors.Join(wrong...)
}

// Releases is the releases that there are patches for.
func Releases(fsys fs.FS) []string {
	names, _ := fs.Glob(fsys, "*/*/"+SeriesFile)
	var releases []string
	for _, name := range names {
		release, _, _ := strings.Cut(name, "/")
		releases = append(releases, release)
	}
	return slices.Compact(releases)
}

func patchesIn(fsys fs.FS, dir string) []string {
	names, _ := fs.Glob(fsys, path.Join(dir, "*"+Ext))
	for i := range names {
		names[i] = path.Base(names[i])
	}
	return names
}

// seriesLine is a line of a series file; name is empty for a comment or an empty line.
type seriesLine struct {
	text string
	name string
	line int
}

// parseSeries takes a quilt series apart: a file name a line, # comments, and of quilt's options -p1 alone.
func parseSeries(file string, text []byte) ([]seriesLine, error) {
	var lines []seriesLine
	seen := map[string]int{}
	n := 0
	for raw := range strings.Lines(string(text)) {
		n++
		l := seriesLine{text: strings.TrimRight(raw, "\r\n"), line: n}
		content, _, _ := strings.Cut(" "+l.text, " #")
		words := strings.Fields(strings.ReplaceAll(content, "\t", " "))
		if len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			e := &fault.Error{Code: fault.Invalid, File: file, Line: n, Expected: "NAME.patch"}
			name, isPatch := strings.CutSuffix(words[0], Ext)
			switch {
			case !isPatch || !nameForm.MatchString(name):
				e.Message = fmt.Sprintf("%q is no name of a patch", words[0])
				e.Expected = "NAME.patch, of a-z, 0-9 and ._+-"
				return nil, e
			case len(words) > 1 && !slices.Equal(words[1:], []string{"-p1"}):
				e.Message = fmt.Sprintf("%q cannot stand here", strings.Join(words[1:], " "))
				e.Remedy = "make the patch's paths begin with a/ and b/, as git does"
				return nil, e
			case seen[name] > 0:
				e.Message = fmt.Sprintf("%s is in line %d already", words[0], seen[name])
				e.Expected = "each patch once"
				return nil, e
			}
			l.name, seen[name] = name, n
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// Find is the entry of the series that name means, with or without its component; nil when there is none, an error when
// there are several.
func Find(all []Series, name string) (*Entry, error) {
	var found *Entry
	for i := range all {
		for j := range all[i].Entries {
			e := &all[i].Entries[j]
			if e.Name != name && e.FullName() != name {
				continue
			}
			if found != nil {
				return nil, fault.New(fault.Invalid, "%q is both %s of %s and %s of %s", name, found.FullName(), found.Release, e.FullName(), e.Release).
					WithRemedy("say COMPONENT/NAME, and --release")
			}
			found = e
		}
	}
	return found, nil
}

// Unknown is the error of a name that no series has.
func Unknown(all []Series, name string) *fault.Error {
	var names []string
	for _, s := range all {
		for _, e := range s.Entries {
			names = append(names, e.Name, e.FullName())
		}
	}
	e := fault.New(fault.Invalid, "no patch %q", name).WithRemedy("`toastdev patch list` shows them")
	return e.Suggest(name, names)
}

// Touches is the paths that e's diff names.
func (e *Entry) Touches() []string {
	var paths []string
	for _, f := range e.files {
		for _, p := range []string{f.Old, f.New} {
			if p != "" && !slices.Contains(paths, p) {
				paths = append(paths, p)
			}
		}
	}
	return paths
}

// Changes is the paths of the files that e's diff changes, moves or removes: those that must be there.
func (e *Entry) Changes() []string {
	var paths []string
	for _, f := range e.files {
		if f.Old != "" {
			paths = append(paths, f.Old)
		}
	}
	return paths
}
