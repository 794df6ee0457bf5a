package scenarios

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

//go:embed questions.py
var questionsProgram string

// questions is how guests' agents are asked: by a program on their node that lasts as long as the scenarios do. A virsh for
// each question would cost the node and the engine many times what the question does.
type questions struct {
	mu     sync.Mutex
	askers map[string]*asker // by node
}

// askLimit is how long an answer may take: the agent itself is given up before, by the program.
const askLimit = 30 * time.Second

// asker is the program on a node.
type asker struct {
	lines chan []byte
	stop  context.CancelFunc
	ended chan struct{}
	err   error // why it ended

	mu      sync.Mutex
	last    int
	waiting map[int]chan answered
}

// answered is an answer of an agent's, or why there is none.
type answered struct {
	ID     int    `json:"id"`
	Answer string `json:"answer"`
	Error  string `json:"error"`
}

// ask hands a request to the agent of a domain on a node, and is what it answers. A *fault.Error says why the agent does not.
func (q *questions) ask(ctx context.Context, n node.Node, domain string, request json.RawMessage) ([]byte, error) {
	a := q.asker(ctx, n)
	answer := make(chan answered, 1)
	a.mu.Lock()
	a.last++
	id := a.last
	a.waiting[id] = answer
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.waiting, id)
	}()
	line, err := json.Marshal(map[string]any{"id": id, "domain": domain, "request": request})
	if err != nil {
		return nil, err
	}
	select {
	case a.lines <- append(line, '\n'):
	case <-a.ended:
		return nil, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	lost := time.NewTimer(askLimit)
	defer lost.Stop()
	select {
	case said := <-answer:
		if said.Error != "" {
			return nil, &fault.Error{Code: fault.Failed, Node: n.Name(), Message: strings.TrimPrefix(said.Error, "Guest agent is not responding: ")}
		}
		return []byte(said.Answer), nil
	case <-a.ended:
		return nil, a.err
	case <-lost.C:
		a.stop() // the node may have gone without a word
		return nil, &fault.Error{Code: fault.Timeout, Node: n.Name(), Message: fmt.Sprintf("waited %s for libvirt's answer", askLimit)}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// asker is the one on a node; one that has ended (its node was killed, libvirt restarted) is followed by another.
func (q *questions) asker(ctx context.Context, n node.Node) *asker {
	q.mu.Lock()
	defer q.mu.Unlock()
	if a := q.askers[n.Name()]; a != nil {
		select {
		case <-a.ended:
		default:
			return a
		}
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	a := &asker{lines: make(chan []byte), stop: stop, ended: make(chan struct{}), waiting: map[int]chan answered{}}
	if q.askers == nil {
		q.askers = map[string]*asker{}
	}
	q.askers[n.Name()] = a
	go a.run(ctx, n)
	return a
}

func (a *asker) run(ctx context.Context, n node.Node) {
	defer close(a.ended)
	stdin, in := io.Pipe()
	defer stdin.Close()
	go func() {
		defer in.Close()
		for {
			select {
			case line := <-a.lines:
				if _, err := in.Write(line); err != nil {
					return
				}
			case <-ctx.Done():
				return
			case <-a.ended:
				return
			}
		}
	}()
	var errs bytes.Buffer
	err := n.Run(ctx, node.Cmd{Args: []string{"python3", "-c", questionsProgram}, Stdin: stdin, Stdout: node.Lines(a.hear), Stderr: &errs})
	if err == nil {
		err = errors.New("it ended")
	}
	a.err = &fault.Error{Code: fault.Failed, Node: n.Name(), Message: fmt.Sprintf("who asks guests' agents there: %v", err), Log: node.LastLines(errs.String(), 5), Err: err}
}

// hear hands an answer to who waits for it.
func (a *asker) hear(line string) error {
	var said answered
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		return fmt.Errorf("an answer that cannot be read: %s: %w", short(line), err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if waiting := a.waiting[said.ID]; waiting != nil {
		waiting <- said
	}
	return nil
}

// end ends the programs on all nodes.
func (q *questions) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, a := range q.askers {
		a.stop()
	}
	for _, a := range q.askers {
		<-a.ended
	}
	q.askers = nil
}
