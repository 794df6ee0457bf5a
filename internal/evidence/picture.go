package evidence

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// picture is one panel: what is in it, and where. A node is drawn from the top: instances' taps and namespaces side by
// side, a bar for the switch, the NICs; below all nodes a band for each network. Lines run in lanes of their own: above
// the interfaces of a namespace what it routes, in the bar what is switched, in a band what goes between nodes.
type picture struct {
	panel         Panel
	width, height float64
	nodes         []*drawnNode
	aside         []string // nodes without any point
	asideAt       box
	bands         []*band
	stops         []stop // of the known hops
	links         []link // between stops, in order
	listAt        float64
	lost          lanes // below the bands: between nodes, nobody knows where
}

type drawnNode struct {
	name, roles string
	at          box
	groups      []*group // upper row
	nics        []*cell
	quiet       []quietList
	quietAt     box
	veth        lanes // between the upper row and the bar
	bar         box
	barLanes    lanes
	gutter      float64 // the x at its left where nothing is drawn
	gutterTaken int
	outside     bool // the client: no switch
}

// group is a namespace, or an instance and its tap.
type group struct {
	namespace string
	title     string
	guest     bool
	at        box
	cells     []*cell
	inner     lanes
}

// cell is an interface that is drawn with its name.
type cell struct {
	key    place3
	name   string
	lines  []cellLine
	class  string // silent, missing or none
	group  *group // nil: a NIC
	node   *drawnNode
	at     box
	slots  int
	placed int
	kind   string
}

type cellLine struct{ class, text string }

type place3 struct{ node, namespace, name string }

// quietList is points of a namespace that saw nothing of the flow.
type quietList struct {
	title string
	names []cellLine
}

// lanes is lines beside each other in a strip.
type lanes struct{ y, count, next float64 }

func (l *lanes) take() float64 {
	l.next++
	return l.y + (l.next-0.5)*laneHeight
}

// band is a network between nodes.
type band struct {
	name, text string
	at         box
	lanes      lanes
}

// stop is a hop at its cell.
type stop struct {
	hop   Hop
	index int // in the path, from 1
	cell  *cell
	x     float64
}

// link is between two stops; -1 is none: the path begins or ends there.
type link struct {
	from, to int
	unknown  string
	number   int // of the hop that is not known
}

const (
	laneHeight  = 12
	cellHeight  = 44
	cellGap     = 8
	groupGap    = 12
	padding     = 12
	nodeGap     = 34
	labelWidth  = 112 // the bands' names
	barLabel    = 34
	slotWidth   = 22
	monospace   = 7.3  // a character of 12 px
	monospace10 = 6.15 // a character of 10 px
	rowHeight   = 17   // of the hops as text
)

func newPicture(region *Region, panel Panel) *picture {
	d := &picture{panel: panel}
	d.gather(region)
	d.connect()
	d.layOut()
	return d
}

// gather makes the nodes with the cells of what was watched.
func (d *picture) gather(region *Region) {
	path := d.panel.Path
	if path == nil {
		path = &Path{}
	}
	passed := map[place3][]Hop{}
	for _, h := range path.Hops {
		if h.Unknown == "" {
			key := place3{h.Node, h.Namespace, h.Interface}
			passed[key] = append(passed[key], h)
		}
	}
	points := map[string][]Point{}
	add := func(list []Point) {
		for _, p := range list {
			if !slices.ContainsFunc(points[p.Node], func(o Point) bool { return o.Name == p.Name && o.Namespace == p.Namespace }) {
				points[p.Node] = append(points[p.Node], p)
			}
		}
	}
	add(path.Missing)
	add(path.Seen)
	add(path.Silent)
	for _, h := range path.Hops {
		if h.Unknown == "" {
			add([]Point{{Node: h.Node, Interface: Interface{Name: h.Interface, Namespace: h.Namespace, Kind: h.Kind, Label: h.Label}}})
		}
	}
	nodes := slices.Clone(region.Nodes)
	for _, name := range slices.Sorted(maps.Keys(points)) {
		if !slices.ContainsFunc(nodes, func(n RegionNode) bool { return n.Name == name }) {
			nodes = append(nodes, RegionNode{Name: name})
		}
	}
	// The client first, then the computes and the network nodes as the region has them.
	slices.SortStableFunc(nodes, func(a, b RegionNode) int {
		return cmp.Compare(nodeOrder(a), nodeOrder(b))
	})
	used := map[string]bool{}
	for _, n := range nodes {
		if len(points[n.Name]) == 0 {
			d.aside = append(d.aside, n.Name)
			continue
		}
		node := &drawnNode{name: n.Name, roles: strings.Join(n.Roles, ", ")}
		if n.VM {
			node.roles += ", a VM"
		}
		node.outside = !slices.ContainsFunc(points[n.Name], func(p Point) bool { return p.Kind != Client })
		list := points[n.Name]
		slices.SortStableFunc(list, func(a, b Point) int {
			return cmp.Or(cmp.Compare(kindOrder(a), kindOrder(b)), strings.Compare(a.Namespace, b.Namespace),
				cmp.Compare(firstHop(path, a), firstHop(path, b)), strings.Compare(a.Name, b.Name))
		})
		for _, p := range list {
			key := place3{p.Node, p.Namespace, p.Name}
			hops := passed[key]
			if len(hops) == 0 && !nic(p.Kind) {
				node.keepQuiet(p)
				continue
			}
			c := newCell(p, key, hops, region)
			c.node = node
			if nic(p.Kind) {
				node.nics = append(node.nics, c)
				used[networkOf(p.Kind)] = true
				continue
			}
			node.join(p, c)
		}
		d.nodes = append(d.nodes, node)
	}
	for _, n := range region.Networks {
		if used[n.Name] {
			d.bands = append(d.bands, &band{name: n.Name, text: n.Subnet.String()})
			delete(used, n.Name)
		}
	}
	for _, name := range []string{Management, Tunnel, External, Storage} {
		if used[name] {
			d.bands = append(d.bands, &band{name: name})
		}
	}
}

func nodeOrder(n RegionNode) int {
	switch {
	case len(n.Roles) == 0:
		return 3
	case slices.Contains(n.Roles, "compute"):
		return 0
	case slices.Contains(n.Roles, "network"):
		return 1
	}
	return 2
}

// kindOrder puts an instance's tap beside the router, and that beside the way out.
func kindOrder(p Point) int {
	switch {
	case p.Kind == Tap:
		return 0
	case strings.HasPrefix(p.Namespace, "qrouter-"):
		return 1
	case strings.HasPrefix(p.Namespace, "snat-"):
		return 2
	case strings.HasPrefix(p.Namespace, "fip-"):
		return 3
	case p.Kind == DHCP:
		return 4
	}
	// NICs, which have a row of their own.
	return 5 + slices.Index([]string{Tunnel, External, Management, Storage, Client}, p.Kind)
}

// firstHop is the number of the first hop at a point; those of none come last.
func firstHop(path *Path, p Point) int {
	i := slices.IndexFunc(path.Hops, func(h Hop) bool { return h.Node == p.Node && h.Namespace == p.Namespace && h.Interface == p.Name })
	if i < 0 {
		return len(path.Hops)
	}
	return i
}

// networkOf is the network that a kind of NIC is on.
func networkOf(kind string) string {
	if kind == Client {
		return External
	}
	return kind
}

func newCell(p Point, key place3, hops []Hop, region *Region) *cell {
	c := &cell{key: key, name: p.Name, kind: p.Kind, slots: len(hops)}
	switch {
	case p.Missing != "":
		c.class = " missing"
	case len(hops) == 0:
		c.class = " silent"
	}
	sub := p.Kind
	if len(p.Addresses) > 0 && p.Kind != Tap {
		sub = p.Addresses[0].String()
	}
	switch {
	case p.Missing != "":
		c.lines = append(c.lines, cellLine{"small lacking", "incomplete"})
	case len(hops) == 0:
		c.lines = append(c.lines, cellLine{"small", "saw nothing of it"})
	default:
		c.lines = append(c.lines, cellLine{"small", sub})
	}
	for _, h := range hops {
		if h.NAT != nil {
			c.lines = append(c.lines, cellLine{"nat", translation(*h.NAT)})
			break
		}
	}
	return c
}

// translation is what a NAT changed.
func translation(n NAT) string {
	switch {
	case n.Before.Source == n.After.Source:
		return "to " + n.Before.Destination.String() + " → " + n.After.Destination.String()
	case n.Before.Destination == n.After.Destination:
		return "from " + n.Before.Source.String() + " → " + n.After.Source.String()
	}
	return flow(n.Before.Source, n.Before.Destination) + " → " + flow(n.After.Source, n.After.Destination)
}

// keepQuiet lists a point that saw nothing.
func (n *drawnNode) keepQuiet(p Point) {
	title := "taps"
	if p.Namespace != "" {
		title = short(p.Namespace)
	}
	line := cellLine{"quiet", p.Name}
	if p.Missing != "" {
		line = cellLine{"quiet lacking", p.Name + " ?"}
	}
	if i := slices.IndexFunc(n.quiet, func(q quietList) bool { return q.title == title }); i >= 0 {
		n.quiet[i].names = append(n.quiet[i].names, line)
		return
	}
	n.quiet = append(n.quiet, quietList{title, []cellLine{line}})
}

// join puts a cell into its namespace's group, a tap into one of its instance's.
func (n *drawnNode) join(p Point, c *cell) {
	i := slices.IndexFunc(n.groups, func(g *group) bool { return g.namespace == p.Namespace })
	if i < 0 || p.Namespace == "" {
		g := &group{namespace: p.Namespace, title: short(p.Namespace)}
		switch {
		case p.Namespace == "":
			g.title, g.guest = cmp.Or(p.Label, "instance"), true
		case p.Label != "" && !strings.HasPrefix(p.Namespace, "fip-"): // that one is all routers'
			g.title += " " + p.Label
		}
		n.groups = append(n.groups, g)
		i = len(n.groups) - 1
	}
	c.group = n.groups[i]
	n.groups[i].cells = append(n.groups[i].cells, c)
}

// connect makes the links between stops, and counts the lanes that they need.
func (d *picture) connect() {
	cells := map[place3]*cell{}
	for _, n := range d.nodes {
		for _, g := range n.groups {
			for _, c := range g.cells {
				cells[c.key] = c
			}
		}
		for _, c := range n.nics {
			cells[c.key] = c
		}
	}
	last, unknown, lack := -1, "", 0
	if d.panel.Path == nil {
		return
	}
	for i, h := range d.panel.Path.Hops {
		if h.Unknown != "" {
			unknown, lack = h.Unknown, i+1
			continue
		}
		c := cells[place3{h.Node, h.Namespace, h.Interface}]
		if c == nil {
			continue
		}
		d.stops = append(d.stops, stop{hop: h, index: i + 1, cell: c})
		d.links = append(d.links, link{last, len(d.stops) - 1, unknown, lack})
		last, unknown, lack = len(d.stops)-1, "", 0
	}
	d.links = append(d.links, link{last, -1, unknown, lack})
	for _, l := range d.links {
		d.lanesOf(l, func(s *lanes) { s.count++ })
	}
}

// lanesOf calls use for each strip that a link runs through.
func (d *picture) lanesOf(l link, use func(*lanes)) {
	if l.from < 0 || l.to < 0 {
		if at := max(l.from, l.to); l.unknown != "" && at >= 0 {
			if n := d.stops[at].cell.node; !n.outside {
				use(&n.barLanes)
			}
		}
		return
	}
	a, b := d.stops[l.from].cell, d.stops[l.to].cell
	switch {
	case a.group != nil && a.group == b.group:
		use(&a.group.inner)
	case a.node == b.node && veth(a, b) && l.unknown == "":
		use(&a.node.veth)
	case a.node == b.node:
		use(&a.node.barLanes)
	case l.unknown == "":
		if band := d.band(a.kind); band != nil {
			use(&band.lanes)
		}
	default:
		if a.group != nil {
			use(&a.node.barLanes)
		}
		use(&d.lost)
		if b.group != nil {
			use(&b.node.barLanes)
		}
	}
}

// veth says whether two cells are the ends of the link between a router's namespace and the one of floating IPs.
func veth(a, b *cell) bool {
	x, y := strings.CutPrefix(a.name, "rfp-")
	v, w := strings.CutPrefix(b.name, "fpr-")
	if y && w {
		return x == v
	}
	x, y = strings.CutPrefix(a.name, "fpr-")
	v, w = strings.CutPrefix(b.name, "rfp-")
	return y && w && x == v
}

func (d *picture) band(kind string) *band {
	i := slices.IndexFunc(d.bands, func(b *band) bool { return b.name == networkOf(kind) })
	if i < 0 {
		return nil
	}
	return d.bands[i]
}

func textWidth(lines []cellLine) float64 {
	w := 0.0
	for _, l := range lines {
		w = max(w, float64(len([]rune(l.text)))*monospace10)
	}
	return w
}

func (c *cell) measure() {
	c.at.w = 8 + max(float64(len(c.name))*monospace, textWidth(c.lines)) + 6 + float64(c.slots)*slotWidth
	c.at.h = cellHeight
	if len(c.lines) > 1 {
		c.at.h += 12
	}
}

// layOut gives everything its place.
func (d *picture) layOut() {
	const title = 46
	// Heights first: all nodes have their bars and NICs at the same height.
	cellH, innerH, vethH, barH, nicH := float64(cellHeight), 0.0, 0.0, 0.0, float64(cellHeight)
	quietH := 0.0
	for _, n := range d.nodes {
		for _, g := range n.groups {
			for _, c := range g.cells {
				c.measure()
				cellH = max(cellH, c.at.h)
			}
			innerH = max(innerH, g.inner.count*laneHeight)
			if g.guest {
				innerH = max(innerH, laneHeight)
			}
		}
		for _, c := range n.nics {
			c.measure()
			nicH = max(nicH, c.at.h)
		}
		vethH = max(vethH, n.veth.count*laneHeight)
		barH = max(barH, n.barLanes.count*laneHeight)
		quietH = max(quietH, n.quietHeight())
	}
	barH = max(barH, laneHeight) + 8
	upperH := max(20+innerH+4+cellH+8, quietH)
	x, top := float64(labelWidth), float64(title)
	nameH := 24.0
	upperY := top + nameH
	vethY := upperY + upperH + 4
	barY := vethY + vethH + 10
	nicY := barY + barH + 16
	bottom := nicY + nicH + padding

	for _, n := range d.nodes {
		x += nodeGap
		n.gutter = x - nodeGap/2
		n.at = box{x, top, 0, bottom - top}
		inner := x + padding
		at := inner + barLabel
		if n.outside {
			at = inner
		}
		start := at
		for i, g := range n.groups {
			if i > 0 {
				at += groupGap
			}
			w := float64(len([]rune(g.title)))*monospace10 + 16
			cw := 0.0
			for i, c := range g.cells {
				if i > 0 {
					cw += cellGap
				}
				c.at.x = at + 8 + cw
				c.at.h = cellH
				c.at.y = upperY + upperH - 8 - cellH
				cw += c.at.w
			}
			w = max(w, cw+16)
			g.at = box{at, upperY + upperH - (20 + innerH + 4 + cellH + 8), w, 20 + innerH + 4 + cellH + 8}
			g.inner.y = g.at.y + 20
			at += w
		}
		if len(n.quiet) > 0 {
			if len(n.groups) > 0 {
				at += groupGap
			}
			n.quietAt = box{at, upperY, n.quietWidth(), upperH}
			at += n.quietAt.w
		}
		right := at
		at = start
		for i, c := range n.nics {
			if i > 0 {
				at += groupGap
			}
			c.at.x, c.at.y, c.at.h = at, nicY, nicH
			at += c.at.w
		}
		right = max(right, at, inner+float64(len(n.name)+2+len(n.roles))*monospace)
		n.at.w = right + padding - x
		n.veth.y = vethY
		n.bar = box{inner, barY, right - inner, barH}
		n.barLanes.y = barY + 4
		x += n.at.w
	}
	if len(d.aside) > 0 {
		x += nodeGap
		w := 0.0
		for _, name := range d.aside {
			w = max(w, float64(len(name))*monospace+24)
		}
		w = max(w, 12*monospace10+24)
		d.asideAt = box{x, top, w, 0}
		x += w
	}
	y := bottom + 22
	for _, b := range d.bands {
		h := max(b.lanes.count, 2)*laneHeight + 6
		b.at = box{0, y, x, h}
		b.lanes.y = y + 3
		y += h + 10
	}
	d.lost.y = y
	y += d.lost.count * laneHeight
	d.listAt = y + 26
	d.width = x
	rows := d.rows()
	for _, r := range rows {
		d.width = max(d.width, float64(len([]rune(r.text)))*monospace+28)
	}
	for _, b := range d.bands {
		b.at.w = d.width
	}
	d.height = d.listAt + float64(len(rows))*rowHeight
	d.width = math.Ceil(d.width)
	for i := range d.stops {
		s := &d.stops[i]
		s.x = s.cell.at.x + s.cell.at.w - float64(s.cell.slots-s.cell.placed)*slotWidth + slotWidth/2 - 3
		s.cell.placed++
	}
	d.spread()
}

// spread moves the lines of NICs aside that would run over those of interfaces above.
func (d *picture) spread() {
	for i := range d.stops {
		s := &d.stops[i]
		if s.cell.group != nil {
			continue
		}
		for range 3 {
			if !slices.ContainsFunc(d.stops, func(o stop) bool {
				return o.cell.node == s.cell.node && o.cell.group != nil && math.Abs(o.x-s.x) < 3
			}) {
				break
			}
			s.x -= 3
		}
	}
}

const quietRow = 13

func (n *drawnNode) quietHeight() float64 {
	if len(n.quiet) == 0 {
		return 0
	}
	h := 26.0
	for _, q := range n.quiet {
		h += quietRow*float64(1+len(q.names)) + 4
	}
	return h
}

func (n *drawnNode) quietWidth() float64 {
	w := float64(len(quietTitle)) * monospace10
	for _, q := range n.quiet {
		w = max(w, float64(len(q.title))*monospace10, 8+textWidth(q.names))
	}
	return w + 16
}

const quietTitle = "no hop seen"

// row is a line of the text below.
type row struct{ number, class, text string }

// rows is the hops as text.
func (d *picture) rows() []row {
	path := d.panel.Path
	if path == nil {
		return nil
	}
	var rows []row
	if len(path.Hops) > 0 {
		for i, line := range strings.Split(strings.TrimRight(hopTable(path.Hops), "\n"), "\n") {
			_, line, _ = strings.Cut(strings.TrimLeft(line, " "), " ")
			class := ""
			if reason := path.Hops[i].Unknown; reason != "" {
				line, class = reason, " unknown"
			}
			for j, part := range wrap(line, 150) {
				n := ""
				if j == 0 {
					n = fmt.Sprint(i + 1)
				}
				rows = append(rows, row{n, class, part})
			}
		}
	}
	note := func(class, format string, args ...any) {
		for _, part := range wrap(fmt.Sprintf(format, args...), 150) {
			rows = append(rows, row{"", class, part})
		}
	}
	for _, v := range path.Variants {
		note("", "%s went another way: %s", packets(v.Packets), summary(v.Hops))
	}
	for _, h := range path.Copies {
		note("", "a switch sent copies to %s %s, where they went no further", h.Node, place(h.Namespace, h.Interface))
	}
	for _, reason := range Reasons(path.Missing) {
		note(" lacking", "incomplete: %s", reason)
	}
	return rows
}

// summary is the nodes and interfaces of a way on one line.
func summary(hops []Hop) string {
	var places []string
	for _, h := range hops {
		if h.Unknown != "" {
			places = append(places, "?")
			continue
		}
		places = append(places, h.Node+" "+place(h.Namespace, h.Interface))
	}
	return strings.Join(places, ", ")
}

// wrap parts a text at blanks, into lines of at most so many characters where that can be.
func wrap(text string, most int) []string {
	var lines []string
	indent := ""
	for len(text) > most {
		cut := strings.LastIndexByte(text[:most], ' ')
		if cut <= len(indent) {
			break
		}
		lines = append(lines, text[:cut])
		indent = "    "
		text = indent + text[cut+1:]
	}
	return append(lines, text)
}
