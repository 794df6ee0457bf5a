package host

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/client"
)

// engine asks the container engine that DOCKER_HOST, else the usual socket, leads to.
func engine(ctx context.Context, find func(string) (string, error)) Engine {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return Engine{State: EngineStopped, Reason: err.Error()}
	}
	defer api.Close()
	e := Engine{Address: api.DaemonHost()}
	if socket, ok := strings.CutPrefix(e.Address, "unix://"); ok {
		// The client's own error no longer tells these apart.
		c, err := net.DialTimeout("unix", socket, 2*time.Second)
		switch {
		case errors.Is(err, fs.ErrPermission):
			e.State, e.Reason = EngineDenied, "no permission for "+socket
			return e
		case err != nil:
			e.State, e.Reason = EngineStopped, err.Error()
			if _, err := find("dockerd"); err != nil {
				e.State, e.Reason = EngineMissing, "there is no dockerd, and nothing listens on "+socket
			}
			return e
		}
		c.Close()
	}
	info, err := api.Info(ctx)
	if err != nil {
		e.State, e.Reason = EngineStopped, err.Error()
		return e
	}
	e.State, e.Version, e.API = EngineRunning, info.ServerVersion, api.ClientVersion()
	e.Root, e.Storage = info.DockerRootDir, info.Driver
	e.Rootless = slices.Contains(info.SecurityOptions, "name=rootless")
	return e
}
