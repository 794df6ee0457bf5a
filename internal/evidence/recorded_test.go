package evidence

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPathsOfARealRegion is on captures that the scenarios of these names made on a region in containers, DVR over VXLAN
// with Open vSwitch's userspace datapath.
func TestPathsOfARealRegion(t *testing.T) {
	for _, test := range []struct {
		capture, name string
		from, to      []netip.Addr
		without       string // a file that is taken away
	}{
		{"dvr-east-west", "east-west", addrs("10.71.1.182"), addrs("10.71.2.135"), ""},
		{"dvr-east-west", "east-west-back", addrs("10.71.2.135"), addrs("10.71.1.182"), ""},
		{"dvr-east-west", "east-west-without-tunnel", addrs("10.71.1.182"), addrs("10.71.2.135"), "cmp2_tun0.pcap"},
		{"dvr-floating-ip", "floating-ip", addrs("172.16.70.254"), addrs("172.16.70.138", "10.72.1.147"), ""},
		{"dvr-floating-ip", "floating-ip-back", addrs("10.72.1.147", "172.16.70.138"), addrs("172.16.70.254"), ""},
		{"dvr-snat", "snat", addrs("10.73.1.11"), addrs("172.16.70.253"), ""},
		{"dvr-snat", "snat-back", addrs("172.16.70.253"), addrs("10.73.1.11"), ""},
		{"dvr-snat", "snat-without-namespace", addrs("10.73.1.11"), addrs("172.16.70.253"), "net_snat-c409d8e7_sg-3d44a667-dd.pcap"},
		{"legacy-routing", "legacy-east-west", addrs("10.74.1.126"), addrs("10.74.2.24"), ""},
		{"legacy-routing", "legacy-floating-ip", addrs("172.16.70.254"), addrs("172.16.70.139", "10.74.2.24"), ""},
		{"legacy-routing", "legacy-snat", addrs("10.74.1.126"), addrs("172.16.70.254"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join("testdata", "recorded", test.capture)
			if test.without != "" {
				dir = without(t, dir, test.without)
			}
			c, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.Path(test.from, test.to)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("recorded", test.name+".txt"), []byte(p.String()))
			if test.without == "" && test.capture == "dvr-east-west" {
				if p.Includes("net") || len(p.Unwatched("net", []string{"tun0", "ext0"})) > 0 {
					t.Errorf("it is not known to avoid net: %v", p.Unwatched("net", []string{"tun0", "ext0"}))
				}
				if why := p.Unwatched("nas", []string{"sto0"}); len(why) != 1 || !strings.Contains(why[0], "nas sto0: it was not captured") {
					t.Errorf("nobody watched nas: %v", why)
				}
			}
			if test.without == "cmp2_tun0.pcap" && len(p.Unwatched("cmp2", nil)) != 1 {
				t.Errorf("cmp2 was watched: %v", p.Unwatched("cmp2", nil))
			}
		})
	}
}

// without is a copy of a folder that lacks a file.
func without(t *testing.T, dir, file string) string {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(copied, file)); err != nil {
		t.Fatal(err)
	}
	return copied
}

func TestAFolderWithoutACaptureIsSaidToBeOne(t *testing.T) {
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no capture in") {
		t.Errorf("got %v", err)
	}
	dir := t.TempDir()
	for text, want := range map[string]string{
		"{":                                 "unexpected end",
		`{"points":[{"file":"../secret"}]}`: "not in its folder",
	} {
		if err := os.WriteFile(filepath.Join(dir, index), []byte(text), fs.FileMode(0o644)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}
