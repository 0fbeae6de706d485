package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/replicas"
)

// address is where a pod is asked: its own address and the probe's port.
func (c *Client) address(target alerts.Target, p pod) (string, error) {
	if p.Status.PodIP == "" {
		return "", errors.New("it has no address yet")
	}
	port := target.Probe.Port
	if _, err := strconv.Atoi(port); err != nil {
		found := ""
		for _, container := range p.Spec.Containers {
			for _, named := range container.Ports {
				if named.Name == port {
					found = strconv.Itoa(named.ContainerPort)
				}
			}
		}
		if found == "" {
			return "", hint.Add(fmt.Errorf("it has no port named %q", port), "target: {probe: {port: ...}} with its number")
		}
		port = found
	}
	return "http://" + net.JoinHostPort(p.Status.PodIP, port), nil
}

// service is a target as its pods are judged.
func (c *Client) service(target alerts.Target) *replicas.Service {
	return &replicas.Service{Probe: c.probe, Target: target, Kind: "pod", List: func(ctx context.Context) (replicas.Listed, error) {
		var none replicas.Listed
		if target.Kubernetes == nil {
			return none, errNoTarget
		}
		at, err := c.at(target.Kubernetes)
		if err != nil {
			return none, err
		}
		s, err := at.read(ctx, false)
		if err != nil {
			return none, err
		}
		pods, err := s.pods(ctx)
		if err == nil && len(pods) == 0 {
			err = fmt.Errorf("%s has no pods", s.place)
		}
		seen := replicas.Listed{Image: s.container().Image, Wanted: s.replicas()}
		for _, p := range pods {
			seen.Replicas = append(seen.Replicas, c.replica(target, s, p))
		}
		return seen, err
	}}
}

func (c *Client) replica(target alerts.Target, s *state, p pod) replicas.Replica {
	r := replicas.Replica{
		RunningReplica: remediation.RunningReplica{Name: p.Metadata.Name, State: "running", Up: p.ready(), Image: p.container(s.t.Container).Image}, Why: p.why(),
		Address: func(context.Context) (string, error) { return c.address(target, p) },
		Env: func(variable string) (string, bool) {
			return strings.CutPrefix(envField{s.t.Container, variable}.inPod(s, p), "=")
		},
	}
	if !r.Up {
		r.State = r.Why
	}
	return r
}

// Runs says why not every pod runs image:version, or returns nil; image "" is the
// repository that the container runs from.
func (c *Client) Runs(ctx context.Context, target alerts.Target, image, version string) error {
	return c.service(target).Runs(ctx, image, version)
}

// Verify checks the pods one by one, and the smoke checks, as replicas.Service does.
func (c *Client) Verify(ctx context.Context, target alerts.Target, image, version string) ([]remediation.Check, error) {
	return c.service(target).Verify(ctx, image, version)
}

// Serves asks each pod that is up once which value it serves of a flag, as
// replicas.Service does.
func (c *Client) Serves(ctx context.Context, target alerts.Target, flag alerts.Flag) error {
	return c.service(target).Serves(ctx, replicas.FlagOff(c.probe, target, flag))
}

// Running implements remediation.Runtime: each pod is asked for its version and its flags.
func (c *Client) Running(ctx context.Context, pb *alerts.Playbook) (remediation.Running, error) {
	return c.service(pb.Target).Running(ctx, pb.Flags)
}
