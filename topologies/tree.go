package topologies

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Limits that no topology comes near, and that keep a hostile file from costing more than a blink: the parser's time
// goes with the square of a map's keys.
const (
	maxBytes = 32 << 10
	maxDepth = 32
)

// place is where a value was written: a file's line and column (from 1), or a --set, which has neither.
type place struct {
	file   string
	line   int
	column int
}

// fault is an error there.
func (p place) fault(code fault.Code, path, expected, format string, args ...any) *fault.Error {
	e := fault.New(code, format, args...)
	e.File, e.Line, e.Column, e.Path, e.Expected = p.file, p.line, p.column, path, expected
	return e
}

// value is a YAML value that remembers where it stands.
type value struct {
	at     place
	scalar any // nil, bool, int64, uint64, float64, string; for what is neither list nor map
	list   []*value
	fields *fields
	isList bool
}

// fields are a map's, in the order of the file.
type fields struct {
	keys  []string
	value map[string]*value
	at    map[string]place // of the keys
}

func newMap(at place) *value {
	return &value{at: at, fields: &fields{value: map[string]*value{}, at: map[string]place{}}}
}

// put sets a field.
func (v *value) put(key string, at place, field *value) {
	if _, ok := v.fields.value[key]; !ok {
		v.fields.keys = append(v.fields.keys, key)
	}
	v.fields.value[key], v.fields.at[key] = field, at
}

// remove takes a field away.
func (v *value) remove(key string) {
	delete(v.fields.value, key)
	delete(v.fields.at, key)
	v.fields.keys = slices.DeleteFunc(v.fields.keys, func(k string) bool { return k == key })
}

// get is the field of a map, nil where there is none.
func (v *value) get(key string) *value {
	if v == nil || v.fields == nil {
		return nil
	}
	return v.fields.value[key]
}

func (v *value) isNull() bool { return v.fields == nil && !v.isList && v.scalar == nil }

// place is that of the value at a path, or of the nearest thing above it.
func (v *value) place(path ...string) place {
	for i, key := range path {
		var next *value
		if v.isList {
			if n, err := strconv.Atoi(key); err == nil && n >= 0 && n < len(v.list) {
				next = v.list[n]
			}
		} else {
			next = v.get(key)
		}
		if next == nil {
			return v.at
		}
		if i == len(path)-1 && (next.fields != nil || next.isNull()) && v.fields != nil {
			return v.fields.at[key] // a map begins where its key stands
		}
		v = next
	}
	return v.at
}

// keyPlace is where the last key of a path stands.
func (v *value) keyPlace(path ...string) place {
	parent := v
	for _, key := range path[:len(path)-1] {
		if parent.isList {
			n, _ := strconv.Atoi(key)
			parent = parent.list[n]
		} else {
			parent = parent.get(key)
		}
	}
	if parent != nil && parent.fields != nil {
		if at, ok := parent.fields.at[path[len(path)-1]]; ok {
			return at
		}
	}
	return v.place(path...)
}

// any is the value as encoding/json would have it, with whole numbers as such.
func (v *value) any() any {
	switch {
	case v.fields != nil:
		m := make(map[string]any, len(v.fields.keys))
		for key, field := range v.fields.value {
			m[key] = field.any()
		}
		return m
	case v.isList:
		list := make([]any, len(v.list))
		for i, item := range v.list {
			list[i] = item.any()
		}
		return list
	}
	return v.scalar
}

// decode fills a Go value; what the Go type does not know is an error.
func (v *value) decode(into any) error {
	text, err := json.Marshal(v.any())
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// merge lays what is over v: maps merge, lists and scalars replace, null removes.
func (v *value) merge(over *value) {
	for _, key := range over.fields.keys {
		field, at := over.fields.value[key], over.fields.at[key]
		below := v.get(key)
		switch {
		case field.isNull():
			v.remove(key)
		case field.fields != nil:
			if below == nil || below.fields == nil {
				below = newMap(field.at)
				v.put(key, at, below)
			}
			below.merge(field)
		default:
			v.put(key, at, field)
		}
	}
}

// parse reads one YAML document. Anchors, aliases, merge keys and tags are not part of the language: refusing them
// unread is also what makes an alias bomb harmless.
func parse(file string, data []byte) (*value, error) {
	top := place{file: file, line: 1, column: 1}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if len(data) > maxBytes {
		return nil, top.fault(fault.Invalid, "", fmt.Sprintf("at most %d KiB", maxBytes>>10), "the file is too large: %d KiB", len(data)>>10)
	}
	if err := checkText(file, data); err != nil {
		return nil, err
	}
	f, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntax(top, err)
	}
	var doc *ast.DocumentNode
	for _, d := range f.Docs {
		if d.Body == nil {
			continue
		}
		if doc != nil {
			return nil, position(top, d.Start).fault(fault.Invalid, "", "one document", "a second YAML document begins here")
		}
		doc = d
	}
	if doc == nil {
		return nil, top.fault(fault.Invalid, "", "a map of keys", "the file is empty")
	}
	r := reader{top: top}
	v, err := r.value(doc.Body, nil)
	if err != nil {
		return nil, err
	}
	if v.fields == nil {
		return nil, v.at.fault(fault.Invalid, "", "a map of keys", "the file is %s", v.kind())
	}
	return v, nil
}

// checkText refuses what is not text, and nesting that would cost the parser its stack. It counts brackets in strings
// and comments too: more of them open at once than maxDepth is no topology either.
func checkText(file string, data []byte) error {
	line, column := 1, 0
	open, entries := 0, 0 // brackets, and "- - -" at the beginning of this line
	start := true         // nothing but these came on this line yet
	for i, size := 0, 0; i < len(data); i += size {
		var r rune
		r, size = utf8.DecodeRune(data[i:])
		column++
		at := place{file: file, line: line, column: column}
		switch {
		case r == utf8.RuneError && size == 1:
			return at.fault(fault.Invalid, "", "UTF-8", "byte 0x%02x is not UTF-8", data[i])
		case r == '\n':
			line, column, entries, start = line+1, 0, 0, true
			continue
		case r == '\t' && column == 1:
			return at.fault(fault.Invalid, "", "spaces", "a tab indents this line").WithRemedy("indent with spaces")
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			return at.fault(fault.Invalid, "", "text", "a control character, 0x%02x", r)
		case r == '[', r == '{':
			open++
		case r == ']', r == '}':
			open = max(0, open-1)
		case start && (r == '-' || r == '?' || r == ':'):
			entries++
		}
		if open > maxDepth || entries > maxDepth {
			return at.fault(fault.Invalid, "", fmt.Sprintf("at most %d levels", maxDepth), "the nesting is too deep")
		}
		start = start && strings.ContainsRune(" -?:", r)
	}
	return nil
}

// syntax is what the parser found wrong.
func syntax(top place, err error) error {
	var e interface {
		GetMessage() string
		GetToken() *token.Token
	}
	if errors.As(err, &e) {
		return position(top, e.GetToken()).fault(fault.Invalid, "", "", "%s", e.GetMessage())
	}
	return top.fault(fault.Invalid, "", "", "%s", err.Error())
}

func position(top place, t *token.Token) place {
	if t == nil || t.Position == nil || t.Position.Line < 1 {
		return top
	}
	return place{file: top.file, line: t.Position.Line, column: max(1, t.Position.Column)}
}

// reader turns the parser's nodes into values.
type reader struct {
	top place
}

func (r reader) value(n ast.Node, path []string) (*value, error) {
	if n == nil {
		return &value{at: r.top}, nil
	}
	at := position(r.top, n.GetToken())
	if len(path) > maxDepth {
		return nil, at.fault(fault.Invalid, dotted(path), fmt.Sprintf("at most %d levels", maxDepth), "the nesting is too deep")
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return &value{at: at}, nil
	case *ast.BoolNode:
		return &value{at: at, scalar: n.Value}, nil
	case *ast.IntegerNode:
		if n.Value == nil {
			return nil, at.fault(fault.Invalid, dotted(path), "a number of at most 64 bits", "%s is out of range", n.Token.Value)
		}
		return &value{at: at, scalar: n.Value}, nil
	case *ast.FloatNode:
		if math.IsInf(n.Value, 0) {
			return nil, at.fault(fault.Invalid, dotted(path), "a number of at most 64 bits", "%s is out of range", n.Token.Value)
		}
		return &value{at: at, scalar: n.Value}, nil
	case *ast.StringNode:
		return &value{at: at, scalar: n.Value}, nil
	case *ast.LiteralNode:
		return &value{at: at, scalar: n.Value.Value}, nil
	case *ast.SequenceNode:
		v := &value{at: at, isList: true}
		for i, item := range n.Values {
			child, err := r.value(item, append(path, strconv.Itoa(i)))
			if err != nil {
				return nil, err
			}
			v.list = append(v.list, child)
		}
		return v, nil
	case *ast.MappingNode:
		return r.fields(at, n.Values, path)
	case *ast.MappingValueNode:
		return r.fields(at, []*ast.MappingValueNode{n}, path)
	case *ast.AliasNode, *ast.AnchorNode:
		return nil, at.fault(fault.Invalid, dotted(path), "the value itself", "anchors and aliases are not part of the language")
	case *ast.TagNode:
		return nil, at.fault(fault.Invalid, dotted(path), "the value itself", "tags are not part of the language")
	}
	return nil, at.fault(fault.Invalid, dotted(path), "a string, a number, true, false, null, a list or a map", "%s is none of the language's values", n.Type().YAMLName())
}

func (r reader) fields(at place, entries []*ast.MappingValueNode, path []string) (*value, error) {
	v := newMap(at)
	for i, entry := range entries {
		keyAt := position(r.top, entry.Key.GetToken())
		if i == 0 && !entry.IsFlowStyle {
			v.at = keyAt
		}
		switch entry.Key.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		case *ast.MergeKeyNode, *ast.AliasNode, *ast.AnchorNode:
			return nil, keyAt.fault(fault.Invalid, dotted(path), "the keys themselves", "anchors, aliases and merge keys are not part of the language")
		default:
			return nil, keyAt.fault(fault.Invalid, dotted(path), "a plain key", "a key that is %s", strings.TrimSpace(entry.Key.Type().YAMLName()))
		}
		key := entry.Key.GetToken().Value
		here := append(slices.Clip(path), key)
		if first, ok := v.fields.at[key]; ok {
			return nil, keyAt.fault(fault.Invalid, dotted(here), "each key once", "the key was given before, on line %d", first.line)
		}
		child, err := r.value(entry.Value, here)
		if err != nil {
			return nil, err
		}
		if child.isNull() {
			child.at = keyAt
		}
		v.put(key, keyAt, child)
	}
	return v, nil
}

// kind is the value's kind for a person: "a map".
func (v *value) kind() string {
	switch {
	case v.fields != nil:
		return "a map"
	case v.isList:
		return "a list"
	}
	switch v.scalar.(type) {
	case nil:
		return "empty"
	case bool:
		return "true or false"
	case string:
		return "a string"
	}
	return "a number"
}

// dotted is a path as --set addresses it.
func dotted(path []string) string { return strings.Join(path, ".") }

// oneOf is a choice for a person.
func oneOf(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return "one of " + strings.Join(names, ", ")
}
