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
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
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
type Client struct {
	base   string
	token  string
	client *http.Client
	now    func() time.Time
	wait   func(ctx context.Context, d time.Duration) error
}

// New returns a client. It does not connect.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, hint.Add(errors.New("launchdarkly: the address is not http or https"), "https://app.launchdarkly.com")
	case o.Token == "" || strings.ContainsAny(o.Token, "\r\n\x00"):
		return nil, errors.New("launchdarkly: the access token is empty or has more than one line")
	case o.Transport == nil || o.Now == nil || o.Wait == nil:
		return nil, errors.New("launchdarkly: transport, clock and wait are required")
	}
	return &Client{
		base: strings.TrimRight(o.URL, "/"), token: o.Token, now: o.Now, wait: o.Wait,
		// A redirect is not an answer: the token does not follow.
		client: &http.Client{Transport: o.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
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

// pace is the distance of two looks while a change is waited for.
const pace = 500 * time.Millisecond

// Verify implements remediation.Action: it waits until the flag is seen off.
func (a *flagOff) Verify(ctx context.Context, _ string) error {
	for {
		f, err := a.read(ctx)
		if err != nil {
			return err
		}
		env := f.Environments[a.at.Environment]
		if env.state() == off {
			return a.meansOff(f)
		}
		if err := a.c.wait(ctx, pace); err != nil {
			return fmt.Errorf("%s is still on at version %d: %w", a.name(), env.Version, err)
		}
	}
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
			return doubtful(err)
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
