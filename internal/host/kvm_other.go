//go:build !amd64

package host

import "time"

// probeKVM knows x86's processors alone; the guest images are theirs as well.
func probeKVM(time.Duration) KVM {
	return KVM{Device: true, Reason: "guests are amd64, this machine is not"}
}
