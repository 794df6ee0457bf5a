package provisioners

import "strings"

// SplitIdentity parts a node's identity into what only a new node can be given (its name, NICs, routes) and what can be
// changed while it runs: the names of the others, and its roles.
func SplitIdentity(identity string) (fixed, changeable string) {
	var a, b strings.Builder
	for line := range strings.Lines(identity) {
		if strings.HasPrefix(line, "host ") || strings.HasPrefix(line, "role ") {
			b.WriteString(line)
		} else {
			a.WriteString(line)
		}
	}
	return a.String(), b.String()
}

// Hosts is the /etc/hosts that follows from an identity.
func Hosts(identity string) string {
	hosts := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	for line := range strings.Lines(identity) {
		if entry, ok := strings.CutPrefix(line, "host "); ok {
			hosts += entry
		}
	}
	return hosts
}
