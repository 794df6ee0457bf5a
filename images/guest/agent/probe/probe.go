// Package probe asks something on the network and measures its answers: by ICMP, TCP, UDP, HTTP, DNS, or the metadata
// service. It stands on the standard library alone, because it runs in the guest image, on nodes, and on the host alike.
package probe

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Kind of a probe.
type Kind string

const (
	Ping     Kind = "ping"     // ICMP echo to Target
	TCP      Kind = "tcp"      // a connection to Target and Port, each time a new one
	UDP      Kind = "udp"      // datagrams to Target and Port, which are to come back as they are
	HTTP     Kind = "http"     // GET of Target, a URL
	DNS      Kind = "dns"      // the IPv4 addresses of Target, a name
	Metadata Kind = "metadata" // GET of Path from the metadata service
)

// Seconds is a duration as JSON has it.
type Seconds float64

// In is a duration in seconds.
func In(d time.Duration) Seconds { return Seconds(d.Seconds()) }

// Duration of s.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// Request is what is to be asked.
type Request struct {
	Kind     Kind    `json:"kind"`
	Target   string  `json:"target,omitempty"`   // an IPv4 address; a URL for HTTP, a name for DNS
	Port     int     `json:"port,omitempty"`     // for TCP and UDP
	Count    int     `json:"count,omitempty"`    // how often; 0: once
	For      Seconds `json:"for,omitempty"`      // go on for so long, whatever Count says
	Forever  bool    `json:"forever,omitempty"`  // go on until the context ends, whatever Count and For say
	Interval Seconds `json:"interval,omitempty"` // from one to the next; 0: DefaultInterval
	Timeout  Seconds `json:"timeout,omitempty"`  // until an answer counts as lost; 0: DefaultTimeout
	Bytes    int     `json:"bytes,omitempty"`    // of the payload; 0: DefaultBytes
	Echo     bool    `json:"echo,omitempty"`     // for TCP: the payload has to come back as it is
	Path     string  `json:"path,omitempty"`     // for Metadata
	Server   string  `json:"server,omitempty"`   // for DNS: its address; empty: the resolvers of /etc/resolv.conf
	Status   int     `json:"status,omitempty"`   // for HTTP and Metadata: what the answer must have; 0: one below 400
	Marker   string  `json:"marker,omitempty"`   // what every payload begins with; empty: NewMarker
	Wait     Seconds `json:"wait,omitempty"`     // ask until something answers, at most so long, before anything counts
}

// What a request means that does not say.
const (
	DefaultInterval = 200 * time.Millisecond
	DefaultTimeout  = 2 * time.Second
	DefaultBytes    = 56
)

// The largest payload of one packet, and of a connection.
const (
	MaxBytes       = 65000
	MaxStreamBytes = 16 << 20
)

// maxSamples bounds a result: the guest agent's answer has a limit of its own.
const maxSamples = 5000

// maxBody is how much of an HTTP answer is kept.
const maxBody = 64 << 10

// NewMarker is random: no other payload on the network has it.
func NewMarker() string {
	b := make([]byte, 8)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// Result is what came back.
type Result struct {
	Kind          Kind      `json:"kind"`
	Target        string    `json:"target"`
	Marker        string    `json:"marker"`
	Started       time.Time `json:"started"`
	Took          Seconds   `json:"seconds"`
	Sent          int       `json:"sent"`
	Received      int       `json:"received"`
	Loss          float64   `json:"loss"` // per cent
	RTT           RTT       `json:"rtt"`
	BytesSent     int64     `json:"bytes_sent"`     // of payload
	BytesReceived int64     `json:"bytes_received"` // of payload
	Status        int       `json:"status,omitempty"`
	Body          string    `json:"body,omitempty"` // the last answer's, at most 64 KiB
	Addresses     []string  `json:"addresses,omitempty"`
	Outage        Seconds   `json:"outage"`            // the longest time without an answer, 0 when none was lost
	Samples       []Sample  `json:"samples,omitempty"` // the first 5000
	Error         string    `json:"error,omitempty"`   // why the last lost one was lost, or why nothing could be sent
}

// RTT is the time from question to answer.
type RTT struct {
	Min Seconds `json:"min"`
	Avg Seconds `json:"avg"`
	Max Seconds `json:"max"`
}

// Sample is one question.
type Sample struct {
	At  Seconds `json:"at"`            // since Started
	RTT Seconds `json:"rtt,omitempty"` // of one that was answered
	OK  bool    `json:"ok"`
}

// errUnanswered is why a question is lost about which nothing else is known.
var errUnanswered = errors.New("no answer")

// Run asks as the request says. When ctx ends it asks no more, waits at most the request's Timeout for what is under way,
// and returns what it has. A request that makes no sense has a Result with an Error and nothing sent.
func Run(ctx context.Context, q Request) Result {
	if q.Marker == "" {
		q.Marker = NewMarker()
	}
	if q.Interval <= 0 {
		q.Interval = In(DefaultInterval)
	}
	if q.Timeout <= 0 {
		q.Timeout = In(DefaultTimeout)
	}
	if q.Bytes <= 0 {
		q.Bytes = DefaultBytes
	}
	if q.Count <= 0 {
		q.Count = 1
	}
	if q.Wait > 0 {
		await(ctx, q)
	}
	m := &measurement{Request: q, result: Result{Kind: q.Kind, Target: q.Target, Marker: q.Marker, Started: time.Now()}}
	most := MaxBytes
	if q.Kind == TCP {
		most = MaxStreamBytes
	}
	ask, ok := map[Kind]func(context.Context, int) error{TCP: m.tcp, HTTP: m.http, DNS: m.dns, Metadata: m.metadata}[q.Kind]
	var err error
	switch {
	case q.Bytes > most:
		err = fmt.Errorf("a payload of %d bytes: at most %d fit", q.Bytes, most)
	case ok:
		m.inTurn(ctx, ask)
	case q.Kind == Ping:
		err = m.flight(ctx, m.icmp)
	case q.Kind == UDP:
		err = m.flight(ctx, m.datagrams)
	default:
		err = fmt.Errorf("no such kind of probe: %q", q.Kind)
	}
	if err != nil {
		m.result.Error = err.Error()
	}
	return m.summary()
}

// await asks until there is an answer, but not longer than q.Wait.
func await(ctx context.Context, q Request) {
	ctx, cancel := context.WithTimeout(ctx, q.Wait.Duration())
	defer cancel()
	// A marker of its own: what counts is to be told from what does not, in a capture too.
	one := q
	one.Marker, one.Wait, one.Count, one.For, one.Forever, one.Timeout = NewMarker(), 0, 1, 0, false, min(q.Timeout, 1)
	for Run(ctx, one).Received == 0 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(q.Interval.Duration()):
		}
	}
}

// measurement is one request under way.
type measurement struct {
	Request
	result    Result
	samples   []sample
	connected time.Time // when the last question was answered, where that was before it was done with
}

// sample is a question and what became of it.
type sample struct {
	sent time.Time
	rtt  time.Duration
	ok   bool
	err  error // why it is lost, where that is known
}

// payload is that of question number i, with the marker and the number at its front, so that no two packets are alike.
func (m *measurement) payload(i int) []byte {
	p := fmt.Appendf(nil, "%s %08d ", m.Marker, i)
	for c := byte('a'); len(p) < m.Bytes; c++ {
		if c > 'z' {
			c = 'a'
		}
		p = append(p, c)
	}
	return p
}

// number is the question that a payload belongs to; false for one that is not this measurement's.
func (m *measurement) number(payload []byte) (int, bool) {
	front := len(m.Marker)
	if len(payload) < front+9 || string(payload[:front]) != m.Marker {
		return 0, false
	}
	var i int
	if _, err := fmt.Sscanf(string(payload[front:front+9]), " %08d", &i); err != nil {
		return 0, false
	}
	return i, true
}

// each calls send for one question after the other, at their times. It ends with the last, with For, or with ctx.
func (m *measurement) each(ctx context.Context, send func(i int)) {
	began := time.Now()
	for i := 0; ; i++ {
		send(i)
		next := began.Add(time.Duration(i+1) * m.Interval.Duration())
		switch {
		case m.Forever:
		case m.For > 0:
			if next.Sub(began) >= m.For.Duration() {
				return
			}
		case i+1 >= m.Count:
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
	}
}

// inTurn asks one question after the other, each when the last one is answered or lost.
func (m *measurement) inTurn(ctx context.Context, ask func(ctx context.Context, i int) error) {
	m.each(ctx, func(i int) {
		// What is under way when ctx ends is still answered.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.Timeout.Duration())
		defer cancel()
		m.connected = time.Time{}
		s := sample{sent: time.Now()}
		s.err = ask(ctx, i)
		s.rtt, s.ok = time.Since(s.sent), s.err == nil
		if !m.connected.IsZero() {
			s.rtt = m.connected.Sub(s.sent)
		}
		m.samples = append(m.samples, s)
	})
}

// summary is the result of the samples.
func (m *measurement) summary() Result {
	r := m.result
	r.Took = In(time.Since(r.Started))
	r.Sent = len(m.samples)
	var total time.Duration
	var lostSince time.Time
	for _, s := range m.samples {
		if s.ok {
			r.Received++
			total += s.rtt
			if rtt := In(s.rtt); r.Received == 1 {
				r.RTT.Min, r.RTT.Max = rtt, rtt
			} else {
				r.RTT.Min, r.RTT.Max = min(r.RTT.Min, rtt), max(r.RTT.Max, rtt)
			}
			if !lostSince.IsZero() {
				r.Outage = max(r.Outage, In(s.sent.Sub(lostSince)))
				lostSince = time.Time{}
			}
		} else {
			if lostSince.IsZero() {
				lostSince = s.sent
			}
			if r.Error = errUnanswered.Error(); s.err != nil {
				r.Error = s.err.Error()
			}
		}
		if len(r.Samples) < maxSamples {
			one := Sample{At: In(s.sent.Sub(r.Started)), OK: s.ok}
			if s.ok {
				one.RTT = In(s.rtt)
			}
			r.Samples = append(r.Samples, one)
		}
	}
	if !lostSince.IsZero() {
		r.Outage = max(r.Outage, In(r.Started.Add(r.Took.Duration()).Sub(lostSince)))
	}
	if r.Received > 0 {
		r.RTT.Avg = In(total / time.Duration(r.Received))
	}
	if r.Sent > 0 {
		r.Loss = 100 * float64(r.Sent-r.Received) / float64(r.Sent)
	}
	slices.Sort(r.Addresses)
	return r
}
