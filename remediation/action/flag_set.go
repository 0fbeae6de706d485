package action

import (
	"fmt"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// SetFlag implements remediation.FlagSetter: what switches a flag off can give it
// any other value too, with the same look, undo and verification.
func (k flagOff) SetFlag(pb *alerts.Playbook, name, value string) (target string, a remediation.Action, err error) {
	flag := pb.Flag(name)
	if flag == nil {
		return "", nil, fmt.Errorf("set flag: the playbook has no flag %q", name)
	}
	if flag.LaunchDarkly != nil && value != flag.Off {
		return "", nil, fmt.Errorf("set flag %s to %s: LaunchDarkly keeps it, and its share of the traffic is set there; "+
			"try: set it there, then backout rollout start --declare --stage=NAME", name, value)
	}
	flags, err := k.keeper(flag)
	if err != nil {
		return "", nil, fmt.Errorf("set flag %s: %w", name, err)
	}
	set := *flag
	set.Off = value
	if a, err = flags.FlagOff(pb.Target, set); err != nil {
		return "", nil, fmt.Errorf("set flag %s to %s: %w", name, value, err)
	}
	return k.Target(pb, &flagOffParams{Flag: name}), a, nil
}
