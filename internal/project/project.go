// Package project is where toastdev keeps things: its home.
package project

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mitchellh/go-homedir"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Home is toastdev's own folder: environments, logs and what is cached.
type Home struct {
	Dir string // absolute
	ID  string // eight hex digits, made with the home; what is made in an engine is labelled with it
}

// OpenHome is the folder that TOASTDEV_HOME names, else ~/.toastdev; it is made, for its owner alone, when it is not there.
func OpenHome() (*Home, error) {
	dir := os.Getenv("TOASTDEV_HOME")
	if dir == "" {
		dir = "~/.toastdev"
	}
	dir, err := homedir.Expand(dir)
	if err != nil {
		return nil, fault.New(fault.Missing, "find the home folder: %w", err).WithRemedy("set TOASTDEV_HOME to a folder of your own")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("find the home folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(fault.Missing, "make the home folder: %w", err).WithRemedy("set TOASTDEV_HOME to a folder you can write to")
	}
	id, err := homeID(filepath.Join(dir, "id"))
	if err != nil {
		return nil, err
	}
	return &Home{Dir: dir, ID: id}, nil
}

// homeID reads the id in path, or makes one. Of two processes that make one at once, one wins and both read it.
func homeID(path string) (string, error) {
	b := make([]byte, 4)
	rand.Read(b)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(hex.EncodeToString(b) + "\n")
		err = errors.Join(err, f.Close())
		if err != nil {
			return "", fmt.Errorf("make the home's id: %w", err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return "", fault.New(fault.Missing, "make the home's id: %w", err).WithRemedy("set TOASTDEV_HOME to a folder you can write to")
	}
	text, err := os.ReadFile(path)
	id := strings.TrimSpace(string(text))
	if raw, decodeErr := hex.DecodeString(id); err == nil && (decodeErr != nil || len(raw) != 4) {
		return "", &fault.Error{Code: fault.Failed, File: path, Message: "is not an id of a home", Expected: "eight hex digits",
			Remedy: "put back the eight digits that the labels toastdev.home in the engine show, or remove the file when no environment is up"}
	}
	return id, err
}

// Path is a path below the home.
func (h *Home) Path(elem ...string) string {
	return filepath.Join(append([]string{h.Dir}, elem...)...)
}
