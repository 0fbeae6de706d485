package scenario

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/rules"
)

// Scenario is a file: what a playbook is given, and what backout must do.
type Scenario struct {
	// Name says what the scenario shows. Default: the file's name.
	Name string `yaml:"name"`
	// Playbook is the playbook's file, relative to the scenario's folder. Default: the
	// built-in one.
	Playbook string `yaml:"playbook"`
	// Interval is how often targets are scraped, and the time between two values of a
	// series. Default: the playbook's scrape_interval.
	Interval model.Duration `yaml:"interval"`
	// Mode is backout's: act or observe. Default: act.
	Mode remediation.Mode `yaml:"mode"`
	// Rollout is the stage that the release is in at the start. Default: the release is not
	// being rolled out.
	Rollout string `yaml:"rollout"`
	// Series are what the targets export, in promtool's notation.
	Series []Series `yaml:"series"`
	// Events are what people and targets do.
	Events []Event `yaml:"events"`
	// Expect is what must be so.
	Expect []Expectation `yaml:"expect"`

	file     string
	doc      *alerts.Document
	playbook *alerts.Playbook
}

// Series is one series.
type Series struct {
	// Series is its name and labels. job and instance say which target exports it; up of
	// that target follows from its samples, unless the scenario has a series up of the job.
	Series string `yaml:"series"`
	// Values are its values from 0s, one per interval: 0+5x20 counts on by 5 for 20
	// intervals, 3x20 stays, _x20 is missing, stale ends the series.
	Values string `yaml:"values"`

	labels labels.Labels
	values []parser.SequenceValue
}

// Event is something that happens.
type Event struct {
	// At is when, from the start.
	At model.Duration `yaml:"at"`
	// Do is what happens.
	Do Verb `yaml:"do"`
	// By is who does it. Default: commander.
	By string `yaml:"by"`
	// Reason is why. Default: scenario.
	Reason string `yaml:"reason"`
	// For is how long a freeze lasts. Default: until thaw.
	For model.Duration `yaml:"for"`
	// Step is the step to approve or deny. Default: the one that waits for approval.
	Step string `yaml:"step"`
	// Over is the limit that the approved step runs over: per_target, per_service,
	// blast_radius or cooldown. Default: none, the step's own question is answered.
	Over string `yaml:"over"`
	// Signal is the signal to raise or clear.
	Signal string `yaml:"signal"`
	// Trigger is the trigger of a drill.
	Trigger string `yaml:"trigger"`
	// Target is what fails, is fixed or is set: image, schema, or a flag's name.
	Target string `yaml:"target"`
	// Value is what a target is set to.
	Value string `yaml:"value"`
	// Error is why changes of the target fail.
	Error string `yaml:"error"`
	// Force promotes or restores against gates that can be forced.
	Force bool `yaml:"force"`
	// Refused says that backout must refuse it.
	Refused bool `yaml:"refused"`

	line int
}

// Expectation is what must be so at one moment. What is left out may be anything.
type Expectation struct {
	// At is when, from the start.
	At model.Duration `yaml:"at"`
	// Drill asks about the newest drill instead of the newest incident.
	Drill bool `yaml:"drill"`
	// Incident is the newest incident's state, or none.
	Incident string `yaml:"incident"`
	// Reason is why it waits, or why it was closed.
	Reason string `yaml:"reason"`
	// Incidents is how many there have been, without drills.
	Incidents *int `yaml:"incidents"`
	// Steps are states of its steps, by the step's id (2-flag_off), or by its action if the
	// plan has one step of that kind.
	Steps map[string]string `yaml:"steps"`
	// Targets are what runs: image, schema, or a flag's name, and its value.
	Targets map[string]string `yaml:"targets"`
	// Firing are all triggers whose alerts fire.
	Firing *[]string `yaml:"firing"`
	// Rollout is the rollout's stage while it is active, otherwise its state: none before the
	// first one, done after its finish, aborted after an abort, and rolled_back once the
	// incident that rolled it back is closed.
	Rollout string `yaml:"rollout"`
	// NeedsHuman are all reasons for which a person is needed.
	NeedsHuman *[]string `yaml:"needs_human"`
	// Entries are how many entries of a kind the audit log has.
	Entries map[string]int `yaml:"entries"`
}

// noIncident is an expectation's incident where there must be none.
const noIncident = "none"

// words are the names of a list.
func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

// maxFile bounds a scenario's size in bytes, longest its length.
const (
	maxFile = 1 << 20
	longest = 7 * 24 * time.Hour
)

// Load reads a scenario and its playbook. It returns all mistakes together, as
// alerts.Problems.
func Load(file string) (*Scenario, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, alerts.Problems{{File: file, Message: "there is no such file", Try: "the path of a scenario; docs/testing.md has one to begin with"}}
	} else if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	return Parse(file, src)
}

// Service is the service of its playbook.
func (sc *Scenario) Service() string { return sc.playbook.Service }

// Parse is Load of a scenario's text; its problems name the file.
func Parse(file string, src []byte) (*Scenario, error) {
	sc := &Scenario{file: file}
	sc.doc = alerts.Decode(file, src, sc, "the scenario", "begin with name: and what the scenario shows")
	var err error
	kinds := newTargets("").kinds()
	known := make([]alerts.ActionKind, len(kinds))
	for i, k := range kinds {
		known[i] = k
	}
	switch {
	case sc.Playbook == "":
		sc.playbook, err = alerts.Default(known)
	case filepath.IsAbs(sc.Playbook):
		sc.playbook, err = alerts.Load(sc.Playbook, known)
	default:
		sc.playbook, err = alerts.Load(filepath.Join(filepath.Dir(file), sc.Playbook), known)
	}
	if err != nil {
		return nil, errors.Join(sc.doc.Err(), err)
	}
	sc.check()
	if err := sc.doc.Err(); err != nil {
		return nil, err
	}
	return sc, nil
}

// check fills in defaults, and reports what no scenario of this playbook can mean.
func (sc *Scenario) check() {
	if sc.Name == "" {
		sc.Name = strings.TrimSuffix(filepath.Base(sc.file), filepath.Ext(sc.file))
	}
	if sc.Interval == 0 {
		sc.Interval = sc.playbook.ScrapeInterval
	}
	if sc.Mode == "" {
		sc.Mode = remediation.Act
	}
	sc.oneOf("mode", string(sc.Mode), "mode", words([]remediation.Mode{remediation.Act, remediation.Observe}))
	if sc.Rollout != "" {
		sc.oneOf("rollout", sc.Rollout, "stage", remediation.StageNames(sc.playbook))
	}
	if sc.Interval < model.Duration(time.Second) {
		sc.doc.Bad("interval", fmt.Sprintf("interval %s is shorter than a second", sc.Interval), "leave it out, for the playbook's scrape_interval")
		sc.Interval = sc.playbook.ScrapeInterval
	}
	for i := range sc.Series {
		sc.checkSeries(&sc.Series[i], fmt.Sprintf("series[%d]", i))
	}
	if x, err := rules.ExpressionsOf(sc.playbook); err == nil && len(sc.Series) > 0 && !sc.isRead(x.Targets) {
		sc.doc.Bad("series", "no query of the playbook selects any of the series, so nothing can fire",
			"give them the names and labels of its queries; its targets are "+x.Targets)
	}
	for i := range sc.Events {
		sc.checkEvent(&sc.Events[i], fmt.Sprintf("events[%d]", i))
	}
	for i := range sc.Expect {
		sc.checkExpectation(&sc.Expect[i], fmt.Sprintf("expect[%d]", i))
	}
	if len(sc.Expect) == 0 {
		sc.doc.Bad("expect", "the scenario expects nothing, so it cannot fail", "expect: [{at: 5m, incident: none}]")
	}
	sc.checkLength()
}

// oneOf reports a word that is not among the known ones.
func (sc *Scenario) oneOf(path, word, what string, known []string) {
	if !slices.Contains(known, word) {
		sc.doc.Bad(path, fmt.Sprintf("unknown %s %q", what, word), "one of "+strings.Join(known, ", "))
	}
}

func (sc *Scenario) checkSeries(s *Series, path string) {
	var err error
	s.labels, s.values, err = parser.NewParser(parser.Options{}).ParseSeriesDesc(s.Series + " " + s.Values)
	switch {
	case s.Series == "" || s.Values == "":
		sc.doc.Bad(path, "a series has a name and values", `{series: 'requests_total{job="shop"}', values: 0+15x40}`)
	case err != nil:
		sc.doc.Bad(path, fmt.Sprintf("series %s: %v", s.Series, err), `write it as promtool does: series: 'requests_total{job="shop"}', values: 0+15x40`)
	case slices.ContainsFunc(s.values, func(v parser.SequenceValue) bool { return v.Histogram != nil }):
		sc.doc.Bad(path, fmt.Sprintf("series %s has native histograms", s.Series), "write its _bucket, _sum and _count series")
	case s.labels.Get(model.JobLabel) == "":
		sc.doc.Bad(path, fmt.Sprintf("series %s has no label job", s.Series), "give it the job and instance that Prometheus would")
	}
}

// counters end the names of counters, by Prometheus's conventions.
var counters = []string{"_total", "_count", "_bucket", "_sum"}

// Notes name the counters that fall, which may be meant: Prometheus counts what they fall
// to as an increase. A fall to 0 is a restart that nobody mistypes.
func (sc *Scenario) Notes() []string {
	var notes []string
	for i, s := range sc.Series {
		name := s.labels.Get(model.MetricNameLabel)
		if !slices.ContainsFunc(counters, func(end string) bool { return strings.HasSuffix(name, end) }) {
			continue
		}
		last := 0.0
		for n, v := range s.values {
			if !v.Omitted && v.Value > 0 && v.Value < last {
				notes = append(notes, fmt.Sprintf("%s:%d: the counter %s falls from %v to %v at %s: Prometheus takes that as a restart, and counts %v more",
					sc.file, sc.doc.Line(fmt.Sprintf("series[%d].values", i)), s.Series, last, v.Value, model.Duration(time.Duration(n)*time.Duration(sc.Interval)), v.Value))
				break
			}
			if !v.Omitted {
				last = v.Value
			}
		}
	}
	return notes
}

// isRead reports whether a query of the playbook selects one of the series. It says
// nothing about series that checkSeries has refused.
func (sc *Scenario) isRead(targets string) bool {
	exprs := []string{targets, sc.playbook.Expand(sc.playbook.Alive, 0, 0)}
	for _, ind := range sc.playbook.Indicators {
		exprs = append(exprs, sc.playbook.Expand(ind.Query, time.Minute, 0))
	}
	read := false
	for _, text := range exprs {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
		if err != nil {
			return true // of a playbook with options that this parser lacks
		}
		for _, matchers := range parser.ExtractSelectors(expr) {
			read = read || slices.ContainsFunc(sc.Series, func(s Series) bool {
				return s.labels.Get(model.JobLabel) == "" || !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) })
			})
		}
	}
	return read
}

// checkLength reports series that end before the scenario does: what looks like a
// recovery would be the lack of data.
func (sc *Scenario) checkLength() {
	last := sc.length()
	if last > longest {
		sc.doc.Bad("", fmt.Sprintf("the scenario lasts %s, and the longest possible is %s", model.Duration(last), model.Duration(longest)), "shorter windows in a playbook of its own")
		return
	}
	for i, s := range sc.Series {
		if n := len(s.values); n > 0 && time.Duration(n)*time.Duration(sc.Interval) <= last {
			need := int(last/time.Duration(sc.Interval)) + 1
			sc.doc.Bad(fmt.Sprintf("series[%d].values", i), fmt.Sprintf("series %s ends after %s, and the scenario lasts %s", s.Series, model.Duration(time.Duration(n-1)*time.Duration(sc.Interval)), model.Duration(last)),
				fmt.Sprintf("%d values more, or _x%d if the series is to vanish", need-n, need-n))
		}
	}
}

// length is how long the scenario lasts.
func (sc *Scenario) length() (last time.Duration) {
	for _, e := range sc.Events {
		last = max(last, time.Duration(e.At))
	}
	for _, x := range sc.Expect {
		last = max(last, time.Duration(x.At))
	}
	return last
}

// checkEvent reports keys that the event's verb does not have, and names that the
// playbook does not.
func (sc *Scenario) checkEvent(e *Event, path string) {
	do, ok := verbs[e.Do]
	if !ok {
		sc.doc.Bad(path+".do", fmt.Sprintf("unknown event %q", e.Do), "one of "+strings.Join(words(Verbs()), ", "))
		return
	}
	if !sc.doc.Has(path + ".at") {
		sc.doc.Bad(path, fmt.Sprintf("the event %s has no time", e.Do), "at: 5m")
	}
	for _, key := range []string{"for", "step", "over", "signal", "trigger", "target", "value", "error", "force"} {
		has := sc.doc.Has(path + "." + key)
		if has && !slices.Contains(do.needs, key) && !slices.Contains(do.takes, key) {
			sc.doc.Bad(path+"."+key, fmt.Sprintf("the event %s has no %s", e.Do, key), "leave it out")
		}
		if !has && slices.Contains(do.needs, key) {
			sc.doc.Bad(path, fmt.Sprintf("the event %s needs %s", e.Do, key), key+": ...")
		}
	}
	if e.Signal != "" {
		sc.oneOf(path+".signal", e.Signal, "signal", remediation.SignalsOf(sc.playbook))
	}
	if e.Trigger != "" {
		sc.oneOf(path+".trigger", e.Trigger, "trigger", sc.triggers())
	}
	if e.Target != "" {
		sc.oneOf(path+".target", e.Target, "target", sc.targets())
	}
	e.By, e.Reason, e.line = cmp.Or(e.By, "commander"), cmp.Or(e.Reason, "scenario"), sc.doc.Line(path)
}

func (sc *Scenario) triggers() []string {
	names := make([]string, len(sc.playbook.Triggers))
	for i, t := range sc.playbook.Triggers {
		names[i] = t.Name
	}
	return names
}

func (sc *Scenario) targets() []string {
	t := newTargets("")
	t.runs(sc.playbook, "")
	return t.names()
}

func (sc *Scenario) checkExpectation(x *Expectation, path string) {
	keys := []string{"incident", "reason", "incidents", "steps", "targets", "firing", "rollout", "needs_human", "entries"}
	if !slices.ContainsFunc(keys, func(key string) bool { return sc.doc.Has(path + "." + key) }) {
		sc.doc.Bad(path, "the expectation expects nothing", "one of "+strings.Join(keys, ", "))
	}
	if !sc.doc.Has(path + ".at") {
		sc.doc.Bad(path, "the expectation has no time", "at: 5m")
	}
	if x.Incident != "" {
		sc.oneOf(path+".incident", x.Incident, "state", append(words(remediation.States()), noIncident))
	}
	if x.Reason != "" {
		sc.oneOf(path+".reason", x.Reason, "reason", words(remediation.Reasons()))
	}
	for step, state := range x.Steps {
		at := path + ".steps." + step
		sc.oneOf(at, state, "state of a step", words(remediation.StepStates()))
		if kinds := sc.actions(); !slices.Contains(kinds, actionOf(step)) {
			sc.doc.Bad(at, fmt.Sprintf("no plan has a step %q", step), "an action of a plan ("+strings.Join(kinds, ", ")+"), or a step's id such as 1-"+kinds[0])
		}
	}
	for name := range x.Targets {
		sc.oneOf(path+".targets."+name, name, "target", sc.targets())
	}
	if x.Firing != nil {
		for i, name := range *x.Firing {
			sc.oneOf(fmt.Sprintf("%s.firing[%d]", path, i), name, "trigger", sc.triggers())
		}
	}
	if x.Rollout != "" {
		sc.oneOf(path+".rollout", x.Rollout, "stage or state of a rollout", append(remediation.StageNames(sc.playbook),
			remediation.RolloutNone, remediation.RolloutDone, remediation.RolloutRolledBack, remediation.RolloutAborted))
	}
	for kind := range x.Entries {
		sc.oneOf(path+".entries."+kind, kind, "kind of audit entry", words(audit.Kinds()))
	}
}

// actions are those of the playbook's plans.
func (sc *Scenario) actions() (kinds []string) {
	for _, p := range sc.playbook.Plans {
		for _, s := range p.Steps {
			if !slices.Contains(kinds, s.Action) {
				kinds = append(kinds, s.Action)
			}
		}
	}
	return kinds
}

// actionOf is the action in a step's id, or the text itself.
func actionOf(step string) string {
	if number, action, ok := strings.Cut(step, "-"); ok {
		if _, err := strconv.Atoi(number); err == nil {
			return action
		}
	}
	return step
}
