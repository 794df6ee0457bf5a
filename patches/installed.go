package patches

import (
	"bytes"
	"slices"
	"strings"
)

// Code says whether a path of a component's tree is code that its package installs for running: no tests, no documentation, not
// what the package is built by.
func Code(component, path string) bool {
	return strings.HasPrefix(path, component+"/") && !strings.HasPrefix(path, component+"/tests/")
}

// code is e without what its diff does to anything but code.
func (e *Entry) code() *Entry {
	part := *e
	part.Diff, part.files = nil, nil
	lines := slices.Collect(bytes.Lines(e.Diff))
	for i, f := range e.files {
		if !Code(e.Component, f.Path()) {
			continue
		}
		end := len(lines)
		if i+1 < len(e.files) {
			end = e.files[i+1].Line - e.Line
		}
		part.Diff = append(part.Diff, bytes.Join(lines[f.Line-e.Line:end], nil)...)
		part.files = append(part.files, f)
	}
	return &part
}
