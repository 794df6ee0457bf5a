package topologies

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The schema that editors use knows every key that the Go types know, and no other.
func TestSchemaAndTypesHaveTheSameKeys(t *testing.T) {
	s, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	compare(t, s, "topology", s.raw.(map[string]any), reflect.TypeFor[Topology]())
	// The keys of the networks are not fields but names.
	networks := s.said("#/properties/networks")
	want := slices.Sorted(slices.Values(NetworkNames()))
	if !slices.Equal(networks.keys(), want) {
		t.Errorf("networks: the schema has %v, Go has %v", networks.keys(), want)
	}
	roles := s.said("#/$defs/group/properties/roles/items")
	if got := fmt.Sprint(roles["enum"]); got != fmt.Sprint(Roles()) {
		t.Errorf("roles: the schema has %s, Go has %v", got, Roles())
	}
	if got := s.said("#/$defs/name")["pattern"]; got != namePattern.String() {
		t.Errorf("names: the schema has %s, Go has %s", got, namePattern)
	}
	if got := s.said("#/$defs/size")["pattern"]; got != sizePattern.String() {
		t.Errorf("sizes: the schema has %s, Go has %s", got, sizePattern)
	}
}

// compare walks a part of the schema and the Go type that it describes.
func compare(t *testing.T, s compiled, path string, part saying, of reflect.Type) {
	t.Helper()
	if ref, ok := part["$ref"].(string); ok {
		part = s.said(ref)
	}
	switch of.Kind() {
	case reflect.Pointer:
		compare(t, s, path, part, of.Elem())
	case reflect.Slice:
		if items, ok := part["items"].(map[string]any); ok {
			compare(t, s, path+"[]", items, of.Elem())
		}
	case reflect.Map:
		if each, ok := part["additionalProperties"].(map[string]any); ok {
			compare(t, s, path+".*", each, of.Elem())
			return
		}
		properties, _ := part["properties"].(map[string]any)
		if of.Elem().Kind() != reflect.Struct {
			return // the pillar: whatever it likes
		}
		all := map[string]bool{}
		for _, p := range properties { // a map of names: together their keys are the type's
			def := s.said(p.(map[string]any)["$ref"].(string))
			for _, key := range def.keys() {
				all[key] = true
			}
		}
		for _, key := range keysOf(of.Elem()) {
			if !all[key] {
				t.Errorf("%s.*: the schema has no %s", path, key)
			}
			delete(all, key)
		}
		for key := range all {
			t.Errorf("%s.*: Go has no %s", path, key)
		}
	case reflect.Struct:
		if part["type"] != "object" {
			return // written as a string
		}
		keys := keysOf(of)
		if !slices.Equal(part.keys(), slices.Sorted(slices.Values(keys))) {
			t.Errorf("%s: the schema has %v, Go has %v", path, part.keys(), keys)
		}
		if part["additionalProperties"] != false {
			t.Errorf("%s: the schema allows other keys", path)
		}
		for i := range of.NumField() {
			key, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if child, ok := part["properties"].(map[string]any)[key].(map[string]any); ok {
				compare(t, s, path+"."+key, child, of.Field(i).Type)
			}
		}
	}
}

func keysOf(of reflect.Type) []string {
	var keys []string
	for i := range of.NumField() {
		if key, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ","); key != "-" {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestSchemaTakesWhatIsGoodAndRefusesWhatIsMisshapen(t *testing.T) {
	good, _ := filepath.Glob("testdata/good/*.yaml")
	for _, file := range append(good, "mini.yaml", "legacy.yaml") {
		if err := checkFile(t, file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	for _, name := range []string{"bad-subnet", "misspelt-node-key", "name-leaves-the-home", "negative-count", "unknown-key", "unknown-role",
		"wrong-type", "cpus", "count-is-a-fraction", "no-roles", "role-twice", "size-without-unit", "routing-unknown", "region-unknown-key"} {
		if err := checkFile(t, filepath.Join("testdata/bad", name+".yaml")); err == nil {
			t.Errorf("the schema takes %s", name)
		}
	}
}

func checkFile(t *testing.T, file string) error {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := parse(file, text)
	if err != nil {
		t.Fatal(err)
	}
	return check(tree)
}

func TestBuiltInsNameTheirSchema(t *testing.T) {
	for _, name := range Builtin() {
		text, err := Files.ReadFile(name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# yaml-language-server: $schema=schema.json\n") {
			t.Errorf("%s does not begin with its schema", name)
		}
	}
}
