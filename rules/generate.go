package rules

import (
	"errors"

	"github.com/locotoki/backout/alerts"
)

// File is one generated file.
type File struct {
	// Name is its path below the output's root, with slashes, such as
	// "rules/social-intel.rules.yml" or "deploy/alertmanager.yml".
	Name    string
	Content []byte
	// Warnings says what the file lacks, such as a query that no test input
	// could be made for; show them to whoever runs the generator.
	Warnings []string
}

// Generate returns what is derived from a valid playbook: the rules, their
// promtool tests and Alertmanager's configuration. The same playbook gives the
// same bytes.
func Generate(pb *alerts.Playbook) ([]File, error) {
	return nil, errors.New("not built yet")
}
