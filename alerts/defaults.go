package alerts

import (
	"cmp"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

const (
	minute = model.Duration(time.Minute)
	hour   = model.Duration(time.Hour)
	// soak is how long the full rollout is watched before it is done.
	soak = model.Duration(7 * 24 * time.Hour)
)

// fillDefaults sets missing values. Values from the file stay, zeros too: the
// validator checks them.
func (p *Playbook) fillDefaults(pos position) {
	set := func(path string, d *model.Duration, v model.Duration) {
		if !pos.has(path) {
			*d = v
		}
	}
	set("scrape_interval", &p.ScrapeInterval, 15*model.Duration(time.Second))
	set("warmup", &p.Warmup, minute)
	set("watchdog.max_age", &p.Watchdog.MaxAge, max(5*minute, 4*p.ScrapeInterval))
	set("target.probe.timeout", &p.Target.Probe.Timeout, minute/2)

	// One form per folder: it identifies targets.
	if dir := &p.Target.Compose.ProjectDir; len(*dir) > 1 {
		*dir = strings.TrimSuffix(*dir, "/")
	}

	l := &p.Limits
	for path, r := range map[string]struct {
		rate *Rate
		def  Rate
	}{
		"limits.per_target":   {&l.PerTarget, Rate{3, time.Hour}},
		"limits.per_service":  {&l.PerService, Rate{6, time.Hour}},
		"limits.blast_radius": {&l.BlastRadius, Rate{3, 10 * time.Minute}},
	} {
		if !pos.has(path) {
			*r.rate = r.def
		}
	}
	set("limits.cooldown", &l.Cooldown, 10*minute)
	set("limits.reopen_within", &l.ReopenWithin, hour)
	set("limits.close_after", &l.CloseAfter, 5*minute)
	if !pos.has("limits.breaker") {
		l.Breaker = 3
	}
	p.Confirmation.Reversible = cmp.Or(p.Confirmation.Reversible, ConfirmIfReachable)
	p.Confirmation.Disruptive = cmp.Or(p.Confirmation.Disruptive, ConfirmRequired)
	p.Confirmation.Lossy = cmp.Or(p.Confirmation.Lossy, ConfirmRequired)

	for i := range p.Flags {
		if f := &p.Flags[i]; !pos.has(key(item("flags", i), "default")) {
			f.Default = f.Off
		}
	}
	p.Alive = withoutComments(p.Alive)
	for i := range p.Indicators {
		p.Indicators[i].Query = withoutComments(p.Indicators[i].Query)
	}
	for name, s := range p.Selectors {
		p.Selectors[name] = withoutComments(s)
	}
	p.triggerDefaults(pos)
	p.planDefaults(pos)
	p.stageDefaults(pos)
	p.guideDefaults()
}

func (p *Playbook) triggerDefaults(pos position) {
	for i := range p.Triggers {
		t := &p.Triggers[i]
		if !pos.has(key(item("triggers", i), "severity")) {
			t.Severity = DefaultSeverity
		}
		if t.Signal != "" {
			continue
		}
		path := key(item("triggers", i), "recovery")
		if !pos.has(key(path, "window")) {
			t.Recovery.Window = p.recoveryWindow(t)
		}
		if span := time.Duration(t.Window); !pos.has(key(path, "min_volume")) && span > 0 && t.Sustained == 0 && t.MinVolume > 0 {
			// A third of the trigger's own rate, rounded down: at the rate that just
			// fires it, nearly every recovery window has enough to judge by.
			v := t.MinVolume * float64(t.Recovery.Window) / float64(span) / 3
			if v >= 1 {
				v = math.Floor(v)
			}
			t.Recovery.MinVolume = v
		}
	}
}

// recoveryWindow is two minutes, but no longer than the trigger's own window
// and no shorter than four scrapes.
func (p *Playbook) recoveryWindow(t *Trigger) model.Duration {
	w := 2 * minute
	if span := model.Duration(t.Span()); span > 0 {
		w = min(w, span)
	}
	return max(w, 4*p.ScrapeIntervalOf(p.Indicator(t.Indicator)))
}

func (p *Playbook) planDefaults(pos position) {
	for i := range p.Plans {
		plan := &p.Plans[i]
		settle := p.LeastSettle(plan.Name)
		for j := range plan.Steps {
			s, path := &plan.Steps[j], item(key(item("plans", i), "steps"), j)
			if !pos.has(key(path, "settle")) {
				s.Settle = settle
			}
			if !pos.has(key(path, "timeout")) {
				s.Timeout = 5 * minute
				if s.Risk == Lossy {
					s.Timeout = hour / 2
				}
			}
			if s.Risk == Lossy && s.Approval == nil {
				s.Approval = &Approval{}
			}
			if s.Approval != nil && !pos.has(key(path, "approval.timeout")) {
				s.Approval.Timeout = hour / 2
			}
			s.OnFailure = cmp.Or(s.OnFailure, OnFailureWait)
		}
	}
}

// LeastSettle is 2W + 4S, where W is the longest recovery window of the
// triggers that use the plan and S the longest scrape interval of what they read: a
// shorter settle time could not show a recovery.
func (p *Playbook) LeastSettle(plan string) model.Duration {
	w, s := model.Duration(0), p.ScrapeInterval
	for _, t := range p.Triggers {
		if t.Plan == plan && t.Signal == "" {
			w, s = max(w, t.Recovery.Window), max(s, p.ScrapeIntervalOf(p.Indicator(t.Indicator)))
		}
	}
	if w == 0 {
		w = max(2*minute, 4*p.ScrapeInterval)
	}
	return 2*w + 4*s
}

func (p *Playbook) stageDefaults(pos position) {
	for i := range p.Stages {
		s, path := &p.Stages[i], item("stages", i)
		if f, ok := s.Share(); ok && f >= 1 && i == len(p.Stages)-1 && !pos.has(key(path, "duration")) {
			s.Duration = soak
		}
		for j := range s.Success {
			p.criterionDefaults(&s.Success[j])
		}
	}
	for i := range p.SuccessCriteria {
		for j := range p.SuccessCriteria[i].Criteria {
			if m := p.SuccessCriteria[i].Criteria[j].Measure; m != nil {
				p.criterionDefaults(m)
			}
		}
	}
}

// criterionDefaults uses the last hour if the file does not say.
func (p *Playbook) criterionDefaults(c *Criterion) {
	ind := p.Indicator(c.Indicator)
	if c.Window != 0 || c.Sustained != 0 || ind == nil {
		return
	}
	if ind.Instant() {
		c.Sustained = hour
	} else {
		c.Window = hour
	}
}

// blocksBy is what the work of a phase blocks that does not say so itself: playbooks that
// are older than the key say it by when.
func blocksBy(when string) Blocks {
	switch when = strings.TrimSpace(when); {
	case theDay.MatchString(when):
		return BlocksNothing
	case laterDay.MatchString(when):
		return BlocksFinish
	}
	return BlocksStart
}

// theDay matches the day of the start, laterDay what comes after it: "T+2", "Day 3",
// "Day 0 + X days". All else comes before the start.
var (
	theDay   = regexp.MustCompile(`(?i)^(T|day( 0)?)$`)
	laterDay = regexp.MustCompile(`(?i)^(T *\+|days? *([1-9]|0 *\+|\+))`)
)

func (p *Playbook) guideDefaults() {
	for i := range p.Checklist {
		p.Checklist[i].Status = cmp.Or(p.Checklist[i].Status, StatusPending)
	}
	for i := range p.Phases {
		p.Phases[i].Blocks = cmp.Or(p.Phases[i].Blocks, blocksBy(p.Phases[i].When))
	}
	for i := range p.Timeline {
		p.Timeline[i].Status = cmp.Or(p.Timeline[i].Status, StatusPending)
	}
	c := p.Communications
	if c == nil {
		return
	}
	if c.Page == "" {
		c.Page = PageNever
		if c.BusinessHours != nil {
			c.Page = PageAfterHours
		}
	}
	if b := c.BusinessHours; b != nil {
		b.TimeZone = cmp.Or(b.TimeZone, "UTC")
		if len(b.Days) == 0 {
			b.Days = []Weekday{Monday, Tuesday, Wednesday, Thursday, Friday}
		}
	}
}
