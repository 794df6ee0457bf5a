// Package run runs Salt on nodes, masterless: it hands a node its tree and pillar, runs a highstate there as a unit of
// systemd's, follows it, and reads what came of it.
package run

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/salt"
)

// On the node. The unit's name is fixed, so that the next run finds one that is still going.
const (
	unit         = "toastdev-salt"
	resultFile   = "/run/toastdev/salt.json"
	progressFile = "/run/toastdev/salt.progress" // salt/modules/toastdev.py writes it
	logFile      = "/var/log/toastdev/salt"
	digestFile   = "/var/lib/toastdev/salt.digest"
)

// Deadline of one run on one node: several times what the slowest takes on a machine that emulates everything. Where the node
// is emulated itself it is a multiple of that: see Job.
const Deadline = 15 * time.Minute

// Job is a run on one node.
type Job struct {
	Handed *salt.Handed
	States []string // the states to run; none: the highstate
	Test   bool     // say what would change, and change nothing
	// Patience is how many times Deadline the run may take; 0: once.
	Patience int
	Skip     bool // do nothing when the node's last good highstate was handed the same
	// Before waits for what the states need of other nodes; nil: nothing.
	Before func(context.Context) error
}

// Result is what a run did.
type Result struct {
	Node    string   `json:"name"`
	States  int      `json:"states"`
	Changed int      `json:"changed"`
	Failed  int      `json:"failed"`
	Seconds float64  `json:"seconds"`
	Skipped bool     `json:"skipped,omitempty"`
	Changes []Change `json:"changes,omitempty"`
}

// Change is what one state changed, or in a test would change.
type Change struct {
	State   string `json:"state"` // its id
	SLS     string `json:"sls"`
	Fun     string `json:"fun"`
	Comment string `json:"comment"`
}

// Apply runs the job on a node. Its error names the node, the state that failed, its comment and the log's last lines;
// the result is valid with it. When ctx ends, the run on the node is stopped.
func Apply(ctx context.Context, n node.Node, job Job) (Result, error) {
	began := time.Now()
	result := Result{Node: n.Name()}
	deadline := time.Duration(max(1, job.Patience)) * Deadline
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	// The run of a toastdev that was killed goes on: its states are in the middle of their work.
	if err := ended(ctx, n, deadline); err != nil {
		return result, err
	}
	if job.Skip {
		current, err := Current(ctx, n, job.Handed)
		if err != nil {
			return result, err
		}
		if current {
			result.Skipped = true
			progress.Emit(ctx, progress.Event{Phase: "salt", Node: n.Name(), Message: "as it was handed before", Done: true})
			return result, nil
		}
	}
	if job.Before != nil {
		if err := job.Before(ctx); err != nil {
			return result, err
		}
	}
	if err := hand(ctx, n, job); err != nil {
		return result, err
	}
	if err := start(ctx, n, job); err != nil {
		return result, err
	}
	if err := follow(ctx, n, deadline); err != nil {
		return result, err
	}
	err := read(ctx, n, &result, job.Test)
	result.Seconds = time.Since(began).Seconds()
	if err == nil && len(job.States) == 0 && !job.Test {
		_, err = node.Input(ctx, n, []byte(job.Handed.Digest()), "sh", "-c", "mkdir -p /var/lib/toastdev && cat >"+digestFile)
	}
	if err == nil {
		progress.Emit(ctx, progress.Event{Phase: "salt", Node: n.Name(), I: result.States, N: result.States, Done: true,
			Message: fmt.Sprintf("%d states, %d changed, %.0f s", result.States, result.Changed, result.Seconds)})
	}
	return result, err
}

// Current says whether the node's last good highstate was handed the same.
func Current(ctx context.Context, n node.Node, handed *salt.Handed) (bool, error) {
	digest, err := node.Output(ctx, n, "sh", "-c", "cat "+digestFile+" 2>/dev/null || true")
	return strings.TrimSpace(string(digest)) == handed.Digest(), err
}

// hand replaces what the node had been handed before. Unless it is for a test, what the node's digest stands for is no
// longer sure from here on.
func hand(ctx context.Context, n node.Node, job Job) error {
	tarball, err := job.Handed.Tar()
	if err != nil {
		return err
	}
	remove := []string{"rm", "-rf", salt.Root}
	if !job.Test {
		remove = append(remove, digestFile)
	}
	if _, err := node.Output(ctx, n, remove...); err != nil {
		return err
	}
	return node.Push(ctx, n, salt.Root, tarball)
}

func start(ctx context.Context, n node.Node, job Job) error {
	call := []string{"/opt/salt/bin/salt-call", "--config-dir=" + salt.Root, "--local", "--out=json",
		"--out-file=" + resultFile, "--log-file=" + logFile, "--log-file-level=info", "--log-level=quiet", "toastdev.apply"}
	if len(job.States) > 0 {
		call = append(call, strings.Join(job.States, ","))
	}
	if job.Test {
		call = append(call, "test=True")
	}
	script := fmt.Sprintf(`mkdir -p /run/toastdev %s && rm -f %s %s && : >%s && systemctl reset-failed %s 2>/dev/null
exec systemd-run --quiet --unit=%s --property=Type=exec --setenv=LC_ALL=C.UTF-8 "$@"`,
		"/var/log/toastdev", resultFile, progressFile, logFile, unit, unit)
	_, err := node.Output(ctx, n, append([]string{"sh", "-c", script, "start"}, call...)...)
	return err
}

// followScript prints the progress file's lines as they come, and ends when the run does. It is one command on the node for
// the whole run: asking every moment anew would take a good part of the CPU that the run needs.
const followScript = `pid=$(systemctl show --property=MainPID --value ` + unit + `)
[ "$pid" = 0 ] || tail --lines=+1 --sleep-interval=0.3 --pid="$pid" -F ` + progressFile + ` 2>/dev/null
true`

// follow tells of each state as it begins, and returns when the unit has ended.
func follow(ctx context.Context, n node.Node, deadline time.Duration) error {
	told := node.Lines(func(line string) error {
		var step struct {
			I, N    int
			ID, Fun string
		}
		if json.Unmarshal([]byte(line), &step) == nil {
			progress.Emit(ctx, progress.Event{Phase: "salt", Node: n.Name(), Unit: step.ID, I: step.I, N: step.N, Message: step.Fun})
		}
		return nil
	})
	err := n.Run(ctx, node.Cmd{Args: []string{"sh", "-c", followScript, "follow"}, Stdout: told})
	if err == nil {
		err = ended(ctx, n, deadline)
	}
	if err != nil && ctx.Err() != nil {
		stop(n)
	}
	return err
}

// ended waits until no run is under way on the node.
func ended(ctx context.Context, n node.Node, deadline time.Duration) error {
	return node.Wait(ctx, "Salt on "+n.Name()+" to end", deadline, func(ctx context.Context) (bool, error) {
		out, err := node.Output(ctx, n, "systemctl", "show", "--property=ActiveState", "--value", unit)
		state := strings.TrimSpace(string(out))
		return state == "inactive" || state == "failed", err
	})
}

// stop ends a run that nobody waits for any more.
func stop(n node.Node) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	node.Output(ctx, n, "systemctl", "stop", unit) // the run is given up; that it could not be stopped is found by the next one
}

// state is one state's return, as salt-call prints it.
type state struct {
	ID       string          `json:"__id__"`
	SLS      string          `json:"__sls__"`
	Order    int             `json:"__run_num__"`
	Result   *bool           `json:"result"`
	Comment  any             `json:"comment"`
	Changes  json.RawMessage `json:"changes"`
	Duration float64         `json:"duration"`
	key      string
}

func read(ctx context.Context, n node.Node, result *Result, test bool) error {
	out, err := node.Output(ctx, n, "sh", "-c", "cat "+resultFile+" 2>/dev/null || true")
	if err != nil {
		return err
	}
	states, err := parse(out)
	if err != nil {
		e := fault.New(fault.Failed, "Salt did not run: %w", err)
		e.Node, e.Unit, e.Log = n.Name(), unit, logLines(ctx, n, 12)
		return e
	}
	var failed []state
	for _, s := range states {
		result.States++
		changed := len(s.Changes) > 2 // not {} and not []
		if s.Result == nil && test {
			changed = true
		} else if s.Result == nil || !*s.Result {
			failed = append(failed, s)
			result.Failed++
		}
		if changed {
			result.Changed++
			result.Changes = append(result.Changes, Change{State: s.ID, SLS: s.SLS, Fun: s.fun(), Comment: comment(s.Comment)})
		}
	}
	if len(failed) == 0 {
		return nil
	}
	first := cause(failed)
	e := fault.New(fault.Failed, "%s: %s", first.fun(), comment(first.Comment))
	if len(failed) > 1 {
		e.Message += fmt.Sprintf("\n  (and %d more states failed with or after it)", len(failed)-1)
	}
	e.Node, e.Unit, e.Log = n.Name(), first.SLS+"/"+first.ID, append(serviceLog(ctx, n, first), logLines(ctx, n, 6)...)
	return e.WithRemedy("mend the state and run `toastdev salt apply %s`; the whole log: `toastdev exec %s -- less %s`", n.Name(), n.Name(), logFile)
}

// parse reads what salt-call printed: a map of states, or a list of errors where the tree could not be rendered.
func parse(out []byte) ([]state, error) {
	var returned struct{ Local json.RawMessage }
	if err := json.Unmarshal(out, &returned); err != nil {
		return nil, errors.New("it left no result")
	}
	var problems []string
	if json.Unmarshal(returned.Local, &problems) == nil {
		return nil, errors.New(strings.Join(problems, "; "))
	}
	var text string
	if json.Unmarshal(returned.Local, &text) == nil {
		return nil, errors.New(text)
	}
	byKey := map[string]state{}
	if err := json.Unmarshal(returned.Local, &byKey); err != nil {
		return nil, fmt.Errorf("its result is not of states: %w", err)
	}
	if only, ok := byKey["no_|-states_|-states_|-None"]; ok {
		return nil, errors.New(comment(only.Comment))
	}
	states := make([]state, 0, len(byKey))
	for key, s := range byKey {
		s.key = key
		states = append(states, s)
	}
	sort.Slice(states, func(i, j int) bool { return states[i].Order < states[j].Order })
	return states, nil
}

// fun is module.function; the key has it as module_|-id_|-name_|-function.
func (s state) fun() string {
	parts := strings.Split(s.key, "_|-")
	return parts[0] + "." + parts[len(parts)-1]
}

// cause is the first state that failed of itself, not because one that it requires failed.
func cause(failed []state) state {
	for _, s := range failed {
		if !strings.HasPrefix(comment(s.Comment), "One or more requisite failed") {
			return s
		}
	}
	return failed[0]
}

// comment is a state's comment as one text: Salt gives a string or a list of them.
func comment(c any) string {
	if list, ok := c.([]any); ok {
		var lines []string
		for _, line := range list {
			lines = append(lines, fmt.Sprint(line))
		}
		return strings.Join(lines, "; ")
	}
	return strings.TrimSpace(fmt.Sprint(c))
}

// serviceLog is the last lines of a service that a state could not start.
func serviceLog(ctx context.Context, n node.Node, s state) []string {
	if !strings.HasPrefix(s.fun(), "service.") {
		return nil
	}
	name := strings.Split(s.key, "_|-")[2]
	out, _ := node.Output(ctx, n, "journalctl", "--no-pager", "--quiet", "--output=cat", "--lines=12", "--unit="+name) // an aid to an error that is told anyway
	return node.LastLines(string(out), 12)
}

// logLines is the last lines of Salt's log that are warnings or errors.
func logLines(ctx context.Context, n node.Node, count int) []string {
	out, _ := node.Output(ctx, n, "tail", "-n", "400", logFile) // an aid to an error that is told anyway
	var lines []string
	scan := bufio.NewScanner(bytes.NewReader(out))
	for scan.Scan() {
		if line := scan.Text(); strings.Contains(line, "[ERROR") || strings.Contains(line, "[WARNING") || strings.Contains(line, "[CRITICAL") {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-count):]
}
