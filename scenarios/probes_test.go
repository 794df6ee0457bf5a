package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/toast-cloud/toastdev/images/guest/agent/probe"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/plan"
)

func TestWhatIsExpectedOfAProbe(t *testing.T) {
	good := &probe.Result{Kind: probe.Ping, Sent: 10, Received: 9, Loss: 10, RTT: probe.RTT{Min: 0.001, Avg: 0.01, Max: 0.1}, BytesSent: 560, BytesReceived: 504, Outage: 0.2}
	silent := &probe.Result{Kind: probe.Ping, Sent: 10, Loss: 100, Outage: 2, Error: "no answer"}
	for line, want := range map[string]struct{ good, silent string }{
		"loss 0%":                 {"expected loss 0%, seen 10% (10 sent, 9 received, 10% loss, rtt min/avg/max 1.0/10.0/100.0 ms, 0.2 s without an answer)", "expected loss 0%, seen 100% (10 sent, 0 received, 100% loss, 2.0 s without an answer: no answer)"},
		"loss < 20%":              {"", "expected loss < 20%, seen 100% (10 sent, 0 received, 100% loss, 2.0 s without an answer: no answer)"},
		"loss <=10%":              {"", "expected loss <= 10%, seen 100% (10 sent, 0 received, 100% loss, 2.0 s without an answer: no answer)"},
		"loss 100%":               {"expected loss 100%, seen 10% (10 sent, 9 received, 10% loss, rtt min/avg/max 1.0/10.0/100.0 ms, 0.2 s without an answer)", ""},
		"rtt < 50ms":              {"", "expected rtt avg < 50ms, seen no answer"},
		"rtt max >= 100ms":        {"", "expected rtt max >= 100ms, seen no answer"},
		"rtt min = 1ms":           {"", "expected rtt min 1ms, seen no answer"},
		"outage < 1s":             {"", "expected outage < 1s, seen 2s (10 sent, 0 received, 100% loss, 2.0 s without an answer: no answer)"},
		"received 9":              {"", "expected received 9, seen 0 (10 sent, 0 received, 100% loss, 2.0 s without an answer: no answer)"},
		"received >0":             {"", "expected received > 0, seen 0 (10 sent, 0 received, 100% loss, 2.0 s without an answer: no answer)"},
		"bytes sent 560":          {"", "expected bytes sent 560, seen 0 (10 sent, 0 received, 100% loss, 2.0 s without an answer: no answer)"},
		"bytes > 500":             {"", "expected bytes received > 500, seen 0 (10 sent, 0 received, 100% loss, 2.0 s without an answer: no answer)"},
		"bytes received == 504 x": {"no probe", "no probe"},
		"loss":                    {"usage", "usage"}, "loss 20": {"usage", "usage"}, "loss 120%": {"usage", "usage"}, "rtt < 50": {"usage", "usage"}, "rtt avg": {"usage", "usage"},
		"received < many": {"usage", "usage"}, "outage < -1s": {"usage", "usage"}, "loss < 20 % x": {"usage", "usage"},
	} {
		for result, want := range map[*probe.Result]string{good: want.good, silent: want.silent} {
			r := &Run{last: Outcome{JSON: result}}
			words := strings.Fields(line)
			command := probeCommands()[words[0]]
			_, err := command.Flags(pflag.NewFlagSet("", pflag.ContinueOnError))(t.Context(), r, words[1:])
			switch e, _ := errors.AsType[*fault.Error](err); want {
			case "usage":
				if e == nil || e.Code != fault.Invalid || !strings.HasPrefix(e.Expected, words[0]+" ") || command.Check(words[1:]) == nil {
					t.Errorf("%s: %v", line, err)
				}
			case "no probe":
				if e == nil || e.Code != fault.NotFound {
					t.Errorf("%s: %v", line, err)
				}
			case "":
				if err != nil {
					t.Errorf("%s: %v", line, err)
				}
			default:
				if err == nil || err.Error() != want {
					t.Errorf("%s:\ngot  %v\nwant %s", line, err, want)
				}
			}
		}
	}
	if _, err := (&Run{last: Outcome{Text: "x"}}).judge("loss", expectation{}); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("loss behind a line that is no probe: %v", err)
	}
}

// world is a region of two nodes without a cloud.
func world() *World {
	p := &plan.Plan{
		Networks: []plan.Network{{Name: "external", Subnet: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("192.0.2.1"),
			Floating: &plan.Range{First: netip.MustParseAddr("192.0.2.100"), Last: netip.MustParseAddr("192.0.2.199")}}},
		Nodes: []plan.Node{
			{Name: "cmp1", NICs: []plan.NIC{
				{Network: "management", Addresses: []netip.Prefix{netip.MustParsePrefix("198.51.100.11/24")}},
				{Network: "external", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.254/24")}}}},
			{Name: "net"},
		},
	}
	return &World{Plan: p, Scale: 1}
}

func TestWhatAnAddressMeans(t *testing.T) {
	r := &Run{World: world(), things: map[thing]any{
		{kindFloatingIP, "fip"}: &FloatingIP{Name: "fip", Address: netip.MustParseAddr("192.0.2.100")},
		{kindRouter, "r"}:       &Resource{Kind: kindRouter, Name: "r", Address: netip.MustParseAddr("192.0.2.150")},
		{kindPort, "p"}:         &Resource{Kind: kindPort, Name: "p"},
	}}
	for to, want := range map[string]string{
		"203.0.113.7": "203.0.113.7", "gateway": "192.0.2.1", "fip": "192.0.2.100", "r": "192.0.2.150", "cmp1": "198.51.100.11", "cmp1:external": "192.0.2.254",
		"cmp1:tunnel": "", "net": "", "p": "", "nobody": "", "fpi": "",
	} {
		got, err := r.address(t.Context(), "client", to)
		if want == "" && err == nil || want != "" && (err != nil || got.String() != want) {
			t.Errorf("%s is %s (%v), want %q", to, got, err, want)
		}
	}
	if _, err := r.address(t.Context(), "client", "fpi"); !strings.Contains(err.Error(), `write "fip"`) {
		t.Errorf("no word of the nearest name: %v", err)
	}
	s := &Server{Name: "vm", Fixed: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.1.5")}, Networks: []string{"a", "b"}, Floating: []netip.Addr{netip.MustParseAddr("192.0.2.101")}}
	for c, want := range map[[2]string]string{{"client", ""}: "192.0.2.101", {"other", ""}: "10.0.0.5", {"client", "b"}: "10.0.1.5", {"other", "c"}: ""} {
		got, err := s.address(c[0], c[1])
		if want == "" && err == nil || want != "" && (err != nil || got.String() != want) {
			t.Errorf("from %s on %q: %s (%v), want %q", c[0], c[1], got, err, want)
		}
	}
	for text, want := range map[string]string{
		"http://x.test:1/a": "http://x.test:1/a", "fip": "http://192.0.2.100/", "fip:8080/a/b?c": "http://192.0.2.100:8080/a/b?c", "cmp1:external:80": "http://192.0.2.254:80/", "cmp1/": "http://198.51.100.11/",
	} {
		if _, got, err := r.url(t.Context(), "client", text); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", text, got, err, want)
		}
	}
}

func TestAClientsAddressIsNobodysElse(t *testing.T) {
	w := world()
	external, _ := w.Plan.Network("external")
	free := clientAddresses(w.Plan, external)
	if len(free) != 64 || free[0] != netip.MustParseAddr("192.0.2.253") || slices.Contains(free, netip.MustParseAddr("192.0.2.150")) || slices.Contains(free, netip.MustParseAddr("192.0.2.255")) {
		t.Errorf("free: %v", free)
	}
	external.Subnet, external.Floating = netip.MustParsePrefix("192.0.2.0/29"), nil
	if got := clientAddresses(w.Plan, external); len(got) != 5 || got[4] != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("of a small subnet: %v", got)
	}
}

// hypervisor is a node that hands requests to an agent.
type hypervisor struct {
	asked []string
	agent func(command string, arguments map[string]any) (answer, failure string)
}

func (h *hypervisor) Name() string { return "cmp1" }

func (h *hypervisor) Run(ctx context.Context, cmd node.Cmd) error {
	questions := json.NewDecoder(cmd.Stdin)
	for {
		var q struct {
			ID      int
			Request struct {
				Execute   string
				Arguments map[string]any
			}
		}
		if err := questions.Decode(&q); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		h.asked = append(h.asked, q.Request.Execute)
		said := answered{ID: q.ID}
		if said.Answer, said.Error = h.agent(q.Request.Execute, q.Request.Arguments); said.Error == "" {
			said.Answer = `{"return":` + said.Answer + `}`
		}
		line, err := json.Marshal(said)
		if err != nil {
			return err
		}
		if _, err := cmd.Stdout.Write(append(line, '\n')); err != nil {
			return err
		}
	}
}

func TestAGuestRunsCommandsByItsAgent(t *testing.T) {
	looks := 0
	h := &hypervisor{agent: func(command string, arguments map[string]any) (string, string) {
		if command == "guest-exec" {
			if arguments["path"] != "/bin/cat" || arguments["input-data"] != "aW4=" || arguments["capture-output"] != true {
				t.Errorf("the agent is asked for %v", arguments)
			}
			return `{"pid":7}`, ""
		}
		if looks++; looks < 2 {
			return `{"exited":false}`, ""
		}
		return `{"exited":true,"exitcode":3,"out-data":"b3V0","err-data":"ZXJy"}`, ""
	}}
	g := &guest{name: "vm", host: h, domain: "instance-1", questions: &questions{}}
	defer g.questions.end()
	var out, errs bytes.Buffer
	err := g.Run(t.Context(), node.Cmd{Args: []string{"/bin/cat", "-"}, Stdin: strings.NewReader("in"), Stdout: &out, Stderr: &errs})
	if exit, ok := errors.AsType[*node.ExitError](err); !ok || exit.Code != 3 || exit.Node != "vm" || out.String() != "out" || errs.String() != "err" {
		t.Errorf("got %v, %q, %q", err, out.String(), errs.String())
	}
	if !slices.Equal(h.asked, []string{"guest-exec", "guest-exec-status", "guest-exec-status"}) {
		t.Errorf("asked %v", h.asked)
	}
}

func TestAProbeInAGuestIsInterrupted(t *testing.T) {
	interrupted := false
	h := &hypervisor{agent: func(command string, arguments map[string]any) (string, string) {
		switch {
		case arguments["path"] == "/bin/kill":
			interrupted = slices.Equal(arguments["arg"].([]any), []any{"-2", "7"})
			return `{"pid":8}`, ""
		case command == "guest-exec":
			return `{"pid":7}`, ""
		case interrupted:
			return `{"exited":true,"exitcode":0,"out-data":"eyJzZW50Ijo1fQ=="}`, ""
		}
		return `{"exited":false}`, ""
	}}
	stop := make(chan struct{})
	time.AfterFunc(20*time.Millisecond, func() { close(stop) })
	result, err := (&guest{name: "vm", host: h, domain: "i", questions: &questions{}}).probe(t.Context(), stop, probe.Request{Kind: probe.Ping, Forever: true})
	if err != nil || result.Sent != 5 {
		t.Errorf("got %+v, %v; asked %v", result, err, h.asked)
	}
	if len(h.asked) < 3 || h.asked[1] != "guest-exec" {
		t.Errorf("it is looked at before it can have ended: %v", h.asked)
	}
}

func TestWhyAGuestDoesNotAnswerIsSaid(t *testing.T) {
	h := &hypervisor{agent: func(string, map[string]any) (string, string) {
		return "", "Guest agent is not responding: QEMU guest agent is not connected"
	}}
	w := world()
	w.Node = func(name string) node.Node {
		if name == "cmp1" {
			return h
		}
		return nil
	}
	r := &Run{World: w}
	s := &Server{Name: "vm", Host: "cmp1", Domain: "instance-1", MACs: []string{"fa:16:3e:00:00:01"}, Fixed: []netip.Addr{netip.MustParseAddr("10.0.0.5")}}
	if err := r.agent(t.Context(), s); err == nil || err.Error() != "ask the agent in vm: cmp1: QEMU guest agent is not connected" || !busy(err) {
		t.Errorf("got %v", err)
	}
	// How the asking failed is not how a command in the guest did.
	g := &guest{name: "vm", host: h, domain: "instance-1", questions: &questions{}}
	defer g.questions.end()
	if _, err := node.Output(t.Context(), g, "true"); err == nil || !strings.Contains(err.Error(), "agent is not connected") || strings.Contains(err.Error(), "exit code") {
		t.Errorf("got %v", err)
	}
	answer := `[{"name":"lo"},{"name":"eth0","hardware-address":"FA:16:3e:00:00:01"}]`
	h.agent = func(string, map[string]any) (string, string) { return answer, "" }
	if err := r.agent(t.Context(), s); err == nil || err.Error() != "its agent answers, but DHCP has not given 10.0.0.5 on eth0 (fa:16:3e:00:00:01)" {
		t.Errorf("got %v", err)
	}
	answer = `[{"name":"eth0","hardware-address":"fa:16:3e:00:00:01","ip-addresses":[{"ip-address":"10.0.0.5"}]}]`
	if err := r.agent(t.Context(), s); err != nil {
		t.Errorf("got %v", err)
	}
	answer = `[]`
	if err := r.agent(t.Context(), s); err == nil || !strings.Contains(err.Error(), "no interface fa:16:3e:00:00:01") {
		t.Errorf("got %v", err)
	}
	if err := r.agent(t.Context(), &Server{Name: "vm", Status: "BUILD"}); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
}

// shell is this host as a node; what would lie in /run lies in dir.
type shell struct{ dir string }

func (s shell) Name() string { return "cmp1" }

func (s shell) Run(ctx context.Context, cmd node.Cmd) error {
	for i := range cmd.Args {
		cmd.Args[i] = strings.ReplaceAll(cmd.Args[i], agentDir, s.dir)
	}
	return elsewhere(func() error { return local(ctx, cmd) })
}

func TestTheAgentIsBroughtToANodeOnce(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\ncat >" + dir + "/request\necho '{\"sent\": 2, \"received\": 1}'\n"
	file := filepath.Join(dir, "agent")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	w := world()
	w.Agent = file
	w.Node = func(string) node.Node { return shell{filepath.Join(dir, "run")} }
	r := &Run{World: w}
	for range 2 {
		v, err := r.vantage(t.Context(), "cmp1")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		stop := make(chan struct{})
		time.AfterFunc(200*time.Millisecond, func() { close(stop) })
		result, err := v.probe(ctx, stop, probe.Request{Kind: probe.Ping, Target: "192.0.2.1"})
		if err != nil || result.Sent != 2 || result.Received != 1 {
			t.Fatalf("got %+v, %v", result, err)
		}
	}
	if request, err := os.ReadFile(filepath.Join(dir, "request")); err != nil || string(request) != `{"kind":"ping","target":"192.0.2.1"}` {
		t.Errorf("it was asked %s, %v", request, err)
	}
	if there, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(there) != 1 {
		t.Errorf("on the node there is %v, %v", there, err)
	}
	if _, err := r.vantage(t.Context(), "nobody"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestACommandThatBadlyFailsInANamespaceIsNoAnswer(t *testing.T) {
	p := &prober{node: shell{t.TempDir()}, namespace: "qrouter-1", command: []string{"sh", "-c", `echo 'Cannot open network namespace "qrouter-1": No such file' >&2; exit 1`}}
	if _, err := p.probe(t.Context(), nil, probe.Request{}); fault.CodeOf(err) != fault.NotFound || !strings.Contains(err.Error(), "qrouter-1") {
		t.Errorf("got %v", err)
	}
	p = &prober{node: shell{t.TempDir()}, command: []string{"sh", "-c", "echo broken >&2; exit 2"}}
	if _, err := p.probe(t.Context(), nil, probe.Request{}); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v", err)
	}
}

func TestAProbeWaitsLongerForAGuestThatIsEmulatedTwice(t *testing.T) {
	for scale, want := range map[float64]probe.Request{1: {Timeout: 2, Wait: 30}, 2: {Timeout: 2, Wait: 30}, 10: {Timeout: 10, Wait: 300}} {
		if got := (&World{Scale: scale}).patient(probe.Request{Timeout: 2, Wait: 30}); got != want {
			t.Errorf("at %v: %+v, want %+v", scale, got, want)
		}
	}
}
