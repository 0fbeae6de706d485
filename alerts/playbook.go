// Package alerts holds the playbook: the one file in which a service's
// thresholds, durations, flags, ladders and limits are written.
//
// Everything else in backout is derived from a Playbook: package rules
// generates the Prometheus rules from it, package remediation carries out its
// plans. A Playbook that Load returned is valid; nothing behind it checks again.
package alerts

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
)

// Playbook is one service's playbook, decoded and valid.
type Playbook struct {
	// Service is the name in the rules' service label and in every incident.
	Service string `yaml:"service"`
	// Release is the version being rolled out and the one to fall back to.
	Release Release `yaml:"release"`
	// Job is the Prometheus job whose up series tells that the service is scraped.
	Job string `yaml:"job"`
	// ScrapeInterval is S in the documentation: the distance of two polls.
	ScrapeInterval model.Duration `yaml:"scrape_interval"`
	// Up holds label matchers, such as service="shop", that select the service's
	// own targets where others share the job; "": all targets of the job are its own.
	Up string `yaml:"up,omitempty"`
	// Alive is a PromQL expression, 1 while the service has traffic; the
	// generator multiplies it by up.
	Alive string `yaml:"alive"`
	// Selectors names sets of label matchers that queries refer to as $name,
	// inside of the braces: {$analytics,status!="success"}.
	Selectors map[string]string `yaml:"selectors,omitempty"`

	Target     Target            `yaml:"target"`
	Flags      []Flag            `yaml:"flags"`
	Indicators []Indicator       `yaml:"indicators"`
	Triggers   []Trigger         `yaml:"triggers"`
	Stages     []Stage           `yaml:"stages"`
	Plans      []Plan            `yaml:"plans"`
	Dashboards map[string]string `yaml:"dashboards,omitempty"`
	// DashboardAliases names, for an indicator's dashboard that Dashboards does
	// not list, the listed one that it is part of.
	DashboardAliases map[string]string `yaml:"dashboard_aliases,omitempty"`
	RunbookURL       string            `yaml:"runbook_url,omitempty"`

	Confirmation Confirmation   `yaml:"confirmation"`
	Limits       Limits         `yaml:"limits"`
	Warmup       model.Duration `yaml:"warmup"`
	Watchdog     Watchdog       `yaml:"watchdog"`

	// Guide is what people do, and what they are told.
	Guide `yaml:",inline"`

	// Hash is the lower-case hex SHA-256 of the file's bytes, Source the bytes.
	Hash   string `yaml:"-"`
	Source []byte `yaml:"-"`

	// pos is where in the file each value stands.
	pos position
}

// Release is the version being rolled out and the one before it.
type Release struct {
	Version  string `yaml:"version"`
	Previous string `yaml:"previous"`
}

// Target is where the service runs.
type Target struct {
	Compose ComposeTarget `yaml:"compose"`
	Probe   Probe         `yaml:"probe"`
}

// ComposeTarget is a service of a compose project on this machine.
type ComposeTarget struct {
	// ProjectDir is an absolute path.
	ProjectDir string `yaml:"project_dir"`
	// Project is the project's name (docker compose -p). It may be left out where all
	// containers of the folder belong to one project.
	Project string `yaml:"project,omitempty"`
	Service string `yaml:"service"`
}

// Probe is how a recreated service is seen to work: addresses on loopback or
// the service's own network.
type Probe struct {
	Health  string         `yaml:"health"`
	Version string         `yaml:"version,omitempty"`
	Flags   string         `yaml:"flags,omitempty"`
	Timeout model.Duration `yaml:"timeout"`
	// Smoke are checks of what the service is for; each must hold after an image
	// was changed, and in backout verify.
	Smoke []SmokeCheck `yaml:"smoke,omitempty"`
}

// SmokeCheck is one request and what its answer must be.
type SmokeCheck struct {
	Name string `yaml:"name"`
	URL  string `yaml:"url"`
	// Status is the HTTP status of the answer; 200 by default.
	Status int `yaml:"status,omitempty"`
	// Contains must stand in the answer's first MiB, where it is not "".
	Contains string `yaml:"contains,omitempty"`
}

// LaunchDarklyFlag is where LaunchDarkly keeps a flag.
type LaunchDarklyFlag struct {
	Project     string `yaml:"project"`
	Environment string `yaml:"environment"`
	Key         string `yaml:"key"`
}

// Flag is a feature flag: an environment variable in the compose project's .env,
// or one that LaunchDarkly keeps.
type Flag struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description,omitempty"`
	Off         string `yaml:"off"`
	Default     string `yaml:"default"`
	Fallback    string `yaml:"fallback"`
	// Master: its value is the share of the traffic, which stages set. One flag at
	// most is; where none is, the first one.
	Master bool `yaml:"master,omitempty"`
	// LaunchDarkly, where it is not nil, keeps the flag instead of the
	// compose project; off is then the flag's off variation.
	LaunchDarkly *LaunchDarklyFlag `yaml:"launchdarkly,omitempty"`
}

// Indicator is a measured quantity.
type Indicator struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description,omitempty"`
	// Query is a PromQL expression that gives one sample, without a
	// comparison; Playbook.Expand fills its variables in. A windowed query
	// holds $window (and $min_volume, as a guard against few requests) and is
	// judged over a trigger's `window`. An instant query, such as one of a CPU
	// gauge, holds no $window and is judged by `sustained`: at each moment of
	// it.
	Query string `yaml:"query"`
	Unit  Unit   `yaml:"unit"`
	// Target is the value aimed at.
	Target *float64    `yaml:"target,omitempty"`
	Alert  *AlertBound `yaml:"alert,omitempty"`
	// Buckets are the upper bounds of the histogram that Query reads, where it
	// reads one: a quantile is exact only at those.
	Buckets []float64 `yaml:"buckets,omitempty"`
	// ScrapeInterval is how often Prometheus scrapes what Query reads, where that is
	// less often than the service: an exporter of its own.
	ScrapeInterval model.Duration `yaml:"scrape_interval,omitempty"`
	// Dashboard is a name, which Playbook.Dashboards may give an address.
	Dashboard string `yaml:"dashboard,omitempty"`
}

// Instant tells an instant query from a windowed one.
func (i *Indicator) Instant() bool { return !uses(i.Query, windowVariable) }

// ScrapeIntervalOf is how often an indicator's series are scraped.
func (p *Playbook) ScrapeIntervalOf(ind *Indicator) model.Duration {
	if ind != nil && ind.ScrapeInterval > 0 {
		return ind.ScrapeInterval
	}
	return p.ScrapeInterval
}

// Unit is what an indicator is measured in.
type Unit string

// The units. A ratio is 0 to 1.
const (
	Ratio        Unit = "ratio"
	Percent      Unit = "percent"
	Seconds      Unit = "seconds"
	Milliseconds Unit = "milliseconds"
	Bytes        Unit = "bytes"
	Count        Unit = "count"
	PerSecond    Unit = "per_second"
)

// AlertBound is an indicator's alert threshold: it warns, and rolls nothing back.
type AlertBound struct {
	Above     *float64       `yaml:"above,omitempty"`
	Below     *float64       `yaml:"below,omitempty"`
	Window    model.Duration `yaml:"window,omitempty"`
	Sustained model.Duration `yaml:"sustained,omitempty"`
	MinVolume float64        `yaml:"min_volume,omitempty"`
}

// Trigger is a condition that rolls back: an indicator beyond a bound, or a signal.
type Trigger struct {
	Name        string         `yaml:"name"`
	Description string         `yaml:"description,omitempty"`
	Indicator   string         `yaml:"indicator,omitempty"`
	Signal      string         `yaml:"signal,omitempty"`
	Above       *float64       `yaml:"above,omitempty"`
	Below       *float64       `yaml:"below,omitempty"`
	Window      model.Duration `yaml:"window,omitempty"`
	Sustained   model.Duration `yaml:"sustained,omitempty"`
	MinVolume   float64        `yaml:"min_volume,omitempty"`
	// Confidence, where it is not 0, is how sure a ratio of counts must be to lie
	// beyond the bound: the nearer end of its Wilson score interval is compared, so
	// that few requests need a clearer breach. Above 0.5 and below 1, such as 0.95.
	Confidence float64  `yaml:"confidence,omitempty"`
	Recovery   Recovery `yaml:"recovery,omitempty"`
	// Severity is how grave an incident of it is, from 1 to 5, the gravest.
	Severity int    `yaml:"severity,omitempty"`
	Plan     string `yaml:"plan"`
}

// DefaultSeverity is that of a trigger that names none: what rolls a release back
// is graver than an alert.
const DefaultSeverity = 3

// Recovery is the short window by which a trigger is judged after a step.
type Recovery struct {
	Window    model.Duration `yaml:"window"`
	MinVolume float64        `yaml:"min_volume,omitempty"`
	// Above or Below is the bound of the short window, on the trigger's own side,
	// where it is not the trigger's: a count is smaller over a shorter window.
	Above *float64 `yaml:"above,omitempty"`
	Below *float64 `yaml:"below,omitempty"`
}

// Stage is one stage of the canary.
type Stage struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description,omitempty"`
	// Traffic is the share of the traffic, above 0 and at most 1, as the
	// master flag takes it.
	Traffic string `yaml:"traffic"`
	// Duration is how long the stage lasts at least; the last one soaks that long.
	Duration model.Duration `yaml:"duration,omitempty"`
	Success  []Criterion    `yaml:"success,omitempty"`
	// Rollback names triggers whose samples count only in this stage.
	Rollback []string `yaml:"rollback,omitempty"`
}

// Share is the stage's traffic as a number; ok is false where it is none.
func (s *Stage) Share() (share float64, ok bool) {
	share, err := strconv.ParseFloat(s.Traffic, 64)
	return share, err == nil
}

// Criterion is a bound that an indicator must keep for a stage to succeed:
// over Window where its query is windowed, at each moment of Sustained where
// it is instant. Load has set one of the two.
type Criterion struct {
	Indicator string         `yaml:"indicator"`
	Above     *float64       `yaml:"above,omitempty"`
	Below     *float64       `yaml:"below,omitempty"`
	Window    model.Duration `yaml:"window,omitempty"`
	Sustained model.Duration `yaml:"sustained,omitempty"`
	MinVolume float64        `yaml:"min_volume,omitempty"`
}

// Plan is a ladder of steps.
type Plan struct {
	Name  string `yaml:"name"`
	Steps []Step `yaml:"steps"`
}

// Step is one rung of a plan. Params is the action's own parameters, decoded
// strictly by the action's kind.
type Step struct {
	Action    string
	Settle    model.Duration
	Timeout   model.Duration
	Approval  *Approval
	OnFailure OnFailure
	Risk      Risk
	Params    any

	// communicates: the step tells people something and changes no production.
	communicates bool
}

// Approval is how long a human's yes is waited for; silence is a no.
type Approval struct {
	Timeout model.Duration `yaml:"timeout"`
}

// OnFailure says what follows a step that failed and was undone.
type OnFailure string

// The two ways on after a failed step; wait is the default.
const (
	OnFailureWait OnFailure = "wait"
	OnFailureNext OnFailure = "next"
)

// Risk is an action's risk class; higher is worse.
type Risk int

// The risk classes, in the order in which a plan's steps run.
const (
	Reversible Risk = iota + 1
	Disruptive
	Lossy
)

// String returns the name the API and the audit log use.
func (r Risk) String() string {
	switch r {
	case Reversible:
		return "reversible"
	case Disruptive:
		return "disruptive"
	case Lossy:
		return "lossy"
	}
	return fmt.Sprintf("Risk(%d)", int(r))
}

// MarshalText implements encoding.TextMarshaler.
func (r Risk) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Risk) UnmarshalText(b []byte) error {
	for _, k := range []Risk{Reversible, Disruptive, Lossy} {
		if k.String() == string(b) {
			*r = k
			return nil
		}
	}
	return fmt.Errorf("unknown risk class %q", b)
}

// Confirmation says, by risk class, whether a step may run while Prometheus
// does not answer.
type Confirmation struct {
	Reversible Confirm `yaml:"reversible"`
	Disruptive Confirm `yaml:"disruptive"`
	Lossy      Confirm `yaml:"lossy"`
}

// Confirm is how strictly a step needs the condition to be seen true.
type Confirm string

// The two strictnesses.
const (
	ConfirmIfReachable Confirm = "if_reachable"
	ConfirmRequired    Confirm = "required"
)

// For returns the strictness for a risk class.
func (c Confirmation) For(r Risk) Confirm {
	switch r {
	case Reversible:
		return c.Reversible
	case Disruptive:
		return c.Disruptive
	}
	return c.Lossy
}

// Limits bounds how much automation may do. A zero Rate or count has been
// replaced by its default by Load.
type Limits struct {
	PerTarget   Rate           `yaml:"per_target"`
	PerService  Rate           `yaml:"per_service"`
	BlastRadius Rate           `yaml:"blast_radius"`
	Cooldown    model.Duration `yaml:"cooldown"`
	// Breaker is the number of failed steps in a row that stops automation.
	Breaker      int            `yaml:"breaker"`
	ReopenWithin model.Duration `yaml:"reopen_within"`
	CloseAfter   model.Duration `yaml:"close_after"`
}

// Rate is "count/window", such as 3/1h.
type Rate struct {
	Count  int
	Window time.Duration
}

// ParseRate reads "3/1h".
func ParseRate(s string) (Rate, error) {
	for i := range s {
		if s[i] != '/' {
			continue
		}
		n, err := strconv.Atoi(s[:i])
		if err != nil || n < 1 {
			return Rate{}, fmt.Errorf("rate %q: the count before the slash is not a number above 0", s)
		}
		d, err := model.ParseDuration(s[i+1:])
		if err != nil || d <= 0 {
			return Rate{}, fmt.Errorf("rate %q: the window after the slash is not a duration such as 1h", s)
		}
		return Rate{Count: n, Window: time.Duration(d)}, nil
	}
	return Rate{}, fmt.Errorf("rate %q: write count/window, such as 3/1h", s)
}

// String returns the form ParseRate reads.
func (r Rate) String() string {
	return fmt.Sprintf("%d/%s", r.Count, model.Duration(r.Window))
}

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRate(string(b))
	return err
}

// Watchdog is the alert that always fires; its absence means blind.
type Watchdog struct {
	MaxAge model.Duration `yaml:"max_age"`
}

// ActionKind is what the loader must know of a kind of action. Package
// remediation/action implements it; alerts does not know the kinds.
type ActionKind interface {
	// Name is the word in a step's action key.
	Name() string
	// Risk is the kind's risk class.
	Risk() Risk
	// NewParams returns a pointer to a fresh parameter struct with yaml tags;
	// the loader decodes a step's own keys into it, strictly.
	NewParams() any
	// CheckParams reports what is wrong with decoded parameters in this
	// playbook, as (key, problem, hint) triples; none where they are good. pb is
	// not known to be valid yet: a list may be empty, a name "".
	CheckParams(pb *Playbook, params any) []ParamProblem
}

// ParamProblem is one fault in a step's parameters.
type ParamProblem struct{ Key, Problem, Try string }

// Trigger returns the named trigger, or nil.
func (p *Playbook) Trigger(name string) *Trigger {
	for i := range p.Triggers {
		if p.Triggers[i].Name == name {
			return &p.Triggers[i]
		}
	}
	return nil
}

// Indicator returns the named indicator, or nil.
func (p *Playbook) Indicator(name string) *Indicator {
	for i := range p.Indicators {
		if p.Indicators[i].Name == name {
			return &p.Indicators[i]
		}
	}
	return nil
}

// Board returns the listed dashboard that an indicator is on, by its own name
// or by an alias; "" where it is on none.
func (p *Playbook) Board(ind *Indicator) string {
	for _, name := range []string{ind.Dashboard, p.DashboardAliases[ind.Dashboard]} {
		if _, ok := p.Dashboards[name]; ok {
			return name
		}
	}
	return ""
}

// Plan returns the named plan, or nil.
func (p *Playbook) Plan(name string) *Plan {
	for i := range p.Plans {
		if p.Plans[i].Name == name {
			return &p.Plans[i]
		}
	}
	return nil
}

// Flag returns the named flag, or nil.
func (p *Playbook) Flag(name string) *Flag {
	for i := range p.Flags {
		if p.Flags[i].Name == name {
			return &p.Flags[i]
		}
	}
	return nil
}

// Master returns the flag whose value is the share of the traffic, or nil.
func (p *Playbook) Master() *Flag {
	for i := range p.Flags {
		if p.Flags[i].Master {
			return &p.Flags[i]
		}
	}
	if len(p.Flags) > 0 {
		return &p.Flags[0]
	}
	return nil
}

// Stage returns the named stage, or nil.
func (p *Playbook) Stage(name string) *Stage {
	for i := range p.Stages {
		if p.Stages[i].Name == name {
			return &p.Stages[i]
		}
	}
	return nil
}

// StagesOf returns the names of the stages that list the trigger under
// rollback: it counts only in those. None: it counts always.
func (p *Playbook) StagesOf(trigger string) []string {
	var names []string
	for _, s := range p.Stages {
		if slices.Contains(s.Rollback, trigger) {
			names = append(names, s.Name)
		}
	}
	return names
}

// Bound returns a trigger's threshold, and whether values above it (rather
// than below it) are beyond it. Zero for a signal.
func (t *Trigger) Bound() (threshold float64, above bool) {
	if t.Below != nil {
		return *t.Below, false
	}
	if t.Above != nil {
		return *t.Above, true
	}
	return 0, true
}

// RecoveryBound is the threshold of the short window, on the trigger's own side.
func (t *Trigger) RecoveryBound() float64 {
	threshold, above := t.Bound()
	switch {
	case above && t.Recovery.Above != nil:
		return *t.Recovery.Above
	case !above && t.Recovery.Below != nil:
		return *t.Recovery.Below
	}
	return threshold
}

// Span is the trigger's window or its sustained duration, whichever it has.
func (t *Trigger) Span() time.Duration {
	if t.Sustained > 0 {
		return time.Duration(t.Sustained)
	}
	return time.Duration(t.Window)
}
