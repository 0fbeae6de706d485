package scenario_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/notification"
	"github.com/locotoki/backout/remediation/scenario"
)

// shipped are the built-in playbook's scenarios, and the reference's example.
func shipped(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../testdata/scenarios/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d scenarios: %v", len(files), err)
	}
	return append(files, "../../docs/reference/scenario.yaml")
}

func load(t *testing.T, text string) *scenario.Scenario {
	t.Helper()
	sc, err := scenario.Parse("s.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

func run(t *testing.T, sc *scenario.Scenario) *scenario.Result {
	t.Helper()
	res, err := sc.Run(t.Context(), notification.Decode)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// failures are a result's, one per line.
func failures(res *scenario.Result) (out []string) {
	for _, f := range res.Failures {
		line := fmt.Sprintf("%d: at %s: %s; found %s", f.Line, f.At, f.Expected, f.Found)
		if f.Later != nil {
			line += fmt.Sprintf("; so at %s", f.Later)
		}
		out = append(out, line)
	}
	return out
}

func TestTheBuiltInPlaybooksScenariosGoAsExpected(t *testing.T) {
	for _, file := range shipped(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			sc, err := scenario.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			res := run(t, sc)
			for _, f := range failures(res) {
				t.Errorf("%s:%s", file, f)
			}
			for _, m := range res.Story {
				if t.Failed() {
					t.Logf("%8s %s %s (%s) %s", m.At, m.Actor, m.Title, m.Measured, m.Why)
				}
			}
		})
	}
}

// What no scenario uses, no test has seen to work.
func TestTheScenariosUseEveryKeyAndEvent(t *testing.T) {
	used := map[string]bool{}
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			walk(path, v.Elem())
		case reflect.Slice:
			for i := range v.Len() {
				walk(path, v.Index(i))
			}
		case reflect.Struct:
			for i := range v.NumField() {
				key := v.Type().Field(i).Tag.Get("yaml")
				if key == "" {
					continue
				}
				key = strings.TrimPrefix(path+"."+key, ".")
				used[key] = used[key] || !v.Field(i).IsZero()
				walk(key, v.Field(i))
			}
		}
	}
	done := map[scenario.Verb]bool{}
	for _, file := range shipped(t) {
		sc, err := scenario.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		walk("", reflect.ValueOf(sc))
		for _, e := range sc.Events {
			done[e.Do] = true
		}
	}
	for _, verb := range scenario.Verbs() {
		if !done[verb] {
			t.Errorf("no scenario has the event %s", verb)
		}
	}
	for key, is := range used {
		if !is {
			t.Errorf("no scenario uses %s", key)
		}
	}
	if !used["expect.needs_human"] {
		t.Error("the keys were not looked at")
	}
}

const requests = `
series:
  - {series: 'si_requests_total{job="social-intel",instance="a",status="success"}', values: 0+150x80}
  - {series: 'si_requests_total{job="social-intel",instance="a",status="error"}', values: 0x20 10+10x60}
`

func TestAnExpectationThatIsNotMetSaysWhatWasSoAndWhenItBecameSo(t *testing.T) {
	res := run(t, load(t, `name: wrong
rollout: alpha`+requests+`
events:
  - {at: 1m, do: claim}
  - {at: 8m, do: freeze, refused: true}
expect:
  - at: 5m
    incident: settling
    firing: [error_rate]
    steps: {flag_off: done}
    targets: {image: v1.0.0}
  - {at: 7m, incident: closed, needs_human: [approval], entries: {intent: 2}, incidents: 0}
`))
	want := []string{
		"8: at 1m: claim is accepted; found refused: there is no incident",
		"12: at 5m: incident: settling; found none; so at 6m",
		"14: at 5m: step flag_off: done; found none; so at 6m",
		"15: at 5m: image: v1.0.0; found v2.0.0",
		"13: at 5m: firing triggers: error_rate; found nothing; so at 6m",
		"16: at 7m: incident: closed; found settling",
		"16: at 7m: number of incidents: 0; found 1",
		"16: at 7m: a person is needed for: approval; found nothing",
		"16: at 7m: audit entries of kind intent: 2; found 1",
		"9: at 8m: freeze is refused; found accepted",
	}
	if got := failures(res); !slices.Equal(got, want) {
		t.Errorf("failures\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	if res.OK() {
		t.Error("it counts as passed")
	}
}

func TestAScenarioGoesTheSameWayEachTime(t *testing.T) {
	text := "name: again\nrollout: alpha" + requests + "expect: [{at: 15m, incident: waiting}]\n"
	first, second := run(t, load(t, text)), run(t, load(t, text))
	if !reflect.DeepEqual(first, second) || len(first.Story) < 10 {
		t.Errorf("%+v\nthen\n%+v", first, second)
	}
}

func TestSeriesThatNoQueryReadsAreAMistake(t *testing.T) {
	const series = "series: [{series: 'other_total{job=\"shop\"}', values: 0+1x20}]\nexpect: [{at: 1m, firing: [error_rate]}]\n"
	_, err := scenario.Parse("s.yaml", []byte(series))
	var list alerts.Problems
	if !errors.As(err, &list) || len(list) != 1 || list[0].Line != 1 || !strings.Contains(list[0].Message, "no query of the playbook selects any of the series") || !strings.Contains(list[0].Try, `up{job="social-intel"`) {
		t.Errorf("it is refused with %v", err)
	}
}

func TestAllMistakesInAScenarioAreReportedWithTheirLines(t *testing.T) {
	_, err := scenario.Parse("s.yaml", []byte(`name: wrong
mode: dry
rollout: omega
sereis: []
series:
  - {series: 'requests_total{job="shop"', values: 0+1x100}
  - {series: 'requests_total', values: 0+1x100}
  - {series: 'requests_total{job="shop"}', values: 0+1x20}
  - {series: 'requests_total{job="shop"}'}
events:
  - {at: 1m, do: freez}
  - {do: freeze, step: 1-flag_off}
  - {at: 1m, do: fail, target: disk}
  - {at: soon, do: raise, signal: p2}
expect:
  - {at: 1m}
  - {incident: shut}
  - at: 20m
    reason: cold
    steps: {flag_of: done, image_retag: ready}
    targets: {disk: full}
    firing: [errors]
    rollout: gone
    entries: {seen: 1}
`))
	var list alerts.Problems
	if !errors.As(err, &list) {
		t.Fatalf("%v", err)
	}
	var got []string
	for _, p := range list {
		if p.Try == "" {
			t.Errorf("%s has no hint", p)
		}
		got = append(got, fmt.Sprintf("%d: %s", p.Line, p.Message))
	}
	want := []string{
		`2: unknown mode "dry"`,
		`3: unknown stage "omega"`,
		`4: unknown key "sereis" in the scenario`,
		`6: series requests_total{job="shop": 1:27: parse error: unexpected character inside braces: '0'`,
		`7: series requests_total has no label job`,
		`8: series requests_total{job="shop"} ends after 5m, and the scenario lasts 20m`,
		`9: a series has a name and values`,
		`11: unknown event "freez"`,
		`12: the event freeze has no step`,
		`12: the event freeze has no time`,
		`13: the event fail needs error`,
		`13: unknown target "disk"`,
		`14: events[3].at is "soon", not a duration`,
		`14: unknown signal "p2"`,
		`16: the expectation expects nothing`,
		`17: the expectation has no time`,
		`17: unknown state "shut"`,
		`19: unknown reason "cold"`,
		`20: no plan has a step "flag_of"`,
		`20: unknown state of a step "ready"`,
		`21: unknown target "disk"`,
		`22: unknown trigger "errors"`,
		`23: unknown stage or state of a rollout "gone"`,
		`24: unknown kind of audit entry "seen"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	for text, want := range map[string]string{
		"":                                    "s.yaml: the scenario is empty",
		"name: x":                             "s.yaml:1: the scenario expects nothing",
		"name: [":                             "this is not YAML",
		"playbook: nowhere.yaml":              "nowhere.yaml",
		"expect: [{at: 90d, incident: none}]": "the scenario lasts 90d",
	} {
		if _, err := scenario.Parse("s.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
