package terminal

import (
	"fmt"
	"slices"
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

// PreflightMissing says what is missing for a start.
func PreflightMissing(v remediation.PreflightView) string {
	if len(v.Missing) == 0 {
		return Wrap("", fmt.Sprintf("%s of %s is ready to start.", Clean(v.Release), Clean(v.Service)))
	}
	var b strings.Builder
	b.WriteString(Wrap("", fmt.Sprintf("%s of %s cannot start yet:", Clean(v.Release), Clean(v.Service))))
	unsigned := 0
	for _, m := range v.Missing {
		if preflightOfPeople(v, m) {
			unsigned++
			continue
		}
		b.WriteString(Wrap("  ", Clean(m)))
	}
	if unsigned > 0 {
		b.WriteString(Wrap("  ", remediation.Counted(unsigned, "sign-off")+" missing"))
	}
	b.WriteString(signNext(v))
	return b.String()
}

// signNext is the command that signs off the next item that waits for that.
func signNext(v remediation.PreflightView) string {
	for _, it := range v.Items {
		if it.Before && it.Status == remediation.CannotTell && it.Signed == nil {
			return "To sign off the next item:\n    " + Clean(remediation.SignCommand(v.Service, it.ID)) + "\n"
		}
	}
	return ""
}

// preflightOfPeople reports whether a sign-off is missing, which is listed
// separately.
func preflightOfPeople(v remediation.PreflightView, missing string) bool {
	return slices.ContainsFunc(v.Items, func(it remediation.PreflightItem) bool {
		return it.Owner != "" && strings.HasPrefix(missing, it.ID+" ")
	})
}
