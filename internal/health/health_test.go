package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/openstack"
	"github.com/toast-cloud/toastdev/internal/openstack/cloudtest"
	"github.com/toast-cloud/toastdev/internal/plan"
)

func mini(routing string) *plan.Plan {
	return &plan.Plan{Routing: routing, Nodes: []plan.Node{
		{Name: "ctl", Roles: []string{"control"}}, {Name: "net", Roles: []string{"network"}},
		{Name: "cmp1", Roles: []string{"compute"}}, {Name: "nas", Roles: []string{"storage"}},
	}}
}

func names(services []Service) string {
	var all []string
	for _, s := range services {
		all = append(all, s.Node+":"+s.Name)
	}
	return strings.Join(all, " ")
}

func TestWhatIsExpectedFollowsTheRoles(t *testing.T) {
	for _, c := range []struct{ routing, want string }{
		{"dvr", "nas:cinder-volume ctl:cinder-scheduler cmp1:neutron-l3-agent cmp1:neutron-metadata-agent cmp1:neutron-openvswitch-agent net:neutron-dhcp-agent net:neutron-l3-agent net:neutron-metadata-agent net:neutron-openvswitch-agent cmp1:nova-compute ctl:nova-conductor ctl:nova-scheduler"},
		{"legacy", "nas:cinder-volume ctl:cinder-scheduler cmp1:neutron-openvswitch-agent net:neutron-dhcp-agent net:neutron-l3-agent net:neutron-metadata-agent net:neutron-openvswitch-agent cmp1:nova-compute ctl:nova-conductor ctl:nova-scheduler"},
	} {
		got := strings.Fields(names(expected(mini(c.routing), true)))
		for _, want := range strings.Fields(c.want) {
			if !strings.Contains(" "+strings.Join(got, " ")+" ", " "+want+" ") {
				t.Errorf("%s: %s is not expected", c.routing, want)
			}
		}
		if len(got) != len(strings.Fields(c.want)) {
			t.Errorf("%s: expected are %v", c.routing, got)
		}
	}
	one := &plan.Plan{Routing: "dvr", Nodes: []plan.Node{{Name: "all", Roles: []string{"control", "network", "compute", "storage"}}}}
	if got := expected(one, false); len(got) != 7 {
		t.Errorf("all roles on one node, without volumes: %s", names(got))
	}
}

func TestVerdicts(t *testing.T) {
	now := time.Now()
	boot := now.Add(-time.Minute)
	row := func(alive, enabled bool, seen time.Time) []Service {
		return []Service{service("nova", "nova-compute", "cmp1", alive, enabled, "by hand", seen)}
	}
	node := func(boot time.Time) map[unit]time.Time { return map[unit]time.Time{{node: "cmp1"}: boot} }
	unitSince := func(start time.Time) map[unit]time.Time {
		return map[unit]time.Time{{node: "cmp1"}: boot, {"cmp1", "nova-compute"}: start, {"cmp2", "nova-compute"}: now.Add(time.Hour)}
	}
	for _, c := range []struct {
		name     string
		reported []Service
		failed   map[string]error
		started  map[unit]time.Time
		reason   string // "" is up
	}{
		{name: "alive", reported: row(true, true, now)},
		{name: "alive and seen since its node's start", reported: row(true, true, now), started: node(boot)},
		{name: "seen last before its node's start", reported: row(true, true, boot.Add(-time.Second)), started: node(boot), reason: "it has not reported itself since its start"},
		{name: "alive on a node that does not answer", reported: row(true, true, now), started: node(time.Time{}), reason: "its node does not answer"},
		{name: "never reported on a node that does not answer", started: node(time.Time{}), reason: "its node does not answer"},
		{name: "never reported", reason: "it has not reported itself"},
		{name: "seen since its restart", reported: row(true, true, now), started: unitSince(boot)},
		{name: "seen last before its restart", reported: row(true, true, boot.Add(time.Second)), started: unitSince(boot.Add(2 * time.Second)), reason: "it has not reported itself since its start"},
		{name: "seen last in the second of its restart", reported: row(true, true, now.Truncate(time.Second)), started: unitSince(now), reason: "it has not reported itself since its start"},
		{name: "not started since its node's start", reported: row(true, true, boot.Add(-time.Second)), started: unitSince(boot.Add(-time.Minute)), reason: "it has not reported itself since its start"},
		{name: "disabled", reported: row(true, false, now), reason: "disabled: by hand"},
		{name: "no heartbeat", reported: row(false, true, time.Time{}), reason: "no heartbeat yet"},
		{name: "a dead row beside a live one", reported: append(row(false, true, boot), row(true, true, now)...)},
		{name: "API fails", failed: map[string]error{"nova": fmt.Errorf("503")}, reason: "cannot be asked: 503"},
	} {
		t.Run(c.name, func(t *testing.T) {
			told := answers{expected: []Service{{Component: "nova", Name: "nova-compute", Node: "cmp1"}}, reported: c.reported, failed: c.failed}
			got := told.judge(c.started).Services[0]
			if got.Up != (c.reason == "") || got.Reason != c.reason {
				t.Errorf("got %t, %q", got.Up, got.Reason)
			}
		})
	}
}

func TestStartsAreThoseOfTheFirstProcessAndOfUnits(t *testing.T) {
	now := time.Now()
	text := "1000.50 1.0\n1 (my (init) x) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 90000 1 1\n"
	boot, units := startsOf(text+"Id=nova-compute.service\nActiveEnterTimestampMonotonic=940500000\n\nId=nova-api.service\nActiveEnterTimestampMonotonic=0\n", now)
	if got := now.Sub(boot); got != 100500*time.Millisecond {
		t.Errorf("the node has run %s, not 100.5 s", got)
	}
	if got := now.Sub(units["nova-compute"]); got != time.Minute || len(units) != 1 {
		t.Errorf("nova-compute has run %s, not a minute, in %v", got, units)
	}
	if boot, units = startsOf(text, now); boot.IsZero() || len(units) != 0 {
		t.Errorf("before systemd answers: %s, %v", boot, units)
	}
	if boot, _ = startsOf("nonsense", now); !boot.IsZero() {
		t.Error("nonsense has a time")
	}
}

// answering is a node that prints what Check asks for.
type answering struct{ name, out string }

func (n answering) Name() string { return n.name }
func (n answering) Run(_ context.Context, cmd node.Cmd) error {
	if n.out == "" {
		return fmt.Errorf("no such container")
	}
	_, err := cmd.Stdout.Write([]byte(n.out))
	return err
}

func demo(region *cloudtest.Region) openstack.Auth {
	return openstack.Auth{URL: region.URL + "/v3", Region: "kr1", User: "admin", Password: "secret", Project: "demo"}
}

// healthy is a region in which everything of mini reports itself.
func healthy(t *testing.T) *cloudtest.Region {
	region := cloudtest.New(t)
	now := time.Now().UTC()
	for _, s := range expected(mini("dvr"), true) {
		where := map[string]string{"nova": "compute", "neutron": "network", "cinder": "volume"}[s.Component]
		host := s.Node
		if s.Name == "cinder-volume" {
			host += "@nas"
		}
		region.Objects[where+"-services"] = append(region.Objects[where+"-services"], cloudtest.Object{"id": 1, "binary": s.Name, "host": host,
			"state": "up", "status": "enabled", "alive": true, "admin_state_up": true,
			"updated_at": now.Format("2006-01-02T15:04:05.000000"), "heartbeat_timestamp": now.Format("2006-01-02 15:04:05")})
	}
	for _, s := range region.Objects["network-services"] {
		s["id"] = "agent"
	}
	return region
}

func TestWaitEndsWhenAllIsThereAndSaysWhatIsNot(t *testing.T) {
	region := healthy(t)
	nodes := func(name string) node.Node {
		return answering{name, "1000.0 1.0\n1 (systemd) S 0 1 1 0 -1 1 1 1 1 1 1 1 1 1 20 0 1 0 10000 1 1"}
	}
	_, report, err := Wait(t.Context(), demo(region), mini("dvr"), nodes, 20*time.Second)
	if err != nil || len(report.Services) != 12 || len(report.Endpoints) != 5 {
		t.Fatalf("%d services, %d endpoints: %v", len(report.Services), len(report.Endpoints), err)
	}
	region.Lock()
	region.Objects["network-services"][0]["alive"] = false
	for _, s := range region.Objects["compute-services"] {
		s["forced_down"] = s["host"] == "cmp1"
	}
	region.Fail = func(_, path string) int {
		if strings.HasPrefix(path, "/image/") {
			return http.StatusServiceUnavailable
		}
		return 0
	}
	region.Unlock()
	_, _, err = Wait(t.Context(), demo(region), mini("dvr"), nodes, time.Second)
	if fault.CodeOf(err) != fault.Timeout || !strings.Contains(err.Error(), "neutron-l3-agent on cmp1: no heartbeat since") || !strings.Contains(err.Error(), "nova-compute on cmp1: forced down") || !strings.Contains(err.Error(), "the API image") {
		t.Errorf("got %v", err)
	}
}

// newcomer gives a region what a canary needs; its instance answers as id on port 80 of a floating IP, when id is not empty.
func newcomer(t *testing.T, id string) (*cloudtest.Region, *canary) {
	region := cloudtest.New(t)
	region.Objects["networks"] = []cloudtest.Object{{"id": "n", "name": openstack.NewcomerNetwork, "project_id": "demo"}, {"id": "e", "name": "public", "router:external": true}}
	region.Objects["images"] = []cloudtest.Object{{"id": "i", "name": openstack.GuestImage, "status": "active", "min_ram": 96, "min_disk": 1}}
	// What a canary that was killed has left, and what is somebody's own.
	region.Objects["servers"] = []cloudtest.Object{{"id": "left", "name": "toastdev-canary-left"}, {"id": "own", "name": "own"}}
	region.Objects["floatingips"] = []cloudtest.Object{{"id": "left", "description": "toastdev-canary-left"}, {"id": "own", "description": ""}}
	region.Objects["ports"] = []cloudtest.Object{{"id": "left", "name": "toastdev-canary-left"}, {"id": "own", "name": ""}}
	region.Made = func(collection string, o cloudtest.Object) {
		if collection == "servers" {
			o["status"], o["OS-EXT-SRV-ATTR:host"], o["OS-EXT-SRV-ATTR:instance_name"] = "ACTIVE", "cmp1", "instance-0000002a"
		}
	}
	cloud, err := openstack.Connect(t.Context(), demo(region))
	if err != nil {
		t.Fatal(err)
	}
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"instance_id": %q}`, id) }))
	t.Cleanup(agent.Close)
	c := newCanary(cloud, 1)
	c.agent.Transport = &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != "192.0.2.77:80" {
			return nil, fmt.Errorf("%s is not the floating IP", address)
		}
		return (&net.Dialer{}).DialContext(ctx, network, agent.Listener.Addr().String())
	}}
	return region, c
}

func left(region *cloudtest.Region) string {
	region.Lock()
	defer region.Unlock()
	var all []string
	for _, collection := range []string{"servers", "floatingips", "ports"} {
		for _, o := range region.Objects[collection] {
			all = append(all, collection+":"+o["id"].(string))
		}
	}
	return strings.Join(all, " ")
}

const onlyOthers = "servers:own floatingips:own ports:own"

func TestACanaryProvesTheRegionAndLeavesNothing(t *testing.T) {
	region, c := newcomer(t, "i-0000002a")
	var flavor any
	made := region.Made
	region.Made = func(collection string, o cloudtest.Object) {
		made(collection, o)
		if collection == "servers" {
			flavor = o["flavorRef"]
		}
	}
	result, err := c.run(t.Context())
	if err != nil || result.Address != "192.0.2.77" || result.Node != "cmp1" || result.Seconds <= 0 {
		t.Errorf("got %+v, %v", result, err)
	}
	if flavor != "f-tiny" {
		t.Errorf("it ran on the flavor %v", flavor)
	}
	if got := left(region); got != onlyOthers {
		t.Errorf("left are %s", got)
	}
}

func TestACanaryThatFailsSaysWhyAndLeavesNothing(t *testing.T) {
	region, c := newcomer(t, "i-0000002a")
	region.Made = func(collection string, o cloudtest.Object) {
		if collection == "servers" {
			o["status"], o["OS-EXT-SRV-ATTR:host"], o["fault"] = "ERROR", "cmp1", cloudtest.Object{"message": "no disk left", "created": "2026-01-01T00:00:00Z"}
		}
	}
	_, err := c.run(t.Context())
	if err == nil {
		t.Fatal("it did not fail")
	}
	for _, want := range []string{"cmp1", "in ERROR", "fault: no disk left", "console: panic: no root"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	if got := left(region); got != onlyOthers {
		t.Errorf("left are %s", got)
	}
}

func TestAnInterruptedCanaryLeavesNothing(t *testing.T) {
	region, c := newcomer(t, "") // never told its id
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if _, err := c.run(ctx); err == nil {
		t.Error("it did not fail")
	}
	if got := left(region); got != onlyOthers {
		t.Errorf("left are %s", got)
	}
}
