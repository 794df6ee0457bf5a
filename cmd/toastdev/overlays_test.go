package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestOverlays lays patches and code over a region of its own and takes them off. In TestRegion it is a part of the one region.
func TestOverlays(t *testing.T) {
	if os.Getenv("TOASTDEV_TEST_OVERLAYS") == "" {
		t.Skip("TestRegion has it as a part; TOASTDEV_TEST_OVERLAYS=1 runs it on a region of its own, which stays")
	}
	r := &region{T: t, binary: binary(t), home: testHome(t), name: "overlays"}
	r.up("--no-canary")
	r.lay("patch", "revert")
	r.lay("code", "revert")
	r.overlays()
}

// overlays is what patches and own code do to a region. At its end nothing is laid.
func (r *region) overlays() {
	before := r.installed()
	r.part("patches are laid, seen at work, and taken off to the byte", func() { r.patches(before) })
	r.part("a kill in apply or revert leaves nothing half-made", func() { r.killedOverlays(before) })
	r.part("a node that goes away during apply changes nothing", func() { r.goneNode(before) })
	r.part("what does not fit is refused before anything changes", func() { r.refused(before) })
	r.part("a source tree is laid, watched, and taken off to the byte", func() { r.code(before) })
	r.part("bisect finds the patch", func() { r.bisects(before) })
	r.part("a package of our own is one line of a topology", r.ownPackage)
}

// installed is, of all that is installed of OpenStack's code, by node a line with a hash of contents, and one with a hash of
// modes, owners and files' times, and what is kept of overlays.
func (r *region) installed() map[string]string {
	r.Helper()
	sums := map[string]string{}
	for _, n := range r.status().Nodes {
		sums[n.Name] = r.on(n.Name, `cd /usr/lib/python3/dist-packages; set -- neutron nova keystone glance cinder placement
find "$@" -name __pycache__ -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum
find "$@" -name __pycache__ -prune -o -type d -printf '%p %m %u %g\n' -o -printf '%p %m %u %g %T@ %s %l\n' | sort | sha256sum
ls -A /var/lib/toastdev/overlay 2>/dev/null; true`)
	}
	return sums
}

// asBefore says whether the installed code is.
func (r *region) asBefore(before map[string]string) {
	r.Helper()
	for name, sum := range r.installed() {
		if sum != before[name] {
			r.Errorf("the code on %s is not as its packages have it", name)
		}
	}
}

type overlaidJSON struct {
	Changed  int
	Overlays []struct{ Component, Patch, Source string }
	Nodes    []struct {
		Name             string
		Files, Restarted []string
	}
	Notes  []string
	Phases []struct {
		Name    string
		Seconds float64
	}
}

func (r *region) lay(args ...string) (done overlaidJSON) {
	r.Helper()
	r.decode(&done, 6*time.Minute, args...)
	var times []string
	for _, p := range done.Phases {
		times = append(times, fmt.Sprintf("%s %.1f s", p.Name, p.Seconds))
	}
	r.Logf("%s: %d files; %s", strings.Join(args, " "), done.Changed, strings.Join(times, ", "))
	return done
}

type patchJSON struct{ Name, Component, Release, State, Detail string }

func (r *region) patchList() []patchJSON {
	r.Helper()
	var list struct{ Patches []patchJSON }
	r.decode(&list, time.Minute, "patch", "list", "--release", "zed")
	if len(list.Patches) == 0 {
		r.Fatal("there are no patches")
	}
	return list.Patches
}

func (r *region) patches(before map[string]string) {
	pids := `for u in neutron-server neutron-openvswitch-agent neutron-l3-agent nova-compute nova-api keystone glance-api; do systemctl show -p MainPID --value $u; done`
	was := map[string][]string{"ctl": strings.Fields(r.on("ctl", pids)), "cmp1": strings.Fields(r.on("cmp1", pids))}
	done := r.lay("patch", "apply")
	for node, want := range map[string]string{ // by unit as above: r restarted, - not
		"ctl": "- - - - r r -", "cmp1": "- - r r - - -",
	} {
		is := strings.Fields(r.on(node, pids))
		for i, expected := range strings.Fields(want) {
			if (is[i] != was[node][i]) != (expected == "r") {
				r.Errorf("%s: unit %d of %q: process %s before, %s after", node, i+1, pids, was[node][i], is[i])
			}
		}
	}
	if len(done.Overlays) != 4 || len(done.Nodes) != 4 {
		r.Errorf("%+v", done)
	}
	for _, p := range r.patchList() {
		if p.State != "applied" || p.Detail != "" {
			r.Errorf("%s is %s: %s", p.Name, p.State, p.Detail)
		}
	}
	if again := r.lay("patch", "apply"); again.Changed != 0 || len(again.Nodes) != 0 {
		r.Errorf("apply again: %+v", again)
	}
	for _, s := range r.scenarios("patch-*") {
		if s.Verdict != "pass" {
			r.Errorf("%s: %s: %s: expected %s, seen %s", s.Name, s.Reason, s.Command, s.Expected, s.Seen)
		}
	}
	if part := r.lay("patch", "revert", "fip-timing", "--node", "cmp1"); part.Changed == 0 || len(part.Nodes) != 1 || !slices.Equal(part.Nodes[0].Restarted, []string{"neutron-l3-agent"}) {
		r.Errorf("revert on one node: %+v", part)
	}
	if done := r.lay("patch", "revert"); len(done.Overlays) != 0 {
		r.Errorf("%+v", done)
	}
	r.asBefore(before)
}

// killedOverlays kills apply and revert at several moments; the next run finishes what it began, or undoes it.
func (r *region) killedOverlays(before map[string]string) {
	kill := func(after time.Duration, args ...string) {
		ctx, cancel := context.WithTimeout(context.Background(), after)
		defer cancel()
		r.command(ctx, args...).Run()
	}
	for _, after := range []time.Duration{150 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 2 * time.Second} {
		kill(after, "patch", "apply", "token-audit", "fip-timing")
	}
	r.lay("patch", "apply", "token-audit", "fip-timing")
	laid := r.installed()
	kill(300*time.Millisecond, "patch", "revert")
	r.lay("patch", "apply", "token-audit", "fip-timing")
	for name, sum := range r.installed() {
		if contents, _, _ := strings.Cut(sum, "\n"); !strings.HasPrefix(laid[name], contents) {
			r.Errorf("%s: a revert that was killed, then apply: the code is another", name)
		}
	}
	// While it lays, and when all is off but units are still to be restarted.
	for _, after := range []time.Duration{300 * time.Millisecond, 400 * time.Millisecond} {
		r.lay("patch", "apply", "token-audit", "fip-timing")
		kill(after, "patch", "revert")
		r.lay("patch", "revert")
		r.asBefore(before)
	}
}

// goneNode cuts a node's power before an apply.
func (r *region) goneNode(before map[string]string) {
	container := r.container("cmp2")
	r.engine("kill", "-s", "KILL", container)
	_, errs, err := r.run(3*time.Minute, "patch", "apply", "fip-timing")
	if err == nil || !strings.Contains(errs, "cmp2") {
		r.Errorf("apply with a node that is gone: %v: %s", err, tail(errs, 5))
	}
	r.Logf("%s", tail(errs, 5))
	r.up("--no-canary")
	r.healthy()
	r.asBefore(before)
}

// project is a folder with patches of the user's own for keystone.
func (r *region) project(patches map[string]string, series ...string) string {
	r.Helper()
	dir := r.TempDir()
	files := map[string]string{"toastdev.yaml": "", "patches/zed/keystone/series": strings.Join(series, "\n") + "\n"}
	for name, diff := range patches {
		files["patches/zed/keystone/"+name] = diff
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			r.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			r.Fatal(err)
		}
	}
	return dir
}

// entry is a patch of our own.
func entry(what, diff string) string {
	return fmt.Sprintf("Description: %s\n for a test\nOrigin: toastdev\nLast-Update: 2026-01-01\n---\n%s", what, diff)
}

// newFile is a diff that makes a file of one line.
func newFile(path, line string) string {
	return fmt.Sprintf("--- /dev/null\n+++ b/%s\n@@ -0,0 +1 @@\n+%s\n", path, line)
}

// in runs the rest of a part in a folder.
func (r *region) in(dir string) func() {
	old := r.dir
	r.dir = dir
	return func() { r.dir = old }
}

func (r *region) refused(before map[string]string) {
	for name, c := range map[string]struct{ diff, says string }{
		"misfit": {"--- a/keystone/version.py\n+++ b/keystone/version.py\n@@ -1,1 +1,1 @@\n-no such line\n+x\n", "keystone/misfit conflicts"},
		"syntax": {newFile("keystone/toast_new.py", "def broken(:"), "toast_new.py:1:"},
		"leaves": {newFile("keystone/../nova/x.py", "x = 1"), "leaves the tree"},
		"isn-t":  {"no diff at all\n", "no diff"},
	} {
		leave := r.in(r.project(map[string]string{name + ".patch": entry(name, c.diff)}, name+".patch"))
		_, errs, err := r.run(time.Minute, "patch", "apply")
		if err == nil || !strings.Contains(errs, c.says) {
			r.Errorf("%s: %v: %s", name, err, errs)
		}
		leave()
	}
	r.on("ctl", "echo '# by hand' >>/usr/lib/python3/dist-packages/keystone/token/provider.py")
	_, errs, err := r.run(time.Minute, "patch", "apply", "token-audit")
	if err == nil || !strings.Contains(errs, "provider.py") {
		r.Errorf("a file that was edited by hand: %v: %s", err, errs)
	}
	dir := r.project(nil)
	leave := r.in(dir)
	r.must(time.Minute, "patch", "new", "by-hand", "--component", "keystone", "--node", "ctl", "-m", "an edit on a node")
	leave()
	if made, err := os.ReadFile(filepath.Join(dir, "patches/zed/keystone/by-hand.patch")); err != nil || !strings.Contains(string(made), "\n+# by hand\n") || regexp.MustCompile(`(?m)^-[^-]`).Match(made) {
		r.Errorf("the patch of what was edited by hand: %v\n%s", err, made)
	}
	r.on("ctl", "cd /usr/lib/python3/dist-packages/keystone/token && t=$(stat -c %y provider.py) && sed -i '$d' provider.py")
	var status struct{ Code []any }
	r.decode(&status, time.Minute, "code", "status")
	if len(status.Code) != 0 {
		r.Errorf("something is laid: %v", status.Code)
	}
	for name, sum := range r.installed() {
		if name != "ctl" && sum != before[name] {
			r.Errorf("the code on %s changed", name)
		}
	}
	before["ctl"] = r.installed()["ctl"] // the file that was edited and put back has another time
}

// tree fetches a component's code from a node and makes a repository of it, as a user has one of his fork.
func (r *region) tree(component string) string {
	r.Helper()
	dir := r.TempDir()
	out := r.must(2*time.Minute, "exec", "ctl", "--", "tar", "-c", "-C", "/usr/lib/python3/dist-packages", "--exclude=__pycache__", component)
	for t := tar.NewReader(strings.NewReader(out)); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o755)
		} else if h.Typeflag == tar.TypeReg {
			var content []byte
			if content, err = io.ReadAll(t); err == nil {
				err = os.WriteFile(path, content, 0o644)
			}
		}
		if err != nil {
			r.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "setup.cfg"), []byte("[metadata]\nname = "+component+"\n"), 0o644); err != nil {
		r.Fatal(err)
	}
	r.git(dir, "init", "-q")
	r.git(dir, "add", "-A")
	r.git(dir, "commit", "-q", "-m", "as installed")
	return dir
}

func (r *region) git(dir string, args ...string) string {
	r.Helper()
	out, err := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=test", "-c", "user.email=test@example.org"}, args...)...).CombinedOutput()
	if err != nil {
		r.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// planned is the resources that up would change.
func (r *region) planned() []string {
	r.Helper()
	var plan struct{ Changes []struct{ Resource string } }
	r.decode(&plan, time.Minute, "plan")
	var resources []string
	for _, c := range plan.Changes {
		resources = append(resources, c.Resource)
	}
	return resources
}

// said is what a program says while it runs.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (r *region) code(before map[string]string) {
	dir := r.tree("keystone")
	file := filepath.Join(dir, "keystone", "token", "provider.py")
	original, err := os.ReadFile(file)
	if err != nil {
		r.Fatal(err)
	}
	save := func(text string) {
		if err := os.WriteFile(file, append(slices.Clone(original), text...), 0o644); err != nil {
			r.Fatal(err)
		}
	}
	save("\n# edit 0\n")
	done := r.lay("code", "apply", "keystone="+dir)
	if len(done.Nodes) != 1 || len(done.Nodes[0].Files) != 1 || !slices.Equal(done.Nodes[0].Restarted, []string{"keystone"}) {
		r.Errorf("one file differs: %+v", done)
	}
	if _, errs, err := r.run(time.Minute, "code", "apply", "nova="+dir); err == nil || !strings.Contains(errs, `"keystone"`) {
		r.Errorf("a tree of another component: %v: %s", err, errs)
	}

	ctx, cancel := context.WithCancel(context.Background())
	watch := r.command(ctx, "code", "watch", "keystone", "-o", "json")
	watch.Cancel = func() error { return watch.Process.Signal(os.Interrupt) }
	out, err := watch.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	var errs said
	watch.Stderr = &errs
	if err := watch.Start(); err != nil {
		r.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			lines <- scan.Text()
		}
		close(lines)
	}()
	r.eventually(time.Minute, "the tree to be watched", func() error {
		if !strings.Contains(errs.String(), "watch    keystone") {
			return errors.New(tail(errs.String(), 5))
		}
		return nil
	})
	live := func(text string) {
		r.Helper()
		save(text)
		select {
		case line := <-lines:
			var saved struct {
				Seconds float64
				Nodes   []struct{ Seconds float64 }
			}
			if err := json.Unmarshal([]byte(line), &saved); err != nil || len(saved.Nodes) != 1 {
				r.Fatalf("%v: %s", err, line)
			}
			r.Logf("live after %.2f s, %.2f of them its restart", saved.Seconds, saved.Nodes[0].Seconds)
			if got := r.on("ctl", "tail -n 1 /usr/lib/python3/dist-packages/keystone/token/provider.py"); got != strings.TrimSpace(text) {
				r.Errorf("the node has %q, saved is %q", got, text)
			}
		case <-time.After(time.Minute):
			r.Fatalf("a save was not seen: %s", tail(errs.String(), 10))
		}
	}
	live("\n# edit 1\n")
	live("\n# edit 2\n")
	save("\ndef broken(:\n")
	r.eventually(20*time.Second, "the syntax error to be told", func() error {
		if !strings.Contains(errs.String(), "provider.py:") {
			return errors.New(tail(errs.String(), 5))
		}
		return nil
	})
	if got := r.on("ctl", "tail -n 1 /usr/lib/python3/dist-packages/keystone/token/provider.py"); got != "# edit 2" {
		r.Errorf("after a syntax error the node has %q", got)
	}
	live("\n# edit 3\n")
	cancel()
	for range lines {
	}
	watch.Wait()

	// The tree and a patch over it, through a restart of the node, on a node that is made anew.
	r.lay("patch", "apply", "token-audit")
	if changes := r.planned(); len(changes) != 0 {
		r.Errorf("plan says %v", changes)
	}
	save("\n# edit 4\n")
	if changes := r.planned(); !slices.Equal(changes, []string{"overlay/ctl/keystone"}) {
		r.Errorf("with a file saved plan says %v", changes)
	}
	r.engine("rm", "-f", r.container("cmp2"))
	r.up("--no-canary")
	var status struct {
		Code []struct {
			Node, Component string
			Layers, Edited  []string
			Complete        bool
		}
	}
	r.decode(&status, time.Minute, "code", "status")
	if got := r.on("ctl", "tail -n 1 /usr/lib/python3/dist-packages/keystone/token/provider.py"); got != "# edit 4" {
		r.Errorf("after up the node has %q", got)
	}
	if len(status.Code) != 1 || len(status.Code[0].Layers) != 2 || !status.Code[0].Complete || len(status.Code[0].Edited) != 0 {
		r.Errorf("%+v", status)
	}
	r.lay("code", "revert")
	r.lay("patch", "revert")
	r.healthy()
	before["cmp2"] = r.installed()["cmp2"] // another container
	r.asBefore(before)
}

// bisects finds one culprit among sixteen patches, and the one that mends it, on a series of its own.
func (r *region) bisects(before map[string]string) {
	const culprit = 11
	patches := map[string]string{}
	var series []string
	for i := 1; i <= 16; i++ {
		name := fmt.Sprintf("p%02d.patch", i)
		line := fmt.Sprintf("NUMBER = %d", i)
		if i == culprit {
			line = "BROKEN = True"
		}
		patches[name] = entry(fmt.Sprintf("change %d", i), newFile(fmt.Sprintf("keystone/toast_%02d.py", i), line))
		series = append(series, name)
	}
	dir := r.project(patches, series...)
	defer r.in(dir)()
	script := filepath.Join(dir, "broken.txtar")
	if err := os.WriteFile(script, []byte("# broken: no code of keystone says that it is broken\n\n! exec $control1 -- grep -r BROKEN /usr/lib/python3/dist-packages/keystone --include toast_*.py\napi GET identity /users\n"), 0o644); err != nil {
		r.Fatal(err)
	}
	var found struct {
		Culprit string
		Runs    []struct {
			Changes int
			Verdict string
			Seconds float64
		}
		Seconds float64
	}
	r.decode(&found, 10*time.Minute, "patch", "bisect", "--component", "keystone", "--scenario", script)
	r.Logf("%+v", found)
	if found.Culprit != fmt.Sprintf("keystone/p%02d", culprit) || len(found.Runs) != 6 {
		r.Errorf("found %s in %d runs", found.Culprit, len(found.Runs))
	}
	if _, errs, err := r.run(5*time.Minute, "patch", "bisect", "--component", "keystone", "--scenario", script, "--bad", "4"); err == nil || !strings.Contains(errs, "--bad") {
		r.Errorf("ends without a culprit between them: %v: %s", err, errs)
	}
	r.asBefore(before)
}

// ownPackage switches our own Neutron plugin on and off by a topology.
func (r *region) ownPackage() {
	topology := filepath.Join(r.TempDir(), "mine.yaml")
	if err := os.WriteFile(topology, []byte("name: mine\noverlays:\n  - {package: toast-vpc}\nnodes:\n  ctl: {roles: [control]}\n  net: {roles: [network]}\n  cmp: {roles: [compute], count: 2}\n  nas: {roles: [storage]}\n"), 0o644); err != nil {
		r.Fatal(err)
	}
	list := func() string {
		out, errs, err := r.run(3*time.Minute, "openstack", "--", "extension", "list", "--network", "-f", "value", "-c", "Alias")
		if err != nil {
			r.Fatalf("%v: %s", err, errs)
		}
		return out
	}
	var up upJSON
	r.decode(&up, 10*time.Minute, "up", topology, "--no-canary")
	if up.Changed == 0 || !strings.Contains(list(), "toast-vpc") {
		r.Errorf("switched on, %d changed: %s", up.Changed, list())
	}
	r.decode(&up, 10*time.Minute, "up", "mini", "--no-canary")
	if strings.Contains(list(), "toast-vpc") {
		r.Error("the extension is still there")
	}
	if left := r.on("ctl", "ls -d /usr/lib/python3/dist-packages/toast_vpc* /etc/neutron/server.conf.d/toast-vpc.conf 2>/dev/null; mysql -NBe \"SELECT table_name FROM information_schema.tables WHERE table_name LIKE '%toast_vpc%'\"; true"); left != "" {
		r.Errorf("a trace is left: %s", left)
	}
}
