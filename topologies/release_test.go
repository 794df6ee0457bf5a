package topologies

import (
	"slices"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/internal/fault"
)

func TestEveryReleaseLoads(t *testing.T) {
	for _, name := range Releases() {
		r, err := LoadRelease(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Series == "" || r.OS.Suite == "" || r.Install == "" || r.Raw["name"] != name {
			t.Errorf("%s: incomplete: %+v", name, r)
		}
		for _, component := range []string{"keystone", "glance", "placement", "nova", "neutron", "cinder"} {
			if c := r.Components[component]; c.Code == "" || len(c.Packages) == 0 || len(c.Units) == 0 {
				t.Errorf("%s: %s is incomplete: %+v", name, component, c)
			}
		}
	}
}

func TestAReleaseThatIsNotThereIsRefused(t *testing.T) {
	for _, name := range []string{"zedd", "", "../mini", "ZED"} {
		if _, err := LoadRelease(name); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestAReleaseIsReadStrictly(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"name: x\nunits: {}\n", "unknown field"},
		{"name: y\n", `x.yaml:1:7: name: "y" is not the file's name`},
		{"name: x\ncomponents:\n  nova:\n    units: {compute: [a], contrl: [b]}\n", `x.yaml:4:27: components.nova.units.contrl: no role "contrl"`},
		{"name: x\ncomponents: {nova: {packages: [a]}}\n", "cannot unmarshal array"},
		{"name: x\nname: x\n", "x.yaml:2:1"},
	} {
		if _, err := parseRelease("releases/x.yaml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.text, err, c.want)
		}
	}
}

func TestANodesUnitsAreThoseOfItsRolesEachOnce(t *testing.T) {
	r := Release{Components: map[string]Component{
		"neutron": {Units: map[string][]string{"network": {"ovs-agent", "dhcp-agent"}, "compute": {"ovs-agent", "l3-agent"}}},
		"ssh":     {Units: map[string][]string{"all": {"ssh"}}},
		"nova":    {Units: map[string][]string{"control": {"nova-api"}}},
	}}
	want := []Unit{{"neutron", "ovs-agent"}, {"neutron", "dhcp-agent"}, {"neutron", "l3-agent"}, {"ssh", "ssh"}}
	if got := r.UnitsOf([]string{"network", "compute"}); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
