package scenarios

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/openstack"
	"github.com/toast-cloud/toastdev/internal/openstack/cloudtest"
	"github.com/toast-cloud/toastdev/internal/plan"
)

// cloudRun is a run on a region that is not there.
func cloudRun(t *testing.T) (*Run, *cloudtest.Region) {
	t.Helper()
	region := cloudtest.New(t)
	w := &World{Plan: &plan.Plan{Routing: "dvr", Nodes: []plan.Node{{Name: "cmp1"}}}, Scale: 1,
		Admin: openstack.Auth{URL: region.URL + "/v3", Region: "kr1", User: "admin", Password: "secret", Project: "demo"}}
	return &Run{World: w, Name: "try", ID: "abc123"}, region
}

func TestANameIsGivenOnceAndFoundAgain(t *testing.T) {
	r := &Run{}
	if err := r.put(kindNetwork, "blue", &Resource{ID: "n"}); err != nil {
		t.Fatal(err)
	}
	if err := r.put(kindNetwork, "blue", &Resource{}); err == nil || !strings.Contains(err.Error(), `a network "blue" already`) {
		t.Errorf("taken: %v", err)
	}
	if err := r.put(kindPort, "blue", &Resource{}); err != nil {
		t.Errorf("another kind has names of its own: %v", err)
	}
	_, err := r.id(kindNetwork, "bleu")
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Code != fault.NotFound || e.Remedy != `write "blue"` || e.Expected != "blue" {
		t.Errorf("unknown: %v", err)
	}
	r.forget(kindNetwork, "blue")
	if _, err := r.id(kindNetwork, "blue"); err == nil || !strings.Contains(err.Error(), "none yet") {
		t.Errorf("forgotten: %v", err)
	}
}

func TestAScenarioHasAnOpenProjectOfItsOwn(t *testing.T) {
	r, region := cloudRun(t)
	if err := r.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	project := region.Objects["projects"][0]
	if project["name"] != "scenario-try-abc123" || r.Cloud.ProjectID != project["id"] {
		t.Errorf("project %v, session in %s", project, r.Cloud.ProjectID)
	}
	if n := len(region.Objects["security-groups"][0]["security_group_rules"].([]any)); n != 5 {
		t.Errorf("%d openings", n)
	}
	if q := region.Objects["compute-quota"][0]; q["instances"] != -1.0 {
		t.Errorf("quotas %v", q)
	}
}

// swept is a region with all that two projects can have, the scenario's and another, which refuses to remove what something
// else still stands on.
func swept(t *testing.T) (*Run, *cloudtest.Region) {
	r, region := cloudRun(t)
	for _, p := range []struct{ id, name string }{{"own", "scenario-try-abc123"}, {"demo", "demo"}} {
		add := func(collection, id string, more cloudtest.Object) {
			o := cloudtest.Object{"id": p.id + "-" + id, "name": id, "project_id": p.id, "tenant_id": p.id, "owner": p.id}
			for k, v := range more {
				o[k] = v
			}
			region.Objects[collection] = append(region.Objects[collection], o)
		}
		region.Objects["projects"] = append(region.Objects["projects"], cloudtest.Object{"id": p.id, "name": p.name})
		add("servers", "server", nil)
		add("volumes", "volume", cloudtest.Object{"status": "available"})
		add("snapshots", "snapshot", nil)
		add("images", "image", cloudtest.Object{"status": "active"})
		add("floatingips", "floatingip", nil)
		add("routers", "router", nil)
		add("ports", "side", cloudtest.Object{"device_id": p.id + "-router", "device_owner": "network:router_interface_distributed"})
		add("ports", "dhcp", cloudtest.Object{"device_owner": "network:dhcp"})
		add("ports", "port", nil)
		add("networks", "network", nil)
		add("security-groups", "group", cloudtest.Object{"security_group_rules": []any{}})
	}
	region.Objects["users"] = append(region.Objects["users"], cloudtest.Object{"id": "u", "name": "scenario-abc123-alice"})
	region.Objects["roles"] = append(region.Objects["roles"], cloudtest.Object{"id": "r", "name": "scenario-abc123-auditor"})
	has := func(collection, id string) bool {
		return slices.ContainsFunc(region.Objects[collection], func(o cloudtest.Object) bool { return o["id"] == id })
	}
	region.Fail = func(method, path string) int {
		of, id, _ := strings.Cut(path[strings.LastIndex(path, "/")+1:], "-")
		stands := map[string]bool{
			"router":   has("ports", of+"-side") || has("floatingips", of+"-floatingip"),
			"network":  has("ports", of+"-side") || has("ports", of+"-port") || has("servers", of+"-server"),
			"volume":   has("snapshots", of+"-snapshot") || has("servers", of+"-server"),
			"snapshot": has("servers", of+"-server"),
		}
		if method == http.MethodDelete && (stands[id] || strings.HasSuffix(path, "/projects/own") && (has("networks", "own-network") || has("volumes", "own-volume"))) {
			return http.StatusConflict
		}
		return 0
	}
	return r, region
}

// left is what a project has, Neutron's own ports left out.
func left(region *cloudtest.Region, project string) []string {
	var ids []string
	for _, objects := range region.Objects {
		for _, o := range objects {
			if id, _ := o["id"].(string); strings.HasPrefix(id, project+"-") && o["device_owner"] != "network:dhcp" {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

func TestAllOfAProjectIsSweptInOrderAndNothingElse(t *testing.T) {
	r, region := swept(t)
	before := left(region, "demo")
	if err := r.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ids := left(region, "own"); len(ids) > 0 {
		t.Errorf("left are %v", ids)
	}
	if after := left(region, "demo"); !slices.Equal(before, after) {
		t.Errorf("another project had %v and has %v", before, after)
	}
	if len(region.Objects["projects"]) != 1 || len(region.Objects["users"]) != 1 || len(region.Objects["roles"]) != 2 {
		t.Errorf("left are %v %v %v", region.Objects["projects"], region.Objects["users"], region.Objects["roles"])
	}
	if n := region.Count("DELETE", "os-quota-sets/own") + region.Count("DELETE", "quotas/own"); n != 3 {
		t.Errorf("quotas of %d services were forgotten", n)
	}
	n := region.Count("DELETE", "")
	if err := r.sweep(t.Context()); err != nil || region.Count("DELETE", "") != n {
		t.Errorf("the second sweep removed something, or failed: %v", err)
	}
}

func TestWhatCannotBeRemovedIsSaidAndFoundAgain(t *testing.T) {
	r, region := swept(t)
	stands := region.Fail
	region.Fail = func(method, path string) int {
		if method == http.MethodDelete && strings.HasSuffix(path, "/own-port") {
			return http.StatusConflict
		}
		return stands(method, path)
	}
	err := r.sweep(t.Context())
	if err == nil || !strings.Contains(err.Error(), "remove port port") || !strings.Contains(err.Error(), "remove network network") {
		t.Errorf("got %v", err)
	}
	if ids := left(region, "own"); !slices.Equal(ids, []string{"own-network", "own-port"}) {
		t.Errorf("left are %v", ids)
	}
	if len(region.Objects["projects"]) != 2 {
		t.Error("the project is gone, and with it the way to what is left")
	}
	region.Fail = stands
	if err := SweepStale(t.Context(), &World{Plan: &plan.Plan{}, Admin: r.World.Admin, Scale: 1}); err != nil || len(left(region, "own")) > 0 || len(region.Objects["projects"]) != 1 {
		t.Errorf("the next sweep: %v", err)
	}
}

func TestOnlyNamesOfScenariosAreStale(t *testing.T) {
	for name, want := range map[string]bool{
		"scenario-dvr-snat-0a1b2c": true, "scenario-0a1b2c-alice": true, "scenario-x-123456": true,
		"scenario": false, "scenario-team": false, "my-scenario-x-123456": false, "scenario-x-12345g": false, "demo": false,
	} {
		if staleName.MatchString(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}

func TestARuleIsFoundByTheWordsThatMadeIt(t *testing.T) {
	r := &Run{}
	if err := r.put(kindSecgroup, "web", &Resource{ID: "g"}); err != nil {
		t.Fatal(err)
	}
	words := func(from string, args ...string) rules.CreateOpts {
		t.Helper()
		opts, err := r.ruleOf(t.Context(), args, from)
		if err != nil {
			t.Fatal(err)
		}
		return opts
	}
	for _, c := range []struct {
		rule rules.SecGroupRule
		want rules.CreateOpts
		same bool
	}{
		{rules.SecGroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "tcp", PortRangeMin: 80, PortRangeMax: 80}, words("", "web", "ingress", "tcp", "80"), true},
		{rules.SecGroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "tcp", PortRangeMin: 80, PortRangeMax: 81}, words("", "web", "ingress", "tcp", "80"), false},
		{rules.SecGroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "tcp", PortRangeMin: 80, PortRangeMax: 90, RemoteIPPrefix: "10.0.0.0/8"}, words("10.1.2.3/8", "web", "ingress", "tcp", "80-90"), true},
		{rules.SecGroupRule{Direction: "egress", EtherType: "IPv4"}, words("", "web", "egress", "any"), true},
		{rules.SecGroupRule{Direction: "egress", EtherType: "IPv4", RemoteIPPrefix: "0.0.0.0/0"}, words("", "web", "egress", "any"), true},
		{rules.SecGroupRule{Direction: "egress", EtherType: "IPv6"}, words("", "web", "egress", "any"), false},
		{rules.SecGroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "icmp", RemoteGroupID: "g"}, words("web", "web", "ingress", "icmp"), true},
		{rules.SecGroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "icmp"}, words("web", "web", "ingress", "icmp"), false},
		{rules.SecGroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "icmp", RemoteIPPrefix: "10.0.0.1/32"}, words("10.0.0.1", "web", "ingress", "icmp"), true},
	} {
		if matches(c.rule, c.want) != c.same {
			t.Errorf("%+v and %+v: %t", c.rule, c.want, !c.same)
		}
	}
	for _, args := range [][]string{{"web", "sideways", "tcp"}, {"web", "ingress", "tcp", "http"}, {"web", "ingress", "tcp", "90-80"}, {"web", "ingress", "tcp", "70000"}, {"wed", "ingress", "tcp"}} {
		if _, err := r.ruleOf(context.Background(), args, ""); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}

func TestARouterIsReadyWhereItsInterfacesAre(t *testing.T) {
	attached := []ports.Port{
		{ID: "aaaaaaaa-aaaa-a", DeviceOwner: "network:router_interface_distributed"},
		{ID: "bbbbbbbb-bbbb-b", DeviceOwner: "network:router_gateway"},
		{ID: "cccccccc-cccc-c", DeviceOwner: "network:router_centralized_snat"},
	}
	dvr := &routers.Router{ID: "r", Distributed: true}
	if got := routerDevices(dvr, attached, false); len(got) != 1 || !slices.Equal(got["qrouter-r"], []string{"qr-aaaaaaaa-aa"}) {
		t.Errorf("on a compute %v", got)
	}
	if got := routerDevices(dvr, attached, true); len(got) != 2 || !slices.Equal(got["snat-r"], []string{"qg-bbbbbbbb-bb", "sg-cccccccc-cc"}) {
		t.Errorf("on the network node %v", got)
	}
	if got := routerDevices(&routers.Router{ID: "r"}, attached[:2], true); len(got) != 1 || !slices.Equal(got["qrouter-r"], []string{"qr-aaaaaaaa-aa", "qg-bbbbbbbb-bb"}) {
		t.Errorf("a legacy one %v", got)
	}
}

func TestALineSetsWhatItSays(t *testing.T) {
	r := &Run{}
	outcome, err := r.made(&Resource{Kind: kindPort, Name: "web-1", ID: "p", Address: netip.MustParseAddr("10.0.0.5"), MAC: "fa:16:3e:00:00:01"})
	if err != nil {
		t.Fatal(err)
	}
	promised := networkCommands()["port"].Sets([]string{"web-1", "net"})
	for _, name := range promised {
		if _, ok := outcome.Set[name]; !ok {
			t.Errorf("$%s is promised and not set", name)
		}
	}
	if outcome.Set["web_1"] != "p" || outcome.Set["web_1_ip"] != "10.0.0.5" || len(promised) != len(outcome.Set) {
		t.Errorf("set %v, promised %v", outcome.Set, promised)
	}
	outcome, err = r.made(&Resource{Kind: kindRouter, Name: "r", ID: "id"})
	if ip, ok := outcome.Set["r_ip"]; err != nil || !ok || ip != "" {
		t.Errorf("a router without a gateway sets %v (%v)", outcome.Set, err)
	}
}

func TestServersAreRememberedUntilALineMayChangeThem(t *testing.T) {
	r, _ := cloudRun(t)
	keep := func() { r.shown.known = map[string]*Server{"vm": {Name: "vm", Host: "cmp1"}} }
	keep()
	if s, err := r.server(t.Context(), "vm"); err != nil || s.Host != "cmp1" {
		t.Errorf("%v, %v", s, err)
	}
	done := r.changing()
	if _, err := r.server(t.Context(), "vm"); err == nil {
		t.Error("it is remembered while a line runs that may change it")
	}
	keep()
	done()
	if _, err := r.server(t.Context(), "vm"); err == nil {
		t.Error("it is remembered after a line that may have changed it")
	}
}
