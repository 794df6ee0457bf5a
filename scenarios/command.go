package scenarios

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
)

// Command is one word of the script language.
type Command struct {
	Summary string   // one line, as `toastdev scenario help` lists it
	Args    string   // the synopsis of its arguments: NAME --network NETWORK... [--on NODE]
	Detail  []string // what it does, what it prints, what it sets, when it fails; an example at the end
	Async   bool     // it may run in the background: COMMAND ... &
	Min     int      // positional arguments
	Max     int      // -1: any number
	Alone   bool     // it disturbs the whole region: no other scenario runs beside one that has used it
	Spares  bool     // it changes no server: what is known of the scenario's servers goes on to be true
	Keeps   bool     // it looks at the last line: what that printed, and Run.Last, stay as they are

	// Sets names the variables that the command sets when it succeeds, from its positional arguments. Nil: none.
	Sets func(args []string) []string
	// Flags declares the command's flags and returns what it does once they are parsed. It is called anew for every
	// line, before anything is made too, to check the script: it only declares.
	// A string flag called save names a variable that the command sets.
	Flags func(*pflag.FlagSet) Action
	// Check says what is wrong with the positional arguments, before anything is made, and of a line that has variables in
	// them again before it runs. Nil: their number is all there is to check.
	Check func(args []string) error
}

// Action does what a line says. An error that is a *Mismatch is an expectation that was not met.
type Action func(ctx context.Context, r *Run, args []string) (Outcome, error)

// Outcome is what came of a line.
type Outcome struct {
	Text   string            // the script's stdout
	JSON   any               // what `json` looks into; nil: Text, when that is JSON
	Status int               // what `status` looks at: an API call's; 0: there was none
	Set    map[string]string // variables, those that Command.Sets names
}

// Mismatch is an expectation that was not met.
type Mismatch struct {
	Expected string `json:"expected"`
	Seen     string `json:"seen"`
}

// Skipped ends a scenario that the region turned out not to fit.
func Skipped(format string, args ...any) error { return skipped{fmt.Sprintf(format, args...)} }

type skipped struct{ reason string }

func (s skipped) Error() string { return "skipped: " + s.reason }

func (m *Mismatch) Error() string { return fmt.Sprintf("expected %s, seen %s", m.Expected, m.Seen) }
