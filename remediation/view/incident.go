package view

import (
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// IncidentView is an incident as the API, the commands and the pages show it.
type IncidentView struct {
	ID      string             `json:"id"`
	Service string             `json:"service"`
	Rollout string             `json:"rollout"`
	State   remediation.State  `json:"state"`
	Reason  remediation.Reason `json:"reason"`
	Why     string             `json:"why"`
	Until   *time.Time         `json:"until"`
	// CallAt is when a person is called if it is still on hold then; nil where nobody will be,
	// or somebody was.
	CallAt   *time.Time    `json:"call_at,omitempty"`
	Opened   time.Time     `json:"opened"`
	Closed   *time.Time    `json:"closed"`
	Triggers []TriggerView `json:"triggers"`
	Steps    []StepView    `json:"steps"`
	Next     *Next         `json:"next"`
	// Stuck is the step that failed, which is tried again once a person has claimed the
	// incident and released it; until then nothing comes next.
	Stuck     string `json:"stuck,omitempty"`
	ClaimedBy string `json:"claimed_by"`
	// OverLimit is the step that a limit holds, which a commander can approve, OverGate the
	// limit: realm, per_target, per_service, blast_radius or cooldown.
	OverLimit string `json:"over_limit,omitempty"`
	OverGate  string `json:"over_gate,omitempty"`
	// AbortedBy is who ordered the rollout to be backed out, "" where nobody did.
	AbortedBy string `json:"aborted_by,omitempty"`
	// ByHand says that a person closed it before backout saw the breach end, or while its
	// signal was raised.
	ByHand bool `json:"by_hand,omitempty"`
	// RestoredBy is who had put back what the incident's steps did, "" where nobody has.
	RestoredBy string `json:"restored_by,omitempty"`
	// RestoringFor is who ordered what the incident's steps did to be put back, while that is
	// not over: the next step is then undone, not run.
	RestoringFor string `json:"restoring_for,omitempty"`
	Drill        bool   `json:"drill"`
	// RunsView is set where one incident is asked for.
	RunsView
	// Would is what each step that is left would do if backout did not only observe.
	Would []string `json:"would,omitempty"`
	// IncidentCall is set where one incident is asked for that is grave enough for one.
	IncidentCall *remediation.CallView `json:"incident_call,omitempty"`
	// FrozenBy are the freezes that hold its steps.
	FrozenBy []remediation.Freeze `json:"frozen_by,omitempty"`
}

// Cause is what opened the incident: its triggers, or who ordered it; "" if that is no
// longer known.
func (v IncidentView) Cause() string {
	var names []string
	for _, t := range v.Triggers {
		names = append(names, t.Trigger)
	}
	return cause(names, v.AbortedBy)
}

// StepName names what is done next with a step: its id, or "undo of" it during a restore.
func (v IncidentView) StepName(id string) string {
	if v.RestoringFor != "" {
		return "undo of " + id
	}
	return id
}

// StateOf is the state of one of the incident's steps in words.
func (v IncidentView) StateOf(s StepView) string {
	switch {
	case s.PutBack:
		return "put back"
	case s.Undoing:
		return "undoing"
	case v.NeverRun(s):
		return "never run"
	}
	return strings.ReplaceAll(string(s.State), "_", " ")
}

// NeverRun reports that a step of an incident that is over did not run.
func (v IncidentView) NeverRun(s StepView) bool {
	return v.State == remediation.Closed && (s.State == remediation.StepPending || s.State == remediation.StepWaiting)
}

// MayBeInPlace reports that a step did not end well, and was not undone: its target may be as
// the step wants it.
func (v IncidentView) MayBeInPlace(s StepView) bool {
	switch {
	case s.Tells || v.Drill:
		return false
	case s.State == remediation.StepIntent:
		return v.inDoubt()
	}
	return s.Left || s.State == remediation.StepFailed || s.State == remediation.StepInDoubt
}

// MayBe are the steps that MayBeInPlace, each as a sentence.
func (v IncidentView) MayBe() (sentences []string) {
	for _, s := range v.Steps {
		if !v.MayBeInPlace(s) {
			continue
		}
		what := " is in doubt"
		switch {
		case s.NotPutBack:
			what = " could not be put back"
		case s.State == remediation.StepFailed:
			what = " failed and could not be undone"
		case s.Left:
			what = " was tried and is to run again"
		}
		sentences = append(sentences, s.ID+what+": its change may be in place.")
	}
	return sentences
}

// inDoubt reports that the target of the running step cannot be inspected, so that nobody
// knows what the step did.
func (v IncidentView) inDoubt() bool {
	return v.State == remediation.Acting && v.Reason == remediation.HoldTarget
}

// Doubt says what is not known of the step that is in doubt; "" if none is.
func (v IncidentView) Doubt() string {
	if !v.inDoubt() {
		return ""
	}
	words := "the target cannot be inspected"
	for _, s := range v.Steps {
		switch {
		case s.Tells:
		case s.State == remediation.StepIntent:
			return "the target of " + s.ID + " cannot be inspected"
		case s.State == remediation.StepDone: // the last of them is not verified
			words = "the change by " + s.ID + " cannot be verified"
		}
	}
	return words
}

// Closable reports whether a person who has to end the incident can close it now: a running
// step ends first, but for one that is in doubt.
func (v IncidentView) Closable() bool {
	switch v.State {
	case remediation.Closed:
		return false
	case remediation.Acting:
		return v.inDoubt()
	}
	return v.State == remediation.Exhausted || v.State == remediation.Waiting || v.ClaimedBy != ""
}

// ClaimWords say what a claim of the incident does: a running step ends first.
func (v IncidentView) ClaimWords() string {
	if v.State == remediation.Acting && !v.inDoubt() {
		return "the running step ends first, then no step runs until it is released"
	}
	return "no step runs until it is released"
}

// ByHandWords say what was not seen when a person closed it; "" if nobody did.
func (v IncidentView) ByHandWords() string {
	switch {
	case !v.ByHand:
		return ""
	case v.judged():
		return "before backout saw the breach end"
	}
	return "while its signal was raised"
}

// Recovery returns the last recovery, nil if there was none, and whether it lasted: a next
// step, a reopening, or a person's close of what goes on ends it. last gives the incident's last
// entry of a kind, or nil.
func (v IncidentView) Recovery(last func(audit.Kind) *audit.Entry) (e *audit.Entry, lasted bool) {
	if e = last(audit.KindRecovered); e == nil {
		return nil, false
	}
	over := v.State == remediation.Recovered || v.State == remediation.Closed || v.RestoringFor != ""
	lasted = over && !v.ByHand
	for _, kind := range []audit.Kind{audit.KindEscalated, audit.KindReopened} {
		if later := last(kind); later != nil && later.Seq > e.Seq {
			lasted = false
		}
	}
	return e, lasted
}

// Asks reports that a step waits for an approval.
func (v IncidentView) Asks(s StepView) bool {
	return v.State == remediation.Waiting && v.Reason == remediation.HoldApproval && v.Next != nil && v.Next.Step == s.ID
}

// Ordered reports that a person is the cause, and no alert: nothing is confirmed first.
func (v IncidentView) Ordered() bool { return len(v.Triggers) == 0 && v.AbortedBy != "" }

func cause(triggers []string, abortedBy string) string {
	if len(triggers) == 0 && abortedBy != "" {
		return "ordered by " + abortedBy
	}
	var names []string
	for _, name := range triggers {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// TriggerView is one attached alert.
type TriggerView struct {
	Trigger     string   `json:"trigger"`
	Fingerprint string   `json:"fingerprint"`
	Active      bool     `json:"active"`
	Threshold   float64  `json:"threshold"`
	Value       *float64 `json:"value"`
	// Observed is when Value was read. Unanswered: Prometheus did not answer the last
	// poll.
	Observed   *time.Time `json:"observed,omitempty"`
	Unanswered bool       `json:"unanswered,omitempty"`
	// Worst is the worst value of the trigger's own expression that backout saw while the
	// incident was open, in its polls and in what Prometheus recorded; set once it is closed.
	Worst *float64 `json:"worst,omitempty"`
	// Unit is that of the trigger's indicator; set where one incident is asked for.
	Unit alerts.Unit `json:"unit,omitempty"`
	// Estimate says what the values are where the trigger has a confidence: the nearer end of
	// an interval, and no measured share. It is set with Unit.
	Estimate string `json:"estimate,omitempty"`
	// Signal is set where a person is the trigger, and no metric.
	Signal string `json:"signal,omitempty"`
}

// StepView is one step.
type StepView struct {
	ID       string                `json:"id"`
	Action   string                `json:"action"`
	Target   string                `json:"target"`
	Risk     string                `json:"risk"`
	State    remediation.StepState `json:"state"`
	Started  *time.Time            `json:"started"`
	Finished *time.Time            `json:"finished"`
	// Undoing says that the step is being undone; PutBack, that a person had it put back,
	// so that "undone" does not mean that it failed.
	Undoing bool `json:"undoing,omitempty"`
	PutBack bool `json:"put_back,omitempty"`
	// NotPutBack says that a person ordered it to be put back, which failed; Left, that it is
	// to run again, and its target may be as an earlier try left it.
	NotPutBack bool `json:"not_put_back,omitempty"`
	Left       bool `json:"left,omitempty"`
	// NeedsApproval says that the step asks for an approval before it runs, and has none yet.
	NeedsApproval bool `json:"needs_approval,omitempty"`
	// Question names the request for its approval that waits for an answer. A later request
	// has another name: what can be lost may be more by then.
	Question string `json:"question,omitempty"`
	// Tells says that the step only tells people something, and changes no target.
	Tells bool `json:"tells,omitempty"`
	// LostData says that the step could lose data and has run, or may have run in part;
	// Snapshot was taken before, nil where none is known.
	LostData bool      `json:"lost_data,omitempty"`
	Snapshot *Snapshot `json:"snapshot,omitempty"`
	// Changed is when the step's target was first seen to be no longer as the step left
	// it, by a hand outside backout; nil where it never was.
	Changed *time.Time `json:"changed,omitempty"`
	// Expected is how long it took when its plan was rehearsed, as Prometheus writes
	// durations, and Rehearsed when that was; set where one incident is asked for, or
	// where it waits for an approval.
	Expected  string     `json:"expected,omitempty"`
	Rehearsed *time.Time `json:"rehearsed,omitempty"`
	// Evidence is what was seen then, such as the snapshot's size and place.
	Evidence string `json:"evidence,omitempty"`
	// Loses is what the step can lose and what is kept of it; set where one incident is
	// asked for, while the step can still run.
	Loses string `json:"loses,omitempty"`
}

// Snapshot is what was kept of the data that a step could lose.
type Snapshot struct {
	Path     string `json:"path"`
	Size     int64  `json:"size"` // in bytes
	SHA256   string `json:"sha256"`
	Database string `json:"database,omitempty"`
	// DSNFile is the file that holds the database's address.
	DSNFile string `json:"dsn_file,omitempty"`
	// Lost is what the step is known to have lost of it.
	Lost []remediation.Lost `json:"lost,omitempty"`
}

// SnapshotOf returns the snapshot that a step took before it lost data, by the last outcome
// or look in doubt that has one; nil if none does.
func SnapshotOf(tx remediation.Tx, incident, step string) (*Snapshot, error) {
	entries, err := tx.Entries(audit.Filter{Incident: incident})
	if err != nil {
		return nil, err
	}
	for _, en := range slices.Backward(entries) {
		after, _ := en.Detail["after"].(map[string]any)
		dump, _ := after["dump"].(map[string]any)
		path, _ := dump["path"].(string)
		if en.Step != step || path == "" || en.Kind != audit.KindOutcome && en.Kind != audit.KindInDoubt {
			continue
		}
		s := &Snapshot{Path: path}
		s.SHA256, _ = dump["sha256"].(string)
		s.Database, _ = after["database"].(string)
		s.DSNFile, _ = after["dsn_file"].(string)
		if size, ok := decimalOf(dump["size"]); ok {
			s.Size = int64(size)
		}
		s.Lost = lostOf(en)
		return s, nil
	}
	return nil, nil
}

// NothingRan reports an order (an abort or a signal) none of whose steps ran: each was denied, or
// nobody answered. No metric says that there is a breach.
func (v *IncidentView) NothingRan() bool {
	return v.State == remediation.Exhausted && !v.judged() && !slices.ContainsFunc(v.Steps, func(s StepView) bool {
		return !s.Tells && s.State != remediation.StepSkipped && s.State != remediation.StepPending && s.State != remediation.StepWaiting
	})
}

// Skipped are the steps that were to change something and were skipped.
func (v *IncidentView) Skipped() (ids []string) {
	for _, s := range v.Steps {
		if s.State == remediation.StepSkipped && !s.Tells {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// Lost says whether a step with LostData lost data, or may have.
func (s StepView) Lost() string {
	if s.State == remediation.StepDone {
		return "lost data"
	}
	return "may have lost data"
}

// LostWords say what a step has lost, and where its snapshot is; "" for a step that lost nothing.
func (s StepView) LostWords() string {
	switch {
	case !s.LostData:
		return ""
	case s.Snapshot == nil:
		return s.Lost() + ": the audit log names no snapshot"
	}
	words := s.Lost() + ": "
	if len(s.Snapshot.Lost) > 0 {
		words += remediation.LostWords(s.Snapshot.Lost) + "; "
	}
	words += "the snapshot is " + s.Snapshot.Path
	if s.Snapshot.Size > 0 {
		words += ", " + remediation.Measure(float64(s.Snapshot.Size), alerts.Bytes)
	}
	if s.Snapshot.SHA256 != "" {
		words += ", SHA-256 " + s.Snapshot.SHA256
	}
	return words
}

// WaysBack lead to what the step has lost, the one that destroys nothing first.
func (s StepView) WaysBack() []remediation.WayBack {
	if !s.LostData || s.Snapshot == nil {
		return nil
	}
	return remediation.WaysBack(s.Snapshot.Path, s.Snapshot.DSNFile, s.Snapshot.Database, s.Snapshot.Lost)
}

// lostOf is what a step is known to have lost, by the entry of its outcome.
func lostOf(e audit.Entry) (all []remediation.Lost) {
	after, _ := e.Detail["after"].(map[string]any)
	list, _ := after["lost"].([]any)
	for _, one := range list {
		m, _ := one.(map[string]any)
		text := func(key string) string { s, _ := m[key].(string); return s }
		rows, _ := decimalOf(m["rows"])
		all = append(all, remediation.Lost{
			What: remediation.LostWhat(text("what")), Schema: text("schema"), Table: text("table"), Column: text("column"), Rows: int64(rows),
		})
	}
	return all
}

// Next is what comes next, and when at the earliest.
type Next struct {
	Step string     `json:"step"`
	At   *time.Time `json:"at"`
	// What says in words what it waits for ("it runs ...", "it asks for its approval ..."),
	// Unless what would stop it.
	What   string   `json:"what"`
	Unless []string `json:"unless"`
}

// RolloutView is a rollout with its stage's criteria.
type RolloutView struct {
	remediation.Rollout
	RunsView
	BackOut
	PromotableAt *time.Time      `json:"promotable_at"`
	Criteria     []CriterionView `json:"criteria"`
	// Traffic is the stage's share of it, Next the stage after it.
	Traffic string `json:"traffic,omitempty"`
	Next    string `json:"next,omitempty"`
	// Stages are the playbook's, in their order.
	Stages []string `json:"stages,omitempty"`
	// Gates are those of the next stage or, in the last one, of the rollout's end.
	Gates []remediation.GateResult `json:"gates,omitempty"`
	// Timeline is the playbook's, with its dates since the start.
	Timeline []TimelineDay `json:"timeline,omitempty"`
}

// BackOut is what an open incident does to a rollout.
type BackOut struct {
	// Incident is the open one.
	Incident string `json:"incident,omitempty"`
	// BackingOut says that a step of the open incident has changed its target, so that the
	// release does not run any more as the stage says.
	BackingOut bool `json:"backing_out,omitempty"`
}

// BackOutOf is what an incident does, which may be nil.
func BackOutOf(open *remediation.Incident) BackOut {
	if open == nil {
		return BackOut{}
	}
	return BackOut{open.ID, open.Changed()}
}

// StateWords are the state of a rollout that this is done to: "active", "being rolled back
// by inc-2", "rolled back".
func (o BackOut) StateWords(r remediation.Rollout) string {
	if o.BackingOut {
		return "being rolled back by " + o.Incident
	}
	return strings.ReplaceAll(r.State, "_", " ")
}

// TimelineDay is one day of the playbook's timeline.
type TimelineDay struct {
	Day string `json:"day"`
	// Date is "" before the start.
	Date     string `json:"date,omitempty"`
	Activity string `json:"activity"`
	Owner    string `json:"owner"`
}

// CriterionView is one success criterion of the present stage, as observed.
type CriterionView struct {
	Name      string   `json:"name"`
	Value     *float64 `json:"value"`
	Threshold float64  `json:"threshold"`
	OK        bool     `json:"ok"`
	// Unit is the indicator's, "" where Name is none's.
	Unit alerts.Unit `json:"unit,omitempty"`
	// Bound tells on which side of the threshold the value must be: above or below.
	Bound string `json:"bound,omitempty"`
	// Over is how long the stage has lasted, where the value is the one over all of it,
	// which is worse than the one over the criterion's own window.
	Over string `json:"over,omitempty"`
}

// RestoreRequest asks to put an incident's targets back as they were before its steps.
type RestoreRequest struct {
	Actor, Reason string
	// Force restores even if the breach continues or data was lost.
	Force bool
}

// Verb is a change that a person makes to an incident.
type Verb string

// The verbs of POST /api/v1/incidents/{id}/{verb}; restore has a method of its own.
const (
	Approve Verb = "approve"
	Deny    Verb = "deny"
	Claim   Verb = "claim"
	Release Verb = "release"
	Close   Verb = "close"
)

// NonNil makes empty lists of those that are missing: no client need expect null.
func NonNil(inc IncidentView) IncidentView {
	if inc.Triggers == nil {
		inc.Triggers = []TriggerView{}
	}
	if inc.Steps == nil {
		inc.Steps = []StepView{}
	}
	return inc
}

// SetUnits gives the triggers' numbers their units, and the steps what they can lose, from the plan that the incident opened with.
func (v *IncidentView) SetUnits(b *plan.Plan) {
	for i := range v.Triggers {
		t := &v.Triggers[i]
		t.Unit, t.Estimate = b.UnitOf(t.Trigger), b.EstimateOf(t.Trigger)
	}
	losses := lossesOf(b)
	for i := range v.Steps {
		s := &v.Steps[i]
		if s.Finished != nil || v.NeverRun(*s) || s.State == remediation.StepSkipped {
			continue
		}
		for _, l := range losses {
			if l.Action == s.Action && l.Target == s.Target {
				s.Loses = l.What
			}
		}
	}
}
