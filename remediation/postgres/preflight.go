package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

const (
	// proofName is how a proof's sessions are called.
	proofName = "backout preflight"
	// trialName is how the session of a trial is called.
	trialName = "backout preflight trial"
	// tryLocks bounds how long a trial waits for a table that the application uses,
	// and so how long the application may wait behind it before the trial begins;
	// tryTimeout the whole trial, for whose locks it may wait meanwhile.
	tryLocks   = 2 * time.Second
	tryTimeout = 5 * time.Second
	// maxLag is how far a replica may be behind.
	maxLag = 5 * time.Second
)

var (
	_ remediation.SelfChecking = (*rollback)(nil)
	_ remediation.Sweeper      = (*rollback)(nil)
)

// Sweep implements remediation.Sweeper: a proof that is killed leaves the file of
// the password behind, a rehearsal its snapshot too.
func (r *rollback) Sweep(context.Context) error {
	w := &work{rollback: r, op: proofName, m: &manifest{}}
	return errors.Join(w.tidy(), r.throwAway())
}

// Checks implements remediation.SelfChecking.
func (r *rollback) Checks() []remediation.PreflightCheck {
	return []remediation.PreflightCheck{
		{ID: "schema/access", Name: "the database is reachable and the application can be disconnected from it", Run: r.checkAccess},
		{ID: "schema/scripts", Name: "the schema's rollback scripts are complete", Run: r.checkScripts},
		{ID: "schema/tried", Name: "the schema's rollback was tried in a transaction and rolled back", Run: r.checkTried},
		{ID: "schema/snapshot", Name: "a snapshot of the database can be taken", Run: r.checkSnapshot},
		{ID: "replication/lag", Name: "replicas lag less than " + maxLag.String(), Run: r.checkLag},
	}
}

// check connects for one proof.
func (r *rollback) check(ctx context.Context, do func(w *work) (remediation.Result, error)) (f remediation.Result) {
	err := r.with(ctx, proofName, proofName, func(w *work) (err error) {
		f, err = do(w)
		f.Evidence = w.addr.scrub(f.Evidence)
		return err
	})
	if err != nil {
		return remediation.ResultOf(err)
	}
	return f
}

func (r *rollback) checkAccess(ctx context.Context) remediation.Result {
	return r.check(ctx, func(w *work) (remediation.Result, error) {
		st, err := w.survey(ctx)
		if err == nil {
			err = w.notLeftOut(st)
		}
		if err != nil {
			return remediation.Result{}, err
		}
		names := make([]string, len(st.roles))
		for i, role := range st.roles {
			names[i] = role.Name
		}
		roles := strings.Join(names, ", ")
		also, err := w.otherDatabases(ctx)
		if err != nil {
			return remediation.Result{}, err
		}
		if len(also) > 0 {
			return remediation.Unknown(fmt.Sprintf("a login counts for the whole server: without it, %s cannot connect to database %s either", roles, strings.Join(also, ", ")),
				"give this database's application a role of its own, or sign it off"), nil
		}
		return remediation.Passed(fmt.Sprintf("database %s of PostgreSQL %d; %s can be disconnected", st.database, st.server/10000, roles)), nil
	})
}

// way is what leads back: the undo scripts of the versions above the target, the
// latest first, and before them the versions of these that are not applied yet, so
// that a rollback can be checked before the way there was taken.
type way struct {
	there, back []script
	applied     int
}

func (w *work) way(ctx context.Context) (way, error) {
	h, err := readHistory(ctx, w.conn)
	if err != nil {
		return way{}, err
	}
	if err := h.check(w.target, w.spec.Flyway.Version); err != nil {
		return way{}, err
	}
	found, err := readScripts(w.spec.Flyway.Dir)
	if err != nil {
		return way{}, err
	}
	out := way{applied: len(h.above(w.target))}
	out.back, err = found.undoPlan(h, w.target)
	problems := []error{err}
	for _, v := range found.versions {
		if v.version.compare(w.target) <= 0 || h.isApplied(v.version) {
			continue
		}
		out.there = append(out.there, v)
		u := find(found.undo, v.version)
		if u == nil {
			problems = append(problems, hint.Add(fmt.Errorf("version %s has no undo script in %s", v.versionText, found.dir), "write U%s__rollback.sql", v.versionText))
			continue
		}
		if err := u.runnable(); err != nil {
			problems = append(problems, err)
		}
		out.back = append(out.back, *u)
	}
	slices.SortStableFunc(out.back, func(a, b script) int { return b.version.compare(a.version) })
	return out, errors.Join(problems...)
}

func (r *rollback) checkScripts(ctx context.Context) remediation.Result {
	return r.check(ctx, func(w *work) (remediation.Result, error) {
		if w.spec.Flyway == nil {
			c, err := w.readCommand()
			if err != nil {
				return remediation.Result{}, err
			}
			done, err := w.askWanted(ctx)
			if err != nil {
				return remediation.Result{}, err
			}
			return remediation.Passed(fmt.Sprintf("the command %s exists, and wanted answers %t", strings.Join(c.Argv, " "), done)), nil
		}
		way, err := w.way(ctx)
		if err != nil {
			return remediation.Result{}, err
		}
		if len(way.back) == 0 {
			return remediation.Unknown(fmt.Sprintf("%s has no version above %s, and none is applied: there is nothing to roll back", w.spec.Flyway.Dir, w.spec.Flyway.Version),
				"put the release's migrations there, or sign it off"), nil
		}
		return remediation.Passed(fmt.Sprintf("%s above %s (%d applied), each with its undo script", remediation.Counted(len(way.back), "version"), w.spec.Flyway.Version, way.applied)), nil
	})
}

// lasting finds what outlives a ROLLBACK (sequences, files, programs, other servers,
// other sessions that are ended, replication slots), and what would lift the limits of a
// trial. A script that turns the application's sessions out is nothing unusual.
var lasting = regexp.MustCompile(`(?i)\b(nextval|setval|lo_import|lo_export|dblink\w*` +
	`|pg_terminate_backend|pg_cancel_backend|pg_reload_conf|pg_rotate_logfile|pg_switch_wal|pg_promote|pg_file_\w+|pg_\w*replication_slot\w*)\s*\(` +
	`|\bcopy\b[^;]*\b(to|program)\b` +
	`|\bset\s+(session\s+|local\s+)?(lock|statement)_timeout\b|\bset_config\s*\(\s*'(lock|statement)_timeout|\breset\s+(all|(lock|statement)_timeout)\b|\bdiscard\s+all\b`)

// checkTried runs the way there, as far as it was not taken, and the rollback, in a
// transaction that is rolled back.
func (r *rollback) checkTried(ctx context.Context) remediation.Result {
	return r.check(ctx, func(w *work) (remediation.Result, error) {
		const byHand = "try it on a copy of the database, and sign it off"
		if w.spec.Flyway == nil {
			return remediation.Unknown("a command cannot be tried without changing data", byHand), nil
		}
		way, err := w.way(ctx)
		if err != nil {
			return remediation.Result{}, err
		}
		all := slices.Concat(way.there, way.back)
		if len(all) == 0 {
			return remediation.Unknown("there is no version to roll back", byHand), nil
		}
		for _, s := range all {
			if s.alone {
				return remediation.Unknown(s.path+" cannot run in a transaction, so it cannot be tried without changing data", byHand), nil
			}
			if what := lasting.FindString(s.text); what != "" {
				return remediation.Unknown(fmt.Sprintf("%s has %q, which ROLLBACK may not fully undo, or which removes the trial's limits", s.path, what), byHand), nil
			}
		}
		for _, s := range way.there {
			if err := s.runnable(); err != nil {
				return remediation.Unknown("the migration cannot be tried, because "+s.path+" only Flyway can run", byHand), nil
			}
		}
		ctx, cancel := context.WithTimeout(ctx, tryTimeout)
		defer cancel()
		began := time.Now()
		err = w.try(ctx, way)
		var refusal *pgconn.PgError
		switch {
		case errors.As(err, &refusal) && (refusal.Code == lockNotAvailable || refusal.Code == "57014"):
			return remediation.Unknown(err.Error()+": the tables are in use, and a trial must not block the application", "try again when it is quieter, or "+byHand), nil
		case err != nil:
			return remediation.Result{}, err
		}
		return remediation.Passed(fmt.Sprintf("%s ran in %s, in a transaction that was rolled back", remediation.Counted(len(all), "script"), remediation.Span(time.Since(began)))), nil
	})
}

// try runs scripts in a transaction and ends it by ROLLBACK, whatever comes. A
// session that breaks off is rolled back by the server.
func (w *work) try(ctx context.Context, way way) (err error) {
	conn, err := w.connect(ctx, trialName)
	if err != nil {
		return err
	}
	defer part(ctx, conn)
	h, err := w.begin(ctx, conn)
	if err != nil {
		return err
	}
	defer func() {
		if rerr := change(context.WithoutCancel(ctx), conn, "ROLLBACK"); rerr != nil && err == nil {
			err = fmt.Errorf("roll the trial back: %w", rerr)
		}
	}()
	for _, s := range way.there {
		if err := runTrial(ctx, conn, h, s, "script"); err != nil {
			return err
		}
	}
	for _, s := range way.back {
		if err := runTrial(ctx, conn, h, s, "undo script"); err != nil {
			return err
		}
		if h.isApplied(s.version) {
			if err := h.undone(ctx, conn, s, 0); err != nil {
				return err
			}
		}
	}
	// What is deferred to the commit would fail there.
	if err := change(ctx, conn, "SET CONSTRAINTS ALL IMMEDIATE"); err != nil {
		return hint.Add(fmt.Errorf("the undo scripts break a constraint: %w", err), "fix the scripts")
	}
	return nil
}

// runTrial runs one script. One that would end the transaction was refused before,
// since what follows it would stay.
func runTrial(ctx context.Context, conn *pgx.Conn, h *history, s script, what string) error {
	if err := change(ctx, conn, s.text); err != nil {
		return hint.Add(fmt.Errorf("%s %s fails: %w", what, s.path, err), "fix the script")
	}
	if conn.PgConn().TxStatus() != 'T' {
		return fmt.Errorf("%s %s ended the transaction that it was tried in", what, s.path)
	}
	return restoreSettings(ctx, conn, h.table[0])
}

// checkSnapshot asks for all that a snapshot needs, and dumps the schema to nowhere.
func (r *rollback) checkSnapshot(ctx context.Context) remediation.Result {
	return r.check(ctx, func(w *work) (remediation.Result, error) {
		st := &state{}
		err := w.conn.QueryRow(ctx, "SELECT current_database(), current_setting('server_version_num')::int").Scan(&st.database, &st.server)
		if err != nil {
			return remediation.Result{}, fmt.Errorf("inspect the database: %w", err)
		}
		if err := w.canDump(ctx, st); err != nil {
			return remediation.Result{}, err
		}
		pgDump, err := w.c.program("pg_dump")
		if err != nil {
			return remediation.Result{}, err
		}
		w.m = &manifest{} // none is written; it names the password's file
		err = w.withPassword(func(env []string) error {
			_, err := w.c.run(ctx, env, pgDump, "--format=custom", "--schema-only", "--no-sync", "--no-password",
				"--lock-wait-timeout="+milliseconds(w.spec.LockTimeout), "--file="+os.DevNull)
			return err
		})
		if err != nil {
			return remediation.Result{}, fmt.Errorf("no snapshot, no rollback: %w", err)
		}
		return remediation.Passed("pg_dump can read the schema, and there is enough space for the tables in " + w.c.dir), nil
	})
}

// checkLag asks the primary how far its replicas are behind. Without one, only a server that
// waits for none passes. One that streams without a slot shows only while it is connected.
func (r *rollback) checkLag(ctx context.Context) remediation.Result {
	return r.check(ctx, func(w *work) (remediation.Result, error) {
		var replicas, hidden int
		var lag float64
		var standby bool
		var away, names string
		err := w.conn.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE state IS NULL), coalesce(max(extract(epoch FROM replay_lag)), 0)::float8,
				pg_is_in_recovery(), coalesce((SELECT string_agg(slot_name::text, ', ' ORDER BY slot_name) FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active), ''),
				coalesce((SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names'), '')
			FROM pg_stat_replication`).Scan(&replicas, &hidden, &lag, &standby, &away, &names)
		const query = "preflight: {replication_lag: {query: ...}} in the playbook, or sign it off"
		switch {
		case err != nil:
			return remediation.Result{}, fmt.Errorf("inspect pg_stat_replication: %w", err)
		case standby:
			return remediation.Unknown("this server is a standby: the lag is known at the primary", "the primary's address in dsn_file, or "+query), nil
		case away != "":
			return remediation.Unknown("no replica is connected to replication slot "+away, "bring the replica back, or drop the slot with pg_drop_replication_slot if there is no replica any more"), nil
		case replicas == 0 && names != "":
			return remediation.Unknown("no replica is connected, but synchronous_standby_names expects "+names, "bring the replica back, or "+query), nil
		case hidden > 0:
			return remediation.Unknown("pg_stat_replication is hidden from "+w.addr.config.User, "GRANT pg_monitor TO it, or "+query), nil
		case replicas == 0:
			return remediation.Passed("no replica shows (none is connected, no replication slot waits for one, synchronous_standby_names is empty); one that streams without a slot and is away would not"), nil
		}
		return remediation.LagResult(time.Duration(lag*float64(time.Second)), maxLag), nil
	})
}
