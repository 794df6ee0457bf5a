package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

// workshop is the container in which an image is made.
type workshop struct {
	*engine
	scratch string // its name
	host    *host
	env     []string // of the commands that need the network
	node    node.Node
}

// open makes the container from an image, with files below workDir, and the host's way to the network. settings may have
// more of it.
func (w *workshop) open(ctx context.Context, ref string, files map[string][]byte, config container.Config, settings container.HostConfig) error {
	inherited, binds, env, err := w.host.inContainer()
	if err != nil {
		return err
	}
	for name, content := range files {
		inherited[name] = content
	}
	inherited["traces"] = []byte(strings.Join(w.host.traces(), "\n") + "\n")
	w.env = append(env, "PATH="+workDir+"/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C.UTF-8", "PYTHONWARNINGS=ignore", "DEBIAN_FRONTEND=noninteractive", "DEBIAN_PRIORITY=critical")
	config.Image, config.Entrypoint, config.Cmd = ref, []string{"sleep"}, []string{"infinity"}
	// The host's network: a proxy or mirror may listen on its loopback.
	settings.NetworkMode, settings.Binds = "host", binds
	settings.Tmpfs = map[string]string{workDir: "exec,mode=755", "/tmp": "exec,mode=1777", "/var/cache/apt": "", "/var/lib/apt/lists": ""}
	made, err := w.ContainerCreate(ctx, &config, &settings, nil, nil, w.scratch)
	if err != nil {
		return fmt.Errorf("create the build's container: %w", err)
	}
	if err := w.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return fmt.Errorf("start the build's container: %w", err)
	}
	w.node = w.nodes.Node(w.scratch, "image")
	tarball, err := tarOf("", inherited)
	if err != nil {
		return err
	}
	if err := node.Push(ctx, w.node, workDir, bytes.NewReader(tarball)); err != nil {
		return err
	}
	_, err = node.Output(ctx, w.node, "mkdir", "-p", "/var/cache/apt/archives/partial", "/var/lib/apt/lists/partial")
	return err
}

// do runs a script in the container with the host's way to the network.
func (w *workshop) do(ctx context.Context, out *output, script string, args ...string) error {
	err := w.node.Run(ctx, node.Cmd{Args: append([]string{"sh", "-ec", script, "sh"}, args...), Env: w.env, Stdout: out, Stderr: out})
	var exit *node.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("exit code %d", exit.Code)
	}
	return err
}

// aptFault is the failure of an apt-get that needs a mirror.
func (w *workshop) aptFault(err error) error {
	return fault.New(fault.Failed, "apt-get: %w", err).
		WithRemedy("see that the Debian mirror answers (%s; it and proxies are taken from this machine's APT configuration)", w.host.Sources[0].URI)
}

// search is a fault when something of the host is left in what is to be an image.
func (w *workshop) search(ctx context.Context, out *output) error {
	var found bytes.Buffer
	err := w.node.Run(ctx, node.Cmd{Args: []string{"sh", "-c", `grep -rIlsF -f "$1" /etc /root /home /srv /opt/salt/pyvenv.cfg /usr/local /usr/sbin/policy-rc.d /var/lib/apt /var/log /var/spool
		ls -d /etc/pip.conf /etc/xdg/pip /root/.config/pip /root/.pip /opt/salt/pip.conf /etc/apt/auth.conf 2>/dev/null
		true`, "sh", workDir + "/traces"}, Stdout: &found, Stderr: out})
	if err != nil {
		return fmt.Errorf("look for what is left of the host: %w", err)
	}
	if left := strings.Fields(found.String()); len(left) > 0 {
		return fault.New(fault.Failed, "this machine's mirrors, proxies or passwords would stay in the image: %s", strings.Join(left, " ")).
			WithRemedy("let the install state that writes it remove it")
	}
	return nil
}

// discard removes the container, with what is in it.
func (w *workshop) discard(ctx context.Context) error {
	if err := w.ContainerRemove(ctx, w.scratch, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the build's container: %w", err)
	}
	return nil
}
