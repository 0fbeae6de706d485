package terminal

import (
	"strings"

	"github.com/locotoki/backout/alerts"
)

// Problem is a problem as editors and people read it: its first line, with
// the place, is not broken, however long it is.
func Problem(p alerts.Problem) string {
	text := CleanLines(p.String())
	if p.File == "" {
		return strings.TrimPrefix(text, ": ")
	}
	return text
}
