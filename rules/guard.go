package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules/query"
)

// A guard reports that backout, or its data, does not work: silence
// would else look like health. Guards carry no trigger label; nothing is
// rolled back because of one.
type guard struct {
	rule
	// subject is the indicator it guards, nil for the service or backout.
	subject *alerts.Indicator
	// samples, if it is above 0, is how many samples the subject's series must
	// have over that time.
	samples int
	over    time.Duration
}

// The guards' alert names.
const (
	noTraffic              = "NoTraffic"
	serviceDown            = "ServiceDown"
	indicatorAbsent        = "IndicatorAbsent"
	stageMetricAbsent      = "StageMetricAbsent"
	backoutDown            = "BackoutDown"
	replicaDown            = "BackoutReplicaDown"
	realmUnheld            = "BackoutRealmUnheld"
	replicasDiffer         = "BackoutReplicasDiffer"
	backoutBlind           = "BackoutBlind"
	messagesPending        = "BackoutMessagesPending"
	messagesDropped        = "BackoutMessagesDropped"
	auditBroken            = "BackoutAuditBroken"
	remediationHeld        = "RemediationHeld"
	remediationFailed      = "RemediationFailed"
	frozenOverADay         = "FrozenOverADay"
	ruleEvaluationFailures = "RuleEvaluationFailures"
	watchdog               = "Watchdog"
)

// backoutJob is the Prometheus job that scrapes backout (deploy/prometheus.yml).
const backoutJob = "backout"

// patience is how long data may be missing before an alert: longer than a
// recreated container needs to come back.
func patience(pb *alerts.Playbook) time.Duration { return 20 * time.Duration(pb.ScrapeInterval) }

// pendingLong is how long a message may wait before an alert.
const pendingLong = 10 * time.Minute

// guardsOf returns a service's guards; the watchdog is the last rule of the
// group, so that it beats only while all of them are evaluated.
func guardsOf(pb *alerts.Playbook) ([]guard, error) {
	var guards []guard
	of := func(about string, labels map[string]string, name, expr string, wait time.Duration, summary, description string) {
		note := notes(pb, nil)
		note["summary"] = escape(about) + summary
		note["description"] = description
		guards = append(guards, guard{rule: rule{Alert: name, Expr: expr, For: model.Duration(wait), Labels: labels, Annotations: note}})
	}
	add := func(name, severity, expr string, wait time.Duration, summary, description string) {
		of(pb.Service+": ", map[string]string{"service": pb.Service, "severity": severity}, name, expr, wait, summary, description)
	}
	// What is wrong with backout itself is one alert, however many services it
	// looks after: each has the same labels in every service's rules.
	own := func(name, severity, expr string, wait time.Duration, summary, description string) {
		of("", map[string]string{"severity": severity}, name, expr, wait, summary, description)
	}
	service := strconv.Quote(pb.Service)
	up := fmt.Sprintf("min(%s)", query.Targets(pb))

	add(serviceDown, warning, fmt.Sprintf("(%s or vector(0)) == 0", up), patience(pb),
		"is not scraped", escape(fmt.Sprintf("A target of the job %s is down, or Prometheus has none. backout cannot see the state of the service, and rolls nothing back because of this alert.", pb.Job)))
	add(noTraffic, warning, fmt.Sprintf("%s == 0\nand on () max(%s) == 1", query.SelectorOf(aliveRecording, "service", pb.Service), query.Targets(pb)), patience(pb),
		"is up and gets no requests", "The service is scraped, but its alive expression is not 1. Without requests no trigger can detect a breach.")

	for i := range pb.Indicators {
		g, err := absentGuard(pb, &pb.Indicators[i])
		if err != nil {
			return nil, fmt.Errorf("indicator %s: %w", pb.Indicators[i].Name, err)
		}
		if g != nil {
			guards = append(guards, *g)
		}
		if g, err = thinGuard(pb, &pb.Indicators[i]); err != nil {
			return nil, fmt.Errorf("indicator %s: %w", pb.Indicators[i].Name, err)
		}
		if g != nil {
			guards = append(guards, *g)
		}
	}
	if len(pb.Stages) > 0 {
		add(stageMetricAbsent, warning, fmt.Sprintf("absent(last_over_time(rollout_stage{service=%s}[%s]))", service, query.Duration(pb.Bridge())), patience(pb),
			"no stage is known", escape(fmt.Sprintf("Prometheus has no rollout_stage{service=%s}, which backout exports for every stage and for none. Without it no trigger of a stage can fire, and no signal. Either backout is not scraped, or a target label replaces its label service: set honor_labels: true on the scrape job %s.", service, backoutJob)))
	}
	own(backoutDown, critical, fmt.Sprintf("absent(up{job=%q} == 1)\nor on () max(backout_store_up) == 0", backoutJob), 2*pb.Bridge(),
		"backout is down", "No backout is scraped, or it cannot read its database. There is no automatic rollback: follow the runbook by hand.")
	own(replicaDown, warning, fmt.Sprintf("count(up{job=%[1]q} == 0) > 0\nand on () max(up{job=%[1]q}) == 1", backoutJob), 2*pb.Bridge(),
		"a replica of backout is down", "Another replica is up and acts. Bring the one that is down back: while it is down, the loss of one more stops automatic rollback. backout status shows which one it is.")
	add(realmUnheld, critical, fmt.Sprintf("min by (service) (min_over_time(backout_realm_unheld{service=%s}[%s])) == 1", service, query.Duration(pb.Bridge())), pb.Bridge(),
		"no replica of backout acts for it", "No replica holds the realm of the service: none with its host is up, or Prometheus answers none. There is no automatic rollback: follow the runbook by hand. backout status shows the realm.")
	add(replicasDiffer, warning, fmt.Sprintf("max by (service) (min_over_time(backout_replicas_differ{service=%s}[%s])) == 1", service, query.Duration(pb.Bridge())), patience(pb),
		"the replicas of backout differ", "They have different playbooks of the service, or run in different modes, so no step runs. Give them the same ones and reload them. backout status shows which one differs.")
	add(backoutBlind, critical, fmt.Sprintf("max by (service, reason) (max_over_time(backout_blind{service=%s}[%s])) == 1", service, query.Duration(pb.Bridge())), 0,
		"backout is blind ({{ $labels.reason }})", "Reason watchdog: alerts do not reach backout. Reason prometheus: Prometheus does not answer backout. Until monitoring is back, backout promotes nothing and confirms nothing: watch the service yourself.")
	own(messagesPending, warning, fmt.Sprintf("max(max_over_time(backout_outbox_oldest_seconds[%s])) > %g", query.Duration(pb.Bridge()), pendingLong.Seconds()), 0,
		"backout cannot deliver its messages", "A message to Slack, the status page or a mail server has been waiting for more than 10m. backout's log says why. backout keeps retrying; rollbacks do not wait for messages.")
	own(messagesDropped, warning, fmt.Sprintf("sum by (channel) (increase(backout_outbox_deliveries_total{result=\"dropped\"}[%s])) > 0", query.Duration(max(15*time.Minute, patience(pb)))), 0,
		"backout dropped a message ({{ $labels.channel }})", "The channel refused the message permanently. backout's log and the audit log say which message and why: pass it on by hand.")
	own(auditBroken, critical, fmt.Sprintf("min(min_over_time(backout_audit_ok[%s])) == 0", query.Duration(pb.Bridge())), 0,
		"the audit log of backout is broken", "An entry was changed, or entries are missing: from there on the log proves nothing. backout audit verify says which entry. Keep the database as it is, and compare it with the heads in Slack.")
	add(remediationHeld, critical, fmt.Sprintf("max by (service, reason) (max_over_time(backout_needs_human{service=%s,reason!=\"step_failed\"}[%s])) == 1", service, query.Duration(pb.Bridge())), 0,
		"a rollback waits for a person ({{ $labels.reason }})", "An open incident waits, and its breach may continue. See backout incident list, then approve, claim or close it.")
	add(remediationFailed, critical, fmt.Sprintf("max by (service, reason) (max_over_time(backout_needs_human{service=%s,reason=\"step_failed\"}[%s])) == 1", service, query.Duration(pb.Bridge())), 0,
		"a step of a rollback failed", "backout undid the step if it could. See backout incident list. To retry the step, claim and release the incident.")
	// The first looks at a whole day, the second bridges an hour in which backout was not scraped a day ago.
	add(frozenOverADay, warning, fmt.Sprintf("max by (service) (min_over_time(backout_frozen{service=%[1]s}[1d])) == 1\nand on (service) max by (service) (last_over_time(backout_frozen{service=%[1]s}[1h] offset 1d)) == 1", service), 0,
		"frozen for more than a day", "backout runs no step while it is frozen. To thaw it: backout thaw --reason=...")
	add(ruleEvaluationFailures, warning, fmt.Sprintf("sum(increase(prometheus_rule_evaluation_failures_total{rule_group=~%s}[%s])) > 0", strconv.Quote(".*;"+regexp.QuoteMeta(pb.Service)+"("+successSuffix+")?("+partSeparator+"[0-9]+)?"), query.Duration(patience(pb))), 0,
		"rules could not be evaluated", escape(fmt.Sprintf("Rules in a group of %s failed, so their results are missing. Prometheus's log and its Rules page show the error.", pb.Service)))
	add(watchdog, none, "vector(1)", 0, "alerts reach backout", "It always fires. If it is missing, backout treats monitoring as lost and promotes nothing.")
	return guards, nil
}

// absentGuard watches that an indicator has series at all, whatever their
// volume. It is quiet while no rollout is on: what a feature that is off does
// not export, nobody misses.
func absentGuard(pb *alerts.Playbook, ind *alerts.Indicator) (*guard, error) {
	window := query.JudgedOver(pb, ind.Name)
	if window == 0 {
		return nil, nil
	}
	q := &query.Query{Playbook: pb, Indicator: ind, Bound: query.Bound{Above: true}}
	text := q.At(window, 0)
	if ind.Instant() {
		var err error
		if text, err = query.Fresh(text, q.Scrape()); err != nil {
			return nil, err
		}
	}
	parsed, err := query.Parse(text)
	if err != nil {
		return nil, err
	}
	expr := fmt.Sprintf("absent(%s)", query.Single("max", text))
	whole := !asksForNone(parsed)
	also := unseen(parsed, text, !whole, "")
	switch {
	case whole:
		expr += also
	case also == "":
		return nil, nil
	default:
		expr = strings.TrimPrefix(also, "\nor ")
	}
	if len(pb.Stages) > 0 {
		if also != "" {
			expr = fmt.Sprintf("(%s)", expr)
		}
		expr += fmt.Sprintf("\nunless on () max(rollout_stage{service=%s,stage=\"none\"}) == 1", strconv.Quote(pb.Service))
	}
	note := notes(pb, ind)
	note["summary"] = escape(fmt.Sprintf("%s: %s has no series", pb.Service, ind.Name))
	note["description"] = escape(fmt.Sprintf("%s has no data, so nothing that depends on it can fire. Check that its exporter is scraped and that its labels match the playbook.", ind.Name))
	return &guard{subject: ind, rule: rule{
		Alert: indicatorAbsent, Expr: expr, For: model.Duration(patience(pb)),
		Labels:      map[string]string{"service": pb.Service, "indicator": ind.Name, "severity": warning},
		Annotations: note,
	}}, nil
}

// unseen is what the absence of an expression leaves out, as alternatives of it: scalar() without
// series is NaN, which is not absent. Each part of its argument that a healthy service has counts,
// in the largest pieces that nothing filters. n is a node of text, in scalar() or not, and when is
// what must have a value too: a side of or counts only where its value is taken.
func unseen(n parser.Node, text string, inScalar bool, when string) (found string) {
	single := func(n parser.Node) string {
		pos := n.PositionRange()
		return query.Single("max", text[pos.Start:pos.End])
	}
	if e, ok := n.(parser.Expr); ok && inScalar && e.Type() == parser.ValueTypeVector && !mayBeEmpty(n) {
		found, inScalar = fmt.Sprintf("\nor %sabsent(%s)", when, single(n)), false
	}
	switch e := n.(type) {
	case *parser.BinaryExpr:
		switch {
		case e.Op == parser.LOR:
			left, right := single(e.LHS), single(e.RHS)
			return found + unseen(e.LHS, text, false, fmt.Sprintf("%s%s and on () ", when, left)) +
				unseen(e.RHS, text, false, fmt.Sprintf("%s%s unless on () %s and on () ", when, right, left))
		case e.Op == parser.LUNLESS:
			return found + unseen(e.LHS, text, inScalar, when)
		case keepsSome(e) && e.Op != parser.NEQ && !inScalar: // no value is more or less than NaN, or equal to it
			return found
		}
	case *parser.Call:
		switch e.Func.Name {
		case "absent", "absent_over_time":
			return found
		case "scalar":
			inScalar = true
		}
	}
	for child := range parser.ChildrenIter(n) {
		found += unseen(child, text, inScalar, when)
	}
	return found
}

// mayBeEmpty reports whether something in an expression leaves out series of a healthy service.
func mayBeEmpty(n parser.Node) bool {
	switch e := n.(type) {
	case *parser.BinaryExpr:
		if e.Op == parser.LUNLESS || keepsSome(e) {
			return true
		}
	case *parser.Call:
		switch e.Func.Name {
		case "absent", "absent_over_time":
			return true
		case "scalar": // always has a value
			return false
		}
	}
	return slices.ContainsFunc(parser.Children(n), mayBeEmpty)
}

// asksForNone reports whether an expression has a value only where series are absent, which they
// are not on a healthy service.
func asksForNone(n parser.Node) bool {
	switch e := n.(type) {
	case *parser.BinaryExpr:
		switch e.Op {
		case parser.LOR:
			return asksForNone(e.LHS) && asksForNone(e.RHS)
		case parser.LUNLESS:
			return asksForNone(e.LHS)
		}
	case *parser.Call:
		switch e.Func.Name {
		case "absent", "absent_over_time":
			return true
		case "scalar":
			return false
		}
	}
	return slices.ContainsFunc(parser.Children(n), asksForNone)
}

// keepsSome reports whether an operator leaves out what differs.
func keepsSome(e *parser.BinaryExpr) bool { return e.Op.IsComparisonOperator() && !e.ReturnBool }

// thinGuard watches that an indicator's series have the samples by which it is
// judged: of data that is scraped too rarely, a sustained value never is one, and a
// short window has one now and then. Nil where so few are wanted that a lost scrape
// would look like that.
func thinGuard(pb *alerts.Playbook, ind *alerts.Indicator) (*guard, error) {
	q := &query.Query{Playbook: pb, Indicator: ind, Bound: query.Bound{Above: true}}
	d := query.JudgedOver(pb, ind.Name)
	for i := range pb.Triggers {
		if t := &pb.Triggers[i]; t.Indicator == ind.Name && !ind.Instant() {
			d = min(d, time.Duration(t.Recovery.Window))
		}
	}
	if d == 0 {
		return nil, nil
	}
	least := leastWindowed
	if ind.Instant() {
		least = int(query.LeastSamples(d, q.Scrape()))
	}
	if least < 3 || d < time.Duration(least)*q.Scrape() {
		return nil, nil
	}
	expr, err := query.Parse(q.At(d, 0))
	if err != nil {
		return nil, err
	}
	var counts []string
	for _, s := range query.SelectorsOf(expr) {
		one := (&parser.VectorSelector{Name: s.Vector.Name, LabelMatchers: s.Vector.LabelMatchers}).String()
		if one = fmt.Sprintf("max(count_over_time(%s[%s])) < %d", one, query.Duration(d), least); !slices.Contains(counts, one) {
			counts = append(counts, one)
		}
	}
	if len(counts) == 0 {
		return nil, nil
	}
	note := notes(pb, ind)
	note["summary"] = escape(fmt.Sprintf("%s: %s is scraped too rarely", pb.Service, ind.Name))
	note["description"] = fmt.Sprintf("Its series have {{ $value }} samples in %s, and backout needs at least %d.", query.Duration(d), least) +
		escape(fmt.Sprintf(" Nothing that depends on %s can be judged. Let Prometheus scrape it every %s, or set its scrape_interval in the playbook.", ind.Name, query.Duration(q.Scrape())))
	return &guard{subject: ind, samples: least, over: d, rule: rule{
		Alert: indicatorAbsent, Expr: strings.Join(counts, "\nor "), For: model.Duration(max(patience(pb), d)),
		Labels:      map[string]string{"service": pb.Service, "indicator": ind.Name, "severity": warning, "reason": "scrape_interval"},
		Annotations: note,
	}}, nil
}

// leastWindowed is how many samples a window must hold.
const leastWindowed = 4
