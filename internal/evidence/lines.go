package evidence

import (
	"fmt"
	"strings"
)

// draw writes the panel: boxes first, lines over them, numbers over all.
func (d *picture) draw(s *svg) {
	heading := d.panel.Title
	if p := d.panel.Path; p != nil {
		what := fmt.Sprintf("%s to %s, %s", p.From, p.To, packets(p.Packets))
		if len(p.Hops) == 0 {
			what = fmt.Sprintf("%s to %s: no packet was seen", p.From, p.To)
		}
		switch heading {
		case "", p.From + " to " + p.To:
			heading = what
		default:
			heading += ": " + what
		}
	}
	s.text("title", 0, 18, heading)
	for _, b := range d.bands {
		s.rect("band", b.at, 6)
		s.text("name", 10, b.at.y+13, b.name)
		if b.text != "" {
			s.text("small", 10, b.at.y+25, b.text)
		}
	}
	for _, n := range d.nodes {
		d.drawNode(s, n)
	}
	if len(d.aside) > 0 {
		at := d.asideAt
		s.text("small", at.x, at.y+14, "not captured")
		for i, name := range d.aside {
			b := box{at.x, at.y + 24 + float64(i)*32, at.w, 26}
			s.rect("aside", b, 6)
			s.text("small", b.x+10, b.y+17, name)
		}
	}
	for _, l := range d.links {
		d.drawLink(s, l)
	}
	for _, stop := range d.stops {
		s.badge("", spot{stop.x, stop.cell.at.y + stop.cell.at.h/2}, fmt.Sprint(stop.index))
	}
	for i, r := range d.rows() {
		y := d.listAt + float64(i)*rowHeight
		if r.number != "" {
			mark := r.number
			if r.class == " unknown" {
				mark = "?"
			}
			s.printf(`<circle class="hop%s" cx="9" cy="%s" r="7.5"/>`+"\n", r.class, number(y-4))
			s.text("number", 9, y, mark)
		}
		s.text(strings.TrimSpace(strings.ReplaceAll(r.class, "unknown", "lacking")), 24, y, r.text)
	}
}

func (d *picture) drawNode(s *svg, n *drawnNode) {
	s.rect("node", n.at, 8)
	s.text("name", n.at.x+padding, n.at.y+17, n.name)
	if n.roles != "" {
		s.text("small", n.at.x+padding+float64(len(n.name)+1)*monospace, n.at.y+17, n.roles)
	}
	if !n.outside {
		s.rect("cell", n.bar, 4)
		s.text("small", n.bar.x+6, n.bar.y+n.bar.h/2+4, "OVS")
	}
	for _, g := range n.groups {
		if !g.guest {
			s.rect("space", g.at, 6)
			s.text("small", g.at.x+8, g.at.y+14, g.title)
		} else {
			s.rect("space", box{g.at.x, g.at.y, g.at.w, 20}, 6)
			s.text("name", g.at.x+8, g.at.y+14, g.title)
		}
		for _, c := range g.cells {
			drawCell(s, c)
		}
	}
	for _, c := range n.nics {
		drawCell(s, c)
	}
	if len(n.quiet) > 0 {
		s.rect("aside", n.quietAt, 6)
		s.text("small", n.quietAt.x+8, n.quietAt.y+14, quietTitle)
		y := n.quietAt.y + 16
		for _, q := range n.quiet {
			y += quietRow + 2
			s.text("quiet", n.quietAt.x+8, y, q.title)
			for _, name := range q.names {
				y += quietRow
				s.text(name.class, n.quietAt.x+16, y, name.text)
			}
			y += 2
		}
	}
}

func drawCell(s *svg, c *cell) {
	s.rect("cell"+c.class, c.at, 4)
	class := "name"
	if c.class == " silent" {
		class = "small"
	}
	s.text(class, c.at.x+8, c.at.y+18, c.name)
	for i, l := range c.lines {
		s.text(l.class, c.at.x+8, c.at.y+33+float64(i)*13, l.text)
	}
}

// drawLink draws a link, through the cells that it ends in.
func (d *picture) drawLink(s *svg, l link) {
	switch {
	case l.from < 0 && l.to < 0:
		return
	case l.from < 0:
		d.drawBeginning(s, l)
		return
	case l.to < 0:
		d.drawEnd(s, l)
		return
	}
	a, b := d.stops[l.from], d.stops[l.to]
	aMid, bMid := spot{a.x, a.cell.at.y + a.cell.at.h/2}, spot{b.x, b.cell.at.y + b.cell.at.h/2}
	class := ""
	if l.unknown != "" {
		class = " unknown"
	}
	var way []spot
	var mark spot
	direct := func(y float64) {
		way = []spot{aMid, {a.x, y}, {b.x, y}, bMid}
		mark = spot{(a.x + b.x) / 2, y}
	}
	switch {
	case a.cell.group != nil && a.cell.group == b.cell.group:
		direct(a.cell.group.inner.take())
	case a.cell.node == b.cell.node && veth(a.cell, b.cell) && l.unknown == "":
		direct(a.cell.node.veth.take())
	case a.cell.node == b.cell.node:
		direct(a.cell.node.barLanes.take())
	case l.unknown == "":
		band := d.band(a.cell.kind)
		if band == nil {
			return
		}
		direct(band.lanes.take())
	default:
		way = append([]spot{aMid}, d.leave(a)...)
		y := d.lost.take()
		out := way[len(way)-1].x
		back := d.leave(b)
		in := back[len(back)-1].x
		way = append(way, spot{out, y}, spot{in, y})
		for i := len(back) - 1; i >= 0; i-- {
			way = append(way, back[i])
		}
		way = append(way, bMid)
		mark = spot{(out + in) / 2, y}
	}
	s.line(class, way)
	before := way[len(way)-2]
	up := before.y > bMid.y
	edge := spot{b.x, b.cell.at.y}
	if up {
		edge.y = b.cell.at.y + b.cell.at.h
	}
	s.tip(class, edge, up)
	if l.unknown != "" {
		s.badge(" unknown", mark, "?")
	} else if h := b.hop; a.cell.node != b.cell.node && h.Encapsulation != "" {
		d.label(s, a, b, way[1].y, fmt.Sprint(h.Encapsulation, " ", h.ID))
	}
}

// label names what a line carries, above its lane where there is room.
func (d *picture) label(s *svg, a, b stop, y float64, text string) {
	x := (a.x + b.x - float64(len(text))*monospace10) / 2
	s.printf(`<rect class="band" x="%s" y="%s" width="%s" height="%s"/>`+"\n", number(x-4), number(y-6), number(float64(len(text))*monospace10+8), number(laneHeight))
	s.text("small", x, y+3.5, text)
}

// leave is the way from a stop to where the path left its node, unseen: from a NIC straight down, else by the bar and the
// gutter.
func (d *picture) leave(a stop) []spot {
	if a.cell.group == nil {
		return []spot{{a.x, d.lost.y}}
	}
	y := a.cell.node.barLanes.take()
	x := a.cell.node.side()
	return []spot{{a.x, y}, {x, y}}
}

// side is an x in the node's gutter that no other line has.
func (n *drawnNode) side() float64 {
	n.gutterTaken++
	return n.gutter + float64(n.gutterTaken-1)*5 - 5
}

// drawBeginning draws where the path comes from: an instance, or what nobody knows.
func (d *picture) drawBeginning(s *svg, l link) {
	b := d.stops[l.to]
	mid := spot{b.x, b.cell.at.y + b.cell.at.h/2}
	if l.unknown != "" {
		from := d.open(b)
		s.line(" unknown", []spot{from, {b.x, from.y}, mid})
		s.badge(" unknown", from, "?")
		return
	}
	switch {
	case b.cell.group != nil && b.cell.group.guest:
		s.line("", []spot{{b.x, b.cell.group.at.y + 20}, mid})
	case b.cell.group == nil && !b.cell.node.outside:
		if band := d.band(b.cell.kind); band != nil {
			s.line("", []spot{{b.x, band.at.y + band.at.h/2}, mid})
		}
	}
}

// drawEnd draws where the path goes.
func (d *picture) drawEnd(s *svg, l link) {
	a := d.stops[l.from]
	mid := spot{a.x, a.cell.at.y + a.cell.at.h/2}
	if l.unknown != "" {
		to := d.open(a)
		s.line(" unknown", []spot{mid, {a.x, to.y}, to})
		s.badge(" unknown", to, "?")
		return
	}
	switch {
	case a.cell.group != nil && a.cell.group.guest:
		end := spot{a.x, a.cell.group.at.y + 20}
		s.line("", []spot{mid, end})
		s.tip("", end, true)
	case a.cell.group == nil && !a.cell.node.outside:
		if band := d.band(a.cell.kind); band != nil {
			end := spot{a.x, band.at.y + band.at.h - 4}
			s.line("", []spot{mid, end})
			s.tip("", end, false)
		}
	}
}

// open is where a line begins or ends that nobody knows more of: in the gutter of its node, at a height that is its own.
func (d *picture) open(a stop) spot {
	if a.cell.node.outside {
		return spot{a.cell.node.gutter, a.cell.at.y - 12}
	}
	return spot{a.cell.node.gutter, a.cell.node.barLanes.take()}
}
