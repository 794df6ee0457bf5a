package scenarios

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/toast-cloud/toastdev/images/guest/agent/probe"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// kindProbe is probes that the script started by a name.
const kindProbe = "probe"

// ends is who asks and who is asked, as every probe's help has it.
const ends = "FROM is client (a machine outside the region, on the external network), a server, a node, or NODE/NAMESPACE. " +
	"TO is a server (for client its floating IP, where it has one), SERVER:NETWORK, a floating IP, a port, a router, a node or NODE:NETWORK, client, gateway (the host on the external network), or an address."

// judged is how a probe's line passes, as its help has it.
const judged = "It fails when nothing at all comes back. loss, rtt, outage, received and bytes look at what did; json at all of it."

// probeOptions are the flags of probes.
type probeOptions struct {
	count, bytes, status             int
	interval, timeout, lasting, wait time.Duration
	server                           string
}

// flags that every probe has.
func (o *probeOptions) flags(f *pflag.FlagSet, count int) {
	f.IntVarP(&o.count, "count", "c", count, "ask so often")
	f.DurationVar(&o.interval, "interval", probe.DefaultInterval, "`TIME` from one to the next")
	f.DurationVar(&o.timeout, "timeout", probe.DefaultTimeout, "`TIME` after which one counts as lost")
	f.DurationVar(&o.lasting, "for", 0, "go on for this `TIME`, whatever --count says")
	f.DurationVar(&o.wait, "wait", 0, "ask until something answers, at most this `TIME`, before anything counts")
}

func (o *probeOptions) request(kind probe.Kind) probe.Request {
	return probe.Request{Kind: kind, Count: o.count, Bytes: o.bytes, Status: o.status, Server: o.server,
		Interval: probe.In(o.interval), Timeout: probe.In(o.timeout), For: probe.In(o.lasting), Wait: probe.In(o.wait), Marker: probe.NewMarker()}
}

// probeCommands are the words that send something over the networks, and those that judge what came back.
func probeCommands() map[string]Command {
	commands := map[string]Command{
		"ping": {
			Summary: "ICMP echo from one place to another",
			Args:    "FROM TO [-c N] [--for D] [--interval D] [--size N] [--timeout D] [--wait D]",
			Detail:  []string{ends, judged + " Each packet's payload is like no other's.", "Example: ping vm1 vm2 -c 5"},
			Async:   true, Min: 2, Max: 2,
			Flags: pingFlags(func(ctx context.Context, r *Run, args []string, q probe.Request) (Outcome, error) {
				return r.probe(ctx, args[0], args[1], q)
			}),
		},
		"ping-start": {
			Summary: "begin to ping, until ping-stop",
			Args:    "NAME FROM TO [--interval D] [--size N] [--timeout D] [--wait D]",
			Detail:  []string{"For traffic that goes on while other lines do something. It returns at once, or with --wait when an answer came.", "Example: ping-start flow client vm1 --wait 30s"},
			Min:     3, Max: 3,
			Flags: pingFlags(func(ctx context.Context, r *Run, args []string, q probe.Request) (Outcome, error) {
				return Outcome{}, r.keepProbing(ctx, args[0], args[1], args[2], q)
			}),
		},
		"ping-stop": {
			Summary: "end what ping-start began",
			Args:    "NAME",
			Detail:  []string{judged + " They take the name too, later on.", "Example: ping-stop flow"},
			Min:     1, Max: 1,
			Flags: plain(func(ctx context.Context, r *Run, args []string) (Outcome, error) { return r.stopProbing(ctx, args[0]) }),
		},
		"tcp": {
			Summary: "TCP connections from one place to another, with data both ways",
			Args:    "FROM TO PORT [--bytes N] [-c N] [--for D] [--interval D] [--timeout D] [--wait D]",
			Detail: []string{ends, "With --bytes all of them have to come back, as port 7 of the guest image sends them; without, the connection is enough. " + judged,
				"Example: tcp client web 7 --bytes 100000"},
			Async: true, Min: 3, Max: 3, Check: portAt(2),
			Flags: func(f *pflag.FlagSet) Action {
				var o probeOptions
				o.flags(f, 1)
				f.IntVar(&o.bytes, "bytes", 0, "send so many `BYTES` and expect them back")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					q := o.request(probe.TCP)
					q.Echo = o.bytes > 0
					q.Port, _ = strconv.Atoi(args[2]) // portAt has looked
					return r.probe(ctx, args[0], args[1], q)
				}
			},
		},
		"udp": {
			Summary: "UDP datagrams from one place to another, which are to come back",
			Args:    "FROM TO PORT [--bytes N] [-c N] [--for D] [--interval D] [--timeout D] [--wait D]",
			Detail:  []string{ends, "The guest image sends back what comes to port 7. " + judged, "Example: udp vm1 vm2 7 --bytes 1400"},
			Async:   true, Min: 3, Max: 3, Check: portAt(2),
			Flags: func(f *pflag.FlagSet) Action {
				var o probeOptions
				o.flags(f, 3)
				f.IntVar(&o.bytes, "bytes", probe.DefaultBytes, "`BYTES` of each")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					q := o.request(probe.UDP)
					q.Port, _ = strconv.Atoi(args[2])
					return r.probe(ctx, args[0], args[1], q)
				}
			},
		},
		"http": {
			Summary: "GET by HTTP from one place to another",
			Args:    "FROM URL|TO[:PORT][/PATH] [--status N] [-c N] [--for D] [--interval D] [--timeout D] [--wait D]",
			Detail: []string{ends, "Prints the answer's body. It fails when the status is 400 or more, or not that of --status. The guest image tells on port 80 who it is: / and /metadata.",
				"Example: http client web/"},
			Async: true, Min: 2, Max: 2,
			Flags: func(f *pflag.FlagSet) Action {
				var o probeOptions
				o.flags(f, 1)
				f.IntVar(&o.status, "status", 0, "the `STATUS` that the answer must have")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					to, target, err := r.url(ctx, args[0], args[1])
					if err != nil {
						return Outcome{}, err
					}
					q := o.request(probe.HTTP)
					q.Target = target
					return r.ask(ctx, args[0], to, q)
				}
			},
		},
		"dns": {
			Summary: "ask for a name's addresses",
			Args:    "FROM NAME [--server TO] [-c N] [--for D] [--interval D] [--timeout D] [--wait D]",
			Detail: []string{ends, "Without --server FROM's own resolver is asked: in a server the one that DHCP told of. Prints the addresses, one a line.",
				"Example: dns vm1 host-10-99-1-20.openstacklocal"},
			Async: true, Min: 2, Max: 2,
			Flags: func(f *pflag.FlagSet) Action {
				var o probeOptions
				o.flags(f, 1)
				f.StringVar(&o.server, "server", "", "the name server, as `TO`")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					q := o.request(probe.DNS)
					q.Target = args[1]
					if o.server != "" {
						a, err := r.address(ctx, args[0], o.server)
						if err != nil {
							return Outcome{}, err
						}
						q.Server = a.String()
					}
					return r.ask(ctx, args[0], args[1], q)
				}
			},
		},
		"metadata": {
			Summary: "ask the metadata service in a server",
			Args:    "SERVER [PATH] [--status N] [-c N] [--for D] [--interval D] [--timeout D] [--wait D]",
			Detail: []string{"PATH is instance-id where there is none; one that does not begin with / is meant below /latest/meta-data/. Prints the answer. It fails as http does.",
				"Example: metadata vm1 /openstack/latest/meta_data.json"},
			Async: true, Min: 1, Max: 2,
			Flags: func(f *pflag.FlagSet) Action {
				var o probeOptions
				o.flags(f, 1)
				f.IntVar(&o.status, "status", 0, "the `STATUS` that the answer must have")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					q := o.request(probe.Metadata)
					q.Path = "instance-id"
					if len(args) > 1 {
						q.Path = args[1]
					}
					if !strings.HasPrefix(q.Path, "/") {
						q.Path = "/latest/meta-data/" + q.Path
					}
					return r.ask(ctx, args[0], "the metadata service", q)
				}
			},
		},
		"guest": {
			Summary: "run a command in a server",
			Args:    "SERVER -- CMD [ARG...]",
			Detail: []string{"By the guest's agent and the hypervisor, not over the networks. Prints what the command prints; fails when its exit code is not 0. The guest image has busybox.",
				"Example: guest vm1 -- sh -c 'echo kept >/mnt/file; sync'"},
			Async: true, Min: 2, Max: -1,
			Flags: plain(func(ctx context.Context, r *Run, args []string) (Outcome, error) {
				return r.inGuest(ctx, args[0], args[1:])
			}),
		},
	}
	for name, judge := range map[string]struct {
		summary, args, detail, example string
		parse                          func([]string) (expectation, error)
	}{
		"loss": {"expect so much loss of the last probe", "[RELATION] N% [PROBE]", "Without RELATION (< <= > >= =) exactly that. PROBE is a ping-start's.", "loss < 20%",
			measured("%", percent, func(p *probe.Result) float64 { return p.Loss })},
		"received": {"expect so many answers to the last probe", "[RELATION] N [PROBE]", "Without RELATION (< <= > >= =) exactly so many. PROBE is a ping-start's.", "received 0",
			measured("", strconv.ParseFloat, func(p *probe.Result) float64 { return float64(p.Received) })},
		"rtt": {"expect such a round-trip time of the last probe", "[min|avg|max] RELATION TIME [PROBE]", "avg where nothing else is said; of those that were answered. PROBE is a ping-start's.", "rtt max < 50ms", roundTrip},
		"outage": {"expect no longer time without an answer to the last probe", "RELATION TIME [PROBE]",
			"The longest time from one that was lost to the next that was answered; 0 when none was lost. PROBE is a ping-start's.", "outage < 5s",
			measured("s", inSeconds, func(p *probe.Result) float64 { return float64(p.Outage) })},
		"bytes": {"expect so many bytes of the last probe", "[sent|received] [RELATION] N [PROBE]", "Payload alone; received where nothing else is said. PROBE is a ping-start's.", "bytes received >= 100000", payload},
	} {
		commands[name] = Command{
			Summary: judge.summary, Args: judge.args, Detail: []string{judge.detail, "Example: " + judge.example}, Min: 1, Max: 4, Keeps: true,
			Check: func(args []string) error {
				_, err := judge.parse(args)
				return misuse(name, judge.args, err)
			},
			Flags: plain(func(_ context.Context, r *Run, args []string) (Outcome, error) {
				e, err := judge.parse(args)
				if err != nil {
					return r.Last(), misuse(name, judge.args, err)
				}
				return r.judge(name, e)
			}),
		}
	}
	for name, c := range commands {
		c.Spares = true
		commands[name] = c
	}
	return commands
}

// pingFlags are the flags of ping and ping-start.
func pingFlags(do func(context.Context, *Run, []string, probe.Request) (Outcome, error)) func(*pflag.FlagSet) Action {
	return func(f *pflag.FlagSet) Action {
		var o probeOptions
		o.flags(f, 3)
		f.IntVar(&o.bytes, "size", probe.DefaultBytes, "`BYTES` of payload of each")
		return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
			return do(ctx, r, args, o.request(probe.Ping))
		}
	}
}

// portAt looks at a port among the arguments.
func portAt(i int) func([]string) error {
	return func(args []string) error {
		if port, err := strconv.Atoi(args[i]); err != nil || port < 1 || port > 65535 {
			return &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("%q is not a port", args[i]), Expected: "a number from 1 to 65535"}
		}
		return nil
	}
}

// probe asks what a name means in this place.
func (r *Run) probe(ctx context.Context, from, to string, q probe.Request) (Outcome, error) {
	a, err := r.address(ctx, from, to)
	if err != nil {
		return Outcome{}, err
	}
	q.Target = a.String()
	return r.ask(ctx, from, to, q)
}

// ask sends a request from a place.
func (r *Run) ask(ctx context.Context, from, to string, q probe.Request) (Outcome, error) {
	v, err := r.vantage(ctx, from)
	if err != nil {
		return Outcome{}, err
	}
	q = r.World.patient(q)
	result, err := v.probe(ctx, nil, q)
	if err != nil {
		return Outcome{}, fmt.Errorf("%s from %s to %s: %w", q.Kind, from, to, err)
	}
	return came(from, to, q, result)
}

// came is the outcome of a probe.
func came(from, to string, q probe.Request, result *probe.Result) (Outcome, error) {
	outcome := Outcome{Text: told(result), JSON: result, Status: result.Status}
	if result.Received > 0 {
		return outcome, nil
	}
	whom := to
	if q.Target != "" && q.Target != to {
		whom += " (" + q.Target + ")"
	}
	expected := fmt.Sprintf("an answer to %s from %s to %s", q.Kind, from, whom)
	if q.Status != 0 {
		expected += fmt.Sprintf(" of status %d", q.Status)
	}
	seen := fmt.Sprintf("none to %d: %s", result.Sent, result.Error)
	if result.Sent == 1 {
		seen = result.Error
	}
	return outcome, &Mismatch{Expected: expected, Seen: seen}
}

// told is a result as the script's stdout has it.
func told(p *probe.Result) string {
	switch p.Kind {
	case probe.HTTP, probe.Metadata:
		if p.Sent == 1 || p.Body != "" {
			return p.Body
		}
	case probe.DNS:
		return strings.Join(append(p.Addresses, ""), "\n")
	}
	text := fmt.Sprintf("%d sent, %d received, %s%% loss", p.Sent, p.Received, number(p.Loss))
	if p.Received > 0 {
		text += fmt.Sprintf(", rtt min/avg/max %.1f/%.1f/%.1f ms", 1000*p.RTT.Min, 1000*p.RTT.Avg, 1000*p.RTT.Max)
	}
	if p.Outage > 0 {
		text += fmt.Sprintf(", %.1f s without an answer", p.Outage)
	}
	if p.Error != "" {
		text += ": " + p.Error
	}
	return text + "\n"
}

// number is a float without digits that say nothing.
func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 32) }

// url is the URL that http is given, with names as addresses; to is who is asked, for people.
func (r *Run) url(ctx context.Context, from, text string) (to, target string, err error) {
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			return "", "", fault.New(fault.Invalid, "%q is not a URL", text)
		}
		return text, text, nil
	}
	to, path, _ := strings.Cut(text, "/")
	port := ""
	if m := portBehind.FindStringSubmatch(to); m != nil {
		to, port = m[1], m[2]
	}
	a, err := r.address(ctx, from, to)
	if err != nil {
		return "", "", err
	}
	return to, "http://" + a.String() + port + "/" + path, nil
}

var portBehind = regexp.MustCompile(`^(.+)(:\d+)$`)

// inGuest runs a command in a server.
func (r *Run) inGuest(ctx context.Context, name string, args []string) (Outcome, error) {
	s, err := r.server(ctx, name)
	if err != nil {
		return Outcome{}, err
	}
	g, err := r.inside(s)
	if err != nil {
		return Outcome{}, err
	}
	out, err := node.Output(ctx, g, args...)
	return Outcome{Text: string(out)}, err
}

// probing is a probe that goes on until it is stopped.
type probing struct {
	from, to string
	q        probe.Request
	stop     chan struct{}
	done     chan struct{}
	stopped  bool
	result   *probe.Result // when done
	err      error
}

// keepProbing begins a probe that goes on beside the lines that follow.
func (r *Run) keepProbing(ctx context.Context, name, from, to string, q probe.Request) error {
	a, err := r.address(ctx, from, to)
	if err != nil {
		return err
	}
	q.Target = a.String()
	v, err := r.vantage(ctx, from)
	if err != nil {
		return err
	}
	if q.Wait > 0 {
		first := r.World.patient(q)
		first.Count, first.Marker = 1, probe.NewMarker()
		result, err := v.probe(ctx, nil, first)
		if err != nil {
			return fmt.Errorf("%s from %s to %s: %w", q.Kind, from, to, err)
		}
		if _, err := came(from, to, first, result); err != nil {
			return err
		}
	}
	q.Wait, q.For, q.Forever = 0, 0, true
	p := &probing{from: from, to: to, q: q, stop: make(chan struct{}), done: make(chan struct{})}
	if err := r.put(kindProbe, name, p); err != nil {
		return err
	}
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx)) // longer than the line
	go func() {
		defer close(p.done)
		p.result, p.err = v.probe(lasting, p.stop, q)
	}()
	r.Undo("ping "+name, func(ctx context.Context) error {
		cancel()
		select {
		case <-p.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		return nil
	})
	return nil
}

// stopProbing ends it, and is what came of it.
func (r *Run) stopProbing(ctx context.Context, name string) (Outcome, error) {
	p, err := get[*probing](r, kindProbe, name)
	if err != nil {
		return Outcome{}, err
	}
	if p.stopped {
		return Outcome{}, fault.New(fault.Invalid, "ping %s was stopped before", name)
	}
	p.stopped = true
	close(p.stop)
	select {
	case <-p.done:
	case <-ctx.Done():
		return Outcome{}, fmt.Errorf("wait for the end of ping %s: %w", name, ctx.Err())
	}
	if p.err != nil {
		return Outcome{}, fmt.Errorf("%s from %s to %s: %w", p.q.Kind, p.from, p.to, p.err)
	}
	return came(p.from, p.to, p.q, p.result)
}

// expectation is what a line expects of a probe.
type expectation struct {
	what     string // of the probe's measures, for people
	relation string
	value    float64
	unit     string
	of       func(*probe.Result) float64
	probe    string // a ping-start's; empty: the last one
}

func (e expectation) String() string {
	text := number(e.value) + e.unit
	if e.unit == "s" {
		text = time.Duration(e.value * float64(time.Second)).Round(10 * time.Microsecond).String()
	}
	if e.relation != "=" {
		text = e.relation + " " + text
	}
	return text
}

// judge holds an expectation against a probe.
func (r *Run) judge(what string, e expectation) (Outcome, error) {
	last := r.Last()
	result, ok := last.JSON.(*probe.Result)
	if e.probe != "" {
		p, err := get[*probing](r, kindProbe, e.probe)
		if err != nil {
			return last, err
		}
		if result, ok = p.result, p.stopped && p.result != nil; !ok {
			return last, fault.New(fault.Invalid, "%s: ping %s is not stopped", what, e.probe).WithRemedy("write `ping-stop %s` before", e.probe)
		}
	}
	if !ok {
		return last, fault.New(fault.Invalid, "%s: the line before this one is no probe", what).WithRemedy("write it right behind ping, tcp, udp, http, dns, metadata, ping-stop, or behind the join of one")
	}
	seen := e
	seen.relation, seen.value = "=", e.of(result)
	if e.what != "" {
		what += " " + e.what
	}
	out := last
	out.Text = fmt.Sprintf("%s %s\n", what, seen)
	if math.IsNaN(seen.value) {
		return out, &Mismatch{Expected: what + " " + e.String(), Seen: "no answer"}
	}
	if !compare(seen.value, e.relation, e.value) {
		return out, &Mismatch{Expected: what + " " + e.String(), Seen: fmt.Sprintf("%s (%s)", seen, strings.TrimSpace(told(result)))}
	}
	return out, nil
}

// relation parts `< 20% PROBE`, `<20%`, `20%` into the relation, = where there is none, the value and the probe.
func relation(args []string) (rel, value, of string, err error) {
	m := relationAhead.FindStringSubmatch(strings.Join(args, " "))
	if m == nil {
		return "", "", "", errors.New("no value")
	}
	if rel = m[1]; rel == "" || rel == "==" {
		rel = "="
	}
	return rel, m[2], m[3], nil
}

var relationAhead = regexp.MustCompile(`^(<=|>=|==|=|<|>)? ?([^\s<>=]+)(?: (\S+))?$`)

// measured is the expectation of one measure; read understands its value.
func measured(unit string, read func(string, int) (float64, error), of func(*probe.Result) float64) func([]string) (expectation, error) {
	return func(args []string) (expectation, error) {
		e := expectation{unit: unit, of: of}
		rel, text, name, err := relation(args)
		if err != nil {
			return e, err
		}
		e.relation, e.probe = rel, name
		e.value, err = read(text, 64)
		return e, err
	}
}

func percent(text string, bits int) (float64, error) {
	digits, ok := strings.CutSuffix(text, "%")
	value, err := strconv.ParseFloat(digits, bits)
	if !ok || err != nil || value < 0 || value > 100 {
		return 0, fmt.Errorf("%q is not a percentage", text)
	}
	return value, nil
}

func inSeconds(text string, _ int) (float64, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a time: 50ms, 5s", text)
	}
	return d.Seconds(), nil
}

// chosen is an expectation of the measure that the first word names, or of the usual one.
func chosen(args []string, usual string, measures map[string]func([]string) (expectation, error)) (expectation, error) {
	name := usual
	if _, ok := measures[args[0]]; ok {
		name, args = args[0], args[1:]
	}
	e, err := measures[name](args)
	e.what = name
	return e, err
}

func roundTrip(args []string) (expectation, error) {
	measure := func(of func(probe.RTT) probe.Seconds) func([]string) (expectation, error) {
		return measured("s", inSeconds, func(p *probe.Result) float64 {
			if p.Received == 0 {
				return math.NaN() // there is none
			}
			return float64(of(p.RTT))
		})
	}
	return chosen(args, "avg", map[string]func([]string) (expectation, error){
		"min": measure(func(r probe.RTT) probe.Seconds { return r.Min }),
		"avg": measure(func(r probe.RTT) probe.Seconds { return r.Avg }),
		"max": measure(func(r probe.RTT) probe.Seconds { return r.Max }),
	})
}

func payload(args []string) (expectation, error) {
	return chosen(args, "received", map[string]func([]string) (expectation, error){
		"sent":     measured("", strconv.ParseFloat, func(p *probe.Result) float64 { return float64(p.BytesSent) }),
		"received": measured("", strconv.ParseFloat, func(p *probe.Result) float64 { return float64(p.BytesReceived) }),
	})
}

// misuse is the fault of an expectation that cannot be understood.
func misuse(name, args string, err error) error {
	if err == nil {
		return nil
	}
	return &fault.Error{Code: fault.Invalid, Message: fmt.Sprintf("%s: %v", name, err), Expected: name + " " + args, Remedy: fmt.Sprintf("see `toastdev scenario help %s`", name), Err: err}
}
