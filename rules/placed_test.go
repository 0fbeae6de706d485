package rules_test

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/rules"
)

func TestATriggerOfWhichNoRuleCanBeMadeIsRefusedOnItsLine(t *testing.T) {
	for query, want := range map[string]string{
		`sum(rate({job="shop"}[$window]))`:                                         "does not name its metric",
		`sum(rate({__name__=~"x|y"}[$window]))`:                                    "does not name its metric",
		`sum(rate(x_total[$window])) / sum(rate(x_total[$window] offset $window))`: "",
		`sum(rate({__name__="x_total",job="shop"}[$window]))`:                      "",
		`max(x - x offset 1h) + 0 * sum(rate(x[$window]))`:                         "looks at another moment",
	} {
		found := stagedCheck(t, query)
		if want == "" && len(found.Errors) > 0 || want != "" && (len(found.Errors) != 1 || !strings.Contains(found.Errors.Error(), "p.yaml:11: trigger it: it counts only in a stage") || !strings.Contains(found.Errors.Error(), want)) {
			t.Errorf("%s: got %v, want %q", query, found.Errors, want)
		}
	}
}

func TestAGaugeOfACountIsNotACounter(t *testing.T) {
	for query, want := range map[string]bool{
		`max(pg_stat_activity_count)`: false, `max(pg_locks_count)`: false, `max(system_cpu_count)`: false,
		`max(http_request_duration_seconds_count)`: true, `max(response_size_count)`: true, `max(requests_total)`: true,
	} {
		text := checked(t, query, "above: 3, sustained: 10m").Warnings.Error()
		if strings.Contains(text, "is a counter") != want {
			t.Errorf("%s: %q", query, text)
		}
	}
}

func TestTooFewRulesPerGroupSayHowManyItTakes(t *testing.T) {
	_, err := rules.Settings{MaxRulesPerGroup: 5}.Deployed(defaultPlaybook(t))
	if err == nil || !strings.Contains(err.Error(), "try: --max-rules-per-group=6, or more") {
		t.Fatalf("the error is %v", err)
	}
	if _, err := (rules.Settings{MaxRulesPerGroup: 6}).Deployed(defaultPlaybook(t)); err != nil {
		t.Error(err)
	}
}

// stagedCheck checks a playbook whose only trigger counts in a stage; its query stands
// on line 11.
func stagedCheck(t *testing.T, query string) rules.Findings {
	t.Helper()
	return checkedText(t, strings.Replace(checkText("count", query, "above: 3, window: 15m"), "duration: 1d}", "duration: 1d, rollback: [it]}", 1))
}
