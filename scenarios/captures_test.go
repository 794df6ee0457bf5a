package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/internal/evidence"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/plan"
)

func TestACountIsCompared(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "3": "3", "=3": "3", ">0": "1 2 3 4", ">=2": "2 3 4", "<2": "0 1", "<=1": "0 1", "": "?", "few": "?", "-1": "?", "!3": "?", "> 1": "?",
	} {
		holds, err := comparison(text)
		var got []string
		for n := range 5 {
			if err == nil && holds(n) {
				got = append(got, fmt.Sprint(n))
			}
		}
		if err != nil {
			got = []string{"?"}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s (%v)", text, got, want, err)
		}
	}
}

func TestLinesAboutEvidenceAreCheckedBeforeAnythingIsMade(t *testing.T) {
	for line, want := range map[string]string{
		"capture start x":                  "",
		"capture start x cmp1:tun0 net":    "",
		"capture stop x":                   "",
		"capture stop x y":                 "capture stop NAME",
		"capture strat x":                  "no such word",
		"capture saw x cmp1 tun0":          "capture saw NAME NODE",
		"capture saw x cmp1 tun0 icmp":     "",
		"capture saw x cmp1 tun0 icmp 0":   "",
		"capture saw x cmp1 tun0 icmp few": "not a count",
		"path a b":                         "",
		"path a b c":                       "path A B",
		"path avoids net cmp2":             "",
		"path through net":                 "path through NODE NAMESPACE",
		"path source 10.0.0.1":             "",
		"path source a b":                  "path source ADDRESS",
	} {
		words := strings.Fields(line)
		err := captureCommands()[words[0]].Check(words[1:])
		if got := fmt.Sprint(err); (want == "") != (err == nil) || !strings.Contains(got, want) && want != "" {
			t.Errorf("%s: got %v", line, err)
		}
	}
}

// printing is a node whose interfaces are what `ip -j` printed.
type printing string

func (printing) Name() string { return "cmp1" }

func (p printing) Run(_ context.Context, cmd node.Cmd) error {
	_, err := fmt.Fprint(cmd.Stdout, string(p))
	return err
}

func TestACaptureFindsWhatIsTheScenarios(t *testing.T) {
	type device = map[string]any
	line := func(namespace string, devices ...device) string {
		text, err := json.Marshal(devices)
		if err != nil {
			t.Fatal(err)
		}
		return namespace + " " + string(text) + "\n"
	}
	named := func(name, address string) device {
		d := device{"ifname": name, "address": "fa:16:3e:00:00:01"}
		if address != "" {
			d["addr_info"] = []device{{"local": address}, {"local": "fe80::1"}}
		}
		return d
	}
	shown := printing(line("-", named("lo", "127.0.0.1"), named("tun0", ""), named("ext0", ""), named("mgmt0", "172.30.0.11"), named("br-phy", "172.30.1.11"), named("tap11111111-11", ""), named("tap99999999-99", "")) +
		line("qrouter-8f3c1b2a-1111-2222", named("lo", ""), named("qr-1", "10.1.0.1"), named("rfp-8f3c1b2a-1", "169.254.0.1")) +
		line("qrouter-other", named("qr-9", "10.9.0.1")) +
		line("fip-1", named("fg-1", "172.31.7.3"), named("fpr-8f3c1b2a-1", ""), named("fpr-other", "")) +
		line("qdhcp-red", named("tap22222222-22", "10.1.0.2")) +
		"qrouter-gone \n")
	planned := &plan.Node{Name: "cmp1", NICs: []plan.NIC{
		{Name: "mgmt0", Network: "management", Addresses: []netip.Prefix{netip.MustParsePrefix("172.30.0.11/24")}},
		{Name: "tun0", Network: "tunnel", Addresses: []netip.Prefix{netip.MustParsePrefix("172.30.1.11/24")}},
		{Name: "ext0", Network: "external", Addresses: []netip.Prefix{netip.MustParsePrefix("172.31.7.11/24")}},
	}}
	mine := owned{routers: true,
		namespaces: map[string]string{"qrouter-8f3c1b2a-1111-2222": "r", "qdhcp-red": "red"},
		devices:    map[string]string{"tap11111111-11": "s1", "fpr-8f3c1b2a-1": "r"}}
	for _, test := range []struct {
		patterns []string
		owned    owned
		want     string
	}{
		{nil, mine, "tun0 tunnel 172.30.1.11, ext0 external 172.31.7.11, tap11111111-11 tap s1, qrouter-8f3c1b2a-1111-2222/qr-1 router 10.1.0.1 r, " +
			"qrouter-8f3c1b2a-1111-2222/rfp-8f3c1b2a-1 router 169.254.0.1 r, fip-1/fg-1 gateway 172.31.7.3, fip-1/fpr-8f3c1b2a-1 gateway r, qdhcp-red/tap22222222-22 dhcp 10.1.0.2 red"},
		{[]string{"mgmt0", "mgmt*", "qrouter-*/*"}, mine, "mgmt0 management 172.30.0.11, qrouter-8f3c1b2a-1111-2222/qr-1 router 10.1.0.1 r, " +
			"qrouter-8f3c1b2a-1111-2222/rfp-8f3c1b2a-1 router 169.254.0.1 r, qrouter-other/qr-9 router 10.9.0.1"},
		{[]string{"tun9"}, mine, `no interface "tun9"`},
		{[]string{"["}, mine, "not a pattern"},
	} {
		found, err := interfaces(t.Context(), shown, planned, test.owned)
		if err != nil {
			t.Fatal(err)
		}
		chosen, err := choose("cmp1", found, test.patterns, test.owned)
		if err != nil {
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v: got %v", test.patterns, err)
			}
			continue
		}
		var got []string
		for _, i := range chosen {
			words := []string{path.Join(i.Namespace, i.Name), i.Kind}
			for _, a := range i.Addresses {
				words = append(words, a.String())
			}
			if i.Label != "" {
				words = append(words, i.Label)
			}
			got = append(got, strings.Join(words, " "))
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%v: got\n%s\nwant\n%s", test.patterns, strings.Join(got, ", "), test.want)
		}
	}
}

// watched is a run on a region of three nodes that has a path.
func watched(t *testing.T, p *evidence.Path) *Run {
	t.Helper()
	nics := []plan.NIC{{Name: "tun0", Network: "tunnel", Addresses: []netip.Prefix{netip.MustParsePrefix("172.30.1.11/24")}}}
	r := &Run{things: map[thing]any{}, World: &World{Plan: &plan.Plan{Nodes: []plan.Node{{Name: "cmp1", NICs: nics}, {Name: "cmp2", NICs: nics}, {Name: "net", NICs: nics}, {Name: "nas"}}}}}
	if p != nil {
		if err := r.put(kindPath, latest, p); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestWhatAScriptSaysOfAPath(t *testing.T) {
	at := func(node, namespace, name string) evidence.Hop {
		return evidence.Hop{Node: node, Namespace: namespace, Interface: name, Source: netip.MustParseAddr("10.1.0.5"), Destination: netip.MustParseAddr("10.2.0.7")}
	}
	seen := func(node, name, missing string) evidence.Point {
		return evidence.Point{Node: node, Interface: evidence.Interface{Name: name}, Missing: missing}
	}
	ways := &evidence.Path{From: "s1", To: "s2", Packets: 5,
		Hops:     []evidence.Hop{at("cmp1", "qrouter-1", "qr-1"), at("cmp1", "", "tun0"), at("cmp2", "", "tun0")},
		Variants: []evidence.Variant{{Packets: 2, Hops: []evidence.Hop{at("nas", "", "sto0")}}},
		Seen:     []evidence.Point{seen("cmp1", "tun0", ""), seen("cmp2", "tun0", "")},
		Silent:   []evidence.Point{seen("net", "tun0", "")}}
	blind := &evidence.Path{From: "s1", To: "s2", Packets: 1, Hops: []evidence.Hop{at("cmp1", "", "tun0"), {Unknown: "nobody knows"}}, Missing: []evidence.Point{seen("net", "tun0", "the node does not run")}}
	for _, test := range []struct {
		path *evidence.Path
		line string
		want string // of the error; empty: it holds
	}{
		{ways, "includes cmp1 cmp2", ""},
		{ways, "includes net", "expected a path that includes net, seen the path from s1 to s2 is cmp1, cmp2"},
		{ways, "includes ney", "no node"},
		{ways, "avoids net", ""},
		{ways, "avoids net cmp2", "expected a path that avoids cmp2"},
		{ways, "avoids nas", "for 5 packets; 2 others passed nas"},
		{blind, "avoids net", "a capture is missing: net tun0: the node does not run"},
		{blind, "avoids cmp2", "a capture is missing: cmp2 tun0: it was not captured"},
		{blind, "includes cmp2", "seen the path from s1 to s2 is cmp1, ? (nobody knows)"},
		{ways, "through cmp1 qrouter-", ""},
		{ways, "through cmp1 snat-", "on cmp1 through qrouter-1"},
		{ways, "source 10.1.0.5", ""},
		{ways, "source 10.1.0.6", "expected the source address 10.1.0.6, seen 10.1.0.5 at cmp2 tun0"},
		{blind, "destination 10.2.0.7", ""},
		{nil, "avoids net", "there is no path yet"},
	} {
		r := watched(t, test.path)
		args := strings.Fields(test.line)
		_, err := r.assertPath(t.Context(), assertions[args[0]], args)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("path %s: got %v, want %q", test.line, err, test.want)
		}
	}
}
