package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

func count(w *harness, id, want string) (n int) {
	for _, l := range w.log(id) {
		if l == want {
			n++
		}
	}
	return n
}

func TestAnInfiniteRatioIsABreachLikeAnyOther(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.prom.value["error_rate"], w.prom.recovery["error_rate"] = math.Inf(1), math.Inf(1)
	w.post("firing", "error_rate", "fp1")
	if _, err := w.engine.Tick(w.ctx); err != nil {
		t.Fatal(err)
	}
}

func TestARelapseRunsNoStepAfterAFailedOne(t *testing.T) {
	w := newHarness(t)
	w.target("flag_off").applyErr = errors.New("docker is dead")
	id := w.open()
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.calm("error_rate")
	w.pass(time.Minute)
	w.is(id, remediation.Recovered, "")
	w.breach("error_rate")
	w.pass(2 * time.Minute)
	if n := w.target("image_retag").effects; n != 0 {
		t.Fatalf("image re-tagged after a failed flag_off that nobody released: %v", w.log(id))
	}
}

func TestAReopenedIncidentRunsNoStepAfterAFailedOne(t *testing.T) {
	w := newHarness(t)
	w.target("flag_off").applyErr = errors.New("docker is dead")
	id := w.open()
	w.calm("error_rate")
	w.pass(7 * time.Minute)
	w.post("resolved", "error_rate", "fp1")
	w.pass(time.Minute)
	w.is(id, remediation.Closed, "")
	w.breach("error_rate")
	w.fire("error_rate", "fp1")
	w.pass(2 * time.Minute)
	if n := w.target("image_retag").effects; n != 0 {
		t.Fatalf("%v", w.log(id))
	}
}

func TestASecondDoubtThatLeftNoTraceIsAFailure(t *testing.T) {
	w := newHarness(t)
	n := 0
	w.target("flag_off").applyErr = remediation.InDoubt(errors.New("connection reset"))
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	w.target("flag_off").duringApply = func() {
		if n++; n > 50 {
			cancel()
		}
	}
	w.declare("alpha")
	w.breach("error_rate")
	w.post("firing", "error_rate", "fp1")
	_, err := w.engine.Tick(ctx)
	if n > 3 {
		t.Fatalf("%d intents in no time (err %v)", n, err)
	}
}

func toApproval(w *harness) string {
	id := w.open()
	for i := 0; i < 40 && w.incident(id).Reason != remediation.HoldApproval; i++ {
		w.pass(time.Minute)
	}
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	return id
}

func TestAnApprovalDoesNotOutliveAClose(t *testing.T) {
	w := newHarness(t)
	id := toApproval(w)
	w.must(w.change(id, view.Approve, "3-schema_rollback"))
	w.must(w.change(id, view.Close, ""))
	w.post("resolved", "error_rate", "fp1")
	w.pass(40 * time.Minute)
	w.fire("error_rate", "fp1")
	w.pass(5 * time.Minute)
	if n := w.target("schema_rollback").effects; n != 0 {
		t.Fatalf("schema rolled back on the approval from before the close: %v", w.log(id))
	}
}

func TestAnApprovalDoesNotOutliveAFreeze(t *testing.T) {
	w := newHarness(t)
	id := toApproval(w)
	w.must(w.change(id, view.Approve, "3-schema_rollback"))
	freeze(w, 5*time.Hour)
	w.pass(5*time.Hour + time.Minute)
	if n := w.target("schema_rollback").effects; n != 0 {
		t.Fatalf("schema rolled back on an approval 5h old: %v", w.log(id))
	}
}

func TestTheTimeToApproveDoesNotRunDuringAFreeze(t *testing.T) {
	w := newHarness(t)
	id := toApproval(w)
	freeze(w, 2*time.Hour)
	w.pass(2*time.Hour + 2*time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldApproval)
}

func TestOnlyTheStepThatWasAskedForIsDeniedBySilence(t *testing.T) {
	w := newHarness(t)
	id := toApproval(w)
	w.prom.alive = 0
	w.pass(15 * time.Second)
	w.post("firing", "latency", "fp2")
	w.pass(35 * time.Minute)
	for _, e := range w.entries(id) {
		if e.Kind == audit.KindDenied && e.Step != "3-schema_rollback" {
			t.Fatalf("denied %s: %v", e.Step, w.log(id))
		}
	}
}

func TestANewRolloutBeginsItsPlanAgain(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.calm("error_rate")
	w.pass(12 * time.Minute)
	w.post("resolved", "error_rate", "fp1")
	w.pass(time.Minute)
	w.is(id, remediation.Closed, "")
	w.declare("alpha")
	w.target("flag_off").position = "" // people fixed it and switched the flag on
	w.pass(5 * time.Minute)
	w.breach("error_rate")
	acc := w.post("firing", "error_rate", "fp1")
	w.pass(3 * time.Minute)
	if acc.Incidents[0] == id || w.target("image_retag").effects != 0 {
		t.Fatalf("new rollout, old incident %v; image re-tagged %d, flag %s: %v", acc.Incidents, w.target("image_retag").effects, w.target("flag_off").at(), w.log(id))
	}
}

func TestADeclarationLetsAnIncidentThatWaitsForItGoOn(t *testing.T) {
	w := newHarness(t)
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	w.pass(6 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldNoRollout)
	_, err := w.engine.DeclareRollout(w.ctx, "", "", "alpha", "eve", "as the hold says")
	if err != nil {
		t.Fatal(w.incident(id).Why, " -> ", err)
	}
}

// A limit and a freeze are asked too, but the declaration is what a person can do about it.
func TestADeclarationIsTakenWhateverElseHoldsTheIncident(t *testing.T) {
	w := newHarness(t, replace("per_service: 6/1h", "per_service: 1/1h"))
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	w.pass(6 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldNoRollout) // and not a limit, which would be approved in vain
	if v := w.incident(id); !strings.Contains(v.Why, "backout rollout start --declare --service=shop --stage=") || v.Next == nil || !strings.Contains(fmt.Sprint(v.Next.Unless), "no rollout of shop") {
		t.Errorf("why: %s; next: %+v", v.Why, v.Next)
	}
	freeze(w, time.Hour)
	w.pass(time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldFrozen)
	w.declare("alpha")
	_, err := w.engine.Thaw(w.ctx, "shop", "eve", "seen")
	w.must(err)
	w.pass(time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldRateLimit)
}

func TestAnAlertAloneStopsNoDeclaration(t *testing.T) {
	w := newHarness(t)
	w.calm("error_rate")
	id := w.fire("error_rate", "fp1")
	w.pass(time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
	w.declare("alpha")
}

func TestAnUnconfirmedIncidentEndsWithoutAResolved(t *testing.T) {
	w := newHarness(t)
	w.calm("error_rate")
	id := w.fire("error_rate", "fp1")
	w.pass(24 * time.Hour)
	w.is(id, remediation.Closed, "")
}

func TestAHoldIsWrittenOnceForItsReason(t *testing.T) {
	w := newHarness(t)
	w.target("flag_off").lookErr = errors.New("docker is dead")
	id := w.open()
	w.pass(time.Hour)
	if n := count(w, id, "held 1-flag_off target"); n > 1 {
		t.Fatalf("%d holds for one reason: %v", n, w.log(id))
	}
}

func TestLimitsCountEveryTryOfAStep(t *testing.T) {
	w := newHarness(t, replace("breaker: 3", "breaker: 99"))
	w.target("flag_off").applyErr = errors.New("docker is dead")
	id := w.open()
	n := 1
	w.target("flag_off").duringApply = func() { n++ }
	for i := 0; i < 5; i++ {
		w.must(w.change(id, view.Claim, ""))
		w.must(w.change(id, view.Release, ""))
		w.pass(11 * time.Minute)
	}
	if n > 3 {
		t.Fatalf("%d effects within 55m on one target, limit 3/1h: %v", n, w.log(id))
	}
}

func TestAResolvedAlertIsNotActedOnWithoutPrometheus(t *testing.T) {
	w := newHarness(t)
	w.prom.err = fmt.Errorf("x: %w", remediation.ErrNoAnswer)
	w.post("firing", "error_rate", "fp1")
	w.post("resolved", "error_rate", "fp1")
	w.tick()
	if w.target("flag_off").effects != 0 {
		t.Fatal("acted on a resolved alert without Prometheus")
	}
}

func TestAnAlertThatAlertmanagerDoesNotKnowIsNotSilenced(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.breach("error_rate")
	w.am.silenced["fp1"] = true
	w.post("firing", "error_rate", "fp1")
	w.post("firing", "error_rate", "fp2", "instance", "b")
	w.tick()
	if w.target("flag_off").effects == 0 {
		t.Fatal("fp2, unknown to Alertmanager and active, is held by fp1's silence")
	}
}

func TestAnIntentNamesTheAlertItRestsOn(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	for _, e := range w.entries(id) {
		if e.Kind == audit.KindIntent && e.Detail["fingerprint"] == nil {
			t.Fatalf("%v", e.Detail)
		}
	}
}

func TestAStopLetsARunningStepEnd(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.breach("error_rate")
	w.post("firing", "error_rate", "fp1")
	ctx, cancel := context.WithCancel(w.ctx)
	w.target("flag_off").duringApply = cancel
	if _, err := w.engine.Tick(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	es := w.log("inc-1")
	if es[len(es)-1] != "verified 1-flag_off" {
		t.Fatal(es)
	}
}

func (w *harness) parse(src string) *alerts.Playbook {
	var ak []alerts.ActionKind
	for _, k := range w.kinds() {
		ak = append(ak, k)
	}
	pb, err := alerts.Parse("shop.yaml", []byte(src), ak)
	if err != nil {
		w.t.Fatal(err)
	}
	return pb
}

func TestATriggerThatCameWithAReloadOpensAnIncident(t *testing.T) {
	w := newHarness(t, replace("  - {name: latency, indicator: latency, above: 0.75, window: 5m, min_volume: 50, recovery: {window: 2m, min_volume: 20}, plan: longer}\n", ""))
	id := w.open()
	w.calm("error_rate")
	w.pass(12 * time.Minute)
	w.post("resolved", "error_rate", "fp1")
	w.pass(time.Minute)
	w.is(id, remediation.Closed, "")
	w.must(w.engine.Reload(w.ctx, []*alerts.Playbook{w.parse(playbook)}, remediation.Reloaded{}))
	acc := w.post("firing", "latency", "fp2")
	if len(acc.Incidents) != 1 {
		es, _ := w.engine.Entries(w.ctx, audit.Filter{Kind: audit.KindHeld})
		t.Fatalf("%v", es[len(es)-1].Detail)
	}
}

func TestAStepInDoubtCanBeClosedByHand(t *testing.T) {
	w := newHarness(t)
	w.target("flag_off").applyErr = remediation.InDoubt(errors.New("connection reset"))
	w.target("flag_off").duringApply = func() { w.target("flag_off").lookErr = errors.New("no such container") }
	id := w.open()
	w.pass(time.Hour)
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Release, ""))
	w.must(w.change(id, view.Close, ""))
}

func TestFiveThousandAlertsInOneNotificationAreAllAttached(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.breach("error_rate")
	var n remediation.Notification
	for i := 0; i < 5000; i++ {
		n.Alerts = append(n.Alerts, remediation.Alert{Status: "firing", Fingerprint: fmt.Sprintf("f%d", i), Labels: map[string]string{
			"alertname": "Rollback", "service": "shop", "trigger": "error_rate", "rollout": "v2", "instance": fmt.Sprint(i)}})
	}
	for i, duplicates := range []int{0, 5000} {
		acc, err := w.engine.Accept(w.ctx, n)
		w.must(err)
		if acc.Accepted != 5000 || acc.Duplicates != duplicates || len(acc.Incidents) != 1 {
			t.Fatalf("post %d: %+v", i, acc)
		}
	}
	w.tick()
	w.is("inc-1", remediation.Settling, "")
}

func TestARetryAfterAFailedUndoKeepsWhatWasThereFirst(t *testing.T) {
	w := newHarness(t)
	tg := w.target("flag_off")
	tg.cut, tg.applyErr, tg.undoErr = true, errors.New("cut"), errors.New("cannot undo")
	id := w.open()
	w.steps(id, remediation.StepFailed, remediation.StepPending, remediation.StepPending)
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Release, ""))
	w.pass(12 * time.Minute)
	var inc *remediation.Incident
	w.must(w.store.View(w.ctx, func(tx remediation.Tx) (err error) {
		inc, err = tx.Incident(id)
		return err
	}))
	if string(inc.Steps[0].Before) != `{"flag":"1"}` {
		t.Fatalf("what would be gone back to is %s", inc.Steps[0].Before)
	}
}

func TestATargetThatMayBeChangedRollsTheRolloutBack(t *testing.T) {
	w := newHarness(t)
	tg := w.target("flag_off")
	tg.cut, tg.applyErr, tg.undoErr = true, errors.New("cut"), errors.New("cannot undo")
	id := w.open()
	w.must(w.change(id, view.Close, ""))
	r, err := w.engine.Rollouts(w.ctx)
	w.must(err)
	if r[0].State != "rolled_back" || r[0].Stage != "none" {
		t.Fatalf("the rollout is %s at %s, though a half-changed target was left behind", r[0].State, r[0].Stage)
	}
}

func TestAFailureNeverLeadsToALossyStep(t *testing.T) {
	w := newHarness(t,
		replace("      - {action: flag_off, settle: 5m}\n      - {action: restart, settle: 5m}", "      - {action: restart, settle: 5m, on_failure: next}\n      - {action: image_retag, settle: 5m}"),
		replace("cooldown: 10m", "cooldown: 1s"))
	id := w.open()
	w.pass(5 * time.Minute)
	w.pass(5 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	w.breach("latency")
	w.target("restart").applyErr = errors.New("docker is dead")
	w.fire("latency", "fp2")
	w.pass(3 * time.Minute)
	if w.incident(id).Reason != remediation.HoldStepFailed {
		t.Fatal("a failure led to the lossy step")
	}
}

func TestAPageEndsWithItsReason(t *testing.T) {
	w := newHarness(t)
	tg := w.target("flag_off")
	tg.applyErr = remediation.InDoubt(errors.New("x"))
	tg.duringApply = func() { tg.lookErr = errors.New("gone") }
	id := w.open()
	tg.lookErr, tg.position = nil, remediation.Wanted
	w.pass(15 * time.Second)
	w.is(id, remediation.Settling, "")
	var inc *remediation.Incident
	w.must(w.store.View(w.ctx, func(tx remediation.Tx) (err error) { inc, err = tx.Incident(id); return err }))
	if len(inc.Paged) > 0 {
		t.Fatal(inc.Paged)
	}
}

func TestTargetsAreLookedAtAheadWithoutAnyEffect(t *testing.T) {
	w := newHarness(t)
	looked := make(chan string, 100)
	w.target("flag_off").onLook = func(op string) { looked <- op }
	for _, k := range []string{"image_retag", "schema_rollback", "restart"} {
		w.target(k) // made before Run looks at them from a goroutine of its own
	}
	ctx, stop := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.engine.Run(ctx) }()
	op := <-looked
	stop()
	w.must(<-ended)
	if op != "ahead" || w.target("flag_off").effects != 0 {
		t.Fatalf("looked for %q, with %d effects", op, w.target("flag_off").effects)
	}
}

func TestStatusShowsATargetThatNoStepCouldActOn(t *testing.T) {
	w := newHarness(t)
	for _, k := range []string{"flag_off", "image_retag", "schema_rollback", "restart"} {
		w.target(k)
	}
	w.target("flag_off").lookErr = hint.Add(errors.New("/srv/shop is outside the allowed project folders"), "docker: {projects: [/srv/shop]}")
	// The step before it runs that version: nothing is wrong with the plan.
	w.target("schema_rollback").lookErr = fmt.Errorf("the code that runs: %w", &remediation.VersionError{Versions: []string{w.pb.Release.Previous}, Err: errors.New("web-1 runs v2")})
	ctx, stop := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.engine.Run(ctx) }()
	shown := func() (lines []string) {
		o, err := w.engine.Overview(w.ctx)
		w.must(err)
		for _, l := range view.NewStatus(o).NeedsPerson() {
			if strings.Contains(l.Text, "target not ready") {
				lines = append(lines, l.Text)
			}
		}
		return lines
	}
	for deadline := time.Now().Add(time.Minute); len(shown()) == 0 && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if got := shown(); len(got) != 1 || !strings.Contains(got[0], "outside the allowed project folders") || !strings.Contains(got[0], "(try: docker: {projects: [/srv/shop]})") {
		t.Errorf("status shows %q", got)
	}
	stop()
	w.must(<-ended)
	if b := w.engine.PlanOf("shop"); b.Ahead(b.Plan("ladder"), 2, w.target("schema_rollback").lookErr) != nil || b.Ahead(b.Plan("ladder"), 1, w.target("schema_rollback").lookErr) == nil {
		t.Error("it goes by other steps than those that come before")
	}
	if got := shown(); got != nil {
		t.Errorf("it shows what nobody looks at any more: %q", got)
	}
}
