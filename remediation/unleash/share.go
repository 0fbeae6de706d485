package unleash

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// gradual is Unleash's name for a gradual rollout.
const gradual = "flexibleRollout"

// flagShare gives what the flag turns on to a share of those who ask. It is a rollout's way
// forward; flagOff is the rollback, and leaves the share as it is.
type flagShare struct {
	flagOff
	percent int
}

// FlagShare returns the action that gives a share of the traffic, such as "0.01", what the
// flag turns on. Those who have it keep it as the share grows: stickiness and group stay.
// Unleash's SDKs sort those who ask into 100 groups, so a share is a whole percent.
func (c *Client) FlagShare(target alerts.Target, flag alerts.Flag, share string) (remediation.Action, error) {
	a, err := c.FlagOff(target, flag)
	if err != nil {
		return nil, err
	}
	part, err := strconv.ParseFloat(share, 64)
	percent := math.Round(part * 100)
	if err != nil || !(part >= 0 && part <= 1) || math.Abs(part*100-percent) > 1e-6 {
		return nil, hint.Add(fmt.Errorf("flag %s: %q is not a traffic share from 0 to 1 in whole percents, and Unleash's SDKs support only those", flag.Name, share),
			`a traffic such as "0.01" in the playbook's stages`)
	}
	return &flagShare{flagOff: *a.(*flagOff), percent: int(percent)}, nil
}

// shareSnapshot is what an intent records.
type shareSnapshot struct {
	snapshot
	// Strategy is the id of the one enabled strategy, and Rollout its percentage; both are
	// "" if there was none.
	Strategy string `json:"strategy"`
	Rollout  string `json:"rollout"`
	// Constraints, Segments and Parents narrow the share: those whom they exclude are not
	// counted in it.
	Constraints int `json:"constraints"`
	Segments    int `json:"segments"`
	Parents     int `json:"parents"`
}

// rollout is a strategy's percentage as text; "" if it has none.
func (s strategy) rollout() string { return strings.Trim(string(s.Parameters.Rollout), `"`) }

// gives reports whether a strategy is of a percentage.
func (s strategy) gives(percent string) bool {
	x, errX := strconv.ParseFloat(s.rollout(), 64)
	y, errY := strconv.ParseFloat(percent, 64)
	return errX == nil && errY == nil && x == y
}

// one returns the flag's enabled strategy, nil if it has none. It refuses a flag for which
// it is unclear who would be in the share.
func (a *flagShare) one(f flag) (*strategy, error) {
	all := f.env.enabled()
	refuse := func(try, format string, args ...any) (*strategy, error) {
		return nil, hint.Add(fmt.Errorf("%s "+format, append([]any{a.name()}, args...)...), "%s", try)
	}
	switch {
	case len(f.env.ReleasePlans) > 0:
		return refuse("remove the plan in Unleash, or set the share there and then "+alerts.DeclareCommand("", ""),
			"has a release plan, which sets its strategies")
	case len(all) > 1:
		return refuse("disable all but one gradual rollout in Unleash", "has %d enabled strategies: each of them adds to the share", len(all))
	case len(all) == 0 && f.env.state() == on:
		return refuse("add a gradual rollout in Unleash", "is on without an enabled strategy")
	case len(all) == 0:
		return nil, nil
	case all[0].Name != gradual:
		return refuse("replace it by a gradual rollout in Unleash", "has the strategy %s, which has no percentage", all[0].Name)
	case all[0].ID == "" || !all[0].gives(all[0].rollout()):
		return nil, a.odd("its strategy has the id %q and the rollout %q", all[0].ID, all[0].rollout())
	}
	return &all[0], nil
}

func (a *flagShare) want() string { return strconv.Itoa(a.percent) }

// position says how far the flag is. What was set before it is turned on is half-way.
func (a *flagShare) position(f flag, s *strategy) remediation.Position {
	set := s != nil && s.gives(a.want())
	switch isOn := f.env.state() == on; {
	case a.percent == 0 && !isOn, set && isOn:
		return remediation.Wanted
	case set:
		return remediation.HalfWay
	}
	return remediation.Untouched
}

// Look implements remediation.Action.
func (a *flagShare) Look(ctx context.Context, _ string) (remediation.Look, error) {
	f, err := a.read(ctx)
	if err != nil {
		return remediation.Look{}, err
	}
	s, err := a.one(f)
	if err != nil {
		return remediation.Look{}, err
	}
	snap := shareSnapshot{snapshot: a.snapshot(f), Parents: len(f.Dependencies)}
	if s != nil {
		snap.Strategy, snap.Rollout, snap.Constraints, snap.Segments = s.ID, s.rollout(), len(s.Constraints), len(s.Segments)
	}
	raw, err := json.Marshal(snap)
	return remediation.Look{Position: a.position(f, s), Snapshot: raw}, err
}

// title is what a strategy of ours is known by.
func (a *flagShare) title(op string) string {
	return fmt.Sprintf("backout: %s, rollout step %s", a.flag.Name, op)
}

// jsonPatch is one operation of a JSON patch (RFC 6902).
type jsonPatch struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// set changes a strategy's share, if it is still the one that was seen. More: the flag may
// have to be turned on then.
func (a *flagShare) set(s *strategy, percent string) *jsonhttp.Step {
	const path = "/parameters/rollout"
	return &jsonhttp.Step{
		Method: http.MethodPatch, Path: a.strategyPath(s), More: true,
		Body: []jsonPatch{{"test", path, s.Parameters.Rollout}, {"replace", path, percent}},
	}
}

func (a *flagShare) strategyPath(s *strategy) string {
	return a.envPath() + "/strategies/" + url.PathEscape(s.ID)
}

// created is a new strategy's body. Without stickiness, it is the project's default.
type created struct {
	Name       string            `json:"name"`
	Title      string            `json:"title"`
	Parameters map[string]string `json:"parameters"`
}

// Apply implements remediation.Action. What a person changed since the intent does
// not matter: the share is the one of the stage that was just begun.
func (a *flagShare) Apply(ctx context.Context, op string, _ json.RawMessage) error {
	return a.change(ctx, fmt.Sprintf("give %s to %d%% of the traffic", a.name(), a.percent), func(f flag) (*jsonhttp.Step, error) {
		if extra := a.ours(f, op); len(extra) > 1 { // a request that was given up took effect after all
			return a.remove(&extra[1]), nil
		}
		s, err := a.one(f)
		switch at := a.position(f, s); {
		case err != nil || at == remediation.Wanted:
			return nil, err
		case at == remediation.HalfWay:
			return a.turn(on), nil
		case s == nil:
			return &jsonhttp.Step{
				Method: http.MethodPost, Path: a.envPath() + "/strategies", More: true,
				Body: created{gradual, a.title(op), map[string]string{"rollout": a.want(), "groupId": a.at.Name}},
			}, nil
		}
		return a.set(s, a.want()), nil
	})
}

// ours are the strategies that the operation has created.
func (a *flagShare) ours(f flag, op string) (list []strategy) {
	for _, s := range f.env.Strategies {
		if s.Title == a.title(op) {
			list = append(list, s)
		}
	}
	return list
}

func (a *flagShare) remove(s *strategy) *jsonhttp.Step {
	return &jsonhttp.Step{Method: http.MethodDelete, Path: a.strategyPath(s), More: true}
}

// Verify implements remediation.Action: it waits until the share is read back.
func (a *flagShare) Verify(ctx context.Context, _ string) error {
	return jsonhttp.Await(ctx, a.c.api, a.read, func(f flag) (bool, string, error) {
		s, err := a.one(f)
		return err == nil && a.position(f, s) == remediation.Wanted, fmt.Sprintf("%s does not serve %d%% of the traffic", a.name(), a.percent), err
	})
}

// Undo implements remediation.Action: the share that was, and off if it was off; a strategy
// that the operation created is removed. A flag that someone turned off meanwhile stays so,
// and a share that someone has set since is theirs.
func (a *flagShare) Undo(ctx context.Context, op string, before json.RawMessage) error {
	var was shareSnapshot
	if err := json.Unmarshal(before, &was); err != nil {
		return fmt.Errorf("snapshot of %s: %w", a.name(), err)
	}
	if err := a.same(was.snapshot); err != nil {
		return err
	}
	if (was.Strategy == "") != (was.Rollout == "") || was.Strategy == "" && was.State == on {
		return fmt.Errorf("snapshot of %s: it lacks the flag's previous share", a.name())
	}
	return a.change(ctx, "put back the share of "+a.name(), func(f flag) (*jsonhttp.Step, error) {
		if err := a.recreated(f, was.snapshot); err != nil {
			return nil, err
		}
		step, err := a.back(f, op, was)
		if err == nil && was.State == off && f.env.state() == on { // first: it gives to nobody
			step = a.turn(off)
			step.More = true
		}
		return step, err
	})
}

// back is what leads to the strategies that were.
func (a *flagShare) back(f flag, op string, was shareSnapshot) (*jsonhttp.Step, error) {
	others := func(how string) error {
		return hint.Add(fmt.Errorf("%s %s: someone has changed it since", a.name(), how), "check it in Unleash")
	}
	if was.Strategy == "" {
		switch ours := a.ours(f, op); {
		case len(ours) > 0:
			return a.remove(&ours[0]), nil
		case len(f.env.enabled()) > 0:
			return nil, others("had no enabled strategy and has one")
		}
		return nil, nil
	}
	s, err := a.one(f)
	switch {
	case err != nil:
		return nil, err
	case s == nil || s.ID != was.Strategy:
		return nil, others("no longer has the strategy that it had")
	case s.gives(was.Rollout):
		return nil, nil
	case !s.gives(a.want()):
		return nil, others(fmt.Sprintf("serves neither %s%% nor %d%%", was.Rollout, a.percent))
	}
	return a.set(s, was.Rollout), nil
}
