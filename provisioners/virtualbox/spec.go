package virtualbox

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/toast-cloud/toastdev/provisioners"
)

const (
	// maxAdapters is how many NICs a machine of the chipset PIIX3 has.
	maxAdapters = 8
	// controller is an IDE one: the cloud kernel has a driver for it, and none for AHCI; the BIOS boots from it in every
	// version. It has four places.
	controller = "ide"
	maxDisks   = 4
	// defaultCPUs and defaultMemory are of a node without limits: a machine must have some.
	defaultCPUs   = 2
	defaultMemory = 3 << 30 // bytes
)

// Keys of a machine's extra data.
const (
	keyEnvironment = "toastdev.environment"
	keyHome        = "toastdev.home"
	keyNode        = "toastdev.node"    // its host name
	keyAddress     = "toastdev.address" // where its ssh server listens
	keySpec        = "toastdev.spec"    // the digest of what was asked for and cannot be changed in place; the last to be set
)

// adapter is a NIC in VirtualBox's words.
type adapter struct {
	as      string // bridged, intnet, natnetwork
	network string // the host's interface, or the network's name
	mac     string // with colons
}

// design is a node with all that is needed to make its machine.
type design struct {
	node     provisioners.Node
	adapters []adapter
	id       string // its UUID
	parent   string // the folder that its folder is in
	folder   string // its own
	base     string // the image's disk
	volumes  []volume
	nested   bool // the host lets its machines virtualise
}

// volume is a Volume and the file that it is in.
type volume struct{ name, file string }

// serial is the number that a volume's disk has, by which the node knows it: IDE leaves room for 20 letters.
func serial(volume string) string { return "td" + digest(volume) }

// device is what the node's udev calls a volume's disk.
func device(volume string) string { return "/dev/disk/by-id/ata-VBOX_HARDDISK_" + serial(volume) }

// serialKey is where the serial number of the disk in a place of the controller is set, in the extra data of a machine.
func serialKey(place int) string {
	return "VBoxInternal/Devices/piix3ide/0/Config/" + []string{"PrimaryMaster", "PrimarySlave", "SecondaryMaster", "SecondarySlave"}[place] + "/SerialNumber"
}

func (d design) disk() string { return d.folder + "/disk.vdi" }
func (d design) seed() string { return d.folder + "/seed.vdi" }

func consoleFile(folder string) string { return folder + "/console.log" }

// fixed is the digest of what of a node cannot be changed in place.
func fixed(n provisioners.Node, adapters []adapter) string {
	n.CPUs, n.Memory, n.Weight = 0, 0, 0
	n.Identity, _ = provisioners.SplitIdentity(n.Identity)
	as := []string{}
	for _, a := range adapters {
		as = append(as, a.as+" "+a.network)
	}
	return digest([]any{n, as})
}

// machine makes a machine without disks.
func (d design) machine() [][]string {
	modify := []string{"modifyvm", d.id, "--ioapic", "on", "--rtcuseutc", "on",
		"--boot1", "disk", "--boot2", "none", "--boot3", "none", "--boot4", "none",
		"--uart1", "0x3F8", "4", "--uartmode1", "file", consoleFile(d.folder)}
	if d.nested {
		modify = append(modify, "--nested-hw-virt", "on")
	}
	modify = append(modify, sizes(d.node)...)
	for i, a := range d.adapters {
		number := strconv.Itoa(i + 1)
		modify = append(modify, "--nic"+number, a.as)
		switch a.as {
		case bridged:
			modify = append(modify, "--bridgeadapter"+number, a.network)
		case intnet:
			modify = append(modify, "--intnet"+number, a.network)
		case natnet:
			modify = append(modify, "--nat-network"+number, a.network)
		}
		// The node's switch sends and answers for others' MACs: routers', instances'.
		modify = append(modify, "--nictype"+number, "virtio", "--nicpromisc"+number, "allow-all",
			"--macaddress"+number, plainMAC(a.mac), "--cableconnected"+number, "on")
	}
	return [][]string{
		{"createvm", "--name", d.node.Name, "--uuid", d.id, "--basefolder", d.parent, "--ostype", "Debian_64", "--register"},
		d.label(keyEnvironment, d.node.Environment),
		d.label(keyHome, d.node.Home),
		d.label(keyNode, d.node.Hostname),
		d.label(keyAddress, d.address()),
		modify,
		{"storagectl", d.id, "--name", controller, "--add", "ide", "--controller", "PIIX4", "--bootable", "on", "--hostiocache", "on"},
	}
}

func (d design) address() string {
	if len(d.node.NICs) == 0 {
		return ""
	}
	return d.node.NICs[0].Address.String()
}

func (d design) label(key, value string) []string { return []string{"setextradata", d.id, key, value} }

// link makes the node's disk as one linked to its base. Without autoreset off it would be empty again at every start.
func (d design) link() [][]string {
	return [][]string{
		{"createmedium", "disk", "--filename", d.disk(), "--diffparent", d.base},
		{"modifymedium", "disk", d.disk(), "--autoreset", "off"},
		d.attach(0, d.disk()),
	}
}

// writeSeed makes a disk of the bytes on its stdin.
func (d design) writeSeed(size int) []string {
	return []string{"convertfromraw", "stdin", d.seed(), strconv.Itoa(size), "--format", "VDI"}
}

// rest attaches the seed and the volumes, and declares the machine whole.
func (d design) rest() [][]string {
	commands := [][]string{d.attach(1, d.seed())}
	for i, v := range d.volumes {
		commands = append(commands, d.attach(2+i, v.file), d.label(serialKey(2+i), serial(v.name)))
	}
	return append(commands, d.label(keySpec, fixed(d.node, d.adapters)))
}

// attach puts a disk in one of the controller's places.
func (d design) attach(place int, file string) []string { return attachArgs(d.id, place, file) }

// attachArgs puts a disk in a place of a machine; "none" takes one out.
func attachArgs(id string, place int, file string) []string {
	return []string{"storageattach", id, "--storagectl", controller, "--port", strconv.Itoa(place / 2), "--device", strconv.Itoa(place % 2),
		"--type", "hdd", "--medium", file}
}

// sizes are the arguments of modifyvm for what a node has of the host.
func sizes(n provisioners.Node) []string {
	cpus, memory := wanted(n)
	return []string{"--cpus", strconv.Itoa(cpus), "--memory", strconv.Itoa(memory)}
}

// wanted is a node's processors, whole ones, and its memory in MiB.
func wanted(n provisioners.Node) (cpus, memory int) {
	cpus, memory = int(math.Ceil(n.CPUs)), int(n.Memory>>20)
	if cpus == 0 {
		cpus = defaultCPUs
	}
	if memory == 0 {
		memory = defaultMemory >> 20
	}
	return cpus, memory
}

// plainMAC is a MAC as VirtualBox writes it: 024200000001.
func plainMAC(mac string) string { return strings.ToUpper(strings.ReplaceAll(mac, ":", "")) }

func resizeArgs(file string, bytes int64) []string {
	return []string{"modifymedium", "disk", file, "--resizebyte", strconv.FormatInt(bytes, 10)}
}

func volumeArgs(file string, bytes int64) []string {
	return []string{"createmedium", "disk", "--filename", file, "--sizebyte", strconv.FormatInt(bytes, 10), "--format", "VDI"}
}

func natNetworkArgs(n provisioners.Network) []string {
	return []string{"natnetwork", "add", "--netname", n.Name, "--network", n.Subnet.Masked().String(), "--enable", "--dhcp", "off", "--ipv6", "off"}
}

func forwardArgs(network string, f forward) []string {
	return []string{"natnetwork", "modify", "--netname", network, "--port-forward-4", fmt.Sprint(f)}
}
