package remediation

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/locotoki/backout/alerts"
)

// StageNames are the names of a playbook's stages, in their order.
func StageNames(pb *alerts.Playbook) []string {
	out := make([]string, len(pb.Stages))
	for i, s := range pb.Stages {
		out[i] = s.Name
	}
	return out
}

// GateResult is one gate's answer, about a step or about a rollout's way forward. Gates
// are closed by default: the zero value is closed.
type GateResult struct {
	Gate string `json:"gate"`
	OK   bool   `json:"ok"`
	Why  string `json:"why"`
	// Hard gates hold whatever force is used.
	Hard bool `json:"firm,omitempty"`
	// Reason and Until are those of the hold that a closed gate puts on a step.
	Reason Reason     `json:"-"`
	Until  *time.Time `json:"-"`
}

// GateOpen is an open gate.
func GateOpen(gate, why string) GateResult { return GateResult{Gate: gate, OK: true, Why: why} }

// GateClosed is a closed gate; force opens it.
func GateClosed(gate, format string, args ...any) GateResult {
	return GateResult{Gate: gate, Why: fmt.Sprintf(format, args...)}
}

// RolloutStart asks for a rollout's start.
type RolloutStart struct {
	// Service may be "" where there is one playbook, Release for the playbook's,
	// Stage for the first one.
	Service, Release, Stage, Actor, Reason string
	// Auto: it is promoted by itself as soon as nothing is missing.
	Auto bool
}

// RolloutVerb is a change that a person makes to a rollout.
type RolloutVerb string

// The verbs of POST /api/v1/rollout/{verb}; start has a method of its own.
const (
	RolloutPromote RolloutVerb = "promote"
	RolloutHold    RolloutVerb = "hold"
	RolloutResume  RolloutVerb = "resume"
	RolloutAbort   RolloutVerb = "abort"
	RolloutFinish  RolloutVerb = "finish"
)

// RolloutChange asks for one of them. Force opens every gate of promote and finish
// that is not hard.
type RolloutChange struct {
	Service, Actor, Reason string
	Verb                   RolloutVerb
	Force                  bool
}

// FlagSetter is a kind of action that can give a flag any value. A promotion uses it to
// set the master flag to the next stage's traffic share.
type FlagSetter interface {
	ActionKind
	// SetFlag returns the action that gives a flag of the playbook a value, and
	// the target as Target names it. It looks at nothing outside.
	SetFlag(pb *alerts.Playbook, flag, value string) (target string, a Action, err error)
}

// Promotion is a rollout's way into a stage: the plan of one step that sets the
// traffic. It is part of the rollout's row from its intent to its end, so that a
// restart goes on with it, and callers who must wait for it can see it.
type Promotion struct {
	// From is the stage it leads out of, none for a start; To the one it leads to.
	From string `json:"from"`
	To   string `json:"to"`
	// Flag is given Value on Target.
	Flag   string `json:"flag"`
	Value  string `json:"value"`
	Target string `json:"target"`
	By     string `json:"by"`
	Reason string `json:"reason"`
	// Op names it to the action for good.
	Op      string    `json:"op"`
	Started time.Time `json:"started"`
	// Until is how long a rollback waits for it.
	Until time.Time `json:"until"`
	// Playbook is the hash of the playbook it was begun with.
	Playbook string          `json:"playbook"`
	Before   json.RawMessage `json:"before,omitempty"`
	// Was is the rollout before a start, to which a failed one goes back.
	Was *Rollout `json:"was,omitempty"`
	// Writer is the run of the process that wrote the intent. Where several share the store,
	// Begun says that a call to the target may have been made since, under the lease of
	// Epoch.
	Writer string `json:"writer,omitempty"`
	Begun  bool   `json:"begun,omitempty"`
	Epoch  int64  `json:"epoch,omitempty"`
	// Awaits is the lease under which it was written that what an earlier holder sent may
	// still arrive.
	Awaits int64 `json:"awaits,omitempty"`
	// Applied: the effect has had its outcome, and is being verified.
	Applied bool `json:"applied,omitempty"`
	// Undoing: it failed, with Error, and is being undone.
	Undoing bool   `json:"undoing,omitempty"`
	Error   string `json:"error,omitempty"`
	// Doubted: that its target cannot be looked at was written.
	Doubted bool `json:"doubted,omitempty"`
	// Wake is when the engine goes on with it.
	Wake time.Time `json:"wake"`
}

// ActionFlagSet is the action's name in the audit log and the limits: no rollback
// waits for the cooldown of what led forward.
const ActionFlagSet = "flag_set"

// Step is the promotion's name in the audit log, such as "promote-beta".
func (p *Promotion) Step() string {
	if p.Was != nil {
		return "start-" + p.To
	}
	return "promote-" + p.To
}

// The states of a rollout, and the stage of none.
const (
	RolloutNone       = "none"
	RolloutActive     = "active"
	RolloutSoaking    = "soaking"
	RolloutDone       = "done"
	RolloutRolledBack = "rolled_back"
	RolloutAborted    = "aborted"
	StageNone         = "none"
)

// Active reports whether a release is being rolled out, or soaks.
func (r Rollout) Active() bool { return r.State == RolloutActive || r.State == RolloutSoaking }
