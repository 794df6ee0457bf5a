package evidence

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTheHostsOwnInterfacesAreCapturedWithoutTcpdump(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lo.pcap")
	tap, err := openTap("", "lo", file)
	if errors.Is(err, os.ErrPermission) {
		t.Skip("a packet socket takes root")
	}
	if err != nil {
		t.Fatal(err)
	}
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	connection, err := net.Dial("udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	before := time.Now()
	if _, err := connection.Write([]byte("toastdev marker")); err != nil {
		t.Fatal(err)
	}
	if dropped, err := tap.close(); dropped != 0 || err != nil {
		t.Errorf("%d frames dropped, %v", dropped, err)
	}
	want := digest("udp", nil, []byte("toastdev marker"))
	seen := 0
	if _, err := frames(file, func(at time.Time, data []byte) {
		if _, id, ok := decode(data); ok && id == want {
			seen++
			if at.Before(before.Add(-time.Second)) || at.After(time.Now()) {
				t.Errorf("seen at %s", at)
			}
		}
	}); err != nil {
		t.Error(err)
	}
	if seen == 0 {
		t.Error("the datagram was not seen")
	}
	if _, err := openTap("", "nosuch0", file); err == nil {
		t.Error("an interface that is not there is captured")
	}
	if _, err := openTap("/proc/self/nosuch", "lo", file); err == nil {
		t.Error("a namespace that is not there is captured")
	}
}
