package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// Accept commits a notification: what was received, what it opened, attached
// to or resolved. It does so in one transaction, or in several where the
// notification is large, so that no other waits long. What follows from it is
// done later.
func (e *Responder) Accept(ctx context.Context, n remediation.Notification) (remediation.Accepted, error) {
	done := remediation.Accepted{Accepted: len(n.Alerts), Incidents: []string{}}
	for _, part := range n.Split() {
		a, err := e.acceptPart(ctx, part)
		if err != nil {
			return remediation.Accepted{}, fmt.Errorf("commit notification: %w", err)
		}
		done.Duplicates += len(a.duplicates)
		for _, id := range a.incidents {
			if !slices.Contains(done.Incidents, id) {
				done.Incidents = append(done.Incidents, id)
			}
		}
		if a.wake {
			e.WakeUp()
		}
	}
	e.NoteAccepted()
	return done, nil
}

// acceptPart commits a part of a notification. An alert that cannot be handled
// is held and audited: it does not hold up the alerts of other services.
func (e *Responder) acceptPart(ctx context.Context, n remediation.Notification) (*accept, error) {
	refused := map[string]error{} // by service
	for retried := false; ; {
		var a *accept
		err := remediation.UpdateAlerts(ctx, e.Store, fingerprints(n.Alerts), func(tx remediation.Tx) error {
			a = newAccept(e, tx, refused)
			return a.run(n)
		})
		var bad *alertError
		switch {
		case err == nil:
			return a, nil
		case !errors.As(err, &bad) || ctx.Err() != nil || refused[bad.service] != nil || len(refused) == maxRefused:
			return nil, err
		case !retried:
			retried = true // a passing fault of the store is not the alert's
		default:
			e.Log.Error("alert held: cannot handle it", "service", bad.service, "err", bad)
			refused[bad.service] = bad.cause
		}
	}
}

// maxRefused bounds how often one notification is tried again.
const maxRefused = 20

// alertError is the failure of one alert.
type alertError struct {
	service, fingerprint string
	cause                error
}

// Error implements error.
func (e *alertError) Error() string { return fmt.Sprintf("alert %s: %v", e.fingerprint, e.cause) }

func (e *alertError) Unwrap() error { return e.cause }

// accept is one notification on its way into the store.
type accept struct {
	e   *Responder
	tx  remediation.Tx
	now time.Time
	// refused are the services whose alerts could not be handled, and why.
	refused map[string]error

	duplicates []any
	incidents  []string
	// changed holds the incidents to write at the end, open those looked up.
	changed map[string]*remediation.Incident
	open    map[incidentKey]*remediation.Incident
	read    map[string]*remediation.Incident
	// rollouts are those looked up, by service.
	rollouts map[string]remediation.Rollout
	// unreadable are the playbooks that cannot be read, by hash; beaten the
	// services whose watchdog was noted.
	unreadable map[string]error
	beaten     map[string]bool
	wake       bool
}

func newAccept(e *Responder, tx remediation.Tx, refused map[string]error) *accept {
	return &accept{
		e: e, tx: tx, now: e.Now(), refused: refused, incidents: []string{}, changed: map[string]*remediation.Incident{},
		open: map[incidentKey]*remediation.Incident{}, read: map[string]*remediation.Incident{}, rollouts: map[string]remediation.Rollout{}, unreadable: map[string]error{}, beaten: map[string]bool{},
	}
}

// incidentKey: one open incident for each.
type incidentKey struct {
	service string
	drill   bool
}

func (a *accept) run(n remediation.Notification) error {
	if err := a.received(n); err != nil {
		return err
	}
	if err := a.takeIn(n.Alerts); err != nil || len(a.duplicates) == 0 {
		return err
	}
	return a.e.Append(a.tx, audit.Entry{Kind: audit.KindDuplicate, Actor: remediation.ActorAlertmanager, Detail: map[string]any{"alerts": a.duplicates}})
}

// takeIn takes alerts in, and writes the incidents that they changed.
func (a *accept) takeIn(all []remediation.Alert) error {
	for _, al := range all {
		service := al.Labels["service"]
		if cause := a.refused[service]; cause != nil {
			if err := a.refuse(al, cause); err != nil {
				return err
			}
			continue
		}
		if err := a.alert(al); err != nil {
			return &alertError{service, al.Fingerprint, err}
		}
	}
	for _, inc := range a.changed {
		if err := a.tx.PutIncident(inc); err != nil {
			return &alertError{inc.Service, "of incident " + inc.ID, err}
		}
	}
	return nil
}

// fingerprints are those of the alerts that takeIn looks up.
func fingerprints(all []remediation.Alert) []string {
	out := make([]string, 0, len(all))
	for _, al := range all {
		if !al.IsBeat() && al.Labels["trigger"] != "" {
			out = append(out, al.Fingerprint)
		}
	}
	return out
}

// refuse holds an alert that cannot be handled.
func (a *accept) refuse(al remediation.Alert, cause error) error {
	if al.IsBeat() {
		return nil
	}
	if al.Labels["trigger"] == "" {
		return nil
	}
	known, seen, err := a.known(al)
	if err != nil {
		return err
	}
	why := fmt.Sprintf("backout cannot handle the alert: %v", cause)
	if al.Status == "resolved" || seen && known.Incident != "" {
		a.duplicate(al, known.Incident, why)
		return nil
	}
	return a.hold(al, seen && known.Active, remediation.HoldUnknownTrigger, why)
}

// received is the notification's own entry; it names every alert of it. A
// notification of nothing but beats has none: only their loss and return are audited.
func (a *accept) received(n remediation.Notification) error {
	if len(n.Alerts) > 0 && n.Truncated == 0 && !slices.ContainsFunc(n.Alerts, func(al remediation.Alert) bool { return !al.IsBeat() }) {
		return nil
	}
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
		d["why"] = hint.Text("Alertmanager left alerts out of this notification", "max_alerts: 0 in its webhook receiver")
	}
	if n.Parts > 1 {
		d["part"], d["parts"] = int64(n.Part), int64(n.Parts)
	}
	return a.e.Append(a.tx, audit.Entry{Kind: audit.KindReceived, Actor: remediation.ActorAlertmanager, Service: service, Detail: d})
}

// alert takes one alert in: what it names is known by fingerprint, and by what
// we hold open or closed ourselves.
func (a *accept) alert(al remediation.Alert) error {
	if service := al.Labels["service"]; al.IsBeat() {
		if a.beaten[service] {
			return nil
		}
		a.beaten[service] = true
		return a.e.beat(a.tx, service)
	}
	if al.Labels["trigger"] == "" {
		return nil // nothing to remediate: accepted, recorded, and that is all
	}
	known, seen, err := a.known(al)
	if err != nil {
		return err
	}
	switch al.Status {
	case "resolved":
		return a.resolved(al, known, seen)
	case "firing":
		return a.firing(al, known, seen)
	}
	return a.hold(al, false, remediation.HoldUnknownTrigger, fmt.Sprintf("alert status %q is neither firing nor resolved", al.Status))
}

// known returns what is kept of an alert. A fingerprint is 64 bits, and can be
// made to collide: it counts only with the same service, trigger and drill.
func (a *accept) known(al remediation.Alert) (known remediation.AlertState, seen bool, err error) {
	known, err = a.tx.Alert(al.Fingerprint)
	if errors.Is(err, remediation.ErrNotFound) {
		return remediation.AlertState{}, false, nil
	}
	if err != nil {
		return remediation.AlertState{}, false, err
	}
	same := known.Service == al.Labels["service"] && known.Trigger == al.Labels["trigger"]
	if same && known.Incident != "" {
		inc, err := a.incident(known.Incident)
		if err != nil {
			return remediation.AlertState{}, false, err
		}
		same = inc.Drill == al.Drill()
	}
	if !same {
		return remediation.AlertState{}, false, nil
	}
	return known, true, nil
}

func (a *accept) resolved(al remediation.Alert, known remediation.AlertState, seen bool) error {
	if !seen || !known.Active {
		a.duplicate(al, known.Incident, "resolved, but the alert is not active")
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
	a.concerns(inc.ID)
	if inc.State != remediation.Settling && inc.State != remediation.Acting { // those have their own time
		a.poke(inc)
	}
	return a.e.Append(a.tx, audit.Entry{Kind: audit.KindResolved, Actor: remediation.ActorAlertmanager, Service: inc.Service, Incident: inc.ID,
		Detail: map[string]any{"fingerprint": al.Fingerprint, "trigger": known.Trigger}})
}

func (a *accept) firing(al remediation.Alert, known remediation.AlertState, seen bool) error {
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
	hold := func(reason remediation.Reason, format string, args ...any) error {
		return a.hold(al, heldBefore, reason, fmt.Sprintf(format, args...))
	}
	if service == "" {
		return hold(remediation.HoldUnknownTrigger, "the alert has no service label")
	}
	current := a.e.PlanOf(service)
	if current == nil {
		return hold(remediation.HoldUnknownTrigger, "no playbook for service %q is loaded", service)
	}
	inc, err := a.openIncident(current, al)
	if err != nil {
		return err
	}
	release, other, err := a.releaseOf(current, inc, al)
	if err != nil {
		return err
	}
	if other != "" {
		return hold(remediation.HoldNoRollout, "%s", other)
	}
	if inc != nil && inc.State == remediation.Closed && al.Labels["rollout"] != "" && al.Labels["rollout"] != inc.Release {
		inc = nil // it is about the release that came after
	}
	current, unreadable := a.planOf(current, release)
	if unreadable != nil && !isUnreadable(unreadable) {
		return unreadable
	}
	b := current
	if inc != nil {
		switch b, err = a.planFor(inc); {
		case err == nil:
		case !isUnreadable(err):
			return err
		case inc.State == remediation.Closed:
			inc, b = nil, current // it cannot continue: this is a new one
		default:
			return hold(remediation.HoldUnknownTrigger, "incident %s is open, and %v", inc.ID, err)
		}
	}
	if b == nil {
		return hold(remediation.HoldUnknownTrigger, "release %s of %s is being rolled out, and %v", release, service, unreadable)
	}
	t := b.Trigger(name)
	if t == nil && inc != nil && inc.State == remediation.Closed && current != nil && current.Trigger(name) != nil {
		inc, b, t = nil, current, current.Trigger(name) // a trigger that came with a reload after the close
	}
	if t == nil {
		return hold(remediation.HoldUnknownTrigger, "the playbook of %s has no trigger %q", service, name)
	}
	if t.Signal == "" {
		return a.attach(b, inc, al, release)
	}
	if seen && known.Active && known.Incident != "" {
		heldBefore = true // what was cleared fires until the rule knows of it
	}
	return a.signal(b, inc, al, t, release, heldBefore)
}

// releaseOf is the release that a new incident would be about: the one that is
// being rolled out, or the playbook's. The alert's label only says which of the
// two it means; other says why it means neither, nor the open incident's. A label is
// what the sender says: it must not decide about a service's rollback.
func (a *accept) releaseOf(b *plan.Plan, inc *remediation.Incident, al remediation.Alert) (release, other string, err error) {
	r, err := a.rollout(b.Service)
	if err != nil {
		return "", "", err
	}
	release = b.Release.Version
	if r.Active() {
		release = r.Release
	}
	switch label := al.Labels["rollout"]; {
	case label == "", label == release, al.Drill():
	case label == b.Release.Version:
		release = label
	case inc != nil && label == inc.Release:
	case r.Active():
		other = fmt.Sprintf("the alert is about release %q, and %s of %s is being rolled out", label, release, b.Service)
	default:
		other = hint.Text(fmt.Sprintf("the alert is about release %q, and the playbook of %s about %s", label, b.Service, release), "generate and load its rules again")
	}
	return release, other, nil
}

// planOf is the playbook that a new incident of a release opens with: that of its rollout,
// or the loaded one. It is asked once for each service of a notification where it cannot be read.
func (a *accept) planOf(loaded *plan.Plan, release string) (*plan.Plan, error) {
	r, err := a.rollout(loaded.Service)
	if err != nil || r.Release != release {
		return loaded, err
	}
	return a.once("rollout/"+loaded.Service, func() (*plan.Plan, error) { return a.e.RolloutPlan(a.tx, loaded, r) })
}

// planFor is Ledger.PlanIn, asked once for each playbook of a notification.
func (a *accept) planFor(inc *remediation.Incident) (*plan.Plan, error) {
	return a.once(inc.PlaybookHash, func() (*plan.Plan, error) { return a.e.PlanIn(a.tx, inc) })
}

// once keeps that a playbook cannot be read.
func (a *accept) once(key string, read func() (*plan.Plan, error)) (*plan.Plan, error) {
	if err := a.unreadable[key]; err != nil {
		return nil, err
	}
	b, err := read()
	if isUnreadable(err) { // else it passes, and is not the alert's
		a.unreadable[key] = err
	}
	return b, err
}

// signal attaches the alert of a signal, which a person has raised: an alert alone
// proves nothing. One that is raised again after its incident was closed is new trouble.
func (a *accept) signal(b *plan.Plan, inc *remediation.Incident, al remediation.Alert, t *alerts.Trigger, release string, heldBefore bool) error {
	raised, err := remediation.SignalOf(a.tx, b.Service, t.Signal)
	if err != nil {
		return err
	}
	drill := al.Drill()
	switch {
	case drill:
	case raised == nil:
		return a.hold(al, heldBefore, remediation.HoldUnknownTrigger, fmt.Sprintf("signal %s is not raised: only a person can raise it", t.Signal))
	case raised.Dismissed && (inc == nil || inc.State == remediation.Closed):
		return a.hold(al, heldBefore, remediation.HoldUnknownTrigger, hint.Text(fmt.Sprintf("the incident of signal %s was closed by hand", t.Signal), "raise the signal again"))
	}
	if inc != nil && inc.State == remediation.Closed {
		inc = nil
	}
	if err := a.attach(b, inc, al, release); err != nil || drill {
		return err
	}
	inc = a.open[incidentKey{b.Service, false}]
	if inc.Restore != nil || inc.Aborting() && slices.Contains(inc.Abort.Signals, t.Signal) {
		return nil
	}
	c := a.e.on(a.tx, b, inc, a.now)
	if err := c.signalRaised(t, raised); err != nil {
		return err
	}
	a.poke(inc)
	return nil
}

// repeats records a firing alert that changes nothing: its incident is open,
// or was closed a short while ago without any sign that the breach had ended.
func (a *accept) repeats(al remediation.Alert, known remediation.AlertState) (bool, error) {
	inc, err := a.incident(known.Incident)
	if err != nil {
		return false, err
	}
	if inc.State != remediation.Closed {
		a.duplicate(al, inc.ID, "already attached and firing")
		return true, nil
	}
	b, err := a.planFor(inc)
	switch {
	case isUnreadable(err):
		b = a.e.PlanOf(inc.Service) // how long it may be reopened, the present one says
	case err != nil:
		return false, err
	}
	if b == nil {
		return false, nil
	}
	if again, err := a.raisedSince(b, inc, al.Labels["trigger"]); again || err != nil {
		return false, err
	}
	if inc.FalseSince == nil && a.now.Sub(*inc.Closed) <= time.Duration(b.Limits.ReopenWithin) {
		a.duplicate(al, inc.ID, "the incident is closed, and since then the alert has not resolved and its expression has not been false")
		return true, nil
	}
	return false, nil
}

// raisedSince reports whether a person raised a trigger's signal after the incident was
// closed: its alert never stopped firing where that was before the next scrape.
func (a *accept) raisedSince(b *plan.Plan, inc *remediation.Incident, trigger string) (bool, error) {
	t := b.Trigger(trigger)
	if t == nil || t.Signal == "" {
		return false, nil
	}
	s, err := remediation.SignalOf(a.tx, inc.Service, t.Signal)
	return s != nil && !s.Dismissed && s.Since.After(*inc.Closed), err
}

// openIncident returns the incident that an alert belongs to: the open one, or
// the one closed within reopen_within; nil where a new one is to be opened.
func (a *accept) openIncident(b *plan.Plan, al remediation.Alert) (*remediation.Incident, error) {
	key := incidentKey{b.Service, al.Drill()}
	if inc, ok := a.open[key]; ok {
		return inc, nil
	}
	// The open one need not be the newest: an older one may be under restore.
	found, err := a.tx.Incidents(remediation.IncidentFilter{Service: key.service, Drill: &key.drill, Newest: true, Limit: 1})
	if err == nil && len(found) > 0 && found[0].State == remediation.Closed {
		var open []*remediation.Incident
		if open, err = a.tx.Incidents(remediation.IncidentFilter{Service: key.service, Drill: &key.drill, Open: true, Limit: 1}); len(open) > 0 {
			found = open
		}
	}
	if err != nil || len(found) == 0 {
		return nil, err
	}
	if id := found[0].ID; a.changed[id] == nil && a.read[id] == nil {
		a.read[id] = found[0]
	}
	inc, err := a.incident(found[0].ID)
	if err != nil {
		return nil, err
	}
	if inc.State == remediation.Closed {
		if inc.Drill || inc.Restored != "" || a.now.Sub(*inc.Closed) > time.Duration(b.Limits.ReopenWithin) {
			return nil, nil
		}
		r, err := a.rollout(b.Service)
		if err != nil {
			return nil, err
		}
		if r.Active() && r.Started != nil && r.Started.After(*inc.Closed) {
			return nil, nil // a new rollout, a new ladder
		}
		return inc, nil
	}
	a.open[key] = inc
	return inc, nil
}

// attach adds a firing alert to its incident, opening or reopening that first.
func (a *accept) attach(b *plan.Plan, inc *remediation.Incident, al remediation.Alert, release string) error {
	name := al.Labels["trigger"]
	kind := audit.KindAttached
	switch {
	case inc == nil:
		var err error
		if inc, err = a.newIncident(b, al, release); err != nil {
			return err
		}
		kind = audit.KindOpened
	case inc.State == remediation.Closed:
		inc.Reopen(a.now)
		a.poke(inc)
		kind = audit.KindReopened
	}
	known := inc.Trigger(name) != nil
	if !known {
		x := b.Expr.Triggers[name]
		st := remediation.TriggerState{Trigger: name, Fingerprint: al.Fingerprint, Threshold: x.Threshold, Above: x.Above, Signal: b.Trigger(name).Signal}
		if x.RecoveryThreshold != x.Threshold {
			st.RecoveryThreshold = &x.RecoveryThreshold
		}
		inc.Triggers = append(inc.Triggers, st)
		inc.Call = b.CallFor(inc)
	}
	if inc.ID == "" {
		if err := a.tx.PutIncident(inc); err != nil { // gives the id
			return err
		}
	}
	a.open[incidentKey{inc.Service, inc.Drill}], a.read[inc.ID] = inc, inc
	a.concerns(inc.ID)
	err := a.tx.PutAlert(remediation.AlertState{
		Fingerprint: al.Fingerprint, Incident: inc.ID, Service: inc.Service, Trigger: name, Active: true, LastSeen: a.now,
	})
	if err != nil {
		return err
	}
	en := audit.Entry{Kind: kind, Actor: remediation.ActorAlertmanager, Service: inc.Service, Incident: inc.ID, Detail: map[string]any{
		"trigger": name, "fingerprint": al.Fingerprint, "rollout": inc.Release,
	}}
	if kind == audit.KindOpened {
		en.Detail["playbook"] = inc.PlaybookHash
	}
	if inc.Drill {
		en.Detail["drill"] = true
	}
	if err := a.e.Append(a.tx, en); err != nil {
		return err
	}
	if kind == audit.KindReopened {
		if err := a.e.on(a.tx, b, inc, a.now).follow(remediation.PublicInvestigating); err != nil {
			return err
		}
	}
	if known {
		return nil
	}
	added, err := b.AddPlan(inc, b.Trigger(name).Plan)
	if err != nil {
		return err
	}
	switch inc.State {
	case remediation.Settling:
		if last := inc.LastRun(); last != nil && inc.SettleFrom != nil {
			until := inc.SettleFrom.Add(b.SettleTime(inc, last))
			inc.SettleUntil = &until
		}
	case remediation.Waiting, remediation.Recovered:
		a.poke(inc)
	case remediation.Exhausted:
		// Someone must hear of it once more, and a new step may help.
		inc.Paged = nil
		if len(added) > 0 {
			inc.State, inc.Why, inc.Since = remediation.Confirming, "", a.now
		}
		a.poke(inc)
	}
	a.changed[inc.ID] = inc
	if len(added) == 0 {
		return nil
	}
	return a.e.Append(a.tx, audit.Entry{Kind: audit.KindPlanned, Actor: remediation.ActorEngine, Service: inc.Service, Incident: inc.ID, Detail: map[string]any{
		"trigger": name, "plan": b.Trigger(name).Plan, "steps": remediation.Anys(added), "playbook": inc.PlaybookHash,
	}})
}

func (a *accept) newIncident(b *plan.Plan, al remediation.Alert, release string) (*remediation.Incident, error) {
	rollout, err := a.rollout(b.Service)
	if err != nil {
		return nil, err
	}
	a.wake = true
	return &remediation.Incident{
		Service: b.Service, Drill: al.Drill(), Release: release, PlaybookHash: b.Hash,
		State: remediation.Confirming, Since: a.now, Opened: a.now, Wake: a.now,
		RolloutActive: rollout.Active() && rollout.Release == release,
	}, nil
}

// incident returns one as this notification has left it so far.
func (a *accept) incident(id string) (*remediation.Incident, error) {
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

// rollout is a service's; a notification changes none.
func (a *accept) rollout(service string) (remediation.Rollout, error) {
	if r, ok := a.rollouts[service]; ok {
		return r, nil
	}
	r, err := remediation.RolloutOf(a.tx, service)
	if err == nil {
		a.rollouts[service] = r
	}
	return r, err
}

// poke makes the engine look at an incident immediately.
func (a *accept) poke(inc *remediation.Incident) {
	inc.Wake = a.now
	a.changed[inc.ID] = inc
	a.wake = true
}

// hold records an alert that nothing can be done about; again is an alert that
// is held already, which changes nothing.
func (a *accept) hold(al remediation.Alert, again bool, reason remediation.Reason, why string) error {
	if again {
		a.duplicate(al, "", why)
		return nil
	}
	err := a.tx.PutAlert(remediation.AlertState{
		Fingerprint: al.Fingerprint, Service: al.Labels["service"], Trigger: al.Labels["trigger"], Active: true, LastSeen: a.now,
	})
	if err != nil {
		return err
	}
	a.tx.OnCommit(a.e.Metrics.Holds.WithLabelValues(string(reason)).Inc)
	return a.e.Append(a.tx, audit.Entry{Kind: audit.KindHeld, Actor: remediation.ActorEngine, Service: al.Labels["service"], Detail: map[string]any{
		"reason": string(reason), "why": why, "trigger": al.Labels["trigger"], "fingerprint": al.Fingerprint,
	}})
}

func (a *accept) duplicate(al remediation.Alert, incident, why string) {
	a.duplicates = append(a.duplicates, map[string]any{
		"fingerprint": al.Fingerprint, "status": al.Status, "incident": incident, "why": why,
	})
	a.concerns(incident)
}

// concerns notes an incident for the answer.
func (a *accept) concerns(id string) {
	if id != "" && !slices.Contains(a.incidents, id) {
		a.incidents = append(a.incidents, id)
	}
}

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

// beat notes that a service's watchdog alert came; only loss and return are
// audited.
func (e *Responder) beat(tx remediation.Tx, service string) error {
	b := e.PlanOf(service)
	if b == nil {
		return nil // not ours: accepted, and recorded as received
	}
	old, err := remediation.BeatOf(tx, service)
	if err != nil {
		return err
	}
	lost := old.Lost
	old.Last, old.Heard, old.Lost = e.Now(), true, false
	if err := tx.PutBeat(old); err != nil {
		return err
	}
	if !lost {
		return nil
	}
	return e.Append(tx, audit.Entry{Kind: audit.KindBlind, Actor: remediation.ActorEngine, Service: service, Detail: map[string]any{
		"blind": false, "what": remediation.BlindWatchdog, "why": "the watchdog is back",
	}})
}
