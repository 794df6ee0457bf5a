package lifecycle

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/openstack"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/provisioners"
)

// auth is the credentials of one of the region's users, admin or demo, scoped to the newcomer's project, for clients on
// this host.
func (t *Toastdev) auth(r *record.Record, as string) (openstack.Auth, error) {
	secrets, err := t.environment(r.Name).Secrets()
	if err != nil {
		return openstack.Auth{}, err
	}
	if as != "admin" && as != "demo" {
		return openstack.Auth{}, &fault.Error{Code: fault.Invalid, Path: "--as", Message: fmt.Sprintf("no user %q", as), Expected: "admin, demo"}
	}
	detour, err := t.detour(r)
	if err != nil {
		return openstack.Auth{}, err
	}
	return openstack.Auth{Detour: detour, Patience: r.Plan.Patience(), URL: fmt.Sprintf("http://%s:5000/v3", r.Plan.API), Region: r.Plan.Region, User: as, Password: secrets[as],
		Project: openstack.NewcomerProject, Domain: "Default"}, nil
}

// detour is by which of this machine's ports the region's APIs are reached; nil where it is on their network.
func (t *Toastdev) detour(r *record.Record) (*openstack.Detour, error) {
	if !r.Plan.Apart() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusDeadline)
	defer cancel()
	forwards, err := t.forwards(ctx, r)
	detour := &openstack.Detour{Ports: map[string]string{}}
	for _, f := range forwards {
		detour.Ports[f.To] = f.Host
	}
	return detour, err
}

// forwards is the ports of this machine that lead to an environment's nodes.
func (t *Toastdev) forwards(ctx context.Context, r *record.Record) ([]Forward, error) {
	makers, err := t.provisioners(ctx, r.Plan.Provisioners(), false)
	if err != nil {
		return nil, err
	}
	list := []Forward{}
	for _, name := range slices.Sorted(maps.Keys(makers)) {
		forwarder, ok := makers[name].(provisioners.Forwarder)
		if !ok {
			continue
		}
		forwards, err := forwarder.Forwards(ctx, t.owner(r.Name))
		if err != nil {
			return nil, err
		}
		for _, f := range forwards {
			list = append(list, Forward{Name: f.Name, Host: f.Host.String(), To: f.To.String()})
		}
	}
	return list, nil
}

// Openrc is the lines a shell evaluates to make OpenStack clients talk to the environment as admin or demo.
func (t *Toastdev) Openrc(name, as string) (string, error) {
	r, err := t.find(name)
	if err != nil {
		return "", err
	}
	auth, err := t.auth(r, as)
	if err != nil {
		return "", err
	}
	return openstack.Openrc(auth), nil
}

// Client is the openstack client on the control node with arguments, as admin or demo. The credentials go by its environment.
func (t *Toastdev) Client(name, as string, args []string) (node.Node, node.Cmd, error) {
	r, err := t.find(name)
	if err != nil {
		return nil, node.Cmd{}, err
	}
	auth, err := t.auth(r, as)
	if err != nil {
		return nil, node.Cmd{}, err
	}
	control, err := t.reach(&r.Plan.WithRole("control")[0])
	if err != nil {
		return nil, node.Cmd{}, err
	}
	return control, node.Cmd{Args: append([]string{"openstack"}, args...), Env: openstack.Environ(auth)}, nil
}

// logScript prints the last lines of the journal and of the files that OpenStack's and other services write below /var/log;
// with a unit its own alone. Arguments: unit or "", number of lines, "follow" or "".
const logScript = `unit=$1 lines=$2
files=$(find /var/log -mindepth 2 -maxdepth 3 -name "${unit:-*}.log" -size +0 ! -path '/var/log/journal/*' ! -path '/var/log/apt/*')
journal="journalctl --no-pager --quiet --output=short-iso --lines=$lines ${unit:+--unit=$unit}"
if [ "$3" = follow ]; then
	trap 'kill 0' EXIT TERM HUP
	[ -z "$files" ] || tail -q -n "$lines" -F $files &
	$journal --follow &
	wait
else
	[ -z "$files" ] || tail -q -n "$lines" $files
	$journal
fi`

// Logs writes the last lines that the services of all nodes, of one, or a unit on it wrote; with follow it goes on until ctx ends.
func (t *Toastdev) Logs(ctx context.Context, name, nodeName, unit string, lines int, follow bool, w io.Writer) error {
	r, err := t.find(name)
	if err != nil {
		return err
	}
	nodes := r.Plan.Nodes
	if nodeName != "" {
		n, err := named(r.Plan, nodeName)
		if err != nil {
			return err
		}
		nodes = []plan.Node{*n}
	}
	if unit != "" {
		if err := t.knowsUnit(ctx, &nodes[0], unit); err != nil {
			return err
		}
	}
	mode := ""
	if follow {
		mode = "follow"
	}
	var group errgroup.Group
	var out sync.Mutex // whole lines of several nodes go to one stream
	for i := range nodes {
		group.Go(func() error {
			n, err := t.reach(&nodes[i])
			if err != nil {
				return err
			}
			prefix := ""
			if len(nodes) > 1 {
				prefix = fmt.Sprintf("%-6s ", nodes[i].Name)
			}
			return n.Run(ctx, node.Cmd{Args: []string{"sh", "-c", logScript, "logs", unit, strconv.Itoa(lines), mode},
				Stdout: node.Lines(func(line string) error {
					out.Lock()
					defer out.Unlock()
					_, err := io.WriteString(w, prefix+line+"\n")
					return err
				})})
		})
	}
	return group.Wait()
}

// knowsUnit says with the nearest names when a node has no unit of that name.
func (t *Toastdev) knowsUnit(ctx context.Context, n *plan.Node, unit string) error {
	reached, err := t.reach(n)
	if err != nil {
		return err
	}
	out, err := node.Output(ctx, reached, "systemctl", "list-unit-files", "--type=service", "--no-legend", "--plain")
	if err != nil {
		return err
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		file, _, _ := strings.Cut(line, " ")
		names = append(names, strings.TrimSuffix(file, ".service"))
	}
	if slices.Contains(names, strings.TrimSuffix(unit, ".service")) {
		return nil
	}
	return (&fault.Error{Code: fault.NotFound, Node: n.Name, Message: fmt.Sprintf("no unit %q", unit)}).Suggest(unit, names)
}
