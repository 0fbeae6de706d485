package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/store"
	"github.com/locotoki/backout/rules"
)

// testFormKey signs the forms of servers in tests.
const testFormKey = "0123456789abcdef0123456789abcdef"

// testService is a real engine on a real store, with a service, a Prometheus and a clock
// that the test moves, behind a real server.
type testService struct {
	*Server
	t      testing.TB
	store  *store.Store
	engine *engine.Engine
	tester *fakeBacktester
	expr   rules.Expressions

	mu              sync.Mutex
	now             time.Time
	value, recovery float64
	away            error   // what Prometheus fails with
	more            float64 // what history shows above its curve
	targets         map[string]*serviceTarget
}

const shopPlaybook = `
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
    dashboard: shop
triggers:
  - {name: error_rate, indicator: error_rate, above: 0.01, window: 15m, min_volume: 100, recovery: {window: 2m, min_volume: 13}, plan: ladder}
  - {name: critical_security_vulnerability, signal: critical-security-vulnerability, plan: ladder}
  - {name: data_integrity, signal: data-integrity, plan: ladder}
stages:
  - {name: alpha, traffic: "0.01", duration: 1d, success: [{indicator: error_rate, below: 0.001, window: 1h}]}
  - {name: beta, traffic: "0.1", duration: 3d, success: [{indicator: error_rate, below: 0.001, window: 1h}]}
plans:
  - name: ladder
    steps:
      - {action: status_page}
      - {action: flag_off, settle: 5m}
      - {action: image_retag, settle: 5m}
      - {action: schema_rollback, settle: 5m, approval: {timeout: 30m}}
limits: {per_target: 3/1h, per_service: 6/1h, blast_radius: 6/10m, cooldown: 10m, breaker: 3, reopen_within: 1h, close_after: 5m}
warmup: 1m
watchdog: {max_age: 5m}
runbook_url: https://wiki.example.com/shop/rollback
dashboards: {shop: "https://grafana.example.com/d/shop"}
communications:
  incident_call: {severity_above: 2, url: "https://meet.example.com/shop"}
  status_page:
    components:
      - {name: Shop, description: Orders and payment}
      - {name: Search, description: Finding things}
`

func newTestService(t testing.TB) *testService {
	t.Helper()
	s := &testService{t: t, now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), targets: map[string]*serviceTarget{}, tester: newFakeBacktester()}
	st, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "backout.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	s.store = st
	var kinds []remediation.ActionKind
	var alertKinds []alerts.ActionKind
	for _, k := range []serviceKind{
		{s, "flag_off", alerts.Reversible}, {s, "image_retag", alerts.Disruptive}, {s, "schema_rollback", alerts.Lossy},
	} {
		kinds, alertKinds = append(kinds, &k), append(alertKinds, &k)
	}
	telling := &serviceTelling{serviceKind{s, "status_page", alerts.Reversible}}
	kinds, alertKinds = append(kinds, telling), append(alertKinds, telling)
	pb, err := alerts.Parse("shop.yaml", []byte(shopPlaybook), alertKinds)
	if err != nil {
		t.Fatal(err)
	}
	if s.expr, err = rules.ExpressionsOf(pb); err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	s.engine, err = engine.New(t.Context(), engine.Options{
		Store: st, Playbooks: []*alerts.Playbook{pb}, Kinds: kinds, Prometheus: s, Alertmanager: s, History: s,
		Mode: remediation.Act, Now: s.clock, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Tokens = []config.Token{token(t, "eve", config.Commander), token(t, "ann", config.Viewer), token(t, "am", config.Alertmanager)}
	s.Server, err = New(Options{
		FormKey: []byte(testFormKey),
		Service: s.engine, Backtester: s.tester, Config: cfg, Registry: prometheus.NewRegistry(), Logger: logger,
		Reload: func(context.Context, string) error { return nil }, Now: s.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.eventsEvery = 20 * time.Millisecond
	return s
}

// ServeHTTP answers a request as the document describes.
func (s *testService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	byContract(s.t, s.Server, w, r)
}

func (s *testService) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// pass lets time go by, stopping at each moment at which something is due.
func (s *testService) pass(d time.Duration) {
	s.t.Helper()
	end := s.clock().Add(d)
	for {
		next, err := s.engine.Tick(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		last := next.IsZero() || next.After(end)
		if last {
			next = end
		}
		s.mu.Lock()
		s.now = next
		s.mu.Unlock()
		if last {
			break
		}
	}
	if _, err := s.engine.Tick(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// reads sets what both expressions of the trigger are seen to be.
func (s *testService) reads(value, recovery float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.recovery = value, recovery
}

// shows sets what history has above its curve.
func (s *testService) shows(more float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more = more
}

func (s *testService) declare() {
	s.t.Helper()
	if _, err := s.engine.DeclareRollout(s.t.Context(), "shop", "", "alpha", "eve", "canary of v2"); err != nil {
		s.t.Fatal(err)
	}
}

// fire posts a firing alert, and lets the engine act.
func (s *testService) fire(fingerprint string, labels ...string) string {
	s.t.Helper()
	l := map[string]string{"alertname": "Rollback", "service": "shop", "trigger": "error_rate", "rollout": "v2"}
	for i := 0; i+1 < len(labels); i += 2 {
		l[labels[i]] = labels[i+1]
	}
	acc, err := s.engine.Accept(s.t.Context(), remediation.Notification{Receiver: "backout", GroupKey: "{}", Alerts: []remediation.Alert{
		{Status: "firing", Fingerprint: fingerprint, Labels: l},
	}})
	if err != nil || len(acc.Incidents) != 1 {
		s.t.Fatal(acc, err)
	}
	s.pass(0)
	return acc.Incidents[0]
}

// beat posts the service's watchdog.
func (s *testService) beat() {
	s.t.Helper()
	_, err := s.engine.Accept(s.t.Context(), remediation.Notification{Receiver: "backout", GroupKey: "{}", Alerts: []remediation.Alert{
		{Status: "firing", Fingerprint: "beat", Labels: map[string]string{"alertname": "Watchdog", "service": "shop"}},
	}})
	if err != nil {
		s.t.Fatal(err)
	}
}

// breach opens an incident whose flag is off immediately, and that goes on.
func (s *testService) breach() string {
	s.beat()
	s.declare()
	s.reads(0.031, 0.034)
	return s.fire("fp1")
}

// asks lets the breach go on until the lossy step asks for a yes or no.
func (s *testService) asks(id string) {
	s.t.Helper()
	for range 60 {
		v, err := s.engine.Incident(s.t.Context(), id)
		if err != nil {
			s.t.Fatal(err)
		}
		if v.State == remediation.Waiting && v.Reason == remediation.HoldApproval {
			return
		}
		s.beat()
		s.pass(30 * time.Second)
	}
	s.t.Fatalf("incident %s never asked", id)
}

// Query implements remediation.Prometheus.
func (s *testService) Query(_ context.Context, expr string) (float64, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return 0, false, s.away
	}
	x := s.expr.Triggers["error_rate"]
	switch expr {
	case s.expr.Alive:
		return 1, true, nil
	case s.expr.Age:
		return 3, true, nil
	case x.Value:
		return s.value, true, nil
	case x.Recovery:
		return s.recovery, true, nil
	}
	if strings.Contains(expr, "up{") { // its one target is up
		return 1, true, nil
	}
	return 0.0004, true, nil // of a stage's criteria
}

// QueryRange implements remediation.History: calm, then a breach that stays.
func (s *testService) QueryRange(_ context.Context, _ string, from, to time.Time, step time.Duration) (out []remediation.Point, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := from; !t.After(to); t = t.Add(step) {
		age := t.Sub(time.Date(2026, 11, 22, 2, 57, 0, 0, time.UTC)).Seconds()
		v := 0.0015 + 0.03/(1+math.Exp(-age/40)) + 0.002*math.Sin(age/90)
		out = append(out, remediation.Point{Time: t, Value: v + s.more})
	}
	return out, nil
}

// Silenced implements remediation.Alertmanager.
func (s *testService) Silenced(context.Context, []string) (map[string]bool, error) {
	return map[string]bool{}, nil
}

// serviceTarget is what an action of the shop changes.
type serviceTarget struct {
	changed bool
	// fail is what its change ends with; during is called in its middle, where set.
	fail   error
	during func()
}

func (g *serviceTarget) Look(context.Context, string) (remediation.Look, error) {
	if g.changed {
		return remediation.Look{Position: remediation.Wanted, Snapshot: json.RawMessage(`{"is":"new"}`)}, nil
	}
	return remediation.Look{Position: remediation.Untouched, Snapshot: json.RawMessage(`{"is":"old"}`)}, nil
}

func (g *serviceTarget) Apply(context.Context, string, json.RawMessage) error {
	if g.during != nil {
		g.during()
	}
	if g.fail != nil {
		return g.fail
	}
	g.changed = true
	return nil
}
func (g *serviceTarget) Verify(context.Context, string) error { return nil }
func (g *serviceTarget) Undo(context.Context, string, json.RawMessage) error {
	g.changed = false
	return nil
}

type serviceKind struct {
	shop *testService
	name string
	risk alerts.Risk
}

func (k *serviceKind) Name() string                                            { return k.name }
func (k *serviceKind) Risk() alerts.Risk                                       { return k.risk }
func (k *serviceKind) NewParams() any                                          { return &struct{}{} }
func (k *serviceKind) CheckParams(*alerts.Playbook, any) []alerts.ParamProblem { return nil }
func (k *serviceKind) Target(*alerts.Playbook, any) string {
	return fmt.Sprintf("compose:/srv/shop/shop#%s", k.name)
}
func (k *serviceKind) Loses(*alerts.Playbook, any) string {
	return "what only the schema after version 1.0.0 can hold; a snapshot of the whole database is taken first in /var/lib/backout/snapshots"
}
func (k *serviceKind) Bind(*alerts.Playbook, any) (remediation.Action, error) {
	if k.shop.targets[k.name] == nil {
		k.shop.targets[k.name] = &serviceTarget{}
	}
	return k.shop.targets[k.name], nil
}

type serviceTelling struct{ serviceKind }

func (k *serviceTelling) Communicates() {}
func (k *serviceTelling) Announce(*alerts.Playbook, any) remediation.Announcement {
	return remediation.Announcement{Components: []string{"Shop"}, Status: remediation.PartialOutage}
}
func (k *serviceTelling) Bind(*alerts.Playbook, any) (remediation.Action, error) {
	return nil, errors.New("status_page has no target")
}
