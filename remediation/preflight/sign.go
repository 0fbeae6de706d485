package preflight

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// preflightAge is how long a preflight proves anything.
const preflightAge = 24 * time.Hour

// SignPreflight signs an item off for a release. A failed item cannot be signed off.
func (e *Checker) SignPreflight(ctx context.Context, r remediation.SignRequest) (v remediation.PreflightView, err error) {
	switch {
	case strings.TrimSpace(r.Reason) == "":
		return v, remediation.Refuse(remediation.Invalid, "a reason is required")
	case r.Item == "":
		return v, remediation.Refuse(remediation.Invalid, "name the item to sign off")
	}
	b, err := e.OnePlan(r.Service)
	if err != nil {
		return v, err
	}
	if r.By == "" {
		r.By = r.Actor
	}
	err = e.Store.Update(ctx, func(tx remediation.Tx) error {
		kept, err := remediation.PreflightOf(tx, b.Service)
		if err != nil {
			return err
		}
		all, err := e.itemsSeen(tx, b, runOf(kept.Run, b.Release.Version))
		if err != nil {
			return err
		}
		item, err := signable(all, b, r.Item)
		if err != nil {
			return err
		}
		out, err := remediation.RolloutOf(tx, b.Service)
		if err != nil {
			return err
		}
		kept.Sign(remediation.Signature{
			Item: item.ID, Release: b.Release.Version, Playbook: b.Hash, Evidence: item.Evidence, Cause: item.Cause,
			By: r.By, Actor: r.Actor, Reason: r.Reason, Time: e.Now().UTC(),
		}, out)
		if err := tx.PutPreflight(kept); err != nil {
			return err
		}
		err = e.Append(tx, audit.Entry{Kind: audit.KindApproved, Actor: r.Actor, Service: b.Service, Detail: map[string]any{
			"what": "preflight", "item": item.ID, "name": item.Name, "owner": item.Owner, "by": r.By, "reason": r.Reason, "release": b.Release.Version,
			"playbook": b.Hash, "evidence": item.Evidence,
		}})
		if err != nil {
			return err
		}
		v, err = e.preflightView(tx, b)
		return err
	})
	return v, err
}

// signable finds the item that a person means, and refuses where a signature would
// say nothing.
func signable(all []remediation.PreflightItem, b *plan.Plan, name string) (remediation.PreflightItem, error) {
	var found []remediation.PreflightItem
	for _, it := range all {
		_, short, _ := strings.Cut(it.ID, "/")
		if it.ID == name {
			found = []remediation.PreflightItem{it}
			break
		}
		if short == name || strings.EqualFold(it.Name, name) {
			found = append(found, it)
		}
	}
	switch {
	case len(found) == 0:
		return remediation.PreflightItem{}, hint.Add(remediation.Refuse(remediation.Missing, "the preflight of %s has no item %q", b.Service, name),
			"backout preflight show --service=%s", b.Service)
	case len(found) > 1:
		var ids []string
		for _, it := range found {
			ids = append(ids, it.ID)
		}
		return remediation.PreflightItem{}, remediation.Refuse(remediation.Conflict, "%q matches %s: name one of them", name, strings.Join(ids, ", "))
	case found[0].Status == remediation.Fail:
		return remediation.PreflightItem{}, hint.Add(remediation.Refuse(remediation.Conflict, "%s failed, and a failed item cannot be signed off: %s", found[0].ID, found[0].Evidence), "%s", found[0].Next)
	case found[0].Status == remediation.Pass:
		return remediation.PreflightItem{}, remediation.Refuse(remediation.Conflict, "%s passed: there is nothing to sign off", found[0].ID)
	}
	return found[0], nil
}

// Missing says why a rollout of release must not start: what the last preflight could
// not confirm, and what nobody has signed off. If empty, it may start.
func (e *Checker) Missing(tx remediation.Tx, service, release string) ([]string, error) {
	b := e.PlanOf(service)
	if b == nil {
		return []string{fmt.Sprintf("no playbook for service %q is loaded", service)}, nil
	}
	kept, err := remediation.PreflightOf(tx, service)
	if err != nil {
		return nil, err
	}
	missing := []string{}
	again := func(why string) { missing = append(missing, hint.Text(why, "backout preflight --service="+service)) }
	run := kept.Run
	switch {
	case run == nil:
		again("no preflight was run")
	case run.Release != release:
		again(fmt.Sprintf("the last preflight was of release %s, not of %s", run.Release, release))
	case run.Playbook != b.Hash:
		again("the playbook has changed since the last preflight")
	case e.Now().Sub(run.Finished) > preflightAge:
		again(fmt.Sprintf("the last preflight ended at %s, over 24 h ago", remediation.Moment(run.Finished)))
	}
	items, err := e.items(tx, b, kept, runOf(run, release))
	if err != nil {
		return nil, err
	}
	const unknown = " could not be checked: "
	at := map[string]int{} // where a cause is in missing
	for _, it := range items {
		switch {
		case !it.Before || it.Status == remediation.Pass:
		case it.Status == remediation.Fail:
			missing = append(missing, it.ID+" failed: "+it.Evidence)
		case run != nil && run.Release == release && run.Playbook != b.Hash && kept.SignedBefore(it.ID, release):
			// Said above: once the preflight was run again, it is to be signed again.
		case it.Signed == nil:
			if it.Owner != "" {
				why := ""
				if it.Lapsed != "" {
					why = ": " + it.Lapsed
				}
				missing = append(missing, fmt.Sprintf("%s (%s) is not signed off%s; its owner is %s", it.ID, it.Name, why, it.Owner))
				continue
			}
			i, known := at[it.Cause]
			if !known || it.Cause == "" {
				at[it.Cause] = len(missing)
				why := it.Evidence
				if it.Lapsed != "" {
					why += "; " + it.Lapsed
				}
				missing = append(missing, it.ID+unknown+why)
				continue
			}
			ids, why, _ := strings.Cut(missing[i], unknown)
			missing[i] = ids + ", " + it.ID + unknown + why
		}
	}
	return missing, nil
}

// runOf is a run that was of release, or nil.
func runOf(run *remediation.PreflightRun, release string) *remediation.PreflightRun {
	if run == nil || run.Release != release {
		return nil
	}
	return run
}
