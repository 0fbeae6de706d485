package swarm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
	"github.com/locotoki/backout/remediation/replicas"
)

// service is a target as its tasks are judged.
func (c *Client) service(target alerts.Target) *replicas.Service {
	return &replicas.Service{Probe: c.probe, Target: target, Kind: "task", List: func(ctx context.Context) (replicas.Listed, error) {
		s, err := c.read(ctx, target.Swarm)
		if err != nil {
			return replicas.Listed{}, err
		}
		all, err := c.tasks(ctx, s)
		if err == nil && len(all.wanted) == 0 {
			err = fmt.Errorf("%s has no tasks", s)
		}
		return c.listed(target, s, all.wanted), err
	}}
}

func (c *Client) listed(target alerts.Target, s *state, tasks []task) replicas.Listed {
	seen := replicas.Listed{Image: s.container().Image, Wanted: s.ServiceStatus.DesiredTasks}
	for _, t := range tasks {
		seen.Replicas = append(seen.Replicas, c.replica(target, s, t))
	}
	return seen
}

func (c *Client) replica(target alerts.Target, s *state, t task) replicas.Replica {
	return replicas.Replica{
		RunningReplica: remediation.RunningReplica{Name: t.name(s), State: t.Status.State, Up: t.running(), Image: replicas.Undigested(t.Spec.ContainerSpec.Image)}, Why: t.why(),
		Address: func(ctx context.Context) (string, error) {
			address, err := c.address(ctx, target, t)
			return address, jsonhttp.Unseen(err)
		},
		Env: func(variable string) (value string, set bool) {
			if entry, err := (envField{variable}).value(t.Spec.ContainerSpec); err == nil && entry != nil {
				_, value, set = strings.Cut(*entry, "=")
			}
			return value, set
		},
	}
}

// Runs says why not every task runs image:version, or returns nil; image "" is the repository that the service runs from.
// A task that Swarm is to start after the delay of a restart counts too. Where there is no task, the service's image is
// what runs next: an application that ends without its database may have none.
func (c *Client) Runs(ctx context.Context, target alerts.Target, image, version string) error {
	service := c.service(target)
	service.List = func(ctx context.Context) (replicas.Listed, error) {
		s, err := c.read(ctx, target.Swarm)
		if err != nil {
			return replicas.Listed{}, err
		}
		all, err := c.tasks(ctx, s)
		return c.listed(target, s, slices.Concat(all.wanted, all.next)), err
	}
	return service.Runs(ctx, image, version)
}

// Verify checks the tasks one by one, and the smoke checks, as replicas.Service does.
func (c *Client) Verify(ctx context.Context, target alerts.Target, image, version string) ([]remediation.Check, error) {
	return c.service(target).Verify(ctx, image, version)
}

// Serves asks each task that is up once which value it serves of a flag, as
// replicas.Service does.
func (c *Client) Serves(ctx context.Context, target alerts.Target, flag alerts.Flag) error {
	return c.service(target).Serves(ctx, replicas.FlagOff(c.probe, target, flag))
}

// Running implements remediation.Runtime: each task is asked for its version and its flags.
func (c *Client) Running(ctx context.Context, pb *alerts.Playbook) (remediation.Running, error) {
	return c.service(pb.Target).Running(ctx, pb.Flags)
}
