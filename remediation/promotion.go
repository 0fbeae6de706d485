package remediation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/audit"
)

// FlagSetter is a kind of action that can give a flag any value. A promotion
// gives the master flag the next stage's share of the traffic through it.
type FlagSetter interface {
	ActionKind
	// SetFlag returns the action that gives a flag of the playbook a value, and
	// the target as Target names it. It looks at nothing outside.
	SetFlag(pb *alerts.Playbook, flag, value string) (target string, a Action, err error)
}

// Promotion is a rollout's way into a stage: the plan of one step that sets the
// traffic. It is part of the rollout's row from its intent to its end, so that a
// restart goes on with it, and whoever must wait for it can see it.
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

// A promotion has promotionForward to set the traffic and see it work, and
// promotionBack to undo that where it does not. A rollback waits for both at most.
const (
	promotionForward = 2 * time.Minute
	promotionBack    = time.Minute
)

// actionFlagSet is the action's name in the audit log and the limits: no rollback
// waits for the cooldown of what led forward.
const actionFlagSet = "flag_set"

// step is the promotion's name in the audit log, such as "promote-beta".
func (p *Promotion) step() string {
	if p.Was != nil {
		return "start-" + p.To
	}
	return "promote-" + p.To
}

// setter returns the action that a promotion runs.
func (b *book) setter(flag, value string) (target string, a Action, err error) {
	for _, k := range b.kinds {
		if s, ok := k.(FlagSetter); ok {
			return s.SetFlag(b.Playbook, flag, value)
		}
	}
	return "", nil, errors.New("no kind of action here sets a flag")
}

// lookAtTraffic looks at what a promotion would change.
func (e *Engine) lookAtTraffic(ctx context.Context, b *book, flag, value, op string) (target string, look Look, err error) {
	target, action, err := b.setter(flag, value)
	if err != nil {
		return "", Look{}, err
	}
	e.meetTarget(target)
	err = e.limited(ctx, lookTimeout, func(ctx context.Context) (err error) {
		look, err = action.Look(ctx, op)
		return err
	})
	return target, look, err
}

// promoting is one transaction on a rollout that has a promotion.
type promoting struct {
	e   *Engine
	tx  Tx
	b   *book
	r   Rollout
	p   *Promotion
	now time.Time
}

// onPromotion runs fn on a service's promotion as it is now; nothing happens
// where it has ended meanwhile. What has happened is written even while the
// process is being stopped.
func (e *Engine) onPromotion(ctx context.Context, b *book, op string, fn func(c *promoting) error) error {
	return e.store.Update(context.WithoutCancel(ctx), func(tx Tx) error {
		r, err := rolloutOf(tx, b.Service)
		if err != nil || r.Promotion == nil || r.Promotion.Op != op {
			return err
		}
		c := &promoting{e: e, tx: tx, b: b, r: r, p: r.Promotion, now: e.now()}
		if err := fn(c); err != nil {
			return err
		}
		return tx.PutRollout(c.r)
	})
}

// audit adds an entry about the promotion.
func (c *promoting) audit(kind audit.Kind, actor string, detail map[string]any) error {
	detail["release"], detail["target"] = c.r.Release, c.p.Target
	return c.e.append(c.tx, audit.Entry{
		Kind: kind, Actor: actor, Service: c.r.Service, Step: c.p.step(), Action: actionFlagSet, Detail: detail,
	})
}

// effect records what the promotion did to its target, for the limits.
func (c *promoting) effect(at time.Time, outcome EffectOutcome) error {
	return c.tx.PutEffect(Effect{
		Time: at, Service: c.r.Service, Action: actionFlagSet, Target: c.p.Target, Incident: "rollout/" + c.r.Service, Step: c.p.Op, Outcome: outcome,
	})
}

// outcome records how the effect, or its undoing, came out; at is when the target
// was changed last, from which a warmup counts.
func (c *promoting) outcome(at time.Time, s StepState, effect EffectOutcome, detail map[string]any) error {
	if err := c.effect(at, effect); err != nil {
		return err
	}
	detail["outcome"] = string(s)
	c.tx.OnCommit(c.e.metrics.steps.WithLabelValues(actionFlagSet, string(s)).Inc)
	took := c.now.Sub(c.p.Started).Seconds()
	c.tx.OnCommit(func() { c.e.metrics.duration.WithLabelValues(actionFlagSet).Observe(took) })
	return c.audit(audit.KindOutcome, actorEngine, detail)
}

// arrive ends the promotion: the rollout is in its new stage.
func (c *promoting) arrive() error {
	c.r.Promotion, c.r.Missing = nil, ""
	if err := c.wakeIncidents(); err != nil || !c.r.active() {
		return err // it was ended meanwhile: the traffic is that incident's to set
	}
	c.r.Stage, c.r.StageSince = c.p.To, &c.now
	c.r.State = c.b.stateIn(c.p.To)
	return c.e.stageEntry(c.tx, c.r, c.p.By, map[string]any{"reason": c.p.Reason, "from": c.p.From, "traffic": c.p.Value})
}

// fall ends a promotion that did not come about. The rollout is held until a
// human has seen why; one that never began is as it was, unless what was set could
// not be taken back.
func (c *promoting) fall(s StepState, why string) error {
	c.r.Promotion = nil
	if err := c.wakeIncidents(); err != nil {
		return err
	}
	words := "%s came to nothing: %s"
	switch {
	case s == StepFailed:
		words = "%s failed, and what the traffic is now is not known: %s"
		if c.r.active() {
			c.r.Held = true
			if c.p.Was != nil { // users may be on the release: whoever backs it out must find it
				c.r.Stage, c.r.StageSince, c.r.State = c.p.To, &c.now, c.b.stateIn(c.p.To)
			}
		}
	case c.p.Was != nil && c.r.active():
		c.r = *c.p.Was
	case s != StepPending && c.r.active():
		c.r.Held = true
	}
	return c.e.stageEntry(c.tx, c.r, actorEngine, map[string]any{
		"promotion": string(s), "to": c.p.To, "why": fmt.Sprintf(words, c.p.step(), why),
	})
}

// wakeIncidents lets the incidents that wait for the promotion go on.
func (c *promoting) wakeIncidents() error {
	open, err := c.tx.Incidents(IncidentFilter{Service: c.r.Service, Open: true})
	if err != nil {
		return err
	}
	for _, inc := range open {
		if inc.State != Confirming && !inc.aborting() {
			continue
		}
		inc.Wake = c.now
		if err := c.tx.PutIncident(inc); err != nil {
			return err
		}
	}
	return nil
}

// stageEntry records how a rollout stands from now on.
func (e *Engine) stageEntry(tx Tx, r Rollout, actor string, more map[string]any) error {
	detail := map[string]any{"state": r.State, "stage": r.Stage, "release": r.Release, "previous": r.Previous}
	if r.Held {
		detail["held"] = true
	}
	for k, v := range more {
		detail[k] = v
	}
	return e.append(tx, audit.Entry{Kind: audit.KindStage, Actor: actor, Service: r.Service, Detail: detail})
}

// stateIn is a rollout's state in a stage: in the last one, with all of the
// traffic, it soaks.
func (b *book) stateIn(stage string) string {
	if s := b.Stage(stage); s != nil && b.nextStage(stage) == nil {
		if share, ok := s.Share(); ok && share >= 1 {
			return RolloutSoaking
		}
	}
	return RolloutActive
}

// nextStage returns the stage after the named one, the first after none, and nil
// after the last.
func (b *book) nextStage(stage string) *alerts.Stage {
	for i := range b.Stages {
		if stage == StageNone {
			return &b.Stages[i]
		}
		if b.Stages[i].Name == stage {
			stage = StageNone
		}
	}
	return nil
}

// promotionUntil is how long an incident of a service must wait for a promotion
// that has its intent; zero where there is none.
func (e *Engine) promotionUntil(ctx context.Context, service string) (until time.Time, err error) {
	err = e.store.View(ctx, func(tx Tx) error {
		r, err := rolloutOf(tx, service)
		if err == nil && r.Promotion != nil {
			until = r.Promotion.Until
		}
		return err
	})
	return until, err
}
