package engine_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/notify"
	"github.com/locotoki/backout/remediation/store"
	"github.com/locotoki/backout/remediation/store/memory"
	"github.com/locotoki/backout/remediation/view"
	"github.com/locotoki/backout/rules"
)

// harness is a service, its Prometheus and its targets, with a clock of its own:
// the whole of what the engine can see and touch.
type harness struct {
	t      *testing.T
	ctx    context.Context
	dsn    string
	now    time.Time
	clock  func() time.Time // what the engine reads; w.now where nil
	steady func() time.Duration
	pb     *alerts.Playbook
	store  remediation.Store
	engine *engine.Engine
	prom   *fakePrometheus
	am     *fakeAlertmanager
	// alertmanager stands for am where it is set, wrap for the engine's store.
	alertmanager remediation.Alertmanager
	wrap         func(remediation.Store) remediation.Store
	// with, where set, makes the engine.
	with func(remediation.Store) *engine.Engine
	// targets by kind of action, under mu: a proof binds its own beside the engine's
	mu      sync.Mutex
	targets map[string]*target
	// flag is what promotions set.
	flag    *flag
	mode    remediation.Mode
	noLossy string
	// announcement is what every status_page step tells, pages whom.
	announcement remediation.Announcement
	pages        []remediation.Channel
	team, mail   []remediation.Channel
	webhooks     []notify.Webhook
	// history draws plots, where set.
	history remediation.History
	// replica, where set, makes the engine one of several.
	replica *engine.Replica
	// runtime says what runs, where set.
	runtime remediation.Runtime
	// logger, where set, gets serve's log.
	logger slog.Handler
	// names, where set, names the target of a kind of action ("flag_set": a promotion's).
	names func(kind string, pb *alerts.Playbook) string
}

// playbook is a service with two triggers and the whole ladder. S = 15s, W = 2m.
const playbook = `
service: shop
release: {version: v2, previous: v1}
job: shop
scrape_interval: 15s
alive: sum(increase(requests_total[2m])) > bool 0
target:
  compose: {project_dir: /srv/shop, service: shop}
  probe: {health: http://127.0.0.1:9000/health/, timeout: 30s}
flags:
  - {name: FEATURE_A, off: "0", default: "0", fallback: none}
indicators:
  - name: error_rate
    query: sum(increase(requests_total{status!="success"}[$window])) / (sum(increase(requests_total[$window])) >= $min_volume)
    unit: ratio
  - name: latency
    query: histogram_quantile(0.95, sum by (le) (rate(latency_seconds_bucket[$window]))) and on () (sum(increase(latency_seconds_count[$window])) >= $min_volume)
    unit: seconds
triggers:
  - {name: error_rate, indicator: error_rate, above: 0.01, window: 15m, min_volume: 100, recovery: {window: 2m, min_volume: 13}, plan: ladder}
  - {name: latency, indicator: latency, above: 0.75, window: 5m, min_volume: 50, recovery: {window: 2m, min_volume: 20}, plan: longer}
  - {name: breach_of_trust, signal: critical-security-vulnerability, plan: ladder}
stages:
  - {name: alpha, traffic: "0.01", duration: 1d, success: [{indicator: error_rate, below: 0.001, window: 1h}]}
  - {name: beta, traffic: "0.1", duration: 3d, success: [{indicator: error_rate, below: 0.001, window: 1h}]}
plans:
  - name: ladder
    steps:
      - {action: flag_off, settle: 5m}
      - {action: image_retag, settle: 5m}
      - {action: schema_rollback, settle: 5m, approval: {timeout: 30m}}
  - name: longer
    steps:
      - {action: status_page}
      - {action: flag_off, settle: 5m}
      - {action: restart, settle: 5m}
limits: {per_target: 3/1h, per_service: 6/1h, blast_radius: 6/10m, cooldown: 10m, breaker: 3, reopen_within: 1h, close_after: 5m}
warmup: 1m
watchdog: {max_age: 5m}
`

func newHarness(t *testing.T, edit ...func(string) string) *harness {
	t.Helper()
	if crashtest.Sampled() && !raced {
		return newHarnessOn(t, inMemory, edit...)
	}
	return newHarnessOn(t, onDisk(t), edit...)
}

// inMemory is a store in memory, which the suite of all stores has do what SQLite does at a
// fifth of the time; onDisk is SQLite.
const inMemory = "memory:"

func onDisk(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "backout.db") }

// newHarnessOn is newHarness whose store a dsn names.
func newHarnessOn(t *testing.T, dsn string, edit ...func(string) string) *harness {
	t.Helper()
	w := &harness{
		t: t, ctx: context.Background(), dsn: dsn, now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC),
		am: &fakeAlertmanager{silenced: map[string]bool{}}, targets: map[string]*target{}, mode: remediation.Act, flag: &flag{value: "0"},
		announcement: remediation.Announcement{Components: []string{"Analytics"}, Status: remediation.PartialOutage},
	}
	src := playbook
	for _, e := range edit {
		src = e(src)
	}
	var ak []alerts.ActionKind
	for _, k := range w.kinds() {
		ak = append(ak, k)
	}
	pb, err := alerts.Parse("shop.yaml", []byte(src), ak)
	if err != nil {
		t.Fatal(err)
	}
	w.pb = pb
	expr, err := rules.ExpressionsOf(pb)
	if err != nil {
		t.Fatal(err)
	}
	w.prom = &fakePrometheus{t: t, expr: expr, value: map[string]float64{}, recovery: map[string]float64{}, alive: 1}
	w.start()
	return w
}

func replace(old, new string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, new, 1) }
}

// start opens the store, unless it is in memory, and a new engine on it, as a restart does.
func (w *harness) start() {
	w.t.Helper()
	switch {
	case w.dsn == inMemory && w.store == nil:
		w.store = memory.New()
	case w.dsn != inMemory:
		w.reopen()
	}
	st := w.store
	if w.with != nil {
		w.engine = w.with(st)
		return
	}
	if w.wrap != nil {
		w.engine = w.newEngine(w.wrap(st))
		return
	}
	w.engine = w.newEngine(st)
}

// reopen opens a store's file anew.
func (w *harness) reopen() {
	w.t.Helper()
	if w.store != nil {
		if err := w.store.Close(); err != nil {
			w.t.Fatal(err)
		}
	}
	st, err := store.Open(w.t.Context(), w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = st
	w.t.Cleanup(func() { st.Close() }) //nolint:errcheck // a second close of a store that a restart closed
}

func (w *harness) newEngine(st remediation.Store) *engine.Engine {
	w.t.Helper()
	e, err := w.tryEngine(st)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

func (w *harness) tryEngine(st remediation.Store) (*engine.Engine, error) {
	return engine.New(w.ctx, engine.Options{
		Store: st, Playbooks: []*alerts.Playbook{w.pb}, Kinds: w.kinds(), Prometheus: w.prom, Alertmanager: w.silences(), History: w.history, Runtime: w.runtime,
		Mode: w.mode, NoLossy: w.noLossy, StatusPages: w.pages, Team: w.team, Mail: w.mail, Webhooks: w.webhooks, Now: w.time, Steady: w.steady, Replica: w.replica, Logger: slog.New(cmp.Or[slog.Handler](w.logger, slog.DiscardHandler)),
	})
}

func (w *harness) time() time.Time {
	if w.clock != nil {
		return w.clock()
	}
	return w.now
}

func (w *harness) silences() remediation.Alertmanager {
	if w.alertmanager != nil {
		return w.alertmanager
	}
	return w.am
}

func (w *harness) kinds() []remediation.ActionKind {
	return []remediation.ActionKind{
		&flagKind{fakeKind{w, "flag_off", alerts.Reversible}, w.flag}, &fakeKind{w, "restart", alerts.Disruptive},
		&fakeKind{w, "image_retag", alerts.Disruptive}, &fakeKind{w, "schema_rollback", alerts.Lossy},
		&tellingKind{fakeKind{w, "status_page", alerts.Reversible}},
	}
}

func (w *harness) target(kind string) *target {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.targets[kind] == nil {
		w.targets[kind] = &target{}
	}
	return w.targets[kind]
}

// breach makes a trigger true by both of its expressions; calm ends both.
func (w *harness) breach(trigger string) { w.prom.value[trigger], w.prom.recovery[trigger] = 5, 5 }
func (w *harness) calm(trigger string)   { w.prom.value[trigger], w.prom.recovery[trigger] = 0, 0 }

// cured is what a step that helped looks like: the short window is calm immediately,
// the long one stays beyond for a while.
func (w *harness) cured(trigger string) { w.prom.recovery[trigger] = 0 }

func (w *harness) post(status, trigger, fingerprint string, labels ...string) remediation.Accepted {
	w.t.Helper()
	l := map[string]string{"alertname": "Rollback", "service": "shop", "trigger": trigger, "severity": "critical", "rollout": "v2"}
	for i := 0; i+1 < len(labels); i += 2 {
		if l[labels[i]] = labels[i+1]; labels[i+1] == "" {
			delete(l, labels[i])
		}
	}
	acc, err := w.engine.Accept(w.ctx, remediation.Notification{Receiver: "backout", GroupKey: "{}", Alerts: []remediation.Alert{
		{Status: status, Fingerprint: fingerprint, Labels: l},
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	return acc
}

// fire posts a firing alert, lets the engine act and returns the incident's id.
func (w *harness) fire(trigger, fingerprint string, labels ...string) string {
	w.t.Helper()
	acc := w.post("firing", trigger, fingerprint, labels...)
	w.tick()
	if len(acc.Incidents) != 1 {
		w.t.Fatalf("firing %s concerned incidents %v, want one", trigger, acc.Incidents)
	}
	return acc.Incidents[0]
}

// open is fire with a rollout of v2 declared and error_rate breaching.
func (w *harness) open() string {
	w.t.Helper()
	w.declare("alpha")
	w.breach("error_rate")
	return w.fire("error_rate", "fp1")
}

func (w *harness) declare(stage string) {
	w.t.Helper()
	if _, err := w.engine.DeclareRollout(w.ctx, "", "", stage, "eve", "canary"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *harness) tick() {
	w.t.Helper()
	if _, err := w.engine.Tick(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

// pass lets time go by, stopping at each moment at which something is due.
func (w *harness) pass(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for {
		next, err := w.engine.Tick(w.ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		if next.IsZero() || next.After(end) {
			w.now = end
			w.tick()
			return
		}
		w.now = next
	}
}

func (w *harness) incident(id string) view.IncidentView {
	w.t.Helper()
	v, err := w.engine.Incident(w.ctx, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// is checks an incident's state and reason.
func (w *harness) is(id string, state remediation.State, reason remediation.Reason) {
	w.t.Helper()
	v := w.incident(id)
	if v.State != state || v.Reason != reason {
		w.t.Fatalf("incident %s is %s (%s: %s), want %s (%s); its log: %v", id, v.State, v.Reason, v.Why, state, reason, w.log(id))
	}
}

// steps checks the states of an incident's steps, in order.
func (w *harness) steps(id string, want ...remediation.StepState) {
	w.t.Helper()
	var got []remediation.StepState
	for _, s := range w.incident(id).Steps {
		got = append(got, s.State)
	}
	if !slices.Equal(got, want) {
		w.t.Fatalf("steps are %v, want %v; log: %v", got, want, w.log(id))
	}
}

func (w *harness) entries(id string) []audit.Entry {
	w.t.Helper()
	es, err := w.engine.Entries(w.ctx, audit.Filter{Incident: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return es
}

// log is an incident's audit log in short: kind, step and reason.
func (w *harness) log(id string) []string {
	w.t.Helper()
	var out []string
	for _, e := range w.entries(id) {
		s := string(e.Kind)
		if e.Step != "" {
			s += " " + e.Step
		}
		if e.Detail["undo"] == true {
			s += " undo"
		}
		for _, k := range []string{"outcome", "verdict", "seen"} {
			if v, ok := e.Detail[k]; ok {
				s += fmt.Sprint(" ", v)
			}
		}
		if e.Kind == audit.KindHeld || e.Kind == audit.KindClosed || e.Kind == audit.KindNotified {
			s += fmt.Sprint(" ", e.Detail["reason"])
		}
		out = append(out, s)
	}
	return out
}

// logs checks that an incident's log ends with the given entries.
func (w *harness) logs(id string, want ...string) {
	w.t.Helper()
	got := w.log(id)
	if len(got) < len(want) || !slices.Equal(got[len(got)-len(want):], want) {
		w.t.Fatalf("log ends\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (w *harness) change(id string, verb view.Verb, step string) error {
	_, err := w.engine.ChangeIncident(w.ctx, id, verb, step, "eve", "because")
	return err
}

// approveOver lets the held step run over the limit that is shown to hold it.
func (w *harness) approveOver(id string) error {
	v := w.incident(id)
	_, err := w.engine.ApproveOver(w.ctx, id, v.OverLimit, v.OverGate, "eve", "because")
	return err
}

func (w *harness) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// refused checks that a change was refused in the given way.
func refused(t *testing.T, err error, want remediation.Refusal) {
	t.Helper()
	var r *remediation.RefusedError
	if !errors.As(err, &r) || r.Refusal != want {
		t.Fatalf("got %v, want a refusal %d", err, want)
	}
}

// fakePrometheus answers exactly the expressions of the playbook's rules.
type fakePrometheus struct {
	// own is the label that names the service on backout's own series; "" is service.
	own             string
	t               *testing.T
	expr            rules.Expressions
	value, recovery map[string]float64 // absent: no value
	alive, age      float64
	// up is how many targets the service has, one where it is 0 and the service is
	// alive; down is how many of them are down.
	up, down float64
	// forgot: it has no samples of when the incident opened.
	forgot bool
	// events are what a trigger without a recovery value has; unborn: they are not
	// known where they are not given here.
	events map[string]float64
	unborn bool
	// unscraped: there is no series up of the service.
	unscraped bool
	err       error
	// criterion is the value of every stage's criteria; below 0: none.
	criterion float64
	// hangs, where set, is waited for, or the context's end.
	hangs chan struct{}
	// answers, where set, is asked first; ok false leaves the answer to the rest.
	answers func(expr string) (v float64, ok bool)
	// fails, where set, says which expressions are answered with an error.
	fails func(expr string) error
	// whole, where set, is the value of the stage's criteria over more than their window.
	whole *float64
}

func (p *fakePrometheus) targets() float64 {
	if p.up == 0 {
		return p.alive
	}
	return p.up
}

func (p *fakePrometheus) Query(ctx context.Context, expr string) (float64, bool, error) {
	if p.hangs != nil {
		select {
		case <-p.hangs:
		case <-ctx.Done():
			return 0, false, fmt.Errorf("%w: %w", remediation.ErrNoAnswer, ctx.Err())
		}
	}
	if p.err != nil {
		return 0, false, p.err
	}
	if p.fails != nil {
		if err := p.fails(expr); err != nil {
			return 0, false, err
		}
	}
	if p.answers != nil {
		if v, ok := p.answers(expr); ok {
			return v, true, nil
		}
	}
	switch expr {
	case "vector(1)":
		return 1, true, nil
	case p.expr.Alive:
		return p.alive, true, nil
	case p.expr.Age:
		return p.age, !p.unscraped, nil
	case p.expr.Up:
		return p.targets() - p.down, true, nil
	}
	if strings.Contains(expr, "up{") && strings.Contains(expr, " @ ") {
		if strings.Contains(expr, " unless ") {
			return max(p.targets(), 1) - p.down, true, nil
		}
		return max(p.targets(), 1), !p.forgot, nil
	}
	for name, x := range p.expr.Triggers {
		if expr == x.Value {
			v, ok := p.value[name]
			return v, ok, nil
		}
		if expr == x.Recovery {
			v, ok := p.recovery[name]
			return v, ok, nil
		}
		if expr == x.Events {
			v, ok := p.events[name]
			return v, ok || !p.unborn, nil
		}
	}
	if strings.HasPrefix(expr, "count(last_over_time(rollout_") {
		label := p.own
		if label == "" {
			label = "service"
		}
		return 1, strings.Contains(expr, "{"+label+"="), nil
	}
	if strings.Contains(expr, "[1h]") {
		return p.criterion, p.criterion >= 0, nil
	}
	if strings.Contains(expr, `requests_total{status!="success"}[`) && !strings.Contains(expr, "[15m]") {
		v := p.criterion
		if p.whole != nil {
			v = *p.whole
		}
		return v, v >= 0, nil
	}
	return 0, false, fmt.Errorf("parse error: unexpected %q", expr)
}

type fakeAlertmanager struct {
	silenced map[string]bool // known alerts
	err      error
}

func (a *fakeAlertmanager) Silenced(_ context.Context, fps []string) (map[string]bool, error) {
	out := map[string]bool{}
	for _, fp := range fps {
		if s, ok := a.silenced[fp]; ok {
			out[fp] = s
		}
	}
	return out, a.err
}

// target is what a fake action changes, and how it goes wrong.
type target struct {
	position remediation.Position // "" is Untouched
	effects  int                  // how often the target was really changed
	undone   int
	// what the next calls answer
	lookErr, applyErr, verifyErr, undoErr error
	// duringApply, where set, runs inside Apply before its effect.
	duringApply func()
	// cut makes Apply stop half-way with applyErr.
	cut bool
	// onUndo, where set, runs inside Undo after its effect.
	onUndo func()
	// onVerify, where set, runs inside Verify.
	onVerify func()
	// onLook, where set, is told of each look.
	onLook func(op string)
}

func (tg *target) at() remediation.Position {
	if tg.position == "" {
		return remediation.Untouched
	}
	return tg.position
}

type fakeKind struct {
	w    *harness
	name string
	risk alerts.Risk
}

type fakeParams struct{}

func (k *fakeKind) Name() string                                            { return k.name }
func (k *fakeKind) Risk() alerts.Risk                                       { return k.risk }
func (k *fakeKind) NewParams() any                                          { return &fakeParams{} }
func (k *fakeKind) CheckParams(*alerts.Playbook, any) []alerts.ParamProblem { return nil }
func (k *fakeKind) Bind(*alerts.Playbook, any) (remediation.Action, error) {
	return k.w.target(k.name), nil
}

func (k *fakeKind) Target(pb *alerts.Playbook, _ any) string {
	if k.w.names != nil {
		return k.w.names(k.name, pb)
	}
	return "fake:" + k.name
}

// Version: image_retag leaves the previous version running.
func (k *fakeKind) Version(pb *alerts.Playbook, _ any) string {
	if k.name != "image_retag" {
		return ""
	}
	return pb.Release.Previous
}

type tellingKind struct{ fakeKind }

func (k *tellingKind) Communicates() {}
func (k *tellingKind) Announce(*alerts.Playbook, any) remediation.Announcement {
	return k.w.announcement
}
func (k *tellingKind) Bind(*alerts.Playbook, any) (remediation.Action, error) {
	return nil, errors.New("status_page has no target")
}

func (tg *target) Look(_ context.Context, op string) (remediation.Look, error) {
	if tg.onLook != nil {
		tg.onLook(op)
	}
	flag := map[remediation.Position]string{remediation.Untouched: "1", remediation.HalfWay: "half", remediation.Wanted: "0"}[tg.at()]
	return remediation.Look{Position: tg.at(), Snapshot: json.RawMessage(`{"flag":"` + flag + `"}`)}, tg.lookErr
}

func (tg *target) Apply(context.Context, string, json.RawMessage) error {
	if tg.duringApply != nil {
		tg.duringApply()
	}
	if tg.cut {
		tg.position = remediation.HalfWay
		return tg.applyErr
	}
	if tg.applyErr != nil {
		return tg.applyErr
	}
	if tg.position != remediation.Wanted {
		tg.effects++
	}
	tg.position = remediation.Wanted
	return nil
}

func (tg *target) Verify(context.Context, string) error {
	if tg.onVerify != nil {
		tg.onVerify()
	}
	return tg.verifyErr
}

func (tg *target) Undo(context.Context, string, json.RawMessage) error {
	if tg.undoErr != nil {
		return tg.undoErr
	}
	tg.position = remediation.Untouched
	tg.undone++
	if tg.onUndo != nil {
		tg.onUndo()
	}
	return nil
}
