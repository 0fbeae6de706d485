package rules

import "github.com/prometheus/common/model"

// testFile and what is in it are a test file of promtool, in the keys that
// promtool 2.42 knows.
type testFile struct {
	RuleFiles          []string       `yaml:"rule_files,flow"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []testCase     `yaml:"tests"`
}

type testCase struct {
	Name     string         `yaml:"name"`
	Interval model.Duration `yaml:"interval"`
	Series   []inputSeries  `yaml:"input_series"`
	Checks   []exprCheck    `yaml:"promql_expr_test"`
}

type inputSeries struct {
	Series string `yaml:"series"`
	Values string `yaml:"values"`
}

type exprCheck struct {
	Expr    string         `yaml:"expr"`
	At      model.Duration `yaml:"eval_time"`
	Samples []sample       `yaml:"exp_samples"`
}

type sample struct {
	Labels string  `yaml:"labels"`
	Value  float64 `yaml:"value"`
}
