package rules

import "github.com/locotoki/backout/alerts"

// testsOf returns the promtool tests, and what they do not cover.
func testsOf(pb *alerts.Playbook) (testFile, []string, error) {
	return testFile{RuleFiles: []string{pb.Service + ".rules.yml"}, EvaluationInterval: pb.ScrapeInterval}, nil, nil
}
