package postgres

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

// A rollback that succeeded must not be called failed because nobody answered.
func TestAVerificationThatTheServerDoesNotAnswerDecidesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		with func(w *harness)
		says string
	}{
		"nobody listens":       {func(w *harness) { w.address2("postgres://" + w.owner + ":" + w.secretURL() + "@127.0.0.1:1/" + w.name) }, "cannot be reached"},
		"too many connections": {func(w *harness) { w.exec("ALTER ROLE " + w.owner + " CONNECTION LIMIT 0") }, "53300"},
		"another password":     {func(w *harness) { w.exec("ALTER ROLE " + w.owner + " PASSWORD 'other'") }, "28P01"},
		"no login":             {func(w *harness) { w.exec("ALTER ROLE " + w.owner + " NOLOGIN") }, "28000"},
		"a database that is gone": {func(w *harness) {
			at := strings.LastIndex(w.dsn(), w.name)
			w.address2(w.dsn()[:at] + "gone_" + w.dsn()[at:])
		}, "3D000"},
		"no address": {func(w *harness) {
			if err := os.Remove(w.spec.DSNFile); err != nil {
				w.t.Fatal(err)
			}
		}, "is missing"},
		"a session that is ended": {func(w *harness) {
			w.byCommand()
			w.spec.Wanted = "SELECT pg_terminate_backend(pg_backend_pid())"
		}, "terminat"},
		"a limit": {func(w *harness) {
			w.byCommand()
			w.spec.StatementTimeout, w.spec.Wanted = 100*time.Millisecond, "SELECT pg_sleep(60) IS NULL"
		}, "statement timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.apply()
			c.with(w)
			err := w.action(nil).Verify(t.Context(), op)
			w.says(err, c.says)
			if !remediation.IsInDoubt(err) {
				t.Errorf("it is called a failure: %v", err)
			}
			if err := w.action(nil).Undo(t.Context(), op, nil); w.spec.Flyway != nil && !remediation.IsInDoubt(err) {
				t.Errorf("an undo that saw nothing leaves no doubt: %v", err)
			}
		})
	}
}

func TestAVerificationThatBreaksOffDecidesNothing(t *testing.T) {
	w := newHarness(t)
	w.apply()
	for n := 1; ; n++ {
		s := (&fault{n: -1}).seams()
		left := n
		s.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return &breaking{conn, &left}, err
		}
		err := w.action(s).Verify(t.Context(), op)
		if left > 0 {
			if err != nil || n < 5 {
				t.Errorf("after %d answers: %v", n, err)
			}
			return
		}
		if !remediation.IsInDoubt(err) {
			t.Errorf("broken off after %d answers: %v", n, err)
		}
	}
}

// breaking is a connection that breaks off after a number of answers.
type breaking struct {
	net.Conn
	left *int
}

func (b *breaking) Read(p []byte) (int, error) {
	if *b.left--; *b.left <= 0 {
		return 0, errors.Join(errCut, b.Close())
	}
	return b.Conn.Read(p)
}

func TestAVerificationThatSeesTheSchemaIsNotInDoubt(t *testing.T) {
	for name, c := range map[string]struct {
		with func(w *harness)
		says string
	}{
		"another version":              {func(w *harness) { w.migrate("V2.0.0__analytics.sql") }, "the schema is at 2.0.0"},
		"a query that is wrong by now": {func(w *harness) { w.byCommand(); w.spec.Wanted = "SELECT count(*) > 0 FROM forecasts" }, "does not exist"},
		"no right to read": {func(w *harness) {
			w.exec("ALTER TABLE flyway_schema_history OWNER TO " + w.text("SELECT current_user::text"))
		}, "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.apply()
			c.with(w)
			err := w.action(nil).Verify(t.Context(), op)
			w.says(err, c.says)
			if remediation.IsInDoubt(err) {
				t.Errorf("what was seen leaves doubt: %v", err)
			}
		})
	}
}

func TestNothingIsUndoneWhereNothingWasBegunThoughTheServerIsAway(t *testing.T) {
	w := newHarness(t)
	w.address2("postgres://" + w.owner + ":" + w.secretURL() + "@127.0.0.1:1/" + w.name)
	before := []byte("{}")
	if err := w.action(nil).Apply(t.Context(), op, before); err == nil || remediation.IsInDoubt(err) {
		t.Errorf("apply: %v", err)
	}
	if err := w.action(nil).Undo(t.Context(), op, before); err != nil {
		t.Error(err)
	}
}
