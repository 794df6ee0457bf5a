package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hypervisor is the other end of the port.
type hypervisor struct {
	*testing.T
	conn   net.Conn
	reader *bufio.Reader
}

func connectHypervisor(t *testing.T, agent *guestAgent) *hypervisor {
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- agent.serve(theirs) }()
	t.Cleanup(func() {
		ours.Close()
		if err := <-served; err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	})
	return &hypervisor{t, ours, bufio.NewReader(ours)}
}

func (h *hypervisor) say(text string) {
	h.Helper()
	h.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := h.conn.Write([]byte(text)); err != nil {
		h.Fatal(err)
	}
}

func (h *hypervisor) ask(text string) string {
	h.Helper()
	h.say(text + "\n")
	line, err := h.reader.ReadString('\n')
	if err != nil {
		h.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

func TestTheGuestAgentSpeaksQEMUsProtocol(t *testing.T) {
	h := connectHypervisor(t, newGuestAgent())
	h.say(`{"half a request`)
	for _, c := range []struct{ request, answer string }{
		{"\xff" + `{"execute":"guest-sync-delimited","arguments":{"id":1234567890123}}`, "\xff" + `{"return":1234567890123}`},
		{`{"execute":"guest-sync", "arguments":{"id":7}}`, `{"return":7}`},
		{`{"execute":"guest-ping","id":"a"}`, `{"return":{},"id":"a"}`},
		{`{"execute":"guest-fsfreeze-freeze"}`, `{"error":{"class":"CommandNotFound","desc":"the command guest-fsfreeze-freeze has not been found"}}`},
		{`{"execute":"guest-exec","arguments":{"path":"/no/such"}}`, `{"error":{"class":"GenericError","desc":"guest-exec: fork/exec /no/such: no such file or directory"}}`},
		{`{"execute":"guest-exec-status","arguments":{"pid":1}}`, `{"error":{"class":"GenericError","desc":"guest-exec-status: process 1 was not started here, or was told of before"}}`},
	} {
		if got := h.ask(c.request); got != c.answer {
			t.Errorf("%s: %s, want %s", c.request, got, c.answer)
		}
	}
	if got := h.ask(`nonsense`); !strings.HasPrefix(got, `{"error":{"class":"GenericError","desc":"not a request`) {
		t.Errorf("nonsense is answered by %s", got)
	}
	if got := h.ask(`{"execute":"guest-info"}`); !strings.Contains(got, `{"name":"guest-exec","enabled":true,"success-response":true}`) {
		t.Errorf("guest-info: %s", got)
	}
}

func TestTheGuestAgentTellsTheGuestsAddresses(t *testing.T) {
	h := connectHypervisor(t, newGuestAgent())
	if got := h.ask(`{"execute":"guest-network-get-interfaces"}`); !strings.Contains(got, `{"name":"lo","ip-addresses":[{"ip-address":"127.0.0.1","ip-address-type":"ipv4","prefix":8}`) {
		t.Errorf("got %s", got)
	}
}

func TestTheGuestAgentRunsCommands(t *testing.T) {
	h := connectHypervisor(t, newGuestAgent())
	for name, c := range map[string]struct{ arguments, want string }{
		"with input and output": {`"arg":["-c","cat; echo err >&2; exit 3"],"input-data":"aW4=","capture-output":true`, `{"err-data":"ZXJyCg==","exitcode":3,"exited":true,"out-data":"aW4="}`},
		"with a variable":       {`"arg":["-c","printf $A"],"env":["A=b"],"capture-output":true`, `{"exitcode":0,"exited":true,"out-data":"Yg=="}`},
		"nothing kept":          {`"arg":["-c","echo x"]`, `{"exitcode":0,"exited":true}`},
		"killed":                {`"arg":["-c","kill -9 $$"]`, `{"exited":true,"signal":9}`},
	} {
		t.Run(name, func(t *testing.T) {
			var started struct{ Return struct{ PID int } }
			if answer := h.ask(`{"execute":"guest-exec","arguments":{"path":"/bin/sh",` + c.arguments + `}}`); json.Unmarshal([]byte(answer), &started) != nil || started.Return.PID == 0 {
				t.Fatalf("guest-exec: %s", answer)
			}
			status := ""
			for strings.Contains(status, `"exited":false`) || status == "" {
				status = h.ask(fmt.Sprintf(`{"execute":"guest-exec-status","arguments":{"pid":%d}}`, started.Return.PID))
			}
			if want := `{"return":` + c.want + `}`; status != want {
				t.Errorf("%s, want %s", status, want)
			}
		})
	}
}

func TestTheGuestAgentTurnsTheGuestOff(t *testing.T) {
	var modes []bool
	agent := newGuestAgent()
	agent.powerOff = func(reboot bool) { modes = append(modes, reboot) }
	h := connectHypervisor(t, agent)
	h.say(`{"execute":"guest-shutdown"}` + "\n" + `{"execute":"guest-shutdown","arguments":{"mode":"reboot"}}` + "\n")
	if got := h.ask(`{"execute":"guest-ping"}`); got != `{"return":{}}` || fmt.Sprint(modes) != "[false true]" {
		t.Errorf("answered %s, turned off %v", got, modes)
	}
}

func TestOutputIsKeptUpToALimit(t *testing.T) {
	var l limited
	for range 3 {
		if n, err := l.Write(make([]byte, qgaOutput/2+1)); n != qgaOutput/2+1 || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	if len(l.kept) != qgaOutput || !l.truncated {
		t.Errorf("kept %d, truncated %v", len(l.kept), l.truncated)
	}
}

func TestThePortIsFoundByItsName(t *testing.T) {
	class := t.TempDir()
	for device, name := range map[string]string{"vport1p1": "com.redhat.spice.0", "vport1p2": "org.qemu.guest_agent.0"} {
		if err := os.Mkdir(filepath.Join(class, device), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, device, "name"), []byte(name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := portDevice(class); got != "/dev/vport1p2" {
		t.Errorf("got %q", got)
	}
	if got := portDevice(t.TempDir()); got != "" {
		t.Errorf("without ports: %q", got)
	}
}

func TestTheProberEndsWithItsInput(t *testing.T) {
	request := `{"kind":"tcp","target":"127.0.0.1","port":1,"forever":true,"interval":0.01}`
	var out strings.Builder
	began := time.Now()
	if err := prober(true, strings.NewReader(request), &out); err != nil {
		t.Fatal(err)
	}
	var result struct {
		Sent  int
		Error string
	}
	if err := json.Unmarshal([]byte(out.String()), &result); err != nil || result.Sent == 0 || result.Error != "connection refused" || time.Since(began) > 3*time.Second {
		t.Errorf("got %s: %v", out.String(), err)
	}
	if err := prober(false, strings.NewReader("{"), &out); err == nil {
		t.Error("half a request is accepted")
	}
}
