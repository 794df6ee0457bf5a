package evidence

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// Draw writes one SVG that needs nothing beside itself: for each panel the region's nodes as boxes with what captures
// watched in them, the networks between them, the path's packets as a line with the numbers of its hops, and the hops
// as text below. What is not known of the path is dashed.
func Draw(w io.Writer, region Region, panels ...Panel) error {
	var drawn []*picture
	width, height := float64(margin), 0.0
	for _, p := range panels {
		r := &region
		if p.Region != nil {
			r = p.Region
		}
		d := newPicture(r, p)
		drawn = append(drawn, d)
		width += d.width + margin
		height = max(height, d.height)
	}
	var out svg
	out.printf(`<svg xmlns="http://www.w3.org/2000/svg" class="toastdev-path" viewBox="0 0 %s %s" width="%[1]s" height="%[2]s" role="img">`,
		number(width), number(height+2*margin))
	out.printf("\n<style>%s</style>\n", style)
	out.printf(`<rect class="ground" width="%s" height="%s"/>`+"\n", number(width), number(height+2*margin))
	x := float64(margin)
	for _, d := range drawn {
		out.printf(`<g transform="translate(%s %d)">`+"\n", number(x), margin)
		d.draw(&out)
		out.printf("</g>\n")
		x += d.width + margin
	}
	out.printf("</svg>\n")
	_, err := w.Write(out.Bytes())
	return err
}

const margin = 16

// style is light, and dark where the reader's machine is. Its names are the drawing's own: it may stand in a page with others.
const style = `
.toastdev-path{--ground:#fff;--box:#f6f8fa;--inner:#fff;--edge:#8c959f;--ink:#1f2328;--dim:#656d76;--faint:#d0d7de;--band:#ddf4ff;--flow:#0969da;--onflow:#fff;--unknown:#bc4c00;--nat:#8250df}
@media (prefers-color-scheme:dark){.toastdev-path{--ground:#0d1117;--box:#161b22;--inner:#21262d;--edge:#6e7681;--ink:#e6edf3;--dim:#9198a1;--faint:#3d444d;--band:#12283f;--flow:#58a6ff;--onflow:#0d1117;--unknown:#f0883e;--nat:#c297ff}}
.toastdev-path text{font:12px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;fill:var(--ink)}
.toastdev-path .title{font:600 15px system-ui,"DejaVu Sans",sans-serif}
.toastdev-path .name{font-weight:700}
.toastdev-path .small{font-size:10px;fill:var(--dim)}
.toastdev-path .quiet{font-size:10px;fill:var(--dim)}
.toastdev-path .lacking{fill:var(--unknown)}
.toastdev-path .nat{font-size:10px;fill:var(--nat)}
.toastdev-path .ground{fill:var(--ground)}
.toastdev-path .node{fill:var(--box);stroke:var(--edge)}
.toastdev-path .aside{fill:none;stroke:var(--faint)}
.toastdev-path .space{fill:none;stroke:var(--edge)}
.toastdev-path .cell{fill:var(--inner);stroke:var(--edge)}
.toastdev-path .cell.silent{fill:none;stroke:var(--faint)}
.toastdev-path .cell.missing{fill:none;stroke:var(--unknown);stroke-dasharray:4 3}
.toastdev-path .band{fill:var(--band);stroke:none}
.toastdev-path .flow{fill:none;stroke:var(--flow);stroke-width:2;stroke-linejoin:round}
.toastdev-path .flow.unknown{stroke:var(--unknown);stroke-dasharray:6 4}
.toastdev-path .tip{fill:var(--flow)}
.toastdev-path .tip.unknown{fill:var(--unknown)}
.toastdev-path .hop{fill:var(--flow)}
.toastdev-path .hop.unknown{fill:var(--unknown)}
.toastdev-path .number{font-size:11px;font-weight:700;fill:var(--onflow);text-anchor:middle}
`

// svg is a drawing as it is written.
type svg struct{ bytes.Buffer }

func (s *svg) printf(format string, args ...any) { fmt.Fprintf(&s.Buffer, format, args...) }

// number is a coordinate without digits that nobody sees.
func number(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.1f", f), "0"), ".")
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes all
	return b.String()
}

func (s *svg) rect(class string, b box, round float64) {
	s.printf(`<rect class="%s" x="%s" y="%s" width="%s" height="%s" rx="%s"/>`+"\n", class, number(b.x), number(b.y), number(b.w), number(b.h), number(round))
}

func (s *svg) text(class string, x, y float64, text string) {
	if class != "" {
		class = ` class="` + class + `"`
	}
	s.printf(`<text%s x="%s" y="%s" xml:space="preserve">%s</text>`+"\n", class, number(x), number(y), escape(text))
}

// badge is a numbered circle.
func (s *svg) badge(class string, at spot, text string) {
	s.printf(`<circle class="hop%s" cx="%s" cy="%s" r="9"/>`+"\n", class, number(at.x), number(at.y))
	s.text("number", at.x, at.y+4, text)
}

// line is a line by way of several spots, with a tip at its end.
func (s *svg) line(class string, way []spot) {
	var d strings.Builder
	for i, p := range way {
		command := "L"
		if i == 0 {
			command = "M"
		}
		d.WriteString(command + number(p.x) + " " + number(p.y))
	}
	s.printf(`<path class="flow%s" d="%s"/>`+"\n", class, d.String())
}

// tip is an arrow's head at a spot, upwards or downwards.
func (s *svg) tip(class string, at spot, up bool) {
	back := -7.0
	if up {
		back = 7
	}
	s.printf(`<path class="tip%s" d="M%s %sl-4.5 %s h9z"/>`+"\n", class, number(at.x), number(at.y), number(back))
}

type spot struct{ x, y float64 }

type box struct{ x, y, w, h float64 }
