package scenario

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/store/memory"
	"github.com/locotoki/backout/remediation/view"
)

// Decode reads the body of a notification: notification.Decode in backout.
type Decode func(body []byte) (n remediation.Notification, odd []string, err error)

// Result is how a scenario went.
type Result struct {
	Name string `json:"name"`
	File string `json:"file"`
	// Length is how long the scenario lasts by its own clock.
	Length model.Duration `json:"length"`
	// Failures are the expectations that were not met, and the events that went wrong.
	Failures []Failure `json:"failures"`
	// Story is what happened, oldest first.
	Story []Moment `json:"story"`
}

// OK reports whether all was as expected.
func (r *Result) OK() bool { return len(r.Failures) == 0 }

// Failure is one expectation that was not met.
type Failure struct {
	Line int            `json:"line"`
	At   model.Duration `json:"at"`
	// Expected says what must be so, Found what was so.
	Expected string `json:"expected"`
	Found    string `json:"found"`
	// Later is when it became so after all; nil if it never did.
	Later *model.Duration `json:"later,omitempty"`
}

// Moment is one thing that happened.
type Moment struct {
	// At is when, from the start.
	At model.Duration `json:"at"`
	// Kind is the audit entry's; "" is an event of the scenario that backout does not see.
	Kind  audit.Kind `json:"kind,omitempty"`
	Actor string     `json:"actor,omitempty"`
	// Title, Why and Tone are those of view.TimelineEvent.
	Title string `json:"title"`
	Why   string `json:"why,omitempty"`
	// Measured is the value that decided, with its bound.
	Measured string `json:"measured,omitempty"`
	Tone     string `json:"tone,omitempty"`
}

// began is when every scenario begins: a Monday, in business hours.
var began = time.Date(2026, 1, 5, 10, 0, 0, 0, time.UTC)

// run is one run of a scenario.
type run struct {
	sc           *Scenario
	now          time.Time
	store        remediation.Store
	engine       *engine.Engine
	registry     *client.Registry
	prometheus   *prometheus
	alertmanager *alertmanager
	targets      *targets

	result *Result
	// said are what the scenario did, late the failures that may come true.
	said []Moment
	late []late
}

// late is a failed expectation that is looked at again.
type late struct {
	check   check
	failure int // its index
}

// Run runs the scenario in a folder of its own below the temporary one. The error says why
// the scenario could not be run to its end; an expectation that is not met is in the
// result.
func (sc *Scenario) Run(ctx context.Context, decode Decode) (res *Result, err error) {
	dir, err := os.MkdirTemp("", "backout-test-")
	if err != nil {
		return nil, fmt.Errorf("run scenario: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &run{
		sc: sc, now: began, targets: newTargets(dir),
		result: &Result{Name: sc.Name, File: sc.file, Length: model.Duration(sc.length()), Failures: []Failure{}, Story: []Moment{}},
	}
	if err := r.start(ctx, decode); err != nil {
		return nil, fmt.Errorf("%s: %w", sc.file, err)
	}
	defer func() { err = errors.Join(err, r.store.Close()) }()
	if err := r.play(ctx); err != nil {
		return nil, fmt.Errorf("%s: at %s: %w", sc.file, r.at(), err)
	}
	return r.result, r.tell(ctx)
}

// at is the time from the start.
func (r *run) at() model.Duration { return model.Duration(r.now.Sub(began)) }

// start opens a store and an engine on it, and declares the rollout.
func (r *run) start(ctx context.Context, decode Decode) (err error) {
	pb := r.sc.playbook
	share := "1"
	if s := pb.Stage(r.sc.Rollout); s != nil {
		share = s.Traffic
	}
	r.targets.runs(pb, share)
	if r.prometheus, err = newPrometheus(pb, r.sc, func() time.Time { return r.now }); err != nil {
		return err
	}
	r.alertmanager = &alertmanager{groups: map[uint64]*alertGroup{}, post: func(ctx context.Context, body []byte) error {
		n, odd, err := decode(body)
		if err == nil && len(odd) > 0 {
			err = errors.New(strings.Join(odd, "; "))
		}
		if err != nil {
			return err
		}
		_, err = r.engine.Accept(ctx, n)
		return err
	}}
	r.store = memory.New()
	r.engine, err = engine.New(ctx, engine.Options{
		Store: r.store, Playbooks: []*alerts.Playbook{pb}, Kinds: r.targets.kinds(), Prometheus: r.prometheus, Alertmanager: r.alertmanager, Mode: r.sc.Mode,
		Now: func() time.Time { return r.now }, Steady: func() time.Duration { return r.now.Sub(began) }, Logger: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		r.registry = client.NewRegistry()
		r.prometheus.own = r.registry
		err = r.registry.Register(r.engine)
	}
	if err == nil && r.sc.Rollout != "" {
		_, err = r.engine.DeclareRollout(ctx, pb.Service, "", r.sc.Rollout, "commander", "scenario")
	}
	if err != nil {
		return errors.Join(err, r.store.Close())
	}
	return nil
}

// play goes from moment to moment until the scenario's end.
func (r *run) play(ctx context.Context) error {
	checks := r.sc.checks()
	events := slices.Clone(r.sc.Events)
	slices.SortStableFunc(events, func(a, b Event) int { return int(a.At - b.At) })
	for scrape, end := 0, began.Add(r.sc.length()); ; {
		for len(events) > 0 && events[0].At <= r.at() {
			if err := r.happens(ctx, &events[0]); err != nil {
				return err
			}
			events = events[1:]
		}
		if r.now.Equal(r.scrapeTime(scrape)) {
			if err := r.observe(scrape); err != nil {
				return err
			}
			scrape++
		}
		if err := r.alertmanager.flush(ctx, r.now); err != nil {
			return err
		}
		next, err := r.engine.Tick(ctx)
		if err != nil {
			return err
		}
		if err := r.look(ctx, &checks); err != nil {
			return err
		}
		if !r.now.Before(end) {
			return nil
		}
		if !next.IsZero() {
			next = later(next, r.now.Add(time.Millisecond)) // of a turn that failed
		}
		next = sooner(sooner(next, r.scrapeTime(scrape)), sooner(r.alertmanager.due(), end))
		if len(events) > 0 {
			next = sooner(next, began.Add(time.Duration(events[0].At)))
		}
		if len(checks) > 0 {
			next = sooner(next, began.Add(time.Duration(checks[0].x.At)))
		}
		r.now = next
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (r *run) scrapeTime(n int) time.Time {
	return began.Add(time.Duration(n) * time.Duration(r.sc.Interval))
}

// observe scrapes and evaluates, unless Prometheus is away.
func (r *run) observe(scrape int) error {
	if r.prometheus.away {
		return nil
	}
	if err := r.prometheus.scrape(scrape); err != nil {
		return err
	}
	sent, err := r.prometheus.evaluate()
	if err != nil {
		return err
	}
	for _, a := range sent {
		r.alertmanager.receive(a, r.now)
	}
	return nil
}

// happens carries out an event. What backout refuses is a failure of the scenario, unless
// it expects that.
func (r *run) happens(ctx context.Context, e *Event) error {
	do := verbs[e.Do]
	err := do.do(r, ctx, e)
	var refused *remediation.RefusedError
	switch {
	case err != nil && !errors.As(err, &refused):
		return fmt.Errorf("%s: %w", e.Do, err)
	case err != nil && !e.Refused:
		r.fails(e.line, fmt.Sprintf("%s is accepted", e.Do), "refused: "+refused.Message)
	case err == nil && e.Refused:
		r.fails(e.line, fmt.Sprintf("%s is refused", e.Do), "accepted")
	}
	if err == nil && do.said != nil {
		r.said = append(r.said, Moment{At: r.at(), Title: do.said(e), Why: e.Error, Tone: "human"})
	}
	if err != nil {
		r.said = append(r.said, Moment{At: r.at(), Title: fmt.Sprintf("Refused: %s by %s", e.Do, e.By), Why: refused.Message, Tone: "human"})
	}
	return nil
}

func (r *run) fails(line int, expected, found string) {
	r.result.Failures = append(r.result.Failures, Failure{Line: line, At: r.at(), Expected: expected, Found: found})
}

// newest returns the newest incident or drill, nil if there is none.
func (r *run) newest(ctx context.Context, drill bool) (*view.IncidentView, error) {
	all, err := r.engine.Incidents(ctx, remediation.IncidentFilter{Drill: &drill, Newest: true, Limit: 1})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// tell writes the story: the audit log without what only machines read, and what the
// scenario did.
func (r *run) tell(ctx context.Context) error {
	entries, err := r.engine.Entries(ctx, audit.Filter{})
	if err != nil {
		return err
	}
	r.result.Story = append(r.result.Story, r.said...) // an event comes before what it leads to
	for _, e := range entries {
		if e.Kind == audit.KindReceived || e.Kind == audit.KindDuplicate || e.Kind == audit.KindStarted {
			continue
		}
		ev := view.Describe(e)
		r.result.Story = append(r.result.Story, Moment{
			At: model.Duration(e.Time.Sub(began)), Kind: e.Kind, Actor: e.Actor, Title: ev.Title, Why: ev.Why, Tone: ev.Tone, Measured: r.sc.measured(e),
		})
	}
	slices.SortStableFunc(r.result.Story, func(a, b Moment) int { return int(a.At - b.At) })
	return nil
}

// measured is the value of a trigger in an entry, and what it was compared with.
func (sc *Scenario) measured(e audit.Entry) string {
	name, _ := e.Detail["trigger"].(string)
	t := sc.playbook.Trigger(name)
	if t == nil || t.Signal != "" {
		return ""
	}
	number := func(key string) (float64, bool) {
		text, _ := e.Detail[key].(string)
		v, err := strconv.ParseFloat(text, 64)
		return v, err == nil
	}
	v, ok := number("value")
	bound, bounded := number("threshold")
	if !ok || !bounded {
		return ""
	}
	unit := sc.playbook.Indicator(t.Indicator).Unit
	return fmt.Sprintf("%s %s, bound %s", name, remediation.Measure(v, unit), remediation.Measure(bound, unit))
}
