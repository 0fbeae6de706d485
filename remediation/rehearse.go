package remediation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// Rehearser is an Action of which more than a look can be tried without lasting
// effect. Rehearse leaves nothing behind, however it ends; what a kill in its midst
// leaves is for Sweep.
type Rehearser interface {
	Action
	Rehearse(ctx context.Context) Result
}

// Rehearsal is how one plan of a service went when it was last rehearsed: a drill
// alert through Alertmanager, then each step, in the plan's order, as far as it can
// be tried and undone.
type Rehearsal struct {
	Service string `json:"service"`
	Plan    string `json:"plan"`
	Release string `json:"release"`
	// Playbook is the hash of the playbook that was rehearsed.
	Playbook string    `json:"playbook"`
	By       string    `json:"by"`
	Reason   string    `json:"reason"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	// Status is the worst of what the drill and the steps came to.
	Status Status `json:"result"`
	// Drill is what the drill alert came to, Incidents whom it opened.
	Drill     RehearsedPart   `json:"drill"`
	Incidents []string        `json:"incidents"`
	Steps     []RehearsedStep `json:"steps"`
}

// RehearsedPart is the result of one part of a rehearsal, and how long it took.
type RehearsedPart struct {
	Result
	Took model.Duration `json:"took"`
}

// RehearsedStep is one step of a rehearsal.
type RehearsedStep struct {
	// ID is what the step is called in an incident of this plan alone: "1-flag_off".
	ID     string `json:"id"`
	Action string `json:"action"`
	Target string `json:"target"`
	// Index is the step's place in its plan, from 0: its identity there.
	Index int `json:"index"`
	// Tried: it was carried out without lasting effect, and Took is what a real one
	// may be expected to take. Otherwise it was only checked.
	Tried bool `json:"tried"`
	RehearsedPart
}

// RehearsalView is a service's rehearsals as the API and the commands show them.
type RehearsalView struct {
	Service string `json:"service"`
	// Playbook is the hash of the one that is loaded: a rehearsal of another one
	// may be of other steps.
	Playbook string `json:"playbook"`
	// Running: Plans are being rehearsed since Started, and Rehearsals are theirs as
	// far as they have come; Left counts the steps that are not rehearsed yet.
	Running bool       `json:"running"`
	Left    int        `json:"left"`
	Plans   []string   `json:"plans"`
	By      string     `json:"by"`
	Started *time.Time `json:"started"`
	// Rehearsals are, where none is running, the last one of each plan.
	Rehearsals []Rehearsal `json:"rehearsals"`
}

// RehearsalTable holds the last rehearsal of each plan.
type RehearsalTable interface {
	// Rehearsals returns a service's, by plan.
	Rehearsals(service string) ([]Rehearsal, error)
	PutRehearsal(r Rehearsal) error // by Service and Plan
}

// Trial runs checks one after the other as one: the first that fails ends it, and if one
// is unknown, the whole is, because of that one.
func Trial(ctx context.Context, proofs ...func(context.Context) Result) Result {
	whole := Result{Status: Pass}
	var seen, causes []string
	shared := true
	for _, prove := range proofs {
		f := prove(ctx)
		if f.Status == Fail {
			return f
		}
		seen = append(seen, f.Evidence)
		if f.Status == Pass {
			continue
		}
		causes, shared = append(causes, f.because()), shared && f.Cause != ""
		if whole.Status == Pass {
			whole.Status, whole.Next = f.Status, f.Next
		}
	}
	whole.Evidence = strings.Join(seen, "; ")
	if whole.Unknown = steady(strings.Join(causes, "; ")); shared {
		whole.Cause = whole.Unknown
	}
	return whole
}

// worst is what several results come to.
func worst(all ...Status) Status {
	for _, r := range []Status{Fail, CannotTell} {
		if slices.Contains(all, r) {
			return r
		}
	}
	return Pass
}

// Judge sets the result of the whole.
func (r *Rehearsal) Judge() {
	all := []Status{r.Drill.Status}
	for _, s := range r.Steps {
		all = append(all, s.Status)
	}
	r.Status = worst(all...)
}

// Took is how long something took, as people read it.
func Took(d model.Duration) string { return Span(d) }

// rehearsedAge is how long a rehearsal proves anything.
const rehearsedAge = 30 * 24 * time.Hour

// ResultFor says what a rehearsal shows about a playbook's plan at a time.
func (r Rehearsal) ResultFor(b *alerts.Playbook, now time.Time) Result {
	next := RehearseCommand(r.Service, r.Plan)
	on := r.Finished.UTC().Format("2 Jan 2006 15:04 UTC")
	parts := append([]RehearsedStep{{ID: "the drill alert", RehearsedPart: r.Drill}}, r.Steps...)
	var seen, causes []string // of every part that is as bad as the whole
	for _, s := range parts {
		if s.Status == r.Status {
			seen, causes = append(seen, s.ID+": "+s.Evidence), append(causes, s.ID+": "+s.because())
		}
	}
	switch {
	case r.Playbook != b.Hash:
		return Unknown("the playbook has changed since the rehearsal of "+on, next)
	case now.Sub(r.Finished) > rehearsedAge:
		return Unknown("the last rehearsal was on "+on+", over 30 days ago", next)
	case r.Status == Pass:
		return Passed("rehearsed on " + on)
	case r.Status == Fail:
		return Failed(fmt.Sprintf("the rehearsal of %s failed: %s", on, strings.Join(seen, "; ")), "fix that; "+next)
	}
	// A sign-off is for what stayed unknown, whichever rehearsal of the plan showed it.
	return Unknown(fmt.Sprintf("the rehearsal of %s left something unknown: %s", on, strings.Join(seen, "; ")), "fix that; "+next).
		Because("plan " + r.Plan + ": " + strings.Join(causes, "; "))
}

// RehearseCommand is the command that rehearses a plan.
func RehearseCommand(service, plan string) string {
	return fmt.Sprintf("backout rehearse --plan=%s --service=%s", plan, service)
}

// RehearsedOf returns when each plan was rehearsed; a failed rehearsal, or one of
// another playbook, does not count.
func RehearsedOf(all []Rehearsal, playbook string) map[string]time.Time {
	out := map[string]time.Time{}
	for _, r := range all {
		if r.Status != Fail && r.Playbook == playbook {
			out[r.Plan] = r.Finished
		}
	}
	return out
}
