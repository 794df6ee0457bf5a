package patches

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Mail is an entry as git format-patch writes one, for git am. The diff is all that it does, see Verdict.Diff; author and date
// are the commit's when one is given.
func Mail(e *Entry, diff []byte, commit *Commit) []byte {
	author, date := e.Header.Get("Author"), time.Unix(0, 0).UTC()
	if author == "" || !strings.Contains(author, "<") {
		author = strings.TrimSpace(author + " <toastdev@localhost>")
		if strings.HasPrefix(author, "<") {
			author = "toastdev " + author
		}
	}
	if day, err := time.Parse(time.DateOnly, e.Header.Get("Last-Update")); err == nil {
		date = day
	}
	if commit != nil {
		author, date = commit.Author, commit.Date
	}
	id := e.Commit
	if id == "" {
		id = strings.Repeat("0", 40)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "From %s Mon Sep 17 00:00:00 2001\nFrom: %s\nDate: %s\nSubject: [PATCH] %s\n", id, author, date.Format(time.RFC1123Z), e.Header.Summary())
	b.WriteString("MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\n")
	if why := strings.Trim(e.Header.Why(), "\n"); why != "" {
		for line := range strings.SplitSeq(why, "\n") {
			if strings.HasPrefix(line, "---") || strings.HasPrefix(line, "diff ") {
				line = " " + line // git am would end the message here
			}
			b.WriteString(line + "\n")
		}
		b.WriteString("\n")
	}
	for bug := range strings.FieldsSeq(e.Header.Get("Bug")) {
		fmt.Fprintf(&b, "Bug: %s\n", bug)
	}
	if e.Commit != "" {
		fmt.Fprintf(&b, "(cherry picked from commit %s)\n", e.Commit)
	}
	b.WriteString("---\n\n")
	b.Write(diff)
	b.WriteString("-- \ntoastdev\n\n")
	return b.Bytes()
}

// Quilt is an entry as quilt and dpkg-source take one: the header, and a diff of all that it does.
func Quilt(e *Entry, diff []byte) []byte {
	return append([]byte(e.Header.With("Leaves-Out", "").String()+"---\n"), diff...)
}

// Whole is all that an entry does as a diff, without a tree: only a diff of our own says that.
func Whole(e *Entry) ([]byte, error) {
	if e.Reference() {
		return nil, fault.New(fault.Invalid, "%s is a change of upstream's: what it does depends on the tree", e.FullName()).
			WithRemedy("say --tree %s=PATH", e.Component)
	}
	return e.Diff, nil
}
