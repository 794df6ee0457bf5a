// Package custom is the packages of our own that run on nodes, each a folder. Salt is handed their code (see salt.Tree) and
// the state of the package's purpose puts it in place.
package custom

import (
	"embed"
	"io/fs"
)

// Code alone, and what makes it known to Python: not the tests, and nothing that running these leaves behind.
//
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
