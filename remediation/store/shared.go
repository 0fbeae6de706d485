package store

import (
	"context"
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
)

// OpenShared opens a PostgreSQL database that other processes may write too, and brings
// its schema up to date.
func OpenShared(dsn string) (*Shared, error) {
	if !isPostgres(dsn) {
		return nil, hint.Add(wrongDSN("only a PostgreSQL database can be shared"), "postgres://USER@HOST/DATABASE")
	}
	db, err := newPostgres(dsn)
	if err != nil {
		return nil, err
	}
	st, err := db.open(postgresMigrations(), shared)
	if err != nil {
		return nil, err
	}
	s := &Shared{Store: st, done: make(chan struct{}), database: time.Now(), read: time.Now()}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.ask(ctx)
	go s.follow(ctx)
	return s, nil
}

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
			s.ask(ctx)
		}
	}
}

// ask reads the database's clock. An answer that does not come leaves what was known.
func (s *Shared) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	asked := time.Now()
	_ = s.View(ctx, func(tx remediation.Tx) error {
		now, err := tx.Now()
		read := time.Now()
		if err == nil && read.Sub(asked) <= clockSlow {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.database, s.read = now, read
		}
		return err
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
