package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/conformance"
	"github.com/toast-cloud/toastdev/provisioners/vm"
)

// pretence is a VirtualBox in memory that understands what a node needs, notes every command, and can be cut off.
type pretence struct {
	t        *testing.T
	machines map[string]map[string]string // by UUID: what showvminfo says
	extra    map[string]map[string]string // by UUID, or global
	media    map[string]string            // by file: its parent's file, or "base"
	kinds    map[string]string            // by file
	forwards map[string]string            // by network: lines of rules
	log      []string                     // each command's first words
	left     int                          // commands until it is cut off; below 0: never
	locked   int                          // commands that find their machine locked
}

var errCut = errors.New("cut off")

func (v *pretence) exec(_ context.Context, stdin []byte, args []string) (string, error) {
	if v.left == 0 {
		return "", errCut
	}
	v.left--
	v.log = append(v.log, strings.Join(args[:min(2, len(args))], " "))
	fail := func(words string) (string, error) {
		return "", &failure{args: args, stderr: "VBoxManage: error: " + words + "\n", code: 1}
	}
	option := func(name string) string {
		if at := slices.Index(args, name); at >= 0 && at+1 < len(args) {
			return args[at+1]
		}
		return ""
	}
	m := v.machines[args[min(1, len(args)-1)]]
	switch verb := args[0]; verb {
	case "--version":
		return "7.2.22r1\n", nil
	case "list":
		return v.list(args[len(args)-1]), nil
	case "createvm":
		id, folder := option("--uuid"), filepath.Join(option("--basefolder"), option("--name"))
		if err := os.Mkdir(folder, 0o700); err != nil {
			return fail("Machine settings file already exists")
		}
		v.machines[id] = map[string]string{"name": option("--name"), "UUID": id, "VMState": "poweroff"}
		v.extra[id] = map[string]string{}
	case "setextradata":
		values := v.extra[args[1]]
		if values == nil {
			return fail("Could not find a registered machine named '" + args[1] + "'")
		}
		delete(values, args[2])
		if len(args) == 4 {
			values[args[2]] = args[3]
		}
	case "getextradata":
		var b strings.Builder
		for _, key := range slices.Sorted(maps.Keys(v.extra[args[1]])) {
			fmt.Fprintf(&b, "Key: %s, Value: %s\n", key, v.extra[args[1]][key])
		}
		return b.String(), nil
	case "modifyvm", "controlvm", "startvm", "unregistervm", "showvminfo", "storagectl", "storageattach":
		if m == nil {
			return fail("Could not find a registered machine named '" + args[1] + "'")
		}
		if verb != "showvminfo" && v.locked > 0 {
			v.locked--
			return fail("The machine '" + m["name"] + "' is already locked by a session (or being locked or unlocked)")
		}
		return v.machine(verb, m, args, option)
	case "createmedium":
		v.media[option("--filename")] = option("--diffparent")
	case "convertfromraw":
		if option("--format") != "VDI" || fmt.Sprint(len(stdin)) != args[3] {
			v.t.Errorf("%d bytes for %v", len(stdin), args)
		}
	case "modifymedium":
		if _, known := v.media[args[2]]; !known {
			v.media[args[2]] = "base"
		}
		if kind := option("--type"); kind != "" {
			v.kinds[args[2]] = kind
		}
	case "clonemedium":
		v.media[args[3]], v.kinds[args[3]] = "base", "normal (base)"
	case "closemedium":
		file := strings.TrimPrefix(args[2], "id of ")
		for _, parent := range v.media {
			if parent == file {
				return fail("it has children")
			}
		}
		delete(v.media, file)
	case "natnetwork":
		rule := option("--port-forward-4")
		if rule == "delete" {
			v.forwards[args[3]] = ""
		} else {
			v.forwards[args[3]] += "        " + rule + "\n"
		}
	default:
		v.t.Errorf("what is %v?", args)
	}
	return "", nil
}

func (v *pretence) list(what string) string {
	var b strings.Builder
	switch what {
	case "vms":
		for id, m := range v.machines {
			fmt.Fprintf(&b, "%q {%s}\n", m["name"], id)
		}
	case "hdds":
		for file, parent := range v.media {
			if parent != "base" {
				parent = "id of " + parent
			}
			fmt.Fprintf(&b, "UUID:           id of %s\nParent UUID:    %s\nState:          created\nType:           %s\nLocation:       %s\nCapacity:       4 MBytes\n\n",
				file, parent, v.kinds[file], file)
		}
	case "natnets":
		for name, rules := range v.forwards {
			fmt.Fprintf(&b, "Name:         %s\nNetwork:      172.30.9.0/24\nPort-forwarding (ipv4)\n%s\n", name, rules)
		}
	}
	return b.String()
}

func (v *pretence) machine(verb string, m map[string]string, args []string, option func(string) string) (string, error) {
	switch verb {
	case "showvminfo":
		var b strings.Builder
		for key, value := range m {
			fmt.Fprintf(&b, "%q=%q\n", key, value)
		}
		return b.String(), nil
	case "modifyvm":
		for _, key := range []string{"cpus", "memory", "nic1", "macaddress1", "cableconnected1"} {
			if value := option("--" + key); value != "" {
				m[key] = value
			}
		}
	case "storageattach":
		m["ide-"+option("--port")+"-"+option("--device")] = option("--medium")
		if _, known := v.media[option("--medium")]; !known {
			v.media[option("--medium")] = "base"
		}
	case "startvm":
		m["VMState"] = "running"
	case "controlvm":
		switch args[2] {
		case "poweroff", "acpipowerbutton":
			m["VMState"] = "poweroff"
		case "setlinkstate1":
			m["cableconnected1"] = args[3]
		case "pause":
			m["VMState"] = "paused"
		case "resume":
			m["VMState"] = "running"
		}
	case "unregistervm":
		for key, file := range m {
			if strings.HasPrefix(key, "ide-") {
				delete(v.media, file)
			}
		}
		delete(v.machines, args[1])
		delete(v.extra, args[1])
	}
	return "", nil
}

// pretended is a provisioner of a pretence with the node's networks.
func pretended(t *testing.T) (*Provisioner, *pretence) {
	t.Helper()
	dir := real(t.TempDir())
	v := &pretence{t: t, left: -1, machines: map[string]map[string]string{}, media: map[string]string{}, kinds: map[string]string{}, forwards: map[string]string{"mini-kr1-management": ""},
		extra: map[string]map[string]string{"global": {
			"GUI/SomethingOfTheUser":               "a, Value: b",
			"toastdev/network/mini-kr1-tunnel":     `{"environment":"mini","home":"0123abcd","as":"intnet","spec":"x"}`,
			"toastdev/network/mini-kr1-management": `{"environment":"mini","home":"0123abcd","as":"natnetwork","spec":"x"}`,
		}},
	}
	key := conformance.Key(t)
	p := New(Options{Images: filepath.Join(dir, "images"), Folder: filepath.Join(dir, "virtualbox"), Key: func(string) (vm.Key, error) { return key, nil }})
	p.exec, p.hasDriver = v.exec, func() bool { return true }
	p.boot = func(context.Context, *vm.Machine, func() string) error { return nil }
	if err := os.MkdirAll(filepath.Join(p.images, "vm-test"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.images, "vm-test", "disk.vdi"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return p, v
}

// whole says what is wrong with the machine of a node that was made.
func (v *pretence) whole(t *testing.T, p *Provisioner, n provisioners.Node) {
	t.Helper()
	id := machineID(owner, n.Name)
	m, folder := v.machines[id], p.nodeFolder(n.Name)
	if m["VMState"] != "running" || m["ide-0-0"] != folder+"/disk.vdi" || m["ide-0-1"] != folder+"/seed.vdi" || m["nic1"] != natnet || m["cableconnected1"] != "on" {
		t.Errorf("machine %v", m)
	}
	if v.extra[id][keySpec] == "" || v.extra[id][keyEnvironment] != "mini" || strings.Count(v.forwards["mini-kr1-management"], "ssh-") != 1 {
		t.Errorf("labels %v, rules %q", v.extra[id], v.forwards)
	}
	if base := v.media[folder+"/disk.vdi"]; base != filepath.Join(p.basesFolder(), "vm-test-8.vdi") || v.kinds[base] != immutable {
		t.Errorf("media %v, %v", v.media, v.kinds)
	}
}

func TestANodeIsMadeInOrderAndOnlyStartedWhenItIsThere(t *testing.T) {
	p, v := pretended(t)
	n := theNode(1)
	n.Identity = "" // nothing to renew over ssh
	if err := p.CreateNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	v.whole(t, p, n)
	id := machineID(owner, n.Name)
	at := -1
	for _, step := range []string{"createvm --name", "modifyvm " + id, "storagectl " + id, "clonemedium disk", "createmedium disk", "storageattach " + id, "convertfromraw stdin", "natnetwork modify", "setextradata " + id, "startvm " + id} {
		next := slices.Index(v.log[at+1:], step)
		if step == "setextradata "+id { // the last, which says that all is there
			next = slices.Index(v.log, "startvm "+id) - at
			for ; next > 0 && v.log[at+next] != step; next-- {
			}
			next--
		}
		if next < 0 {
			t.Fatalf("%s is not after what comes before it: %s", step, strings.Join(v.log, "\n"))
		}
		at += next + 1
	}
	v.log = nil
	if err := p.CreateNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	for _, command := range v.log {
		if verb, _, _ := strings.Cut(command, " "); !slices.Contains([]string{"list", "getextradata", "showvminfo"}, verb) {
			t.Errorf("a node that is there and runs was changed: %s", command)
		}
	}
	if err := p.Kill(t.Context(), n.Name); err != nil {
		t.Fatal(err)
	}
	v.machines[id]["cableconnected1"] = "off"
	v.log = nil
	if err := p.CreateNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if v.whole(t, p, n); slices.Contains(v.log, "createvm --name") || !slices.Contains(v.log, "startvm "+id) {
		t.Errorf("a node that was off: %v", v.log)
	}
}

func TestACutAnywhereInTheMakingOfANodeIsMadeGood(t *testing.T) {
	n := theNode(1)
	n.Identity = ""
	for left := 0; ; left++ {
		p, v := pretended(t)
		v.left = left
		err := p.CreateNode(t.Context(), n)
		v.left = -1
		if left > 0 && !errors.Is(err, errCut) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if err := p.CreateNode(t.Context(), n); err != nil {
			t.Fatalf("after a cut at command %d: %v", left, err)
		}
		v.whole(t, p, n)
		// And a cut anywhere in the removal is made good by another.
		v.left = left
		_ = p.DeleteNode(t.Context(), owner, n.Name)
		v.left = -1
		if err := p.DeleteNode(t.Context(), owner, n.Name); err != nil {
			t.Fatalf("after a cut of the removal at command %d: %v", left, err)
		}
		if len(v.machines) != 0 || len(v.media) != 0 || v.forwards["mini-kr1-management"] != "" || len(files(t, p.folder)) != 1 {
			t.Errorf("after a cut at command %d there are %v, %v, %v, %v", left, v.machines, v.media, v.forwards, files(t, p.folder))
		}
	}
}

func TestStatesAndChangesGoByTheMachinesState(t *testing.T) {
	p, v := pretended(t)
	n := theNode(1)
	n.Identity = ""
	if err := p.CreateNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	m := v.machines[machineID(owner, n.Name)]
	for state, want := range map[string]provisioners.State{
		"running": provisioners.Running, "starting": provisioners.Running, "paused": provisioners.Paused, "poweroff": provisioners.Stopped,
		"aborted": provisioners.Stopped, "saved": provisioners.Stopped, "gurumeditation": provisioners.Stopped,
	} {
		m["VMState"] = state
		if got, err := p.State(t.Context(), n.Name); got != want || err != nil {
			t.Errorf("%s is %s, want %s, %v", state, got, want, err)
		}
	}
	m["VMState"] = "running"
	for range 2 {
		if err := p.Pause(t.Context(), n.Name); err != nil || m["VMState"] != "paused" {
			t.Errorf("paused: %s, %v", m["VMState"], err)
		}
	}
	if err := p.Stop(t.Context(), n.Name); err != nil || m["VMState"] != "poweroff" {
		t.Errorf("stopped: %s, %v", m["VMState"], err)
	}
	m["VMState"] = "gurumeditation"
	if err := p.Start(t.Context(), n.Name); err != nil || m["VMState"] != "running" {
		t.Errorf("started: %s, %v", m["VMState"], err)
	}
	for _, to := range []string{"off", "on"} {
		do := map[string]func(context.Context, string, provisioners.NIC) error{"off": p.Unplug, "on": p.Plug}[to]
		if err := do(t.Context(), n.Name, n.NICs[0]); err != nil || m["cableconnected1"] != to {
			t.Errorf("cable %s: %s, %v", to, m["cableconnected1"], err)
		}
	}
	v.locked = 2 // what is left of its process
	n.Memory = 2 << 30
	if err := p.CreateNode(t.Context(), n); err != nil || m["memory"] != "2048" || m["VMState"] != "running" {
		t.Errorf("memory %s, state %s, %v", m["memory"], m["VMState"], err)
	}
}

func TestAStopThatIsNotHeededIsByForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, v := pretended(t)
		n := theNode(1)
		n.Identity = ""
		if err := p.CreateNode(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		exec := p.exec
		p.exec = func(ctx context.Context, stdin []byte, args []string) (string, error) {
			if slices.Contains(args, "acpipowerbutton") {
				return "", nil
			}
			return exec(ctx, stdin, args)
		}
		began := time.Now()
		if err := p.Stop(t.Context(), n.Name); err != nil || v.machines[machineID(owner, n.Name)]["VMState"] != "poweroff" {
			t.Errorf("stop: %v", err)
		}
		if took := time.Since(began); took != provisioners.StopTimeout {
			t.Errorf("after %s", took)
		}
	})
}

func TestAVirtualBoxThatCannotBeUsedIsAFaultWithARemedy(t *testing.T) {
	for _, test := range []struct {
		name, version string
		driver        bool
		code          fault.Code
		remedy        string
	}{
		{"too old", "6.0.24r139119\n", true, fault.Unsupported, "6.1 to 7.2"},
		{"too new", "8.0.0r200000\n", true, fault.Unsupported, "6.1 to 7.2"},
		{"without a driver", "7.0.20r163906\n", false, fault.Missing, "modprobe vboxdrv"},
		{"something else", "hello\n", true, fault.Unsupported, "report it"},
	} {
		p := New(Options{})
		p.exec = func(context.Context, []byte, []string) (string, error) { return test.version, nil }
		p.hasDriver = func() bool { return test.driver }
		if err := p.Check(t.Context()); fault.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.remedy) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	for _, program := range []string{"no-such-program-of-virtualbox", filepath.Join(t.TempDir(), "VBoxManage")} {
		p := New(Options{Program: program})
		if err := p.Check(t.Context()); fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), "install VirtualBox") {
			t.Errorf("%s: %v", program, err)
		}
	}
	p := New(Options{})
	p.exec, p.hasDriver = func(context.Context, []byte, []string) (string, error) { return "6.1.50r161033\n", nil }, func() bool { return true }
	if err := p.Check(t.Context()); err != nil {
		t.Errorf("one that can: %v", err)
	}
}
