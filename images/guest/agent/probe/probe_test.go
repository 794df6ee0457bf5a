package probe

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const loopback = "127.0.0.1"

// tcpServer serves each connection on the loopback.
func tcpServer(t *testing.T, serve func(net.Conn)) int {
	t.Helper()
	l, err := net.Listen("tcp4", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// udpServer answers each datagram with what answer makes of it; nil: not at all.
func udpServer(t *testing.T, answer func(n int, packet []byte) []byte) int {
	t.Helper()
	conn, err := net.ListenPacket("udp4", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 1<<16)
		for n := 0; ; n++ {
			size, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if back := answer(n, buffer[:size]); back != nil {
				conn.WriteTo(back, from)
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).Port
}

func echo(_ int, packet []byte) []byte { return packet }

func seconds(d time.Duration) Seconds { return In(d) }

func TestPingIsAnsweredPacketByPacket(t *testing.T) {
	r := Run(t.Context(), Request{Kind: Ping, Target: loopback, Count: 5, Interval: seconds(10 * time.Millisecond), Bytes: 100})
	if strings.Contains(r.Error, "permitted") || strings.Contains(r.Error, "denied") {
		t.Skip(r.Error)
	}
	if r.Sent != 5 || r.Received != 5 || r.Loss != 0 || r.Error != "" || r.Outage != 0 || r.BytesReceived != 500 || r.BytesSent != 500 || len(r.Marker) != 16 {
		t.Errorf("got %+v", r)
	}
	if r.RTT.Min <= 0 || r.RTT.Min > r.RTT.Avg || r.RTT.Avg > r.RTT.Max || r.RTT.Max > 1 {
		t.Errorf("round trips of %+v", r.RTT)
	}
	if len(r.Samples) != 5 || r.Samples[4].At < 0.035 || !r.Samples[4].OK {
		t.Errorf("samples %+v", r.Samples)
	}
}

func TestEveryKindIsAnswered(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Toastdev-Probe"), "marked 0000000") {
			t.Errorf("the request carries no marker: %v", r.Header)
		}
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "tea")
	}))
	defer web.Close()
	echoPort := tcpServer(t, func(c net.Conn) { io.Copy(c, c) })
	silent := tcpServer(t, func(c net.Conn) { io.Copy(io.Discard, c); time.Sleep(time.Second) })
	for name, c := range map[string]struct {
		q    Request
		want Result
	}{
		"tcp with an echo":        {Request{Kind: TCP, Target: loopback, Port: echoPort, Count: 2, Bytes: 3000000, Echo: true}, Result{Sent: 2, Received: 2, BytesSent: 6000000, BytesReceived: 6000000}},
		"tcp to a silent server":  {Request{Kind: TCP, Target: loopback, Port: silent}, Result{Sent: 1, Received: 1, BytesSent: 56}},
		"udp":                     {Request{Kind: UDP, Target: loopback, Port: udpServer(t, echo), Count: 3, Bytes: 1000}, Result{Sent: 3, Received: 3, BytesSent: 3000, BytesReceived: 3000}},
		"http of another status":  {Request{Kind: HTTP, Target: web.URL + "/x"}, Result{Sent: 1, Loss: 100, Status: 418, Body: "tea", BytesSent: 56, BytesReceived: 3, Error: "it answers 418 I'm a teapot"}},
		"http of a wanted status": {Request{Kind: HTTP, Target: web.URL + "/x", Status: 418}, Result{Sent: 1, Received: 1, Status: 418, Body: "tea", BytesSent: 56, BytesReceived: 3}},
		"dns of an address":       {Request{Kind: DNS, Target: "127.0.0.1"}, Result{Sent: 1, Received: 1, Addresses: []string{loopback}}},
		"tcp, nobody there":       {Request{Kind: TCP, Target: loopback, Port: 1}, Result{Sent: 1, Loss: 100, Error: "connection refused"}},
		"udp, nobody there":       {Request{Kind: UDP, Target: loopback, Port: 1, Timeout: 0.1}, Result{Sent: 1, Loss: 100, Error: "connection refused", BytesSent: 56}},
		"ping of a name":          {Request{Kind: Ping, Target: "host"}, Result{Error: `"host" is not an IPv4 address`}},
		"a kind that is not":      {Request{Kind: "smoke"}, Result{Error: `no such kind of probe: "smoke"`}},
		"more than a packet":      {Request{Kind: Ping, Target: loopback, Bytes: 70000}, Result{Error: "a payload of 70000 bytes: at most 65000 fit"}},
		"an echo that is no echo": {Request{Kind: TCP, Target: loopback, Port: tcpServer(t, func(c net.Conn) { io.WriteString(c, "no"); c.(*net.TCPConn).CloseWrite(); io.Copy(io.Discard, c) }), Echo: true}, Result{Sent: 1, Loss: 100, BytesSent: 56, BytesReceived: 2, Error: "2 bytes came back, not the 56 that were sent"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.q.Marker, c.q.Interval = "marked", 0.01
			got := Run(t.Context(), c.q)
			got.Samples, got.RTT, got.Started, got.Took, got.Outage = nil, RTT{}, time.Time{}, 0, 0
			c.want.Kind, c.want.Target, c.want.Marker = c.q.Kind, c.q.Target, "marked"
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestWhatIsLostIsCountedAndTimed(t *testing.T) {
	port := udpServer(t, func(n int, packet []byte) []byte {
		if n >= 3 && n < 8 {
			return nil
		}
		return packet
	})
	r := Run(t.Context(), Request{Kind: UDP, Target: loopback, Port: port, Count: 10, Interval: 0.02, Timeout: 0.2})
	if r.Sent != 10 || r.Received != 5 || r.Loss != 50 || r.Error != "no answer" {
		t.Errorf("got %+v", r)
	}
	if math.Abs(float64(r.Outage)-0.1) > 0.05 {
		t.Errorf("the outage is %v s, five intervals of 20 ms were lost", r.Outage)
	}
}

func TestAnAnswerThatIsNotTheQuestionsDoesNotCount(t *testing.T) {
	for name, answer := range map[string]func(int, []byte) []byte{
		"another marker": func(_ int, p []byte) []byte { return append([]byte("x"), p[1:]...) },
		"a changed end":  func(_ int, p []byte) []byte { return append(p[:len(p)-1:len(p)-1], '!') },
		"late":           func(_ int, p []byte) []byte { time.Sleep(150 * time.Millisecond); return p },
	} {
		t.Run(name, func(t *testing.T) {
			r := Run(t.Context(), Request{Kind: UDP, Target: loopback, Port: udpServer(t, answer), Count: 1, Timeout: 0.1})
			if r.Received != 0 || r.Loss != 100 {
				t.Errorf("got %+v", r)
			}
		})
	}
	twice := udpServer(t, again())
	if r := Run(t.Context(), Request{Kind: UDP, Target: loopback, Port: twice, Count: 2, Interval: 0.01, Timeout: 0.2}); r.Received != 1 {
		t.Errorf("an answer that came twice counts twice: %+v", r)
	}
}

// again answers the first datagram's question both times.
func again() func(int, []byte) []byte {
	var first []byte
	return func(n int, p []byte) []byte {
		if n == 0 {
			first = append(first, p...)
		}
		return first
	}
}

func TestAMeasurementThatGoesOnEndsWhenItIsTold(t *testing.T) {
	port := udpServer(t, echo)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r := Run(ctx, Request{Kind: UDP, Target: loopback, Port: port, Forever: true, Interval: 0.01})
	if r.Sent < 3 || r.Loss != 0 || r.Took > 1 {
		t.Errorf("got %d sent, %v%% lost, in %v s: %s", r.Sent, r.Loss, r.Took, r.Error)
	}
	if r := Run(t.Context(), Request{Kind: UDP, Target: loopback, Port: port, For: 0.1, Interval: 0.025}); r.Sent < 3 || r.Sent > 4 {
		t.Errorf("in 0.1 s every 25 ms: %d sent", r.Sent)
	}
}

func TestWhatComesBeforeTheFirstAnswerMayNotCount(t *testing.T) {
	answers := func(n int, packet []byte) []byte {
		if n < 3 {
			return nil
		}
		return packet
	}
	r := Run(t.Context(), Request{Kind: UDP, Target: loopback, Port: udpServer(t, answers), Count: 2, Interval: 0.01, Timeout: 0.05, Wait: 5})
	if r.Sent != 2 || r.Received != 2 || r.Took > 1 {
		t.Errorf("got %+v", r)
	}
	r = Run(t.Context(), Request{Kind: TCP, Target: loopback, Port: 1, Interval: 0.01, Wait: 0.1})
	if r.Sent != 1 || r.Received != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestANameServerOfOnesOwnIsAsked(t *testing.T) {
	// Port 53 may be taken: what is asked of a server that does not answer is an error that names it.
	r := Run(t.Context(), Request{Kind: DNS, Target: "host.example.", Server: "127.0.0.77", Timeout: 0.2})
	if r.Received != 0 || !strings.Contains(r.Error, "host.example") {
		t.Errorf("got %+v", r)
	}
	if r := Run(t.Context(), Request{Kind: DNS, Target: "x", Server: "here"}); !strings.Contains(r.Error, `"here"`) {
		t.Errorf("got %+v", r)
	}
}

func TestAResultIsTheSameAfterJSON(t *testing.T) {
	r := Run(t.Context(), Request{Kind: UDP, Target: loopback, Port: udpServer(t, echo), Count: 2, Interval: 0.01})
	text, err := json.Marshal(r)
	var back Result
	if err != nil || json.Unmarshal(text, &back) != nil || back.Received != 2 || back.RTT != r.RTT || len(back.Samples) != 2 {
		t.Errorf("%s: %+v", text, back)
	}
	if got := In(1500 * time.Millisecond).Duration(); got != 1500*time.Millisecond {
		t.Errorf("1.5 s are %s", got)
	}
}

func TestICMPErrorsAreTold(t *testing.T) {
	header := make([]byte, 20)
	header[0] = 0x45
	about := func(id uint16) []byte {
		echo := make([]byte, 8)
		binary.BigEndian.PutUint16(echo[4:], id)
		return append(append([]byte{unreachable, 1, 0, 0, 0, 0, 0, 0}, header...), echo...)
	}
	for id, want := range map[uint16]string{7: "192.0.2.1 says that the host is unreachable", 8: ""} {
		w := &icmpWire{PacketConn: &recorded{packet: about(id)}, id: 7}
		payload, err := w.receive(make([]byte, 2000))
		if payload != nil || want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("id %d: %q, %v", id, payload, err)
		}
	}
}

// recorded is a connection from which one packet is read.
type recorded struct {
	net.PacketConn
	packet []byte
}

func (r *recorded) ReadFrom(b []byte) (int, net.Addr, error) {
	return copy(b, r.packet), &net.IPAddr{IP: net.ParseIP("192.0.2.1")}, nil
}

func TestTheChecksumIsTheInternets(t *testing.T) {
	packet := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1, 'a', 'b', 'c'}
	binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	if checksum(append(packet, 0)) != 0 {
		t.Errorf("the sum over a packet with its checksum is %x", checksum(packet))
	}
}
