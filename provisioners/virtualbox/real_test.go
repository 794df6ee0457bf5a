package virtualbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/conformance"
	"github.com/toast-cloud/toastdev/provisioners/vm"
)

// imageBytes is the size of the image that the tests' nodes are made of. Nothing boots from it.
const imageBytes = 4 << 20

var owner = provisioners.Owner{Environment: "mini", Home: "0123abcd"}

// realOne is a provisioner of the real VirtualBox, with a configuration of its own, so that the user's machines are
// nothing to it. At the end VirtualBox must know of nothing any more.
func realOne(t *testing.T) *Provisioner {
	t.Helper()
	program := os.Getenv("TOASTDEV_TEST_VBOXMANAGE")
	if program == "" {
		t.Skip("no VirtualBox to test with: TOASTDEV_TEST_VBOXMANAGE names no VBoxManage")
	}
	dir := real(t.TempDir())
	configuration := filepath.Join(dir, "configuration")
	socket := fmt.Sprintf("toastdev-test-%d", time.Now().UnixNano())
	t.Setenv("VBOX_USER_HOME", configuration)
	t.Setenv("VBOX_IPC_SOCKETID", socket)
	t.Cleanup(func() {
		// VBoxSVC would go by itself, some seconds after its last client, and writes its log until then.
		deadline := time.Now().Add(30 * time.Second)
		for _, process := range with("VBOX_IPC_SOCKETID=" + socket) {
			_ = process.Signal(syscall.SIGTERM)
		}
		for len(with("VBOX_IPC_SOCKETID="+socket)) > 0 && time.Now().Before(deadline) {
			time.Sleep(50 * time.Millisecond)
		}
		if left := with("VBOX_IPC_SOCKETID=" + socket); len(left) > 0 {
			t.Errorf("still running: %v", left)
		}
		_ = os.RemoveAll("/tmp/.vbox-" + socket + "-ipc")
	})
	key := conformance.Key(t)
	p := New(Options{
		Program: program, Images: filepath.Join(dir, "images"), Folder: filepath.Join(dir, "virtualbox"),
		Key: func(environment string) (vm.Key, error) {
			if environment != owner.Environment {
				return vm.Key{}, fmt.Errorf("asked for the key of %q", environment)
			}
			return key, nil
		},
	})
	p.boot = func(context.Context, *vm.Machine, func() string) error { return nil } // nothing boots from an empty image
	if _, err := p.version(t.Context()); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(p.images, "vm-test")
	if err := os.MkdirAll(image, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := p.feed(t.Context(), make([]byte, imageBytes), "convertfromraw", "stdin", filepath.Join(image, "disk.vdi"), fmt.Sprint(imageBytes), "--format", "VDI"); err != nil {
		t.Fatal(err)
	}
	before := imageDisk(t, p)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		things, err := p.Owned(ctx, owner)
		if err != nil {
			t.Error(err)
		}
		for _, thing := range things {
			if err := provisioners.Delete(ctx, p, owner, thing); err != nil {
				t.Error(err)
			}
		}
		if left := known(t, p); len(left) != 0 {
			t.Errorf("at the end VirtualBox has %v", left)
		}
		if left := files(t, p.folder); !slices.Equal(left, []string{"lock"}) {
			t.Errorf("files at the end: %v", left)
		}
		if !bytes.Equal(imageDisk(t, p), before) {
			t.Error("the image's disk is another")
		}
	})
	return p
}

// known is all that VirtualBox has been told of.
func known(t testing.TB, p *Provisioner) []string {
	t.Helper()
	var list []string
	for _, args := range [][]string{{"list", "vms"}, {"list", "hdds"}, {"list", "natnets"}, {"list", "runningvms"}, {"getextradata", "global", "enumerate"}} {
		out, err := p.run(context.WithoutCancel(t.Context()), args...)
		if err != nil {
			t.Error(err)
		}
		list = append(list, strings.Fields(out)...)
	}
	return list
}

// with is the processes that have that in their environment, but for this one.
func with(variable string) []*os.Process {
	var list []*os.Process
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range environments {
		id, _ := strconv.Atoi(strings.Split(file, "/")[2])
		if data, err := os.ReadFile(file); err != nil || id == os.Getpid() || !strings.Contains(string(data), variable) {
			continue
		}
		if process, err := os.FindProcess(id); err == nil {
			list = append(list, process)
		}
	}
	return list
}

func imageDisk(t *testing.T, p *Provisioner) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.images, "vm-test", "disk.vdi"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(dir, path)
			list = append(list, name)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return list
}

func network(name string, internal bool) provisioners.Network {
	n := provisioners.Network{
		Owner: owner, Name: "mini-kr1-" + name, Subnet: netip.MustParsePrefix("172.30.9.0/24"), Gateway: netip.MustParseAddr("172.30.9.1"),
		MTU: 1500, Internal: internal,
	}
	if !internal {
		n.Public = []netip.AddrPort{netip.MustParseAddrPort("172.30.9.5:5000"), netip.MustParseAddrPort("172.30.9.5:80")}
	}
	return n
}

func theNode(number int) provisioners.Node {
	name := fmt.Sprintf("cmp%d", number)
	return provisioners.Node{
		Owner: owner, Name: "mini-kr1-" + name, Hostname: name, Image: "vm-test", Identity: "hostname " + name + "\nhost 172.30.9.31 cmp1\n",
		CPUs: 2, Memory: 1 << 30, Disk: 8 << 20,
		NICs: []provisioners.NIC{
			{Network: "mini-kr1-management", Address: netip.AddrFrom4([4]byte{172, 30, 9, byte(30 + number)}), MAC: fmt.Sprintf("02:42:ac:1e:09:%02x", 30+number), Bridge: "td-absent", MTU: 1500},
			{Network: "mini-kr1-tunnel", Address: netip.AddrFrom4([4]byte{172, 30, 10, byte(30 + number)}), MAC: fmt.Sprintf("02:42:ac:1e:0a:%02x", 30+number), Bridge: "td-absent", MTU: 1600},
		},
	}
}

func makeNetworks(t *testing.T, p *Provisioner) {
	t.Helper()
	for _, n := range []provisioners.Network{network("management", false), network("tunnel", true)} {
		if err := p.CreateNetwork(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
}

// create makes a node. Where the kernel has no driver the machine must be whole all the same, and the fault say what is missing.
func create(t *testing.T, p *Provisioner, n provisioners.Node) {
	t.Helper()
	err := p.CreateNode(t.Context(), n)
	if p.hasDriver() {
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(t.Context(), n.Name); err != nil {
			t.Fatal(err)
		}
	} else if fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), "kernel driver is not loaded") || !strings.Contains(err.Error(), "modprobe vboxdrv") {
		t.Fatalf("start without a driver: %v", err)
	}
	if state, err := p.State(t.Context(), n.Name); state != provisioners.Stopped || err != nil {
		t.Fatalf("state %s, %v", state, err)
	}
}

func diskID(t *testing.T, p *Provisioner, name string) string {
	t.Helper()
	_, i, err := p.there(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return i["ide-ImageUUID-0-0"]
}

// TestTheRealVirtualBoxKeepsTheContract boots machines of the image TOASTDEV_TEST_VM_VDI where the kernel has the driver.
func TestTheRealVirtualBoxKeepsTheContract(t *testing.T) {
	p := realOne(t)
	suite := conformance.Suite{
		Provisioner: p, Owner: owner, Image: "vm-test", System: true, Machine: true, Still: !p.hasDriver(),
		Left: func(t testing.TB) string { return strings.Join(known(t, p), "\n") },
	}
	if !suite.Still {
		disk := os.Getenv("TOASTDEV_TEST_VM_VDI")
		if disk == "" {
			t.Skip("no image to boot: TOASTDEV_TEST_VM_VDI names no disk")
		}
		suite.Image = "vm-booting"
		if err := os.MkdirAll(filepath.Join(p.images, suite.Image), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(disk, filepath.Join(p.images, suite.Image, "disk.vdi")); err != nil {
			t.Fatal(err)
		}
		p.boot = func(ctx context.Context, m *vm.Machine, console func() string) error {
			return vm.WaitBooted(ctx, m, console)
		}
	}
	conformance.Run(t, suite)
}

func TestARealMachineIsMadeAsAskedForAdoptedChangedAndMadeAnew(t *testing.T) {
	p := realOne(t)
	makeNetworks(t, p)
	n := theNode(1)
	create(t, p, n)
	_, i, err := p.there(t.Context(), n.Name)
	if err != nil {
		t.Fatal(err)
	}
	folder := p.nodeFolder(n.Name)
	for key, want := range map[string]string{
		"name": n.Name, "UUID": machineID(owner, n.Name), "cpus": "2", "memory": "1024", "boot1": "disk", "rtcuseutc": "on", "firmware": "BIOS",
		"nic1": "natnetwork", "nat-network1": "mini-kr1-management", "macaddress1": "0242AC1E091F", "nictype1": "virtio", "cableconnected1": "on",
		"nic2": "intnet", "intnet2": "mini-kr1-tunnel", "macaddress2": "0242AC1E0A1F", "nictype2": "virtio", "nic3": "none",
		"uart1": "0x03f8,4", "uartmode1": "file," + folder + "/console.log",
		"ide-0-0": folder + "/disk.vdi", "ide-0-1": folder + "/seed.vdi", "ide-1-0": "none", "storagecontrollertype0": "PIIX4",
	} {
		if i[key] != want {
			t.Errorf("%s is %q, want %q", key, i[key], want)
		}
	}
	if out, err := p.run(t.Context(), "showmediuminfo", "disk", folder+"/disk.vdi"); err != nil || !strings.Contains(out, "8 MBytes") || !strings.Contains(out, "Auto-Reset:     off") {
		t.Errorf("disk: %s, %v", out, err)
	}
	labels, err := p.extra(t.Context(), i["UUID"])
	if err != nil || labels[keyEnvironment] != "mini" || labels[keyHome] != "0123abcd" || labels[keyNode] != "cmp1" || labels[keyAddress] != "172.30.9.31" {
		t.Errorf("labels %v, %v", labels, err)
	}

	made := diskID(t, p, n.Name)
	create(t, p, n)
	n.Memory, n.CPUs, n.Identity = 2<<30, 1, n.Identity+"host 172.30.9.32 cmp2\n"
	create(t, p, n)
	if _, i, err := p.there(t.Context(), n.Name); err != nil || i["memory"] != "2048" || i["cpus"] != "1" || diskID(t, p, n.Name) != made {
		t.Errorf("limits in place: memory %s, cpus %s, disk %s and before %s, %v", i["memory"], i["cpus"], diskID(t, p, n.Name), made, err)
	}
	n.Identity = "hostname other\n"
	create(t, p, n)
	if diskID(t, p, n.Name) == made {
		t.Error("a node of another identity was not made anew")
	}
	if things, err := p.Owned(t.Context(), owner); err != nil || fmt.Sprint(things) != "[node/mini-kr1-cmp1 network/mini-kr1-management network/mini-kr1-tunnel]" {
		t.Errorf("owned: %v, %v", things, err)
	}
}

func TestRealMachinesShareTheImagesDiskUntilTheLastIsGone(t *testing.T) {
	p := realOne(t)
	makeNetworks(t, p)
	failed := make(chan error)
	for number := range 3 {
		go func() { failed <- p.CreateNode(t.Context(), theNode(number+1)) }()
	}
	for range 3 {
		if err := <-failed; err != nil && fault.CodeOf(err) != fault.Missing {
			t.Error(err)
		}
	}
	media, err := p.media(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	base := slices.IndexFunc(media, func(m medium) bool { return m.file == filepath.Join(p.basesFolder(), "vm-test-8.vdi") })
	if base < 0 || media[base].kind != immutable {
		t.Fatalf("media: %+v", media)
	}
	linked := 0
	for _, m := range media {
		if m.parent == media[base].id {
			linked++
		}
	}
	if linked != 3 {
		t.Errorf("%d disks are linked to the image's: %+v", linked, media)
	}
	// All of a disk that is larger than the image's can be read.
	flat := filepath.Join(p.folder, "flat.vdi")
	for _, args := range [][]string{{"clonemedium", "disk", p.nodeFolder(theNode(1).Name) + "/disk.vdi", flat}, {"closemedium", "disk", flat, "--delete"}} {
		if _, err := p.run(t.Context(), args...); err != nil {
			t.Error(err)
		}
	}
	own := theNode(4) // linked to the image's disk itself
	own.Disk = 0
	create(t, p, own)
	if disk, err := p.find(t.Context(), p.nodeFolder(own.Name)+"/disk.vdi"); err != nil || disk.size != imageBytes || disk.parent == media[base].id {
		t.Errorf("a disk of no given size: %+v, %v", disk, err)
	}
	for number := range 4 {
		if err := p.DeleteNode(t.Context(), owner, theNode(number+1).Name); err != nil {
			t.Error(err)
		}
	}
	if media, err := p.media(t.Context()); err != nil || len(media) != 0 {
		t.Errorf("media: %+v, %v", media, err)
	}
}

func TestAKillAnywhereInTheMakingOfARealMachineIsMadeGood(t *testing.T) {
	p := realOne(t)
	makeNetworks(t, p)
	n := theNode(1)
	exec := p.exec
	killed := errors.New("killed")
	for last := 1; ; last += 7 {
		calls := 0
		p.exec = func(ctx context.Context, stdin []byte, args []string) (string, error) {
			if calls++; calls > last {
				return "", killed
			}
			return exec(ctx, stdin, args)
		}
		err := p.CreateNode(t.Context(), n)
		p.exec = exec
		if !errors.Is(err, killed) {
			break
		}
		create(t, p, n)
		if last%2 == 0 { // half the time begin with nothing, half the time with a machine that is there
			if err := p.DeleteNode(t.Context(), owner, n.Name); err != nil {
				t.Fatal(err)
			}
		} else {
			n.Identity += fmt.Sprintf("route default 172.30.9.%d\n", last)
		}
	}
}

func TestRealLeftoversThatAreNoMachineAreSwept(t *testing.T) {
	p := realOne(t)
	makeNetworks(t, p)
	n := theNode(1)
	create(t, p, n)
	// What a kill between the making of a machine and its being registered leaves, and a disk that VirtualBox still knows.
	if _, err := p.run(t.Context(), "unregistervm", machineID(owner, n.Name)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.run(t.Context(), "modifymedium", "disk", p.nodeFolder(n.Name)+"/seed.vdi", "--type", "writethrough"); err != nil {
		t.Fatal(err)
	}
	create(t, p, n)
	// A machine whose file is gone has no name any more.
	if err := os.RemoveAll(p.nodeFolder(n.Name)); err != nil {
		t.Fatal(err)
	}
	if err := p.DeleteNode(t.Context(), owner, n.Name); err != nil {
		t.Fatal(err)
	}
}

func TestAnothersRealThingsAreRefusedAndLeftAlone(t *testing.T) {
	p := realOne(t)
	makeNetworks(t, p)
	n := theNode(1)
	create(t, p, n)
	v := provisioners.Volume{Owner: owner, Name: "mini-kr1-nas", Size: 4 << 20}
	if err := p.CreateVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	other := provisioners.Owner{Environment: "other", Home: owner.Home}
	things, err := p.Owned(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	for _, thing := range things {
		if err := provisioners.Delete(t.Context(), p, other, thing); err != nil {
			t.Error(err)
		}
		if there, err := p.Exists(t.Context(), owner, thing.Kind, thing.Name); !there || err != nil {
			t.Errorf("%s after another deleted it: %v, %v", thing, there, err)
		}
		if there, err := p.Exists(t.Context(), other, thing.Kind, thing.Name); there || err != nil {
			t.Errorf("%s for another: %v, %v", thing, there, err)
		}
	}
	w, foreign := network("management", false), n
	w.Owner, v.Owner, foreign.Owner, foreign.NICs = other, other, other, nil
	for kind, err := range map[string]error{"network": p.CreateNetwork(t.Context(), w), "volume": p.CreateVolume(t.Context(), v), "node": p.CreateNode(t.Context(), foreign)} {
		if fault.CodeOf(err) != fault.Busy || !strings.Contains(err.Error(), `environment "mini"`) {
			t.Errorf("%s of another: %v", kind, err)
		}
	}
}

func TestARealVolumeOutlivesItsNodeAndTheSnapshotsOfIt(t *testing.T) {
	p := realOne(t)
	makeNetworks(t, p)
	v := provisioners.Volume{Owner: owner, Name: "mini-kr1-nas", Size: 4 << 20}
	for range 2 {
		if err := p.CreateVolume(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	n := theNode(1)
	n.Mounts = []provisioners.Mount{{Volume: v.Name, Path: "/srv/nas"}}
	create(t, p, n)
	file := p.volumeFile(v.Name)
	_, i, err := p.there(t.Context(), n.Name)
	if err != nil || i["ide-1-0"] != file {
		t.Fatalf("volume at %q, %v", i["ide-1-0"], err)
	}
	id := i["ide-ImageUUID-1-0"]

	for _, name := range []string{"one", "two"} {
		if err := p.Snapshot(t.Context(), n.Name, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Restore(t.Context(), n.Name, "one"); err != nil {
		t.Fatal(err)
	}
	if err := p.Snapshot(t.Context(), n.Name, "three"); err != nil {
		t.Fatal(err)
	}
	if names, err := p.Snapshots(t.Context(), n.Name); err != nil || !slices.Equal(names, []string{"one", "three", "two"}) {
		t.Errorf("snapshots %v, %v", names, err)
	}
	if err := p.DeleteSnapshot(t.Context(), n.Name, "two"); err != nil {
		t.Error(err)
	}
	n.Identity = "hostname other\n" // made anew, with its snapshots
	create(t, p, n)
	if _, i, err := p.there(t.Context(), n.Name); err != nil || i["ide-1-0"] != file || i["ide-ImageUUID-1-0"] != id {
		t.Errorf("volume at %q, %s and before %s, %v", i["ide-1-0"], i["ide-ImageUUID-1-0"], id, err)
	}
	if err := p.DeleteNode(t.Context(), owner, n.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	v.Size = 16 << 20
	if err := p.CreateVolume(t.Context(), v); err != nil {
		t.Error(err)
	}
	if out, err := p.run(t.Context(), "showmediuminfo", "disk", file); err != nil || !strings.Contains(out, "16 MBytes") || !strings.Contains(out, id) {
		t.Errorf("a larger volume: %s, %v", out, err)
	}
}

func TestPortsOfTheHostLeadIntoRealNetworks(t *testing.T) {
	p := realOne(t)
	makeNetworks(t, p)
	makeNetworks(t, p)
	n := theNode(1)
	create(t, p, n)
	forwards := func() map[string]provisioners.Forward {
		t.Helper()
		list, err := p.Forwards(t.Context(), owner)
		if err != nil {
			t.Fatal(err)
		}
		named := map[string]provisioners.Forward{}
		for _, f := range list {
			named[f.Name] = f
		}
		return named
	}
	before := forwards()
	ssh := before["ssh-mini-kr1-cmp1"]
	if len(before) != 3 || ssh.To != netip.MustParseAddrPort("172.30.9.31:22") || ssh.Host.Addr() != loopback || ssh.Host.Port() < firstOpenPort {
		t.Errorf("forwards %+v", before)
	}
	if f := before["public-172.30.9.5-80"]; f.To.Port() != 80 || f.Host.Port() < firstOpenPort {
		t.Errorf("port 80: %+v", f)
	}
	m, i, err := p.there(t.Context(), n.Name)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := p.sshAddress(t.Context(), m, i); err != nil || a != ssh.Host {
		t.Errorf("ssh at %s, %v", a, err)
	}
	create(t, p, n)
	if after := forwards(); !maps.Equal(after, before) {
		t.Errorf("forwards %+v, before %+v", after, before)
	}
	if err := p.DeleteNode(t.Context(), owner, n.Name); err != nil {
		t.Fatal(err)
	}
	if left := forwards(); len(left) != 2 {
		t.Errorf("forwards without the node %+v", left)
	}
	// A network that lost its rules, or that somebody removed, is made again.
	if _, err := p.run(t.Context(), "natnetwork", "remove", "--netname", "mini-kr1-management"); err != nil {
		t.Fatal(err)
	}
	makeNetworks(t, p)
	if left := forwards(); len(left) != 2 {
		t.Errorf("forwards of the network made again %+v", left)
	}
}

func TestTheCableOfARealMachineThatIsOffIsPulled(t *testing.T) {
	p := realOne(t)
	makeNetworks(t, p)
	n := theNode(1)
	create(t, p, n)
	for _, step := range []struct {
		do   func(context.Context, string, provisioners.NIC) error
		want string
	}{{p.Unplug, "off"}, {p.Unplug, "off"}, {p.Plug, "on"}, {p.Plug, "on"}} {
		if err := step.do(t.Context(), n.Name, n.NICs[1]); err != nil {
			t.Fatal(err)
		}
		if _, i, err := p.there(t.Context(), n.Name); err != nil || i["cableconnected2"] != step.want || i["cableconnected1"] != "on" {
			t.Errorf("cables %s and %s, want %s, %v", i["cableconnected1"], i["cableconnected2"], step.want, err)
		}
	}
	if err := p.Unplug(t.Context(), n.Name, provisioners.NIC{MAC: "02:00:00:00:00:01"}); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("no such NIC: %v", err)
	}
	for what, err := range map[string]error{"kill": p.Kill(t.Context(), n.Name), "stop": p.Stop(t.Context(), n.Name)} {
		if err != nil {
			t.Errorf("%s of a machine that is off: %v", what, err)
		}
	}
}

func TestARealMachineIsPluggedIntoABridgeOfTheHost(t *testing.T) {
	p := realOne(t)
	p.bridge = func(name string) bool { return strings.HasPrefix(name, "td-") }
	n := theNode(1)
	create(t, p, n)
	m, i, err := p.there(t.Context(), n.Name)
	if err != nil || i["nic1"] != bridged || i["bridgeadapter1"] != "td-absent" || i["nic2"] != bridged {
		t.Errorf("NICs %s at %s, %s, %v", i["nic1"], i["bridgeadapter1"], i["nic2"], err)
	}
	if a, err := p.sshAddress(t.Context(), m, i); err != nil || a != netip.MustParseAddrPort("172.30.9.31:22") {
		t.Errorf("ssh at %s, %v", a, err)
	}
}

func TestWhatARealMachineLacksIsAFaultAndLeavesNothing(t *testing.T) {
	p := realOne(t)
	n := theNode(1)
	if err := p.CreateNode(t.Context(), n); fault.CodeOf(err) != fault.NotFound || !strings.Contains(err.Error(), `"mini-kr1-management"`) {
		t.Errorf("no network: %v", err)
	}
	makeNetworks(t, p)
	n.Image = "vm-absent"
	if err := p.CreateNode(t.Context(), n); fault.CodeOf(err) != fault.NotFound || !strings.Contains(err.Error(), "image build --for virtualbox") {
		t.Errorf("no image: %v", err)
	}
	n.Image, n.Disk = "vm-test", 2<<20
	if err := p.CreateNode(t.Context(), n); fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), "let it have 4 MiB or more") {
		t.Errorf("a disk smaller than the image's: %v", err)
	}
	if state, err := p.State(t.Context(), "mini-kr1-absent"); state != provisioners.Absent || err != nil {
		t.Errorf("state %s, %v", state, err)
	}
	if err := p.Start(t.Context(), "mini-kr1-absent"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("start: %v", err)
	}
}
