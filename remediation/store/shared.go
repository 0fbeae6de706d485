package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// Shared is a Store that other processes write too; leases decide which of them acts.
type Shared struct {
	*Store

	mu sync.Mutex
	// database is what the database's clock said, read when this process had its answer.
	database, read time.Time
	stop           context.CancelFunc
	done           chan struct{}
}

var _ remediation.SharedStore = (*Shared)(nil)

const (
	// clockEvery is how often the database's clock is read between transactions, and
	// clockSlow how long its answer may take: one that takes longer, as for a process that
	// was stopped meanwhile, says nothing.
	clockEvery = 3 * time.Second
	clockSlow  = time.Second
	// clockTries bounds how often a slow clock is asked before a store is opened.
	clockTries = 5
)

// OpenShared opens a PostgreSQL database that other processes may write too, and brings
// its schema up to date; ctx bounds that. It fails where the database's clock cannot be read.
func OpenShared(ctx context.Context, dsn string) (*Shared, error) {
	if !isPostgres(dsn) {
		return nil, hint.Add(wrongDSN("only a PostgreSQL database can be shared"), "postgres://USER@HOST/DATABASE")
	}
	db, err := newPostgres(dsn)
	if err != nil {
		return nil, err
	}
	return openSharedOn(ctx, db)
}

func openSharedOn(ctx context.Context, db *postgres) (*Shared, error) {
	st, err := db.open(ctx, postgresMigrations(), shared)
	if err != nil {
		return nil, err
	}
	s := &Shared{Store: st, done: make(chan struct{})}
	follow, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	err = errSlowClock
	for try := 0; try < clockTries && errors.Is(err, errSlowClock); try++ {
		err = s.ask(ctx)
	}
	if err != nil {
		stop()
		return nil, errors.Join(fmt.Errorf("%s: %w", db, err), st.Close())
	}
	go s.follow(follow)
	return s, nil
}

// errSlowClock: the database's answer took longer than clockSlow.
var errSlowClock = fmt.Errorf("its clock took more than %s to answer", remediation.Span(clockSlow))

// CanShare reports whether OpenShared can open what a dsn names.
func CanShare(dsn string) bool { return isPostgres(dsn) }

// follow keeps reading the database's clock until ctx ends.
func (s *Shared) follow(ctx context.Context) {
	defer close(s.done)
	ticker := time.NewTicker(clockEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = s.ask(ctx)
		}
	}
}

// ask reads the database's clock. After an error, what was known stays.
func (s *Shared) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return s.View(ctx, func(tx remediation.Tx) error {
		asked := time.Now() // not before: to connect may take long
		now, err := tx.Now()
		read := time.Now()
		if err == nil && read.Sub(asked) > clockSlow {
			err = errSlowClock
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.database, s.read = now, read
		return nil
	})
}

// Now implements remediation.SharedStore. It is behind the database's clock by no more
// than an answer took, and never ahead.
func (s *Shared) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.database.Add(time.Since(s.read)).Round(0).UTC()
}

// Close closes the store.
func (s *Shared) Close() error {
	s.stop()
	<-s.done
	return s.Store.Close()
}
