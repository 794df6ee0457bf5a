package patches

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// BenchmarkCheck tries 300 patches, each of two files, on a tree of 500,000 lines: a diff of our own each, or a commit each.
func BenchmarkCheck(b *testing.B) {
	const files, lines, count = 1000, 500, 300
	dir := b.TempDir()
	text := func(file int, changed map[int]bool) string {
		var s strings.Builder
		for i := range lines {
			if changed[i] {
				fmt.Fprintf(&s, "    value_%d_%d = 'patched'\n", file, i)
				continue
			}
			fmt.Fprintf(&s, "    value_%d_%d = compute(%d, argument=%d)\n", file, i, i, file)
		}
		return s.String()
	}
	name := func(file int) string { return fmt.Sprintf("neutron/p%d/m%d.py", file/50, file) }
	for f := range files {
		path := filepath.Join(dir, name(f))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text(f, nil)), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	tree, err := OpenDir("neutron", dir)
	if err != nil {
		b.Fatal(err)
	}
	var entries []Entry
	for p := range count {
		var diff strings.Builder
		for _, f := range []int{p * 3, p*3 + 1} {
			at := 20 + p
			fmt.Fprintf(&diff, "--- a/%s\n+++ b/%s\n@@ -%d,7 +%d,7 @@\n", name(f), name(f), at-2, at-2)
			for i := at - 3; i < at+4; i++ {
				line := fmt.Sprintf("    value_%d_%d = compute(%d, argument=%d)\n", f, i, i, f)
				if i == at {
					fmt.Fprintf(&diff, "-%s+    value_%d_%d = 'patched'\n", line, f, i)
					continue
				}
				diff.WriteString(" " + line)
			}
		}
		e := Entry{Component: "neutron", Name: fmt.Sprintf("p%d", p), File: fmt.Sprintf("p%d.patch", p)}
		if err := e.SetDiff([]byte(diff.String())); err != nil {
			b.Fatal(err)
		}
		entries = append(entries, e)
	}
	for b.Loop() {
		verdicts, changed, err := (&Checker{}).Check(b.Context(), tree, entries)
		if err != nil || len(changed) != 2*count {
			b.Fatal(err, len(changed), verdicts[0].Detail)
		}
	}
	var own runtime.MemStats
	runtime.ReadMemStats(&own)
	b.ReportMetric(float64(own.Sys)/(1<<20), "MiB-own")
	var children syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children); err == nil {
		b.ReportMetric(float64(children.Maxrss)/1024, "MiB-git")
	}
}
