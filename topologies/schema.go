package topologies

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Schema is the language's JSON Schema as an editor takes it.
func Schema() []byte {
	text, err := Files.ReadFile("schema.json")
	if err != nil {
		panic(err) // it is embedded
	}
	return text
}

// compiled is the schema, ready to check with, and as it is, for what it says of a key.
type compiled struct {
	schema *jsonschema.Schema
	raw    any
}

var schema = sync.OnceValues(func() (compiled, error) {
	raw, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		return compiled{}, fmt.Errorf("read schema.json: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for name, read := range map[string]func(string) error{
		"topology-subnet":   func(s string) error { _, err := parseSubnet(s); return err },
		"topology-size":     func(s string) error { _, err := ParseSize(s); return err },
		"topology-floating": func(s string) error { _, err := ParseFloating(s); return err },
	} {
		c.RegisterFormat(&jsonschema.Format{Name: name, Validate: func(v any) error {
			if s, ok := v.(string); ok {
				return read(s)
			}
			return nil
		}})
	}
	if err := c.AddResource("schema.json", raw); err != nil {
		return compiled{}, fmt.Errorf("read schema.json: %w", err)
	}
	s, err := c.Compile("schema.json")
	return compiled{schema: s, raw: raw}, err
})

// parseSubnet reads a subnet that nodes can live in.
func parseSubnet(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, errors.New("it is not a subnet")
	case !p.Addr().Is4():
		return p, errors.New("IPv6 is not supported")
	case p != p.Masked():
		return p, fmt.Errorf("its host part is not 0: the subnet is %s", p.Masked())
	case p.Bits() > 26:
		return p, fmt.Errorf("it is too small: %d addresses", 1<<(32-p.Bits()))
	case p.Bits() < 16:
		return p, errors.New("it is too large")
	}
	for _, no := range []string{"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"} {
		if netip.MustParsePrefix(no).Overlaps(p) {
			return p, fmt.Errorf("nodes cannot live in %s", no)
		}
	}
	return p, nil
}

// check is the first thing in tree that the schema does not allow.
func check(tree *value) error {
	s, err := schema()
	if err != nil {
		return err
	}
	var wrong *jsonschema.ValidationError
	if err := s.schema.Validate(tree.any()); !errors.As(err, &wrong) {
		return err
	}
	faults := s.faults(tree, wrong)
	slices.SortStableFunc(faults, func(a, b *fault.Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return faults[0]
}

// faults is what a validation found, in words.
func (c compiled) faults(tree *value, e *jsonschema.ValidationError) []*fault.Error {
	path := e.InstanceLocation
	said := c.said(e.SchemaURL)
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		var faults []*fault.Error
		known := said.keys()
		for _, key := range k.Properties {
			here := append(slices.Clip(path), key)
			faults = append(faults, tree.keyPlace(here...).fault(fault.Invalid, dotted(here), oneOf(known), "no such key").Suggest(key, known))
		}
		return faults
	case *kind.PropertyNames:
		// Not InstanceLocation: of this error it is no copy, and what is validated after it writes over it (jsonschema 6.0.3).
		_, at, _ := strings.Cut(e.SchemaURL, "#/properties/")
		here := []string{strings.TrimSuffix(at, "/propertyNames"), k.Property}
		return []*fault.Error{tree.keyPlace(here...).fault(fault.Invalid, dotted(here), c.text("#/$defs/name"), "%q is not a name", k.Property)}
	case *kind.Enum:
		known := make([]string, len(k.Want))
		for i, want := range k.Want {
			known[i] = fmt.Sprint(want)
		}
		f := tree.place(path...).fault(fault.Invalid, dotted(path), oneOf(known), "%s is not known", shown(k.Got))
		if word, ok := k.Got.(string); ok {
			f.Suggest(word, known)
		}
		return []*fault.Error{f}
	}
	if len(e.Causes) > 0 {
		var faults []*fault.Error
		for _, cause := range e.Causes {
			faults = append(faults, c.faults(tree, cause)...)
		}
		return faults
	}
	message := ""
	got := tree.child(path)
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		message = "this is " + got.kind()
		if got.fields == nil && !got.isList && !got.isNull() {
			message = shown(got.scalar) + " is " + got.kind()
		}
	case *kind.Format:
		message = fmt.Sprintf("%s: %s", shown(k.Got), k.Err)
	case *kind.Pattern:
		message = fmt.Sprintf("%s is not allowed", shown(k.Got))
	case *kind.Minimum:
		message = fmt.Sprintf("%s is out of range", number(k.Got))
	case *kind.Maximum:
		message = fmt.Sprintf("%s is out of range", number(k.Got))
	case *kind.MinItems, *kind.MinLength:
		message = "this is empty"
	case *kind.UniqueItems:
		path = append(slices.Clip(path), strconv.Itoa(max(k.Duplicates[0], k.Duplicates[1])))
		message = fmt.Sprintf("%s is given twice", shown(tree.child(path).scalar))
	default:
		message = "this is not allowed"
	}
	return []*fault.Error{tree.place(path...).fault(fault.Invalid, dotted(path), said.text(), "%s", message)}
}

// child is the value at a path, which must be there.
func (v *value) child(path []string) *value {
	for _, key := range path {
		if v.isList {
			n, _ := strconv.Atoi(key)
			v = v.list[n]
		} else {
			v = v.get(key)
		}
	}
	return v
}

// saying is a part of the schema.
type saying map[string]any

// said is the part of the schema at a URL's fragment.
func (c compiled) said(url string) saying {
	_, pointer, _ := strings.Cut(url, "#")
	at := c.raw
	for _, key := range strings.Split(strings.TrimPrefix(pointer, "/"), "/") {
		if m, ok := at.(map[string]any); ok && key != "" {
			at = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(key)]
		}
	}
	m, _ := at.(map[string]any)
	return m
}

func (c compiled) text(url string) string { return c.said(url).text() }

func (s saying) text() string {
	text, _ := s["description"].(string)
	return text
}

func (s saying) keys() []string {
	properties, _ := s["properties"].(map[string]any)
	keys := make([]string, 0, len(properties))
	for key := range properties {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// shown is a value on one short line.
func shown(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(text) > 60 {
		return string(text[:57]) + "..."
	}
	return string(text)
}

func number(r *big.Rat) string {
	if r.IsInt() {
		return r.RatString()
	}
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}
