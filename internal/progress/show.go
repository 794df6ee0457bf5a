package progress

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	pretty "github.com/jedib0t/go-pretty/v6/progress"
	"github.com/jedib0t/go-pretty/v6/text"
)

// JSON writes each event as a line of JSON.
func JSON(w io.Writer) Sink {
	var mu sync.Mutex
	encoder := json.NewEncoder(w)
	return Func(func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		encoder.Encode(e) // a closed stderr is no reason to stop working
	})
}

// quiet is how long Plain waits between two lines about the same piece of work.
const quiet = 5 * time.Second

// Plain writes a line for what has begun, has ended or stands alone, and one every few seconds for what lies between.
func Plain(w io.Writer) Sink {
	var mu sync.Mutex
	type told struct {
		at   time.Time
		unit string
	}
	last := map[string]told{}
	return Func(func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		key := e.Phase + "/" + e.Node
		before := last[key]
		if !e.Done && (e.N > 0 || e.Unit != "" && e.Unit == before.unit) && e.Time.Sub(before.at) < quiet {
			return
		}
		last[key] = told{e.Time, e.Unit}
		fmt.Fprintln(w, line(e))
	})
}

// line is an event on one line: phase, node, step, what.
func line(e Event) string {
	parts := []string{fmt.Sprintf("%-8s", e.Phase)}
	if e.Node != "" {
		parts = append(parts, fmt.Sprintf("%-6s", e.Node))
	}
	return strings.Join(append(parts, step(e)), " ")
}

func step(e Event) string {
	var parts []string
	if e.N > 0 && !e.Done {
		parts = append(parts, fmt.Sprintf("%d of %d", e.I, e.N))
	}
	if e.Unit != "" {
		parts = append(parts, e.Unit)
	}
	if e.Message != "" {
		parts = append(parts, e.Message)
	}
	if len(parts) == 0 && e.Done {
		return "done"
	}
	return strings.Join(parts, " ")
}

// Terminal is a live view: a bar for each node's part of a phase, a line for a phase that has no nodes.
type Terminal struct {
	mu       sync.Mutex
	writer   pretty.Writer
	trackers map[string]*pretty.Tracker
}

// Live begins a live view on w, a terminal of so many columns. Close ends it.
func Live(w io.Writer, columns int) *Terminal {
	writer := pretty.NewWriter()
	writer.SetOutputWriter(w)
	writer.SetAutoStop(false)
	writer.SetTrackerLength(24)
	writer.SetMessageLength(max(30, min(columns-52, 76)))
	writer.SetUpdateFrequency(150 * time.Millisecond)
	writer.SetStyle(pretty.StyleBlocks)
	style := writer.Style()
	style.Colors = pretty.StyleColorsExample
	style.Colors.Message = text.Colors{}
	style.Options.PercentIndeterminate = "    "
	style.Visibility.ETA, style.Visibility.Speed, style.Visibility.TrackerOverall = false, false, false
	style.Visibility.Value = false
	go writer.Render()
	return &Terminal{writer: writer, trackers: map[string]*pretty.Tracker{}}
}

// Emit shows the event.
func (t *Terminal) Emit(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := e.Phase + "/" + e.Node
	tracker := t.trackers[key]
	if tracker == nil {
		tracker = &pretty.Tracker{Total: int64(e.N)}
		t.trackers[key] = tracker
		t.writer.AppendTracker(tracker)
	}
	tracker.UpdateMessage(text.Trim(line(e), 76))
	if e.N > 0 {
		tracker.UpdateTotal(int64(e.N))
		tracker.SetValue(int64(min(e.I, e.N)))
	}
	if e.Done {
		tracker.MarkAsDone()
		delete(t.trackers, key) // the next event of this name is a new piece of work
	}
}

// Close ends the view; what it shows stays on the screen.
func (t *Terminal) Close() {
	t.mu.Lock()
	for _, tracker := range t.trackers {
		tracker.MarkAsErrored()
	}
	t.mu.Unlock()
	for !t.writer.IsRenderInProgress() {
		time.Sleep(time.Millisecond) // a view that is closed as soon as it was begun: Stop before Render's start is lost
	}
	t.writer.Stop()
	for t.writer.IsRenderInProgress() {
		time.Sleep(time.Millisecond)
	}
}
