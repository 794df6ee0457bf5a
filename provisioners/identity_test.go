package provisioners

import "testing"

func TestAnIdentityHasPartsThatCanChangeInPlace(t *testing.T) {
	identity := "hostname ctl\nrole control\nnic mgmt0 02:42:00:00:00:01 mtu 1500 192.0.2.10/24\nroute default 192.0.2.1\nhost 192.0.2.10 ctl\nhost 192.0.2.5 api\n"
	fixed, changeable := SplitIdentity(identity)
	if want := "hostname ctl\nnic mgmt0 02:42:00:00:00:01 mtu 1500 192.0.2.10/24\nroute default 192.0.2.1\n"; fixed != want {
		t.Errorf("fixed:\n%s", fixed)
	}
	if want := "role control\nhost 192.0.2.10 ctl\nhost 192.0.2.5 api\n"; changeable != want {
		t.Errorf("changeable:\n%s", changeable)
	}
	if got, want := Hosts(identity), "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n192.0.2.10 ctl\n192.0.2.5 api\n"; got != want {
		t.Errorf("hosts:\n%s", got)
	}
}
