package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"

	"github.com/locotoki/backout/rules"
)

func TestATargetWithoutASampleIsDownAndItsSeriesEnd(t *testing.T) {
	sc, err := Parse("s.yaml", []byte(`
series: [{series: 'si_requests_total{job="social-intel",instance="a"}', values: 0+1x1 _ 3}]
expect: [{at: 45s, incident: none}]
`))
	if err != nil {
		t.Fatal(err)
	}
	now := began
	p, err := newPrometheus(sc.playbook, sc, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	p.own = client.NewRegistry()
	for n, want := range []string{"1 0", "1 1", "0 none", "1 3"} {
		now = began.Add(time.Duration(n) * 15 * time.Second)
		if err := p.scrape(n); err != nil {
			t.Fatal(err)
		}
		got := ask(t, p, `up{job="social-intel",instance="a"}`) + " " + ask(t, p, "si_requests_total")
		if got != want {
			t.Errorf("scrape %d: up and the series are %s, want %s", n, got, want)
		}
	}
	if got := ask(t, p, `up{job="backout"}`); got != "1" {
		t.Errorf("backout is scraped: %s", got)
	}
	p.away = true
	if _, _, err := p.Query(t.Context(), "up"); err == nil {
		t.Error("it answers while it is away")
	}
}

func TestUpHasTheLabelsThatThePlaybooksMatchersAskFor(t *testing.T) {
	sc, err := Parse("s.yaml", []byte(`
series:
  - {series: 'si_requests_total{job="social-intel",instance="a"}', values: 0+1x3}
  - {series: 'si_requests_total{job="social-intel",instance="a",app="other"}', values: 0+1x3}
  - {series: 'si_requests_total{job="else"}', values: 0+1x3}
expect: [{at: 45s, incident: none}]
`))
	if err != nil {
		t.Fatal(err)
	}
	sc.playbook.Up = `app="social-intel"`
	p, err := newPrometheus(sc.playbook, sc, func() time.Time { return began })
	if err != nil {
		t.Fatal(err)
	}
	p.own = client.NewRegistry()
	if err := p.scrape(0); err != nil {
		t.Fatal(err)
	}
	for expr, want := range map[string]string{
		`count(up{job="social-intel",app="social-intel"})`: "1", `count(up{job="social-intel",app="other"})`: "1", `count(up{job="else",app=""})`: "1",
	} {
		if got := ask(t, p, expr); got != want {
			t.Errorf("%s is %s, want %s", expr, got, want)
		}
	}
}

func ask(t *testing.T, p *prometheus, expr string) string {
	t.Helper()
	v, ok, err := p.Query(t.Context(), expr)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return "none"
	}
	return fmt.Sprint(v)
}

// An alert is pending for its for, keeps firing for its keep_firing_for, and is sent when
// it fires, every minute while it does, and when it ends.
func TestAnAlertFiresAsInPrometheus(t *testing.T) {
	r := &rule{Rule: rulefmt.Rule{Alert: "A", For: model.Duration(30 * time.Second), KeepFiringFor: model.Duration(30 * time.Second)}, active: map[uint64]*alert{}}
	beyond := promql.Vector{{Metric: labels.FromStrings("service", "shop")}}
	var got []string
	for n, is := range []bool{true, false, true, true, true, true, true, true, true, false, true, false, false, false, false} {
		now := began.Add(time.Duration(n) * 15 * time.Second)
		vector := promql.Vector{}
		if is {
			vector = beyond
		}
		r.alert(vector, now)
		for _, a := range r.send(now) {
			got = append(got, fmt.Sprintf("%s until %s", now.Sub(began), a.ends.Sub(began)))
		}
	}
	if want := []string{"1m0s until 5m0s", "2m0s until 6m0s", "3m0s until 7m0s", "3m15s until 3m15s"}; !slices.Equal(got, want) {
		t.Errorf("sent %v, want %v", got, want)
	}
}

func TestAlertmanagerPostsChangesAndRepeats(t *testing.T) {
	var got []string
	now := began
	am := &alertmanager{groups: map[uint64]*alertGroup{}, post: func(_ context.Context, body []byte) error {
		var m struct{ Alerts []struct{ Status string } }
		err := json.Unmarshal(body, &m)
		got = append(got, fmt.Sprint(now.Sub(began), " ", m.Alerts[0].Status))
		return err
	}}
	pace := rules.Pace{GroupWait: model.Duration(5 * time.Second), GroupInterval: model.Duration(15 * time.Second), RepeatInterval: model.Duration(time.Minute)}
	send := func(ends time.Duration) {
		am.receive(sentAlert{labels.FromStrings("alertname", "A"), began.Add(ends), pace}, now)
	}
	for ; now.Before(began.Add(4 * time.Minute)); now = now.Add(5 * time.Second) {
		switch now.Sub(began) {
		case 0:
			send(4 * time.Minute)
		case 90 * time.Second: // it ends, and begins again before the group is looked at
			send(90 * time.Second)
			send(3 * time.Minute) // which nobody sends again
		}
		if err := am.flush(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"5s firing", "1m5s firing", "2m5s firing", "3m5s resolved"}; !slices.Equal(got, want) || len(am.groups) > 0 {
		t.Errorf("posted %v, want %v; %d groups are left", got, want, len(am.groups))
	}
}
