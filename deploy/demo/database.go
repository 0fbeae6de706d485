package demo

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/hint"
)

// cluster is the PostgreSQL in which each stack makes a database and a role of
// its own; others may use it at the same time.
type cluster struct {
	dsn    string // of a role that may make databases and roles
	socket string // the folder of its Unix socket, which the service's container sees
	port   uint16
}

// newCluster takes a cluster's address apart; nothing is connected to.
func newCluster(dsn, socket string) (cluster, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return cluster{}, errors.New("BACKOUT_POSTGRES_DSN is not the address of a PostgreSQL server") // the cause has its password
	}
	return cluster{dsn: dsn, socket: socket, port: cfg.Port}, nil
}

// findCluster looks in the environment for a PostgreSQL to use, and asks for its version.
func findCluster(ctx context.Context, env func(string) string) (c cluster, version string, err error) {
	dsn, socket := env("BACKOUT_POSTGRES_DSN"), env("BACKOUT_POSTGRES_SOCKET")
	if dsn == "" || socket == "" {
		return cluster{}, "", hint.Add(fmt.Errorf("%w: BACKOUT_POSTGRES_DSN and BACKOUT_POSTGRES_SOCKET name no PostgreSQL", ErrMissing),
			"make demo, which starts a private one")
	}
	if c, err = newCluster(dsn, socket); err == nil {
		err = c.with(ctx, "", func(conn *pgx.Conn) error { return conn.QueryRow(ctx, "SHOW server_version").Scan(&version) })
	}
	if err != nil {
		return cluster{}, "", hint.Add(fmt.Errorf("%w: %w", ErrMissing, err), "make demo, which starts a private one")
	}
	version, _, _ = strings.Cut(version, " ")
	return c, version, nil
}

// with connects to one of the cluster's databases, "" for the one that the address names.
func (c cluster) with(ctx context.Context, name string, do func(conn *pgx.Conn) error) error {
	cfg, err := pgx.ParseConfig(c.dsn)
	if err != nil {
		return errors.New("the address of PostgreSQL is none")
	}
	if name != "" {
		cfg.Database = name
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL's database %q: %w", cfg.Database, err)
	}
	err = do(conn)
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// database is what the stack's database and its role are called. Roles are the whole cluster's.
func (s *stack) database() string { return strings.ReplaceAll(s.base().project, "-", "_") }
func (s *stack) role() string     { return "social_intel_" + s.database() }

// databaseURL is the address of the stack's database for role, without a
// password, through a folder that has the cluster's socket.
func (s *stack) databaseURL(role, folder string) string {
	query := url.Values{"host": {folder}, "port": {strconv.Itoa(int(s.cluster.port))}}
	return "postgres://" + role + "@/" + s.database() + "?" + query.Encode()
}

// adminDSN is the address of the stack's database for the cluster's own role,
// with its password if it has one.
func (s *stack) adminDSN() (string, error) {
	cfg, err := pgx.ParseConfig(s.cluster.dsn)
	if err != nil {
		return "", errors.New("the address of PostgreSQL is none")
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(cfg.User, cfg.Password), Path: "/" + s.database()}
	if cfg.Password == "" {
		u.User = url.User(cfg.User)
	}
	port := strconv.Itoa(int(cfg.Port))
	if filepath.IsAbs(cfg.Host) {
		u.RawQuery = url.Values{"host": {cfg.Host}, "port": {port}}.Encode()
	} else {
		u.Host = net.JoinHostPort(cfg.Host, port)
	}
	return u.String(), nil
}

// createDatabase makes the service's database and its role, and brings the
// schema to the release's version.
func (s *stack) createDatabase(ctx context.Context) error {
	if err := s.dropDatabase(ctx); err != nil {
		return err
	}
	role := pgx.Identifier{s.role()}.Sanitize()
	err := s.cluster.with(ctx, "", func(conn *pgx.Conn) error {
		// The password is hexadecimal, so that quoting it is simple.
		if _, err := conn.Exec(ctx, "CREATE ROLE "+role+" LOGIN PASSWORD '"+s.token["database"]+"'"); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{s.database()}.Sanitize())
		return err
	})
	if err != nil {
		return fmt.Errorf("make database %s: %w", s.database(), err)
	}
	err = s.inDatabase(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE ON TABLES TO "+role)
		if err == nil {
			_, err = conn.Exec(ctx, historyTable)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("set database %s up: %w", s.database(), err)
	}
	return s.migrate(ctx)
}

// dropDatabase removes the database and its role, even while somebody is connected.
func (s *stack) dropDatabase(ctx context.Context) error {
	err := s.cluster.with(ctx, "", func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{s.database()}.Sanitize()+" WITH (FORCE)")
		if err == nil {
			_, err = conn.Exec(ctx, "DROP ROLE IF EXISTS "+pgx.Identifier{s.role()}.Sanitize())
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("remove database %s: %w", s.database(), err)
	}
	return nil
}

func (s *stack) inDatabase(ctx context.Context, do func(conn *pgx.Conn) error) error {
	return s.cluster.with(ctx, s.database(), do)
}

// historyTable is Flyway's, as it makes it.
const historyTable = `CREATE TABLE flyway_schema_history (
  installed_rank integer NOT NULL CONSTRAINT flyway_schema_history_pk PRIMARY KEY,
  version        varchar(50),
  description    varchar(200) NOT NULL,
  type           varchar(20) NOT NULL,
  script         varchar(1000) NOT NULL,
  checksum       integer,
  installed_by   varchar(100) NOT NULL,
  installed_on   timestamp NOT NULL DEFAULT now(),
  execution_time integer NOT NULL,
  success        boolean NOT NULL
);
CREATE INDEX flyway_schema_history_s_idx ON flyway_schema_history (success)`

// migrate applies the versioned scripts that are not applied, as `flyway
// migrate` would, and writes its history.
func (s *stack) migrate(ctx context.Context) error {
	scripts, err := fs.Glob(files, "files/migrations/V*.sql")
	if err != nil {
		return err
	}
	slices.Sort(scripts)
	return s.inDatabase(ctx, func(conn *pgx.Conn) error {
		applied, rank, err := history(ctx, conn)
		if err != nil {
			return err
		}
		for _, script := range scripts {
			name := path.Base(script)
			version, description, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(name, "V"), ".sql"), "__")
			if slices.Contains(applied, version) {
				continue
			}
			text, err := fs.ReadFile(files, script)
			if err != nil {
				return err
			}
			rank++
			begin := time.Now()
			err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				// Several statements at once are the simple protocol's.
				if _, err := tx.Exec(ctx, string(text), pgx.QueryExecModeSimpleProtocol); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `INSERT INTO flyway_schema_history
					(installed_rank, version, description, type, script, checksum, installed_by, execution_time, success)
					VALUES ($1, $2, $3, 'SQL', $4, $5, current_user, $6, true)`,
					rank, version, strings.ReplaceAll(description, "_", " "), name, checksum(text), time.Since(begin).Milliseconds())
				return err
			})
			if err != nil {
				return fmt.Errorf("migrate %s: %s: %w", s.database(), name, err)
			}
		}
		return nil
	})
}

// history returns the versions that are applied, in their order, and the last rank.
func history(ctx context.Context, conn *pgx.Conn) (applied []string, rank int, err error) {
	rows, err := conn.Query(ctx, "SELECT installed_rank, version, type FROM flyway_schema_history WHERE success ORDER BY installed_rank")
	if err != nil {
		return nil, 0, err
	}
	var version, kind string
	_, err = pgx.ForEachRow(rows, []any{&rank, &version, &kind}, func() error {
		if strings.HasPrefix(kind, "UNDO") {
			applied = slices.DeleteFunc(applied, func(v string) bool { return v == version })
		} else {
			applied = append(applied, version)
		}
		return nil
	})
	return applied, rank, err
}

// checksum is Flyway's: a CRC-32 over the lines without their ends.
func checksum(script []byte) int32 {
	sum := crc32.NewIEEE()
	for line := range strings.Lines(string(script)) {
		_, _ = sum.Write([]byte(strings.TrimRight(line, "\r\n"))) // a hash takes everything
	}
	return int32(sum.Sum32())
}

// schema is the version that the database's schema is at, by Flyway's history.
func (s *stack) schema(ctx context.Context) (version string, err error) {
	err = s.inDatabase(ctx, func(conn *pgx.Conn) error {
		applied, _, err := history(ctx, conn)
		if err == nil && len(applied) > 0 {
			version = applied[len(applied)-1]
		}
		return err
	})
	return version, err
}

// writeMigrations puts the scripts where the playbook says that they are.
func (s *stack) writeMigrations() error {
	scripts, err := fs.Glob(files, "files/migrations/*.sql")
	if err != nil {
		return err
	}
	for _, script := range scripts {
		text, err := fs.ReadFile(files, script)
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.path("migrations", path.Base(script)), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// goViral writes as many views at once as the running total of V2.0.0 just
// holds. Every write after it fails, and only the older schema helps.
func (s *stack) goViral(ctx context.Context) error {
	err := s.inDatabase(ctx, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			var total int64
			if err := tx.QueryRow(ctx, "SELECT total FROM trend_totals WHERE channel = 'launch' FOR UPDATE").Scan(&total); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "INSERT INTO views (channel, views) VALUES ('launch', $1)", math.MaxInt32-total)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("write the views of a channel that went viral: %w", err)
	}
	return nil
}
