package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/plan"
)

// Load replaces the plans that new incidents open with, by their services.
func (l *Ledger) Load(plans map[string]*plan.Plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plans = plans
	for _, p := range plans {
		l.keep(p.Hash, p)
	}
}

// keep remembers a plan by its playbook's hash; mu is held.
func (l *Ledger) keep(hash string, p *plan.Plan) {
	if l.byHash == nil {
		l.byHash = map[string]*plan.Plan{}
	}
	l.byHash[hash] = p
}

// PlanOf returns the plan that new incidents of a service open with, or nil.
func (l *Ledger) PlanOf(service string) *plan.Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.plans[service]
}

// Plans returns those of all services.
func (l *Ledger) Plans() []*plan.Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*plan.Plan, 0, len(l.plans))
	for _, b := range l.plans {
		out = append(out, b)
	}
	return out
}

// Here reports whether what concerns a plan is done under the lease of ctx; all of it is
// where there is none. A service without a playbook is in the default realm.
func (l *Ledger) Here(ctx context.Context, p *plan.Plan) bool {
	h := lease.From(ctx)
	if h == nil {
		return true
	}
	realm := remediation.RealmDefault
	if p != nil {
		realm = remediation.RealmOfHost(p.Target.Compose.Host)
	}
	return h.Realm == realm
}

// PlansHere returns the plans of the services on which ctx may act.
func (l *Ledger) PlansHere(ctx context.Context) []*plan.Plan {
	return slices.DeleteFunc(l.Plans(), func(p *plan.Plan) bool { return !l.Here(ctx, p) })
}

// OnePlan returns the playbook of a service; "" is enough if there is only one.
func (l *Ledger) OnePlan(service string) (*plan.Plan, error) {
	if service != "" {
		if b := l.PlanOf(service); b != nil {
			return b, nil
		}
		return nil, l.NoPlan(service)
	}
	all := l.Plans()
	if len(all) != 1 {
		return nil, hint.Add(remediation.Refuse(remediation.Invalid, "name the service: %d playbooks are loaded", len(all)), "--service=NAME, one of %s", l.services())
	}
	return all[0], nil
}

// NoPlan refuses a service that has no playbook, and names those that have one.
func (l *Ledger) NoPlan(service string) error {
	return hint.Add(remediation.Refuse(remediation.Missing, "no playbook for service %q is loaded", service), "one of %s", l.services())
}

// services names those that have a playbook.
func (l *Ledger) services() string {
	var names []string
	for _, b := range l.Plans() {
		names = append(names, b.Service)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// UnreadableError: a stored playbook cannot be carried out any more.
type UnreadableError struct{ cause error }

// Error implements error.
func (e *UnreadableError) Error() string { return "its playbook cannot be read: " + e.cause.Error() }

func (e *UnreadableError) Unwrap() error { return e.cause }

// PlanFor returns the playbook that an incident was opened with. It is an
// *UnreadableError if that is missing, does not match its hash, or can no longer be
// read, as after an upgrade.
func (l *Ledger) PlanFor(ctx context.Context, inc *remediation.Incident) (b *plan.Plan, err error) {
	if b = l.known(inc.PlaybookHash); b != nil {
		return b, nil
	}
	err = l.Store.View(ctx, func(tx remediation.Tx) error {
		b, err = l.PlanIn(tx, inc)
		return err
	})
	return b, err
}

// PlanIn is PlanFor in a transaction, where another one might wait for this one's end.
func (l *Ledger) PlanIn(tx remediation.Tx, inc *remediation.Incident) (*plan.Plan, error) {
	if b := l.known(inc.PlaybookHash); b != nil {
		return b, nil
	}
	b, err := StoredPlan(tx, inc, l.Kinds)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(inc.PlaybookHash, b)
	return b, nil
}

func (l *Ledger) known(hash string) *plan.Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byHash[hash]
}

// RolloutPlan returns the playbook that a service's active rollout goes by: loaded, unless
// that is about another release and no edit of the playbook that the rollout has. Without
// an active rollout it is loaded. Its errors are those of PlanFor.
func (l *Ledger) RolloutPlan(tx remediation.Tx, loaded *plan.Plan, r remediation.Rollout) (*plan.Plan, error) {
	if !r.Active() || r.Release == loaded.Release.Version {
		return loaded, nil
	}
	hash := r.Playbook
	if hash == "" { // begun before the row had it
		var err error
		if hash, err = lastLoaded(tx, r); err != nil {
			return nil, err
		}
		if hash == "" && r.Previous == loaded.Release.Previous {
			return loaded, nil
		}
	}
	kept, err := l.PlanIn(tx, &remediation.Incident{ID: "rollout/" + r.Service, PlaybookHash: hash})
	if err == nil && kept.Release == loaded.Release {
		return loaded, nil
	}
	return kept, err
}

// startsRead is how many starts and reloads lastLoaded looks back.
const startsRead = 1000

// lastLoaded is the hash of the playbook that was loaded last for a rollout's release, by
// the audit log; "" if there is none.
func lastLoaded(tx remediation.Tx, r remediation.Rollout) (string, error) {
	starts, err := tx.Entries(audit.Filter{Kind: audit.KindStarted, Newest: true, Limit: startsRead})
	if err != nil {
		return "", fmt.Errorf("look for the playbook of release %s of %s: %w", r.Release, r.Service, err)
	}
	for _, start := range slices.Backward(starts) {
		loaded, _ := start.Detail["playbooks"].([]any)
		for _, one := range loaded {
			if one, _ := one.(map[string]any); one["service"] == r.Service && one["release"] == r.Release {
				return fmt.Sprint(one["hash"]), nil
			}
		}
	}
	return "", nil
}

// PlanOfRollout is RolloutPlan for a change that a person asked for: a playbook that cannot
// be read refuses it.
func (l *Ledger) PlanOfRollout(tx remediation.Tx, loaded *plan.Plan, r remediation.Rollout) (*plan.Plan, error) {
	b, err := l.RolloutPlan(tx, loaded, r)
	if errors.As(err, new(*UnreadableError)) {
		err = hint.Add(remediation.Refuse(remediation.Conflict, "release %s of %s is being rolled out, and %v", r.Release, r.Service, err),
			"load the playbook of release %s again", r.Release)
	}
	return b, err
}

// ShownPlan is RolloutPlan for what is shown of a rollout: loaded where that cannot be read.
func (l *Ledger) ShownPlan(tx remediation.Tx, loaded *plan.Plan, r remediation.Rollout) *plan.Plan {
	if b, err := l.RolloutPlan(tx, loaded, r); err == nil {
		return b
	}
	return loaded
}

// StoredPlan reads the playbook that an incident was opened with. Its errors are those of PlanFor.
func StoredPlan(tx remediation.Tx, inc *remediation.Incident, kinds []remediation.ActionKind) (*plan.Plan, error) {
	src, err := tx.Playbook(inc.PlaybookHash)
	if errors.Is(err, remediation.ErrNotFound) {
		return nil, &UnreadableError{err}
	}
	if err != nil {
		return nil, fmt.Errorf("read playbook %s of incident %s: %w", inc.PlaybookHash, inc.ID, err)
	}
	if sum := sha256.Sum256(src); hex.EncodeToString(sum[:]) != inc.PlaybookHash {
		return nil, &UnreadableError{fmt.Errorf("it was changed in the database: its hash is %x, and the incident was opened with %s", sum, inc.PlaybookHash)}
	}
	pb, err := alerts.Parse("playbook of "+inc.ID, src, plan.AlertKinds(kinds))
	if err != nil {
		return nil, &UnreadableError{err}
	}
	b, err := plan.Compile(pb, kinds)
	if err != nil {
		return nil, &UnreadableError{err}
	}
	return b, nil
}
