package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/cmd/backout/follow"
)

// look is one answer of a server to a following.
type look struct {
	status int // 0: 200
	// answer is sent as it is; rollout makes a list of one of it.
	answer, rollout string
	// cut ends the connection without an answer.
	cut bool
}

// looks serves the answers in their order, the last one again and again.
func looks(t *testing.T, all ...look) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = &atomic.Int64{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method+" "+r.URL.String() != "GET /api/v1/rollout" {
			t.Errorf("unexpected request %s %s", r.Method, r.URL)
		}
		n := int(asked.Add(1))
		l := all[min(n, len(all))-1]
		if l.cut {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				err = conn.Close()
			}
			if err != nil {
				t.Error(err)
			}
			return
		}
		if l.rollout != "" {
			l.answer = `{"rollouts":[` + l.rollout + `]}`
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		if l.status != 0 {
			w.WriteHeader(l.status)
		}
		if _, err := w.Write([]byte(l.answer)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, asked
}

// at is a rollout of v2 in stage alpha, with a latency and the gates that are closed,
// as "gate:why"; edits are pairs of what is replaced in it and by what.
func at(latency string, closed []string, edits ...string) look {
	ok := latency != "null" && latency < "0.5"
	gates := []string{fmt.Sprintf(`{"gate":"criterion latency_p95","ok":%t,"why":"latency"}`, ok)}
	for _, g := range closed {
		name, why, _ := strings.Cut(g, ":")
		gates = append(gates, fmt.Sprintf(`{"gate":%q,"ok":false,"why":%q}`, name, why))
	}
	r := fmt.Sprintf(`{"service":"shop","release":"v2","previous":"v1","state":"active","stage":"alpha","held":false,"started":"2026-01-01T15:00:00Z",
		"stage_since":"2026-01-01T15:00:00Z","promotable_at":"2026-01-02T15:00:00Z","next":"beta","stages":["alpha","beta","full"],"traffic":"0.01",
		"criteria":[{"name":"latency_p95","value":%s,"threshold":0.5,"bound":"below","ok":%t}],"gates":[%s]}`, latency, ok, strings.Join(gates, ","))
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(r, edits[i]) {
			panic("nothing to edit: " + edits[i])
		}
		r = strings.Replace(r, edits[i], edits[i+1], 1)
	}
	return look{rollout: r}
}

var (
	inBeta = []string{`"stage":"alpha"`, `"stage":"beta"`}
	done   = []string{`"state":"active","stage":"alpha"`, `"state":"done","stage":"none"`}
)

func TestAFollowingEndsWellOnlyOnceNothingIsMissing(t *testing.T) {
	t.Parallel()
	for _, gate := range []string{"duration", "held", "freeze", "breaker", "watchdog", "triggers", "incident", "stage"} {
		url, asked := looks(t, at("0.3", []string{gate + ":closed by the test"}), at("0.3", []string{gate + ":closed by the test"}), at("0.3", nil))
		r := backout(t, nil, "rollout", "status", "--follow", "--stage=alpha", "--url="+url)
		if r.status != 0 || asked.Load() != 3 || !said(r.stdout, "stage alpha has lasted, all its criteria are met") {
			t.Errorf("%s: %d looks, %+v", gate, asked.Load(), r)
		}
		if gate != "duration" && (!said(r.stdout, "closed: "+gate+" (closed by the test)") || !said(r.stdout, "hold "+gate+", ")) {
			t.Errorf("%s is not said to be closed: %s", gate, r.stdout)
		}
		fits(t, r.stdout)
	}
	// Only the criterion is missing, then only the server's gates.
	none := at("0.3", nil, `"gates":[{"gate":"criterion latency_p95","ok":true,"why":"latency"}]`, `"gates":[]`)
	url, asked := looks(t, at("0.6", nil), none, at("0.3", nil))
	r := backout(t, nil, "rollout", "status", "--follow", "--url="+url)
	if r.status != 0 || asked.Load() != 3 || !said(r.stdout, "does not report its gates") || !said(r.stdout, "then backout rollout promote --service=shop, to stage beta") {
		t.Errorf("%d looks, %+v", asked.Load(), r)
	}
}

func TestAStageThatPersonsCarryOutIsBakedThoughBackoutOnlyObserves(t *testing.T) {
	t.Parallel()
	url, _ := looks(t, at("0.3", []string{"mode:it observes"}))
	r := backout(t, nil, "rollout", "status", "--follow", "--url="+url)
	if r.status != 0 || !said(r.stdout, "set the traffic of stage beta by hand") || !said(r.stdout, "backout rollout start --declare --service=shop --stage=beta") {
		t.Errorf("%+v", r)
	}
}

func TestTheSummaryHasTheWorstAndTheLastOfEachCriterionAndTheHoldsSeen(t *testing.T) {
	t.Parallel()
	url, _ := looks(t, at("0.3", []string{"duration:d"}), at("0.7", []string{"duration:d", "triggers:p95 is breaching"}), at("null", []string{"duration:d"}),
		at("0.2", []string{"duration:d", "triggers:p95 again"}), at("0.4", nil))
	r := backout(t, nil, "rollout", "status", "--follow", "--stage=alpha", "--url="+url)
	for _, want := range []string{
		"shop v2: stage alpha has lasted", "stage alpha, since 1 Jan 2026 15:00:00 UTC (1 d ago)", "watched 2026-01-02 15:05:00 to 2026-01-02 15:05:00 UTC",
		"criterion latency_p95: met; worst 0.7, last 0.4, must be below 0.5; no value in 1 of 5 polls; beyond it in 1 of 5",
		"hold triggers, 2026-01-02 15:05:00 to 2026-01-02 15:05:00 UTC, 2 times: p95 again",
	} {
		if r.status != 0 || !said(r.stdout, want) {
			t.Errorf("%q is not in %+v", want, r)
		}
	}
	fits(t, r.stdout)
}

func TestAFollowingInJSONHasALineForEachChangeAndTheResultLast(t *testing.T) {
	t.Parallel()
	url, _ := looks(t, at("0.3", []string{"duration:d"}), at("0.31", []string{"duration:d"}), at("0.3", []string{"held:h"}), at("0.3", nil))
	r := backout(t, nil, "rollout", "status", "--follow", "--stage=alpha", "--output=json", "--url="+url)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	var last struct {
		Result, Stage, Release, Next string
		Looks                        int
		Criteria                     []follow.FollowedCriterion
		Holds                        []follow.FollowedHold
	}
	if r.status != 0 || len(lines) != 3 || json.Unmarshal([]byte(lines[len(lines)-1]), &last) != nil {
		t.Fatalf("%+v", r)
	}
	if last.Result != "passed" || last.Stage != "alpha" || last.Release != "v2" || last.Looks != 4 || last.Next == "" ||
		len(last.Criteria) != 1 || *last.Criteria[0].Worst != 0.31 || len(last.Holds) != 1 || last.Holds[0].Gate != "held" || last.Holds[0].Closed {
		t.Errorf("%s", lines[len(lines)-1])
	}
}

func TestAFollowingEndsBadlyWhereTheStageCannotEndWell(t *testing.T) {
	t.Parallel()
	going := at("0.3", []string{"duration:d"})
	for name, tc := range map[string]struct {
		args []string
		all  []look
		want string
	}{
		"nothing is active":          {nil, []look{at("0.3", nil, `"state":"active"`, `"state":"none"`)}, "no rollout of shop is active"},
		"it was done before":         {nil, []look{at("0.3", nil, done...)}, "no rollout of shop is active: release v2 is done"},
		"another was done before":    {[]string{"--release=v3"}, []look{at("0.3", nil, done...)}, "release v3 of shop is not being rolled out: v2 is done"},
		"another is active":          {[]string{"--release=v3"}, []look{at("0.3", nil)}, "release v3 of shop is not being rolled out: v2 is active"},
		"it was rolled back before":  {[]string{"--release=v2"}, []look{at("0.3", nil, `"state":"active"`, `"state":"rolled_back"`)}, "release v2 is rolled back"},
		"it is rolled back":          {nil, []look{going, at("0.3", nil, `"state":"active"`, `"state":"rolled_back"`)}, "release v2 of shop is rolled back"},
		"it is aborted":              {nil, []look{going, at("0.3", nil, `"state":"active"`, `"state":"aborted"`)}, "release v2 of shop is aborted"},
		"another takes its place":    {nil, []look{going, at("0.3", nil, `"release":"v2"`, `"release":"v3"`)}, "release v3 of shop replaced v2, which you watched"},
		"another one is done":        {nil, []look{going, at("0.3", nil, append([]string{`"release":"v2"`, `"release":"v3"`}, done...)...)}, "release v3 of shop replaced v2"},
		"it is begun anew":           {nil, []look{going, at("0.3", nil, `"started":"2026-01-01`, `"started":"2026-01-02`)}, "the rollout of shop v2 was started again"},
		"an incident is open":        {nil, []look{at("0.3", nil, `"next"`, `"incident":"inc-1","next"`)}, "incident inc-1 of shop is open"},
		"an incident opens":          {nil, []look{going, at("0.3", nil, `"next"`, `"incident":"inc-1","next"`)}, "incident inc-1 of shop is open"},
		"the stage is gone":          {[]string{"--stage=alpha"}, []look{going, at("0.3", nil, `["alpha","beta","full"]`, `["beta","full"]`)}, "has no stage alpha any more"},
		"the service is not there":   {[]string{"--service=other"}, []look{going}, `service "other" has no rollout`},
		"the address is not there":   {nil, []look{{status: 404, answer: `{"error":"no such address"}`}}, "no such address"},
		"the playbook is taken away": {nil, []look{going, {answer: `{"rollouts":[]}`}}, `service "shop" has no rollout`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, asked := looks(t, tc.all...)
			r := backout(t, nil, append([]string{"rollout", "status", "--follow", "--url=" + url}, tc.args...)...)
			if r.status != 1 || !said(r.stderr, tc.want) || asked.Load() != int64(len(tc.all)) {
				t.Errorf("%d looks, %+v", asked.Load(), r)
			}
			if len(tc.all) > 1 && tc.all[1].answer == "" && !strings.Contains(r.stdout, "  criterion   latency_p95: met") {
				t.Errorf("what was seen until then is not told: %s", r.stdout)
			}
		})
	}
}

func TestAFollowingIsWellWhereTheRolloutHasLeftTheStage(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		all  []look
		want string
	}{
		"it is promoted":           {[]string{"--stage=alpha"}, []look{at("0.3", []string{"duration:d"}), at("0.3", nil, inBeta...)}, "stage alpha is over: the rollout is in stage beta; when the stage was last seen, d; 1 of 1 criteria met"},
		"it was promoted before":   {[]string{"--stage=alpha"}, []look{at("0.3", nil, inBeta...)}, "the rollout is in stage beta; none of it was seen"},
		"it is finished":           {nil, []look{at("0.3", []string{"held:h"}), at("0.3", nil, done...)}, "stage alpha is over: the rollout is done"},
		"its release was finished": {[]string{"--stage=alpha", "--release=v2"}, []look{at("0.3", nil, done...)}, "the rollout is done; none of it was seen"},
		"a later stage is waited for": {[]string{"--stage=beta"}, []look{at("0.3", nil), at("0.6", nil, inBeta...), at("0.3", nil, inBeta...)},
			"waiting for stage beta: the rollout is in stage alpha"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, asked := looks(t, tc.all...)
			r := backout(t, nil, append([]string{"rollout", "status", "--follow", "--url=" + url}, tc.args...)...)
			if r.status != 0 || !said(r.stdout, tc.want) || asked.Load() != int64(len(tc.all)) {
				t.Errorf("%d looks, %+v", asked.Load(), r)
			}
		})
	}
}

func TestAFollowingWaitsForAServerThatGoesAwayAndNotForOneThatRefuses(t *testing.T) {
	t.Parallel()
	going, over := at("0.3", []string{"duration:d"}), at("0.3", nil)
	for name, away := range map[string]look{
		"it ends the connection":         {cut: true},
		"it cannot answer now":           {status: 503, answer: `{"error":"the store is busy"}`},
		"a proxy answers in its place":   {status: 502, answer: "<html>Bad Gateway</html>"},
		"a proxy waits for it in vain":   {status: 504, answer: ""},
		"a proxy says that it is not up": {status: 503, answer: "<html>Service Unavailable</html>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, asked := looks(t, going, away, away, over)
			r := backout(t, nil, "rollout", "status", "--follow", "--url="+url)
			if r.status != 0 || asked.Load() != 4 || strings.Count(r.stderr, "retrying") != 1 {
				t.Errorf("%d looks, %+v", asked.Load(), r)
			}
		})
	}
	for status, want := range map[int]int{401: 2, 403: 2, 404: 1} {
		url, asked := looks(t, going, look{status: status, answer: `{"error":"refused by the test"}`})
		r := backout(t, nil, "rollout", "status", "--follow", "--url="+url)
		if r.status != want || asked.Load() != 2 || !strings.Contains(r.stderr, "refused by the test") {
			t.Errorf("%d: %d looks, %+v", status, asked.Load(), r)
		}
	}
	url, asked := looks(t, look{cut: true})
	if r := backout(t, nil, "rollout", "status", "--follow", "--url="+url); r.status != 2 || asked.Load() == 0 {
		t.Errorf("a server that is not there from the beginning: %+v", r)
	}
}

func TestAFollowingThatIsStoppedOrTakesTooLongSaysWhatWasLacking(t *testing.T) {
	t.Parallel()
	going := at("0.6", []string{"duration:d", "freeze:frozen by eve"})
	url, _ := looks(t, going)
	r := backoutUntil(t, "closed: freeze", nil, "rollout", "status", "--follow", "--stage=alpha", "--url="+url)
	if r.status != 1 || !said(r.stderr, "stopped before stage alpha was over; when it was last seen,") || !said(r.stderr, "closed: freeze (frozen by eve)") || !said(r.stdout, "hold freeze,") {
		t.Errorf("%+v", r)
	}
	began := time.Now()
	r = backout(t, nil, "rollout", "status", "--follow", "--stage=alpha", "--timeout=50ms", "--output=json", "--url="+url)
	if r.status != 1 || !said(r.stderr, "stage alpha did not end within 50ms") || !strings.Contains(r.stdout, `"result":"timeout"`) || time.Since(began) < 50*time.Millisecond {
		t.Errorf("%+v", r)
	}
	hung := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hung }))
	defer srv.Close()
	defer close(hung)
	r = backout(t, nil, "rollout", "status", "--follow", "--timeout=50ms", "--url="+srv.URL)
	if r.status != 1 || !said(r.stderr, "the stage did not end within 50ms") {
		t.Errorf("a server that hangs: %+v", r)
	}
}

func TestAPipeGetsTheStageOfASummaryWhole(t *testing.T) {
	var stdout, stderr bytes.Buffer
	c := newCommands(nil, &stdout, &stderr)
	stage, entered := "ten-percent-of-the-customers", c.now()
	if err := c.summary(&follow.Stage{Options: follow.Options{Service: "shop", Release: "v2", Stage: stage}, Looks: 1, Entered: &entered, Began: entered}, "lasted", "it lasted"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stdout.String(), stage+", since") {
		t.Errorf("the stage is cut:\n%s", &stdout)
	}
}
