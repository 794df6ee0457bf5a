package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
)

// metadataService answers as Nova's does; user data is there when given.
func metadataService(userData string) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/latest/meta-data/instance-id":
			io.WriteString(w, "i-0000002a")
		case "/latest/meta-data/hostname":
			io.WriteString(w, "canary.novalocal")
		case "/openstack/latest/meta_data.json":
			io.WriteString(w, `{"uuid": "11111111-2222-3333-4444-555555555555", "name": "canary"}`)
		case "/latest/user-data":
			if userData == "" {
				http.NotFound(w, r)
				return
			}
			io.WriteString(w, userData)
		default:
			http.NotFound(w, r)
		}
	}))
}

func call(t *testing.T, h http.Handler, method, path, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func TestMetadataIsAskedForAndToldOf(t *testing.T) {
	for _, userData := range []string{"", "#cloud-config\n"} {
		service := metadataService(userData)
		defer service.Close()
		m, err := ask(service.Client(), service.URL)
		if err != nil {
			t.Fatal(err)
		}
		if m.InstanceID != "i-0000002a" || m.Hostname != "canary.novalocal" || m.UserData != userData || !strings.Contains(string(m.OpenStack), `"name": "canary"`) {
			t.Errorf("got %+v", m)
		}
		h := handler(&identity{metadata: m, known: true})
		var about About
		if _, body := call(t, h, "GET", "/", ""); json.Unmarshal([]byte(body), &about) != nil || about.InstanceID != "i-0000002a" || about.Hostname == "" {
			t.Errorf("/ answers %+v", about)
		}
		if status, body := call(t, h, "GET", "/metadata", ""); status != 200 || !strings.Contains(body, `"instance_id":"i-0000002a"`) {
			t.Errorf("/metadata answers %d %s", status, body)
		}
	}
}

func TestUntilTheMetadataServiceAnswersItIsSaidWhy(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "later", 503) }))
	defer service.Close()
	_, err := ask(service.Client(), service.URL)
	if err == nil || !strings.Contains(err.Error(), "503") {
		t.Fatalf("got %v", err)
	}
	for i, who := range []*identity{{}, {err: err}} {
		h := handler(who)
		if status, body := call(t, h, "GET", "/metadata", ""); status != 503 || !strings.Contains(body, "error") {
			t.Errorf("%d: /metadata answers %d %s", i, status, body)
		}
		if status, _ := call(t, h, "GET", "/", ""); status != 200 {
			t.Errorf("%d: / answers %d", i, status)
		}
	}
}

func TestEchoAnswersWithTheBody(t *testing.T) {
	if status, body := call(t, handler(&identity{}), "POST", "/echo", "abc\x00def"); status != 200 || body != "abc\x00def" {
		t.Errorf("got %d %q", status, body)
	}
}

func TestAnInterfacePluggedInIsRecognised(t *testing.T) {
	for event, want := range map[string]string{
		"add@/devices/pci0000:00/0000:00:06.0/virtio4/net/eth1\x00ACTION=add\x00SUBSYSTEM=net\x00": "eth1",
		"remove@/devices/pci0000:00/0000:00:06.0/virtio4/net/eth1\x00ACTION=remove\x00":            "",
		"add@/devices/pci0000:00/0000:00:07.0/virtio5/block/vdb\x00ACTION=add\x00":                 "",
		"add@/devices/virtual/net/eth1/queues/rx-0\x00ACTION=add\x00":                              "",
	} {
		if got, _ := addedInterface([]byte(event)); got != want {
			t.Errorf("%q: got %q, want %q", event, got, want)
		}
	}
}

func TestOnlyThePowerKeyGoingDownTurnsOff(t *testing.T) {
	event := func(kind, code uint16, value uint32) []byte {
		e := make([]byte, inputEventSize)
		binary.LittleEndian.PutUint16(e[16:], kind)
		binary.LittleEndian.PutUint16(e[18:], code)
		binary.LittleEndian.PutUint32(e[20:], value)
		return e
	}
	others := slices.Concat(event(0, 0, 0), event(eventKey, keyPower, 0), event(eventKey, 30, 1))
	if powerPressed(bytes.NewReader(others)) {
		t.Error("another key, or the power key's release, turns the guest off")
	}
	if !powerPressed(bytes.NewReader(append(others, event(eventKey, keyPower, 1)...))) {
		t.Error("the power key does not turn the guest off")
	}
}

func TestUptimeIsTheKernels(t *testing.T) {
	if _, err := os.Stat("/proc/uptime"); err == nil && uptime() <= 0 {
		t.Error("no time")
	}
}
