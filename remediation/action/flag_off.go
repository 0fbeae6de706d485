package action

import (
	"context"
	"fmt"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// Flags turns flags off where they are stored: Runtimes where the service runs,
// remediation/launchdarkly in LaunchDarkly, remediation/unleash in Unleash.
type Flags interface {
	// FlagOff returns the action that gives flag its off value on target. It
	// has no effect outside.
	FlagOff(target alerts.Target, flag alerts.Flag) (remediation.Action, error)
}

// flagOff sets a flag of the playbook to its off value.
type flagOff struct {
	flags Flags
	// launchDarkly has the flags in LaunchDarkly; nil if it is not configured.
	launchDarkly Flags
	// unleash has the flags in Unleash; nil if it is not configured.
	unleash Flags
}

type flagOffParams struct {
	// Flag is the name of one of the playbook's flags.
	Flag string `yaml:"flag"`
}

func (flagOff) Name() string      { return "flag_off" }
func (flagOff) Risk() alerts.Risk { return alerts.Reversible }
func (flagOff) NewParams() any    { return &flagOffParams{} }

func (flagOff) CheckParams(pb *alerts.Playbook, params any) []alerts.ParamProblem {
	p := params.(*flagOffParams)
	if pb.Flag(p.Flag) != nil {
		return nil
	}
	names := make([]string, 0, len(pb.Flags))
	for _, f := range pb.Flags {
		names = append(names, f.Name)
	}
	try := "declare it under flags:"
	if len(names) > 0 {
		try = "one of " + strings.Join(names, ", ")
	}
	if p.Flag == "" {
		return []alerts.ParamProblem{{Key: "flag", Problem: "no flag is named", Try: try}}
	}
	return []alerts.ParamProblem{{Key: "flag", Problem: fmt.Sprintf("there is no flag %q", p.Flag), Try: try}}
}

func (flagOff) Target(pb *alerts.Playbook, params any) string {
	name := params.(*flagOffParams).Flag
	switch flag := pb.Flag(name); {
	case flag != nil && flag.LaunchDarkly != nil:
		at := flag.LaunchDarkly
		return "launchdarkly:" + at.Project + "/" + at.Environment + "/" + at.Key
	case flag != nil && flag.Unleash != nil:
		at := flag.Unleash
		return "unleash:" + at.Project + "/" + at.Environment + "/" + at.Name
	}
	return remediation.TargetName(pb.Target, name)
}

var _ remediation.FlagSwitch = flagOff{}

// SwitchesOff implements remediation.FlagSwitch.
func (flagOff) SwitchesOff(params any) string { return params.(*flagOffParams).Flag }

// keeper is where a flag is stored.
func (k flagOff) keeper(flag *alerts.Flag) (Flags, error) {
	keeper, name, try := k.flags, "", ""
	switch {
	case flag.LaunchDarkly != nil:
		keeper, name, try = k.launchDarkly, "LaunchDarkly", "launchdarkly: {token_file: launchdarkly.token}"
	case flag.Unleash != nil:
		keeper, name, try = k.unleash, "Unleash", `unleash: {url: "https://unleash.example.com", token_file: unleash.token}`
	}
	if keeper == nil && name != "" {
		return nil, hint.Add(fmt.Errorf("%s keeps the flag %s, and is not configured", name, flag.Name), "%s in the configuration file", try)
	}
	return keeper, nil
}

func (k flagOff) Bind(pb *alerts.Playbook, params any) (remediation.Action, error) {
	name := params.(*flagOffParams).Flag
	flag := pb.Flag(name)
	if flag == nil {
		return nil, fmt.Errorf("flag_off: the playbook has no flag %q", name)
	}
	flags, err := k.keeper(flag)
	if err != nil {
		return nil, fmt.Errorf("flag_off: %w", err)
	}
	a, err := k.off(flags, pb.Target, *flag)
	if err != nil {
		return nil, fmt.Errorf("flag_off: %w", err)
	}
	return a, nil
}

// off is the action that gives a flag its off value where it is kept.
func (k flagOff) off(keeper Flags, target alerts.Target, flag alerts.Flag) (remediation.Action, error) {
	a, err := keeper.FlagOff(target, flag)
	if services, asks := k.flags.(Services); err == nil && asks && flag.Elsewhere() {
		return &elsewhere{a, services, target, flag}, nil
	}
	return a, err
}

// knower is an action that can check that the service knows its flag.
type knower interface {
	Known() remediation.PreflightCheck
}

// Checks implements remediation.CheckingKind: the step's own flag is checked in full,
// the others of the playbook only for being known.
func (k flagOff) Checks(pb *alerts.Playbook, params any) ([]remediation.PreflightCheck, error) {
	var all []remediation.PreflightCheck
	for _, flag := range pb.Flags {
		a, err := k.Bind(pb, &flagOffParams{Flag: flag.Name})
		if err != nil {
			return nil, err
		}
		prover, proves := a.(remediation.SelfChecking)
		known, knows := a.(knower)
		switch {
		case proves && flag.Name == params.(*flagOffParams).Flag:
			all = append(all, prover.Checks()...)
		case knows:
			all = append(all, known.Known())
		default:
			all = append(all, remediation.PreflightCheck{ID: "flag/" + flag.Name + "/known", Name: flag.Name + " exists and can be turned off", Run: func(ctx context.Context) remediation.Result {
				return remediation.LookCheck(ctx, a)
			}})
		}
	}
	return all, nil
}
