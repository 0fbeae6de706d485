// Package dashboard generates Grafana's dashboards: those that a playbook lists, and
// backout's own health. rules puts them next to the other generated files.
//
// Invariants: the same playbook gives the same bytes; an indicator is shown by the query
// that its alerts judge; a dashboard's uid is that of the playbook's link to it.
package dashboard

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/rules/query"
)

// File is one dashboard in Grafana's classic model, as JSON.
type File struct {
	UID     string
	Content []byte
}

// Files are the playbook's dashboards and backout's own; warnings say which indicators are
// on none of them.
func Files(pb *alerts.Playbook) (files []File, warnings []string, err error) {
	boards, warnings, err := boardsOf(pb)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range append(boards, ownDashboard()) {
		f, err := d.file()
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
	}
	return files, warnings, nil
}

// boardsOf returns the dashboards that the playbook lists, by name, and which
// indicators are on none of them.
func boardsOf(pb *alerts.Playbook) (boards []dashboard, warnings []string, err error) {
	taken := map[string]string{ownUID: "backout"}
	for _, name := range slices.Sorted(maps.Keys(pb.Dashboards)) {
		uid, err := dashboardUID(pb.Service, name, pb.Dashboards[name])
		if err != nil {
			return nil, nil, fmt.Errorf("dashboard %s: %w", name, err)
		}
		if other, ok := taken[uid]; ok {
			return nil, nil, hint.Add(fmt.Errorf("dashboard %s: its uid %s is that of %s", name, uid, other), "give it an address of its own under dashboards")
		}
		taken[uid] = name
		d, err := boardOfName(pb, name, uid)
		if err != nil {
			return nil, nil, fmt.Errorf("dashboard %s: %w", name, err)
		}
		boards = append(boards, d)
	}
	for i := range pb.Indicators {
		if ind := &pb.Indicators[i]; len(boards) > 0 && ind.Dashboard != "" && pb.Board(ind) == "" {
			warnings = append(warnings, fmt.Sprintf("indicator %s is on no dashboard: %q is neither listed under dashboards nor mapped under dashboard_aliases", ind.Name, ind.Dashboard))
		}
	}
	return boards, warnings, nil
}

// boardOfName is one dashboard: the state of the rollout, and its indicators.
func boardOfName(pb *alerts.Playbook, name, uid string) (dashboard, error) {
	d := dashboard{
		UID: uid, Title: pb.Service + ": " + name, Description: generatedFrom(pb.Service), Tags: []string{"backout", pb.Service},
		Annotations: rolloutAnnotations(pb),
	}
	d.add(8, 5, statPanel("Stage", "The rollout's stage, or none.", "short",
		target{fmt.Sprintf("max by (stage) (rollout_stage{service=%q}) == 1", pb.Service), "{{stage}}"}).named())
	d.add(8, 5, statPanel("Traffic", "The share of traffic that the release gets in this stage.", "percentunit",
		target{fmt.Sprintf("max(rollout_traffic_ratio{service=%q})", pb.Service), "traffic"}))
	d.add(8, 5, statPanel("Open incidents", "The service's incidents that are not closed.", "short",
		target{fmt.Sprintf("sum(backout_incidents_open{service=%q})", pb.Service), "open"}))
	for i := range pb.Indicators {
		ind := &pb.Indicators[i]
		if pb.Board(ind) != name {
			continue
		}
		p, err := indicatorPanel(pb, ind)
		if err != nil {
			return dashboard{}, err
		}
		d.add(12, 9, p)
	}
	// A panel without data says so, and is not blank.
	if len(d.Panels) == 3 {
		d.add(24, 4, panel{Type: "text", Title: "No indicator", Content: "No indicator in the playbook names this dashboard."})
	}
	return d, nil
}

var (
	grafanaUID  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`)
	notOfAnUID  = regexp.MustCompile(`[^a-z0-9]+`)
	dashboardID = regexp.MustCompile(`/d/([^/]+)(/|$)`)
)

// dashboardUID is the part of the address by which Grafana finds a dashboard,
// so that the playbook's links lead to the generated one. An address of another
// form gets one made of the names.
func dashboardUID(service, name, address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("read its address: %w", err)
	}
	uid := strings.Trim(notOfAnUID.ReplaceAllString(strings.ToLower(service+"-"+name), "-"), "-")
	if m := dashboardID.FindStringSubmatch(u.Path); m != nil {
		uid = m[1]
	}
	if !grafanaUID.MatchString(uid) {
		return "", hint.Add(fmt.Errorf("%q cannot be a dashboard's uid", uid), "an address that ends with /d/ and 1 to 40 letters, digits, _ and -")
	}
	return uid, nil
}

// indicatorPanel shows an indicator as its query gives it, and what its triggers
// judge, with their bounds as lines.
func indicatorPanel(pb *alerts.Playbook, ind *alerts.Indicator) (panel, error) {
	q := &query.Query{Playbook: pb, Indicator: ind, Bound: query.Bound{Above: true}}
	window, volume := query.JudgedOver(pb, ind.Name), 0.0
	if a := ind.Alert; a != nil && query.OfAlert(a).Span() == window {
		volume = a.MinVolume
	}
	if window == 0 {
		window = 5 * time.Minute
	}
	shown := q.At(window, volume)
	if _, err := query.Parse(shown); err != nil {
		return panel{}, fmt.Errorf("indicator %s: %w", ind.Name, err)
	}
	legend := ind.Name
	if !ind.Instant() {
		legend += " over " + query.Duration(window)
	}
	targets := []target{{shown, legend}}
	lines := map[float64]string{}
	words := []string{strings.TrimSpace(query.Sentence(ind.Description))}
	if ind.Target != nil {
		lines[*ind.Target] = targetColor
		words = append(words, fmt.Sprintf("Target %s (%s line).", query.Quantity(ind.Unit, *ind.Target), targetColor))
	}
	if a := ind.Alert; a != nil {
		b := query.OfAlert(a)
		lines[b.Threshold] = alertColor
		words = append(words, fmt.Sprintf("Alert %s (%s line).", b.Words(ind.Unit), alertColor))
	}
	for i := range pb.Triggers {
		t := &pb.Triggers[i]
		if t.Indicator != ind.Name {
			continue
		}
		b := query.OfTrigger(t)
		lines[b.Threshold] = rollbackColor
		where := ""
		if stages := pb.StagesOf(t.Name); len(stages) > 0 {
			where = " in " + strings.Join(stages, ", ")
		}
		words = append(words, fmt.Sprintf("Rollback %s%s: %s (%s line).", b.Words(ind.Unit), where, t.Name, rollbackColor))
		targets = append(targets, target{query.SelectorOf(query.TriggerRecording, "service", pb.Service, "trigger", t.Name), "judged by " + t.Name})
	}
	p := seriesPanel(ind.Name, strings.Join(words, " "), grafanaUnit(ind.Unit), targets...)
	p.Lines = linesAt(lines)
	return p, nil
}

// The lines' colours, by what they mean; where two meet, the most severe is shown.
const (
	targetColor   = "green"
	alertColor    = "orange"
	rollbackColor = "red"
)

// grafanaUnit is a unit as Grafana calls it.
func grafanaUnit(u alerts.Unit) string {
	switch u {
	case alerts.Ratio:
		return "percentunit"
	case alerts.Percent:
		return "percent"
	case alerts.Seconds:
		return "s"
	case alerts.Milliseconds:
		return "ms"
	case alerts.Bytes:
		return "bytes"
	case alerts.PerSecond:
		return "cps"
	case alerts.Count:
	}
	return "short"
}

// rolloutAnnotations mark when a stage began, which steps ended, and which
// rollback alerts fired.
func rolloutAnnotations(pb *alerts.Playbook) []annotation {
	stage := fmt.Sprintf("max by (stage) (rollout_stage{service=%q}) == 1", pb.Service)
	before := fmt.Sprintf("max by (stage) (rollout_stage{service=%q} offset 1m) == 1", pb.Service)
	return []annotation{
		{"Rollout stages", "blue", stage + " unless on (stage) " + before, "Stage {{stage}}", pb.Service},
		stepsMark(),
		{"Rollback alerts", "red", fmt.Sprintf(`ALERTS{service=%q,trigger!="",alertstate="firing"}`, pb.Service), "{{alertname}}", "{{trigger}}"},
	}
}

// stepsMark: the counter has no service, so the steps of all of them are shown.
// A series that is born with its first step has no increase yet.
func stepsMark() annotation {
	const steps = "sum by (action, outcome) (backout_steps_total)"
	return annotation{"Remediation steps (of all services)", "purple",
		"sum by (action, outcome) (increase(backout_steps_total[1m])) > 0 or (" + steps + " > 0 unless " +
			"sum by (action, outcome) (backout_steps_total offset 1m))", "{{action}}", "{{outcome}}"}
}
