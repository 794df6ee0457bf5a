// Package custom is the packages of our own that run on nodes, each a folder. Salt is handed their code (see salt.Tree) and
// the state of the package's purpose puts it in place, when the pillar says so.
package custom

import (
	"embed"
	"io/fs"
	"path"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Code alone, and what makes it known to Python: not the tests, and nothing that running these leaves behind.
//
//go:embed */package.yaml
//go:embed toast-evacuator/toast_evacuator/*.py
//go:embed toast-vpc/toast_vpc.egg-info/PKG-INFO toast-vpc/toast_vpc.egg-info/entry_points.txt
//go:embed toast-vpc/toast_vpc/*.py toast-vpc/toast_vpc/*/*.py toast-vpc/toast_vpc/db/migration/*.py
//go:embed toast-vpc/toast_vpc/db/migration/alembic_migrations/*.py
//go:embed toast-vpc/toast_vpc/db/migration/alembic_migrations/versions/*.py
//go:embed toast-vpc/toast_vpc/db/migration/alembic_migrations/versions/*_HEAD
//go:embed toast-vpc/toast_vpc/db/migration/alembic_migrations/versions/*/*/*.py
var embedded embed.FS

// Files is the packages' code by its path: toast-evacuator/toast_evacuator/beat.py.
func Files() fs.FS { return embedded }

// PackageFile is the file that makes a folder a package: what switches it on.
const PackageFile = "package.yaml"

// Pillar is what one line of a topology, {package: NAME}, puts into the pillar, by the package's file in fsys.
func Pillar(fsys fs.FS, name string) (map[string]any, error) {
	files, err := fs.Glob(fsys, "*/"+PackageFile)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, file := range files {
		if path.Dir(file) == name {
			return read(fsys, file)
		}
		known = append(known, path.Dir(file))
	}
	e := fault.New(fault.Invalid, "no package %q", name)
	e.Expected = strings.Join(known, ", ")
	return nil, e.Suggest(name, known)
}

func read(fsys fs.FS, file string) (map[string]any, error) {
	text, err := fs.ReadFile(fsys, file)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the package: %w", err)
	}
	var p struct {
		Pillar map[string]any `yaml:"pillar"`
	}
	if err := yaml.UnmarshalWithOptions(text, &p, yaml.DisallowUnknownField()); err != nil || len(p.Pillar) == 0 {
		e := &fault.Error{Code: fault.Invalid, File: file, Message: "this switches no package on", Expected: "pillar: {NAME: {enabled: true}}", Err: err}
		if err != nil {
			e.Message = err.Error()
		}
		return nil, e
	}
	return p.Pillar, nil
}
