// Package fence powers the computes of one environment off, for those of its region that must be sure that one is dead: as a
// machine's management controller does by IPMI. It is served on the host's address of the environment's management network,
// so that no node needs the engine.
//
//	POST /nodes/NAME/off  the node is ended as by a power cut; answers when it was asked for its state and has ended
//	GET  /nodes/NAME      its state now
//
// Both answer {"node": "cmp1", "state": "stopped", "seen": "2024-05-06T07:08:09.1Z"}; a refusal is {"error": "why"}. A request
// carries `Authorization: Bearer SECRET`, the environment's secret of this name.
package fence

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/provisioners"
	"github.com/toast-cloud/toastdev/topologies"
)

// Secret is the name of the environment's secret that callers must know.
const Secret = "fence"

// patience is how long a killed node may take until the engine says that it has ended.
const patience = 20 * time.Second

// Power is a node's state, and when it was seen.
type Power struct {
	Node  string             `json:"node"`
	State provisioners.State `json:"state"`
	Seen  time.Time          `json:"seen"`
}

// Fence is one environment's. It is an http.Handler.
type Fence struct {
	plan        *plan.Plan
	provisioner func(*plan.Node) provisioners.Provisioner
	secret      string
	told        func(string)
	refuse      atomic.Bool
	mux         *http.ServeMux
}

// New is the fence of a plan's computes, each of which its provisioner powers off. told is called with a line for every
// request that powers a node off or is refused.
func New(p *plan.Plan, provisioner func(*plan.Node) provisioners.Provisioner, secret string, told func(string)) *Fence {
	f := &Fence{plan: p, provisioner: provisioner, secret: secret, told: told, mux: http.NewServeMux()}
	f.mux.HandleFunc("GET /nodes/{name}", f.handle(f.state))
	f.mux.HandleFunc("POST /nodes/{name}/off", f.handle(f.off))
	return f
}

// Refuse makes the fence refuse to power anything off, or do it again: what is not fenced must not be evacuated.
func (f *Fence) Refuse(yes bool) { f.refuse.Store(yes) }

// Listen takes the fence's address. It is Busy when another toastdev serves it.
func (f *Fence) Listen() (net.Listener, error) {
	at := f.plan.Fence()
	l, err := net.Listen("tcp", at.String())
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fault.New(fault.Busy, "another toastdev serves the fence of environment %s: %w", f.plan.Environment, err)
	}
	return nil, fault.New(fault.Missing, "serve the fence on the management network: %w", err).
		WithRemedy("the host has this address while the environment is up and its engine is on this machine")
}

// Serve answers until ctx ends.
func (f *Fence) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: f, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("serve the fence at %s: %w", l.Addr(), err)
	}
	return nil
}

// ServeHTTP answers those of the management network that know the secret.
func (f *Fence) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if f.secret == "" || subtle.ConstantTimeCompare([]byte(given), []byte(f.secret)) != 1 {
		f.deny(w, r, http.StatusUnauthorized, "the secret is not the environment's")
		return
	}
	// The host answers on each of its addresses whichever network asks.
	management, _ := f.plan.Network(topologies.Management)
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || management == nil || !management.Subnet.Contains(from.Addr().Unmap()) {
		f.deny(w, r, http.StatusForbidden, "asked from outside the management network: "+r.RemoteAddr)
		return
	}
	f.mux.ServeHTTP(w, r)
}

// refusal is an answer other than a Power.
type refusal struct {
	status int
	reason string
}

func (e *refusal) Error() string { return e.reason }

func (f *Fence) handle(do func(context.Context, *plan.Node) (Power, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		n, ok := f.plan.Node(name)
		switch {
		case !ok:
			f.deny(w, r, http.StatusNotFound, "no such node")
			return
		case !n.Has(topologies.Compute):
			f.deny(w, r, http.StatusForbidden, "not a compute")
			return
		}
		power, err := do(r.Context(), n)
		if err != nil {
			status := http.StatusInternalServerError
			if e, ok := errors.AsType[*refusal](err); ok {
				status = e.status
			}
			f.deny(w, r, status, err.Error())
			return
		}
		answer(w, http.StatusOK, power)
	}
}

func (f *Fence) state(ctx context.Context, n *plan.Node) (Power, error) {
	state, err := f.provisioner(n).State(ctx, n.Resource)
	return Power{Node: n.Name, State: state, Seen: time.Now().UTC()}, err
}

// off kills a node, unless it has ended already, and asks until it has.
func (f *Fence) off(ctx context.Context, n *plan.Node) (Power, error) {
	if f.refuse.Load() {
		return Power{}, &refusal{http.StatusServiceUnavailable, "the fence is told to refuse"}
	}
	power, err := f.state(ctx, n)
	if err != nil || ended(power.State) {
		return power, err
	}
	killer, ok := f.provisioner(n).(provisioners.Killer)
	if !ok {
		return Power{}, &refusal{http.StatusNotImplemented, fmt.Sprintf("provisioner %s cannot power a node off", n.Provisioner)}
	}
	began := time.Now()
	if err := killer.Kill(ctx, n.Resource); err != nil {
		return Power{}, err
	}
	err = node.WaitEvery(ctx, 50*time.Millisecond, fmt.Sprintf("%s to end", n.Name), patience, func(ctx context.Context) (bool, error) {
		power, err = f.state(ctx, n)
		if err == nil && !ended(power.State) {
			err = fmt.Errorf("it is %s", power.State)
		}
		return err == nil, err
	})
	if err != nil {
		return Power{}, &refusal{http.StatusGatewayTimeout, err.Error()}
	}
	f.told(fmt.Sprintf("%s powered off, seen %s after %d ms", n.Name, power.State, time.Since(began).Milliseconds()))
	return power, nil
}

func ended(s provisioners.State) bool { return s == provisioners.Stopped || s == provisioners.Absent }

func (f *Fence) deny(w http.ResponseWriter, r *http.Request, status int, reason string) {
	f.told(fmt.Sprintf("%s %s from %s is refused: %s", r.Method, r.URL.Path, r.RemoteAddr, reason))
	answer(w, status, map[string]string{"error": reason})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // whoever asked has gone away
}
