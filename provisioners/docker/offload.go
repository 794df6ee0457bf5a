package docker

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"unsafe"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"golang.org/x/sys/unix"

	"github.com/toast-cloud/toastdev/provisioners"
)

// Prepare turns the transmit checksum offload of the networks' bridges off: Open vSwitch's userspace datapath in a node
// reads packets from the host as they are, and a checksum that was left to the hardware never gets filled in. It takes a
// container in the host's network, as the user may be no more than a member of the group docker.
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
	step := "turn off transmit checksums on " + strings.Join(bridges, ", ")
	name := owner.Environment + "-offload"
	if err := p.DeleteNode(ctx, owner, name); err != nil {
		return err
	}
	made, err := p.client.ContainerCreate(ctx, &container.Config{
		Image:      image,
		Entrypoint: []string{"sh", "-c", `for bridge; do ethtool -K "$bridge" tx off || exit; done`, "offload"},
		Cmd:        bridges,
		Labels:     ownerLabels(owner),
	}, &container.HostConfig{NetworkMode: "host", CapAdd: []string{"NET_ADMIN"}}, nil, nil, name)
	if err != nil {
		return p.fail(err, "%s", step)
	}
	defer func() {
		if err := p.DeleteNode(context.WithoutCancel(ctx), owner, name); err != nil {
			p.log.Warn("a helper container stays behind", "container", name, "error", err)
		}
	}()
	ended, failed := p.client.ContainerWait(ctx, made.ID, container.WaitConditionNextExit)
	if err := p.client.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return p.fail(err, "%s", step)
	}
	select {
	case err := <-failed:
		return p.fail(err, "%s", step)
	case end := <-ended:
		if end.StatusCode == 0 {
			return nil
		}
		var out bytes.Buffer
		if logs, err := p.client.ContainerLogs(ctx, made.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true}); err == nil {
			_, _ = stdcopy.StdCopy(&out, &out, logs)
			logs.Close()
		}
		return fmt.Errorf("%s: exit code %d: %s", step, end.StatusCode, strings.TrimSpace(out.String()))
	}
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
