package remediation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/audit"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

// shownAlerts bounds how many alerts an incident's view lists: the newest.
const shownAlerts = 1000

// viewOf shows an incident as it is in this transaction.
func viewOf(tx Tx, inc *Incident) (IncidentView, error) {
	all, err := tx.Alerts(inc.ID)
	if err != nil {
		return IncidentView{}, err
	}
	v := IncidentView{
		ID: inc.ID, Service: inc.Service, Rollout: inc.Release, State: inc.State, Reason: inc.Reason, Why: inc.Why,
		Until: utc(inc.Until), Opened: inc.Opened.UTC(), Closed: utc(inc.Closed),
		Triggers: []TriggerView{}, Steps: []StepView{}, ClaimedBy: inc.ClaimedBy, RestoredBy: inc.Restored, Drill: inc.Drill,
	}
	for _, a := range all[max(len(all)-shownAlerts, 0):] {
		t := TriggerView{Trigger: a.Trigger, Fingerprint: a.Fingerprint, Active: a.Active}
		if st := inc.trigger(a.Trigger); st != nil {
			t.Threshold, t.Value, t.Signal = st.Threshold, st.Value, st.Signal
		}
		v.Triggers = append(v.Triggers, t)
	}
	for _, st := range inc.Triggers { // whose alert has moved on to a later incident
		if !slices.ContainsFunc(all, func(a AlertState) bool { return a.Trigger == st.Trigger }) {
			v.Triggers = append(v.Triggers, TriggerView{
				Trigger: st.Trigger, Fingerprint: st.Fingerprint, Threshold: st.Threshold, Value: st.Value, Signal: st.Signal,
			})
		}
	}
	for i := range inc.Steps {
		s := &inc.Steps[i]
		v.Steps = append(v.Steps, StepView{
			ID: s.ID(), Action: s.Action, Target: s.Target, Risk: s.Risk.String(), State: s.State,
			Started: utc(s.Started), Finished: utc(s.Finished),
		})
	}
	if inc.State == Waiting && inc.Reason == HoldMode {
		v.Would = inc.Would
	}
	if slices.ContainsFunc(inc.Steps, func(s Step) bool { return !s.Tells && s.Finished != nil }) {
		if err := v.changedOutside(tx); err != nil {
			return IncidentView{}, err
		}
	}
	if inc.Abort != nil {
		v.AbortedBy = inc.Abort.By
	}
	if v.Next = nextOf(inc); v.Next == nil {
		v.Stuck = inc.stuck()
	}
	return v, nil
}

// Again says when the step that is Stuck is tried again.
func (v IncidentView) Again() string {
	if v.ClaimedBy != "" {
		return "once " + v.ClaimedBy + " has mended the cause and released the incident"
	}
	return "once a commander has claimed the incident, mended the cause and released it"
}

// stuck is the step that waits for a human to claim and release the incident, or "".
func (inc *Incident) stuck() string {
	if inc.State == Closed {
		return ""
	}
	if s := inc.unhandled(); s != nil {
		return s.ID()
	}
	for i := range inc.Steps {
		if s := &inc.Steps[i]; inc.Reason == HoldStepFailed && s.State == StepInDoubt {
			return s.ID()
		}
	}
	return ""
}

// changedOutside marks the steps whose targets somebody else has changed since: what
// a step did is history, and no longer what runs.
func (v *IncidentView) changedOutside(tx Tx) error {
	seen, err := tx.Entries(audit.Filter{Incident: v.ID, Kind: audit.KindDrift})
	if err != nil {
		return err
	}
	for i := range v.Steps {
		s := &v.Steps[i]
		for _, en := range seen {
			if en.Step == s.ID && s.Finished != nil && en.Time.After(*s.Finished) {
				s.Changed = utc(&en.Time)
				break
			}
		}
	}
	return nil
}

// nextOf says which step comes next, when at the earliest, and what would stop it.
func nextOf(inc *Incident) *Next {
	if inc.Restore != nil {
		return nextRestored(inc)
	}
	s := inc.next()
	if s == nil || inc.State == Closed || inc.unhandled() != nil {
		return nil
	}
	n := &Next{Step: s.ID(), What: "it runs when what holds it is gone, if the breach is still there"}
	switch inc.State {
	case Confirming:
		at := inc.Wake
		n.At, n.What = utc(&at), "it runs as soon as Prometheus confirms the breach"
	case Acting:
		n.What = "it runs if the breach goes on after the step that runs now"
	case Settling:
		n.At, n.What = utc(inc.SettleUntil), "it runs then if the breach is seen to go on"
	case Recovered:
		n.What = "it runs if the breach comes back before the incident closes"
	case Waiting:
		if inc.Reason == HoldApproval { // whose until is when the answer is no
			n.What = "it runs once a commander approves it"
			break
		}
		n.At = utc(inc.Until)
	}
	if inc.aborting() && (inc.State != Waiting || inc.Reason != HoldApproval) {
		n.What = "it runs as listed, since " + inc.Abort.By + " aborts the rollout"
		if len(inc.Abort.Signals) > 0 {
			n.What = "it runs as listed, since " + inc.Abort.By + " raised the signal " + names(inc.Abort.Signals, "")
		}
	}
	if inc.State != Recovered && !inc.aborting() {
		n.Unless = append(n.Unless, fmt.Sprintf("the breach ends: %d looks running without it", certain))
	}
	switch {
	case inc.State == Waiting && inc.Reason == HoldApproval && inc.Until != nil:
		n.Unless = append(n.Unless, "nobody approves it before "+inc.Until.UTC().Format(time.RFC3339))
	case s.Approve > 0 || s.Risk == alerts.Lossy:
		n.Unless = append(n.Unless, fmt.Sprintf("nobody approves it within %s of being asked", model.Duration(s.Approve)))
	}
	if inc.ClaimedBy != "" {
		n.What = "it would come next, if the incident were not claimed"
		n.Unless = append(n.Unless, inc.ClaimedBy+" keeps the claim")
	} else {
		n.Unless = append(n.Unless, "somebody claims the incident")
	}
	n.Unless = append(n.Unless, "somebody freezes the service, or silences its alerts")
	return n
}

// nextRestored says which step is put back next.
func nextRestored(inc *Incident) *Next {
	s := inc.toRestore()
	if s == nil {
		return nil
	}
	return &Next{
		Step: s.ID(), What: "it is being put back as it was before, for " + inc.Restore.By,
		Unless: []string{"its target was changed by somebody since", "somebody freezes the service"},
	}
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// ViewIncidents lists incidents as they are in one transaction of any store. A
// service that nobody knows is refused: an empty list would read as good news.
func ViewIncidents(tx Tx, f IncidentFilter) ([]IncidentView, error) {
	all, err := tx.Incidents(f)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return []IncidentView{}, knownService(tx, f.Service)
	}
	out := []IncidentView{}
	for _, inc := range all {
		v, err := viewOf(tx, inc)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// ViewIncident shows one incident; a *RefusedError where there is none.
func ViewIncident(tx Tx, id string) (IncidentView, error) {
	inc, err := tx.Incident(id)
	if errors.Is(err, ErrNotFound) {
		return IncidentView{}, refuse(Missing, "there is no incident %s", id)
	}
	if err != nil {
		return IncidentView{}, err
	}
	v, err := viewOf(tx, inc)
	if err == nil {
		v.IncidentCall = inc.Call
		err = v.expect(tx, inc)
	}
	return v, err
}

// ViewEntries lists audit entries as they are in one transaction of any store. A
// kind, incident or service that does not exist is refused, as ViewIncidents does.
func ViewEntries(tx Tx, f audit.Filter) ([]audit.Entry, error) {
	if f.Kind != "" && !slices.Contains(audit.Kinds(), f.Kind) {
		return nil, refuse(Invalid, "unknown kind of entry %q; the kinds are %s", f.Kind, joined(audit.Kinds()))
	}
	out, err := tx.Entries(f)
	if err != nil || len(out) > 0 {
		return out, err
	}
	if f.Incident != "" {
		if _, err := tx.Incident(f.Incident); errors.Is(err, ErrNotFound) {
			return nil, refuse(Missing, "there is no incident %s", f.Incident)
		} else if err != nil {
			return nil, err
		}
	}
	return out, knownService(tx, f.Service)
}

// knownService refuses a service that no playbook ever loaded names.
func knownService(tx Tx, service string) error {
	if service == "" {
		return nil
	}
	beats, err := tx.Beats()
	if err != nil {
		return err
	}
	known := make([]string, len(beats))
	for i, b := range beats {
		known[i] = b.Service
	}
	if slices.Contains(known, service) {
		return nil
	}
	return refuse(Missing, "unknown service %q; known: %s", service, joined(known))
}

func joined[T ~string](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}

// Incidents implements Service.
func (e *Engine) Incidents(ctx context.Context, f IncidentFilter) (out []IncidentView, err error) {
	err = e.store.View(ctx, func(tx Tx) error {
		out, err = ViewIncidents(tx, f)
		return err
	})
	return out, err
}

// Incident implements Service.
func (e *Engine) Incident(ctx context.Context, id string) (v IncidentView, err error) {
	err = e.store.View(ctx, func(tx Tx) error {
		v, err = ViewIncident(tx, id)
		return err
	})
	if err == nil {
		v.RunsView = e.runs(v.Service)
	}
	return v, err
}

// Entries implements Service.
func (e *Engine) Entries(ctx context.Context, f audit.Filter) (out []audit.Entry, err error) {
	if f.Limit > 0 && f.Bytes == 0 { // a page: who asks for it goes on after its last
		f.Bytes = audit.PageBytes
	}
	err = e.store.View(ctx, func(tx Tx) error {
		out, err = ViewEntries(tx, f)
		return err
	})
	return out, err
}

// Search implements Service.
func (e *Engine) Search(ctx context.Context, q audit.Query) (p audit.Page, err error) {
	err = e.store.View(ctx, func(tx Tx) error {
		p, err = audit.Search(tx, q)
		return err
	})
	return p, err
}

// Head implements Service.
func (e *Engine) Head(ctx context.Context) (seq int64, hash string, err error) {
	err = e.store.View(ctx, func(tx Tx) error {
		seq, hash, err = tx.Head()
		return err
	})
	return seq, hash, err
}

// Ready implements Service.
func (e *Engine) Ready(ctx context.Context) error {
	_, _, err := e.Head(ctx)
	return err
}
