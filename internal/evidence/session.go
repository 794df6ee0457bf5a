package evidence

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// Target is a machine, and the interfaces of it to capture on.
type Target struct {
	Name       string    // the node's; "client" for the external client
	Node       node.Node // nil: a network namespace of this host
	Namespace  string    // of this host: its path; empty: the host's own
	Interfaces []Interface
}

// Session is captures under way.
type Session struct {
	Addresses map[string]string // see Capture; may be set until Stop

	name    string
	dir     string
	started time.Time
	targets []*listening

	mu      sync.Mutex
	capture *Capture // when it was stopped
}

// listening is the captures on one target.
type listening struct {
	Target
	points []Point
	local  []*tap // of the host's own interfaces, one a point; nil where it could not be opened
	ended  bool
}

const (
	startLimit = 30 * time.Second // for all captures on a node to listen
	stopLimit  = time.Minute      // for a node's captures to end and their files to come over
)

// below is where a node keeps its captures, one folder each, and unitPrefix what their units' names begin with.
const (
	below      = "/run/toastdev/captures"
	unitPrefix = "toastdev-capture-"
)

// Sweep is a shell command that removes from a node what captures left that nobody stopped.
const Sweep = `[ ! -e ` + below + ` ] || { systemctl stop '` + unitPrefix + `*'; rm -rf ` + below + `; }`

// startScript runs a tcpdump for each line of stdin (NUMBER NAMESPACE INTERFACE, where - is the node's own namespace) in
// one transient unit, and prints the numbers of those that do not listen, each with the reason. The unit ends by itself
// after a while: whoever started it may be gone. The buffer of each is a compromise between memory and bursts.
const startScript = `set -eu
unit=$1 dir=$2
rm -rf "$dir"
mkdir -p "$dir"
cd "$dir"
cat >points
systemd-run --quiet --collect --unit="$unit" --description="captures for a scenario" --property=RuntimeMaxSec=1800 --property=TimeoutStopSec=10 sh -c '
	cd "$0"
	while read -r number namespace interface; do
		set --
		[ "$namespace" = - ] || set -- ip netns exec "$namespace"
		"$@" tcpdump -Z root --immediate-mode -U --time-stamp-precision=nano -s 0 -B 4096 -n -i "$interface" -w "$number.pcap" 2>"$number.log" </dev/null &
		echo $! >"$number.pid"
	done <points
	wait' "$dir"
count=$(wc -l <points)
for _ in $(seq 300); do
	[ "$(cat *.log 2>/dev/null | grep -c -e 'listening on' -e '^tcpdump: [^l]' -e '^Cannot open')" -lt "$count" ] || break
	systemctl --quiet is-active "$unit" || break
	sleep 0.05
done
while read -r number _; do
	grep -qs 'listening on' "$number.log" || echo "$number $(tail -n 1 "$number.log" 2>/dev/null || true)"
done <points`

// stopScript ends the unit: its tcpdumps then write what they counted. A frame that comes while one ends is received, and in no
// file; it came after the capture. So before that each is asked (SIGUSR1) for its counts, until all that was received by then is
// written. Which interfaces went away in the meantime and came back, unseen, is in the file back.
const stopScript = `unit=$1 dir=$2
cd "$dir" || exit 0
for _ in $(seq 20); do
	asked=0
	for pid in *.pid; do
		! kill -s USR1 "$(cat "$pid")" 2>/dev/null || asked=$((asked+1))
	done
	sleep 0.05
	written=$(tail -qn 1 *.log | awk '/^tcpdump: [0-9]+ packets? captured, / && $2+$10 >= $5' | wc -l)
	[ "$written" -lt "$asked" ] || break
done
while read -r number namespace interface; do
	grep -q -e 'disappeared' -e 'went down' "$number.log" || continue
	if [ "$namespace" = - ]; then ip link show dev "$interface"; else ip -n "$namespace" link show dev "$interface"; fi >/dev/null 2>&1 && echo "$number"
done <points >back
systemctl stop "$unit" 2>/dev/null
:`

// Start starts captures on all targets at once, and returns when each of them listens. A single interface that went away
// before is a point that is missing; when a target cannot be captured on at all nothing is started anywhere. name is
// unique on the nodes; dir is made, and gets the files.
func Start(ctx context.Context, name, dir string, targets []Target) (*Session, error) {
	s := &Session{name: name, dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	files := map[string]bool{}
	for _, t := range targets {
		l := &listening{Target: t}
		for _, i := range t.Interfaces {
			l.points = append(l.points, Point{Node: t.Name, Interface: i, File: fileName(files, t.Name, i)})
		}
		if len(l.points) > 0 {
			s.targets = append(s.targets, l)
		}
	}
	if len(s.targets) == 0 {
		return nil, fault.New(fault.Invalid, "capture %s: there is nothing to capture on", name)
	}
	var group errgroup.Group
	for _, l := range s.targets {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, startLimit)
			defer cancel()
			if l.Node == nil {
				return l.listenHere(dir)
			}
			return l.listen(ctx, name)
		})
	}
	if err := group.Wait(); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
		defer cancel()
		s.finish(ctx)
		return nil, fmt.Errorf("capture %s: %w", name, err)
	}
	s.started = time.Now()
	return s, nil
}

var unfit = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// fileName is a name for a point's file that no other has: cmp1_qrouter-1a2b3c4d_qr-5e6f7a8b-9c.pcap.
func fileName(taken map[string]bool, target string, i Interface) string {
	parts := []string{target, i.Name}
	if i.Namespace != "" {
		parts = []string{target, short(path.Base(i.Namespace)), i.Name}
	}
	base := unfit.ReplaceAllString(strings.Join(parts, "_"), "_")
	name := base + ".pcap"
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s_%d.pcap", base, n)
	}
	taken[name] = true
	return name
}

func (l *listening) listen(ctx context.Context, name string) error {
	var lines bytes.Buffer
	for i, p := range l.points {
		fmt.Fprintln(&lines, i, dash(p.Namespace), p.Name)
	}
	out, err := node.Input(ctx, l.Node, lines.Bytes(), "sh", "-c", startScript, "capture", unitPrefix+name, path.Join(below, name))
	if err != nil {
		return err
	}
	failed := 0
	for line := range strings.Lines(string(out)) {
		number, reason, _ := strings.Cut(strings.TrimSpace(line), " ")
		if i, err := strconv.Atoi(number); err == nil && i < len(l.points) {
			l.points[i].Missing = "not captured: " + strings.TrimPrefix(reason, "tcpdump: ")
			failed++
		}
	}
	if failed == len(l.points) {
		return &fault.Error{Code: fault.Failed, Node: l.Name, Unit: unitPrefix + name, Message: l.points[0].place() + ": " + l.points[0].Missing}
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (l *listening) listenHere(dir string) error {
	l.local = make([]*tap, len(l.points))
	for i, p := range l.points {
		var err error
		if l.local[i], err = openTap(l.Namespace, p.Name, filepath.Join(dir, p.File)); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		l.points[i].MAC = l.local[i].mac
	}
	return nil
}

// Stop ends the captures and brings their files to the capture's folder, with a capture.json that Load reads. A node that
// cannot be asked any more makes its points missing; that is no error. When ctx ends before, the rest is left to another
// Stop. Stop may be called again: it returns the same.
func (s *Session) Stop(ctx context.Context) (*Capture, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.capture != nil {
		return s.capture, nil
	}
	stopped := time.Now()
	s.finish(ctx)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("stop the capture %s: %w", s.name, err)
	}
	c := &Capture{Name: s.name, Addresses: s.Addresses, Started: s.started, Stopped: stopped, Dir: s.dir}
	for _, l := range s.targets {
		c.Points = append(c.Points, l.points...)
	}
	if err := c.save(); err != nil {
		return nil, err
	}
	s.capture = c
	return c, nil
}

// finish ends all captures that did not end yet and fills in their points.
func (s *Session) finish(ctx context.Context) {
	var group sync.WaitGroup
	for _, l := range s.targets {
		if l.ended {
			continue
		}
		group.Go(func() {
			var err error
			if l.Node == nil {
				l.endHere()
			} else {
				limited, cancel := context.WithTimeout(ctx, stopLimit)
				defer cancel()
				err = l.end(limited, s.name, s.dir)
			}
			if err != nil && ctx.Err() != nil {
				return
			}
			l.ended = true
			for i := range l.points {
				p := &l.points[i]
				if err != nil && p.Missing == "" {
					p.Missing = "its file was not to be had: " + firstLine(err)
				}
				p.complete(s.dir)
			}
		})
	}
	group.Wait()
}

func (l *listening) endHere() {
	for i, t := range l.local {
		if t == nil {
			l.points[i].Missing = "it was not opened"
			continue
		}
		dropped, err := t.close()
		l.points[i].Dropped = dropped
		if err != nil {
			l.points[i].Missing = err.Error()
		}
	}
}

func (l *listening) end(ctx context.Context, name, dir string) error {
	folder := path.Join(below, name)
	if _, err := node.Output(ctx, l.Node, "sh", "-c", stopScript, "capture", unitPrefix+name, folder); err != nil {
		return err
	}
	texts, err := l.pull(ctx, folder, dir)
	if err != nil {
		return err
	}
	// What does not go now goes with the node's next boot.
	_, _ = node.Output(ctx, l.Node, "rm", "-rf", folder)
	for i := range l.points {
		l.points[i].closing(texts[fmt.Sprint(i, ".log")])
	}
	for number := range strings.FieldsSeq(texts["back"]) {
		if i, err := strconv.Atoi(number); err == nil && i < len(l.points) {
			l.points[i].Missing = "the interface went away and came back during the capture"
		}
	}
	return nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// pull brings a node's folder over: the pcap files to dir, and what else is in it as texts by name.
func (l *listening) pull(ctx context.Context, folder, dir string) (map[string]string, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(node.Pull(ctx, l.Node, folder, w)) }()
	defer r.Close()
	texts := map[string]string{}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if err == io.EOF {
			// The stream's own end: what tar says of it.
			_, err = io.Copy(io.Discard, r)
			return texts, err
		}
		if err != nil {
			return nil, err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		name := path.Base(header.Name)
		number, found := strings.CutSuffix(name, ".pcap")
		if !found {
			text, err := io.ReadAll(archive)
			if err != nil {
				return nil, err
			}
			texts[name] = string(text)
			continue
		}
		i, err := strconv.Atoi(number)
		if err != nil || i >= len(l.points) {
			continue
		}
		if err := write(filepath.Join(dir, l.points[i].File), archive); err != nil {
			return nil, err
		}
	}
}

func write(file string, from io.Reader) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// sofar is what a tcpdump says when it is asked.
var sofar = regexp.MustCompile(`(?m)^tcpdump: (\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped by kernel`)

var count = regexp.MustCompile(`(?m)^(\d+) packets? (captured|received by filter|dropped by kernel|dropped by interface)`)

// closing takes in what tcpdump wrote when it ended:
//
//	3 packets captured
//	3 packets received by filter
//	0 packets dropped by kernel
//
// Those that it received and did not come to write are lost as well, unless it said before the end that it had written all:
// then they came later. What an interface itself dropped never passed it.
func (p *Point) closing(log string) {
	counts := map[string]int{}
	for _, m := range count.FindAllStringSubmatch(log, -1) {
		counts[m[2]], _ = strconv.Atoi(m[1])
	}
	if _, closed := counts["captured"]; !closed && p.Missing == "" {
		p.Missing = "tcpdump did not end as it should"
		if last := node.LastLines(log, 1); len(last) > 0 {
			p.Missing += ": " + last[0]
		}
	}
	p.Dropped = lost(counts["captured"], counts["received by filter"], counts["dropped by kernel"])
	for _, m := range sofar.FindAllStringSubmatch(log, -1) {
		captured, _ := strconv.Atoi(m[1])
		received, _ := strconv.Atoi(m[2])
		dropped, _ := strconv.Atoi(m[3])
		p.Dropped = min(p.Dropped, lost(captured, received, dropped))
	}
}

// lost is how many frames did not come to be written. What the kernel dropped is among what it received.
func lost(captured, received, dropped int) int { return max(dropped, received-captured) }

// complete counts the frames in the point's file, and says what is missing.
func (p *Point) complete(dir string) {
	n, err := frames(filepath.Join(dir, p.File), func(time.Time, []byte) {})
	p.Frames = n
	if _, gone := os.Stat(filepath.Join(dir, p.File)); gone != nil {
		p.File = ""
	}
	if err != nil && p.Missing == "" {
		p.Missing = err.Error()
	}
	if p.Dropped > 0 && p.Missing == "" {
		p.Missing = fmt.Sprintf("%d frames passed that are not in %s", p.Dropped, p.File)
	}
}

const index = "capture.json"

func (c *Capture) save() error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.Dir, index), append(data, '\n'), 0o644)
}

// Load is the capture in a folder.
func Load(dir string) (*Capture, error) {
	data, err := os.ReadFile(filepath.Join(dir, index))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "no capture in %s: it has no %s", dir, index)
	}
	if err != nil {
		return nil, err
	}
	c := &Capture{Dir: dir}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", filepath.Join(dir, index), err)
	}
	for _, p := range c.Points {
		if p.File != "" && !filepath.IsLocal(p.File) {
			return nil, fault.New(fault.Invalid, "%s: the file %q is not in its folder", filepath.Join(dir, index), p.File)
		}
	}
	return c, nil
}

// Matching is the points of a node whose interface matches a pattern: tun0, fg-*, or within a namespace fip-*/fg-*. A
// pattern without a namespace is for the interface in whatever namespace.
func (c *Capture) Matching(target, pattern string) []Point {
	namespace, name, within := strings.Cut(pattern, "/")
	if !within {
		namespace, name = "*", pattern
	}
	return slices.DeleteFunc(slices.Clone(c.Points), func(p Point) bool {
		inNamespace, _ := path.Match(namespace, p.Namespace)
		named, _ := path.Match(name, p.Name)
		return p.Node != target || !named || !inNamespace
	})
}

// Saw counts the frames in a point's file that a pcap filter lets through, by tcpdump on a node. With inside, the filter
// looks at what VXLAN carries, and at that alone.
func (c *Capture) Saw(ctx context.Context, n node.Node, p Point, filter string, inside bool) (int, error) {
	if p.File == "" {
		return 0, fault.New(fault.Failed, "capture %s: %s has no file: %s", c.Name, p, p.Missing)
	}
	var data []byte
	var err error
	if file := filepath.Join(c.Dir, p.File); inside {
		data, err = insides(file)
	} else {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return 0, err
	}
	var out, errs bytes.Buffer
	err = n.Run(ctx, node.Cmd{Args: []string{"tcpdump", "-n", "-r", "-", "-w", "-", filter}, Stdin: bytes.NewReader(data), Stdout: &out, Stderr: &errs})
	if _, ran := errors.AsType[*node.ExitError](err); ran {
		last := node.LastLines(errs.String(), 1)
		return 0, fault.New(fault.Invalid, "the filter %q: %s", filter, strings.TrimPrefix(strings.Join(last, ""), "tcpdump: "))
	}
	if err != nil {
		return 0, err
	}
	return countFrames(&out)
}
