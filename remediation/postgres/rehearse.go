package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

var _ remediation.Rehearser = (*rollback)(nil)

// rehearsalOp is the operation of a rehearsal; no incident has it.
const rehearsalOp = "backout rehearsal"

// Rehearse implements remediation.Rehearser: the scripts run in a transaction that is
// rolled back, and a whole snapshot is taken and thrown away.
func (r *rollback) Rehearse(ctx context.Context) remediation.Result {
	return remediation.Trial(ctx, r.checkAccess, r.checkScripts, r.checkTried, r.trySnapshot)
}

// trySnapshot takes a snapshot, sees that it can be read, and throws it away.
func (r *rollback) trySnapshot(ctx context.Context) (f remediation.Result) {
	defer func() {
		if err := r.throwAway(); err != nil {
			f = remediation.ResultOf(err)
		}
	}()
	return r.check(ctx, func(w *work) (remediation.Result, error) {
		st := &state{}
		err := w.conn.QueryRow(ctx, "SELECT current_database(), current_setting('server_version_num')::int").Scan(&st.database, &st.server)
		if err != nil {
			return remediation.Result{}, fmt.Errorf("inspect the database: %w", err)
		}
		if err := w.canDump(ctx, st); err != nil {
			return remediation.Result{}, err
		}
		w.op, w.m = rehearsalOp, &manifest{} // none is written; it names the files
		if err := os.MkdirAll(w.c.dir, 0o700); err != nil {
			return remediation.Result{}, fmt.Errorf("no snapshot, no rollback: %w", err)
		}
		began := time.Now()
		d, err := w.writeDump(ctx)
		if err != nil {
			return remediation.Result{}, fmt.Errorf("no snapshot, no rollback: %w", err)
		}
		return remediation.Passed(fmt.Sprintf("a snapshot of %s was taken in %s within %s, read back and deleted",
			remediation.Measure(float64(d.Size), alerts.Bytes), w.c.dir, remediation.Span(time.Since(began)))), nil
	})
}

// throwAway removes what a rehearsal's snapshot has left, whole or not.
func (r *rollback) throwAway() error {
	w := &work{rollback: r, op: rehearsalOp, m: &manifest{}}
	if err := errors.Join(w.tidy(), remove(w.file(".dump"))); err != nil {
		return hint.Add(fmt.Errorf("remove the rehearsal's snapshot: %w", err), "rm %s", w.file("*"))
	}
	return nil
}
