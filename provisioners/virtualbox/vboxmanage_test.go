package virtualbox

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// recorded is what the real program of that version said.
func recorded(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestARecordedMachineIsReadWhole(t *testing.T) {
	i, err := parseInfo(recorded(t, "showvminfo-7.2.22"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"name": "mini-kr1-cmp1", "VMState": "poweroff", "memory": "1024", "cpus": "2", "nic1": "natnetwork", "macaddress2": "0242AC1E0A1F",
		"ide-1-1": "none", "uartmode1": "file,/home/user/.toastdev/virtualbox/nodes/mini-kr1-cmp1/console.log",
	} {
		if i[key] != want {
			t.Errorf("%s is %q, want %q", key, i[key], want)
		}
	}
	if list := i.snapshots(); len(list) != 1 || list[0].name != "before" || len(list[0].id) != 36 {
		t.Errorf("snapshots %+v", list)
	}
	i, err = parseInfo(recorded(t, "showvminfo-description-7.2.22"))
	if err != nil || i["name"] != "mini-kr1-cmp2" || strings.Count(i["description"], "\n") != 2 || i["GuestMemoryBalloon"] != "0" {
		t.Errorf("a description on three lines: %q, %v", i["description"], err)
	}
}

func TestRecordedListsAreRead(t *testing.T) {
	v, err := parseVersion(recorded(t, "version-7.2.22"))
	if err != nil || v != (version{7, 2}) {
		t.Errorf("version %v, %v", v, err)
	}
	machines, err := parseMachines(recorded(t, "list-vms-7.2.22"))
	if err != nil || len(machines) != 2 || machines[1] != (machine{name: "mini-kr1-cmp2", id: "7efdec57-23fe-5efd-9718-9ffb09218d21"}) {
		t.Errorf("machines %+v, %v", machines, err)
	}
	media, err := parseMedia(recorded(t, "list-hdds-7.2.22"))
	if err != nil || len(media) != 9 {
		t.Fatalf("media %+v, %v", media, err)
	}
	if m := media[3]; m.parent != media[2].id || media[2].kind != immutable || media[2].parent != "base" || !strings.HasSuffix(m.file, "/mini-kr1-cmp1/disk.vdi") || m.state != "created" {
		t.Errorf("medium %+v of %+v", m, media[2])
	}
	networks, err := parseNATNetworks(recorded(t, "list-natnets-7.2.22"))
	if err != nil || len(networks) != 1 || networks[0].network != "172.30.9.0/24" || len(networks[0].forwards) != 4 {
		t.Fatalf("networks %+v, %v", networks, err)
	}
	want := forward{"ssh-mini-kr1-cmp1", netip.MustParseAddrPort("127.0.0.1:36889"), netip.MustParseAddrPort("172.30.9.31:22")}
	if f, ok := sshForward(networks, "mini-kr1-cmp1"); !ok || f != want || f.String() != "ssh-mini-kr1-cmp1:tcp:[127.0.0.1]:36889:[172.30.9.31]:22" {
		t.Errorf("forward %+v", f)
	}
	values, err := parseExtra(recorded(t, "getextradata-7.2.22"))
	if err != nil || values[keyNode] != "cmp1" || len(values) != 6 {
		t.Errorf("extra data %v, %v", values, err)
	}
}

// Of these no recordings were to be had; the words are from VirtualBox's source, or published by users of it.
func TestWhatOtherVersionsSayOtherwiseIsReadToo(t *testing.T) {
	networks, err := parseNATNetworks("NetworkName:    mini\nIP:             10.0.2.1\nNetwork:        10.0.2.0/24\nIPv6 Enabled:   No\n" +
		"IPv6 Prefix:    fd17:625c:f037:2::/64\nDHCP Enabled:   Yes\nEnabled:        Yes\nPort-forwarding (ipv4)\n        Rule 1:tcp:[]:2222:[10.0.2.7]:22\n" +
		"loopback mappings (ipv4)\n        127.0.0.1=2\n\n")
	if err != nil || len(networks) != 1 || networks[0].name != "mini" || networks[0].forwards[0].host.Port() != 2222 {
		t.Errorf("6.1's NAT networks: %+v, %v", networks, err)
	}
	i, err := parseInfo("name=\"a\"\nEncryption:     disabled\nUUID=\"u\"\nBIOS NVRAM File=\"/a b.nvram\"\nVMState=\"running\"\nVideoMode=\"720,400,0\"@0,0 1\n" +
		" rec_screen0\nvrdeport=-1\nGuestAdditionsFacility_VirtualBox Base Driver=50,1458910695598\n")
	if err != nil || i["VideoMode"] != "720,400,0" || i["BIOS NVRAM File"] != "/a b.nvram" {
		t.Errorf("7.0's machine that runs: %v, %v", i, err)
	}
	for out, want := range map[string]version{
		"6.1.50r161033\n": {6, 1}, "7.0.10r158379\n": {7, 0}, "7.1.0_BETA1r163425\n": {7, 1},
		"WARNING: The vboxdrv kernel module is not loaded.\n7.2.0r170228\n": {7, 2},
	} {
		if v, err := parseVersion(out); err != nil || v != want {
			t.Errorf("%q: %v, %v", out, v, err)
		}
	}
}

func TestALineThatIsNotUnderstoodIsNamed(t *testing.T) {
	good := recorded(t, "showvminfo-7.2.22")
	for name, err := range map[string]error{
		"a word":               second(parseInfo(good + "what is this\n")),
		"no closing quote":     second(parseInfo(good + "tail=\"open\n")),
		"words after a quote":  second(parseInfo(strings.Replace(good, `cpus=2`, `cpus=2"`, 1))),
		"twice":                second(parseInfo(good + "memory=3\n")),
		"nothing":              second(parseInfo("")),
		"a machine":            second(parseMachines("\"a\" {82f338ed}\n")),
		"a disk":               second(parseMedia("UUID:    a\nColour:   red\n")),
		"a disk with no UUID":  second(parseMedia("State:   created\n")),
		"a network":            second(parseNATNetworks("Name:   a\nColour:   red\n")),
		"a rule":               second(parseNATNetworks("Name:   a\nPort-forwarding (ipv4)\n        a:tcp:[x]:1:[y]:2\n")),
		"a rule of no network": second(parseNATNetworks("        a:tcp:[]:1:[10.0.0.1]:2\n")),
		"extra data":           second(parseExtra("Value: x\n")),
		"a version":            second(parseVersion("seven\n")),
		"no version":           second(parseVersion("")),
	} {
		if fault.CodeOf(err) != fault.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := second(parseInfo(good + "what is this\n")); !strings.Contains(err.Error(), `"what is this"`) || !strings.Contains(err.Error(), "line ") {
		t.Errorf("the line is not named: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestAFailureIsInVirtualBoxsWordsWithoutItsSource(t *testing.T) {
	err := &failure{args: []string{"startvm", "mini-kr1-cmp1", "--type", "headless"}, stderr: recorded(t, "startvm-7.2.22"), code: 1}
	if got, want := err.Error(), "VBoxManage startvm mini-kr1-cmp1: exit code 1: The virtual machine 'mini-kr1-cmp1' has terminated unexpectedly during startup with exit code 1 (0x1)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhyAMachineDoesNotStartIsSaidWithWhatToDo(t *testing.T) {
	for _, test := range []struct {
		stderr string
		driver bool
		code   fault.Code
		remedy string
	}{
		{recorded(t, "startvm-7.2.22"), false, fault.Missing, "modprobe vboxdrv"},
		{"error: The VirtualBox kernel driver is not loaded (VERR_VM_DRIVER_NOT_INSTALLED)", true, fault.Missing, "vboxconfig"},
		{"error: Kernel driver not installed (rc=-1908)", true, fault.Missing, "virtualbox-dkms"},
		{"error: (VERR_VM_DRIVER_VERSION_MISMATCH)", true, fault.Missing, "build it anew"},
		{"error: (VERR_VM_DRIVER_NOT_ACCESSIBLE)", true, fault.Missing, "vboxusers"},
		{"error: VT-x is being used by another hypervisor (VERR_VMX_IN_VMX_ROOT_MODE)", true, fault.Busy, "modprobe -r kvm_intel"},
		{"error: AMD-V is disabled in the BIOS (VERR_SVM_DISABLED)", true, fault.Missing, "firmware"},
		{"error: Failed to open/create the internal network (VERR_INTNET_FLT_IF_NOT_FOUND)", true, fault.Missing, "vboxnetflt"},
		{"error: something else", true, fault.Failed, ""},
	} {
		p := &Provisioner{hasDriver: func() bool { return test.driver }}
		err := p.startFault("mini-kr1-cmp1", &failure{args: []string{"startvm", "x"}, stderr: "VBoxManage: " + test.stderr, code: 1})
		if fault.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.remedy) || !strings.Contains(err.Error(), "mini-kr1-cmp1") {
			t.Errorf("%s: %v", test.stderr, err)
		}
	}
}
