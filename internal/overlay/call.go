package overlay

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
)

//go:embed onnode.py
var program string

// loader runs what it is handed on stdin, so many bytes: the program itself would fill lists of processes.
const loader = `import sys
program = sys.stdin.buffer.read(int(sys.argv[2]))
if len(program) != int(sys.argv[2]):
    sys.exit("the request broke off")
exec(compile(program, "toastdev-overlay", "exec"))`

// request is what the program on the node is asked: this as a line, then the bodies one after another.
type request struct {
	Component string            `json:"component"`
	Root      string            `json:"root,omitempty"`
	Layers    []Layer           `json:"layers,omitempty"`
	Digest    string            `json:"digest,omitempty"`
	Files     map[string]wanted `json:"files,omitempty"`
	Paths     []string          `json:"paths,omitempty"`
	Force     bool              `json:"force,omitempty"`
	Mend      bool              `json:"mend,omitempty"`
	Bodies    []int             `json:"bodies,omitempty"` // their lengths in bytes
}

type wanted struct {
	Body   int    `json:"body"` // which of the bodies
	Mode   uint32 `json:"mode,omitempty"`
	Absent bool   `json:"absent,omitempty"`
	Base   string `json:"base,omitempty"`
}

// call runs a verb of the program on a node and decodes its answer.
func call(ctx context.Context, n node.Node, verb string, r request, bodies [][]byte, answer any) ([][]byte, error) {
	for _, b := range bodies {
		r.Bodies = append(r.Bodies, len(b))
	}
	line, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	in := bytes.Join(append([][]byte{[]byte(program), append(line, '\n')}, bodies...), nil)
	// Nothing of the node's own Python configuration has a part in it: -I, -S; nothing is written beside sources: -B.
	out, err := node.Input(ctx, n, in, "python3", "-I", "-S", "-B", "-c", loader, verb, strconv.Itoa(len(program)))
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Unit != "" {
		e.Message = fmt.Sprintf("%s what lies over the code: %s", verb, e.Message)
		return nil, e
	}
	if err != nil {
		return nil, fmt.Errorf("%s what lies over the code: %w", verb, err)
	}
	text := bufio.NewReader(bytes.NewReader(out))
	line, _ = text.ReadBytes('\n')
	var reply struct {
		Fault  *fault.Error `json:"fault"`
		Bodies []int        `json:"bodies"`
	}
	if err := json.Unmarshal(line, &reply); err != nil {
		return nil, fmt.Errorf("%s: read the answer about what lies over the code: %w", n.Name(), err)
	}
	if reply.Fault != nil {
		reply.Fault.Node = n.Name()
		return nil, reply.Fault
	}
	if answer != nil {
		if err := json.Unmarshal(line, answer); err != nil {
			return nil, fmt.Errorf("%s: read the answer about what lies over the code: %w", n.Name(), err)
		}
	}
	var contents [][]byte
	for _, size := range reply.Bodies {
		b := make([]byte, size)
		if _, err := io.ReadFull(text, b); err != nil {
			return nil, fmt.Errorf("%s: the answer about what lies over the code broke off: %w", n.Name(), err)
		}
		contents = append(contents, b)
	}
	return contents, nil
}
