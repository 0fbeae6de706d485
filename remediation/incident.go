package remediation

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
)

// State is where an incident is in its life.
type State string

// The states of an incident. Confirming is the first, Closed the last.
const (
	Confirming State = "confirming"
	Acting     State = "acting"
	Settling   State = "settling"
	Waiting    State = "waiting"
	Recovered  State = "recovered"
	Exhausted  State = "exhausted"
	Closed     State = "closed"
)

// States are all states of an incident, in the order of its life.
func States() []State {
	return []State{Confirming, Acting, Settling, Waiting, Recovered, Exhausted, Closed}
}

// Reason says why a step is held.
type Reason string

// The hold reasons.
const (
	HoldMode           Reason = "mode"
	HoldFrozen         Reason = "frozen"
	HoldClaimed        Reason = "claimed"
	HoldSilenced       Reason = "silenced"
	HoldNoRollout      Reason = "no_rollout"
	HoldUnconfirmed    Reason = "unconfirmed"
	HoldNoData         Reason = "no_data"
	HoldApproval       Reason = "approval"
	HoldRateLimit      Reason = "rate_limit"
	HoldBlastRadius    Reason = "blast_radius"
	HoldCooldown       Reason = "cooldown"
	HoldBreaker        Reason = "breaker"
	HoldTarget         Reason = "target"
	HoldUnknownTrigger Reason = "unknown_trigger"
	HoldStepFailed     Reason = "step_failed"
	HoldReplicas       Reason = "replicas"
)

// Reasons are all hold reasons.
func Reasons() []Reason {
	return []Reason{
		HoldMode, HoldFrozen, HoldClaimed, HoldSilenced, HoldNoRollout, HoldUnconfirmed, HoldNoData, HoldApproval,
		HoldRateLimit, HoldBlastRadius, HoldCooldown, HoldBreaker, HoldTarget, HoldUnknownTrigger, HoldStepFailed, HoldReplicas,
	}
}

// StepState is where a step of an incident's plan is.
type StepState string

// The states of a step. Pending and StepWaiting may still run; Intent is
// running; all others are final, but for Failed, Undone and InDoubt, which a
// claim and release make pending again.
const (
	StepPending  StepState = "pending"
	StepWaiting  StepState = "waiting"
	StepIntent   StepState = "intent"
	StepDone     StepState = "done"
	StepNoChange StepState = "no_change"
	StepFailed   StepState = "failed"
	StepUndone   StepState = "undone"
	StepInDoubt  StepState = "in_doubt"
	StepSkipped  StepState = "skipped"
)

// StepStates are all states of a step.
func StepStates() []StepState {
	return []StepState{StepPending, StepWaiting, StepIntent, StepDone, StepNoChange, StepFailed, StepUndone, StepInDoubt, StepSkipped}
}

// Incident is one service's problem, from its first alert to its close: a row of the
// store, changed only inside a transaction.
type Incident struct {
	ID      string `json:"id"`
	Service string `json:"service"`
	// Release is the one that was being rolled out when the incident opened, or
	// the playbook's.
	Release string `json:"release"`
	Drill   bool   `json:"drill"`
	// PlaybookHash is the playbook this incident was opened with; a reload
	// concerns later incidents only.
	PlaybookHash string `json:"playbook_hash"`

	State  State      `json:"state"`
	Reason Reason     `json:"reason,omitempty"`
	Why    string     `json:"why,omitempty"`
	Until  *time.Time `json:"until,omitempty"`
	// Since is when the state was entered.
	Since time.Time `json:"since"`

	Opened time.Time `json:"opened"`
	// Reopened is when it was reopened last, nil where it never was.
	Reopened  *time.Time `json:"reopened,omitempty"`
	Closed    *time.Time `json:"closed,omitempty"`
	ClaimedBy string     `json:"claimed_by,omitempty"`

	// RolloutActive tells that the incident's release was being rolled out when
	// it opened: its right to disruptive steps, which a reopening keeps.
	RolloutActive bool `json:"rollout_active,omitempty"`
	// Ran tells that a step of production has had its outcome: from then on the
	// recovery expressions decide.
	Ran bool `json:"ran,omitempty"`
	// Intended tells that a first intent was written: the reaction is measured.
	Intended bool `json:"intended,omitempty"`
	// SettleFrom is t0 of lifecycle's settling; zero outside of it.
	SettleFrom *time.Time `json:"settle_from,omitempty"`
	// SettlePolls counts the polls since then, or since polls came again after a gap;
	// SettleMore those since the settle time's end that left it open whether the step helped.
	SettlePolls int `json:"settle_polls,omitempty"`
	SettleMore  int `json:"settle_more,omitempty"`
	// SettleUntil is when a breach that goes on lets the next step run.
	SettleUntil *time.Time `json:"settle_until,omitempty"`
	// FalseSince is since when no trigger's expression has been seen true; for
	// a closed incident, when one look after the close found all of them false.
	FalseSince *time.Time `json:"false_since,omitempty"`
	// BlindSince is since when a recovered incident cannot be watched.
	BlindSince *time.Time `json:"blind_since,omitempty"`
	// Stuck is since when the plan cannot go on by itself; Called tells that a
	// human was called because of that.
	Stuck  *time.Time `json:"stuck,omitempty"`
	Called bool       `json:"called,omitempty"`
	// CallAt is when a human is called if the plan is stuck until then; nil where nobody is.
	CallAt *time.Time `json:"call_at,omitempty"`
	// Review: before the next step runs, those that ran are looked at again.
	Review bool `json:"review,omitempty"`
	// ByHand: a person closed it, without knowing that the breach was over.
	ByHand bool `json:"by_hand,omitempty"`
	// Polled is when a poll was last counted: two of one sample are one.
	Polled time.Time `json:"polled"`
	// LastHeld, LastHeldGate and LastHeldStep are the hold that was written last:
	// it is not written again until something else has happened.
	LastHeld     Reason `json:"last_held,omitempty"`
	LastHeldGate string `json:"last_held_gate,omitempty"`
	LastHeldStep string `json:"last_held_step,omitempty"`
	// Restore is the restoring under way, nil where none is; Restored is who
	// restored the incident, once that is done.
	Restore  *Restore `json:"restore,omitempty"`
	Restored string   `json:"restored,omitempty"`
	// Abort is a commander's order to roll the release back, nil where none was given.
	Abort *Abort `json:"abort,omitempty"`
	// RolledBack is the rollout as it was before this incident's close ended it.
	RolledBack *Rollout `json:"rolled_back,omitempty"`
	// Would is what the steps that are left would do if backout acted, one sentence
	// each: set while mode holds them.
	Would []string `json:"would,omitempty"`
	// Call is the call that it starts, nil where it is not grave enough for one.
	Call *CallView `json:"call,omitempty"`
	// Measured: since it closed, Prometheus was asked for each trigger's worst value.
	Measured bool `json:"measured,omitempty"`
	// Paged holds what has been paged for already, by reason.
	Paged []string `json:"paged,omitempty"`

	Triggers []TriggerState `json:"triggers"`
	Steps    []Step         `json:"steps"`

	// Wake is when the engine looks at the incident next; zero: never.
	Wake time.Time `json:"wake"`
	// Version counts the writes of this row; Put refuses a stale one.
	Version int64 `json:"version"`
}

// TriggerState is what an incident knows about one attached trigger.
type TriggerState struct {
	Trigger string `json:"trigger"`
	// Fingerprint is its first alert's: the alert's own row moves on to a later
	// incident when the alert fires again.
	Fingerprint string  `json:"fingerprint,omitempty"`
	Threshold   float64 `json:"threshold"`
	Above       bool    `json:"above"`
	// RecoveryThreshold is what the recovery value is compared with, where the
	// playbook gives it a bound of its own.
	RecoveryThreshold *float64 `json:"recovery_threshold,omitempty"`
	Signal            string   `json:"signal,omitempty"`
	// Confirmed: its own value was seen beyond the threshold while it counted.
	Confirmed bool `json:"confirmed,omitempty"`
	// Over: in the last poll it did not count, since it belongs to another stage and was
	// never confirmed in it.
	Over bool `json:"over,omitempty"`
	// Value is the last observed value, nil where there was none.
	Value *float64 `json:"value,omitempty"`
	// Observed is when Value was read. Unanswered: Prometheus did not answer since.
	Observed   time.Time `json:"observed,omitzero"`
	Unanswered bool      `json:"unanswered,omitempty"`
	// Worst is the worst value of its own expression that was seen while the incident was
	// open; a value of its recovery expression, over another window, is none of them.
	Worst *float64 `json:"worst,omitempty"`
	// Verdict is the last poll's; Breaching and Calm count how many polls
	// running were breaching, and how many were stopped or quiet.
	Verdict   Verdict `json:"verdict,omitempty"`
	Breaching int     `json:"breaching,omitempty"`
	Calm      int     `json:"calm,omitempty"`
}

// Step is one step of an incident's plan.
type Step struct {
	Number   int         `json:"number"`
	Action   string      `json:"action"`
	Target   string      `json:"target"`
	Risk     alerts.Risk `json:"risk"`
	State    StepState   `json:"state"`
	Started  *time.Time  `json:"started,omitempty"`
	Finished *time.Time  `json:"finished,omitempty"`
	// Try names the present try to the limits: its start in nanoseconds since 1970, by the
	// clock as it was then. 0: it is Started, as earlier versions had it.
	Try       int64            `json:"try,omitempty"`
	Plan      string           `json:"plan"`
	PlanIndex int              `json:"plan_index"`
	Settle    time.Duration    `json:"settle"`
	Timeout   time.Duration    `json:"timeout"`
	Approve   time.Duration    `json:"approve,omitempty"`
	OnFailure alerts.OnFailure `json:"on_failure"`
	// Approved is who said yes; ApprovalAsked since when the question stands,
	// ApprovalPlan the plan it was asked of: a plan that grew asks again.
	Approved      string     `json:"approved,omitempty"`
	ApprovalAsked *time.Time `json:"approval_asked,omitempty"`
	ApprovalPlan  string     `json:"approval_plan,omitempty"`
	// Over are those who let it run over a limit.
	Over     []Over          `json:"over,omitempty"`
	Before   json.RawMessage `json:"before,omitempty"`
	Verified bool            `json:"verified,omitempty"`
	// Left: the step is to run again, and its target may be as an earlier try left it.
	Left bool `json:"left,omitempty"`
	// Tells: the step only tells people something, and changes no target.
	Tells bool `json:"tells,omitempty"`
	// Doubts counts tries that ended in doubt and left the target untouched.
	Doubts int `json:"doubts,omitempty"`
	// Epoch is that of the lease under which its last intent was written, 0 for none.
	Epoch int64 `json:"epoch,omitempty"`
	// Awaits is that of the lease under which it was written that what an earlier holder
	// sent may still arrive.
	Awaits  int64  `json:"awaits,omitempty"`
	Undoing bool   `json:"undoing,omitempty"`
	Error   string `json:"error,omitempty"`
}

// AnsweredFalse reports whether all that the incident is about was asked of
// Prometheus and is false: an alert alone, which anybody may have posted, must not
// stop a rollout. No step has run for it.
func (inc *Incident) AnsweredFalse() bool {
	if inc.State != Waiting || inc.Reason != HoldUnconfirmed || inc.Ran || inc.Intended || inc.Restore != nil || inc.Abort != nil {
		return false
	}
	return !slices.ContainsFunc(inc.Triggers, func(t TriggerState) bool {
		return t.Signal != "" || t.Value == nil || t.Beyond(*t.Value)
	})
}

// Restore is what a commander asked for: the steps' targets as they were before.
type Restore struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Began  time.Time `json:"began"`
	Force  bool      `json:"force,omitempty"`
	// Active are the fingerprints of alerts that were firing then: what fires
	// later is new trouble.
	Active []string `json:"active,omitempty"`
}

// ID is the step's name in the API and the audit log, such as "1-flag_off".
func (s *Step) ID() string { return fmt.Sprintf("%d-%s", s.Number, s.Action) }

// Alert is one alert as Alertmanager sent it.
type Alert struct {
	Status      string            `json:"status"` // "firing" or "resolved"
	Fingerprint string            `json:"fingerprint"`
	Labels      map[string]string `json:"labels"`
}

// Notification is one POST of Alertmanager, decoded.
type Notification struct {
	Receiver  string
	GroupKey  string
	Truncated uint64
	Alerts    []Alert
	// Part counts from 1 to Parts where a large notification was divided.
	Part, Parts int
}

const (
	// partBytes and partAlerts bound what one transaction takes in, and with it
	// the size of an audit entry.
	partBytes  = 512 << 10
	partAlerts = 2000
)

// Split divides a large notification.
func (n Notification) Split() []Notification {
	var out []Notification
	size, from := 0, 0
	for i, al := range n.Alerts {
		one := 128
		for name, value := range al.Labels {
			one += len(name) + len(value) + 8
		}
		if i > from && (size+one > partBytes || i-from == partAlerts) {
			out = append(out, n.part(from, i))
			size, from = 0, i
		}
		size += one
	}
	out = append(out, n.part(from, len(n.Alerts)))
	for i := range out {
		out[i].Part, out[i].Parts = i+1, len(out)
	}
	return out
}

func (n Notification) part(from, to int) Notification {
	n.Alerts = n.Alerts[from:to]
	return n
}

// Accepted is the answer to a notification.
type Accepted struct {
	Accepted   int      `json:"accepted"`
	Duplicates int      `json:"duplicates"`
	Incidents  []string `json:"incidents"`
}

// AlertState is what the store keeps of an alert that named a trigger.
type AlertState struct {
	Fingerprint string
	// Incident is the id the alert is attached to, "" where it is held
	// (unknown_trigger).
	Incident string
	Service  string
	Trigger  string
	Active   bool
	// LastSeen is when the alert was last received firing.
	LastSeen time.Time
}

// Freeze blocks steps (scope all) or promotions of one service, or of every service if
// Service is "".
type Freeze struct {
	Service string     `json:"service"`
	Scope   string     `json:"scope"`
	Until   *time.Time `json:"until"`
	By      string     `json:"by"`
	Reason  string     `json:"reason"`
	Since   time.Time  `json:"since"`
}

// Rollout is a service's rollout: state none, active, soaking, done,
// rolled_back or aborted, with Held next to it.
type Rollout struct {
	Service  string `json:"service"`
	Release  string `json:"release"`
	Previous string `json:"previous"`
	// Playbook is the hash of the playbook that the release is rolled out by.
	Playbook   string     `json:"playbook,omitempty"`
	State      string     `json:"state"`
	Stage      string     `json:"stage"`
	Held       bool       `json:"held"`
	Started    *time.Time `json:"started"`
	StageSince *time.Time `json:"stage_since"`
	// Auto: it is promoted by itself as soon as nothing is missing.
	Auto bool `json:"auto,omitempty"`
	// Missing is what held such a promotion when that was written last.
	Missing string `json:"missing,omitempty"`
	// Promotion is the change of stage that is in progress, nil where none is.
	Promotion *Promotion `json:"promotion,omitempty"`
}

// Effect is one intent that changed, or may have changed, a target: what the
// limits count.
type Effect struct {
	Time     time.Time
	Service  string
	Action   string
	Target   string
	Incident string
	Step     string
	// Outcome is an Effect constant.
	Outcome EffectOutcome
}

// EffectOutcome is the result of an effect.
type EffectOutcome string

// The outcomes. Limits count all but Untouched and Released; the breaker
// counts Failed until a Done or a Released (a person's release) ends the row.
const (
	EffectRunning   EffectOutcome = ""
	EffectDone      EffectOutcome = "done"
	EffectFailed    EffectOutcome = "failed"
	EffectUntouched EffectOutcome = "untouched"
	EffectReleased  EffectOutcome = "released"
)

// Beat is when a service's watchdog was last heard, and whether Prometheus answers.
type Beat struct {
	Service string
	Last    time.Time
	// Heard: an alert came. Until then Last is when backout first started with the service.
	Heard bool
	// Lost: it is in the audit log that the watchdog stays away.
	Lost bool
	// Away is since when Prometheus does not answer, once that is in the audit log;
	// zero where it does.
	Away time.Time
}

// IsBeat reports whether an alert is a watchdog that beats.
func (al Alert) IsBeat() bool {
	return al.Labels["alertname"] == "Watchdog" && al.Labels["trigger"] == "" && al.Status == "firing"
}

// Drill reports whether an alert is an exercise.
func (al Alert) Drill() bool { return al.Labels["drill"] == "true" }

// Reopen puts a closed incident back to its place in the plan.
func (inc *Incident) Reopen(now time.Time) {
	inc.State, inc.Reason, inc.Why, inc.Until = Confirming, "", "", nil
	inc.Since, inc.Reopened, inc.Closed, inc.FalseSince, inc.SettleFrom = now, &now, nil, nil, nil
	inc.Review, inc.ByHand, inc.Measured = true, false, false
	inc.Unstuck()
	inc.ResetPolls()
}

// See takes a value of the trigger's own expression into Worst.
func (t *TriggerState) See(value float64) {
	if t.Worst == nil || t.Outside(value, *t.Worst) {
		t.Worst = &value
	}
}

// Name is the trigger's name, "" for none.
func (t *TriggerState) Name() string {
	if t == nil {
		return ""
	}
	return t.Trigger
}

// Operation names one step of one incident for good; a fresh store that counts
// incidents from 1 again gets other names.
func (inc *Incident) Operation(s *Step) string {
	return fmt.Sprintf("%s/%s@%d", inc.ID, s.ID(), inc.Opened.Unix())
}

// Fired is when the alert that is acted on now was accepted.
func (inc *Incident) Fired() time.Time {
	if inc.Reopened != nil {
		return *inc.Reopened
	}
	return inc.Opened
}

// Attempt names one try of a step, so that a second try does not hide the
// first from the limits.
func (s *Step) Attempt() string {
	return fmt.Sprintf("%s@%d", s.ID(), cmp.Or(s.Try, s.Started.UnixNano()))
}

// Again makes a step pending that ran; left tells that its target may be as it left it.
func (s *Step) Again(left bool) {
	s.State, s.Error, s.Verified, s.Undoing, s.Doubts, s.Left = StepPending, "", false, false, 0, left
}

// Begin starts a try.
func (s *Step) Begin(now time.Time) {
	s.State, s.Started, s.Finished, s.Error, s.Try, s.Left = StepIntent, &now, nil, "", now.UnixNano(), false
}

// VoidApprovals discards requests and approvals, those over a limit too: the wait that
// asked is over.
func (inc *Incident) VoidApprovals() {
	inc.VoidRiskApprovals()
	for i := range inc.Steps {
		inc.Steps[i].Over = nil
	}
}

// Question names the request for the step's approval that waits for an answer, "" if none
// does.
func (s *Step) Question() string {
	if s.ApprovalAsked == nil || s.Approved != "" {
		return ""
	}
	return s.ApprovalAsked.UTC().Format(time.RFC3339Nano)
}

// VoidRiskApprovals discards requests and approvals of a step's risk, and keeps those over
// a limit.
func (inc *Incident) VoidRiskApprovals() {
	for i := range inc.Steps {
		s := &inc.Steps[i]
		s.Approved, s.ApprovalAsked, s.ApprovalPlan = "", nil, ""
	}
}

// Unstuck: the plan has gone on, or a person has come.
func (inc *Incident) Unstuck() { inc.Stuck, inc.Called, inc.CallAt, inc.Paged = nil, false, nil, nil }

// Shift moves the incident's moments. Those that people gave stay (a freeze's end).
func (inc *Incident) Shift(move func(*time.Time)) {
	for _, t := range []*time.Time{&inc.Since, inc.SettleFrom, inc.SettleUntil, inc.FalseSince, inc.BlindSince, inc.Stuck, inc.CallAt, &inc.Polled, &inc.Wake} {
		move(t)
	}
	if inc.Reason != HoldFrozen {
		move(inc.Until)
	}
	for i := range inc.Steps {
		s := &inc.Steps[i]
		move(s.ApprovalAsked)
		for i := range s.Over {
			move(&s.Over[i].Until)
		}
		move(s.Started)
		move(s.Finished)
	}
}

// Superseded reports whether a later rollout has the incident's targets.
func (inc *Incident) Superseded(r Rollout) bool {
	return inc.State == Closed && (r.Active() || r.Started != nil && r.Started.After(*inc.Closed))
}

// NeedsHuman returns why a person must come; nobody needs to be called to an
// incident that someone has claimed.
func (inc *Incident) NeedsHuman() map[string]bool {
	out := map[string]bool{}
	if inc.ClaimedBy != "" || inc.Drill {
		return out
	}
	for _, p := range inc.Paged {
		out[p] = true
	}
	if inc.State == Waiting {
		switch inc.Reason {
		case HoldApproval, HoldTarget, HoldBreaker, HoldStepFailed, HoldNoData:
			out[string(inc.Reason)] = true
		case HoldRateLimit, HoldBlastRadius:
			// The breach goes on until the limit's window ends, unless that is soon; a commander can
			// let the step run.
			if s, gate := inc.OverLimit(); s != nil && (gate == GateRealm || inc.Restore != nil || inc.Aborting() || inc.Until.Sub(inc.Since) > time.Minute) {
				out[string(inc.Reason)] = true
			}
		}
	}
	if inc.State == Exhausted {
		out[string(Exhausted)] = true
	}
	return out
}

// IsStuck is the step that waits for a person to claim and release the incident, or "".
func (inc *Incident) IsStuck() string {
	if inc.State == Closed || inc.FailedRestore() != nil {
		return ""
	}
	if s := inc.Unhandled(); s != nil {
		return s.ID()
	}
	for i := range inc.Steps {
		if s := &inc.Steps[i]; inc.Reason == HoldStepFailed && s.State == StepInDoubt {
			return s.ID()
		}
	}
	return ""
}

// Abort is a commander's order to roll a release back, by an abort or a signal. It takes the place of
// confirmation: the listed steps run in their order, each verified, without waiting
// whether it helped, and without asking Prometheus. What is lossy still needs its
// approval.
type Abort struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Began  time.Time `json:"began"`
	// Ended is when its last step was verified, or someone closed the incident.
	Ended *time.Time `json:"ended,omitempty"`
	// Signals are those that gave the order instead, nothing for an abort; Steps are
	// then the numbers of the steps that their plans list: no other runs on their word.
	Signals []string `json:"signals,omitempty"`
	Steps   []int    `json:"steps,omitempty"`
}

// Aborting reports whether an order to roll the release back is being carried out.
func (inc *Incident) Aborting() bool { return inc.Abort != nil && inc.Abort.Ended == nil }

// Lists reports whether a step runs on the order's word.
func (a *Abort) Lists(s *Step) bool { return len(a.Signals) == 0 || slices.Contains(a.Steps, s.Number) }

// NotPutBack reports a step that was done, and could not be put back: another restore tries
// it again, or a breach acts on it anew.
func (s *Step) NotPutBack() bool { return s.State == StepFailed && s.Verified }

// FailedRestore returns a step that could not be put back, or nil.
func (inc *Incident) FailedRestore() *Step {
	for i := range inc.Steps {
		if s := &inc.Steps[i]; s.NotPutBack() {
			return s
		}
	}
	return nil
}

// Broken returns a step that failed and could not be undone, or be restored: its target is
// a person's. nil: there is none.
func (inc *Incident) Broken() *Step {
	for i := range inc.Steps {
		if inc.Steps[i].State == StepFailed {
			return &inc.Steps[i]
		}
	}
	return nil
}

// ToRestore returns the step that is put back next: of those that changed their
// target, the one that ran last. What was only told, and what loses data, is not
// put back.
func (inc *Incident) ToRestore() *Step {
	var last *Step
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if !s.Restorable() {
			continue
		}
		if last == nil || s.Started.After(*last.Started) || s.Started.Equal(*last.Started) && s.Number > last.Number {
			last = s
		}
	}
	return last
}

// Restorable reports whether a restore would put the step's target back.
func (s *Step) Restorable() bool {
	return s.Before != nil && s.Risk != alerts.Lossy && s.Started != nil &&
		(s.State == StepInDoubt || s.Left || s.Verified && (s.State == StepDone || s.State == StepFailed) || s.State == StepIntent && s.Undoing)
}

// LossyRun returns a step that lost data, or may have, which nothing brings back; nil: there
// is none.
func (inc *Incident) LossyRun() *Step {
	for i := range inc.Steps {
		if s := &inc.Steps[i]; s.MayHaveLost() {
			return s
		}
	}
	return nil
}

// MayHaveLost reports whether the step lost data, or may have: its target is changed, or half
// changed, or unknown. A step that was refused, and one whose undo found nothing begun, lost
// nothing.
func (s *Step) MayHaveLost() bool {
	return s.Risk == alerts.Lossy && (s.State == StepDone || s.State == StepFailed || s.State == StepInDoubt || s.Left)
}

// PlanHash identifies the plan that an approval was requested for.
func (inc *Incident) PlanHash() string {
	plan := []byte(inc.ID + "\n" + inc.PlaybookHash + "\n")
	for i := range inc.Steps {
		plan = fmt.Appendln(plan, inc.Steps[i].ID(), inc.Steps[i].Target)
	}
	sum := sha256.Sum256(plan)
	return hex.EncodeToString(sum[:])
}
