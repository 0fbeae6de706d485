package terminal

import (
	"fmt"
	"strings"

	"github.com/locotoki/backout/remediation"
)

// preflightWords are the results as printed before an item.
var preflightWords = map[remediation.Status]string{
	remediation.Pass: "pass         ", remediation.Fail: "FAIL         ", remediation.CannotTell: "unknown      ",
}

// PreflightItem is one item for people.
func PreflightItem(it remediation.PreflightItem) string {
	indent := strings.Repeat(" ", 13)
	var b strings.Builder
	b.WriteString(preflightWords[it.Status] + Clean(it.ID) + ": " + Clean(it.Name) + "\n")
	b.WriteString(Wrap(indent, Clean(it.Evidence)))
	if s := it.Signed; s != nil && it.Owner == "" {
		b.WriteString(Wrap(indent, fmt.Sprintf("signed by %s: %s", Clean(s.By), Clean(s.Reason))))
	} else if b.WriteString(lapsed(indent, it)); it.Next != "" && it.Status != remediation.Pass {
		b.WriteString(Wrap(indent, "try: "+Clean(it.Next)))
	}
	return b.String()
}

// lapsed says why an item that was signed off is open again.
func lapsed(indent string, it remediation.PreflightItem) string {
	if it.Lapsed == "" {
		return ""
	}
	return Wrap(indent, Clean(it.Lapsed))
}

// PreflightEnd lists the sign-offs and the result.
func PreflightEnd(v remediation.PreflightView) string {
	var b strings.Builder
	head := "\nSign-offs:\n"
	for _, it := range v.Items {
		if it.Owner == "" {
			continue
		}
		b.WriteString(head)
		head = ""
		word := "open"
		switch {
		case it.Signed != nil:
			word = "signed"
		case !it.Before:
			word = "later"
		}
		line := fmt.Sprintf("%s: %s (%s)", word, Clean(it.ID), Clean(it.Owner))
		if it.Signed != nil {
			line += ", by " + Clean(it.Signed.By)
		}
		b.WriteString(Wrap("  ", line) + lapsed("    ", it))
	}
	count := map[remediation.Status]int{}
	for _, it := range v.Items {
		if it.Owner == "" {
			count[it.Status]++
		}
	}
	if v.Finished == nil {
		fmt.Fprintf(&b, "\nNo preflight of %s has finished yet.\n", Clean(v.Release))
	} else {
		fmt.Fprintf(&b, "\n%d passed, %d failed, %d unknown; ended %s.\n",
			count[remediation.Pass], count[remediation.Fail], count[remediation.CannotTell], remediation.Moment(*v.Finished))
	}
	return b.String() + PreflightMissing(v)
}

// PreflightMissing names what is missing for a start, each with its next command.
func PreflightMissing(v remediation.PreflightView) string {
	if len(v.Missing) == 0 {
		return Wrap("", fmt.Sprintf("Nothing is missing in the preflight of %s of %s.", Clean(v.Release), Clean(v.Service)))
	}
	var b strings.Builder
	b.WriteString(Wrap("", fmt.Sprintf("%s of %s cannot start yet:", Clean(v.Release), Clean(v.Service))))
	var unsigned []string
	for _, m := range v.Missing {
		it := preflightItemOf(v, m)
		if it.Owner != "" {
			unsigned = append(unsigned, it.ID)
			continue
		}
		b.WriteString(Wrap("  ", Clean(m)))
		if it.Next != "" {
			b.WriteString(Wrap("    ", "try: "+Clean(it.Next)))
		}
	}
	if len(unsigned) > 0 {
		b.WriteString("  " + remediation.Counted(len(unsigned), "sign-off") + " missing:\n    " +
			Clean(remediation.SignCommand(v.Service, strings.Join(unsigned, " "))) + "\n") // on one line, to be copied
	}
	return b.String()
}

// preflightItemOf is the item, or the first of those, that a line of what is missing is about.
func preflightItemOf(v remediation.PreflightView, missing string) remediation.PreflightItem {
	for _, it := range v.Items {
		if strings.HasPrefix(missing, it.ID+" ") || strings.HasPrefix(missing, it.ID+", ") {
			return it
		}
	}
	return remediation.PreflightItem{}
}
