package rules

import (
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/rules/series"
)

// testFile and what is in it are a test file of promtool, in the keys that
// promtool 2.42 knows.
type testFile struct {
	RuleFiles          []string       `yaml:"rule_files,flow"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	GroupEvalOrder     []string       `yaml:"group_eval_order,omitempty,flow"`
	Tests              []testCase     `yaml:"tests"`
}

type testCase struct {
	Name     string         `yaml:"name"`
	Interval model.Duration `yaml:"interval"`
	Series   []series.Input `yaml:"input_series"`
	Checks   []exprCheck    `yaml:"promql_expr_test"`
	// pace is how often the rules must be evaluated for it.
	pace pace `yaml:"-"`
}

// pace is how often a test evaluates the rules. Most of promtool's time is
// spent on that, so a test has no finer one than it needs.
type pace int

const (
	// coarse is some four minutes apart, for what reads the scraped series only.
	coarse pace = iota
	// everyScrape is for what reads recordings over a range.
	everyScrape
	// slow is every quarter of an hour, for what takes a day.
	slow
)

// slowly is how far apart the samples and evaluations of a slow test are.
const slowly = 15 * time.Minute

type exprCheck struct {
	Expr    string         `yaml:"expr"`
	At      model.Duration `yaml:"eval_time"`
	Samples []sample       `yaml:"exp_samples"`
}

type sample struct {
	Labels string  `yaml:"labels"`
	Value  float64 `yaml:"value"`
}
