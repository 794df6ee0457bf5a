package evidence

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Path is the way of the packets that were sent from one of from to one of to, in that direction alone, computed from the
// pcap files: frames with the same payload are one packet, ordered by time. It is the way most of them took; where no
// capture shows how a packet came from one point to the next there is an Unknown hop. A flow that nobody saw is a Path
// without hops.
func (c *Capture) Path(from, to []netip.Addr) (*Path, error) {
	if len(from) == 0 || len(to) == 0 {
		return nil, fmt.Errorf("capture %s: a path needs addresses of both ends", c.Name)
	}
	p := &Path{From: c.name(from), To: c.name(to)}
	points := slices.Clone(c.Points)
	watched := &watch{points: points, ends: ends{from, to}, packets: map[packet][]sight{}}
	for i := range points {
		watched.read(c.Dir, i)
	}

	seen := make([]bool, len(points))
	ways := map[string]*way{}
	var order []*way
	for _, sights := range watched.flow() {
		for _, s := range sights {
			seen[s.point] = true
		}
		sights, copies := watched.withoutCopies(sights)
		key := signature(sights)
		w := ways[key]
		if w == nil {
			w = &way{}
			ways[key] = w
			order = append(order, w)
		}
		w.packets = append(w.packets, sights)
		for _, s := range copies {
			if hop := watched.hop(s); !slices.ContainsFunc(p.Copies, hop.same) {
				p.Copies = append(p.Copies, hop)
			}
		}
	}
	slices.SortStableFunc(order, func(a, b *way) int {
		return cmp.Or(cmp.Compare(len(b.packets), len(a.packets)), cmp.Compare(len(b.packets[0]), len(a.packets[0])))
	})
	for i, w := range order {
		hops := watched.hops(w)
		if i == 0 {
			p.Hops, p.Packets = hops, len(w.packets)
			continue
		}
		p.Variants = append(p.Variants, Variant{Hops: hops, Packets: len(w.packets)})
	}
	for i, point := range points {
		if seen[i] {
			p.Seen = append(p.Seen, point)
		}
		switch {
		case point.Missing != "":
			p.Missing = append(p.Missing, point)
		case !seen[i]:
			p.Silent = append(p.Silent, point)
		}
	}
	return p, nil
}

// name is what one of the addresses is called, or the first of them.
func (c *Capture) name(addresses []netip.Addr) string {
	for _, a := range addresses {
		if name, ok := c.Addresses[a.String()]; ok {
			return name
		}
	}
	return addresses[0].String()
}

// Includes says whether packets of the flow passed a node, on the path or on one of its variants.
func (p *Path) Includes(node string) bool {
	at := func(h Hop) bool { return h.Node == node && h.Unknown == "" }
	return slices.ContainsFunc(p.Hops, at) || slices.ContainsFunc(p.Variants, func(v Variant) bool { return slices.ContainsFunc(v.Hops, at) })
}

// Unwatched says why nothing can be said of a node that no hop of the path is on: which of its interfaces, those named
// at least, were not captured, or not to the end. Empty: what passed it would have been seen.
func (p *Path) Unwatched(node string, interfaces []string) []string {
	why := Reasons(slices.DeleteFunc(slices.Clone(p.Missing), func(m Point) bool { return m.Node != node }))
	points := slices.Concat(p.Seen, p.Silent, p.Missing)
	for _, name := range interfaces {
		if !slices.ContainsFunc(points, func(q Point) bool { return q.Node == node && q.Namespace == "" && q.Name == name }) {
			why = append(why, node+" "+name+": it was not captured")
		}
	}
	return why
}

// ends are the addresses that a flow goes between.
type ends struct{ from, to []netip.Addr }

// direction is 1 of a frame that goes from from to to by one of its addresses at least, -1 of one that goes back, 0 of
// one whose addresses say neither: both may be translated.
func (e ends) direction(f frame) int {
	forth := slices.Contains(e.from, f.source) || slices.Contains(e.to, f.destination)
	back := slices.Contains(e.to, f.source) || slices.Contains(e.from, f.destination)
	switch {
	case forth && !back:
		return 1
	case back && !forth:
		return -1
	}
	return 0
}

// sight is a packet seen at a point.
type sight struct {
	at    time.Time
	point int
	frame
}

// watch is all that the points saw.
type watch struct {
	points  []Point
	ends    ends
	packets map[packet][]sight
	order   []packet // as they were first read
}

// way is the packets that passed the same points in the same order and form.
type way struct{ packets [][]sight }

// read takes in a point's file. What is wrong with the file becomes the point's Missing.
func (w *watch) read(dir string, i int) {
	p := &w.points[i]
	if p.File == "" {
		if p.Missing == "" {
			p.Missing = "it has no file"
		}
		return
	}
	count, err := frames(filepath.Join(dir, p.File), func(at time.Time, data []byte) {
		f, id, ok := decode(data)
		if !ok {
			return
		}
		if _, known := w.packets[id]; !known {
			w.order = append(w.order, id)
		}
		w.packets[id] = append(w.packets[id], sight{at: at, point: i, frame: f})
	})
	switch {
	case err != nil:
		p.Missing = err.Error()
	case count < p.Frames:
		p.Missing = fmt.Sprintf("%s has %d of %d frames", p.File, count, p.Frames)
	case p.Dropped > 0 && p.Missing == "":
		p.Missing = fmt.Sprintf("%d frames passed that are not in %s", p.Dropped, p.File)
	}
	p.Frames = count
}

// flow is the sights of each packet of the flow, ordered by time, the earliest packet first.
func (w *watch) flow() [][]sight {
	var flow [][]sight
	for _, id := range w.order {
		sights := w.packets[id]
		slices.SortStableFunc(sights, func(a, b sight) int { return a.at.Compare(b.at) })
		sights = w.forth(sights)
		if !slices.ContainsFunc(sights, func(s sight) bool { return slices.Contains(w.ends.from, s.source) }) ||
			!slices.ContainsFunc(sights, func(s sight) bool { return slices.Contains(w.ends.to, s.destination) }) {
			continue
		}
		flow = append(flow, again(sights)...)
	}
	slices.SortStableFunc(flow, func(a, b []sight) int { return a[0].at.Compare(b[0].at) })
	return flow
}

// forth is the sights of a packet on its way forth: an echo has the payload of what it answers. A frame with both
// addresses translated goes the way of the frame before it.
func (w *watch) forth(sights []sight) []sight {
	var forth []sight
	last := 1
	for _, s := range sights {
		if d := w.ends.direction(s.frame); d != 0 {
			last = d
		}
		if last == 1 {
			forth = append(forth, s)
		}
	}
	return forth
}

// again parts packets with the same payload: the same frame at the same point a second time is the second packet's.
func again(sights []sight) [][]sight {
	type place struct {
		point int
		frame frame
	}
	times := map[place]int{}
	var packets [][]sight
	for _, s := range sights {
		n := times[place{s.point, s.frame}]
		times[place{s.point, s.frame}]++
		if n == len(packets) {
			packets = append(packets, nil)
		}
		packets[n] = append(packets[n], s)
	}
	return packets
}

// withoutCopies takes out the frames that a switch sent to several nodes at once, where they went no further: those that
// a node saw on a NIC and nowhere else, when another got the same frame and passed it on.
func (w *watch) withoutCopies(sights []sight) (rest, copies []sight) {
	dead := map[int]bool{}
	for i, s := range sights {
		if !nic(w.points[s.point].Kind) {
			continue
		}
		sent := slices.IndexFunc(sights[:i], func(t sight) bool { return w.wire(t, s) })
		if sent < 0 || w.passesOn(sights, i) {
			continue
		}
		for j, t := range sights {
			if j != sent && j != i && w.wire(t, s) && w.node(t) != w.node(sights[sent]) && w.node(t) != w.node(s) && w.passesOn(sights, j) {
				dead[i] = true
				// In a tunnel each copy is sent on its own.
				for k := range sights {
					if sights[k].outerDestination.IsValid() && sights[k].frame == s.frame {
						dead[k] = true
					}
				}
			}
		}
	}
	for i, s := range sights {
		if dead[i] {
			if w.arrived(sights, i) {
				copies = append(copies, s)
			}
			continue
		}
		rest = append(rest, s)
	}
	return rest, copies
}

// wire says whether two sights on NICs are of the same frame on a network between nodes.
func (w *watch) wire(a, b sight) bool {
	return nic(w.points[a.point].Kind) && nic(w.points[b.point].Kind) && w.node(a) != w.node(b) && a.encapsulation == b.encapsulation &&
		a.id == b.id && a.sourceMAC == b.sourceMAC && a.destinationMAC == b.destinationMAC && a.source == b.source && a.destination == b.destination
}

// passesOn says whether the node of a sight saw the packet later too, or is where it ends.
func (w *watch) passesOn(sights []sight, i int) bool {
	node := w.node(sights[i])
	return w.points[sights[i].point].Kind == Client ||
		slices.ContainsFunc(sights[i+1:], func(t sight) bool { return w.node(t) == node })
}

// arrived says whether a sight is a frame's at the node that received it.
func (w *watch) arrived(sights []sight, i int) bool {
	return slices.ContainsFunc(sights[:i], func(t sight) bool { return w.wire(t, sights[i]) })
}

func (w *watch) node(s sight) string { return w.points[s.point].Node }

// nic says whether a kind of point is on a network between nodes.
func nic(kind string) bool {
	switch kind {
	case Tunnel, External, Management, Storage, Client:
		return true
	}
	return false
}

// signature is the same of packets that took the same way.
func signature(sights []sight) string {
	var b strings.Builder
	for _, s := range sights {
		fmt.Fprintln(&b, s.point, s.frame)
	}
	return b.String()
}

func (w *watch) hop(s sight) Hop {
	p := w.points[s.point]
	return Hop{
		Node: p.Node, Interface: p.Name, Namespace: p.Namespace, Kind: p.Kind, Label: p.Label,
		Encapsulation: s.encapsulation, ID: s.id,
		Source: s.source, Destination: s.destination, SourceMAC: s.sourceMAC, DestinationMAC: s.destinationMAC,
		OuterSource: s.outerSource, OuterDestination: s.outerDestination,
	}
}

// same says whether two hops are at the same place in the same form, whenever.
func (h Hop) same(o Hop) bool {
	h.After, o.After = 0, 0
	h.NAT, o.NAT = nil, nil
	return h == o
}

// hops is a way with the translations on it and the gaps in it.
func (w *watch) hops(way *way) []Hop {
	sights := way.packets[0]
	var hops []Hop
	unknown := func(reason string) {
		if reason != "" {
			hops = append(hops, Hop{Unknown: reason})
		}
	}
	unknown(w.beginning(sights[0]))
	for i, s := range sights {
		hop := w.hop(s)
		hop.After = median(way.packets, func(packet []sight) time.Duration { return packet[i].at.Sub(packet[0].at) })
		if i > 0 {
			before := sights[i-1]
			unknown(w.gap(before, s))
			if before.source != s.source || before.destination != s.destination {
				hop.NAT = &NAT{Ends{before.source, before.destination}, Ends{s.source, s.destination}}
			}
		}
		hops = append(hops, hop)
	}
	unknown(w.end(sights))
	return hops
}

func median(packets [][]sight, of func([]sight) time.Duration) time.Duration {
	values := make([]time.Duration, len(packets))
	for i, p := range packets {
		values[i] = of(p)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
