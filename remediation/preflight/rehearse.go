package preflight

import (
	"context"
	"slices"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// rehearsedProofs ask whether each plan that a trigger uses was rehearsed.
func (e *Checker) rehearsedProofs(b *plan.Plan) []remediation.Proof {
	plans, err := rehearsable(b, "")
	if err != nil {
		return nil // without a plan, nothing is to be rehearsed
	}
	var out []remediation.Proof
	for _, plan := range plans {
		out = append(out, remediation.Proof{ID: "rehearsal/" + remediation.Slug(plan), Name: "plan " + plan + " was rehearsed", Prove: func(ctx context.Context) remediation.Finding {
			var all []remediation.Rehearsal
			err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
				all, err = tx.Rehearsals(b.Service)
				return err
			})
			if err != nil {
				return remediation.FindingOf(err)
			}
			i := slices.IndexFunc(all, func(r remediation.Rehearsal) bool { return r.Plan == plan })
			if i < 0 {
				return remediation.Unknown("never rehearsed", "backout rehearse --plan="+plan+", and then backout preflight again")
			}
			return all[i].Proves(b.Playbook, e.Now())
		}})
	}
	return out
}
