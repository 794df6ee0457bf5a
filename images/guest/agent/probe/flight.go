package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// wire carries payloads to a target and back.
type wire interface {
	send(i int, payload []byte) error
	// receive is a payload that came back, and an error of the network's about one that was sent: a nil payload and a nil
	// error is something that was not for us.
	receive(buffer []byte) (payload []byte, err error)
	close() error
}

// flight sends questions at their times whether or not the ones before were answered.
func (m *measurement) flight(ctx context.Context, open func() (wire, error)) error {
	w, err := open()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	unanswered := 0
	answered := make(chan struct{}, 1) // something has changed about that
	var receiver sync.WaitGroup
	receiver.Go(func() {
		buffer := make([]byte, 1<<16)
		for {
			payload, err := w.receive(buffer)
			now := time.Now()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			mu.Lock()
			i, ours := m.number(payload)
			switch {
			case err != nil && len(m.samples) > 0: // of the last one, as far as can be known
				m.samples[len(m.samples)-1].err = err
			case ours && i < len(m.samples) && !m.samples[i].ok && bytes.Equal(payload, m.payload(i)):
				s := &m.samples[i]
				// One that took longer counts as lost: whoever asked has given up on it.
				if s.rtt = now.Sub(s.sent); s.rtt <= m.Timeout.Duration() {
					s.ok = true
					unanswered--
					m.result.BytesReceived += int64(len(payload))
				}
			}
			mu.Unlock()
			select {
			case answered <- struct{}{}:
			default:
			}
		}
	})
	m.each(ctx, func(i int) {
		payload := m.payload(i)
		mu.Lock()
		m.samples = append(m.samples, sample{sent: time.Now()})
		unanswered++
		mu.Unlock()
		err := w.send(i, payload)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			m.samples[i].err = err
			return
		}
		m.result.BytesSent += int64(len(payload))
	})
	last := m.samples[len(m.samples)-1].sent // nothing else writes this field
	expired := time.After(time.Until(last.Add(m.Timeout.Duration())))
	for waiting := true; waiting; {
		select {
		case <-answered:
			mu.Lock()
			waiting = unanswered > 0
			mu.Unlock()
		case <-expired:
			waiting = false
		}
	}
	err = w.close()
	receiver.Wait()
	return err
}

// ICMP's types (RFC 792), and the sizes of its header and of the start of a packet that an error of it carries.
const (
	echoReply   = 0
	unreachable = 3
	echoRequest = 8
	exceeded    = 11

	icmpHeader = 8
)

// icmpWire carries ICMP echos. Where a raw socket is not allowed it is a datagram socket of the kernel's own ping.
type icmpWire struct {
	net.PacketConn
	target net.Addr
	id     uint16
}

func (m *measurement) icmp() (wire, error) {
	ip := net.ParseIP(m.Target).To4()
	if ip == nil {
		return nil, fmt.Errorf("%q is not an IPv4 address", m.Target)
	}
	id := uint16(os.Getpid()) ^ uint16(time.Now().UnixNano())
	conn, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
	if err == nil {
		return &icmpWire{conn, &net.IPAddr{IP: ip}, id}, nil
	}
	if !errors.Is(err, os.ErrPermission) {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, syscall.IPPROTO_ICMP)
	if err != nil {
		return nil, fmt.Errorf("open a socket for ping: %w", err)
	}
	file := os.NewFile(uintptr(fd), "ping")
	defer file.Close()
	if conn, err = net.FilePacketConn(file); err != nil {
		return nil, fmt.Errorf("open a socket for ping: %w", err)
	}
	return &icmpWire{conn, &net.UDPAddr{IP: ip}, id}, nil
}

func (w *icmpWire) send(i int, payload []byte) error {
	packet := make([]byte, icmpHeader, icmpHeader+len(payload))
	packet[0] = echoRequest
	binary.BigEndian.PutUint16(packet[4:], w.id)
	binary.BigEndian.PutUint16(packet[6:], uint16(i+1))
	packet = append(packet, payload...)
	binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	_, err := w.WriteTo(packet, w.target)
	return err
}

func (w *icmpWire) receive(buffer []byte) ([]byte, error) {
	n, from, err := w.ReadFrom(buffer)
	if err != nil || n < icmpHeader {
		return nil, err
	}
	packet := buffer[:n]
	switch packet[0] {
	case echoReply:
		return packet[icmpHeader:], nil
	case unreachable, exceeded:
		// It carries the header of the packet that it is about, and its first 8 bytes: ours by their id.
		about := packet[icmpHeader:]
		if len(about) < 20 {
			return nil, nil
		}
		if header := int(about[0]&0xf) * 4; len(about) < header+icmpHeader || binary.BigEndian.Uint16(about[header+4:]) != w.id {
			return nil, nil
		}
		return nil, fmt.Errorf("%s says %s", from, meaning(packet[0], packet[1]))
	}
	return nil, nil
}

func (w *icmpWire) close() error { return w.Close() }

// meaning is what an ICMP error says.
func meaning(kind, code byte) string {
	if kind == exceeded {
		return "that its time to live was exceeded"
	}
	for what, codes := range map[string][]byte{"that the network": {0, 6, 11}, "that the host": {1, 7, 12}, "that the port": {3}} {
		if bytes.IndexByte(codes, code) >= 0 {
			return what + " is unreachable"
		}
	}
	if code == 4 {
		return "that the packet is too long for a link on its way"
	}
	return "that it may not be reached (ICMP code " + fmt.Sprint(code) + ")"
}

// checksum is the Internet's (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// udpWire carries datagrams, from one port as long as it is open.
type udpWire struct{ *net.UDPConn }

func (m *measurement) datagrams() (wire, error) {
	ip := net.ParseIP(m.Target).To4()
	if ip == nil {
		return nil, fmt.Errorf("%q is not an IPv4 address", m.Target)
	}
	conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: ip, Port: m.Port})
	if err != nil {
		return nil, err
	}
	return udpWire{conn}, nil
}

func (w udpWire) send(_ int, payload []byte) error {
	_, err := w.Write(payload)
	return plain(err)
}

func (w udpWire) receive(buffer []byte) ([]byte, error) {
	n, err := w.Read(buffer)
	return buffer[:n], plain(err)
}

func (w udpWire) close() error { return w.Close() }
