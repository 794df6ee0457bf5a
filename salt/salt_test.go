package salt

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/toast-cloud/toastdev/internal/plan"
)

func region() (*plan.Plan, *plan.Node) {
	node := plan.Node{Name: "ctl", Roles: []string{"control"}, NICs: []plan.NIC{{Name: "mgmt0", Network: "management",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.10/24"), netip.MustParsePrefix("10.0.0.5/24")}}}}
	return &plan.Plan{
		Environment: "mini", Region: "kr1", API: netip.MustParseAddr("10.0.0.5"), Nodes: []plan.Node{node},
		Networks: []plan.Network{{Name: "management", Subnet: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1"), MTU: 1500}},
		Pillar:   map[string]any{"nova": map[string]any{"debug": false}, "secrets": map[string]any{"extra": "x", "demo": nil}},
	}, &node
}

func hand(t *testing.T, tree Tree, secrets map[string]string) *Handed {
	t.Helper()
	p, n := region()
	h, err := Hand(tree, p, n, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func files(t *testing.T, h *Handed) map[string]*tar.Header {
	t.Helper()
	r, err := h.Tar()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*tar.Header{}
	for tr := tar.NewReader(r); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found[header.Name] = header
	}
}

func TestOnlyRootReadsThePillar(t *testing.T) {
	found := files(t, hand(t, Tree{States: States()}, map[string]string{"admin": "secret"}))
	if got := found["pillar.json"].Mode; got != 0o600 {
		t.Errorf("mode %o", got)
	}
	for _, name := range []string{"minion", "minion.d/node.conf", "modules/toastdev.py", "states/top.sls"} {
		if found[name] == nil {
			t.Errorf("%s is not handed over", name)
		}
	}
}

func TestTheDigestFollowsWhatIsHanded(t *testing.T) {
	secrets := map[string]string{"admin": "secret"}
	one := hand(t, Tree{States: States()}, secrets).Digest()
	if one != hand(t, Tree{States: States()}, secrets).Digest() {
		t.Error("the same gives another digest")
	}
	if one == hand(t, Tree{States: States()}, map[string]string{"admin": "other"}).Digest() {
		t.Error("another secret gives the same digest")
	}
	if one == hand(t, Tree{States: States(), User: fstest.MapFS{"a.sls": {Data: []byte("{}")}}}, secrets).Digest() {
		t.Error("another tree gives the same digest")
	}
}

func TestAUsersTree(t *testing.T) {
	for name, test := range map[string]struct {
		tree fs.FS
		want []string
	}{
		"with states and pillar": {fstest.MapFS{"states/top.sls": {}, "pillar/top.sls": {}, ".git/HEAD": {}}, []string{"tree/pillar/top.sls", "tree/states/top.sls"}},
		"states at its root":     {fstest.MapFS{"top.sls": {}, "nova/init.sls": {}}, []string{"tree/states/nova/init.sls", "tree/states/top.sls"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for name := range files(t, hand(t, Tree{User: test.tree}, nil)) {
				if len(name) > 5 && name[:5] == "tree/" {
					got = append(got, name)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestPackagesOfOurOwnAreHanded(t *testing.T) {
	code := fstest.MapFS{"toast-evacuator/toast_evacuator/beat.py": {Data: []byte("pass")}}
	found := files(t, hand(t, Tree{States: States(), Custom: code}, nil))
	if found["custom/toast-evacuator/toast_evacuator/beat.py"] == nil {
		t.Error("the package's code is not handed over")
	}
	minion, err := embedded.ReadFile("minion.yaml")
	if err != nil || !strings.Contains(string(minion), Root+"/custom]") {
		t.Errorf("the minion does not look for salt:// in %s/custom: %v", Root, err)
	}
}

func TestThePillarOfATopologyHasTheLastWord(t *testing.T) {
	p, n := region()
	pillar, err := Pillar(p, n, map[string]string{"admin": "secret", "demo": "gone"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(pillar)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		API     struct{ Address string }
		Nova    struct{ Debug *bool }
		Secrets map[string]string
		Node    struct{ Addresses, NICs map[string]string }
		Fence   string
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.API.Address != "10.0.0.5" || got.Nova.Debug == nil || *got.Nova.Debug || got.Node.Addresses["management"] != "10.0.0.10" || got.Node.NICs["management"] != "mgmt0" {
		t.Errorf("%+v", got)
	}
	if got.Fence != "http://10.0.0.1:6230" {
		t.Errorf("the fence is at %q", got.Fence)
	}
	if len(got.Secrets) != 2 || got.Secrets["admin"] != "secret" || got.Secrets["extra"] != "x" {
		t.Errorf("secrets %v: want admin and extra: maps merge, null removes", got.Secrets)
	}
}
