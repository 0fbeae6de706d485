package rules_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"pgregory.net/rapid"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

// anyPlaybook draws a small valid playbook: some indicators of the usual
// shapes, triggers on them on either side, some of those in stages.
func anyPlaybook(r *rapid.T) *alerts.Playbook {
	word := rapid.StringMatching(`[a-z][a-z0-9_]{0,8}`)
	seconds := func(low, high int, label string) model.Duration {
		return model.Duration(time.Duration(rapid.IntRange(low, high).Draw(r, label)) * time.Second)
	}
	number := func(label string) *float64 {
		f := rapid.Float64Range(-1e6, 1e6).Draw(r, label)
		return &f
	}
	pb := smallPlaybook()
	pb.Service = rapid.StringMatching(`[a-z][a-z0-9.-]{0,12}[a-z]`).Draw(r, "service")
	pb.Job = rapid.StringMatching(`[ -~]{1,12}`).Draw(r, "job")
	pb.ScrapeInterval = seconds(1, 60, "scrape interval")
	pb.Release.Version = rapid.StringMatching(`[!-~]{1,10}`).Draw(r, "version")
	pb.Alive = fmt.Sprintf("sum(increase(si_requests_total[%s])) > bool 0", 4*pb.ScrapeInterval)
	pb.Indicators, pb.Triggers, pb.Stages = nil, nil, nil
	for i := range rapid.IntRange(1, 4).Draw(r, "indicators") {
		ind := alerts.Indicator{
			Name: fmt.Sprintf("%s_%d", word.Draw(r, "indicator"), i), Unit: rapid.SampledFrom([]alerts.Unit{alerts.Ratio, alerts.Seconds, alerts.Bytes, alerts.Count}).Draw(r, "unit"),
			Query: rapid.SampledFrom([]string{
				errorQuery, cpuQuery, `1 - avg by (instance) (rate(cpu{mode="idle"}[1m]))`, `used{a=~"x|y"} / on (id) size > 0`,
				`histogram_quantile(0.9, sum by (le) (rate(lat_bucket[$window])))`, `avg_over_time(depth[$window])`, `time() - last`,
			}).Draw(r, "query"),
			Description: rapid.StringMatching(`[ -~]{0,20}`).Draw(r, "description"),
		}
		spanned := func() (w, s model.Duration) {
			span := seconds(1, 3600, "span")
			if ind.Instant() {
				return 0, span
			}
			return span, 0
		}
		if rapid.Bool().Draw(r, "alert") {
			a := alerts.AlertBound{Above: number("alert threshold")}
			a.Window, a.Sustained = spanned()
			ind.Alert = &a
		}
		t := alerts.Trigger{Name: fmt.Sprintf("%s_%d", word.Draw(r, "trigger"), i), Indicator: ind.Name, Plan: "ladder", Description: ind.Description}
		t.Window, t.Sustained = spanned()
		t.Recovery.Window = 4 * pb.ScrapeInterval
		if rapid.Bool().Draw(r, "above") {
			t.Above = number("threshold")
		} else {
			t.Below = number("threshold")
		}
		pb.Indicators, pb.Triggers = append(pb.Indicators, ind), append(pb.Triggers, t)
	}
	for i := range rapid.IntRange(0, 3).Draw(r, "stages") {
		s := alerts.Stage{Name: fmt.Sprintf("%s-%d", word.Draw(r, "stage"), i)}
		for _, t := range pb.Triggers {
			if rapid.Bool().Draw(r, "in this stage") {
				s.Rollback = append(s.Rollback, t.Name)
			}
		}
		pb.Stages = append(pb.Stages, s)
	}
	return pb
}

func TestRulesOfAnyPlaybookAreValidAndAgreeWithItsExpressions(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		pb := anyPlaybook(r)
		if _, err := rules.Check(pb); err != nil {
			r.Fatal(err)
		}
		x, err := rules.ExpressionsOf(pb)
		if err != nil {
			r.Fatal(err)
		}
		p := parser.NewParser(parser.Options{})
		for name, e := range x.Triggers {
			for what, text := range map[string]string{"value": e.Value, "recovery": e.Recovery, "alive": x.Alive, "age": x.Age} {
				expr, err := p.ParseExpr(text)
				if err != nil || expr.Type() != parser.ValueTypeVector {
					r.Fatalf("%s of %s is no vector (%v): %s", what, name, err, text)
				}
			}
			if strings.Contains(e.Recovery, "backout:") {
				r.Fatalf("the recovery of %s reads a recording: %s", name, e.Recovery)
			}
			if staged := len(pb.StagesOf(name)) > 0; staged != strings.Contains(e.Value, "backout:stage:") {
				r.Fatalf("the value of %s, in a stage: %v, is %s", name, staged, e.Value)
			}
			if e.RecoveryWindow < 4*time.Duration(pb.ScrapeInterval) {
				r.Fatalf("the recovery of %s looks back %s only", name, e.RecoveryWindow)
			}
		}
	})
}

func TestFilesOfAnyPlaybookAreMadeOrTheirGapsNamed(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		pb := anyPlaybook(r)
		pb.Indicators, pb.Triggers = pb.Indicators[:1], pb.Triggers[:1]
		files, err := rules.Settings{}.Generate(pb)
		if err != nil {
			r.Fatal(err)
		}
		named := ""
		all := ""
		for _, f := range files {
			named += strings.Join(f.Warnings, "\n")
			all += string(f.Content)
			if strings.HasSuffix(f.Name, ".rules.yml") {
				if _, errs := rulefmt.Parse(f.Content, false, model.LegacyValidation, parser.NewParser(parser.Options{}), promslog.NewNopLogger()); len(errs) > 0 {
					r.Fatal(errs)
				}
			}
		}
		trigger := pb.Triggers[0].Name
		tested := strings.Contains(all, `ALERTS{alertname="Rollback`) || strings.Contains(all, `ALERTS{alertname=\"Rollback`)
		if !tested && !strings.Contains(named, "trigger "+trigger) {
			r.Fatalf("trigger %s has neither a test nor a warning", trigger)
		}
	})
}
