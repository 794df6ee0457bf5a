package libvirt

import (
	"context"
	"fmt"
	"sync"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/provisioners"
)

// eventLoop is libvirt's own, of which a process has one for all its connections; it must be there before the first.
var eventLoop = sync.OnceValue(func() error {
	if err := libvirt.EventRegisterDefaultImpl(); err != nil {
		return err
	}
	go func() {
		for libvirt.EventRunDefaultImpl() == nil {
		}
	}()
	return nil
})

// watcher is told, without being waited for, when something happens to a domain.
type watcher struct {
	domain string
	told   chan struct{}
}

// watch begins to watch a domain, until stop.
func (p *Provisioner) watch(name string) (w *watcher, stop func()) {
	w = &watcher{domain: name, told: make(chan struct{}, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers[w] = true
	return w, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, w)
	}
}

// tell is libvirt's callback for every domain's life.
func (p *Provisioner) tell(_ *libvirt.Connect, d *libvirt.Domain, _ *libvirt.DomainEventLifecycle) {
	name, err := d.GetName()
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.watchers {
		if w.domain == name {
			select {
			case w.told <- struct{}{}:
			default:
			}
		}
	}
}

// lookAgain is how often a state is asked for although nothing was told: events are lost with a connection.
const lookAgain = 5 * time.Second

// wait returns when the node is in that state, or the deadline has passed.
func (p *Provisioner) wait(ctx context.Context, name string, want provisioners.State, deadline time.Duration) error {
	w, stop := p.watch(name)
	defer stop()
	limit := time.NewTimer(deadline)
	defer limit.Stop()
	for {
		state, err := p.State(ctx, name)
		if err != nil || state == want || state == provisioners.Absent {
			return err
		}
		select {
		case <-w.told:
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return fmt.Errorf("wait for node %q to be %s: %w", name, want, ctx.Err())
		case <-limit.C:
			return fault.New(fault.Timeout, "waited %s for node %q to be %s; it is %s", deadline, name, want, state)
		}
	}
}
