// Package postgres takes the schema of a PostgreSQL database back to its previous
// version: by Flyway's undo scripts, or by a command that the playbook names.
//
// Data that the newer version wrote is lost by this, and nothing here brings it
// back, so that the order is fixed: the application's roles lose their login and
// its sessions end; pg_dump writes a snapshot; the undo scripts run, all in one
// transaction where they can; the result is verified; the roles get their login
// back. Without a snapshot there is no rollback.
//
// A manifest, one file for each operation beside its snapshot, says how far the
// operation is; each step is written there before the next one begins. After a
// crash, the manifest and the database together tell where it stopped. What had
// only been cut off is let back; once a script is committed, the way leads forward.
//
// What changes the database goes by the simple protocol, and what only reads by
// the extended one; files and programs that change something pass seams.do. Tests
// cut there.
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

// New returns a client. Nothing is connected to.
func New(o Options) (*Client, error) {
	if o.SnapshotDir == "" {
		return nil, errors.New("a folder for snapshots is needed; try: snapshots: {dir: /var/lib/backout/snapshots}")
	}
	if o.Logger == nil {
		return nil, errors.New("a logger is needed")
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
		return nil, errors.New("schema_rollback needs dsn_file for the snapshot; try: dsn_file: /etc/backout/database.dsn, which holds postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	case !filepath.IsAbs(s.DSNFile):
		return nil, fmt.Errorf("dsn_file %q is not an absolute path; try: dsn_file: /etc/backout/database.dsn", s.DSNFile)
	case len(s.Roles) == 0 || slices.Contains(s.Roles, ""):
		return nil, errors.New("schema_rollback needs the roles that the application connects as, to cut it off; try: application_roles: [social_intel]")
	case s.Flyway != nil && len(s.Command) > 0:
		return nil, errors.New("flyway and command are both given; try: leave one of them out")
	case s.Flyway == nil && len(s.Command) == 0:
		return nil, errors.New("neither flyway nor command is given; try: flyway: {dir: /srv/social-intel/db/migrations, version: 1.0.0}")
	case s.Flyway == nil && strings.TrimSpace(s.Wanted) == "":
		return nil, errors.New("a command needs a query that tells whether it has done its work; try: wanted: SELECT to_regclass('public.forecasts') IS NULL")
	case s.Tolerated == nil:
		return nil, errors.New("whether the code tolerates the older schema cannot be asked")
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
