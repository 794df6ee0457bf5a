package source

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Commit is a commit of a repository.
type Commit struct {
	ID      string // 40 hex digits
	Subject string
}

// Between is the commits from one to another, both included, along the first parents, the oldest first.
func (g Git) Between(ctx context.Context, from, to string) ([]Commit, error) {
	var ends [2]string
	for i, word := range []string{from, to} {
		id, err := g.Find(ctx, word)
		if _, ok := errors.AsType[*GitError](err); ok {
			return nil, &fault.Error{Code: fault.Invalid, File: g.Dir, Message: fmt.Sprintf("the repository has no commit %q", word), Expected: "a branch, a tag or a commit"}
		}
		if err != nil {
			return nil, err
		}
		ends[i] = id
	}
	out, err := g.Run(ctx, nil, "log", "--first-parent", "--reverse", "--format=%H %P%x09%s", ends[0]+".."+ends[1])
	if err != nil {
		return nil, err
	}
	commits := []Commit{{ID: ends[0]}}
	for line := range strings.Lines(string(out)) {
		names, subject, _ := strings.Cut(strings.TrimSpace(line), "\t")
		words := strings.Fields(names)
		if len(commits) == 1 && (len(words) < 2 || words[1] != ends[0]) {
			return nil, &fault.Error{Code: fault.Invalid, File: g.Dir, Message: fmt.Sprintf("%s is not among the first parents of %s", from, to), Expected: "a commit that the other one stands on"}
		}
		commits = append(commits, Commit{words[0], subject})
	}
	if len(commits) == 1 {
		return nil, &fault.Error{Code: fault.Invalid, File: g.Dir, Message: fmt.Sprintf("there is no commit between %s and %s", from, to), Expected: "the older one first"}
	}
	return commits, nil
}
