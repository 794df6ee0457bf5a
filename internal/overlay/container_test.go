package overlay

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners/docker"
)

var (
	container = flag.String("container", "", "a running container of a node image, which the tests of real code work in: docker run -d --entrypoint sleep IMAGE infinity")
	tree      = flag.String("tree", "", "a repository of neutron's that they lay")
	ref       = flag.String("ref", "", "which of its commits; its work tree without")
	kills     = flag.Int("kills", 20, "how often they kill what they run there")
)

const (
	neutronRoot = "/usr/lib/python3/dist-packages/neutron"
	pidFile     = "/run/overlay-test.pid"
)

// driven is a container as a node that notes the process of each command.
type driven struct{ node.Node }

func (d driven) Run(ctx context.Context, cmd node.Cmd) error {
	cmd.Args = append([]string{"sh", "-c", `echo $$ >` + pidFile + `; exec "$@"`, "run"}, cmd.Args...)
	return d.Node.Run(ctx, cmd)
}

func real(t *testing.T) driven {
	t.Helper()
	if *container == "" && os.Getenv("OVERLAY_CONTAINER") == "" {
		t.Skip("no container of a node image is given (-container)")
	}
	p, err := docker.New(docker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return driven{p.Node(*container+os.Getenv("OVERLAY_CONTAINER"), "cmp1")}
}

// fingerprint is all of the code on a node, or some of its folders: content, mode, owner, links and times of every file,
// caches too.
func fingerprint(t *testing.T, n node.Node, folders ...string) string {
	t.Helper()
	if folders == nil {
		folders = []string{"neutron", "neutron-*.egg-info"}
	}
	out, err := node.Output(t.Context(), n, "sh", "-c", `cd /usr/lib/python3/dist-packages
for d in `+strings.Join(folders, " ")+`; do
  find $d -type f -printf '%p %m %U:%G %n %T@\n' | sort
  find $d -type d -printf '%p %m %U:%G\n' | sort
  find $d -type f -exec sha256sum {} + | sort
done`)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// some is a want that changes so many files of the real code, the largest of its agents, and adds one.
func some(t *testing.T, n node.Node, count int, mark string) Want {
	t.Helper()
	base, err := Installed(t.Context(), n, "neutron", neutronRoot)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for p := range base.Files {
		if strings.HasPrefix(p, "neutron/agent/l3/") && strings.HasSuffix(p, ".py") {
			paths = append(paths, p)
		}
	}
	for p := range base.Files {
		if strings.HasPrefix(p, "neutron/db/") && strings.HasSuffix(p, "_db.py") {
			paths = append(paths, p)
		}
	}
	slices.SortFunc(paths, func(a, b string) int {
		if l := strings.Contains(b, "/l3/agent.py"); l != strings.Contains(a, "/l3/agent.py") {
			return map[bool]int{true: 1, false: -1}[l]
		}
		return strings.Compare(a, b)
	})
	paths = paths[:count]
	contents, err := Fetch(t.Context(), n, "neutron", neutronRoot, paths...)
	if err != nil {
		t.Fatal(err)
	}
	w := Want{Component: "neutron", Root: neutronRoot, Layers: []Layer{{"patch " + mark, mark}}, Files: map[string]File{}}
	for p, content := range contents {
		w.Files[p] = File{Content: append(content, "# "+mark+"\n"...), Base: base.Files[p]}
	}
	return w
}

func TestRealCodeTimes(t *testing.T) {
	n := real(t)
	before := fingerprint(t, n)
	for _, count := range []int{1, 50} {
		for range 3 {
			w := some(t, n, count, "toast")
			o, err := Lay(t.Context(), n, w)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Lay(t.Context(), n, w)
			if err != nil || len(again.Changed) > 0 {
				t.Fatal(again, err)
			}
			began := time.Now()
			if _, err := Read(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			read := time.Since(began).Seconds()
			off, err := Lift(t.Context(), n, "neutron")
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d files: lay %.3f s, again %.3f s, read %.3f s, lift %.3f s", len(o.Changed), o.Seconds, again.Seconds, read, off.Seconds)
		}
	}
	if after := fingerprint(t, n); after != before {
		t.Errorf("differs:\n%s", differ(before, after))
	}
}

func TestRealTree(t *testing.T) {
	n := real(t)
	if *tree == "" {
		t.Skip("no tree is given (-tree)")
	}
	before := fingerprint(t, n)
	began := time.Now()
	code, err := OpenTree(t.Context(), Source{Component: "neutron", Path: *tree, Ref: *ref})
	if err != nil {
		t.Fatal(err)
	}
	opened := time.Since(began).Seconds()
	base, err := Installed(t.Context(), n, "neutron", neutronRoot)
	if err != nil {
		t.Fatal(err)
	}
	asked := time.Since(began).Seconds() - opened
	w, d, err := code.Want(base, "zed")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %+v", code, d)
	o, err := Lay(t.Context(), n, w)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := node.Output(t.Context(), n, "python3", "-c", "import neutron.agent.l3.agent, neutron.plugins.ml2.plugin"); err != nil {
		t.Errorf("%s: %v", out, err)
	}
	off, err := Lift(t.Context(), n, "neutron")
	if err != nil {
		t.Fatal(err)
	}
	if err := Settle(t.Context(), n, "neutron"); err != nil {
		t.Fatal(err)
	}
	t.Logf("tree read %.3f s, node asked %.3f s; lay of %d files %.3f s, lift %.3f s", opened, asked, len(o.Changed), o.Seconds, off.Seconds)
	if after := fingerprint(t, n); after != before {
		t.Errorf("differs:\n%s", differ(before, after))
	}
}

// TestRealCodeKilled kills the program on the node, or who drives it, at any moment, again and again.
func TestRealCodeKilled(t *testing.T) {
	n := real(t)
	a, b := some(t, n, 12, "a"), some(t, n, 20, "b")
	if driver := os.Getenv("OVERLAY_DRIVER"); driver != "" {
		do := map[string]func() error{
			"a":    func() error { _, err := Lay(t.Context(), n, a); return err },
			"b":    func() error { _, err := Lay(t.Context(), n, b); return err },
			"lift": func() error { _, err := Lift(t.Context(), n, "neutron"); return err },
		}[driver]
		os.Stdout.WriteString("ready\n")
		if err := do(); err != nil {
			t.Fatal(err)
		}
		return
	}
	whole := fingerprint(t, n)
	where := []string{"neutron/agent/l3", "neutron-*.egg-info"} // what a and b change is there
	before := fingerprint(t, n, where...)
	states := map[string]string{}
	for mark, w := range map[string]Want{"a": a, "b": b} {
		if _, err := Lay(t.Context(), n, w); err != nil {
			t.Fatal(err)
		}
		states[mark] = sources(fingerprint(t, n, where...))
	}
	if _, err := Lift(t.Context(), n, "neutron"); err != nil {
		t.Fatal(err)
	}
	states[""] = sources(before)
	name := func() string {
		got := sources(fingerprint(t, n, where...))
		for mark, state := range states {
			if state == got {
				return "state " + mark
			}
		}
		return "none:\n" + differ(states[""], got)
	}
	tally := map[string]int{}
	verbs := []string{"a", "b", "lift"}
	for i := range *kills {
		verb := verbs[rand.IntN(3)]
		delay := time.Duration(rand.Int64N(int64(600 * time.Millisecond)))
		who := "program"
		if i%4 == 3 {
			who = "driver"
		}
		cmd := exec.Command(os.Args[0], "-test.run", "^TestRealCodeKilled$")
		cmd.Env = append(os.Environ(), "OVERLAY_DRIVER="+verb, "OVERLAY_CONTAINER="+*container)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, _ = out.Read(make([]byte, 10))
		time.Sleep(delay) // any moment
		if who == "driver" {
			_ = cmd.Process.Kill()
		} else {
			_, _ = node.Output(t.Context(), n.Node, "sh", "-c", `p=$(cat `+pidFile+`); grep -q -- -I /proc/$p/cmdline && kill -9 $p`)
		}
		ended := cmd.Wait()
		laid, err := Mend(t.Context(), n)
		if err != nil {
			t.Fatalf("%s of %s killed after %s: %v", who, verb, delay, err)
		}
		state := name()
		if strings.HasPrefix(state, "none") {
			t.Fatalf("%s of %s killed after %s: %+v: %s", who, verb, delay, laid, state)
		}
		tally[fmt.Sprintf("%s of %s killed: %v, %s", who, verb, ended != nil, state)]++
		t.Logf("%s of %s killed after %s: %s", who, verb, delay, state)
	}
	if _, err := Lift(t.Context(), n, "neutron"); err != nil {
		t.Fatal(err)
	}
	if err := Settle(t.Context(), n, "neutron"); err != nil {
		t.Fatal(err)
	}
	if after := fingerprint(t, n); after != whole {
		t.Errorf("differs:\n%s", differ(whole, after))
	}
	t.Logf("%d kills: %v", *kills, tally)
}

// sources is a fingerprint's part of sources, without times: those of what is laid are the moment's.
func sources(print string) string {
	var kept []string
	for line := range strings.Lines(print) {
		f := strings.Fields(line)
		if strings.HasSuffix(line, ".pyc\n") || strings.Contains(f[0], "__pycache__") {
			continue
		}
		if len(f) == 5 {
			f = f[:4]
		}
		kept = append(kept, strings.Join(f, " "))
	}
	return strings.Join(kept, "\n")
}
