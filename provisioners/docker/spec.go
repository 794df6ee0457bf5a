package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"

	"github.com/toast-cloud/toastdev/provisioners"
)

// entrypoint of every node: a shim that makes the container fit for systemd, then becomes it.
const entrypoint = "/usr/lib/toastdev/init"

// nodeCapabilities are what systemd, libvirt, Open vSwitch, FUSE and network namespaces need, and what an administrator
// expects to be able to do, beyond the engine's own default set. --privileged is all or nothing: it fails on a host that
// lacks a single one of them.
var nodeCapabilities = []string{
	"AUDIT_CONTROL", "AUDIT_READ", "BLOCK_SUSPEND", "DAC_READ_SEARCH", "IPC_LOCK", "IPC_OWNER", "LEASE",
	"LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "NET_ADMIN", "NET_BROADCAST", "NET_RAW", "MKNOD", "SYS_ADMIN",
	"SYS_BOOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME",
	"SYS_TTY_CONFIG", "SYSLOG", "WAKE_ALARM",
}

// capabilities are the node's that the host has; has nil: all.
func capabilities(has []string) []string {
	if has == nil {
		return nodeCapabilities
	}
	var caps []string
	for _, c := range nodeCapabilities {
		if slices.ContainsFunc(has, func(h string) bool { return strings.EqualFold(strings.TrimPrefix(strings.ToUpper(h), "CAP_"), c) }) {
			caps = append(caps, c)
		}
	}
	return caps
}

// digest of what was asked for. Two equal digests need no change.
func digest(spec any) string {
	data, err := json.Marshal(spec)
	if err != nil {
		panic(fmt.Sprintf("digest of %T: %v", spec, err)) // plain data: cannot happen
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// fixed is the digest of what of a node cannot be changed in place.
func (p *Provisioner) fixed(n provisioners.Node) string {
	n.CPUs, n.Memory = 0, 0
	identity, _ := provisioners.SplitIdentity(n.Identity)
	n.Identity = identity
	return digest(n)
}

// configs are the node as the engine wants it, on its first network. With macs the engine takes a MAC for each network.
func (p *Provisioner) configs(n provisioners.Node, macs bool) (*container.Config, *container.HostConfig, *network.NetworkingConfig) {
	labels := ownerLabels(n.Owner)
	labels[labelNode] = n.Hostname
	labels[labelSpec] = p.fixed(n)
	timeout := int(provisioners.StopTimeout.Seconds())
	config := &container.Config{
		Hostname:    n.Hostname,
		Image:       n.Image,
		Env:         []string{"container=docker"},
		Entrypoint:  []string{entrypoint},
		Cmd:         []string{},
		Labels:      labels,
		StopSignal:  "SIGRTMIN+3", // systemd's orderly halt
		StopTimeout: &timeout,
	}
	host := &container.HostConfig{
		CapAdd:       p.caps,
		CgroupnsMode: container.CgroupnsModePrivate,
		SecurityOpt:  []string{"seccomp=unconfined", "apparmor=unconfined", "label=disable"},
		// Empty, not nil: what `--security-opt systempaths=unconfined` is in the API.
		MaskedPaths:   []string{},
		ReadonlyPaths: []string{},
		Tmpfs:         map[string]string{"/run": "exec,mode=755", "/run/lock": "", "/tmp": "exec,mode=1777"},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyUnlessStopped},
		Resources: container.Resources{
			DeviceCgroupRules: []string{"a *:* rwm"},
			NanoCPUs:          int64(n.CPUs * 1e9),
			Memory:            n.Memory,
			CPUShares:         int64(n.Weight),
		},
	}
	if n.Memory > 0 {
		host.MemorySwap = -1
	}
	for _, m := range n.Mounts {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: m.Volume, Target: m.Path})
	}
	networks := &network.NetworkingConfig{}
	if len(n.NICs) > 0 {
		first := n.NICs[0]
		host.NetworkMode = container.NetworkMode(first.Network)
		networks.EndpointsConfig = map[string]*network.EndpointSettings{first.Network: endpoint(first, macs)}
		if !macs {
			config.MacAddress = first.MAC //nolint:staticcheck // the only way for engines before 25
		}
	} else {
		host.NetworkMode = network.NetworkNone
	}
	return config, host, networks
}

func endpoint(nic provisioners.NIC, macs bool) *network.EndpointSettings {
	e := &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: nic.Address.String()}}
	if macs {
		e.MacAddress = nic.MAC
	}
	return e
}
