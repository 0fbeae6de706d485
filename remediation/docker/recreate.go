package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/remediation/docker/fleet"
	"github.com/locotoki/backout/remediation/probe"
)

// The way of one replica, from O (the original) to X (its copy):
//
//	O runs as NAME
//	X is created as NAME_backout_ID, connected to O's networks, not started
//	O gets restart=no, is stopped and renamed NAME_backout_old_ID
//	X is renamed NAME, started and seen to work
//	O is removed, once all replicas have come so far; its volumes stay
//
// Each step looks first whether it is done, so that this list, run again from
// its top, goes on from wherever it was cut off.

func shortID(op string) string {
	sum := sha256.Sum256([]byte(op))
	return hex.EncodeToString(sum[:4])
}

func tempName(base, op string) string  { return base + "_backout_" + shortID(op) }
func asideName(base, op string) string { return base + "_backout_old_" + shortID(op) }

// maxPasses bounds how often a service that others change at the same time is
// looked at again.
const maxPasses = 20

// passes calls pass with the service's containers as they are until it says that
// nothing was left to do. Containers that change between look and call mean
// another pass.
func (c *Client) passes(ctx context.Context, survey func(context.Context) (*fleet.Fleet, error), pass func(*fleet.Fleet) (done bool, err error)) error {
	var last error
	for range maxPasses {
		f, err := survey(ctx)
		if err != nil {
			return doubtful(ctx, err)
		}
		done, err := pass(f)
		switch {
		case err == nil && done:
			return nil
		case err != nil && !movedOn(err):
			return doubtful(ctx, err)
		case err != nil:
			if last = err; !fleet.Wait(ctx, probe.Every) {
				return doubtful(ctx, err)
			}
		}
	}
	if last == nil {
		return fmt.Errorf("the containers of the service keep changing state")
	}
	return fmt.Errorf("the containers of the service keep changing: %w", last)
}

// advance brings a copy to where it runs in its original's place and is seen to
// work. original is nil where it is gone already.
func (c *Client) advance(ctx context.Context, f *fleet.Fleet, op string, original, dup *fleet.Replica, k fleet.Check) error {
	placed, err := c.place(ctx, f, op, original, dup)
	if err != nil || !placed {
		return err
	}
	return c.Works(ctx, dup.ID, k)
}

// place starts a copy in its original's place; placed is false where someone put
// another container there.
func (c *Client) place(ctx context.Context, f *fleet.Fleet, op string, original, dup *fleet.Replica) (placed bool, err error) {
	name := dup.Label(fleet.LabelName)
	if holder := f.ByName(name); holder != nil && holder != original && holder != dup {
		return false, c.giveWay(ctx, original, dup)
	}
	if original != nil {
		if dup.State.Status == "created" {
			if err := c.connect(ctx, original, dup); err != nil {
				return false, err
			}
		}
		if err := c.setAside(ctx, original, asideName(name, op)); err != nil {
			return false, err
		}
	}
	if dup.ShortName() != name {
		if err := c.API.ContainerRename(ctx, dup.ID, name); err != nil {
			return false, fmt.Errorf("rename container %s to %s: %w", dup.ShortName(), name, err)
		}
	}
	if !dup.Running() {
		if err := c.API.ContainerStart(ctx, dup.ID, container.StartOptions{}); err != nil {
			return false, fmt.Errorf("start container %s: %w", name, err)
		}
	}
	return true, nil
}

// giveWay removes a copy, and its original before it, where someone put another
// container in their place meanwhile.
func (c *Client) giveWay(ctx context.Context, original, dup *fleet.Replica) error {
	if original != nil {
		if err := c.remove(ctx, original); err != nil {
			return err
		}
	}
	return c.remove(ctx, dup)
}

// setAside stops a container for good and takes its name away.
func (c *Client) setAside(ctx context.Context, r *fleet.Replica, aside string) error {
	if !r.HostConfig.RestartPolicy.IsNone() {
		never := container.RestartPolicy{Name: container.RestartPolicyDisabled}
		switch err := c.setRestart(ctx, r, never); {
		case err != nil && fleet.Unanswered(err):
			return err
		case err != nil:
			// One that ends and starts over and over may be between the two.
			if serr := c.stop(ctx, r); serr != nil || ctx.Err() != nil {
				return errors.Join(err, serr)
			}
			if err := c.setRestart(ctx, r, never); err != nil {
				return err
			}
		}
	}
	if err := c.stop(ctx, r); err != nil {
		return err
	}
	if r.ShortName() == aside {
		return nil
	}
	if err := c.API.ContainerRename(ctx, r.ID, aside); err != nil {
		return fmt.Errorf("rename container %s to %s: %w", r.ShortName(), aside, err)
	}
	return nil
}

func (c *Client) setRestart(ctx context.Context, r *fleet.Replica, p container.RestartPolicy) error {
	if _, err := c.API.ContainerUpdate(ctx, r.ID, container.UpdateConfig{RestartPolicy: p}); err != nil {
		return fmt.Errorf("set restart policy %q of container %s: %w", p.Name, r.ShortName(), err)
	}
	return nil
}

// stop honours the container's own stop signal and timeout.
func (c *Client) stop(ctx context.Context, r *fleet.Replica) error {
	if !r.Running() {
		return nil
	}
	if err := c.API.ContainerStop(ctx, r.ID, container.StopOptions{}); err != nil {
		return fmt.Errorf("stop container %s: %w", r.ShortName(), err)
	}
	return nil
}

// remove never removes volumes.
func (c *Client) remove(ctx context.Context, r *fleet.Replica) error {
	if err := c.API.ContainerRemove(ctx, r.ID, container.RemoveOptions{Force: true}); err != nil {
		return fmt.Errorf("remove container %s: %w", r.ShortName(), err)
	}
	return nil
}

// retreat puts the original back in the place of its copy, and removes the copy.
// The copy goes last: until then its labels tell what is going on.
func (c *Client) retreat(ctx context.Context, op string, original, dup *fleet.Replica, running bool, policy container.RestartPolicy) error {
	name := dup.Label(fleet.LabelName)
	if err := c.stop(ctx, dup); err != nil {
		return err
	}
	if dup.ShortName() == name {
		if err := c.API.ContainerRename(ctx, dup.ID, tempName(name, op)); err != nil {
			return fmt.Errorf("rename container %s to %s: %w", name, tempName(name, op), err)
		}
	}
	if err := c.bringBack(ctx, original, name, running, policy); err != nil {
		return err
	}
	return c.remove(ctx, dup)
}

// bringBack gives a container that was set aside its name, restart policy and
// life back.
func (c *Client) bringBack(ctx context.Context, r *fleet.Replica, name string, running bool, policy container.RestartPolicy) error {
	if r.ShortName() != name {
		if err := c.API.ContainerRename(ctx, r.ID, name); err != nil {
			return fmt.Errorf("rename container %s to %s: %w", r.ShortName(), name, err)
		}
	}
	if !r.RestartsBy(policy) {
		if err := c.setRestart(ctx, r, policy); err != nil {
			return err
		}
	}
	if running && !r.Running() {
		if err := c.API.ContainerStart(ctx, r.ID, container.StartOptions{}); err != nil {
			return fmt.Errorf("start container %s: %w", name, err)
		}
	}
	return nil
}
