package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// snapshot is what an intent records: what is to be done and what to, and later
// how far it is.
type snapshot struct {
	Database string `json:"database"`
	// DSNFile is the file that holds the database's address; never what is in it.
	DSNFile string `json:"dsn_file,omitempty"`
	// Version is the schema's present one, "" where a command keeps it; Target
	// the one that is wanted.
	Version string `json:"version,omitempty"`
	Target  string `json:"target,omitempty"`
	// Transaction is "one" where all undo scripts are done or none, else "script by script".
	Transaction string        `json:"transaction,omitempty"`
	Scripts     []scriptState `json:"scripts,omitempty"`
	Command     *commandState `json:"command,omitempty"`
	Roles       []role        `json:"roles"`
	// Others are roles that the step does not disconnect: what they write while it runs
	// makes it refuse.
	Others []sessions `json:"other_sessions,omitempty"`
	Rows   []rows     `json:"rows,omitempty"`

	Phase  phase  `json:"phase,omitempty"`
	Dump   *dump  `json:"dump,omitempty"`
	Before []rows `json:"rows_before,omitempty"`
	After  []rows `json:"rows_after,omitempty"`
	// Lost is what the step is known to have lost.
	Lost []remediation.Lost `json:"lost,omitempty"`
	Run  *command           `json:"run,omitempty"`
}

type scriptState struct {
	Script      string `json:"script"`
	Version     string `json:"version"`
	SHA256      string `json:"sha256"`
	Transaction yesNo  `json:"transaction"` // it can run in one
}

type commandState struct {
	Argv   []string `json:"argv"`
	Dir    string   `json:"dir"`
	SHA256 string   `json:"sha256"`
}

// same reports whether two snapshots ask for the same work on the same schema.
func (s snapshot) same(o snapshot) bool {
	bare := func(s snapshot) snapshot {
		return snapshot{Database: s.Database, Version: s.Version, Target: s.Target, Transaction: s.Transaction,
			Scripts: s.Scripts, Command: s.Command, Roles: s.Roles}
	}
	return reflect.DeepEqual(bare(s), bare(o))
}

// state is how the database is.
type state struct {
	database string
	server   int // version number, such as 150018
	roles    []role
	history  *history // of flyway
	wanted   bool     // the schema is, no matter who can log in
}

// survey reads the state, and refuses where it cannot be acted on in any position.
func (w *work) survey(ctx context.Context) (*state, error) {
	st := &state{}
	var standby bool
	err := w.conn.QueryRow(ctx, "SELECT current_database(), current_setting('server_version_num')::int, pg_is_in_recovery()").
		Scan(&st.database, &st.server, &standby)
	switch {
	case err != nil:
		return nil, fmt.Errorf("inspect the database: %w", err)
	case standby:
		return nil, hint.Add(fmt.Errorf("database %s is a standby, which cannot be written", st.database), "the primary's address in dsn_file")
	case st.server < 120000:
		return nil, hint.Add(fmt.Errorf("PostgreSQL %d is too old", st.server/10000), "12 or later")
	}
	if st.roles, err = w.readRoles(ctx); err != nil {
		return nil, err
	}
	if w.spec.Flyway == nil {
		st.wanted, err = w.askWanted(ctx)
		return st, err
	}
	if st.history, err = readHistory(ctx, w.conn); err != nil {
		return nil, err
	}
	if err := st.history.check(w.target, w.spec.Flyway.Version); err != nil {
		return nil, err
	}
	st.wanted = len(st.history.above(w.target)) == 0
	return st, nil
}

// askWanted asks the playbook's query, which cannot change anything.
func (w *work) askWanted(ctx context.Context) (wanted bool, err error) {
	err = pgx.BeginTxFunc(ctx, w.conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, w.spec.Wanted)
		if err != nil {
			return err
		}
		answer, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (any, error) {
			values, err := row.Values()
			if err != nil || len(values) != 1 {
				return nil, errors.Join(err, fmt.Errorf("%d columns", len(values)))
			}
			return values[0], nil
		})
		if err != nil {
			return err
		}
		var ok bool
		if wanted, ok = answer.(bool); !ok {
			return errors.New("the answer is not a boolean")
		}
		return nil
	})
	if err != nil {
		return false, hint.Add(fmt.Errorf("wanted: %w", err), "a query of one boolean")
	}
	return wanted, nil
}

// Look implements remediation.Action.
func (r *rollback) Look(ctx context.Context, op string) (look remediation.Look, err error) {
	err = r.with(ctx, op, "backout look", func(w *work) error {
		look, err = w.look(ctx)
		return err
	})
	return look, err
}

func (w *work) look(ctx context.Context) (remediation.Look, error) {
	if w.m.open() {
		if err := w.noSessions(ctx); err != nil {
			return remediation.Look{}, err
		}
	}
	st, err := w.survey(ctx)
	if err != nil {
		return remediation.Look{}, w.kept(err)
	}
	var s snapshot
	var notYet error // said last: a step before this one may take it away, and nothing else
	position := remediation.Untouched
	switch {
	case w.m.open():
		position, s = remediation.HalfWay, w.m.Plan
		if err := w.resumable(ctx, st); err != nil {
			return remediation.Look{}, w.kept(err)
		}
	case st.wanted:
		position = remediation.Wanted
		if err := w.allIn(st); err != nil {
			return remediation.Look{}, err
		}
		s = w.describe(st)
	default:
		if s, _, err = w.prepare(ctx, st); err != nil {
			return remediation.Look{}, err
		}
		notYet = w.tolerated(ctx)
	}
	if s.Rows, err = w.glance(ctx); err == nil {
		s.Others, err = w.otherRoles(ctx)
	}
	if err == nil {
		err = notYet
	}
	if err != nil {
		return remediation.Look{}, err
	}
	if w.m != nil && w.m.Phase != undone {
		s.Phase, s.Dump, s.Run = w.m.Phase, w.m.Dump, w.m.Run
		s.Before, s.After, s.Lost = bareRows(w.m.Before), bareRows(w.m.After), lost(w.m.Before, w.m.After)
	}
	raw, err := w.raw(s)
	return remediation.Look{Position: position, Snapshot: raw}, err
}

// tolerated asks whether the code that runs can do with the older schema.
func (w *work) tolerated(ctx context.Context) error {
	err := w.spec.Tolerated(ctx)
	var seen *remediation.VersionError
	switch {
	case errors.As(err, &seen):
		return fmt.Errorf("the code that runs does not tolerate the older schema: %w", err)
	case err != nil:
		return fmt.Errorf("whether the code that runs tolerates the older schema is unknown: %w", err)
	}
	return nil
}

// kept adds to an error where the snapshot is, if there is one.
func (w *work) kept(err error) error {
	if w.m == nil || w.m.Dump == nil || !w.m.open() || strings.Contains(err.Error(), w.m.Dump.Path) {
		return err
	}
	return fmt.Errorf("%w; the snapshot is %s", err, w.m.Dump.Path)
}

// describe is a snapshot of a schema on which nothing is to be done.
func (w *work) describe(st *state) snapshot {
	s := snapshot{Database: st.database, DSNFile: w.spec.DSNFile, Roles: st.roles}
	if st.history != nil {
		s.Version, s.Target = st.history.current(), w.spec.Flyway.Version
	}
	return s
}

// allIn says which of the application's roles cannot log in though the schema is
// as wanted.
func (w *work) allIn(st *state) error {
	names := w.spec.Roles
	if w.m != nil && w.m.Phase == finished {
		names = w.m.ours()
	}
	if cut := out(st.roles, names); len(cut) > 0 {
		return hint.Add(fmt.Errorf("the schema is in the wanted state, but role %s cannot log in", strings.Join(cut, ", ")),
			"ALTER ROLE %s LOGIN", pgx.Identifier{cut[0]}.Sanitize())
	}
	return nil
}

// prepare says what is to be done to an untouched schema, or every reason why
// it cannot be done. It changes nothing.
func (w *work) prepare(ctx context.Context, st *state) (snapshot, []script, error) {
	s := w.describe(st)
	var plan []script
	var problems []error
	if st.history != nil {
		found, err := readScripts(w.spec.Flyway.Dir)
		if err != nil {
			return s, nil, err
		}
		if plan, err = found.undoPlan(st.history, w.target); err != nil {
			problems = append(problems, err)
		}
		s.Transaction = "one"
		for _, p := range plan {
			if p.alone {
				s.Transaction = "script by script"
			}
			s.Scripts = append(s.Scripts, scriptState{p.path, p.versionText, p.sha256, yes(!p.alone)})
		}
	} else {
		var err error
		if s.Command, err = w.readCommand(); err != nil {
			problems = append(problems, err)
		}
	}
	problems = append(problems, w.notLeftOut(st), w.canDump(ctx, st))
	return s, plan, errors.Join(problems...)
}

// notLeftOut refuses where another operation took a role its login and never
// gave it back: this one would not know that it could log in.
func (w *work) notLeftOut(st *state) error {
	others, err := w.others(w.op)
	if err != nil {
		return err
	}
	for file, m := range others {
		if cut := out(st.roles, m.ours()); len(cut) > 0 {
			return hint.Add(fmt.Errorf("operation %s took the login from role %s and still runs or was interrupted (%s)", m.Op, strings.Join(cut, ", "), file),
				"wait for it; if nothing runs, bring the schema to one version, ALTER ROLE %s LOGIN, and move that file away", pgx.Identifier{cut[0]}.Sanitize())
		}
	}
	return nil
}

// resumable says why an operation that was cut off cannot go on by itself: what
// has no transaction may have been done in part.
func (w *work) resumable(ctx context.Context, st *state) error {
	if st.wanted || w.m.Phase != changing || w.spec.Restartable {
		return nil
	}
	if st.history != nil {
		v, err := parseVersion(w.m.Running)
		if w.m.Running == "" || err == nil && !st.history.isApplied(v) {
			return nil // between two scripts
		}
	}
	same, err := w.unchanged(ctx)
	if err != nil || same {
		return err
	}
	what := "the command " + strings.Join(w.spec.Command, " ")
	log := ""
	if st.history != nil {
		what = "the undo script of version " + w.m.Running
	}
	if w.m.Run != nil {
		log = ", its output is in " + w.m.Run.Log
	}
	return hint.Add(definite("%s was interrupted after it had changed something, and may be partly done%s; the application stays disconnected", w.addr.scrub(what), log),
		"finish its work by hand, or set restartable: true if it may run again")
}

// plan returns what is left of a plan that was begun, or refuses where it is
// not what was looked at.
func (w *work) left(st *state) ([]script, error) {
	if st.history == nil {
		return nil, w.sameCommand()
	}
	found, err := readScripts(w.spec.Flyway.Dir)
	if err != nil {
		return nil, err
	}
	plan, err := found.undoPlan(st.history, w.target)
	if err != nil {
		return nil, err
	}
	for _, p := range plan {
		if !slices.Contains(w.m.Plan.Scripts, scriptState{p.path, p.versionText, p.sha256, yes(!p.alone)}) {
			return nil, fmt.Errorf("%s, for version %s, has changed since it was inspected", p.path, p.versionText)
		}
	}
	if w.m.Phase != changing && len(plan) != len(w.m.Plan.Scripts) {
		return nil, fmt.Errorf("the schema is at %s, but was at %s when it was inspected", st.history.current(), w.m.Plan.Version)
	}
	return plan, nil
}

// sameCommand refuses a command, or a script of it, that is not what was looked at.
func (w *work) sameCommand() error {
	now, err := w.readCommand()
	if err == nil && !reflect.DeepEqual(now, w.m.Plan.Command) {
		err = errors.New("the command has changed since it was inspected")
	}
	return err
}

// parseSnapshot reads what an intent recorded; nothing recorded is nothing asked for.
func parseSnapshot(raw json.RawMessage) (*snapshot, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	s := &snapshot{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return s, nil
}
