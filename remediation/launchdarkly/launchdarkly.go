// Package launchdarkly switches off flags that LaunchDarkly manages, one environment at a
// time, through its REST API. It also sets the traffic share of a rollout's stage there.
//
// A flag is switched off by a semantic patch with one instruction. Its comment names the
// incident's step, so that LaunchDarkly's own log explains the change. The instruction has
// no effect on a flag that is already off, but it is only sent to a flag that was just seen
// on. A conflict with someone else's change, a rate limit and a server error are retried,
// each time after another look; a missing answer is remediation.InDoubt, which the engine
// resolves by looking.
//
// A flag that is off serves its off variation. If it has none, or one that means something
// else than the playbook's off, it is refused before anything is changed: off might not
// help.
//
// A share is the weight of the other variation in the flag's default rule. The rule and the
// flag's being on are one patch, which applies as a whole or not at all. Targets, rules and
// prerequisites come before the default rule and stay as they are: the intent counts them.
//
// The access token goes into one header and nowhere else.
package launchdarkly

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// Options are all that a Client needs.
type Options struct {
	// URL is where LaunchDarkly is: https://app.launchdarkly.com.
	URL string
	// Token is an access token whose role may turn the flags on and off.
	Token     string
	Transport http.RoundTripper
	Now       func() time.Time
	// Wait returns after a time, or with an error once ctx ends.
	Wait func(ctx context.Context, d time.Duration) error
}

// Client speaks to one LaunchDarkly account; it implements action.Flags.
type Client struct{ api *jsonhttp.Client }

// apiVersion is the one whose answers are read here; without it, the token's own decides.
const apiVersion = "20220603"

// New returns a client. It does not connect.
func New(o Options) (*Client, error) {
	api, err := jsonhttp.New(jsonhttp.Options{
		Name: "launchdarkly", URL: o.URL, Example: "https://app.launchdarkly.com", Secret: o.Token, SecretName: "access token",
		Header: map[string]string{"LD-API-Version": apiVersion, "Content-Type": "application/json; domain-model=launchdarkly.semanticpatch"},
		Said:   said, Try: try, ResetMillis: true, Transport: o.Transport, Now: o.Now, Wait: o.Wait,
	})
	if err != nil {
		return nil, err
	}
	return &Client{api}, nil
}

// said is what an error's body says.
func said(body []byte) string {
	var e struct{ Code, Message string }
	if err := json.Unmarshal(body, &e); err != nil || e.Code+e.Message == "" {
		return ""
	}
	return e.Code + ": " + e.Message
}

// try is what a person can do about an answer. An environment that requires
// approvals answers 405, which does not say so by itself.
func try(code int, said string) string {
	switch {
	case (code == http.StatusMethodNotAllowed || code == http.StatusForbidden) && strings.Contains(strings.ToLower(said), "approval"):
		return "switch the flag in LaunchDarkly, where this environment requires approvals, or let the token's role bypass them"
	case code == http.StatusUnauthorized:
		return "put another access token into launchdarkly.token_file, with a role that may see and switch the flag"
	case code == http.StatusForbidden:
		return "put an access token into launchdarkly.token_file whose role may see the flag and has updateOn in its environment"
	case code == http.StatusNotFound:
		return "fix launchdarkly.project or launchdarkly.key in the playbook's flags, or use a token that may see them"
	}
	return ""
}

// FlagOff returns the action that switches one flag off in one environment.
func (c *Client) FlagOff(_ alerts.Target, flag alerts.Flag) (remediation.Action, error) {
	at := flag.LaunchDarkly
	if at == nil || at.Project == "" || at.Environment == "" || at.Key == "" {
		return nil, fmt.Errorf("flag %s: launchdarkly needs project, environment and key", flag.Name)
	}
	return &flagOff{c: c, flag: flag, at: *at}, nil
}

type flagOff struct {
	c    *Client
	flag alerts.Flag
	at   alerts.LaunchDarklyFlag
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
	Key         string `json:"key"`
	State       state  `json:"state"`
	// Version counts the changes of the flag in the environment.
	Version int64 `json:"version"`
}

// Look implements remediation.Action. A flag is on or off: nothing is half-way.
func (a *flagOff) Look(ctx context.Context, _ string) (remediation.Look, error) {
	f, err := a.read(ctx)
	if err != nil {
		return remediation.Look{}, err
	}
	if err := a.meansOff(f); err != nil {
		return remediation.Look{}, err
	}
	env := f.Environments[a.at.Environment]
	position := remediation.Untouched
	if env.state() == off {
		position = remediation.Wanted
	}
	raw, err := json.Marshal(snapshot{a.at.Project, a.at.Environment, a.at.Key, env.state(), env.Version})
	return remediation.Look{Position: position, Snapshot: raw}, err
}

// Apply implements remediation.Action. What a person changed since the intent does
// not matter: it is the flag as it is now that is switched off.
func (a *flagOff) Apply(ctx context.Context, op string, _ json.RawMessage) error {
	return a.turn(ctx, off, fmt.Sprintf("backout: %s switched off by rollback step %s", a.flag.Name, op))
}

// Verify implements remediation.Action: it waits until the flag is seen off.
func (a *flagOff) Verify(ctx context.Context, _ string) error {
	return jsonhttp.Await(ctx, a.c.api, a.read, func(f flag) (bool, string, error) {
		env := f.Environments[a.at.Environment]
		if env.state() == off {
			return true, "", a.meansOff(f)
		}
		return false, fmt.Sprintf("%s is still on at version %d", a.name(), env.Version), nil
	})
}

// Undo implements remediation.Action. A flag that was off before stays off, and one
// that is on again is left alone. Who switched it off, an answer does not tell: what
// goes back is what the snapshot says, unless the flag is not the one it was.
func (a *flagOff) Undo(ctx context.Context, op string, before json.RawMessage) error {
	var was snapshot
	if err := json.Unmarshal(before, &was); err != nil {
		return fmt.Errorf("snapshot of %s: %w", a.name(), err)
	}
	if at := (alerts.LaunchDarklyFlag{Project: was.Project, Environment: was.Environment, Key: was.Key}); at != a.at {
		return fmt.Errorf("snapshot of %s is one of %s", a.name(), name(at))
	}
	switch was.State {
	case off:
		return nil
	case on:
		f, err := a.read(ctx)
		if err != nil {
			return jsonhttp.Doubtful(err)
		}
		if now := f.Environments[a.at.Environment].Version; now < was.Version {
			return hint.Add(fmt.Errorf("%s is at version %d and was at %d: it was recreated since", a.name(), now, was.Version),
				"switch it on in LaunchDarkly, if you want that")
		}
		return a.turn(ctx, on, fmt.Sprintf("backout: %s switched back on, as before rollback step %s", a.flag.Name, op))
	}
	return fmt.Errorf("snapshot of %s: it was neither on nor off", a.name())
}

// name is how errors call the flag.
func (a *flagOff) name() string { return name(a.at) }

func name(at alerts.LaunchDarklyFlag) string {
	return fmt.Sprintf("flag %s of LaunchDarkly's project %s in environment %s", at.Key, at.Project, at.Environment)
}
