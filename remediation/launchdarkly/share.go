package launchdarkly

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// all is the sum of a default rule's weights, which are thousandths of a percent.
const all = 100_000

// defaultRule is what a flag serves to those whom no target and no rule concerns:
// one variation, or several by weight.
type defaultRule struct {
	Variation *int     `json:"variation"`
	Rollout   *rollout `json:"rollout"`
}

type rollout struct {
	Variations []struct {
		Variation int `json:"variation"`
		Weight    int `json:"weight"`
	} `json:"variations"`
	BucketBy    string `json:"bucketBy"`
	ContextKind string `json:"contextKind"`
	// Experiment is there where the weights are an experiment's.
	Experiment json.RawMessage `json:"experimentAllocation"`
}

// shares is a default rule by its variations' ids.
type shares struct {
	// Variation is served to everybody; "" where Weights say who gets which.
	Variation   string         `json:"variation,omitempty"`
	Weights     map[string]int `json:"weights,omitempty"`
	BucketBy    string         `json:"bucket_by,omitempty"`
	ContextKind string         `json:"context_kind,omitempty"`
}

// weight is the share of one variation.
func (s shares) weight(id string) int {
	if s.Variation == id {
		return all
	}
	return s.Weights[id]
}

// instruction sets the default rule to it.
func (s shares) instruction() instruction {
	return instruction{Kind: "updateFallthroughVariationOrRollout", VariationID: s.Variation, Weights: s.Weights, BucketBy: s.BucketBy, ContextKind: s.ContextKind}
}

// same reports whether both serve the same to the same. LaunchDarkly may fill in what
// it decides by where nothing is said: a user's key.
func (s shares) same(o shares, onID, offID string) bool {
	part := s.weight(onID) > 0 && s.weight(offID) > 0
	return s.weight(onID) == o.weight(onID) && s.weight(offID) == o.weight(offID) &&
		(!part || cmp.Or(s.BucketBy, "key") == cmp.Or(o.BucketBy, "key") && cmp.Or(s.ContextKind, "user") == cmp.Or(o.ContextKind, "user"))
}

// flagShare gives a share of those who ask the variation that is not the off one, by
// the flag's default rule. It is a rollout's way forward; flagOff is the rollback, and
// leaves the rule as it is.
type flagShare struct {
	flagOff
	// weight is the on variation's.
	weight int
}

// FlagShare returns the action that gives a share of the traffic, such as "0.01", a
// flag's on variation in one environment. Those who have it keep it as the share
// grows: who is in it is decided by the same attribute as before.
func (c *Client) FlagShare(target alerts.Target, flag alerts.Flag, share string) (remediation.Action, error) {
	a, err := c.FlagOff(target, flag)
	if err != nil {
		return nil, err
	}
	part, err := strconv.ParseFloat(share, 64)
	weight := math.Round(part * all)
	if err != nil || !(part >= 0 && part <= 1) || math.Abs(part*all-weight) > 1e-6 {
		return nil, hint.Add(fmt.Errorf("flag %s: %q is not a traffic share from 0 to 1, in steps of 0.001%%", flag.Name, share),
			`a traffic such as "0.01" in the playbook's stages`)
	}
	return &flagShare{flagOff: *a.(*flagOff), weight: int(weight)}, nil
}

// shareSnapshot is what an intent records.
type shareSnapshot struct {
	snapshot
	// Default is the default rule as it was.
	Default shares `json:"default"`
	// Rules, Targets and Prerequisites are decided by before the default rule is:
	// those whom they concern are not counted in the share.
	Rules         int `json:"rules_before"`
	Targets       int `json:"targets_before"`
	Prerequisites int `json:"prerequisites"`
}

// sharesOf reads the default rule of a flag of two variations, and which of them
// are served while it is on and off.
func (a *flagShare) sharesOf(f flag) (now shares, onID, offID string, err error) {
	if err := a.meansOff(f); err != nil {
		return shares{}, "", "", err
	}
	env := f.Environments[a.at.Environment]
	if len(f.Variations) != 2 {
		return shares{}, "", "", hint.Add(fmt.Errorf("%s has %d variations: it is unclear which one the share is for", a.name(), len(f.Variations)),
			"a flag with two, or set its share in LaunchDarkly and then %s", alerts.DeclareCommand("", ""))
	}
	on, off := f.Variations[1-*env.OffVariation], f.Variations[*env.OffVariation]
	odd := func(format string, args ...any) (shares, string, string, error) {
		return shares{}, "", "", fmt.Errorf("look at %s: %w: %s", a.name(), jsonhttp.ErrOdd, fmt.Sprintf(format, args...))
	}
	id := func(n int) string {
		if n < 0 || n > 1 {
			return ""
		}
		return f.Variations[n].ID
	}
	switch rule := env.Fallthrough; {
	case on.ID == "" || off.ID == "" || on.ID == off.ID:
		return odd("its variations have no ids")
	case means(on.Value, a.flag.Off):
		return shares{}, "", "", fmt.Errorf("%s serves %q, which the playbook has as off, in both of its variations", a.name(), a.flag.Off)
	case rule == nil || rule.Variation == nil && rule.Rollout == nil:
		return odd("it has no default rule")
	case rule.Rollout == nil:
		now.Variation = id(*rule.Variation)
		if now.Variation == "" {
			return odd("its default rule serves variation number %d", *rule.Variation)
		}
	case len(rule.Rollout.Experiment) > 0 && string(rule.Rollout.Experiment) != "null":
		return shares{}, "", "", hint.Add(fmt.Errorf("%s has an experiment on its default rule, which a share would end", a.name()), "end it in LaunchDarkly first")
	default:
		now = shares{Weights: map[string]int{}, BucketBy: rule.Rollout.BucketBy, ContextKind: rule.Rollout.ContextKind}
		for _, v := range rule.Rollout.Variations {
			if id(v.Variation) == "" {
				return odd("its default rule serves variation number %d", v.Variation)
			}
			now.Weights[id(v.Variation)] += v.Weight
		}
	}
	return now, on.ID, off.ID, nil
}

// holds reports whether the flag serves the share: one of nobody also by being off.
func (a *flagShare) holds(f flag) (bool, error) {
	now, onID, offID, err := a.sharesOf(f)
	if f.Environments[a.at.Environment].state() == off {
		return a.weight == 0, err
	}
	return now.weight(onID) == a.weight && now.weight(offID) == all-a.weight, err
}

// wanted is the default rule with the share, by what decided before who is in it.
func (a *flagShare) wanted(now shares, onID, offID string) shares {
	switch a.weight {
	case 0:
		return shares{Variation: offID}
	case all:
		return shares{Variation: onID}
	}
	return shares{Weights: map[string]int{onID: a.weight, offID: all - a.weight}, BucketBy: now.BucketBy, ContextKind: now.ContextKind}
}

// Look implements remediation.Action. All that a share needs is changed at once:
// nothing is half-way.
func (a *flagShare) Look(ctx context.Context, _ string) (remediation.Look, error) {
	f, err := a.read(ctx)
	if err != nil {
		return remediation.Look{}, err
	}
	now, _, _, err := a.sharesOf(f)
	if err != nil {
		return remediation.Look{}, err
	}
	position := remediation.Untouched
	if ok, err := a.holds(f); err != nil {
		return remediation.Look{}, err
	} else if ok {
		position = remediation.Wanted
	}
	env := f.Environments[a.at.Environment]
	raw, err := json.Marshal(shareSnapshot{
		snapshot: snapshot{a.at.Project, a.at.Environment, a.at.Key, env.state(), env.Version}, Default: now,
		Rules: len(env.Rules), Targets: len(env.Targets) + len(env.ContextTargets), Prerequisites: len(env.Prerequisites),
	})
	return remediation.Look{Position: position, Snapshot: raw}, err
}

// Apply implements remediation.Action. What a person changed since the intent does
// not matter: the share is the one of the stage that was just begun.
func (a *flagShare) Apply(ctx context.Context, op string, _ json.RawMessage) error {
	comment := fmt.Sprintf("backout: %s set to %s of the traffic by rollout step %s", a.flag.Name, a.percent(), op)
	return a.change(ctx, fmt.Sprintf("give %s to %s of the traffic", a.name(), a.percent()), comment, conflictsHold, func(f flag) ([]instruction, error) {
		if ok, err := a.holds(f); ok || err != nil {
			return nil, err
		}
		now, onID, offID, err := a.sharesOf(f)
		if err != nil {
			return nil, err
		}
		list := []instruction{a.wanted(now, onID, offID).instruction()}
		if f.Environments[a.at.Environment].state() == off {
			list = append(list, instruction{Kind: kindOf(on)})
		}
		return list, nil
	})
}

// Verify implements remediation.Action: it waits until the share is read back.
func (a *flagShare) Verify(ctx context.Context, _ string) error {
	return jsonhttp.Await(ctx, a.c.api, a.read, func(f flag) (bool, string, error) {
		ok, err := a.holds(f)
		return ok, fmt.Sprintf("%s does not serve %s of the traffic at version %d", a.name(), a.percent(), f.Environments[a.at.Environment].Version), err
	})
}

// Undo implements remediation.Action: the default rule that was, and off where it
// was off. A flag that someone turned off meanwhile stays so, and a default rule that
// someone has set since is theirs.
func (a *flagShare) Undo(ctx context.Context, op string, before json.RawMessage) error {
	var was shareSnapshot
	if err := json.Unmarshal(before, &was); err != nil {
		return fmt.Errorf("snapshot of %s: %w", a.name(), err)
	}
	if at := (alerts.LaunchDarklyFlag{Project: was.Project, Environment: was.Environment, Key: was.Key}); at != a.at {
		return fmt.Errorf("snapshot of %s is one of %s", a.name(), name(at))
	}
	if was.State != on && was.State != off || was.Default.Variation == "" && len(was.Default.Weights) == 0 {
		return fmt.Errorf("snapshot of %s: it lacks the flag's previous state", a.name())
	}
	comment := fmt.Sprintf("backout: %s set back to its share before rollout step %s", a.flag.Name, op)
	return a.change(ctx, "put back the share of "+a.name(), comment, conflictsFail, func(f flag) ([]instruction, error) {
		env := f.Environments[a.at.Environment]
		now, onID, offID, err := a.sharesOf(f)
		var list []instruction
		switch {
		case err != nil:
			return nil, err
		case env.Version < was.Version:
			return nil, hint.Add(fmt.Errorf("%s is at version %d and was at %d: it was recreated since", a.name(), env.Version, was.Version),
				"set its share in LaunchDarkly, if you want that")
		case now.same(was.Default, onID, offID):
		case now.weight(onID) == a.weight && now.weight(offID) == all-a.weight:
			list = append(list, was.Default.instruction())
		default:
			return nil, hint.Add(fmt.Errorf("%s serves neither its previous share nor %s of the traffic: someone has changed it since", a.name(), a.percent()),
				"check it in LaunchDarkly")
		}
		if was.State == off && env.state() == on {
			list = append(list, instruction{Kind: kindOf(off)})
		}
		return list, nil
	})
}

func (a *flagShare) percent() string {
	return strconv.FormatFloat(float64(a.weight)/1000, 'f', -1, 64) + "%"
}
