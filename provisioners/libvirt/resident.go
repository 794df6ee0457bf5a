package libvirt

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Resident is the proportional set size of the node's emulator, in bytes. It is not known of a daemon on another host, of a
// node that does not run, and by a user who may not look at the process.
func (p *Provisioner) Resident(ctx context.Context, name string) (bytes int64, known bool, err error) {
	if p.remote() != nil {
		return 0, false, nil
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, false, err
	}
	for _, file := range processes {
		if ctx.Err() != nil {
			return 0, false, ctx.Err()
		}
		words, err := os.ReadFile(file)
		if err != nil || !emulates(words, name) {
			continue
		}
		if text, err := os.ReadFile(filepath.Join(filepath.Dir(file), "smaps_rollup")); err == nil {
			bytes, known = pss(string(text))
		}
		return bytes, known, nil
	}
	return 0, false, nil
}

// emulates says whether a command line is that of the emulator that libvirt has started for a domain.
func emulates(words []byte, name string) bool {
	list := bytes.Split(words, []byte{0})
	for i, w := range list[:len(list)-1] {
		guest, _, _ := bytes.Cut(list[i+1], []byte(","))
		if string(w) == "-name" && string(guest) == "guest="+name {
			return true
		}
	}
	return false
}

// pss is the line "Pss: 715000 kB" of smaps_rollup.
func pss(text string) (int64, bool) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kilobytes, err := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
			return kilobytes << 10, err == nil
		}
	}
	return 0, false
}
