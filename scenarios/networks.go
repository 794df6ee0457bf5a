package scenarios

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/mtu"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
	"github.com/spf13/pflag"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/topologies"
)

// FloatingIP is an address of the external network that leads to a server.
type FloatingIP struct {
	Name    string
	ID      string
	Address netip.Addr
}

// networkCommands are the words for Neutron's things.
func networkCommands() map[string]Command {
	return map[string]Command{
		"network": {
			Summary: "make a network",
			Args:    "NAME [--external] [--mtu N]",
			Detail: []string{"The network is of the kind that the topology has for tenants. --external marks it as one that routers may have their gateway on.",
				"Sets $NAME to its id.", "Example: network blue"},
			Spares: true, Min: 1, Max: 1, Sets: sets(),
			Flags: func(f *pflag.FlagSet) Action {
				outside := f.Bool("external", false, "routers may have their gateway on it")
				size := f.Int("mtu", 0, "its `MTU` instead of the topology's")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return r.network(ctx, args[0], *outside, *size)
				}
			},
		},
		"subnet": {
			Summary: "make a subnet of a network",
			Args:    "NAME NETWORK CIDR [--gateway ADDRESS|none] [--dns ADDRESS]",
			Detail: []string{"With DHCP. The gateway is its first address unless --gateway says otherwise.",
				"Sets $NAME to its id and $NAME_ip to its gateway.", "Example: subnet blue-net blue 10.50.1.0/24"},
			Spares: true, Min: 3, Max: 3, Sets: sets("ip"),
			Flags: func(f *pflag.FlagSet) Action {
				gateway := f.String("gateway", "", "the gateway's `ADDRESS`, or none")
				dns := f.String("dns", "", "the `ADDRESS` of a name server that DHCP tells of")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return r.subnet(ctx, args[0], args[1], args[2], *gateway, *dns)
				}
			},
		},
		"router": {
			Summary: "make a router between subnets, and to the outside",
			Args:    "NAME [SUBNET...] [--external] [--distributed=true|false]",
			Detail: []string{"It has an interface in each SUBNET, as their gateway. --external gives it a gateway on the region's external network.",
				"Without --distributed it is what the topology's routing says.",
				"Sets $NAME to its id and $NAME_ip to its address on the external network (empty without --external).",
				"Example: router r blue-net green-net --external"},
			Min: 1, Max: -1, Sets: sets("ip"),
			Flags: func(f *pflag.FlagSet) Action {
				outside := f.Bool("external", false, "a gateway on the region's external network")
				distributed := f.String("distributed", "", "`true` or false instead of what the topology has")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return r.router(ctx, args[0], args[1:], *outside, *distributed)
				}
			},
		},
		"secgroup": {
			Summary: "make a security group",
			Args:    "NAME",
			Detail: []string{"It lets everything out and nothing in, until `rule` says otherwise. (The group `default`, which servers have without --secgroup, " +
				"lets in ICMP, ssh, TCP 80 and 7, UDP 7.)", "Sets $NAME to its id.", "Example: secgroup web"},
			Spares: true, Min: 1, Max: 1, Sets: sets(),
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) { return r.secgroup(ctx, args[0]) }
			},
		},
		"rule": {
			Summary: "have a security group let something pass",
			Args:    "SECGROUP ingress|egress PROTOCOL [PORT[-PORT]] [--from CIDR|SECGROUP]",
			Detail: []string{"PROTOCOL is icmp, tcp, udp, another that Neutron knows, or any. --from says who may (for egress: to whom); everybody without it.",
				"Example: rule web ingress tcp 80 --from 10.50.1.0/24"},
			Spares: true, Min: 3, Max: 4,
			Flags: func(f *pflag.FlagSet) Action {
				from := f.String("from", "", "a `CIDR` or a security group")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					opts, err := r.ruleOf(ctx, args, *from)
					if err != nil {
						return Outcome{}, err
					}
					_, err = rules.Create(ctx, r.Cloud.Network, opts).Extract()
					return Outcome{}, err
				}
			},
		},
		"rule-remove": {
			Summary: "take a security group's rule away",
			Args:    "SECGROUP ingress|egress PROTOCOL [PORT[-PORT]] [--from CIDR|SECGROUP]",
			Detail:  []string{"The same words as `rule` made it by; also the rules that a group has from the beginning.", "Example: rule-remove web egress any"},
			Min:     3, Max: 4,
			Flags: func(f *pflag.FlagSet) Action {
				from := f.String("from", "", "a `CIDR` or a security group")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return Outcome{}, r.removeRule(ctx, args, *from)
				}
			},
		},
		"port": {
			Summary: "make a port, for a server to have",
			Args:    "NAME NETWORK [--address ADDRESS] [--secgroup SECGROUP]...",
			Detail: []string{"Sets $NAME to its id, $NAME_ip to its address and $NAME_mac to its MAC.",
				"Example: port p1 blue --address 10.50.1.10"},
			Min: 2, Max: 2, Sets: sets("ip", "mac"),
			Flags: func(f *pflag.FlagSet) Action {
				address := f.String("address", "", "its `ADDRESS` instead of any that is free")
				groups := f.StringArray("secgroup", nil, "a `SECGROUP` of it instead of default; may be given several times")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return r.port(ctx, args[0], args[1], *address, *groups)
				}
			},
		},
		"floatingip": {
			Summary: "make a floating IP, and lead it to a server",
			Args:    "NAME [SERVER] [--no-wait]",
			Detail: []string{"With a SERVER it waits until the server is ACTIVE and its router is where the server runs, leads the address to the server's first port that a router " +
				"with a gateway serves, and returns when the address is in place there. --no-wait returns when Neutron has taken it down.",
				"Sets $NAME to its id and $NAME_ip to its address.", "Example: floatingip f1 s1"},
			Async: true, Min: 1, Max: 2, Sets: sets("ip"),
			Flags: func(f *pflag.FlagSet) Action {
				soon := f.Bool("no-wait", false, "do not wait until the address is in place")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					server := ""
					if len(args) > 1 {
						server = args[1]
					}
					return r.floatingIP(ctx, args[0], server, !*soon)
				}
			},
		},
		"floatingip-move": {
			Summary: "lead a floating IP to another server, or to none",
			Args:    "NAME SERVER|none [--no-wait]",
			Detail:  []string{"It waits as `floatingip` does.", "Example: floatingip-move f1 s2"},
			Async:   true, Min: 2, Max: 2,
			Flags: func(f *pflag.FlagSet) Action {
				soon := f.Bool("no-wait", false, "do not wait until the address is in place")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					address, err := get[*FloatingIP](r, kindFloatingIP, args[0])
					if err != nil {
						return Outcome{}, err
					}
					if args[1] == "none" {
						_, err := floatingips.Update(ctx, r.Cloud.Network, address.ID, floatingips.UpdateOpts{PortID: new(string)}).Extract()
						return Outcome{}, err
					}
					return Outcome{}, r.lead(ctx, address, args[1], !*soon)
				}
			},
		},
		"floatingip-remove": {
			Summary: "remove a floating IP",
			Args:    "NAME",
			Detail:  []string{"Example: floatingip-remove f1"},
			Min:     1, Max: 1,
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return Outcome{}, r.remove(ctx, kindFloatingIP, args[0])
				}
			},
		},
	}
}

func (r *Run) network(ctx context.Context, name string, outside bool, size int) (Outcome, error) {
	if err := r.free(kindNetwork, name); err != nil {
		return Outcome{}, err
	}
	var opts networks.CreateOptsBuilder = networks.CreateOpts{Name: name, Description: described}
	if outside {
		opts = external.CreateOptsExt{CreateOptsBuilder: opts, External: gophercloud.Enabled}
	}
	if size > 0 {
		opts = mtu.CreateOptsExt{CreateOptsBuilder: opts, MTU: size}
	}
	n, err := networks.Create(ctx, r.Cloud.Network, opts).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("make network %s: %w", name, err)
	}
	return r.made(&Resource{Kind: kindNetwork, Name: name, ID: n.ID})
}

func (r *Run) subnet(ctx context.Context, name, network, cidr, gateway, dns string) (Outcome, error) {
	if err := r.free(kindSubnet, name); err != nil {
		return Outcome{}, err
	}
	id, err := r.id(kindNetwork, network)
	if err != nil {
		return Outcome{}, err
	}
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return Outcome{}, fault.New(fault.Invalid, "%q is not a subnet", cidr).WithRemedy("write one as 10.50.1.0/24")
	}
	opts := subnets.CreateOpts{Name: name, NetworkID: id, CIDR: prefix.Masked().String(), IPVersion: gophercloud.IPv4, Description: described}
	if prefix.Addr().Is6() {
		opts.IPVersion = gophercloud.IPv6
	}
	switch gateway {
	case "":
	case "none":
		opts.GatewayIP = new(string)
	default:
		if _, err := netip.ParseAddr(gateway); err != nil {
			return Outcome{}, fault.New(fault.Invalid, "--gateway: %q is not an address", gateway)
		}
		opts.GatewayIP = &gateway
	}
	if dns != "" {
		opts.DNSNameservers = []string{dns}
	}
	s, err := subnets.Create(ctx, r.Cloud.Network, opts).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("make subnet %s: %w", name, err)
	}
	return r.made(&Resource{Kind: kindSubnet, Name: name, ID: s.ID, Address: address(s.GatewayIP)})
}

// address is the address that an API shows; the zero Addr for none.
func address(text string) netip.Addr {
	a, _ := netip.ParseAddr(text)
	return a
}

func (r *Run) router(ctx context.Context, name string, sides []string, outside bool, distributed string) (Outcome, error) {
	if err := r.free(kindRouter, name); err != nil {
		return Outcome{}, err
	}
	var ids []string
	for _, side := range sides {
		id, err := r.id(kindSubnet, side)
		if err != nil {
			return Outcome{}, err
		}
		ids = append(ids, id)
	}
	dvr := r.World.Plan.Routing == "dvr"
	if distributed != "" {
		var err error
		if dvr, err = strconv.ParseBool(distributed); err != nil {
			return Outcome{}, fault.New(fault.Invalid, "--distributed: %q is neither true nor false", distributed)
		}
	}
	opts := routers.CreateOpts{Name: name, Description: described, Distributed: &dvr}
	if outside {
		network, err := r.external(ctx)
		if err != nil {
			return Outcome{}, err
		}
		opts.GatewayInfo = &routers.GatewayInfo{NetworkID: network}
	}
	made, err := routers.Create(ctx, r.Cloud.Network, opts).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("make router %s: %w", name, err)
	}
	resource := &Resource{Kind: kindRouter, Name: name, ID: made.ID}
	for _, ip := range made.GatewayInfo.ExternalFixedIPs {
		resource.Address = address(ip.IPAddress)
	}
	outcome, err := r.made(resource)
	if err != nil {
		return outcome, err
	}
	for i, id := range ids {
		if _, err := routers.AddInterface(ctx, r.Cloud.Network, made.ID, routers.AddInterfaceOpts{SubnetID: id}).Extract(); err != nil {
			return outcome, fmt.Errorf("connect router %s with %s: %w", name, sides[i], err)
		}
	}
	return outcome, nil
}

func (r *Run) secgroup(ctx context.Context, name string) (Outcome, error) {
	if name == defaultGroup {
		return Outcome{}, fault.New(fault.Invalid, "every project has a security group %q already", name)
	}
	if err := r.free(kindSecgroup, name); err != nil {
		return Outcome{}, err
	}
	g, err := groups.Create(ctx, r.Cloud.Network, groups.CreateOpts{Name: name, Description: described}).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("make security group %s: %w", name, err)
	}
	return r.made(&Resource{Kind: kindSecgroup, Name: name, ID: g.ID})
}

// defaultGroup is the security group that every project has.
const defaultGroup = "default"

// group is the id of a security group: the script's, or the project's default one.
func (r *Run) group(ctx context.Context, name string) (string, error) {
	if name != defaultGroup {
		return r.id(kindSecgroup, name)
	}
	return r.looked(kindSecgroup, defaultGroup, func() (string, error) {
		pages, err := groups.List(r.Cloud.Network, groups.ListOpts{Name: defaultGroup, ProjectID: r.Cloud.ProjectID}).AllPages(ctx)
		if err != nil {
			return "", fmt.Errorf("list security groups: %w", err)
		}
		found, err := groups.ExtractGroups(pages)
		if err != nil || len(found) == 0 {
			return "", fmt.Errorf("the scenario's project has no default security group: %w", err)
		}
		return found[0].ID, nil
	})
}

// ruleOf is the rule that the words of a line say.
func (r *Run) ruleOf(ctx context.Context, args []string, from string) (rules.CreateOpts, error) {
	opts := rules.CreateOpts{Direction: rules.RuleDirection(args[1]), EtherType: rules.EtherType4, Description: described}
	var err error
	if opts.SecGroupID, err = r.group(ctx, args[0]); err != nil {
		return opts, err
	}
	if opts.Direction != rules.DirIngress && opts.Direction != rules.DirEgress {
		return opts, unknown("direction", args[1], []string{"ingress", "egress"})
	}
	if args[2] != "any" {
		opts.Protocol = rules.RuleProtocol(args[2])
	}
	if len(args) > 3 {
		if opts.PortRangeMin, opts.PortRangeMax, err = portRange(args[3]); err != nil {
			return opts, err
		}
	}
	if from == "" {
		return opts, nil
	}
	if prefix, err := netip.ParsePrefix(from); err == nil {
		opts.RemoteIPPrefix = prefix.Masked().String()
		return opts, nil
	}
	if a, err := netip.ParseAddr(from); err == nil {
		opts.RemoteIPPrefix = netip.PrefixFrom(a, a.BitLen()).String()
		return opts, nil
	}
	opts.RemoteGroupID, err = r.group(ctx, from)
	return opts, err
}

// portRange reads PORT or PORT-PORT.
func portRange(text string) (first, last int, err error) {
	low, high, several := strings.Cut(text, "-")
	if !several {
		high = low
	}
	first, err = strconv.Atoi(low)
	if err == nil {
		last, err = strconv.Atoi(high)
	}
	if err != nil || first < 0 || last < first || last > 65535 {
		return 0, 0, fault.New(fault.Invalid, "%q is neither a port nor a range of ports", text).WithRemedy("write 80, or 8000-8080")
	}
	return first, last, nil
}

func (r *Run) removeRule(ctx context.Context, args []string, from string) error {
	want, err := r.ruleOf(ctx, args, from)
	if err != nil {
		return err
	}
	pages, err := rules.List(r.Cloud.Network, rules.ListOpts{SecGroupID: want.SecGroupID}).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	found, err := rules.ExtractRules(pages)
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	var there []string
	removed := 0
	for _, rule := range found {
		if !matches(rule, want) {
			there = append(there, fmt.Sprintf("%s %s %d-%d from %q%q", rule.Direction, rule.Protocol, rule.PortRangeMin, rule.PortRangeMax, rule.RemoteIPPrefix, rule.RemoteGroupID))
			continue
		}
		if err := absent(rules.Delete(ctx, r.Cloud.Network, rule.ID).ExtractErr()); err != nil {
			return err
		}
		removed++
	}
	if removed == 0 {
		return &fault.Error{Code: fault.NotFound, Message: fmt.Sprintf("security group %s has no such rule", args[0]), Expected: strings.Join(there, "; ")}
	}
	return nil
}

// matches says whether a rule is the one that words make. Neutron shows "everybody" as no prefix or as 0.0.0.0/0.
func matches(rule rules.SecGroupRule, want rules.CreateOpts) bool {
	return rule.Direction == string(want.Direction) && rule.EtherType == string(want.EtherType) && rule.Protocol == string(want.Protocol) &&
		rule.PortRangeMin == want.PortRangeMin && rule.PortRangeMax == want.PortRangeMax && rule.RemoteGroupID == want.RemoteGroupID &&
		strings.TrimSuffix(rule.RemoteIPPrefix, "0.0.0.0/0") == strings.TrimSuffix(want.RemoteIPPrefix, "0.0.0.0/0")
}

func (r *Run) port(ctx context.Context, name, network, wanted string, secgroups []string) (Outcome, error) {
	if err := r.free(kindPort, name); err != nil {
		return Outcome{}, err
	}
	id, err := r.id(kindNetwork, network)
	if err != nil {
		return Outcome{}, err
	}
	opts := ports.CreateOpts{Name: name, NetworkID: id, Description: described}
	if wanted != "" {
		opts.FixedIPs = []ports.IP{{IPAddress: wanted}}
	}
	for _, group := range secgroups {
		id, err := r.group(ctx, group)
		if err != nil {
			return Outcome{}, err
		}
		if opts.SecurityGroups == nil {
			opts.SecurityGroups = new([]string)
		}
		*opts.SecurityGroups = append(*opts.SecurityGroups, id)
	}
	p, err := ports.Create(ctx, r.Cloud.Network, opts).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("make port %s: %w", name, err)
	}
	resource := &Resource{Kind: kindPort, Name: name, ID: p.ID, MAC: p.MACAddress}
	if len(p.FixedIPs) > 0 {
		resource.Address = address(p.FixedIPs[0].IPAddress)
	}
	return r.made(resource)
}

func (r *Run) floatingIP(ctx context.Context, name, server string, wait bool) (Outcome, error) {
	if err := r.free(kindFloatingIP, name); err != nil {
		return Outcome{}, err
	}
	network, err := r.external(ctx)
	if err != nil {
		return Outcome{}, err
	}
	made, err := floatingips.Create(ctx, r.Cloud.Network, floatingips.CreateOpts{FloatingNetworkID: network, Description: name}).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("make floating IP %s: %w", name, err)
	}
	f := &FloatingIP{Name: name, ID: made.ID, Address: address(made.FloatingIP)}
	if err := r.put(kindFloatingIP, name, f); err != nil {
		return Outcome{}, err
	}
	outcome := Outcome{Text: fmt.Sprintf("floatingip %s %s %s\n", name, f.ID, f.Address), Set: map[string]string{variable(name): f.ID, variable(name, "ip"): f.Address.String()}}
	if server == "" {
		return outcome, nil
	}
	return outcome, r.lead(ctx, f, server, wait)
}

// lead has a floating IP lead to a server.
//
// Only to one that is ACTIVE and whose router is there already: a router that comes to a node together with a floating IP
// loses the rule for the way back (neutron's DvrLocalRouter adds it to a namespace that is not made yet, and not again when
// it tries once more).
func (r *Run) lead(ctx context.Context, f *FloatingIP, name string, wait bool) error {
	server, err := r.server(ctx, name)
	if err == nil && (server.Status != "ACTIVE" || server.Task != "") {
		if err = r.active(ctx, name, 2*time.Minute); err == nil {
			server, err = r.server(ctx, name)
		}
	}
	if err != nil {
		return err
	}
	port, router, err := r.served(ctx, server)
	if err != nil {
		return err
	}
	where, err := r.routerNodes(ctx, router, server.Host)
	if err != nil {
		return err
	}
	for _, n := range where {
		if err := r.waitRouter(ctx, router, n, time.Minute); err != nil {
			return err
		}
	}
	updated, err := floatingips.Update(ctx, r.Cloud.Network, f.ID, floatingips.UpdateOpts{PortID: &port}).Extract()
	if err != nil {
		return fmt.Errorf("lead %s to %s: %w", f.Name, name, err)
	}
	if !wait {
		return nil
	}
	return r.wait(ctx, fmt.Sprintf("the floating IP %s (%s) to be in place on %s", f.Name, f.Address, strings.Join(where, ", ")), time.Minute, func(ctx context.Context) (bool, error) {
		var err error
		for _, n := range where {
			if err = r.translates(ctx, router, n, f.Address, updated.FixedIP); err == nil {
				return true, nil
			}
		}
		return false, err
	})
}

// translates says whether a node's router has a floating address in place: for a distributed one the way in by the node's fip-
// namespace and the rule for the way back, else the address on the router's own gateway.
func (r *Run) translates(ctx context.Context, router *routers.Router, name string, floating netip.Addr, fixed string) error {
	namespace := "qrouter-" + router.ID
	if !router.Distributed {
		return r.shows(ctx, name, "the router's gateway does not have the address", floating.String()+"/32", "ip", "-n", namespace, "-o", "address")
	}
	if err := r.shows(ctx, name, "the router has no rule for the way back", "from "+fixed+" ", "ip", "-n", namespace, "rule"); err != nil {
		return err
	}
	return r.shows(ctx, name, "the fip- namespace has no route to it", floating.String()+" ", "ip", "-n", "fip-"+router.GatewayInfo.NetworkID, "route")
}

// shows runs a command on a node and looks for a text in what it prints.
func (r *Run) shows(ctx context.Context, name, otherwise, text string, args ...string) error {
	out, err := node.Output(ctx, r.World.Node(name), args...)
	if err != nil {
		return err
	}
	if !strings.Contains(string(out), text) {
		return fmt.Errorf("on %s %s", name, otherwise)
	}
	return nil
}

// served is a server's first port that a router with a gateway serves, and that router.
func (r *Run) served(ctx context.Context, server *Server) (port string, router *routers.Router, err error) {
	for i, id := range server.Ports {
		pages, err := ports.List(r.Cloud.Network, ports.ListOpts{NetworkID: server.networkIDs[i]}).AllPages(ctx)
		if err != nil {
			return "", nil, fmt.Errorf("list ports: %w", err)
		}
		all, err := ports.ExtractPorts(pages)
		if err != nil {
			return "", nil, fmt.Errorf("list ports: %w", err)
		}
		for _, p := range all {
			if !isRouterInterface(p.DeviceOwner) {
				continue
			}
			router, err := routers.Get(ctx, r.Cloud.Network, p.DeviceID).Extract()
			if err != nil {
				return "", nil, fmt.Errorf("ask for router %s: %w", p.DeviceID, err)
			}
			if router.GatewayInfo.NetworkID != "" {
				return id, router, nil
			}
		}
	}
	return "", nil, fault.New(fault.Failed, "no router with a gateway serves the networks of %s", server.Name).WithRemedy("make one: router NAME SUBNET --external")
}

// isRouterInterface says whether a port's owner is a router's side towards a network.
func isRouterInterface(owner string) bool {
	return slices.Contains([]string{"network:router_interface", "network:router_interface_distributed", "network:ha_router_replicated_interface"}, owner)
}

// routerNodes is where a router answers for a server that runs on a node: there when it is distributed, else where Neutron
// has put it.
func (r *Run) routerNodes(ctx context.Context, router *routers.Router, host string) ([]string, error) {
	if router.Distributed {
		return []string{host}, nil
	}
	var hosts []string
	err := r.wait(ctx, "a node for router "+router.Name, time.Minute, func(ctx context.Context) (bool, error) {
		pages, err := routers.ListL3Agents(r.Cloud.Network, router.ID).AllPages(ctx)
		if err != nil {
			return false, err
		}
		agents, err := routers.ExtractL3Agents(pages)
		for _, a := range agents {
			hosts = append(hosts, a.Host)
		}
		return len(hosts) > 0, err
	})
	return hosts, err
}

// routerLog prints what the L3 agent's log last says of its work on a router.
const routerLog = `grep -h "router update for $0" /var/log/neutron/neutron-l3-agent.log | tail -n 1`

// waitRouter waits until a node's L3 agent has a router ready: its namespaces are there, with all their interfaces, and it is
// not at work on it (rules come after interfaces; a log that says nothing of either is no reason to wait).
func (r *Run) waitRouter(ctx context.Context, router *routers.Router, name string, deadline time.Duration) error {
	planned, ok := r.World.Plan.Node(name)
	if !ok {
		return r.planned(name)
	}
	return r.wait(ctx, fmt.Sprintf("router %s on %s", router.Name, name), deadline, func(ctx context.Context) (bool, error) {
		pages, err := ports.List(r.Cloud.Network, ports.ListOpts{DeviceID: router.ID}).AllPages(ctx)
		if err != nil {
			return false, err
		}
		attached, err := ports.ExtractPorts(pages)
		if err != nil {
			return false, err
		}
		for namespace, devices := range routerDevices(router, attached, planned.Has(topologies.Network)) {
			out, err := node.Output(ctx, r.World.Node(name), "ip", "-n", namespace, "-o", "address")
			if err != nil {
				return false, fmt.Errorf("%s has no namespace %s", name, namespace)
			}
			for _, device := range devices {
				if !strings.Contains(string(out), " "+device+" ") {
					return false, fmt.Errorf("%s has no interface %s in %s", name, device, namespace)
				}
			}
		}
		out, err := node.Output(ctx, r.World.Node(name), "sh", "-c", routerLog, router.ID)
		if err != nil {
			return false, err
		}
		if strings.Contains(string(out), "Starting router update") {
			return false, fmt.Errorf("the L3 agent of %s is at work on it", name)
		}
		return true, nil
	})
}

// routerDevices is what a router comes to on a node, by namespace: the interfaces with an address. A distributed one has the
// sides of its networks everywhere, and its gateway and its sides for SNAT where central says.
func routerDevices(router *routers.Router, attached []ports.Port, central bool) map[string][]string {
	own, snat := "qrouter-"+router.ID, "snat-"+router.ID
	devices := map[string][]string{own: nil}
	for _, p := range attached {
		device := fmt.Sprintf("%.11s", p.ID)
		switch {
		case isRouterInterface(p.DeviceOwner):
			devices[own] = append(devices[own], "qr-"+device)
		case p.DeviceOwner == "network:router_gateway" && !router.Distributed:
			devices[own] = append(devices[own], "qg-"+device)
		case p.DeviceOwner == "network:router_gateway" && central:
			devices[snat] = append(devices[snat], "qg-"+device)
		case p.DeviceOwner == "network:router_centralized_snat" && central:
			devices[snat] = append(devices[snat], "sg-"+device)
		}
	}
	return devices
}

// detachRouter takes away what keeps a router from being removed: routes, gateway, interfaces.
func detachRouter(ctx context.Context, client *gophercloud.ServiceClient, id string) error {
	pages, err := ports.List(client, ports.ListOpts{DeviceID: id}).AllPages(ctx)
	if err != nil {
		return fmt.Errorf("list ports of router %s: %w", id, err)
	}
	attached, err := ports.ExtractPorts(pages)
	if err != nil {
		return fmt.Errorf("list ports of router %s: %w", id, err)
	}
	_, err = routers.Update(ctx, client, id, routers.UpdateOpts{GatewayInfo: &routers.GatewayInfo{}, Routes: &[]routers.Route{}}).Extract()
	if absent(err) != nil {
		return fmt.Errorf("take the gateway of router %s away: %w", id, err)
	}
	for _, p := range attached {
		if !isRouterInterface(p.DeviceOwner) {
			continue
		}
		_, err := routers.RemoveInterface(ctx, client, id, routers.RemoveInterfaceOpts{PortID: p.ID}).Extract()
		if absent(err) != nil {
			return fmt.Errorf("take an interface of router %s away: %w", id, err)
		}
	}
	return nil
}
