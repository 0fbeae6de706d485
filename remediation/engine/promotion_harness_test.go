package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
	"github.com/locotoki/backout/remediation/view"
)

// flagKind is flag_off with its other direction: a flag that takes any value.
type flagKind struct {
	fakeKind
	flag *flag
}

// SetFlag implements remediation.FlagSetter.
func (k *flagKind) SetFlag(pb *alerts.Playbook, name, value string) (string, remediation.Action, error) {
	if k.w.names != nil {
		return k.w.names("flag_set", pb), &setting{k.flag, value}, nil
	}
	return "fake:" + name, &setting{k.flag, value}, nil
}

// flag is a value that setting changes, and how that goes wrong.
type flag struct {
	value   string
	half    string // the value that is half set, "" where none is
	history []string
	// what the next calls answer
	lookErr, applyErr, verifyErr, undoErr error
	// duringApply, where set, runs inside Apply before its effect; after runs after it.
	duringApply, afterApply func()
	// onLook, where set, runs inside Look.
	onLook func()
	// duringUndo, where set, runs inside Undo before its effect, duringVerify inside Verify.
	duringUndo, duringVerify func()
	// smoked are the smoke checks that were asked, and smokeErr their answer.
	smoked   []string
	smokeErr error
	// lost: the effect happens and Apply errs all the same; cut: half of it does.
	lost, cut bool
}

// setting gives a flag one value.
type setting struct {
	*flag
	want string
}

func (s *setting) Look(context.Context, string) (remediation.Look, error) {
	if s.onLook != nil {
		s.onLook()
	}
	position := remediation.Untouched
	switch {
	case s.half == s.want:
		position = remediation.HalfWay
	case s.value == s.want:
		position = remediation.Wanted
	}
	return remediation.Look{Position: position, Snapshot: json.RawMessage(`{"flag":"` + s.value + `"}`)}, s.lookErr
}

func (s *setting) Apply(context.Context, string, json.RawMessage) error {
	if s.duringApply != nil {
		s.duringApply()
	}
	switch {
	case s.cut:
		s.half = s.want
		return s.applyErr
	case s.applyErr != nil && !s.lost:
		return s.applyErr
	}
	if s.value != s.want {
		s.history = append(s.history, s.want)
	}
	s.value, s.half = s.want, ""
	if s.afterApply != nil {
		s.afterApply()
	}
	return s.applyErr
}

func (s *setting) Verify(ctx context.Context, _ string) error {
	if s.duringVerify != nil {
		s.duringVerify()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.verifyErr
}

func (s *setting) Undo(_ context.Context, _ string, before json.RawMessage) error {
	var was struct{ Flag string }
	if err := json.Unmarshal(before, &was); err != nil {
		return err
	}
	if s.duringUndo != nil {
		s.duringUndo()
	}
	if s.undoErr == nil {
		s.value, s.half = was.Flag, ""
		s.history = append(s.history, "back to "+was.Flag)
	}
	return s.undoErr
}

// canary is a harness with three stages, whose flag can be set, whose criterion can
// be asked and whose watchdog is heard.
type canary struct {
	*harness
	flag *flag
}

func newCanary(t *testing.T, edit ...func(string) string) *canary {
	t.Helper()
	edit = append([]func(string) string{replace("plans:\n", "  - {name: full, traffic: \"1\", duration: 7d, success: [{indicator: error_rate, below: 0.001, window: 1h}]}\n"+
		"timeline:\n  - {day: T-7, activity: Preparation, owner: DevOps}\n  - {day: T, activity: Start, owner: DevOps}\n  - {day: T+8, activity: All of it, owner: QA}\nplans:\n")}, edit...)
	w := newHarness(t, edit...)
	c := &canary{harness: w, flag: w.flag}
	w.prom.criterion = 0.0001
	c.beat()
	c.prove()
	return c
}

// prove lets a preflight have passed, with every signature that a start wants.
func (c *canary) prove() {
	c.t.Helper()
	p := remediation.Preflight{Service: "shop", Run: &remediation.PreflightRun{Release: "v2", Playbook: c.pb.Hash, Started: c.now, Finished: c.now}}
	c.must(c.store.Update(c.ctx, func(tx remediation.Tx) error { return tx.PutPreflight(p) }))
	v, err := c.engine.Preflight(c.ctx, "shop")
	c.must(err)
	for _, it := range v.Items {
		p.Signatures = append(p.Signatures, remediation.Signature{Item: it.ID, Release: "v2", By: "eve", Reason: "seen", Time: c.now})
	}
	c.must(c.store.Update(c.ctx, func(tx remediation.Tx) error { return tx.PutPreflight(p) }))
}

// beat lets the watchdog be heard.
func (c *canary) beat() {
	c.t.Helper()
	_, err := c.engine.Accept(c.ctx, remediation.Notification{GroupKey: "{}", Alerts: []remediation.Alert{
		{Status: "firing", Fingerprint: "beat", Labels: map[string]string{"alertname": "Watchdog", "service": "shop"}},
	}})
	c.must(err)
}

// later lets time go by and the watchdog be heard.
func (c *canary) later(d time.Duration) {
	c.t.Helper()
	c.pass(d)
	c.beat()
	c.tick()
}

func (c *canary) begin(in remediation.RolloutStart) error {
	in.Actor, in.Reason = "eve", "canary"
	_, err := c.engine.StartRollout(c.ctx, in)
	return err
}

// started is begin, carried out.
func (c *canary) started() {
	c.t.Helper()
	c.must(c.begin(remediation.RolloutStart{}))
	c.tick()
	c.at(remediation.RolloutActive, "alpha", "0.01")
}

func (c *canary) do(verb remediation.RolloutVerb, force ...bool) error {
	_, err := c.engine.ChangeRollout(c.ctx, remediation.RolloutChange{Verb: verb, Actor: "eve", Reason: "because", Force: len(force) > 0})
	return err
}

func (c *canary) rollout() view.RolloutView {
	c.t.Helper()
	all, err := c.engine.Rollouts(c.ctx)
	c.must(err)
	return all[0]
}

// at checks the rollout's state and stage, the flag, and the stage's metric.
func (c *canary) at(state, stage, value string) {
	c.t.Helper()
	r := c.rollout()
	if r.State != state || r.Stage != stage || c.flag.value != value || r.Promotion != nil {
		c.t.Fatalf("the rollout is %s at %s with the flag at %s (promotion %+v), want %s at %s with %s; log:\n%s",
			r.State, r.Stage, c.flag.value, r.Promotion, state, stage, value, strings.Join(c.stageLog(), "\n"))
	}
}

// notYet checks that a promotion is refused, and for what.
func (c *canary) notYet(why string, force ...bool) {
	c.t.Helper()
	before := c.flag.value
	err := c.do(remediation.RolloutPromote, force...)
	refused(c.t, err, remediation.Conflict)
	if !strings.Contains(err.Error(), why) {
		c.t.Errorf("refused with %q, want a word of %q", err, why)
	}
	c.tick()
	if c.flag.value != before {
		c.t.Errorf("the flag is %s all the same", c.flag.value)
	}
}

// stageLog is what the audit log has of the rollout, in short.
func (c *canary) stageLog() (out []string) {
	c.t.Helper()
	all, err := c.engine.Entries(c.ctx, audit.Filter{Service: "shop"})
	c.must(err)
	for _, e := range all {
		if e.Action != "flag_set" && e.Kind != audit.KindStage {
			continue
		}
		s := strings.TrimSpace(string(e.Kind) + " " + e.Step)
		for _, k := range []string{"undo", "outcome", "seen", "state", "stage", "held", "promotion", "abort", "forced", "missing"} {
			if v, ok := e.Detail[k]; ok {
				s += fmt.Sprintf(" %s=%v", k, v)
			}
		}
		out = append(out, s)
	}
	return out
}

// staged checks that the rollout's log ends so.
func (c *canary) staged(want ...string) {
	c.t.Helper()
	got := c.stageLog()
	if len(got) < len(want) || !slices.Equal(got[len(got)-len(want):], want) {
		c.t.Fatalf("the rollout's log ends\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// crashed replaces the store of the engine by one that crashes at its nth commit.
func (c *canary) crashing(n int, when storetest.When) {
	c.t.Helper()
	e, err := c.tryEngine(storetest.Crashing(c.store, n, when))
	if err != nil {
		c.engine = c.newEngine(c.store)
		return
	}
	c.engine = e
}
