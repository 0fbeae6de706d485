package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
)

const (
	// probeAttempt bounds one request, probeEvery is the distance of two.
	probeAttempt = 2 * time.Second
	probeEvery   = 50 * time.Millisecond
	// probeTimeout is used where the playbook has none.
	probeTimeout = 30 * time.Second
	// aloneTimeout is how long a container must stay up that nothing can ask.
	aloneTimeout = 2 * time.Second
)

// check is what a replica must show before it counts as working.
type check struct {
	health, flags string
	timeout       time.Duration
	flag          string
	value         setting // what flags must list for flag, if it is set
	// also is asked once the service is healthy; nil: nothing.
	also func(context.Context) error
}

func checkOf(p alerts.Probe, flag string, value setting) check {
	timeout := time.Duration(p.Timeout)
	if timeout <= 0 {
		timeout = probeTimeout
	}
	return check{health: p.Health, flags: p.Flags, timeout: timeout, flag: flag, value: value}
}

// errBroken marks what waiting does not cure.
var errBroken = errors.New("container does not stay up")

// works waits until a started container is seen to work: up without a restart,
// healthy by its own healthcheck where that answers in time, and by the probe's
// addresses.
func (c *Client) works(ctx context.Context, id string, k check) error {
	deadline, cancel := context.WithTimeoutCause(ctx, k.timeout, fmt.Errorf("within %s", k.timeout))
	defer cancel()
	started := time.Now()
	var last error
	for {
		in, err := c.api.ContainerInspect(deadline, id)
		switch {
		case err != nil && deadline.Err() == nil:
			return fmt.Errorf("inspect container %s: %w", id, err)
		case err == nil:
			ready, err := settled(in, started, k)
			if errors.Is(err, errBroken) {
				return err
			}
			if ready && err == nil {
				if err = c.answers(deadline, k); err == nil {
					return nil
				}
			}
			if last == nil || deadline.Err() == nil { // what was said before the end says more
				last = err
			}
		}
		if !wait(deadline, probeEvery) {
			if ctx.Err() != nil {
				return fmt.Errorf("wait for container %s: %w", id, ctx.Err())
			}
			// As text: an address that does not answer leaves no doubt about the engine.
			return fmt.Errorf("container %s does not work %w: %s", id, context.Cause(deadline), text(last))
		}
	}
}

func text(err error) string {
	if err == nil {
		return "the engine was too slow to tell"
	}
	return err.Error()
}

// settled judges a container by the engine's word on it.
func settled(in container.InspectResponse, since time.Time, k check) (ready bool, err error) {
	name := strings.TrimPrefix(in.Name, "/")
	switch s := in.State; {
	case in.RestartCount > 0 || s.Restarting:
		return false, fmt.Errorf("%w: %s was restarted %d times (last exit status %d)", errBroken, name, in.RestartCount, s.ExitCode)
	case !s.Running:
		return false, fmt.Errorf("%w: %s is %s (exit status %d)", errBroken, name, s.Status, s.ExitCode)
	case s.Health == nil || s.Health.Status == container.NoHealthcheck:
		if k.health == "" && time.Since(since) < aloneTimeout {
			return false, fmt.Errorf("%s has no health address; it must stay up for %s", name, aloneTimeout)
		}
	case s.Health.Status == container.Unhealthy:
		return false, fmt.Errorf("%w: %s is unhealthy by its own healthcheck", errBroken, name)
	case s.Health.Status == container.Starting:
		// A first verdict that cannot come in time is not waited for, if the
		// service can be asked otherwise.
		if h := in.Config.Healthcheck; k.health != "" && h != nil && h.Interval+h.StartPeriod >= k.timeout {
			return true, nil
		}
		return false, fmt.Errorf("the healthcheck of %s has not answered", name)
	}
	return true, nil
}

// answers asks the probe's addresses once.
func (c *Client) answers(ctx context.Context, k check) error {
	if k.health != "" {
		if _, err := c.get(ctx, k.health); err != nil {
			return fmt.Errorf("health: %w", err)
		}
	}
	if k.also != nil {
		if err := k.also(ctx); err != nil {
			return err
		}
	}
	if k.flags == "" || !k.value.set {
		return nil
	}
	body, err := c.get(ctx, k.flags)
	if err != nil {
		return fmt.Errorf("flags: %w", err)
	}
	var flags map[string]json.RawMessage
	if err := json.Unmarshal(body, &flags); err != nil {
		return fmt.Errorf("flags: %s: not a JSON object of flags: %w", k.flags, err)
	}
	raw, ok := flags[k.flag]
	if !ok {
		return fmt.Errorf("flags: %s does not list %s", k.flags, k.flag)
	}
	got := flagText(raw)
	if same := strings.EqualFold(got, k.value.value) || off(got) && off(k.value.value); !same {
		return fmt.Errorf("flags: %s serves %s=%s, want %s", k.flags, k.flag, got, k.value.value)
	}
	return nil
}

// flagText is a JSON scalar as an environment variable would have it.
func flagText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// off tells the usual spellings of off: a service may parse its variable and
// serve what it understood.
func off(s string) bool {
	switch strings.ToLower(s) {
	case "0", "false", "off", "no", "":
		return true
	}
	return false
}

// get returns what an address answers, if the answer is good.
func (c *Client) get(ctx context.Context, url string) ([]byte, error) {
	status, body, err := c.request(ctx, url)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("%s answers %d %s", url, status, http.StatusText(status))
	}
	return body, err
}

// request returns an answer's status and its first MiB. It follows no redirection.
func (c *Client) request(ctx context.Context, url string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := c.probe.Do(req)
	if err != nil {
		return 0, nil, err
	}
	body, err = io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, body, errors.Join(err, res.Body.Close())
}
