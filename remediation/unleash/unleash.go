// Package unleash turns off flags that an Unleash server keeps, one environment at a time,
// through its Admin API. It also sets the traffic share of a rollout's stage there.
//
// A flag of Unleash is a boolean: off is false, whatever its strategies are. They stay as
// they are, so that turning it on again restores what was. Unleash adds a strategy for
// everybody to a flag that is turned on without one: such a flag is not turned on.
//
// A share is the rollout of the flag's one enabled strategy, a gradual rollout. It is
// changed by a JSON patch that tests the value that was seen, and then the flag is turned
// on: between the two, the target is half-way. Constraints, segments, variants, stickiness
// and disabled strategies stay; the intent counts what narrows the share. A flag without an
// enabled strategy gets one, whose title names the step; undo removes it. Two enabled
// strategies, one of another kind and a release plan are refused: it would be unclear who is
// in the share.
//
// The API token goes into one header and nowhere else.
package unleash

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// Options are all that a Client needs.
type Options struct {
	// URL is where Unleash is, without /api: https://unleash.example.com.
	URL string
	// Token is an API token that may change flags: an admin's or a user's own.
	Token     string
	Transport http.RoundTripper
	Now       func() time.Time
	// Wait returns after a time, or with an error once ctx ends.
	Wait func(ctx context.Context, d time.Duration) error
}

// Client speaks to one Unleash server; it implements action.Shares.
type Client struct{ api *jsonhttp.Client }

// New returns a client. It does not connect.
func New(o Options) (*Client, error) {
	api, err := jsonhttp.New(jsonhttp.Options{
		Name: "unleash", URL: o.URL, Example: "https://unleash.example.com", Secret: o.Token, SecretName: "API token",
		Said: said, Try: try, Transport: o.Transport, Now: o.Now, Wait: o.Wait,
	})
	if err != nil {
		return nil, err
	}
	return &Client{api}, nil
}

// said is what an error's body says.
func said(body []byte) string {
	var e struct{ Name, Message string }
	if err := json.Unmarshal(body, &e); err != nil {
		return ""
	}
	return strings.TrimPrefix(e.Name+": "+e.Message, ": ")
}

// try is what a person can do about an answer. Change requests show as a missing
// permission, and a token for SDKs as one of another type.
func try(code int, said string) string {
	switch {
	case code == http.StatusForbidden && strings.Contains(said, "SKIP_CHANGE_REQUEST"):
		return "change the flag in Unleash, where this environment requires change requests, or let the token's user skip them"
	case code == http.StatusUnauthorized, code == http.StatusForbidden && strings.Contains(said, "token type"):
		return "put another API token into unleash.token_file: an admin token, or a user's personal access token"
	case code == http.StatusForbidden:
		return "put an API token into unleash.token_file whose user may turn flags on and off in this environment and update their strategies"
	case code == http.StatusBadRequest && strings.Contains(said, "ArchivedFeatureError"):
		return "revive the flag in Unleash, or remove it from the playbook's plans"
	case code == http.StatusNotFound:
		return "fix unleash.project or unleash.name in the playbook's flags; an archived flag must be revived in Unleash first"
	}
	return ""
}

// FlagOff returns the action that turns one flag off in one environment.
func (c *Client) FlagOff(_ alerts.Target, flag alerts.Flag) (remediation.Action, error) {
	at := flag.Unleash
	if at == nil || at.Project == "" || at.Environment == "" || at.Name == "" {
		return nil, fmt.Errorf("flag %s: unleash needs project, environment and name", flag.Name)
	}
	if off, err := strconv.ParseBool(flag.Off); err != nil || off {
		return nil, hint.Add(fmt.Errorf("flag %s: a flag of Unleash is false when off, and the playbook has %q", flag.Name, flag.Off), `off: "false"`)
	}
	return &flagOff{c: c, flag: flag, at: *at}, nil
}

type flagOff struct {
	c    *Client
	flag alerts.Flag
	at   alerts.UnleashFlag
}

// state is a flag's in one environment.
type state string

const (
	on  state = "on"
	off state = "off"
)

// snapshot is what an intent records.
type snapshot struct {
	Project     string `json:"project"`
	Environment string `json:"environment"`
	Name        string `json:"name"`
	State       state  `json:"state"`
	// Created is when the flag was created: another one of the same name is not the same.
	Created string `json:"created"`
}

func (a *flagOff) snapshot(f flag) snapshot {
	return snapshot{a.at.Project, a.at.Environment, a.at.Name, f.env.state(), f.CreatedAt}
}

// same refuses a snapshot of another flag, and a flag that is not the one that it was.
func (a *flagOff) same(was snapshot) error {
	if at := (alerts.UnleashFlag{Project: was.Project, Environment: was.Environment, Name: was.Name}); at != a.at {
		return fmt.Errorf("snapshot of %s is one of %s", a.name(), name(at))
	}
	if was.State != on && was.State != off {
		return fmt.Errorf("snapshot of %s: it was neither on nor off", a.name())
	}
	return nil
}

func (a *flagOff) recreated(f flag, was snapshot) error {
	if f.CreatedAt == was.Created {
		return nil
	}
	return hint.Add(fmt.Errorf("%s was created at %s, and the one before at %s: it was recreated since", a.name(), f.CreatedAt, was.Created),
		"set it in Unleash, if you want that")
}

// Look implements remediation.Action. A flag is on or off: nothing is half-way.
func (a *flagOff) Look(ctx context.Context, _ string) (remediation.Look, error) {
	f, err := a.read(ctx)
	if err != nil {
		return remediation.Look{}, err
	}
	position := remediation.Untouched
	if f.env.state() == off {
		position = remediation.Wanted
	}
	raw, err := json.Marshal(a.snapshot(f))
	return remediation.Look{Position: position, Snapshot: raw}, err
}

// Apply implements remediation.Action. What a person changed since the intent does
// not matter: it is the flag as it is now that is turned off.
func (a *flagOff) Apply(ctx context.Context, _ string, _ json.RawMessage) error {
	return a.change(ctx, "turn "+a.name()+" off", func(f flag) (*jsonhttp.Step, error) {
		if f.env.state() == off {
			return nil, nil
		}
		return a.turn(off), nil
	})
}

// Verify implements remediation.Action: it waits until the flag is seen off.
func (a *flagOff) Verify(ctx context.Context, _ string) error {
	return jsonhttp.Await(ctx, a.c.api, a.read, func(f flag) (bool, string, error) {
		return f.env.state() == off, a.name() + " is still on", nil
	})
}

// Undo implements remediation.Action. A flag that was off before stays off, and one
// that is on again is left alone.
func (a *flagOff) Undo(ctx context.Context, _ string, before json.RawMessage) error {
	var was snapshot
	if err := json.Unmarshal(before, &was); err != nil {
		return fmt.Errorf("snapshot of %s: %w", a.name(), err)
	}
	if err := a.same(was); err != nil || was.State == off {
		return err
	}
	return a.change(ctx, "turn "+a.name()+" on again", func(f flag) (*jsonhttp.Step, error) {
		if err := a.recreated(f, was); err != nil || f.env.state() == on {
			return nil, err
		}
		if len(f.env.enabled()) == 0 {
			return nil, hint.Add(fmt.Errorf("%s has no enabled strategy: when turned on, Unleash would give it to everybody", a.name()),
				"add a strategy in Unleash and turn it on there, if you want that")
		}
		return a.turn(on), nil
	})
}

// name is how errors call the flag.
func (a *flagOff) name() string { return name(a.at) }

func name(at alerts.UnleashFlag) string {
	return fmt.Sprintf("flag %s of Unleash's project %s in environment %s", at.Name, at.Project, at.Environment)
}
