package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
)

// place is where an alert is attached and whether it is active: what a Put needs
// to know of the row before it.
type place struct {
	exists   bool
	incident string
	active   bool
}

// Alert implements remediation.AlertTable.
func (t *tx) Alert(fingerprint string) (remediation.AlertState, error) {
	if err := t.usable(); err != nil {
		return remediation.AlertState{}, err
	}
	if known, ok := t.ahead[fingerprint]; ok {
		if known == nil {
			t.remember(fingerprint, place{})
			return remediation.AlertState{}, fmt.Errorf("alert %.80q: %w", fingerprint, remediation.ErrNotFound)
		}
		t.remember(fingerprint, place{true, known.Incident, known.Active})
		return *known, nil
	}
	a := remediation.AlertState{Fingerprint: fingerprint}
	var seen sql.NullInt64
	err := t.row("SELECT incident, service, trigger, active, last_seen FROM alerts WHERE fingerprint = ?", []any{fingerprint},
		&a.Incident, &a.Service, &a.Trigger, &a.Active, &seen)
	if err == nil || errors.Is(err, remediation.ErrNotFound) {
		t.remember(fingerprint, place{err == nil, a.Incident, a.Active})
	}
	if err != nil {
		return remediation.AlertState{}, fmt.Errorf("alert %.80q: %w", fingerprint, err)
	}
	a.LastSeen = moment(seen)
	return a, nil
}

// remember spares the Put that follows a read its own.
func (t *tx) remember(fingerprint string, p place) {
	if !t.write {
		return
	}
	if t.places == nil {
		t.places = map[string]place{}
	}
	t.places[fingerprint] = p
}

// Alerts implements remediation.AlertTable.
func (t *tx) Alerts(incident string) ([]remediation.AlertState, error) {
	out := []remediation.AlertState{}
	err := t.rows("SELECT fingerprint, service, trigger, active, last_seen FROM alerts WHERE incident = ? ORDER BY n", []any{incident},
		func(r row) error {
			a := remediation.AlertState{Incident: incident}
			var seen sql.NullInt64
			err := r.scan(&a.Fingerprint, &a.Service, &a.Trigger, &a.Active, &seen)
			a.LastSeen = moment(seen)
			out = append(out, a)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("alerts of %.80q: %w", incident, err)
	}
	return out, nil
}

// PutAlert implements remediation.AlertTable.
func (t *tx) PutAlert(a remediation.AlertState) error {
	if err := t.putAlert(a); err != nil {
		return fmt.Errorf("put alert %.80q: %w", a.Fingerprint, err)
	}
	return nil
}

func (t *tx) putAlert(a remediation.AlertState) error {
	seen, err := nanos(a.LastSeen)
	if err != nil {
		return err
	}
	delete(t.ahead, a.Fingerprint)
	before, ok := t.places[a.Fingerprint]
	if !ok {
		if _, err := t.Alert(a.Fingerprint); err != nil && !errors.Is(err, remediation.ErrNotFound) {
			return err
		}
		before = t.places[a.Fingerprint]
	}
	if before.exists {
		err = t.exec("UPDATE alerts SET incident = ?, service = ?, trigger = ?, active = ?, last_seen = ? WHERE fingerprint = ?",
			a.Incident, a.Service, a.Trigger, a.Active, seen, a.Fingerprint)
	} else {
		err = t.exec("INSERT INTO alerts (fingerprint, incident, service, trigger, active, last_seen) VALUES (?, ?, ?, ?, ?, ?)",
			a.Fingerprint, a.Incident, a.Service, a.Trigger, a.Active, seen)
	}
	if err != nil {
		return err
	}
	if before.active {
		t.totals.add(before.incident, -1)
	}
	if a.Active {
		t.totals.add(a.Incident, 1)
	}
	t.remember(a.Fingerprint, place{true, a.Incident, a.Active})
	return nil
}

// totals are changes to the numbers of incidents' active alerts that are not
// written yet. A batch writes them once, with its commit.
type totals map[string]int

func (t *totals) add(incident string, n int) {
	if *t == nil {
		*t = totals{}
	}
	(*t)[incident] += n
}

// write adds the changes to the table.
func (t totals) write(c conn) error {
	for incident, n := range t {
		if n == 0 {
			continue
		}
		err := c.exec(context.Background(), `INSERT INTO alert_totals (incident, active) VALUES (?, ?)
			ON CONFLICT (incident) DO UPDATE SET active = alert_totals.active + excluded.active`, incident, n)
		if err != nil {
			return fmt.Errorf("count active alerts of %.80q: %w", incident, err)
		}
	}
	return nil
}

// ActiveAlerts implements remediation.AlertTable.
func (t *tx) ActiveAlerts(incident string) (n int, lastSeen time.Time, err error) {
	var seen sql.NullInt64
	err = t.row(`SELECT coalesce((SELECT active FROM alert_totals WHERE incident = ?1), 0),
		(SELECT max(last_seen) FROM alerts WHERE incident = ?1)`, []any{incident}, &n, &seen)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("active alerts of %.80q: %w", incident, err)
	}
	return n + t.batchTotals[incident] + t.totals[incident], moment(seen), nil
}
