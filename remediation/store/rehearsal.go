package store

import (
	"encoding/json"
	"fmt"

	"github.com/locotoki/backout/remediation"
)

// Rehearsals implements remediation.RehearsalTable.
func (t *tx) Rehearsals(service string) ([]remediation.Rehearsal, error) {
	out := []remediation.Rehearsal{}
	err := t.rows("SELECT body FROM rehearsals WHERE service = ? ORDER BY plan", []any{service}, func(r row) error {
		var b []byte
		if err := r.scan(&b); err != nil {
			return err
		}
		var one remediation.Rehearsal
		err := json.Unmarshal(b, &one)
		out = append(out, one)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("rehearsals of service %q: %w", service, err)
	}
	return out, nil
}

// PutRehearsal implements remediation.RehearsalTable.
func (t *tx) PutRehearsal(r remediation.Rehearsal) error {
	b, err := marshal(r)
	if err == nil {
		err = t.exec("INSERT INTO rehearsals (service, plan, body) VALUES (?, ?, ?) ON CONFLICT (service, plan) DO UPDATE SET body = excluded.body", r.Service, r.Plan, b)
	}
	if err != nil {
		return fmt.Errorf("put rehearsal of plan %q of service %q: %w", r.Plan, r.Service, err)
	}
	return nil
}
