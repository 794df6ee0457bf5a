package evidence

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// frame is what of a captured frame says which packet it carries, and how. Two of the same packet are equal when it was
// not routed, translated or encapsulated in between.
type frame struct {
	encapsulation    string // vxlan, vlan; empty: none
	id               int
	outerSource      netip.Addr
	outerDestination netip.Addr
	sourceMAC        string // within the encapsulation
	destinationMAC   string
	source           netip.Addr
	destination      netip.Addr
}

// packet is what stays the same of a packet however it is routed, translated and encapsulated: a digest of its payload.
// ICMP's sequence number is part of it, TCP's numbers, flags and IP identification too: a payload may be empty, and be
// sent again.
type packet [sha256.Size]byte

// frames calls see with every frame of a pcap file, in its order, and returns how many there are. Its error says what is
// wrong with the file; the frames before that were seen.
func frames(file string, see func(at time.Time, data []byte)) (int, error) {
	name := filepath.Base(file)
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%s is not there", name)
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := read(f, see)
	if err != nil {
		return n, fmt.Errorf("%s %w", name, err)
	}
	return n, nil
}

func read(from io.Reader, see func(at time.Time, data []byte)) (int, error) {
	r, err := pcapgo.NewReader(from)
	switch {
	case errors.Is(err, io.EOF):
		return 0, errors.New("is empty")
	case err != nil:
		return 0, fmt.Errorf("is no pcap file: %w", err)
	case r.LinkType() != layers.LinkTypeEthernet:
		return 0, fmt.Errorf("has frames of %s, not of Ethernet", r.LinkType())
	}
	for n := 0; ; n++ {
		data, info, err := r.ReadPacketData()
		switch {
		case err == nil:
			see(info.Timestamp, data)
		case errors.Is(err, io.EOF) && len(data) == 0:
			return n, nil
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			return n, fmt.Errorf("is cut off after %d frames", n)
		default:
			return n, fmt.Errorf("is broken after %d frames: %w", n, err)
		}
	}
}

// countFrames is how many frames a pcap stream has.
func countFrames(from io.Reader) (int, error) { return read(from, func(time.Time, []byte) {}) }

// insides is a pcap file of the frames that VXLAN carries in another.
func insides(file string) ([]byte, error) {
	var out bytes.Buffer
	w := pcapgo.NewWriterNanos(&out)
	if err := w.WriteFileHeader(largest, layers.LinkTypeEthernet); err != nil {
		return nil, err
	}
	_, err := frames(file, func(at time.Time, data []byte) {
		carrier := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
		if vxlan := carrier.Layer(layers.LayerTypeVXLAN); vxlan != nil {
			inner := vxlan.LayerPayload()
			_ = w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(inner), Length: len(inner)}, inner) // a buffer takes all
		}
	})
	return out.Bytes(), err
}

// decode takes the VXLAN header or VLAN tag off a frame. Of a frame that carries no IP packet it says no.
func decode(data []byte) (frame, packet, bool) {
	var f frame
	p, ok := f.ethernet(data)
	return f, p, ok
}

func (f *frame) ethernet(data []byte) (packet, bool) {
	var ethernet layers.Ethernet
	if ethernet.DecodeFromBytes(data, gopacket.NilDecodeFeedback) != nil {
		return packet{}, false
	}
	f.sourceMAC, f.destinationMAC = ethernet.SrcMAC.String(), ethernet.DstMAC.String()
	kind, payload := ethernet.EthernetType, ethernet.Payload
	for kind == layers.EthernetTypeDot1Q || kind == layers.EthernetTypeQinQ {
		var tag layers.Dot1Q
		if tag.DecodeFromBytes(payload, gopacket.NilDecodeFeedback) != nil {
			return packet{}, false
		}
		if f.encapsulation == "" {
			f.encapsulation, f.id = "vlan", int(tag.VLANIdentifier)
		}
		kind, payload = tag.Type, tag.Payload
	}
	switch kind {
	case layers.EthernetTypeIPv4:
		var ip layers.IPv4
		if ip.DecodeFromBytes(payload, gopacket.NilDecodeFeedback) != nil {
			return packet{}, false
		}
		f.source, f.destination = address(ip.SrcIP), address(ip.DstIP)
		if ip.FragOffset != 0 || ip.Flags&layers.IPv4MoreFragments != 0 {
			return fragment(ip), true
		}
		return f.transport(ip.Protocol, ip.Id, ip.Payload)
	case layers.EthernetTypeIPv6:
		var ip layers.IPv6
		if ip.DecodeFromBytes(payload, gopacket.NilDecodeFeedback) != nil {
			return packet{}, false
		}
		f.source, f.destination = address(ip.SrcIP), address(ip.DstIP)
		return f.transport(ip.NextHeader, 0, ip.Payload)
	}
	return packet{}, false
}

// vxlanPort is VXLAN's (RFC 7348), which Neutron uses too.
const vxlanPort = 4789

func (f *frame) transport(protocol layers.IPProtocol, identification uint16, data []byte) (packet, bool) {
	switch protocol {
	case layers.IPProtocolUDP:
		var udp layers.UDP
		if udp.DecodeFromBytes(data, gopacket.NilDecodeFeedback) != nil {
			break
		}
		if udp.DstPort == vxlanPort && f.encapsulation != "vxlan" {
			var vxlan layers.VXLAN
			if vxlan.DecodeFromBytes(udp.Payload, gopacket.NilDecodeFeedback) != nil {
				return packet{}, false
			}
			f.encapsulation, f.id = "vxlan", int(vxlan.VNI)
			f.outerSource, f.outerDestination = f.source, f.destination
			return f.ethernet(vxlan.Payload)
		}
		return digest("udp", nil, udp.Payload), true
	case layers.IPProtocolTCP:
		var tcp layers.TCP
		if tcp.DecodeFromBytes(data, gopacket.NilDecodeFeedback) != nil {
			break
		}
		// Bytes 4 to 13: sequence, acknowledgement, offset and flags.
		return digest(fmt.Sprint("tcp ", identification), data[4:14], tcp.Payload), true
	case layers.IPProtocolICMPv4:
		var icmp layers.ICMPv4
		if icmp.DecodeFromBytes(data, gopacket.NilDecodeFeedback) != nil {
			break
		}
		return digest(fmt.Sprint("icmp ", icmp.TypeCode, icmp.Seq), nil, icmp.Payload), true
	case layers.IPProtocolICMPv6:
		// A type, a code, two bytes of checksum and two of an identifier, then the sequence number.
		if len(data) >= 8 {
			return digest("icmp6", data[:2], data[6:]), true
		}
	}
	return digest(protocol.String(), nil, data), true
}

// fragment is a piece of a packet. The first has the ports and a checksum, which a translation changes: eight bytes of UDP
// and of ICMP.
func fragment(ip layers.IPv4) packet {
	payload := ip.Payload
	if ip.FragOffset == 0 && len(payload) > 8 {
		payload = payload[8:]
	}
	return digest(fmt.Sprint("fragment ", ip.Protocol, ip.Id, ip.FragOffset), nil, payload)
}

func digest(kind string, header, payload []byte) packet {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%x\n", kind, header)
	h.Write(payload)
	return packet(h.Sum(nil))
}

func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
