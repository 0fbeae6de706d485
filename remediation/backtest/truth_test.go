package backtest_test

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/backtest"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/view"
	"github.com/locotoki/backout/rules"
)

var began = time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)

// A playbook's rules are evaluated by promtool for a week (an eighth of it with -short), at every evaluation, with all
// of their recordings and ALERTS. A backtest of the same samples in a real Prometheus,
// which has no recording, finds the same firings.
func TestABacktestAgreesWithTheRulesThatWereEvaluated(t *testing.T) {
	t.Parallel()
	pb := slowly(t)
	to := began.Add(time.Duration(crashtest.Rounds(7*24)) * time.Hour)
	s := newSynthetic(7, time.Duration(pb.ScrapeInterval), began, to)
	s.fill(began, to)
	data := t.TempDir()
	s.blocks(t, data, began)
	prom, address := serve(t, data)
	report, err := backtest.Run(t.Context(), backtest.Options{
		Playbook: pb, Kinds: kinds(), Source: prom, SourceName: address, From: began, To: to.Add(-s.every), Now: func() time.Time { return to },
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.StagesFrom != view.StagesRecorded {
		t.Errorf("stages are %s", report.StagesFrom)
	}
	fired := 0
	for _, a := range report.Alerts {
		t.Logf("%s: %d firings", a.Alert, len(a.Firings))
		fired += len(a.Firings)
	}
	if fired < 10 {
		t.Errorf("only %d firings: they show little", fired)
	}
	evaluate(t, pb, s, report)
}

// What the replay derives from few queries is what Prometheus answers to each: targets go
// down and restart in these days.
func TestAReplayThatAsksLessTellsTheSame(t *testing.T) {
	t.Parallel()
	pb := slowly(t)
	to := began.Add(time.Duration(crashtest.Rounds(7*24)) * time.Hour)
	s := newSynthetic(11, time.Duration(pb.ScrapeInterval), began, to)
	s.fill(began, to)
	data := t.TempDir()
	s.blocks(t, data, began)
	prom, address := serve(t, data)
	o := backtest.Options{Playbook: pb, Kinds: kinds(), Source: prom, SourceName: address, From: began, To: to.Add(-s.every), Now: func() time.Time { return to }}
	less, err := backtest.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	all, err := backtest.Run(t.Context(), backtest.Plain(o))
	if err != nil {
		t.Fatal(err)
	}
	if len(all.Incidents) < 2 || !reflect.DeepEqual(less.Incidents, all.Incidents) {
		t.Errorf("with fewer queries:\n%+v\nwith all:\n%+v", less.Incidents, all.Incidents)
	}
}

// expected is one of promtool's questions about ALERTS.
type expected struct {
	Expr string   `yaml:"expr"`
	At   string   `yaml:"eval_time"`
	Want []sample `yaml:"exp_samples"`
}

type sample struct {
	Labels string  `yaml:"labels"`
	Value  float64 `yaml:"value"`
}

// evaluate lets promtool evaluate the rules on the same samples, and asks it whether each
// firing begins and ends where the report says, or one evaluation away, and
// whether there are as many.
func evaluate(t *testing.T, pb *alerts.Playbook, s *synthetic, report *view.Backtest) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules.yml"), rulesOf(t, pb, report), 0o600); err != nil {
		t.Fatal(err)
	}
	last := time.Duration(s.scrapes-1) * s.every
	var asked []expected
	for _, a := range report.Alerts {
		if a.Indicator != "" {
			asked = append(asked, questions(&a, s.every, last)...)
		}
	}
	test := map[string]any{
		"rule_files": []string{"rules.yml"}, "evaluation_interval": s.every.String(),
		"tests": []any{map[string]any{"interval": s.every.String(), "input_series": "SERIES", "promql_expr_test": asked}},
	}
	text, err := yaml.Marshal(test)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(dir, "truth.test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(file)
	before, after, _ := strings.Cut(string(text), "SERIES")
	fmt.Fprint(w, before) //nolint:errcheck // Flush says so
	for key, values := range s.series {
		fmt.Fprintf(w, "\n      - series: '%s'\n        values: '", key) //nolint:errcheck // Flush says so
		for _, v := range values {
			if math.IsNaN(v) {
				w.WriteString("_ ") //nolint:errcheck // Flush says so
			} else {
				w.WriteString(number(v) + " ") //nolint:errcheck // Flush says so
			}
		}
		w.WriteString("'") //nolint:errcheck // Flush says so
	}
	fmt.Fprint(w, after) //nolint:errcheck // Flush says so
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	command(t, "promtool", "test", "rules", file.Name())
}

// questions are those about one alert.
func questions(a *view.BacktestAlert, scrape, last time.Duration) (asked []expected) {
	alert := fmt.Sprintf("ALERTS{alertname=%q,alertstate=\"firing\"}", a.Alert)
	is := func(at time.Duration, on bool) {
		if at < 0 || at > last {
			return
		}
		q := expected{Expr: "max(" + alert + ")", At: at.String(), Want: []sample{}}
		if on {
			q.Want = []sample{{"{}", 1}}
		}
		asked = append(asked, q)
	}
	end := -time.Hour
	for i, f := range a.Firings {
		from, to := f.From.Sub(began), last+scrape
		next := last + time.Hour
		if f.To != nil {
			to = f.To.Sub(began)
		}
		if i+1 < len(a.Firings) {
			next = a.Firings[i+1].From.Sub(began)
		}
		if from-2*scrape >= end+scrape {
			is(from-2*scrape, false)
		}
		if to-from > 2*scrape {
			is(from+scrape, true)
			is(to-2*scrape, true)
		}
		if to+scrape < next-scrape {
			is(to+scrape, false)
		}
		end = to
	}
	// Firings that the report does not have would be counted here.
	starts := expected{
		Expr: fmt.Sprintf("max(count_over_time((%[1]s unless %[1]s offset %[2]s)[%[3]s:%[2]s]))", alert, scrape, last),
		At:   last.String(), Want: []sample{},
	}
	if n := len(a.Firings); n > 0 {
		starts.Want = []sample{{"{}", float64(n)}}
	}
	return slices.Concat(asked, []expected{starts})
}

// rulesOf are the generated rules of a service's first group, in their order, without the
// guards and their alerts of backout itself, which take most of promtool's time.
func rulesOf(t *testing.T, pb *alerts.Playbook, report *view.Backtest) []byte {
	t.Helper()
	made, err := rules.Rules(pb)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name     string           `yaml:"name"`
			Interval string           `yaml:"interval"`
			Rules    []map[string]any `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(made.Content, &file); err != nil {
		t.Fatal(err)
	}
	file.Groups = file.Groups[:1]
	g := &file.Groups[0]
	g.Rules = slices.DeleteFunc(g.Rules, func(r map[string]any) bool {
		return r["alert"] != nil && !slices.ContainsFunc(report.Alerts, func(a view.BacktestAlert) bool { return a.Alert == r["alert"] })
	})
	text, err := yaml.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
