// Package images is what node, VM and guest images are made from, and how they are named after it: pure, the building is in
// images/build. An image's name ends in a hash of everything that goes into it, so that an edit makes another image and
// the same recipe is built once.
package images

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/goccy/go-yaml"

	"github.com/toast-cloud/toastdev/internal/fault"
)

//go:embed all:node all:guest all:vm
var embedded embed.FS

// NodeFiles is the recipe of node images that is built in: recipe.yaml, rootfs/, salt-constraints.txt.
func NodeFiles() fs.FS { return below("node") }

// GuestFiles is the recipe of the guest image that is built in: recipe.yaml, init, dhcp, assemble, agent/.
func GuestFiles() fs.FS { return below("guest") }

// VMFiles is the recipe of VM images that is built in: recipe.yaml, init, prepare, assemble, rootfs/.
func VMFiles() fs.FS { return below("vm") }

func below(dir string) fs.FS {
	files, err := fs.Sub(embedded, dir)
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return files
}

// hashLength is how much of a hash is in an image's name, in hex digits.
const hashLength = 12

// hash is the hex SHA-256 of named parts, in the order of their names.
func hash(parts map[string][]byte) string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		fmt.Fprintf(sum, "%s\x00%d\x00", name, len(parts[name]))
		sum.Write(parts[name])
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Mode is the mode of a file of a recipe: scripts are executable. What is embedded in a binary has no modes of its own.
func Mode(content []byte) fs.FileMode {
	if bytes.HasPrefix(content, []byte("#!")) {
		return 0o755
	}
	return 0o644
}

// decode reads a recipe.yaml strictly.
func decode(files fs.FS, recipe any) ([]byte, error) {
	const name = "recipe.yaml"
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return nil, fmt.Errorf("read the image's recipe: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(data, recipe, yaml.Strict()); err != nil {
		e := &fault.Error{Code: fault.Invalid, File: name, Message: yaml.FormatError(err, false, true), Err: err}
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			e.Line, e.Column, e.Message = syntax.GetToken().Position.Line, syntax.GetToken().Position.Column, syntax.GetMessage()
		}
		return nil, e
	}
	return data, nil
}

// read is every regular file of a tree by its path.
func read(files fs.FS, root string) (map[string][]byte, error) {
	content := map[string][]byte{}
	err := fs.WalkDir(files, root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content[name], err = fs.ReadFile(files, name)
		return err
	})
	return content, err
}
