// Package postgres rolls a PostgreSQL schema back to its previous version, with Flyway's
// undo scripts or with a command that the playbook names.
//
// This loses the data that the newer version wrote, and nothing here restores it. So the
// order is fixed: the application's roles lose their login and their sessions end; pg_dump
// writes a snapshot; the undo scripts run, in one transaction where possible; the result
// is verified; the roles get their login back. Without a snapshot there is no rollback.
//
// A manifest, one file for each operation next to its snapshot, records the progress; each
// step is written to it before the next one starts. After a crash, the manifest and the
// database together show where it stopped. If nothing but the login was taken away, the
// roles get it back; once a script is committed, the rollback must be finished.
//
// Statements that change the database use the simple protocol, reads the extended one;
// files and programs that change something go through seams.do, which tests replace.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// The waits that hold where the playbook has none of its own.
const (
	defaultLockTimeout      = 5 * time.Second
	defaultStatementTimeout = 5 * time.Minute
)

// Options are what a client needs.
type Options struct {
	// SnapshotDir is where snapshots, manifests and logs are kept; it is made when
	// the first one is written, for its owner only.
	SnapshotDir string
	// Environ is the environment that pg_dump, pg_restore and commands take their
	// PATH from, and nothing else.
	Environ []string
	Logger  *slog.Logger
}

// Client makes actions. It keeps no connection open.
type Client struct {
	dir    string
	path   string // PATH
	logger *slog.Logger
	seams  seams
}

// seams are where tests cut.
type seams struct {
	dial pgconn.DialFunc // nil: pgx's own
	// do does one thing outside of the database that changes something.
	do func(ctx context.Context, what string, do func(context.Context) error) error
}

// New returns a client. It does not connect.
func New(o Options) (*Client, error) {
	if o.SnapshotDir == "" {
		return nil, hint.Add(errors.New("a folder for snapshots is required"), "snapshots: {dir: /var/lib/backout/snapshots}")
	}
	if o.Logger == nil {
		return nil, errors.New("a logger is required")
	}
	dir, err := filepath.Abs(o.SnapshotDir)
	if err != nil {
		return nil, fmt.Errorf("folder for snapshots: %w", err)
	}
	c := &Client{dir: dir, logger: o.Logger}
	for _, v := range o.Environ {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			c.path = path
		}
	}
	c.seams.do = func(ctx context.Context, _ string, do func(context.Context) error) error { return do(ctx) }
	return c, nil
}

// SnapshotDir is where the snapshots are, an absolute path.
func (c *Client) SnapshotDir() string { return c.dir }

// rollback is one action.
type rollback struct {
	c      *Client
	spec   remediation.SchemaRollback
	target version // of flyway
}

// Rollback returns the action that takes one schema back. It looks at nothing
// outside.
//
// Wanted means: the schema is at the wanted version or below it, and the
// application's roles can log in. HalfWay means: this operation's manifest says
// that it has begun and not ended.
func (c *Client) Rollback(s remediation.SchemaRollback) (remediation.Action, error) {
	r := &rollback{c: c, spec: s}
	switch {
	case s.Service == "":
		return nil, errors.New("a schema needs the name of its service")
	case s.DSNFile == "":
		return nil, hint.Add(errors.New("schema_rollback needs dsn_file for the snapshot"),
			"dsn_file: /etc/backout/database.dsn, which holds postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	case !filepath.IsAbs(s.DSNFile):
		return nil, hint.Add(fmt.Errorf("dsn_file %q is not an absolute path", s.DSNFile), "dsn_file: /etc/backout/database.dsn")
	case len(s.Roles) == 0 || slices.Contains(s.Roles, ""):
		return nil, hint.Add(errors.New("schema_rollback needs the application's roles, to disconnect it"), "application_roles: [social_intel]")
	case s.Flyway != nil && len(s.Command) > 0:
		return nil, hint.Add(errors.New("flyway and command are both given"), "leave one of them out")
	case s.Flyway == nil && len(s.Command) == 0:
		return nil, hint.Add(errors.New("neither flyway nor command is given"), "flyway: {dir: /srv/social-intel/db/migrations, version: 1.0.0}")
	case s.Flyway == nil && strings.TrimSpace(s.Wanted) == "":
		return nil, hint.Add(errors.New("a command needs a query that reports whether it has done its work"), "wanted: SELECT to_regclass('public.forecasts') IS NULL")
	case s.Tolerated == nil:
		return nil, errors.New("cannot check whether the code tolerates the older schema")
	}
	if s.Flyway != nil {
		var err error
		if r.target, err = parseVersion(s.Flyway.Version); err != nil {
			return nil, fmt.Errorf("flyway.version: %w", err)
		}
		if !filepath.IsAbs(s.Flyway.Dir) {
			return nil, fmt.Errorf("flyway.dir %q is not an absolute path", s.Flyway.Dir)
		}
	}
	if r.spec.LockTimeout <= 0 {
		r.spec.LockTimeout = defaultLockTimeout
	}
	if r.spec.StatementTimeout <= 0 {
		r.spec.StatementTimeout = defaultStatementTimeout
	}
	return r, nil
}
