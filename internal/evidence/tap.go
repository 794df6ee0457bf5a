package evidence

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// tap captures on an interface of this host, which may have no tcpdump, into a pcap file.
type tap struct {
	socket int
	mac    string // the interface's
	file   *os.File
	out    *pcapgo.Writer
	until  atomic.Pointer[time.Time] // frames after it are not wanted
	done   sync.WaitGroup
	err    error
}

// allProtocols is ETH_P_ALL in the network's byte order.
const allProtocols = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8

// wake is how long a tap may take to notice that it is to end.
const wake = 50 * time.Millisecond

// openTap starts a capture; the namespace is a path, empty for the host's own.
func openTap(namespace, name, file string) (*tap, error) {
	socket, mac, err := packetSocket(namespace, name)
	if err != nil {
		return nil, err
	}
	f, err := os.Create(file)
	if err != nil {
		unix.Close(socket)
		return nil, err
	}
	t := &tap{socket: socket, mac: mac, file: f, out: pcapgo.NewWriterNanos(f)}
	if err := t.out.WriteFileHeader(largest, layers.LinkTypeEthernet); err != nil {
		return nil, errors.Join(err, f.Close(), unix.Close(socket))
	}
	t.done.Go(t.run)
	return t, nil
}

// largest is the longest frame that is captured: longer than any.
const largest = 1 << 18

// packetSocket is a socket that receives all frames of an interface. A socket stays in the namespace that it was made in.
func packetSocket(namespace, name string) (socket int, mac string, err error) {
	if namespace != "" {
		runtime.LockOSThread()
		own, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			return -1, "", err
		}
		defer own.Close()
		theirs, err := netns.GetFromPath(namespace)
		if err != nil {
			runtime.UnlockOSThread()
			return -1, "", fmt.Errorf("namespace %s: %w", namespace, err)
		}
		defer theirs.Close()
		if err := netns.Set(theirs); err != nil {
			runtime.UnlockOSThread()
			return -1, "", fmt.Errorf("namespace %s: %w", namespace, err)
		}
		defer func() {
			// A thread that cannot go back is not used for anything else: it ends with its goroutine, locked.
			if netns.Set(own) == nil {
				runtime.UnlockOSThread()
			}
		}()
	}
	found, err := net.InterfaceByName(name)
	if err != nil {
		return -1, "", fmt.Errorf("interface %s: %w", name, err)
	}
	socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, allProtocols)
	if err != nil {
		return -1, "", fmt.Errorf("open a packet socket: %w", err)
	}
	period := unix.NsecToTimeval(wake.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20),
		unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &period),
		unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: allProtocols, Ifindex: found.Index}))
	if err != nil {
		unix.Close(socket)
		return -1, "", fmt.Errorf("listen on %s: %w", name, err)
	}
	return socket, found.HardwareAddr.String(), nil
}

// run writes frames until the tap is to end and none is left.
func (t *tap) run() {
	buffer, control := make([]byte, largest), make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{}))))
	for {
		n, m, _, _, err := unix.Recvmsg(t.socket, buffer, control, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			if t.until.Load() != nil {
				return
			}
			continue
		case err != nil:
			t.err = fmt.Errorf("capture ended: %w", err)
			return
		}
		info := gopacket.CaptureInfo{Timestamp: stamp(control[:m]), CaptureLength: n, Length: n}
		if until := t.until.Load(); until != nil && info.Timestamp.After(*until) {
			return
		}
		if t.err = t.out.WritePacket(info, buffer[:n]); t.err != nil {
			return
		}
	}
}

// stamp is when the kernel saw a frame.
func stamp(control []byte) time.Time {
	messages, _ := unix.ParseSocketControlMessage(control)
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			return time.Unix((*unix.Timespec)(unsafe.Pointer(&m.Data[0])).Unix())
		}
	}
	return time.Now()
}

// close ends the capture and returns how many frames it lost.
func (t *tap) close() (dropped int, err error) {
	now := time.Now()
	t.until.Store(&now)
	t.done.Wait()
	if stats, err := unix.GetsockoptTpacketStats(t.socket, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		dropped = int(stats.Drops)
	}
	return dropped, errors.Join(t.err, unix.Close(t.socket), t.file.Close())
}
