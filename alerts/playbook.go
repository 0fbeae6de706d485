// Package alerts holds the playbook: the one file in which a service's
// thresholds, durations, flags, rollback plans and limits are written.
//
// Everything else in backout is derived from a Playbook: package rules
// generates the Prometheus rules from it, package remediation runs its
// plans. A Playbook that Load returned is valid; no other package checks it again.
package alerts

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/hint"
)

// Playbook is one service's playbook, decoded and valid.
//
// The comments of its fields are the playbook reference in docs: each says what the
// key means and its unit. "Default:" at the end is for defaults that depend on other
// keys; constant ones are found by loading a playbook without the key.
type Playbook struct {
	// Service is the service's name: the service label in the rules, and the name in
	// every incident. Letters, digits and . _ -.
	Service string `yaml:"service"`
	// Release is the version being rolled out and the one to fall back to.
	Release Release `yaml:"release"`
	// Job is the Prometheus job that scrapes the service; its up series shows whether
	// the service is scraped.
	Job string `yaml:"job"`
	// ScrapeInterval is how often Prometheus scrapes the service, and how often backout
	// polls. The documentation calls it S.
	ScrapeInterval model.Duration `yaml:"scrape_interval"`
	// Up holds label matchers that select the service's own targets if other services
	// share the job. Without it, all targets of the job belong to the service.
	Up string `yaml:"up,omitempty"`
	// Alive is a PromQL expression that is 1 while the service has traffic. The generator
	// multiplies it by up. It looks back at least 4 scrape intervals, and at most as far as
	// the shortest recovery.window of the triggers.
	Alive string `yaml:"alive"`
	// Selectors names sets of label matchers. Queries refer to them as $name inside the
	// braces: {$analytics,status!="success"}.
	Selectors map[string]string `yaml:"selectors,omitempty"`

	// Target is where the service runs.
	Target Target `yaml:"target"`
	// Flags are the service's feature flags.
	Flags []Flag `yaml:"flags"`
	// Indicators are the quantities that alerts, triggers and stages measure.
	Indicators []Indicator `yaml:"indicators"`
	// Triggers are the conditions that start a rollback.
	Triggers []Trigger `yaml:"triggers"`
	// Stages are the stages of the canary, in order, with rising traffic.
	Stages []Stage `yaml:"stages"`
	// Plans are the rollback plans that triggers refer to.
	Plans []Plan `yaml:"plans"`
	// Dashboards are the addresses of Grafana dashboards, by name. They are generated,
	// and the rules' annotations link to them.
	Dashboards map[string]string `yaml:"dashboards,omitempty"`
	// DashboardAliases names, for an indicator's dashboard that dashboards does not list,
	// the listed one that it is part of.
	DashboardAliases map[string]string `yaml:"dashboard_aliases,omitempty"`
	// RunbookURL is the address in the alerts' runbook_url annotation.
	RunbookURL string `yaml:"runbook_url,omitempty"`

	// Confirmation says, for each risk class, whether a step may run while Prometheus
	// does not answer.
	Confirmation Confirmation `yaml:"confirmation"`
	// Limits bounds how much backout may do without a person.
	Limits Limits `yaml:"limits"`
	// Warmup is how long confirming waits after a step of backout's own: recreating a
	// container makes the latency jump.
	Warmup model.Duration `yaml:"warmup"`
	// Watchdog is the alert that always fires; without it, monitoring is lost.
	Watchdog Watchdog `yaml:"watchdog"`

	// Guide is what people do, and what they are told.
	Guide `yaml:",inline"`

	// Hash is the lower-case hex SHA-256 of the file's bytes, Source the bytes.
	Hash   string `yaml:"-"`
	Source []byte `yaml:"-"`
	// Example: it is the built-in one, since none was given.
	Example bool `yaml:"-"`

	// pos is the place of each value in the file.
	pos position
}

// Release is the version being rolled out and the one before it.
type Release struct {
	// Version is the image tag being rolled out.
	Version string `yaml:"version"`
	// Previous is the image tag to fall back to.
	Previous string `yaml:"previous"`
}

// Target is where the service runs: one of Compose, Kubernetes and Swarm.
type Target struct {
	// Compose is the compose service on this machine. Write compose, kubernetes or swarm.
	Compose ComposeTarget `yaml:"compose,omitempty"`
	// Kubernetes is the Deployment or StatefulSet in a cluster.
	Kubernetes *KubernetesTarget `yaml:"kubernetes,omitempty"`
	// Swarm is the service in a Docker Swarm.
	Swarm *SwarmTarget `yaml:"swarm,omitempty"`
	// Probe is how backout checks that a recreated service works.
	Probe Probe `yaml:"probe"`
}

// InCompose reports whether the target is a compose service.
func (t Target) InCompose() bool { return t.Kubernetes == nil && t.Swarm == nil }

// ComposeTarget is a service of a compose project on this machine.
type ComposeTarget struct {
	// ProjectDir is the folder of the compose project, an absolute path.
	ProjectDir string `yaml:"project_dir"`
	// Project is the project's name (docker compose -p). It may be left out if all
	// containers of the folder belong to one project.
	Project string `yaml:"project,omitempty"`
	// Service is the name of the service in the compose file.
	Service string `yaml:"service"`
	// Host is the machine that the project is on, where several replicas of backout share
	// a database: only one that has this host in replica.hosts acts on it. Without it any
	// replica may.
	Host string `yaml:"host,omitempty"`
}

// SwarmTarget is a service in the Docker Swarm that the engine of docker.host, in
// backout's configuration, is a manager of.
type SwarmTarget struct {
	// Service is the service's name as docker service ls lists it, such as shop_web.
	Service string `yaml:"service"`
	// StackFile is the file that docker stack deploy takes, an absolute path in one of the
	// configured project folders. Required if a stack has the service.
	StackFile string `yaml:"stack_file,omitempty"`
	// EnvFile has the variables of the stack file: a file that its service names under
	// env_file, or that the shell reads before docker stack deploy. backout writes flags and
	// image tags there. An absolute path. Write it with stack_file.
	EnvFile string `yaml:"env_file,omitempty"`
}

// KubernetesTarget is one container of a Deployment or a StatefulSet.
type KubernetesTarget struct {
	// Context is the context of the kubeconfig (kubernetes.kubeconfig in backout's
	// configuration). Leave it out if backout runs in the cluster itself.
	Context string `yaml:"context,omitempty"`
	// Namespace is the namespace of all that is named here.
	Namespace string `yaml:"namespace"`
	// Deployment is the name of the Deployment. Write deployment or statefulset.
	Deployment string `yaml:"deployment,omitempty"`
	// StatefulSet is the name of the StatefulSet.
	StatefulSet string `yaml:"statefulset,omitempty"`
	// Container is the name of the container that has the flags and the image.
	Container string `yaml:"container"`
	// Flags is where the flags' values are stored: env for the container's own environment,
	// {configmap: NAME} for a ConfigMap that the container takes its environment from.
	// Default: env.
	Flags KubernetesFlags `yaml:"flags,omitempty"`
	// GitOps says how a GitOps tool is kept from putting back what backout changes.
	// Required if such a tool owns the flag or the image.
	GitOps *GitOps `yaml:"gitops,omitempty"`
}

// Kind is deployment or statefulset, as in kubectl get KIND.
func (t *KubernetesTarget) Kind() string {
	if t.StatefulSet != "" {
		return "statefulset"
	}
	return "deployment"
}

// Name is the workload's name.
func (t *KubernetesTarget) Name() string { return cmp.Or(t.StatefulSet, t.Deployment) }

// KubernetesFlags is where a Kubernetes target stores its flags.
type KubernetesFlags struct {
	// ConfigMap is the ConfigMap's name; "" for the container's own environment.
	ConfigMap string `yaml:"configmap"`
}

// UnmarshalText reads env. A mapping is read by its keys.
func (f *KubernetesFlags) UnmarshalText(b []byte) error {
	if string(b) != "env" {
		return fmt.Errorf("unknown value %q (env, or {configmap: NAME})", b)
	}
	*f = KubernetesFlags{}
	return nil
}

// orMapping lets the decoder read a mapping too.
func (*KubernetesFlags) orMapping() {}

// GitOps says how a GitOps tool is kept from putting back what backout changes.
type GitOps struct {
	// Flux set to pause pauses Flux's reconciliation of an object together with its change;
	// the restore resumes it. Write flux or argocd.
	Flux Flux `yaml:"flux,omitempty"`
	// ArgoCD set to ignore relies on the Application: its ignoreDifferences must list the
	// manager backout.
	ArgoCD ArgoCD `yaml:"argocd,omitempty"`
}

// Flux is what is done about Flux.
type Flux string

// FluxPause pauses the reconciliation of the changed object.
const FluxPause Flux = "pause"

// ArgoCD is what is done about Argo CD.
type ArgoCD string

// ArgoCDIgnore relies on the Application's ignoreDifferences.
const ArgoCDIgnore ArgoCD = "ignore"

// Probe is how backout checks that a recreated service works: addresses on loopback
// or the service's own network. In Kubernetes and Swarm they are paths, and each pod or
// task is asked at its own address.
type Probe struct {
	// Health is an address that answers 200 while the service is healthy. In Kubernetes and
	// Swarm it is a path, such as /health.
	Health string `yaml:"health"`
	// Version is an address that answers with the version that runs: as text, or as JSON
	// with the key version. In Kubernetes and Swarm it is a path.
	Version string `yaml:"version,omitempty"`
	// Flags is an address that answers with the flags in effect, as a JSON object. In
	// Kubernetes and Swarm it is a path.
	Flags string `yaml:"flags,omitempty"`
	// Port is the container's port that answers: a number, or in Kubernetes also a name.
	// Required in Kubernetes and Swarm, and only for them.
	Port string `yaml:"port,omitempty"`
	// Timeout is how long a recreated service may take until it is healthy. A healthcheck whose
	// interval and start_period together are not shorter is not waited for: health decides.
	Timeout model.Duration `yaml:"timeout"`
	// Smoke are checks of what the service is for. Each must pass after an image
	// change, in backout verify, and before a rollout is finished.
	Smoke []SmokeCheck `yaml:"smoke,omitempty"`
}

// SmokeCheck is one request and what its answer must be.
type SmokeCheck struct {
	// Name says what the check shows.
	Name string `yaml:"name"`
	// URL is the address that is requested.
	URL string `yaml:"url"`
	// Status is the HTTP status that the answer must have. Default: 200.
	Status int `yaml:"status,omitempty"`
	// Contains is text that the answer's first MiB must contain.
	Contains string `yaml:"contains,omitempty"`
}

// LaunchDarklyFlag is where LaunchDarkly keeps a flag.
type LaunchDarklyFlag struct {
	// Project is the key of the flag's project.
	Project string `yaml:"project"`
	// Environment is the key of the one environment that is changed.
	Environment string `yaml:"environment"`
	// Key is the flag's key.
	Key string `yaml:"key"`
}

// UnleashFlag is where an Unleash server keeps a flag.
type UnleashFlag struct {
	// Project is the id of the flag's project, such as default.
	Project string `yaml:"project"`
	// Environment is the name of the one environment that is changed.
	Environment string `yaml:"environment"`
	// Name is the flag's name in Unleash.
	Name string `yaml:"name"`
}

// Flag is a feature flag: an environment variable in the compose project's .env, of a
// container in Kubernetes or of a service in Swarm, or one that LaunchDarkly or Unleash
// keeps.
type Flag struct {
	// Name is the environment variable that sets the flag.
	Name string `yaml:"name"`
	// Description says what the flag turns on.
	Description string `yaml:"description,omitempty"`
	// Off is the value that turns the feature off.
	Off string `yaml:"off"`
	// On is the value that turns the feature on. A stage with traffic "1" writes it to the
	// master flag. Required for a master flag of the target whose off or default is not a
	// number, such as "true". Default: the stage's traffic.
	On string `yaml:"on,omitempty"`
	// Default is the flag's value outside a rollout. Default: the value of off.
	Default string `yaml:"default"`
	// Fallback says what customers get while the feature is off.
	Fallback string `yaml:"fallback"`
	// Master marks the flag whose value is the share of the traffic; stages set it. At
	// most one flag has it. Default: the first flag is the master.
	Master bool `yaml:"master,omitempty"`
	// LaunchDarkly is where LaunchDarkly keeps the flag, if it does so instead of the
	// target. off is then the value of the flag's off variation.
	LaunchDarkly *LaunchDarklyFlag `yaml:"launchdarkly,omitempty"`
	// Unleash is where an Unleash server keeps the flag, if it does so instead of the
	// target. off is then false.
	Unleash *UnleashFlag `yaml:"unleash,omitempty"`
}

// Elsewhere reports whether another service keeps the flag than the target.
func (f *Flag) Elsewhere() bool { return f.LaunchDarkly != nil || f.Unleash != nil }

// takesShares reports whether the flag's value can be a share of the traffic.
func (f *Flag) takesShares() bool {
	number := func(value string) bool {
		_, err := strconv.ParseFloat(value, 64)
		return err == nil
	}
	if f.On != "" {
		full, err := strconv.ParseFloat(f.On, 64)
		return err == nil && full == 1 && (f.Off == "" || number(f.Off)) && (f.Default == "" || number(f.Default))
	}
	return f.Elsewhere() || number(f.Off) && number(f.Default)
}

// ValueIn is what a stage writes to the flag: its share of the traffic, or on. The error
// of a flag that has no such value has a hint.
func (f *Flag) ValueIn(s *Stage) (string, error) {
	share, _ := s.Share()
	switch {
	case share >= 1 && f.On != "":
		return f.On, nil
	case f.takesShares():
		return s.Traffic, nil
	case share < 1:
		why := fmt.Errorf("the flag %s is on or off: no value gives it the traffic of stage %s, %s", f.Name, s.Name, s.Traffic)
		if f.On != "" { // then backout check refuses the playbook, and no stage can be declared
			return "", hint.Add(why, `one stage, with traffic: "1"; or remove on: from the flag %s, then set the traffic yourself and declare each stage: %s`, f.Name, DeclareCommand("", s.Name))
		}
		return "", hint.Add(why, `one stage, with traffic: "1"; or set the traffic yourself, then: %s`, DeclareCommand("", s.Name))
	}
	return "", hint.Add(fmt.Errorf("the value that turns the flag %s on is not known: its off is %q and its default %q, and a number is not sure to turn it on", f.Name, f.Off, f.Default),
		`on: "true" at the flag in the playbook; or turn it on yourself, then: %s`, DeclareCommand("", s.Name))
}

// DeclareCommand is the command that tells backout of traffic that someone else set. A
// service or a stage that is not known is NAME.
func DeclareCommand(service, stage string) string {
	return "backout rollout start --declare --service=" + cmp.Or(service, "NAME") + " --stage=" + cmp.Or(stage, "NAME")
}

// Indicator is a measured quantity.
type Indicator struct {
	// Name is the indicator's name: letters, digits and _, not beginning with a digit.
	Name string `yaml:"name"`
	// Description says what it measures.
	Description string `yaml:"description,omitempty"`
	// Query is a PromQL expression that gives one sample, without a comparison. A
	// windowed query has $window, and $min_volume as a guard against too few requests;
	// triggers judge it over a window. An instant query, such as one of a CPU gauge, has
	// no $window; triggers judge it by sustained, at each moment of that time.
	Query string `yaml:"query"`
	// Unit is what the value is measured in. A ratio is from 0 to 1.
	Unit Unit `yaml:"unit"`
	// Target is the value aimed at, in the indicator's unit.
	Target *float64 `yaml:"target,omitempty"`
	// Alert is the bound that warns people and rolls nothing back.
	Alert *AlertBound `yaml:"alert,omitempty"`
	// Buckets are the upper bounds of the histogram that the query reads, in the
	// indicator's unit, if it reads one: a quantile is exact only at these.
	Buckets []float64 `yaml:"buckets,omitempty"`
	// ScrapeInterval is how often Prometheus scrapes what the query reads, if that is
	// less often than the service. Default: the playbook's scrape_interval.
	ScrapeInterval model.Duration `yaml:"scrape_interval,omitempty"`
	// Dashboard is the name of the dashboard that shows it; dashboards has its address.
	Dashboard string `yaml:"dashboard,omitempty"`
}

// Instant reports whether the query is instant rather than windowed.
func (i *Indicator) Instant() bool { return !uses(i.Query, windowVariable) }

// ScrapeIntervalOf is how often an indicator's series are scraped.
func (p *Playbook) ScrapeIntervalOf(ind *Indicator) model.Duration {
	if ind != nil && ind.ScrapeInterval > 0 {
		return ind.ScrapeInterval
	}
	return p.ScrapeInterval
}

// Bridge is a range that hides a failed scrape, or a restart of backout: over it rules
// and checks look back for what backout itself exports.
func (p *Playbook) Bridge() time.Duration { return 4 * time.Duration(p.ScrapeInterval) }

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
	// Above is the bound, in the indicator's unit: values above it count. Write above or
	// below.
	Above *float64 `yaml:"above,omitempty"`
	// Below is the bound, in the indicator's unit: values below it count.
	Below *float64 `yaml:"below,omitempty"`
	// Window is the time over which a windowed query is evaluated.
	Window model.Duration `yaml:"window,omitempty"`
	// Sustained is the time during which every sample of an instant query must be beyond
	// the bound.
	Sustained model.Duration `yaml:"sustained,omitempty"`
	// MinVolume is the number of requests that the window must have; with fewer the query
	// has no value. Put into the query as $min_volume.
	MinVolume float64 `yaml:"min_volume,omitempty"`
}

// Trigger is a condition that rolls back: an indicator beyond a bound, or a signal.
type Trigger struct {
	// Name is the trigger's name: letters, digits and _, not beginning with a digit.
	Name string `yaml:"name"`
	// Description is the condition in words.
	Description string `yaml:"description,omitempty"`
	// Indicator is the indicator that is measured. Write indicator or signal.
	Indicator string `yaml:"indicator,omitempty"`
	// Signal is the name of the signal that a person raises: a fact that no metric knows.
	Signal string `yaml:"signal,omitempty"`
	// Above is the bound, in the indicator's unit: values above it count. Write above or
	// below.
	Above *float64 `yaml:"above,omitempty"`
	// Below is the bound, in the indicator's unit: values below it count.
	Below *float64 `yaml:"below,omitempty"`
	// Window is the time over which a windowed query is evaluated.
	Window model.Duration `yaml:"window,omitempty"`
	// Sustained is the time during which every sample of an instant query must be beyond
	// the bound.
	Sustained model.Duration `yaml:"sustained,omitempty"`
	// MinVolume is the number of requests that the window must have; with fewer the query
	// has no value. Put into the query as $min_volume.
	MinVolume float64 `yaml:"min_volume,omitempty"`
	// Confidence is how sure a ratio of counts must be to lie beyond the bound, above 0.5
	// and below 1. The nearer end of its Wilson score interval is compared with the bound,
	// so that few requests need a clearer breach. Default: the value itself is compared.
	Confidence float64 `yaml:"confidence,omitempty"`
	// Recovery is how backout judges whether a step helped.
	Recovery Recovery `yaml:"recovery,omitempty"`
	// Severity is how severe its incidents are, from 1 to 5; 5 is the most severe.
	Severity int `yaml:"severity,omitempty"`
	// Plan is the rollback plan that the trigger starts.
	Plan string `yaml:"plan"`
}

// DefaultSeverity is the severity of a trigger that names none: a rollback is more
// severe than an alert.
const DefaultSeverity = 3

// Recovery is the short window by which a trigger is evaluated after a step.
type Recovery struct {
	// Window is the short window, at least 4 scrape intervals and the range of alive. The
	// documentation calls it W. Default: 2m, but no longer than the trigger's own window.
	Window model.Duration `yaml:"window"`
	// MinVolume is the number of requests that the short window must have. At most the
	// trigger's own rate. Default: a third of the trigger's own rate.
	MinVolume float64 `yaml:"min_volume,omitempty"`
	// Above is the bound of the short window, in the indicator's unit, if it differs from the
	// trigger's: a count is smaller over a shorter window. Only on the trigger's own side.
	Above *float64 `yaml:"above,omitempty"`
	// Below is the same in the indicator's unit, for a trigger that has below.
	Below *float64 `yaml:"below,omitempty"`
}

// Stage is one stage of the canary.
type Stage struct {
	// Name is the stage's name; none is reserved.
	Name string `yaml:"name"`
	// Description says what the stage must show.
	Description string `yaml:"description,omitempty"`
	// Traffic is the share of the traffic, above 0 and at most 1, as the master flag takes
	// it. Where that flag has on, a stage with "1" writes the value of on.
	Traffic string `yaml:"traffic"`
	// Duration is how long the stage lasts at least; the full rollout soaks that long.
	// Default: 7d for a last stage with all of the traffic; otherwise required.
	Duration model.Duration `yaml:"duration,omitempty"`
	// Success are the criteria that must hold before the rollout leaves the stage.
	Success []Criterion `yaml:"success,omitempty"`
	// Rollback names triggers whose samples count only in this stage.
	Rollback []string `yaml:"rollback,omitempty"`
}

// Share is the stage's traffic as a number; ok is false if it is not a number.
func (s *Stage) Share() (share float64, ok bool) {
	share, err := strconv.ParseFloat(s.Traffic, 64)
	return share, err == nil
}

// Criterion is a bound that an indicator must keep for a stage to succeed:
// over Window where its query is windowed, at each moment of Sustained where
// it is instant. Load has set one of the two.
type Criterion struct {
	// Indicator is the indicator that is measured.
	Indicator string `yaml:"indicator"`
	// Above is the bound, in the indicator's unit: the value must be above it. Write above
	// or below.
	Above *float64 `yaml:"above,omitempty"`
	// Below is the bound, in the indicator's unit: the value must be below it.
	Below *float64 `yaml:"below,omitempty"`
	// Window is the time over which a windowed query is evaluated. Default: 1h for a windowed
	// query.
	Window model.Duration `yaml:"window,omitempty"`
	// Sustained is the time during which every sample of an instant query must keep the
	// bound. Default: 1h for an instant query.
	Sustained model.Duration `yaml:"sustained,omitempty"`
	// MinVolume is the number of requests that the window must have.
	MinVolume float64 `yaml:"min_volume,omitempty"`
}

// Plan is a rollback plan.
type Plan struct {
	// Name is the plan's name.
	Name string `yaml:"name"`
	// Steps are the plan's steps. The pending step with the lowest risk runs first.
	Steps []Step `yaml:"steps"`
}

// Step is one step of a plan. The tagged fields are the keys that every step has.
type Step struct {
	// Action is what the step does.
	Action string `yaml:"action"`
	// Settle is how long backout watches after the step before it decides on the next one.
	// Default: 2W+4S, twice the longest recovery window of the plan's triggers and four
	// scrape intervals, which is also the minimum.
	Settle model.Duration `yaml:"settle"`
	// Timeout is how long the step may take. Default: 5m, and 30m for a step that can lose
	// data.
	Timeout model.Duration `yaml:"timeout"`
	// Approval makes the step wait for a person's approval; a step that can lose data
	// always has it.
	Approval *Approval `yaml:"approval"`
	// OnFailure is what follows a step that failed and was undone: wait for a person, or
	// go on to the next step. next is refused before a step that can lose data.
	OnFailure OnFailure `yaml:"on_failure"`
	Risk      Risk      `yaml:"-"`
	// Params is the action's own parameters, decoded strictly by the action's kind.
	Params any `yaml:"-"`

	// communicates: the step tells people something and changes no production.
	communicates bool
}

// Approval is how long a step waits for a person's approval.
type Approval struct {
	// Timeout is how long backout waits for an answer; without one the step is skipped.
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
	// Reversible is for steps that can be undone: flag_off.
	Reversible Confirm `yaml:"reversible"`
	// Disruptive is for steps that recreate containers: image_retag.
	Disruptive Confirm `yaml:"disruptive"`
	// Lossy is for steps that can lose data: schema_rollback. Only required is accepted.
	Lossy Confirm `yaml:"lossy"`
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
	// PerTarget is how often one action may change one target.
	PerTarget Rate `yaml:"per_target"`
	// PerService is how many steps may run for the service.
	PerService Rate `yaml:"per_service"`
	// BlastRadius is how many steps may run for all services together.
	BlastRadius Rate `yaml:"blast_radius"`
	// Cooldown is the least time between two effects of one action on one target.
	Cooldown model.Duration `yaml:"cooldown"`
	// Breaker is the number of failed steps in a row that stops automation.
	Breaker int `yaml:"breaker"`
	// ReopenWithin is how long after a close a new firing reopens the incident, unless it
	// was restored.
	ReopenWithin model.Duration `yaml:"reopen_within"`
	// CloseAfter is how long no trigger's expression may be true before a recovered
	// incident closes.
	CloseAfter model.Duration `yaml:"close_after"`
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

// Watchdog is the alert that always fires; without it monitoring is lost.
type Watchdog struct {
	// MaxAge is how old the last Watchdog notification may be. After that, monitoring
	// counts as lost. Default: 5m, and at least 4 scrape intervals.
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
	// playbook, as (key, problem, hint) triples; none if they are good. pb is
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
// or by an alias; "" if it is on none.
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
