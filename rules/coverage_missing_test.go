package rules

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// What the generator makes lacks nothing, so that what is lacking is taken from it here.
func TestWhatIsTakenFromTheGeneratedFilesIsMissed(t *testing.T) {
	pb := &alerts.Playbook{
		Service: "shop", Job: "shop", Alive: "vector(1)", ScrapeInterval: model.Duration(15 * time.Second),
		Triggers: []alerts.Trigger{{Name: "data_integrity", Signal: "data-integrity", Plan: "ladder"}},
		Plans:    []alerts.Plan{{Name: "ladder", Steps: []alerts.Step{{Action: "flag_off"}}}},
		Watchdog: alerts.Watchdog{MaxAge: model.Duration(5 * time.Minute)},
	}
	g, err := groupOf(pb)
	if err != nil {
		t.Fatal(err)
	}
	cases, _, err := casesOf(pb)
	if err != nil {
		t.Fatal(err)
	}
	generated, err := routes(pb)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		take func(made *[]rule, cases *[]testCase, root *amRoute)
		want string
	}{
		"nothing":  {func(*[]rule, *[]testCase, *amRoute) {}, ""},
		"the rule": {func(made *[]rule, _ *[]testCase, _ *amRoute) { *made = nil }, "rule, test that fires, test that does not, route"},
		"the test": {func(_ *[]rule, cases *[]testCase, _ *amRoute) { *cases = nil }, "test that does not, test that fires"},
		"the check that it fires": {func(_ *[]rule, cases *[]testCase, _ *amRoute) {
			i := slices.IndexFunc(*cases, func(c testCase) bool { return strings.HasPrefix(c.Name, "RollbackDataIntegrity") })
			one := (*cases)[i]
			one.Checks = one.Checks[:1]
			*cases = []testCase{one}
		}, "test that fires"},
		"the check that it is silent": {func(_ *[]rule, cases *[]testCase, _ *amRoute) {
			i := slices.IndexFunc(*cases, func(c testCase) bool { return strings.HasPrefix(c.Name, "RollbackDataIntegrity") })
			one := (*cases)[i]
			one.Checks = one.Checks[1:]
			*cases = []testCase{one}
		}, "test that does not"},
		"the route to backout": {func(_ *[]rule, _ *[]testCase, root *amRoute) { root.Routes = root.Routes[1:] }, "route to backout"},
		"all routes":           {func(_ *[]rule, _ *[]testCase, root *amRoute) { *root = amRoute{} }, "route, route to backout"},
	} {
		t.Run(name, func(t *testing.T) {
			made, tests, root := slices.Clone(g.Rules), slices.Clone(cases), generated
			c.take(&made, &tests, &root)
			lines, err := coverageOf(pb, made, tests, root, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(lines[0].Missing, ", "); len(lines) != 1 || got != c.want {
				t.Errorf("without %s: %d lines, missing %q, want %q", name, len(lines), got, c.want)
			}
		})
	}
}
