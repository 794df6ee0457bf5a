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
		if neutron := r.Raw["components"].(map[string]any)["neutron"].(map[string]any); neutron["code"] == nil || neutron["restarts"] != nil {
			t.Errorf("%s: the pillar would have %v", name, neutron)
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
		{"name: x\ncomponents:\n  nova:\n    code: /x/nova\n    units: {compute: [nova-compute]}\n    restarts:\n      nova/virt/**: [nova-compte]\n",
			`x.yaml:7:22: components.nova.restarts.nova/virt/**.0: nova has no unit "nova-compte"`},
		{"name: x\ncomponents:\n  nova:\n    code: /x/nova\n    restarts: {virt/**: []}\n", `x.yaml:5:16: components.nova.restarts.virt/**: "virt/**" is no path of nova`},
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

func TestWhatIsRestartedIsWhatHasThePathsLoaded(t *testing.T) {
	zed, err := LoadRelease("zed")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ component, paths, roles, want string }{
		{"neutron", "neutron/agent/l3/dvr_fip_ns.py", "compute", "neutron-l3-agent"},
		{"neutron", "neutron/agent/l3/dvr_fip_ns.py", "control", ""},
		{"neutron", "neutron/agent/l3/agent.py neutron/agent/dhcp/agent.py", "network", "neutron-l3-agent neutron-dhcp-agent"},
		{"neutron", "neutron/agent/dhcp/agent.py", "compute", ""},
		{"neutron", "neutron/plugins/ml2/drivers/openvswitch/agent/main.py", "compute control", "neutron-openvswitch-agent"},
		{"neutron", "neutron/plugins/ml2/drivers/openvswitch/agent/common/exceptions.py", "compute", "neutron-openvswitch-agent neutron-l3-agent"},
		{"neutron", "neutron/plugins/ml2/plugin.py", "compute control", "neutron-server"},
		{"neutron", "neutron/plugins/ml2/models.py", "compute control", "neutron-openvswitch-agent neutron-l3-agent neutron-metadata-agent neutron-server"},
		{"neutron", "neutron/db/l3_dvr_db.py", "control network", "neutron-server"},
		{"neutron", "neutron/common/utils.py", "compute", "neutron-openvswitch-agent neutron-l3-agent neutron-metadata-agent"},
		{"neutron", "neutron/tests/unit/test_x.py", "compute control", ""},
		{"neutron", "neutron-21.0.0.egg-info/entry_points.txt", "control", "neutron-server"},
		{"neutron", "", "compute", ""},
		{"nova", "nova/virt/libvirt/driver.py", "compute control", "nova-compute"},
		{"nova", "nova/scheduler/filters/all_hosts_filter.py", "compute control", "nova-scheduler"},
		{"keystone", "keystone/token/provider.py", "control", "keystone"},
		{"cinder", "cinder/volume/drivers/nfs.py", "control storage", "cinder-volume"},
	} {
		if got := strings.Join(zed.Restarts(c.component, strings.Fields(c.paths), strings.Fields(c.roles)), " "); got != c.want {
			t.Errorf("%s on %s: got %q, want %q", c.paths, c.roles, got, c.want)
		}
	}
}
