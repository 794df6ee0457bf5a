// Package custom is the packages of our own that run on nodes, each a folder. Salt is handed their code (see salt.Tree) and
// the state of the package's name puts it in place.
package custom

import (
	"embed"
	"io/fs"
)

// Code alone: not the tests, and nothing that running these leaves behind.
//
//go:embed toast-evacuator/toast_evacuator/*.py
var embedded embed.FS

// Files is the packages' code by its path: toast-evacuator/toast_evacuator/beat.py.
func Files() fs.FS { return embedded }
