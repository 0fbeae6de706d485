package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/plan"
)

// Load replaces the plans that new incidents open with, by their services.
func (l *Ledger) Load(plans map[string]*plan.Plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plans = plans
	if l.byHash == nil {
		l.byHash = map[string]*plan.Plan{}
	}
	for _, p := range plans {
		l.byHash[p.Hash] = p
	}
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
		return nil, remediation.Refuse(remediation.Missing, "no playbook for service %q is loaded", service)
	}
	all := l.Plans()
	if len(all) != 1 {
		return nil, remediation.Refuse(remediation.Invalid, "name the service: %d playbooks are loaded", len(all))
	}
	return all[0], nil
}

// UnreadableError: a stored playbook cannot be carried out any more.
type UnreadableError struct{ cause error }

// Error implements error.
func (e *UnreadableError) Error() string { return "its playbook cannot be read: " + e.cause.Error() }

func (e *UnreadableError) Unwrap() error { return e.cause }

// PlanFor returns the playbook that an incident was opened with. It is an
// *UnreadableError if that is missing, does not match its hash, or can no longer be
// read, as after an upgrade.
func (l *Ledger) PlanFor(ctx context.Context, inc *remediation.Incident) (*plan.Plan, error) {
	l.mu.Lock()
	b := l.byHash[inc.PlaybookHash]
	l.mu.Unlock()
	if b != nil {
		return b, nil
	}
	err := l.Store.View(ctx, func(tx remediation.Tx) (err error) {
		b, err = StoredPlan(tx, inc, l.Kinds)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.byHash[inc.PlaybookHash] = b
	l.mu.Unlock()
	return b, nil
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
