package main

import (
	"bytes"
	"log"
	"os"
	"os/exec"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"
)

// watchNetwork runs a DHCP client on every Ethernet interface, those plugged in later included.
func watchNetwork() {
	var clients sync.Map
	start := func(name string) {
		if !strings.HasPrefix(name, "eth") {
			return
		}
		if _, running := clients.LoadOrStore(name, true); !running {
			go func() {
				defer clients.Delete(name)
				dhcp(name)
			}()
		}
	}
	// The socket is opened before the interfaces are listed, so that none falls between the two.
	socket, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, syscall.NETLINK_KOBJECT_UEVENT)
	if err == nil {
		err = syscall.Bind(socket, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: 1})
	}
	entries, _ := os.ReadDir("/sys/class/net")
	for _, entry := range entries {
		start(entry.Name())
	}
	if err != nil {
		log.Printf("interfaces plugged in later will not be seen: %v", err)
		return
	}
	buffer := make([]byte, 16384)
	for {
		n, _, err := syscall.Recvfrom(socket, buffer, 0)
		if err != nil {
			continue // ENOBUFS when events came faster than they were read
		}
		if name, ok := addedInterface(buffer[:n]); ok {
			start(name)
		}
	}
}

// addedInterface is the interface that a kernel event announces: "add@/devices/.../net/eth1", then KEY=value by NULs.
func addedInterface(event []byte) (string, bool) {
	header, _, _ := bytes.Cut(event, []byte{0})
	device, ok := strings.CutPrefix(string(header), "add@")
	if !ok || path.Base(path.Dir(device)) != "net" {
		return "", false
	}
	return path.Base(device), true
}

// dhcp keeps a DHCP client on an interface as long as the interface is there.
func dhcp(name string) {
	for {
		if _, err := os.Stat("/sys/class/net/" + name); err != nil {
			return
		}
		// One discover a second: an instance is often up before its port is wired.
		cmd := exec.Command("udhcpc", "-f", "-i", name, "-s", "/etc/dhcp", "-t", "60", "-T", "1", "-A", "1", "-O", "staticroutes")
		cmd.Stdout, cmd.Stderr = nil, nil
		if err := exec.Command("ip", "link", "set", name, "up").Run(); err != nil {
			log.Printf("%s: %v", name, err)
		}
		if err := cmd.Run(); err != nil {
			log.Printf("%s: DHCP client: %v", name, err)
		}
		time.Sleep(time.Second)
	}
}
