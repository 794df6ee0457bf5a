package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// region is a real environment, driven as a user drives it: by the command line alone.
type region struct {
	*testing.T
	binary, home, name string
	dir                string // where it is run; "": here
	address            string // the newcomer's server's, where it answers
}

// TestRegion brings the default region up, breaks it in the ways that are to be mended, and takes it down. Its parts
// build on one another: what one of them leaves broken fails the next.
func TestRegion(t *testing.T) {
	if testing.Short() {
		t.Skip("a real region takes minutes")
	}
	before := hostState(t)
	r := &region{T: t, binary: binary(t), home: testHome(t), name: "test"}
	defer r.end()

	r.part("up is killed at five moments and goes on", r.killed)
	r.part("up brings a region in which an instance answers", func() {
		up := r.up()
		if up.Canary.Address == "" {
			r.Fatal("up ended without a canary")
		}
	})
	r.part("up again changes nothing", func() {
		if up := r.up("--no-canary"); up.Changed != 0 {
			r.Errorf("changed %d", up.Changed)
		}
	})
	r.part("status is healthy and a second highstate changes nothing", func() {
		r.healthy()
		for _, n := range r.salt() {
			if n.States == 0 || n.Changed != 0 || n.Failed != 0 {
				r.Errorf("%s: %d states, %d changed, %d failed: %v", n.Name, n.States, n.Changed, n.Failed, n.Changes)
			}
		}
	})
	r.part("Salt mends what was damaged, and restarts that alone", r.mends)
	r.part("a node that was removed comes back alone", r.comesBack)
	r.part("overlays", r.overlays)
	r.part("the scenarios pass", r.scenariosPass)
	for _, b := range quickBreakages {
		r.seen(b)
	}
	r.part("an interrupted scenario leaves nothing", r.interrupted)
	r.part("a newcomer's server gets a floating IP and a volume", r.newcomer)
	r.part("every node restarts to the same addresses and answers", r.restarts)
	r.part("the NAS restarts under an instance, which answers again", r.nasRestarts)
	r.part("down leaves the host as it was", func() {
		r.must(time.Minute, "down", "--purge")
		if after := hostState(t); !slices.Equal(after, before) {
			r.Errorf("the host is not as it was:\n%s", difference(before, after))
		}
	})
}

// end takes the region away; after a good test that took it down there is nothing.
func (r *region) end() {
	if r.Failed() {
		r.keepLogs()
	}
	r.run(2*time.Minute, "down", "--purge")
}

// part is a part of the test; after one that failed the rest say nothing, so they do not run.
func (r *region) part(name string, f func()) {
	if !r.alone(name, f) {
		r.FailNow()
	}
}

// alone is a part that the rest do not need.
func (r *region) alone(name string, f func()) bool {
	outer := r.T
	defer func() { r.T = outer }()
	return outer.Run(name, func(t *testing.T) { r.T = t; f() })
}

// binary makes the binary as a user does.
func binary(t *testing.T) string {
	file := filepath.Join(t.TempDir(), "toastdev")
	out, err := exec.Command("go", "build", "-tags", "libvirt_dlopen", "-o", file, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return file
}

// testHome is a home of the tests' own, kept between runs for the images in it.
func testHome(t *testing.T) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(cache, "toastdev-test")
}

func (r *region) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.binary, append([]string{"--name", r.name}, args...)...)
	cmd.Env, cmd.Dir = append(os.Environ(), "TOASTDEV_HOME="+r.home), r.dir
	return cmd
}

// run runs toastdev and returns what it printed on stdout and stderr.
func (r *region) run(limit time.Duration, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := r.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// must is run that has to succeed.
func (r *region) must(limit time.Duration, args ...string) string {
	r.Helper()
	began := time.Now()
	out, errs, err := r.run(limit, args...)
	if err != nil {
		r.Fatalf("toastdev %s: %v after %.0f s\n%s\n%s", strings.Join(args, " "), err, time.Since(began).Seconds(), out, tail(errs, 40))
	}
	if seconds := time.Since(began).Seconds(); seconds > 10 {
		r.Logf("toastdev %s: %.0f s", strings.Join(args, " "), seconds)
	}
	return out
}

func (r *region) decode(into any, limit time.Duration, args ...string) {
	r.Helper()
	out := r.must(limit, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		r.Fatalf("toastdev %s: %v in %s", strings.Join(args, " "), err, out)
	}
}

type upJSON struct {
	Changed int
	Phases  []struct {
		Name    string
		Seconds float64
	}
	Canary struct{ Address string }
}

func (r *region) up(args ...string) (up upJSON) {
	r.Helper()
	r.decode(&up, 20*time.Minute, append([]string{"up", "mini"}, args...)...)
	for _, p := range up.Phases {
		r.Logf("  %-8s %6.1f s", p.Name, p.Seconds)
	}
	return up
}

type statusJSON struct {
	Healthy  bool
	Warnings []string
	Nodes    []struct {
		Name            string
		Addresses, MACs map[string]string
		Memory          int64 `json:"memory_pss_bytes"`
	}
}

func (r *region) status() (s statusJSON) {
	r.Helper()
	r.decode(&s, time.Minute, "status")
	return s
}

// healthy waits until status says so.
func (r *region) healthy() statusJSON {
	r.Helper()
	var s statusJSON
	r.eventually(4*time.Minute, "a healthy region", func() error {
		if s = r.status(); !s.Healthy {
			return fmt.Errorf("%s", strings.Join(s.Warnings, "; "))
		}
		return nil
	})
	total := int64(0)
	for _, n := range s.Nodes {
		total += n.Memory
	}
	r.Logf("memory %.2f GB", float64(total)/1e9)
	return s
}

// eventually asks until there is no error; the last one is the failure's reason.
func (r *region) eventually(limit time.Duration, what string, f func() error) {
	r.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(time.Second) {
		if err = f(); err == nil {
			return
		}
	}
	r.Fatalf("%s: not within %s: %v", what, limit, err)
}

type saltJSON struct {
	Name                    string
	States, Changed, Failed int
	Changes                 []struct{ State, Comment string }
}

func (r *region) salt(args ...string) []saltJSON {
	r.Helper()
	var result struct{ Nodes []saltJSON }
	r.decode(&result, 10*time.Minute, append([]string{"salt", "apply"}, args...)...)
	return result.Nodes
}

// on runs a shell's line on a node.
func (r *region) on(node, script string) string {
	r.Helper()
	return strings.TrimSpace(r.must(2*time.Minute, "exec", node, "--", "sh", "-c", script))
}

// osc runs the openstack client.
func (r *region) osc(args ...string) string {
	r.Helper()
	return strings.TrimSpace(r.must(3*time.Minute, append([]string{"openstack", "--"}, args...)...))
}

// killed begins an up and kills it, each time a little later; the part after it brings the region up from what is left.
func (r *region) killed() {
	for _, after := range []time.Duration{time.Second, 4 * time.Second, 12 * time.Second, 25 * time.Second, 40 * time.Second} {
		ctx, cancel := context.WithTimeout(context.Background(), after)
		out, err := r.command(ctx, "up", "mini").CombinedOutput()
		cancel()
		if ctx.Err() == nil {
			r.Fatalf("up ended by itself in %s: %v\n%s", after, err, tail(string(out), 20))
		}
	}
}

// mends damages three things behind Salt's back.
func (r *region) mends() {
	pid := func(unit string) string { return r.on("ctl", "systemctl show -p MainPID --value "+unit) }
	conductor, scheduler := pid("nova-conductor"), pid("cinder-scheduler")
	r.on("ctl", `echo "[damaged" >>/etc/cinder/cinder.conf`)
	r.on("ctl", `mysql -e "REVOKE ALL PRIVILEGES ON glance.* FROM glance@'%'"`)
	r.on("ctl", "systemctl disable --now nova-scheduler")
	for _, n := range r.salt("ctl") {
		if n.Failed > 0 {
			r.Errorf("%s: %d failed", n.Name, n.Failed)
		}
		for _, c := range n.Changes {
			r.Logf("%s: %s", c.State, c.Comment)
		}
	}
	if got := r.on("ctl", "grep -c '^.damaged' /etc/cinder/cinder.conf || true"); got != "0" {
		r.Error("cinder.conf is still damaged")
	}
	if grants := r.on("ctl", `mysql -NBe "SHOW GRANTS FOR glance@'%'"`); !strings.Contains(grants, "`glance`.*") {
		r.Errorf("the grant is not back: %s", grants)
	}
	if got := r.on("ctl", "systemctl is-enabled nova-scheduler; systemctl is-active nova-scheduler"); got != "enabled\nactive" {
		r.Errorf("nova-scheduler is %q", got)
	}
	if now := pid("nova-conductor"); now != conductor {
		r.Error("nova-conductor, which has nothing to do with it, was restarted")
	}
	if now := pid("cinder-scheduler"); now == scheduler {
		r.Error("cinder-scheduler was not restarted with its mended configuration")
	}
}

// comesBack removes the network node's container by the engine's own client.
func (r *region) comesBack() {
	container := r.container("net")
	others := r.engine("ps", "-q", "--filter", "label=toastdev.environment="+r.name)
	r.engine("rm", "-f", container)
	var plan struct {
		Changes []struct{ Resource, Action string }
	}
	r.decode(&plan, time.Minute, "plan")
	if len(plan.Changes) != 1 || plan.Changes[0].Action != "create" || !strings.HasSuffix(plan.Changes[0].Resource, "-net") {
		r.Errorf("plan says %v", plan.Changes)
	}
	r.up("--no-canary")
	for _, id := range strings.Fields(others) {
		if id != container && !strings.Contains(r.engine("ps", "-q"), id) {
			r.Errorf("container %s, which was not removed, was made anew", id)
		}
	}
	r.healthy()
}

type scenarioJSON struct {
	Name, Verdict, Reason, Command, Expected, Seen string
	Seconds                                        float64
}

// scenarios runs some, all that fit when none is named, and is what came of them. The report is kept with the tests' artefacts.
func (r *region) scenarios(names ...string) []scenarioJSON {
	r.Helper()
	dir := filepath.Join(cmp.Or(os.Getenv("TOASTDEV_ARTEFACTS"), r.TempDir()), "scenarios", strings.ReplaceAll(r.Name(), "/", "-"))
	out, errs, err := r.run(15*time.Minute, append([]string{"scenario", "run", "-o", "json", "--report", dir}, names...)...)
	var ran struct{ Scenarios []scenarioJSON }
	if json.Unmarshal([]byte(out), &ran) != nil || len(ran.Scenarios) == 0 {
		r.Fatalf("scenario run: %v\n%s\n%s", err, out, tail(errs, 40))
	}
	for _, s := range ran.Scenarios {
		r.Logf("%s %s after %.1f s: %s", s.Verdict, s.Name, s.Seconds, s.Reason)
	}
	return ran.Scenarios
}

func (r *region) scenariosPass() {
	defer r.nothingOfScenarios()
	passed := map[string]bool{}
	for _, s := range r.scenarios() {
		passed[s.Name] = s.Verdict == "pass"
		if s.Verdict == "fail" {
			r.Errorf("%s: %s: expected %s, seen %s", s.Name, s.Command, s.Expected, s.Seen)
		}
	}
	for _, name := range []string{"keystone-auth", "dvr-east-west", "dvr-floating-ip", "dvr-snat", "evacuation", "volume-nas"} {
		if !passed[name] {
			r.Errorf("%s did not pass", name)
		}
	}
}

// breakage is what is done to a region on purpose, and the scenario that has to see it.
type breakage struct {
	name     string
	scenario string
	node     string                     // empty: the script is what is broken
	breaks   string                     // a shell's line on the node
	mends    string                     // its undoing
	script   func(script string) string // nil: the scenario as it is
	says     string                     // a regular expression that the reason matches
}

// quickBreakages are seen in a minute or two, each.
var quickBreakages = []breakage{
	{"a silent network node", "dvr-snat", "net",
		`systemctl stop neutron-l3-agent; ip -all netns exec sh -c "ip link show | grep -q sg- && iptables -I FORWARD -j DROP"`,
		`ip -all netns exec sh -c "iptables -D FORWARD -j DROP"; systemctl start neutron-l3-agent`, nil, "router r on net|l3|ping"},
	{"a compute's agents are stopped", "metadata-dhcp", "cmp1",
		"systemctl stop neutron-openvswitch-agent nova-compute", "systemctl start neutron-openvswitch-agent nova-compute", nil, "cmp1"},
}

// otherBreakages are all others that a scenario is proved by.
var otherBreakages = []breakage{
	{"the router is made legacy", "dvr-east-west", "", "", "", legacyRouter, "router r on cmp1|path that avoids net"},
	{"the router is made legacy", "dvr-floating-ip", "", "", "", legacyRouter, "path|cmp1"},
	{"a compute's agents are stopped", "dvr-east-west", "cmp1",
		"systemctl stop neutron-openvswitch-agent nova-compute", "systemctl start neutron-openvswitch-agent nova-compute", nil, "cmp1"},
	{"no rule is enforced", "security-group", "cmp1",
		`sed -i.kept 's/^firewall_driver = .*/firewall_driver = noop/' /etc/neutron/plugins/ml2/openvswitch_agent.ini; systemctl restart neutron-openvswitch-agent`,
		`mv /etc/neutron/plugins/ml2/openvswitch_agent.ini.kept /etc/neutron/plugins/ml2/openvswitch_agent.ini; systemctl restart neutron-openvswitch-agent`, nil, "it succeeded, and was to fail"},
	{"one active key", "keystone-auth", "ctl",
		`sed -i.kept '/^\[fernet_tokens\]/a max_active_keys = 1' /etc/keystone/keystone.conf; systemctl restart keystone`,
		`mv /etc/keystone/keystone.conf.kept /etc/keystone/keystone.conf; systemctl restart keystone`, nil, "token|401"},
	{"the L3 agent takes its routers with it", "agents-restart", "cmp1",
		`mkdir -p /run/systemd/system/neutron-l3-agent.service.d; printf '[Service]\nExecStopPost=+/bin/sh -c "for n in /run/netns/qrouter-*; do ip netns exec $${n##*/} sysctl -w net.ipv4.ip_forward=0; done"\n' >/run/systemd/system/neutron-l3-agent.service.d/broken.conf; systemctl daemon-reload`,
		`rm -r /run/systemd/system/neutron-l3-agent.service.d; systemctl daemon-reload; systemctl restart neutron-l3-agent`, nil, "outage"},
	{"the evacuator stops", "evacuation", "ctl",
		`mkdir -p /run/systemd/system/toast-evacuator-decide.service.d; printf '[Service]\nRuntimeMaxSec=20\nRestart=no\n' >/run/systemd/system/toast-evacuator-decide.service.d/broken.conf; systemctl daemon-reload`,
		`rm -r /run/systemd/system/toast-evacuator-decide.service.d; systemctl daemon-reload; systemctl stop toast-evacuator-decide; systemctl reset-failed toast-evacuator-decide`, nil, "toast-evacuator-decide on ctl is"},
	{"the fence does not answer", "evacuation", "ctl",
		"iptables -I OUTPUT -p tcp --dport 6230 -j REJECT", "iptables -D OUTPUT -p tcp --dport 6230 -j REJECT", nil, "fenc"},
	{"the NAS is away", "volume-nas", "nas", "systemctl stop cinder-volume nfs-ganesha ssh", "systemctl start ssh nfs-ganesha cinder-volume", nil, "volume on nas"},
}

func legacyRouter(script string) string {
	return regexp.MustCompile("(?m)^router .*$").ReplaceAllString(script, "$0 --distributed=false")
}

// seen breaks the region, looks that the scenario says so, and mends it.
func (r *region) seen(b breakage) {
	r.alone(b.scenario+": "+b.name, func() {
		script := b.scenario
		if b.script != nil {
			script = filepath.Join(r.TempDir(), b.scenario+".txtar")
			text, err := os.ReadFile(filepath.Join("..", "..", "scenarios", b.scenario+".txtar"))
			if err := errors.Join(err, os.WriteFile(script, []byte(b.script(string(text))), 0o644)); err != nil {
				r.Fatal(err)
			}
		}
		if b.node != "" {
			r.on(b.node, b.breaks+"; true")
		}
		defer func() {
			if b.node != "" {
				r.on(b.node, b.mends+"; true")
			}
			r.healthy()
			r.nothingOfScenarios()
		}()
		if s := r.scenarios(script)[0]; s.Verdict != "fail" || !regexp.MustCompile("(?i)"+b.says).MatchString(s.Reason) {
			r.Errorf("%s is %s: %s", b.scenario, s.Verdict, s.Reason)
		}
	})
}

// TestBreakages has the scenarios see the region broken in all ways that are theirs. Two of them TestRegion has too.
func TestBreakages(t *testing.T) {
	if os.Getenv("TOASTDEV_TEST_BREAKAGES") == "" {
		t.Skip("it takes half an hour: set TOASTDEV_TEST_BREAKAGES, or run `task breakages`")
	}
	r := &region{T: t, binary: binary(t), home: testHome(t), name: "broken"}
	defer r.end()
	r.up("--no-canary")
	for _, b := range append(quickBreakages, otherBreakages...) {
		if wanted := os.Getenv("TOASTDEV_TEST_BREAKAGES"); wanted == "all" || strings.Contains(b.scenario+": "+b.name, wanted) {
			r.seen(b)
		}
	}
}

// interrupted is Ctrl-C in the middle.
func (r *region) interrupted() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := r.command(ctx, "scenario", "run", "dvr-east-west", "--report", r.TempDir())
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	time.Sleep(12 * time.Second) // somewhere in it: there is no right moment to be interrupted
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitInterrupted {
		r.Errorf("interrupted: %v", err)
	}
	r.nothingOfScenarios()
}

// nothingOfScenarios counts by the API what a scenario would leave.
func (r *region) nothingOfScenarios() {
	r.Helper()
	projects := r.must(time.Minute, "openstack", "--", "project", "list", "-f", "value", "-c", "Name")
	servers := r.must(time.Minute, "openstack", "--", "server", "list", "--all-projects", "-f", "value", "-c", "Name")
	routers := r.must(time.Minute, "openstack", "--", "router", "list", "-f", "value", "-c", "Name")
	if strings.Contains(projects, "scenario-") || strings.TrimSpace(servers) != "" || strings.Count(strings.TrimSpace(routers), "\n") > 0 {
		r.Errorf("left by a scenario: projects %q, servers %q, routers %q", projects, servers, routers)
	}
}

func (r *region) engine(args ...string) string {
	r.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		r.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// container is a node's, whether it runs or not.
func (r *region) container(node string) string {
	r.Helper()
	return r.engine("ps", "-aq", "--filter", "label=toastdev.environment="+r.name, "--filter", "label=toastdev.node="+node)
}

// newcomer does by the openstack client what a newcomer does.
func (r *region) newcomer() {
	r.osc("server", "create", "--image", "toastdev-guest", "--flavor", "m1.tiny", "--network", "demo-net", "--wait", "first")
	r.address = r.osc("floating", "ip", "create", "external", "-f", "value", "-c", "floating_ip_address")
	r.osc("server", "add", "floating", "ip", "first", r.address)
	r.eventually(2*time.Minute, "the instance's answer", r.answers)
	r.osc("volume", "create", "--size", "1", "data")
	r.eventually(time.Minute, "the volume", func() error { return r.is("available", "volume", "show", "data") })
	r.osc("server", "add", "volume", "first", "data")
	r.eventually(time.Minute, "the volume's attachment", func() error { return r.is("in-use", "volume", "show", "data") })
}

func (r *region) is(status string, args ...string) error {
	if got := r.osc(append(args, "-f", "value", "-c", "status")...); got != status {
		return fmt.Errorf("is %s", got)
	}
	return nil
}

// answers asks the guest image's agent for an answer, on the instance's floating IP.
func (r *region) answers() error {
	_, err := r.uptime()
	return err
}

// uptime is for how long the instance has run, by its own clock.
func (r *region) uptime() (time.Duration, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + r.address + "/")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("it answers %s", response.Status)
	}
	var about struct{ Uptime float64 }
	if err := json.NewDecoder(response.Body).Decode(&about); err != nil {
		return 0, fmt.Errorf("it answers, but not as the guest image does: %w", err)
	}
	return time.Duration(about.Uptime * float64(time.Second)), nil
}

// restarts restarts every node, one after another in the engine's order.
func (r *region) restarts() {
	before := r.status().Nodes
	ids := strings.Fields(r.engine("ps", "-q", "--filter", "label=toastdev.environment="+r.name))
	r.engine(append([]string{"restart", "-t", "20"}, ids...)...)
	after := r.healthy().Nodes
	for i := range before {
		if fmt.Sprint(before[i].Addresses, before[i].MACs) != fmt.Sprint(after[i].Addresses, after[i].MACs) {
			r.Errorf("%s had %v, has %v", before[i].Name, before[i], after[i])
		}
	}
	r.eventually(2*time.Minute, "the instance's answer after the restart", r.answers)
}

// nasRestarts restarts the NAS alone. What FUSE mounted of it does not reopen files: an instance that ran then is booted anew.
func (r *region) nasRestarts() {
	fuse := r.on("cmp1", "grep -c fuse.sshfs /proc/mounts || true") != "0"
	began := time.Now()
	r.engine("restart", "-t", "20", r.container("nas"))
	r.eventually(2*time.Minute, "the instance's answer after the NAS's restart", func() error {
		up, err := r.uptime()
		if err == nil && fuse && up > time.Since(began) {
			return fmt.Errorf("it has run for %s, with disks that the restart broke", up)
		}
		return err
	})
	r.healthy()
}

// keepLogs prints, in few lines, what a person who was not there needs: what lies above them is the reason. With a folder for
// artefacts, all else that may be of use is put into that.
func (r *region) keepLogs() {
	out, errs, err := r.run(time.Minute, "status")
	r.Logf("status (%v):\n%s", err, tail(out+errs, 40))
	// Of what the control services wait for: connections with something unread, the system calls that threads are in.
	out, errs, err = r.run(time.Minute, "exec", "ctl", "--", "sh", "-c", `ss -tnp | awk '$2 || $3' | tr -s ' ' | head -n 8
		for p in $(pgrep uwsgi); do echo "$p $(tr '\\0' ' ' </proc/$p/cmdline | cut -c 1-60)" $(cut -d ' ' -f 1 /proc/$p/task/*/syscall | sort | uniq -c); done
		grep -h ' ERROR ' /var/log/*/*.log | cut -c 1-200 | sort | tail -n 12`)
	r.Logf("control node (%v):\n%s", err, out+tail(errs, 3))
	for _, n := range []string{"cmp1", "cmp2"} { // of the instances: whether they run, how far they came, what kept them
		out, errs, err = r.run(time.Minute, "exec", n, "--", "sh", "-c", `virsh list --all | tail -n +3; ls /run/toastdev
			for c in /var/lib/nova/instances/*-*/console.log; do echo "$c"; tail -c 300 "$c"; done
			journalctl --no-pager -q -n 4 -u toastdev-guests; grep -h ' ERROR ' /var/log/nova/*.log /var/log/neutron/*.log | cut -c 1-200 | sort | tail -n 8`)
		r.Logf("%s (%v):\n%s", n, err, out+tail(errs, 3))
	}
	if dir := os.Getenv("TOASTDEV_ARTEFACTS"); dir != "" {
		out, errs, _ = r.run(time.Minute, "logs", "-n", "2000")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "region.log"), []byte(out+errs), 0o644)); err != nil {
			r.Error(err)
		}
	}
}

// hostState is what an environment could leave behind.
func hostState(t *testing.T) []string {
	var state []string
	add := func(what, command string) {
		out, err := exec.Command("sh", "-c", command).Output()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for line := range strings.Lines(string(out)) {
			state = append(state, what+" "+strings.TrimSpace(line))
		}
	}
	add("link", `ip -br link | awk '{print $1}'`)
	add("route", `ip route show table all | grep -v -E '^(local|broadcast|multicast|fe80|ff00)|proto kernel' || true`)
	add("namespace", `ip netns list | awk '{print $1}'`)
	add("mount", `awk '{print $2}' /proc/mounts | grep -v -E 'overlay2|/run/docker' || true`)
	add("rule", `iptables-save 2>/dev/null | grep '^-' || true`)
	add("container", "docker ps -aq --no-trunc")
	add("network", "docker network ls -q --no-trunc")
	add("volume", "docker volume ls -q")
	// A process in a container goes with it, and one of another region beside this says nothing about this one.
	add("process", `ps -ww -eo cgroup:512=,args= | grep -v -E '^[^ ]*docker' | sed 's/^[^ ]* *//' |
		grep -E '^(/[^ ]*/)?(qemu|ganesha|dnsmasq|ovs-vswitchd|nova-|neutron-)' || true`)
	slices.Sort(state)
	return state
}

func difference(before, after []string) string {
	var b strings.Builder
	for _, line := range after {
		if !slices.Contains(before, line) {
			fmt.Fprintln(&b, "+", line)
		}
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			fmt.Fprintln(&b, "-", line)
		}
	}
	return b.String()
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[a-zA-Z]")

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(escapes.ReplaceAllString(text, ""), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
