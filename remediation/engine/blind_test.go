package engine_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
)

// blindness is what the audit log says of it, oldest first.
func (w *harness) blindness() (out []string) {
	w.t.Helper()
	es, err := w.engine.Entries(w.ctx, audit.Filter{Kind: audit.KindBlind})
	w.must(err)
	for _, e := range es {
		out = append(out, fmt.Sprint(e.Detail["what"], " ", e.Detail["blind"], ": ", e.Detail["why"]))
	}
	return out
}

// hear lets time go by in which the watchdog is heard.
func (c *canary) hear(d time.Duration) {
	c.t.Helper()
	for ; d > 0; d -= time.Minute {
		c.later(min(d, time.Minute))
	}
}

func (w *harness) wantBlindness(want ...string) {
	w.t.Helper()
	got := w.blindness()
	ok := len(got) == len(want)
	for i := range want {
		ok = ok && strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		w.t.Fatalf("blind entries:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (w *harness) blindMetric(prom, watchdog int) {
	w.t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.engine)
	want := fmt.Sprintf("# HELP backout_blind 1 while the watchdog stays away, or Prometheus does not answer, for longer than the playbook's watchdog.max_age.\n"+
		"# TYPE backout_blind gauge\nbackout_blind{reason=\"prometheus\",service=\"shop\"} %d\nbackout_blind{reason=\"watchdog\",service=\"shop\"} %d\n", prom, watchdog)
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "backout_blind"); err != nil {
		w.t.Error(err)
	}
}

func TestAPrometheusThatStaysAwayStopsPromotionsAndIsToldOnce(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.hear(day)
	c.prom.err = remediation.ErrNoAnswer
	c.hear(4 * time.Minute)
	c.wantBlindness() // a restart of Prometheus is no blindness
	c.prom.err = nil
	c.hear(time.Minute)
	c.prom.err = remediation.ErrNoAnswer
	c.hear(20 * time.Minute)
	c.wantBlindness("prometheus true: Prometheus has not answered since 23 Nov 2026 03:0")
	if o, err := c.engine.Overview(c.ctx); err != nil || o.Services[0].PrometheusAway == nil {
		t.Fatalf("%v: the now page does not know that Prometheus is away", err)
	}
	c.blindMetric(1, 0)

	c.start() // a restart forgets none of it, and tells none of it again
	c.hear(20 * time.Minute)
	c.wantBlindness("prometheus true: ")
	err := c.do(remediation.RolloutPromote)
	refused(t, err, remediation.Conflict)
	if !strings.Contains(err.Error(), "monitoring is lost") {
		t.Fatalf("refused with %q, want a word of the blindness", err)
	}
	c.at(remediation.RolloutActive, "alpha", "0.01") // nothing is rolled back because of it

	c.prom.err = nil
	c.hear(time.Minute)
	c.wantBlindness("prometheus true: ", "prometheus false: Prometheus answers again, after 4")
	c.blindMetric(0, 0)
	c.must(c.do(remediation.RolloutPromote))
	verify(t, c.harness)
}

func TestARefusedPromotionNamesTheWatchdogAndPrometheusWhereBothAreAway(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.hear(day)
	c.prom.err = remediation.ErrNoAnswer
	c.pass(10 * time.Minute)
	err := c.do(remediation.RolloutPromote)
	refused(t, err, remediation.Conflict)
	for _, want := range []string{"no watchdog alert for", "Prometheus has not answered since"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("refused with %q, which does not name %q", err, want)
		}
	}
}

func TestAPrometheusThatRefusesAQueryIsThere(t *testing.T) {
	c := newCanary(t)
	c.prom.err = fmt.Errorf("parse error: unexpected end of input")
	c.hear(20 * time.Minute)
	c.wantBlindness()
}

// Nobody could hear the watchdog while backout was stopped.
func TestALongStopIsNotTakenForALostWatchdog(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.beat()
	c.now = c.now.Add(time.Hour)
	c.start()
	c.pass(4 * time.Minute)
	c.wantBlindness()
	c.blindMetric(0, 0)
	err := c.do(remediation.RolloutPromote)
	if err == nil || !strings.Contains(err.Error(), "no watchdog alert for") {
		t.Errorf("promoted before the watchdog was heard: %v", err)
	}
	c.pass(2 * time.Minute)
	c.wantBlindness("watchdog true: no watchdog alert for 1 h 6 min")
}

func TestALostWatchdogIsNoticedThoughTheClockWasSetBackBeyondTheStart(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.beat()
	c.now = c.now.Add(-time.Hour)
	c.tick()
	c.pass(4 * time.Minute)
	c.wantBlindness()
	c.pass(2 * time.Minute)
	c.wantBlindness("watchdog true: no watchdog alert for 6 min")
}

func TestAPrometheusThatNeverAnsweredIsToldOf(t *testing.T) {
	c := newCanary(t)
	c.prom.err = remediation.ErrNoAnswer
	c.start()
	c.hear(6 * time.Minute)
	c.wantBlindness("prometheus true: ")
}

func TestBlindnessSurvivesACrashAtEveryCommit(t *testing.T) {
	storetest.EveryCommit(t, 1, func(t *testing.T, commit int, when storetest.When) bool {
		s := &crashHarness{harness: newHarness(t)}
		s.crashAfter(commit, when)
		lives := func(minutes int) {
			for range minutes {
				s.now = s.now.Add(time.Minute)
				s.must(s.acrossCrashes(func() error {
					_, err := s.engine.Tick(s.ctx)
					return err
				}))
			}
		}
		s.prom.err = remediation.ErrNoAnswer
		lives(15)
		s.prom.err = nil
		lives(5)
		s.wantBlindness("watchdog true: ", "prometheus true: ", "prometheus false: ")
		verify(t, s.harness)
		return s.crashes > 0
	})
}
