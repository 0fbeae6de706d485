package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// previousIsTarget names each target after the release that a playbook goes back to.
func (w *harness) previousIsTarget() {
	w.names = func(kind string, pb *alerts.Playbook) string { return "fake:" + kind + "/to-" + pb.Release.Previous }
}

// load reloads the harness's playbook, edited.
func (w *harness) load(edit ...func(string) string) *alerts.Playbook {
	w.t.Helper()
	src := string(w.pb.Source)
	for _, e := range edit {
		src = e(src)
	}
	pb := w.parse(src)
	w.must(w.engine.Reload(w.ctx, []*alerts.Playbook{pb}, remediation.Reloaded{}))
	return pb
}

// nextRelease makes a playbook that of the next release, with other stages.
func nextRelease(s string) string {
	return strings.NewReplacer("{version: v2, previous: v1}", "{version: v3, previous: v2}", "name: alpha, traffic: \"0.01\"", "name: canary, traffic: \"0.05\"").Replace(s)
}

// goesBackTo checks which release an incident's steps restore.
func (w *harness) goesBackTo(id, release string) {
	w.t.Helper()
	for _, s := range w.incident(id).Steps {
		if !strings.HasSuffix(s.Target, "/to-"+release) {
			w.t.Errorf("%s changes %s, want the plan that goes back to %s", s.ID, s.Target, release)
		}
	}
}

// restarted starts the engine again with the playbook of the next release.
func (w *harness) restarted() {
	w.pb = w.parse(nextRelease(string(w.pb.Source)))
	w.start()
}

func TestARolloutGoesByItsOwnPlaybookOnceTheNextReleasesIsLoaded(t *testing.T) {
	begun := map[string]func(c *canary){
		"started":  (*canary).started,
		"declared": func(c *canary) { c.declare("alpha") },
		"declared of a release that no playbook names": func(c *canary) {
			_, err := c.engine.DeclareRollout(c.ctx, "", "v9", "alpha", "eve", "canary")
			c.must(err)
		},
		"from before an upgrade": func(c *canary) {
			c.declare("alpha")
			c.editRollout(func(r *remediation.Rollout) { r.Playbook = "" })
			c.start() // which meets the playbook that it was begun with
		},
	}
	begun["from before an upgrade, whose first start is with the next release's"] = func(c *canary) {
		c.declare("alpha")
		c.editRollout(func(r *remediation.Rollout) { r.Playbook = "" })
	}
	loaded := map[string]func(c *canary){
		"reload":  func(c *canary) { c.load(nextRelease) },
		"restart": func(c *canary) { c.restarted() },
		"reload after an edit": func(c *canary) {
			c.load(replace("warmup: 1m", "warmup: 2m"))
			c.load(nextRelease)
		},
	}
	for begin, begun := range begun {
		for next, load := range loaded {
			t.Run(begin+", "+next, func(t *testing.T) {
				aborting := func() *canary {
					c := newCanary(t)
					c.previousIsTarget()
					begun(c)
					c.pass(2 * time.Minute)
					load(c)
					return c
				}
				c := aborting()
				c.must(c.do(remediation.RolloutAbort))
				c.tick()
				c.goesBackTo("inc-1", "v1")
				if c.target("image_retag").effects != 1 {
					t.Errorf("the image is not restored: %v", c.log("inc-1"))
				}

				c = aborting()
				if c.rollout().Release == "v2" {
					c.stageMetric("alpha", "0.01")
				}
				c.breach("error_rate")
				id := c.fire("error_rate", "fp1", "rollout", "")
				c.is(id, remediation.Settling, "")
				c.goesBackTo(id, "v1")
				c.pass(10 * time.Minute)
				if c.target("image_retag").effects != 1 {
					t.Errorf("the image is not restored: %v", c.log(id))
				}
			})
		}
	}
}

// editRollout edits the service's rollout in the store.
func (w *harness) editRollout(edit func(r *remediation.Rollout)) {
	w.t.Helper()
	w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error {
		r, err := remediation.RolloutOf(tx, "shop")
		if err != nil {
			return err
		}
		edit(&r)
		return tx.PutRollout(r)
	}))
}

func TestAnEditedPlaybookOfTheSameReleaseReplacesThatOfItsRollout(t *testing.T) {
	for _, release := range []string{"v2", "v9"} {
		w := newHarness(t)
		_, err := w.engine.DeclareRollout(w.ctx, "", release, "alpha", "eve", "canary")
		w.must(err)
		edited := w.load(replace("warmup: 1m", "warmup: 2m"))
		w.load(nextRelease)
		w.breach("error_rate")
		if got := w.entries(w.fire("error_rate", "fp1", "rollout", ""))[0].Detail["playbook"]; got != edited.Hash {
			t.Errorf("the incident has playbook %s, want the edited one, %s", got, edited.Hash)
		}
	}
}

func TestNoPromotionWhileThePlaybookOfAnotherReleaseIsLoaded(t *testing.T) {
	c := newCanary(t)
	c.must(c.begin(remediation.RolloutStart{Auto: true}))
	c.tick()
	next := c.load(nextRelease)
	c.later(24*time.Hour + time.Minute)
	c.at(remediation.RolloutActive, "alpha", "0.01")
	c.staged("stage state=active stage=alpha promotion=refused missing=playbook")
	c.notYet("the loaded playbook is for release v3")
	r := c.rollout()
	if r.Next != "beta" || !slices.Equal(r.Stages, []string{"alpha", "beta", "full"}) || r.Traffic != "0.01" {
		t.Errorf("the rollout shows stages %v, traffic %s, next %s", r.Stages, r.Traffic, r.Next)
	}
	o, err := c.engine.Overview(c.ctx)
	c.must(err)
	if s := o.Services[0]; s.Playbook != next.Hash || s.Traffic != "0.01" || s.Stages[0] != "alpha" {
		t.Errorf("the overview shows playbook %s, stages %v, traffic %s", s.Playbook, s.Stages, s.Traffic)
	}
	c.must(c.do(remediation.RolloutPromote, true))
	c.tick()
	c.at(remediation.RolloutActive, "beta", "0.1")
	c.load()
	c.later(72*time.Hour + time.Minute)
	c.at(remediation.RolloutSoaking, "full", "1")
	c.load(nextRelease)
	c.later(7*24*time.Hour + time.Minute)
	c.must(c.do(remediation.RolloutFinish)) // it changes no traffic
	c.declare("canary")
	if r := c.rollout(); r.Release != "v3" || r.Previous != "v2" || r.Playbook != next.Hash {
		t.Errorf("the next rollout is of %s, goes back to %s by playbook %s", r.Release, r.Previous, r.Playbook)
	}
}

func TestARolloutIsDeclaredFurtherByItsOwnPlaybook(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.load(nextRelease)
	_, err := w.engine.DeclareRollout(w.ctx, "", "", "canary", "eve", "v3 is there")
	refused(t, err, remediation.Conflict) // v2 is still being rolled out
	_, err = w.engine.DeclareRollout(w.ctx, "", "v2", "canary", "eve", "further")
	refused(t, err, remediation.Invalid) // a stage of v3's playbook
	v, err := w.engine.DeclareRollout(w.ctx, "", "v2", "beta", "eve", "further")
	w.must(err)
	if v.Previous != "v1" || v.Playbook != w.pb.Hash {
		t.Errorf("declared further: goes back to %s by playbook %s", v.Previous, v.Playbook)
	}
}

func TestARolloutWhosePlaybookCannotBeReadIsNotRolledBackByAnother(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.editRollout(func(r *remediation.Rollout) { r.Playbook = "gone" })
	c.load(nextRelease)
	err := c.do(remediation.RolloutAbort)
	refused(t, err, remediation.Conflict)
	if _, try := hint.Of(err); !strings.Contains(try, "load the playbook of release v2 again") {
		t.Errorf("the refusal's hint is %q", try)
	}
	c.breach("error_rate")
	if acc := c.post("firing", "error_rate", "fp1"); len(acc.Incidents) != 0 {
		t.Errorf("an alert opened %v", acc.Incidents)
	}
	es, err := c.engine.Entries(c.ctx, audit.Filter{Kind: audit.KindHeld})
	c.must(err)
	if len(es) != 1 || !strings.Contains(fmt.Sprint(es[0].Detail["why"]), "release v2 of shop is being rolled out, and its playbook cannot be read") {
		t.Errorf("held %+v", es)
	}
	if c.needed("stuck") != 1 {
		t.Error("nobody knows that nothing rolls the release back")
	}
	c.must(c.do(remediation.RolloutHold)) // which needs no playbook
	c.load()
	if c.needed("stuck") != 0 {
		t.Error("its playbook is loaded, and a person is still called")
	}
	c.must(c.do(remediation.RolloutAbort))
}

func TestAnIncidentOfTheNextReleaseInTheWayOfAnAbortIsNamed(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.load(nextRelease)
	c.pass(2 * time.Minute)
	c.breach("error_rate")
	id := c.fire("error_rate", "fp1", "rollout", "v3") // its rules are loaded too
	c.is(id, remediation.Waiting, remediation.HoldNoRollout)
	err := c.do(remediation.RolloutAbort)
	refused(t, err, remediation.Conflict)
	if _, try := hint.Of(err); try != "close that incident, then abort" {
		t.Errorf("%v", err)
	}
}

// oneReader has one connection for reading: a read inside of another would wait for ever.
type oneReader struct {
	remediation.Store
	t       *testing.T
	reading atomic.Bool
}

func (s *oneReader) View(ctx context.Context, fn func(remediation.Tx) error) error {
	if !s.reading.CompareAndSwap(false, true) {
		s.t.Error("a read waits for another one inside of it")
		return errors.New("no reader is free")
	}
	defer s.reading.Store(false)
	return s.Store.View(ctx, fn)
}

func TestWhatIsShownOfARolloutNeedsOneReader(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.wrap = func(s remediation.Store) remediation.Store { return &oneReader{Store: s, t: t} }
	c.restarted()
	c.editRollout(func(r *remediation.Rollout) { r.Playbook = "gone" }) // so that it is read each time
	_, err := c.engine.Overview(c.ctx)
	c.must(err)
	_, err = c.engine.RolloutReport(c.ctx, "")
	c.must(err)
	if n := testutil.CollectAndCount(c.engine, "rollout_stage"); n == 0 {
		t.Error("the metrics do not show the stage")
	}
}

func TestARolloutByItselfWhosePlaybookCannotBeReadSaysWhatIsMissing(t *testing.T) {
	c := newCanary(t)
	c.must(c.begin(remediation.RolloutStart{Auto: true}))
	c.tick()
	c.editRollout(func(r *remediation.Rollout) { r.Playbook = "gone" })
	c.load(nextRelease)
	for range 3 {
		c.later(S)
	}
	es, err := c.engine.Entries(c.ctx, audit.Filter{Kind: audit.KindStage, Newest: true, Limit: 1})
	c.must(err)
	if es[0].Detail["promotion"] != "refused" || !strings.Contains(fmt.Sprint(es[0].Detail["why"]), "its playbook cannot be read") {
		t.Errorf("the last entry is %+v", es[0].Detail)
	}
}
