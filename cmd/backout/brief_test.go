package main

import (
	"strings"
	"testing"
)

func TestAGraveIncidentSaysWhereItsCallIs(t *testing.T) {
	grave := func(call string) string {
		return strings.Replace(settling, `{"id":"inc-7",`, `{"id":"inc-7","incident_call":`+call+`,`, 1)
	}
	for name, tc := range map[string]struct{ answer, want string }{
		"with a link":    {grave(`{"severity":3,"url":"https://meet.example.com/a"}`), "  call      severity 3: join the incident call\n            https://meet.example.com/a\n"},
		"without one":    {grave(`{"severity":4}`), "  call      severity 4: start an incident call\n"},
		"a hostile link": {grave(`{"severity":3,"url":"https://x/\u001b[2J"}`), `https://x/\x1b[2J`},
	} {
		url := server(t, "", exchange{"GET /api/v1/incidents/inc-7", "", 200, tc.answer})
		if r := backout(t, nil, "incident", "show", "inc-7", "--url="+url); r.status != 0 || !strings.Contains(r.stdout, tc.want) {
			t.Errorf("%s: %q is not in (status %d)\n%s", name, tc.want, r.status, r.stdout)
		}
	}
	url := server(t, "", exchange{"GET /api/v1/incidents/inc-7", "", 200, settling})
	if r := backout(t, nil, "incident", "show", "inc-7", "--url="+url); strings.Contains(r.stdout, "incident call") {
		t.Errorf("an incident that is not grave asks for a call:\n%s", r.stdout)
	}
}

func TestTheSupportBriefIsPlainText(t *testing.T) {
	brief := exchange{"GET /api/v1/incidents/inc-7/brief", "", 200, `{"incident":"inc-7","service":"shop","owner":"Ann","text":"What customers see\n- <b>x</b>\u001b[2J\n"}`}
	url := server(t, "", brief, brief,
		exchange{"GET /api/v1/incidents/inc-8/brief", "", 409, `{"error":"incident inc-8 is closed"}`})
	r := backout(t, nil, "incident", "brief", "inc-7", "--url="+url)
	if want := "What customers see\n- <b>x</b>\\x1b[2J\n"; r.status != 0 || r.stdout != want {
		t.Errorf("status %d, %q, want %q", r.status, r.stdout, want)
	}
	if r := backout(t, nil, "incident", "brief", "inc-7", "--url="+url, "--output=json"); !strings.Contains(r.stdout, `"owner": "Ann"`) {
		t.Errorf("as JSON: %s", r.stdout)
	}
	if r := backout(t, nil, "incident", "brief", "inc-8", "--url="+url); r.status != 1 || !strings.Contains(r.stderr, "closed") {
		t.Errorf("status %d, %q", r.status, r.stderr)
	}
}
