package engine_test

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

func TestAnIncidentAboveTheSeverityAsksForACall(t *testing.T) {
	call := func(s string) string {
		return s + "communications: {incident_call: {severity_above: 2, url: https://meet.example.com/a}}\n"
	}
	mild := func(s string) string {
		return strings.Replace(s, "plan: ladder}", "plan: ladder, severity: 2}", 1)
	}
	for name, tc := range map[string]struct {
		edits []func(string) string
		want  *remediation.CallView
	}{
		"of a severity that is not given": {[]func(string) string{call}, &remediation.CallView{Severity: 3, URL: "https://meet.example.com/a"}},
		"of a mild trigger":               {[]func(string) string{call, mild}, nil},
		"where no call is wanted":         {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, tc.edits...)
			got := w.incident(w.open()).IncidentCall
			if (got == nil) != (tc.want == nil) || got != nil && *got != *tc.want {
				t.Errorf("the call is %+v, want %+v", got, tc.want)
			}
		})
	}
	graver := func(s string) string { return strings.Replace(s, "severity: 2}", "severity: 5}", 1) }
	w := newHarness(t, call, mild)
	id := w.open()
	w.must(w.engine.Reload(w.ctx, []*alerts.Playbook{w.parse(graver(string(w.pb.Source)))}, remediation.Reloaded{}))
	if got := w.incident(id).IncidentCall; got != nil {
		t.Errorf("the playbook of a later incident asks for a call: %+v", got)
	}
	w = newHarness(t, call)
	w.declare("alpha")
	w.breach("error_rate")
	if got := w.incident(w.fire("error_rate", "fp1", "drill", "true")).IncidentCall; got != nil {
		t.Errorf("a drill asks for a call: %+v", got)
	}
}

// Numbers are written with the unit, which only the playbook knows.
func TestATriggerOfAnIncidentHasTheUnitOfItsIndicator(t *testing.T) {
	w := newHarness(t)
	id := w.fire("latency", "fp1")
	v, err := w.engine.Incident(w.ctx, id)
	w.must(err)
	if len(v.Triggers) != 1 || v.Triggers[0].Unit != alerts.Seconds {
		t.Errorf("the triggers are %+v, want one in seconds", v.Triggers)
	}
}
