package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
)

const idPrefix = "inc-"

// number returns N of "inc-N".
func number(id string) (int64, error) {
	s, ok := strings.CutPrefix(id, idPrefix)
	n, err := strconv.ParseInt(s, 10, 64)
	if !ok || err != nil || n < 1 || s != strconv.FormatInt(n, 10) {
		return 0, fmt.Errorf("incident %.80q: %w (an id is like inc-7)", id, remediation.ErrNotFound)
	}
	return n, nil
}

// Incident implements remediation.IncidentTable.
func (t *tx) Incident(id string) (*remediation.Incident, error) {
	n, err := number(id)
	if err != nil {
		return nil, err
	}
	var body []byte
	if err := t.row("SELECT body FROM incidents WHERE n = ?", []any{n}, &body); err != nil {
		return nil, fmt.Errorf("incident %s: %w", id, err)
	}
	return incidentOf(n, body)
}

func incidentOf(n int64, body []byte) (*remediation.Incident, error) {
	inc := &remediation.Incident{}
	if err := json.Unmarshal(body, inc); err != nil {
		return nil, fmt.Errorf("incident %s%d as stored: %w", idPrefix, n, err)
	}
	return inc, nil
}

// Incidents implements remediation.IncidentTable.
func (t *tx) Incidents(f remediation.IncidentFilter) ([]*remediation.Incident, error) {
	q := query{from: "SELECT n, body FROM incidents"}
	if f.Service != "" {
		q.where("service = ?", f.Service)
	}
	if f.Drill != nil {
		q.where("drill = ?", *f.Drill)
	}
	order := "n"
	switch {
	case f.Open == f.Closed:
	case f.Closed:
		q.where("open = 0")
	default:
		// The literal lets the index of open ones be used, which are few; the plus
		// keeps SQLite from walking all in the order of n instead.
		q.where("open = 1")
		order = "+n"
	}
	for _, edge := range []struct{ id, cond string }{{f.After, "n > ?"}, {f.Before, "n < ?"}} {
		if edge.id == "" {
			continue
		}
		n, err := number(edge.id)
		if err != nil {
			return nil, fmt.Errorf("incidents after or before: %w", err)
		}
		q.where(edge.cond, n)
	}
	text := q.text(order, f.Newest, f.Limit)
	out, err := t.incidents(text, q.args)
	if f.Newest {
		slices.Reverse(out)
	}
	return out, err
}

// incidents returns those that a query finds.
func (t *tx) incidents(query string, args []any) ([]*remediation.Incident, error) {
	out := []*remediation.Incident{}
	err := t.rows(query, args, func(r row) error {
		var n int64
		var body []byte
		if err := r.scan(&n, &body); err != nil {
			return err
		}
		inc, err := incidentOf(n, body)
		out = append(out, inc)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list incidents: %w", err)
	}
	return out, nil
}

// Running implements remediation.IncidentTable.
func (t *tx) Running() ([]*remediation.Incident, error) {
	all, err := t.incidents("SELECT n, body FROM incidents WHERE running = 1 ORDER BY n", nil)
	return slices.DeleteFunc(all, func(inc *remediation.Incident) bool { return !runs(inc) }), err // written before there was the column
}

func runs(inc *remediation.Incident) bool {
	return inc.State != remediation.Closed && inc.Running() != nil
}

// Paging implements remediation.IncidentTable.
func (t *tx) Paging() ([]*remediation.Incident, error) {
	all, err := t.incidents(`SELECT n, body FROM incidents WHERE paging = 1 AND n = (
		SELECT max(other.n) FROM incidents AS other WHERE other.service = incidents.service AND other.drill = 0) ORDER BY n`, nil)
	return slices.DeleteFunc(all, func(inc *remediation.Incident) bool { return len(inc.NeedsHuman()) == 0 }), err // as above
}

// PutIncident implements remediation.IncidentTable.
func (t *tx) PutIncident(inc *remediation.Incident) error {
	if err := t.putIncident(inc); err != nil {
		id := inc.ID
		if id == "" {
			id = "new"
		}
		return fmt.Errorf("put incident %s of service %q: %w", id, inc.Service, err)
	}
	return nil
}

func (t *tx) putIncident(inc *remediation.Incident) error {
	wake, err := nanos(inc.Wake)
	if err != nil {
		return err
	}
	put := *inc
	put.Version++
	open := inc.State != remediation.Closed
	var n int64
	if !t.write {
		return ErrReadOnly
	}
	if inc.Version > 0 {
		if n, err = number(inc.ID); err != nil {
			return err
		}
		var version int64
		if err := t.row("SELECT version FROM incidents WHERE n = ?", []any{n}, &version); err != nil {
			return err
		}
		if version != inc.Version {
			return fmt.Errorf("version %d, stored is %d: %w", inc.Version, version, remediation.ErrStale)
		}
	} else {
		n = t.head.incident + 1
		put.ID = idPrefix + strconv.FormatInt(n, 10)
	}
	if open {
		var other int64
		err := t.row("SELECT n FROM incidents WHERE service = ? AND drill = ? AND open = 1", []any{inc.Service, inc.Drill}, &other)
		if err == nil && other != n {
			return fmt.Errorf("%s%d is open already", idPrefix, other)
		}
		if err != nil && !errors.Is(err, remediation.ErrNotFound) {
			return err
		}
	}
	body, err := marshal(&put)
	if err != nil {
		return err
	}
	err = t.exec(`INSERT INTO incidents (n, service, drill, open, running, paging, wake, version, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (n) DO UPDATE SET service = excluded.service, drill = excluded.drill, open = excluded.open, running = excluded.running, paging = excluded.paging,
		wake = excluded.wake, version = excluded.version, body = excluded.body`,
		n, inc.Service, inc.Drill, open, runs(inc), len(inc.NeedsHuman()) > 0, wake, put.Version, body)
	if err != nil {
		return err
	}
	t.head.incident = max(t.head.incident, n)
	inc.ID, inc.Version = put.ID, put.Version
	return nil
}

// Due implements remediation.IncidentTable.
func (t *tx) Due(now time.Time) (ids []string, next time.Time, err error) {
	at, err := nanos(now)
	if err != nil {
		return nil, time.Time{}, err
	}
	err = t.rows("SELECT n FROM incidents WHERE wake <= ? ORDER BY wake, n", []any{at}, func(r row) error {
		var n int64
		err := r.scan(&n)
		ids = append(ids, idPrefix+strconv.FormatInt(n, 10))
		return err
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("list due incidents: %w", err)
	}
	var wake sql.NullInt64
	if err := t.row("SELECT min(wake) FROM incidents WHERE wake > ?", []any{at}, &wake); err != nil {
		return nil, time.Time{}, fmt.Errorf("next due incident: %w", err)
	}
	return ids, moment(wake), nil
}
