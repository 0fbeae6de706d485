package main

import (
	"fmt"
	"strings"
	"testing"
)

// rehearsal is the API's answer: of a run that goes on, or after it.
func rehearsal(running bool, steps, finished, result string) string {
	return fmt.Sprintf(`{"service":"shop","playbook":"h","running":%t,"left":1,"plans":["ladder"],"by":"oncall","started":%s,"rehearsals":[
		{"service":"shop","plan":"ladder","release":"v2","playbook":"h","by":"oncall","reason":"r","started":"2026-01-02T15:04:06Z","finished":%q,"result":%q,
		"drill":{"result":"pass","evidence":"a drill came back","took":"250ms"},"incidents":["inc-9"],"steps":[%s]}]}`,
		running, map[bool]string{true: `"2026-01-02T15:04:05Z"`, false: "null"}[running], finished, result, steps)
}

const (
	rehearsedFlag  = `{"id":"1-flag_off","action":"flag_off","target":"compose:web:A","index":0,"tried":true,"result":"pass","evidence":"started aside\u001b[2J","took":"12s345ms"}`
	rehearsedImage = `{"id":"2-image_retag","action":"image_retag","target":"compose:web:image","index":1,"tried":true,"result":"fail","evidence":"there is no image","next":"docker pull web:v1","took":"20ms"}`
	notYet         = "0001-01-01T00:00:00Z"
	ended          = "2026-01-02T15:04:20Z"
)

func TestARehearsalShowsEachStepAsItComesAndOnceOnly(t *testing.T) {
	begun := strings.Replace(rehearsal(true, "", notYet, ""), `"rehearsals":[`, `"rehearsals":[],"x":[`, 1)
	both := rehearsedFlag + "," + rehearsedImage
	url := server(t, "",
		exchange{"POST /api/v1/rehearse", `{"service":"","plan":"ladder","reason":"T-3"}`, 200, begun},
		exchange{"GET /api/v1/rehearse?service=shop", "", 200, rehearsal(true, "", notYet, "")},
		exchange{"GET /api/v1/rehearse?service=shop", "", 200, rehearsal(true, rehearsedFlag, notYet, "")},
		exchange{"GET /api/v1/rehearse?service=shop", "", 200, rehearsal(true, rehearsedFlag, notYet, "")},
		exchange{"GET /api/v1/rehearse?service=shop", "", 200, rehearsal(false, both, ended, "fail")},
		exchange{"GET /api/v1/preflight?service=shop", "", 200, `{"service":"shop","release":"v2","running":false,"left":0,"by":"","started":null,"finished":null,"items":[
			{"id":"replication/lag","name":"Lag","result":"unknown","before":true,"evidence":"no replica","next":"sign it off: backout preflight sign replication/lag"},
			{"id":"image/previous","name":"Image","result":"fail","before":true,"evidence":"no image","next":"docker pull web:v1"},
			{"id":"go/no-go","name":"Go","owner":"Ada","result":"unknown","before":true,"evidence":"open"},
			{"id":"go/b","name":"Load","owner":"Bo","result":"unknown","before":true,"evidence":"open"}],
			"missing":["no preflight was run; try: backout preflight --service=shop","replication/lag, rehearsal/full could not be checked: no replica","image/previous failed: no image","go/no-go (Go) is not signed off","go/b (Load) is not signed off"]}`})
	r := backout(t, nil, "rehearse", "--plan=ladder", "--reason=T-3", "--url="+url)
	want := `Plan ladder of shop, without lasting effect:
pass         drill alert: took 250 ms
             a drill came back
pass         1-flag_off: took 12 s
             compose:web:A
             started aside\x1b[2J
FAIL         2-image_retag: took 20 ms
             compose:web:image
             there is no image
             try: docker pull web:v1

Plan ladder: 2 passed, 1 failed, 0 unknown; 2 of 2 steps tried, the rest
checked. It took 14 s and ended 2 Jan 2026 15:04:20 UTC. Audit entries: backout
audit list --incident=inc-9

v2 of shop cannot start yet:
  no preflight was run; try: backout preflight --service=shop
  replication/lag, rehearsal/full could not be checked: no replica
    try: sign it off: backout preflight sign replication/lag
  image/previous failed: no image
    try: docker pull web:v1
  2 sign-offs missing:
    backout preflight sign go/no-go go/b --service=shop --by=NAME --reason=WHY
`
	if r.status != 1 || r.stderr != "" || r.stdout != want {
		t.Errorf("status %d, stderr %q, stdout\n%s\nwant\n%s", r.status, r.stderr, r.stdout, want)
	}
	fits(t, r.stdout)
}

func TestARehearsalIsShownThoughWhatIsMissingCannotBeAsked(t *testing.T) {
	url := server(t, "",
		exchange{"POST /api/v1/rehearse", `{"service":"","plan":"","reason":"no reason given"}`, 200, rehearsal(true, "", notYet, "")},
		exchange{"GET /api/v1/rehearse?service=shop", "", 200, rehearsal(false, rehearsedFlag, ended, "pass")},
		exchange{"GET /api/v1/preflight?service=shop", "", 500, `{"error":"the database is locked"}`})
	r := backout(t, nil, "rehearse", "--url="+url)
	if r.status != 0 || !said(r.stdout, "Plan ladder: 2 passed") || !said(r.stdout, "What a start still lacks could not be asked: the server at") ||
		!strings.HasSuffix(r.stdout, "answered 500: the database is locked\n  try: backout preflight show --service=shop\n") {
		t.Errorf("status %d, stderr %q, stdout\n%s", r.status, r.stderr, r.stdout)
	}
	fits(t, r.stdout)
}

func TestARehearsalWhoseServerStoppedIsNone(t *testing.T) {
	old := strings.ReplaceAll(rehearsal(false, rehearsedFlag, "2026-01-01T00:00:10Z", "pass"), "2026-01-02T15:04:06Z", "2026-01-01T00:00:00Z")
	url := server(t, "",
		exchange{"POST /api/v1/rehearse", `{"service":"shop","plan":"","reason":"no reason given"}`, 200, rehearsal(true, "", notYet, "")},
		exchange{"GET /api/v1/rehearse?service=shop", "", 200, old})
	r := backout(t, nil, "rehearse", "--service=shop", "--url="+url)
	if r.status != 1 || !said(r.stderr, "the server stopped during the rehearsal") || !said(r.stderr, "try: backout rehearse") || said(r.stdout, "passed") {
		t.Errorf("status %d, stderr %q, stdout %q", r.status, r.stderr, r.stdout)
	}
}

func TestARehearsalIsPrintedAsJSONOnceItIsOver(t *testing.T) {
	url := server(t, "",
		exchange{"POST /api/v1/rehearse", `{"service":"","plan":"","reason":"no reason given"}`, 200, rehearsal(true, "", notYet, "")},
		exchange{"GET /api/v1/rehearse?service=shop", "", 200, rehearsal(false, rehearsedFlag, ended, "pass")})
	r := backout(t, nil, "rehearse", "--output=json", "--url="+url)
	if r.status != 0 || !said(r.stdout, `"running": false`) || !said(r.stdout, `"took": "12s345ms"`) || strings.Count(r.stdout, `"running"`) != 1 {
		t.Errorf("status %d, stdout %s", r.status, r.stdout)
	}
}

func TestAnIncidentSaysHowLongItsNextStepTookWhenRehearsed(t *testing.T) {
	expected := strings.NewReplacer(
		`"state":"pending","started":null,"finished":null`, `"state":"pending","started":null,"finished":null,"expected":"14s","rehearsed":"2025-11-21T10:00:00Z"`,
		`"state":"done",`, `"state":"done","expected":"3s","rehearsed":"2025-11-21T10:00:00Z",`).Replace(settling)
	url := server(t, "", exchange{"GET /api/v1/incidents/inc-7", "", 200, expected})
	r := backout(t, nil, "incident", "show", "inc-7", "--url="+url)
	if !said(r.stdout, "took 14s when rehearsed on 21 Nov 2025") || said(r.stdout, "took 3s") {
		t.Errorf("it says\n%s", r.stdout)
	}
	fits(t, r.stdout)
}
