package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
)

// Alert implements remediation.AlertTable.
func (t *tx) Alert(fingerprint string) (remediation.AlertState, error) {
	a := remediation.AlertState{Fingerprint: fingerprint}
	var seen sql.NullInt64
	err := t.row("SELECT incident, service, trigger, active, last_seen FROM alerts WHERE fingerprint = ?", []any{fingerprint},
		&a.Incident, &a.Service, &a.Trigger, &a.Active, &seen)
	if err != nil {
		return remediation.AlertState{}, fmt.Errorf("alert %.80q: %w", fingerprint, err)
	}
	a.LastSeen = moment(seen)
	return a, nil
}

// Alerts implements remediation.AlertTable.
func (t *tx) Alerts(incident string) ([]remediation.AlertState, error) {
	out := []remediation.AlertState{}
	err := t.rows("SELECT fingerprint, service, trigger, active, last_seen FROM alerts WHERE incident = ? ORDER BY n", []any{incident},
		func(scan func(...any) error) error {
			a := remediation.AlertState{Incident: incident}
			var seen sql.NullInt64
			err := scan(&a.Fingerprint, &a.Service, &a.Trigger, &a.Active, &seen)
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
	active := 0
	if a.Active {
		active = 1
	}
	var before string // the incident it was attached to
	var wasActive int
	err = t.row("SELECT incident, active FROM alerts WHERE fingerprint = ?", []any{a.Fingerprint}, &before, &wasActive)
	if errors.Is(err, remediation.ErrNotFound) {
		_, err = t.exec("INSERT INTO alerts (fingerprint, incident, service, trigger, active, last_seen) VALUES (?, ?, ?, ?, ?, ?)",
			a.Fingerprint, a.Incident, a.Service, a.Trigger, active, seen)
		before = a.Incident
	} else if err == nil {
		_, err = t.exec("UPDATE alerts SET incident = ?, service = ?, trigger = ?, active = ?, last_seen = ? WHERE fingerprint = ?",
			a.Incident, a.Service, a.Trigger, active, seen, a.Fingerprint)
	}
	if err != nil {
		return err
	}
	if before == a.Incident {
		return t.count(a.Incident, active-wasActive)
	}
	if err := t.count(before, -wasActive); err != nil {
		return err
	}
	return t.count(a.Incident, active)
}

// count adds to the number of an incident's active alerts.
func (t *tx) count(incident string, n int) error {
	if n == 0 {
		return nil
	}
	_, err := t.exec(`INSERT INTO alert_totals (incident, active) VALUES (?, ?)
		ON CONFLICT (incident) DO UPDATE SET active = active + excluded.active`, incident, n)
	return err
}

// ActiveAlerts implements remediation.AlertTable.
func (t *tx) ActiveAlerts(incident string) (n int, lastSeen time.Time, err error) {
	var seen sql.NullInt64
	err = t.row(`SELECT coalesce((SELECT active FROM alert_totals WHERE incident = ?1), 0),
		(SELECT max(last_seen) FROM alerts WHERE incident = ?1)`, []any{incident}, &n, &seen)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("active alerts of %.80q: %w", incident, err)
	}
	return n, moment(seen), nil
}
