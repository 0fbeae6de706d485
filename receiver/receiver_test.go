package receiver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// fakeService records what the receiver asks of the engine.
type fakeService struct {
	mu       sync.Mutex
	accepted []remediation.Notification
	changes  []string
	refused  []string // for their tokens
	freeze   remediation.Freeze

	// once holds what came.
	once map[string]bool
	// accept, where set, runs inside Accept.
	accept func(context.Context) error
	// look, where set, runs inside Overview.
	look func()
	// err is what all other methods return.
	err       error
	incidents []view.IncidentView
	entries   []audit.Entry
	// incidentFilter and entryFilter are the last ones asked for.
	incidentFilter remediation.IncidentFilter
	entryFilter    audit.Filter
	// search is the last one asked for, found its answer but for the entries.
	search   audit.Query
	found    audit.Page
	overview view.Overview
	public   view.PublicPage
	rollouts []view.RolloutView
	plot     view.Plot
	// preflight is that of every service.
	preflight remediation.PreflightView
}

func (f *fakeService) Accept(ctx context.Context, n remediation.Notification) (remediation.Accepted, error) {
	if f.accept != nil {
		if err := f.accept(ctx); err != nil {
			return remediation.Accepted{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.accepted = append(f.accepted, n)
	return remediation.Accepted{Accepted: len(n.Alerts)}, nil
}

func (f *fakeService) NoteRefused(from, result string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = append(f.refused, from+" "+result)
}

func (f *fakeService) took() []remediation.Notification {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accepted
}

func (f *fakeService) change(words ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes = append(f.changes, strings.Join(words, " "))
}

func (f *fakeService) Incidents(_ context.Context, filter remediation.IncidentFilter) ([]view.IncidentView, error) {
	f.incidentFilter = filter
	var list []view.IncidentView
	for _, inc := range f.incidents[:min(len(f.incidents), filter.Limit)] {
		list = append(list, stated(inc))
	}
	return list, f.err
}

// stated is an incident that has a state, as all have.
func stated(inc view.IncidentView) view.IncidentView {
	inc.State = cmp.Or(inc.State, remediation.Confirming)
	return inc
}

func (f *fakeService) Incident(_ context.Context, id string) (view.IncidentView, error) {
	for _, inc := range f.incidents {
		if inc.ID == id {
			return stated(inc), f.err
		}
	}
	return view.IncidentView{}, &remediation.RefusedError{Refusal: remediation.Missing, Message: "there is no incident " + id}
}

func (f *fakeService) Plot(_ context.Context, id, trigger string) (view.Plot, error) {
	p := f.plot
	p.Incident, p.Trigger = id, trigger
	return p, f.err
}

func (f *fakeService) ServicePlot(_ context.Context, service, trigger string) (view.Plot, error) {
	p := f.plot
	p.Service, p.Trigger = service, trigger
	return p, f.err
}

func (f *fakeService) Playbook(_ context.Context, service string) (view.PlaybookView, error) {
	p := &alerts.Playbook{Service: service, Release: alerts.Release{Version: service, Previous: service}, Job: service}
	return view.PlaybookView{
		Playbook: p, Triggers: []view.TriggerWords{{Trigger: alerts.Trigger{Name: service, Description: service, Plan: service}, Bound: service, Only: []string{service}}},
		Stages: []view.StageWords{{Stage: alerts.Stage{Name: service, Description: service}}}, Rules: remediation.Plain(service, 100),
		Plans:  []view.PlanWords{{Name: service, Steps: []view.StepWords{{ID: service, Target: service}}}},
		Alerts: []view.BoundWords{{Indicator: service, Description: service, Query: service}},
	}, f.err
}

func (f *fakeService) ChangeIncident(_ context.Context, id string, verb view.Verb, step, actor, reason string) (view.IncidentView, error) {
	f.change(id, string(verb), step, actor, reason)
	return stated(view.IncidentView{ID: id}), f.err
}

func (f *fakeService) ApproveQuestion(_ context.Context, id, step, question, actor, reason string) (view.IncidentView, error) {
	f.change(id, "approve "+question, step, actor, reason)
	return stated(view.IncidentView{ID: id}), f.err
}

func (f *fakeService) ApproveOver(_ context.Context, id, step, gate, actor, reason string) (view.IncidentView, error) {
	f.change(id, "approve over "+gate, step, actor, reason)
	return stated(view.IncidentView{ID: id}), f.err
}

func (f *fakeService) Restore(_ context.Context, id string, r view.RestoreRequest) (view.IncidentView, error) {
	f.change(id, "restore", fmt.Sprint(r.Force), r.Actor, r.Reason)
	return stated(view.IncidentView{ID: id}), f.err
}

func (f *fakeService) Entries(_ context.Context, filter audit.Filter) ([]audit.Entry, error) {
	f.entryFilter = filter
	var list []audit.Entry
	for _, e := range f.entries {
		if e.Seq > filter.After { // else an export would have no end
			list = append(list, e)
		}
	}
	return list, f.err
}

func (f *fakeService) Search(_ context.Context, q audit.Query) (audit.Page, error) {
	f.search = q
	found := f.found
	found.Entries = f.entries
	return found, f.err
}

func (f *fakeService) Overview(context.Context) (view.Overview, error) {
	if f.look != nil {
		f.look()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.overview, f.err
}

func (f *fakeService) PublicPage(context.Context, time.Duration) (view.PublicPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.public, f.err
}

func (f *fakeService) Head(context.Context) (int64, string, error) { return 7, "abc", f.err }

func (f *fakeService) Freezes(context.Context) ([]remediation.Freeze, error) { return nil, f.err }

func (f *fakeService) PutFreeze(_ context.Context, fr remediation.Freeze) (remediation.Freeze, error) {
	f.change("freeze", fr.Service, fr.Scope, fr.By, fr.Reason)
	f.freeze = fr
	return fr, f.err
}

func (f *fakeService) RaiseSignal(_ context.Context, service, name, actor, reason string) (remediation.Signal, error) {
	f.change("raise", service, name, actor, reason)
	return remediation.Signal{Service: service, Name: name, By: actor, Reason: reason}, f.err
}

func (f *fakeService) ClearSignal(_ context.Context, service, name, actor, reason string) (remediation.Signal, error) {
	f.change("clear", service, name, actor, reason)
	return remediation.Signal{Service: service, Name: name, By: actor, Reason: reason}, f.err
}

func (f *fakeService) Thaw(_ context.Context, service, actor, reason string) ([]remediation.Freeze, error) {
	f.change("thaw", service, actor, reason)
	return nil, f.err
}

func (f *fakeService) Rollouts(context.Context) ([]view.RolloutView, error) {
	if f.rollouts != nil {
		return f.rollouts, f.err
	}
	return []view.RolloutView{
		{Rollout: remediation.Rollout{Service: "a"}}, {Rollout: remediation.Rollout{Service: "b"}},
	}, f.err
}

func (f *fakeService) DeclareRollout(_ context.Context, service, release, stage, actor, reason string) (view.RolloutView, error) {
	f.change("declare", service, release, stage, actor, reason)
	return view.RolloutView{Rollout: remediation.Rollout{Service: service, Stage: stage}}, f.err
}

func (f *fakeService) Preflight(_ context.Context, service string) (remediation.PreflightView, error) {
	p := f.preflight
	p.Service = service
	return p, f.err
}

func (f *fakeService) StartPreflight(_ context.Context, service, actor, reason string) (remediation.PreflightView, error) {
	f.change("preflight", service, actor, reason)
	return remediation.PreflightView{Service: service, Running: true}, f.err
}

func (f *fakeService) SignPreflight(_ context.Context, r remediation.SignRequest) (remediation.PreflightView, error) {
	f.change("sign", r.Service, r.Item, r.By, r.Actor, r.Reason)
	return remediation.PreflightView{Service: r.Service}, f.err
}

func (f *fakeService) Rehearsal(_ context.Context, service string) (remediation.RehearsalView, error) {
	return remediation.RehearsalView{Service: service}, f.err
}

func (f *fakeService) StartRehearsal(_ context.Context, service, plan, actor, reason string) (remediation.RehearsalView, error) {
	f.change("rehearse", service, plan, actor, reason)
	return remediation.RehearsalView{Service: service, Plans: []string{plan}, Running: true}, f.err
}

func (f *fakeService) StartRollout(_ context.Context, r remediation.RolloutStart) (view.RolloutView, error) {
	f.change("start", r.Service, r.Release, r.Stage, r.Actor, r.Reason, fmt.Sprint(r.Auto))
	return view.RolloutView{Rollout: remediation.Rollout{Service: r.Service, Promotion: &remediation.Promotion{To: "alpha"}}}, f.err
}

func (f *fakeService) ChangeRollout(_ context.Context, c remediation.RolloutChange) (view.RolloutView, error) {
	f.change("rollout", string(c.Verb), c.Service, c.Actor, c.Reason, fmt.Sprint(c.Force))
	return view.RolloutView{Rollout: remediation.Rollout{Service: c.Service}}, f.err
}

func (f *fakeService) WaitForPromotion(_ context.Context, service string) (view.RolloutView, error) {
	f.change("wait", service)
	return view.RolloutView{Rollout: remediation.Rollout{Service: service, Stage: "alpha"}}, f.err
}

func (f *fakeService) RolloutReport(_ context.Context, service string) (view.RolloutReport, error) {
	return view.RolloutReport{Service: service, Release: "v2"}, f.err
}

func (f *fakeService) Brief(_ context.Context, id string) (remediation.Brief, error) {
	if f.err != nil {
		return remediation.Brief{}, f.err
	}
	return remediation.Brief{Incident: id, Service: "shop", Owner: "Ann", Text: "Say this.\n"}, nil
}

func (f *fakeService) Ready(context.Context) error { return f.err }

// bench is a server under test with its surroundings.
type bench struct {
	*Server
	t        testing.TB
	service  *fakeService
	tester   *fakeBacktester
	registry *prometheus.Registry
	reloads  int
	// reloadErr is what a reload ends with.
	reloadErr error
	log       *logBuffer
}

type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newBench(t testing.TB, tokens ...config.Token) *bench {
	t.Helper()
	b := &bench{t: t, service: &fakeService{}, tester: newFakeBacktester(), registry: prometheus.NewRegistry(), log: &logBuffer{}}
	cfg := config.Default()
	cfg.Tokens = tokens
	s, err := New(Options{
		FormKey: []byte(testFormKey),
		Service: b.service, Backtester: b.tester,
		Config:   cfg,
		Registry: b.registry,
		Logger:   slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Reload:   func(context.Context, string) error { b.reloads++; return b.reloadErr },
		Now:      time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Server = s
	return b
}

func token(t testing.TB, name string, role config.Role) config.Token {
	t.Helper()
	tok, err := config.NewToken(name, role, name+"-secret")
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// request is one to a loopback address, as a command would send it.
func request(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "127.0.0.1:9099"
	if body != "" || method != http.MethodGet {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func as(r *http.Request, name string) *http.Request {
	r.Header.Set("Authorization", "Bearer "+name+"-secret")
	return r
}

// ServeHTTP answers a request as the document describes.
func (b *bench) ServeHTTP(w http.ResponseWriter, r *http.Request) { byContract(b.t, b.Server, w, r) }

func (b *bench) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w
}

func (b *bench) post(body string) *httptest.ResponseRecorder {
	return b.do(request("POST", "/api/v1/webhook/alertmanager", body))
}

func (b *bench) counted(r result) float64 { return testutil.ToFloat64(b.results[r]) }

// wantError checks that an answer is an error with this status and these words.
func wantError(t *testing.T, w *httptest.ResponseRecorder, status int, words string) {
	t.Helper()
	var p map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%d %q is no JSON: %v", w.Code, w.Body, err)
	}
	if w.Code != status || len(p) != 1 || !strings.Contains(p["error"], words) {
		t.Errorf("answered %d %s; want %d with %q", w.Code, w.Body, status, words)
	}
	if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
		t.Errorf("Content-Type of an error is %q", got)
	}
}

func wantOK(t *testing.T, w *httptest.ResponseRecorder, body string) {
	t.Helper()
	if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != body {
		t.Errorf("answered %d %s; want 200 %s", w.Code, got, body)
	}
}

func payload(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "testdata", "payloads", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func drain(t *testing.T, r *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func (f *fakeService) Once(_ context.Context, kind, key string, keep time.Duration, limit int) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if kind != "slack" || keep != 2*slackFresh || limit != slackSeen {
		return false, fmt.Errorf("a %s is remembered for %s, with %d others", kind, keep, limit)
	}
	if f.once == nil {
		f.once = map[string]bool{}
	}
	first := !f.once[key]
	f.once[key] = true
	if errors.Is(f.err, remediation.ErrFull) || errors.As(f.err, new(*remediation.StoreAwayError)) {
		return false, f.err
	}
	return first, nil
}
