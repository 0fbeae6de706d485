package main

import (
	"context"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/store"
)

// passwordTry is what to do instead of a password on the command line.
const passwordTry = "postgres://USER@HOST/DATABASE?passfile=FILE, or the whole dsn in storage.dsn_file of the configuration"

// served is a store that serve works on.
type served interface {
	remediation.Store
	Risk() string
}

// openForServing opens the store that a flag or, before it, a file names, and creates it if
// it is missing: for this server alone, or, in PostgreSQL, together with others.
func openForServing(ctx context.Context, flag, file string) (served, error) {
	dsn := file
	if dsn == "" {
		dsn = flag
		if err := withoutPassword("storage.dsn", dsn); err != nil {
			return nil, err
		}
	}
	var s served
	var err error
	if store.CanShare(dsn) {
		s, err = store.OpenShared(ctx, dsn)
	} else {
		s, err = store.Open(ctx, dsn)
	}
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	return s, nil
}

// withoutServer refuses a database on which a server works.
func withoutServer(ctx context.Context, s remediation.Store) error {
	return s.View(ctx, func(tx remediation.Tx) error {
		now, err := tx.Now()
		if err != nil {
			return err
		}
		live, err := remediation.LiveReplicas(tx, now)
		if err == nil && len(live) > 0 {
			err = wrong("stop it first", "replica %s works on this database", live[0].Name)
		}
		return err
	})
}

// openForReading opens an existing store; serve may be running on it.
func openForReading(ctx context.Context, dsn string) (remediation.Store, error) {
	if err := withoutPassword("storage.dsn", dsn); err != nil {
		return nil, err
	}
	s, err := store.OpenReadOnly(ctx, dsn)
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
