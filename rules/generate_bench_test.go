package rules_test

import (
	"testing"

	"github.com/locotoki/backout/rules"
)

// What runs elsewhere, without the tests: a service's files in a few milliseconds.
func BenchmarkDeployed(b *testing.B) {
	for b.Loop() {
		if _, err := (rules.Settings{}).Deployed(defaultPlaybook(b)); err != nil {
			b.Fatal(err)
		}
	}
}
