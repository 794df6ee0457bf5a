package openstack

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestAnAPIThatIsAwayForAMomentIsAskedAgain(t *testing.T) {
	var calls atomic.Int32
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		bodies = append(bodies, string(body))
		if calls.Add(1) < 3 {
			http.Error(w, "restarting", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	client := http.Client{Transport: &patient{to: direct(nil), limit: 10 * time.Second}}
	if response, err := client.Get(server.URL); err != nil || response.StatusCode != 200 || calls.Load() != 3 {
		t.Errorf("a question: %v, %v after %d calls", response, err, calls.Load())
	}
	// What may have done something already is not done twice.
	calls.Store(0)
	bodies = nil
	if response, err := client.Post(server.URL, "", strings.NewReader("make it")); err != nil || response.StatusCode != 503 || len(bodies) != 1 || bodies[0] != "make it" {
		t.Errorf("an order: %v, %v, sent %q", response, err, bodies)
	}
	// One that stays away is seen as it is.
	calls.Store(-1000)
	client.Transport = &patient{to: direct(nil), limit: time.Millisecond}
	if response, err := client.Get(server.URL); err != nil || response.StatusCode != 503 {
		t.Errorf("a question that nobody answers: %v, %v", response, err)
	}
}

func TestWhatDidNotReachTheAPIIsSentAgain(t *testing.T) {
	fails := 2
	client := http.Client{Transport: &patient{limit: 10 * time.Second, to: roundTrip(func(q *http.Request) (*http.Response, error) {
		body, _ := io.ReadAll(q.Body)
		if fails--; fails >= 0 {
			return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
		}
		return &http.Response{StatusCode: 201, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
	})}}
	response, err := client.Post("http://api.invalid", "", strings.NewReader("make it"))
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(response.Body); string(body) != "make it" {
		t.Errorf("sent was %q", body)
	}
	fails = 1000
	client.Transport.(*patient).limit = time.Millisecond
	if _, err := client.Post("http://api.invalid", "", strings.NewReader("make it")); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

func TestAPIsOnANetworkThatThisMachineIsNotOnAreReachedByADetour(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) }))
	defer server.Close()
	by := &Detour{Ports: map[string]string{"198.51.100.5:5000": server.Listener.Addr().String()}}
	client := http.Client{Transport: direct(by), Timeout: 10 * time.Second}
	for _, url := range []string{"http://198.51.100.5:5000/v3", server.URL} {
		answer, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if want := strings.Split(url, "/")[2]; string(text) != want {
			t.Errorf("%s: asked as %s", url, text)
		}
	}
}
