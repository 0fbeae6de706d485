package swarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/probe"
)

// found returns a service and the tasks of it that are to run.
func (c *Client) found(ctx context.Context, target alerts.Target) (*state, []task, error) {
	s, err := c.read(ctx, target.Swarm)
	if err != nil {
		return nil, nil, err
	}
	tasks, _, err := c.tasks(ctx, s)
	if err == nil && len(tasks) == 0 {
		err = fmt.Errorf("%s has no tasks", s)
	}
	return s, tasks, err
}

// Runs says why not every task runs image:version, or returns nil; image "" is the
// repository that the service runs from.
func (c *Client) Runs(ctx context.Context, target alerts.Target, image, version string) error {
	s, tasks, err := c.found(ctx, target)
	if err != nil {
		return err
	}
	if check := s.runs(tasks, image, version); !check.OK {
		return errors.New(check.Detail)
	}
	return nil
}

func (s *state) runs(tasks []task, image, version string) remediation.Check {
	want := cmp.Or(image, repository(s.container().Image)) + ":" + version
	check := remediation.Check{Name: "image"}
	for _, t := range tasks {
		if got := undigested(t.Spec.ContainerSpec.Image); got != want {
			check.Detail = fmt.Sprintf("task %s runs %s, not %s", t.name(s), got, want)
			return check
		}
	}
	check.OK, check.Detail = true, fmt.Sprintf("%s run %s", remediation.Counted(len(tasks), "task"), want)
	return check
}

// Verify checks that every task runs image:version, names it at the probe's version path
// and is healthy, and that the smoke checks pass. What does not hold yet is asked again
// within the probe's timeout. The error says why nothing could be asked.
func (c *Client) Verify(ctx context.Context, target alerts.Target, image, version string) ([]remediation.Check, error) {
	s, tasks, err := c.found(ctx, target)
	if err != nil {
		return nil, err
	}
	checks := []remediation.Check{s.runs(tasks, image, version)}
	deadline := time.Now().Add(patience(target.Probe))
	add := func(name, good string, ask func(context.Context) error) {
		check := remediation.Check{Name: name, OK: true, Detail: good}
		for {
			err := ask(ctx)
			if err == nil {
				break
			}
			if time.Now().After(deadline) || !wait(ctx, probe.Every) {
				check.OK, check.Detail = false, err.Error()
				break
			}
		}
		checks = append(checks, check)
	}
	each := func(ask func(ctx context.Context, t task, address string) error) func(context.Context) error {
		return func(ctx context.Context) error {
			s, tasks, err := c.found(ctx, target)
			if err != nil {
				return err
			}
			for _, t := range tasks {
				address, err := c.address(ctx, target, s, t)
				if err == nil {
					err = ask(ctx, t, address)
				}
				if err != nil {
					return fmt.Errorf("task %s: %w", t.name(s), err)
				}
			}
			return nil
		}
	}
	if path := target.Probe.Version; path != "" {
		add("version", path+" of each task names "+version, each(func(ctx context.Context, _ task, address string) error {
			return c.probe.VersionIs(ctx, address+path, version)
		}))
	}
	add("health", target.Probe.Health+" of each task answers, and each runs", each(func(ctx context.Context, t task, address string) error {
		if !t.running() {
			return errors.New(t.why())
		}
		_, err := c.probe.Get(ctx, address+target.Probe.Health)
		return err
	}))
	for _, check := range target.Probe.Smoke {
		add("smoke: "+check.Name, check.URL+" answers as expected", func(ctx context.Context) error { return c.probe.Smoke(ctx, check) })
	}
	return checks, ctx.Err()
}

// Running implements remediation.Runtime: each task is asked for its version and its flags.
func (c *Client) Running(ctx context.Context, pb *alerts.Playbook) (remediation.Running, error) {
	s, tasks, err := c.found(ctx, pb.Target)
	if err != nil {
		return remediation.Running{}, err
	}
	out := remediation.Running{Seen: time.Now(), Total: len(tasks), Replicas: make([]remediation.RunningReplica, len(tasks))}
	served := make([]map[string]string, len(tasks))
	var asking sync.WaitGroup
	for i, t := range tasks {
		asking.Go(func() { out.Replicas[i], served[i] = c.running(ctx, s, pb.Target, t) })
	}
	asking.Wait()
	images, versions := make([]string, len(tasks)), make([]string, len(tasks))
	for i, r := range out.Replicas {
		if r.Up {
			out.Up++
		}
		images[i], versions[i] = r.Image, r.Version
	}
	out.Image, _ = agreed(images)
	out.Version, _ = agreed(versions)
	for _, flag := range pb.Flags {
		if flag.Elsewhere() {
			continue
		}
		said, known := remediation.RunningFlag{Name: flag.Name, Served: true}, false
		values := make([]string, len(tasks))
		for i, t := range tasks {
			v, ok := served[i][flag.Name]
			if !ok {
				said.Served = false
				if entry, err := (envField{flag.Name}).value(t.Spec.ContainerSpec); err == nil && entry != nil {
					_, v, ok = strings.Cut(*entry, "=")
				}
			}
			values[i], known = v, known || ok
		}
		if said.Value, said.Differs = agreed(values); known {
			out.Flags = append(out.Flags, said)
		}
	}
	return out, nil
}

// running is what one task says of itself; its version is the image's tag where it does
// not answer.
func (c *Client) running(ctx context.Context, s *state, target alerts.Target, t task) (r remediation.RunningReplica, flags map[string]string) {
	r = remediation.RunningReplica{Name: t.name(s), State: t.Status.State, Up: t.running(), Image: undigested(t.Spec.ContainerSpec.Image)}
	r.Version = strings.TrimPrefix(strings.TrimPrefix(r.Image, repository(r.Image)), ":")
	address, err := c.address(ctx, target, s, t)
	if err != nil {
		return r, nil
	}
	if path := target.Probe.Version; path != "" {
		if body, err := c.probe.Get(ctx, address+path); err == nil {
			if said, ok := probe.Version(body); ok {
				r.Version = said
			}
		}
	}
	if path := target.Probe.Flags; path != "" {
		if all, err := c.probe.Flags(ctx, address+path); err == nil {
			flags = all
		}
	}
	return r, flags
}

// agreed returns what all values are, or "" and true where two differ.
func agreed(values []string) (value string, differs bool) {
	for i, v := range values {
		if i > 0 && v != value {
			return "", true
		}
		value = v
	}
	return value, false
}
