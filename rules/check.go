package rules

import "github.com/locotoki/backout/alerts"

// Check makes a valid playbook's rules and reads them as Prometheus does. It
// leaves out their tests, which take Generate most of its time.
func Check(pb *alerts.Playbook) error {
	if _, err := generateRules(pb); err != nil {
		return err
	}
	return checkAlive(pb)
}
