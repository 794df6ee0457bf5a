package main

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/images/build"
	"github.com/toast-cloud/toastdev/internal/evidence"
	"github.com/toast-cloud/toastdev/internal/lifecycle"
	"github.com/toast-cloud/toastdev/salt/run"
)

// TestTheDocumentedFieldsAreTheCodes holds docs/json.md to the types that are printed, and these to it: a field that is
// renamed or taken away fails here. A new one is added to the page.
func TestTheDocumentedFieldsAreTheCodes(t *testing.T) {
	page, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	for verb, result := range map[string]any{
		"`up`, `halt`, `down`": lifecycle.Done{},
		"`plan`":               lifecycle.Planned{},
		"`status`":             lifecycle.Status{},
		"`list`":               struct{ Environments []listed }{},
		"`salt apply`":         struct{ Nodes []run.Result }{},
		"`doctor`":             diagnosis{},
		"`topology list`":      topologyResults{},
		"`release list`":       struct{ Releases []releaseResult }{},
		"`image list`":         struct{ Images []build.Image }{},
		"`scenario list`":      scenarioList{},
		"`scenario run`":       scenarioResults{},
		"`scenario help`":      scenarioLanguage{},
		"`scenario path`":      evidence.Path{},
		"`nightly`":            nightlyResults{},
		"`patch list`, `patch check`, `patch import`, `patch new`, `patch refresh`, `patch reorder`": patchResults{},
		"`patch show`":   lifecycle.ShownPatch{},
		"`patch export`": lifecycle.Exported{},
		"`patch apply`, `patch revert`, `code apply`, `code revert`": lifecycle.Overlaid{},
		"`patch bisect`": lifecycle.Bisected{},
		"`code status`":  codeResults{},
		"`code watch`":   lifecycle.Saved{},
	} {
		row := fmt.Sprintf("| %s | %s |\n", verb, fields(reflect.TypeOf(result)))
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/json.md lacks the line\n%s", row)
		}
	}
}

// fields is a type's JSON fields, with those of what it holds in brackets.
func fields(t reflect.Type) string {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		if f.Anonymous {
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			names = append(names, fields(embedded))
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch name {
		case "-":
			continue
		case "":
			name = strings.ToLower(f.Name)
		}
		names = append(names, name+inside(f.Type))
	}
	return strings.Join(names, ", ")
}

func inside(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return inside(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct && t.Elem().NumField() > 0 && t.Elem().Field(0).IsExported() {
			return " [" + fields(t.Elem()) + "]"
		}
		return " []"
	case reflect.Map:
		return " {}"
	case reflect.Struct:
		if t.NumField() > 0 && t.Field(0).IsExported() {
			return " {" + fields(t) + "}"
		}
	}
	return ""
}
