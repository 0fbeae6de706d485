package action

import (
	"errors"
	"fmt"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// Shares are Flags that can be on for a share of the traffic too:
// remediation/launchdarkly and remediation/unleash.
type Shares interface {
	Flags
	// FlagShare returns the action that gives a share of the traffic, such as
	// "0.01", what the flag turns on. It looks at nothing outside.
	FlagShare(target alerts.Target, flag alerts.Flag, share string) (remediation.Action, error)
}

// SetFlag implements remediation.FlagSetter: the action that turns a flag off can set
// any other value too, with the same look, undo and verification.
func (k flagOff) SetFlag(pb *alerts.Playbook, name, value string) (target string, a remediation.Action, err error) {
	flag := pb.Flag(name)
	if flag == nil {
		return "", nil, fmt.Errorf("set flag: the playbook has no flag %q", name)
	}
	flags, err := k.keeper(flag)
	if err != nil {
		return "", nil, fmt.Errorf("set flag %s: %w", name, err)
	}
	set := *flag
	sharer, shares := flags.(Shares)
	switch {
	case !flag.Elsewhere():
		set.Off = value
		a, err = flags.FlagOff(pb.Target, set)
	case value == flag.Off:
		a, err = k.off(flags, pb.Target, set)
	case shares:
		a, err = sharer.FlagShare(pb.Target, set, value)
	default:
		err = hint.Add(errors.New("its provider cannot set traffic shares"), "set it there, then %s", alerts.DeclareCommand(pb.Service, ""))
	}
	if err != nil {
		return "", nil, fmt.Errorf("set flag %s to %s: %w", name, value, err)
	}
	return k.Target(pb, &flagOffParams{Flag: name}), a, nil
}
