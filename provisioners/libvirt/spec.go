package libvirt

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"math"
	"path/filepath"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/toast-cloud/toastdev/provisioners"
)

// namespace of what toastdev notes in a domain's metadata.
const namespace = "https://github.com/toast-cloud/toastdev/xmlns/domain/1"

// What a node is given that asks for nothing.
const (
	defaultCPUs   = 2
	defaultMemory = 4 << 30
	defaultDisk   = 20 << 30
)

// translations is how much an emulator may keep of the code it has translated, in MiB. QEMU's own choice is one GiB a machine.
const translations = 512

// mark is the note in a domain's metadata: whose it is, and what it was made for.
type mark struct {
	XMLName     xml.Name // libvirt hands it back without its namespace
	Environment string   `xml:"environment,attr"`
	Home        string   `xml:"home,attr"`
	Hostname    string   `xml:"hostname,attr"`
	Address     string   `xml:"address,attr"`    // on the first network: where its ssh server is
	Spec        string   `xml:"spec,attr"`       // the digest of what cannot be changed in place
	Definition  string   `xml:"definition,attr"` // the digest of all the rest of the domain
}

func (m mark) owner() provisioners.Owner {
	return provisioners.Owner{Environment: m.Environment, Home: m.Home}
}

// digest of plain data. Two equal digests need no change.
func digest(spec any) string {
	data, err := json.Marshal(spec)
	if err != nil {
		panic(fmt.Sprintf("digest of %T: %v", spec, err)) // plain data: cannot happen
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// fixed is the digest of what of a node cannot be changed in place: its disks and what its first boot made of them.
func fixed(n provisioners.Node) string {
	n.CPUs, n.Memory, n.Weight = 0, 0, 0
	identity, _ := provisioners.SplitIdentity(n.Identity)
	n.Identity = identity
	return digest(n)
}

// short is a name of something for which there is little room.
func short(of ...any) string {
	sum := sha256.Sum256(fmt.Append(nil, of...))
	return hex.EncodeToString(sum[:5])
}

// serial is what a volume's disk calls itself in a node.
func serial(volume string) string { return "td" + short("volume ", volume) }

// domainXML is a node as libvirt wants it, with its files in that folder.
func domainXML(n provisioners.Node, folder string, kvm bool) (*libvirtxml.Domain, error) {
	cpus := uint(math.Ceil(n.CPUs))
	if cpus == 0 {
		cpus = defaultCPUs
	}
	memory := n.Memory
	if memory == 0 {
		memory = defaultMemory
	}
	file := func(name, kind string) string {
		return filepath.Join(folder, part{n.Environment, name, kind}.String())
	}
	zero := uint(0)
	d := &libvirtxml.Domain{
		Type:          "qemu",
		Name:          n.Name,
		UUID:          id("domain", n.Owner, n.Name),
		Memory:        &libvirtxml.DomainMemory{Value: uint(memory >> 10), Unit: "KiB"},
		CurrentMemory: &libvirtxml.DomainCurrentMemory{Value: uint(memory >> 10), Unit: "KiB"},
		VCPU:          &libvirtxml.DomainVCPU{Value: cpus},
		OS:            &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "q35", Type: "hvm"}},
		Features:      &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}, APIC: &libvirtxml.DomainFeatureAPIC{}},
		Clock:         &libvirtxml.DomainClock{Offset: "utc"},
		OnPoweroff:    "destroy",
		OnReboot:      "restart",
		OnCrash:       "destroy",
		Devices: &libvirtxml.DomainDeviceList{
			Controllers: []libvirtxml.DomainController{{Type: "usb", Index: &zero, Model: "none"}},
			Serials: []libvirtxml.DomainSerial{{
				Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}},
				Target: &libvirtxml.DomainSerialTarget{Port: &zero},
				Log:    &libvirtxml.DomainChardevLog{File: file(n.Name, consoleLog), Append: "on"},
			}},
			RNGs: []libvirtxml.DomainRNG{{
				Model:   "virtio",
				Backend: &libvirtxml.DomainRNGBackend{Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"}},
			}},
			MemBalloon: &libvirtxml.DomainMemBalloon{Model: "virtio"},
		},
	}
	if kvm {
		d.Type = "kvm"
		d.CPU = &libvirtxml.DomainCPU{Mode: "host-passthrough"}
	} else {
		d.Features.TCG = &libvirtxml.DomainFeatureTCG{TBCache: &libvirtxml.DomainFeatureTCGTBCache{Unit: "MiB", Size: translations}}
	}

	disk := func(path, format, cache, serial string) {
		letter := 'a' + rune(len(d.Devices.Disks))
		x := libvirtxml.DomainDisk{
			Device: "disk",
			Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: format, Cache: cache},
			Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: path}},
			Target: &libvirtxml.DomainDiskTarget{Dev: "vd" + string(letter), Bus: "virtio"},
			Serial: serial,
		}
		if format == "qcow2" {
			x.Driver.Discard = "unmap"
		} else {
			x.ReadOnly = &libvirtxml.DomainDiskReadOnly{}
		}
		if letter == 'a' {
			x.Boot = &libvirtxml.DomainDeviceBoot{Order: 1}
		}
		d.Devices.Disks = append(d.Devices.Disks, x)
	}
	// A node can be made again: its flushes need not reach the host's disk. What is in a volume cannot.
	disk(file(n.Name, systemDisk), "qcow2", "unsafe", "")
	disk(file(n.Name, seedDisk), "raw", "", "")
	for _, m := range n.Mounts {
		disk(file(m.Volume, extraVolume), "qcow2", "writeback", serial(m.Volume))
	}
	for _, nic := range n.NICs {
		d.Devices.Interfaces = append(d.Devices.Interfaces, interfaceXML(n, nic))
	}

	m := mark{XMLName: xml.Name{Space: namespace, Local: "node"}, Environment: n.Environment, Home: n.Home, Hostname: n.Hostname, Spec: fixed(n)}
	if len(n.NICs) > 0 {
		m.Address = n.NICs[0].Address.String()
	}
	text, err := d.Marshal()
	if err != nil {
		return nil, err
	}
	m.Definition = digest(text)
	note, err := xml.Marshal(m)
	if err != nil {
		return nil, err
	}
	d.Metadata = &libvirtxml.DomainMetadata{XML: string(note)}
	return d, nil
}

// interfaceXML is a NIC on its network's bridge; on libvirt's network of that name when the bridge is not told.
func interfaceXML(n provisioners.Node, nic provisioners.NIC) libvirtxml.DomainInterface {
	x := libvirtxml.DomainInterface{
		MAC:    &libvirtxml.DomainInterfaceMAC{Address: nic.MAC},
		Source: &libvirtxml.DomainInterfaceSource{Bridge: &libvirtxml.DomainInterfaceSourceBridge{Bridge: nic.Bridge}},
		Target: &libvirtxml.DomainInterfaceTarget{Dev: "td-" + short(n.Home, " ", n.Name, " ", nic.MAC)},
		Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
		// Other nodes' userspace Open vSwitch reads and forwards packets raw: none may go out with a checksum that is still to be
		// filled in, or longer than the MTU.
		Driver: &libvirtxml.DomainInterfaceDriver{
			Name:  "qemu",
			Host:  &libvirtxml.DomainInterfaceDriverHost{CSum: "off", GSO: "off", TSO4: "off", TSO6: "off", ECN: "off", UFO: "off"},
			Guest: &libvirtxml.DomainInterfaceDriverGuest{CSum: "off", TSO4: "off", TSO6: "off", ECN: "off", UFO: "off"},
		},
	}
	if nic.Bridge == "" {
		x.Source = &libvirtxml.DomainInterfaceSource{Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: nic.Network}}
	}
	if nic.MTU > 0 {
		x.MTU = &libvirtxml.DomainInterfaceMTU{Size: uint(nic.MTU)}
	}
	return x
}

// domainMark is what is noted of a domain: of one that is not ours, nothing. libvirt's own error when there is no domain.
func domainMark(c *libvirt.Connect, name string) (mark, error) {
	d, err := c.LookupDomainByName(name)
	if err != nil {
		return mark{}, err
	}
	defer d.Free()
	return readMark(d)
}

func readMark(d *libvirt.Domain) (mark, error) {
	var m mark
	text, err := d.GetMetadata(libvirt.DOMAIN_METADATA_ELEMENT, namespace, libvirt.DOMAIN_AFFECT_CONFIG)
	if isCode(err, libvirt.ERR_NO_DOMAIN_METADATA) || isCode(err, libvirt.ERR_INVALID_ARG, libvirt.ERR_OPERATION_INVALID) { // a transient one has no configuration
		return m, nil
	}
	if err != nil {
		return m, err
	}
	return m, xml.Unmarshal([]byte(text), &m)
}
