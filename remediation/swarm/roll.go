package swarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
	"github.com/locotoki/backout/remediation/replicas"
)

const (
	// lookEvery is the pause between two looks at an update.
	lookEvery = 300 * time.Millisecond
	// defaultGrace is how long Swarm lets a task stop, defaultMonitor how long it watches a
	// new one, where the service does not say.
	defaultGrace   = 10 * time.Second
	defaultMonitor = 5 * time.Second
	// defaultInterval is how long after its start a task's healthcheck runs first, where the service does not say.
	defaultInterval = 30 * time.Second
	// noticed is how long Swarm takes to notice that a node is down, by default: three heartbeats of 5 s, and 0.5 s.
	// defaultRestart is how long it then waits before it starts the task elsewhere, where the service does not say.
	noticed        = 15500 * time.Millisecond
	defaultRestart = 5 * time.Second
)

// replaced is how long it takes until Swarm starts a task of a lost node elsewhere. The probe's timeout begins then: a lost
// node must not turn a flag on again.
func (s *state) replaced() time.Duration {
	if r := s.Spec.TaskTemplate.RestartPolicy; r != nil && r.Delay != nil {
		return noticed + *r.Delay
	}
	return noticed + defaultRestart
}

// between is how long an update may show no progress while a new task is fine: one task
// stops, the next answers its healthcheck and is watched, and Swarm waits.
func (s *state) between() time.Duration {
	d := defaultGrace
	if g := s.container().StopGracePeriod; g != nil {
		d = *g
	}
	if h := s.container().Healthcheck; h != nil && !slices.Equal(h.Test, []string{"NONE"}) {
		d += cmp.Or(h.Interval, defaultInterval) + h.StartPeriod
	}
	if u := s.Spec.UpdateConfig; u != nil {
		if d += u.Delay; u.Monitor > 0 {
			return d + u.Monitor
		}
	}
	return d + defaultMonitor
}

func (s *state) paused() bool { return strings.HasSuffix(s.UpdateStatus.State, "paused") }

// rollsBack reports that Swarm undoes an update, or did.
func (s *state) rollsBack() bool { return strings.HasPrefix(s.UpdateStatus.State, "rollback") }

// has reports whether a task was started with a value.
func (a *change) has(t task, value *string) bool {
	has, err := a.field.value(t.Spec.ContainerSpec)
	return err == nil && a.field.same(has, value)
}

// failed is the newest task with a value that failed, or nil.
func (a *change) failed(all tasks, value *string) *task {
	if i := slices.IndexFunc(all.failed, func(t task) bool { return a.has(t, value) }); i >= 0 {
		return &all.failed[i]
	}
	return nil
}

// rolled reports whether every task was started with a value and runs, and Swarm calls
// the update completed; or how far it is.
func (a *change) rolled(ctx context.Context, s *state, value *string) (bool, string, error) {
	all, err := a.c.tasks(ctx, s)
	if err != nil {
		return false, "", err
	}
	fresh, old, why := 0, 0, ""
	for _, t := range all.wanted {
		switch {
		case !a.has(t, value):
			old++
		case t.running():
			fresh++
		default:
			why = "; task " + t.name(s) + " is " + t.why()
		}
	}
	if t := a.failed(all, value); t != nil {
		why = "; task " + t.name(s) + " " + t.why()
	}
	want := s.ServiceStatus.DesiredTasks
	switch state := s.UpdateStatus.State; {
	case old > 0, fresh < want:
		return false, fmt.Sprintf("%d of %d tasks updated%s", fresh, want, why), nil
	case state == "updating", state == "rollback_started":
		return false, "Swarm still watches the new tasks", nil
	case s.paused():
		return false, s.UpdateStatus.Message, nil
	}
	return true, "", nil
}

// roll waits until every task has the field's value, runs, and Swarm calls the update
// completed. It ends early where Swarm pauses or undoes the update, where the next task
// takes longer than the probe's timeout and what Swarm itself needs, and where somebody
// changes the field. Where that was not seen in the end, the error is remediation.InDoubt. lasts: what docker stack deploy would do counts too.
func (a *change) roll(ctx context.Context, value func(seen) *string, lasts bool) error {
	var last, told string
	var unseen, stuck error
	progress := time.Now()
	limit := replicas.Patience(a.target.Probe)
	for {
		s, err := a.see(ctx, lasts)
		switch {
		case err == nil:
			limit = replicas.Patience(a.target.Probe) + s.between() + s.replaced()
			done, how, jerr := a.judge(ctx, s, value(s), lasts)
			if done || jerr != nil && !jsonhttp.Silent(jerr) {
				return jerr
			}
			if jerr == nil {
				stuck = a.unstick(ctx, s.state, value(s)) // without it, the limit decides
			}
			if jerr == nil || ctx.Err() == nil {
				unseen = jerr
			}
			if how != last {
				last, progress = how, time.Now()
			}
			told = how
		case ctx.Err() != nil && told != "": // the time ended in mid-question
		case jsonhttp.Silent(err): // it may be restarted
			unseen, progress = err, time.Now()
		default:
			return err
		}
		if time.Since(progress) > limit {
			err := errors.Join(fmt.Errorf("service %s makes no progress in %s: %s", a.target.Swarm.Service, remediation.Span(limit), told), stuck, unseen)
			if unseen != nil {
				return remediation.InDoubt(err)
			}
			return err
		}
		if !jsonhttp.Wait(ctx, lookEvery) {
			err := errors.Join(fmt.Errorf("wait for the update of %s: %s: %w", a.field.name(), told, ctx.Err()), stuck, unseen)
			if unseen == nil && told != "" {
				return err // it was seen, and not finished in its time
			}
			return remediation.InDoubt(err)
		}
	}
}

// judge judges an update once; how says how far it is.
func (a *change) judge(ctx context.Context, s seen, value *string, lasts bool) (done bool, how string, err error) {
	switch {
	case !a.field.same(s.now, value) && s.rollsBack():
		return false, "", hint.Add(fmt.Errorf("%s: Swarm undid the update (failure_action: rollback): %s is %s; %s%s", s, a.field.name(), a.field.shown(s.now), s.UpdateStatus.Message, a.whyFailed(ctx, s.state, value)),
			"docker service ps --no-trunc %s", s.t.Service)
	case !a.field.same(s.now, value):
		return false, "", fmt.Errorf("%s: %s is %s, %w", s, a.field.name(), a.field.shown(s.now), errTaken)
	case lasts && !s.lasts():
		return false, "", fmt.Errorf("%s: docker stack deploy would set %s to %s, %w", s.lasting.Path, a.field.name(), a.field.shown(s.lasting.now), errTaken)
	}
	if err := s.refuse(); err != nil {
		return false, "", err
	}
	done, how, err = a.rolled(ctx, s.state, value)
	if err == nil && !done && s.paused() {
		err = hint.Add(fmt.Errorf("%s: Swarm paused the update: %s: %s%s", s, s.UpdateStatus.Message, how, a.whyFailed(ctx, s.state, value)), "docker service ps --no-trunc %s", s.t.Service)
	}
	return done, how, err
}

// whyFailed is the reason of the newest task with the value that failed, as an end of a sentence.
func (a *change) whyFailed(ctx context.Context, s *state, value *string) string {
	all, err := a.c.tasks(ctx, s)
	if err != nil {
		return ""
	}
	if t := a.failed(all, value); t != nil {
		return ": task " + t.name(s) + " " + t.why()
	}
	return ""
}

// unstick begins an update anew that waits for a task on a node that is down. Swarm has replaced that task, and its update
// would still wait until the node is back, or for a day (swarmkit, Updater.updateTask). Another spec of the service ends that
// update and begins one that takes the replacement, even if only a label differs. While a task has no node yet, nothing is
// sent: the scheduler may lose that task then (moby#53722).
func (a *change) unstick(ctx context.Context, s *state, value *string) error {
	if s.UpdateStatus.State != "updating" {
		return nil
	}
	all, err := a.c.tasks(ctx, s)
	if err != nil || all.queued {
		return err
	}
	var ids []string // all of them: with the last one alone, two would take turns for ever
	for _, t := range all.lost {
		if !a.has(t, value) {
			continue
		}
		n, err := a.c.node(ctx, t.NodeID)
		switch {
		case n.Status.State == "down", jsonhttp.Answered(err) == http.StatusNotFound:
			ids = append(ids, t.ID)
		case err != nil:
			return err
		}
	}
	slices.Sort(ids)
	to := strings.Join(ids, ",")
	if to == "" || to == s.Spec.Labels[unstuckLabel] {
		return nil
	}
	return a.c.update(ctx, s, "", "", func(spec object) { in(spec, "Labels")[unstuckLabel] = to })
}
