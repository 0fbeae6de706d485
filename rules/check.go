package rules

import "github.com/locotoki/backout/alerts"

// Check makes a valid playbook's rules and reads them as Prometheus does.
func Check(pb *alerts.Playbook) error {
	if _, err := Rules(pb); err != nil {
		return err
	}
	return checkAlive(pb)
}
