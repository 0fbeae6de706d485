package unleash

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// flag is what matters of a flag as the API answers it.
type flag struct {
	Name      string `json:"name"`
	CreatedAt string `json:"createdAt"`
	Archived  bool   `json:"archived"`
	// Dependencies are the flags that this one is off without.
	Dependencies []json.RawMessage `json:"dependencies"`
	Environments []environment     `json:"environments"`

	// env is the environment that was asked for.
	env environment
}

// environment is a flag's configuration in one environment.
type environment struct {
	Name       string     `json:"name"`
	Enabled    *bool      `json:"enabled"`
	Strategies []strategy `json:"strategies"`
	// ReleasePlans change the strategies by themselves.
	ReleasePlans []json.RawMessage `json:"releasePlans"`
}

type strategy struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Title      string `json:"title"`
	Disabled   bool   `json:"disabled"`
	Parameters struct {
		// Rollout is a string, and was a number in old versions.
		Rollout json.RawMessage `json:"rollout"`
	} `json:"parameters"`
	Constraints []json.RawMessage `json:"constraints"`
	Segments    []json.RawMessage `json:"segments"`
}

func (e environment) state() state {
	if e.Enabled != nil && *e.Enabled {
		return on
	}
	return off
}

// enabled are the strategies that count.
func (e environment) enabled() []strategy {
	return slices.DeleteFunc(slices.Clone(e.Strategies), func(s strategy) bool { return s.Disabled })
}

// read asks for the flag in its environment.
func (a *flagOff) read(ctx context.Context) (flag, error) {
	var f flag
	if err := a.c.api.Get(ctx, a.path(), &f); err != nil {
		return flag{}, fmt.Errorf("look at %s: %w", a.name(), err)
	}
	n := slices.IndexFunc(f.Environments, func(e environment) bool { return e.Name == a.at.Environment })
	switch {
	case f.Name != a.at.Name || f.CreatedAt == "":
		return flag{}, a.odd("it is of flag %q, created at %q", f.Name, f.CreatedAt)
	case f.Archived:
		return flag{}, hint.Add(fmt.Errorf("%s is archived", a.name()), "revive it in Unleash, or remove it from the playbook's plans")
	case n < 0:
		return flag{}, hint.Add(a.odd("its project has no such environment"), "fix unleash.environment in the playbook's flags")
	case f.Environments[n].Enabled == nil:
		return flag{}, a.odd("it has no on/off state")
	}
	f.env = f.Environments[n]
	return f, nil
}

func (a *flagOff) odd(format string, args ...any) error {
	return fmt.Errorf("look at %s: %w: %s", a.name(), jsonhttp.ErrOdd, fmt.Sprintf(format, args...))
}

func (a *flagOff) path() string {
	return "/api/admin/projects/" + url.PathEscape(a.at.Project) + "/features/" + url.PathEscape(a.at.Name)
}

func (a *flagOff) envPath() string {
	return a.path() + "/environments/" + url.PathEscape(a.at.Environment)
}

// turn sets the flag on or off.
func (a *flagOff) turn(want state) *jsonhttp.Step {
	return &jsonhttp.Step{Method: http.MethodPost, Path: a.envPath() + "/" + string(want)}
}

// change makes the changes that plan names of the flag as it is now, looking before each.
func (a *flagOff) change(ctx context.Context, what string, plan func(flag) (*jsonhttp.Step, error)) error {
	return a.c.api.Change(ctx, what, func() (*jsonhttp.Step, error) {
		f, err := a.read(ctx)
		if err != nil {
			return nil, jsonhttp.Doubtful(err)
		}
		return plan(f)
	})
}
