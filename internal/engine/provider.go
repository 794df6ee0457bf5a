package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pulumi/pulumi/pkg/v3/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/provisioners"
)

// stateKey is the one output that is no input: what was found of the resource when it was last looked at.
const stateKey = "state"

const (
	present = "present" // a network or volume that is there; a node has a provisioners.State
	// incomplete is a resource whose making failed or was cut off. Something of it may be there.
	incomplete = "incomplete"
)

// provider is Pulumi's way to the provisioners.
type provider struct {
	plugin.UnimplementedProvider
	ctx          context.Context // ends the work when the user wants it ended; Pulumi passes none that does
	provisioners map[string]provisioners.Provisioner

	mu   sync.Mutex
	errs []error
}

// failures is every error of a provisioner, as it was.
func (p *provider) failures() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.errs)
}

func (p *provider) failed(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, err)
	return err
}

// Close and SignalCancellation have nothing to do: what runs ends with the context.
func (p *provider) Close() error                             { return nil }
func (p *provider) SignalCancellation(context.Context) error { return nil }

func (p *provider) Handshake(context.Context, plugin.ProviderHandshakeRequest) (*plugin.ProviderHandshakeResponse, error) {
	return &plugin.ProviderHandshakeResponse{}, nil
}

func (p *provider) GetPluginInfo(context.Context) (plugin.PluginInfo, error) {
	return plugin.PluginInfo{}, nil
}

func (p *provider) CheckConfig(_ context.Context, r plugin.CheckConfigRequest) (plugin.CheckConfigResponse, error) {
	return plugin.CheckConfigResponse{Properties: r.News}, nil
}

func (p *provider) DiffConfig(context.Context, plugin.DiffConfigRequest) (plugin.DiffConfigResponse, error) {
	return plugin.DiffResult{Changes: plugin.DiffNone}, nil
}

func (p *provider) Configure(context.Context, plugin.ConfigureRequest) (plugin.ConfigureResponse, error) {
	return plugin.ConfigureResponse{}, nil
}

// Check takes the inputs as they are: the plan has been checked.
func (p *provider) Check(_ context.Context, r plugin.CheckRequest) (plugin.CheckResponse, error) {
	return plugin.CheckResponse{Properties: r.News}, nil
}

// Diff says what a change of inputs, or the state that a resource was found in, comes to.
func (p *provider) Diff(_ context.Context, r plugin.DiffRequest) (plugin.DiffResponse, error) {
	old := resource.State{Type: r.Type, Inputs: r.OldInputs, Outputs: r.OldOutputs}
	result := plugin.DiffResult{Changes: plugin.DiffNone, DeleteBeforeReplace: true}
	for key := range differing(&old, r.NewInputs) {
		result.Changes = plugin.DiffSome
		result.ChangedKeys = append(result.ChangedKeys, key)
		if !inPlace(r.Type, key, r.OldInputs[key], r.NewInputs[key]) {
			result.ReplaceKeys = append(result.ReplaceKeys, key)
		}
	}
	slices.Sort(result.ChangedKeys)
	slices.Sort(result.ReplaceKeys)
	return result, nil
}

// inPlace says whether a resource can be given a new value of a field.
func inPlace(kind tokens.Type, key resource.PropertyKey, before, after resource.PropertyValue) bool {
	switch {
	case key == stateKey:
		return true
	case kind == typeVolume:
		return key == "size" // what is in it must not get lost for it
	case kind == typeNode && (key == "cpus" || key == "memory"):
		return true
	case kind == typeNode && key == "identity" && before.IsString() && after.IsString():
		a, _ := provisioners.SplitIdentity(before.StringValue())
		b, _ := provisioners.SplitIdentity(after.StringValue())
		return a == b
	}
	return false
}

// differing is the fields of inputs, and the state, that are not as wanted, each with before and after.
func differing(old *resource.State, wanted resource.PropertyMap) map[resource.PropertyKey][2]resource.PropertyValue {
	diff := map[resource.PropertyKey][2]resource.PropertyValue{}
	for _, inputs := range []resource.PropertyMap{old.Inputs, wanted} {
		for key := range inputs {
			if !old.Inputs[key].DeepEquals(wanted[key]) {
				diff[key] = [2]resource.PropertyValue{old.Inputs[key], wanted[key]}
			}
		}
	}
	want := resource.NewProperty(present)
	if old.Type == typeNode {
		want = resource.NewProperty(string(provisioners.Running))
	}
	if state, ok := old.Outputs[stateKey]; ok && !state.DeepEquals(want) {
		diff[stateKey] = [2]resource.PropertyValue{state, want}
	}
	return diff
}

// fields is differing for people: one entry a leaf, with its path, in order.
func fields(old *resource.State, wanted resource.PropertyMap) []plan.Field {
	var list []plan.Field
	for key, values := range differing(old, wanted) {
		list = append(list, leaves(string(key), plain(values[0]), plain(values[1]))...)
	}
	slices.SortFunc(list, func(a, b plan.Field) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return list
}

// plain is a value as JSON has it; what is only known later is null.
func plain(v resource.PropertyValue) any {
	if v.ContainsUnknowns() {
		return nil
	}
	return v.Mappable()
}

func leaves(path string, before, after any) []plan.Field {
	a, isList := before.([]any)
	b, both := after.([]any)
	if isList && both && len(a) == len(b) {
		var list []plan.Field
		for i := range a {
			list = append(list, leaves(path+"."+strconv.Itoa(i), a[i], b[i])...)
		}
		return list
	}
	x, isMap := before.(map[string]any)
	y, both := after.(map[string]any)
	if isMap && both {
		var list []plan.Field
		for key := range x {
			list = append(list, leaves(path+"."+key, x[key], y[key])...)
		}
		for key := range y {
			if _, ok := x[key]; !ok {
				list = append(list, leaves(path+"."+key, nil, y[key])...)
			}
		}
		return list
	}
	if fmt.Sprint(before) == fmt.Sprint(after) {
		return nil
	}
	return []plan.Field{{Path: path, Before: before, After: after}}
}

// outputs is a resource's inputs and the state it is in.
func outputs(inputs resource.PropertyMap, state string) resource.PropertyMap {
	out := inputs.Copy()
	out[stateKey] = resource.NewProperty(state)
	return out
}

// Create makes the resource, or adopts one that is there. When it fails, what there is of it goes into the state as
// incomplete, so that the next run finishes it, or removes it.
func (p *provider) Create(_ context.Context, r plugin.CreateRequest) (plugin.CreateResponse, error) {
	if r.Preview {
		return plugin.CreateResponse{Properties: r.Properties}, nil
	}
	id := resource.ID(r.URN.Name())
	state, err := p.make(r.URN, r.Properties)
	if err == nil {
		return plugin.CreateResponse{ID: id, Properties: outputs(r.Properties, state)}, nil
	}
	if !p.leftovers(r.URN, r.Properties) {
		return plugin.CreateResponse{Status: resource.StatusOK}, err
	}
	return plugin.CreateResponse{ID: id, Properties: outputs(r.Properties, incomplete), Status: resource.StatusPartialFailure},
		&plugin.InitError{Reasons: []string{err.Error()}}
}

// Update makes the resource what it should be. Adopting is the same.
func (p *provider) Update(_ context.Context, r plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	if r.Preview {
		return plugin.UpdateResponse{Properties: r.NewInputs}, nil
	}
	state, err := p.make(r.URN, r.NewInputs)
	if err != nil {
		return plugin.UpdateResponse{Properties: outputs(r.OldInputs, incomplete), Status: resource.StatusPartialFailure},
			&plugin.InitError{Reasons: []string{err.Error()}}
	}
	return plugin.UpdateResponse{Properties: outputs(r.NewInputs, state)}, nil
}

// leftovers says whether a failed Create may have left something of its owner's.
func (p *provider) leftovers(urn resource.URN, inputs resource.PropertyMap) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), 10*time.Second)
	defer cancel()
	t, err := p.thing(urn, inputs)
	if err != nil {
		return false
	}
	exists, err := t.by.Exists(ctx, t.owner, t.Kind, t.Name)
	return exists || err != nil
}

// Read looks whether the resource is there, and in which state.
func (p *provider) Read(_ context.Context, r plugin.ReadRequest) (plugin.ReadResponse, error) {
	state, err := p.look(r)
	if err != nil {
		return plugin.ReadResponse{}, p.failed(err)
	}
	if state == "" {
		return plugin.ReadResponse{}, nil
	}
	return plugin.ReadResponse{ReadResult: plugin.ReadResult{ID: r.ID, Inputs: r.Inputs, Outputs: outputs(r.Inputs, state)}}, nil
}

// look is the state of a resource; empty when there is none.
func (p *provider) look(r plugin.ReadRequest) (string, error) {
	t, err := p.thing(r.URN, r.Inputs)
	if err != nil {
		return "", err
	}
	exists, err := t.by.Exists(p.ctx, t.owner, t.Kind, t.Name)
	if err != nil || !exists {
		return "", err
	}
	if before := r.State[stateKey]; before.IsString() && before.StringValue() == incomplete {
		return incomplete, nil
	}
	if t.Kind != provisioners.KindNode {
		return present, nil
	}
	state, err := t.by.State(p.ctx, t.Name)
	if state == provisioners.Absent {
		return "", err
	}
	return string(state), err
}

// Delete removes the resource.
func (p *provider) Delete(_ context.Context, r plugin.DeleteRequest) (plugin.DeleteResponse, error) {
	t, err := p.thing(r.URN, r.Inputs)
	if err == nil {
		err = provisioners.Delete(p.ctx, t.by, t.owner, t.Thing)
	}
	if err != nil {
		return plugin.DeleteResponse{}, p.failed(err)
	}
	return plugin.DeleteResponse{}, nil
}

// thing is a resource as its provisioner knows it.
type thing struct {
	provisioners.Thing
	owner provisioners.Owner
	by    provisioners.Provisioner
}

func (p *provider) thing(urn resource.URN, inputs resource.PropertyMap) (thing, error) {
	kind, ok := kindOf(urn.Type())
	if !ok {
		return thing{}, fmt.Errorf("%s: no such type of resource", urn.Type())
	}
	t := thing{Thing: provisioners.Thing{Kind: kind, Name: urn.Name()}}
	if err := decode(inputs, &t.owner); err != nil {
		return t, err
	}
	name, _ := inputs[provisionerKey].V.(string)
	if t.by, ok = p.provisioners[name]; !ok {
		return t, fmt.Errorf("%s: there is no provisioner %q", t, name)
	}
	return t, nil
}

// make lets the provisioner make a resource, and returns its state.
func (p *provider) make(urn resource.URN, inputs resource.PropertyMap) (state string, err error) {
	defer func() {
		if err != nil {
			err = p.failed(err)
		}
	}()
	t, err := p.thing(urn, inputs)
	if err != nil {
		return "", err
	}
	switch t.Kind {
	case provisioners.KindNetwork:
		var n provisioners.Network
		if err := decode(inputs, &n); err != nil {
			return "", err
		}
		return present, t.by.CreateNetwork(p.ctx, n)
	case provisioners.KindVolume:
		var v provisioners.Volume
		if err := decode(inputs, &v); err != nil {
			return "", err
		}
		return present, t.by.CreateVolume(p.ctx, v)
	default:
		var n provisioners.Node
		if err := decode(inputs, &n); err != nil {
			return "", err
		}
		return string(provisioners.Running), t.by.CreateNode(p.ctx, n)
	}
}

func decode(inputs resource.PropertyMap, spec any) error {
	data, err := json.Marshal(inputs.Mappable())
	if err != nil {
		return err
	}
	return json.Unmarshal(data, spec)
}
