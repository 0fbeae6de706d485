package swarm

import (
	"context"
	"fmt"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
	"github.com/locotoki/backout/remediation/replicas"
)

var (
	_ remediation.SelfChecking = (*flagChange)(nil)
	_ remediation.SelfChecking = (*imageChange)(nil)
	_ remediation.Rehearser    = (*flagChange)(nil)
	_ remediation.Rehearser    = (*imageChange)(nil)
	_ remediation.Restorer     = (*change)(nil)
	_ remediation.Watcher      = (*change)(nil)
)

// Checks implements remediation.SelfChecking.
func (a *flagChange) Checks() []remediation.PreflightCheck {
	return []remediation.PreflightCheck{
		a.Known(),
		{ID: "flag/" + a.flag.Name + "/lasts", Name: "docker stack deploy does not set " + a.flag.Name + " back", Run: a.checkLasts},
		{ID: "flag/" + a.flag.Name + "/off", Name: "the Swarm can roll out " + a.flag.Name + "=" + a.flag.Off, Run: a.checkRolls},
	}
}

// Rehearse implements remediation.Rehearser. Swarm has no dry run.
func (a *flagChange) Rehearse(ctx context.Context) remediation.Result {
	return remediation.Trial(ctx, a.checkLasts, a.checkRolls)
}

// Checks implements remediation.SelfChecking.
func (a *imageChange) Checks() []remediation.PreflightCheck {
	return []remediation.PreflightCheck{
		{ID: "image/lasts", Name: "docker stack deploy does not set the image back", Run: a.checkLasts},
		{ID: "image/accepted", Name: "the Swarm can roll out the image of " + a.version, Run: a.checkRolls},
		{ID: "image/runs", Name: "the previous image can be pulled and runs", Run: func(context.Context) remediation.Result {
			return remediation.Unknown("each node pulls the image itself: whether the registry still has it shows then", "start a service with the previous image, and sign it off")
		}},
	}
}

// Rehearse implements remediation.Rehearser. Swarm has no dry run.
func (a *imageChange) Rehearse(ctx context.Context) remediation.Result {
	return remediation.Trial(ctx, a.checkLasts, a.checkRolls)
}

// Known checks that the service knows the flag, by each task's own word.
func (a *flagChange) Known() remediation.PreflightCheck {
	return remediation.PreflightCheck{ID: "flag/" + a.flag.Name + "/known", Name: "the service knows " + a.flag.Name, Run: func(ctx context.Context) remediation.Result {
		if a.target.Probe.Flags == "" {
			return remediation.Unknown("the service gets the variable; it is unknown whether its code reads it", "set probe: {flags: ...} to a path that lists flags, or sign it off")
		}
		return a.c.service(a.target).Knows(ctx, a.flag.Name)
	}}
}

// result is what an error means to a check: without an answer, nothing is known.
func result(err error) remediation.Result { return remediation.ResultOf(jsonhttp.InDoubt(err)) }

// checkLasts checks where the field lasts, and that the files agree with what runs: if
// they do not, docker stack deploy takes its variables from elsewhere.
func (a *change) checkLasts(ctx context.Context) remediation.Result {
	s, err := a.see(ctx, true)
	if err == nil {
		err = s.refuse()
	}
	if err != nil {
		return result(err)
	}
	l := s.lasting
	switch {
	case l == nil:
		return remediation.Passed(s.String() + " belongs to no stack: nothing applies a file to it")
	case !a.field.same(l.now, s.now):
		return remediation.Failed(fmt.Sprintf("%s: %s is %s, and docker stack deploy would make it %s", s, a.field.name(), a.field.shown(s.now), a.field.shown(l.now)),
			fmt.Sprintf("docker stack deploy with the variables of %s, or correct that file", l.Path))
	case l.variable == "":
		return remediation.Passed(fmt.Sprintf("%s has %s already", s.t.StackFile, a.field.shown(&s.want)))
	}
	if err := a.c.files.MayWrite(l.Path, l.Missing); err != nil {
		return remediation.Failed(fmt.Sprintf("%s cannot be written: %v", l.Path, err), "let backout's user write it")
	}
	return remediation.Passed(fmt.Sprintf("%s=%s in %s decides on it", l.variable, l.to, l.Path))
}

// checkRolls checks that an update could start now, and says how it would go.
func (a *change) checkRolls(ctx context.Context) remediation.Result {
	s, err := a.see(ctx, false)
	if err == nil {
		err = s.refuse()
	}
	if err != nil {
		return result(err)
	}
	if s.paused() || s.UpdateStatus.State == "updating" || s.UpdateStatus.State == "rollback_started" {
		return remediation.Failed(fmt.Sprintf("%s: an update is %s: %s", s, s.UpdateStatus.State, s.UpdateStatus.Message), "docker service ps "+s.t.Service+", and wait for it or update again")
	}
	how := fmt.Sprintf("%d of %s run, and no update is in progress", s.ServiceStatus.RunningTasks, remediation.Counted(s.ServiceStatus.DesiredTasks, "task"))
	if u := s.Spec.UpdateConfig; u != nil && u.FailureAction == "rollback" {
		how += "; failure_action: rollback: Swarm itself undoes the change if a new task fails"
	}
	return remediation.Passed(how)
}

// watchEvery is the pause between two looks of a watch.
const watchEvery = lookEvery * 10

// Watch implements remediation.Watcher: it reports where the service, or the files that
// docker stack deploy takes, get another value than the wanted one.
func (a *change) Watch(ctx context.Context, report func(what string)) error {
	return replicas.Watch(ctx, watchEvery, func(ctx context.Context) (wrong []string, err error) {
		s, err := a.see(ctx, true)
		if err != nil {
			return nil, err
		}
		if !a.field.same(s.now, &s.want) {
			by := ""
			if s.rollsBack() {
				by = ", by a rollback of Swarm"
			}
			wrong = append(wrong, fmt.Sprintf("%s: %s is %s%s", s, a.field.name(), a.field.shown(s.now), by))
		}
		if !s.lasts() {
			wrong = append(wrong, fmt.Sprintf("%s: docker stack deploy would set %s to %s", s.lasting.Path, a.field.name(), a.field.shown(s.lasting.now)))
		}
		return wrong, nil
	}, report)
}
