package evidence

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// lab is a capture made by hand: frames put down at points, a microsecond after each other.
type lab struct {
	t       *testing.T
	capture *Capture
	clock   time.Time
	files   map[string]*os.File
	writers map[string]*pcapgo.Writer
}

func newLab(t *testing.T, points ...Point) *lab {
	t.Helper()
	l := &lab{t: t, clock: time.Unix(1_700_000_000, 0), files: map[string]*os.File{}, writers: map[string]*pcapgo.Writer{},
		capture: &Capture{Name: "lab", Dir: t.TempDir(), Points: points, Addresses: map[string]string{}}}
	taken := map[string]bool{}
	for i := range l.capture.Points {
		p := &l.capture.Points[i]
		p.File = fileName(taken, p.Node, p.Interface)
		f, err := os.Create(filepath.Join(l.capture.Dir, p.File))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		w := pcapgo.NewWriterNanos(f)
		if err := w.WriteFileHeader(largest, layers.LinkTypeEthernet); err != nil {
			t.Fatal(err)
		}
		l.files[p.File], l.writers[p.File] = f, w
	}
	return l
}

// point is the point of a node and an interface.
func (l *lab) point(node, name string) *Point {
	l.t.Helper()
	for i := range l.capture.Points {
		if p := &l.capture.Points[i]; p.Node == node && p.Name == name {
			return p
		}
	}
	l.t.Fatalf("no point %s %s", node, name)
	return nil
}

// see puts a frame down at a point.
func (l *lab) see(node, name string, frame []gopacket.SerializableLayer) {
	l.t.Helper()
	p := l.point(node, name)
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, frame...); err != nil {
		l.t.Fatal(err)
	}
	l.clock = l.clock.Add(time.Microsecond)
	data := buffer.Bytes()
	info := gopacket.CaptureInfo{Timestamp: l.clock, CaptureLength: len(data), Length: len(data)}
	if err := l.writers[p.File].WritePacket(info, data); err != nil {
		l.t.Fatal(err)
	}
	p.Frames++
}

// path is the path between two lists of addresses.
func (l *lab) path(from, to []netip.Addr) *Path {
	l.t.Helper()
	p, err := l.capture.Path(from, to)
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, t := range texts {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}

func mac(text string) net.HardwareAddr {
	m, err := net.ParseMAC(text)
	if err != nil {
		panic(err)
	}
	return m
}

func ethernet(from, to string, kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: mac(from), DstMAC: mac(to), EthernetType: kind}
}

func ip(from, to string, protocol layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: net.ParseIP(from).To4(), DstIP: net.ParseIP(to).To4()}
}

// ping is an echo request, or with answer its answer; the payload's marker is one of its own for each number.
func ping(fromMAC, toMAC, from, to string, number int, answer bool) []gopacket.SerializableLayer {
	kind := uint8(layers.ICMPv4TypeEchoRequest)
	if answer {
		kind = layers.ICMPv4TypeEchoReply
	}
	return []gopacket.SerializableLayer{
		ethernet(fromMAC, toMAC, layers.EthernetTypeIPv4), ip(from, to, layers.IPProtocolICMPv4),
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0), Id: 7, Seq: uint16(number)},
		gopacket.Payload(fmt.Sprintf("toastdev marker %04d", number)),
	}
}

// datagram is UDP with a payload.
func datagram(fromMAC, toMAC, from, to string, fromPort, toPort int, payload string) []gopacket.SerializableLayer {
	header := ip(from, to, layers.IPProtocolUDP)
	udp := &layers.UDP{SrcPort: layers.UDPPort(fromPort), DstPort: layers.UDPPort(toPort)}
	if err := udp.SetNetworkLayerForChecksum(header); err != nil {
		panic(err)
	}
	return []gopacket.SerializableLayer{ethernet(fromMAC, toMAC, layers.EthernetTypeIPv4), header, udp, gopacket.Payload(payload)}
}

// segment is TCP without a payload.
func segment(fromMAC, toMAC, from, to string, identification uint16, sequence uint32, syn, ack bool) []gopacket.SerializableLayer {
	header := ip(from, to, layers.IPProtocolTCP)
	header.Id = identification
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 80, Seq: sequence, SYN: syn, ACK: ack, Window: 1000}
	if err := tcp.SetNetworkLayerForChecksum(header); err != nil {
		panic(err)
	}
	return []gopacket.SerializableLayer{ethernet(fromMAC, toMAC, layers.EthernetTypeIPv4), header, tcp}
}

// vxlan is a frame in a tunnel.
func vxlan(vni int, from, to string, frame []gopacket.SerializableLayer) []gopacket.SerializableLayer {
	header := ip(from, to, layers.IPProtocolUDP)
	udp := &layers.UDP{SrcPort: 50000, DstPort: vxlanPort}
	if err := udp.SetNetworkLayerForChecksum(header); err != nil {
		panic(err)
	}
	return append([]gopacket.SerializableLayer{
		ethernet("02:42:ac:1e:01:00", "02:42:ac:1e:01:01", layers.EthernetTypeIPv4), header, udp,
		&layers.VXLAN{ValidIDFlag: true, VNI: uint32(vni)},
	}, frame...)
}

// tagged is a frame with a VLAN tag.
func tagged(id int, frame []gopacket.SerializableLayer) []gopacket.SerializableLayer {
	outer := *frame[0].(*layers.Ethernet)
	kind := outer.EthernetType
	outer.EthernetType = layers.EthernetTypeDot1Q
	return append([]gopacket.SerializableLayer{&outer, &layers.Dot1Q{VLANIdentifier: uint16(id), Type: kind}}, frame[1:]...)
}
