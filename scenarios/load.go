package scenarios

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"

	"github.com/toast-cloud/toastdev/internal/fault"
)

//go:embed *.txtar
var files embed.FS

// Script is a scenario as it is written.
type Script struct {
	Name    string
	Summary string
	Detail  string // what it proves and why it matters
	Needs   []Need
	File    string // a built-in's name with .txtar, or a file's path
	Alone   bool   // it disturbs the whole region

	Source []byte // the whole file

	archive *txtar.Archive
	nth     []string // the variables of nodes by role that it uses: compute1
}

// Need is what a script says of where it does not fit: a line `[!dvr] skip 'the region has no DVR'` at its top.
type Need struct {
	Unless []string // the conditions that must all hold for the skip
	Reason string
}

func (n Need) String() string {
	var words []string
	for _, c := range n.Unless {
		if positive, ok := strings.CutPrefix(c, "!"); ok {
			words = append(words, positive)
		} else {
			words = append(words, "not "+c)
		}
	}
	return strings.Join(words, " or ")
}

// Text is the script's lines, without its files.
func (s *Script) Text() string { return string(s.archive.Comment) }

var (
	headline = regexp.MustCompile(`^# *([a-z0-9][a-z0-9-]*): *(.+)$`)
	needLine = regexp.MustCompile(`^((?:\[[^\]\s]+\]\s+)+)skip(?:\s+(.*))?$`)
	guard    = regexp.MustCompile(`\[([^\]\s]+)\]`)
	named    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
)

// Builtin is the scripts built in, by name.
func Builtin() ([]*Script, error) {
	names, err := fs.Glob(files, "*.txtar")
	if err != nil {
		return nil, err
	}
	var scripts []*Script
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		s, err := read(name, text)
		if err != nil {
			return nil, err
		}
		scripts = append(scripts, s)
	}
	return scripts, nil
}

// Load is the scripts that the arguments name, each once and in that order: built-in ones by name or glob, others by their
// files' paths. Without arguments all that are built in. They are checked; the error has all that is wrong with them.
func Load(args []string) ([]*Script, error) {
	builtin, err := Builtin()
	if err != nil {
		return nil, err
	}
	scripts := builtin
	if len(args) > 0 {
		scripts = nil
		for _, arg := range args {
			found, err := find(arg, builtin)
			if err != nil {
				return nil, err
			}
			for _, s := range found {
				if !slices.ContainsFunc(scripts, func(had *Script) bool { return had.File == s.File }) {
					scripts = append(scripts, s)
				}
			}
		}
	}
	var wrong []error
	seen := map[string]*Script{}
	for _, s := range scripts {
		wrong = append(wrong, standard().check(s)...)
		if other := seen[s.Name]; other != nil {
			wrong = append(wrong, &fault.Error{Code: fault.Invalid, File: s.File, Message: fmt.Sprintf("is called %q, as %s is", s.Name, other.File),
				Remedy: "give it a name of its own in its first line: # NAME: what it shows"})
		}
		seen[s.Name] = s
	}
	return scripts, errors.Join(wrong...)
}

// find is the scripts that one argument names.
func find(arg string, builtin []*Script) ([]*Script, error) {
	var found []*Script
	var names []string
	for _, s := range builtin {
		names = append(names, s.Name)
		if matches, err := path.Match(arg, s.Name); err != nil {
			return nil, fault.New(fault.Invalid, "%q is not a glob: %w", arg, err)
		} else if matches {
			found = append(found, s)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	paths := []string{arg}
	if strings.ContainsAny(arg, "*?[") {
		var err error
		if paths, err = filepath.Glob(arg); err != nil {
			return nil, fault.New(fault.Invalid, "%q is not a glob: %w", arg, err)
		}
	}
	for _, p := range paths {
		text, err := os.ReadFile(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fault.New(fault.Invalid, "read the scenario: %w", err)
		}
		s, err := read(p, text)
		if err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	if len(found) > 0 {
		return found, nil
	}
	if strings.HasSuffix(arg, ".txtar") || strings.ContainsRune(arg, filepath.Separator) {
		return nil, fault.New(fault.Invalid, "no file %q", arg).WithRemedy("`toastdev scenario list` shows the scenarios built in; others are files that end in .txtar")
	}
	e := &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("no scenario %q", arg), Expected: strings.Join(names, ", ") + ", or a file"}
	return nil, e.Suggest(arg, names)
}

// read takes a script and its header apart.
func read(file string, text []byte) (*Script, error) {
	s := &Script{Name: strings.TrimSuffix(filepath.Base(file), ".txtar"), File: file, Source: text, archive: txtar.Parse(text)}
	var detail []string
	head := true
	for line := range strings.Lines(s.Text()) {
		line = strings.TrimSpace(line)
		comment, isComment := strings.CutPrefix(line, "#")
		switch {
		case head && isComment:
			if m := headline.FindStringSubmatch(line); m != nil && s.Summary == "" && detail == nil {
				s.Name, s.Summary = m[1], m[2]
				continue
			}
			detail = append(detail, strings.TrimSpace(comment))
			continue
		case line == "" || isComment:
			head = false
			continue
		}
		head = false
		m := needLine.FindStringSubmatch(line)
		if m == nil {
			break
		}
		need := Need{Reason: unquoted(m[2])}
		for _, c := range guard.FindAllStringSubmatch(m[1], -1) {
			need.Unless = append(need.Unless, c[1])
		}
		s.Needs = append(s.Needs, need)
	}
	s.Detail = strings.TrimSpace(strings.Join(detail, "\n"))
	if !named.MatchString(s.Name) {
		return nil, &fault.Error{Code: fault.Invalid, File: file, Message: fmt.Sprintf("%q is no scenario's name", s.Name),
			Expected: "at most 40 of a-z, 0-9 and -", Remedy: "begin the file with a line # NAME: what it shows"}
	}
	return s, nil
}

// unquoted is a word of a script without its quotes.
func unquoted(word string) string {
	word = strings.TrimSpace(word)
	if inner, ok := strings.CutPrefix(word, "'"); ok {
		if inner, ok := strings.CutSuffix(inner, "'"); ok {
			return strings.ReplaceAll(inner, "''", "'")
		}
	}
	return word
}
