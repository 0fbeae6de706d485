package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// source is what a reading command reads from: a server's API, or a store opened for
// reading.
type source interface {
	Incidents(ctx context.Context, f remediation.IncidentFilter) ([]view.IncidentView, error)
	Incident(ctx context.Context, id string) (view.IncidentView, error)
	Plot(ctx context.Context, id, trigger string) (view.Plot, error)
	// Entries needs a Limit, of 1000 at most.
	Entries(ctx context.Context, f audit.Filter) ([]audit.Entry, error)
	Head(ctx context.Context) (seq int64, hash string, err error)
	Rollouts(ctx context.Context) ([]view.RolloutView, error)
	// Rehearsals returns the last one of each plan of a service.
	Rehearsals(ctx context.Context, service string) ([]remediation.Rehearsal, error)
}

// sourceFlags say what a reading command reads from.
type sourceFlags struct {
	serverFlags
	dsn *string
	now func() time.Time
}

func (c *commands) sourceFlags(clause *kingpin.CmdClause) sourceFlags {
	return sourceFlags{
		serverFlags: c.serverFlags(clause),
		dsn: clause.Flag("storage.dsn", "Read this database instead of asking a server, such as sqlite:./data/backout.db or postgres://backout@db/backout. serve may be running on it.").
			PlaceHolder("DSN").String(),
		now: func() time.Time { return c.now() },
	}
}

// with calls fn with the source that the flags name.
func (f sourceFlags) with(ctx context.Context, fn func(source) error) error {
	if *f.dsn == "" {
		cl, err := f.client()
		if err != nil {
			return err
		}
		return fn(cl)
	}
	if *f.url != "" {
		return wrong("one of the two", "--url and --storage.dsn cannot be used together")
	}
	store, err := openForReading(ctx, *f.dsn)
	if err != nil {
		return err
	}
	kinds, err := actionKinds(config.Default(), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return closing(store, err)
	}
	return closing(store, fn(storeSource{store, kinds.list, f.now}))
}

// closing closes a resource, and returns the first error.
func closing(c io.Closer, err error) error {
	if cerr := c.Close(); err == nil {
		return cerr
	}
	return err
}

// storeSource reads a store.
type storeSource struct {
	store remediation.Store
	kinds []remediation.ActionKind
	now   func() time.Time
}

// Incidents implements source.
func (s storeSource) Incidents(ctx context.Context, f remediation.IncidentFilter) (out []view.IncidentView, err error) {
	err = s.store.View(ctx, func(tx remediation.Tx) error {
		out, err = view.Incidents(tx, f)
		return err
	})
	return out, refused(err)
}

// Incident implements source.
func (s storeSource) Incident(ctx context.Context, id string) (v view.IncidentView, err error) {
	err = s.store.View(ctx, func(tx remediation.Tx) error {
		if v, err = view.Incident(tx, id); err != nil {
			return err
		}
		if b := s.plan(tx, id); b != nil {
			v.SetUnits(b)
		}
		return nil
	})
	return v, refused(err)
}

// plan is the one that an incident opened with, which has its numbers' units; nil if it cannot be read.
func (s storeSource) plan(tx remediation.Tx, id string) *plan.Plan {
	inc, err := tx.Incident(id)
	if err != nil {
		return nil
	}
	b, _ := ledger.StoredPlan(tx, inc, s.kinds)
	return b
}

// refused turns a refusal of the store into a command's error.
func refused(err error) error {
	var r *remediation.RefusedError
	if errors.As(err, &r) && r.Refusal == remediation.Invalid {
		return wrong("backout help", "%w", err)
	}
	if r != nil {
		return negative("backout incident list", "%w", err)
	}
	return err
}

// Plot implements source: a store holds only the values measured at decisions.
func (s storeSource) Plot(ctx context.Context, id, trigger string) (p view.Plot, err error) {
	err = s.store.View(ctx, func(tx remediation.Tx) error {
		if p, err = view.PlotOfLog(tx, id, trigger, s.now()); err != nil {
			return err
		}
		if b := s.plan(tx, id); b != nil {
			p.Unit, p.Estimate = b.UnitOf(p.Trigger), b.EstimateOf(p.Trigger)
		}
		return nil
	})
	return p, err
}

// Entries implements source.
func (s storeSource) Entries(ctx context.Context, f audit.Filter) (out []audit.Entry, err error) {
	err = s.store.View(ctx, func(tx remediation.Tx) error {
		out, err = view.Entries(tx, f)
		return err
	})
	return out, refused(err)
}

// Head implements source.
func (s storeSource) Head(ctx context.Context) (seq int64, hash string, err error) {
	err = s.store.View(ctx, func(tx remediation.Tx) error {
		seq, hash, err = tx.Head()
		return err
	})
	return seq, hash, err
}

// Rehearsals implements source.
func (s storeSource) Rehearsals(ctx context.Context, service string) (out []remediation.Rehearsal, err error) {
	err = s.store.View(ctx, func(tx remediation.Tx) error {
		out, err = tx.Rehearsals(service)
		return err
	})
	return out, err
}

// Rollouts implements source; a store does not have the state of a stage's criteria.
func (s storeSource) Rollouts(ctx context.Context) ([]view.RolloutView, error) {
	out := []view.RolloutView{}
	err := s.store.View(ctx, func(tx remediation.Tx) error {
		all, err := tx.Rollouts()
		for _, r := range all {
			out = append(out, view.RolloutView{Rollout: r, Criteria: []view.CriterionView{}})
		}
		return err
	})
	return out, err
}
