package incident

import (
	"context"
	"slices"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// planOfSignal is the playbook that knows a signal.
func (e *Responder) planOfSignal(service, name string) (*plan.Plan, error) {
	b, err := e.OnePlan(service)
	if err != nil {
		return nil, err
	}
	if known := remediation.SignalsOf(b.Playbook); !slices.Contains(known, name) {
		try := "in its playbook, a trigger with signal: " + name + " instead of an indicator"
		if len(known) > 0 {
			try = remediation.OneOf(name, known)
		}
		return nil, hint.Add(remediation.Refuse(remediation.Missing, "the playbook of %s has no signal %q", b.Service, name), "%s", try)
	}
	return b, nil
}

// RaiseSignal raises a signal of a playbook. A signal that is raised already stays as it was
// raised.
func (e *Responder) RaiseSignal(ctx context.Context, service, name, actor, reason string) (remediation.Signal, error) {
	if reason == "" {
		return remediation.Signal{}, remediation.Refuse(remediation.Invalid, "a reason is required")
	}
	b, err := e.planOfSignal(service, name)
	if err != nil {
		return remediation.Signal{}, err
	}
	var s remediation.Signal
	err = e.Store.Update(ctx, func(tx remediation.Tx) error {
		old, err := remediation.SignalOf(tx, b.Service, name)
		if err != nil {
			return err
		}
		if old != nil && !old.Dismissed {
			s = *old
			return nil
		}
		s = remediation.Signal{Service: b.Service, Name: name, By: actor, Reason: reason, Since: e.Now().UTC()}
		if err := tx.PutSignal(s); err != nil {
			return err
		}
		en := audit.Entry{Kind: audit.KindSignal, Actor: actor, Service: b.Service, Detail: map[string]any{
			"signal": name, "raised": true, "reason": reason,
		}}
		if en.Incident, err = e.raiseAgain(tx, &s); err != nil {
			return err
		}
		return e.Append(tx, en)
	})
	if err != nil {
		return remediation.Signal{}, err
	}
	e.WakeUp()
	if f := e.OwnSeries(ctx, "rollout_signal", b); f.Status != remediation.Pass {
		s.Warning = f.Evidence
		if f.Status == remediation.CannotTell {
			s.Warning = "cannot check whether its alert will arrive: " + f.Evidence
		}
		s.Warning = hint.Text(s.Warning, f.Next)
	}
	return s, nil
}

// raiseAgain gives an open incident back the order that was taken from it when its
// signal was cleared, and returns its id: its alert fires since before, so that no
// notification would say that anything is new. "": there is none, and an alert opens one.
func (e *Responder) raiseAgain(tx remediation.Tx, s *remediation.Signal) (string, error) {
	inc, err := remediation.OpenIncident(tx, s.Service)
	if err != nil || inc == nil || !inc.HasSignal(s.Name) || inc.Restore != nil {
		return "", err
	}
	b, err := e.readablePlan(tx, inc)
	if err != nil {
		return "", err
	}
	c := e.on(tx, b, inc, e.Now())
	for _, t := range inc.Triggers {
		if t.Signal != s.Name {
			continue
		}
		if err := c.signalRaised(b.Trigger(t.Trigger), s); err != nil {
			return "", err
		}
	}
	inc.Review = true
	for i := range inc.Steps { // what was cancelled, or denied, is asked anew
		if st := &inc.Steps[i]; st.State == remediation.StepSkipped && slices.Contains(inc.Abort.Steps, st.Number) {
			st.State, st.Finished = remediation.StepPending, nil
		}
	}
	inc.Wake = c.Now
	return inc.ID, tx.PutIncident(inc)
}

// ClearSignal clears a signal, and returns who raised it and when. It cancels the steps without an intent that
// were listed for the signal alone, and lets its incident close.
func (e *Responder) ClearSignal(ctx context.Context, service, name, actor, reason string) (remediation.Signal, error) {
	if reason == "" {
		return remediation.Signal{}, remediation.Refuse(remediation.Invalid, "a reason is required")
	}
	service, err := e.signalService(ctx, service, name)
	if err != nil {
		return remediation.Signal{}, err
	}
	err = e.Store.Update(ctx, func(tx remediation.Tx) error {
		old, err := remediation.SignalOf(tx, service, name)
		if err != nil {
			return err
		}
		if old == nil {
			return hint.Add(remediation.Refuse(remediation.Conflict, "signal %s of %s is not raised", name, service), "backout status, which lists those that are")
		}
		if err := tx.DeleteSignal(service, name); err != nil {
			return err
		}
		en := audit.Entry{Kind: audit.KindSignal, Actor: actor, Service: service, Detail: map[string]any{
			"signal": name, "raised": false, "reason": reason,
		}}
		inc, err := remediation.OpenIncident(tx, service)
		if err != nil {
			return err
		}
		if inc == nil || !inc.HasSignal(name) {
			return e.Append(tx, en)
		}
		ib, err := e.readablePlan(tx, inc)
		if err != nil {
			return err
		}
		cancelled, err := e.on(tx, ib, inc, e.Now()).signalCleared(name)
		if err != nil {
			return err
		}
		if en.Incident = inc.ID; len(cancelled) > 0 {
			en.Detail["cancelled"] = remediation.Anys(cancelled)
		}
		if err := e.Append(tx, en); err != nil {
			return err
		}
		return tx.PutIncident(inc)
	})
	if err != nil {
		return remediation.Signal{}, err
	}
	e.WakeUp()
	return remediation.Signal{Service: service, Name: name, By: actor, Reason: reason, Since: e.Now().UTC()}, nil
}

// signalService returns the service whose signal is to be cleared. One that is
// raised can be cleared though a reload took it out of the playbook.
func (e *Responder) signalService(ctx context.Context, service, name string) (string, error) {
	b, refused := e.planOfSignal(service, name)
	if refused == nil {
		return b.Service, nil
	}
	var raised []remediation.Signal
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		raised, err = tx.Signals()
		return err
	})
	if err != nil {
		return "", err
	}
	raised = slices.DeleteFunc(raised, func(s remediation.Signal) bool { return s.Name != name || service != "" && s.Service != service })
	if len(raised) == 1 {
		return raised[0].Service, nil
	}
	return "", refused
}

// signalRaised lets a person's signal take the place of confirmation, as an abort
// does: the steps of its plan run in their order.
func (c *change) signalRaised(t *alerts.Trigger, s *remediation.Signal) error {
	inc := c.Inc
	listed, err := c.Plan.Listed(inc, t.Plan)
	if err != nil {
		return err
	}
	switch {
	case !inc.Aborting():
		inc.Abort = &remediation.Abort{By: s.By, Reason: s.Reason, Began: c.Now, Signals: []string{s.Name}, Steps: listed}
	case len(inc.Abort.Signals) > 0: // an abort runs all that is listed, this plan too
		inc.Abort.Signals = append(inc.Abort.Signals, s.Name)
		for _, n := range listed {
			if !slices.Contains(inc.Abort.Steps, n) {
				inc.Abort.Steps = append(inc.Abort.Steps, n)
			}
		}
	}
	if inc.Running() == nil {
		inc.VoidApprovals()
		inc.SettleFrom, inc.SettleUntil, inc.LastHeld = nil, nil, ""
		inc.Unstuck()
		c.Enter(remediation.Acting, 0)
	}
	return nil
}

// signalCleared takes a signal's word back, and returns the steps that are cancelled
// with it.
func (c *change) signalCleared(name string) (cancelled []string, err error) {
	inc := c.Inc
	inc.Wake = c.Now
	if !inc.Aborting() || !slices.Contains(inc.Abort.Signals, name) {
		return nil, nil
	}
	inc.Abort.Signals = slices.DeleteFunc(inc.Abort.Signals, func(s string) bool { return s == name })
	var wanted []int
	for _, t := range inc.Triggers {
		if t.Signal != "" && !slices.Contains(inc.Abort.Signals, t.Signal) {
			continue
		}
		listed, err := c.Plan.Listed(inc, c.Plan.Trigger(t.Trigger).Plan)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, listed...)
	}
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.Open() && !slices.Contains(wanted, s.Number) {
			s.State, s.Finished = remediation.StepSkipped, &c.Now
			cancelled = append(cancelled, s.ID())
		}
	}
	inc.Abort.Steps = slices.DeleteFunc(inc.Abort.Steps, func(n int) bool { return !slices.Contains(wanted, n) })
	if len(inc.Abort.Signals) > 0 {
		return cancelled, nil
	}
	inc.Abort.Signals = []string{name} // of which it was
	inc.Abort.Ended = &c.Now
	inc.VoidApprovals()
	if inc.Running() == nil {
		inc.ResetPolls()
		c.Enter(remediation.Confirming, 0)
	}
	return cancelled, nil
}

// endSignals ends the order: every step was verified or is skipped. Other triggers
// of the incident still need their recovery.
func (c *change) endSignals() error {
	inc := c.Inc
	inc.Abort.Ended = &c.Now
	switch {
	case inc.OnlySignals() && inc.AllSkipped():
		return c.exhaust(noneRan)
	case inc.OnlySignals():
		return c.recoverSignals()
	case inc.LastRun() != nil:
		c.startSettling()
	default:
		c.Enter(remediation.Confirming, 0)
	}
	return nil
}

// noneRan is why a person is called where a signal's plan has done nothing.
const noneRan = "no step of the signal's plan ran: each was denied, or nobody answered in time"

// recoverSignals rests until the signal is cleared.
func (c *change) recoverSignals() error {
	why := "every step was verified or skipped; the incident closes once the signal is cleared"
	if err := c.Audit(audit.KindRecovered, remediation.ActorEngine, nil, map[string]any{"why": why}); err != nil {
		return err
	}
	if err := c.follow(remediation.PublicMonitoring); err != nil {
		return err
	}
	c.Inc.VoidApprovals()
	c.Inc.SettleFrom, c.Inc.SettleUntil, c.Inc.LastHeld = nil, nil, ""
	c.Inc.Unstuck()
	c.Enter(remediation.Recovered, c.Plan.Poll())
	return nil
}

// watchSignals closes an incident of nothing but signals once all are cleared. What is half
// done is a person's.
func (e *Responder) watchSignals(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	return e.change(ctx, b, inc, func(c *change) error {
		raised, err := c.raised()
		switch {
		case err != nil:
			return err
		case c.Inc.Broken() != nil:
			return c.holdFailed(c.Inc.Broken())
		case raised == nil:
			return c.close(remediation.ActorEngine, map[string]any{"reason": "cleared", "why": "its signals are cleared"})
		case c.Inc.AllSkipped() && (c.Inc.State != remediation.Exhausted || len(c.Inc.Paged) == 0): // for a trigger that attached too
			return c.exhaust(noneRan)
		case c.Inc.State != remediation.Recovered && c.Inc.State != remediation.Exhausted:
			return c.recoverSignals()
		}
		c.Inc.Wake = c.Now.Add(b.Poll())
		return nil
	})
}

// dismiss marks the raised signals of an incident that a person closes.
func (c *change) dismiss() error {
	for _, t := range c.Inc.Triggers {
		if t.Signal == "" {
			continue
		}
		s, err := remediation.SignalOf(c.Tx, c.Inc.Service, t.Signal)
		if err != nil {
			return err
		}
		if s == nil {
			continue
		}
		s.Dismissed = true
		if err := c.Tx.PutSignal(*s); err != nil {
			return err
		}
	}
	return nil
}

// raised returns a signal of the incident that is raised, or nil.
func (c *change) raised() (*remediation.Signal, error) {
	for _, t := range c.Inc.Triggers {
		if t.Signal == "" {
			continue
		}
		if s, err := remediation.SignalOf(c.Tx, c.Inc.Service, t.Signal); s != nil || err != nil {
			return s, err
		}
	}
	return nil, nil
}
