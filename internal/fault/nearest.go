package fault

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/agext/levenshtein"
)

// Nearest is the name that word was probably meant to be: one with few letters changed or swapped, or one that it
// shortens; "" when none is near.
func Nearest(word string, names []string) string {
	letters := utf8.RuneCountInString(word)
	best, near := "", min(letters, max(2, letters/3)+1)
	for _, name := range names {
		d := levenshtein.Distance(word, name, nil)
		if d > 1 && sorted(word) == sorted(name) {
			d = 1
		}
		if d < near {
			best, near = name, d
		}
	}
	if best != "" || letters < 2 {
		return best
	}
	for _, name := range names {
		if strings.HasPrefix(name, word) {
			return name
		}
	}
	return ""
}

func sorted(word string) string {
	letters := []rune(word)
	slices.Sort(letters)
	return string(letters)
}

// Suggest sets the remedy to the nearest of the names, if one is near, and returns e.
func (e *Error) Suggest(word string, names []string) *Error {
	if name := Nearest(word, names); name != "" {
		return e.WithRemedy("write %q", name)
	}
	return e
}
