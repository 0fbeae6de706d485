package engine

import (
	"context"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// Incidents returns the incidents that f asks for.
func (e *Engine) Incidents(ctx context.Context, f remediation.IncidentFilter) (out []view.IncidentView, err error) {
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		out, err = view.Incidents(tx, f)
		return err
	})
	return out, err
}

// Incident returns one incident with what its service runs, and its numbers' units.
func (e *Engine) Incident(ctx context.Context, id string) (v view.IncidentView, err error) {
	var inc *remediation.Incident
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		if v, err = view.Incident(tx, id); err == nil {
			inc, err = tx.Incident(id)
		}
		return err
	})
	if err != nil {
		return v, err
	}
	v.RunsView = e.runs(v.Service)
	if b, err := e.PlanFor(ctx, inc); err == nil { // without a playbook that can be read, numbers have no unit
		v.SetUnits(b)
	}
	return v, nil
}

// Playbook returns a service's playbook as it is understood.
func (e *Engine) Playbook(_ context.Context, service string) (view.PlaybookView, error) {
	b, err := e.OnePlan(service)
	if err != nil {
		return view.PlaybookView{}, err
	}
	return view.NewPlaybookView(b)
}

// Entries returns audit entries, at most audit.PageBytes of them where f.Limit is set.
func (e *Engine) Entries(ctx context.Context, f audit.Filter) (out []audit.Entry, err error) {
	if f.Limit > 0 && f.Bytes == 0 { // a page: who asks for it goes on after its last
		f.Bytes = audit.PageBytes
	}
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		out, err = view.Entries(tx, f)
		return err
	})
	return out, err
}

// Search returns a page of the audit log, the newest entries first.
func (e *Engine) Search(ctx context.Context, q audit.Query) (p audit.Page, err error) {
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		p, err = audit.Search(tx, q)
		return err
	})
	return p, err
}

// Head returns the number and the hash of the last audit entry.
func (e *Engine) Head(ctx context.Context) (seq int64, hash string, err error) {
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		seq, hash, err = tx.Head()
		return err
	})
	return seq, hash, err
}

// Ready is nil once the store answers.
func (e *Engine) Ready(ctx context.Context) error {
	_, _, err := e.Head(ctx)
	return err
}
