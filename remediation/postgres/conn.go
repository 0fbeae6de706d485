package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/locotoki/backout/remediation"
)

const (
	connectTimeout = 10 * time.Second
	// lookTimeout bounds one statement of a look.
	lookTimeout = 10 * time.Second
	// patience is how long is waited for sessions and locks of our own.
	patience = 15 * time.Second
	pause    = 50 * time.Millisecond
	// lockNotAvailable is what the server says where lock_timeout ended a wait.
	lockNotAvailable = "55P03"
	// lockKey is that of the advisory lock that a rollback holds: "backout".
	lockKey = 0x6261636b6f7574
)

// work is one call of an action's method.
type work struct {
	*rollback
	op   string
	addr *address
	conn *pgx.Conn
	m    *manifest
}

// tag names an operation to the server and to what a command starts, so that
// both are known after a crash.
func (r *rollback) tag(op string) string {
	sum := sha256.Sum256([]byte(r.base(op)))
	return "backout " + hex.EncodeToString(sum[:8])
}

// unheardError is one of a call that the server did not answer: it says nothing about
// the schema.
type unheardError struct{ error }

func (e *unheardError) Unwrap() error { return e.error }

// unheard marks in doubt an error that says nothing about the schema: the server could not
// be reached, broke off, or had no means to answer.
func unheard(err error) error {
	var silence *unheardError
	var said *pgconn.PgError
	switch {
	case errors.As(err, &silence):
		return remediation.InDoubt(err)
	case !errors.As(err, &said):
		return err
	}
	switch said.Code[:min(2, len(said.Code))] {
	case "40", "53", "57", "58": // a deadlock, no resources, a person or a limit ended it, the system failed
		return remediation.InDoubt(err)
	}
	if said.Code == lockNotAvailable {
		return remediation.InDoubt(err)
	}
	return err
}

// with connects, reads the manifest and calls do. What is said by any error is
// said here, without the password.
func (r *rollback) with(ctx context.Context, op, name string, do func(w *work) error) error {
	addr, err := readAddress(r.spec.DSNFile)
	if err != nil {
		return &unheardError{fmt.Errorf("schema of %s: %w", r.spec.Service, err)}
	}
	err = func() error {
		w := &work{rollback: r, op: op, addr: addr}
		if w.m, err = r.load(op); err != nil {
			return &unheardError{err}
		}
		if w.conn, err = w.connect(ctx, name); err != nil {
			return &unheardError{err}
		}
		defer part(ctx, w.conn)
		if err = do(w); err != nil && w.conn.IsClosed() {
			err = &unheardError{err}
		}
		return err
	}()
	if err != nil {
		err = addr.scrubError(fmt.Errorf("schema of %s: %w", r.spec.Service, err))
	}
	return err
}

// connect opens a session that is called name.
func (w *work) connect(ctx context.Context, name string) (*pgx.Conn, error) {
	config := w.addr.config.Copy()
	locks, timeout := w.spec.LockTimeout, w.spec.StatementTimeout
	switch name {
	case w.tag(w.op):
	case trialName:
		locks, timeout = min(tryLocks, locks), tryTimeout
	default:
		timeout = min(timeout, lookTimeout)
	}
	config.RuntimeParams = map[string]string{
		"application_name":            name,
		"client_encoding":             "UTF8",
		"client_min_messages":         "warning",
		"standard_conforming_strings": "on",
		"lock_timeout":                milliseconds(locks),
		"statement_timeout":           milliseconds(timeout),
	}
	if w.c.seams.dial != nil {
		config.DialFunc = w.c.seams.dial
	}
	if config.ConnectTimeout <= 0 || config.ConnectTimeout > connectTimeout {
		config.ConnectTimeout = connectTimeout
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("the database cannot be reached: %w", err)
	}
	return conn, nil
}

// part ends a session; what was not committed in it is not to be. Nothing is
// left to be said to it, so that no answer is waited for long.
func part(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10)
}

// change sends statements that change something.
func change(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// doubtful marks an error after which nobody knows what the server did: all but
// its own refusals.
func doubtful(err error) error {
	var refusal *pgconn.PgError
	if err == nil || errors.As(err, &refusal) && (refusal.SeverityUnlocalized == "ERROR" || refusal.SeverityUnlocalized == "" && refusal.Severity == "ERROR") {
		return err
	}
	var definite *definiteError
	if errors.As(err, &definite) {
		return err
	}
	return remediation.InDoubt(err)
}

// definiteError is one of our own findings, in the midst of an operation.
type definiteError struct{ error }

func (e *definiteError) Unwrap() error { return e.error }

func definite(format string, args ...any) error {
	return &definiteError{fmt.Errorf(format, args...)}
}

// lock makes sure that one rollback works on a database at a time. It ends with
// the session.
func (w *work) lock(ctx context.Context) error {
	return w.await(ctx, "another rollback is working on this database", func() (bool, error) {
		var got bool
		err := w.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(lockKey)).Scan(&got)
		return got, err
	})
}

// await asks again and again until something is so.
func (w *work) await(ctx context.Context, otherwise string, is func() (bool, error)) error {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		ok, err := is()
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("%s: %w", otherwise, ctx.Err())
		}
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", otherwise, ctx.Err())
		case <-limit.C:
			return definite("%s, for %s now", otherwise, patience)
		case <-time.After(pause):
		}
	}
}

// otherSessions counts the sessions of this operation, but for our own, that do
// something: what a crash left on the server.
func (w *work) otherSessions(ctx context.Context) (n int, err error) {
	err = w.conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity
		WHERE application_name = $1 AND datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'`, w.tag(w.op)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("look for sessions of this operation: %w", err)
	}
	return n, nil
}

// noSessions waits until nothing that a crash left is at work any more.
func (w *work) noSessions(ctx context.Context) error {
	return w.await(ctx, "this operation's previous attempt is still running", func() (bool, error) {
		n, err := w.otherSessions(ctx)
		return n == 0 && len(survivors(w.tag(w.op))) == 0, err
	})
}

// clear ends what a crash left, and waits until it is gone.
func (w *work) clear(ctx context.Context) error {
	return w.await(ctx, "this operation's previous attempt does not end", func() (bool, error) {
		left := survivors(w.tag(w.op))
		endAll(left)
		var n int
		err := w.conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE application_name = $1 AND datname = current_database() AND pid <> pg_backend_pid()`, w.tag(w.op)).Scan(&n)
		return n == 0 && len(left) == 0, err
	})
}

// literals are texts as a list in a statement.
func literals(texts []string) string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = "'" + strings.ReplaceAll(t, "'", "''") + "'"
	}
	return strings.Join(quoted, ", ")
}

// raw is a snapshot as the audit log takes it.
func (w *work) raw(s snapshot) (json.RawMessage, error) {
	raw, err := json.Marshal(s)
	return json.RawMessage(w.addr.scrub(string(raw))), err
}
