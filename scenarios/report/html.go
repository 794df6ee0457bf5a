package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"

	"github.com/toast-cloud/toastdev/internal/evidence"
	"github.com/toast-cloud/toastdev/scenarios"
)

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string

	pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
		"duration":      duration,
		"clean":         clean,
		"short":         shortIDs,
		"byNode":        byNode,
		"files":         files,
		"address":       address,
		"encapsulation": encapsulation,
		"translation":   translation,
		"since":         since,
		"when":          func(t time.Time) string { return t.Local().Format("2006-01-02 15:04 MST") },
	}).Parse(pageText))
)

// view is what page.html shows.
type view struct {
	Style    template.CSS
	Headline string
	Verdict  string // pass, fail
	Count    count
	Seconds  float64
	Reports  []*reportView
	Pairs    []pair
	Compared *Comparison
	Changes  []changed
}

type reportView struct {
	scenarios.Report
	Rows   []*row
	Ticks  bool // a row has a time to compare with
	Phases []bar
	Files  []folder
}

// row is a scenario, in the summary's table and in its own section.
type row struct {
	scenarios.Result
	ID       string // of its section
	Kind     string // pass, fail, skip, flaky
	Word     string // its verdict in words
	Share    float64
	Was      *scenarios.Result // in the report compared with
	WasShare float64
	Script   []scriptLine
	RanAs    string // the line as it was run, where that differs from what the script says
	Times    []bar
	Captures []folder
	Evidence []folder
	Paths    []pathView
}

type scriptLine struct {
	scenarios.ScriptLine
	Failed bool
}

// bar is a time with its share, in percent, of the longest beside it.
type bar struct {
	Name           string
	Seconds, Share float64
	Limit          float64 // seconds; 0: none
	LimitShare     float64
	Missed         bool
}

// file is a link to a file of the report's folder, or of a bundle elsewhere.
type file struct {
	Name, Link, Size string
}

// folder is files of one folder.
type folder struct {
	Name  string // from the bundle; empty: its own
	Files []file
}

type pathView struct {
	scenarios.Path
	Drawing template.HTML
}

// pair is the same flow with different routing.
type pair struct {
	From, To string
	Sides    []side
}

type side struct {
	Routing, Topology, Scenario string
	Hops                        int
	Nodes                       []string
	Drawing                     template.HTML
}

// page is index.html for a report whose paths are relative to dir.
func page(dir string, r scenarios.Report, compared *Comparison) ([]byte, error) {
	v := view{Style: template.CSS(pageStyle), Count: tally(r), Verdict: "pass", Headline: headline(r), Seconds: r.Took(), Compared: compared}
	for _, r := range r.All() {
		if r.Problem != "" || r.Failed() {
			v.Verdict = "fail"
		}
		one, err := viewOf(dir, r, compared)
		if err != nil {
			return nil, err
		}
		v.Reports = append(v.Reports, one)
	}
	all := r.All()
	if compared != nil {
		v.Changes = compared.changes()
		all = append(all, compared.old.All()...)
	}
	var err error
	if v.Pairs, err = pairs(all); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// headline is the report in one sentence.
func headline(r scenarios.Report) string {
	c := tally(r)
	ran := c.Passed + c.Failed
	switch {
	case ran == 0 && slices.ContainsFunc(r.All(), func(r scenarios.Report) bool { return r.Problem != "" }):
		return "The region did not come up"
	case ran == 0:
		return "No scenario ran"
	case c.Failed == 0 && ran == 1:
		return "The scenario passed"
	case c.Failed == 0:
		return fmt.Sprintf("All %d scenarios passed", ran)
	case ran == 1:
		return "The scenario failed"
	}
	return fmt.Sprintf("%d of %d scenarios failed", c.Failed, ran)
}

func viewOf(dir string, r scenarios.Report, compared *Comparison) (*reportView, error) {
	v := &reportView{Report: r}
	longest := 0.0
	for _, s := range r.Scenarios {
		s = cleaned(s)
		one := &row{Result: s, ID: slug(r.Topology + "-" + s.Name), Kind: string(s.Verdict), Word: verdict(s)}
		if s.Flaky() {
			one.Kind = "flaky"
		}
		if compared != nil {
			if was, there := compared.before[key{r.Topology, s.Name}]; there && was.Verdict != scenarios.Skip {
				one.Was, v.Ticks = &was, true
				longest = max(longest, was.Seconds)
			}
		}
		longest = max(longest, s.Seconds)
		for _, line := range s.Source {
			one.Script = append(one.Script, scriptLine{line, line.Number == s.Line})
			if line.Number == s.Line && strings.TrimSpace(line.Text) != s.Command {
				one.RanAs = s.Command
			}
		}
		one.Times = times(s)
		var err error
		if one.Captures, one.Evidence, err = bundle(dir, s.Bundle); err != nil {
			return nil, err
		}
		for _, p := range s.Paths {
			drawing, err := draw(r.Region, p)
			if err != nil {
				return nil, fmt.Errorf("%s: path %s to %s: %w", s.Name, p.From, p.To, err)
			}
			one.Paths = append(one.Paths, pathView{p, drawing})
		}
		v.Rows = append(v.Rows, one)
	}
	for _, one := range v.Rows {
		one.Share = share(one.Seconds, longest)
		if one.Was != nil {
			one.WasShare = share(one.Was.Seconds, longest)
		}
	}
	// What needs a reader comes first; otherwise the order is that of the run.
	order := map[string]int{"fail": 0, "flaky": 1, "pass": 2, "skip": 3}
	slices.SortStableFunc(v.Rows, func(a, b *row) int { return order[a.Kind] - order[b.Kind] })
	longest = 0
	for _, p := range r.Phases {
		longest = max(longest, p.Seconds)
	}
	for _, p := range r.Phases {
		if p.Seconds < 0.05 { // as good as nothing
			continue
		}
		v.Phases = append(v.Phases, bar{Name: p.Name, Seconds: p.Seconds, Share: share(p.Seconds, longest)})
	}
	for _, artefact := range r.Artefacts {
		one, err := fileAt(dir, artefact, path.Base(artefact))
		if err != nil {
			return nil, err
		}
		v.Files = add(v.Files, "", one)
	}
	return v, nil
}

// cleaned is a result with what a region said in it made readable.
func cleaned(s scenarios.Result) scenarios.Result {
	for _, text := range []*string{&s.Summary, &s.Reason, &s.Command, &s.Expected, &s.Seen, &s.Log} {
		*text = clean(*text)
	}
	s.Attempts, s.Source = slices.Clone(s.Attempts), slices.Clone(s.Source)
	for i := range s.Attempts {
		s.Attempts[i].Reason = clean(s.Attempts[i].Reason)
	}
	for i := range s.Source {
		s.Source[i].Text = clean(s.Source[i].Text)
	}
	return s
}

// slug is text as an anchor's name.
func slug(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return '-'
	}, s)
}

// times is the times between marks that a script asked for.
func times(s scenarios.Result) (bars []bar) {
	longest := 0.0
	for _, e := range s.Elapsed {
		longest = max(longest, e.Seconds, e.Limit)
	}
	for _, e := range s.Elapsed {
		bars = append(bars, bar{Name: e.From + " → " + e.To, Seconds: e.Seconds, Share: share(e.Seconds, longest), Limit: e.Limit,
			LimitShare: share(e.Limit, longest), Missed: e.Limit > 0 && e.Seconds >= e.Limit})
	}
	return bars
}

func share(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * part / whole
}

// bundle is the files of a scenario's bundle: what Wireshark opens, and the rest. A bundle that was removed has none.
func bundle(dir, root string) (captures, others []folder, err error) {
	if root == "" {
		return nil, nil, nil
	}
	onDisk := filepath.Join(dir, filepath.FromSlash(root))
	err = filepath.WalkDir(onDisk, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		inside, err := filepath.Rel(onDisk, name)
		if err != nil {
			return err
		}
		inside = filepath.ToSlash(inside)
		one, err := fileAt(dir, path.Join(root, inside), path.Base(inside))
		in := strings.TrimSuffix(path.Dir(inside)+"/", "./")
		if path.Ext(inside) == ".pcap" {
			captures = add(captures, in, one)
		} else {
			others = add(others, in, one)
		}
		return err
	})
	if os.IsNotExist(err) {
		err = nil
	}
	return captures, others, err
}

// add puts a file with the others of its folder.
func add(folders []folder, name string, f file) []folder {
	i := slices.IndexFunc(folders, func(f folder) bool { return f.Name == name })
	if i < 0 {
		i = len(folders)
		folders = append(folders, folder{Name: name})
	}
	folders[i].Files = append(folders[i].Files, f)
	return folders
}

// files is how many files folders have.
func files(folders []folder) (n int) {
	for _, f := range folders {
		n += len(f.Files)
	}
	return n
}

func fileAt(dir, link, name string) (file, error) {
	// "./" keeps a name with a colon in it from being taken for a URL's scheme.
	one := file{Name: name, Link: (&url.URL{Path: "./" + link}).EscapedPath()}
	info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(link)))
	if os.IsNotExist(err) {
		return one, nil
	}
	if err != nil {
		return one, err
	}
	one.Size = strings.ReplaceAll(humanize.Bytes(uint64(info.Size())), " ", "\u00a0")
	return one, nil
}

// draw is a path's drawing.
func draw(region evidence.Region, p scenarios.Path) (template.HTML, error) {
	if p.Path == nil {
		return "", nil
	}
	var b strings.Builder
	err := evidence.Draw(&b, region, evidence.Panel{Path: p.Path})
	return template.HTML(b.String()), err // evidence.Draw escapes what it did not make itself
}

// pairs is the flows that were seen with more than one kind of routing: those whose ends have the same names.
func pairs(reports []scenarios.Report) ([]pair, error) {
	var found []pair
	for _, r := range reports {
		for _, s := range r.Scenarios {
			for _, p := range s.Paths {
				if p.Path == nil {
					continue
				}
				i := slices.IndexFunc(found, func(f pair) bool { return f.From == p.From && f.To == p.To })
				if i < 0 {
					i = len(found)
					found = append(found, pair{From: p.From, To: p.To})
				}
				if slices.ContainsFunc(found[i].Sides, func(s side) bool { return s.Routing == r.Routing }) {
					continue
				}
				drawing, err := draw(r.Region, p)
				if err != nil {
					return nil, err
				}
				one := side{Routing: r.Routing, Topology: r.Topology, Scenario: s.Name, Hops: len(p.Hops), Drawing: drawing}
				for _, hop := range p.Hops {
					if hop.Node != "" && !slices.Contains(one.Nodes, hop.Node) {
						one.Nodes = append(one.Nodes, hop.Node)
					}
				}
				found[i].Sides = append(found[i].Sides, one)
			}
		}
	}
	return slices.DeleteFunc(found, func(p pair) bool { return len(p.Sides) < 2 }), nil
}

// address is an address as it is shown; "" for none.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// encapsulation is what a packet was carried in: vxlan 1001.
func encapsulation(h evidence.Hop) string {
	if h.Encapsulation == "" {
		return ""
	}
	return fmt.Sprintf("%s %d", h.Encapsulation, h.ID)
}

// translation is the address that NAT changed, or both: 10.1.0.5 → 172.31.7.105.
func translation(n *evidence.NAT) string {
	var parts []string
	for _, end := range []struct {
		name          string
		before, after netip.Addr
	}{{"source", n.Before.Source, n.After.Source}, {"destination", n.Before.Destination, n.After.Destination}} {
		if end.before != end.after {
			parts = append(parts, fmt.Sprintf("%s %s → %s", end.name, address(end.before), address(end.after)))
		}
	}
	return strings.Join(parts, ", ")
}

var uuid = regexp.MustCompile(`([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// shortIDs is text with the beginnings of the UUIDs in it: qrouter-ece66bd7.
func shortIDs(s string) string { return uuid.ReplaceAllString(s, "$1") }

// byNode is points, a line for each node: net: tun0, qrouter-ece66bd7/qr-addb42ef-66.
func byNode(points []evidence.Point) []string {
	var nodes []string
	at := map[string][]string{}
	for _, p := range points {
		name := p.Name
		if p.Namespace != "" {
			name = shortIDs(p.Namespace) + "/" + name
		}
		if p.Missing != "" {
			name += " (" + plain(p.Missing) + ")"
		}
		if at[p.Node] == nil {
			nodes = append(nodes, p.Node)
		}
		at[p.Node] = append(at[p.Node], name)
	}
	for i, node := range nodes {
		nodes[i] = node + ": " + strings.Join(at[node], ", ")
	}
	return nodes
}

// since is how long after the first hop: +0.412 ms.
func since(d time.Duration) string {
	return fmt.Sprintf("+%.3f ms", float64(d)/float64(time.Millisecond))
}
