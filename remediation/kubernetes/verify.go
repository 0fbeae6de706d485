package kubernetes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/probe"
)

// address is where a pod is asked: its own address and the probe's port.
func (c *Client) address(target alerts.Target, p pod) (string, error) {
	if p.Status.PodIP == "" {
		return "", fmt.Errorf("pod %s has no address yet", p.Metadata.Name)
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
			return "", hint.Add(fmt.Errorf("pod %s has no port named %q", p.Metadata.Name, port), "target: {probe: {port: ...}} with its number")
		}
		port = found
	}
	return "http://" + net.JoinHostPort(p.Status.PodIP, port), nil
}

// found returns a target and its pods.
func (c *Client) found(ctx context.Context, target alerts.Target) (*state, []pod, error) {
	if target.Kubernetes == nil {
		return nil, nil, errNoTarget
	}
	at, err := c.at(target.Kubernetes)
	if err != nil {
		return nil, nil, err
	}
	s, err := at.read(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	pods, err := s.pods(ctx)
	if err == nil && len(pods) == 0 {
		err = fmt.Errorf("%s has no pods", s.place)
	}
	return s, pods, err
}

// Runs says why not every pod runs image:version, or returns nil; image "" is the
// repository that the container runs from.
func (c *Client) Runs(ctx context.Context, target alerts.Target, image, version string) error {
	s, pods, err := c.found(ctx, target)
	if err != nil {
		return err
	}
	if check := s.runs(pods, image, version); !check.OK {
		return errors.New(check.Detail)
	}
	return nil
}

func (s *state) runs(pods []pod, image, version string) remediation.Check {
	want := cmp.Or(image, repository(s.container().Image)) + ":" + version
	check := remediation.Check{Name: "image"}
	for _, p := range pods {
		if got := p.container(s.t.Container).Image; got != want {
			check.Detail = fmt.Sprintf("pod %s runs %s, not %s", p.Metadata.Name, got, want)
			return check
		}
	}
	check.OK, check.Detail = true, fmt.Sprintf("%s run %s", remediation.Counted(len(pods), "pod"), want)
	return check
}

// Verify checks that every pod runs image:version, names it at the probe's version path
// and is ready and healthy, and that the smoke checks pass. What does not hold yet is
// asked again within the probe's timeout. The error says why nothing could be asked.
func (c *Client) Verify(ctx context.Context, target alerts.Target, image, version string) ([]remediation.Check, error) {
	s, pods, err := c.found(ctx, target)
	if err != nil {
		return nil, err
	}
	checks := []remediation.Check{s.runs(pods, image, version)}
	deadline := time.Now().Add(c.patience(target.Probe))
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
	each := func(path string, ask func(ctx context.Context, p pod, address string) error) func(context.Context) error {
		return func(ctx context.Context) error {
			_, pods, err := c.found(ctx, target)
			if err != nil {
				return err
			}
			for _, p := range pods {
				address, err := c.address(target, p)
				if err == nil {
					err = ask(ctx, p, address+path)
				}
				if err != nil {
					return fmt.Errorf("pod %s: %w", p.Metadata.Name, err)
				}
			}
			return nil
		}
	}
	if path := target.Probe.Version; path != "" {
		add("version", path+" of each pod names "+version, each(path, func(ctx context.Context, _ pod, address string) error {
			return c.probe.VersionIs(ctx, address, version)
		}))
	}
	add("health", target.Probe.Health+" of each pod answers, and each is ready", each(target.Probe.Health, func(ctx context.Context, p pod, address string) error {
		if !p.ready() {
			return errors.New(p.why())
		}
		_, err := c.probe.Get(ctx, address)
		return err
	}))
	for _, check := range target.Probe.Smoke {
		add("smoke: "+check.Name, check.URL+" answers as expected", func(ctx context.Context) error { return c.probe.Smoke(ctx, check) })
	}
	return checks, ctx.Err()
}

// Running implements remediation.Runtime: each pod is asked for its version and its flags.
func (c *Client) Running(ctx context.Context, pb *alerts.Playbook) (remediation.Running, error) {
	s, pods, err := c.found(ctx, pb.Target)
	if err != nil {
		return remediation.Running{}, err
	}
	out := remediation.Running{Seen: time.Now(), Total: len(pods)}
	served := make([]map[string]string, len(pods))
	out.Replicas = make([]remediation.RunningReplica, len(pods))
	var asking sync.WaitGroup
	for i, p := range pods {
		asking.Go(func() { out.Replicas[i], served[i] = c.running(ctx, s, pb.Target, p) })
	}
	asking.Wait()
	images, versions := make([]string, len(pods)), make([]string, len(pods))
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
		values := make([]string, len(pods))
		for i, p := range pods {
			v, ok := served[i][flag.Name]
			if !ok {
				said.Served = false
				v = strings.TrimPrefix(envField{s.t.Container, flag.Name}.inPod(s, p), "=")
			}
			values[i], known = v, known || ok || v != ""
		}
		if said.Value, said.Differs = agreed(values); known {
			out.Flags = append(out.Flags, said)
		}
	}
	return out, nil
}

// running is what one pod says of itself; its version is the image's tag where it does
// not answer.
func (c *Client) running(ctx context.Context, s *state, target alerts.Target, p pod) (r remediation.RunningReplica, flags map[string]string) {
	r = remediation.RunningReplica{Name: p.Metadata.Name, State: "running", Up: p.ready(), Image: p.container(s.t.Container).Image}
	if !r.Up {
		r.State = p.why()
	}
	if tag := strings.TrimPrefix(r.Image, repository(r.Image)); strings.HasPrefix(tag, ":") {
		r.Version, _, _ = strings.Cut(tag[1:], "@")
	}
	address, err := c.address(target, p)
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
