package engine

import (
	"encoding/json"
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/provisioners"
)

// Types of our resources. They are the same for all provisioners: which one makes a resource is one of its inputs.
const (
	typeNetwork = "toastdev:index:Network"
	typeVolume  = "toastdev:index:Volume"
	typeNode    = "toastdev:index:Node"

	provisionerKey = "provisioner"
)

func kindOf(t tokens.Type) (provisioners.Kind, bool) {
	switch t {
	case typeNetwork:
		return provisioners.KindNetwork, true
	case typeVolume:
		return provisioners.KindVolume, true
	case typeNode:
		return provisioners.KindNode, true
	}
	return "", false
}

// declaration is a Pulumi program, and the names it declares.
type declaration struct {
	run   pulumi.RunFunc
	names map[provisioners.Thing]bool
}

// declares says whether the program has a resource. No program has none.
func (d *declaration) declares(urn resource.URN) bool {
	kind, ok := kindOf(urn.Type())
	return d != nil && ok && d.names[provisioners.Thing{Kind: kind, Name: urn.Name()}]
}

// program declares the plan. A node depends on its networks and volumes, by their ids; on other nodes it does not, so
// they are made at once.
func program(p *plan.Plan, owner provisioners.Owner) *declaration {
	names := map[provisioners.Thing]bool{}
	for _, t := range things(p) {
		names[t] = true
	}
	run := func(ctx *pulumi.Context) error {
		ids := map[string]pulumi.IDOutput{}
		for _, n := range p.Networks {
			id, err := register(ctx, typeNetwork, n.Resource, n.Provisioner, network(p, n, owner), nil)
			if err != nil {
				return err
			}
			ids[n.Resource] = id
		}
		for _, v := range p.Volumes {
			spec := provisioners.Volume{Owner: owner, Name: v.Resource, Size: v.Size}
			id, err := register(ctx, typeVolume, v.Resource, v.Provisioner, spec, nil)
			if err != nil {
				return err
			}
			ids[v.Resource] = id
		}
		for _, n := range p.Nodes {
			spec, err := machine(p, n, owner)
			if err != nil {
				return err
			}
			if _, err := register(ctx, typeNode, n.Resource, n.Provisioner, spec, ids); err != nil {
				return err
			}
		}
		return nil
	}
	return &declaration{run: run, names: names}
}

// things is all that the plan has, in its order.
func things(p *plan.Plan) []provisioners.Thing {
	var list []provisioners.Thing
	for _, n := range p.Networks {
		list = append(list, provisioners.Thing{Kind: provisioners.KindNetwork, Name: n.Resource})
	}
	for _, v := range p.Volumes {
		list = append(list, provisioners.Thing{Kind: provisioners.KindVolume, Name: v.Resource})
	}
	for _, n := range p.Nodes {
		list = append(list, provisioners.Thing{Kind: provisioners.KindNode, Name: n.Resource})
	}
	return list
}

// register declares one resource with a spec's fields as its inputs. A field "network" or "volume" in a list becomes the
// id of that resource, which is its name: so Pulumi knows the dependency.
func register(ctx *pulumi.Context, kind, name, provisioner string, spec any, ids map[string]pulumi.IDOutput) (pulumi.IDOutput, error) {
	plain, err := plainMap(spec)
	if err != nil {
		return pulumi.IDOutput{}, err
	}
	inputs := pulumi.Map{provisionerKey: pulumi.String(provisioner)}
	for key, value := range plain {
		if v := input(value, ids); v != nil {
			inputs[key] = v
		}
	}
	var state pulumi.CustomResourceState
	if err := ctx.RegisterResource(kind, name, inputs, &state); err != nil {
		return pulumi.IDOutput{}, fmt.Errorf("declare %s %q: %w", kind, name, err)
	}
	return state.ID(), nil
}

func plainMap(spec any) (map[string]any, error) {
	data, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	var plain map[string]any
	return plain, json.Unmarshal(data, &plain)
}

// input is plain JSON as a Pulumi input; nil for null.
func input(v any, ids map[string]pulumi.IDOutput) pulumi.Input {
	switch v := v.(type) {
	case string:
		return pulumi.String(v)
	case float64:
		return pulumi.Float64(v)
	case bool:
		return pulumi.Bool(v)
	case []any:
		list := pulumi.Array{}
		for _, element := range v {
			list = append(list, input(element, ids))
		}
		return list
	case map[string]any:
		inputs := pulumi.Map{}
		for key, value := range v {
			if name, ok := value.(string); ok && (key == "network" || key == "volume") {
				if id, ok := ids[name]; ok {
					inputs[key] = id.ToStringOutput()
					continue
				}
			}
			if element := input(value, ids); element != nil {
				inputs[key] = element
			}
		}
		return inputs
	}
	return nil
}

func network(p *plan.Plan, n plan.Network, owner provisioners.Owner) provisioners.Network {
	made := provisioners.Network{
		Owner: owner, Name: n.Resource, Bridge: n.Bridge, Subnet: n.Subnet, Gateway: n.Gateway, MTU: n.MTU, Internal: n.Internal,
	}
	if p.Apart() && n.Subnet.Contains(p.API) {
		made.Public = p.Public()
	}
	return made
}

func machine(p *plan.Plan, n plan.Node, owner provisioners.Owner) (provisioners.Node, error) {
	m := provisioners.Node{
		Owner: owner, Name: n.Resource, Hostname: n.Name, Image: n.Image, CPUs: n.CPUs, Memory: n.Memory, Weight: n.Weight, Disk: n.Disk,
		Identity: p.Identity(n.Name), NICs: []provisioners.NIC{}, Mounts: []provisioners.Mount{},
	}
	for _, nic := range n.NICs {
		network, ok := p.Network(nic.Network)
		if !ok || len(nic.Addresses) == 0 {
			return m, fmt.Errorf("node %q: NIC %q has no network or no address", n.Name, nic.Name)
		}
		port := provisioners.NIC{Network: network.Resource, Address: nic.Addresses[0].Addr(), MAC: nic.MAC}
		if n.VM() { // a container is connected by the network's name, and its record stays as it is
			port.Bridge, port.MTU = network.Bridge, nic.MTU
		}
		m.NICs = append(m.NICs, port)
	}
	for _, mount := range n.Mounts {
		found := false
		for _, v := range p.Volumes {
			if v.Name == mount.Volume {
				m.Mounts = append(m.Mounts, provisioners.Mount{Volume: v.Resource, Path: mount.Path})
				found = true
			}
		}
		if !found {
			return m, fmt.Errorf("node %q: there is no volume %q", n.Name, mount.Volume)
		}
	}
	return m, nil
}
