package main

import (
	"encoding/binary"
	"io"
	"log"
	"os"
	"path/filepath"
	"syscall"
)

// From linux/input-event-codes.h and input.h: a key event, the power key, and a struct input_event's size on 64 bits.
const (
	eventKey       = 1
	keyPower       = 116
	inputEventSize = 24
)

// watchPowerButton turns the guest off when the hypervisor presses the power button: that is how Nova stops a server.
func watchPowerButton() {
	devices, _ := filepath.Glob("/dev/input/event*")
	for _, device := range devices {
		go func() {
			file, err := os.Open(device)
			if err != nil {
				log.Printf("power button: %v", err)
				return
			}
			defer file.Close()
			if powerPressed(file) {
				log.Print("power button: off")
				powerOff(false)
			}
		}()
	}
}

// powerOff turns the guest off, or restarts it.
func powerOff(reboot bool) {
	how := syscall.LINUX_REBOOT_CMD_POWER_OFF
	if reboot {
		how = syscall.LINUX_REBOOT_CMD_RESTART
	}
	syscall.Sync()
	if err := syscall.Reboot(how); err != nil {
		log.Printf("power off: %v", err)
	}
}

// powerPressed reads input events until the power key goes down; false when the events end first.
func powerPressed(events io.Reader) bool {
	event := make([]byte, inputEventSize)
	for {
		if _, err := io.ReadFull(events, event); err != nil {
			return false
		}
		// struct input_event: two longs of time, then type, code, value.
		kind := binary.LittleEndian.Uint16(event[16:])
		code := binary.LittleEndian.Uint16(event[18:])
		value := binary.LittleEndian.Uint32(event[20:])
		if kind == eventKey && code == keyPower && value == 1 {
			return true
		}
	}
}
