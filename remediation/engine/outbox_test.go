package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
	"github.com/locotoki/backout/remediation/view"
)

var errDown = errors.New("connection refused")

// notified returns what became of an incident's messages, oldest first.
func (w *harness) notified(id string) []string {
	w.t.Helper()
	var out []string
	for _, en := range w.entries(id) {
		if en.Kind == audit.KindNotified && en.Detail["outcome"] != nil {
			out = append(out, fmt.Sprintf("%s: %s %s after %v", en.Detail["channel"], en.Detail["what"], en.Detail["outcome"], en.Detail["attempts"]))
		}
	}
	return out
}

// life takes an incident from its first alert to its close, and tells three times.
func life(w *harness) string {
	w.t.Helper()
	id := w.open()
	w.calm("error_rate")
	w.pass(12 * time.Minute)
	w.is(id, remediation.Closed, "")
	return id
}

// inOrder is what every page has been told in the end.
var inOrder = []string{"1 identified", "2 monitoring", "3 resolved"}

func TestAChannelThatIsDownDelaysNoStepAndNoOtherChannel(t *testing.T) {
	times := func(w *harness, id string) (out []string) {
		for _, en := range w.entries(id) {
			if en.Kind != audit.KindNotified {
				out = append(out, en.Time.Format(time.TimeOnly)+" "+string(en.Kind)+" "+en.Step)
			}
		}
		return out
	}
	alone := newHarness(t, announcing()...)
	want := times(alone, life(alone))
	down, up := &page{name: "down", down: errDown}, &page{name: "up"}
	w := withPages(t, []*page{down, up}, announcing()...)
	id := life(w)
	if got := times(w, id); !slices.Equal(got, want) {
		t.Errorf("with a channel that is down:\n%v\nwithout any:\n%v", got, want)
	}
	if !slices.Equal(up.says(), inOrder) || w.pending() != 3 || down.calls < 5 {
		t.Errorf("the other channel was told %v; %d messages wait after %d tries", up.says(), w.pending(), down.calls)
	}
	down.down = nil
	w.pass(5 * time.Minute)
	if !slices.Equal(down.says(), inOrder) || w.pending() != 0 {
		t.Errorf("once it was up it was told %v; %d messages wait", down.says(), w.pending())
	}
}

func TestRetriesComeFurtherApartButNeverOverFiveMinutes(t *testing.T) {
	p := &page{name: "far", down: errDown}
	w := withPages(t, []*page{p}, announcing()...)
	freeze(w, 24*time.Hour) // nothing else happens
	w.open()
	var gaps []time.Duration
	last, calls := w.now, p.calls
	for len(gaps) < 14 {
		w.now = w.now.Add(500 * time.Millisecond)
		if w.now.Sub(last) > 6*time.Minute {
			t.Fatalf("no further try within 6m; gaps so far: %v", gaps)
		}
		w.tick()
		if p.calls > calls {
			gaps = append(gaps, w.now.Sub(last))
			last, calls = w.now, p.calls
		}
	}
	most := 2 * time.Second
	for i, g := range gaps {
		if g < most/2 || g > most+time.Second {
			t.Errorf("gap %d is %s, want %s to %s; all: %v", i, g, most/2, most, gaps)
		}
		most = min(2*most, 5*time.Minute)
	}
}

func TestMessagesOfOneIncidentArriveInOrder(t *testing.T) {
	p := &page{name: "far", errs: slices.Repeat([]error{errDown, nil}, 9)}
	w := withPages(t, []*page{p}, announcing()...)
	id := life(w)
	w.pass(5 * time.Minute)
	if !slices.Equal(p.says(), inOrder) || len(p.got) != 3 {
		t.Errorf("told %v in %d messages", p.says(), len(p.got))
	}
	want := []string{
		"far: update 1: identified delivered after 2", "far: update 2: monitoring delivered after 2", "far: update 3: resolved delivered after 2",
	}
	if got := w.notified(id); !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
}

func TestAChannelThatAsksForRestGetsIt(t *testing.T) {
	p := &page{name: "far", errs: []error{remediation.RetryAfter(10*time.Minute, errors.New("429 too many requests"))}}
	w := withPages(t, []*page{p}, announcing()...)
	freeze(w, 24*time.Hour)
	w.open()
	w.pass(5 * time.Minute)
	w.start() // another process keeps the promise
	w.pass(5*time.Minute - time.Second)
	if p.calls != 1 {
		t.Fatalf("asked for 10m of rest, and was called %d times before", p.calls)
	}
	w.pass(2 * time.Second)
	if !slices.Equal(p.says(), inOrder[:1]) {
		t.Fatalf("told %v", p.says())
	}
	absurd := &page{name: "far", errs: []error{remediation.RetryAfter(9000*time.Hour, errDown)}}
	w = withPages(t, []*page{absurd}, announcing()...)
	freeze(w, 24*time.Hour)
	w.open()
	w.pass(time.Hour + time.Minute)
	if !slices.Equal(absurd.says(), inOrder[:1]) {
		t.Fatal("a channel can have an hour of rest, not a year")
	}
}

func TestARestThatAnotherClockWroteHoldsNoChannel(t *testing.T) {
	p := &page{name: "far", errs: []error{remediation.RetryAfter(10*time.Minute, errDown)}}
	w := withPages(t, []*page{p}, announcing()...)
	freeze(w, 24*time.Hour)
	w.open()
	w.pass(time.Minute)
	err := w.store.Update(t.Context(), func(tx remediation.Tx) error {
		return tx.PutKept("rest/far", []byte(w.now.AddDate(5, 0, 0).Format(time.RFC3339)))
	})
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	w.pass(time.Hour)
	if !slices.Equal(p.says(), inOrder[:1]) {
		t.Errorf("told %v", p.says())
	}
}

func TestWhatCanNeverBeDeliveredIsDroppedAndSaidSo(t *testing.T) {
	p := &page{name: "far", errs: []error{fmt.Errorf("create incident: %w", remediation.Undeliverable(errors.New("401 unauthorized")))}}
	w := withPages(t, []*page{p}, announcing()...)
	id := life(w)
	want := []string{"far: update 1: identified dropped after 1", "far: update 2: monitoring delivered after 1", "far: update 3: resolved delivered after 1"}
	if got := w.notified(id); !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
	if w.pending() != 0 {
		t.Error("it is still pending")
	}
	said := ""
	for _, en := range w.entries(id) {
		if en.Detail["outcome"] == "dropped" {
			said = fmt.Sprint(en.Detail["error"])
		}
	}
	if !strings.Contains(said, "401 unauthorized") {
		t.Errorf("the log says %q", said)
	}
	if n := w.metric("backout_outbox_deliveries_total", "dropped"); n != 1 {
		t.Errorf("the metric counts %v dropped", n)
	}
	line := func() (said []string) {
		t.Helper()
		o, err := w.engine.Overview(w.ctx)
		w.must(err)
		for _, l := range view.NewStatus(o).Lines {
			if l.Subject == "messages" {
				said = append(said, fmt.Sprintf("%s %v", strings.SplitN(l.Text, ":", 2)[0], l.Person))
			}
		}
		return said
	}
	dropped := line()
	if len(dropped) != 2 || dropped[0] != "none waiting false" || !strings.HasPrefix(dropped[1], "1 message dropped in the last day, the last ") || !strings.HasSuffix(dropped[1], " true") {
		t.Errorf("the status says %q", dropped)
	}
	if again := line(); !slices.Equal(again, dropped) {
		t.Errorf("asked again the status says %q", again)
	}
	w.start()
	if again := line(); !slices.Equal(again, dropped) {
		t.Errorf("after a restart the status says %q", again)
	}
	w.now = w.now.Add(25 * time.Hour)
	if later := line(); !slices.Equal(later, []string{"none waiting false"}) {
		t.Errorf("a day later the status says %q", later)
	}
}

func TestThePendingMessagesAreAMetric(t *testing.T) {
	p := &page{name: "far", down: errDown}
	w := withPages(t, []*page{p}, announcing()...)
	life(w)
	if n := w.metric("backout_outbox_pending", ""); n != 3 {
		t.Errorf("the metric says %v, want 3", n)
	}
	before := w.metric("backout_outbox_oldest_seconds", "far")
	w.pass(11 * time.Minute)
	if n := w.metric("backout_outbox_oldest_seconds", "far"); before <= 0 || n != before+660 {
		t.Errorf("the oldest message is %vs old, and was %vs 11 minutes before", n, before)
	}
	p.down = nil
	w.pass(5 * time.Minute)
	if n := w.metric("backout_outbox_pending", ""); n != 0 {
		t.Errorf("the metric says %v, want 0", n)
	}
	if n := w.metric("backout_outbox_oldest_seconds", "far"); n != 0 {
		t.Errorf("the oldest message is %vs old, want 0", n)
	}
}

// metric is the value of the first series of a family that has a label value.
func (w *harness) metric(family, label string) float64 {
	w.t.Helper()
	r := prometheus.NewRegistry()
	w.must(r.Register(w.engine))
	all, err := r.Gather()
	w.must(err)
	for _, f := range all {
		for _, m := range f.GetMetric() {
			has := label == ""
			for _, l := range m.GetLabel() {
				has = has || l.GetValue() == label
			}
			if f.GetName() == family && has {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	w.t.Fatalf("there is no metric %s", family)
	return 0
}

func TestMessagesSurviveARestartAndThoseToNobodyAreDropped(t *testing.T) {
	p := &page{name: "far", down: errDown}
	w := withPages(t, []*page{p}, announcing()...)
	life(w)
	w.start()
	p.down = nil
	w.pass(5 * time.Minute)
	if !slices.Equal(p.says(), inOrder) {
		t.Fatalf("after a restart, told %v", p.says())
	}

	p = &page{name: "far", down: errDown}
	w = withPages(t, []*page{p}, announcing()...)
	id := life(w)
	w.pages = []remediation.Channel{&page{name: "other"}}
	w.start()
	if w.pending() != 0 || len(w.notified(id)) != 3 || !strings.Contains(w.notified(id)[2], "dropped") {
		t.Fatalf("%d wait, and the log has %q", w.pending(), w.notified(id))
	}
	verify(t, w)
}

func TestAMessageThatIsGoneWhenItArrivesIsRecordedOnce(t *testing.T) {
	for _, failure := range []error{nil, errDown} {
		p := &page{name: "far", down: failure}
		w := withPages(t, []*page{p}, announcing()...)
		p.meanwhile = func(m remediation.Message) {
			w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error { return tx.DeleteMessage(m.ID) }))
		}
		id := w.open()
		if got := w.notified(id); len(got) != 0 || w.pending() != 0 {
			t.Errorf("%d wait, and the log has %q", w.pending(), got)
		}
	}
}

func TestTwoChannelsOfOneNameAreRefused(t *testing.T) {
	w := newHarness(t)
	w.pages = []remediation.Channel{&page{name: "far"}, &page{name: "far"}}
	if _, err := w.tryEngine(w.store); err == nil || !strings.Contains(err.Error(), `"far"`) {
		t.Fatalf("got %v", err)
	}
}

// TestACrashAtEveryCommitTellsEverythingOnce cuts the engine off before and after
// every commit of an incident's life that tells.
func TestACrashAtEveryCommitTellsEverythingOnce(t *testing.T) {
	storetest.EveryCommit(t, 14, announcingCrash)
}

func announcingCrash(t *testing.T, commit int, when storetest.When) (crashed bool) {
	t.Helper()
	name := fmt.Sprintf("crash %v commit %d", when, commit)
	p, team := &page{name: "far"}, &chat{}
	w := newHarness(t, announcing(replace("scrape_interval: 15s", "scrape_interval: 30s"), replace("close_after: 5m", "close_after: 1m"),
		func(s string) string { return strings.ReplaceAll(s, "settle: 5m", "settle: 6m") },
		func(s string) string { return s + "communications: {slack_channel: \"#incidents\"}\n" })...)
	w.pages, w.team = []remediation.Channel{p}, []remediation.Channel{team}
	w.declare("alpha")
	w.breach("error_rate")
	restart := func() {
		crashed = true
		w.engine = w.newEngine(w.store)
	}
	if e, err := w.tryEngine(storetest.Crashing(w.store, commit, when)); err != nil {
		restart()
	} else {
		w.engine = e
	}
	for {
		_, err := w.engine.Accept(w.ctx, remediation.Notification{GroupKey: "g", Alerts: []remediation.Alert{{
			Status: "firing", Fingerprint: "fp1", Labels: map[string]string{"service": "shop", "trigger": "error_rate", "rollout": "v2"},
		}}})
		if err == nil {
			break
		}
		restart()
	}
	run := func(d time.Duration) {
		end := w.now.Add(d)
		for {
			next, err := w.engine.Tick(w.ctx)
			switch {
			case err != nil:
				restart()
			case next.IsZero() || next.After(end):
				w.now = end
				return
			default:
				w.now = next
			}
		}
	}
	run(8 * time.Minute) // two tellings, two steps
	w.calm("error_rate")
	run(15 * time.Minute)
	w.is("inc-1", remediation.Closed, "")
	want := []string{"1 identified", "2 identified", "3 monitoring", "4 resolved"}
	if !slices.Equal(p.says(), want) || w.pending() != 0 {
		t.Fatalf("%s: the page was told %v; %d messages wait; log: %v", name, p.says(), w.pending(), w.log("inc-1"))
	}
	for _, en := range w.entries("inc-1") {
		if en.Kind == audit.KindSettled && en.Action == "status_page" {
			t.Fatalf("%s: what only told is said to have settled: %v", name, w.log("inc-1"))
		}
	}
	if n := len(w.notified("inc-1")); n != 5 { // of the team's, the first alone
		t.Fatalf("%s: %d deliveries are in the log: %q", name, n, w.notified("inc-1"))
	}
	for _, en := range w.entries("inc-1") {
		switch ids := team.ids[en.Seq]; en.Kind {
		case audit.KindOutcome, audit.KindInDoubt, audit.KindRecovered, audit.KindClosed:
			if len(ids) != 1 {
				t.Fatalf("%s: the team was told of entry %d (%s) by the messages %v, want one", name, en.Seq, en.Kind, ids)
			}
		}
	}
	w.tells("inc-1", remediation.Operational,
		remediation.PublicIdentified, remediation.PublicIdentified, remediation.PublicMonitoring, remediation.PublicResolved)
	verify(t, w)
	return crashed
}

// TestTheRunningEngineDeliversMessagesDuringSteps runs the engine as serve does: a
// channel that hangs keeps neither the steps nor the other channel waiting.
func TestTheRunningEngineDeliversMessagesDuringSteps(t *testing.T) {
	hangs, up := &page{name: "hangs", block: make(chan struct{})}, &page{name: "up"}
	w := withPages(t, []*page{hangs, up}, announcing()...)
	for _, k := range w.kinds() {
		w.target(k.Name()) // several look at once: from here on nothing of them changes
	}
	w.target("flag_off").position = remediation.Wanted
	w.declare("alpha")
	w.breach("error_rate")
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.engine.Run(ctx) }()
	defer func() {
		cancel()
		w.must(<-ended)
	}()
	w.post("firing", "error_rate", "fp1")
	until(t, "the next step is over", func() bool { return w.incident("inc-1").Steps[1].State == remediation.StepNoChange })
	until(t, "the other page is told", func() bool { return slices.Equal(up.says(), inOrder[:1]) })
	if got := hangs.says(); len(got) != 0 {
		t.Fatalf("the page that hangs was told %v", got)
	}
	close(hangs.block)
	until(t, "the page that hung is told", func() bool { return slices.Equal(hangs.says(), inOrder[:1]) && w.pending() == 0 })
}

// until polls for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("a minute went by before %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
