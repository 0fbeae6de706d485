package swarm

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/projectfile"
	"github.com/locotoki/backout/remediation/probe"
	"github.com/locotoki/backout/remediation/replicas"
)

// flagChange is the change of a flag, which also proves it.
type flagChange struct {
	change
	flag alerts.Flag
}

// FlagOff returns the action that gives a flag its off value. It looks at nothing
// outside.
//
// Wanted means: the env file and the service have the value, and it is rolled out. HalfWay
// means: one of them has it, or tasks are left that may have another one.
func (c *Client) FlagOff(target alerts.Target, flag alerts.Flag) (remediation.Action, error) {
	switch {
	case target.Swarm == nil:
		return nil, errNoTarget
	case !projectfile.VariableName.MatchString(flag.Name):
		return nil, fmt.Errorf("flag %q is not an environment variable name", flag.Name)
	case !projectfile.PlainValue.MatchString(flag.Off):
		return nil, hint.Add(fmt.Errorf("flag %s: value %q cannot be written to an env file", flag.Name, flag.Off), "letters, digits and ._:/@%%+,- only")
	}
	field := envField{flag.Name}
	return &flagChange{flag: flag, change: change{
		c: c, target: target, field: field,
		want:    func(*string) string { return flag.Name + "=" + flag.Off },
		values:  func(string) []string { return []string{flag.Off} },
		raises:  func(from, to *string) bool { return to != nil && probe.Raises(field.shown(from), field.shown(to)) },
		answers: replicas.FlagOff(c.probe, target, flag),
	}}, nil
}

// imageChange is the change of an image, which also proves it.
type imageChange struct {
	change
	version string
}

// ImageRetag returns the action that gives the service the image of the previous version;
// image "" is the repository that it runs from. It looks at nothing outside.
func (c *Client) ImageRetag(target alerts.Target, image, previous string) (remediation.Action, error) {
	switch {
	case target.Swarm == nil:
		return nil, errNoTarget
	case previous == "" || strings.ContainsAny(previous, ":/@ "):
		return nil, hint.Add(fmt.Errorf("previous version %q is not a valid tag", previous), "v1.0.0")
	}
	return &imageChange{version: previous, change: change{
		c: c, target: target, field: imageField{}, exact: true,
		want:    func(now *string) string { return cmp.Or(image, replicas.Repository(*now)) + ":" + previous },
		values:  func(want string) []string { return []string{previous, want} },
		answers: replicas.Version(c.probe, target, previous),
		also:    replicas.Smoke(c.probe, target),
	}}, nil
}
