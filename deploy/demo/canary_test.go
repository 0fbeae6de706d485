package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/deploy/demo/breakage"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// canaryOf are the settings of a stack whose rollout begins with the flag off.
func canaryOf(set *settings) {
	set.book, set.share, set.plan = "canary.yaml", "0", steps("status_page", "flag_off")
	set.limits = limits{PerHour: 1000, ReopenWithin: "1h"}
	set.stages = stages{"alpha": "1s", "beta": "1s", "gamma": "1s", "delta": "1s", "full": "1s"}
}

func TestACanaryIsPromotedThroughItsFiveStagesAndFinished(t *testing.T) {
	t.Parallel()
	s := newTestStack(t, "canary", canaryOf)
	way := wantTheRealStages(t, s)
	hand, auto := s.join(t, "hand"), s.join(t, "auto")
	hand.stages["alpha"], hand.stages["full"] = "20s", "5s"
	s.readyForACanary(t)
	for _, m := range s.members {
		must(t, m.measured(t.Context()))
	}
	wantRefusal(t, hand, "no preflight was run", hand.leading("start")...)
	for _, m := range s.members {
		must(t, m.runPreflight(t.Context()))
	}
	wantRefusal(t, hand, "checklist/security-sign-off", hand.leading("start")...)
	wantFlag(t, hand, "0")
	for _, m := range s.members {
		must(t, m.signForAll(t.Context()))
	}
	must(t, auto.begin(t.Context(), "--auto"))
	must(t, hand.begin(t.Context()))
	// Now, as a slow machine takes longer than alpha for what follows.
	wantRefusal(t, hand, "stage alpha lasts until", hand.leading("promote")...)

	for i, stage := range way {
		hand.wantStage(t, stage.Name, stage.Traffic)
		next := "promote"
		if i == len(way)-1 {
			next = "finish"
		}
		if stage.Name == "delta" { // neither a success nor a reason to roll back
			must(t, hand.breakWith(breakage.Breakage{Memory: 0.8}))
			hand.untilGate(t, "criterion memory_usage")
			wantRefusal(t, hand, "memory_usage is 80%, and must be below 70%", hand.leading(next)...)
			must(t, hand.breakWith(breakage.Breakage{}))
		}
		said, err := hand.command(t.Context(), "rollout", "status", "--service="+hand.service, "--follow", "--stage="+stage.Name)
		if err != nil {
			t.Fatalf("following stage %s: %v", stage.Name, err)
		}
		for _, want := range []string{"stage " + stage.Name + " has lasted", stage.Success[0].Indicator + ": met", "holds       none seen"} {
			if !strings.Contains(said, want) {
				t.Errorf("following stage %s says nothing of %q:\n%s", stage.Name, want, said)
			}
		}
		must(t, hand.lead(t.Context(), next))
	}
	hand.untilRollout(t, remediation.RolloutDone, "none")
	hand.wantPromotions(t, "demo", way)
	auto.wantStage(t, "full", "1")
	auto.wantPromotions(t, "engine", way)
	for _, m := range s.members {
		wantFlag(t, m, "1")
		if list := m.incidents(t); len(list) > 0 {
			t.Errorf("all went well, and there is an incident: %+v", list)
		}
	}
	_, err := s.verify(t.Context())
	must(t, err)
}

// breached is a service whose rollout is brought to a stage and breached there.
type breached struct {
	stage string
	// own is what the stage does not forgive, by its criteria or, in the last one, by
	// an immediate trigger; triggers are the criteria's.
	own      breakage.Breakage
	triggers []string
	// others is what every other stage would be rolled back for, and this one is not.
	others breakage.Breakage
}

// What breaks the criterion of one stage and is no reason in the others.
var (
	harm   = breakage.Breakage{P1: 0.05, DespiteFlag: true}
	delay  = breakage.Breakage{Latency: 1200 * time.Millisecond, Slow: 0.08, DespiteFlag: true}
	faults = breakage.Breakage{Errors: 0.01, DespiteFlag: true} // two of three requests are the feature's
	strain = breakage.Breakage{CPU: 0.97, Memory: 0.97, DespiteFlag: true}
)

// breaches are what is broken in each stage.
var breaches = []breached{
	{"alpha", breakage.Breakage{P1: 1}, []string{"alpha_p1_error"}, all(delay, faults, strain)},
	{"beta", breakage.Breakage{Latency: 1200 * time.Millisecond}, []string{"beta_p95"}, all(harm, faults, strain)},
	{"gamma", breakage.Breakage{Errors: 0.04}, []string{"gamma_error_rate"}, all(harm, delay, strain)},
	{"delta", breakage.Breakage{CPU: 0.97, Memory: 0.97}, []string{"delta_cpu", "delta_memory"}, all(harm, delay, faults)},
	{"full", breakage.Breakage{DatabaseCPU: 0.97}, []string{"database_cpu"}, all(harm, delay, faults, strain)},
}

// all puts breakages together.
func all(list ...breakage.Breakage) (b breakage.Breakage) {
	for _, l := range list {
		b.P1, b.Latency, b.Slow = b.P1+l.P1, b.Latency+l.Latency, b.Slow+l.Slow
		b.Errors, b.CPU, b.Memory = b.Errors+l.Errors, b.CPU+l.CPU, b.Memory+l.Memory
		b.DespiteFlag = b.DespiteFlag || l.DespiteFlag
	}
	return b
}

func TestABreachInEachStageIsBackedOutForThatStagesReasonOnly(t *testing.T) {
	t.Parallel()
	s := newTestStack(t, "breaches", canaryOf)
	way := wantTheRealStages(t, s)
	members := make([]*stack, len(breaches))
	for i, b := range breaches {
		members[i] = s.join(t, b.stage)
		members[i].share = way[max(i-1, 0)].Traffic
	}
	s.readyForACanary(t)
	// People have brought each rollout to the stage before, and backout leads it into its own.
	must(t, each(members, func(m *stack) error {
		i := slices.IndexFunc(breaches, func(b breached) bool { return b.stage == m.service })
		_, err := m.command(t.Context(), "rollout", "start", "--declare", "--service="+m.service, "--stage="+way[max(i-1, 0)].Name)
		if err == nil && i > 0 {
			err = await(t.Context(), generous, time.Second, func(ctx context.Context) error {
				switch r, err := m.rollout(ctx); {
				case err != nil:
					return err // another promotion would lead past the stage
				case r.Stage == m.service:
					return nil // an answer that came too late was a yes
				}
				return m.lead(ctx, "promote")
			})
		}
		return err
	}))
	for i, b := range breaches {
		members[i].wantStage(t, b.stage, way[i].Traffic)
	}

	// What the other stages would not forgive, and this one does.
	for i, b := range breaches {
		must(t, members[i].breakWith(b.others))
	}
	for i, b := range breaches {
		members[i].untilBeyond(t, b.others)
	}
	for i, b := range breaches {
		members[i].untilBeyond(t, b.others) // and still is, while the last of them came to be
		if list := members[i].incidents(t); len(list) > 0 {
			t.Fatalf("in stage %s another stage's criterion opened %+v", b.stage, list)
		}
		members[i].wantStage(t, b.stage, way[i].Traffic)
	}

	for i, b := range breaches {
		must(t, members[i].breakWith(b.own))
	}
	for i, b := range breaches {
		m := members[i]
		m.untilRollout(t, remediation.RolloutRolledBack, "none")
		wantFlag(t, m, "0")
		m.wantReason(t, b)
	}
	_, err := s.verify(t.Context())
	must(t, err)
}

// join makes a member of the stack: a service, by its own name, with a compose project
// and a playbook of its own. What is to be changed is changed before readyForACanary.
func (s *stack) join(t *testing.T, service string) *stack {
	t.Helper()
	m := *s
	m.first, m.service, m.members = s, service, nil
	m.dir, m.project = s.path(service), s.project+"-"+service
	m.address, m.stages = maps.Clone(s.address), maps.Clone(s.stages)
	must(t, s.engine.purge(t.Context(), m.project)) // of a run that was killed
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanUpWithin)
		defer cancel()
		if err := m.engine.purge(ctx, m.project); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	must(t, m.pickAddresses("service"))
	must(t, os.MkdirAll(m.path("project", "breakage"), 0o755))
	must(t, os.MkdirAll(m.path("project", "secrets"), 0o755))
	must(t, os.WriteFile(m.path("project", "secrets", "database.password"), []byte(s.token["database"]+"\n"), 0o600))
	s.members = append(s.members, &m)
	return &m
}

// lead lets the rollout go on in a way, such as promote.
func (s *stack) lead(ctx context.Context, verb string) error {
	_, err := s.command(ctx, s.leading(verb)...)
	return err
}

func (s *stack) leading(verb string) []string {
	return []string{"rollout", verb, "--service=" + s.service, "--reason=all is well"}
}

// each does something to every stack at the same time.
func each(list []*stack, do func(s *stack) error) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, s := range list {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := do(s); err != nil {
				errs[i] = fmt.Errorf("%s: %w", s.service, err)
			}
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stageOf is what a playbook says of a stage, and triggerOf of a trigger.
type stageOf struct {
	Name, Traffic string
	Success       []struct {
		Indicator    string
		Above, Below float64
	}
	Rollback []string
}

type triggerOf struct {
	Name, Indicator, Signal string
	Above                   float64
}

// wantTheRealStages fails the test unless the stack's playbook has the stages, the
// criteria and the triggers of the one that backout carries, and returns the stages.
func wantTheRealStages(t *testing.T, s *stack) []stageOf {
	t.Helper()
	var real, mine struct {
		Triggers []triggerOf
		Stages   []stageOf
	}
	for path, into := range map[string]any{filepath.Join(s.source, "alerts", "playbook.yaml"): &real, s.path("playbook.yaml"): &mine} {
		text, err := os.ReadFile(path)
		must(t, err)
		must(t, yaml.Unmarshal(text, into))
	}
	for i := range real.Stages { // the demo's service has no cache, no vectors and no models
		st := &real.Stages[i]
		st.Success = slices.DeleteFunc(st.Success, func(cr struct {
			Indicator    string
			Above, Below float64
		},
		) bool {
			return slices.Contains([]string{"cache_hit_rate", "vector_query_time", "ml_inference_time"}, cr.Indicator)
		})
	}
	if got, want := fmt.Sprint(mine), fmt.Sprint(real); got != want || len(mine.Stages) != 5 {
		t.Fatalf("the canary's playbook says\n%s\nand the real one\n%s", got, want)
	}
	return mine.Stages
}

// readyForACanary starts everything, with the members as they are now.
func (s *stack) readyForACanary(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	for _, m := range s.members {
		must(t, m.writeProject())
	}
	must(t, s.configure(ctx))
	must(t, s.startPrometheus(ctx))
	must(t, s.startAlertmanager(ctx))
	must(t, s.startBackout(ctx))
	must(t, each(s.members, func(m *stack) error { return m.up(ctx) }))
}

// wantRefusal fails the test unless a command is refused, with a word on what is missing.
func wantRefusal(t *testing.T, s *stack, why string, args ...string) {
	t.Helper()
	// A refusal is wrapped to the width of a terminal.
	if said, err := s.command(t.Context(), args...); err == nil || !strings.Contains(strings.Join(strings.Fields(err.Error()), " "), why) {
		t.Fatalf("%q gave %v, and should be refused with %q; it says\n%s", args, err, why, said)
	}
}

// signForAll signs for what people have to sign for, and for what could not be told.
func (s *stack) signForAll(ctx context.Context) error {
	v, err := s.preflight(ctx)
	if err != nil {
		return err
	}
	for _, it := range v.Items {
		if it.Before && it.Status != remediation.Pass {
			if err := s.sign(ctx, it.ID, "the test says so"); err != nil {
				return err
			}
		}
	}
	return nil
}

// untilRollout waits until the service's rollout is in a state and a stage.
func (s *stack) untilRollout(t *testing.T, state, stage string) {
	t.Helper()
	until(t, fmt.Sprintf("the rollout of %s is %s, stage %s", s.service, state, stage), func(ctx context.Context) error {
		r, err := s.rollout(ctx)
		if err == nil && (r.State != state || r.Stage != stage) {
			err = fmt.Errorf("it is %s, stage %s (%+v)", r.State, r.Stage, r.Gates)
		}
		return err
	})
	until(t, "Prometheus has seen stage "+stage+" of "+s.service, func(ctx context.Context) error {
		for expr, want := range map[string]string{
			fmt.Sprintf("rollout_stage{service=%q,stage=%q}", s.service, stage): "1",
			fmt.Sprintf("sum(rollout_stage{service=%q})", s.service):            "1",
		} {
			if got, _, err := s.query(ctx, expr); err != nil || got != want {
				return errors.Join(fmt.Errorf("%s is %q", expr, got), err)
			}
		}
		return nil
	})
}

// wantStage waits until the rollout is in a stage, and fails the test unless the
// service itself has its share of the traffic.
func (s *stack) wantStage(t *testing.T, stage, share string) {
	t.Helper()
	state := remediation.RolloutActive
	if stage == "full" {
		state = remediation.RolloutSoaking
	}
	s.untilRollout(t, state, stage)
	wantFlag(t, s, share)
}

// untilGate waits until a gate of the next stage is closed, and every other one open.
func (s *stack) untilGate(t *testing.T, name string) {
	t.Helper()
	until(t, "only gate "+name+" is closed", func(ctx context.Context) error {
		r, err := s.rollout(ctx)
		if err != nil {
			return err
		}
		for _, g := range r.Gates {
			if g.OK == (g.Gate == name) {
				return fmt.Errorf("%s: open %t: %s", g.Gate, g.OK, g.Why)
			}
		}
		return nil
	})
}

// incidents are the service's, without drills.
func (s *stack) incidents(t *testing.T) (list []view.IncidentView) {
	t.Helper()
	var answer struct{ Incidents []view.IncidentView }
	must(t, s.ask(t.Context(), "backout", "/api/v1/incidents?limit=1000", &answer))
	for _, inc := range answer.Incidents {
		if inc.Service == s.service && !inc.Drill {
			list = append(list, inc)
		}
	}
	return list
}

// entries are the service's entries of a kind.
func (s *stack) entries(t *testing.T, kind audit.Kind) (list []audit.Entry) {
	t.Helper()
	for _, e := range kinds(t, &log{stack: s}, kind) {
		if e.Service == s.service {
			list = append(list, e)
		}
	}
	return list
}

// wantPromotions fails the test unless the rollout was led through the stages, one
// after another, by who is said to have done so.
func (s *stack) wantPromotions(t *testing.T, by string, stages []stageOf) {
	t.Helper()
	var got, want []string
	for i, st := range stages {
		if i == 0 {
			want = append(want, "start-"+st.Name+" to "+st.Traffic+" by demo")
			continue
		}
		want = append(want, "promote-"+st.Name+" to "+st.Traffic+" by "+by)
	}
	for _, e := range s.entries(t, audit.KindIntent) {
		got = append(got, fmt.Sprintf("%s to %s by %s", e.Step, text(&e, "value"), e.Actor))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s was led through %q, not %q", s.service, got, want)
	}
}

// wantReason fails the test unless the service's only incident is about the stage's
// criterion and nothing else, and the audit log says by what it was seen.
func (s *stack) wantReason(t *testing.T, b breached) {
	t.Helper()
	list := s.incidents(t)
	if len(list) != 1 || list[0].State != remediation.Closed {
		t.Fatalf("the breach in %s came to the incidents %+v", b.stage, list)
	}
	for _, tr := range list[0].Triggers {
		if !slices.Contains(b.triggers, tr.Trigger) {
			t.Errorf("the incident in %s is about %s", b.stage, tr.Trigger)
		}
	}
	var steps []audit.Entry
	for _, e := range s.entries(t, audit.KindIntent) {
		if e.Incident == list[0].ID {
			steps = append(steps, e)
		}
	}
	if len(steps) != 1 || steps[0].Action != "flag_off" {
		t.Fatalf("the breach in %s was answered by %+v", b.stage, steps)
	}
	value, verr := strconv.ParseFloat(text(&steps[0], "value"), 64)
	bound, berr := strconv.ParseFloat(text(&steps[0], "threshold"), 64)
	if verr != nil || berr != nil || value <= bound || !slices.Contains(b.triggers, text(&steps[0], "trigger")) {
		t.Errorf("in %s the audit log gives the reason %v: %v, %v", b.stage, steps[0].Detail, verr, berr)
	}
}

// untilBeyond waits until Prometheus has seen the criteria that a breakage is beyond
// of for five seconds, whatever the stage. The expressions are written here: the
// generated ones are what is tested.
func (s *stack) untilBeyond(t *testing.T, b breakage.Breakage) {
	t.Helper()
	of := func(format string) string {
		return strings.ReplaceAll(format, "$job", fmt.Sprintf("job=%q", s.service))
	}
	var exprs []string
	if b.P1 > 0 {
		exprs = append(exprs, of(`sum(increase(si_p1_errors_total{$job}[10s])) > 0`))
	}
	if b.Latency > 0 {
		exprs = append(exprs, of(`histogram_quantile(0.95, sum by (le) (rate(si_latency_seconds_bucket{$job,endpoint=~"/analytics.*"}[10s]))) > 0.75`))
	}
	if b.Errors > 0 {
		exprs = append(exprs, of(`sum(increase(si_requests_total{$job,status!="success"}[15s])) / sum(increase(si_requests_total{$job}[15s])) > 0.005`))
	}
	if b.CPU > 0 {
		exprs = append(exprs, of(`sum(rate(container_cpu_usage_seconds_total{$job}[4s])) / sum(container_spec_cpu_quota{$job} / container_spec_cpu_period{$job}) > 0.9`),
			of(`max(container_memory_working_set_bytes{$job} / container_spec_memory_limit_bytes{$job}) > 0.9`))
	}
	for _, expr := range exprs {
		until(t, expr, func(ctx context.Context) error {
			seen, _, err := s.query(ctx, fmt.Sprintf("count_over_time((%s)[8s:1s])", expr))
			if n, perr := strconv.Atoi(seen); err == nil && (perr != nil || n < 7) {
				err = fmt.Errorf("it was so in %q of the last 8 seconds", seen)
			}
			return err
		})
	}
}
