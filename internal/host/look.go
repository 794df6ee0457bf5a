package host

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Look asks this machine. home is where toastdev keeps its things; it need not exist. It takes well under a second.
func Look(ctx context.Context, home string) Facts {
	return sight{
		root:    os.DirFS("/"),
		find:    exec.LookPath,
		disk:    statfs,
		subnets: subnets,
		kvm:     func() KVM { return probeKVM(2 * time.Second) },
		engine:  engine,
		libvirt: libvirt,
		uid:     os.Geteuid(),
	}.look(ctx, home)
}

// sight is the ways to ask; a test has its own.
type sight struct {
	root    fs.FS
	find    func(program string) (string, error)
	disk    func(path string) (Disk, error)
	subnets func() ([]Subnet, error)
	kvm     func() KVM
	engine  func(ctx context.Context, find func(string) (string, error)) Engine
	libvirt func(sight) Libvirt
	uid     int
}

func (s sight) look(ctx context.Context, home string) Facts {
	f := Facts{Home: home, Architecture: runtime.GOARCH, Root: s.uid == 0}
	problem := func(what string, err error) {
		if err != nil {
			f.Problems = append(f.Problems, what+": "+err.Error())
		}
	}
	var err error
	f.Kernel = s.line("proc/sys/kernel/osrelease")
	f.OS = s.os()
	if s.there("run/systemd/system") {
		f.Init = "systemd"
	}
	f.CPUs = s.cpus()
	f.Memory, err = s.memory()
	problem("memory", err)
	f.Cgroup = s.cgroup()
	f.Capabilities, err = s.capabilities()
	problem("capabilities", err)
	modules := s.modules(f.Kernel)
	f.OpenVSwitch = modules.find("openvswitch", "CONFIG_OPENVSWITCH")
	f.NFS = modules.find("nfsv4", "CONFIG_NFS_V4")
	f.FUSE = modules.find("fuse", "CONFIG_FUSE_FS")
	f.VLAN = modules.find("8021q", "CONFIG_VLAN_8021Q")
	f.Netem = modules.find("sch_netem", "CONFIG_NET_SCH_NETEM")
	if s.there("dev/kvm") {
		f.KVM = s.kvm()
	} else {
		f.KVM.Reason = "there is no /dev/kvm"
	}
	f.Inotify, _ = strconv.Atoi(s.line("proc/sys/fs/inotify/max_user_instances"))
	f.Mmdebstrap, _ = s.find("mmdebstrap")
	f.IPTables, _ = s.find("iptables")
	f.Go, _ = s.find("go")
	f.DebianKeys = s.there("usr/share/keyrings/debian-archive-keyring.gpg")
	f.Subnets, err = s.subnets()
	problem("routes", err)
	f.Engine = s.engine(ctx, s.find)
	f.Libvirt = s.libvirt(s)
	for _, p := range []string{home, f.Engine.Root} {
		if _, known := f.Disk(p); p == "" || known {
			continue
		}
		d, err := s.disk(p)
		if err == nil {
			f.Disks = append(f.Disks, d)
		} else if !os.IsNotExist(err) { // an engine on another machine keeps its data there
			problem("disk of "+p, err)
		}
	}
	return f
}

func (s sight) there(name string) bool {
	_, err := fs.Stat(s.root, name)
	return err == nil
}

func (s sight) text(name string) string {
	data, _ := fs.ReadFile(s.root, name)
	return string(data)
}

func (s sight) line(name string) string {
	first, _, _ := strings.Cut(s.text(name), "\n")
	return strings.TrimSpace(first)
}

func (s sight) os() OS {
	var o OS
	text := s.text("etc/os-release")
	if text == "" {
		text = s.text("usr/lib/os-release")
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			o.ID = value
		case "ID_LIKE":
			o.Like = strings.Fields(value)
		case "VERSION_CODENAME":
			o.Codename = value
		case "PRETTY_NAME":
			o.Name = value
		}
	}
	return o
}

// cpus counts those that this process may run on: a container or taskset may have fewer than the machine.
func (s sight) cpus() int {
	list := s.field("proc/self/status", "Cpus_allowed_list:")
	n := 0
	for span := range strings.SplitSeq(list, ",") {
		first, last, ranged := strings.Cut(span, "-")
		a, err := strconv.Atoi(first)
		if err != nil {
			return runtime.NumCPU()
		}
		b := a
		if ranged {
			if b, err = strconv.Atoi(last); err != nil {
				return runtime.NumCPU()
			}
		}
		n += b - a + 1
	}
	return n
}

// field is what follows a key at a line's begin.
func (s sight) field(name, key string) string {
	for line := range strings.Lines(s.text(name)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func (s sight) memory() (Memory, error) {
	kilobytes := func(key string) (int64, error) {
		number, _, _ := strings.Cut(s.field("proc/meminfo", key), " ")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/meminfo: no %s", strings.TrimSuffix(key, ":"))
		}
		return n << 10, nil
	}
	total, err := kilobytes("MemTotal:")
	if err != nil {
		return Memory{}, err
	}
	available, err := kilobytes("MemAvailable:")
	return Memory{Total: total, Available: available}, err
}

// cgroup is 2 where /sys/fs/cgroup is the unified hierarchy; systemd's "hybrid" (v1 beside a v2 without controllers) is 1.
func (s sight) cgroup() int {
	for line := range strings.Lines(s.text("proc/self/mounts")) {
		f := strings.Fields(line)
		if len(f) > 2 && f[1] == "/sys/fs/cgroup" && f[2] == "cgroup2" {
			return 2
		}
	}
	return 1
}

// capabilities are the bounding set's names. A capability that is newer than this list (capability.h of Linux 5.9) is left out.
func (s sight) capabilities() ([]string, error) {
	names := strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
		NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
		SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
		MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)
	set, err := strconv.ParseUint(s.field("proc/self/status", "CapBnd:"), 16, 64)
	if err != nil {
		return nil, fmt.Errorf("/proc/self/status: no CapBnd")
	}
	var have []string
	for bit, name := range names {
		if set&(1<<bit) != 0 {
			have = append(have, name)
		}
	}
	return have, nil
}

// modules is where a kernel's features are looked for: one that is loaded shows in /sys/module or /proc/filesystems, the
// others in the lists beside the modules, and those of a kernel without modules in its configuration, where it shows it.
type modules struct {
	sight
	filesystems []string
	builtin     map[string]bool
	loadable    map[string]bool
	config      map[string]bool // options that are y
}

func (s sight) modules(kernel string) modules {
	m := modules{sight: s, config: map[string]bool{}}
	for line := range strings.Lines(s.text("proc/filesystems")) {
		if f := strings.Fields(line); len(f) > 0 {
			m.filesystems = append(m.filesystems, f[len(f)-1])
		}
	}
	for _, root := range []string{"lib/modules", "usr/lib/modules"} {
		if m.builtin == nil && s.there(path.Join(root, kernel)) {
			m.builtin = s.moduleNames(path.Join(root, kernel, "modules.builtin"))
			m.loadable = s.moduleNames(path.Join(root, kernel, "modules.dep"))
		}
	}
	for line := range strings.Lines(s.kernelConfig(kernel)) {
		if option, ok := strings.CutSuffix(strings.TrimSpace(line), "=y"); ok {
			m.config[option] = true
		}
	}
	return m
}

// moduleNames reads lines such as "kernel/net/openvswitch/openvswitch.ko.xz: kernel/lib/libcrc32c.ko.xz".
func (s sight) moduleNames(name string) map[string]bool {
	names := map[string]bool{}
	file, err := s.root.Open(name)
	if err != nil {
		return names
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		file, _, _ := strings.Cut(lines.Text(), ":")
		module, _, _ := strings.Cut(path.Base(file), ".ko")
		names[module] = true
	}
	return names
}

func (m modules) find(module, option string) Module {
	switch {
	case m.builtin[module], m.config[option]:
		return BuiltIn
	case m.there("sys/module/" + strings.ReplaceAll(module, "-", "_")):
		return Loaded
	case m.filesystem(module):
		return BuiltIn
	case m.loadable[module]:
		return Loadable
	}
	return Absent
}

// filesystem says whether the module's file system is registered: nfsv4's is called nfs4.
func (m modules) filesystem(module string) bool {
	name := strings.Replace(module, "nfsv4", "nfs4", 1)
	for _, f := range m.filesystems {
		if f == name {
			return true
		}
	}
	return false
}

func statfs(path string) (Disk, error) {
	at := path
	for {
		var st syscall.Statfs_t
		err := syscall.Statfs(at, &st)
		if err == nil {
			return Disk{Path: path, Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}, nil
		}
		// What does not exist yet will be made on the file system of the folder that does.
		parent := filepath.Dir(at)
		if !os.IsNotExist(err) || parent == at {
			return Disk{}, &os.PathError{Op: "statfs", Path: at, Err: err}
		}
		at = parent
	}
}
