package libvirt

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os/exec"
	"time"
)

// jump connects to a node on another host's networks by way of that host, by the same ssh program and settings that libvirt's
// own qemu+ssh uses.
func jump(ctx context.Context, daemon *url.URL, to netip.Addr) (net.Conn, error) {
	args := []string{"-o", "BatchMode=yes", "-W", netip.AddrPortFrom(to, 22).String()}
	if port := daemon.Port(); port != "" {
		args = append(args, "-p", port)
	}
	host := daemon.Hostname()
	if name := daemon.User.Username(); name != "" {
		host = name + "@" + host
	}
	cmd := exec.Command("ssh", append(args, "--", host)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("ssh to the daemon's host %s: %w", host, err)
	}
	return &tunnel{Reader: out, WriteCloser: in, cmd: cmd, to: net.TCPAddrFromAddrPort(netip.AddrPortFrom(to, 22))}, nil
}

// tunnel is a program's stdin and stdout as a connection. Deadlines are not kept: closing it is what ends a wait.
type tunnel struct {
	io.Reader
	io.WriteCloser
	cmd *exec.Cmd
	to  net.Addr
}

func (t *tunnel) Close() error {
	_ = t.WriteCloser.Close()
	_ = t.cmd.Process.Kill()
	go t.cmd.Wait()
	return nil
}

func (t *tunnel) LocalAddr() net.Addr              { return t.to }
func (t *tunnel) RemoteAddr() net.Addr             { return t.to }
func (t *tunnel) SetDeadline(time.Time) error      { return nil }
func (t *tunnel) SetReadDeadline(time.Time) error  { return nil }
func (t *tunnel) SetWriteDeadline(time.Time) error { return nil }
