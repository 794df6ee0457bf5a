package virtualbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

const (
	// callTimeout is for one command; copying a disk and merging a snapshot are the long ones.
	callTimeout = 10 * time.Minute
	// lockTimeout is how long a machine that was just switched off may be locked by what is left of its process.
	lockTimeout = 30 * time.Second
)

// failure is VBoxManage's own word on why it did not do something.
type failure struct {
	args   []string
	stderr string
	code   int
}

func (f *failure) Error() string {
	var reasons []string
	for line := range strings.Lines(f.stderr) {
		if _, reason, ok := strings.Cut(line, "error: "); ok && !strings.HasPrefix(reason, "Context: ") && !strings.HasPrefix(reason, "Details: ") {
			reasons = append(reasons, strings.TrimSpace(reason))
		}
	}
	if len(reasons) == 0 {
		reasons = node.LastLines(f.stderr, 3)
	}
	return fmt.Sprintf("VBoxManage %s: exit code %d: %s", strings.Join(f.args[:min(2, len(f.args))], " "), f.code, strings.Join(reasons, "; "))
}

// says tells whether VBoxManage failed with one of these words.
func says(err error, words ...string) bool {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		return false
	}
	for _, word := range words {
		if strings.Contains(f.stderr, word) {
			return true
		}
	}
	return false
}

// command runs the program. Its words are English whatever the user's language is.
func (p *Provisioner) command(ctx context.Context, stdin []byte, args []string) (string, error) {
	within, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	cmd := exec.CommandContext(within, p.program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	stdout, stderr, err := outputs(cmd)
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("VBoxManage %s: %w", args[0], ctx.Err())
	case within.Err() != nil:
		return "", fault.New(fault.Timeout, "waited %s for VBoxManage %s", callTimeout, strings.Join(args, " ")).
			WithRemedy("see what holds VirtualBox up: VBoxManage list runningvms, and VBoxSVC.log in its configuration's folder")
	case exited:
		return stdout, &failure{args: args, stderr: stderr, code: exit.ExitCode()}
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return "", fault.New(fault.Missing, "there is no VirtualBox: %w", err).
			WithRemedy("install VirtualBox, a version from %s to %s, so that %s is found by PATH", oldest, newest, p.program)
	case err != nil:
		return "", fmt.Errorf("run %s: %w", p.program, err)
	}
	return stdout, nil
}

// outputs runs a command and returns what it wrote. By way of files: a pipe would be kept open by VBoxSVC, which the first
// command starts, and which outlives it.
func outputs(cmd *exec.Cmd) (stdout, stderr string, err error) {
	dir, err := os.MkdirTemp("", "toastdev-vboxmanage-")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(dir)
	out, err := os.Create(filepath.Join(dir, "stdout"))
	if err != nil {
		return "", "", err
	}
	defer out.Close()
	errs, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		return "", "", err
	}
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	failed := cmd.Run()
	said, err := os.ReadFile(out.Name())
	if err != nil {
		return "", "", err
	}
	complained, err := os.ReadFile(errs.Name())
	if err != nil {
		return "", "", err
	}
	return string(said), string(complained), failed
}

// run runs a command, once more when its machine is still locked by a process that is about to end.
func (p *Provisioner) run(ctx context.Context, args ...string) (string, error) {
	return p.feed(ctx, nil, args...)
}

// feed is run with bytes on the command's stdin.
func (p *Provisioner) feed(ctx context.Context, stdin []byte, args ...string) (string, error) {
	deadline := time.Now().Add(lockTimeout)
	for {
		out, err := p.exec(ctx, stdin, args)
		if !says(err, "while it is locked", "already locked", "being locked", "being unlocked") || time.Now().After(deadline) {
			return out, err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(node.Poll):
		}
	}
}

// runAll runs commands until one fails.
func (p *Provisioner) runAll(ctx context.Context, commands [][]string) error {
	for _, args := range commands {
		if _, err := p.run(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

type version struct{ major, minor int }

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

func (v version) less(w version) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

func (p *Provisioner) version(ctx context.Context) (version, error) {
	out, err := p.run(ctx, "--version")
	if err != nil {
		return version{}, err
	}
	return parseVersion(out)
}

var versionLine = regexp.MustCompile(`^(\d+)\.(\d+)\.\d+\S*$`)

// parseVersion reads `VBoxManage --version`: 7.2.22_Debianr175245. Warnings, of a driver that is not loaded, may precede it.
func parseVersion(out string) (version, error) {
	lines := node.LastLines(out, 1)
	if len(lines) == 1 {
		if m := versionLine.FindStringSubmatch(strings.TrimSpace(lines[0])); m != nil {
			major, _ := strconv.Atoi(m[1])
			minor, _ := strconv.Atoi(m[2])
			return version{major, minor}, nil
		}
	}
	return version{}, garbled("--version", 1, strings.Join(lines, ""))
}

// garbled is a line of VBoxManage's that we do not understand: better no machine than a wrong one.
func garbled(command string, number int, line string) error {
	e := fault.New(fault.Unsupported, "VBoxManage %s: line %d is not understood: %q", command, number, line)
	return e.WithRemedy("report it with the version (VBoxManage --version)")
}

// info is `showvminfo --machinereadable`.
type info map[string]string

func (p *Provisioner) info(ctx context.Context, id string) (info, error) {
	out, err := p.run(ctx, "showvminfo", id, "--machinereadable")
	if err != nil {
		return nil, err
	}
	return parseInfo(out)
}

var (
	// A key may have spaces (GuestAdditionsFacility_VirtualBox Base Driver); the keys of disks are quoted.
	infoLine = regexp.MustCompile(`^(?:"([^"]+)"|([A-Za-z][\w ./()\-]*))=(.*)$`)
	// bareLine is what is no assignment: a heading of a screen's recording settings, and in 7.0 a word on encryption.
	bareLine = regexp.MustCompile(`^(?: ?rec_screen\d+|Encryption: .*)$`)
	bareWord = regexp.MustCompile(`^[\w.,:+\- ]*$`)
	// A running machine's screen has a tail behind the quotes: VideoMode="720,400,0"@0,0 1.
	videoMode = regexp.MustCompile(`^"[\d,]+"@-?\d+,-?\d+ \d+$`)
)

// parseInfo reads key=value, key="value", "key"="value". A quoted value may go over several lines (a description does).
// Since 7.0 VirtualBox puts a backslash before quotes and backslashes in values; no value that we use has any.
func parseInfo(out string) (info, error) {
	i := info{}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	for at := 0; at < len(lines); at++ {
		line, number := strings.TrimSuffix(lines[at], "\r"), at+1
		if line == "" || bareLine.MatchString(line) {
			continue
		}
		m := infoLine.FindStringSubmatch(line)
		if m == nil {
			return nil, garbled("showvminfo", number, line)
		}
		key, value := m[1]+m[2], m[3]
		switch {
		case !strings.HasPrefix(value, `"`):
			if !bareWord.MatchString(value) {
				return nil, garbled("showvminfo", number, line)
			}
		case key == "VideoMode" && videoMode.MatchString(value):
			value = value[1:strings.LastIndex(value, `"`)]
		default:
			for !closed(value) {
				if at++; at == len(lines) {
					return nil, garbled("showvminfo", number, line)
				}
				value += "\n" + strings.TrimSuffix(lines[at], "\r")
			}
			value = value[1 : len(value)-1]
		}
		if _, twice := i[key]; twice && !strings.HasPrefix(key, "rec_screen") {
			return nil, garbled("showvminfo", number, line)
		}
		i[key] = value
	}
	for _, key := range []string{"name", "UUID", "VMState"} {
		if i[key] == "" {
			return nil, fault.New(fault.Unsupported, "VBoxManage showvminfo says no %s", key)
		}
	}
	return i, nil
}

// closed says whether a value that begins with a quote ends with one.
func closed(value string) bool {
	if len(value) < 2 || !strings.HasSuffix(value, `"`) {
		return false
	}
	body := value[1 : len(value)-1]
	return (len(body)-len(strings.TrimRight(body, `\`)))%2 == 0
}

// machine is a line of `list vms`.
type machine struct{ name, id string }

var machineLine = regexp.MustCompile(`^"(.+)" \{([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}$`)

func (p *Provisioner) machines(ctx context.Context) ([]machine, error) {
	out, err := p.run(ctx, "list", "vms")
	if err != nil {
		return nil, err
	}
	return parseMachines(out)
}

func parseMachines(out string) ([]machine, error) {
	var machines []machine
	return machines, eachLine("list vms", out, func(line string) bool {
		m := machineLine.FindStringSubmatch(line)
		if m != nil {
			machines = append(machines, machine{name: m[1], id: m[2]})
		}
		return m != nil
	})
}

// eachLine hands out the lines that are not empty; take says whether it understood one.
func eachLine(command, out string, take func(line string) bool) error {
	number := 0
	for line := range strings.Lines(out) {
		number++
		if line = strings.TrimRight(line, "\r\n"); line != "" && !take(line) {
			return garbled(command, number, line)
		}
	}
	return nil
}

// medium is an entry of `list hdds`.
type medium struct {
	id, parent string // parent "base": none
	kind       string // normal (base), immutable, ...
	state      string // created, inaccessible, ...
	file       string
	size       int64 // bytes
}

func (p *Provisioner) media(ctx context.Context) ([]medium, error) {
	out, err := p.run(ctx, "list", "hdds")
	if err != nil {
		return nil, err
	}
	return parseMedia(out)
}

var fieldLine = regexp.MustCompile(`^([A-Z][A-Za-z0-9 ]*):(?:\s+(.*))?$`)

func parseMedia(out string) ([]medium, error) {
	var media []medium
	return media, eachLine("list hdds", out, func(line string) bool {
		m := fieldLine.FindStringSubmatch(line)
		if m == nil || m[1] != "UUID" && len(media) == 0 {
			return false
		}
		key, value := m[1], m[2]
		if key == "UUID" {
			media = append(media, medium{id: value})
			return value != ""
		}
		last := &media[len(media)-1]
		switch key {
		case "Parent UUID":
			last.parent = value
		case "State":
			last.state = value
		case "Type":
			last.kind = value
		case "Location":
			last.file = value
		case "Capacity":
			mib, err := strconv.ParseInt(strings.TrimSuffix(value, " MBytes"), 10, 64)
			last.size = mib << 20
			return err == nil
		case "Storage format", "Encryption", "Cipher", "Password ID", "Property":
		default:
			return false
		}
		return true
	})
}

// extra is a machine's extra data, or with "global" VirtualBox's own.
func (p *Provisioner) extra(ctx context.Context, id string) (map[string]string, error) {
	out, err := p.run(ctx, "getextradata", id, "enumerate")
	if err != nil {
		return nil, err
	}
	return parseExtra(out)
}

var extraLine = regexp.MustCompile(`^Key: (.+?), Value: (.*)$`)

func parseExtra(out string) (map[string]string, error) {
	values := map[string]string{}
	return values, eachLine("getextradata", out, func(line string) bool {
		m := extraLine.FindStringSubmatch(line)
		if m != nil {
			values[m[1]] = m[2]
		}
		return m != nil
	})
}

// natNetwork is an entry of `list --long natnets`. (6.1's `natnetwork list` tells no forwards, 7's `list natnets` none without
// --long.)
type natNetwork struct {
	name     string
	network  string // the subnet
	forwards []forward
}

// forward is a rule of port forwarding: name:tcp:[127.0.0.1]:40022:[172.30.9.11]:22.
type forward struct {
	name     string
	host, to netip.AddrPort
}

func (f forward) String() string {
	return fmt.Sprintf("%s:tcp:[%s]:%d:[%s]:%d", f.name, f.host.Addr(), f.host.Port(), f.to.Addr(), f.to.Port())
}

var (
	forwardLine = regexp.MustCompile(`^\s+([^:]+):(?:tcp|udp):\[([^\]]*)\]:(\d+):\[([^\]]*)\]:(\d+)$`)
	mappingLine = regexp.MustCompile(`^\s+\S+=\d+$`)
)

func (p *Provisioner) natNetworks(ctx context.Context) ([]natNetwork, error) {
	out, err := p.run(ctx, "list", "--long", "natnets")
	if err != nil {
		return nil, err
	}
	return parseNATNetworks(out)
}

func parseNATNetworks(out string) ([]natNetwork, error) {
	var networks []natNetwork
	return networks, eachLine("list natnets", out, func(line string) bool {
		switch {
		case line == "Port-forwarding (ipv4)", line == "Port-forwarding (ipv6)", line == "loopback mappings (ipv4)", mappingLine.MatchString(line):
			return true
		}
		if m := forwardLine.FindStringSubmatch(line); m != nil && len(networks) > 0 {
			last := &networks[len(networks)-1]
			hostPort, err1 := strconv.ParseUint(m[3], 10, 16)
			port, err2 := strconv.ParseUint(m[5], 10, 16)
			to, err3 := netip.ParseAddr(m[4])
			host, err4 := netip.ParseAddr(m[2])
			if m[2] == "" {
				host, err4 = netip.IPv4Unspecified(), nil
			}
			last.forwards = append(last.forwards, forward{
				name: m[1], host: netip.AddrPortFrom(host, uint16(hostPort)), to: netip.AddrPortFrom(to, uint16(port)),
			})
			return errors.Join(err1, err2, err3, err4) == nil
		}
		m := fieldLine.FindStringSubmatch(line)
		if m == nil {
			return false
		}
		if m[1] == "Name" || m[1] == "NetworkName" { // since 7.0, until 6.1
			networks = append(networks, natNetwork{name: m[2]})
			return true
		}
		if len(networks) == 0 {
			return false
		}
		switch m[1] {
		case "Network":
			networks[len(networks)-1].network = m[2]
		case "Enabled", "Gateway", "DHCP Server", "IPv6", "IPv6 Prefix", "IPv6 Default", "IP", "IPv6 Enabled", "DHCP Enabled":
		default:
			return false
		}
		return true
	})
}
