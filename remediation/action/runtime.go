package action

import (
	"context"
	"errors"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// Runtime is what services run on: remediation/docker for compose projects,
// remediation/kubernetes for clusters, remediation/swarm for Docker Swarms.
type Runtime interface {
	Services
	Images
	remediation.Runtime
	// Verify checks that every replica of a service runs image:version and works; image ""
	// is the service's own. The error says why nothing could be asked.
	Verify(ctx context.Context, target alerts.Target, image, version string) ([]remediation.Check, error)
}

// Runtimes is the Runtime of any target: what the playbook's target names is chosen here,
// and nowhere else.
type Runtimes struct{ Compose, Kubernetes, Swarm Runtime }

func (r Runtimes) of(t alerts.Target) Runtime {
	switch {
	case t.Kubernetes != nil:
		return r.Kubernetes
	case t.Swarm != nil:
		return r.Swarm
	}
	return r.Compose
}

// FlagOff implements Flags.
func (r Runtimes) FlagOff(t alerts.Target, flag alerts.Flag) (remediation.Action, error) {
	return r.of(t).FlagOff(t, flag)
}

// Serves implements Services.
func (r Runtimes) Serves(ctx context.Context, t alerts.Target, flag alerts.Flag) error {
	return r.of(t).Serves(ctx, t, flag)
}

// ImageRetag implements Images.
func (r Runtimes) ImageRetag(t alerts.Target, image, previous string) (remediation.Action, error) {
	return r.of(t).ImageRetag(t, image, previous)
}

// ImagePin implements Pins.
func (r Runtimes) ImagePin(t alerts.Target, variable, previous string) (remediation.Action, error) {
	if pins, ok := r.of(t).(Pins); ok {
		return pins.ImagePin(t, variable, previous)
	}
	return nil, hint.Add(errors.New("the image is set by its name there: no variable holds its tag"), "remove variable from the step")
}

// Runs implements Images.
func (r Runtimes) Runs(ctx context.Context, t alerts.Target, image, version string) error {
	return r.of(t).Runs(ctx, t, image, version)
}

// Verify implements Runtime.
func (r Runtimes) Verify(ctx context.Context, t alerts.Target, image, version string) ([]remediation.Check, error) {
	return r.of(t).Verify(ctx, t, image, version)
}

// Running implements remediation.Runtime.
func (r Runtimes) Running(ctx context.Context, pb *alerts.Playbook) (remediation.Running, error) {
	return r.of(pb.Target).Running(ctx, pb)
}

// Smoke implements Images: a smoke check is an address, wherever the service runs.
func (r Runtimes) Smoke(ctx context.Context, check alerts.SmokeCheck) error {
	return r.Compose.Smoke(ctx, check)
}
