package main

import (
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/store"
)

// openForServing opens the store for this process alone, and creates it if it is
// missing.
func openForServing(dsn string) (remediation.Store, error) {
	s, err := store.Open(dsn)
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	return s, nil
}

// openForReading opens an existing store; serve may be running on it.
func openForReading(dsn string) (remediation.Store, error) {
	s, err := store.OpenReadOnly(dsn)
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	return s, nil
}
