package fence

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/provisioners"
)

// machines is a provisioner of nodes in memory. One takes `asks` questions for its state until it has ended.
type machines struct {
	provisioners.Provisioner
	state  map[string]provisioners.State
	asks   int
	killed []string
	broken error
}

func (m *machines) State(_ context.Context, name string) (provisioners.State, error) {
	if len(m.killed) > 0 && m.state[name] == provisioners.Running {
		if m.asks--; m.asks < 0 {
			m.state[name] = provisioners.Stopped
		}
	}
	return m.state[name], nil
}

func (m *machines) Kill(_ context.Context, name string) error {
	m.killed = append(m.killed, name)
	return m.broken
}

func region(gateway string) *plan.Plan {
	return &plan.Plan{
		Environment: "mini",
		Networks:    []plan.Network{{Name: "management", Subnet: netip.MustParsePrefix("127.0.0.0/24"), Gateway: netip.MustParseAddr(gateway)}},
		Nodes: []plan.Node{
			{Name: "ctl", Resource: "mini-kr1-ctl", Roles: []string{"control"}},
			{Name: "cmp1", Resource: "mini-kr1-cmp1", Roles: []string{"compute"}},
		},
	}
}

type asked struct {
	*Fence
	machines *machines
	told     []string
}

func fence() *asked {
	a := &asked{machines: &machines{state: map[string]provisioners.State{"mini-kr1-cmp1": provisioners.Running, "mini-kr1-ctl": provisioners.Running}}}
	a.Fence = New(region("127.0.0.1"), func(*plan.Node) provisioners.Provisioner { return a.machines }, "secret", func(line string) { a.told = append(a.told, line) })
	return a
}

// ask is the answer's status and body to a request from an address.
func (a *asked) ask(t *testing.T, method, path, from, secret string) (int, map[string]string) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = from
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	var body map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil && strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
		t.Fatal(err)
	}
	return w.Code, body
}

const inside = "127.0.0.10:4000"

func TestOffAnswersOnceTheNodeHasEnded(t *testing.T) {
	f := fence()
	f.machines.asks = 3
	status, body := f.ask(t, "POST", "/nodes/cmp1/off", inside, "secret")
	if status != http.StatusOK || body["node"] != "cmp1" || body["state"] != "stopped" {
		t.Errorf("%d %v", status, body)
	}
	if seen, err := time.Parse(time.RFC3339Nano, body["seen"]); err != nil || time.Since(seen) > time.Minute {
		t.Errorf("seen %q: %v", body["seen"], err)
	}
	if len(f.machines.killed) != 1 || f.machines.killed[0] != "mini-kr1-cmp1" {
		t.Errorf("killed %v", f.machines.killed)
	}
	if len(f.told) != 1 || !strings.HasPrefix(f.told[0], "cmp1 powered off, seen stopped after ") {
		t.Errorf("told %q", f.told)
	}
}

func TestWhatHasEndedIsNotKilledAgain(t *testing.T) {
	for _, state := range []provisioners.State{provisioners.Stopped, provisioners.Absent} {
		f := fence()
		f.machines.state["mini-kr1-cmp1"] = state
		status, body := f.ask(t, "POST", "/nodes/cmp1/off", inside, "secret")
		if status != http.StatusOK || body["state"] != string(state) || len(f.machines.killed) != 0 {
			t.Errorf("%d %v, killed %v", status, body, f.machines.killed)
		}
	}
}

func TestThePowerStateKillsNobody(t *testing.T) {
	f := fence()
	status, body := f.ask(t, "GET", "/nodes/cmp1", inside, "secret")
	if status != http.StatusOK || body["state"] != "running" || len(f.machines.killed) != 0 {
		t.Errorf("%d %v, killed %v", status, body, f.machines.killed)
	}
}

func TestWhoMayNotIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		method, path, from, secret string
		status                     int
	}{
		"without the secret":            {"POST", "/nodes/cmp1/off", inside, "", 401},
		"with another":                  {"POST", "/nodes/cmp1/off", inside, "secre", 401},
		"from an instance":              {"POST", "/nodes/cmp1/off", "172.16.70.100:4000", "secret", 403},
		"for a node that is none":       {"POST", "/nodes/cmp9/off", inside, "secret", 404},
		"for a node that is no compute": {"POST", "/nodes/ctl/off", inside, "secret", 403},
		"by another method":             {"GET", "/nodes/cmp1/off", inside, "secret", 405},
	} {
		t.Run(name, func(t *testing.T) {
			f := fence()
			if status, _ := f.ask(t, c.method, c.path, c.from, c.secret); status != c.status || len(f.machines.killed) != 0 {
				t.Errorf("status %d, killed %v", status, f.machines.killed)
			}
		})
	}
}

func TestAnEnvironmentWithoutTheSecretIsNotOpen(t *testing.T) {
	f := fence()
	f.secret = ""
	if status, _ := f.ask(t, "POST", "/nodes/cmp1/off", inside, ""); status != 401 {
		t.Errorf("status %d", status)
	}
}

func TestAFenceThatIsToldToRefuse(t *testing.T) {
	f := fence()
	f.Refuse(true)
	status, body := f.ask(t, "POST", "/nodes/cmp1/off", inside, "secret")
	if status != 503 || body["error"] != "the fence is told to refuse" || len(f.machines.killed) != 0 {
		t.Errorf("%d %v, killed %v", status, body, f.machines.killed)
	}
	if status, _ := f.ask(t, "GET", "/nodes/cmp1", inside, "secret"); status != 200 {
		t.Errorf("the state: %d", status)
	}
	f.Refuse(false)
	if status, _ := f.ask(t, "POST", "/nodes/cmp1/off", inside, "secret"); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
}

func TestAKillThatFailsIsNoProof(t *testing.T) {
	f := fence()
	f.machines.broken = errors.New("the engine is away")
	if status, body := f.ask(t, "POST", "/nodes/cmp1/off", inside, "secret"); status != 500 || !strings.Contains(body["error"], "the engine is away") {
		t.Errorf("%d %v", status, body)
	}
}

func TestItListensOnTheManagementNetworkAlone(t *testing.T) {
	f := fence()
	l, err := f.Listen()
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Addr().String(); got != "127.0.0.1:6230" {
		t.Errorf("listens on %s", got)
	}
	if _, err := f.Listen(); fault.CodeOf(err) != fault.Busy {
		t.Errorf("a second one: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Serve(ctx, l) }()
	request, err := http.NewRequest("GET", "http://127.0.0.1:6230/nodes/cmp1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer secret")
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("%v %v", response, err)
	} else {
		response.Body.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", "127.0.0.1:6230"); err == nil {
		c.Close()
		t.Error("it listens after its end")
	}
}

func TestAnAddressThatTheHostDoesNotHave(t *testing.T) {
	f := New(region("192.0.2.1"), nil, "secret", nil)
	if _, err := f.Listen(); fault.CodeOf(err) != fault.Missing {
		t.Error(err)
	}
}
