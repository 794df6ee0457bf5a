package host

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/progress"
)

var update = flag.Bool("update", false, "write the golden files anew")

// machine is a sight on a recorded machine.
func machine(t *testing.T, name string) sight {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	root := fstest.MapFS{}
	for _, f := range archive.Files {
		root[f.Name] = &fstest.MapFile{Data: f.Data}
	}
	programs := map[string][]string{
		"reference": {"mmdebstrap", "iptables", "go"},
		"laptop":    {"iptables", "go", "dockerd"},
	}[name]
	engines := map[string]Engine{
		"reference": {State: EngineRunning, Address: "unix:///var/run/docker.sock", Version: "20.10.24+dfsg1", API: "1.41", Root: "/var/lib/docker", Storage: "overlay2"},
		"laptop":    {State: EngineDenied, Address: "unix:///var/run/docker.sock", Reason: "no permission for /var/run/docker.sock"},
		"bare":      {State: EngineMissing, Address: "unix:///var/run/docker.sock", Reason: "there is no dockerd, and nothing listens on /var/run/docker.sock"},
	}
	daemons := map[string]Libvirt{
		"reference": {State: EngineRunning, Address: "qemu:///system", Library: "/usr/lib/x86_64-linux-gnu/libvirt.so.0", QEMU: "/usr/bin/qemu-system-x86_64", SeesKVM: true},
		"laptop":    {State: EngineDenied, Address: "qemu:///system", Reason: "this user is not in the group libvirt", Library: "/usr/lib/x86_64-linux-gnu/libvirt.so.0", QEMU: "/usr/bin/qemu-system-x86_64"},
		"bare":      {State: EngineMissing, Address: "qemu:///system", Reason: "there is no libvirtd, and nothing listens on /var/run/libvirt/libvirt-sock"},
	}
	free := map[string]int64{"reference": 80 << 30, "laptop": 10 << 30, "bare": 3 << 30}[name]
	return sight{
		root: root,
		find: func(program string) (string, error) {
			if slices.Contains(programs, program) {
				return "/usr/bin/" + program, nil
			}
			return "", errors.New("not found")
		},
		disk: func(path string) (Disk, error) { return Disk{Path: path, Total: 250 << 30, Free: free}, nil },
		subnets: func() ([]Subnet, error) {
			return []Subnet{{netip.MustParsePrefix("127.0.0.0/8"), "lo"}, {netip.MustParsePrefix("192.0.2.0/24"), "eth0"}}, nil
		},
		kvm: func() KVM {
			if name == "laptop" {
				return KVM{Device: true, Usable: true}
			}
			return KVM{Device: true, Reason: "a guest runs far slower than the processor"}
		},
		engine:  func(context.Context, func(string) (string, error)) Engine { return engines[name] },
		libvirt: func(sight) Libvirt { return daemons[name] },
		uid:     map[string]int{"laptop": 1000}[name],
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; go test -update writes it anew. Got:\n%s", file, got)
	}
}

func TestRecordedMachinesAreSeenAsTheyAre(t *testing.T) {
	for _, name := range []string{"reference", "laptop", "bare"} {
		t.Run(name, func(t *testing.T) {
			facts := machine(t, name).look(t.Context(), "/home/u/.toastdev")
			facts.Architecture = "amd64" // the only thing that is asked of the machine that runs the test
			text, err := json.MarshalIndent(facts, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".facts.json", string(text)+"\n")
			var table strings.Builder
			for _, c := range Checks(facts) {
				fmt.Fprintf(&table, "%s: %s\n  found: %s\n  follows: %s\n", c.Name, c.State, c.Found, c.Follows)
				if c.Remedy != "" {
					fmt.Fprintf(&table, "  remedy: %s\n", c.Remedy)
				}
				if c.State != OK && c.Remedy == "" {
					t.Errorf("%s is %s and has no remedy", c.Name, c.State)
				}
			}
			golden(t, name+".checks.txt", table.String())
		})
	}
}

func TestTakenSubnetsLeaveOutDefaultRoutesAndWhatLiesWithin(t *testing.T) {
	var found []Subnet
	for _, s := range []string{"0.0.0.0/1 tun0", "128.0.0.0/1 tun0", "10.8.0.5/24 tun0", "10.8.0.0/24 tun0", "10.8.0.5/32 tun0", "10.8.0.0/16 eth0", "172.16.0.0/12 vpn", "172.17.0.0/16 docker0"} {
		prefix, through, _ := strings.Cut(s, " ")
		found = append(found, Subnet{netip.MustParsePrefix(prefix), through})
	}
	want := "[{10.8.0.0/16 eth0} {10.8.0.0/24 tun0} {172.16.0.0/12 vpn} {172.17.0.0/16 docker0}]"
	if got := fmt.Sprint(taken(found)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestThisMachineAnswersInTime(t *testing.T) {
	began := time.Now()
	facts := Look(t.Context(), t.TempDir())
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	if facts.CPUs < 1 || facts.Memory.Total == 0 || len(facts.Capabilities) == 0 && facts.Root || facts.Engine.State == "" || len(facts.Disks) == 0 {
		t.Errorf("something was not found: %+v", facts)
	}
	if !slices.ContainsFunc(facts.Subnets, func(s Subnet) bool { return s.Prefix.Contains(netip.MustParseAddr("127.0.0.1")) }) {
		t.Errorf("the loopback's subnet is not among %v", facts.Subnets)
	}
}

func TestRequireNamesWhatIsMissingAndItsRemedy(t *testing.T) {
	checks := Checks(machine(t, "laptop").look(t.Context(), "/home/u/.toastdev"))
	if err := Require(checks); fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), "no permission") || !strings.Contains(err.Error(), "usermod -aG docker") {
		t.Errorf("an engine that may not be spoken to: %v", err)
	}
	checks = Checks(machine(t, "reference").look(t.Context(), "/home/u/.toastdev"))
	if err := Require(checks); err != nil {
		t.Errorf("nothing is missing: %v", err)
	}
	checks = Checks(Facts{Architecture: "amd64", FUSE: Loaded, Engine: Engine{State: EngineRunning, API: "1.41"}, Capabilities: machine(t, "reference").look(t.Context(), "/").Capabilities})
	if err := Require(checks); err != nil {
		t.Errorf("memory is not asked for of what is up: %v", err)
	}
	if err := Require(checks, "memory", "mmdebstrap"); err == nil || !strings.Contains(err.Error(), "mmdebstrap") || !strings.Contains(err.Error(), "memory") {
		t.Errorf("both are missing: %v", err)
	}
}

func TestWhatLibvirtNeedsIsMissingOnlyWhereItIsWanted(t *testing.T) {
	for name, want := range map[string]struct {
		state  State
		remedy string
		mends  bool
	}{
		"reference": {Warn, "hide /dev/kvm", true},
		"laptop":    {Missing, "usermod -aG libvirt", false},
		"bare":      {Missing, "libvirt-daemon-system", true},
	} {
		facts := machine(t, name).look(t.Context(), "/home/u/.toastdev")
		is := func(checks []Check) Check {
			return checks[slices.IndexFunc(checks, func(c Check) bool { return c.Name == "libvirt" })]
		}
		if c := is(Checks(facts)); c.State != OK || c.Fix != nil || len(c.Packages) > 0 {
			t.Errorf("%s, not wanted: %+v", name, c)
		}
		c := is(Checks(facts, "docker", "libvirt"))
		if c.State != want.state || !strings.Contains(c.Remedy, want.remedy) || (c.Fix != nil) != want.mends {
			t.Errorf("%s, wanted: %+v", name, c)
		}
		if err := Require([]Check{c}); (err != nil) != (want.state == Missing) {
			t.Errorf("%s is required: %v", name, err)
		}
	}
	stopped := Facts{Libvirt: Libvirt{State: EngineStopped, Reason: "connection refused", Library: "/lib64/libvirt.so.0", QEMU: "/usr/bin/qemu-system-x86_64"}}
	if c := libvirtDaemon(stopped, true); c.State != Missing || c.Fix == nil || len(c.Packages) > 0 {
		t.Errorf("installed and stopped: %+v", c)
	}
	library := Facts{Libvirt: Libvirt{State: EngineRunning}}
	if c := libvirtDaemon(library, true); c.State != Missing || !strings.Contains(c.Found, "libvirt.so.0") || len(c.Packages) == 0 {
		t.Errorf("without its library: %+v", c)
	}
}

func TestFixRefusesWithoutRootAndSaysWhatItWouldDo(t *testing.T) {
	facts := machine(t, "bare").look(t.Context(), t.TempDir())
	packages, doings := Fixes(Checks(facts))
	if got := fmt.Sprint(packages, doings); got != "[docker.io iptables mmdebstrap debian-archive-keyring] [start the container engine set fs.inotify.max_user_instances to 512]" {
		t.Errorf("it would do %s", got)
	}
	if os.Geteuid() == 0 {
		t.Skip("as root it would do it")
	}
	if err := Fix(t.Context(), Checks(facts)); fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), "docker.io") {
		t.Errorf("got %v", err)
	}
}

func TestFixMendsWhatIsNotOKAndTellsOfIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("Fix wants root")
	}
	var did, told []string
	mend := func(name string) func(context.Context) error {
		return func(context.Context) error { did = append(did, name); return nil }
	}
	ctx := progress.With(t.Context(), progress.Func(func(e progress.Event) { told = append(told, e.Message) }))
	err := Fix(ctx, []Check{
		{Name: "a", State: OK, Doing: "mend a", Fix: mend("a")},
		{Name: "b", State: Warn, Doing: "mend b", Fix: mend("b")},
		{Name: "c", State: Missing, Remedy: "nothing to be done from here"},
	})
	if err != nil || fmt.Sprint(did) != "[b]" || told[0] != "mend b" {
		t.Errorf("did %v, told %v, error %v", did, told, err)
	}
}
