// Package node is a machine of the region as everything above the provisioners sees it: something that runs a command.
package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Cmd is a command for a node. Nil streams are empty or thrown away.
type Cmd struct {
	Args   []string
	Env    []string // KEY=value, added to the node's own
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	TTY    bool // a terminal of its own; Stderr is then part of Stdout
}

// Node runs commands as root. Run returns nil, an *ExitError when the command ended otherwise than with 0,
// or another error when it could not be run. When ctx ends, Run returns; the command may go on (see Unit).
type Node interface {
	Name() string
	Run(ctx context.Context, cmd Cmd) error
}

// ExitError is a command's exit code other than 0.
type ExitError struct {
	Node string
	Args []string
	Code int
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: %s: exit code %d", e.Node, strings.Join(e.Args, " "), e.Code)
}

// Output runs args and returns what they print on stdout; a failure's error carries the last lines of stderr.
func Output(ctx context.Context, n Node, args ...string) ([]byte, error) {
	return Input(ctx, n, nil, args...)
}

// Input is Output with bytes on the command's stdin: the way for secrets, which must not be in an argument list.
func Input(ctx context.Context, n Node, stdin []byte, args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd := Cmd{Args: args, Stdout: &out, Stderr: &errs}
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	err := n.Run(ctx, cmd)
	if exit, ok := errors.AsType[*ExitError](err); ok {
		text := errs.String()
		if strings.TrimSpace(text) == "" {
			text = out.String()
		}
		return out.Bytes(), &fault.Error{Code: fault.Failed, Node: n.Name(), Unit: args[0],
			Message: fmt.Sprintf("exit code %d", exit.Code), Log: LastLines(text, 10), Err: err}
	}
	return out.Bytes(), err
}

// Push unpacks a tar stream below dir, which is made when it is not there. (A copy through the engine's API into a
// tmpfs is lost without an error; a tar over stdin is not.)
func Push(ctx context.Context, n Node, dir string, tarball io.Reader) error {
	var errs bytes.Buffer
	err := n.Run(ctx, Cmd{
		Args:  []string{"sh", "-c", `mkdir -p "$1" && exec tar -x -p --no-same-owner -C "$1" -f -`, "push", dir},
		Stdin: tarball, Stderr: &errs,
	})
	if err != nil {
		return fmt.Errorf("push to %s:%s: %w: %s", n.Name(), dir, err, strings.TrimSpace(errs.String()))
	}
	return nil
}

// Pull writes path, a file or a folder, as a tar stream to w.
func Pull(ctx context.Context, n Node, path string, w io.Writer) error {
	var errs bytes.Buffer
	err := n.Run(ctx, Cmd{Args: []string{"tar", "-c", "-C", "/", "-f", "-", strings.TrimPrefix(path, "/")}, Stdout: w, Stderr: &errs})
	if err != nil {
		return fmt.Errorf("pull %s:%s: %w: %s", n.Name(), path, err, strings.TrimSpace(errs.String()))
	}
	return nil
}

// Poll is how often Wait asks: often enough not to be felt, seldom enough not to slow what it waits for.
const Poll = 300 * time.Millisecond

// Wait asks ready until it says yes, its error is final (ready says done with an error), or the deadline passes; the
// timeout's error says what was waited for and the last reason why it was not there.
func Wait(ctx context.Context, what string, deadline time.Duration, ready func(context.Context) (done bool, err error)) error {
	return WaitEvery(ctx, Poll, what, deadline, ready)
}

// WaitEvery is Wait that asks after a pause of its own: for questions that cost those who answer.
func WaitEvery(ctx context.Context, pause time.Duration, what string, deadline time.Duration, ready func(context.Context) (done bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	var last error
	for {
		done, err := ready(ctx)
		if done {
			return err
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			e := fault.New(fault.Timeout, "waited %s for %s", deadline, what)
			if last != nil {
				e.Message += ": " + last.Error()
				e.Err = last
			}
			return e
		case <-time.After(pause):
		}
	}
}

// LastLines is the last n non-empty lines of text.
func LastLines(text string, n int) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}

// Lines is a stream that hands each whole line that is written to it, without its end, to f; a write fails with f's error.
func Lines(f func(line string) error) io.Writer { return &lines{f: f} }

type lines struct {
	f       func(string) error
	pending string
}

func (l *lines) Write(b []byte) (int, error) {
	l.pending += string(b)
	for {
		line, rest, found := strings.Cut(l.pending, "\n")
		if !found {
			return len(b), nil
		}
		l.pending = rest
		if err := l.f(line); err != nil {
			return 0, err
		}
	}
}
