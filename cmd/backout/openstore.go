package main

import (
	"context"
	"errors"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/store"
)

// passwordTry is what to do instead of a password on the command line.
const passwordTry = "postgres://USER@HOST/DATABASE?passfile=FILE, or the whole dsn in storage.dsn_file of the configuration"

// openForServing opens the store that a flag or, before it, a file names for this server
// alone, and creates it if it is missing.
func openForServing(flag, file string) (*store.Store, error) {
	dsn := file
	if dsn == "" {
		dsn = flag
		if err := withoutPassword("storage.dsn", dsn); err != nil {
			return nil, err
		}
	}
	s, err := store.Open(dsn)
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	return s, nil
}

// openForReading opens an existing store; serve may be running on it.
func openForReading(dsn string) (remediation.Store, error) {
	if err := withoutPassword("storage.dsn", dsn); err != nil {
		return nil, err
	}
	s, err := store.OpenReadOnly(dsn)
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	return s, nil
}

// withoutPassword refuses a password in a flag.
func withoutPassword(flag, dsn string) error {
	if store.HoldsPassword(dsn) {
		return wrong(passwordTry, "--%s: the address must not contain a password: every user of this machine can see it in the list of processes", flag)
	}
	return nil
}

// untilLost waits until ctx ends, or another server has taken the database over.
func untilLost(ctx context.Context, lost <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case <-lost:
		return errors.New("stopped: another server has taken the database over while this one was paused or cut off from it")
	}
}
