package scenarios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// nodeCommands are the words that run something on a node, and change its configuration for a while.
func nodeCommands() map[string]Command {
	return map[string]Command{
		"exec": {
			Summary: "run a command on a node, as root",
			Args:    "NODE [--netns NAMESPACE] -- COMMAND [ARGUMENT...]",
			Detail: []string{"Prints what the command prints; fails when it ends otherwise than with 0. No shell is between: sh -c '...' is one.",
				"What it changes on the node nobody puts back.", "Example: exec ctl -- systemctl is-active keystone"},
			Async: true, Min: 2, Max: -1,
			Flags: func(f *pflag.FlagSet) Action {
				namespace := f.String("netns", "", "the network `NAMESPACE` that it runs in")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					if err := r.planned(args[0]); err != nil {
						return Outcome{}, err
					}
					command := args[1:]
					if *namespace != "" {
						command = append([]string{"ip", "netns", "exec", *namespace}, command...)
					}
					return run(ctx, r.World.Node(args[0]), command)
				}
			},
		},
		"config": {
			Summary: "change configuration on a node for the scenario's time",
			Args:    "set NODE FILE SECTION OPTION VALUE [UNIT...] | keep NODE PATH [UNIT...] | restore NODE PATH",
			Detail: []string{"set gives an option of an ini file a value, and restarts the units that read it. keep remembers a file or a folder as it is, before something else changes it.",
				"What was set or kept is put back, and its units are restarted: by restore, or at the scenario's end, however that comes.",
				"Example: config set ctl /etc/keystone/keystone.conf token expiration 5 keystone"},
			Alone: true, Min: 3, Max: -1,
			Check: checkConfig,
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					if err := checkConfig(args); err != nil {
						return Outcome{}, err
					}
					if err := r.planned(args[1]); err != nil {
						return Outcome{}, err
					}
					switch args[0] {
					case "set":
						return Outcome{}, r.configure(ctx, args[1], args[2], args[3], args[4], args[5], args[6:])
					case "keep":
						return Outcome{}, r.keep(ctx, args[1], args[2], args[3:])
					}
					return Outcome{}, r.restore(ctx, args[1], args[2])
				}
			},
		},
	}
}

func checkConfig(args []string) error {
	least := map[string]int{"set": 6, "keep": 3, "restore": 3}
	n, known := least[args[0]]
	switch {
	case !known:
		return unknown("word here", args[0], []string{"set", "keep", "restore"})
	case len(args) < n || args[0] == "restore" && len(args) > n:
		return &fault.Error{Code: fault.Invalid, Message: "config " + args[0] + " takes other arguments",
			Expected: map[string]string{"set": "config set NODE FILE SECTION OPTION VALUE [UNIT...]", "keep": "config keep NODE PATH [UNIT...]", "restore": "config restore NODE PATH"}[args[0]]}
	case !strings.HasPrefix(args[2], "/") || path.Clean(args[2]) != args[2] || args[2] == "/":
		return fault.New(fault.Invalid, "%q is not a file's whole path", args[2])
	}
	return nil
}

// run runs a command on a node; its output is the outcome's text.
func run(ctx context.Context, n node.Node, command []string) (Outcome, error) {
	var out, errs bytes.Buffer
	err := n.Run(ctx, node.Cmd{Args: command, Stdout: &out, Stderr: &errs})
	if exit, ok := errors.AsType[*node.ExitError](err); ok {
		text := errs.String()
		if strings.TrimSpace(text) == "" {
			text = out.String()
		}
		err = &fault.Error{Code: fault.Failed, Node: n.Name(), Unit: command[0], Message: fmt.Sprintf("exit code %d", exit.Code), Log: node.LastLines(text, 10), Err: err}
	}
	return Outcome{Text: out.String()}, err
}

// keptDir is where a node keeps what scenarios have changed on it: KEPT/RUN/NUMBER/ has the tar, the path and the units. It
// outlives the toastdev that made it.
const keptDir = "/var/lib/toastdev/kept"

// keepScript keeps a path. Arguments: the folder, the path, its units.
const keepScript = `set -e
kept=$1 path=$2
shift 2
[ -e "$path" ] || { echo "there is no $path" >&2; exit 1; }
mkdir -p "$kept"
tar -C / -cpf "$kept/tar" "${path#/}"
echo "$*" >"$kept/units"
echo "$path" >"$kept/path"`

// restoreScript puts back what the folders given keep, the last first, and restarts the units of what is not as it was.
// Nothing kept: nothing to do.
const restoreScript = `set -e
units=
for kept; do
	[ -d "$kept" ] || continue
	if [ -f "$kept/path" ]; then
		path=$(cat "$kept/path")
		there=$(cd / && find "${path#/}" | wc -l)
		if [ "$there" != "$(tar -tf "$kept/tar" | wc -l)" ] || ! tar -C / -df "$kept/tar" >/dev/null 2>&1; then
			[ ! -d "$path" ] || find "$path" -mindepth 1 -delete
			tar -C / -xpf "$kept/tar"
			units="$units $(cat "$kept/units")"
		fi
	fi
	rm -r "$kept"
	rmdir "${kept%/*}" 2>/dev/null || true
done
units=$(printf '%s\n' $units | sort -u)
[ -z "$units" ] || systemctl restart $units`

// keptKind is the things that are kept now, by node and path.
const keptKind = "kept"

// keep remembers a path of a node as it is now, and has it put back at the end.
func (r *Run) keep(ctx context.Context, name, path string, units []string) error {
	key := name + ":" + path
	if slices.Contains(names(r, keptKind), key) {
		return nil
	}
	kept := keptDir + "/" + r.ID + "/" + strconv.Itoa(lineOf(ctx))
	if _, err := node.Output(ctx, r.World.Node(name), append([]string{"sh", "-c", keepScript, "keep", kept, path}, units...)...); err != nil {
		return fmt.Errorf("keep %s as it is: %w", path, err)
	}
	r.Undo("put "+path+" of "+name+" back", func(ctx context.Context) error {
		_, err := node.Output(ctx, r.World.Node(name), "sh", "-c", restoreScript, "restore", kept)
		return err
	})
	return r.put(keptKind, key, kept)
}

// restore puts a path of a node back before the end.
func (r *Run) restore(ctx context.Context, name, path string) error {
	key := name + ":" + path
	kept, err := get[string](r, keptKind, key)
	if err != nil {
		return err
	}
	if _, err := node.Output(ctx, r.World.Node(name), "sh", "-c", restoreScript, "restore", kept); err != nil {
		return fmt.Errorf("put %s back: %w", path, err)
	}
	r.forget(keptKind, key)
	return nil
}

// configure gives an option of an ini file on a node a value until the scenario's end.
func (r *Run) configure(ctx context.Context, name, file, section, option, value string, units []string) error {
	if err := r.keep(ctx, name, file, units); err != nil {
		return err
	}
	n := r.World.Node(name)
	text, err := node.Output(ctx, n, "cat", file)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	// Over the file, not in its place: owner and mode stay.
	if _, err := node.Input(ctx, n, []byte(withOption(string(text), section, option, value)), "sh", "-c", `cat >"$1"`, "write", file); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if len(units) == 0 {
		return nil
	}
	if _, err := node.Output(ctx, n, append([]string{"systemctl", "restart"}, units...)...); err != nil {
		return fmt.Errorf("restart %s: %w", strings.Join(units, ", "), err)
	}
	return nil
}

// withOption is an ini file's text with an option of a section set, and nothing else changed.
func withOption(text, section, option, value string) string {
	line := option + " = " + value
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	within, last := false, -1 // last: the section's last line that is not empty
	for i, l := range lines {
		trimmed := strings.TrimSpace(l)
		if strings.HasPrefix(trimmed, "[") {
			within = trimmed == "["+section+"]"
		}
		if !within {
			continue
		}
		if trimmed != "" {
			last = i
		}
		if name, _, ok := strings.Cut(trimmed, "="); ok && strings.TrimSpace(name) == option {
			lines[i] = line
			return strings.Join(lines, "\n") + "\n"
		}
	}
	if last < 0 {
		return strings.TrimLeft(strings.Join(append(lines, "["+section+"]", line), "\n"), "\n") + "\n"
	}
	return strings.Join(slices.Insert(lines, last+1, line), "\n") + "\n"
}

// restoreKept puts back what runs that died have changed on the nodes.
func restoreKept(ctx context.Context, w *World) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, planned := range w.Plan.Nodes {
		group.Go(func() error {
			n := w.Node(planned.Name)
			_, err := node.Output(ctx, n, "sh", "-c", `[ ! -d `+keptDir+` ] || exec sh -c "$1" restore $(find `+keptDir+` -mindepth 2 -maxdepth 2 | sort -rV)`, "restore", restoreScript)
			if err != nil {
				return fmt.Errorf("put back what a scenario has changed on %s: %w", planned.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}
