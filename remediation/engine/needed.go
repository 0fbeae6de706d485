package engine

import (
	"errors"
	"slices"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/incident"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/view"
)

// needed lists what waits for a person: each service and reason once. The metric
// backout_needs_human and the status show the same.
func (e *Engine) needed(tx remediation.Tx, now *services, open []*remediation.Incident) (all []view.Needed, err error) {
	all = []view.Needed{}
	added := map[view.Needed]bool{}
	add := func(service, reason, id string) {
		if once := (view.Needed{Service: service, Reason: reason}); !added[once] {
			added[once] = true
			all = append(all, view.Needed{Service: service, Reason: reason, Incident: id})
		}
	}
	ofIncident := func(inc *remediation.Incident) {
		for reason := range inc.NeedsHuman() {
			add(inc.Service, reason, inc.ID)
		}
	}
	for _, inc := range open {
		ofIncident(inc)
	}
	for _, j := range e.stuck() { // of which the store may know nothing
		service := j.service
		for _, inc := range open {
			if inc.ID == j.incident && inc.ClaimedBy == "" && !inc.Drill {
				service = inc.Service
			}
		}
		if service != "" {
			add(service, incident.Stuck, j.incident)
		}
	}
	for _, b := range e.Plans() { // without its playbook nothing rolls a release back
		if _, err := e.RolloutPlan(tx, b, now.rollout(b.Service)); errors.As(err, new(*ledger.UnreadableError)) {
			add(b.Service, incident.Stuck, "")
		} else if err != nil {
			return nil, err
		}
	}
	paging, err := tx.Paging()
	if err != nil {
		return nil, err
	}
	for _, inc := range paging { // a closed one too, if the breach goes on
		if e.PlanOf(inc.Service) != nil {
			ofIncident(inc)
		}
	}
	slices.SortFunc(all, view.Needed.Compare)
	return all, nil
}
