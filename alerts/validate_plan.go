package alerts

import (
	"fmt"
	"reflect"
	"slices"
)

func (v *validator) stages() {
	p := v.pb
	v.unique("stages", len(p.Stages), func(i int) string { return p.Stages[i].Name })
	before := 0.0
	for i := range p.Stages {
		s, path := &p.Stages[i], item("stages", i)
		if v.name(key(path, "name"), s.Name, plainName, "write the stage's name, such as alpha") && s.Name == "none" {
			v.at(key(path, "name"), fmt.Sprintf("%s: the name none is reserved", key(path, "name")), "give the stage another name")
		}
		if at := key(path, "traffic"); v.need(at, s.Traffic == "", `write the share of the traffic, such as "0.01"`) {
			share, ok := s.Share()
			switch {
			case !ok || !(share > 0 && share <= 1):
				try := `write 1% as "0.01"`
				if !ok {
					try += `, and 100% as "1"; the value that turns the flag on belongs to the flag, as on`
				}
				v.at(at, fmt.Sprintf("%s: %q is not a share above 0 and at most 1", at, s.Traffic), try)
			case share <= before:
				v.at(at, fmt.Sprintf("%s: %s is not more than the traffic of the stage before", at, s.Traffic), "write the stages in order, with rising traffic")
			}
			if ok {
				before = max(before, share)
			}
		}
		if at := key(path, "duration"); v.need(at, s.Duration == 0 && !v.pos.has(at), "write the minimum time in the stage, such as 1d") {
			v.positive(at, s.Duration)
		}
		for j := range s.Success {
			v.criterion(&s.Success[j], item(key(path, "success"), j))
		}
		for j, name := range s.Rollback {
			v.rollback(name, item(key(path, "rollback"), j), s.Rollback[:j])
		}
	}
}

// needsStages reports a plan that waits forever: steps that are not reversible
// run while a rollout is active, and a rollout is in a stage.
func (v *validator) needsStages(plan *Plan, path string) {
	if len(v.pb.Stages) > 0 || v.isBad("stages") {
		return
	}
	for j, s := range plan.Steps {
		if s.Risk > Reversible {
			v.at(item(key(path, "steps"), j), fmt.Sprintf("%s can never run: it runs only during a rollout, and a rollout needs stages", s.Action), `add stages, such as stages: [{name: full, traffic: "1", duration: 7d}]`)
			return
		}
	}
}

func (v *validator) criterion(c *Criterion, path string) {
	ind := v.indicator(key(path, "indicator"), c.Indicator)
	v.bound(path, c.Above, c.Below)
	if ind != nil {
		v.span(path, ind, c.Window, c.Sustained, c.MinVolume)
	}
}

func (v *validator) rollback(name, path string, before []string) {
	t := v.pb.Trigger(name)
	switch {
	case v.isBad("triggers"):
	case t == nil:
		names := make([]string, len(v.pb.Triggers))
		for i := range names {
			names[i] = v.pb.Triggers[i].Name
		}
		v.at(path, fmt.Sprintf("%s: there is no trigger %q", path, name), OneOf(name, names))
	case t.Signal != "":
		v.at(path, fmt.Sprintf("%s: %s is a signal, which counts in every stage", path, name), "leave it out")
	case slices.Contains(before, name):
		v.at(path, fmt.Sprintf("%s: %s is already in the list", path, name), "leave it out")
	}
}

func (v *validator) plans() {
	p := v.pb
	v.need("plans", len(p.Plans) == 0, "write at least one plan with its steps")
	v.unique("plans", len(p.Plans), func(i int) string { return p.Plans[i].Name })
	for i := range p.Plans {
		plan, path := &p.Plans[i], item("plans", i)
		v.name(key(path, "name"), plan.Name, plainName, "write the plan's name, such as ladder")
		v.need(key(path, "steps"), len(plan.Steps) == 0, "write at least one step, such as {action: flag_off, flag: NAME}")
		for j := range plan.Steps {
			v.step(plan, j, item(key(path, "steps"), j))
		}
		v.needsStages(plan, path)
	}
}

func (v *validator) step(plan *Plan, j int, path string) {
	s := &plan.Steps[j]
	at := key(path, "settle")
	if least := v.pb.LeastSettle(plan.Name); s.Settle < least {
		v.at(at, fmt.Sprintf("%s (%s) is shorter than 2W+4S (%s), the recovery window of the plan's triggers twice and four scrapes", at, s.Settle, least), "write at least "+least.String(), v.windows(plan.Name)...)
	}
	v.positive(key(path, "timeout"), s.Timeout)
	if s.Approval != nil {
		v.positive(key(path, "approval.timeout"), s.Approval.Timeout)
	}
	at = key(path, "on_failure")
	known(v, at, s.OnFailure, OnFailureWait, OnFailureNext)
	if s.OnFailure == OnFailureNext {
		for _, n := range followers(plan, j) {
			if n.Risk == Lossy {
				v.at(at, fmt.Sprintf("%s: a failure must not continue with %s, which loses data", at, n.Action), "write wait or leave it out, so that a person decides")
				break
			}
		}
	}
	if s.Params == nil || v.within(path) {
		return
	}
	for k := range plan.Steps[:j] {
		if b := &plan.Steps[k]; b.Action == s.Action && !s.communicates && reflect.DeepEqual(b.Params, s.Params) {
			v.at(path, fmt.Sprintf("%s: the plan already has this %s, and no step runs twice", path, s.Action), "leave it out")
			break
		}
	}
	for _, kind := range v.kinds {
		if kind.Name() != s.Action {
			continue
		}
		for _, pp := range kind.CheckParams(v.pb, s.Params) {
			v.at(key(path, pp.Key), fmt.Sprintf("%s: %s", key(path, pp.Key), pp.Problem), pp.Try)
		}
	}
}

// windows returns the paths that a plan's least settle time follows from.
func (v *validator) windows(plan string) []string {
	paths := []string{"scrape_interval"}
	for i, t := range v.pb.Triggers {
		if t.Plan == plan {
			paths = append(paths, key(item("triggers", i), "recovery"), key(item("triggers", i), "recovery.window"))
		}
	}
	return paths
}

// within reports whether anything below path was found bad.
func (v *validator) within(path string) bool {
	for p := range v.bad {
		if len(p) > len(path) && p[:len(path)] == path && (p[len(path)] == '.' || p[len(path)] == '[') {
			return true
		}
	}
	return false
}

// followers returns the steps that may come next after a failure: the next one
// as listed, and the next one by risk, which is the order of an incident with
// more than one plan. Steps that only tell people something are passed over.
func followers(plan *Plan, j int) []*Step {
	var next []*Step
	for k := j + 1; k < len(plan.Steps); k++ {
		if s := &plan.Steps[k]; !s.communicates {
			next = append(next, s)
			break
		}
	}
	var byRisk *Step
	for k := range plan.Steps {
		s := &plan.Steps[k]
		after := s.Risk > plan.Steps[j].Risk || s.Risk == plan.Steps[j].Risk && k > j
		if k != j && !s.communicates && after && (byRisk == nil || s.Risk < byRisk.Risk) {
			byRisk = s
		}
	}
	if byRisk != nil {
		next = append(next, byRisk)
	}
	return next
}
