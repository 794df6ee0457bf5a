package main

import (
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/internal/host"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestDoctorsTableReadsAsItShould(t *testing.T) {
	facts := host.Facts{
		OS: host.OS{ID: "debian", Name: "Debian GNU/Linux 13 (trixie)"}, Kernel: "6.12.0", Architecture: "amd64", Root: true, CPUs: 4,
		Memory:       host.Memory{Total: 16 << 30, Available: 7 << 30},
		Disks:        []host.Disk{{Path: "/root/.toastdev", Total: 100 << 30, Free: 60 << 30}},
		Cgroup:       2,
		Capabilities: []string{"SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "SYS_NICE", "MKNOD", "SYS_RESOURCE"},
		FUSE:         host.BuiltIn, VLAN: host.Loadable, Netem: host.Loaded,
		KVM:        host.KVM{Reason: "there is no /dev/kvm"},
		Engine:     host.Engine{State: host.EngineMissing, Address: "unix:///var/run/docker.sock", Reason: "there is no dockerd"},
		Subnets:    []host.Subnet{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Interface: "eth0"}},
		Inotify:    1024,
		Mmdebstrap: "/usr/bin/mmdebstrap", DebianKeys: true, IPTables: "/usr/sbin/iptables", Go: "/usr/local/go/bin/go",
	}
	var out strings.Builder
	printDiagnosis(&out, diagnosis{Checks: host.Checks(facts), Facts: facts})
	const file = "testdata/doctor.txt"
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("%s differs; go test -update writes it anew. Got:\n%s", file, out.String())
	}
}
