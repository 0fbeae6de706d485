package store

import (
	"encoding/json"
	"fmt"

	"github.com/locotoki/backout/remediation"
)

// Preflight implements remediation.PreflightTable.
func (t *tx) Preflight(service string) (p remediation.Preflight, err error) {
	var b []byte
	if err := t.row("SELECT body FROM preflights WHERE service = ?", []any{service}, &b); err != nil {
		return p, fmt.Errorf("preflight of service %q: %w", service, err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("preflight of service %q: %w", service, err)
	}
	return p, nil
}

// PutPreflight implements remediation.PreflightTable.
func (t *tx) PutPreflight(p remediation.Preflight) error {
	b, err := marshal(p)
	if err == nil {
		err = t.exec("INSERT INTO preflights (service, body) VALUES (?, ?) ON CONFLICT (service) DO UPDATE SET body = excluded.body", p.Service, b)
	}
	if err != nil {
		return fmt.Errorf("put preflight of service %q: %w", p.Service, err)
	}
	return nil
}
