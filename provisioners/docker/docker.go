// Package docker makes nodes as systemd containers of a Docker engine, on its bridge networks.
package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os/user"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
	"github.com/hashicorp/go-hclog"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners"
)

// oldest is the API of engine 20.10: the first with private cgroup namespaces.
const oldest = "1.41"

// perEndpointMAC is the first API that takes a MAC for each network of a container. Older engines take one for the
// container's first network, and give the others 02:42 and the IPv4 address.
const perEndpointMAC = "1.44"

// Labels of everything that is made.
const (
	labelEnvironment = "toastdev.environment"
	labelHome        = "toastdev.home"
	labelNode        = "toastdev.node" // a node's host name
	labelSpec        = "toastdev.spec" // the digest of what was asked for and cannot be changed in place
)

// Options of a Provisioner. The zero value is the engine of DOCKER_HOST or the local one.
type Options struct {
	Log hclog.Logger
	// Capabilities the engine can give (CapBnd of the host), by name without CAP_; nil: all of them.
	Capabilities []string
	// Boot returns when a node that was just started is ready; nil: when its systemd says so.
	Boot func(context.Context, node.Node) error
}

// Provisioner makes things in one Docker engine.
type Provisioner struct {
	client *client.Client
	log    hclog.Logger
	caps   []string
	boot   func(context.Context, node.Node) error
}

var (
	_ provisioners.Provisioner = (*Provisioner)(nil)
	_ provisioners.Preparer    = (*Provisioner)(nil)
	_ provisioners.Pauser      = (*Provisioner)(nil)
	_ provisioners.Killer      = (*Provisioner)(nil)
	_ provisioners.Unplugger   = (*Provisioner)(nil)
)

// New makes a Provisioner of the engine that DOCKER_HOST names, or the local one. It does not talk to it yet.
func New(opts Options) (*Provisioner, error) {
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fault.New(fault.Invalid, "the environment's Docker settings: %w", err).
			WithRemedy("correct or unset DOCKER_HOST, DOCKER_CERT_PATH and DOCKER_TLS_VERIFY")
	}
	p := &Provisioner{client: c, log: opts.Log, caps: capabilities(opts.Capabilities), boot: opts.Boot}
	if p.log == nil {
		p.log = hclog.NewNullLogger()
	}
	if p.boot == nil {
		p.boot = p.bootSystemd
	}
	return p, nil
}

// Close ends the connections to the engine.
func (p *Provisioner) Close() error { return p.client.Close() }

// Check says what is wrong with the engine: absent, not permitted, too old. It is nil when it can be used.
func (p *Provisioner) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	ping, err := p.client.Ping(ctx)
	if err != nil {
		return p.fail(err, "ask the engine for its version")
	}
	if ping.OSType != "" && ping.OSType != "linux" {
		return fault.New(fault.Unsupported, "the container engine runs %s containers", ping.OSType).
			WithRemedy("let DOCKER_HOST name an engine of Linux containers")
	}
	if versions.LessThan(ping.APIVersion, oldest) {
		return fault.New(fault.Missing, "the container engine speaks API %s", ping.APIVersion).
			WithRemedy("install Docker 20.10 (API %s) or newer", oldest)
	}
	return nil
}

// speaks says whether the engine's API is at least that version.
func (p *Provisioner) speaks(ctx context.Context, version string) bool {
	p.client.NegotiateAPIVersion(ctx)
	return versions.GreaterThanOrEqualTo(p.client.ClientVersion(), version)
}

// fail is err with the step it happened in, and with a remedy where the engine itself is what is wrong.
func (p *Provisioner) fail(err error, step string, args ...any) error {
	step = fmt.Sprintf(step, args...)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", step, err)
	case errors.Is(err, fs.ErrPermission), client.IsErrConnectionFailed(err) && strings.Contains(err.Error(), "permission denied"):
		name := "$USER"
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		return fault.New(fault.Missing, "%s: no permission to use the container engine at %s: %w", step, p.client.DaemonHost(), err).
			WithRemedy("add yourself to its group and log in again: sudo usermod -aG docker %s", name)
	case client.IsErrConnectionFailed(err), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		host := p.client.DaemonHost()
		e := fault.New(fault.Missing, "%s: no container engine answers at %s", step, host)
		e.Err = err
		if u, parsed := url.Parse(host); parsed == nil && u.Scheme == "unix" {
			return e.WithRemedy("start it: sudo systemctl start docker; or let toastdev install and start it: toastdev doctor --fix")
		}
		return e.WithRemedy("correct or unset DOCKER_HOST")
	}
	return fmt.Errorf("%s: %w", step, err)
}

// taken is the refusal to use a thing that carries another owner's labels, or none.
func taken(kind provisioners.Kind, name string, labels map[string]string) error {
	whose := "something that is not toastdev's"
	if environment := labels[labelEnvironment]; environment != "" {
		whose = fmt.Sprintf("environment %q of the toastdev home %s", environment, labels[labelHome])
	}
	e := fault.New(fault.Busy, "the engine has a %s of this name, of %s", engineWord(kind), whose).
		WithRemedy("remove it (docker %s rm %s), or name the environment otherwise (--name)", engineWord(kind), name)
	e.Unit = string(kind) + " " + name
	return e
}

func engineWord(kind provisioners.Kind) string {
	if kind == provisioners.KindNode {
		return "container"
	}
	return string(kind)
}

func ownerLabels(o provisioners.Owner) map[string]string {
	return map[string]string{labelEnvironment: o.Environment, labelHome: o.Home}
}

func owns(o provisioners.Owner, labels map[string]string) bool {
	return labels[labelEnvironment] == o.Environment && labels[labelHome] == o.Home
}

func ownedBy(o provisioners.Owner) filters.Args {
	return filters.NewArgs(
		filters.Arg("label", labelEnvironment+"="+o.Environment),
		filters.Arg("label", labelHome+"="+o.Home),
	)
}

// Exists says whether the owner has a thing of that kind and name.
func (p *Provisioner) Exists(ctx context.Context, owner provisioners.Owner, kind provisioners.Kind, name string) (bool, error) {
	labels, err := p.labels(ctx, kind, name)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, p.fail(err, "look for %s %q", kind, name)
	}
	return owns(owner, labels), nil
}

// labels of a thing; the engine's own error when there is none.
func (p *Provisioner) labels(ctx context.Context, kind provisioners.Kind, name string) (map[string]string, error) {
	switch kind {
	case provisioners.KindNetwork:
		n, err := p.network(ctx, name)
		return n.Labels, err
	case provisioners.KindVolume:
		v, err := p.client.VolumeInspect(ctx, name)
		return v.Labels, err
	default:
		c, err := p.client.ContainerInspect(ctx, name)
		if err != nil {
			return nil, err
		}
		return c.Config.Labels, nil
	}
}

// Owned lists what carries the owner's labels: nodes, then networks, then volumes.
func (p *Provisioner) Owned(ctx context.Context, owner provisioners.Owner) ([]provisioners.Thing, error) {
	var things []provisioners.Thing
	for _, list := range []func(context.Context, filters.Args) ([]provisioners.Thing, error){p.listNodes, p.listNetworks, p.listVolumes} {
		found, err := list(ctx, ownedBy(owner))
		if err != nil {
			return nil, p.fail(err, "list what belongs to environment %q", owner.Environment)
		}
		things = append(things, found...)
	}
	return things, nil
}
