package alerts_test

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
)

func standard(t *testing.T) *alerts.Playbook {
	t.Helper()
	pb, err := alerts.Default(kinds())
	if err != nil {
		t.Fatalf("\n%v", err)
	}
	return pb
}

func TestTheDefaultPlaybookHasTheSevenKeyMetrics(t *testing.T) {
	pb := standard(t)
	for name, want := range map[string]struct {
		target, alert float64
		below         bool
	}{
		"p95_latency":       {target: 0.5, alert: 0.8},
		"error_rate":        {target: 0.001, alert: 0.005},
		"database_cpu":      {target: 0.6, alert: 0.8},
		"memory_usage":      {target: 0.7, alert: 0.85},
		"cache_hit_rate":    {target: 0.8, alert: 0.6, below: true},
		"vector_query_time": {target: 0.1, alert: 0.2},
		"ml_inference_time": {target: 0.3, alert: 0.5},
	} {
		ind := pb.Indicator(name)
		if ind == nil {
			t.Errorf("there is no %s", name)
			continue
		}
		bound := ind.Alert.Above
		if want.below {
			bound = ind.Alert.Below
		}
		if bound == nil || *bound != want.alert || *ind.Target != want.target || ind.Dashboard == "" || ind.Description == "" {
			t.Errorf("%s: %+v", name, ind)
		}
	}
}

func TestTheDefaultPlaybookHasTheRollbackTriggers(t *testing.T) {
	pb := standard(t)
	for name, want := range map[string]struct {
		bound  float64
		span   time.Duration
		signal string
		stages []string
	}{
		"p95_latency":                     {bound: 0.75, span: 5 * time.Minute},
		"error_rate":                      {bound: 0.01, span: 15 * time.Minute},
		"database_cpu":                    {bound: 0.85, span: 10 * time.Minute},
		"critical_security_vulnerability": {signal: "critical-security-vulnerability"},
		"data_integrity":                  {signal: "data-integrity"},
		"p1_error":                        {signal: "p1-error"},
		"alpha_p1_error":                  {bound: 0, span: 5 * time.Minute, stages: []string{"alpha"}},
		"beta_p95":                        {bound: 0.75, span: 5 * time.Minute, stages: []string{"beta"}},
		"gamma_error_rate":                {bound: 0.005, span: 15 * time.Minute, stages: []string{"gamma"}},
		"delta_cpu":                       {bound: 0.9, span: 10 * time.Minute, stages: []string{"delta"}},
		"delta_memory":                    {bound: 0.9, span: 10 * time.Minute, stages: []string{"delta"}},
	} {
		tr := pb.Trigger(name)
		if tr == nil {
			t.Errorf("there is no %s", name)
			continue
		}
		bound, above := tr.Bound()
		if bound != want.bound || !above || tr.Span() != want.span || tr.Signal != want.signal || !reflect.DeepEqual(pb.StagesOf(name), want.stages) {
			t.Errorf("%s: %+v in %v", name, tr, pb.StagesOf(name))
		}
	}
	if len(pb.Triggers) != 11 {
		t.Errorf("%d triggers", len(pb.Triggers))
	}
}

func TestTheDefaultPlaybookHasStagesFlagsAndLadder(t *testing.T) {
	pb := standard(t)
	const day = 24 * time.Hour
	var names []string
	durations := []time.Duration{day, 3 * day, 2 * day, 2 * day, 7 * day}
	for i, s := range pb.Stages {
		names = append(names, s.Name+" "+s.Traffic)
		if len(s.Success) == 0 || time.Duration(s.Duration) != durations[i] {
			t.Errorf("stage %+v", s)
		}
	}
	if want := []string{"alpha 0.01", "beta 0.1", "gamma 0.25", "delta 0.5", "full 1"}; !reflect.DeepEqual(names, want) {
		t.Errorf("stages %v", names)
	}
	if len(pb.Flags) != 5 {
		t.Errorf("%d flags", len(pb.Flags))
	}
	for _, f := range pb.Flags {
		if f.Off != "0" || f.Default != "0" || f.Fallback == "" || f.Description == "" {
			t.Errorf("flag %+v", f)
		}
	}
	var actions []string
	for _, s := range pb.Plan("ladder").Steps {
		if s.Action != "status_page" {
			actions = append(actions, s.Action)
		}
	}
	if want := []string{"flag_off", "image_retag", "schema_rollback"}; !reflect.DeepEqual(actions, want) {
		t.Errorf("ladder %v", actions)
	}
}

func TestTheDefaultPlaybookHasWhatPeopleDo(t *testing.T) {
	g := standard(t).Guide
	c := g.Communications
	if c == nil || c.SlackChannel != "#incidents" || c.Page != alerts.PageAfterHours || c.IncidentCall.SeverityAbove != 2 || c.Mail == nil || c.SupportBrief == nil || len(c.StatusPage.Components) == 0 {
		t.Errorf("communications %+v", c)
	}
	for what, n := range map[string][2]int{
		"checklist":        {len(g.Checklist), 10},
		"phases":           {len(g.Phases), 3},
		"success_criteria": {len(g.SuccessCriteria), 3},
		"post_rollout":     {len(g.PostRollout), 3},
		"timeline":         {len(g.Timeline), 11},
		"team":             {len(g.Team), 6},
	} {
		if n[0] != n[1] {
			t.Errorf("%s has %d entries, want %d", what, n[0], n[1])
		}
	}
}

// The rollout contradicts itself in places; it stays as it was written.
func TestTheDefaultPlaybooksContradictionsAreWarnedOf(t *testing.T) {
	ws := alerts.Problems(standard(t).Warnings())
	compare(t, filepath.Join(playbooks, "default.yaml"), ws.Error()+"\n")
}
