package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/rules"
)

// Plan is a compiled playbook.
type Plan struct {
	*alerts.Playbook
	Expr  rules.Expressions
	Kinds map[string]remediation.ActionKind
}

// Compile compiles a playbook. It fails if a trigger's expression cannot be parsed.
func Compile(pb *alerts.Playbook, kinds []remediation.ActionKind) (*Plan, error) {
	expr, err := rules.ExpressionsOf(pb)
	if err != nil {
		return nil, fmt.Errorf("expressions of playbook %s: %w", pb.Service, err)
	}
	b := &Plan{Playbook: pb, Expr: expr, Kinds: map[string]remediation.ActionKind{}}
	for _, k := range kinds {
		b.Kinds[k.Name()] = k
	}
	return b, nil
}

// UnitOf is the unit of what a trigger measures, "" for a signal or an unknown one.
func (b *Plan) UnitOf(trigger string) alerts.Unit {
	if t := b.Trigger(trigger); t != nil {
		if ind := b.Indicator(t.Indicator); ind != nil {
			return ind.Unit
		}
	}
	return ""
}

// EstimateOf says what a trigger's value is where it is the end of a confidence interval, the one
// nearer to the bound; "" where it is the measured value itself.
func (b *Plan) EstimateOf(trigger string) string {
	t := b.Trigger(trigger)
	switch {
	case t == nil || t.Confidence == 0:
		return ""
	case t.Above != nil:
		return "at least, with " + remediation.Measure(t.Confidence, alerts.Ratio) + " confidence"
	}
	return "at most, with " + remediation.Measure(t.Confidence, alerts.Ratio) + " confidence"
}

// Poll is S: the time between two polls.
func (b *Plan) Poll() time.Duration { return time.Duration(b.ScrapeInterval) }

// SettleStart is W+2S over the attached triggers: before that, a recovery
// window still holds samples from before the step.
func (b *Plan) SettleStart(inc *remediation.Incident) time.Duration {
	return b.recoveryWindow(inc) + 2*b.Poll()
}

// SettleTime is how long a step is given: its own settle time, or what the
// attached triggers' recovery windows need at least.
func (b *Plan) SettleTime(inc *remediation.Incident, s *remediation.Step) time.Duration {
	return max(s.Settle, 2*b.recoveryWindow(inc)+4*b.Poll())
}

func (b *Plan) recoveryWindow(inc *remediation.Incident) (w time.Duration) {
	for _, t := range inc.Triggers {
		w = max(w, b.Expr.Triggers[t.Trigger].RecoveryWindow)
	}
	return w
}

// PlanStep returns the playbook's step that s was copied from.
func (b *Plan) PlanStep(s *remediation.Step) (alerts.Step, error) {
	plan := b.Plan(s.Plan)
	if plan == nil || s.PlanIndex >= len(plan.Steps) {
		return alerts.Step{}, fmt.Errorf("step %s: playbook has no step %d in plan %q", s.ID(), s.PlanIndex+1, s.Plan)
	}
	return plan.Steps[s.PlanIndex], nil
}

// Bind returns the action of the step s.
func (b *Plan) Bind(s *remediation.Step) (remediation.Action, error) {
	step, err := b.PlanStep(s)
	if err != nil {
		return nil, err
	}
	kind := b.Kinds[step.Action]
	if kind == nil {
		return nil, fmt.Errorf("step %s: no such kind of action: %s", s.ID(), step.Action)
	}
	return kind.Bind(b.Playbook, step.Params)
}

// Ahead returns what is left of the error of a look ahead at step i of a plan once the
// steps before it have run: nil where one of them leaves the version running that it
// refuses to go without.
func (b *Plan) Ahead(p *alerts.Plan, i int, err error) error {
	var wants *remediation.VersionError
	if !errors.As(err, &wants) {
		return err
	}
	for _, s := range p.Steps[:i] {
		if k, ok := b.Kinds[s.Action].(remediation.VersionSetter); ok && slices.Contains(wants.Versions, k.Version(b.Playbook, s.Params)) {
			return nil
		}
	}
	return err
}

// AddPlan adds the steps of the named plan that the incident does not have
// yet, and returns the ids of those added. Steps are the same if action,
// target and parameters are; one that the incident has takes the stricter settings of
// the two plans.
func (b *Plan) AddPlan(inc *remediation.Incident, name string) ([]string, error) {
	plan := b.Plan(name)
	if plan == nil {
		return nil, fmt.Errorf("playbook %s has no plan %q", b.Service, name)
	}
	has, err := b.steps(inc)
	if err != nil {
		return nil, err
	}
	var added []string
	for i, s := range plan.Steps {
		kind := b.Kinds[s.Action]
		if kind == nil {
			return nil, fmt.Errorf("plan %s: no such kind of action: %s", name, s.Action)
		}
		target := kind.Target(b.Playbook, s.Params)
		k, err := remediation.Identity(s, target)
		if err != nil {
			return nil, err
		}
		if n := has[k]; n > 0 {
			inc.Steps[n-1].Stricter(s)
			continue
		}
		step := remediation.Step{
			Number: len(inc.Steps) + 1, Action: s.Action, Target: target, Risk: kind.Risk(), State: remediation.StepPending,
			Plan: name, PlanIndex: i,
			Settle: time.Duration(s.Settle), Timeout: time.Duration(s.Timeout), OnFailure: s.OnFailure,
		}
		_, step.Tells = kind.(remediation.Communicator)
		if s.Approval != nil {
			step.Approve = time.Duration(s.Approval.Timeout)
		}
		inc.Steps = append(inc.Steps, step)
		added = append(added, step.ID())
	}
	return added, nil
}

// Listed returns the numbers of the incident's steps that a plan has.
func (b *Plan) Listed(inc *remediation.Incident, name string) ([]int, error) {
	plan := b.Plan(name)
	if plan == nil {
		return nil, fmt.Errorf("playbook %s has no plan %q", b.Service, name)
	}
	has, err := b.steps(inc)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, s := range plan.Steps {
		k, err := remediation.Identity(s, b.Kinds[s.Action].Target(b.Playbook, s.Params))
		if err != nil {
			return nil, err
		}
		if has[k] > 0 {
			out = append(out, has[k])
		}
	}
	return out, nil
}

// steps are the numbers of the incident's steps by their identity.
func (b *Plan) steps(inc *remediation.Incident) (map[string]int, error) {
	out := map[string]int{}
	for i := range inc.Steps {
		s, err := b.PlanStep(&inc.Steps[i])
		if err != nil {
			return nil, err
		}
		k, err := remediation.Identity(s, inc.Steps[i].Target)
		if err != nil {
			return nil, err
		}
		out[k] = inc.Steps[i].Number
	}
	return out, nil
}

// Empty replaces a playbook that cannot be read, so that a person can act: it has
// no plan and tells nobody.
func Empty(inc *remediation.Incident) *Plan {
	return &Plan{Playbook: &alerts.Playbook{Service: inc.Service}}
}

// AlertKinds are the kinds as a playbook's reader takes them.
func AlertKinds(kinds []remediation.ActionKind) []alerts.ActionKind {
	out := make([]alerts.ActionKind, len(kinds))
	for i, k := range kinds {
		out[i] = k
	}
	return out
}

// BackPlan is the plan that an abort runs: that of the playbook's first trigger
// which counts in every stage or, if there is none, of its first one.
func (b *Plan) BackPlan() *alerts.Plan {
	for _, t := range b.Triggers {
		if len(b.StagesOf(t.Name)) == 0 {
			return b.Plan(t.Plan)
		}
	}
	if len(b.Triggers) > 0 {
		return b.Plan(b.Triggers[0].Plan)
	}
	if len(b.Plans) > 0 {
		return &b.Plans[0]
	}
	return nil
}

// CallFor is the call that an incident starts, nil if it starts none: a drill does
// not, nor one whose severity, that of its most severe trigger, is not above the playbook's bound.
func (b *Plan) CallFor(inc *remediation.Incident) *remediation.CallView {
	if inc.Drill || b.Communications == nil || b.Communications.IncidentCall == nil {
		return nil
	}
	severity := 0
	for i := range inc.Triggers {
		if t := b.Trigger(inc.Triggers[i].Trigger); t != nil {
			severity = max(severity, t.Severity)
		}
	}
	if severity == 0 { // an abort
		severity = alerts.DefaultSeverity
	}
	call := b.Communications.IncidentCall
	if severity <= call.SeverityAbove {
		return nil
	}
	return &remediation.CallView{Severity: severity, URL: call.URL}
}

// Setter returns the action that a promotion runs.
func (b *Plan) Setter(flag, value string) (target string, a remediation.Action, err error) {
	for _, k := range b.Kinds {
		if s, ok := k.(remediation.FlagSetter); ok {
			return s.SetFlag(b.Playbook, flag, value)
		}
	}
	return "", nil, errors.New("no configured action sets flags")
}

// StateIn is a rollout's state in a stage: in the last one, with all of the
// traffic, it soaks.
func (b *Plan) StateIn(stage string) string {
	if s := b.Stage(stage); s != nil && b.NextStage(stage) == nil {
		if share, ok := s.Share(); ok && share >= 1 {
			return remediation.RolloutSoaking
		}
	}
	return remediation.RolloutActive
}

// NextStage returns the stage after the named one, the first after none, and nil
// after the last.
func (b *Plan) NextStage(stage string) *alerts.Stage {
	for i := range b.Stages {
		if stage == remediation.StageNone {
			return &b.Stages[i]
		}
		if b.Stages[i].Name == stage {
			stage = remediation.StageNone
		}
	}
	return nil
}

// Lasted says whether the stage has lasted for its least time.
func (b *Plan) Lasted(r remediation.Rollout, now time.Time) remediation.GateResult {
	at := b.PromotableAt(r)
	if at == nil || !at.After(now) {
		return remediation.GateOpen("duration", "")
	}
	return remediation.GateClosed("duration", "stage %s lasts until %s, %s more", r.Stage, remediation.Moment(*at), remediation.Span(at.Sub(now)))
}

// PromotableAt is when a stage has lasted for its least time.
func (b *Plan) PromotableAt(r remediation.Rollout) *time.Time {
	stage := b.Stage(r.Stage)
	if stage == nil || r.StageSince == nil || !r.Active() {
		return nil
	}
	at := r.StageSince.Add(time.Duration(stage.Duration)).UTC()
	return &at
}

// Smoke runs the playbook's smoke checks, one after another.
func (b *Plan) Smoke(ctx context.Context) []remediation.Check {
	ctx, cancel := context.WithTimeout(ctx, remediation.SmokesTimeout)
	defer cancel()
	out := []remediation.Check{}
	var tester remediation.SmokeTester
	for _, k := range b.Kinds {
		if t, ok := k.(remediation.SmokeTester); ok {
			tester = t
		}
	}
	for _, s := range b.Target.Probe.Smoke {
		check := remediation.Check{Name: s.Name, OK: true, Detail: s.URL + " answers as expected"}
		if tester == nil {
			check.OK, check.Detail = false, "no configured action can check "+s.URL
		} else if err := remediation.AskSmoke(ctx, tester, s); err != nil {
			check.OK, check.Detail = false, err.Error()
		}
		out = append(out, check)
	}
	return out
}

// Ladder are a plan's steps in the order in which an incident of this plan alone
// would come to them.
func (b *Plan) Ladder(plan string) ([]remediation.Step, error) {
	inc := &remediation.Incident{Service: b.Service}
	if _, err := b.AddPlan(inc, plan); err != nil {
		return nil, err
	}
	var out []remediation.Step
	for {
		s := inc.ToTell()
		if s == nil {
			s = inc.Next()
		}
		if s == nil {
			return out, nil
		}
		out = append(out, *s)
		s.State = remediation.StepSkipped
	}
}

// Generated are the rules of the playbook, in their order.
func (b *Plan) Generated() ([]remediation.LoadedRule, error) {
	made, err := rules.Rules(b.Playbook)
	if err != nil {
		return nil, err
	}
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Record      string            `yaml:"record"`
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         model.Duration    `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(made.Content, &file); err != nil {
		return nil, fmt.Errorf("read %s: %w", made.Name, err)
	}
	var out []remediation.LoadedRule
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			out = append(out, remediation.LoadedRule{
				Group: g.Name, Name: r.Record + r.Alert, Alert: r.Alert != "", Expr: r.Expr, For: time.Duration(r.For),
				Labels: r.Labels, Annotations: r.Annotations,
			})
		}
	}
	return out, nil
}

// WidestQuery is an indicator's query over its widest.
func (b *Plan) WidestQuery(ind *alerts.Indicator) (parser.Expr, error) {
	span, volume := b.Widest(ind.Name)
	return remediation.PromQL().ParseExpr(b.Expand(ind.Query, span, volume))
}

// Widest is the window over which an indicator is evaluated first, and its volume: its
// alert's, else a trigger's, else a stage's.
func (b *Plan) Widest(indicator string) (window time.Duration, volume float64) {
	if a := b.Indicator(indicator).Alert; a != nil && a.Window > 0 {
		return time.Duration(a.Window), a.MinVolume
	}
	for i := range b.Triggers {
		if t := &b.Triggers[i]; t.Indicator == indicator && t.Window > 0 {
			return time.Duration(t.Window), t.MinVolume
		}
	}
	for _, s := range b.Stages {
		for _, c := range s.Success {
			if c.Indicator == indicator && c.Window > 0 {
				return time.Duration(c.Window), c.MinVolume
			}
		}
	}
	return 5 * time.Minute, 0
}

// Thresholds are the values that an indicator is compared with.
func (b *Plan) Thresholds(ind *alerts.Indicator) []float64 {
	var out []float64
	add := func(bounds ...*float64) {
		for _, v := range bounds {
			if v != nil && !slices.Contains(out, *v) {
				out = append(out, *v)
			}
		}
	}
	if ind.Alert != nil {
		add(ind.Alert.Above, ind.Alert.Below)
	}
	for i := range b.Triggers {
		if t := &b.Triggers[i]; t.Indicator == ind.Name {
			add(t.Above, t.Below)
		}
	}
	for _, s := range b.Stages {
		for _, c := range s.Success {
			if c.Indicator == ind.Name {
				add(c.Above, c.Below)
			}
		}
	}
	slices.Sort(out)
	return out
}
