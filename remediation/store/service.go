package store

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/remediation"
)

// PutEffect implements remediation.LimitTable.
func (t *tx) PutEffect(e remediation.Effect) error {
	at, err := nanos(e.Time)
	if err == nil {
		err = t.exec(`INSERT INTO effects (incident, step, time, service, action, target, outcome) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (incident, step) DO UPDATE SET time = excluded.time, service = excluded.service, action = excluded.action,
			target = excluded.target, outcome = excluded.outcome`,
			e.Incident, e.Step, at, e.Service, e.Action, e.Target, string(e.Outcome))
	}
	if err != nil {
		return fmt.Errorf("put effect of %s %s: %w", e.Incident, e.Step, err)
	}
	return nil
}

// Effects implements remediation.LimitTable.
func (t *tx) Effects(service string, since time.Time) ([]remediation.Effect, error) {
	q := query{from: allEffects}
	if service != "" {
		q.where("service = ?", service)
	}
	if at, err := nanos(since); err != nil {
		return nil, fmt.Errorf("effects since: %w", err)
	} else if at.Valid {
		q.where("time >= ?", at)
	}
	out := []remediation.Effect{}
	err := t.rows(q.text("time, n", false, 0), q.args, func(r row) error {
		e, err := effectOf(r)
		out = append(out, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list effects: %w", err)
	}
	return out, nil
}

// EffectsBack implements remediation.LimitTable.
func (t *tx) EffectsBack(service string, fn func(remediation.Effect) bool) error {
	err := t.rows(allEffects+" WHERE service = ? ORDER BY time DESC, n DESC", []any{service}, func(r row) error {
		e, err := effectOf(r)
		if err == nil && !fn(e) {
			return errEnough
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list effects: %w", err)
	}
	return nil
}

const allEffects = "SELECT incident, step, time, service, action, target, outcome FROM effects"

func effectOf(r row) (e remediation.Effect, err error) {
	var at sql.NullInt64
	err = r.scan(&e.Incident, &e.Step, &at, &e.Service, &e.Action, &e.Target, (*string)(&e.Outcome))
	e.Time = moment(at)
	return e, err
}

// Freezes implements remediation.ServiceTable.
func (t *tx) Freezes() ([]remediation.Freeze, error) {
	return bodies[remediation.Freeze](t, "freezes", "SELECT body FROM freezes ORDER BY service, scope")
}

// PutFreeze implements remediation.ServiceTable.
func (t *tx) PutFreeze(f remediation.Freeze) error {
	return t.put("freeze of "+f.Service, f,
		"INSERT INTO freezes (service, scope, body) VALUES (?, ?, ?) ON CONFLICT (service, scope) DO UPDATE SET body = excluded.body", f.Service, f.Scope)
}

// DeleteFreeze implements remediation.ServiceTable; deleting what is not there
// is not an error.
func (t *tx) DeleteFreeze(service, scope string) error {
	return t.remove("freeze of "+service, "DELETE FROM freezes WHERE service = ? AND scope = ?", service, scope)
}

// Rollouts implements remediation.ServiceTable.
func (t *tx) Rollouts() ([]remediation.Rollout, error) {
	return bodies[remediation.Rollout](t, "rollouts", "SELECT body FROM rollouts ORDER BY service")
}

// Promoting implements remediation.ServiceTable.
func (t *tx) Promoting() ([]remediation.Rollout, error) {
	all, err := bodies[remediation.Rollout](t, "rollouts", "SELECT body FROM rollouts WHERE promoting = 1 ORDER BY service")
	return slices.DeleteFunc(all, func(r remediation.Rollout) bool { return r.Promotion == nil }), err // written before there was the column
}

// Rollout implements remediation.ServiceTable.
func (t *tx) Rollout(service string) (remediation.Rollout, error) {
	return body[remediation.Rollout](t, "rollout of "+service, "SELECT body FROM rollouts WHERE service = ?", service)
}

// PutRollout implements remediation.ServiceTable.
func (t *tx) PutRollout(r remediation.Rollout) error {
	return t.put("rollout of "+r.Service, r,
		"INSERT INTO rollouts (service, promoting, body) VALUES (?, ?, ?) ON CONFLICT (service) DO UPDATE SET promoting = excluded.promoting, body = excluded.body",
		r.Service, r.Promotion != nil)
}

// marshal is json.Marshal without the escapes that it adds for HTML, which would
// change the bytes of what others wrote (a step's snapshot).
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// body reads a row that is kept as JSON.
func body[T any](t *tx, what, query string, args ...any) (v T, err error) {
	var b []byte
	if err = t.row(query, args, &b); err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		return v, fmt.Errorf("%.200q: %w", what, err)
	}
	return v, nil
}

// bodies reads rows that are kept as JSON.
func bodies[T any](t *tx, table, query string, args ...any) ([]T, error) {
	out := []T{}
	err := t.rows(query, args, func(r row) error {
		var b []byte
		if err := r.scan(&b); err != nil {
			return err
		}
		var v T
		err := json.Unmarshal(b, &v)
		out = append(out, v)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", table, err)
	}
	return out, nil
}

// put writes a row that is kept as JSON, the last of the query's arguments.
func (t *tx) put(what string, v any, query string, args ...any) error {
	b, err := marshal(v)
	if err == nil {
		err = t.exec(query, append(args, b)...)
	}
	if err != nil {
		return fmt.Errorf("put %.200q: %w", what, err)
	}
	return nil
}

func (t *tx) remove(what, query string, args ...any) error {
	if err := t.exec(query, args...); err != nil {
		return fmt.Errorf("delete %.200q: %w", what, err)
	}
	return nil
}

// Preflight implements remediation.PreflightTable.
func (t *tx) Preflight(service string) (remediation.Preflight, error) {
	return body[remediation.Preflight](t, "preflight of "+service, "SELECT body FROM preflights WHERE service = ?", service)
}

// PutPreflight implements remediation.PreflightTable.
func (t *tx) PutPreflight(p remediation.Preflight) error {
	return t.put("preflight of "+p.Service, p,
		"INSERT INTO preflights (service, body) VALUES (?, ?) ON CONFLICT (service) DO UPDATE SET body = excluded.body", p.Service)
}

// Rehearsals implements remediation.RehearsalTable.
func (t *tx) Rehearsals(service string) ([]remediation.Rehearsal, error) {
	return bodies[remediation.Rehearsal](t, "rehearsals", "SELECT body FROM rehearsals WHERE service = ? ORDER BY plan", service)
}

// PutRehearsal implements remediation.RehearsalTable.
func (t *tx) PutRehearsal(r remediation.Rehearsal) error {
	return t.put("rehearsal of "+r.Service, r,
		"INSERT INTO rehearsals (service, plan, body) VALUES (?, ?, ?) ON CONFLICT (service, plan) DO UPDATE SET body = excluded.body", r.Service, r.Plan)
}

// Beats implements remediation.ServiceTable.
func (t *tx) Beats() ([]remediation.Beat, error) {
	out := []remediation.Beat{}
	err := t.rows(allBeats+" ORDER BY service", nil, func(r row) error {
		b, err := beatOf(r)
		out = append(out, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list beats: %w", err)
	}
	return out, nil
}

// Beat implements remediation.ServiceTable.
func (t *tx) Beat(service string) (b remediation.Beat, err error) {
	found := false
	err = t.rows(allBeats+" WHERE service = ?", []any{service}, func(r row) (err error) {
		found = true
		b, err = beatOf(r)
		return err
	})
	if err == nil && !found {
		err = remediation.ErrNotFound
	}
	if err != nil {
		return remediation.Beat{}, fmt.Errorf("beat of service %.80q: %w", service, err)
	}
	return b, nil
}

const allBeats = "SELECT service, last, heard, lost, away FROM beats"

func beatOf(r row) (b remediation.Beat, err error) {
	var last, away sql.NullInt64
	err = r.scan(&b.Service, &last, &b.Heard, &b.Lost, &away)
	b.Last, b.Away = moment(last), moment(away)
	return b, err
}

// PutBeat implements remediation.ServiceTable.
func (t *tx) PutBeat(b remediation.Beat) error {
	last, err := nanos(b.Last)
	away, err2 := nanos(b.Away)
	if err = errors.Join(err, err2); err == nil {
		err = t.exec(`INSERT INTO beats (service, last, heard, lost, away) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (service) DO UPDATE SET last = excluded.last, heard = excluded.heard, lost = excluded.lost, away = excluded.away`,
			b.Service, last, b.Heard, b.Lost, away)
	}
	if err != nil {
		return fmt.Errorf("put beat of service %q: %w", b.Service, err)
	}
	return nil
}

// Playbook implements remediation.ServiceTable.
func (t *tx) Playbook(hash string) ([]byte, error) {
	var source []byte
	if err := t.row("SELECT source FROM playbooks WHERE hash = ?", []any{hash}, &source); err != nil {
		return nil, fmt.Errorf("playbook %.80q: %w", hash, err)
	}
	return source, nil
}

// PutPlaybook implements remediation.ServiceTable.
func (t *tx) PutPlaybook(hash string, source []byte) error {
	if source == nil {
		source = []byte{}
	}
	if err := t.exec("INSERT INTO playbooks (hash, source) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING", hash, source); err != nil {
		return fmt.Errorf("put playbook %.80q: %w", hash, err)
	}
	return nil
}

// Signals implements remediation.ServiceTable.
func (t *tx) Signals() ([]remediation.Signal, error) {
	return bodies[remediation.Signal](t, "signals", "SELECT body FROM signals ORDER BY service, name")
}

// Signal implements remediation.ServiceTable.
func (t *tx) Signal(service, name string) (remediation.Signal, error) {
	return body[remediation.Signal](t, "signal "+name+" of "+service, "SELECT body FROM signals WHERE service = ? AND name = ?", service, name)
}

// PutSignal implements remediation.ServiceTable.
func (t *tx) PutSignal(s remediation.Signal) error {
	return t.put("signal "+s.Name+" of "+s.Service, s,
		"INSERT INTO signals (service, name, body) VALUES (?, ?, ?) ON CONFLICT (service, name) DO UPDATE SET body = excluded.body", s.Service, s.Name)
}

// DeleteSignal implements remediation.ServiceTable; deleting what is not there
// is not an error.
func (t *tx) DeleteSignal(service, name string) error {
	return t.remove("signal "+name+" of "+service, "DELETE FROM signals WHERE service = ? AND name = ?", service, name)
}
