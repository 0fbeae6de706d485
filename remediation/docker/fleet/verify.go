package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/probe"
)

// The names of the checks; a smoke check's is its own behind smokePrefix.
const (
	checkImage   = "image"
	checkVersion = "version"
	checkHealth  = "health"
	smokePrefix  = "smoke: "
)

// Verify asks a running service whether it is a version, and whether it works:
// every replica runs image:version, names it at the version address, is healthy and
// was not restarted, and the playbook's smoke checks hold.
// image "" is the compose service's own repository. What does not hold yet is asked
// again within the probe's timeout. The error says why nothing could be asked.
func (c *Engine) Verify(ctx context.Context, target alerts.Target, image, version string) ([]remediation.Check, error) {
	f, err := c.Found(ctx, target.Compose)
	if err != nil {
		return nil, err
	}
	name, id, err := c.VersionOf(ctx, f, image, version)
	if err != nil {
		return nil, err
	}
	return c.Checks(ctx, f, target, NamedImage{name, id}, version)
}

// Checks are those of Verify, for the image that stands for the version.
func (c *Engine) Checks(ctx context.Context, f *Fleet, target alerts.Target, image NamedImage, version string) ([]remediation.Check, error) {
	checks := []remediation.Check{f.runs(image)}
	patience := CheckOf(target.Probe).Timeout
	deadline := time.Now().Add(patience)
	// Health first: who waits for a service that ended waits for nothing.
	health, broken, err := c.healthy(ctx, f, target.Probe)
	if err != nil {
		return nil, err
	}
	if broken {
		deadline = time.Now()
	}
	if address := target.Probe.Version; address != "" {
		checks = append(checks, c.insist(ctx, deadline, checkVersion, address+" names "+version, func(ctx context.Context) error {
			for _, r := range f.Members() {
				if err := c.Probe.VersionIs(ctx, c.ownAddress(ctx, address, r, f.Replicas), version); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	checks = append(checks, health)
	for _, s := range target.Probe.Smoke {
		checks = append(checks, c.insist(ctx, deadline, smokePrefix+s.Name, s.URL+" answers as expected", func(ctx context.Context) error {
			return c.Probe.Smoke(ctx, s)
		}))
	}
	return checks, ctx.Err()
}

// Runs says why not every replica of a service is of image:version, or returns nil; image ""
// is the compose service's own repository. One that has exited counts too: it would start
// from the same image. What was seen is a *remediation.VersionError.
func (c *Engine) Runs(ctx context.Context, target alerts.Target, image, version string) error {
	seen := func(err error) error { return &remediation.VersionError{Versions: []string{version}, Err: err} }
	f, err := c.Found(ctx, target.Compose)
	if errors.Is(err, ErrAbsent) {
		return seen(err)
	}
	if err != nil {
		return err
	}
	name, id, err := c.VersionOf(ctx, f, image, version)
	if err != nil {
		return err
	}
	if id == "" {
		return seen(NoImage(name))
	}
	for _, r := range f.Members() {
		if err := r.is(NamedImage{name, id}); err != nil {
			return seen(err)
		}
	}
	return nil
}

// is says why a replica is not of an image.
func (r *Replica) is(image NamedImage) error {
	if r.Image == image.ID {
		return nil
	}
	return fmt.Errorf("container %s runs image %s (%s), not %s (%s)", r.ShortName(), r.Config.Image, compose.ShortImage(r.Image), image.Name, compose.ShortImage(image.ID))
}

// VersionOf returns the name and the id ("": there is none) of an image's version;
// image "" is the compose service's own repository.
func (c *Engine) VersionOf(ctx context.Context, f *Fleet, image, version string) (name, id string, err error) {
	if image == "" {
		d, err := f.Definition()
		if err != nil {
			return "", "", err
		}
		_, made := f.Images()
		ref, err := d.Runs(made)
		if err != nil {
			return "", "", err
		}
		image = ref.Repo
	}
	for _, tag := range compose.Spellings(version, version) {
		spelled := compose.ParseReference(image).Repo + ":" + tag
		if id, err = c.ImageID(ctx, spelled); err != nil {
			return "", "", err
		}
		if name == "" || id != "" {
			name = spelled
		}
		if id != "" {
			break
		}
	}
	return name, id, nil
}

// NamedImage is an image by id, and the reference that a container created from
// it is to show.
type NamedImage struct{ Name, ID string }

// NoImage is a version that cannot be gone back to.
func NoImage(name string) error {
	return hint.Add(fmt.Errorf("there is no image %s on this engine", name), "docker pull %s, or docker tag it from what it was built as", name)
}

// runs checks that every replica runs an image.
func (f *Fleet) runs(image NamedImage) remediation.Check {
	no := func(err error) remediation.Check { return remediation.Check{Name: checkImage, Detail: err.Error()} }
	if image.ID == "" {
		return no(NoImage(image.Name))
	}
	for _, r := range f.Members() {
		if !r.Running() {
			return no(r.IsDown())
		}
		if err := r.is(image); err != nil {
			return no(err)
		}
	}
	which := "the one container runs"
	if n := len(f.Members()); n > 1 {
		which = fmt.Sprintf("all %d containers run", n)
	}
	return remediation.Check{Name: checkImage, OK: true, Detail: fmt.Sprintf("%s %s (%s)", which, image.Name, compose.ShortImage(image.ID))}
}

// IsDown says that a replica does not run.
func (r *Replica) IsDown() error {
	return fmt.Errorf("%w: container %s is %s (exit status %d)", ErrBroken, r.ShortName(), r.State.Status, r.State.ExitCode)
}

// healthy checks that every replica is up and healthy; broken tells that waiting
// does not cure it. The error is one of an engine that does not answer.
func (c *Engine) healthy(ctx context.Context, f *Fleet, p alerts.Probe) (h remediation.Check, broken bool, err error) {
	h.Name = checkHealth
	if down := f.Down(); down != nil && !slices.ContainsFunc(f.Members(), (*Replica).Running) {
		h.Detail = fmt.Sprintf("no container of %s is running: %v", f.Service, down.IsDown())
		return h, true, nil
	}
	k := CheckOf(p)
	k.Flags, k.Version, k.Peers = "", "", f.Replicas
	for _, r := range f.Members() {
		if err := c.Works(ctx, r.ID, k); remediation.MarkedInDoubt(err) {
			return h, false, err
		} else if err != nil {
			h.OK, h.Detail = false, err.Error()
			return h, errors.Is(err, ErrBroken), nil
		}
		h.OK, h.Detail = true, "up without a restart and healthy"
		if k.Health != "" {
			h.Detail = k.Health + " answers; " + h.Detail
		}
	}
	return h, false, nil
}

// insist asks until the answer is good or the deadline is over, and once at least.
func (c *Engine) insist(ctx context.Context, deadline time.Time, name, good string, ask func(context.Context) error) remediation.Check {
	for {
		err := ask(ctx)
		if err == nil {
			return remediation.Check{Name: name, OK: true, Detail: good}
		}
		if time.Now().After(deadline) || !Wait(ctx, probe.Every) {
			return remediation.Check{Name: name, Detail: err.Error()}
		}
	}
}

// Smoke asks one smoke check, once.
func (c *Engine) Smoke(ctx context.Context, s alerts.SmokeCheck) error { return c.Probe.Smoke(ctx, s) }

// VersionCheck is what a copy of a version must show: all that Verify asks of it.
func (c *Engine) VersionCheck(target alerts.Target, version string) Check {
	k := CheckOf(target.Probe)
	k.Wants = version
	k.also = func(ctx context.Context) error {
		for _, s := range target.Probe.Smoke {
			if err := c.Probe.Smoke(ctx, s); err != nil {
				return fmt.Errorf("%s%s: %w", smokePrefix, s.Name, err)
			}
		}
		return nil
	}
	return k
}
