package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/vishvananda/netlink"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/provisioners"
)

// bootTimeout is how long a node may take to boot; four at once take 4 s on two cores.
const bootTimeout = 3 * time.Minute

// CreateNode makes a container on all its networks, puts its identity in, starts it and waits until it has booted.
func (p *Provisioner) CreateNode(ctx context.Context, n provisioners.Node) error {
	c, err := p.client.ContainerInspect(ctx, n.Name)
	switch {
	case errdefs.IsNotFound(err):
		return p.makeNode(ctx, n)
	case err != nil:
		return p.fail(err, "look for node %q", n.Name)
	case !owns(n.Owner, c.Config.Labels):
		return taken(provisioners.KindNode, n.Name, c.Config.Labels)
	}
	whole, err := p.whole(ctx, c, n)
	if err != nil {
		return err
	}
	if !whole {
		if err := p.DeleteNode(ctx, n.Owner, n.Name); err != nil {
			return err
		}
		return p.makeNode(ctx, n)
	}
	if err := p.limit(ctx, c, n); err != nil {
		return err
	}
	if err := p.putIdentity(ctx, n); err != nil {
		return err
	}
	if err := p.Start(ctx, n.Name); err != nil {
		return err
	}
	return p.renewHosts(ctx, n)
}

// whole says whether a container is the node as asked for, was started once, and is on the networks that are there now.
func (p *Provisioner) whole(ctx context.Context, c container.InspectResponse, n provisioners.Node) (bool, error) {
	if c.Config.Labels[labelSpec] != p.fixed(n) {
		return false, nil
	}
	switch c.State.Status {
	case container.StateCreated, container.StateDead, container.StateRemoving:
		return false, nil
	}
	for _, nic := range n.NICs {
		at, ok := c.NetworkSettings.Networks[nic.Network]
		if !ok {
			return false, nil
		}
		now, err := p.network(ctx, nic.Network)
		if err != nil {
			return false, p.fail(err, "look for network %q", nic.Network)
		}
		if at.NetworkID != now.ID {
			return false, nil
		}
	}
	return true, nil
}

func (p *Provisioner) makeNode(ctx context.Context, n provisioners.Node) error {
	macs := p.speaks(ctx, perEndpointMAC)
	config, host, networks := p.configs(n, macs)
	made, err := p.client.ContainerCreate(ctx, config, host, networks, nil, n.Name)
	if errdefs.IsNotFound(err) && strings.Contains(err.Error(), n.Image) {
		return fault.New(fault.NotFound, "create node %q: the engine has no image %s: %w", n.Name, n.Image, err).
			WithRemedy("build it: toastdev image build")
	}
	if err != nil {
		return p.fail(err, "create node %q", n.Name)
	}
	for _, warning := range made.Warnings {
		p.log.Warn("the engine warns", "node", n.Name, "warning", warning)
	}
	for _, nic := range n.NICs[min(1, len(n.NICs)):] {
		if err := p.client.NetworkConnect(ctx, nic.Network, made.ID, endpoint(nic, macs)); err != nil {
			return p.fail(err, "connect node %q to network %q", n.Name, nic.Network)
		}
	}
	if err := p.putIdentity(ctx, n); err != nil {
		return err
	}
	if err := p.client.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return p.fail(err, "start node %q", n.Name)
	}
	if err := p.booted(ctx, n.Name, n.Hostname); err != nil {
		return err
	}
	return p.checkMACs(ctx, n)
}

// checkMACs compares the NICs' MACs with those asked for: an old engine does not take them all.
func (p *Provisioner) checkMACs(ctx context.Context, n provisioners.Node) error {
	c, err := p.client.ContainerInspect(ctx, n.Name)
	if err != nil {
		return p.fail(err, "look for node %q", n.Name)
	}
	for _, nic := range n.NICs {
		if at := c.NetworkSettings.Networks[nic.Network]; at == nil || !strings.EqualFold(at.MacAddress, nic.MAC) {
			return fmt.Errorf("create node %q: the engine did not give it the MAC %s on network %q", n.Name, nic.MAC, nic.Network)
		}
	}
	return nil
}

// putIdentity writes /etc/toastdev/identity, whether the node runs or not: it is not in a tmpfs.
func (p *Provisioner) putIdentity(ctx context.Context, n provisioners.Node) error {
	if n.Identity == "" {
		return nil
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "toastdev/", Mode: 0o755}); err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "toastdev/identity", Mode: 0o644, Size: int64(len(n.Identity))}); err != nil {
		return err
	}
	if _, err := w.Write([]byte(n.Identity)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return p.fail(p.client.CopyToContainer(ctx, n.Name, "/etc", &b, container.CopyToContainerOptions{}), "give node %q its identity", n.Name)
}

// renewHosts writes the identity's names into a running node's /etc/hosts, as its boot does. In place: it is a bind mount.
func (p *Provisioner) renewHosts(ctx context.Context, n provisioners.Node) error {
	if n.Identity == "" {
		return nil
	}
	_, err := node.Input(ctx, p.Node(n.Name, n.Hostname), []byte(provisioners.Hosts(n.Identity)), "tee", "/etc/hosts")
	if err != nil {
		return fmt.Errorf("renew /etc/hosts of node %q: %w", n.Name, err)
	}
	return nil
}

// limit changes a node's limits to those asked for. The engine cannot take a limit away again; all that the host has
// comes to the same.
func (p *Provisioner) limit(ctx context.Context, c container.InspectResponse, n provisioners.Node) error {
	cpus, memory := int64(n.CPUs*1e9), n.Memory
	if cpus == 0 && c.HostConfig.NanoCPUs != 0 || memory == 0 && c.HostConfig.Memory != 0 {
		info, err := p.client.Info(ctx)
		if err != nil {
			return p.fail(err, "ask the engine what the host has")
		}
		if cpus == 0 && c.HostConfig.NanoCPUs != 0 {
			cpus = int64(info.NCPU) * 1e9
		}
		if memory == 0 && c.HostConfig.Memory != 0 {
			memory = info.MemTotal
		}
	}
	if cpus == c.HostConfig.NanoCPUs && memory == c.HostConfig.Memory {
		return nil
	}
	resources := container.Resources{NanoCPUs: cpus, Memory: memory}
	if memory > 0 {
		resources.MemorySwap = -1
	}
	_, err := p.client.ContainerUpdate(ctx, c.ID, container.UpdateConfig{Resources: resources})
	return p.fail(err, "change the limits of node %q", n.Name)
}

// DeleteNode kills and removes the owner's container, with its anonymous volumes, and the host's ends of its interfaces.
func (p *Provisioner) DeleteNode(ctx context.Context, owner provisioners.Owner, name string) error {
	c, err := p.client.ContainerInspect(ctx, name)
	if errdefs.IsNotFound(err) || err == nil && !owns(owner, c.Config.Labels) {
		return nil
	}
	if err != nil {
		return p.fail(err, "look for node %q", name)
	}
	var ends []netlink.Link // of all nodes on its networks: which are its own, nobody says
	for name := range c.NetworkSettings.Networks {
		if n, err := p.network(ctx, name); err == nil { // else its interfaces are none of ours
			ends = append(ends, hostEnds(n)...)
		}
	}
	err = p.client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsConflict(err) { // the engine is at it already
		err = node.Wait(ctx, fmt.Sprintf("the engine to remove node %q", name), time.Minute, func(ctx context.Context) (bool, error) {
			_, err := p.client.ContainerInspect(ctx, c.ID)
			return errdefs.IsNotFound(err), nil
		})
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return p.fail(err, "delete node %q", name)
	}
	return letGo(ctx, "node "+name, ends)
}

// State of a node.
func (p *Provisioner) State(ctx context.Context, name string) (provisioners.State, error) {
	c, err := p.client.ContainerInspect(ctx, name)
	switch {
	case errdefs.IsNotFound(err):
		return provisioners.Absent, nil
	case err != nil:
		return "", p.fail(err, "look for node %q", name)
	case c.State.Paused:
		return provisioners.Paused, nil
	case c.State.Running:
		return provisioners.Running, nil
	}
	return provisioners.Stopped, nil
}

// Start starts a stopped node or thaws a paused one, and returns when it has booted.
func (p *Provisioner) Start(ctx context.Context, name string) error {
	c, err := p.client.ContainerInspect(ctx, name)
	if err != nil {
		return p.missing(err, name)
	}
	if c.State.Paused {
		return p.fail(p.client.ContainerUnpause(ctx, name), "thaw node %q", name)
	}
	if !c.State.Running {
		if err := p.client.ContainerStart(ctx, name, container.StartOptions{}); err != nil {
			return p.fail(err, "start node %q", name)
		}
	}
	return p.booted(ctx, name, c.Config.Labels[labelNode])
}

// Stop ends a node as its own shutdown would.
func (p *Provisioner) Stop(ctx context.Context, name string) error {
	if state, err := p.State(ctx, name); err == nil && state == provisioners.Paused {
		if err := p.client.ContainerUnpause(ctx, name); err != nil {
			return p.fail(err, "thaw node %q", name)
		}
	}
	seconds := int(provisioners.StopTimeout.Seconds())
	if err := p.client.ContainerStop(ctx, name, container.StopOptions{Timeout: &seconds}); err != nil {
		return p.missing(err, name)
	}
	return nil
}

// Kill ends a node as a power cut does. It stays ended until Start.
func (p *Provisioner) Kill(ctx context.Context, name string) error {
	// Not ContainerKill: the restart policy would start the node again at once.
	none := 0
	if err := p.client.ContainerStop(ctx, name, container.StopOptions{Signal: "SIGKILL", Timeout: &none}); err != nil {
		return p.missing(err, name)
	}
	return nil
}

// Pause freezes a node as it is.
func (p *Provisioner) Pause(ctx context.Context, name string) error {
	if state, err := p.State(ctx, name); err == nil && state == provisioners.Paused {
		return nil
	}
	if err := p.client.ContainerPause(ctx, name); err != nil {
		return p.missing(err, name)
	}
	return nil
}

func (p *Provisioner) missing(err error, name string) error {
	if errdefs.IsNotFound(err) {
		e := fault.New(fault.NotFound, "there is no such node in the engine: %w", err).WithRemedy("bring it back: toastdev up")
		e.Node = name
		return e
	}
	return p.fail(err, "node %q", name)
}

// booted waits until a started node is ready.
func (p *Provisioner) booted(ctx context.Context, name, hostname string) error {
	if err := p.boot(ctx, p.Node(name, hostname)); err != nil {
		return fmt.Errorf("boot node %q: %w", name, err)
	}
	return nil
}

// bootSystemd waits until systemd has started everything it wants. Units that failed do not make the node useless: Salt
// has not configured them yet. They are told to the log.
func (p *Provisioner) bootSystemd(ctx context.Context, n node.Node) error {
	name := n.(*machine).container
	c, err := p.client.ContainerInspect(ctx, name)
	if err != nil {
		return p.missing(err, name)
	}
	restarts := c.RestartCount
	return node.Wait(ctx, "systemd on "+n.Name(), bootTimeout, func(ctx context.Context) (bool, error) {
		var out bytes.Buffer
		err := n.Run(ctx, node.Cmd{Args: []string{"systemctl", "is-system-running", "--wait"}, Stdout: &out})
		switch state := strings.TrimSpace(out.String()); state {
		case "running":
			return true, nil
		case "degraded", "maintenance":
			failed, _ := node.Output(ctx, n, "systemctl", "--failed", "--plain", "--no-legend")
			p.log.Warn("units failed at boot", "node", n.Name(), "state", state, "units", node.LastLines(string(failed), 20))
			return true, nil
		}
		if dead := p.died(ctx, name, restarts); dead != nil {
			return true, dead
		}
		return false, err
	})
}

// died is why a node that was started does not run any more, or was started again by the engine, which had done so that
// many times before; nil while it runs.
func (p *Provisioner) died(ctx context.Context, name string, restarts int) error {
	c, err := p.client.ContainerInspect(ctx, name)
	if err != nil {
		return p.missing(err, name)
	}
	if c.State.Running && !c.State.Restarting && c.RestartCount == restarts {
		return nil
	}
	e := fault.New(fault.Failed, "the container ended at boot")
	e.Node, e.Unit = name, entrypoint
	var out bytes.Buffer
	if logs, err := p.client.ContainerLogs(ctx, name, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: "10"}); err == nil {
		_, _ = stdcopy.StdCopy(&out, &out, logs)
		logs.Close()
		e.Log = node.LastLines(out.String(), 10)
	}
	return e
}

func (p *Provisioner) listNodes(ctx context.Context, owned filters.Args) ([]provisioners.Thing, error) {
	containers, err := p.client.ContainerList(ctx, container.ListOptions{All: true, Filters: owned})
	names := map[string]bool{}
	for _, c := range containers {
		if len(c.Names) > 0 {
			names[strings.TrimPrefix(c.Names[0], "/")] = true
		}
	}
	var things []provisioners.Thing
	for _, name := range slices.Sorted(maps.Keys(names)) {
		things = append(things, provisioners.Thing{Kind: provisioners.KindNode, Name: name})
	}
	return things, err
}
