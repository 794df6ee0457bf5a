package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/project"
)

// phase is the phase of every event of a build.
const phase = "image"

// journal is a build's log: a file with everything that its steps print.
type journal struct {
	unit string // what is built
	path string
	mu   sync.Mutex
	file *os.File
}

func openJournal(home *project.Home, unit, name string) (*journal, error) {
	path := home.Path("logs", name+".log")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// What a mirror or an index answers may name the host's proxy and its password.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the build's log: %w", err)
	}
	return &journal{unit: unit, path: path, file: file}, nil
}

func (j *journal) Close() error { return j.file.Close() }

func (j *journal) line(step, line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(j.file, "%s %s: %s\n", time.Now().Format("15:04:05.0"), step, line)
}

// step runs one named part of a build. What it prints goes to the log; its error carries the last lines of it.
func (j *journal) step(ctx context.Context, name string, run func(ctx context.Context, out *output) error) error {
	began := time.Now()
	progress.Emit(ctx, progress.Event{Phase: phase, Unit: j.unit, Message: name})
	j.line(name, "begin")
	out := &output{ctx: ctx, journal: j, step: name}
	err := run(ctx, out)
	out.flush()
	if err == nil {
		j.line(name, fmt.Sprintf("done in %.1f s", time.Since(began).Seconds()))
		return nil
	}
	j.line(name, "failed: "+err.Error())
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", name, context.Cause(ctx))
	}
	e := &fault.Error{Code: fault.Failed, Message: err.Error(), Err: err}
	var known *fault.Error
	if errors.As(err, &known) {
		copied := *known
		e = &copied
	}
	e.Unit = j.unit
	e.Message = name + ": " + e.Message
	if len(e.Log) == 0 {
		e.Log = out.last(12)
	}
	if e.Remedy != "" {
		e.Remedy += "; "
	}
	e.Remedy += "the whole log: " + j.path
	return e
}

// output takes what a step prints, line by line.
type output struct {
	ctx     context.Context
	journal *journal
	step    string
	watch   func(line string) (hide bool) // is shown every line; those that it hides are not logged

	mu    sync.Mutex
	rest  []byte
	lines []string // the last ones
}

const keptLines = 400

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rest = append(o.rest, p...)
	for {
		i := bytes.IndexAny(o.rest, "\n\r")
		if i < 0 {
			return len(p), nil
		}
		o.take(string(o.rest[:i]))
		o.rest = o.rest[i+1:]
	}
}

func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.take(string(o.rest))
	o.rest = nil
}

func (o *output) take(line string) {
	if strings.TrimSpace(line) == "" || o.watch != nil && o.watch(line) {
		return
	}
	o.journal.line(o.step, line)
	o.lines = append(o.lines, line)
	o.lines = o.lines[max(0, len(o.lines)-keptLines):]
}

// last is the last n lines without those that only tell of progress, or of the cleaning up after a failure.
func (o *output) last(n int) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	telling := slices.DeleteFunc(slices.Clone(o.lines), func(line string) bool {
		return strings.HasPrefix(line, "I: ") || strings.HasPrefix(line, "Ign:") || strings.Contains(line, "umount")
	})
	return node.LastLines(strings.Join(telling, "\n"), n)
}

// tell tells of step i of n within the step.
func (o *output) tell(i, n int, message string) {
	progress.Emit(o.ctx, progress.Event{Phase: phase, Unit: o.journal.unit, I: i, N: n, Message: message})
}
