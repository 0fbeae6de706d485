package remediation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
)

// Accept commits a notification: what was received, what it opened, attached
// to or resolved, in one transaction. What follows from it is done later.
func (e *Engine) Accept(ctx context.Context, n Notification) (Accepted, error) {
	var a *accept
	err := e.store.Update(ctx, func(tx Tx) error {
		a = &accept{e: e, tx: tx, now: e.now(), changed: map[string]*Incident{}}
		return a.run(n)
	})
	if err != nil {
		return Accepted{}, fmt.Errorf("commit notification: %w", err)
	}
	if a.wake {
		e.wakeUp()
	}
	return Accepted{Accepted: len(n.Alerts), Duplicates: len(a.duplicates), Incidents: a.incidents}, nil
}

// accept is one notification on its way into the store.
type accept struct {
	e   *Engine
	tx  Tx
	now time.Time

	duplicates []any
	incidents  []string
	// changed holds the incidents to write at the end, open those looked up.
	changed map[string]*Incident
	open    map[incidentKey]*Incident
	read    map[string]*Incident
	wake    bool
}

// incidentKey: one open incident for each.
type incidentKey struct {
	service string
	drill   bool
}

func (a *accept) run(n Notification) error {
	a.incidents, a.open, a.read = []string{}, map[incidentKey]*Incident{}, map[string]*Incident{}
	if err := a.received(n); err != nil {
		return err
	}
	for _, al := range n.Alerts {
		if err := a.alert(al); err != nil {
			return fmt.Errorf("alert %s: %w", al.Fingerprint, err)
		}
	}
	for _, inc := range a.changed {
		if err := a.tx.PutIncident(inc); err != nil {
			return err
		}
	}
	if len(a.duplicates) == 0 {
		return nil
	}
	return a.e.append(a.tx, Entry{Kind: KindDuplicate, Actor: actorAlertmanager, Detail: map[string]any{"alerts": a.duplicates}})
}

// again takes alerts in that were received before, and belong elsewhere now.
func (a *accept) again(all []Alert) error {
	a.changed, a.open, a.read = map[string]*Incident{}, map[incidentKey]*Incident{}, map[string]*Incident{}
	for _, al := range all {
		if err := a.alert(al); err != nil {
			return fmt.Errorf("alert %s: %w", al.Fingerprint, err)
		}
	}
	for _, inc := range a.changed {
		if err := a.tx.PutIncident(inc); err != nil {
			return err
		}
	}
	return nil
}

// received is the notification's own entry; it names every alert of it.
func (a *accept) received(n Notification) error {
	rows := make([]any, len(n.Alerts))
	service := ""
	for i, al := range n.Alerts {
		rows[i] = map[string]any{"fingerprint": al.Fingerprint, "status": al.Status, "labels": pairs(al.Labels)}
		if s := al.Labels["service"]; i == 0 {
			service = s
		} else if s != service {
			service = ""
		}
	}
	d := map[string]any{"receiver": n.Receiver, "group_key": n.GroupKey, "alerts": rows}
	if n.Truncated > 0 {
		d["truncated"] = int64(n.Truncated)
		d["why"] = "Alertmanager left alerts out of this notification: set max_alerts to 0 in its webhook receiver"
	}
	return a.e.append(a.tx, Entry{Kind: KindReceived, Actor: actorAlertmanager, Service: service, Detail: d})
}

// alert takes one alert in: what it names is known by fingerprint, and by what
// we hold open or closed ourselves.
func (a *accept) alert(al Alert) error {
	service, trigger := al.Labels["service"], al.Labels["trigger"]
	if al.Labels["alertname"] == "Watchdog" && trigger == "" {
		if al.Status == "firing" {
			return a.e.beat(a.tx, service)
		}
		return nil
	}
	if trigger == "" {
		return nil // nothing to remediate: accepted, recorded, and that is all
	}
	known, err := a.tx.Alert(al.Fingerprint)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	seen := err == nil
	switch al.Status {
	case "resolved":
		return a.resolved(al, known, seen)
	case "firing":
		return a.firing(al, known, seen)
	}
	return a.hold(al, false, fmt.Sprintf("alert status %q is neither firing nor resolved", al.Status))
}

func (a *accept) resolved(al Alert, known AlertState, seen bool) error {
	if !seen || !known.Active {
		a.duplicate(al, known.Incident, "a resolved of something that is not active")
		return nil
	}
	known.Active = false
	if err := a.tx.PutAlert(known); err != nil {
		return err
	}
	if known.Incident == "" {
		return nil
	}
	inc, err := a.incident(known.Incident)
	if err != nil {
		return err
	}
	if !seenIn(a.incidents, inc.ID) {
		a.incidents = append(a.incidents, inc.ID)
	}
	if inc.State != Settling && inc.State != Acting { // those have their own time
		a.poke(inc)
	}
	return a.e.append(a.tx, Entry{Kind: KindResolved, Actor: actorAlertmanager, Service: inc.Service, Incident: inc.ID,
		Detail: map[string]any{"fingerprint": al.Fingerprint, "trigger": known.Trigger}})
}

func (a *accept) firing(al Alert, known AlertState, seen bool) error {
	service, name := al.Labels["service"], al.Labels["trigger"]
	if seen && known.Active {
		known.LastSeen = a.now
		if err := a.tx.PutAlert(known); err != nil {
			return err
		}
		if known.Incident != "" {
			repeat, err := a.repeats(al, known)
			if repeat || err != nil {
				return err
			}
		}
	}
	heldBefore := seen && known.Active && known.Incident == ""
	if service == "" {
		return a.hold(al, heldBefore, "the alert has no service label")
	}
	b := a.e.bookOf(service)
	if b == nil {
		return a.hold(al, heldBefore, fmt.Sprintf("no playbook for service %q is loaded", service))
	}
	inc, err := a.openIncident(b, al)
	if err != nil {
		return err
	}
	if inc != nil && inc.PlaybookHash != b.Hash {
		if b, err = a.e.bookFor(context.Background(), inc); err != nil {
			return err
		}
	}
	t := b.Trigger(name)
	if current := a.e.bookOf(service); t == nil && inc != nil && inc.State == Closed && current.Trigger(name) != nil {
		inc, b, t = nil, current, current.Trigger(name) // a trigger that came with a reload after the close
	}
	if t == nil {
		return a.hold(al, heldBefore, fmt.Sprintf("the playbook of %s has no trigger %q", service, name))
	}
	if t.Signal == "" {
		return a.attach(b, inc, al)
	}
	if seen && known.Active && known.Incident != "" {
		heldBefore = true // what was cleared fires until the rule knows of it
	}
	return a.signal(b, inc, al, t, heldBefore)
}

// signal attaches the alert of a signal, which a human has raised: an alert alone
// proves nothing. One that is raised again after its incident was closed is new trouble.
func (a *accept) signal(b *book, inc *Incident, al Alert, t *alerts.Trigger, heldBefore bool) error {
	raised, err := signalOf(a.tx, b.Service, t.Signal)
	if err != nil {
		return err
	}
	drill := al.Labels["drill"] == "true"
	switch {
	case drill:
	case raised == nil:
		return a.hold(al, heldBefore, fmt.Sprintf("signal %s is not raised: a person raises it, an alert cannot", t.Signal))
	case raised.Dismissed && (inc == nil || inc.State == Closed):
		return a.hold(al, heldBefore, fmt.Sprintf("the incident of signal %s was closed by hand: raise the signal again to begin anew", t.Signal))
	}
	if inc != nil && inc.State == Closed {
		inc = nil
	}
	if err := a.attach(b, inc, al); err != nil || drill {
		return err
	}
	inc = a.open[incidentKey{b.Service, false}]
	if inc.Restore != nil || inc.aborting() && slices.Contains(inc.Abort.Signals, t.Signal) {
		return nil
	}
	c := &change{e: a.e, b: b, tx: a.tx, inc: inc, now: a.now}
	if err := c.signalRaised(t, raised); err != nil {
		return err
	}
	a.poke(inc)
	return nil
}

// repeats records a firing alert that changes nothing: its incident is open,
// or was closed a short while ago without any sign that the breach had ended.
func (a *accept) repeats(al Alert, known AlertState) (bool, error) {
	inc, err := a.incident(known.Incident)
	if err != nil {
		return false, err
	}
	if inc.State != Closed {
		a.duplicate(al, inc.ID, "already attached and firing")
		return true, nil
	}
	b, err := a.e.bookFor(context.Background(), inc)
	if err != nil {
		return false, err
	}
	if inc.FalseSince == nil && a.now.Sub(*inc.Closed) <= time.Duration(b.Limits.ReopenWithin) {
		a.duplicate(al, inc.ID, "the incident is closed, and neither a resolved came nor was the expression false since")
		return true, nil
	}
	return false, nil
}

// openIncident returns the incident that an alert belongs to: the open one, or
// the one closed within reopen_within; nil where a new one is to be opened.
func (a *accept) openIncident(b *book, al Alert) (*Incident, error) {
	key := incidentKey{b.Service, al.Labels["drill"] == "true"}
	if inc, ok := a.open[key]; ok {
		return inc, nil
	}
	found, err := a.tx.Incidents(IncidentFilter{Service: key.service, Drill: &key.drill, Newest: true, Limit: 1})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	inc, err := a.incident(found[0].ID)
	if err != nil {
		return nil, err
	}
	if inc.State == Closed {
		if inc.Drill || inc.Restored != "" || a.now.Sub(*inc.Closed) > time.Duration(b.Limits.ReopenWithin) {
			return nil, nil
		}
		r, err := rolloutOf(a.tx, b.Service)
		if err != nil {
			return nil, err
		}
		if r.active() && r.Started != nil && r.Started.After(*inc.Closed) {
			return nil, nil // a new rollout, a new ladder
		}
		return inc, nil
	}
	a.open[key] = inc
	return inc, nil
}

// attach adds a firing alert to its incident, opening or reopening that first.
func (a *accept) attach(b *book, inc *Incident, al Alert) error {
	name := al.Labels["trigger"]
	kind := KindAttached
	switch {
	case inc == nil:
		var err error
		if inc, err = a.newIncident(b, al); err != nil {
			return err
		}
		kind = KindOpened
	case inc.State == Closed:
		inc.reopen(a.now)
		a.poke(inc)
		kind = KindReopened
	}
	known := inc.trigger(name) != nil
	if !known {
		x := b.expr.Triggers[name]
		inc.Triggers = append(inc.Triggers, TriggerState{Trigger: name, Fingerprint: al.Fingerprint, Threshold: x.Threshold, Above: x.Above, Signal: b.Trigger(name).Signal})
	}
	if inc.ID == "" {
		if err := a.tx.PutIncident(inc); err != nil { // gives the id
			return err
		}
	}
	a.open[incidentKey{inc.Service, inc.Drill}], a.read[inc.ID] = inc, inc
	if !seenIn(a.incidents, inc.ID) {
		a.incidents = append(a.incidents, inc.ID)
	}
	err := a.tx.PutAlert(AlertState{
		Fingerprint: al.Fingerprint, Incident: inc.ID, Service: inc.Service, Trigger: name, Active: true, LastSeen: a.now,
	})
	if err != nil {
		return err
	}
	en := Entry{Kind: kind, Actor: actorAlertmanager, Service: inc.Service, Incident: inc.ID, Detail: map[string]any{
		"trigger": name, "fingerprint": al.Fingerprint, "rollout": inc.Release,
	}}
	if kind == KindOpened {
		en.Detail["playbook"] = inc.PlaybookHash
	}
	if inc.Drill {
		en.Detail["drill"] = true
	}
	if err := a.e.append(a.tx, en); err != nil {
		return err
	}
	if kind == KindReopened {
		if err := (&change{e: a.e, b: b, tx: a.tx, inc: inc, now: a.now}).follow(PublicInvestigating); err != nil {
			return err
		}
	}
	if known {
		return nil
	}
	added, err := b.addPlan(inc, b.Trigger(name).Plan)
	if err != nil {
		return err
	}
	switch inc.State {
	case Settling:
		if last := inc.lastRun(); last != nil && inc.SettleFrom != nil {
			until := inc.SettleFrom.Add(b.settleTime(inc, last))
			inc.SettleUntil = &until
		}
	case Waiting, Recovered:
		a.poke(inc)
	case Exhausted:
		// Somebody must hear of it once more, and a new step may help.
		inc.Paged = nil
		if len(added) > 0 {
			inc.State, inc.Why, inc.Since = Confirming, "", a.now
		}
		a.poke(inc)
	}
	a.changed[inc.ID] = inc
	if len(added) == 0 {
		return nil
	}
	return a.e.append(a.tx, Entry{Kind: KindPlanned, Actor: actorEngine, Service: inc.Service, Incident: inc.ID, Detail: map[string]any{
		"trigger": name, "plan": b.Trigger(name).Plan, "steps": anys(added), "playbook": inc.PlaybookHash,
	}})
}

func (a *accept) newIncident(b *book, al Alert) (*Incident, error) {
	release := al.Labels["rollout"]
	if release == "" {
		release = b.Release.Version
	}
	rollout, err := rolloutOf(a.tx, b.Service)
	if err != nil {
		return nil, err
	}
	a.wake = true
	return &Incident{
		Service: b.Service, Drill: al.Labels["drill"] == "true", Release: release, PlaybookHash: b.Hash,
		State: Confirming, Since: a.now, Opened: a.now, Wake: a.now,
		RolloutActive: rollout.active() && rollout.Release == release,
	}, nil
}

// reopen puts a closed incident back to its place in the ladder.
func (inc *Incident) reopen(now time.Time) {
	inc.State, inc.Reason, inc.Why, inc.Until = Confirming, "", "", nil
	inc.Since, inc.Reopened, inc.Closed, inc.FalseSince, inc.SettleFrom = now, &now, nil, nil, nil
	inc.Review, inc.ByHand = true, false
	inc.unstuck()
	inc.resetPolls()
}

// incident returns one as this notification has left it so far.
func (a *accept) incident(id string) (*Incident, error) {
	if inc := a.changed[id]; inc != nil {
		return inc, nil
	}
	if inc := a.read[id]; inc != nil {
		return inc, nil
	}
	inc, err := a.tx.Incident(id)
	a.read[id] = inc
	return inc, err
}

// poke lets the engine look at an incident at once.
func (a *accept) poke(inc *Incident) {
	inc.Wake = a.now
	a.changed[inc.ID] = inc
	a.wake = true
}

// hold records an alert that names something to do that is not known; again
// is an alert that is held already, which changes nothing.
func (a *accept) hold(al Alert, again bool, why string) error {
	if again {
		a.duplicate(al, "", why)
		return nil
	}
	err := a.tx.PutAlert(AlertState{
		Fingerprint: al.Fingerprint, Service: al.Labels["service"], Trigger: al.Labels["trigger"], Active: true, LastSeen: a.now,
	})
	if err != nil {
		return err
	}
	a.tx.OnCommit(a.e.metrics.holds.WithLabelValues(string(HoldUnknownTrigger)).Inc)
	return a.e.append(a.tx, Entry{Kind: KindHeld, Actor: actorEngine, Service: al.Labels["service"], Detail: map[string]any{
		"reason": string(HoldUnknownTrigger), "why": why, "trigger": al.Labels["trigger"], "fingerprint": al.Fingerprint,
	}})
}

func (a *accept) duplicate(al Alert, incident, why string) {
	a.duplicates = append(a.duplicates, map[string]any{
		"fingerprint": al.Fingerprint, "status": al.Status, "incident": incident, "why": why,
	})
	if incident != "" && !seenIn(a.incidents, incident) {
		a.incidents = append(a.incidents, incident)
	}
}

func seenIn(ids []string, id string) bool { return slices.Contains(ids, id) }

// pairs writes labels the way the audit log holds them: sorted, and as values,
// since a label's name need not be ASCII.
func pairs(labels map[string]string) []any {
	names := make([]string, 0, len(labels))
	for n := range labels {
		names = append(names, n)
	}
	slices.Sort(names)
	out := make([]any, len(names))
	for i, n := range names {
		out[i] = []any{n, labels[n]}
	}
	return out
}

func anys(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
}
