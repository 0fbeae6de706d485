package kubernetes

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/replicas"
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
		want:    func(now *string) string { return cmp.Or(image, replicas.Repository(*now)) + ":" + previous },
		answers: replicas.Version(c.probe, target, previous),
		also:    replicas.Smoke(c.probe, target),
	}}, nil
}
