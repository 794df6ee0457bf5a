package patches

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// FileDiff is what a unified diff does to one file. Git applies the diff; it is taken apart to refuse what no patch of ours
// may hold, and to tell where it does not fit.
type FileDiff struct {
	Old, New string // paths in the tree; "" where the file is not
	Line     int    // where it begins, from 1
	Hunks    []Hunk
}

// Hunk is one place that is changed. Lines have their first byte: blank, + or -.
type Hunk struct {
	Line               int // where it begins, from 1
	OldStart, OldLines int
	NewStart, NewLines int
	Lines              []string
}

// before is the lines that the hunk expects to find.
func (h *Hunk) before() []string {
	var lines []string
	for _, l := range h.Lines {
		if l == "" {
			lines = append(lines, "")
		} else if l[0] != '+' {
			lines = append(lines, l[1:])
		}
	}
	return lines
}

// Path is the file's path: the new one, unless the file goes.
func (f *FileDiff) Path() string {
	if f.New != "" {
		return f.New
	}
	return f.Old
}

var hunkForm = regexp.MustCompile(`^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@`)

// inside refuses a path that is not one in the tree.
func inside(p string) error {
	switch {
	case p == "":
		return errors.New("an empty path")
	case strings.HasPrefix(p, "/"):
		return fmt.Errorf("the path %q leaves the tree: it is absolute", p)
	case slices.Contains(strings.Split(p, "/"), ".."):
		return fmt.Errorf("the path %q leaves the tree", p)
	case path.Clean(p) != p, strings.ContainsAny(p, "\n\r"):
		return fmt.Errorf("the path %q is not written plainly", p)
	case strings.EqualFold(strings.Split(p, "/")[0], ".git"):
		return fmt.Errorf("the path %q is git's own", p)
	}
	return nil
}

// ParseDiff takes a unified diff apart, which begins in a line of its file. Lines that belong to no file are passed over, as
// git and patch do.
func ParseDiff(file string, text []byte, first int) ([]FileDiff, error) {
	p := &diffParser{file: file, n: first - 1, lines: slices.Collect(strings.Lines(string(text)))}
	for i, l := range p.lines {
		p.lines[i] = strings.TrimSuffix(l, "\n")
	}
	p.first = first
	for p.more() {
		line := p.next()
		var err error
		switch {
		case strings.HasPrefix(line, "diff --git "):
			err = p.git(line)
		case strings.HasPrefix(line, "--- ") && p.more() && strings.HasPrefix(p.peek(), "+++ "):
			err = p.plain(line)
		case strings.HasPrefix(line, "@@ -"):
			err = wrong(file, p.n, "--- a/PATH and +++ b/PATH before the first @@", "a hunk of no file")
		case strings.HasPrefix(line, "Binary files ") && strings.HasSuffix(line, " differ"):
			err = p.binary()
		}
		if err != nil {
			return nil, err
		}
	}
	if len(p.files) == 0 {
		return nil, wrong(file, first, "a unified diff: --- a/PATH, +++ b/PATH, @@ ...", "this is no diff")
	}
	return p.files, nil
}

type diffParser struct {
	file  string
	first int
	n     int // the line that next gave, from 1 in the file
	lines []string
	files []FileDiff
}

func (p *diffParser) more() bool   { return p.n-p.first+1 < len(p.lines) }
func (p *diffParser) peek() string { return p.lines[p.n-p.first+1] }
func (p *diffParser) next() string {
	p.n++
	return p.lines[p.n-p.first]
}

func (p *diffParser) binary() error {
	return wrong(p.file, p.n, "changes of text", "a binary file is changed").WithRemedy("leave binary files out of the patch; a code overlay or a package carries them")
}

// git reads one file's part of a diff that begins with `diff --git`.
func (p *diffParser) git(line string) error {
	if strings.HasSuffix(line, "\r") {
		return dosEnds(p.file, p.n)
	}
	f := FileDiff{Line: p.n}
	var created, deleted, named bool
	for p.more() {
		head := p.peek()
		field := func(prefix string) (string, bool) { return strings.CutPrefix(head, prefix) }
		switch {
		case strings.HasPrefix(head, "index "), strings.HasPrefix(head, "similarity index "), strings.HasPrefix(head, "dissimilarity index "):
		case strings.HasPrefix(head, "GIT binary patch"), strings.HasPrefix(head, "Binary files "):
			p.next()
			return p.binary()
		default:
			var err error
			if mode, ok := field("new file mode "); ok {
				created, err = true, p.mode(mode, 1)
			} else if mode, ok := field("deleted file mode "); ok {
				deleted, err = true, p.mode(mode, 1)
			} else if mode, ok := field("old mode "); ok {
				err = p.mode(mode, 1)
			} else if mode, ok := field("new mode "); ok {
				err = p.mode(mode, 1)
			} else if name, ok := field("rename from "); ok {
				f.Old, err = p.path(name, "", 1)
			} else if name, ok := field("copy from "); ok {
				f.Old, err = p.path(name, "", 1)
			} else if name, ok := field("rename to "); ok {
				f.New, err = p.path(name, "", 1)
				named = true
			} else if name, ok := field("copy to "); ok {
				f.New, err = p.path(name, "", 1)
				named = true
			} else {
				goto body
			}
			if err != nil {
				return err
			}
		}
		p.next()
	}
body:
	if p.more() && strings.HasPrefix(p.peek(), "--- ") {
		old := p.next()
		if !p.more() || !strings.HasPrefix(p.peek(), "+++ ") {
			return wrong(p.file, p.n, "+++ b/PATH behind it", "half of a file's header")
		}
		if err := p.names(&f, old); err != nil {
			return err
		}
		return p.hunks(&f)
	}
	if !named { // a change of mode, or an empty file that comes or goes: the names are in the first line alone
		rest := strings.TrimPrefix(line, "diff --git ")
		half := (len(rest) - 1) / 2
		name, err := p.path(rest[:half], "a/", 0)
		if err != nil {
			return err
		}
		if len(rest)%2 == 0 || rest[half+1:] != "b/"+name && rest[half+1:] != "a/"+name {
			return wrong(p.file, f.Line, "diff --git a/PATH b/PATH", "the two names differ")
		}
		f.Old, f.New = name, name
		if created {
			f.Old = ""
		}
		if deleted {
			f.New = ""
		}
	}
	p.files = append(p.files, f)
	return nil
}

// mode refuses what is neither a file nor a program; ahead is how many lines the field is away.
func (p *diffParser) mode(mode string, ahead int) error {
	switch strings.TrimSpace(mode) {
	case "100644", "100755":
		return nil
	case "120000":
		return wrong(p.file, p.n+ahead, "plain files", "a symbolic link is made or changed")
	case "160000":
		return wrong(p.file, p.n+ahead, "plain files", "a submodule is changed")
	}
	return wrong(p.file, p.n+ahead, "100644 or 100755", "%q is no mode of a file", clip(mode))
}

// plain reads one file's part of a diff without git's line above it.
func (p *diffParser) plain(old string) error {
	f := FileDiff{Line: p.n}
	if err := p.names(&f, old); err != nil {
		return err
	}
	return p.hunks(&f)
}

// names reads --- and +++.
func (p *diffParser) names(f *FileDiff, old string) (err error) {
	if strings.HasSuffix(old, "\r") {
		return dosEnds(p.file, p.n)
	}
	if f.Old, err = p.path(strings.TrimPrefix(old, "--- "), "a/", 0); err != nil {
		return err
	}
	if f.New, err = p.path(strings.TrimPrefix(p.next(), "+++ "), "b/", 0); err != nil {
		return err
	}
	if f.Old == "" && f.New == "" {
		return wrong(p.file, p.n, "a path in the tree", "a file that was not and will not be")
	}
	return nil
}

// path is a file's name in a diff: quoted by C's rules perhaps, a date behind it perhaps.
func (p *diffParser) path(name, prefix string, ahead int) (string, error) {
	if strings.HasPrefix(name, `"`) {
		unquoted, err := strconv.Unquote(name)
		if err != nil {
			return "", wrong(p.file, p.n+ahead, `"a/PATH"`, "%s is not quoted as git does", clip(name))
		}
		name = unquoted
	} else {
		name, _, _ = strings.Cut(name, "\t")
	}
	if name == "/dev/null" {
		return "", nil
	}
	stripped, ok := strings.CutPrefix(name, prefix)
	if !ok && prefix != "" { // git diff -R has them the other way round
		stripped, ok = strings.CutPrefix(name, map[string]string{"a/": "b/", "b/": "a/"}[prefix])
	}
	if !ok {
		if err := inside(name); err != nil {
			return "", wrong(p.file, p.n+ahead, prefix+"PATH, below the component's tree", "%w", err)
		}
		return "", wrong(p.file, p.n+ahead, prefix+"PATH", "%q does not begin with a/ or b/", clip(name)).
			WithRemedy("make the diff with git diff, or with quilt refresh -p ab")
	}
	if err := inside(stripped); err != nil {
		return "", wrong(p.file, p.n+ahead, prefix+"PATH, below the component's tree", "%w", err)
	}
	return stripped, nil
}

// hunks reads a file's hunks, and holds their lines to what they say they have.
func (p *diffParser) hunks(f *FileDiff) error {
	for p.more() && strings.HasPrefix(p.peek(), "@@ ") {
		line := p.next()
		m := hunkForm.FindStringSubmatch(line)
		if m == nil {
			return wrong(p.file, p.n, "@@ -LINE,COUNT +LINE,COUNT @@", "%q begins no hunk", clip(line))
		}
		number := func(s string) int {
			if s == "" {
				return 1
			}
			n, _ := strconv.Atoi(s) // of at most nine digits
			return n
		}
		h := Hunk{Line: p.n, OldStart: number(m[1]), OldLines: number(m[2]), NewStart: number(m[3]), NewLines: number(m[4])}
		old, new := 0, 0
		for old < h.OldLines || new < h.NewLines {
			if !p.more() {
				return wrong(p.file, p.n, fmt.Sprintf("%d lines before and %d after, as its @@ says", h.OldLines, h.NewLines), "the hunk of line %d ends early, with %d and %d", h.Line, old, new)
			}
			l := p.next()
			switch {
			case l == "", l[0] == ' ', l == "\r":
				old, new = old+1, new+1
			case l[0] == '-':
				old++
			case l[0] == '+':
				new++
			case l[0] == '\\':
			default:
				return wrong(p.file, p.n, "a line that begins with a blank, + or -", "%q is no line of a hunk", clip(l))
			}
			if old > h.OldLines || new > h.NewLines {
				return wrong(p.file, p.n, fmt.Sprintf("%d lines before and %d after, as its @@ says", h.OldLines, h.NewLines), "the hunk of line %d has more lines than that", h.Line)
			}
			if l == "" || l[0] != '\\' {
				h.Lines = append(h.Lines, l)
			}
		}
		if p.more() && strings.HasPrefix(p.peek(), `\`) {
			p.next()
		}
		f.Hunks = append(f.Hunks, h)
	}
	if len(f.Hunks) == 0 {
		return wrong(p.file, p.n, "@@ -LINE,COUNT +LINE,COUNT @@", "the file has no hunk")
	}
	p.files = append(p.files, *f)
	return nil
}
