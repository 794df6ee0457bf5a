package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// Libvirt is the daemon that makes virtual machines, and what is needed to speak to it.
type Libvirt struct {
	State   EngineState `json:"state"`
	Address string      `json:"address"` // its URI: qemu:///system
	Reason  string      `json:"reason,omitempty"`
	Library string      `json:"library"` // the file of libvirt's library; "" where it is not installed
	QEMU    string      `json:"qemu"`    // the emulator's path; "" where it is not installed
	// SeesKVM says that the daemon sees a /dev/kvm: where it does not work, it tries it out again and again, for seconds on an
	// idle machine and for minutes on a busy one.
	SeesKVM bool `json:"sees_kvm"`
}

// Elsewhere is the name of another machine that the daemon is on; "": it is on this one.
func (l Libvirt) Elsewhere() string {
	u, err := url.Parse(l.Address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

const (
	libvirtSocket = "/var/run/libvirt/libvirt-sock"
	libvirtPID    = "/run/libvirtd.pid"
	libraryName   = "libvirt.so.0"

	libvirtGroupRemedy = "run `sudo usermod -aG libvirt $USER` and log in again, or run toastdev by sudo"
	libvirtRemedy      = "run `sudo toastdev doctor --for libvirt --fix`"
)

// libraryFolders are where distributions keep an amd64 machine's libraries.
var libraryFolders = []string{"usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64", "usr/lib", "usr/local/lib"}

// libvirtPackages: no dnsmasq is ever started for nodes, but libvirtd 9.0 without the program crashes when it is started while
// one of its networks has an address.
var libvirtPackages = []string{"libvirt-daemon-system", "libvirt0", "qemu-system-x86", "qemu-utils", "dnsmasq-base"}

// libvirt asks the daemon that LIBVIRT_DEFAULT_URI, else the usual socket, leads to. It does so without libvirt's library,
// which a process that was started before it was there never finds.
func libvirt(s sight) Libvirt {
	l := Libvirt{Address: os.Getenv("LIBVIRT_DEFAULT_URI")}
	if l.Address == "" {
		l.Address = "qemu:///system"
	}
	for _, folder := range libraryFolders {
		if l.Library == "" && s.there(folder+"/"+libraryName) {
			l.Library = "/" + folder + "/" + libraryName
		}
	}
	l.QEMU, _ = s.find("qemu-system-x86_64")
	if u, err := url.Parse(l.Address); err == nil && (u.Host != "" || u.Path != "/system") {
		l.State = EngineRunning // elsewhere, or started by whoever asks
		return l
	}
	c, err := net.DialTimeout("unix", libvirtSocket, 2*time.Second)
	switch {
	case errors.Is(err, fs.ErrPermission):
		l.State, l.Reason = EngineDenied, "no permission for "+libvirtSocket
		return l
	case err != nil:
		l.State, l.Reason = EngineStopped, err.Error()
		if _, err := s.find("libvirtd"); err != nil && !s.there("usr/sbin/libvirtd") {
			l.State, l.Reason = EngineMissing, "there is no libvirtd, and nothing listens on "+libvirtSocket
		}
		return l
	}
	c.Close()
	l.State = EngineRunning
	if s.uid != 0 && !inGroup("libvirt") { // the socket is everybody's where polkit asks after that
		l.State, l.Reason = EngineDenied, "this user is not in the group libvirt"
	}
	l.SeesKVM = daemonSeesKVM()
	return l
}

func inGroup(name string) bool {
	g, err := user.LookupGroup(name)
	if err != nil {
		return true // there is none to be in
	}
	id, err := strconv.Atoi(g.Gid)
	groups, other := os.Getgroups()
	return err == nil && other == nil && slices.Contains(groups, id)
}

// daemonSeesKVM looks at /dev/kvm as the daemon has it: it may be hidden from it. It says no when it may not look.
func daemonSeesKVM() bool {
	text, err := os.ReadFile(libvirtPID)
	if err != nil {
		return false
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join("/proc", strings.TrimSpace(string(text)), "root/dev/kvm"), &st); err != nil {
		return false
	}
	return st.Rdev == 10<<8|232 // linux/miscdevice.h: MISC_MAJOR, KVM_MINOR
}

// libvirtDaemon is a check of what nodes that are libvirt's need. Who wants none is told what there is.
func libvirtDaemon(f Facts, wanted bool) Check {
	l := f.Libvirt
	c := Check{Name: "libvirt", State: Missing, Follows: "nodes cannot be made as its virtual machines"}
	switch {
	case l.State == EngineMissing, l.Library == "", l.State == EngineStopped && l.QEMU == "":
		c.Found = l.Reason
		if l.State == EngineRunning {
			c.Found = "the daemon runs, its library " + libraryName + " is not installed"
		}
		c.Packages, c.Remedy = libvirtPackages, "install "+strings.Join(libvirtPackages, " ")+": "+libvirtRemedy
		c.Doing, c.Fix = "start libvirt", func(ctx context.Context) error { return startLibvirt(ctx, f) }
	case l.State == EngineStopped:
		c.Found = "it does not answer: " + l.Reason
		c.Remedy = "start it: " + libvirtRemedy
		if f.Init == "systemd" {
			c.Remedy = "start it: sudo systemctl start libvirtd"
		}
		c.Doing, c.Fix = "start libvirt", func(ctx context.Context) error { return startLibvirt(ctx, f) }
	case l.State == EngineDenied:
		c.Found, c.Remedy = l.Reason, libvirtGroupRemedy
	case l.SeesKVM && !f.KVM.Usable:
		c.State, c.Found = Warn, fmt.Sprintf("it answers at %s, and sees a /dev/kvm that does not work", l.Address)
		c.Follows = "machines are emulated; the daemon tries KVM out again and again, which may take minutes"
		c.Remedy = "hide /dev/kvm from it: " + libvirtRemedy
		c.Doing, c.Fix = "start libvirt again, with /dev/kvm hidden from it", func(ctx context.Context) error { return restartLibvirt(ctx, f) }
	default:
		c.State, c.Found, c.Follows = OK, "it answers at "+l.Address, "nodes can be its virtual machines, emulated"
		if f.KVM.Usable {
			c.Follows = "nodes can be its virtual machines, by KVM"
		}
	}
	if !wanted && c.State != OK {
		return Check{Name: c.Name, State: OK, Found: c.Found, Follows: "nodes are containers; where a topology wants virtual machines: " + c.Remedy}
	}
	return c
}

// startLibvirt starts the daemon by systemd, or, where there is none, by itself, with its log daemon. It returns when it
// answers. Where KVM is there and does not work, the daemon does not get to see it.
func startLibvirt(ctx context.Context, f Facts) error {
	running := func() bool {
		return libvirt(sight{root: os.DirFS("/"), find: exec.LookPath, uid: os.Geteuid()}).State == EngineRunning
	}
	if running() && !(daemonSeesKVM() && f.KVM.Device && !f.KVM.Usable) { // its package has started it
		return nil
	}
	hide := f.KVM.Device && !f.KVM.Usable
	var ended chan error
	var log string
	if f.Init == "systemd" {
		if err := startUnit(ctx, hide); err != nil {
			return err
		}
	} else {
		// virtlogd writes the machines' consoles; libvirtd does without virtlockd as it is configured.
		if c, err := net.DialTimeout("unix", "/var/run/libvirt/virtlogd-sock", time.Second); err == nil {
			c.Close()
		} else if _, err := startDaemon(f.Home, "virtlogd", hide); err != nil {
			return err
		}
		var err error
		if ended, err = startDaemon(f.Home, "libvirtd", hide); err != nil {
			return err
		}
		log = filepath.Join(f.Home, "libvirtd.log")
	}
	err := node.Wait(ctx, "libvirt to answer", time.Minute, func(context.Context) (bool, error) {
		select {
		case err := <-ended:
			return true, fmt.Errorf("libvirtd has ended: %w", err)
		default:
		}
		return running(), nil
	})
	if err != nil {
		text, _ := os.ReadFile(log)
		e := &fault.Error{Code: fault.CodeOf(err), Unit: "libvirtd", Message: err.Error(), Log: node.LastLines(string(text), 10), Remedy: "see what `journalctl -u libvirtd` says", Err: err}
		if log != "" {
			e.Remedy = "read " + log
		}
		return e
	}
	return nil
}

// withoutKVMScript becomes the program $0 in a /dev that has all that the host's has now but kvm. Nothing less does: libvirt
// takes whatever root may open there for a KVM that works and tries out every emulator whenever it is asked for a machine,
// and cannot make a machine's own /dev where something is mounted on kvm, or on anything twice.
const withoutKVMScript = `set -e
dev=$(mktemp -d)
mount -t tmpfs -o mode=755 dev "$dev"
cp -a -x /dev/. "$dev"
rm -f "$dev/kvm"
for below in pts shm mqueue hugepages; do
	if mountpoint -q "/dev/$below"; then mount --rbind "/dev/$below" "$dev/$below"; fi
done
while mountpoint -q /dev; do umount -R -l /dev; done
mount --move "$dev" /dev
rmdir "$dev"
exec "$0" "$@"
`

// hidden is how systemd starts the daemon without KVM.
const hidden = `# toastdev doctor --fix: KVM does not work on this machine, and libvirt tries it out again and again.
[Service]
PrivateMounts=yes
MountFlags=slave
ExecStart=
ExecStart=/bin/sh ` + scriptFile + ` $LIBVIRTD_ARGS
`

const (
	hiddenFile = "/etc/systemd/system/libvirtd.service.d/toastdev-kvm.conf"
	scriptFile = "/etc/libvirt/toastdev-without-kvm"
)

func startUnit(ctx context.Context, hide bool) error {
	if hide {
		if err := os.MkdirAll(filepath.Dir(hiddenFile), 0o755); err != nil {
			return err
		}
		script := strings.Replace(withoutKVMScript, `"$0"`, "/usr/sbin/libvirtd", 1)
		for file, content := range map[string]string{scriptFile: script, hiddenFile: hidden} {
			if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
				return err
			}
		}
	}
	for _, args := range [][]string{{"daemon-reload"}, {"enable", "libvirtd.service"}, {"restart", "libvirtd.service"}} {
		if out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput(); err != nil {
			return &fault.Error{Code: fault.Failed, Unit: "libvirtd.service", Message: "systemctl " + strings.Join(args, " ") + ": " + err.Error(),
				Log: node.LastLines(string(out), 10), Remedy: "see what `journalctl -u libvirtd` says", Err: err}
		}
	}
	return nil
}

// restartLibvirt ends a daemon that was started by hand; the machines go on, and the new one finds them.
func restartLibvirt(ctx context.Context, f Facts) error {
	if f.Init != "systemd" {
		text, err := os.ReadFile(libvirtPID)
		if err != nil {
			return fmt.Errorf("find the daemon: %w", err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return fmt.Errorf("find the daemon: %s: %w", libvirtPID, err)
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			return fmt.Errorf("end the daemon: %w", err)
		}
		err = node.Wait(ctx, "libvirtd to end", 30*time.Second, func(context.Context) (bool, error) {
			_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) // one that ended and that nobody waits for has none
			return err != nil, nil
		})
		if err != nil {
			return err
		}
	}
	return startLibvirt(ctx, f)
}
