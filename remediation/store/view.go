package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/locotoki/backout/remediation"
)

// View implements remediation.Store: fn sees the database as it was at its
// first read. Where ctx ends, a query that runs is interrupted.
func (s *SQLite) View(ctx context.Context, fn func(remediation.Tx) error) error {
	return s.view(ctx, func(t *tx) error { return fn(t) })
}

func (s *SQLite) view(ctx context.Context, fn func(*tx) error) error {
	select {
	case <-s.closing:
		return ErrClosed
	default:
	}
	var c *conn
	select {
	case c = <-s.reading:
	case <-ctx.Done():
		return fmt.Errorf("wait for the store: %w", context.Cause(ctx))
	case <-s.closing:
		return ErrClosed
	}
	defer func() { s.reading <- c }()
	if c == nil {
		fresh, err := s.connect("ro", readerPragmas)
		if err != nil {
			return err
		}
		c = fresh
	}
	if err := c.control("BEGIN"); err != nil {
		err = errors.Join(fmt.Errorf("begin reading: %w", err), c.close())
		c = nil // the next View connects anew
		return err
	}
	t := &tx{ctx: ctx, c: c}
	defer func() {
		t.over = true
		if err := c.control("ROLLBACK"); err != nil {
			_ = c.close() // the next View connects anew
			c = nil
		}
	}()
	err := fn(t)
	if err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}
