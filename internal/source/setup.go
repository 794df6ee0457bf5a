package source

import (
	"regexp"

	"gopkg.in/ini.v1"
)

// Settings is what a file of Python's says: values by section and key, as they are written.
type Settings map[string]map[string]string

// nothing is what says nothing, between the lines of a value too.
var nothing = regexp.MustCompile(`(?m)^[ \t]*(?:[#;].*)?\r?\n`)

// ParseSettings reads a setup.cfg. A value of several lines has them all, the first perhaps empty.
func ParseSettings(text []byte) (Settings, error) {
	// For the library an empty line, a comment or its buffer's end ends a value; for Python none of them does.
	text = nothing.ReplaceAll(text, nil)
	return parse(text, ini.LoadOptions{AllowPythonMultilineValues: true, ReaderBufferSize: len(text) + 1})
}

// ParseEntryPoints reads an entry_points.txt: targets by group and name.
func ParseEntryPoints(text []byte) (Settings, error) {
	return parse(text, ini.LoadOptions{KeyValueDelimiters: "="})
}

func parse(text []byte, as ini.LoadOptions) (Settings, error) {
	as.IgnoreContinuation, as.IgnoreInlineComment, as.PreserveSurroundedQuote, as.SkipUnrecognizableLines = true, true, true, true
	file, err := ini.LoadSources(as, text)
	if err != nil {
		return nil, err
	}
	s := Settings{}
	for _, section := range file.Sections() {
		if values := section.KeysHash(); len(values) > 0 {
			s[section.Name()] = values
		}
	}
	return s, nil
}
