package view

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// shownAlerts bounds how many alerts an incident's view lists: the newest.
const shownAlerts = 1000

// OfIncident shows an incident as it is in this transaction.
func OfIncident(tx remediation.Tx, inc *remediation.Incident) (IncidentView, error) {
	all, err := tx.Alerts(inc.ID)
	if err != nil {
		return IncidentView{}, err
	}
	v := IncidentView{
		ID: inc.ID, Service: inc.Service, Rollout: inc.Release, State: inc.State, Reason: inc.Reason, Why: inc.Why,
		Until: UTC(inc.Until), Opened: inc.Opened.UTC(), Closed: UTC(inc.Closed),
		Triggers: []TriggerView{}, Steps: []StepView{}, ClaimedBy: inc.ClaimedBy, RestoredBy: inc.Restored, Drill: inc.Drill,
		ByHand: inc.ByHand && inc.Restored == "" && inc.State == remediation.Closed,
	}
	for _, a := range all[max(len(all)-shownAlerts, 0):] {
		t := TriggerView{Trigger: a.Trigger, Fingerprint: a.Fingerprint, Active: a.Active}
		if st := inc.Trigger(a.Trigger); st != nil {
			t.set(*st)
		}
		v.Triggers = append(v.Triggers, t)
	}
	for _, st := range inc.Triggers { // whose alert has moved on to a later incident
		if !slices.ContainsFunc(all, func(a remediation.AlertState) bool { return a.Trigger == st.Trigger }) {
			t := TriggerView{Trigger: st.Trigger, Fingerprint: st.Fingerprint}
			t.set(st)
			v.Triggers = append(v.Triggers, t)
		}
	}
	for i := range v.Triggers {
		if st := inc.Trigger(v.Triggers[i].Trigger); st != nil && inc.State == remediation.Closed {
			v.Triggers[i].Worst = st.Worst
		}
	}
	for i := range inc.Steps {
		s := &inc.Steps[i]
		lost := s.MayHaveLost() && !inc.Drill
		var kept *Snapshot
		if lost {
			if kept, err = SnapshotOf(tx, inc.ID, s.ID()); err != nil {
				return IncidentView{}, err
			}
		}
		v.Steps = append(v.Steps, StepView{
			Tells: s.Tells, LostData: lost, Snapshot: kept,
			ID: s.ID(), Action: s.Action, Target: s.Target, Risk: s.Risk.String(), State: s.State,
			Started: UTC(s.Started), Finished: UTC(s.Finished),
			Undoing:       s.Undoing && s.State == remediation.StepIntent,
			PutBack:       s.State == remediation.StepUndone && s.Error == "", // what failed keeps its error
			NotPutBack:    s.NotPutBack(),
			Left:          s.Left,
			NeedsApproval: s.Open() && asks(inc, s),
			Question:      s.Question(),
		})
	}
	if inc.State == remediation.Waiting && inc.ClaimedBy == "" {
		v.CallAt = UTC(inc.CallAt)
	}
	if inc.State == remediation.Waiting && inc.Reason == remediation.HoldMode {
		v.Would = inc.Would
	}
	if inc.State != remediation.Closed {
		freezes, err := tx.Freezes()
		if err != nil {
			return IncidentView{}, err
		}
		v.FrozenBy = slices.DeleteFunc(freezes, func(f remediation.Freeze) bool {
			return f.Scope != remediation.ScopeAll || f.Service != "" && f.Service != inc.Service
		})
	}
	if slices.ContainsFunc(inc.Steps, func(s remediation.Step) bool { return !s.Tells && s.Finished != nil }) {
		if err := v.changedOutside(tx); err != nil {
			return IncidentView{}, err
		}
	}
	if s, gate := inc.OverLimit(); s != nil {
		v.OverLimit, v.OverGate = s.ID(), gate
	}
	if inc.Restore != nil {
		v.RestoringFor = inc.Restore.By
	}
	if inc.Abort != nil {
		v.AbortedBy = inc.Abort.By
	}
	if v.Next = NextOf(inc, v.FrozenBy); v.Next == nil {
		v.Stuck = inc.IsStuck()
	}
	return v, nil
}

// setWorst takes the worst values that no row has from the audit log: earlier versions closed
// incidents without them.
func (v *IncidentView) setWorst(tx remediation.Tx, inc *remediation.Incident) error {
	lacks := func(t TriggerView) bool { return t.Worst == nil && t.Signal == "" && inc.Trigger(t.Trigger) != nil }
	if !slices.ContainsFunc(v.Triggers, lacks) {
		return nil
	}
	entries, err := tx.Entries(audit.Filter{Incident: inc.ID})
	if err != nil {
		return err
	}
	for i := range v.Triggers {
		t := &v.Triggers[i]
		if !lacks(*t) {
			continue
		}
		st := remediation.TriggerState{Above: inc.Trigger(t.Trigger).Above}
		for _, en := range entries {
			if value, ok := observed(en, t.Trigger); ok {
				st.See(value)
			}
		}
		t.Worst = st.Worst
	}
	return nil
}

// set takes over what the polls have seen of a trigger.
func (t *TriggerView) set(st remediation.TriggerState) {
	t.Threshold, t.Value, t.Signal, t.Unanswered = st.Threshold, st.Value, st.Signal, st.Unanswered
	if !st.Observed.IsZero() {
		t.Observed = UTC(&st.Observed)
	}
}

// Again says when the step that is Stuck is tried again.
func (v IncidentView) Again() string {
	if v.ClaimedBy != "" {
		return "once " + v.ClaimedBy + " has fixed the cause and released the incident"
	}
	return "once a commander has claimed the incident, fixed the cause and released it"
}

// changedOutside marks the steps whose targets someone else has changed since: what
// a step did is history, and no longer what runs.
func (v *IncidentView) changedOutside(tx remediation.Tx) error {
	seen, err := tx.Entries(audit.Filter{Incident: v.ID, Kind: audit.KindDrift})
	if err != nil {
		return err
	}
	for i := range v.Steps {
		s := &v.Steps[i]
		for _, en := range seen {
			if en.Step == s.ID && s.Finished != nil && en.Time.After(*s.Finished) {
				s.Changed = UTC(&en.Time)
				break
			}
		}
	}
	return nil
}

// NextOf says which step comes next, when at the earliest, and what would stop it; frozen
// are the freezes of the service's steps.
func NextOf(inc *remediation.Incident, frozen []remediation.Freeze) *Next {
	if inc.Restore != nil {
		return nextRestored(inc)
	}
	s := inc.Next()
	if s == nil || inc.State == remediation.Closed || inc.Unhandled() != nil {
		return nil
	}
	runs, listed := "it runs", " as listed"
	if asks(inc, s) {
		runs, listed = "it asks for its approval", " next"
	}
	n := &Next{Step: s.ID(), What: runs + " once nothing holds it, if the breach continues"}
	switch inc.State {
	case remediation.Confirming:
		at := inc.Wake
		n.At, n.What = UTC(&at), runs+" as soon as Prometheus confirms the breach"
	case remediation.Acting:
		n.What = runs + " if the breach continues after the current step"
	case remediation.Settling:
		n.At, n.What = UTC(inc.SettleUntil), runs+" then if the breach continues"
	case remediation.Recovered:
		n.What = runs + " if the breach comes back before the incident closes"
	case remediation.Waiting:
		if inc.Reason == remediation.HoldApproval { // whose until is when the answer is no
			n.What = "it runs once a commander approves it"
			break
		}
		n.At = UTC(inc.Until)
	}
	if inc.Aborting() && (inc.State != remediation.Waiting || inc.Reason != remediation.HoldApproval) {
		n.What = runs + listed + ", since " + inc.Abort.By + " aborts the rollout"
		if len(inc.Abort.Signals) > 0 {
			n.What = runs + listed + ", since " + inc.Abort.By + " raised the signal " + remediation.Names(inc.Abort.Signals, "")
		}
	}
	if inc.State != remediation.Recovered && !inc.Aborting() {
		n.Unless = append(n.Unless, fmt.Sprintf("the breach ends: %d checks in a row without it", remediation.Certain))
	}
	switch {
	case inc.State == remediation.Waiting && inc.Reason == remediation.HoldApproval && inc.Until != nil:
		n.Unless = append(n.Unless, "nobody approves it before "+remediation.Moment(*inc.Until))
	case s.Approve > 0 || s.Risk == alerts.Lossy:
		n.Unless = append(n.Unless, fmt.Sprintf("nobody approves it within %s of the request", remediation.Span(s.Approve)))
	}
	if !inc.RolloutActive && s.Risk != alerts.Reversible {
		n.Unless = append(n.Unless, "no rollout of "+inc.Service+" is active by then")
	}
	if inc.ClaimedBy != "" {
		n.What = "it would come next, if the incident were not claimed"
		n.Unless = append(n.Unless, inc.ClaimedBy+" keeps the claim")
	} else {
		n.Unless = append(n.Unless, "someone claims the incident")
	}
	stops := "someone freezes the service"
	if !inc.Aborting() { // an order needs no alert
		stops += " or silences its alerts"
	}
	n.Unless = append(n.Unless, stops)
	for _, f := range frozen {
		if inc.ClaimedBy == "" && inc.State != remediation.Waiting && (n.At == nil || !f.RanOut(*n.At)) {
			n.What = "it does not run while " + cmp.Or(f.Service, "every service") + " is frozen by " + f.By
		}
	}
	return n
}

// nextRestored says which step is put back next.
func nextRestored(inc *remediation.Incident) *Next {
	s := inc.ToRestore()
	if s == nil {
		return nil
	}
	n := &Next{
		Step: s.ID(), What: inc.Restore.By + " ordered the restore",
		Unless: []string{"someone has changed its target since", "someone freezes the service"},
	}
	if inc.State == remediation.Waiting {
		n.What, n.At = "it runs once nothing holds it, since "+n.What, UTC(inc.Until)
	}
	return n
}

// asks reports whether a step asks for an approval before it runs, and has none yet of the
// present plan.
func asks(inc *remediation.Incident, s *remediation.Step) bool {
	return (s.Approve > 0 || s.Risk == alerts.Lossy) && (s.Approved == "" || s.ApprovalPlan != inc.PlanHash())
}

// UTC returns a moment in UTC, nil for none.
func UTC(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// Incidents lists incidents as they are in one transaction of any store. An unknown
// service is refused: an empty list would read as good news.
func Incidents(tx remediation.Tx, f remediation.IncidentFilter) ([]IncidentView, error) {
	all, err := tx.Incidents(f)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return []IncidentView{}, knownService(tx, f.Service)
	}
	return OfIncidents(tx, all)
}

// OfIncidents shows the incidents of some rows.
func OfIncidents(tx remediation.Tx, all []*remediation.Incident) ([]IncidentView, error) {
	out := []IncidentView{}
	for _, inc := range all {
		v, err := OfIncident(tx, inc)
		if err == nil && inc.State == remediation.Waiting && inc.Reason == remediation.HoldApproval {
			err = v.expect(tx, inc) // who approves must know
		}
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// Incident returns one incident, or a *RefusedError if there is none.
func Incident(tx remediation.Tx, id string) (IncidentView, error) {
	inc, err := tx.Incident(id)
	if errors.Is(err, remediation.ErrNotFound) {
		return IncidentView{}, remediation.NoIncident(id)
	}
	if err != nil {
		return IncidentView{}, err
	}
	v, err := OfIncident(tx, inc)
	if err == nil {
		v.IncidentCall = inc.Call
		err = v.expect(tx, inc)
	}
	if err == nil && inc.State == remediation.Closed {
		err = v.setWorst(tx, inc)
	}
	return v, err
}

// Entries lists audit entries as they are in one transaction of any store. An unknown
// kind, incident or service is refused, as by Incidents.
func Entries(tx remediation.Tx, f audit.Filter) ([]audit.Entry, error) {
	if f.Kind != "" && !slices.Contains(audit.Kinds(), f.Kind) {
		return nil, hint.Add(remediation.Refuse(remediation.Invalid, "unknown kind of entry %q", f.Kind), "%s", remediation.OneOf(string(f.Kind), kinds()))
	}
	out, err := tx.Entries(f)
	if err != nil || len(out) > 0 {
		return out, err
	}
	if f.Incident != "" {
		if _, err := tx.Incident(f.Incident); errors.Is(err, remediation.ErrNotFound) {
			return nil, remediation.NoIncident(f.Incident)
		} else if err != nil {
			return nil, err
		}
	}
	return out, knownService(tx, f.Service)
}

// knownService refuses a service that no playbook ever loaded names.
func knownService(tx remediation.Tx, service string) error {
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
	return UnknownService(service, known)
}

// UnknownService refuses a service that is none of those known.
func UnknownService(service string, known []string) error {
	if len(known) == 0 {
		return remediation.Refuse(remediation.Missing, "unknown service %q; no service is known yet", service)
	}
	return hint.Add(remediation.Refuse(remediation.Missing, "unknown service %q", service), "%s", remediation.OneOf(service, known))
}

// kinds are those of audit entries.
func kinds() []string {
	var all []string
	for _, k := range audit.Kinds() {
		all = append(all, string(k))
	}
	return all
}

// RunsView is what a service runs, or why that is unknown.
type RunsView struct {
	Runs        *remediation.Running `json:"runs,omitempty"`
	RunsUnknown string               `json:"runs_unknown,omitempty"`
}

// RunsWords is one line: "v1.0.0 on 2 of 2, FEATURE_X=0, checked 4 s ago"; "" where nothing
// was asked.
func (v RunsView) RunsWords(now time.Time) string {
	switch {
	case v.Runs != nil:
		return fmt.Sprintf("%s, checked %s", v.Runs, remediation.Distance(now, v.Runs.Seen))
	case v.RunsUnknown != "":
		return "unknown: " + v.RunsUnknown
	}
	return ""
}

// StillRuns says that the image of a rollout that was rolled back still runs, as when only its
// flag was turned off; "" where it does not, or nobody knows.
func (v RunsView) StillRuns(r remediation.Rollout) string {
	if r.State == remediation.RolloutRolledBack && v.Runs != nil && v.Runs.Version == r.Release {
		return "; its image still runs"
	}
	return ""
}

// TeamMessage is the body of a message to those who run a service.
type TeamMessage struct {
	// Channel is where they talk, as the playbook writes it: "#incidents".
	Channel string `json:"channel"`
	// Story is the incident as it is, with the events, without its single
	// alerts; nil for what concerns no incident.
	Story *Story `json:"story,omitempty"`
	// Told is what is new; nothing where only the incident's state has changed.
	Told []remediation.TeamLine `json:"told,omitempty"`
}
