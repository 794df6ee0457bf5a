package report

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// looks is what the page is looked at as.
var looks = []struct {
	name   string
	width  int
	scheme string // Blink's number of a colour scheme: 0 dark, 1 light
}{
	{"light", 1280, "1"},
	{"dark", 1280, "0"},
	{"phone", 390, "1"},
	{"phone-dark", 390, "0"},
}

// frame shows the page at a width of its own, measures it, and asks for every file that it links to.
var frame = template.Must(template.New("frame").Parse(`<!DOCTYPE html><html><body style="margin:0">
<iframe id="page" src="/" style="border:0;display:block;width:{{.Width}}px;height:{{.Height}}px"></iframe><output></output>
<script>
page.onload = () => {
	const d = page.contentDocument, wide = []
	for (const e of d.querySelectorAll("main *"))
		if (e.getBoundingClientRect().right > d.documentElement.clientWidth + 1 && !e.closest(".scroll, .drawing, .script ol, pre")) wide.push(e.outerHTML.slice(0, 120))
	const broken = [], asked = new XMLHttpRequest()
	const there = a => { asked.open("HEAD", a.href, false); asked.send(); return asked.status == 200 }
	for (const a of d.querySelectorAll("a"))
		if (!(a.getAttribute("href")[0] == "#" ? d.getElementById(decodeURIComponent(a.hash.slice(1))) : there(a))) broken.push(a.href)
	document.querySelector("output").textContent = "measured height=" + d.documentElement.scrollHeight + " scenarios=" + d.querySelectorAll(".scenario").length +
		" drawings=" + d.querySelectorAll(".drawing svg").length + " scripts=" + d.querySelectorAll("script").length + " wide=" + wide.length + " broken=" + broken.length + " " + wide + broken
}
</script></body></html>`))

// TestThePageInABrowser looks at a report in headless Chromium as its readers do: light and dark, wide and on a phone. The
// screenshots are kept in TOASTDEV_ARTEFACTS, else where go test -artifacts keeps them.
func TestThePageInABrowser(t *testing.T) {
	chromium := findChromium(t)
	dir, _ := written(t)
	var mu sync.Mutex
	var asked []string
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(dir)))
	mux.HandleFunc("/frame", func(w http.ResponseWriter, r *http.Request) {
		width, _ := strconv.Atoi(r.FormValue("width"))
		height, _ := strconv.Atoi(r.FormValue("height"))
		if err := frame.Execute(w, map[string]any{"Width": width, "Height": height}); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodGet {
			asked = append(asked, r.URL.Path)
		}
		mux.ServeHTTP(w, r)
	}))
	defer server.Close()
	for _, look := range looks {
		t.Run(look.name, func(t *testing.T) {
			url := func(height int) string {
				return fmt.Sprintf("%s/frame?width=%d&height=%d", server.URL, look.width, height)
			}
			dom := browse(t, chromium, look.scheme, "--dump-dom", fmt.Sprintf("--window-size=%d,2000", look.width), url(2000))
			measured := regexp.MustCompile(`measured height=(\d+) scenarios=(\d+) drawings=(\d+) scripts=(\d+) wide=(\d+) broken=(\d+) (.*)</output>`).FindSubmatch(dom)
			if measured == nil {
				t.Fatalf("the page was not measured: %.2000s", dom)
			}
			if got := string(bytes.Join(measured[2:7], []byte(" "))); got != "7 5 0 0 0" {
				t.Errorf("scenarios, drawings, scripts, too wide, broken links: %s, want 7 5 0 0 0: %s", got, measured[7])
			}
			height, err := strconv.Atoi(string(measured[1]))
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(artefacts(t), "report-"+look.name+".png")
			browse(t, chromium, look.scheme, "--screenshot="+file, fmt.Sprintf("--window-size=%d,%d", look.width, height), url(height))
			colours, middle := seen(t, file)
			if colours < 20 {
				t.Errorf("%s shows %d colours: it is all but blank", file, colours)
			}
			if dark := middle < 0x80; dark != (look.scheme == "0") {
				t.Errorf("%s: the paper's lightness is %d", file, middle)
			}
			t.Log(file)
		})
	}
	mu.Lock()
	defer mu.Unlock()
	for _, path := range asked {
		if path != "/frame" && path != "/" && path != "/favicon.ico" {
			t.Errorf("showing the page, the browser asked for %s", path)
		}
	}
}

func findChromium(t *testing.T) string {
	for _, name := range []string{"chromium", "google-chrome", "chromium-browser", "chrome"} {
		// Ubuntu has a chromium-browser that says no more than where to get one.
		if path, err := exec.LookPath(name); err == nil && exec.Command(path, "--version").Run() == nil {
			return path
		}
	}
	t.Skip("there is no Chromium on PATH to look at the report with: apt-get install chromium")
	return ""
}

// browse runs the browser without a window and returns what it printed.
func browse(t *testing.T, chromium, scheme string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, append([]string{"--headless", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--no-first-run",
		"--no-sandbox", // it runs as root, and shows our own page alone
		"--user-data-dir=" + t.TempDir(), "--blink-settings=preferredColorScheme=" + scheme}, args...)...)
	var out, diagnosis bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnosis
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", chromium, strings.Join(args, " "), err, diagnosis.Bytes())
	}
	return out.Bytes()
}

func artefacts(t *testing.T) string {
	dir := os.Getenv("TOASTDEV_ARTEFACTS")
	if dir == "" {
		return t.ArtifactDir()
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// seen is how many colours a picture has, and the lightness of its paper, 0 to 255.
func seen(t *testing.T, file string) (colours, paper int) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	found := map[[3]uint32]bool{}
	bounds := picture.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y += 2 {
		for x := bounds.Min.X; x < bounds.Max.X; x += 2 {
			r, g, b, _ := picture.At(x, y).RGBA()
			found[[3]uint32{r, g, b}] = true
		}
	}
	r, g, b, _ := picture.At(bounds.Min.X+3, bounds.Min.Y+3).RGBA()
	return len(found), int((r + g + b) / 3 >> 8)
}
