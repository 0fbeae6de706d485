package terminal

import (
	"fmt"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// Rehearsal describes the last rehearsals.
func Rehearsal(v remediation.RehearsalView) string {
	var b strings.Builder
	if v.Running {
		b.WriteString(Wrap("", fmt.Sprintf("A rehearsal has been running for %s; %s left:", Clean(v.By), remediation.Counted(v.Left, "step"))) + "\n")
	}
	for i, r := range v.Rehearsals {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(strings.Join(Rehearsals([]remediation.Rehearsal{r}), ""))
		if r.Finished.IsZero() {
			continue
		}
		b.WriteString("\n" + RehearsalEnd(r))
		if r.Playbook != v.Playbook {
			b.WriteString(hint.Text("The playbook has changed since", Clean(remediation.RehearseCommand(r.Service, r.Plan))) + "\n")
		}
	}
	if len(v.Rehearsals) == 0 && !v.Running {
		b.WriteString(Wrap("", hint.Text(fmt.Sprintf("No plan of %s has been rehearsed yet", Clean(v.Service)), "backout rehearse --service="+Clean(v.Service))))
	}
	return b.String()
}

// Rehearsals prints the parts of rehearsals as they finish.
func Rehearsals(all []remediation.Rehearsal) []string {
	var out []string
	for _, r := range all {
		if r.Drill.Status == "" {
			continue
		}
		out = append(out, fmt.Sprintf("Plan %s of %s, without lasting effect:\n", Clean(r.Plan), Clean(r.Service)), rehearsalPart("drill alert", "", r.Drill))
		for _, s := range r.Steps {
			out = append(out, rehearsalPart(s.ID, s.Target, s.RehearsedPart))
		}
	}
	return out
}

// rehearsalPart is one part for people: its result, its time, what was seen.
func rehearsalPart(name, target string, part remediation.RehearsedPart) string {
	indent := strings.Repeat(" ", 13)
	var b strings.Builder
	b.WriteString(preflightWords[part.Status] + Clean(name) + ": took " + remediation.Took(part.Took) + "\n")
	if target != "" {
		b.WriteString(Wrap(indent, Clean(target)))
	}
	b.WriteString(Wrap(indent, Clean(part.Evidence)))
	if part.Next != "" && part.Status != remediation.Pass {
		b.WriteString(Wrap(indent, "try: "+Clean(part.Next)))
	}
	return b.String()
}

// RehearsalEnd is the result of a rehearsal.
func RehearsalEnd(r remediation.Rehearsal) string {
	count := map[remediation.Status]int{r.Drill.Status: 1}
	tried := 0
	for _, s := range r.Steps {
		count[s.Status]++
		if s.Tried {
			tried++
		}
	}
	text := fmt.Sprintf("Plan %s: %d passed, %d failed, %d unknown; %d of %s tried, the rest checked. It took %s and ended %s.",
		Clean(r.Plan), count[remediation.Pass], count[remediation.Fail], count[remediation.CannotTell], tried, remediation.Counted(len(r.Steps), "step"),
		remediation.Took(model.Duration(r.Finished.Sub(r.Started))), remediation.Moment(r.Finished))
	if len(r.Incidents) > 0 {
		text += " Audit entries: backout audit list --incident=" + Clean(r.Incidents[0])
	}
	if count[remediation.Fail] == 0 && count[remediation.CannotTell] > 0 {
		return Wrap("", text) + "What is unknown can be signed off for the preflight:\n  " +
			Clean(fmt.Sprintf("backout preflight sign rehearsal/%s --service=%s --reason=WHY", remediation.Slug(r.Plan), r.Service)) + "\n"
	}
	return Wrap("", text)
}
