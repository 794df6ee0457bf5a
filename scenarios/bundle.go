package scenarios

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/node"
)

// bundleLimit is how long collecting evidence may take.
const bundleLimit = time.Minute

// bundle puts into the run's folder, beside its captures, what explains a failure: the script and its log, the nodes' logs
// since the scenario began, their flows, namespaces and firewall, and what the APIs say. What cannot be had is in missing.txt.
func (r *Run) bundle(ctx context.Context, s *Script, log string) error {
	ctx, cancel := context.WithTimeout(ctx, r.World.Deadline(bundleLimit))
	defer cancel()
	if err := os.WriteFile(filepath.Join(r.Dir, "scenario.txtar"), s.Source, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "scenario.log"), []byte(log), 0o644); err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(4)
	missing := make([]error, len(r.World.Plan.Nodes)+1)
	for i, n := range r.World.Plan.Nodes {
		group.Go(func() error {
			if err := r.look(ctx, n.Name, filepath.Join(r.Dir, "nodes")); err != nil {
				missing[i] = fmt.Errorf("%s: %w", n.Name, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		missing[len(missing)-1] = r.views(ctx, filepath.Join(r.Dir, "openstack"))
		return nil
	})
	group.Wait()
	if err := errors.Join(missing...); err != nil {
		return errors.Join(err, os.WriteFile(filepath.Join(r.Dir, "missing.txt"), []byte(err.Error()+"\n"), 0o644))
	}
	return nil
}

// bundleScript prints a tar of one folder, $1: a node's state and its logs since $2 (seconds of the epoch). Log lines are
// taken by the time that they begin with; those that have none belong to the line before.
const bundleScript = `set -u
d=$(mktemp -d) && trap 'rm -rf "$d"' EXIT && mkdir -p "$d/$1/log" && cd "$d/$1" || exit 1
journalctl --no-pager -o short-iso-precise --since "@$2" >journal.txt 2>&1
since=$(date -d "@$2" '+%Y-%m-%d %H:%M:%S')
find /var/log -type f -newermt "@$2" ! -path '/var/log/journal/*' ! -name '*.gz' 2>/dev/null | while read -r f; do
	awk -v since="$since" '
		{ stamp = substr($0, 1, 19); sub(/T/, " ", stamp) }
		stamp ~ /^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9]$/ { stamped = 1; in_window = stamp >= since }
		!stamped { early[NR % 200] = $0; last = NR }
		stamped && in_window
		END { if (!stamped) for (i = last < 200 ? 1 : last - 199; i <= last; i++) print early[i % 200] }' "$f" >"log/$(echo "${f#/var/log/}" | tr / _)"
done
if command -v ovs-vsctl >/dev/null && ovs-vsctl --timeout=5 show >ovs-vsctl.txt 2>/dev/null; then
	for b in $(ovs-vsctl --timeout=5 list-br 2>/dev/null); do
		echo "== $b"; timeout 10 ovs-ofctl -O OpenFlow13 dump-flows "$b" || timeout 10 ovs-ofctl dump-flows "$b"
		echo "== $b, what it learned"; timeout 5 ovs-appctl fdb/show "$b"
	done >ovs-flows.txt 2>&1
fi
net() { "$@" ip addr; echo "-- rules"; "$@" ip rule; echo "-- routes"; "$@" ip route show table all; echo "-- neighbours"; "$@" ip neigh; }
{ echo "== the node itself"; net; for n in $(ip netns list | cut -d' ' -f1); do echo "== $n"; net ip netns exec "$n"; done; } >network.txt 2>&1
{ echo "== the node itself"; iptables-save; for n in $(ip netns list | cut -d' ' -f1); do echo "== $n"; ip netns exec "$n" iptables-save; done; } >iptables.txt 2>&1
command -v nft >/dev/null && nft list ruleset >nft.txt 2>&1
command -v virsh >/dev/null && timeout 10 virsh -c qemu:///system list --all >domains.txt 2>/dev/null
systemctl --no-pager --plain list-units --failed >failed-units.txt 2>&1
ps axo pid,ppid,stat,etime,rss,args >processes.txt 2>&1
find . -empty -delete
tar -c -C "$d" -f - "$1"`

// look collects a node's evidence below dir.
func (r *Run) look(ctx context.Context, name, dir string) error {
	n := r.World.Node(name)
	if n == nil {
		return errors.New("it cannot be reached")
	}
	var out, errs bytes.Buffer
	err := n.Run(ctx, node.Cmd{Args: []string{"sh", "-c", bundleScript, "look", name, strconv.FormatInt(r.Began.Unix(), 10)}, Stdout: &out, Stderr: &errs})
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.Join(node.LastLines(errs.String(), 3), "; "))
	}
	return unpack(&out, dir)
}

// unpack writes the files of a tar stream below dir, and nowhere else.
func unpack(stream io.Reader, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewReader(stream)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		name := filepath.FromSlash(h.Name)
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		f, err := root.Create(name)
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		_, err = io.Copy(f, t)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

// views writes what the APIs say of the scenario's project and of the region's agents, a file a collection.
func (r *Run) views(ctx context.Context, dir string) error {
	if r.Cloud == nil {
		return errors.New("openstack: the scenario's project was not there yet")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	project := "?project_id=" + r.Cloud.ProjectID
	var wrong []error
	for _, v := range []struct {
		file   string
		client *gophercloud.ServiceClient
		path   string
	}{
		{"servers", r.Cloud.Compute, "servers/detail"},
		{"compute-services", r.Cloud.Compute, "os-services"},
		{"hypervisors", r.Cloud.Compute, "os-hypervisors/detail"},
		{"networks", r.Cloud.Network, "networks" + project},
		{"subnets", r.Cloud.Network, "subnets" + project},
		{"ports", r.Cloud.Network, "ports" + project},
		{"routers", r.Cloud.Network, "routers" + project},
		{"floatingips", r.Cloud.Network, "floatingips" + project},
		{"security-groups", r.Cloud.Network, "security-groups" + project},
		{"agents", r.Cloud.Network, "agents"},
		{"volumes", r.Cloud.Volume, "volumes/detail"},
		{"snapshots", r.Cloud.Volume, "snapshots/detail"},
		{"volume-services", r.Cloud.Volume, "os-services"},
		{"images", r.Cloud.Image, "images"},
	} {
		if v.client == nil {
			continue
		}
		var body any
		if err := call(ctx, v.client, http.MethodGet, v.path, nil, &body); err != nil {
			wrong = append(wrong, fmt.Errorf("openstack %s: %w", v.file, err))
			continue
		}
		wrong = append(wrong, writeJSON(filepath.Join(dir, v.file+".json"), body))
		if v.file == "servers" {
			wrong = append(wrong, r.consoles(ctx, dir, body))
		}
	}
	return errors.Join(wrong...)
}

// consoles writes what the servers of a listing printed.
func (r *Run) consoles(ctx context.Context, dir string, listing any) error {
	text, err := json.Marshal(listing)
	if err != nil {
		return err
	}
	var servers struct{ Servers []struct{ ID, Name string } }
	if err := json.Unmarshal(text, &servers); err != nil {
		return err
	}
	var wrong []error
	for _, s := range servers.Servers {
		var answer struct{ Output string }
		if err := call(ctx, r.Cloud.Compute, http.MethodPost, "servers/"+s.ID+"/action", map[string]any{"os-getConsoleOutput": map[string]any{}}, &answer); err != nil {
			wrong = append(wrong, fmt.Errorf("the console of %s: %w", s.Name, err))
			continue
		}
		wrong = append(wrong, os.WriteFile(filepath.Join(dir, "console-"+filepath.Base(s.Name)+".txt"), []byte(answer.Output), 0o644))
	}
	return errors.Join(wrong...)
}

func call(ctx context.Context, client *gophercloud.ServiceClient, method, path string, body, answer any) error {
	_, err := client.Request(ctx, method, client.ServiceURL(path), &gophercloud.RequestOpts{JSONBody: body, JSONResponse: answer, OkCodes: []int{http.StatusOK}})
	return err
}

func writeJSON(file string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
