package rules_test

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// kind is a kind of action that takes the keys of the default playbook's steps.
type kind struct {
	name string
	risk alerts.Risk
}

func (k kind) Name() string      { return k.name }
func (k kind) Risk() alerts.Risk { return k.risk }

func (k kind) NewParams() any {
	return &struct {
		Flag    string   `yaml:"flag"`
		Status  string   `yaml:"status"`
		Message string   `yaml:"message"`
		DSNFile string   `yaml:"dsn_file"`
		Roles   []string `yaml:"application_roles"`
		Dir     string   `yaml:"dir"`
		Command []string `yaml:"command"`
		Wanted  string   `yaml:"wanted"`
	}{}
}

func (k kind) CheckParams(*alerts.Playbook, any) []alerts.ParamProblem { return nil }

var kinds = []alerts.ActionKind{
	kind{"flag_off", alerts.Reversible}, kind{"image_retag", alerts.Disruptive},
	kind{"schema_rollback", alerts.Lossy}, kind{"status_page", alerts.Reversible},
}

func defaultPlaybook(t testing.TB) *alerts.Playbook {
	t.Helper()
	pb, err := alerts.Default(kinds)
	if err != nil {
		t.Fatal(err)
	}
	return pb
}

const (
	errorQuery = `(sum(increase(si_requests_total{status!="success"}[$window])) or 0 * sum(increase(si_requests_total[$window])))
  / (sum(increase(si_requests_total[$window])) >= $min_volume)`
	cpuQuery = `db_cpu`
)

// smallPlaybook has one windowed trigger, one sustained, and the same two in a stage.
func smallPlaybook() *alerts.Playbook {
	minutes := func(n int) model.Duration { return model.Duration(time.Duration(n) * time.Minute) }
	number := func(f float64) *float64 { return &f }
	recovery := alerts.Recovery{Window: minutes(2)}
	counted := alerts.Recovery{Window: minutes(2), MinVolume: 13}
	return &alerts.Playbook{
		Service: "social-intel", Job: "social-intel", Release: alerts.Release{Version: "v2.0.0", Previous: "v1.0.0"},
		ScrapeInterval: model.Duration(15 * time.Second),
		Alive:          `sum(increase(si_requests_total[2m])) > bool 0`,
		Indicators: []alerts.Indicator{
			{Name: "error_rate", Query: errorQuery, Unit: alerts.Ratio, Dashboard: "Service Health",
				Alert: &alerts.AlertBound{Above: number(0.005), Window: minutes(5), MinVolume: 50}},
			{Name: "db_cpu", Query: cpuQuery, Unit: alerts.Percent},
		},
		Triggers: []alerts.Trigger{
			{Name: "error_rate", Indicator: "error_rate", Above: number(0.01), Window: minutes(15), MinVolume: 100, Recovery: counted, Plan: "ladder"},
			{Name: "db_cpu", Indicator: "db_cpu", Above: number(85), Sustained: minutes(10), Recovery: recovery, Plan: "ladder"},
			{Name: "gamma_error_rate", Indicator: "error_rate", Above: number(0.005), Window: minutes(5), MinVolume: 100, Recovery: counted, Plan: "ladder"},
			{Name: "delta_cpu", Indicator: "db_cpu", Above: number(90), Sustained: minutes(5), Recovery: recovery, Plan: "ladder"},
			{Name: "data_integrity", Signal: "data-integrity", Plan: "ladder"},
		},
		Stages: []alerts.Stage{
			{Name: "gamma", Traffic: "0.25", Rollback: []string{"gamma_error_rate"}},
			{Name: "delta", Traffic: "0.5", Rollback: []string{"gamma_error_rate", "delta_cpu"}},
		},
		Plans:      []alerts.Plan{{Name: "ladder"}},
		RunbookURL: "https://runbooks.example.com/social-intel",
		Watchdog:   alerts.Watchdog{MaxAge: minutes(5)},
	}
}
