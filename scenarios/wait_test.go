package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/toast-cloud/toastdev/internal/openstack"
	"github.com/toast-cloud/toastdev/internal/openstack/cloudtest"
)

func TestWaitsAreReadBeforeAnythingIsMade(t *testing.T) {
	for line, want := range map[string]time.Duration{
		"server s1 ACTIVE":          2 * time.Minute,
		"server s1 ACTIVE 90s":      90 * time.Second,
		"agent l3 on cmp1 alive":    90 * time.Second,
		"agent $kind on cmp1 dead":  90 * time.Second,
		"agent ovs on cmp1 dead 5s": 5 * time.Second,
		"router r on cmp1":          time.Minute,
		"guest s1 10s":              10 * time.Second,
		"region healthy":            2 * time.Minute,
		"closed a b 80 5s":          5 * time.Second,
		"token t refused 3s":        3 * time.Second,
		"arp f on cmp1 20s":         20 * time.Second,
	} {
		if _, _, got, err := waitFor(strings.Fields(line)); err != nil || got != want {
			t.Errorf("wait %s: %s, %v", line, got, err)
		}
	}
	for line, want := range map[string]string{
		"sever s1 ACTIVE":        `write "server"`,
		"server s1":              "wait server SERVER STATUS [TIMEOUT]",
		"server s1 ACTIVE 1 2":   "wait server SERVER STATUS [TIMEOUT]",
		"server s1 ACTIVE soon":  "is not a time",
		"server s1 ACTIVE -3s":   "is not a time",
		"agent l3 at cmp1 alive": "on",
		"agent l4 on cmp1 alive": "l3, dhcp",
		"agent l3 on cmp1 alvie": `write "alive"`,
		"node cmp1 gone":         "running, stopped, paused",
		"region well":            "healthy",
	} {
		if _, _, _, err := waitFor(strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("wait %s: %v does not say %q", line, err, want)
		}
	}
}

func TestAWaitThatIsTooLongSaysWhatItSawLast(t *testing.T) {
	r := &Run{World: &World{Scale: 1}}
	n := 0
	err := r.wait(t.Context(), "server s1 to be ACTIVE", 10*time.Millisecond, func(context.Context) (bool, error) {
		n++
		return false, fmt.Errorf("it is BUILD (%d)", n)
	})
	mismatch, ok := errors.AsType[*Mismatch](err)
	if !ok || mismatch.Seen != "it is BUILD (1)" || !strings.HasPrefix(mismatch.Expected, "server s1 to be ACTIVE within ") {
		t.Errorf("got %v", err)
	}
	final := errors.New("it is in ERROR")
	if err := r.wait(t.Context(), "x", time.Second, func(context.Context) (bool, error) { return true, final }); err != final {
		t.Errorf("a final error became %v", err)
	}
}

func TestAnAPICallIsComparedByItsStatus(t *testing.T) {
	r, region := cloudRun(t)
	cloud, err := openstack.Connect(t.Context(), r.World.Admin)
	if err != nil {
		t.Fatal(err)
	}
	r.Cloud = cloud
	region.Fail = func(_, path string) int {
		if strings.HasSuffix(path, "/secret") {
			return http.StatusForbidden
		}
		return 0
	}
	call := openstack.Call{Method: "GET", Header: http.Header{}}
	outcome, err := r.api(t.Context(), call, "compute", "/servers", "", "", 0)
	if err != nil || outcome.Status != 200 || outcome.Text != "{\"servers\":[]}\n" {
		t.Errorf("got %+v, %v", outcome, err)
	}
	if _, err = r.api(t.Context(), call, "compute", "/secret", "none", "", 403); err != nil {
		t.Errorf("an expected refusal: %v", err)
	}
	outcome, err = r.api(t.Context(), call, "compute", "/secret", "", "", 0)
	mismatch, ok := errors.AsType[*Mismatch](err)
	if !ok || mismatch.Expected != "2xx of GET compute /secret" || mismatch.Seen != "403 Forbidden: the test says so" || outcome.Status != 403 {
		t.Errorf("a refusal: %v, status %d", err, outcome.Status)
	}
	if _, err = r.api(t.Context(), call, "compute", "/servers", "", "", 403); err == nil || !strings.Contains(err.Error(), "seen 200 OK") {
		t.Errorf("no refusal: %v", err)
	}
	if _, err = r.api(t.Context(), call, "compote", "/servers", "", "", 0); err == nil || !strings.Contains(err.Error(), `write "compute"`) {
		t.Errorf("an unknown service: %v", err)
	}
	if _, err = r.api(t.Context(), call, "compute", "/servers", "mallory", "", 0); err == nil || !strings.Contains(err.Error(), `no user or token "mallory"`) {
		t.Errorf("an unknown asker: %v", err)
	}
}

func TestWhoAsksForATokenIsSaidOnce(t *testing.T) {
	r, _ := cloudRun(t)
	if err := errors.Join(r.put(kindProject, "other", &Resource{ID: "p"}), r.put(kindUser, "alice", &User{Login: "scenario-abc123-alice", Password: "own"}),
		r.put(kindToken, "t", &Token{ID: "gAAAA"}), r.put(kindCredential, "robot", &credential{id: "ac", secret: "s"})); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    tokenOptions
		want openstack.Auth
	}{
		{tokenOptions{user: "alice", project: "other"}, openstack.Auth{User: "scenario-abc123-alice", Password: "own", Project: "scenario-abc123-other"}},
		{tokenOptions{user: "alice", password: "wrong", unscoped: true}, openstack.Auth{User: "scenario-abc123-alice", Password: "wrong"}},
		{tokenOptions{user: "demo", password: "p", project: "demo"}, openstack.Auth{User: "demo", Password: "p", Project: "demo"}},
		{tokenOptions{credential: "robot"}, openstack.Auth{Credential: "ac", CredentialSecret: "s"}},
		{tokenOptions{token: "t", project: "other"}, openstack.Auth{Token: "gAAAA", Project: "scenario-abc123-other"}},
	} {
		c.want.URL, c.want.Region = r.World.Admin.URL, r.World.Admin.Region
		if got, err := r.auth(c.o); err != nil || got != c.want {
			t.Errorf("%+v: %+v, %v", c.o, got, err)
		}
	}
	for _, o := range []tokenOptions{{}, {user: "alice"}, {user: "alice", token: "t", project: "other"}, {user: "alice", project: "other", unscoped: true},
		{credential: "robot", project: "other"}, {token: "t", unscoped: true}, {token: "t", project: "other", password: "p"}, {credential: "rob"}} {
		if got, err := r.auth(o); err == nil {
			t.Errorf("%+v is taken: %+v", o, got)
		}
	}
}

func TestARefusedTokenIsWhatWasExpectedOrNot(t *testing.T) {
	r, region := cloudRun(t)
	if err := r.put(kindUser, "alice", &User{Login: "alice", Password: "own"}); err != nil {
		t.Fatal(err)
	}
	region.Objects["projects"] = []cloudtest.Object{{"id": "p", "name": "other"}}
	o := tokenOptions{user: "alice", project: "other", status: 401}
	if _, err := r.token(t.Context(), "good", o); err == nil || !strings.Contains(err.Error(), "expected 401 for alice in project other, seen a token") {
		t.Errorf("let in: %v", err)
	}
	region.Fail = func(string, string) int { return http.StatusUnauthorized }
	outcome, err := r.token(t.Context(), "bad", o)
	if err != nil || outcome.Status != 401 || outcome.Set["bad"] != "" {
		t.Errorf("refused: %+v, %v", outcome, err)
	}
	o.status = 0
	if _, err := r.token(t.Context(), "bad", o); err == nil || !strings.Contains(err.Error(), "expected a token for alice in project other, seen 401 Unauthorized") {
		t.Errorf("refused: %v", err)
	}
}
