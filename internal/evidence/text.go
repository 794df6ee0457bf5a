package evidence

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// place is a point on its node: tun0, or qrouter-1a2b3c4d/qr-5e6f7a8b-9c.
func (p Point) place() string { return place(p.Namespace, p.Name) }

func (p Point) String() string { return p.Node + " " + p.place() }

func place(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return short(namespace) + "/" + name
}

// short is a namespace's name with the first eight characters of its id: as much as tells it from others.
func short(namespace string) string {
	kind, id, found := strings.Cut(namespace, "-")
	if !found || len(id) != len("00000000-0000-0000-0000-000000000000") {
		return namespace
	}
	return kind + "-" + id[:8]
}

func flow(source, destination netip.Addr) string {
	return source.String() + " > " + destination.String()
}

// cells are a hop's columns.
func (h Hop) cells() []string {
	if h.Unknown != "" {
		return []string{"?", "", "", "", h.Unknown}
	}
	var carried, outer, packet string
	if h.Encapsulation != "" {
		carried = fmt.Sprint(h.Encapsulation, " ", h.ID)
	}
	if h.OuterSource.IsValid() {
		outer = flow(h.OuterSource, h.OuterDestination) + " |"
	}
	packet = flow(h.Source, h.Destination)
	if h.NAT != nil {
		packet += "  (was " + flow(h.NAT.Before.Source, h.NAT.Before.Destination) + ")"
	}
	return []string{h.Node, place(h.Namespace, h.Interface), carried, outer, packet}
}

// String is a hop on a line: cmp1 tun0 vxlan 57 172.30.1.11 > 172.30.1.12 | 10.1.0.5 > 10.2.0.7
func (h Hop) String() string {
	return strings.Join(strings.Fields(strings.Join(h.cells(), " ")), " ")
}

// String is the numbered hops, aligned; then the variants, and what can be said of the points that are no hop.
func (p *Path) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s to %s", p.From, p.To)
	if len(p.Hops) == 0 {
		fmt.Fprintf(&b, ": no packet seen at %d points\n", len(p.Seen)+len(p.Silent)+len(p.Missing))
	} else {
		fmt.Fprintf(&b, ", %s\n%s", packets(p.Packets), hopTable(p.Hops))
	}
	for _, v := range p.Variants {
		fmt.Fprintf(&b, "otherwise, %s\n%s", packets(v.Packets), hopTable(v.Hops))
	}
	for _, h := range p.Copies {
		fmt.Fprintf(&b, "copied to %s %s by a switch, and no further\n", h.Node, place(h.Namespace, h.Interface))
	}
	for _, reason := range Reasons(p.Missing) {
		fmt.Fprintf(&b, "incomplete: %s\n", reason)
	}
	return b.String()
}

// Reasons is why points are missing: those of a node with the same reason together.
func Reasons(points []Point) []string {
	type same struct{ node, reason string }
	at := map[same]int{}
	var places [][]string
	var order []same
	for _, p := range points {
		key := same{p.Node, p.Missing}
		i, known := at[key]
		if !known {
			i = len(order)
			at[key] = i
			order, places = append(order, key), append(places, nil)
		}
		places[i] = append(places[i], p.place())
	}
	var reasons []string
	for i, s := range order {
		reasons = append(reasons, s.node+" "+strings.Join(places[i], ", ")+": "+s.reason)
	}
	return reasons
}

func packets(n int) string {
	if n == 1 {
		return "1 packet"
	}
	return fmt.Sprint(n, " packets")
}

func hopTable(hops []Hop) string {
	t := table.NewWriter()
	t.SetStyle(table.Style{Box: table.BoxStyle{PaddingLeft: "", PaddingRight: " "}})
	t.SuppressEmptyColumns()
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 1, Align: text.AlignRight}})
	for i, h := range hops {
		row := table.Row{i + 1}
		for _, cell := range h.cells() {
			row = append(row, cell)
		}
		t.AppendRow(row)
	}
	var b strings.Builder
	for line := range strings.Lines(t.Render() + "\n") {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}
