package rollout

import (
	"context"
	"fmt"
	"slices"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
	"github.com/locotoki/backout/rules"
)

// successPrefix is that of the items that are success criteria which people judge.
const successPrefix = "success/"

// Success returns the state of each success criterion: Prometheus is asked for those
// that are measured, and people's signatures count for the others.
func (e *Promoter) Success(ctx context.Context, b *plan.Plan, kept remediation.Preflight, release string) []remediation.SuccessView {
	out, exprs := []remediation.SuccessView{}, map[string]string{}
	peoples := remediation.ItemsOf(b.Playbook, successPrefix)
	for _, area := range b.SuccessCriteria {
		for _, c := range area.Criteria {
			v := remediation.SuccessView{Area: area.Area, Text: c.Text}
			if c.Measure == nil {
				v.State, v.Item, v.Owner = remediation.SuccessUnsigned, peoples[0].ID, peoples[0].Owner
				if v.Signed = kept.Signed(b.Playbook, peoples[0], release); v.Signed != nil {
					v.State = remediation.SuccessSigned
				}
				peoples = peoples[1:]
			} else {
				v.Measured(b.Playbook, c.Measure)
				// A playbook that was loaded has an expression for each of them.
				if expr, err := rules.CriterionExpression(b.Playbook, c.Measure); err == nil {
					exprs[successKey(len(out))] = expr
				}
			}
			out = append(out, v)
		}
	}
	got := e.Query(ctx, exprs)
	for i := range out {
		if r, ok := got[successKey(i)]; ok {
			out[i].Judge(r)
		}
	}
	return out
}

func successKey(i int) string { return fmt.Sprintf("success %d", i) }

// soaked is what a rollout's end asks besides its last stage, but for the smoke tests:
// success criteria, and people's validation after the deployment.
func (e *Promoter) soaked(ctx context.Context, b *plan.Plan, release string) ([]remediation.GateResult, []remediation.SuccessView, error) {
	var kept remediation.Preflight
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		kept, err = remediation.PreflightOf(tx, b.Service)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	var all []remediation.GateResult
	views := e.Success(ctx, b, kept, release)
	for _, v := range views {
		all = append(all, v.Gate())
	}
	for _, it := range remediation.Validation(b.Playbook) {
		if s := kept.Signed(b.Playbook, it, release); s != nil {
			all = append(all, remediation.GateOpen(it.ID, "signed off by "+s.By))
		} else {
			all = append(all, remediation.GateClosed(it.ID, "%s (%s) is not signed off; its owner is %s", it.ID, it.Name, it.Owner))
		}
	}
	return all, views, nil
}

// finishGates is what a rollout's end asks besides its last stage.
func (e *Promoter) finishGates(ctx context.Context, b *plan.Plan, release string) ([]remediation.GateResult, error) {
	all, _, err := e.soaked(ctx, b, release)
	return append(all, smokeGates(b.Smoke(ctx))...), err
}

// measuredBeside adds the measured ones that the stage has not among its own.
func measuredBeside(own []view.CriterionView, views []remediation.SuccessView) []view.CriterionView {
	for _, v := range views {
		if v.Indicator == "" {
			continue
		}
		c := view.CriterionView{Name: v.Indicator, Value: v.Value, Threshold: *v.Threshold, Bound: v.Bound, OK: v.State == remediation.SuccessMet}
		known := slices.ContainsFunc(own, func(o view.CriterionView) bool {
			return o.Name == c.Name && o.Bound == c.Bound && o.Threshold == c.Threshold
		})
		if !known {
			own = append(own, c)
		}
	}
	return own
}
