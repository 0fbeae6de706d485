package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/engine"
)

// oneTarget gives a second service, cart, the same targets as shop.
func oneTarget(w *harness) {
	w.t.Helper()
	e, err := engine.New(w.ctx, engine.Options{
		Store: w.store, Playbooks: []*alerts.Playbook{w.pb, w.parse(strings.ReplaceAll(string(w.pb.Source), "shop", "cart"))}, Kinds: w.kinds(),
		Prometheus: bothPrometheus{w.prom}, Alertmanager: w.am, Mode: remediation.Act, Now: w.time, Logger: slog.New(slog.DiscardHandler),
	})
	w.must(err)
	w.engine = e
}

// composed are targets in a compose project's folder, which has a second name.
func composed(t *testing.T) func(folder, project, service, part string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(dir, dir+"-current"); err != nil {
		t.Fatal(err)
	}
	return func(folder, project, service, part string) string {
		return remediation.ComposeTarget(alerts.ComposeTarget{ProjectDir: dir + folder, Project: project, Service: service}, part)
	}
}

func TestTwoServicesOnTheSameContainersRunOneStepAtATime(t *testing.T) {
	at := composed(t)
	for name, c := range map[string]struct {
		shop, cart string
		apart      bool
	}{
		"one target":           {"fake:flag_off", "fake:flag_off", false},
		"two flags":            {at("", "", "web", "FLAG_A"), at("", "", "web", "FLAG_B"), false},
		"a flag and the image": {at("", "", "web", "FLAG_A"), at("", "", "web", "image"), false},
		"a project by name":    {at("", "", "web", "FLAG_A"), at("", "shop", "web", "FLAG_B"), false},
		"a linked folder":      {at("", "", "web", "FLAG_A"), at("-current", "", "web", "FLAG_B"), false},
		"a folder that is not": {at("/gone/", "", "web", "FLAG_A"), at("/gone", "", "web", "image"), false},
		"two compose services": {at("", "", "web", "FLAG_A"), at("", "", "worker", "FLAG_A"), true},
		"a workload":           {"kubernetes:arn:aws:eks:eu-1:1:cluster/a/shop/deployment/web:FLAG_A", "kubernetes:arn:aws:eks:eu-1:1:cluster/a/shop/deployment/web:image", false},
		"the default context":  {"kubernetes:prod/shop/deployment/web:FLAG_A", "kubernetes:shop/deployment/web:image", false},
		"two workloads":        {"kubernetes:shop/deployment/web:FLAG_A", "kubernetes:shop/statefulset/web:FLAG_A", true},
		"a service in Swarm":   {"swarm:shop_web:FLAG_A", "swarm:shop_web:image", false},
		"two in Swarm":         {"swarm:shop_web:FLAG_A", "swarm:shop_api:FLAG_A", true},
		"two kept flags":       {"launchdarkly:shop/production/a", "launchdarkly:shop/production/b", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.names = func(_ string, pb *alerts.Playbook) string {
				return map[string]string{"shop": c.shop, "cart": c.cart}[pb.Service]
			}
			oneTarget(w)
			w.breach("error_rate")
			tg := w.target("flag_off")
			var cart string
			applies := 0
			tg.duringApply = func() {
				if applies++; applies > 1 {
					return
				}
				cart = w.post("firing", "error_rate", "fp2", "service", "cart").Incidents[0]
				w.tick() // another worker of the engine, meanwhile
				if apart := applies != 1; apart != c.apart {
					t.Errorf("both changed their targets at a time: %v", apart)
				}
			}
			shop := w.fire("error_rate", "fp1")
			if c.apart {
				return
			}
			if h := holds(w, cart); len(h) != 1 || h[0].Detail["reason"] != string(remediation.HoldCooldown) ||
				!strings.Contains(fmt.Sprint(h[0].Detail["why"]), "1-flag_off of incident "+shop) {
				t.Errorf("cart was held by %+v", h)
			}
			w.pass(S)
			w.steps(cart, remediation.StepNoChange, remediation.StepPending, remediation.StepPending)
		})
	}
}

func TestAPromotionWaitsForAnothersStepOnItsContainers(t *testing.T) {
	c := newCanary(t)
	at := composed(t)
	c.names = func(string, *alerts.Playbook) string { return at("-current", "", "web", "FEATURE_A") }
	oneTarget(c.harness)
	step := remediation.Step{Number: 1, Action: "image_retag", Target: at("", "", "web", "image"), Risk: alerts.Reversible, OnFailure: alerts.OnFailureWait, State: remediation.StepIntent, Started: &c.now}
	other := &remediation.Incident{Service: "cart", State: remediation.Acting, Opened: c.now, Since: c.now, PlaybookHash: "x", Steps: []remediation.Step{step}}
	c.must(c.store.Update(c.ctx, func(tx remediation.Tx) error { return tx.PutIncident(other) }))
	start := func() error {
		_, err := c.engine.StartRollout(c.ctx, remediation.RolloutStart{Service: "shop", Actor: "eve", Reason: "canary"})
		return err
	}
	err := start()
	refused(t, err, remediation.Conflict)
	if !strings.Contains(err.Error(), "1-image_retag of incident inc-1 (cart)") {
		t.Errorf("refused with %v", err)
	}
	c.must(c.store.Update(c.ctx, func(tx remediation.Tx) error {
		inc, err := tx.Incident("inc-1")
		if err == nil {
			inc.Steps[0].State, inc.Steps[0].Verified = remediation.StepDone, true
			err = tx.PutIncident(inc)
		}
		return err
	}))
	c.must(start())
}

func TestAStepWaitsForAnothersPromotionOnItsContainers(t *testing.T) {
	c := newCanary(t)
	at := composed(t)
	c.names = func(kind string, _ *alerts.Playbook) string { return at("", "", "web", kind) }
	oneTarget(c.harness)
	var cart string
	c.flag.duringApply = func() {
		c.breach("error_rate")
		cart = c.post("firing", "error_rate", "fp2", "service", "cart").Incidents[0]
		c.tick() // another worker of the engine, meanwhile
		if n := c.target("flag_off").effects; n != 0 {
			t.Error("the containers were changed by a promotion and a step at a time")
		}
	}
	_, err := c.engine.StartRollout(c.ctx, remediation.RolloutStart{Service: "shop", Actor: "eve", Reason: "canary"})
	c.must(err)
	c.tick()
	if h := holds(c.harness, cart); len(h) != 1 || !strings.Contains(fmt.Sprint(h[0].Detail["why"]), "start-alpha of shop") {
		t.Errorf("cart was held by %+v", h)
	}
	c.pass(S)
	if n := c.target("flag_off").effects; n != 1 {
		t.Errorf("%d effects once the promotion had ended", n)
	}
}

func TestAnIncidentWaitsForTheUndoOfAPromotion(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.flag.duringApply = func() {
		c.flag.duringApply = nil
		c.breach("error_rate")
		c.post("firing", "error_rate", "fp1")
		c.now = c.now.Add(2 * time.Minute) // it takes all of its time and is cut off half-way
		c.flag.cut, c.flag.applyErr = true, fmt.Errorf("recreate: %w", context.DeadlineExceeded)
		c.flag.onLook = func() { // a look may take half a minute
			c.flag.onLook = nil
			c.now = c.now.Add(29 * time.Second)
		}
	}
	c.must(c.do(remediation.RolloutPromote))
	c.flag.duringUndo = func() {
		c.flag.duringUndo = nil
		c.now = c.now.Add(50 * time.Second) // of its minute
		c.tick()                            // other workers go on meanwhile
		if n := c.target("flag_off").effects; n != 0 {
			t.Error("the incident's step ran while the promotion of its flag was being undone")
		}
	}
	c.tick()
	c.pass(2 * time.Minute) // the warmup
	if n := c.target("flag_off").effects; n != 1 {
		t.Errorf("after the undo the flag was switched off %d times; log %v", n, c.log("inc-1"))
	}
}

// after is a store that does something after each commit, before anybody is told.
type after struct {
	remediation.Store
	do func()
}

func (s *after) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	err := s.Store.Update(ctx, fn)
	if do := s.do; do != nil && err == nil {
		s.do = nil
		do()
	}
	return err
}

func TestAPromotionIsKnownAsItsOwnFromItsCommitOn(t *testing.T) {
	c := newCanary(t)
	st := &after{Store: c.store}
	c.engine = c.newEngine(st)
	st.do = c.tick // the engine is quicker than whoever asked
	c.must(c.begin(remediation.RolloutStart{}))
	c.at(remediation.RolloutActive, "alpha", "0.01")
	if log := c.stageLog(); slices.ContainsFunc(log, func(l string) bool { return strings.HasPrefix(l, "in_doubt") }) {
		t.Errorf("the start was taken for another's: %v", log)
	}
}

func TestAVerificationThatARestartCutOffHasItsTimeOnceMore(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.crashing(4, 1) // its start, the intent, the outcome, and before what was verified
	c.must(c.do(remediation.RolloutPromote))
	if _, err := c.engine.Tick(c.ctx); err == nil {
		t.Fatal("it did not crash")
	}
	c.engine = c.newEngine(c.store)
	if p := c.rollout().Promotion; p == nil || !p.Applied {
		t.Fatalf("the crash left %+v", p)
	}
	c.now = c.now.Add(time.Hour)
	c.tick()
	c.at(remediation.RolloutActive, "beta", "0.1")
}

func TestASilenceThatIsSetDuringTheLookHolds(t *testing.T) {
	for _, step := range []string{"flag_off", "image_retag"} {
		t.Run(step, func(t *testing.T) {
			w := newHarness(t)
			w.declare("alpha")
			w.breach("error_rate")
			w.am.silenced["fp1"] = false
			w.target(step).onLook = func(string) { w.am.silenced["fp1"] = true }
			id := w.fire("error_rate", "fp1")
			w.pass(5 * time.Minute)
			w.is(id, remediation.Waiting, remediation.HoldSilenced)
			if n := w.target(step).effects; n != 0 {
				t.Errorf("%s ran under a silence", step)
			}
		})
	}
}

func TestAShorterFreezeLeavesALongerOneInForce(t *testing.T) {
	w := newHarness(t)
	put := func(by string, d time.Duration) remediation.Freeze {
		t.Helper()
		f := remediation.Freeze{Scope: remediation.ScopeAll, By: by, Reason: by + "'s"}
		if d > 0 {
			until := w.now.Add(d)
			f.Until = &until
		}
		f, err := w.engine.PutFreeze(w.ctx, f)
		w.must(err)
		return f
	}
	put("ann", time.Hour)
	if f := put("bob", time.Minute); f.By != "ann" || !f.Until.Equal(w.now.Add(time.Hour)) {
		t.Errorf("in force is %+v", f)
	}
	if f := put("carl", 2*time.Hour); f.By != "carl" {
		t.Errorf("a longer one does not count: %+v", f)
	}
	if f := put("dora", 0); f.By != "dora" || f.Until != nil {
		t.Errorf("one without an end does not count: %+v", f)
	}
	if f := put("emil", time.Minute); f.By != "dora" || f.Until != nil {
		t.Errorf("in force is %+v", f)
	}
	w.pass(10 * time.Minute)
	all, err := w.engine.Freezes(w.ctx)
	w.must(err)
	if len(all) != 1 || all[0].By != "dora" {
		t.Errorf("in force are %+v", all)
	}
	es, err := w.engine.Entries(w.ctx, audit.Filter{Kind: audit.KindFrozen})
	w.must(err)
	if len(es) != 5 || es[1].Actor != "bob" || es[1].Detail["longer"] == nil {
		t.Errorf("the log has %+v", es)
	}
}

func TestASignatureHoldsForThePlaybookAndWhatWasSeen(t *testing.T) {
	c := newCanary(t, func(s string) string {
		return s + "checklist:\n  - {item: Backups are fresh, owner: DBA, status: pending}\n"
	})
	item := "checklist/backups-are-fresh"
	sign := func() {
		t.Helper()
		_, err := c.engine.SignPreflight(c.ctx, remediation.SignRequest{Service: "shop", Item: item, Actor: "eve", Reason: "seen"})
		c.must(err)
	}
	signed := func() bool {
		t.Helper()
		v, err := c.engine.Preflight(c.ctx, "shop")
		c.must(err)
		for _, it := range v.Items {
			if it.ID == item {
				return it.Signed != nil
			}
		}
		t.Fatal("there is no such item")
		return false
	}
	sign()
	if !signed() {
		t.Error("a signature does not count")
	}
	old := c.pb
	c.must(c.engine.Reload(c.ctx, []*alerts.Playbook{c.parse(strings.Replace(string(old.Source), "warmup: 1m", "warmup: 2m", 1))}, remediation.Reloaded{}))
	if signed() {
		t.Error("it counts for another playbook")
	}
	c.must(c.engine.Reload(c.ctx, []*alerts.Playbook{old}, remediation.Reloaded{}))
	if !signed() {
		t.Error("it does not count for the playbook that it was given for")
	}

	// What a run could not tell, and another run saw otherwise.
	item = "proof/odd"
	run := func(evidence string) {
		t.Helper()
		c.must(c.store.Update(c.ctx, func(tx remediation.Tx) error {
			p, err := tx.Preflight("shop")
			p.Run = &remediation.PreflightRun{Release: "v2", Playbook: old.Hash, Started: c.now, Finished: c.now, Items: []remediation.PreflightItem{
				{ID: item, Name: "odd", Before: true, Result: remediation.Unknown(evidence, "look")},
			}}
			if err != nil {
				return err
			}
			return tx.PutPreflight(p)
		}))
	}
	run("one replica does not answer")
	sign()
	if !signed() {
		t.Error("a signature does not count")
	}
	run("no replica answers")
	if signed() {
		t.Error("it counts for what was not seen when it was given")
	}
	run("one replica does not answer")
	if !signed() {
		t.Error("it does not count for what it was given for")
	}
}

func TestAStepTakesOverWhatALaterPlanSaysMoreStrictly(t *testing.T) {
	const schema = "      - {action: schema_rollback, settle: 5m, approval: {timeout: 30m}}\n"
	const first, second = "      - {action: image_retag, settle: 5m}\n", "      - {action: restart, settle: 5m}\n"
	of := func(w *harness, id string) remediation.Step {
		t.Helper()
		for _, s := range w.row(id).Steps {
			if s.Action == "image_retag" {
				return s
			}
		}
		t.Fatal("there is no such step")
		return remediation.Step{}
	}
	cases := []struct {
		name, mine, theirs string
		want               remediation.Step
	}{
		{"all of it", "settle: 5m, timeout: 4m, on_failure: next", "settle: 9m, timeout: 3m, on_failure: wait, approval: {timeout: 20m}",
			remediation.Step{Settle: 9 * time.Minute, Timeout: 3 * time.Minute, OnFailure: alerts.OnFailureWait, Approve: 20 * time.Minute}},
		{"nothing that is laxer", "settle: 9m, timeout: 3m, approval: {timeout: 20m}", "settle: 5m, timeout: 4m, on_failure: next, approval: {timeout: 30m}",
			remediation.Step{Settle: 9 * time.Minute, Timeout: 3 * time.Minute, OnFailure: alerts.OnFailureWait, Approve: 20 * time.Minute}},
		{"nothing that is not said", "settle: 5m, timeout: 4m, approval: {timeout: 20m}", "settle: 5m",
			remediation.Step{Settle: 5 * time.Minute, Timeout: 4 * time.Minute, OnFailure: alerts.OnFailureWait, Approve: 20 * time.Minute}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newHarness(t, replace(second, "      - {action: image_retag, "+c.theirs+"}\n"), replace(schema, second), replace(first, "      - {action: image_retag, "+c.mine+"}\n"))
			id := w.open()
			w.breach("latency")
			w.fire("latency", "fp2")
			got := of(w, id)
			if got.Settle != c.want.Settle || got.Timeout != c.want.Timeout || got.OnFailure != c.want.OnFailure || got.Approve != c.want.Approve {
				t.Errorf("the step is %+v, want %+v", got, c.want)
			}
			if n := len(w.row(id).Steps); n != 4 {
				t.Errorf("%d steps", n)
			}
		})
	}
}
