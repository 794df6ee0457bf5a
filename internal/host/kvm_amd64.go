package host

import (
	"fmt"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// ioctls of linux/kvm.h; the sizes are those of x86's structures.
const (
	kvmGetAPIVersion     = 0xae00
	kvmCreateVM          = 0xae01
	kvmGetVCPUMmapSize   = 0xae04
	kvmCreateVCPU        = 0xae41
	kvmSetUserMemory     = 0x4020ae46
	kvmRun               = 0xae80
	kvmSetRegs           = 0x4090ae82
	kvmGetSregs          = 0x8138ae83
	kvmSetSregs          = 0x4138ae84
	kvmExitHLT           = 5
	kvmExitReasonAt      = 8       // in the page shared with the virtual processor
	guestAddress         = 0x1000  // where its code lies
	guestRounds          = 1 << 18 // of a two-instruction loop: a fraction of a millisecond on a processor, 200 ms where each is emulated
	guestLimit           = 50 * time.Millisecond
	sregsCR0             = 224 // its place in struct kvm_sregs
	segmentSize          = 24  // struct kvm_segment
	registersIP, flagsAt = 16, 17
)

// probeKVM runs a short loop on a virtual processor. That /dev/kvm opens and makes a machine proves little: under some
// hypervisors the guest's code is then emulated, instruction by instruction, and a guest never gets through its boot.
// It returns when the deadline has passed, whatever the kernel does.
func probeKVM(deadline time.Duration) KVM {
	result := make(chan KVM, 1)
	go func() {
		k := KVM{Device: true}
		took, err := runGuest()
		if err == nil && took > guestLimit { // once more: the first time this thread may not have had a processor of its own
			took, err = runGuest()
		}
		switch {
		case err != nil:
			k.Reason = err.Error()
		case took > guestLimit:
			k.Reason = fmt.Sprintf("a guest runs far slower than the processor (%s for what takes less than one): its code is emulated", took.Round(time.Millisecond))
		default:
			k.Usable = true
		}
		result <- k
	}()
	select {
	case k := <-result:
		return k
	case <-time.After(deadline):
		return KVM{Device: true, Reason: fmt.Sprintf("a guest of a few instructions did not end within %s: its code is emulated, or KVM hangs", deadline)}
	}
}

func runGuest() (time.Duration, error) {
	runtime.LockOSThread() // KVM wants a virtual processor's calls from one thread
	defer runtime.UnlockOSThread()
	device, err := syscall.Open("/dev/kvm", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open /dev/kvm: %w", err)
	}
	defer syscall.Close(device)
	if version, err := ioctl(device, kvmGetAPIVersion, 0); err != nil || version != 12 {
		return 0, fmt.Errorf("/dev/kvm speaks version %d of its interface, not 12", version)
	}
	vm, err := ioctl(device, kvmCreateVM, 0)
	if err != nil {
		return 0, fmt.Errorf("create a virtual machine: %w", err)
	}
	defer syscall.Close(vm)
	size, err := ioctl(device, kvmGetVCPUMmapSize, 0)
	if err != nil {
		return 0, fmt.Errorf("ask for the virtual processor's page: %w", err)
	}
	memory, err := syscall.Mmap(-1, 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_ANON)
	if err != nil {
		return 0, fmt.Errorf("memory for a guest: %w", err)
	}
	defer syscall.Munmap(memory)
	rounds := uint32(guestRounds)
	copy(memory, []byte{
		0xb9, byte(rounds), byte(rounds >> 8), byte(rounds >> 16), byte(rounds >> 24), // mov ecx, rounds
		0x49,       // dec ecx
		0x75, 0xfd, // jnz the line above
		0xf4, // hlt
	})
	region := struct {
		slot, flags              uint32
		guest, size, userAddress uint64
	}{guest: guestAddress, size: 4096, userAddress: uint64(uintptr(unsafe.Pointer(&memory[0])))}
	if _, err = ioctl(vm, kvmSetUserMemory, uintptr(unsafe.Pointer(&region))); err != nil {
		return 0, fmt.Errorf("give a guest memory: %w", err)
	}
	cpu, err := ioctl(vm, kvmCreateVCPU, 0)
	if err != nil {
		return 0, fmt.Errorf("create a virtual processor: %w", err)
	}
	defer syscall.Close(cpu)
	shared, err := syscall.Mmap(cpu, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return 0, fmt.Errorf("map the virtual processor's page: %w", err)
	}
	defer syscall.Munmap(shared)

	var sregs [312]byte
	if _, err = ioctl(cpu, kvmGetSregs, uintptr(unsafe.Pointer(&sregs))); err != nil {
		return 0, fmt.Errorf("read the virtual processor's registers: %w", err)
	}
	// Flat 32-bit segments without paging: CS code, the five others data.
	for i := range 6 {
		selector, kind := byte(16), byte(3)
		if i == 0 {
			selector, kind = 8, 11
		}
		copy(sregs[i*segmentSize:], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, selector, 0, kind, 1, 0, 1, 1, 0, 1, 0, 0, 0})
	}
	sregs[sregsCR0] |= 1
	if _, err = ioctl(cpu, kvmSetSregs, uintptr(unsafe.Pointer(&sregs))); err != nil {
		return 0, fmt.Errorf("set the virtual processor's registers: %w", err)
	}
	var registers [18]uint64
	registers[registersIP], registers[flagsAt] = guestAddress, 2
	if _, err = ioctl(cpu, kvmSetRegs, uintptr(unsafe.Pointer(&registers))); err != nil {
		return 0, fmt.Errorf("set the virtual processor's registers: %w", err)
	}
	began := time.Now()
	for {
		_, err = ioctl(cpu, kvmRun, 0)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("run a guest: %w", err)
	}
	if reason := shared[kvmExitReasonAt]; reason != kvmExitHLT {
		return 0, fmt.Errorf("a guest ended with exit reason %d instead of its halt", reason)
	}
	return time.Since(began), nil
}

func ioctl(fd int, request, argument uintptr) (int, error) {
	r, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, argument)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
