package remediation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/alerts"
)

// PeoplesItems are the parts of a playbook's work that no machine can check, in the
// playbook's order: a person signs off each.
func PeoplesItems(pb *alerts.Playbook) []PreflightItem {
	l := &workList{service: pb.Service, lead: "Rollout Lead"}
	if len(pb.Team) > 0 {
		l.lead = owns(pb.Team[0].Role, pb.Team[0].Name)
	}
	for _, m := range pb.Team {
		seen := "the playbook names nobody for it"
		if m.Name != "" {
			seen = "the playbook names " + m.Name
		}
		l.add("team", m.Role, owns(m.Role, m.Name), alerts.BlocksStart, seen)
	}
	for _, c := range pb.Checklist {
		seen := said(c.Status)
		if c.Notes != "" {
			seen = c.Notes + "; " + seen
		}
		l.add("checklist", c.Item, c.Owner, alerts.BlocksStart, seen)
	}
	for _, p := range pb.Phases {
		owner := l.lead
		for _, t := range pb.Timeline {
			if strings.EqualFold(t.Activity, p.Name) {
				owner = t.Owner
			}
		}
		for _, t := range p.Tasks {
			for _, item := range t.Items {
				l.add("phase", item, owner, p.Blocks, p.Name+": "+t.Name)
			}
		}
	}
	for _, t := range pb.Timeline {
		blocks := alerts.BlocksNothing
		if t.BeforeStart() {
			blocks = alerts.BlocksStart
		}
		l.add("timeline", t.Activity, t.Owner, blocks, t.Day+"; "+said(t.Status))
	}
	for _, a := range pb.SuccessCriteria {
		for _, c := range a.Criteria {
			if c.Measure == nil { // nothing but a person can tell; the finish has a gate of its own for it
				l.add("success", c.Text, l.lead, alerts.BlocksNothing, "success criterion: "+a.Area)
			}
		}
	}
	for _, t := range pb.PostRollout {
		for _, item := range t.Items {
			l.add("after", item, l.lead, alerts.BlocksNothing, "after the rollout: "+t.Name)
		}
	}
	return l.items
}

// workList gathers pieces of work, each under an id of its own.
type workList struct {
	service, lead string
	items         []PreflightItem
}

// unsigned ends what is seen of a piece of work that nobody has signed off.
const unsigned = "; nobody has signed it off"

func (l *workList) add(list, name, owner string, blocks alerts.Blocks, seen string) {
	id := list + "/" + Slug(name)
	taken := func(id string) bool {
		return slices.ContainsFunc(l.items, func(it PreflightItem) bool { return it.ID == id })
	}
	for n, base := 2, id; taken(id); n++ {
		id = fmt.Sprintf("%s-%d", base, n)
	}
	l.items = append(l.items, PreflightItem{
		ID: id, Name: name, Owner: owner, Before: blocks == alerts.BlocksStart, BeforeFinish: blocks == alerts.BlocksFinish,
		Result: Unknown(seen+unsigned, SignCommand(l.service, id)),
	})
}

func owns(role, name string) string {
	if name == "" {
		return role
	}
	return name + " (" + role + ")"
}

func said(s alerts.Status) string {
	if s == "" {
		s = alerts.StatusPending
	}
	return "the playbook has status " + strings.ReplaceAll(string(s), "_", " ")
}

// Slug is a text as it is easy to type: lower-case letters and digits between
// hyphens.
func Slug(text string) string {
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	const longest = 60
	out := ""
	for _, w := range words {
		if out != "" && len(out)+1+len(w) > longest {
			break
		}
		if out != "" {
			out += "-"
		}
		out += w
	}
	if out == "" {
		return "item"
	}
	return out
}
