package memory

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/remediation"
)

// Freezes implements remediation.ServiceTable.
func (t *tx) Freezes() ([]remediation.Freeze, error) {
	return list(t, t.freezes, all, func(a, b remediation.Freeze) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Scope, b.Scope))
	})
}

// PutFreeze implements remediation.ServiceTable.
func (t *tx) PutFreeze(f remediation.Freeze) error {
	return put(t, &t.freezes, isFreeze(f.Service, f.Scope), f)
}

// DeleteFreeze implements remediation.ServiceTable.
func (t *tx) DeleteFreeze(service, scope string) error {
	return remove(t, &t.freezes, isFreeze(service, scope))
}

func isFreeze(service, scope string) func(*remediation.Freeze) bool {
	return func(f *remediation.Freeze) bool { return f.Service == service && f.Scope == scope }
}

// Signals implements remediation.ServiceTable.
func (t *tx) Signals() ([]remediation.Signal, error) {
	return list(t, t.signals, all, func(a, b remediation.Signal) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Name, b.Name))
	})
}

// Signal implements remediation.ServiceTable.
func (t *tx) Signal(service, name string) (remediation.Signal, error) {
	return get(t, t.signals, isSignal(service, name))
}

// PutSignal implements remediation.ServiceTable.
func (t *tx) PutSignal(s remediation.Signal) error {
	return put(t, &t.signals, isSignal(s.Service, s.Name), s)
}

// DeleteSignal implements remediation.ServiceTable.
func (t *tx) DeleteSignal(service, name string) error {
	return remove(t, &t.signals, isSignal(service, name))
}

func isSignal(service, name string) func(*remediation.Signal) bool {
	return func(s *remediation.Signal) bool { return s.Service == service && s.Name == name }
}

func byService(a, b remediation.Rollout) int { return cmp.Compare(a.Service, b.Service) }

// Rollouts implements remediation.ServiceTable.
func (t *tx) Rollouts() ([]remediation.Rollout, error) {
	return list(t, t.rollouts, all, byService)
}

// Promoting implements remediation.ServiceTable.
func (t *tx) Promoting() ([]remediation.Rollout, error) {
	return list(t, t.rollouts, func(r *remediation.Rollout) bool { return r.Promotion != nil }, byService)
}

// Rollout implements remediation.ServiceTable.
func (t *tx) Rollout(service string) (remediation.Rollout, error) {
	return get(t, t.rollouts, func(r *remediation.Rollout) bool { return r.Service == service })
}

// PutRollout implements remediation.ServiceTable.
func (t *tx) PutRollout(r remediation.Rollout) error {
	return put(t, &t.rollouts, func(o *remediation.Rollout) bool { return o.Service == r.Service }, r)
}

// Beats implements remediation.ServiceTable.
func (t *tx) Beats() ([]remediation.Beat, error) {
	return list(t, t.beats, all, func(a, b remediation.Beat) int { return cmp.Compare(a.Service, b.Service) })
}

// Beat implements remediation.ServiceTable.
func (t *tx) Beat(service string) (remediation.Beat, error) {
	return get(t, t.beats, func(b *remediation.Beat) bool { return b.Service == service })
}

// PutBeat implements remediation.ServiceTable.
func (t *tx) PutBeat(b remediation.Beat) error {
	return put(t, &t.beats, func(o *remediation.Beat) bool { return o.Service == b.Service }, b)
}

// Playbook implements remediation.ServiceTable.
func (t *tx) Playbook(hash string) ([]byte, error) {
	p, err := get(t, t.playbooks, func(p *playbook) bool { return p.Hash == hash })
	return p.Source, err
}

// PutPlaybook implements remediation.ServiceTable: the first one stays.
func (t *tx) PutPlaybook(hash string, source []byte) error {
	if _, err := t.Playbook(hash); err == nil {
		return t.writable()
	}
	return put(t, &t.playbooks, func(*playbook) bool { return false }, playbook{hash, source})
}

// Preflight implements remediation.PreflightTable.
func (t *tx) Preflight(service string) (remediation.Preflight, error) {
	return get(t, t.preflights, func(p *remediation.Preflight) bool { return p.Service == service })
}

// PutPreflight implements remediation.PreflightTable.
func (t *tx) PutPreflight(p remediation.Preflight) error {
	return put(t, &t.preflights, func(o *remediation.Preflight) bool { return o.Service == p.Service }, p)
}

// Rehearsals implements remediation.RehearsalTable.
func (t *tx) Rehearsals(service string) ([]remediation.Rehearsal, error) {
	return list(t, t.rehearsals, func(r *remediation.Rehearsal) bool { return r.Service == service },
		func(a, b remediation.Rehearsal) int { return cmp.Compare(a.Plan, b.Plan) })
}

// PutRehearsal implements remediation.RehearsalTable.
func (t *tx) PutRehearsal(r remediation.Rehearsal) error {
	return put(t, &t.rehearsals, func(o *remediation.Rehearsal) bool { return o.Service == r.Service && o.Plan == r.Plan }, r)
}

// Now implements remediation.ReplicaTable.
func (t *tx) Now() (time.Time, error) { return time.Now().UTC(), t.usable() }

// Replicas implements remediation.ReplicaTable.
func (t *tx) Replicas() ([]remediation.Replica, error) {
	return list(t, t.replicas, all, func(a, b remediation.Replica) int { return cmp.Compare(a.ID, b.ID) })
}

// PutReplica implements remediation.ReplicaTable.
func (t *tx) PutReplica(r remediation.Replica) error {
	return put(t, &t.replicas, func(o *remediation.Replica) bool { return o.ID == r.ID }, r)
}

// DeleteReplica implements remediation.ReplicaTable.
func (t *tx) DeleteReplica(id string) error {
	return remove(t, &t.replicas, func(r *remediation.Replica) bool { return r.ID == id })
}

// Lease implements remediation.ReplicaTable.
func (t *tx) Lease(realm string) (remediation.Lease, error) {
	return get(t, t.leases, func(l *remediation.Lease) bool { return l.Realm == realm })
}

// Leases implements remediation.ReplicaTable.
func (t *tx) Leases() ([]remediation.Lease, error) {
	return list(t, t.leases, all, func(a, b remediation.Lease) int { return cmp.Compare(a.Realm, b.Realm) })
}

// PutLease implements remediation.ReplicaTable.
func (t *tx) PutLease(l remediation.Lease) error {
	return put(t, &t.leases, func(o *remediation.Lease) bool { return o.Realm == l.Realm }, l)
}

// Kept implements remediation.KeptTable.
func (t *tx) Kept(name string) ([]byte, error) {
	k, err := get(t, t.kept, func(k *kept) bool { return k.Name == name })
	return k.Value, err
}

// PutKept implements remediation.KeptTable.
func (t *tx) PutKept(name string, value []byte) error {
	return put(t, &t.kept, func(k *kept) bool { return k.Name == name }, kept{name, value})
}

// Once implements remediation.KeptTable.
func (t *tx) Once(kind, key string, until time.Time, limit int) (first bool, err error) {
	now, err := t.Now()
	if err == nil {
		err = remove(t, &t.onces, func(o *once) bool {
			return o.Kind == kind && (!o.Until.After(now) || until.After(now) && o.Until.After(until.Add(until.Sub(now))))
		})
	}
	if err != nil {
		return false, fmt.Errorf("remember a %.80s: %w", kind, err)
	}
	of := slices.DeleteFunc(slices.Clone(t.onces), func(o once) bool { return o.Kind != kind })
	switch {
	case slices.ContainsFunc(of, func(o once) bool { return o.Key == key }):
		return false, nil
	case len(of) >= limit:
		return false, fmt.Errorf("remember a %.80s: %w", kind, remediation.ErrFull)
	}
	t.onces = append(t.onces, once{kind, key, until})
	return true, nil
}
