package evidence

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// gap says why it is not known how a packet came from one sight to the next; empty when they are next to each other:
// switched within a node, routed within one namespace, or the same frame on the network between two nodes.
func (w *watch) gap(a, b sight) string {
	p, q := w.points[a.point], w.points[b.point]
	switch {
	case p.Node != q.Node && w.wire(a, b) && a.outerSource == b.outerSource && a.outerDestination == b.outerDestination:
		return ""
	case p.Node != q.Node:
		return w.between(a, b)
	case p.Namespace != "" && p.Namespace == q.Namespace:
		return ""
	// A switch leaves the destination's MAC as it is. The source's it may change: a distributed router's is each node's own.
	case a.destinationMAC == b.destinationMAC && a.source == b.source && a.destination == b.destination:
		return ""
	}
	return fmt.Sprintf("it was routed on %s between %s and %s, where nothing was captured%s", p.Node, p.place(), q.place(), w.missing(p.Node, anyKind))
}

// between is gap's reason for two nodes.
func (w *watch) between(a, b sight) string {
	p, q := w.points[a.point], w.points[b.point]
	switch {
	case !nic(p.Kind) && !nic(q.Kind):
		return fmt.Sprintf("it left %s and reached %s on no interface that was captured%s%s", p.Node, q.Node, w.missing(p.Node, nic), w.missing(q.Node, nic))
	case !nic(p.Kind):
		return fmt.Sprintf("it left %s on no interface that was captured%s", p.Node, w.missing(p.Node, nic))
	case !nic(q.Kind):
		return fmt.Sprintf("it reached %s on no interface that was captured%s", q.Node, w.missing(q.Node, nic))
	case a.outerDestination.IsValid():
		return fmt.Sprintf("it left %s on %s for %s, where nothing shows what became of it%s", p.Node, p.place(), w.holder(a.outerDestination), w.missing(w.holder(a.outerDestination), anyKind))
	}
	return fmt.Sprintf("it is another frame when %s sees it: it was routed after %s, where nothing was captured", q, p)
}

// beginning says why it is not known where a packet came from.
func (w *watch) beginning(s sight) string {
	p := w.points[s.point]
	switch {
	case p.Kind == Tap, p.Kind == Client, slices.Contains(p.Addresses, s.source):
		return ""
	case s.outerSource.IsValid() && slices.Contains(p.Addresses, s.outerSource):
		return fmt.Sprintf("where it began on %s was not captured%s", p.Node, w.missing(p.Node, anyKind))
	case s.outerSource.IsValid():
		sender := w.holder(s.outerSource)
		return fmt.Sprintf("it was sent by %s, where nothing was captured%s", sender, w.missing(sender, anyKind))
	case nic(p.Kind):
		owner, known := w.owner(s.sourceMAC)
		if !known {
			return "" // from outside the region
		}
		return fmt.Sprintf("it was sent by %s, which saw nothing of it%s", owner, w.missing(owner.Node, anyKind))
	}
	return fmt.Sprintf("where it came to %s from was not captured%s", p, w.missing(p.Node, anyKind))
}

// end says why it is not known where a packet went.
func (w *watch) end(sights []sight) string {
	s := sights[len(sights)-1]
	p := w.points[s.point]
	came := len(sights) > 1 && w.wire(sights[len(sights)-2], s) // it came from another node
	switch {
	case p.Kind == Tap && len(sights) > 1, p.Kind == Client && len(sights) > 1, slices.Contains(p.Addresses, s.destination):
		return ""
	case p.Kind == Tunnel && !came && s.outerDestination.IsValid() && !slices.Contains(p.Addresses, s.outerDestination):
		receiver := w.holder(s.outerDestination)
		return fmt.Sprintf("it left %s on %s for %s, where nothing saw it%s", p.Node, p.place(), receiver, w.missing(receiver, anyKind))
	case nic(p.Kind) && !came && s.encapsulation == "":
		owner, known := w.owner(s.destinationMAC)
		if !known {
			return "" // it left the region
		}
		return fmt.Sprintf("it left %s on %s for %s, which saw nothing of it%s", p.Node, p.place(), owner, w.missing(owner.Node, anyKind))
	}
	return fmt.Sprintf("nothing saw it after %s: it was dropped there, or went on where nothing was captured%s", p, w.missing(p.Node, anyKind))
}

func anyKind(string) bool { return true }

// missing is the points of a node that cannot say what passed them, as the end of a sentence.
func (w *watch) missing(node string, kind func(string) bool) string {
	var list []Point
	for _, p := range w.points {
		if p.Node == node && p.Missing != "" && kind(p.Kind) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return ""
	}
	return " (" + strings.Join(Reasons(list), "; ") + ")"
}

// holder is the node with an address, or the address.
func (w *watch) holder(a netip.Addr) string {
	for _, p := range w.points {
		if slices.Contains(p.Addresses, a) {
			return p.Node
		}
	}
	return a.String()
}

// owner is the point with a MAC.
func (w *watch) owner(mac string) (Point, bool) {
	i := slices.IndexFunc(w.points, func(p Point) bool { return p.MAC != "" && p.MAC == mac })
	if i < 0 {
		return Point{}, false
	}
	return w.points[i], true
}
