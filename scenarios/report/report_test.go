package report

import (
	"encoding/json"
	"encoding/xml"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jstemmer/go-junit-report/v2/junit"

	"github.com/toast-cloud/toastdev/internal/evidence"
	"github.com/toast-cloud/toastdev/scenarios"
)

// hostile is what a region, or somebody's script, may say: markup, a terminal's escapes, characters that XML has not, the end
// of a CDATA section, text that runs from right to left, and a word that does not end.
var hostile = "<script>alert('x')</script> & \"quotes\" ]]> \x1b[31mred\x1b[0m \x00\x07\uffff \u202Egnp.exe " + strings.Repeat("long", 60) + " \xff end"

func a(s string) netip.Addr { return netip.MustParseAddr(s) }

func network(name, subnet string) evidence.RegionNetwork {
	return evidence.RegionNetwork{Name: name, Subnet: netip.MustParsePrefix(subnet)}
}

func region(routing string) evidence.Region {
	node := func(name, role, last string) evidence.RegionNode {
		n := evidence.RegionNode{Name: name, Roles: []string{role}}
		for _, nic := range [][3]string{{"mgmt0", "management", "172.30.0."}, {"tun0", "tunnel", "172.30.1."}, {"ext0", "external", "172.30.2."}, {"sto0", "storage", "172.30.3."}} {
			n.NICs = append(n.NICs, evidence.RegionNIC{Name: nic[0], Network: nic[1], Address: a(nic[2] + last)})
		}
		return n
	}
	return evidence.Region{Name: "mini", Routing: routing,
		Networks: []evidence.RegionNetwork{network("management", "172.30.0.0/24"), network("tunnel", "172.30.1.0/24"), network("external", "172.30.2.0/24"), network("storage", "172.30.3.0/24")},
		Nodes:    []evidence.RegionNode{node("ctl", "control", "11"), node("net", "network", "12"), node("cmp1", "compute", "13"), node("cmp2", "compute", "14"), node("nas", "storage", "15")}}
}

func hop(node, iface, namespace, kind string, source, destination string, after int) evidence.Hop {
	return evidence.Hop{Node: node, Interface: iface, Namespace: namespace, Kind: kind, Source: a(source), Destination: a(destination), After: time.Duration(after) * time.Microsecond}
}

func tunnelled(h evidence.Hop, id int, from, to string) evidence.Hop {
	h.Encapsulation, h.ID, h.OuterSource, h.OuterDestination = "vxlan", id, a(from), a(to)
	return h
}

// eastWest is a path by a distributed router, or by the network node.
func eastWest(routing string) *evidence.Path {
	const s1, s2 = "10.1.0.5", "10.2.0.9"
	p := &evidence.Path{From: "s1", To: "s2", Packets: 5}
	p.Hops = append(p.Hops, hop("cmp1", "tap1f0c2a11-3b", "", evidence.Tap, s1, s2, 0))
	p.Hops[0].Label = "s1"
	if routing == "dvr" {
		p.Hops = append(p.Hops,
			hop("cmp1", "qr-5d21a0b4-11", "qrouter-9b1c", evidence.Router, s1, s2, 74),
			hop("cmp1", "qr-77aa01d2-5c", "qrouter-9b1c", evidence.Router, s1, s2, 101),
			tunnelled(hop("cmp1", "tun0", "", evidence.Tunnel, s1, s2, 198), 1002, "172.30.1.13", "172.30.1.14"))
	} else {
		p.Hops = append(p.Hops,
			tunnelled(hop("cmp1", "tun0", "", evidence.Tunnel, s1, s2, 160), 1001, "172.30.1.13", "172.30.1.12"),
			tunnelled(hop("net", "tun0", "", evidence.Tunnel, s1, s2, 203), 1001, "172.30.1.13", "172.30.1.12"),
			hop("net", "qr-5d21a0b4-11", "qrouter-9b1c", evidence.Router, s1, s2, 300),
			hop("net", "qr-77aa01d2-5c", "qrouter-9b1c", evidence.Router, s1, s2, 322),
			tunnelled(hop("net", "tun0", "", evidence.Tunnel, s1, s2, 410), 1002, "172.30.1.12", "172.30.1.14"))
	}
	p.Hops = append(p.Hops,
		tunnelled(hop("cmp2", "tun0", "", evidence.Tunnel, s1, s2, 460), 1002, "172.30.1.13", "172.30.1.14"),
		hop("cmp2", "tap9e0d1b77-02", "", evidence.Tap, s1, s2, 702))
	p.Hops[len(p.Hops)-1].Label = "s2"
	p.Seen = seenBy(p.Hops)
	if routing == "dvr" {
		p.Silent = []evidence.Point{{Node: "net", Interface: evidence.Interface{Name: "tun0", Kind: evidence.Tunnel}}}
	}
	return p
}

// seenBy is the points of hops.
func seenBy(hops []evidence.Hop) (points []evidence.Point) {
	for _, h := range hops {
		if h.Unknown == "" {
			points = append(points, evidence.Point{Node: h.Node, Interface: evidence.Interface{Name: h.Interface, Namespace: h.Namespace, Kind: h.Kind, Label: h.Label}, Frames: 12})
		}
	}
	return points
}

// withUnknown is a path with a node whose capture is missing, and NAT on the way.
func withUnknown() *evidence.Path {
	in := hop("client", "ext", "", evidence.Client, "172.30.2.200", "172.30.2.105", 0)
	in.Label = "client"
	natted := hop("cmp1", "rfp-9b1c", "qrouter-9b1c", evidence.Router, "172.30.2.200", "10.1.0.5", 320)
	natted.NAT = &evidence.NAT{Before: evidence.Ends{Source: a("172.30.2.200"), Destination: a("172.30.2.105")}, After: evidence.Ends{Source: a("172.30.2.200"), Destination: a("10.1.0.5")}}
	last := hop("cmp1", "tap1f0c2a11-3b", "", evidence.Tap, "172.30.2.200", "10.1.0.5", 480)
	missing := evidence.Point{Node: "cmp1", Interface: evidence.Interface{Name: "fg-0a7c", Namespace: "fip-77", Kind: evidence.Gateway}, Missing: "tcpdump ended early: " + hostile}
	p := &evidence.Path{From: "client", To: "s1", Packets: 3, Missing: []evidence.Point{missing}, Hops: []evidence.Hop{in, hop("cmp1", "ext0", "", evidence.External, "172.30.2.200", "172.30.2.105", 66),
		{Unknown: "no capture of fg-0a7c: tcpdump ended early"}, natted, last}}
	p.Seen = seenBy(p.Hops)
	return p
}

// example is a report with all that a report may have, and its bundles below dir.
func example(t *testing.T, dir string) scenarios.Report {
	t.Helper()
	for name, size := range map[string]int{
		"dvr-floating-ip/captures/in/cmp1-ext0.pcap": 48213, "dvr-floating-ip/captures/in/net-ext0.pcap": 24, "dvr-floating-ip/captures/in/capture.json": 3110,
		"evacuation/captures/during/net-ext0.pcap": 1 << 20, "evacuation/captures/during/a?b: #1.pcap": 99, "evacuation/logs/cmp2/nova-compute.log": 91822,
		"evacuation/logs/ctl/toast-evacuator.log": 5210, "evacuation/nodes/net/namespaces.txt": 412, "evacuation/openstack/servers.json": 7288, "logs/cmp1.log": 812344, "logs/ctl.log": 4123455,
	} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Date(2026, 3, 2, 2, 0, 0, 0, time.UTC)
	pass := func(name, summary string, seconds float64) scenarios.Result {
		return scenarios.Result{Name: name, Summary: summary, Verdict: scenarios.Pass, Seconds: seconds, Topology: "mini", Routing: "dvr", File: name + ".txtar", Started: began}
	}
	auth := pass("keystone-auth", "who may do what, and who may not any more", 31.2)
	auth.Log = "> token admin-token\nok " + hostile + "\n"
	ew := pass("dvr-east-west", "two networks talk through a distributed router, past the network node", 44.9)
	ew.Bundle, ew.Paths = filepath.Join(dir, "dvr-east-west"), []scenarios.Path{{Line: 31, Capture: "way", Path: eastWest("dvr")}}
	fip := pass("dvr-floating-ip", "in and out at the instance's own compute", 38.4)
	fip.Bundle, fip.Paths = filepath.Join(dir, "dvr-floating-ip"), []scenarios.Path{{Line: 27, Capture: "in", Path: withUnknown()}}
	evacuation := pass("evacuation", "a compute dies, its instances answer elsewhere within a minute", 143.7)
	evacuation.Verdict, evacuation.Line, evacuation.Command = scenarios.Fail, 42, "elapsed killed answers '< 60s'"
	evacuation.Reason, evacuation.Expected, evacuation.Seen = "answers came 74.2 s after killed, expected less than 60 s", "answers less than 60 s after killed", "74.2 s"
	evacuation.Source = []scenarios.ScriptLine{{Number: 39, Text: "node kill cmp1"}, {Number: 40, Text: "mark killed"}, {Number: 41, Text: "\twait guest s1 # <b>on cmp2</b>"}, {Number: 42, Text: "elapsed killed answers '< 60s'"}, {Number: 43, Text: ""}, {Number: 44, Text: "guest s1 -- sha256sum -c /data/sum"}}
	evacuation.Marks = []scenarios.Mark{{Name: "killed", Seconds: 41.2}, {Name: "fenced", Seconds: 62.0}, {Name: "answers", Seconds: 115.4}}
	evacuation.Elapsed = []scenarios.Elapsed{{From: "killed", To: "fenced", Seconds: 20.8, Limit: 30}, {From: "killed", To: "answers", Seconds: 74.2, Limit: 60}}
	evacuation.Bundle, evacuation.Log = filepath.Join(dir, "evacuation"), "> node kill cmp1\n> mark killed\n"
	metadata := pass("metadata-dhcp", "an instance learns its address and its name", 26.0)
	metadata.Verdict, metadata.Line, metadata.Command, metadata.Reason, metadata.Expected, metadata.Seen = scenarios.Fail, 18, "http s1 http://169.254.169.254/", "flaky, failed 1 of 3 times: expected 200, seen "+hostile, "200", hostile
	metadata.Attempts = []scenarios.Attempt{{Verdict: scenarios.Pass, Seconds: 24.1}, {Verdict: scenarios.Fail, Seconds: 28.0, Reason: "expected 200, seen " + hostile}, {Verdict: scenarios.Pass, Seconds: 25.9}}
	legacy := scenarios.Result{Name: "legacy-routing", Summary: "every flow crosses the network node", Verdict: scenarios.Skip, Topology: "mini", Routing: "dvr", File: "legacy-routing.txtar", Reason: "needs legacy: the region routes by dvr"}

	r := scenarios.Report{Environment: "nightly-mini", Topology: "mini", Release: "zed", Routing: "dvr", Started: began, Seconds: 612, Region: region("dvr"),
		Phases:    []scenarios.Phase{{Name: "up", Seconds: 118}, {Name: "scenarios", Seconds: 284}, {Name: "down", Seconds: 9.3}},
		Artefacts: []string{filepath.Join(dir, "logs/cmp1.log"), filepath.Join(dir, "logs/ctl.log")},
		Scenarios: []scenarios.Result{auth, ew, fip, evacuation, metadata, legacy}}
	legacy.Verdict, legacy.Reason, legacy.Topology, legacy.Routing, legacy.Seconds = scenarios.Pass, "", "legacy", "legacy", 61.5
	legacy.Paths = []scenarios.Path{{Line: 22, Capture: "way", Path: eastWest("legacy")}}
	r.Beside = []scenarios.Report{{Environment: "nightly-legacy", Topology: "legacy", Release: "zed", Routing: "legacy", Started: began.Add(7 * time.Minute), Seconds: 190, Region: region("legacy"), Scenarios: []scenarios.Result{legacy}}}
	return r
}

// lastNight is the report before example's.
func lastNight(r scenarios.Report) scenarios.Report {
	r.Started = r.Started.Add(-24 * time.Hour)
	before := make([]scenarios.Result, len(r.Scenarios))
	copy(before, r.Scenarios)
	before[0].Verdict, before[0].Reason = scenarios.Fail, "expected 401, seen 200"
	before[1].Seconds = 30.1
	before[3] = scenarios.Result{Name: "evacuation", Verdict: scenarios.Pass, Seconds: 96, Topology: "mini"}
	before = append(before, scenarios.Result{Name: "volume-nas", Verdict: scenarios.Pass, Seconds: 40, Topology: "mini"})
	r.Scenarios, r.Beside = before, nil
	return r
}

func written(t *testing.T) (dir string, r scenarios.Report) {
	t.Helper()
	dir = t.TempDir()
	r = example(t, dir)
	compared := Compare(lastNight(r), r)
	if err := Write(dir, r, &compared); err != nil {
		t.Fatal(err)
	}
	return dir, r
}

func content(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAReportIsReadAsItWasWritten(t *testing.T) {
	dir, r := written(t)
	read, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(read.Scenarios) != len(r.Scenarios) || len(read.Beside) != 1 || !read.Failed() {
		t.Errorf("read %d scenarios and %d beside, failed %v", len(read.Scenarios), len(read.Beside), read.Failed())
	}
	if got := read.Scenarios[3].Bundle; got != "evacuation" {
		t.Errorf("a bundle is %q, not named from the report's folder", got)
	}
	if got := read.Artefacts[0]; got != "logs/cmp1.log" {
		t.Errorf("an artefact is %q", got)
	}
	if !reflect.DeepEqual(read.Scenarios[1].Paths[0].Path, r.Scenarios[1].Paths[0].Path) {
		t.Errorf("a path was read as %+v", read.Scenarios[1].Paths[0].Path)
	}
	if !filepath.IsAbs(r.Scenarios[3].Bundle) {
		t.Error("Write changed the report that it was given")
	}
	if _, err := Read(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no report in") {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestJUnitIsXMLThatCountsRight(t *testing.T) {
	dir, _ := written(t)
	text := content(t, dir, JUnitFile)
	var suites junit.Testsuites
	if err := xml.Unmarshal([]byte(text), &suites); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if suites.Tests != 7 || suites.Failures != 2 || suites.Skipped != 1 || suites.Errors != 0 || len(suites.Suites) != 2 {
		t.Errorf("%d tests, %d failures, %d skipped, %d errors in %d suites", suites.Tests, suites.Failures, suites.Skipped, suites.Errors, len(suites.Suites))
	}
	evacuation := suites.Suites[0].Testcases[3]
	if evacuation.Failure == nil || !strings.Contains(evacuation.Failure.Data, ">  42  elapsed killed answers") || evacuation.Time != "143.700" {
		t.Errorf("evacuation is %+v", evacuation.Failure)
	}
	if flaky := suites.Suites[0].Testcases[4].Failure.Message; !strings.HasPrefix(flaky, "flaky, failed 1 of 3 times: expected 200") {
		t.Errorf("a flaky scenario says %q", flaky)
	}
}

func TestARegionThatDidNotComeUpIsAnError(t *testing.T) {
	dir := t.TempDir()
	r := scenarios.Report{Topology: "mini", Problem: "up mini: nodes: no space left on device\n  remedy: toastdev image prune"}
	if err := Write(dir, r, nil); err != nil {
		t.Fatal(err)
	}
	if text := content(t, dir, JUnitFile); !strings.Contains(text, `errors="1"`) || !strings.Contains(text, "no space left") {
		t.Errorf("JUnit says %s", text)
	}
	if text := content(t, dir, HTMLFile); !strings.Contains(text, "The region did not come up") || !strings.Contains(text, "no space left") {
		t.Errorf("the page says %s", text)
	}
	var decoded struct{ Scenarios []any }
	if err := json.Unmarshal([]byte(content(t, dir, JSONFile)), &decoded); err != nil || decoded.Scenarios == nil {
		t.Errorf("scenarios are %v, %v: want an empty list", decoded.Scenarios, err)
	}
}

func TestThePageNeedsNothingBesideItself(t *testing.T) {
	dir, _ := written(t)
	page := content(t, dir, HTMLFile)
	if found := regexp.MustCompile(`(?i)<script|<link|<iframe|<img|@import|url\((?:[^#]|$)|\b(?:src|href)\s*=\s*["']?(?:https?:|//)`).FindString(page); found != "" {
		t.Errorf("the page has %q", found)
	}
	for _, link := range regexp.MustCompile(`href="(\./[^"]*)"`).FindAllStringSubmatch(page, -1) {
		if strings.ContainsAny(link[1], "?# ") {
			t.Errorf("a link is not escaped: %s", link[1])
		}
	}
	for _, want := range []string{"./evacuation/captures/during/net-ext0.pcap", "./evacuation/captures/during/a%3Fb:%20%231.pcap", "./logs/ctl.log", "elapsed killed answers", "74.2 s", "no capture of fg-0a7c", "vxlan 1002", "destination 172.30.2.105 → 10.1.0.5"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestTheTerminalsSummary(t *testing.T) {
	r := example(t, t.TempDir())
	r.Scenarios[3].Bundle = "report/evacuation"
	var out strings.Builder
	Print(&out, r)
	text := out.String()
	if strings.ContainsAny(text, "\x1b\x00\x07\u202E") {
		t.Errorf("what a region says reaches the terminal: %q", text)
	}
	for _, want := range []string{
		"evacuation failed at evacuation.txtar:42\n", "  >  42  elapsed killed answers '< 60s'\n", "  expected  answers less than 60 s after killed\n  seen      74.2 s\n",
		"flaky, 2 of 3", "needs legacy", "evidence  report/evacuation\n", "4 passed, 2 failed (1 of them flaky), 1 skipped in 13 min 22 s.\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the summary lacks %q:\n%s", want, text)
		}
	}
}

func TestCompare(t *testing.T) {
	r := example(t, t.TempDir())
	c := Compare(lastNight(r), r)
	names := func(changes []Change) (names []string) {
		for _, change := range changes {
			names = append(names, change.Topology+" "+change.Name)
		}
		return names
	}
	for _, part := range []struct {
		what      string
		got, want []string
	}{
		{"newly fails", names(c.Fails), []string{"mini evacuation"}}, // metadata-dhcp failed before
		{"newly passes", names(c.Passes), []string{"mini keystone-auth"}},
		{"slower", names(c.Slower), []string{"mini dvr-east-west"}},
		{"missing", names(c.Missing), []string{"mini volume-nas"}},
	} {
		if !reflect.DeepEqual(part.got, part.want) {
			t.Errorf("%s: %v, want %v", part.what, part.got, part.want)
		}
	}
	for _, times := range []struct {
		before, after float64
		slower        bool
	}{{10, 14.9, false}, {10, 15.1, true}, {100, 119, false}, {100, 121, true}, {10, 2, false}} {
		if slower(times.before, times.after) != times.slower {
			t.Errorf("%v s, then %v s: slower is %v", times.before, times.after, !times.slower)
		}
	}
	var out strings.Builder
	c.Print(&out)
	if text := out.String(); !strings.Contains(text, "newly fails") || !strings.Contains(text, "44.9 s, was 30.1 s (+49 %)") {
		t.Errorf("the comparison reads:\n%s", text)
	}
	if same := Compare(r, r); !same.Same() {
		t.Errorf("a report differs from itself: %+v", same)
	}
}
