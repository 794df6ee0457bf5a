package docker

import (
	"context"
	"net"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/toast-cloud/toastdev/provisioners"
)

// Prepare turns the transmit checksum offload of the networks' bridges off: Open vSwitch's userspace datapath in a node
// reads packets from the host as they are, and a checksum that was left to the hardware never gets filled in.
func (p *Provisioner) Prepare(ctx context.Context, networks []provisioners.Network, image string) error {
	var bridges []string
	var owner provisioners.Owner
	for _, n := range networks {
		if !n.Internal && offloads(n.Bridge) {
			bridges, owner = append(bridges, n.Bridge), n.Owner
		}
	}
	if len(bridges) == 0 {
		return nil
	}
	return p.onHost(ctx, owner, image, owner.Environment+"-offload", "turn off transmit checksums on "+strings.Join(bridges, ", "),
		`for bridge; do ethtool -K "$bridge" tx off || exit; done`, bridges...)
}

// offloads asks the kernel, which answers everybody. It says yes when it cannot tell: the interface may be on the host of
// a remote engine.
func offloads(bridge string) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	if _, err := net.InterfaceByName(bridge); err != nil {
		return true
	}
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_GTXCSUM}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], bridge)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	return errno != 0 || value.data != 0
}
