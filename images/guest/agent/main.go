// Command agent is what runs in the guest image: it brings the network up, asks the metadata service who the instance
// is, and answers on the ports that tests and newcomers try things with. It stands on the standard library alone: it
// is compiled when the image is built, by the host's own Go.
//
// Ports: HTTP on 80 (see handler), echo on 7 by TCP and by UDP; and QEMU's guest agent's protocol on its virtio-serial port.
//
// `agent probe` asks something on the network and measures the answers (see prober): so does the same binary on nodes and
// on the host.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	// The console is what `openstack console log show` prints: every line names its origin.
	log.SetFlags(0)
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		if err := prober(slices.Contains(os.Args[2:], "--attached"), os.Stdin, os.Stdout); err != nil {
			log.Fatal(err)
		}
		return
	}
	log.SetPrefix("toastdev-guest: ")
	identity := &identity{}
	go watchNetwork()
	go watchPowerButton()
	go watchHypervisor()
	// Each question on a connection of its own: one that was opened before the router had its proxy never gets there.
	go identity.fetch("http://169.254.169.254", &http.Transport{DisableKeepAlives: true})
	go fatal(echoTCP(":7"))()
	go fatal(echoUDP(":7"))()
	log.Printf("ready after %s", uptime())
	fatal(func() error { return http.ListenAndServe(":80", handler(identity)) })()
}

// fatal ends the agent when serve does: init starts it anew, and the console shows why.
func fatal(serve func() error) func() {
	return func() { log.Fatal(serve()) }
}

func echoTCP(address string) func() error {
	return func() error {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		for {
			conn, err := listener.Accept()
			if err != nil {
				return err
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}
}

func echoUDP(address string) func() error {
	return func() error {
		conn, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		buffer := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return err
			}
			conn.WriteTo(buffer[:n], from)
		}
	}
}

// uptime is how long the kernel has run.
func uptime() time.Duration {
	data, _ := os.ReadFile("/proc/uptime")
	first, _, _ := strings.Cut(string(data), " ")
	var seconds float64
	fmt.Sscanf(first, "%f", &seconds)
	return time.Duration(seconds * float64(time.Second)).Round(10 * time.Millisecond)
}
