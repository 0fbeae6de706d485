package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// announcing is a plan that tells the public before each of its first two steps.
func announcing(edit ...func(string) string) []func(string) string {
	return append([]func(string) string{replace(`      - {action: flag_off, settle: 5m}
      - {action: image_retag, settle: 5m}
`, `      - {action: status_page}
      - {action: flag_off, settle: 5m}
      - {action: status_page, timeout: 6m}
      - {action: image_retag, settle: 5m}
`)}, edit...)
}

// page is a status page that someone else runs.
type page struct {
	name string
	mu   sync.Mutex
	// errs are answered one after the other, before any delivery succeeds; down
	// is answered always.
	errs  []error
	down  error
	calls int
	// got are the messages that were taken, applied those of them that were new.
	got, applied []remediation.PublicMessage
	// block, where set, is waited for.
	block chan struct{}
	// meanwhile, where set, happens while a message is on its way.
	meanwhile func(m remediation.Message)
}

func (p *page) Name() string { return p.name }

func (p *page) Deliver(ctx context.Context, m remediation.Message) (receipt string, err error) {
	if p.block != nil {
		select {
		case <-p.block:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	if p.meanwhile != nil {
		p.meanwhile(m)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if p.down != nil {
		return "", p.down
	}
	if len(p.errs) > 0 {
		err := p.errs[0]
		if p.errs = p.errs[1:]; err != nil {
			return "", err
		}
	}
	var b remediation.PublicMessage
	if err := json.Unmarshal(m.Body, &b); err != nil {
		return "", err
	}
	p.got = append(p.got, b)
	if n := len(p.applied); n == 0 || p.applied[n-1].Key != b.Key || p.applied[n-1].Update.Number < b.Update.Number {
		p.applied = append(p.applied, b)
	}
	return "", nil
}

// says is what the page was told, in short.
func (p *page) says() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, m := range p.applied {
		out = append(out, fmt.Sprintf("%d %s", m.Update.Number, m.Update.Status))
	}
	return out
}

func withPages(t *testing.T, pages []*page, edit ...func(string) string) *harness {
	t.Helper()
	w := newHarness(t, edit...)
	for _, p := range pages {
		w.pages = append(w.pages, p)
	}
	w.start()
	return w
}

// public is what the public was told of an incident; nil where nothing was.
func (w *harness) public(id string) *remediation.PublicIncident {
	w.t.Helper()
	var p remediation.PublicIncident
	err := w.store.View(w.ctx, func(tx remediation.Tx) (err error) {
		p, err = tx.PublicIncident(id)
		return err
	})
	if errors.Is(err, remediation.ErrNotFound) {
		return nil
	}
	w.must(err)
	return &p
}

func (w *harness) pending() (n int) {
	w.t.Helper()
	w.must(w.store.View(w.ctx, func(tx remediation.Tx) error {
		all, err := tx.PendingMessages()
		for _, k := range all {
			n += k
		}
		return err
	}))
	return n
}

// tells checks the statuses that the public was told, in order, and what its
// components are.
func (w *harness) tells(id string, component remediation.ComponentStatus, want ...remediation.PublicStatus) {
	w.t.Helper()
	p := w.public(id)
	if p == nil {
		w.t.Fatalf("the public was told nothing of %s; log: %v", id, w.log(id))
	}
	var got []remediation.PublicStatus
	for i, u := range p.Updates {
		if u.Number != i+1 || u.Words == "" {
			w.t.Errorf("update %d: %+v", i, u)
		}
		got = append(got, u.Status)
	}
	if !slices.Equal(got, want) || p.Status != want[len(want)-1] {
		w.t.Fatalf("the public was told %v (now %s), want %v; log: %v", got, p.Status, want, w.log(id))
	}
	for _, c := range p.Components {
		if c.Status != component {
			w.t.Fatalf("%s is %s, want %s", c.Name, c.Status, component)
		}
	}
	if (p.Resolved != nil) != (p.Status == remediation.PublicResolved) {
		w.t.Fatalf("resolved at %v in status %s", p.Resolved, p.Status)
	}
}

func TestThePublicIsToldAsTheIncidentLives(t *testing.T) {
	p := &page{name: "far"}
	w := withPages(t, []*page{p}, announcing()...)
	id := w.open()
	w.tells(id, remediation.PartialOutage, remediation.PublicIdentified)
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending, remediation.StepPending, remediation.StepPending)
	w.logs(id, "outcome 1-status_page done", "intent 2-flag_off", "outcome 2-flag_off done", "verified 2-flag_off", "notified 1-status_page delivered <nil>")

	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.tells(id, remediation.PartialOutage, remediation.PublicIdentified, remediation.PublicMonitoring)

	w.breach("error_rate") // a relapse: the plan comes to its second telling, and the image
	w.pass(time.Minute)
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepDone, remediation.StepDone, remediation.StepPending)
	w.tells(id, remediation.PartialOutage, remediation.PublicIdentified, remediation.PublicMonitoring, remediation.PublicIdentified)

	w.calm("error_rate")
	w.pass(12 * time.Minute)
	w.is(id, remediation.Closed, "")
	w.post("resolved", "error_rate", "fp1")
	so := []remediation.PublicStatus{
		remediation.PublicIdentified, remediation.PublicMonitoring, remediation.PublicIdentified, remediation.PublicMonitoring, remediation.PublicResolved,
	}
	w.tells(id, remediation.Operational, so...)

	w.breach("error_rate")
	w.fire("error_rate", "fp1")
	w.is(id, remediation.Confirming, "")
	so = append(so, remediation.PublicInvestigating)
	w.tells(id, remediation.Operational, so...)
	w.pass(30 * time.Second) // seen to be true
	so = append(so, remediation.PublicIdentified)
	w.tells(id, remediation.PartialOutage, so...)

	w.must(w.change(id, view.Close, ""))
	w.tick()
	w.tells(id, remediation.PartialOutage, so...) // it goes on: nothing is solved
	w.calm("error_rate")
	w.pass(time.Minute)
	so = append(so, remediation.PublicResolved)
	w.tells(id, remediation.Operational, so...)

	var want []string
	for i, s := range so {
		want = append(want, fmt.Sprintf("%d %s", i+1, s))
	}
	if got := p.says(); !slices.Equal(got, want) || len(p.got) != len(want) {
		t.Errorf("the page was told %v in %d messages, want %v", got, len(p.got), want)
	}
	verify(t, w)
}

func TestWhatTellsChangesNothingElse(t *testing.T) {
	// The same incident with and without its telling steps has the same life.
	lives := map[bool][]string{}
	for _, tells := range []bool{true, false} {
		var edit []func(string) string
		if tells {
			edit = announcing()
		}
		w := newHarness(t, edit...)
		id := w.open()
		w.pass(5 * time.Minute)
		w.calm("error_rate")
		w.pass(12 * time.Minute)
		w.is(id, remediation.Closed, "")
		for _, en := range w.entries(id) {
			if en.Action == "status_page" || en.Kind == audit.KindNotified || en.Kind == audit.KindPlanned {
				continue
			}
			_, action, _ := strings.Cut(en.Step, "-")
			lives[tells] = append(lives[tells], fmt.Sprintln(en.Time.Format(time.TimeOnly), en.Kind, action, en.Detail["verdict"], en.Detail["outcome"]))
		}
	}
	if len(lives[true]) < 10 || !slices.Equal(lives[true], lives[false]) {
		t.Errorf("with telling:\n%v\nwithout:\n%v", lives[true], lives[false])
	}
}

func TestTellingAloneIsNoChangeOfTheRelease(t *testing.T) {
	w := newHarness(t, announcing()...)
	w.target("flag_off").position = remediation.Wanted
	id := w.open()
	w.calm("error_rate")
	w.pass(12 * time.Minute)
	w.is(id, remediation.Closed, "")
	w.tells(id, remediation.Operational, remediation.PublicIdentified, remediation.PublicMonitoring, remediation.PublicResolved)
	r, err := w.engine.Rollouts(w.ctx)
	w.must(err)
	if r[0].State != "active" {
		t.Fatalf("the rollout is %s, though nothing but words changed", r[0].State)
	}
}

func TestTheSecondTellingWaitsUntilThePlanComesToIt(t *testing.T) {
	w := newHarness(t, announcing()...)
	id := w.open()
	w.pass(4 * time.Minute)
	w.tells(id, remediation.PartialOutage, remediation.PublicIdentified)
	w.announcement.Status = remediation.MajorOutage
	w.pass(time.Minute)
	w.tells(id, remediation.MajorOutage, remediation.PublicIdentified, remediation.PublicIdentified)
	if p := w.public(id); p.Impact != remediation.ImpactCritical || p.Name != "Problems with Analytics" {
		t.Errorf("impact %s, name %q", p.Impact, p.Name)
	}
}

func TestAFreezeHoldsTheStepAndNotTheTelling(t *testing.T) {
	w := newHarness(t, announcing()...)
	freeze(w, time.Hour)
	id := w.open()
	w.is(id, remediation.Waiting, remediation.HoldFrozen)
	w.steps(id, remediation.StepDone, remediation.StepWaiting, remediation.StepPending, remediation.StepPending, remediation.StepPending)
	w.calm("error_rate") // it ends by itself, before anything ran
	w.pass(time.Minute)
	w.is(id, remediation.Closed, "")
	w.tells(id, remediation.Operational, remediation.PublicIdentified, remediation.PublicResolved)
}

func TestNothingIsToldWhereTellingWouldBeWrong(t *testing.T) {
	for name, c := range map[string]struct {
		before func(w *harness)
		reason remediation.Reason
		after  func(w *harness, id string) // nil: it is never told
	}{
		"observe mode": {func(w *harness) { w.mode = remediation.Observe; w.start() }, remediation.HoldMode, nil},
		"silence": {func(w *harness) { w.am.silenced["fp1"] = true }, remediation.HoldSilenced,
			func(w *harness, _ string) { w.am.silenced["fp1"] = false; w.pass(15 * time.Second) }},
		"an old notification, and no answer from Prometheus": {func(w *harness) {
			w.prom.err = fmt.Errorf("connection refused: %w", remediation.ErrNoAnswer)
			w.post("firing", "error_rate", "fp1")
			w.now = w.now.Add(5 * time.Minute)
		}, remediation.HoldUnconfirmed, func(w *harness, _ string) { w.prom.err = nil; w.breach("error_rate"); w.pass(time.Minute) }},
	} {
		t.Run(name, func(t *testing.T) {
			p := &page{name: "far"}
			w := withPages(t, []*page{p}, announcing()...)
			w.breach("error_rate")
			c.before(w)
			if c.reason != remediation.HoldUnconfirmed {
				w.post("firing", "error_rate", "fp1")
			}
			w.tick()
			id := "inc-1"
			w.is(id, remediation.Waiting, c.reason)
			w.steps(id, remediation.StepPending, remediation.StepWaiting, remediation.StepPending, remediation.StepPending, remediation.StepPending)
			if w.public(id) != nil || w.pending() != 0 || p.calls != 0 {
				t.Fatalf("told %+v", w.public(id))
			}
			if c.after == nil {
				w.calm("error_rate")
				w.pass(time.Hour)
				if w.public(id) != nil || p.calls != 0 {
					t.Fatalf("told %+v", w.public(id))
				}
				return
			}
			c.after(w, id)
			w.tells(id, remediation.PartialOutage, remediation.PublicIdentified)
			w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending, remediation.StepPending, remediation.StepPending)
		})
	}
}

func TestWhatAPersonHasClaimedIsToldByThePerson(t *testing.T) {
	w := newHarness(t, announcing()...)
	id := w.open()
	w.must(w.change(id, view.Claim, ""))
	w.pass(6 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldClaimed)
	w.tells(id, remediation.PartialOutage, remediation.PublicIdentified)
	w.must(w.change(id, view.Release, ""))
	w.pass(time.Minute)
	w.tells(id, remediation.PartialOutage, remediation.PublicIdentified, remediation.PublicIdentified)
}

func TestAFailedStepEndsThePublicMessagesOfThePlan(t *testing.T) {
	w := newHarness(t, announcing()...)
	w.target("flag_off").verifyErr = errors.New("health answers 500")
	id := w.open()
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.pass(30 * time.Minute)
	w.tells(id, remediation.PartialOutage, remediation.PublicIdentified)
	w.calm("error_rate")
	w.pass(time.Minute)
	w.is(id, remediation.Recovered, "")
	w.breach("error_rate") // the plan stops at the failed step, which the public need not know
	w.pass(time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.steps(id, remediation.StepDone, remediation.StepUndone, remediation.StepPending, remediation.StepPending, remediation.StepPending)
	w.tells(id, remediation.PartialOutage, remediation.PublicIdentified, remediation.PublicMonitoring, remediation.PublicIdentified)
}

func TestADrillSendsNoMessage(t *testing.T) {
	p := &page{name: "far"}
	w := withPages(t, []*page{p}, announcing()...)
	w.breach("error_rate")
	id := w.fire("error_rate", "fp9", "drill", "true")
	w.is(id, remediation.Closed, "")
	w.steps(id, remediation.StepSkipped, remediation.StepSkipped, remediation.StepSkipped, remediation.StepSkipped, remediation.StepSkipped)
	for _, en := range w.entries(id) {
		if en.Action == "status_page" && (en.Detail["error"] != nil || en.Detail["why"] == nil) {
			t.Errorf("the drill says %v", en.Detail)
		}
	}
	w.pass(time.Hour)
	if w.public(id) != nil || p.calls != 0 {
		t.Fatalf("a drill told %+v", w.public(id))
	}
}

func TestAnOddAnnouncementHoldsNothing(t *testing.T) {
	w := newHarness(t, announcing()...)
	w.announcement.Status = "on_fire"
	id := w.open()
	w.is(id, remediation.Settling, "")
	w.steps(id, remediation.StepSkipped, remediation.StepDone, remediation.StepPending, remediation.StepPending, remediation.StepPending)
	if w.public(id) != nil {
		t.Fatalf("told %+v", w.public(id))
	}
}

func TestThePlaybooksWordsAreTold(t *testing.T) {
	w := newHarness(t, announcing(func(s string) string {
		return s + `communications:
  status_page:
    components: [{name: Shop}, {name: Analytics}]
    title: Analytics is slow
    notify_subscribers: true
    messages: {monitoring: It is better., resolved: It is over.}
`
	})...)
	p := &page{name: "far"}
	w.pages = []remediation.Channel{p}
	w.start()
	w.announcement.Words = "We switch it off."
	id := w.open()
	w.calm("error_rate")
	w.pass(12 * time.Minute)
	w.is(id, remediation.Closed, "")
	var got []string
	for _, m := range p.applied {
		if m.Name != "Analytics is slow" || !m.NotifySubscribers || m.Impact != remediation.ImpactMajor {
			t.Errorf("%+v", m)
		}
		got = append(got, m.Update.Words)
	}
	if want := []string{"We switch it off.", "It is better.", "It is over."}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestOurOwnWordsNameWhatIsConcernedAndNothingInside(t *testing.T) {
	w := newHarness(t, announcing()...)
	w.announcement = remediation.Announcement{Components: []string{"Shop", "Search", "Analytics"}}
	id := w.open()
	w.calm("error_rate")
	w.pass(12 * time.Minute)
	w.breach("error_rate")
	w.post("resolved", "error_rate", "fp1")
	w.fire("error_rate", "fp1")
	w.pass(time.Minute)
	p := w.public(id)
	if len(p.Updates) != 5 || p.Components[2].Status != remediation.DegradedPerformance {
		t.Fatalf("%+v", p)
	}
	seen := map[string]bool{}
	for _, u := range p.Updates {
		if !strings.Contains(u.Words, "Shop, Search and Analytics") || seen[u.Words] {
			t.Errorf("update %d: %q", u.Number, u.Words)
		}
		seen[u.Words] = true
		for _, inside := range []string{"flag", "shop.", "error_rate", "v2", "inc-", "FEATURE", "step"} {
			if strings.Contains(u.Words, inside) {
				t.Errorf("the public reads %q in %q", inside, u.Words)
			}
		}
	}
}

func TestWhatIsDoneIsToldOnceItMayBeDone(t *testing.T) {
	w := newHarness(t, announcing()...)
	w.announcement.Words = "We go back to the version before."
	id := w.open()
	w.pass(4 * time.Minute)
	freeze(w, 30*time.Minute) // the image stays: nothing is said of it
	w.pass(10 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldFrozen)
	w.tells(id, remediation.PartialOutage, remediation.PublicIdentified)
	w.pass(25 * time.Minute)
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepDone, remediation.StepDone, remediation.StepWaiting)
	w.tells(id, remediation.PartialOutage, remediation.PublicIdentified, remediation.PublicIdentified)
}

func TestAnAbortOfAHealthyCanaryTroublesNoCustomer(t *testing.T) {
	c := newCanary(t, announcing()...)
	c.started()
	c.must(c.do(remediation.RolloutAbort))
	c.tick()
	if p := c.public("inc-1"); p != nil {
		t.Errorf("nothing is broken, and the public is told %+v", p)
	}
	c.steps("inc-1", remediation.StepSkipped, remediation.StepDone, remediation.StepSkipped, remediation.StepDone, remediation.StepWaiting)
}
