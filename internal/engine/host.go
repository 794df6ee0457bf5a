package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/pulumi/pulumi/pkg/v3/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/diag"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/env"
	"github.com/pulumi/pulumi/sdk/v3/go/common/workspace"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

var errNoPlugins = errors.New("toastdev has its provider and its program built in, and takes no plugins")

// host gives Pulumi's engine the provider and the program of this process in the place of plugins.
type host struct {
	provider *provider
	runtime  *runtime
}

var _ plugin.Host = (*host)(nil)

func (h *host) Provider(_ *plugin.Context, descriptor workspace.PluginDescriptor, _ env.Env) (plugin.Provider, error) {
	if descriptor.Name != project {
		return nil, fmt.Errorf("provider %q: %w", descriptor.Name, errNoPlugins)
	}
	return h.provider, nil
}

func (h *host) LanguageRuntime(*plugin.Context, string) (plugin.LanguageRuntime, error) {
	return h.runtime, nil
}

func (h *host) Analyzer(*plugin.Context, tokens.QName) (plugin.Analyzer, error) {
	return nil, errNoPlugins
}

func (h *host) PolicyAnalyzer(*plugin.Context, tokens.QName, string, *plugin.PolicyAnalyzerOptions) (plugin.Analyzer, error) {
	return nil, errNoPlugins
}

func (h *host) ResolvePlugin(*plugin.Context, workspace.PluginDescriptor) (*workspace.PluginInfo, error) {
	return nil, errNoPlugins
}

// The engine's own diagnostics come as events; plugins would send theirs here.
func (h *host) Log(diag.Severity, resource.URN, string, int32)       {}
func (h *host) LogStatus(diag.Severity, resource.URN, string, int32) {}

func (h *host) ServerAddr() string                                   { return "" }
func (h *host) Loader(*plugin.Context) (*plugin.GrpcServer, error)   { return nil, nil }
func (h *host) Mapper(*plugin.Context) (*plugin.GrpcServer, error)   { return nil, nil }
func (h *host) Resolver(*plugin.Context) (*plugin.GrpcServer, error) { return nil, nil }
func (h *host) ReleaseContext(*plugin.Context) error                 { return nil }
func (h *host) SignalCancellation() error                            { return nil }
func (h *host) StartDebugging(plugin.DebuggingInfo) error            { return nil }
func (h *host) AttachDebugger(plugin.DebugSpec) bool                 { return false }
func (h *host) Close() error                                         { return nil }

// runtime runs the program. The embedded interface stands for the rest of what a language does (templates, packages,
// code generation), which a deployment never asks for.
type runtime struct {
	plugin.LanguageRuntime
	ctx     context.Context
	program *declaration
}

func (r *runtime) GetRequiredPackages(context.Context, plugin.ProgramInfo) ([]workspace.PackageDescriptor, []workspace.PackageSpec, error) {
	return nil, nil, nil
}

// Run runs the program against the engine's resource monitor, which listens on the loopback.
func (r *runtime) Run(_ context.Context, info plugin.RunInfo) (failure string, bail bool, err error) {
	ctx, err := pulumi.NewContext(r.ctx, pulumi.RunInfo{
		Project: info.Project, Stack: info.Stack, Organization: info.Organization,
		MonitorAddr: info.MonitorAddress, Parallel: info.Parallel, DryRun: info.DryRun,
	})
	if err != nil {
		return "", false, err
	}
	defer ctx.Close()
	if err := pulumi.RunWithContext(ctx, r.program.run); err != nil {
		return err.Error(), false, nil
	}
	return "", false, nil
}

func (r *runtime) Cancel(context.Context) error { return nil }
func (r *runtime) Close() error                 { return nil }
