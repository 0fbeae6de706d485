package terminal

import (
	"fmt"
	"strings"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// Status marks what needs a person with an exclamation mark.
func Status(s view.Status, scr Screen) string {
	var b strings.Builder
	switch n := len(s.NeedsPerson()); n {
	case 0:
		words, tone := s.Headline()
		if tone != "good" { // something is wrong, or on its way
			words += ". No line below needs a person"
		}
		b.WriteString(Clean(words) + ".\n\n")
	default:
		fmt.Fprintf(&b, "%s:\n\n", scr.paint(bad, remediation.Counted(n, "subject")+" marked ! below: a person is needed"))
	}
	head := 0
	for _, l := range s.Lines {
		head = max(head, min(Width(Clean(l.Subject)), 24))
	}
	for _, l := range s.Lines {
		mark := "  "
		if l.Person {
			mark = "! "
		}
		subject := cell(l.Subject, head)
		b.WriteString(Hanging(mark+subject+strings.Repeat(" ", head-Width(subject)+2), l.Text))
	}
	return b.String()
}
