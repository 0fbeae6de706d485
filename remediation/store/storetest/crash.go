package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/crashtest"
)

// ErrCrash is what a store answers from its crash on.
var ErrCrash = errors.New("the store crashed")

// When says on which side of a commit a store crashes.
type When int

// The sides: nothing was written, or all of it was, and nobody was told.
const (
	BeforeCommit When = iota + 1
	AfterCommit
)

// String names the side.
func (w When) String() string {
	switch w {
	case BeforeCommit:
		return "before"
	case AfterCommit:
		return "after"
	}
	return fmt.Sprintf("When(%d)", int(w))
}

// Crashing returns a store that crashes at its nth Update (the first is 1): the
// Update and every later call fail with ErrCrash. The store behind it works on
// and is not closed by it: what stands for the next process opens or uses that.
func Crashing(store remediation.Store, n int, when When) remediation.Store {
	return &crashing{store: store, left: n, when: when}
}

// EveryCommit lives the same life again and again and crashes it at another
// commit each time, before the commit and after it; with -short at a sample of
// them. live gives its engine the store Crashing(store, commit, when), and reports
// whether that crashed. A life of fewer commits than least fails the test.
func EveryCommit(t *testing.T, least int, live func(t *testing.T, commit int, when When) (crashed bool)) {
	t.Helper()
	for _, when := range []When{BeforeCommit, AfterCommit} {
		t.Run(when.String(), func(t *testing.T) {
			t.Parallel()
			for n := range crashtest.Points(t) {
				crashed := false
				t.Run("commit "+strconv.Itoa(n+1), func(t *testing.T) { crashed = live(t, n+1, when) }) // what it opened is closed before the next
				if crashed {
					continue
				}
				if n < least {
					t.Fatalf("only %d commits", n)
				}
				return
			}
		})
	}
}

type crashing struct {
	store remediation.Store
	when  When

	mu      sync.Mutex
	left    int
	crashed bool
}

// count reports whether this Update is the one, or comes after it.
func (c *crashing) count() (now, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return false, true
	}
	c.left--
	c.crashed = c.left <= 0
	return c.crashed, false
}

func (c *crashing) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	now, over := c.count()
	switch {
	case over:
		return ErrCrash
	case !now:
		return c.store.Update(ctx, fn)
	case c.when == AfterCommit:
		if err := c.store.Update(ctx, fn); err != nil {
			return errors.Join(ErrCrash, err)
		}
		return ErrCrash
	}
	return c.store.Update(ctx, func(tx remediation.Tx) error {
		return errors.Join(ErrCrash, fn(tx))
	})
}

func (c *crashing) View(ctx context.Context, fn func(remediation.Tx) error) error {
	c.mu.Lock()
	crashed := c.crashed
	c.mu.Unlock()
	if crashed {
		return ErrCrash
	}
	return c.store.View(ctx, fn)
}

// Close leaves the store behind it open.
func (c *crashing) Close() error { return nil }
