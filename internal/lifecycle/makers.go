package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/toast-cloud/toastdev/internal/engine"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/host"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/internal/record"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/provisioners/docker"
	"github.com/toast-cloud/toastdev/provisioners/libvirt"
	"github.com/toast-cloud/toastdev/provisioners/virtualbox"
	"github.com/toast-cloud/toastdev/provisioners/vm"
	"github.com/toast-cloud/toastdev/topologies"
)

// makers are the provisioners by name, each made when it is first asked for. Whether what one works with answers is found when
// it is first used.
type makers struct {
	home *project.Home
	log  hclog.Logger

	mu   sync.Mutex
	made map[string]provisioners.Provisioner
	keys sync.Mutex // secrets are made when they are first asked for: by one alone
}

// of is the provisioner of that name, on a machine with these facts; nil: nobody has looked.
func (m *makers) of(name string, facts *host.Facts) (provisioners.Provisioner, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.made[name]; ok {
		return p, nil
	}
	p, err := m.make(name, facts)
	if err != nil {
		return nil, err
	}
	if m.made == nil {
		m.made = map[string]provisioners.Provisioner{}
	}
	m.made[name] = p
	return p, nil
}

func (m *makers) make(name string, facts *host.Facts) (provisioners.Provisioner, error) {
	log := m.log.Named(name)
	switch name {
	case topologies.Docker:
		options := docker.Options{Log: log}
		if facts != nil {
			options.Capabilities = facts.Capabilities
		}
		return docker.New(options)
	case topologies.Libvirt:
		return libvirt.New(libvirt.Options{Log: log, Images: m.home.Path("images"), KVM: facts != nil && facts.KVM.Usable, Key: m.key}), nil
	case topologies.VirtualBox:
		return virtualbox.New(virtualbox.Options{Log: log, Images: m.home.Path("images"), Folder: m.home.Path("virtualbox"), Key: m.key}), nil
	}
	known := []string{topologies.Docker, topologies.Libvirt, topologies.VirtualBox}
	return nil, fault.New(fault.Invalid, "no provisioner is named %q", name).Suggest(name, known)
}

// key is an environment's.
func (m *makers) key(environment string) (vm.Key, error) {
	m.keys.Lock()
	defer m.keys.Unlock()
	secrets, err := (&record.Environment{Name: environment, Home: m.home}).Secrets()
	return vm.Key{Private: []byte(secrets["ssh_private_key"]), Public: secrets["ssh_public_key"]}, err
}

// provisioner is the one of that name.
func (t *Toastdev) provisioner(name string) (provisioners.Provisioner, error) {
	return t.makers.of(name, t.facts)
}

// provisioners is those of these names. When check is set, each can be used.
func (t *Toastdev) provisioners(ctx context.Context, names []string, check bool) (map[string]provisioners.Provisioner, error) {
	byName := map[string]provisioners.Provisioner{}
	for _, name := range names {
		p, err := t.provisioner(name)
		if err != nil {
			return nil, err
		}
		if checker, ok := p.(provisioners.Checker); ok && check {
			if err := checker.Check(ctx); err != nil {
				return nil, err
			}
		}
		byName[name] = p
	}
	return byName, nil
}

// makersOf is who makes each of a plan's nodes; all of them can be used.
func (t *Toastdev) makersOf(ctx context.Context, p *plan.Plan) (func(*plan.Node) provisioners.Provisioner, error) {
	byName, err := t.provisioners(ctx, p.Provisioners(), true)
	return func(n *plan.Node) provisioners.Provisioner { return byName[n.Provisioner] }, err
}

// state is how a node is now.
func (t *Toastdev) state(ctx context.Context, n *plan.Node) (provisioners.State, error) {
	p, err := t.provisioner(n.Provisioner)
	if err != nil {
		return "", err
	}
	return p.State(ctx, n.Resource)
}

// engine opens an environment's state, with the provisioners of all that is in it and in the plan.
func (t *Toastdev) engine(env *record.Environment, p *plan.Plan) (*engine.Engine, error) {
	names := p.Provisioners()
	resources, err := engine.Open(env.Path("state"), nil, t.log.Named("engine")).Resources(env.Name)
	if err != nil {
		return nil, err
	}
	for _, r := range resources {
		if !slices.Contains(names, r.Provisioner) {
			names = append(names, r.Provisioner)
		}
	}
	byName, err := t.provisioners(context.Background(), names, false)
	if err != nil {
		return nil, err
	}
	return engine.Open(env.Path("state"), byName, t.log.Named("engine")), nil
}

// containersTake is about how much memory a container of a role comes to take, in bytes: the sum of PSS in docs/measurements.md.
var containersTake = map[string]int64{topologies.Control: 2 << 30, topologies.Network: 3 << 29, topologies.Compute: 1 << 30, topologies.Storage: 1 << 28}

// roomForVMs is a fault unless this machine has the memory that the plan's VMs which do not run yet are to have, beside the
// containers that do not. Containers take what they need; a VM takes all it is given, sooner or later.
func (t *Toastdev) roomForVMs(ctx context.Context, p *plan.Plan) error {
	if t.facts.Libvirt.Elsewhere() != "" || len(p.VMs()) == 0 {
		return nil
	}
	var wanted, beside int64
	var names []string
	for _, n := range p.Nodes {
		state, err := t.state(ctx, &n)
		if err != nil {
			return err
		}
		switch {
		case state != provisioners.Stopped && state != provisioners.Absent:
		case n.VM():
			wanted += n.Memory
			names = append(names, fmt.Sprintf("%s %s", n.Name, topologies.Size(n.Memory)))
		default:
			for _, role := range n.Roles {
				beside += containersTake[role]
			}
		}
	}
	available := t.facts.Memory.Available
	if wanted == 0 || wanted+beside <= available {
		return nil
	}
	take := fmt.Sprintf("take %.1f GiB of memory", float64(wanted)/(1<<30))
	if beside > 0 {
		take += fmt.Sprintf(", the containers beside them some %.1f", float64(beside)/(1<<30))
	}
	e := fault.New(fault.Missing, "the VMs that are to start %s; this machine has %.1f GiB available", take, float64(available)/(1<<30)).
		WithRemedy("free memory, or give them less: --set nodes.GROUP.memory=2GiB")
	e.Log = names
	return e
}
