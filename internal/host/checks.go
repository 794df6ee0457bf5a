package host

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// State is what a check comes to.
type State string

const (
	OK      State = "ok"
	Warn    State = "warn"    // a region comes up, with less
	Missing State = "missing" // a region does not come up
)

// Check is one thing about the machine: what was found, what follows from it, and what would mend it.
type Check struct {
	Name    string `json:"name"`
	State   State  `json:"state"`
	Found   string `json:"found"`
	Follows string `json:"follows"`
	Remedy  string `json:"remedy,omitempty"` // an imperative sentence; "" where there is nothing to mend

	// What Fix does about it: packages to install, and then something to do, whose name Doing is.
	Packages []string                    `json:"packages,omitempty"`
	Doing    string                      `json:"-"`
	Fix      func(context.Context) error `json:"-"`
}

// What a region needs of the machine. The default topology's nodes take up to 7 GB together; the node image takes 2 GB as a
// root file system, as much again while it is imported, and its packages are unpacked beside it.
const (
	enoughMemory   = 8 << 30
	leastMemory    = 5 << 30
	enoughDisk     = 15 << 30
	leastDisk      = 8 << 30
	leastAPI       = "1.41"
	enoughInotify  = 512
	inotifySysctl  = "fs.inotify.max_user_instances"
	sudoRemedy     = "run `sudo toastdev doctor --fix`"
	groupRemedy    = "run `sudo usermod -aG docker $USER` and log in again, or run toastdev by sudo"
	kvmGroupRemedy = "run `sudo usermod -aG kvm $USER` and log in again"
)

// Checks is what follows from the facts, in the order in which a person mends it. What the provisioners need that are wanted
// beside docker, by their names, is missing where it is not there; of others it is told.
func Checks(f Facts, wanted ...string) []Check {
	checks := []Check{
		system(f), containerEngine(f), libvirtDaemon(f, slices.Contains(wanted, "libvirt")), imageBuilder(f), guestBuilder(f), rights(f),
		processors(f), memory(f), disk(f),
		openVSwitch(f), nas(f), kvm(f), cgroups(f), vlan(f), netem(f), inotify(f), subnetsTaken(f),
	}
	for _, problem := range f.Problems {
		checks = append(checks, Check{Name: "question", State: Warn, Found: problem, Follows: "toastdev goes on as if it were not there"})
	}
	return checks
}

func system(f Facts) Check {
	c := Check{Name: "system", State: OK, Found: fmt.Sprintf("%s, kernel %s, %s", f.OS.Name, f.Kernel, f.Architecture)}
	switch {
	case f.Architecture != "amd64":
		c.State, c.Follows = Missing, "nodes and guests are amd64: there are no images for this machine"
		c.Remedy = "use an amd64 machine"
	case !f.OS.Apt():
		c.State, c.Follows = Warn, "`doctor --fix` installs nothing here"
		c.Remedy = "install what is missing by this distribution's own means"
	case f.Init == "systemd":
		c.Follows = "packages come by apt, services start by systemd"
	default:
		c.Follows = "packages come by apt; no systemd, so services are started by hand"
	}
	return c
}

func containerEngine(f Facts) Check {
	e := f.Engine
	c := Check{Name: "container engine", State: Missing, Follows: "nodes cannot be made", Doing: "start the container engine"}
	start := func(ctx context.Context) error { return startEngine(ctx, f) }
	switch e.State {
	case EngineMissing:
		c.Found = e.Reason
		c.Remedy = "install docker.io: " + sudoRemedy
		c.Packages, c.Fix = []string{"docker.io", "iptables"}, start
		return c
	case EngineStopped:
		c.Found = "it does not answer: " + e.Reason
		c.Remedy = "start it: " + sudoRemedy
		if f.Init == "systemd" {
			c.Remedy = "start it: sudo systemctl start docker"
		}
		if strings.HasPrefix(e.Address, "unix://") {
			c.Fix = start
			if f.IPTables == "" {
				c.Packages = []string{"iptables"}
			}
		} else {
			c.Remedy = "see that DOCKER_HOST leads to an engine: " + e.Address
		}
		return c
	case EngineDenied:
		c.Found = e.Reason
		c.Remedy = groupRemedy
		return c
	}
	c.Found = fmt.Sprintf("version %s, API %s, %s, data in %s", e.Version, e.API, e.Storage, e.Root)
	c.State, c.Follows, c.Doing = OK, "nodes are its containers", ""
	switch {
	case older(e.API, leastAPI):
		c.State, c.Follows = Missing, "it is too old: API "+leastAPI+" (version 20.10) is the oldest that toastdev speaks"
		c.Remedy = "install a newer engine"
	case e.Rootless:
		c.State, c.Follows = Missing, "it is rootless, and a region's nodes need rights over the network that it cannot give"
		c.Remedy = "point DOCKER_HOST at an engine that runs as root"
	case e.Storage == "vfs":
		c.State, c.Follows = Warn, "every node is a whole copy of its image: slow, and 2 GB of disk each"
		c.Remedy = "set the engine's storage driver to overlay2"
	}
	return c
}

// older compares versions such as 1.9 and 1.41.
func older(version, least string) bool {
	var a, b, c, d int
	if n, _ := fmt.Sscanf(version, "%d.%d", &a, &b); n != 2 {
		return false
	}
	fmt.Sscanf(least, "%d.%d", &c, &d)
	return a < c || a == c && b < d
}

func imageBuilder(f Facts) Check {
	c := Check{Name: "mmdebstrap", State: OK, Found: f.Mmdebstrap, Follows: "node images are built here"}
	if f.Mmdebstrap == "" {
		c.State, c.Found, c.Follows = Missing, "not installed", "a node image cannot be built"
		c.Packages = append(c.Packages, "mmdebstrap")
	}
	if !f.DebianKeys {
		c.State, c.Follows = Missing, "a node image cannot be built"
		c.Found = strings.TrimPrefix(c.Found+", no keyring of Debian's archive", ", ")
		c.Packages = append(c.Packages, "debian-archive-keyring")
	}
	if len(c.Packages) > 0 {
		c.Remedy = "install " + strings.Join(c.Packages, " and ") + ": " + sudoRemedy
	}
	return c
}

func guestBuilder(f Facts) Check {
	if f.Go == "" {
		return Check{Name: "go", State: Warn, Found: "not in PATH", Follows: "the guest image's agent cannot be built; one that is cached is used",
			Remedy: "put Go's bin folder into PATH (with sudo: sudo env PATH=$PATH toastdev ...)"}
	}
	return Check{Name: "go", State: OK, Found: f.Go, Follows: "the guest image's agent is built here"}
}

func rights(f Facts) Check {
	who := "a user"
	if f.Root {
		who = "root"
	}
	var lacking []string
	for _, need := range []string{"SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "SYS_NICE", "MKNOD"} {
		if !f.Capable(need) {
			lacking = append(lacking, need)
		}
	}
	c := Check{Name: "rights", State: OK, Found: who + ", every capability that nodes need", Follows: "nodes get their capabilities by name"}
	switch {
	case len(lacking) > 0:
		c.State, c.Found = Missing, who+", without "+strings.Join(lacking, ", ")
		c.Follows = "nodes cannot be given what this machine does not have"
		c.Remedy = "run toastdev on a machine (or in a container) that has these capabilities"
	case !f.Capable("SYS_RESOURCE"):
		c.Found = who + ", every capability that nodes need, no SYS_RESOURCE"
		c.Follows = "nodes get their capabilities by name, and the limits of this machine"
	}
	return c
}

func processors(f Facts) Check {
	c := Check{Name: "processors", State: OK, Found: fmt.Sprint(f.CPUs), Follows: "a region comes up"}
	if f.CPUs < 2 {
		c.State, c.Follows, c.Remedy = Warn, "a region comes up slowly, and waits may run out", "give the machine two processors or more"
	}
	return c
}

func memory(f Facts) Check {
	c := Check{Name: "memory", State: OK, Found: fmt.Sprintf("%s available of %s", size(f.Memory.Available), size(f.Memory.Total)), Follows: "a region takes up to 7 GB"}
	switch {
	case f.Memory.Available < leastMemory:
		c.State, c.Follows, c.Remedy = Missing, "a region takes up to 7 GB", "free memory: "+size(enoughMemory)+" is enough for the default region"
	case f.Memory.Available < enoughMemory:
		c.State, c.Remedy = Warn, "free memory: "+size(enoughMemory)+" is enough for the default region"
	}
	return c
}

func disk(f Facts) Check {
	c := Check{Name: "disk", State: OK, Follows: "images and nodes have room"}
	var found []string
	for _, d := range f.Disks {
		found = append(found, fmt.Sprintf("%s free at %s", size(d.Free), d.Path))
		switch {
		case d.Free < leastDisk:
			c.State = Missing
			c.Follows = "an image does not fit"
		case d.Free < enoughDisk && c.State == OK:
			c.State = Warn
			c.Follows = "one image and its nodes just fit"
		}
	}
	if c.State != OK {
		c.Remedy = "free disk: " + size(enoughDisk) + " is enough (`toastdev image prune` removes images that nothing uses)"
	}
	c.Found = strings.Join(found, ", ")
	return c
}

func openVSwitch(f Facts) Check {
	c := Check{Name: "Open vSwitch", State: OK, Found: "kernel module " + string(f.OpenVSwitch), Follows: "the kernel's datapath"}
	if !f.OpenVSwitch.There() {
		c.State, c.Found = Warn, "the kernel has no openvswitch"
		c.Follows = "the userspace datapath: everything works, packets are slower"
		c.Remedy = "boot a kernel with the openvswitch module, or live with it"
	}
	return c
}

func nas(f Facts) Check {
	c := Check{Name: "NFS", State: OK, Found: "kernel client " + string(f.NFS), Follows: "nodes mount the NAS by NFS"}
	if f.NFS.There() {
		return c
	}
	if f.FUSE.There() {
		c.State, c.Found = Warn, "the kernel has no NFS client, FUSE is "+string(f.FUSE)
		c.Follows = "nodes mount the NAS by FUSE (sshfs); its NFS export is there for other clients"
		c.Remedy = "boot a kernel with the nfsv4 module, or live with it"
		return c
	}
	c.State, c.Found, c.Follows = Missing, "the kernel has neither an NFS client nor FUSE", "nodes cannot mount the NAS"
	c.Remedy = "boot a kernel with the nfsv4 or the fuse module"
	return c
}

func kvm(f Facts) Check {
	c := Check{Name: "KVM", State: OK, Found: "a guest ran at the processor's speed", Follows: "instances run by KVM"}
	if !f.KVM.Usable {
		c.State, c.Found = Warn, f.KVM.Reason
		c.Follows = "instances run by emulation: the guest image is up in seconds, a distribution's takes minutes"
		c.Remedy = "enable virtualisation (in the firmware, or nested in the hypervisor), or live with it"
		if f.KVM.Device && !f.Root && strings.Contains(f.KVM.Reason, "permission denied") {
			c.Remedy = kvmGroupRemedy
		}
	}
	return c
}

func cgroups(f Facts) Check {
	if f.Cgroup == 2 {
		return Check{Name: "cgroups", State: OK, Found: "version 2", Follows: "nodes have their own namespace of it"}
	}
	return Check{Name: "cgroups", State: OK, Found: "version 1", Follows: "nodes mount a version 2 hierarchy of their own, without its controllers"}
}

func vlan(f Facts) Check {
	c := Check{Name: "VLAN", State: OK, Found: "kernel module 8021q " + string(f.VLAN), Follows: "nodes can have VLAN interfaces"}
	if !f.VLAN.There() {
		c.Found = "the kernel has no 8021q"
		c.Follows = "no VLAN interfaces in nodes; tenant networks on VLAN are Open vSwitch's and work"
	}
	return c
}

func netem(f Facts) Check {
	c := Check{Name: "netem", State: OK, Found: "kernel module sch_netem " + string(f.Netem), Follows: "scenarios can delay and lose packets"}
	if !f.Netem.There() {
		c.State, c.Found, c.Follows = Warn, "the kernel has no sch_netem", "scenarios that delay or lose packets are skipped"
		c.Remedy = "boot a kernel with the sch_netem module, or live with it"
	}
	return c
}

// inotify: every node's systemd, udev and D-Bus watch files, all as the host's root; kernels allow 128 of them.
func inotify(f Facts) Check {
	c := Check{Name: "inotify", State: OK, Found: fmt.Sprintf("%d instances a user", f.Inotify), Follows: "enough for several regions"}
	if f.Inotify > 0 && f.Inotify < enoughInotify {
		c.State, c.Follows = Warn, "enough for one small region"
		c.Remedy = fmt.Sprintf("run `sudo sysctl %s=%d`", inotifySysctl, enoughInotify)
		c.Doing = fmt.Sprintf("set %s to %d", inotifySysctl, enoughInotify)
		c.Fix = func(context.Context) error { return setSysctl(inotifySysctl, fmt.Sprint(enoughInotify)) }
	}
	return c
}

func subnetsTaken(f Facts) Check {
	var prefixes []string
	for _, s := range f.Subnets {
		if !s.Prefix.Addr().IsLoopback() {
			prefixes = append(prefixes, s.Prefix.String())
		}
	}
	c := Check{Name: "subnets", State: OK, Found: "none taken", Follows: "a region's subnets are chosen beside these"}
	if len(prefixes) > 6 {
		prefixes = append(prefixes[:6], fmt.Sprintf("%d more", len(prefixes)-6))
	}
	if len(prefixes) > 0 {
		c.Found = "taken: " + strings.Join(prefixes, ", ")
	}
	return c
}

// size is bytes for a person.
func size(bytes int64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) }

// Require is nil when none of the checks without which nothing comes up, not even what is built already, nor of the others
// named, comes to Missing; else a *fault.Error that says what is and how to mend it. Memory, disk and mmdebstrap are named
// where something new is made: an environment that is up has taken its share.
func Require(checks []Check, others ...string) error {
	needed := append([]string{"system", "container engine", "libvirt", "rights", "NFS"}, others...)
	var missing []Check
	for _, c := range checks {
		if c.State == Missing && slices.Contains(needed, c.Name) {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	first := missing[0]
	e := fault.New(fault.Missing, "%s: %s; %s", first.Name, first.Found, first.Follows).WithRemedy("%s", first.Remedy)
	for _, c := range missing[1:] {
		e.Log = append(e.Log, fmt.Sprintf("%s: %s; %s", c.Name, c.Found, c.Remedy))
	}
	return e
}
