// Package storetest is the conformance suite of remediation.Store: what the
// engine relies on, whichever database is behind it. It also has a store that
// crashes at a commit of choice, for tests of what is built on stores.
package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// Run runs the suite. open opens the store that is kept in a folder, which is
// empty at first; it fails the test where it cannot. A folder is opened again
// only after its store was closed.
func Run(t *testing.T, open func(t *testing.T, dir string) remediation.Store) {
	for _, group := range [][]test{transactionTests, incidentTests, alertTests, auditTests, serviceTests, outboxTests, preflightTests, rehearsalTests, replicaTests} {
		for _, c := range group {
			t.Run(c.name, func(t *testing.T) {
				s := &suite{T: t, dir: t.TempDir(), open: open, ctx: t.Context()}
				s.store = open(t, s.dir)
				defer func() { s.must(s.store.Close()) }()
				c.run(s)
			})
		}
	}
}

// test is one statement about stores.
type test struct {
	name string
	run  func(s *suite)
}

// suite is one test's store.
type suite struct {
	*testing.T
	ctx   context.Context
	dir   string
	open  func(t *testing.T, dir string) remediation.Store
	store remediation.Store
}

// noon is a moment with all the digits that a store keeps.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// reopen closes the store and opens it again.
func (s *suite) reopen() {
	s.Helper()
	s.must(s.store.Close())
	s.store = s.open(s.T, s.dir)
}

func (s *suite) update(fn func(remediation.Tx) error, alerts ...string) {
	s.Helper()
	s.must(remediation.UpdateAlerts(s.ctx, s.store, alerts, fn))
}

func (s *suite) view(fn func(remediation.Tx) error) {
	s.Helper()
	s.must(s.store.View(s.ctx, fn))
}

// both runs a check in a View, then in an Update, then in a View of the store
// opened again: what is written reads alike everywhere.
func (s *suite) both(fn func(remediation.Tx) error) {
	s.Helper()
	s.view(fn)
	s.update(fn)
	s.reopen()
	s.view(fn)
}

// put adds an open incident of a service.
func (s *suite) put(service string, edit ...func(*remediation.Incident)) *remediation.Incident {
	s.Helper()
	inc := &remediation.Incident{Service: service, State: remediation.Confirming, Opened: noon, Since: noon}
	for _, e := range edit {
		e(inc)
	}
	s.update(func(tx remediation.Tx) error { return tx.PutIncident(inc) })
	return inc
}

// closed makes a new incident a closed one.
func closed(inc *remediation.Incident) {
	t := noon
	inc.State, inc.Closed = remediation.Closed, &t
}

// appendEntry appends an entry that says which one it is.
func appendEntry(tx remediation.Tx, name string) error {
	_, err := tx.Append(audit.Entry{Time: noon, Kind: audit.KindStarted, Actor: name})
	return err
}

// actors lists who appended what is in the log.
func (s *suite) actors() []string {
	s.Helper()
	out := []string{}
	s.view(func(tx remediation.Tx) error {
		es, err := tx.Entries(audit.Filter{})
		for _, e := range es {
			out = append(out, e.Actor)
		}
		return err
	})
	return out
}

// chain checks the whole log and returns its length.
func (s *suite) chain() int64 {
	s.Helper()
	var c audit.Chain
	s.view(func(tx remediation.Tx) error {
		es, err := tx.Entries(audit.Filter{})
		if err != nil {
			return err
		}
		for _, e := range es {
			if err := c.Add(e); err != nil {
				return err
			}
		}
		seq, hash, err := tx.Head()
		if err != nil {
			return err
		}
		if wantSeq, wantHash := c.Head(); seq != wantSeq || hash != wantHash {
			return fmt.Errorf("the head is %d %s, the log ends with %d %s", seq, hash, wantSeq, wantHash)
		}
		return nil
	})
	seq, _ := c.Head()
	return seq
}

// odd are texts that a store must give back as they are.
var odd = []string{
	"", "plain", "a\x00b\x00", "\x00", "\u2028\u2029<&>", "\"'\\;--", "\U0001f6a8 größer", "'; DROP TABLE audit; --", "%_*?[", "\r\n\t\x01\x7f",
}
