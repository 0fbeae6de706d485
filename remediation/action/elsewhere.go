package action

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/probe"
	"github.com/locotoki/backout/remediation/replicas"
)

// Services are Flags that can ask the service itself: Runtimes.
type Services interface {
	Flags
	// Serves asks each replica that is up, once, whether it serves flag.Off at
	// target.probe.flags. The error is one that probe.Denied reports where a replica serves
	// another value; any other says why this was not seen.
	Serves(ctx context.Context, target alerts.Target, flag alerts.Flag) error
}

// watchEvery is the pause between two looks at a flag that is held off: a request to its
// provider, and one to each replica.
const watchEvery = 30 * time.Second

// elsewhere turns off a flag that LaunchDarkly or Unleash keeps. What its provider shows is
// what a step did; whether the service follows is asked too, where the playbook has
// target.probe.flags. One that serves another value, as a release that ignores its flag does,
// is reported, and the breach that goes on lets the next step run: on again would be worse. One
// that does not answer, or does not list the flag, does not hold the plan. It hides the optional
// interfaces of the provider's action: Known asks for Permitted.
type elsewhere struct {
	remediation.Action
	services Services
	target   alerts.Target
	flag     alerts.Flag
}

var _ remediation.Watcher = (*elsewhere)(nil)

// denied asks the service once; the error says which replica serves another value.
func (a *elsewhere) denied(ctx context.Context) error {
	if a.target.Probe.Flags == "" {
		return nil
	}
	if err := a.services.Serves(ctx, a.target, a.flag); probe.Denied(err) {
		return err
	}
	return nil
}

// Look implements remediation.Action.
func (a *elsewhere) Look(ctx context.Context, op string) (remediation.Look, error) {
	look, err := a.Action.Look(ctx, op)
	if err == nil && look.Position == remediation.Wanted && a.denied(ctx) != nil {
		look.Position = remediation.HalfWay
	}
	return look, err
}

// Verify implements remediation.Action: a service has the probe's timeout to follow the
// flag. Where it does not, the next step is what helps, and Watch reports it.
func (a *elsewhere) Verify(ctx context.Context, op string) error {
	if err := a.Action.Verify(ctx, op); err != nil {
		return err
	}
	if replicas.Insist(ctx, replicas.Patience(a.target.Probe), a.denied) != nil && errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return nil // a denial that lasts is Watch's
}

// Watch implements remediation.Watcher: it reports where the flag is on again.
func (a *elsewhere) Watch(ctx context.Context, report func(what string)) error {
	return replicas.Watch(ctx, watchEvery, func(ctx context.Context) (wrong []string, err error) {
		look, err := a.Action.Look(ctx, "")
		switch {
		case err != nil:
			return nil, err
		case look.Position != remediation.Wanted:
			wrong = append(wrong, a.flag.Name+" is on again in "+a.provider())
		default:
			if err := a.denied(ctx); err != nil {
				wrong = append(wrong, err.Error())
			}
		}
		return wrong, nil
	}, report)
}

func (a *elsewhere) provider() string {
	if a.flag.LaunchDarkly != nil {
		return "LaunchDarkly"
	}
	return "Unleash"
}

// Known checks that the provider has the flag, and that the service lists it.
func (a *elsewhere) Known() remediation.PreflightCheck {
	return remediation.PreflightCheck{ID: "flag/" + a.flag.Name + "/known", Name: a.flag.Name + " exists and can be turned off", Run: func(ctx context.Context) remediation.Result {
		asks := []func(context.Context) remediation.Result{func(ctx context.Context) remediation.Result { return remediation.LookCheck(ctx, a.Action) }}
		if a.target.Probe.Flags != "" {
			asks = append(asks, a.listed)
		}
		return remediation.Trial(ctx, asks...)
	}}
}

func (a *elsewhere) listed(ctx context.Context) remediation.Result {
	switch err := a.services.Serves(ctx, a.target, a.flag); {
	case errors.Is(err, probe.ErrUnlisted):
		return remediation.Failed(err.Error(), "fix the flag's name under flags:, or the service")
	case err != nil && !probe.Denied(err):
		return remediation.Unknown(fmt.Sprintf("the service does not report its flags: %s", err), "check that it runs")
	}
	return remediation.Passed("the service lists it at " + a.target.Probe.Flags)
}
