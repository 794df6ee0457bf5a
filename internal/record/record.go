// Package record is what toastdev remembers of an environment: what was resolved, its secrets, and who works on it now.
package record

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/crypto/ssh"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/project"
)

// State is how far an environment has come.
type State string

const (
	Creating State = "creating" // an up has begun and has not ended well yet
	Up       State = "up"
	Halted   State = "halted"   // all is there, and no node runs
	Removing State = "removing" // a down has begun
	Down     State = "down"     // nothing exists outside the home; addresses and secrets are kept
)

// Record is an environment's record. What `down` removes, and the addresses that stay the same, come from it.
type Record struct {
	Name     string     `json:"name"`
	Topology string     `json:"topology"`
	Set      []string   `json:"set,omitempty"` // the --set values of the last up
	State    State      `json:"state"`
	Created  time.Time  `json:"created"`
	Plan     *plan.Plan `json:"plan"`
	Overlays []Overlay  `json:"overlays,omitempty"` // all that the nodes may have; in an order that means nothing
	Owing    []string   `json:"owing,omitempty"`    // components whose units may not have been restarted for a change of Overlays
}

// Overlay is one thing that is laid over a component's code: a patch of its series, or a source tree.
type Overlay struct {
	Component string   `json:"component"`
	Patch     string   `json:"patch,omitempty"`  // its name in the series
	Source    string   `json:"source,omitempty"` // the tree's path
	Ref       string   `json:"ref,omitempty"`    // of the tree's repository; "": the files as they are
	Nodes     []string `json:"nodes,omitempty"`  // those alone; none: all that run the component
	Declared  bool     `json:"declared"`         // the topology says so: the next up lays it again
}

// Same says whether two are the same thing: one takes the other's place.
func (o Overlay) Same(other Overlay) bool {
	return o.Component == other.Component && o.Patch == other.Patch
}

// String is the overlay in words: "patch fip-timing", "code /src/neutron (stable/zed)".
func (o Overlay) String() string {
	if o.Patch != "" {
		return "patch " + o.Patch
	}
	if o.Ref != "" {
		return fmt.Sprintf("code %s (%s)", o.Source, o.Ref)
	}
	return "code " + o.Source
}

// Environment is an environment's folder in the home.
type Environment struct {
	Name string
	Home *project.Home
}

// Path is a path below the environment's folder.
func (e *Environment) Path(elem ...string) string {
	return e.Home.Path(append([]string{"environments", e.Name}, elem...)...)
}

// List is the records of a home, by name.
func List(home *project.Home) ([]*Record, error) {
	files, err := filepath.Glob(home.Path("environments", "*", "record.json"))
	if err != nil {
		return nil, err
	}
	sort.Strings(files)
	var records []*Record
	for _, file := range files {
		env := &Environment{Name: filepath.Base(filepath.Dir(file)), Home: home}
		r, err := env.Load()
		if err != nil {
			return nil, err
		}
		if r != nil {
			records = append(records, r)
		}
	}
	return records, nil
}

// Load is the environment's record; nil when there is none.
func (e *Environment) Load() (*Record, error) {
	file := e.Path("record.json")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record: %w", err)
	}
	r := new(Record)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, &fault.Error{Code: fault.Failed, File: file, Message: "the record cannot be read: " + err.Error(), Err: err,
			Remedy: "put the file back from a copy; what is labelled toastdev.environment=" + e.Name + " in the engine is what it was about"}
	}
	if r.Plan != nil {
		r.Plan.Complete()
	}
	return r, nil
}

// Save writes the record, whole or not at all.
func (e *Environment) Save(r *Record) error {
	return e.write("record.json", r)
}

// Remove removes the environment's folder: record, secrets, state, logs, reports.
func (e *Environment) Remove() error {
	return os.RemoveAll(e.Path())
}

func (e *Environment) write(name string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(e.Path(), 0o700); err != nil {
		return fmt.Errorf("make the environment's folder: %w", err)
	}
	f, err := os.CreateTemp(e.Path(), "."+name+".*") // 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), e.Path(name))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// Secrets of an environment by name: passwords of 32 characters, two Fernet keys, an ssh key pair.
type Secrets map[string]string

var passwords = []string{"admin", "demo", "database_root", "rabbitmq", "metadata", "keystone", "glance", "placement", "nova", "neutron", "cinder",
	"fence", "evacuator"}

// Secrets are the environment's own, made the first time they are asked for. The file is its owner's alone.
func (e *Environment) Secrets() (Secrets, error) {
	secrets := Secrets{}
	text, err := os.ReadFile(e.Path("secrets.json"))
	if err == nil {
		err = json.Unmarshal(text, &secrets)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the secrets of %s: %w", e.Name, err)
	}
	made := len(secrets)
	for _, name := range passwords {
		if secrets[name] == "" {
			secrets[name] = random(24, base64.RawURLEncoding)
		}
	}
	for _, name := range []string{"fernet_key", "credential_key"} {
		if secrets[name] == "" {
			secrets[name] = random(32, base64.URLEncoding)
		}
	}
	if secrets["ssh_private_key"] == "" {
		if err := secrets.addKeyPair("toastdev-" + e.Name); err != nil {
			return nil, err
		}
	}
	if len(secrets) == made {
		return secrets, nil
	}
	return secrets, e.write("secrets.json", secrets)
}

func (s Secrets) addKeyPair(comment string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make an ssh key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return fmt.Errorf("make an ssh key: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return fmt.Errorf("make an ssh key: %w", err)
	}
	s["ssh_private_key"] = string(pem.EncodeToMemory(block))
	s["ssh_public_key"] = key.Type() + " " + base64.StdEncoding.EncodeToString(key.Marshal()) + " " + comment
	return nil
}

func random(n int, encoding *base64.Encoding) string {
	b := make([]byte, n)
	rand.Read(b)
	return encoding.EncodeToString(b)
}

// Lock takes the environment for this process alone; the kernel frees it when the process ends, however it ends. It
// lies beside the environments' folders, so that removing one does not remove the lock that is held.
func (e *Environment) Lock(ctx context.Context) (release func(), err error) {
	return lock(ctx, e.Home.Path("locks", e.Name), 0, e.busy())
}

func (e *Environment) busy() *fault.Error {
	return fault.New(fault.Busy, "another toastdev is working on environment %s", e.Name).
		WithRemedy("wait until it has ended; `toastdev list` shows the environments")
}

// LockChoice takes the home's lock around the choice of subnets, so that two environments never choose the same. It
// is held for a moment only, and waited for.
func LockChoice(ctx context.Context, home *project.Home) (release func(), err error) {
	return lock(ctx, home.Path("locks", ".choice"), time.Minute, fault.New(fault.Busy, "another toastdev is choosing subnets in this home").
		WithRemedy("try again"))
}

// pause is how often a lock that is held is asked for again.
const pause = 100 * time.Millisecond

func lock(ctx context.Context, path string, patience time.Duration, busy *fault.Error) (func(), error) {
	l, err := opened(path)
	if err != nil {
		return nil, err
	}
	got, err := l.TryLock()
	if !got && err == nil && patience > 0 {
		got, err = patiently(ctx, patience, l.TryLockContext)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if !got {
		return nil, busy
	}
	return func() { l.Unlock() }, nil
}

func opened(path string) (*flock.Flock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of locks: %w", err)
	}
	return flock.New(path), nil
}

// patiently is a lock's attempts until patience ends; then it is not had, which is no error.
func patiently(ctx context.Context, patience time.Duration, try func(context.Context, time.Duration) (bool, error)) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	got, err := try(limited, pause)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return false, nil
	}
	return got, err
}

// sharing is how long LockShared waits for another who cleans up before scenarios begin.
const sharing = 20 * time.Second

// LockShared takes the environment for this process and others who do the same: scenarios run side by side, and nothing that
// changes the environment runs beside them. When this process can have it alone, first is called meanwhile.
func (e *Environment) LockShared(ctx context.Context, first func() error) (release func(), err error) {
	l, err := opened(e.Home.Path("locks", e.Name))
	if err != nil {
		return nil, err
	}
	alone, err := l.TryLock()
	if err == nil && alone {
		err = errors.Join(first(), l.Unlock())
	}
	if err != nil {
		l.Unlock()
		return nil, err
	}
	got, err := patiently(ctx, sharing, l.TryRLockContext)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", l.Path(), err)
	}
	if !got {
		return nil, e.busy()
	}
	return func() { l.Unlock() }, nil
}

// Turn is a scenario's use of the environment: beside others, and for a while alone.
type Turn struct {
	env  *Environment
	next func() // lets the next one that disturbs begin
	use  func() // ends the use, which is shared or alone
}

// Turn waits until a scenario may begin, beside others. Of those that will disturb them one at a time begins: two that use
// the environment and wait to be alone would wait for each other.
func (e *Environment) Turn(ctx context.Context, disturbs bool) (*Turn, error) {
	t := &Turn{env: e, next: func() {}}
	if disturbs {
		next, err := held(ctx, e.Home.Path("locks", e.Name+".disturb"), true)
		if err != nil {
			return nil, err
		}
		t.next = next
	}
	if err := t.take(ctx, false); err != nil {
		t.next()
		return nil, err
	}
	return t, nil
}

// Alone waits until nobody else uses the environment, and lets nobody begin until Settled or End. It is for one that disturbs.
func (t *Turn) Alone(ctx context.Context) error { return t.take(ctx, true) }

// Settled goes on beside others, the next one that disturbs among them. It is for one that disturbs no more.
func (t *Turn) Settled(ctx context.Context) error {
	err := t.take(ctx, false)
	t.next()
	t.next = func() {}
	return err
}

// End ends the use.
func (t *Turn) End() {
	t.use()
	t.next()
}

// take begins a use, or goes on with it alone. Who waits to be alone is not passed by those who come later.
func (t *Turn) take(ctx context.Context, alone bool) error {
	door, err := held(ctx, t.env.Home.Path("locks", t.env.Name+".door"), alone)
	if err != nil {
		return err
	}
	defer door()
	if t.use != nil {
		t.use()
		t.use = func() {}
	}
	use, err := held(ctx, t.env.Home.Path("locks", t.env.Name+".turn"), alone)
	if err != nil {
		return err
	}
	t.use = use
	return nil
}

// held is a lock that is waited for as long as it takes.
func held(ctx context.Context, path string, alone bool) (release func(), err error) {
	l, err := opened(path)
	if err != nil {
		return nil, err
	}
	try := l.TryRLockContext
	if alone {
		try = l.TryLockContext
	}
	if _, err := try(ctx, pause); err != nil {
		return nil, err
	}
	return func() { l.Unlock() }, nil
}
