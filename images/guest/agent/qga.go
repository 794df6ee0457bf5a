package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// qgaPort is the virtio-serial port on which hypervisors look for QEMU's guest agent: the way into the guest that does
// not lead over its networks.
const qgaPort = "org.qemu.guest_agent.0"

// qgaOutput is how much of a command's stdout and stderr is kept, each: libvirt refuses answers of a few megabytes.
const qgaOutput = 512 << 10

// watchHypervisor serves the guest agent's protocol as soon as the port is there. An image that is booted without such a
// port has none.
func watchHypervisor() {
	var device string
	for range 240 { // two minutes: the module comes after the network's
		if device = portDevice("/sys/class/virtio-ports"); device != "" {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	if device == "" {
		return
	}
	// Without O_NONBLOCK a read waits for data, and is at an end at once while nobody is connected on the other side.
	fd, err := syscall.Open(device, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		log.Printf("guest agent: %s: %v", device, err)
		return
	}
	port := os.NewFile(uintptr(fd), device)
	log.Printf("guest agent: on %s after %s", device, uptime())
	for agent := newGuestAgent(); ; time.Sleep(200 * time.Millisecond) {
		if err := agent.serve(port); err != nil {
			log.Printf("guest agent: %v", err)
		}
	}
}

// portDevice is the device of the guest agent's port; empty when there is none.
func portDevice(class string) string {
	names, _ := filepath.Glob(filepath.Join(class, "*", "name"))
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(text)) == qgaPort {
			return "/dev/" + filepath.Base(filepath.Dir(name))
		}
	}
	return ""
}

// guestAgent answers as QEMU's guest agent does (QEMU Guest Agent Protocol Reference), of whose commands it has those
// that serve to look after an instance.
type guestAgent struct {
	mu       sync.Mutex
	children map[int]*child
	powerOff func(reboot bool)
}

func newGuestAgent() *guestAgent {
	return &guestAgent{children: map[int]*child{}, powerOff: powerOff}
}

// child is a command that was started.
type child struct {
	done     chan struct{}
	out, err limited
	state    *os.ProcessState // when done
}

// commands by their names. Each is given its arguments and returns what `return` carries; nil for no answer at all.
func (g *guestAgent) commands() map[string]func(json.RawMessage) (any, error) {
	return map[string]func(json.RawMessage) (any, error){
		"guest-ping":                   func(json.RawMessage) (any, error) { return struct{}{}, nil },
		"guest-sync":                   echoID,
		"guest-sync-delimited":         echoID,
		"guest-info":                   g.info,
		"guest-exec":                   g.exec,
		"guest-exec-status":            g.execStatus,
		"guest-network-get-interfaces": interfaces,
		"guest-shutdown":               g.shutdown,
	}
}

// serve answers requests, one line each, until the port has no more.
func (g *guestAgent) serve(port io.ReadWriter) error {
	reader := bufio.NewReader(port)
	for {
		line, err := reader.ReadBytes('\n')
		// The byte 0xff is no part of any JSON text: whoever sends it wants everything before it forgotten.
		if i := bytes.LastIndexByte(line, 0xff); i >= 0 {
			line = line[i+1:]
		}
		if len(bytes.TrimSpace(line)) > 0 && err == nil {
			if answer := g.answer(line); answer != nil {
				if _, err := port.Write(answer); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// answer is the line that answers a request; nil for none.
func (g *guestAgent) answer(line []byte) []byte {
	var request struct {
		Execute   string          `json:"execute"`
		Arguments json.RawMessage `json:"arguments"`
		ID        json.RawMessage `json:"id,omitempty"`
	}
	type failure struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	}
	var answer struct {
		Return any             `json:"return,omitempty"`
		Error  *failure        `json:"error,omitempty"`
		ID     json.RawMessage `json:"id,omitempty"`
	}
	err := json.Unmarshal(line, &request)
	command, ok := g.commands()[request.Execute]
	switch {
	case err != nil:
		answer.Error = &failure{"GenericError", "not a request: " + err.Error()}
	case !ok:
		answer.Error = &failure{"CommandNotFound", fmt.Sprintf("the command %s has not been found", request.Execute)}
	default:
		if answer.Return, err = command(request.Arguments); err != nil {
			answer.Error = &failure{"GenericError", err.Error()}
		} else if answer.Return == nil {
			return nil
		}
	}
	answer.ID = request.ID
	text, err := json.Marshal(answer)
	if err != nil {
		log.Printf("guest agent: %v", err)
		return nil
	}
	if request.Execute == "guest-sync-delimited" {
		text = append([]byte{0xff}, text...)
	}
	return append(text, '\n')
}

// arguments reads a command's, which may be missing.
func arguments(raw json.RawMessage, into any) error {
	if len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, into)
}

func echoID(raw json.RawMessage) (any, error) {
	var a struct {
		ID json.Number `json:"id"`
	}
	if err := arguments(raw, &a); err != nil {
		return nil, err
	}
	return a.ID, nil
}

func (g *guestAgent) info(json.RawMessage) (any, error) {
	type command struct {
		Name     string `json:"name"`
		Enabled  bool   `json:"enabled"`
		Response bool   `json:"success-response"`
	}
	var list []command
	for name := range g.commands() {
		list = append(list, command{name, true, name != "guest-shutdown"})
	}
	slices.SortFunc(list, func(a, b command) int { return strings.Compare(a.Name, b.Name) })
	return map[string]any{"version": "7.2.0", "supported_commands": list}, nil
}

// exec starts a command and returns its process's number at once.
func (g *guestAgent) exec(raw json.RawMessage) (any, error) {
	var a struct {
		Path    string   `json:"path"`
		Arg     []string `json:"arg"`
		Env     []string `json:"env"`
		Input   []byte   `json:"input-data"` // base64, as encoding/json has bytes
		Capture bool     `json:"capture-output"`
	}
	if err := arguments(raw, &a); err != nil {
		return nil, err
	}
	cmd := exec.Command(a.Path, a.Arg...)
	cmd.Env = append(os.Environ(), a.Env...)
	cmd.Stdin = bytes.NewReader(a.Input)
	// A process left in the background keeps the output open; it is not waited for.
	cmd.WaitDelay = time.Second
	c := &child{done: make(chan struct{})}
	if a.Capture {
		cmd.Stdout, cmd.Stderr = &c.out, &c.err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("guest-exec: %w", err)
	}
	g.mu.Lock()
	g.children[cmd.Process.Pid] = c
	g.mu.Unlock()
	go func() {
		if err := cmd.Wait(); cmd.ProcessState == nil {
			log.Printf("guest agent: %s: %v", a.Path, err)
		}
		c.state = cmd.ProcessState
		close(c.done)
	}()
	return map[string]int{"pid": cmd.Process.Pid}, nil
}

// execStatus says what became of a command; once that it has ended.
func (g *guestAgent) execStatus(raw json.RawMessage) (any, error) {
	var a struct {
		PID int `json:"pid"`
	}
	if err := arguments(raw, &a); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.children[a.PID]
	if c == nil {
		return nil, fmt.Errorf("guest-exec-status: process %d was not started here, or was told of before", a.PID)
	}
	select {
	case <-c.done:
	default:
		return map[string]bool{"exited": false}, nil
	}
	delete(g.children, a.PID)
	status := map[string]any{"exited": true}
	if c.state != nil {
		if wait, ok := c.state.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
			status["signal"] = int(wait.Signal())
		} else {
			status["exitcode"] = c.state.ExitCode()
		}
	}
	for name, stream := range map[string]*limited{"out": &c.out, "err": &c.err} {
		if len(stream.kept) > 0 {
			status[name+"-data"] = stream.kept
		}
		if stream.truncated {
			status[name+"-truncated"] = true
		}
	}
	return status, nil
}

// interfaces is the guest's own, with what addresses they have.
func interfaces(json.RawMessage) (any, error) {
	type address struct {
		Address string `json:"ip-address"`
		Type    string `json:"ip-address-type"` // ipv4, ipv6
		Prefix  int    `json:"prefix"`
	}
	type nic struct {
		Name      string    `json:"name"`
		MAC       string    `json:"hardware-address,omitempty"`
		Addresses []address `json:"ip-addresses,omitempty"`
	}
	found, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	list := []nic{}
	for _, i := range found {
		n := nic{Name: i.Name, MAC: i.HardwareAddr.String()}
		addresses, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addresses {
			network, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			kind := "ipv6"
			if network.IP.To4() != nil {
				kind = "ipv4"
			}
			length, _ := network.Mask.Size()
			n.Addresses = append(n.Addresses, address{network.IP.String(), kind, length})
		}
		list = append(list, n)
	}
	return list, nil
}

// shutdown turns the guest off or restarts it: libvirt asks for it before it presses the power button. It has no answer.
func (g *guestAgent) shutdown(raw json.RawMessage) (any, error) {
	var a struct {
		Mode string `json:"mode"`
	}
	if err := arguments(raw, &a); err != nil {
		return nil, err
	}
	g.powerOff(a.Mode == "reboot")
	return nil, nil
}

// limited keeps the first qgaOutput bytes that are written to it.
type limited struct {
	kept      []byte
	truncated bool
}

func (l *limited) Write(p []byte) (int, error) {
	room := qgaOutput - len(l.kept)
	l.truncated = l.truncated || len(p) > room
	l.kept = append(l.kept, p[:min(room, len(p))]...)
	return len(p), nil
}
