package host

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// subnets asks the kernel for the routes of every table and the addresses of every interface, IPv4.
func subnets() ([]Subnet, error) {
	names := map[uint32]string{}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var found []Subnet
	for _, i := range interfaces {
		names[uint32(i.Index)] = i.Name
		addresses, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", i.Name, err)
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				found = append(found, Subnet{Prefix: p, Interface: i.Name})
			}
		}
	}
	dump, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, syscall.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, m := range messages {
		if m.Header.Type != syscall.RTM_NEWROUTE || len(m.Data) < syscall.SizeofRtMsg {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		var to netip.Addr
		var through string
		for _, a := range attributes {
			switch a.Attr.Type {
			case syscall.RTA_DST:
				to, _ = netip.AddrFromSlice(a.Value)
			case syscall.RTA_OIF:
				if len(a.Value) == 4 {
					through = names[binary.NativeEndian.Uint32(a.Value)]
				}
			}
		}
		if to.IsValid() {
			found = append(found, Subnet{Prefix: netip.PrefixFrom(to, int(m.Data[1])), Interface: through})
		}
	}
	return taken(found), nil
}

// taken leaves of what was found one of each, in order: IPv4, no default route (nor what a VPN puts in its place: two halves of
// everything), and nothing that lies within another on the same interface.
func taken(found []Subnet) []Subnet {
	var all []Subnet
	for _, s := range found {
		s.Prefix = s.Prefix.Masked()
		if s.Prefix.Addr().Is4() && s.Prefix.Bits() >= 8 {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Subnet) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Interface, b.Interface))
	})
	var kept []Subnet
	for _, s := range all {
		inside := slices.ContainsFunc(kept, func(k Subnet) bool {
			return k.Interface == s.Interface && k.Prefix.Bits() <= s.Prefix.Bits() && k.Prefix.Contains(s.Prefix.Addr())
		})
		if !inside {
			kept = append(kept, s)
		}
	}
	return kept
}
