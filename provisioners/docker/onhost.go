package docker

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/toast-cloud/toastdev/provisioners"
)

// onHost runs a shell script with arguments in the host's network, by a container of a node image: the user may be no more
// than a member of the group docker. The container's name is of that purpose alone, so that what a killed toastdev left of it
// is found; step says it in words.
func (p *Provisioner) onHost(ctx context.Context, owner provisioners.Owner, image, name, step, script string, args ...string) error {
	if err := p.DeleteNode(ctx, owner, name); err != nil {
		return err
	}
	made, err := p.client.ContainerCreate(ctx, &container.Config{
		Image:      image,
		Entrypoint: []string{"sh", "-c", script, "host"},
		Cmd:        args,
		Labels:     ownerLabels(owner),
	}, &container.HostConfig{NetworkMode: "host", CapAdd: []string{"NET_ADMIN"}}, nil, nil, name)
	if err != nil {
		return p.fail(err, "%s", step)
	}
	defer func() {
		if err := p.DeleteNode(context.WithoutCancel(ctx), owner, name); err != nil {
			p.log.Warn("a helper container stays behind", "container", name, "error", err)
		}
	}()
	ended, failed := p.client.ContainerWait(ctx, made.ID, container.WaitConditionNextExit)
	if err := p.client.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return p.fail(err, "%s", step)
	}
	select {
	case err := <-failed:
		return p.fail(err, "%s", step)
	case end := <-ended:
		if end.StatusCode == 0 {
			return nil
		}
		var out bytes.Buffer
		if logs, err := p.client.ContainerLogs(ctx, made.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true}); err == nil {
			_, _ = stdcopy.StdCopy(&out, &out, logs)
			logs.Close()
		}
		return fmt.Errorf("%s: exit code %d: %s", step, end.StatusCode, strings.TrimSpace(out.String()))
	}
}
