// Package fault is the errors a user can act on: what is wrong, where, and what to do about it.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Code says what kind of thing went wrong; it is stable, and part of `-o json`.
type Code string

const (
	Invalid     Code = "invalid"     // the input (a topology, a flag, a name) is wrong
	Unsupported Code = "unsupported" // the language has it, toastdev does not do it yet
	Missing     Code = "missing"     // the host lacks a program, a service, a right, disk or memory
	NotFound    Code = "not-found"   // no such environment, node, unit, image
	Busy        Code = "busy"        // another toastdev holds what is needed
	Failed      Code = "failed"      // something that was begun did not succeed
	Timeout     Code = "timeout"     // a deadline passed
)

// Error is one such error. Everything but Code and Message may be empty.
type Error struct {
	Code     Code     `json:"code"`
	Message  string   `json:"message"`
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`   // from 1
	Column   int      `json:"column,omitempty"` // from 1
	Path     string   `json:"path,omitempty"`   // the field, as `--set` would address it: nodes.cmp.count
	Expected string   `json:"expected,omitempty"`
	Remedy   string   `json:"remedy,omitempty"` // an imperative sentence: "start the engine: systemctl start docker"
	Node     string   `json:"node,omitempty"`
	Unit     string   `json:"unit,omitempty"` // a systemd unit, a Salt state id, a resource
	Log      []string `json:"log,omitempty"`  // the last lines of that unit's log
	Err      error    `json:"-"`
}

// New makes an Error of a code and a formatted message; %w is honoured.
func New(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// WithRemedy sets the remedy and returns e.
func (e *Error) WithRemedy(format string, args ...any) *Error {
	e.Remedy = fmt.Sprintf(format, args...)
	return e
}

// Error is the whole error on as many lines as it needs: where, what, what was expected, the log, the remedy.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", e.Line, max(e.Column, 1))
		}
		b.WriteString(": ")
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	if e.Node != "" {
		b.WriteString(e.Node + ": ")
	}
	if e.Unit != "" {
		b.WriteString(e.Unit + ": ")
	}
	b.WriteString(e.Message)
	if e.Expected != "" {
		b.WriteString("\n  expected: " + e.Expected)
	}
	for _, line := range e.Log {
		b.WriteString("\n  | " + line)
	}
	if e.Remedy != "" {
		b.WriteString("\n  remedy: " + e.Remedy)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// CodeOf is the code of the first Error in err's chain, Failed when there is none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Failed
}
