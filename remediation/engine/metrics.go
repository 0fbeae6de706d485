package engine

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/plan"
)

var (
	descIncidents = prometheus.NewDesc("backout_incidents_open", "Open incidents, without drills.", []string{"service"}, nil)
	descHuman     = prometheus.NewDesc("backout_needs_human", "1 while an open, unclaimed incident waits for a person, by reason.", []string{"service", "reason"}, nil)
	descFrozen    = prometheus.NewDesc("backout_frozen", "1 while a service is frozen for steps.", []string{"service"}, nil)
	descWatchdog  = prometheus.NewDesc("backout_watchdog_age_seconds", "Seconds since the last watchdog alert.", []string{"service"}, nil)
	descBlind     = prometheus.NewDesc("backout_blind", "1 while the watchdog stays away, or Prometheus does not answer, for longer than the playbook's watchdog.max_age.", []string{"service", "reason"}, nil)
	descRemaining = prometheus.NewDesc("backout_rate_limit_remaining", "Steps that the limits still allow.", []string{"action", "service"}, nil)
	descStage     = prometheus.NewDesc("rollout_stage", "1 for the stage that the rollout is in, 0 for every other; none is a stage.", []string{"service", "rollout", "stage"}, nil)
	descTraffic   = prometheus.NewDesc("rollout_traffic_ratio", "Share of traffic that the present stage gives to the release.", []string{"service", "rollout"}, nil)
	descSignal    = prometheus.NewDesc("rollout_signal", "1 where a human has raised the signal, 0 for every other one of the playbook.", []string{"service", "signal"}, nil)
	descPending   = prometheus.NewDesc("backout_outbox_pending", "Messages that are not delivered yet.", nil, nil)
	descOldest    = prometheus.NewDesc("backout_outbox_oldest_seconds", "Age of the oldest message that is not delivered yet; 0 where none waits.", []string{"channel"}, nil)
	descUp        = prometheus.NewDesc("backout_store_up", "1 where the store answered this scrape.", nil, nil)
	descReplicas  = prometheus.NewDesc("backout_replicas", "Replicas that share the database and were seen within the length of a lease; 1 where only one process can.", nil, nil)
	descActs      = prometheus.NewDesc("backout_acts", "1 for each realm in which this replica acts.", []string{"realm"}, nil)
	descUnheld    = prometheus.NewDesc("backout_realm_unheld", "1 while no replica acts in the realm of a service, 0 otherwise.", []string{"service"}, nil)
	descDiffer    = prometheus.NewDesc("backout_replicas_differ", "1 while the replicas' modes or playbooks of the service differ, so that no step runs.", []string{"service"}, nil)
	descAudit     = prometheus.NewDesc("backout_audit_ok", "Whether the last verification found the audit log whole; absent before the first.", nil, nil)
)

// Describe implements prometheus.Collector.
func (e *Engine) Describe(ch chan<- *prometheus.Desc) {
	e.Metrics.Steps.Describe(ch)
	e.Metrics.Holds.Describe(ch)
	e.Metrics.Drift.Describe(ch)
	e.Metrics.Duration.Describe(ch)
	e.Metrics.Reaction.Describe(ch)
	e.Metrics.Deliveries.Describe(ch)
	for _, d := range []*prometheus.Desc{descIncidents, descHuman, descFrozen, descWatchdog, descBlind, descRemaining, descStage, descTraffic, descSignal, descPending, descOldest, descUp, descReplicas, descActs, descUnheld, descDiffer, descAudit} {
		ch <- d
	}
}

// scrapeTimeout bounds the store reads of one scrape.
const scrapeTimeout = 5 * time.Second

// Collect implements prometheus.Collector.
func (e *Engine) Collect(ch chan<- prometheus.Metric) {
	e.Metrics.Steps.Collect(ch)
	e.Metrics.Holds.Collect(ch)
	e.Metrics.Drift.Collect(ch)
	e.Metrics.Duration.Collect(ch)
	e.Metrics.Reaction.Collect(ch)
	e.Metrics.Deliveries.Collect(ch)
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	up := 1.0
	if err := e.Store.View(ctx, func(tx remediation.Tx) error { return e.collect(tx, ch) }); err != nil {
		e.Log.Error("cannot read metrics from the store", "err", err)
		up = 0
	}
	ch <- gauge(descUp, up)
	if a := e.audited.Load(); a != nil {
		ch <- flag(descAudit, a.OK)
	}
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// flag is 1 where something is so, and 0 where it is not.
func flag(d *prometheus.Desc, so bool, labels ...string) prometheus.Metric {
	if so {
		return gauge(d, 1, labels...)
	}
	return gauge(d, 0, labels...)
}

func (e *Engine) collect(tx remediation.Tx, ch chan<- prometheus.Metric) error {
	open, err := tx.Incidents(remediation.IncidentFilter{Open: true})
	if err != nil {
		return err
	}
	freezes, err := e.FreezesIn(tx)
	if err != nil {
		return err
	}
	pending, err := tx.PendingMessages()
	if err != nil {
		return err
	}
	waiting := 0
	for _, n := range pending {
		waiting += n
	}
	ch <- gauge(descPending, float64(waiting))
	if err := e.collectReplicas(tx, ch); err != nil {
		return err
	}
	for _, c := range e.Outbox.Channels {
		heads, err := tx.FirstMessages(c.Name())
		if err != nil {
			return err
		}
		oldest := time.Duration(0)
		for _, m := range heads {
			oldest = max(oldest, e.Now().Sub(m.Created))
		}
		ch <- gauge(descOldest, oldest.Seconds(), c.Name())
	}
	incidents := map[string]int{}
	for _, b := range e.Plans() {
		incidents[b.Service] = 0
	}
	for _, inc := range open { // also those of a service that a reload left out
		if !inc.Drill {
			incidents[inc.Service]++
		}
	}
	plans := e.Plans()
	all, err := readServices(tx, plans, e.Now())
	if err != nil {
		return err
	}
	needed, err := e.needed(tx, all, open)
	if err != nil {
		return err
	}
	for _, n := range needed {
		ch <- gauge(descHuman, 1, n.Service, n.Reason)
	}
	for service, n := range incidents {
		ch <- gauge(descIncidents, float64(n), service)
	}
	for _, b := range plans {
		frozen := 0.0
		for _, f := range freezes {
			if f.Scope == remediation.ScopeAll && (f.Service == "" || f.Service == b.Service) {
				frozen = 1
			}
		}
		ch <- gauge(descFrozen, frozen, b.Service)
		beat := all.beats[b.Service]
		ch <- gauge(descWatchdog, e.Now().Sub(beat.Last).Seconds(), b.Service)
		ch <- flag(descBlind, beat.Lost || e.late(b, beat, e.Now()), b.Service, remediation.BlindWatchdog)
		ch <- flag(descBlind, !beat.Away.IsZero(), b.Service, remediation.BlindPrometheus)
		for _, l := range limitsLeft(b, all.effects[b.Service], e.Now()) {
			ch <- gauge(descRemaining, float64(l.Left), l.Action, b.Service)
		}
		r := all.rollout(b.Service)
		if err := collectRollout(r, e.ShownPlan(tx, b, r), ch); err != nil {
			return err
		}
		for _, name := range remediation.SignalsOf(b.Playbook) {
			ch <- flag(descSignal, all.signal(b.Service, name) != nil, b.Service, name)
		}
	}
	return nil
}

// collectReplicas shows who shares the store, and in what this one acts.
func (e *Engine) collectReplicas(tx remediation.Tx, ch chan<- prometheus.Metric) error {
	if e.replica == nil {
		ch <- gauge(descReplicas, 1)
		return nil
	}
	live, err := remediation.LiveReplicas(tx, e.Now())
	if err != nil {
		return err
	}
	ch <- gauge(descReplicas, float64(len(live)))
	for _, realm := range e.keeper.Holds() {
		ch <- gauge(descActs, 1, realm)
	}
	_, unheld, err := e.replicasNow(tx)
	if err != nil {
		return err
	}
	idle := map[string]bool{}
	for _, u := range unheld {
		for _, service := range u.Services {
			idle[service] = true
		}
	}
	for _, b := range e.Plans() {
		ch <- flag(descUnheld, idle[b.Service], b.Service)
		differ, _ := gate.Differ(live, b.Service)
		ch <- flag(descDiffer, differ != "", b.Service)
	}
	return nil
}

// collectRollout exports exactly one stage as 1, always: a gate that ended
// because a series vanished would look like a recovery.
func collectRollout(r remediation.Rollout, b *plan.Plan, ch chan<- prometheus.Metric) (err error) {
	release, stage := r.Release, r.Stage
	if release == "" {
		release = b.Release.Version
	}
	if b.Stage(stage) == nil {
		stage = remediation.StageNone
	}
	traffic := 0.0
	for _, name := range append(remediation.StageNames(b.Playbook), remediation.StageNone) {
		v := 0.0
		if name == stage {
			v = 1
		}
		ch <- gauge(descStage, v, b.Service, release, name)
	}
	if s := b.Stage(stage); s != nil {
		if traffic, err = strconv.ParseFloat(s.Traffic, 64); err != nil {
			return err
		}
	}
	if n := len(b.Stages); r.State == remediation.RolloutDone && n > 0 { // it stays as the last stage left it
		if traffic, err = strconv.ParseFloat(b.Stages[n-1].Traffic, 64); err != nil {
			return err
		}
	}
	ch <- gauge(descTraffic, traffic, b.Service, release)
	return nil
}
