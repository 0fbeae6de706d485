package preflight

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// check is one row of the table: a check, or one for each of several subjects.
type check struct {
	// id and name have a * for the subject. The id is the same in each preflight: people
	// sign off by it.
	id, name string
	needs    need
	// each returns the subjects that a playbook has; without one there is nothing to check.
	each func(*Checker, *plan.Plan) []subject
	run  func(e *Checker, ctx context.Context, b *plan.Plan, of string) remediation.Result
	// own, in place of each and run, returns the checks that actions have themselves.
	own func(*plan.Plan) []remediation.PreflightCheck
}

// subject is what a check is of, and how its id writes that.
type subject struct{ name, id string }

// need is what a check cannot do without.
type need string

const (
	prometheus need = "prometheus" // answers to queries
	sources    need = "sources"    // Prometheus's and Alertmanager's APIs, clocks, web pages
	records    need = "records"    // backout's own store
	channels   need = "channels"   // what messages go to
	targets    need = "targets"    // what the actions change; a check takes back what it does there
)

// checks are all checks of a preflight, in the order in which they run: what is quick, and
// touches nothing, comes first.
var checks = []check{
	{"prometheus/rules", "Prometheus has the generated rules loaded", sources, once, (*Checker).rulesLoaded, nil},
	{"prometheus/own", "Prometheus has backout's own metrics of *", prometheus, theService, (*Checker).ownMetrics, nil},
	{"prometheus/intervals", "Prometheus scrapes as often as the playbook says", sources, once, (*Checker).scrapedInTime, nil},
	{"query/*", "the query of * returns data", prometheus, queries, (*Checker).returnsData, nil},
	{"buckets/*", "the buckets of * fit its thresholds", sources, quantiles, (*Checker).bucketsFit, nil},
	{"replication/lag", "replicas lag less than *", prometheus, lagLimit, (*Checker).replicasFollow, nil},
	{"clock/skew", "clocks agree", sources, once, (*Checker).clocksAgree, nil},
	{rehearsalItem("*"), "plan * was rehearsed", records, usedPlans, (*Checker).wasRehearsed, nil},
	{"channel/*", "* accepts messages", channels, usedChannels, (*Checker).channelAccepts, nil},
	{"dashboard/*", "the dashboard * is there", sources, dashboards, (*Checker).dashboardThere, nil},
	{"ACTION/*", "what an action checks of its own target", targets, nil, nil, actionChecks},
	{"alertmanager/routes", "Alertmanager delivers each trigger here", sources, routed, (*Checker).sendDrills, nil},
}

// checksOf are the checks of a playbook. Of two with the same id, the first counts: the
// playbook's replication lag replaces the database's own.
func (e *Checker) checksOf(b *plan.Plan) []remediation.PreflightCheck {
	var out []remediation.PreflightCheck
	for _, c := range checks {
		for _, p := range c.of(e, b) {
			if !slices.ContainsFunc(out, func(have remediation.PreflightCheck) bool { return have.ID == p.ID }) {
				out = append(out, p)
			}
		}
	}
	return out
}

// of returns a row's checks of a playbook, one for each subject.
func (c check) of(e *Checker, b *plan.Plan) []remediation.PreflightCheck {
	if c.own != nil {
		return c.own(b)
	}
	var out []remediation.PreflightCheck
	for _, s := range c.each(e, b) {
		out = append(out, remediation.PreflightCheck{
			ID: strings.ReplaceAll(c.id, "*", s.id), Name: strings.ReplaceAll(c.name, "*", s.name),
			Run: func(ctx context.Context) remediation.Result {
				if c.needs == sources && e.runner.sources == nil {
					return noSources()
				}
				return c.run(e, ctx, b, s.name)
			},
		})
	}
	return out
}

func noSources() remediation.Result {
	const why = "nothing is configured to check this"
	return remediation.Unknown(why, "start backout serve with prometheus: and alertmanager:").Because(why)
}

func once(*Checker, *plan.Plan) []subject { return []subject{{}} }

func theService(_ *Checker, b *plan.Plan) []subject { return []subject{{name: b.Service}} }

// queries are those of the playbook; alive is one too.
func queries(_ *Checker, b *plan.Plan) []subject {
	out := []subject{{alive, alive}}
	for i := range b.Indicators {
		out = append(out, subject{b.Indicators[i].Name, b.Indicators[i].Name})
	}
	return out
}

// quantiles are the indicators that are read from a histogram.
func quantiles(_ *Checker, b *plan.Plan) []subject {
	var out []subject
	for i := range b.Indicators {
		ind := &b.Indicators[i]
		if expr, err := b.WidestQuery(ind); err == nil && len(histogramsOf(expr)) > 0 { // the loader has refused what cannot be parsed
			out = append(out, subject{ind.Name, ind.Name})
		}
	}
	return out
}

// lagLimit is the most that replicas may lag, where the playbook has a query for that.
// Without one, an action that knows the database has a check of the same id.
func lagLimit(_ *Checker, b *plan.Plan) []subject {
	if b.Preflight == nil || b.Preflight.ReplicationLag == nil {
		return nil
	}
	return []subject{{name: mostLag(b).String()}}
}

// usedPlans are those that a trigger uses.
func usedPlans(_ *Checker, b *plan.Plan) []subject {
	plans, err := rehearsable(b, "")
	if err != nil {
		return nil // without a plan, nothing is to be rehearsed
	}
	return slugged(plans)
}

// usedChannels are all that are connected, and Slack where the playbook names a channel
// of it.
func usedChannels(e *Checker, b *plan.Plan) []subject {
	var names []string
	for _, ch := range e.channels {
		names = append(names, ch.Name())
	}
	if b.Communications != nil && b.Communications.SlackChannel != "" && !slices.Contains(names, slack) {
		names = append(names, slack)
	}
	return slugged(names)
}

// rehearsalItem is the id of a plan's rehearsal, whose slug the plan's name is.
func rehearsalItem(slug string) string { return "rehearsal/" + slug }

func dashboards(_ *Checker, b *plan.Plan) []subject {
	return slugged(slices.Sorted(maps.Keys(b.Dashboards)))
}

// routed: there is a trigger whose alert must arrive.
func routed(e *Checker, b *plan.Plan) []subject {
	if len(b.Triggers) == 0 {
		return nil
	}
	return once(e, b)
}

func slugged(names []string) []subject {
	var out []subject
	for _, n := range names {
		out = append(out, subject{n, remediation.Slug(n)})
	}
	return out
}
