package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/hint"
)

// role is one of the application's.
type role struct {
	Name  string `json:"name"`
	Login yesNo  `json:"login"`
}

// yesNo is a truth as the audit log takes it.
type yesNo string

func yes(b bool) yesNo {
	if b {
		return "yes"
	}
	return "no"
}

// readRoles returns the application's roles as they are, or says why one of them
// cannot be cut off.
func (w *work) readRoles(ctx context.Context) ([]role, error) {
	q, err := w.conn.Query(ctx, `
		SELECT n.name, r.oid IS NOT NULL, coalesce(r.rolcanlogin, false), coalesce(r.rolsuper, false),
			n.name IN (session_user, current_user),
			me.rolsuper OR me.rolcreaterole AND (current_setting('server_version_num')::int < 160000
				OR coalesce(pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION'), false)),
			me.rolsuper OR coalesce(pg_has_role(r.oid, 'USAGE'), false) OR pg_has_role('pg_signal_backend', 'USAGE')
		FROM unnest($1::text[]) WITH ORDINALITY n (name, place)
		LEFT JOIN pg_roles r ON r.rolname = n.name
		JOIN pg_roles me ON me.rolname = current_user
		ORDER BY n.place`, w.spec.Roles)
	if err != nil {
		return nil, fmt.Errorf("inspect application_roles: %w", err)
	}
	var roles []role
	var problems []error
	var name string
	var exists, login, super, ours, alters, signals bool
	_, err = pgx.ForEachRow(q, []any{&name, &exists, &login, &super, &ours, &alters, &signals}, func() error {
		bad := func(what, try string, args ...any) {
			problems = append(problems, hint.Add(fmt.Errorf("application role %s %s", name, what), try, args...))
		}
		switch {
		case !exists:
			bad("does not exist", `\du in psql, and application_roles`)
		case ours:
			bad("is the role that backout connects as: it would disconnect itself", "a role of its own in dsn_file")
		case super:
			bad("is a superuser", "ALTER ROLE %s NOSUPERUSER", pgx.Identifier{name}.Sanitize())
		case !alters:
			bad("cannot be altered by "+w.addr.config.User, "ALTER ROLE %s CREATEROLE (from PostgreSQL 16 on also GRANT %s TO it WITH ADMIN OPTION)", w.addr.config.User, name)
		case !signals:
			bad("has sessions that "+w.addr.config.User+" cannot end", "GRANT pg_signal_backend TO %s", w.addr.config.User)
		default:
			roles = append(roles, role{name, yes(login)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("inspect application_roles: %w", err)
	}
	return roles, errors.Join(problems...)
}

// sessions are those of a role outside of application_roles, which goes on writing.
type sessions struct {
	Role     string `json:"role"`
	Sessions int    `json:"sessions"`
}

// otherRoles returns the roles, but for ours and the application's, that have sessions in
// the database.
func (w *work) otherRoles(ctx context.Context) ([]sessions, error) {
	q, err := w.conn.Query(ctx, `SELECT usename::text, count(*)::int FROM pg_stat_activity
		WHERE datname = current_database() AND usename <> session_user AND NOT usename = ANY ($1::text[])
		GROUP BY 1 ORDER BY 1`, w.spec.Roles)
	if err != nil {
		return nil, fmt.Errorf("look for sessions of other roles: %w", err)
	}
	found, err := pgx.CollectRows(q, pgx.RowToStructByPos[sessions])
	if err != nil {
		return nil, fmt.Errorf("look for sessions of other roles: %w", err)
	}
	return found, nil
}

// otherDatabases returns those of the server in which the application's roles have sessions:
// they cannot log in there either while a rollback runs.
func (w *work) otherDatabases(ctx context.Context) ([]string, error) {
	q, err := w.conn.Query(ctx, `SELECT DISTINCT datname::text FROM pg_stat_activity
		WHERE datname <> current_database() AND usename = ANY ($1::text[]) ORDER BY 1`, w.spec.Roles)
	if err != nil {
		return nil, fmt.Errorf("look for the application's other databases: %w", err)
	}
	found, err := pgx.CollectRows(q, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for the application's other databases: %w", err)
	}
	return found, nil
}

// ours returns those roles that could log in before the operation.
func (m *manifest) ours() []string {
	var names []string
	for _, r := range m.Plan.Roles {
		if r.Login == "yes" {
			names = append(names, r.Name)
		}
	}
	return names
}

// out returns those of the roles that cannot log in now.
func out(now []role, names []string) []string {
	var cut []string
	for _, r := range now {
		if r.Login == "no" && slices.Contains(names, r.Name) {
			cut = append(cut, r.Name)
		}
	}
	return cut
}

// alter gives roles a property, all of them or none.
func (w *work) alter(ctx context.Context, names []string, property string) error {
	if len(names) == 0 {
		return nil
	}
	var statements strings.Builder
	for _, n := range names {
		statements.WriteString("ALTER ROLE " + pgx.Identifier{n}.Sanitize() + " " + property + "; ")
	}
	if err := change(ctx, w.conn, statements.String()); err != nil {
		return fmt.Errorf("alter role %s %s: %w", strings.Join(names, ", "), property, err)
	}
	return nil
}

// cutOff takes the application's roles their login, and ends their sessions.
// Who was just logging in is found by looking once more. wrote: until now, the
// application could write.
func (w *work) cutOff(ctx context.Context) (wrote bool, err error) {
	now, err := w.readRoles(ctx)
	if err != nil {
		return false, err
	}
	in := slices.DeleteFunc(w.m.ours(), func(n string) bool { return slices.Contains(out(now, w.m.ours()), n) })
	wrote = len(in) > 0
	if err := w.alter(ctx, in, "NOLOGIN"); err != nil {
		return wrote, err
	}
	where := "FROM pg_stat_activity WHERE datname = current_database() AND usename IN (" + literals(w.spec.Roles) + ")"
	quiet := 0
	err = w.await(ctx, "sessions of the application do not end", func() (bool, error) {
		var n int
		if err := w.conn.QueryRow(ctx, "SELECT count(*) "+where).Scan(&n); err != nil {
			return false, fmt.Errorf("look for sessions of the application: %w", err)
		}
		if n == 0 {
			quiet++
			return quiet == 2, nil
		}
		quiet, wrote = 0, true
		if err := change(ctx, w.conn, "SELECT pg_terminate_backend(pid) "+where); err != nil {
			return false, fmt.Errorf("end sessions of the application: %w", err)
		}
		return false, nil
	})
	return wrote, err
}

// restoreLogins gives the application's roles the login that they had.
func (w *work) restoreLogins(ctx context.Context) error {
	now, err := w.readRoles(ctx)
	if err != nil {
		return err
	}
	return w.alter(ctx, out(now, w.m.ours()), "LOGIN")
}
