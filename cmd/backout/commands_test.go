package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

const settling = `{"id":"inc-7","service":"social-intel","rollout":"v2.0.0","state":"settling","reason":"","why":"","until":null,
"opened":"2026-01-02T15:04:05Z","closed":null,
"triggers":[{"trigger":"error_rate","fingerprint":"af1","active":true,"threshold":0.01,"unit":"ratio","value":0.0314159}],
"steps":[
 {"id":"1-flag_off","action":"flag_off","target":"compose:/srv/social-intel/social-intel:FEATURE_ANALYTICS_ENABLED","risk":"reversible","state":"done","started":"2026-01-02T15:04:06Z","finished":"2026-01-02T15:04:08Z"},
 {"id":"2-image_retag","action":"image_retag","target":"compose:/srv/social-intel/social-intel","risk":"disruptive","state":"pending","started":null,"finished":null}],
"next":{"step":"2-image_retag","at":"2026-01-02T15:09:08Z","what":"it runs then if the breach continues","unless":["the breach ends","someone claims the incident"]},"claimed_by":"","drill":false}`

func TestAPersonAtNightIsToldWhatHappenedWhatComesNextAndHowToStopIt(t *testing.T) {
	url := server(t, "", exchange{"GET /api/v1/incidents/inc-7", "", 200, settling})
	r := backout(t, nil, "incident", "show", "inc-7", "--url="+url)
	if r.status != 0 || r.stderr != "" {
		t.Fatalf("status %d, stderr %q", r.status, r.stderr)
	}
	for _, want := range []string{
		"social-intel, release v2.0.0",
		"settling: a step has run; backout is watching whether it was enough",
		"error_rate: firing, last value 3.142%, threshold 1%",
		"1-flag_off", "done", "15:04:06 to 15:04:08 UTC",
		"Next: 2-image_retag, not before 2 Jan 2026 15:09:08 UTC (in 4 min 8 s): it runs then if the breach continues.",
		"unless the breach ends", "or someone claims the incident",
		"backout freeze --service=social-intel --reason=WHY",
		"backout incident claim inc-7",
	} {
		if !said(r.stdout, want) {
			t.Errorf("%q is not said in:\n%s", want, r.stdout)
		}
	}
	fits(t, r.stdout)
}

func TestAWaitForApprovalSaysHowToAnswer(t *testing.T) {
	waiting := strings.NewReplacer(`"settling","reason":"","why":"","until":null`,
		`"waiting","reason":"approval","why":"schema rollback loses data","until":"2026-01-02T15:34:05Z"`,
		`"next":{"step":"2-image_retag","at":"2026-01-02T15:09:08Z","what":"it runs then if the breach continues"`, `"next":{"step":"3-schema_rollback","at":null,"what":"it runs once a commander approves it"`).Replace(settling)
	url := server(t, "", exchange{"GET /api/v1/incidents/inc-7", "", 200, waiting})
	r := backout(t, nil, "incident", "show", "inc-7", "--url="+url)
	for _, want := range []string{
		"backout approve inc-7 3-schema_rollback --reason=WHY", "backout deny inc-7 3-schema_rollback --reason=WHY",
		"approval: schema rollback loses data", "2 Jan 2026 15:34:05 UTC", "Next: 3-schema_rollback: it runs once a commander approves it.",
	} {
		if !said(r.stdout, want) {
			t.Errorf("%q is not said in:\n%s", want, r.stdout)
		}
	}
	fits(t, r.stdout)
}

func TestWhatCameFromOutsideCannotDriveTheTerminal(t *testing.T) {
	evil := strings.ReplaceAll(settling, "error_rate", `x\u001b[2J\u202e\ny`)
	url := server(t, "",
		exchange{"GET /api/v1/incidents/inc-7", "", 200, evil},
		exchange{"GET /api/v1/incidents?limit=1000", "", 200, `{"incidents":[` + evil + `]}`},
		exchange{"GET /api/v1/incidents/inc-8", "", 404, `{"error":"no\u001b[2J"}`})
	for _, args := range [][]string{{"incident", "show", "inc-7"}, {"incident", "list"}, {"incident", "show", "inc-8"}} {
		r := backout(t, nil, append(args, "--url="+url)...)
		if strings.ContainsAny(r.stdout+r.stderr, "\x1b\u202e") {
			t.Errorf("%v prints control characters: %q", args, r.stdout+r.stderr)
		}
	}
}

func TestCommandsSpeakTheAPI(t *testing.T) {
	file := tokenFile(t)
	freeze := `{"service":"social-intel","scope":"all","until":null,"by":"oncall","reason":"db move","since":"2026-01-02T15:04:05Z"}`
	rollout := `{"service":"social-intel","release":"v2.0.0","previous":"v1.0.0","state":"active","stage":"alpha","held":false,
		"started":"2026-01-02T15:04:05Z","stage_since":"2026-01-02T15:04:05Z","promotable_at":"2026-01-03T15:04:05Z",
		"criteria":[{"name":"error_rate","value":0.0002,"threshold":0.001,"ok":true},{"name":"p95","value":null,"threshold":0.5,"ok":false}]}`
	for name, tc := range map[string]struct {
		args     []string
		exchange exchange
		says     []string
	}{
		"claim without a reason says so": {
			[]string{"incident", "claim", "inc-7"},
			exchange{"POST /api/v1/incidents/inc-7/claim", `{"reason":"no reason given"}`, 200, settling},
			[]string{"Incident inc-7"},
		},
		"release": {
			[]string{"incident", "release", "inc-7", "--reason=looked at it"},
			exchange{"POST /api/v1/incidents/inc-7/release", `{"reason":"looked at it"}`, 200, settling},
			[]string{"Incident inc-7"},
		},
		"close, with an id that is no path": {
			[]string{"incident", "close", "../7", "--reason=r"},
			exchange{"POST /api/v1/incidents/..%2F7/close", `{"reason":"r"}`, 200, settling},
			[]string{"Incident inc-7"},
		},
		"approve": {
			[]string{"approve", "inc-7", "3-schema_rollback", "--reason=r"},
			exchange{"POST /api/v1/incidents/inc-7/approve", `{"step":"3-schema_rollback","reason":"r"}`, 200, settling},
			[]string{"Approved 3-schema_rollback of inc-7", "incident show inc-7"},
		},
		"approve over a limit": {
			[]string{"approve", "inc-7", "3-schema_rollback", "--over=per_service", "--reason=r"},
			exchange{"POST /api/v1/incidents/inc-7/approve", `{"step":"3-schema_rollback","over":"per_service","reason":"r"}`, 200, settling},
			[]string{"Approved 3-schema_rollback of inc-7 over per_service.", "incident show inc-7"},
		},
		"deny": {
			[]string{"deny", "inc-7", "3-schema_rollback", "--reason=r"},
			exchange{"POST /api/v1/incidents/inc-7/deny", `{"step":"3-schema_rollback","reason":"r"}`, 200, settling},
			[]string{"Incident inc-7"},
		},
		"freeze": {
			[]string{"freeze", "--service=social-intel", "--reason=db move"},
			exchange{
				"PUT /api/v1/freeze",
				`{"service":"social-intel","scope":"all","until":null,"by":"","reason":"db move","since":"0001-01-01T00:00:00Z"}`, 200, freeze,
			},
			[]string{"Frozen: service social-intel", "until thawed", "by oncall: db", "backout thaw --service=social-intel --reason=WHY"},
		},
		"thaw": {
			[]string{"thaw", "--reason=done & dusted"},
			exchange{"DELETE /api/v1/freeze?reason=done+%26+dusted", "", 200, `{"freezes":[` + freeze + `]}`},
			[]string{"Thawed: every service.", "Still frozen: service social-intel"},
		},
		"thaw the last": {
			[]string{"thaw", "--service=social-intel", "--reason=r"},
			exchange{"DELETE /api/v1/freeze?reason=r&service=social-intel", "", 200, `{"freezes":[]}`},
			[]string{"Nothing is frozen now."},
		},
		"signal raise": {
			[]string{"signal", "raise", "p1-error", "--service=social-intel", "--reason=CVE-1"},
			exchange{
				"POST /api/v1/signals/p1-error?service=social-intel", `{"reason":"CVE-1"}`, 200,
				`{"service":"social-intel","signal":"p1-error","raised":true,"by":"oncall","reason":"CVE-1","since":"2026-11-22T03:00:00Z","warning":"no rollout_signal"}`,
			},
			[]string{"Raised: p1-error of service social-intel", "by oncall: CVE-1", "warning: no rollout_signal", "backout signal clear p1-error --service=social-intel --reason=WHY"},
		},
		"signal clear": {
			[]string{"signal", "clear", "p1-error", "--reason=r"},
			exchange{"DELETE /api/v1/signals/p1-error", `{"reason":"r"}`, 200, `{"service":"social-intel","signal":"p1-error","raised":false,"by":"oncall","reason":"CVE-1","since":"2026-11-22T03:00:00Z"}`},
			[]string{"Cleared: p1-error of service social-intel."},
		},
		"rollout start": {
			[]string{"rollout", "start", "--declare", "--stage=alpha", "--reason=r"},
			exchange{"POST /api/v1/rollout/start", `{"service":"","release":"","stage":"alpha","declare":true,"reason":"r"}`, 200, rollout},
			[]string{"social-intel: release v2.0.0 is being rolled out, stage alpha; a rollback leads to", "error_rate: met (value 0.0002, bound 0.001)", "p95: no value"},
		},
		"rollout status": {
			[]string{"rollout", "status"},
			exchange{"GET /api/v1/rollout", "", 200, `{"rollouts":[` + rollout + `]}`},
			[]string{"next stage not before 3 Jan 2026 15:04:05 UTC"},
		},
		"list": {
			[]string{"incident", "list", "--status=open", "--service=social-intel"},
			exchange{"GET /api/v1/incidents?limit=1000&service=social-intel&status=open", "", 200, `{"incidents":[` + settling + `]}`},
			[]string{"inc-7 social-intel settling 2026-01-02 15:04:05 error_rate"},
		},
		"an empty list": {
			[]string{"incident", "list"},
			exchange{"GET /api/v1/incidents?limit=1000", "", 200, `{"incidents":[]}`},
			[]string{"No incidents."},
		},
		"audit list": {
			[]string{"audit", "list", "--incident=inc-7", "--kind=held", "--after=3", "--limit=1"},
			exchange{
				"GET /api/v1/audit?after=3&incident=inc-7&kind=held&limit=1", "", 200,
				`{"entries":[{"seq":9,"time":"2026-01-02T15:04:05.000000Z","kind":"held","actor":"engine","service":"social-intel","incident":"inc-7","step":"1-flag_off","action":"flag_off",
				"detail":{"reason":"frozen","value":"0.0314","gates":[{"gate":"mode","ok":true,"why":""},{"gate":"freeze","ok":false,"why":"db move"}]},"prev":"aa","hash":"bb"}],"next":9}`,
			},
			[]string{"9 2026-01-02 15:04:05 held social-intel inc-7 1-flag_off, by engine", "reason frozen, value 0.0314, gates closed: freeze (db move)", "There may be more: --after=9"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := server(t, "s3cret", tc.exchange)
			r := backout(t, map[string]string{"BACKOUT_URL": url}, append(tc.args, "--token-file="+file)...)
			if r.status != 0 || r.stderr != "" {
				t.Fatalf("status %d, stderr %q", r.status, r.stderr)
			}
			for _, want := range tc.says {
				if !said(r.stdout, want) {
					t.Errorf("%q is not said in:\n%s", want, r.stdout)
				}
			}
			fits(t, r.stdout)

			again := server(t, "s3cret", tc.exchange)
			r = backout(t, map[string]string{"BACKOUT_URL": again, "BACKOUT_TOKEN_FILE": file}, append(tc.args, "--output=json")...)
			if r.status != 0 || !json.Valid([]byte(r.stdout)) {
				t.Errorf("with --output=json: status %d, stderr %q, stdout %q", r.status, r.stderr, r.stdout)
			}
		})
	}
}

func TestFollowShowsEachChangeOnceOutlivesARestartAndEndsWithTheIncident(t *testing.T) {
	closed := strings.NewReplacer(`"settling"`, `"closed"`, `"closed":null`, `"closed":"2026-01-02T15:20:00Z"`).Replace(settling)
	get := func(status int, answer string) exchange {
		return exchange{"GET /api/v1/incidents/inc-7", "", status, answer}
	}
	read := func(at string) string { // at each poll, the same values are read anew
		at = `"2026-01-02T15:` + at + `Z"`
		return strings.NewReplacer(`"value":`, `"observed":`+at+`,"value":`, `{"id":"inc-7"`, `{"runs":{"seen":`+at+`,"up":2,"total":2},"id":"inc-7"`).Replace(settling)
	}
	for _, output := range []string{"text", "json"} {
		url := server(t, "", get(200, read("10:00")), get(200, read("10:15")), get(503, `{"error":"starting"}`), get(503, `{"error":"starting"}`), get(200, read("10:30")), get(200, closed))
		r := backout(t, nil, "incident", "show", "inc-7", "--follow", "--url="+url, "--output="+output)
		if r.status != 0 || strings.Count(r.stderr, "retrying") != 1 {
			t.Errorf("%s: status %d, stderr %q", output, r.status, r.stderr)
		}
		shown := strings.Count(r.stdout, "Incident inc-7") + strings.Count(r.stdout, `{"id":"inc-7"`)
		if shown != 2 {
			t.Errorf("%s: shown %d times, want 2:\n%s", output, shown, r.stdout)
		}
	}
	r := backout(t, nil, "incident", "show", "inc-7", "--follow", "--url="+server(t, "", get(404, `{"error":"there is no incident inc-7"}`)))
	if r.status != 1 || !strings.Contains(r.stderr, "no incident") {
		t.Errorf("following nothing: %+v", r)
	}
}

func TestAFollowedTailPrintsNewEntriesUntilItIsStopped(t *testing.T) {
	entry := func(seq int) string {
		return fmt.Sprintf(`{"seq":%d,"time":"2026-01-02T15:04:05.000000Z","kind":"frozen","actor":"oncall","service":"","incident":"","step":"","action":"","detail":{},"prev":"aa","hash":"bb"}`, seq)
	}
	page := func(after, seq int) exchange {
		entries := ""
		if seq > 0 {
			entries = entry(seq)
		}
		return exchange{fmt.Sprintf("GET /api/v1/audit?after=%d&limit=500", after), "", 200, `{"entries":[` + entries + `]}`}
	}
	url := server(t, "", exchange{"GET /api/v1/audit/head", "", 200, `{"seq":8,"hash":"bb"}`},
		page(7, 8), page(8, 0), page(8, 0), page(8, 9))
	r := backoutUntil(t, "     9  ", nil, "audit", "tail", "--lines=1", "--follow", "--url="+url)
	if r.status != 0 || r.stderr != "" || !said(r.stdout, "8 2026-01-02") || !said(r.stdout, "9 2026-01-02") {
		t.Errorf("%+v", r)
	}
}

func TestAListReadsEveryPage(t *testing.T) {
	two := strings.ReplaceAll(settling, "inc-7", "inc-8")
	pages := []exchange{
		{"GET /api/v1/incidents?limit=1000", "", 200, `{"incidents":[` + settling + `],"next":"inc-7"}`},
		{"GET /api/v1/incidents?after=inc-7&limit=1000", "", 200, `{"incidents":[` + two + `]}`},
	}
	r := backout(t, nil, "incident", "list", "--limit=1", "--url="+server(t, "", pages...))
	if r.status != 0 || strings.Contains(r.stdout, "inc-7") || !strings.Contains(r.stdout, "inc-8") {
		t.Errorf("the newest one is not what is listed: %+v", r)
	}
}

func TestReadingNeedsTheTokenOfAViewerOnly(t *testing.T) {
	url := server(t, "", exchange{"GET /api/v1/incidents?limit=1000", "", 403, `{"error":"the role alertmanager does not allow this"}`})
	if r := backout(t, nil, "incident", "list", "--url="+url); r.status != statusWrong || !strings.Contains(r.stderr, "with the token of a viewer or a commander") {
		t.Errorf("%+v", r)
	}
}

func TestARefusalIsASentenceWithAHint(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		answer string
		exit   int
		says   string
	}{
		"no token":        {401, `{"error":"a known token is needed"}`, 2, "backout: a known token is needed\ntry: --token-file=FILE"},
		"no tokens":       {403, `{"error":"no tokens are configured; try: add a token to tokens: in --config.file"}`, 2, "no tokens are configured\ntry: add a token to tokens:"},
		"the wrong role":  {403, `{"error":"the role viewer does not allow this"}`, 2, "viewer does not allow this\ntry: --token-file=FILE, with the token of a commander"},
		"a hint for HTTP": {401, `{"error":"a known token is required; try: Authorization: Bearer TOKEN"}`, 2, "backout: a known token is required\ntry: --token-file=FILE"},
		"a hint":          {409, `{"error":"x is breaching; try: force, to restore anyway"}`, 1, "backout: x is breaching\ntry: force, to restore anyway\n"},
		"unknown":         {404, `{"error":"there is no incident inc-7"}`, 1, "backout: there is no incident inc-7\n"},
		"its state":       {409, `{"error":"inc-7 is closed"}`, 1, "backout: inc-7 is closed\n"},
		"a wrong request": {400, `{"error":"a reason is required"}`, 2, "backout: a reason is required\n"},
		"a broken server": {500, `{"error":"internal error"}`, 2, "answered 500: internal error\n"},
		"a full server":   {503, `{"error":"the store does not answer"}`, 2, "cannot answer now: the store does not answer\n"},
		"another program": {404, `<html>`, 2, "which is not an answer of backout\ntry: --url=ADDRESS"},
		"a strange yes":   {200, `<html>`, 2, "is not from backout"},
	} {
		t.Run(name, func(t *testing.T) {
			url := server(t, "", exchange{"POST /api/v1/incidents/inc-7/claim", `{"reason":"r"}`, tc.status, tc.answer})
			r := backout(t, nil, "incident", "claim", "inc-7", "--reason=r", "--url="+url)
			if r.status != tc.exit || r.stdout != "" || !strings.Contains(r.stderr, tc.says) {
				t.Errorf("status %d, want %d; stdout %q; stderr %q, want %q", r.status, tc.exit, r.stdout, r.stderr, tc.says)
			}
		})
	}
}

func TestAnyOtherJSONIsNotTakenForAnAnswerOfBackout(t *testing.T) {
	for _, answer := range []string{`{"message":"please log in"}`, `{}`, `null`} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if _, err := w.Write([]byte(answer)); err != nil {
				t.Error(err)
			}
		}))
		defer srv.Close()
		for _, line := range []string{
			"freeze --reason=r", "thaw --reason=r", "signal raise x --reason=r", "status", "audit verify", "audit list", "audit tail", "incident list", "incident show inc-1",
			"incident brief inc-1", "approve inc-1 1-flag_off --reason=r", "rollout status", "rollout hold", "rollout report", "preflight", "rehearse",
		} {
			r := backout(t, nil, append(strings.Fields(line), "--url="+srv.URL)...)
			if r.status != 2 || r.stdout != "" || !strings.Contains(r.stderr, "is not from backout: it has no \"") {
				t.Errorf("%s, answered %s: %+v", line, answer, r)
			}
		}
	}
}

// The abort is done: that its first step cannot be seen is no failure of it.
func TestAnAbortWhoseIncidentCannotBeReadHasBeenOrdered(t *testing.T) {
	soon := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	aborted, err := json.Marshal(view.RolloutView{
		Rollout: remediation.Rollout{Service: "shop", Release: "v2", State: remediation.RolloutActive}, BackOut: view.BackOut{Incident: "inc-1"},
		Criteria: []view.CriterionView{}, Next: "beta", PromotableAt: &soon, Gates: []remediation.GateResult{remediation.GateClosed("held", "the rollout is held")},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method != http.MethodPost {
			w.WriteHeader(http.StatusNotFound)
			aborted = []byte(`{"error":"there is no incident inc-1"}`)
		}
		if _, err := w.Write(aborted); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	r := backout(t, nil, "rollout", "abort", "--reason=bad", "--url="+srv.URL)
	if r.status != 0 || !strings.Contains(r.stdout, "Follow incident inc-1: backout incident show inc-1 --follow") {
		t.Errorf("%+v", r)
	}
	if strings.Contains(r.stdout, "next stage") || strings.Contains(r.stdout, "held") {
		t.Errorf("an abort's answer says what a promotion lacks:\n%s", r.stdout)
	}
}

func TestAServerThatIsNotThereIsNamedWithAHint(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	r := backout(t, nil, "incident", "list", "--url="+srv.URL)
	if r.status != 2 || !strings.Contains(r.stderr, "connection refused by "+srv.URL) || !strings.Contains(r.stderr, "is `backout serve` running?") {
		t.Errorf("%+v", r)
	}
}

func TestATokenIsNotSentToWhereARedirectPoints(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the redirect was followed: %s", r.URL)
	}))
	defer elsewhere.Close()
	srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	r := backout(t, nil, "incident", "list", "--url="+srv.URL, "--token-file="+tokenFile(t))
	if r.status != 2 || !strings.Contains(r.stderr, "307") {
		t.Errorf("%+v", r)
	}
}

func TestWrongUsageIsOneSentenceAndStatusTwo(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, says := range map[string]string{
		"":                                      "no command given",
		"incident":                              "no command given\ntry: backout help incident",
		"incident lst":                          `"lst"`,
		"incident show":                         "'id' not provided\ntry: backout help incident show",
		"incident show inc-1 inc-2":             "unexpected inc-2",
		"incident list --statsu=open":           "--statsu",
		"incident list --status=shut":           `--status: invalid value "shut"; use one of open, closed, all`,
		"incident list --limit=0":               `--limit: "0" is not a whole number from 1`,
		"incident list --output=yaml":           `--output: invalid value "yaml"; use one of text, json`,
		"incident list --url=localhost:9099":    "--url: ",
		"incident list --url=http://u:p@x":      "must not contain a user name or password\ntry: --token-file=FILE",
		"incident list --token-file=/not/there": "--token-file: open /not/there",
		"incident list --token-file=" + empty:   "is empty",
		"incident list --url=http://x --storage.dsn=sqlite:x": "cannot be used together",
		"audit list --after=-1":                               `--after: "-1"`,
		"audit list --limit=1001":                             "from 1 to 1000",
		"audit tail --lines=many":                             `--lines: "many"`,
		"incident report":                                     "'id' not provided\ntry: backout help incident report",
		"incident report inc-1 --output=yaml":                 `--output: invalid value "yaml"; use text, -, json, or a file`,
		"completion":                                          "'shell' not provided\ntry: backout help completion",
		"completion tcsh":                                     "bash",
		"approve inc-1 --reason=r":                            "'step' not provided",
		"approve inc-1 1-flag_off":                            "--reason",
		"freeze":                                              "--reason",
		"freeze --reason=r --for=-1h":                         `--for: "-1h" is not a duration`,
		"freeze --reason=r --for=1fortnight":                  "is not a duration above 0, such as 30m",
		"freeze --reason=r --scope=some":                      `--scope: invalid value "some"; use one of all, promotions`,
		"thaw":                                                "--reason",
		"signal raise p1-error":                               "--reason",
		"signal clear":                                        "--reason",
		"signal":                                              "backout help signal",
		"rollout start --declare":                             "--stage",
	} {
		t.Run(line, func(t *testing.T) {
			r := backout(t, nil, strings.Fields(line)...)
			if r.status != 2 || r.stdout != "" {
				t.Errorf("status %d, stdout %q", r.status, r.stdout)
			}
			if !strings.HasPrefix(r.stderr, "backout: ") || !strings.Contains(r.stderr, says) || strings.Count(r.stderr, "\n") > 2 {
				t.Errorf("stderr %q, want one sentence with %q", r.stderr, says)
			}
		})
	}
}

func TestHelpAndVersionAreAnswersAndNothingRuns(t *testing.T) {
	for _, line := range []string{"--help", "help", "help incident show", "incident --help", "incident show --help", "incident claim --help"} {
		r := backout(t, nil, strings.Fields(line)...)
		if r.status != 0 || !strings.HasPrefix(r.stdout, "usage: backout") || r.stderr != "" {
			t.Errorf("%s: %+v", line, r)
		}
		fits(t, r.stdout)
	}
	for _, line := range []string{"--version", "version"} {
		r := backout(t, nil, line)
		if r.status != 0 || !strings.HasPrefix(r.stdout, "backout, version") || strings.Contains(r.stdout, "usage") {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

// A mistake in the plans, a trigger's plan that there is not, and a mistake that only the rules
// show are reported at once.
func TestCheckReportsPlansAndRulesTogether(t *testing.T) {
	src, err := os.ReadFile("../../alerts/playbook.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("[2m])) > bool 0", "[2h])) > bool 0", "action: image_retag", "action: image_tag").Replace(string(src))
	text = strings.Replace(text, "    plan: ladder\n", "    plan: lader\n", 1)
	file := filepath.Join(t.TempDir(), "playbook.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := backout(t, nil, "check", "--playbook.file="+file)
	alive, plan := strings.Index(r.stderr, "alive looks back 2h"), strings.Index(r.stderr, `"image_tag"`)
	if alive < 0 || plan < alive || !strings.Contains(r.stderr, `there is no plan "lader"`) || !strings.Contains(r.stdout, "3 errors, ") {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
}
