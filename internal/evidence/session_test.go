package evidence

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/toast-cloud/toastdev/internal/node"
)

// recorder is a node whose captures are what the test says.
type recorder struct {
	name    string
	refuses string            // what the start script prints
	files   map[string]string // of its folder
	err     error             // of every command after the start
	ran     []string          // start, stop, tar, rm
	points  string
}

func (r *recorder) Name() string { return r.name }

func (r *recorder) Run(ctx context.Context, cmd node.Cmd) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch {
	case cmd.Args[0] == "sh" && cmd.Args[2] == startScript:
		r.ran = append(r.ran, "start "+strings.Join(cmd.Args[4:], " "))
		lines, _ := io.ReadAll(cmd.Stdin)
		r.points = string(lines)
		fmt.Fprint(cmd.Stdout, r.refuses)
		return nil
	case r.err != nil:
		return r.err
	case cmd.Args[0] == "sh" && cmd.Args[2] == stopScript:
		r.ran = append(r.ran, "stop")
	case cmd.Args[0] == "tar":
		r.ran = append(r.ran, "pull")
		w := tar.NewWriter(cmd.Stdout)
		for name, text := range r.files {
			if err := errors.Join(w.WriteHeader(&tar.Header{Name: "run/x/" + name, Size: int64(len(text)), Mode: 0o644, Typeflag: tar.TypeReg}),
				func() error { _, err := io.WriteString(w, text); return err }()); err != nil {
				return err
			}
		}
		return w.Close()
	case cmd.Args[0] == "rm":
		r.ran = append(r.ran, "rm "+cmd.Args[2])
	}
	return nil
}

// pcap is a file with so many frames.
func pcap(t *testing.T, count int) string {
	t.Helper()
	var b bytes.Buffer
	if err := pcapgo.NewWriterNanos(&b).WriteFileHeader(largest, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, point("n", "", "i", Tap, ""))
	for n := range count {
		l.see("n", "i", ping(vm1MAC, vm2MAC, vm1, vm2, n, false))
	}
	data, err := os.ReadFile(filepath.Join(l.capture.Dir, l.capture.Points[0].File))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func closed(captured, received, dropped int) string {
	return fmt.Sprintf("tcpdump: listening on tun0, link-type EN10MB (Ethernet)\n%d packets captured\n%d packets received by filter\n%d packets dropped by kernel\n", captured, received, dropped)
}

func TestASessionBringsFilesAndSaysWhatIsMissing(t *testing.T) {
	cmp1 := &recorder{name: "cmp1", refuses: "2 tcpdump: eth9: No such device exists\n", files: map[string]string{
		"0.pcap": pcap(t, 2), "0.log": closed(2, 2, 0),
		"1.pcap": pcap(t, 1), "1.log": closed(1, 3, 4),
		"3.pcap": pcap(t, 1), "3.log": closed(1, 1, 0), "back": "3\n",
		"4.pcap": pcap(t, 1), "4.log": "tcpdump: listening on tap1\nKilled\n",
		"5.pcap": pcap(t, 2), "5.log": "tcpdump: 1 packet captured, 2 packets received by filter, 0 packets dropped by kernel\n" +
			"tcpdump: 2 packets captured, 2 packets received by filter, 0 packets dropped by kernel\n" + closed(2, 3, 0),
	}}
	cmp2 := &recorder{name: "cmp2", err: errors.New("the node does not run\nmore of it")}
	dir := t.TempDir()
	s, err := Start(t.Context(), "a1b2c3-way", dir, []Target{
		{Name: "cmp1", Node: cmp1, Interfaces: []Interface{{Name: "tun0", Kind: Tunnel}, {Name: "qr-1", Namespace: qrouter, Kind: Router}, {Name: "eth9"}, {Name: "tap0", Kind: Tap}, {Name: "tap1", Kind: Tap}, {Name: "tap2", Kind: Tap}}},
		{Name: "cmp2", Node: cmp2, Interfaces: []Interface{{Name: "tun0", Kind: Tunnel}}},
		{Name: "ctl", Node: &recorder{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "0 - tun0\n1 " + qrouter + " qr-1\n2 - eth9\n3 - tap0\n4 - tap1\n5 - tap2\n"; cmp1.points != want {
		t.Errorf("it listens on %q", cmp1.points)
	}

	// A Stop whose time is over leaves the work to the next.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Stop(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	c, err := s.Stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Stop(t.Context()); again != c || err != nil {
		t.Errorf("a second Stop is another: %v", err)
	}
	if got, want := strings.Join(cmp1.ran, ", "), "start toastdev-capture-a1b2c3-way /run/toastdev/captures/a1b2c3-way, stop, pull, rm /run/toastdev/captures/a1b2c3-way"; got != want {
		t.Errorf("it ran %s", got)
	}
	loaded, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	for _, p := range loaded.Points {
		fmt.Fprintf(&seen, "%s: %q %d frames, %d dropped, %q\n", p, p.File, p.Frames, p.Dropped, p.Missing)
	}
	want := `cmp1 tun0: "cmp1_tun0.pcap" 2 frames, 0 dropped, ""
cmp1 qrouter-8f3c1b2a/qr-1: "cmp1_qrouter-8f3c1b2a_qr-1.pcap" 1 frames, 4 dropped, "4 frames passed that are not in cmp1_qrouter-8f3c1b2a_qr-1.pcap"
cmp1 eth9: "" 0 frames, 0 dropped, "not captured: eth9: No such device exists"
cmp1 tap0: "cmp1_tap0.pcap" 1 frames, 0 dropped, "the interface went away and came back during the capture"
cmp1 tap1: "cmp1_tap1.pcap" 1 frames, 0 dropped, "tcpdump did not end as it should: Killed"
cmp1 tap2: "cmp1_tap2.pcap" 2 frames, 0 dropped, ""
cmp2 tun0: "" 0 frames, 0 dropped, "its file was not to be had: the node does not run"
`
	if seen.String() != want {
		t.Errorf("got\n%swant\n%s", seen.String(), want)
	}
}

func TestACaptureOfNothingIsRefused(t *testing.T) {
	if _, err := Start(t.Context(), "x", t.TempDir(), []Target{{Name: "ctl", Node: &recorder{}}}); err == nil || !strings.Contains(err.Error(), "nothing to capture on") {
		t.Errorf("got %v", err)
	}
	none := &recorder{name: "cmp1", refuses: "0 tcpdump: tun9: No such device exists\n"}
	_, err := Start(t.Context(), "x", t.TempDir(), []Target{{Name: "cmp1", Node: none, Interfaces: []Interface{{Name: "tun9"}}}})
	if err == nil || !strings.Contains(err.Error(), "tun9: not captured: tun9: No such device exists") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(strings.Join(none.ran, " "), "stop") {
		t.Errorf("what was started goes on: %v", none.ran)
	}
}

func TestPointsAreFoundByPatterns(t *testing.T) {
	c := &Capture{Points: region()}
	for pattern, want := range map[string]int{"tun0": 1, "qr-*": 2, "qrouter-*/qr-a": 1, "fip-*/*": 2, "snat-*/*": 0, "nothing": 0, "[": 0} {
		if got := c.Matching("cmp1", pattern); len(got) != want {
			t.Errorf("%s: got %v", pattern, got)
		}
	}
}
