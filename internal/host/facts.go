// Package host is facts about this machine, each of them asked and none assumed, and what follows from them.
package host

import (
	"net/netip"
	"slices"
)

// Facts is what a machine can do. A fact that could not be had is its zero value, and Problems says why.
type Facts struct {
	Home         string   `json:"home"` // where toastdev keeps its things
	OS           OS       `json:"os"`
	Kernel       string   `json:"kernel"`       // its release: 6.1.0-37-amd64
	Architecture string   `json:"architecture"` // as Go names it: amd64
	Init         string   `json:"init"`         // "systemd" or, where there is none that could start a service, ""
	Root         bool     `json:"root"`         // toastdev runs as root
	CPUs         int      `json:"cpus"`
	Memory       Memory   `json:"memory"`
	Disks        []Disk   `json:"disks"`  // the file systems of Home and of the engine's data
	Cgroup       int      `json:"cgroup"` // 1 or 2
	Capabilities []string `json:"capabilities"`
	OpenVSwitch  Module   `json:"openvswitch"`
	NFS          Module   `json:"nfs"` // the kernel's NFS client
	FUSE         Module   `json:"fuse"`
	VLAN         Module   `json:"vlan"`  // 8021q
	Netem        Module   `json:"netem"` // sch_netem
	KVM          KVM      `json:"kvm"`
	Engine       Engine   `json:"engine"`
	Libvirt      Libvirt  `json:"libvirt"`
	Subnets      []Subnet `json:"subnets"`            // what is taken, in order
	Inotify      int      `json:"inotify"`            // instances that one user may have; 0: not known
	Mmdebstrap   string   `json:"mmdebstrap"`         // the program's path; "" where it is not installed
	DebianKeys   bool     `json:"debian_keys"`        // Debian's archive keyring is installed
	IPTables     string   `json:"iptables"`           // the program's path
	Go           string   `json:"go"`                 // the program's path
	Problems     []string `json:"problems,omitempty"` // what could not be asked, and why
}

// OS is the distribution, as /etc/os-release names it.
type OS struct {
	ID       string   `json:"id"`
	Like     []string `json:"like,omitempty"`
	Codename string   `json:"codename"`
	Name     string   `json:"name"` // for a person
}

// Apt says whether packages come by apt from Debian, Ubuntu or a distribution that says it is like one of them.
func (o OS) Apt() bool {
	for _, id := range append([]string{o.ID}, o.Like...) {
		if id == "debian" || id == "ubuntu" {
			return true
		}
	}
	return false
}

// Memory is in bytes.
type Memory struct {
	Total     int64 `json:"total"`
	Available int64 `json:"available"` // what can be had without swapping
}

// Disk is the file system that a path is on; sizes are in bytes.
type Disk struct {
	Path  string `json:"path"`
	Total int64  `json:"total"`
	Free  int64  `json:"free"` // what this user may still write
}

// Module is how the kernel has a feature.
type Module string

const (
	Loaded   Module = "loaded"
	BuiltIn  Module = "built in"
	Loadable Module = "loadable" // the kernel loads it when it is first asked for it
	Absent   Module = ""
)

// There says whether the feature can be had.
func (m Module) There() bool { return m != Absent }

// KVM is whether guests can run on the processor itself.
type KVM struct {
	Device bool   `json:"device"` // /dev/kvm is there
	Usable bool   `json:"usable"` // a virtual processor ran code, at the processor's own speed
	Reason string `json:"reason,omitempty"`
}

// EngineState is how a container engine answers.
type EngineState string

const (
	EngineRunning EngineState = "running"
	EngineStopped EngineState = "stopped"       // installed, and nothing answers
	EngineDenied  EngineState = "denied"        // it is there, this user may not speak to it
	EngineMissing EngineState = "not installed" // and nothing answers
)

// Engine is the container engine. Everything below State is known of a running one alone.
type Engine struct {
	State    EngineState `json:"state"`
	Address  string      `json:"address"` // unix:///var/run/docker.sock
	Reason   string      `json:"reason,omitempty"`
	Version  string      `json:"version,omitempty"`
	API      string      `json:"api,omitempty"`
	Root     string      `json:"root,omitempty"` // where it keeps its data
	Storage  string      `json:"storage,omitempty"`
	Rootless bool        `json:"rootless,omitempty"`
}

// Subnet is addresses that are reached through an interface, or are its own.
type Subnet struct {
	Prefix    netip.Prefix `json:"prefix"`
	Interface string       `json:"interface,omitempty"`
}

// Capable says whether a capability, by its name without CAP_, is in the bounding set.
func (f *Facts) Capable(name string) bool { return slices.Contains(f.Capabilities, name) }

// Disk is the file system of a path that was asked for.
func (f *Facts) Disk(path string) (Disk, bool) {
	for _, d := range f.Disks {
		if d.Path == path {
			return d, true
		}
	}
	return Disk{}, false
}
