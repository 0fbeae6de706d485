package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// channel is the one that the service's load is about.
const channel = "launch"

// database is the service's, over one connection that is made anew whenever it
// is lost: being cut off does not end the service.
type database struct {
	config *pgx.ConnConfig
	turn   chan struct{} // holds one: whose turn it is

	// Below: for whose turn it is.
	conn      *pgx.Conn
	retry     time.Time // not before it is a lost connection tried again
	unwritten int64     // views that could not be written while there was no connection
}

// errAway: the database does not let us in, or is not there.
var errAway = errors.New("the database is away")

// retryAfter is the pause after an attempt that failed.
const retryAfter = 100 * time.Millisecond

// answerWithin bounds one question to the database, connecting included.
const answerWithin = 2 * time.Second

// newDatabase connects to nothing yet.
func newDatabase(address, passwordFile string) (*database, error) {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, fmt.Errorf("SOCIAL_INTEL_DATABASE: %w", err)
	}
	password, err := os.ReadFile(passwordFile)
	if err != nil {
		return nil, fmt.Errorf("SOCIAL_INTEL_DATABASE_PASSWORD_FILE: %w", err)
	}
	config.Password = strings.TrimSpace(string(password))
	// A schema that changes under the service makes prepared statements wrong.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	d := &database{config: config, turn: make(chan struct{}, 1)}
	d.turn <- struct{}{}
	return d, nil
}

// record counts a view. While the database is away it is kept in memory and
// written later: nobody who looks at basic metrics notices.
func (d *database) record(ctx context.Context) error {
	err := d.do(ctx, func(ctx context.Context) error {
		_, err := d.conn.Exec(ctx, "INSERT INTO views (channel, views) VALUES ($1, $2)", channel, d.unwritten+1)
		if err == nil {
			d.unwritten = 0
		}
		return err
	}, func() { d.unwritten++ })
	if errors.Is(err, errAway) {
		return nil
	}
	return err
}

// trend reads what phase 2's schema adds up.
func (d *database) trend(ctx context.Context) error {
	return d.do(ctx, func(ctx context.Context) error {
		var total int64
		err := d.conn.QueryRow(ctx, "SELECT total FROM trend_totals WHERE channel = $1", channel).Scan(&total)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	}, func() {})
}

// do waits for its turn and asks the database; away is called, still in turn, where that cannot be reached.
func (d *database) do(ctx context.Context, ask func(context.Context) error, away func()) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	select {
	case <-d.turn:
		defer func() { d.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	err := d.connected(ctx)
	if err == nil {
		err = ask(ctx)
	}
	if cut(err) {
		d.leave()
		away()
		return fmt.Errorf("%w: %w", errAway, err)
	}
	if d.conn.IsClosed() { // a question that was given up takes the connection with it
		d.conn = nil
	}
	return err
}

// connected makes sure of a connection.
func (d *database) connected(ctx context.Context) error {
	if d.conn != nil {
		return nil
	}
	if time.Now().Before(d.retry) {
		return errAway
	}
	conn, err := pgx.ConnectConfig(ctx, d.config)
	if err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	d.conn = conn
	return nil
}

// leave gives a lost connection up.
func (d *database) leave() {
	if d.conn != nil {
		// It is lost, so an error on closing it does not matter.
		_ = d.conn.Close(context.Background())
		d.conn = nil
		return
	}
	if now := time.Now(); !now.Before(d.retry) {
		d.retry = now.Add(retryAfter)
	}
}

// cut reports whether an error means that the database cut us off, rather than
// that it answered no, or not in time.
func cut(err error) bool {
	var answer *pgconn.PgError
	switch {
	case err == nil, errors.Is(err, pgx.ErrNoRows):
		return false
	case errors.Is(err, errAway):
		return true
	case errors.As(err, &answer):
		// 57P0x: the session is ended; 28xxx: the role may not log in.
		return strings.HasPrefix(answer.Code, "57P0") || strings.HasPrefix(answer.Code, "28")
	}
	return !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
}
