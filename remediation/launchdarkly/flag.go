package launchdarkly

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// flag is what matters of a flag as the API answers it.
type flag struct {
	Key          string                 `json:"key"`
	Archived     bool                   `json:"archived"`
	Variations   []variation            `json:"variations"`
	Environments map[string]environment `json:"environments"`
}

type variation struct {
	ID    string          `json:"_id"`
	Value json.RawMessage `json:"value"`
}

// environment is a flag's configuration in one environment.
type environment struct {
	On           *bool `json:"on"`
	OffVariation *int  `json:"offVariation"`
	Version      int64 `json:"version"`
	Archived     bool  `json:"archived"`
	// Fallthrough is what those get whom no target and no rule concerns.
	Fallthrough *defaultRule `json:"fallthrough"`
	// What decides before it, or whether it decides at all.
	Rules          []json.RawMessage `json:"rules"`
	Targets        []json.RawMessage `json:"targets"`
	ContextTargets []json.RawMessage `json:"contextTargets"`
	Prerequisites  []json.RawMessage `json:"prerequisites"`
}

func (e environment) state() state {
	if e.On != nil && *e.On {
		return on
	}
	return off
}

// read asks for the flag in its environment.
func (a *flagOff) read(ctx context.Context) (flag, error) {
	var f flag
	err := a.c.api.Get(ctx, a.path()+"?env="+url.QueryEscape(a.at.Environment), &f)
	if err != nil {
		return flag{}, fmt.Errorf("look at %s: %w", a.name(), err)
	}
	odd := func(format string, args ...any) error {
		return fmt.Errorf("look at %s: %w: %s", a.name(), jsonhttp.ErrOdd, fmt.Sprintf(format, args...))
	}
	env, ok := f.Environments[a.at.Environment]
	switch {
	case f.Key != a.at.Key:
		return flag{}, odd("it is of flag %q", f.Key)
	case !ok:
		return flag{}, hint.Add(odd("there is no such environment, or the token may not see it"), "fix launchdarkly.environment in the playbook's flags")
	case env.On == nil:
		return flag{}, odd("it has no on/off state")
	}
	return f, nil
}

func (a *flagOff) path() string {
	return "/api/v2/flags/" + url.PathEscape(a.at.Project) + "/" + url.PathEscape(a.at.Key)
}

// meansOff refuses a flag of which nobody can tell that off helps.
func (a *flagOff) meansOff(f flag) error {
	env := f.Environments[a.at.Environment]
	switch n := env.OffVariation; {
	case f.Archived || env.Archived:
		return hint.Add(fmt.Errorf("%s is archived", a.name()), "restore it in LaunchDarkly, or remove it from the playbook's plans")
	case n == nil:
		return hint.Add(fmt.Errorf("%s has no off variation: while it is off, the service uses its code's fallback, which is unknown here", a.name()),
			"choose an off variation in LaunchDarkly")
	case *n < 0 || *n >= len(f.Variations):
		return fmt.Errorf("%s has %d variations, and its off variation is number %d", a.name(), len(f.Variations), *n)
	case !means(f.Variations[*n].Value, a.flag.Off):
		return hint.Add(fmt.Errorf("%s serves another value when off than %q, which the playbook's flag %s has as off", a.name(), a.flag.Off, a.flag.Name),
			"choose another off variation in LaunchDarkly, or write its value as off in the playbook")
	}
	return nil
}

// means reports whether a variation's value is what the playbook calls off. A
// boolean may be written as environment variables have it: 0 is false.
func means(value json.RawMessage, text string) bool {
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		return false
	}
	switch v := v.(type) {
	case bool:
		b, err := strconv.ParseBool(text)
		return err == nil && b == v
	case string:
		return v == text
	case float64:
		n, err := strconv.ParseFloat(text, 64)
		return err == nil && n == v
	}
	var want any
	return json.Unmarshal([]byte(text), &want) == nil && equal(v, want)
}

// equal compares two decoded values by their encoding, which sorts keys.
func equal(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// patch is the body of a semantic patch.
type patch struct {
	EnvironmentKey string        `json:"environmentKey"`
	Comment        string        `json:"comment"`
	Instructions   []instruction `json:"instructions"`
}

type instruction struct {
	Kind string `json:"kind"`
	// VariationID, or the others, are the new default rule's.
	VariationID string         `json:"variationId,omitempty"`
	Weights     map[string]int `json:"rolloutWeights,omitempty"`
	BucketBy    string         `json:"rolloutBucketBy,omitempty"`
	ContextKind string         `json:"rolloutContextKind,omitempty"`
}

// kindOf is the instruction that makes a flag so.
func kindOf(want state) string {
	if want == on {
		return "turnFlagOn"
	}
	return "turnFlagOff"
}

// turn makes the flag as wanted, looking before each try.
func (a *flagOff) turn(ctx context.Context, want state, comment string) error {
	return a.change(ctx, fmt.Sprintf("turn %s %s", a.name(), want), comment, conflictsFail, func(f flag) ([]instruction, error) {
		if f.Environments[a.at.Environment].state() == want {
			return nil, nil
		}
		return []instruction{{Kind: kindOf(want)}}, nil
	})
}

// What becomes of changes that are planned in LaunchDarkly and conflict with ours.
const (
	// conflictsFail: what is scheduled for later does not hold a rollback up.
	conflictsFail = "?ignoreConflicts=true"
	// conflictsHold: what leads forward waits for a person who planned otherwise.
	conflictsHold = ""
)

// change makes the changes that plan names of the flag as it is now, all or none of
// them, looking before each try; no change is wanted where it names none.
func (a *flagOff) change(ctx context.Context, what, comment, conflicts string, plan func(flag) ([]instruction, error)) error {
	return a.c.api.Change(ctx, what, func() (*jsonhttp.Step, error) {
		f, err := a.read(ctx)
		if err != nil {
			return nil, jsonhttp.Doubtful(err)
		}
		wanted, err := plan(f)
		if err != nil || len(wanted) == 0 {
			return nil, err
		}
		return &jsonhttp.Step{Method: http.MethodPatch, Path: a.path() + conflicts, Body: patch{a.at.Environment, comment, wanted}}, nil
	})
}
