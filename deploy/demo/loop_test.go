package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/deploy/demo/breakage"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// halfFail breaks half of the feature's requests, for as long as its flag is on.
var halfFail = breakage.Breakage{Errors: 0.5}

func TestABreachTheFlagCausedIsCuredByTheFlag(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "cured", asUsual)
	before, err := os.ReadFile(s.path("project", ".env"))
	must(t, err)
	wantFlag(t, s, "1")

	st := tellStory(t, s, "errors")

	after, err := os.ReadFile(s.path("project", ".env"))
	must(t, err)
	if want := strings.Replace(string(before), flagName+"=1", flagName+"=0", 1); string(after) != want {
		t.Errorf(".env is\n%s\nand should differ from what it was in the flag alone:\n%s", after, want)
	}
	s.wantSteps(t, st.log, "flag_off")
	s.wantOneContainer(t, newVersion)
}

func TestAStepThatCannotBeDoneHoldsTheLadderAndSaysWhy(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "not-cured", asUsual)
	ctx := t.Context()
	must(t, s.engine.removeImage(ctx, s.image+":"+oldVersion))
	before, err := s.engine.imageID(ctx, s.image+":latest")
	must(t, err)
	breakNow(t, s, everythingFails)
	inc := untilHeld(t, s, remediation.HoldTarget)

	if !strings.Contains(inc.Why, s.image+":"+oldVersion) {
		t.Errorf("the incident says %q, which does not name the image that is missing", inc.Why)
	}
	l := &log{stack: s}
	s.wantSteps(t, l, "flag_off")
	settled := s.untilStep(t, l, audit.KindVerified, "flag_off")
	held := s.untilStep(t, l, audit.KindHeld, "image_retag")
	if wait := held.Time.Sub(settled.Time); wait < 14*time.Second {
		t.Errorf("the next step was looked at %s after the first, before it had time to settle", wait)
	}
	after, err := s.engine.imageID(ctx, s.image+":latest")
	must(t, err)
	if after != before {
		t.Errorf("latest was %s and is %s", before, after)
	}
	s.wantOneContainer(t, newVersion)
}

func TestAServiceThatDiesAfterTheStepIsNotCalledRecovered(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "died", asUsual)
	l := &log{stack: s}
	breakNow(t, s, halfFail)
	untilEntry(t, l, audit.KindVerified)
	list, err := s.engine.containers(t.Context(), s.project)
	must(t, err)
	for _, c := range list {
		must(t, s.engine.stop(t.Context(), c.ID))
	}
	untilHeld(t, s, remediation.HoldNoData)

	// The trigger's own alert goes out by itself: nothing fails any more, since nothing answers.
	untilEntry(t, l, audit.KindResolved)
	seen := time.Now()
	until(t, "ten more polls", func(ctx context.Context) error {
		inc, err := s.onlyIncident(ctx)
		if err != nil {
			return err
		}
		if inc.State != remediation.Waiting || inc.Reason != remediation.HoldNoData {
			return fatal(fmt.Errorf("the incident is %s (%s), not waiting for data", inc.State, inc.Reason))
		}
		if time.Since(seen) < 10*time.Second {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if n := len(kinds(t, l, audit.KindRecovered)); n != 0 {
		t.Errorf("the log has %d recovered entries of a service that is dead", n)
	}
}

func TestAFeatureWithoutTrafficCountsAsRecovered(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "quiet", asUsual)
	l := &log{stack: s}
	breakNow(t, s, breakage.Breakage{Latency: 1200 * time.Millisecond, QuietWhenOff: true})
	e := untilEntry(t, l, audit.KindRecovered)
	rows, _ := e.Detail["triggers"].([]any)
	quiet := false
	for _, r := range rows {
		row, _ := r.(map[string]any)
		quiet = quiet || row["trigger"] == "p95_latency" && row["verdict"] == string(remediation.Quiet)
	}
	if !quiet {
		t.Errorf("recovered says %v; p95_latency was to be quiet", e.Detail)
	}
	wantFlag(t, s, "0")
}

func TestASilencedAlertIsLeftToThePersonWhoSilencedIt(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "silenced", asUsual)
	ctx := t.Context()
	_, err := s.command(ctx, "freeze", "--reason=so that the silence comes first")
	must(t, err)
	breakNow(t, s, halfFail)
	untilHeld(t, s, remediation.HoldFrozen)

	id := s.silence(t)
	_, err = s.command(ctx, "thaw", "--reason=the silence is there")
	must(t, err)
	untilHeld(t, s, remediation.HoldSilenced)
	wantFlag(t, s, "1")

	s.unsilence(t, id)
	untilEntry(t, &log{stack: s}, audit.KindVerified)
	wantFlag(t, s, "0")
}

func TestInObserveModeEverythingIsSaidAndNothingDone(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "observe", func(set *settings) { set.mode, set.maxAge = "observe", "15s" })
	l := &log{stack: s}
	breakNow(t, s, halfFail)
	untilHeld(t, s, remediation.HoldMode)
	for _, e := range kinds(t, l, audit.KindHeld) {
		if text(&e, "reason") == string(remediation.HoldMode) && (text(&e, "value") == "" || text(&e, "threshold") == "") {
			t.Errorf("the hold says %v, without what was seen", e.Detail)
		}
	}
	wantFlag(t, s, "1")
	if n := len(kinds(t, l, audit.KindIntent)); n != 0 {
		t.Errorf("%d steps were begun in observe mode", n)
	}

	s.wantBlindWithoutPrometheus(t, l)
	wantFlag(t, s, "1")
}

// inspect returns the environment of the project's running container and how many run.
func (s *stack) inspect(ctx context.Context) (env map[string]string, running int, err error) {
	list, err := s.engine.containers(ctx, s.project)
	if err != nil {
		return nil, 0, err
	}
	env = map[string]string{}
	for _, c := range list {
		if c.State != "running" {
			continue
		}
		running++
		var seen struct{ Config struct{ Env []string } }
		if err := s.engine.do(ctx, http.MethodGet, "/containers/"+c.ID+"/json", nil, nil, &seen); err != nil {
			return nil, 0, err
		}
		for _, kv := range seen.Config.Env {
			name, value, _ := strings.Cut(kv, "=")
			env[name] = value
		}
	}
	return env, running, nil
}

// silence silences the error-rate alert in Alertmanager and waits until that holds.
func (s *stack) silence(t *testing.T) (id string) {
	t.Helper()
	now := time.Now().UTC()
	body, err := json.Marshal(map[string]any{
		"matchers": []any{map[string]any{"name": "trigger", "value": "error_rate", "isRegex": false, "isEqual": true}},
		"startsAt": now.Format(time.RFC3339Nano), "endsAt": now.Add(time.Hour).Format(time.RFC3339Nano),
		"createdBy": "oncall", "comment": "I have it",
	})
	must(t, err)
	text := s.alertmanagerDo(t, http.MethodPost, "/api/v2/silences", bytes.NewReader(body))
	var made struct{ SilenceID string }
	must(t, json.Unmarshal(text, &made))
	until(t, "the alert is silenced", func(ctx context.Context) error {
		var alerts []struct {
			Labels map[string]string
			Status struct{ SilencedBy []string }
		}
		if err := s.ask(ctx, "alertmanager", "/api/v2/alerts", &alerts); err != nil {
			return err
		}
		for _, a := range alerts {
			if a.Labels["trigger"] == "error_rate" && len(a.Status.SilencedBy) > 0 {
				return nil
			}
		}
		return fmt.Errorf("none of %d alerts is", len(alerts))
	})
	return made.SilenceID
}

func (s *stack) unsilence(t *testing.T, id string) {
	t.Helper()
	s.alertmanagerDo(t, http.MethodDelete, "/api/v2/silence/"+id, nil)
}

func (s *stack) alertmanagerDo(t *testing.T, method, path string, body io.Reader) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url("alertmanager")+path, body)
	must(t, err)
	req.Header.Set("Content-Type", "application/json")
	res, err := s.client.Do(req)
	must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(t, err)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s: %s", method, path, res.Status, text)
	}
	return text
}
