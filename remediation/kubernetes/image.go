package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// imageChange is the change of an image, which also proves it.
type imageChange struct {
	change
	version string
}

// ImageRetag returns the action that gives the container the image of the previous
// version; image "" is the repository that it runs from. It looks at nothing outside.
func (c *Client) ImageRetag(target alerts.Target, image, previous string) (remediation.Action, error) {
	t := target.Kubernetes
	switch {
	case t == nil:
		return nil, errNoTarget
	case previous == "" || strings.ContainsAny(previous, ":/@ "):
		return nil, hint.Add(fmt.Errorf("previous version %q is not a valid tag", previous), "v1.0.0")
	}
	return &imageChange{version: previous, change: change{
		c: c, target: target, field: imageField{t.Container}, exact: true,
		want: func(now *string) string { return cmp.Or(image, repository(*now)) + ":" + previous },
		answers: func(ctx context.Context, address string) error {
			if target.Probe.Version == "" {
				return nil
			}
			return c.probe.VersionIs(ctx, address+target.Probe.Version, previous)
		},
		also: func(ctx context.Context) error {
			for _, s := range target.Probe.Smoke {
				if err := c.probe.Smoke(ctx, s); err != nil {
					return fmt.Errorf("smoke: %s: %w", s.Name, err)
				}
			}
			return nil
		},
	}}, nil
}

// repository is an image's name without its tag and digest. A colon before a slash
// belongs to a registry's port.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i]
	}
	return image
}
