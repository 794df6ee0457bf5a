package openstack

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/internal/openstack/cloudtest"
	"github.com/toast-cloud/toastdev/internal/plan"
)

func admin(r *cloudtest.Region) Auth {
	return Auth{URL: r.URL + "/v3", Region: "kr1", User: "admin", Password: "secret", Project: "admin"}
}

func spec(t *testing.T, hash string) Spec {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "guest.raw")
	if err := os.WriteFile(disk, []byte("disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &plan.Plan{Routing: "dvr", Networks: []plan.Network{
		{Name: "management", Subnet: netip.MustParsePrefix("10.10.0.0/16")},
		{Name: "external", Subnet: netip.MustParsePrefix("172.30.2.0/24"), Gateway: netip.MustParseAddr("172.30.2.1"),
			Floating: &plan.Range{First: netip.MustParseAddr("172.30.2.100"), Last: netip.MustParseAddr("172.30.2.199")}},
	}}
	s, err := SpecOf(p, "secret", []Image{{Name: GuestImage, Hash: hash, File: disk, DiskFormat: "raw", MinDisk: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheNewcomersSubnetIsBesideTheRegions(t *testing.T) {
	if got := spec(t, "h").Subnet.String(); got != "10.11.0.0/24" {
		t.Errorf("got %s", got)
	}
}

func TestNewcomerConvergesAndThenChangesNothing(t *testing.T) {
	region := cloudtest.New(t)
	run := func(hash string) int {
		t.Helper()
		cloud, err := Connect(t.Context(), admin(region))
		if err != nil {
			t.Fatal(err)
		}
		n, err := Newcomer(t.Context(), cloud, spec(t, hash))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := run("h1"); n != 17 {
		t.Errorf("the first run changed %d, not 17", n)
	}
	region.Lock()
	region.Calls = nil
	region.Unlock()
	if n := run("h1"); n != 0 {
		t.Errorf("the second run changed %d", n)
	}
	if region.Count("GET", "")+1 != len(region.Calls) || len(region.Calls) > 15 { // all but the token's
		t.Errorf("the second run made these calls: %s", strings.Join(region.Calls, "\n"))
	}
	router := region.Objects["routers"][0]
	if router["distributed"] != true || router["external_gateway_info"] == nil {
		t.Errorf("the router is %v", router)
	}

	// What was taken away comes back, alone.
	region.Objects["security-groups"][0]["security_group_rules"] = region.Objects["security-groups"][0]["security_group_rules"].([]any)[1:]
	region.Objects["ports"] = nil
	if n := run("h1"); n != 2 {
		t.Errorf("a rule and the router's interface were mended by %d changes, not 2", n)
	}
	// A router of another kind is made the spec's.
	router["distributed"] = false
	if n := run("h1"); n != 1 || router["distributed"] != true || router["admin_state_up"] != true {
		t.Errorf("%d changes, the router is %v", n, router)
	}
}

func TestAnImageWithAnotherHashIsReplaced(t *testing.T) {
	region := cloudtest.New(t)
	region.Objects["images"] = []cloudtest.Object{
		{"id": "theirs", "name": GuestImage, "status": "active"},
		{"id": "unused", "name": GuestImage, "status": "active", hashProperty: "old"},
		{"id": "half", "name": GuestImage, "status": "queued", hashProperty: "new"},
		{"id": "used", "name": GuestImage, "status": "active", hashProperty: "older"},
	}
	region.Objects["servers"] = []cloudtest.Object{{"id": "s", "name": "s", "imageRef": "used"}}
	cloud, err := Connect(t.Context(), admin(region))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Newcomer(t.Context(), cloud, spec(t, "new")); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, i := range region.Objects["images"] {
		left = append(left, i["id"].(string))
	}
	if got := strings.Join(left, " "); !strings.HasPrefix(got, "theirs used images-") || len(left) != 3 {
		t.Errorf("left are %s", got)
	}
	if region.Count("PATCH", "/images/used") != 1 {
		t.Error("the image that a server uses was not hidden")
	}
}

func TestAWrongRegionIsSaidAsSuch(t *testing.T) {
	auth := admin(cloudtest.New(t))
	auth.Region = "jp1"
	if _, err := Connect(t.Context(), auth); err == nil || !strings.Contains(err.Error(), `region "jp1"`) {
		t.Errorf("got %v", err)
	}
}
