package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/locotoki/backout/remediation"
)

// View implements remediation.Store: fn sees the database as it was at its
// first read. Where ctx ends, a query that runs is interrupted.
func (s *Store) View(ctx context.Context, fn func(remediation.Tx) error) error {
	return s.view(ctx, func(t *tx) error { return fn(t) })
}

func (s *Store) view(ctx context.Context, fn func(*tx) error) error {
	select {
	case <-s.closing:
		return ErrClosed
	default:
	}
	var c conn
	select {
	case c = <-s.reading:
	case <-ctx.Done():
		return fmt.Errorf("wait for the store: %w", context.Cause(ctx))
	case <-s.closing:
		return ErrClosed
	}
	defer func() { s.reading <- c }()
	c, err := s.beginReading(ctx, c)
	if err != nil {
		return fmt.Errorf("begin reading: %w", err)
	}
	t := &tx{ctx: ctx, c: c}
	defer func() {
		t.over = true
		if err := c.rollback(); err != nil {
			_ = c.close() // the next View connects anew
			c = nil
		}
	}()
	err = fn(t)
	if err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// beginReading begins a transaction on a connection, on a new one where there is none
// or it was lost: a database may have been started again since its last use.
func (s *Store) beginReading(ctx context.Context, c conn) (conn, error) {
	if c != nil {
		if c.beginReading() == nil {
			return c, nil
		}
		_ = c.close()
	}
	c, err := s.db.connect(ctx, toRead)
	if err != nil {
		return nil, err
	}
	if err := c.beginReading(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}
