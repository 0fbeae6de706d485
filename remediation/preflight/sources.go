package preflight

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
)

const (
	// maxSkew is how far another clock may be off from backout's; Date headers have whole seconds.
	maxSkew = 2 * time.Second
	// routePatience is how long a drill alert may take to come back; a new group of
	// the generated route is sent immediately.
	routePatience = 20 * time.Second
	routeEvery    = 100 * time.Millisecond
	// drillLasts is when Alertmanager ends a drill alert by itself.
	drillLasts = 2 * time.Minute
	// defaultLag is the most that a replica may lag where the playbook does not say.
	defaultLag = 5 * time.Second
)

// clocksAgree compares clocks: approvals, windows and the watchdog's age rest on them.
func (e *Checker) clocksAgree(ctx context.Context, _ *plan.Plan, _ string) remediation.Result {
	var seen []string
	for _, c := range e.runner.sources.Clocks(ctx) {
		if c.Err != nil {
			return remediation.ResultOf(fmt.Errorf("the clock of %s: %w", c.Of, c.Err))
		}
		if c.Ahead.Abs() >= maxSkew {
			return remediation.Failed(fmt.Sprintf("the clock of %s is %s off from backout's", c.Of, remediation.Span(c.Ahead)), "synchronise both by NTP")
		}
		seen = append(seen, fmt.Sprintf("%s %s", c.Of, remediation.Span(c.Ahead)))
	}
	return remediation.Passed("within " + maxSkew.String() + ": " + strings.Join(seen, ", "))
}

// mostLag is the most that replicas may lag.
func mostLag(b *plan.Plan) time.Duration {
	if most := time.Duration(b.Preflight.ReplicationLag.Below); most > 0 {
		return most
	}
	return defaultLag
}

// replicasFollow asks the playbook's query for how far replicas are behind.
func (e *Checker) replicasFollow(ctx context.Context, b *plan.Plan, _ string) remediation.Result {
	value, ok, err := e.Prometheus.Query(ctx, b.Preflight.ReplicationLag.Query)
	if err != nil {
		return remediation.ResultOf(err)
	}
	if !ok {
		return remediation.Unknown("the query of preflight.replication_lag has no value", "fix it, or sign it off")
	}
	return remediation.LagResult(time.Duration(value*float64(time.Second)), mostLag(b))
}

// dashboardThere asks a dashboard's address for it.
func (e *Checker) dashboardThere(ctx context.Context, b *plan.Plan, name string) remediation.Result {
	const look = "open it in a browser, and sign it off"
	address := b.Dashboards[name]
	status, err := e.runner.sources.Page(ctx, address)
	switch {
	case err != nil:
		return remediation.Unknown("it cannot be reached from here: "+err.Error(), look).Because(err.Error())
	case status/100 == 2:
		return remediation.Passed(fmt.Sprintf("%s answers %d", address, status))
	case status == 404 || status == 410:
		return remediation.Failed(fmt.Sprintf("%s answers %d", address, status), "import the dashboard, or fix dashboards: in the playbook")
	}
	return remediation.Unknown(fmt.Sprintf("%s answers %d: the dashboard is visible only after login", address, status), look)
}

// sendDrills lets a drill alert of each trigger go through Alertmanager.
func (e *Checker) sendDrills(ctx context.Context, b *plan.Plan, _ string) remediation.Result {
	missing, err := e.raiseDrills(ctx, b, "preflight", func(string) bool { return true })
	if err != nil {
		return remediation.ResultOf(err)
	}
	sent := len(missing)
	began := time.Now()
	incidents, err := e.awaitDrills(ctx, missing)
	if err != nil {
		return remediation.ResultOf(err)
	}
	if len(missing) > 0 {
		names := slices.Sorted(maps.Values(missing))
		return e.notBack(ctx, strings.Join(names, ", "))
	}
	return remediation.Passed(fmt.Sprintf("%s arrived within %s, as %s", remediation.Counted(sent, "drill alert"), remediation.Span(time.Since(began)), strings.Join(incidents, ", ")))
}

// notBack is what it means that a drill alert does not come back, as far as it is known.
func (e *Checker) notBack(ctx context.Context, triggers string) remediation.Result {
	const route = "route trigger!=\"\" to this backout's webhook first, as the generated alertmanager.yml does, and check that no silence matches it"
	var live []remediation.Replica
	if err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		live, err = remediation.LiveReplicas(tx, e.Now())
		return err
	}); err != nil {
		return remediation.ResultOf(err)
	}
	why := fmt.Sprintf("no drill alert of %s arrived within %s", triggers, remediation.Span(e.runner.patience))
	switch came := e.Arrivals(); {
	case came.Refused != nil:
		return remediation.Failed(why+": "+came.Refused.Words(), remediation.HintToken)
	case came.Accepted:
		return remediation.Failed(why+", though other notifications have", route)
	}
	why += ", nor any other notification to this replica since it started"
	if len(live) > 1 { // what others were sent is not known here
		return remediation.Failed(why, route)
	}
	return remediation.Failed(why, remediation.HintSilent)
}

// raiseDrills raises an alert for each trigger that is wanted, as its rule would, but
// marked drill and of no severity: nobody is paged by it. mark is a label that makes it
// another alert than any before. It returns the triggers by fingerprint.
func (e *Checker) raiseDrills(ctx context.Context, b *plan.Plan, mark string, wanted func(trigger string) bool) (map[string]string, error) {
	all, err := b.Generated()
	if err != nil {
		return nil, err
	}
	nonce := strconv.FormatInt(e.Now().UnixNano(), 36)
	raised := map[string]string{}
	for _, r := range all {
		trigger := r.Labels["trigger"]
		if !r.Alert || trigger == "" || !wanted(trigger) {
			continue
		}
		l := maps.Clone(r.Labels)
		l["alertname"], l["severity"], l["drill"], l["rollout"], l[mark] = r.Name, "none", "true", b.Release.Version, nonce
		set := model.LabelSet{}
		for k, v := range l {
			set[model.LabelName(k)] = model.LabelValue(v)
		}
		raised[set.Fingerprint().String()] = trigger
		if err := e.runner.sources.RaiseAlert(ctx, l, e.Now().Add(drillLasts)); err != nil {
			return nil, fmt.Errorf("raise a drill alert of %s: %w", trigger, err)
		}
	}
	return raised, nil
}

// awaitDrills takes out of missing what has come back as a drill.
func (e *Checker) awaitDrills(ctx context.Context, missing map[string]string) (incidents []string, err error) {
	deadline, cancel := context.WithTimeout(ctx, e.runner.patience)
	defer cancel()
	for {
		err = e.Store.View(ctx, func(tx remediation.Tx) error {
			for fingerprint := range missing {
				a, err := tx.Alert(fingerprint)
				if errors.Is(err, remediation.ErrNotFound) {
					continue
				}
				if err != nil {
					return err
				}
				if a.Incident == "" { // it came back, and is one that only a person's word makes an incident of
					delete(missing, fingerprint)
					continue
				}
				inc, err := tx.Incident(a.Incident)
				if err != nil {
					return err
				}
				if !inc.Drill {
					return fmt.Errorf("the drill alert of %s arrived as incident %s, which is not a drill", missing[fingerprint], inc.ID)
				}
				if !slices.Contains(incidents, inc.ID) {
					incidents = append(incidents, inc.ID)
				}
				delete(missing, fingerprint)
			}
			return nil
		})
		if err != nil || len(missing) == 0 {
			return incidents, err
		}
		ledger.Pause(deadline, routeEvery)
		if deadline.Err() != nil {
			return incidents, ctx.Err()
		}
	}
}
