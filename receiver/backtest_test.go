package receiver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// fakeBacktester waits for the answer that it is to give.
type fakeBacktester struct {
	begun   chan string // the service
	answers chan func() (*view.Backtest, error)
}

func newFakeBacktester() *fakeBacktester {
	return &fakeBacktester{make(chan string, 10), make(chan func() (*view.Backtest, error))}
}

func (f *fakeBacktester) Backtest(ctx context.Context, service string, span time.Duration, progress func(string)) (*view.Backtest, error) {
	progress(fmt.Sprintf("12 of 98 queries, %s", remediation.Span(span)))
	f.begun <- service
	select {
	case answer := <-f.answers:
		return answer()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answer ends the backtest that is in progress.
func (f *fakeBacktester) answer(s *Server, r *view.Backtest, err error) {
	f.answers <- func() (*view.Backtest, error) { return r, err }
	s.backtests.wg.Wait()
}

// replayed is a backtest of the shop, of which one trigger fired.
func replayed(now time.Time, playbook string) *view.Backtest {
	day := func(d float64) time.Time {
		return now.Add(-time.Duration(d * float64(24*time.Hour))).Truncate(15 * time.Second)
	}
	r := &view.Backtest{Service: "shop", Release: "v2", Playbook: playbook, Made: now, From: day(7), To: day(0), Step: model.Duration(15 * time.Second), StagesFrom: view.StagesUnknown}
	plot := view.Plot{Incident: "shop", Trigger: "error_rate", Unit: "ratio", Threshold: 0.01, Above: true, From: r.From, To: r.To, Step: model.Duration(time.Hour)}
	for at := r.From; at.Before(r.To); at = at.Add(time.Hour) {
		plot.Points = append(plot.Points, remediation.Point{Time: at, Value: 0.002 + 0.001*math.Sin(float64(at.Unix())/20000)})
	}
	plot.Points[30].Value = 0.043
	worst, near, ended := 0.043, 61.0, day(5.7)
	r.Alerts = []view.BacktestAlert{
		{Alert: "ErrorRateAlert", Indicator: "error_rate", Unit: "ratio", Threshold: 0.5, Above: true, Window: model.Duration(5 * time.Minute), Judged: model.Duration(7 * 24 * time.Hour),
			NoData: model.Duration(7 * 24 * time.Hour), Verdict: "alert of error_rate had no value at any time: it can protect nothing. Check its query and its labels, or lower min_volume."},
		{Alert: "RollbackData", Trigger: "data_integrity", Judged: model.Duration(7 * 24 * time.Hour), Verdict: "data_integrity was not raised."},
		{Alert: "RollbackErrorRate", Trigger: "error_rate", Indicator: "error_rate", Unit: "ratio", Threshold: 0.01, Above: true, Window: model.Duration(15 * time.Minute),
			Judged: model.Duration(7 * 24 * time.Hour), Nearest: &view.BacktestValue{Time: day(3), Value: 0.0061, Percent: &near}, Plot: plot,
			Verdict: "error_rate would have rolled back 1 time in 7 d (12 firings)."},
	}
	for i := range 12 {
		from := ended.Add(time.Duration(i-12) * time.Hour)
		to := from.Add(4 * time.Minute)
		r.Alerts[2].Firings = append(r.Alerts[2].Firings, view.BacktestFiring{From: from, To: &to, Lasted: model.Duration(4 * time.Minute), Worst: &worst, Incident: "inc-1"})
	}
	view.SortAlerts(r.Alerts)
	r.Incidents = []view.BacktestIncident{{ID: "inc-1", Triggers: []string{"error_rate"}, Words: "would have run 2-flag_off immediately; ended by itself after 4 min"}}
	return r
}

// begin presses the button.
func (s *testService) begin(t testing.TB) {
	t.Helper()
	w := s.send("/playbook/backtest", "/playbook", "eve", url.Values{"service": {"shop"}})
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/playbook?service=shop#backtest" {
		t.Fatalf("answered %d %s: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
	if got := <-s.tester.begun; got != "shop" {
		t.Fatalf("the backtest is of %s", got)
	}
}

func says(t *testing.T, page string, want ...string) {
	t.Helper()
	for _, words := range want {
		if !strings.Contains(page, words) {
			t.Errorf("the page does not say %q", words)
		}
	}
}

func TestABacktestRunsBehindThePlaybookPageAndShowsEachTrigger(t *testing.T) {
	s := newTestService(t)
	says(t, s.page("/playbook", "eve"), "Replay the last 7 days</button>")
	s.begin(t)
	page := s.page("/playbook", "eve")
	says(t, page, "Replaying the last 7 days", "12 of 98 queries, 7 d", `data-live="/events"`)
	if strings.Contains(page, "/playbook/backtest") {
		t.Error("a second one can be begun")
	}
	stamp, err := s.stamp(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s.tester.answer(s.Server, replayed(s.clock(), s.playbookHash(t)), nil)
	if after, err := s.stamp(t.Context(), 0); err != nil || after == stamp {
		t.Errorf("the page that waits is not told: %v", err)
	}
	s.pass(2 * time.Hour)
	page = s.page("/playbook", "eve")
	says(t, page, "replayed <span data-at=", ">2 h ago</span>", "fired 12 times</strong>, worst 4.3%", "above 1% over 15 min", "0.61%, 61% of the bound", "and 2 earlier firings",
		"would have run 2-flag_off immediately; ended by itself after 4 min", "would have rolled back 1 time in 7 d", "data_integrity</bdi>: not raised", "no value at any time",
		`class="plotbox desk"`, `class="plotbox phone"`, "Replay again</button>", "Prometheus has no rollout_stage of this time")
	if strings.Contains(page, "data-live") || strings.Contains(page, "has changed since") {
		t.Error("the page waits for something, or calls the backtest outdated")
	}
	if fired, quiet := strings.Index(page, "error_rate</bdi>: <strong>fired"), strings.Index(page, "data_integrity</bdi>: not raised"); fired < 0 || fired > quiet {
		t.Error("what fired is not first")
	}
	says(t, s.page("/playbook", "ann"), "would have rolled back 1 time", "A commander can replay")
	s.begin(t)
	s.tester.answer(s.Server, replayed(s.clock(), "another"), nil)
	says(t, s.page("/playbook", "eve"), "The playbook has changed since")
}

func (s *testService) playbookHash(t *testing.T) string {
	t.Helper()
	p, err := s.engine.Playbook(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	return p.Hash
}

func TestABacktestThatFailsSaysWhyAndKeepsTheOneBefore(t *testing.T) {
	s := newTestService(t)
	s.begin(t)
	s.tester.answer(s.Server, replayed(s.clock(), ""), nil)
	for _, c := range []struct {
		answer func() (*view.Backtest, error)
		words  string
	}{
		{func() (*view.Backtest, error) {
			return nil, fmt.Errorf("prometheus at http://x: %w: connection refused", remediation.ErrNoAnswer)
		}, "Prometheus gave no answer: prometheus at http://x"},
		{func() (*view.Backtest, error) { return nil, context.DeadlineExceeded }, "It took longer than 15 min"},
		{func() (*view.Backtest, error) { return nil, errors.New("bad query") }, "bad query"},
		{func() (*view.Backtest, error) { panic("a fault") }, "internal error"},
		{func() (*view.Backtest, error) { return &view.Backtest{Missing: "interrupted"}, nil }, "It did not end within 15 min; the last complete one is below"},
	} {
		s.begin(t)
		s.tester.answers <- c.answer
		s.backtests.wg.Wait()
		says(t, s.page("/playbook", "eve"), "failed.</strong> ", c.words, "would have rolled back 1 time", "Replay again</button>")
	}
}

func TestOneBacktestRunsAtATimeForAKnownService(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander))
	now := time.Now()
	b.service.overview = view.Overview{Time: now, Services: []view.ServiceNow{{Service: "one"}, {Service: "two"}}}
	if err := b.backtests.start("one"); err != nil {
		t.Fatal(err)
	}
	<-b.tester.begun
	if err := b.backtests.start("one"); err != nil || len(b.tester.begun) > 0 {
		t.Errorf("the same again: %v", err)
	}
	if err := b.backtests.start("two"); err == nil || !strings.Contains(err.Error(), "the backtest of one is in progress") {
		t.Errorf("another: %v", err)
	}
	r := as(request("GET", "/playbook?service=two", ""), "eve")
	r.Header.Set("Accept", "text/html")
	says(t, b.do(r).Body.String(), "The backtest of <bdi>one</bdi> is in progress")
	b.tester.answer(b.Server, &view.Backtest{}, nil)
	if err := b.backtests.start("two"); err != nil {
		t.Error(err)
	}
	b.backtests.end()
	b.backtests.wg.Wait()
	s := newTestService(t)
	for name, form := range map[string]url.Values{"no service": {}, "another service": {"service": {"gone"}}, "an unknown field": {"service": {"shop"}, "days": {"90"}}} {
		if w := s.send("/playbook/backtest", "/playbook", "eve", form); w.Code < 400 || len(s.tester.begun) > 0 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	if w := s.send("/playbook/backtest", "/playbook", "eve", url.Values{"service": {"shop"}, "csrf": {"wrong"}}); w.Code != http.StatusForbidden || len(s.tester.begun) > 0 {
		t.Errorf("without the form's token: %d", w.Code)
	}
}

func TestABacktestEndsWithTheServer(t *testing.T) {
	b := newBench(t)
	_, stop := b.serve(t, "")
	if err := b.backtests.start("shop"); err != nil {
		t.Fatal(err)
	}
	<-b.tester.begun
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := b.backtests.of("shop"); n.Running != "" || n.Failed == "" {
		t.Errorf("after the server has ended: %+v", n)
	}
	if err := b.backtests.start("shop"); err == nil {
		t.Error("another one begins")
	}
}
