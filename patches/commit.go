package patches

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Commit is what a change of upstream's says of itself.
type Commit struct {
	ID      string
	Author  string // Name <address>
	Date    time.Time
	Subject string
	Body    string
	Bugs    []string // Launchpad's numbers
	First   string   // the first release that has it; "" when none has, or FindFirst has not looked
}

var closes = regexp.MustCompile(`(?im)^[ \t]*(?:closes|partial|related|fixes|resolves|partially-fixes)?-?bug[ :]*(?:lp)?[ :]*#?[ ]*(\d{5,8})`)

// Commit finds a commit in upstream's repository of a component: by its hash, or a name that it has there.
func (c *Checker) Commit(ctx context.Context, component, word string) (*Commit, error) {
	repo, err := c.repository(ctx, component)
	if err != nil {
		return nil, err
	}
	id, err := repo.resolve(ctx, word)
	if err != nil {
		return nil, err
	}
	if err := repo.single(ctx, id); err != nil {
		return nil, err
	}
	out, err := repo.Run(ctx, nil, "show", "-s", "--format=%an <%ae>%x00%aI%x00%s%x00%b", id)
	if err != nil {
		return nil, err
	}
	parts := strings.SplitN(string(out), "\x00", 4)
	if len(parts) != 4 {
		return nil, fault.New(fault.Failed, "git show says nothing of %s", id)
	}
	commit := &Commit{ID: id, Author: parts[0], Subject: parts[2], Body: strings.TrimSpace(parts[3])}
	if commit.Date, err = time.Parse(time.RFC3339, parts[1]); err != nil {
		return nil, fmt.Errorf("the date of %s: %w", id, err)
	}
	for _, m := range closes.FindAllStringSubmatch(commit.Body, -1) {
		if !slices.Contains(commit.Bugs, m[1]) {
			commit.Bugs = append(commit.Bugs, m[1])
		}
	}
	return commit, nil
}

// FindFirst looks for the first release that has the commit, and notes it.
func (c *Checker) FindFirst(ctx context.Context, component string, commit *Commit) error {
	repo, err := c.repository(ctx, component)
	if err != nil {
		return err
	}
	out, err := repo.Run(ctx, nil, "tag", "--contains", commit.ID, "--sort=version:refname")
	commit.First = firstRelease(strings.Fields(string(out)))
	return err
}

var (
	datedTag    = regexp.MustCompile(`^20\d\d\.\d+(\.\d+)?$`) // until Kilo
	numberedTag = regexp.MustCompile(`^\d+\.\d+\.\d+$`)
)

// firstRelease is the first of sorted tags that names a release, no candidate; those that are dated came before those that
// are numbered.
func firstRelease(tags []string) string {
	for _, form := range []*regexp.Regexp{datedTag, numberedTag} {
		for _, tag := range tags {
			if form.MatchString(tag) && (form == datedTag || !strings.HasPrefix(tag, "20")) {
				return tag
			}
		}
	}
	return ""
}

// Header is a commit's fields as an entry has them, but why it is taken.
func (c *Commit) Header(today time.Time) Header {
	h := Header{{"Description", c.Subject}, {"Origin", "upstream, " + c.ID}}
	for i, bug := range c.Bugs {
		c.Bugs[i] = "https://launchpad.net/bugs/" + strings.TrimPrefix(bug, "https://launchpad.net/bugs/")
	}
	return h.With("Bug", strings.Join(c.Bugs, "\n")).With("Applied-Upstream", c.First).With("Last-Update", today.Format(time.DateOnly))
}
