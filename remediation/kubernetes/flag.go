package kubernetes

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/replicas"
)

var errNoTarget = errors.New("the target is not in Kubernetes")

// variableName is a name that both an environment and a JSON patch's path take.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// flagChange is the change of a flag, which also proves it.
type flagChange struct {
	change
	flag alerts.Flag
}

// FlagOff returns the action that gives a flag its off value. It looks at nothing
// outside.
//
// Wanted means: the object has the value and it is rolled out. HalfWay means: it has
// the value by a mark of ours, and pods are left that may have another one.
func (c *Client) FlagOff(target alerts.Target, flag alerts.Flag) (remediation.Action, error) {
	t := target.Kubernetes
	switch {
	case t == nil:
		return nil, errNoTarget
	case !variableName.MatchString(flag.Name):
		return nil, fmt.Errorf("flag %q is not an environment variable name", flag.Name)
	case strings.Contains(flag.Off, "$("):
		return nil, hint.Add(fmt.Errorf("flag %s: value %q refers to another variable", flag.Name, flag.Off), "a value without $(")
	}
	a := &flagChange{flag: flag, change: change{
		c: c, target: target, want: func(*string) string { return flag.Off }, field: envField{t.Container, flag.Name},
		answers: replicas.FlagOff(c.probe, target, flag),
	}}
	if name := t.Flags.ConfigMap; name != "" {
		a.field = mapField{t.Container, flag.Name, name}
	}
	return a, nil
}
