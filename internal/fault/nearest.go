package fault

import (
	"unicode/utf8"

	"github.com/agext/levenshtein"
)

// Nearest is the name that word was probably meant to be; "" when none is near: a third of the letters may be wrong.
func Nearest(word string, names []string) string {
	best, near := "", max(1, utf8.RuneCountInString(word)/3)+1
	for _, name := range names {
		if d := levenshtein.Distance(word, name, nil); d < near {
			best, near = name, d
		}
	}
	return best
}

// Suggest sets the remedy to the nearest of the names, if one is near, and returns e.
func (e *Error) Suggest(word string, names []string) *Error {
	if name := Nearest(word, names); name != "" {
		return e.WithRemedy("write %q", name)
	}
	return e
}
