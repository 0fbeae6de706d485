package rules_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/rules"
)

var replayed = time.Unix(1_000_000, 0)

func replayOf(t *testing.T, name string) rules.Replayed {
	t.Helper()
	all, err := rules.Replay(defaultPlaybook(t))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(r rules.Replayed) bool { return r.Trigger == name })
	if i < 0 {
		t.Fatalf("no trigger %s", name)
	}
	return all[i]
}

func TestAReplayNeedsNoRecording(t *testing.T) {
	pb := defaultPlaybook(t)
	all, err := rules.Replay(pb)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(pb.Triggers) + 7; len(all) != want {
		t.Errorf("%d alerts are replayed, want %d", len(all), want)
	}
	for _, recorded := range []bool{true, false} {
		for _, r := range all {
			stays := []rules.Stay{{Stage: strings.Join(r.Stages, ""), From: replayed.Add(-time.Hour), To: replayed.Add(time.Hour)}}
			text, err := r.Value(replayed, replayed.Add(24*time.Hour), stays, recorded)
			if err != nil || text == "" {
				t.Fatalf("%s: %q, %v", r.Alert, text, err)
			}
			if _, err := parser.NewParser(parser.Options{}).ParseExpr(text); err != nil {
				t.Errorf("%s: %v\n%s", r.Alert, err, text)
			}
			if strings.Contains(text, "backout:") || !recorded && strings.Contains(text, "rollout_stage") {
				t.Errorf("%s still reads a recording:\n%s", r.Alert, text)
			}
			if (r.Approximate() == "") != (len(r.Stages) == 0) {
				t.Errorf("%s: approximate is %q", r.Alert, r.Approximate())
			}
		}
	}
}

func TestAStageIsTheTimesInIt(t *testing.T) {
	r := replayOf(t, "alpha_p1_error")
	stays := []rules.Stay{
		{Stage: "alpha", From: replayed.Add(-30 * time.Hour), To: replayed.Add(-25 * time.Hour)}, // out of reach
		{Stage: "alpha", From: replayed.Add(100 * time.Second), To: replayed.Add(200 * time.Second)},
		{Stage: "beta", From: replayed.Add(200 * time.Second), To: replayed.Add(300 * time.Second)},
	}
	text, err := r.Value(replayed, replayed.Add(time.Hour), stays, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"(vector(time()) >= 1000100 < 1000200)", // now
		"(vector(time()) >= 1000160 < 1000260)", // a minute ago: offset 1m
		")[5m:15s]", "si_p1_errors_total{job=\"social-intel\"} offset 1m",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the expression does not hold %q:\n%s", want, text)
		}
	}
	if strings.Count(text, ">= 1000") != 3 {
		t.Errorf("other times are in it:\n%s", text)
	}
	if text, err = r.Value(replayed.Add(2*time.Hour), replayed.Add(3*time.Hour), stays, false); err != nil || text != "" {
		t.Errorf("out of its stage: %q, %v", text, err)
	}
}

func TestTheVolumeOfARatioIsKnown(t *testing.T) {
	r := replayOf(t, "error_rate")
	if r.MinVolume != 1000 || !strings.Contains(r.Volume, "sum(increase(si_requests_total{job=\"social-intel\"}[15m]))") {
		t.Errorf("volume of at least %g: %s", r.MinVolume, r.Volume)
	}
	if r = replayOf(t, "database_cpu"); r.Volume != "" {
		t.Errorf("a gauge has no volume: %s", r.Volume)
	}
}
