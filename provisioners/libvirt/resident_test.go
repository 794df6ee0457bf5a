package libvirt

import "testing"

func TestTheEmulatorOfADomainIsKnownByItsCommandLine(t *testing.T) {
	line := []byte("/usr/bin/qemu-system-x86_64\x00-name\x00guest=mixed-kr1-cmp2,debug-threads=on\x00-S\x00")
	if !emulates(line, "mixed-kr1-cmp2") || emulates(line, "mixed-kr1-cmp") || emulates([]byte("qemu\x00-name\x00"), "x") || emulates(nil, "x") {
		t.Error("another's, or none")
	}
	if got, ok := pss("55d0-7ffc ---p 00000000 00:00 0  [rollup]\nRss:  800000 kB\nPss:  715000 kB\nPss_Dirty: 3 kB\n"); !ok || got != 715000<<10 {
		t.Errorf("%d, %t", got, ok)
	}
	if _, ok := pss("Rss: 1 kB\n"); ok {
		t.Error("there is none")
	}
}
