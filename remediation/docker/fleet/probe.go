package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/probe"
)

const (
	// probeTimeout is used where the playbook has none.
	probeTimeout = 30 * time.Second
	// AloneTimeout is how long a container must stay up that nothing can ask.
	AloneTimeout = 2 * time.Second
	// unsetInterval and unsetTimeout are what the engine uses where a healthcheck has none
	// (moby, daemon/health.go).
	unsetInterval, unsetTimeout = 30 * time.Second, 30 * time.Second
	// slack is how much later than planned a healthcheck's first answer may come.
	slack = 5 * time.Second
)

// Check is what a replica must show before it counts as working. Its addresses
// are the service's; each replica is asked by its own where that can be told.
type Check struct {
	Health, Flags, Version string
	Timeout                time.Duration
	Flag                   string
	Value                  compose.Setting // what flags must list for flag, if it is set
	Wants                  string          // what version must name, if it is not ""
	Peers                  []*Replica
	// also is asked once the service is healthy; nil: nothing.
	also func(context.Context) error
}

// CheckOf is what a playbook's probe asks of a replica.
func CheckOf(p alerts.Probe) Check {
	timeout := time.Duration(p.Timeout)
	if timeout <= 0 {
		timeout = probeTimeout
	}
	return Check{Health: p.Health, Flags: p.Flags, Version: p.Version, Timeout: timeout}
}

// ErrBroken marks what waiting does not cure.
var ErrBroken = errors.New("container does not stay up")

// noAnswerError is a healthcheck that has not answered since its container started. It decides
// nothing.
type noAnswerError struct {
	name            string
	interval, start time.Duration
	within          time.Duration // until when its first answer comes at the latest
}

func (e *noAnswerError) Error() string {
	text := fmt.Sprintf("the healthcheck of %s has not answered yet (interval %s", e.name, remediation.Span(e.interval))
	if e.start > 0 {
		text += ", start_period " + remediation.Span(e.start)
	}
	return text + ")"
}

// Works waits until a started container is seen to work: up without a restart,
// healthy by its own healthcheck where that answers in time, and by the probe's
// addresses. A healthcheck that must decide is waited for until its first answer, for longer
// than the check's time if need be. If ctx ends before that answer, the error is remediation.InDoubt.
func (c *Engine) Works(ctx context.Context, id string, k Check) error {
	deadline, cancel := context.WithTimeout(ctx, k.Timeout)
	defer cancel()
	started, limit, extended := time.Now(), k.Timeout, false
	if end, ok := deadline.Deadline(); ok {
		k.Timeout = time.Until(end) // the step may have less
	}
	var last error
	name := id
	for {
		in, err := c.API.ContainerInspect(deadline, id)
		switch {
		case err != nil && deadline.Err() == nil:
			return Unseen(fmt.Errorf("inspect container %s: %w", name, err))
		case err == nil:
			name = (&Replica{in}).ShortName()
			ready, err := settled(in, started, k)
			if errors.Is(err, ErrBroken) {
				return err
			}
			if ready && err == nil {
				if err = c.answers(deadline, c.of(ctx, k, &Replica{in})); err == nil {
					return nil
				}
			}
			if last == nil || deadline.Err() == nil { // what was said before the end says more
				last = err
			}
		}
		if !Wait(deadline, probe.Every) {
			var silent *noAnswerError
			unanswered := errors.As(last, &silent)
			if unanswered && !extended && ctx.Err() == nil {
				extended, limit = true, max(limit, silent.within)
				longer, stop := context.WithDeadline(ctx, started.Add(limit))
				defer stop() // once
				deadline = longer
				continue
			}
			within := "within " + remediation.Span(limit)
			if ctx.Err() != nil {
				within = "within the time of the step"
			}
			switch {
			case errors.Is(ctx.Err(), context.Canceled):
				return fmt.Errorf("wait for container %s: %w", name, ctx.Err())
			case last == nil:
				return remediation.InDoubt(fmt.Errorf("inspect container %s: the engine did not answer %s", name, within))
			case unanswered:
				return remediation.InDoubt(hint.Add(fmt.Errorf("container %s was not seen to work %s: %w", name, within, last),
					"make the healthcheck's interval and start_period in the compose file shorter than target.probe.timeout, and that shorter than the step's timeout"))
			}
			// As text: neither an address that does not answer nor the end of the time leaves a doubt about what was seen.
			return fmt.Errorf("container %s does not work %s: %s", name, within, last.Error())
		}
	}
}

// Unseen marks an error as remediation.InDoubt if the engine did not answer, so that
// nothing was seen.
func Unseen(err error) error {
	if Unanswered(err) {
		return remediation.InDoubt(err)
	}
	return err
}

// Unanswered reports whether the engine was asked and gave no answer.
func Unanswered(err error) bool {
	var cut *url.Error
	return client.IsErrConnectionFailed(err) || errors.As(err, &cut) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// settled judges a container by the engine's word on it.
func settled(in container.InspectResponse, since time.Time, k Check) (ready bool, err error) {
	name := strings.TrimPrefix(in.Name, "/")
	switch s := in.State; {
	case in.RestartCount > 0 || s.Restarting:
		return false, fmt.Errorf("%w: %s was restarted %d times (last exit status %d)", ErrBroken, name, in.RestartCount, s.ExitCode)
	case !s.Running:
		return false, fmt.Errorf("%w: %s is %s (exit status %d)", ErrBroken, name, s.Status, s.ExitCode)
	case s.Health == nil || s.Health.Status == container.NoHealthcheck:
		if k.Health == "" && time.Since(since) < AloneTimeout {
			return false, fmt.Errorf("%s has no health address; it must stay up for %s", name, AloneTimeout)
		}
	case s.Health.Status == container.Unhealthy:
		return false, fmt.Errorf("%w: %s is unhealthy according to its healthcheck", ErrBroken, name)
	case s.Health.Status == container.Starting:
		// A first verdict that cannot come in time is not waited for, if the
		// service can be asked otherwise.
		e := firstAnswer(name, in.Config.Healthcheck)
		switch n := len(s.Health.Log); {
		case k.Health != "" && e.interval+e.start >= k.Timeout:
			return true, nil
		case n > 0 && time.Since(since) >= e.start: // before, no failure counts
			return false, fmt.Errorf("the healthcheck of %s has not passed yet (last exit status %d)", name, s.Health.Log[n-1].ExitCode)
		}
		return false, e
	}
	return true, nil
}

// firstAnswer returns when a container's healthcheck answers first.
func firstAnswer(name string, h *container.HealthConfig) *noAnswerError {
	e := &noAnswerError{name: name, interval: unsetInterval}
	timeout := unsetTimeout
	if h != nil {
		e.interval, e.start, timeout = cmp.Or(h.Interval, e.interval), h.StartPeriod, cmp.Or(h.Timeout, timeout)
	}
	e.within = e.start + e.interval + timeout + slack
	return e
}

// answers asks the probe's addresses once.
func (c *Engine) answers(ctx context.Context, k Check) error {
	if k.Health != "" {
		if _, err := c.Probe.Get(ctx, k.Health); err != nil {
			return fmt.Errorf("health: %w", err)
		}
	}
	if k.Version != "" && k.Wants != "" {
		if err := c.Probe.VersionIs(ctx, k.Version, k.Wants); err != nil {
			return fmt.Errorf("%s: %w", checkVersion, err)
		}
	}
	if k.also != nil {
		if err := k.also(ctx); err != nil {
			return err
		}
	}
	if k.Flags == "" || !k.Value.Set {
		return nil
	}
	return c.Probe.FlagIs(ctx, k.Flags, k.Flag, k.Value.Value)
}

// Denies asks each replica once what it serves, and returns the answer that is not as
// wanted. No answer denies nothing.
func (c *Engine) Denies(ctx context.Context, f *Fleet, k Check) error {
	k.Peers, k.Health, k.also = f.Replicas, "", nil
	for _, r := range f.Members() {
		if !r.Running() {
			continue
		}
		if err := c.answers(ctx, c.of(ctx, k, r)); errors.Is(err, probe.ErrOtherwise) {
			return fmt.Errorf("container %s: %w", r.ShortName(), err)
		}
	}
	return nil
}

// Serves asks each replica that runs once which value it serves of a flag. The error is one
// that probe.Denied reports where a replica serves another; any other says why this was not seen.
func (c *Engine) Serves(ctx context.Context, target alerts.Target, flag alerts.Flag) error {
	f, err := c.Found(ctx, target.Compose)
	if err != nil {
		return err
	}
	var said []error
	for _, r := range f.Members() {
		if !r.Running() {
			continue
		}
		err := c.Probe.FlagIs(ctx, c.ownAddress(ctx, target.Probe.Flags, r, f.Replicas), flag.Name, flag.Off)
		if err != nil {
			err = fmt.Errorf("container %s: %w", r.ShortName(), err)
		}
		said = append(said, err)
	}
	if len(said) == 0 {
		return fmt.Errorf("no container of %s runs", target.Compose.Service)
	}
	return probe.Together(said)
}

// of returns the check with the addresses of one replica.
func (c *Engine) of(ctx context.Context, k Check, r *Replica) Check {
	for _, address := range []*string{&k.Health, &k.Flags, &k.Version} {
		*address = c.ownAddress(ctx, *address, r, k.Peers)
	}
	return k
}
