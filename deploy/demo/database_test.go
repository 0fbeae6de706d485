package demo

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestTheServiceLivesThroughALossOfItsDatabase(t *testing.T) {
	t.Parallel()
	s := newTestStack(t, "cut-off", asUsual)
	ctx := t.Context()
	must(t, s.up(ctx))
	s.untilAnswered(t, "/basic/views", http.StatusOK)
	s.untilAnswered(t, "/analytics/trends", http.StatusOK)

	role := pgx.Identifier{s.role()}.Sanitize()
	must(t, s.execute(ctx, "ALTER ROLE "+role+" NOLOGIN"))
	must(t, s.execute(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+s.role()+"'"))
	s.untilAnswered(t, "/analytics/trends", http.StatusInternalServerError)
	s.untilAnswered(t, "/basic/views", http.StatusOK)
	s.untilAnswered(t, "/health/", http.StatusOK)

	before, err := s.rows(ctx, "SELECT count(*) FROM views")
	must(t, err)
	must(t, s.execute(ctx, "ALTER ROLE "+role+" LOGIN"))
	until(t, "the service writes again", func(ctx context.Context) error {
		now, err := s.rows(ctx, "SELECT count(*) FROM views")
		if err == nil && now <= before {
			err = fmt.Errorf("there are %d rows, as before", now)
		}
		return err
	})
	kept, err := s.rows(ctx, "SELECT count(*) FROM views WHERE views > 1")
	must(t, err)
	if kept == 0 {
		t.Error("what was seen while the database was away was not written later")
	}
	s.untilAnswered(t, "/analytics/trends", http.StatusOK)
	metrics, err := fetch(ctx, s.client, s.url("service")+"/health/metrics", "")
	must(t, err)
	if line := `si_requests_total{endpoint="/basic/views",status="db_error"}`; strings.Contains(string(metrics), line) {
		t.Errorf("basic metrics failed meanwhile: %s is there", line)
	}
}

func TestABreachByTheNewSchemaEndsOnlyWithThePreviousSchema(t *testing.T) {
	t.Parallel()
	s := newTestStack(t, "viral", asUsual)
	ctx := t.Context()
	must(t, s.up(ctx))
	s.untilAnswered(t, "/basic/views", http.StatusOK)
	must(t, s.goViral(ctx))
	s.untilAnswered(t, "/basic/views", http.StatusInternalServerError)

	// Neither the flag nor the older version helps.
	must(t, s.engine.tag(ctx, s.image+":"+oldVersion, s.image+":latest"))
	must(t, s.setFlag("0"))
	must(t, s.up(ctx))
	version, err := s.version(ctx)
	must(t, err)
	if version != oldVersion {
		t.Fatalf("the service is %s", version)
	}
	s.untilAnswered(t, "/basic/views", http.StatusInternalServerError)

	undo, err := fs.ReadFile(files, "files/migrations/U2.0.0__rollback_trends.sql")
	must(t, err)
	must(t, s.execute(ctx, string(undo)))
	s.untilAnswered(t, "/basic/views", http.StatusOK)
}

// execute runs statements in the stack's database.
func (s *stack) execute(ctx context.Context, statements string) error {
	return s.inDatabase(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, statements, pgx.QueryExecModeSimpleProtocol)
		return err
	})
}

// rows returns what a query counts in the stack's database.
func (s *stack) rows(ctx context.Context, query string) (n int, err error) {
	err = s.inDatabase(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, query).Scan(&n) })
	return n, err
}

// inCluster counts the databases and roles that are called as the stack's are.
func (s *stack) inCluster(ctx context.Context) (databases, roles int, err error) {
	err = s.cluster.with(ctx, "", func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_database WHERE datname = $1), (SELECT count(*) FROM pg_roles WHERE rolname = $2)`,
			s.database(), s.role()).Scan(&databases, &roles)
	})
	return databases, roles, err
}

// untilAnswered waits until the service answers a path with a status.
func (s *stack) untilAnswered(t *testing.T, path string, status int) {
	t.Helper()
	until(t, fmt.Sprintf("%s answers %d", path, status), func(ctx context.Context) error {
		got, err := s.answers(ctx, path)
		if err == nil && got != status {
			err = fmt.Errorf("it answers %d", got)
		}
		return err
	})
}
