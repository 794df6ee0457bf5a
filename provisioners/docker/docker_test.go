package docker

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
)

func TestAnEngineThatCannotBeUsedIsAFaultWithARemedy(t *testing.T) {
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.39") }))
	defer old.Close()
	windows := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", "1.47")
		w.Header().Set("Ostype", "windows")
	}))
	defer windows.Close()
	tests := []struct {
		name, host string
		code       fault.Code
		remedy     string
	}{
		{"not running", "unix://" + filepath.Join(t.TempDir(), "docker.sock"), fault.Missing, "systemctl start docker"},
		{"not running elsewhere", "tcp://127.0.0.1:1", fault.Missing, "DOCKER_HOST"},
		{"too old", "tcp://" + strings.TrimPrefix(old.URL, "http://"), fault.Missing, "20.10"},
		{"of Windows", "tcp://" + strings.TrimPrefix(windows.URL, "http://"), fault.Unsupported, "Linux"},
		{"not an address", "nonsense", fault.Invalid, "DOCKER_HOST"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("DOCKER_HOST", test.host)
			p, err := New(Options{})
			if err == nil {
				err = p.Check(t.Context())
			}
			if fault.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.remedy) {
				t.Errorf("%v\nwant code %s, remedy with %q", err, test.code, test.remedy)
			}
			if p != nil && test.code == fault.Missing && test.name != "too old" {
				if _, err := p.State(t.Context(), "x"); fault.CodeOf(err) != fault.Missing {
					t.Errorf("state: %v, want the same fault", err)
				}
			}
		})
	}
}

func TestANodeIsGivenTheCapabilitiesThatTheHostHas(t *testing.T) {
	if got := capabilities(nil); !slices.Contains(got, "SYS_RESOURCE") || !slices.Contains(got, "SYS_ADMIN") {
		t.Errorf("all: %v", got)
	}
	got := capabilities([]string{"CAP_NET_ADMIN", "sys_admin", "CHOWN"})
	if !slices.Equal(got, []string{"NET_ADMIN", "SYS_ADMIN"}) {
		t.Errorf("some: %v", got)
	}
}

func TestOnlyWhatCannotChangeInPlaceIsInTheDigest(t *testing.T) {
	p := &Provisioner{}
	node := provisioners.Node{Name: "n", Image: "i:1", CPUs: 1, Identity: "hostname n\nnic mgmt0 m mtu 1500 a\nrole compute\nhost 1 n\n"}
	before := p.fixed(node)
	node.CPUs, node.Memory = 2, 1<<30
	node.Identity = "hostname n\nnic mgmt0 m mtu 1500 a\nrole storage\nhost 1 n\nhost 2 m\n"
	if p.fixed(node) != before {
		t.Error("limits, roles and hosts change the digest")
	}
	node.Identity = strings.Replace(node.Identity, "1500", "1600", 1)
	if p.fixed(node) == before {
		t.Error("another MTU does not change the digest")
	}
}

func TestAMACForEachNetworkIsForNewEngines(t *testing.T) {
	p := &Provisioner{}
	n := provisioners.Node{NICs: []provisioners.NIC{{Network: "a", MAC: "02:42:00:00:00:01"}}, Memory: 1 << 30}
	config, host, networks := p.configs(n, false)
	if config.MacAddress != n.NICs[0].MAC || networks.EndpointsConfig["a"].MacAddress != "" {
		t.Errorf("old engine: %q, %+v", config.MacAddress, networks.EndpointsConfig["a"])
	}
	if host.Privileged || host.MaskedPaths == nil || host.Memory != 1<<30 {
		t.Errorf("host: %+v", host)
	}
	config, _, networks = p.configs(n, true)
	if config.MacAddress != "" || networks.EndpointsConfig["a"].MacAddress != n.NICs[0].MAC {
		t.Errorf("new engine: %q, %+v", config.MacAddress, networks.EndpointsConfig["a"])
	}
}
