package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// followed says which stage to watch, and for how long at most.
type followed struct {
	service, stage, release string
	// timeout is 0 if there is none.
	timeout time.Duration
	output  string
}

// The results of --follow, as in its last line of JSON.
const (
	resultPassed  = "passed"
	resultFailed  = "failed"
	resultTimeout = "timeout"
	resultStopped = "stopped"
)

var errTimeUp = errors.New("the stage has lasted")

// followRollout watches a stage. It succeeds once nothing is missing for the next step
// or the rollout has left the stage. It fails if the release is rolled back or
// replaced, an incident opens, the timeout passes or somebody stops it. A server that
// becomes unreachable does not end it; one that is unreachable from the start does,
// since its address may be wrong.
func (c *commands) followRollout(ctx context.Context, src source, f followed) error {
	b := &follow{followed: f, began: c.now()}
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.timeout, errTimeUp)
		defer cancel()
	}
	look := func() error {
		list, err := rolloutsOf(ctx, src, b.service)
		if err != nil {
			return err
		}
		if len(list) != 1 {
			return wrong("--service=NAME", "name the service: %d playbooks are loaded", len(list))
		}
		return c.follow(b, list[0])
	}
	err := look()
	if err == nil {
		err = c.again(ctx, look)
	}
	if b.end != nil { // also where it was stopped in that moment
		err = b.end
	}
	switch {
	case errors.Is(err, errOver):
		return nil
	case b.end != nil || ctx.Err() == nil:
		return err
	case errors.Is(context.Cause(ctx), errTimeUp):
		return c.badEnd(b, resultTimeout, fmt.Sprintf("%s did not end within %s", stageWords(b.stage), model.Duration(f.timeout)))
	}
	return c.badEnd(b, resultStopped, "stopped before "+stageWords(b.stage)+" was over")
}

func stageWords(stage string) string {
	if stage == "" {
		return "the stage"
	}
	return "stage " + stage
}

// follow polls once: errOver ends --follow successfully, any other error is a failure.
func (c *commands) follow(b *follow, r view.RolloutView) error {
	known := b.stage == "" || slices.Contains(r.Stages, b.stage)
	switch {
	case !known && !b.watching():
		return wrong("one of "+terminal.Clean(strings.Join(r.Stages, ", ")), "--stage: the playbook of %s has no stage %q", terminal.Clean(r.Service), terminal.Clean(b.stage))
	case !known:
		return c.badEnd(b, resultFailed, fmt.Sprintf("the playbook of %s has no stage %s any more", r.Service, b.stage))
	}
	if text := b.lost(r); text != "" {
		b.view = r
		return c.badEnd(b, resultFailed, text)
	}
	b.see(r, c.now())
	if r.Stage != b.stage || r.State == remediation.RolloutDone {
		if passed(b.stage, r) {
			return c.goodEnd(b, b.left(r))
		}
		return c.line(b, fmt.Sprintf("waiting for stage %s: the rollout is %s", b.stage, where(r)))
	}
	if lacking := b.lacking(c.now()); lacking != "" {
		return c.line(b, fmt.Sprintf("stage %s: %s", b.stage, lacking))
	}
	return c.goodEnd(b, fmt.Sprintf("stage %s has lasted, all its criteria are met, and no gate is closed", b.stage))
}

// lost says why a stage cannot be watched, or not any more; "" if it can. A pipeline
// does not wait for a rollout that was over before, unless it names the release.
func (b *follow) lost(r view.RolloutView) string {
	state := strings.ReplaceAll(r.State, "_", " ")
	going := active(r) || r.State == remediation.RolloutDone
	switch {
	case b.watching() && r.Release != b.view.Release:
		return fmt.Sprintf("release %s of %s replaced %s, which you watched: it is %s", r.Release, r.Service, b.view.Release, state)
	case b.watching() && going && !same(r.Started, b.view.Started):
		return fmt.Sprintf("the rollout of %s %s was started again: the one you watched is over", r.Service, r.Release)
	case b.watching() && !going:
		return fmt.Sprintf("release %s of %s is %s", r.Release, r.Service, state)
	case r.State == remediation.RolloutNone:
		return fmt.Sprintf("no rollout of %s is active", r.Service)
	case b.release != "" && r.Release != b.release:
		return fmt.Sprintf("release %s of %s is not being rolled out: %s is %s", b.release, r.Service, r.Release, state)
	case !going || r.State == remediation.RolloutDone && b.release == "" && !b.watching():
		return fmt.Sprintf("no rollout of %s is active: release %s is %s", r.Service, r.Release, state)
	case active(r) && r.Incident != "":
		return fmt.Sprintf("incident %s of %s is open: backout incident show %s", r.Incident, r.Service, r.Incident)
	}
	return ""
}

func active(r view.RolloutView) bool {
	return r.State == remediation.RolloutActive || r.State == remediation.RolloutSoaking
}

func same(a, b *time.Time) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Equal(*b)
}

// passed reports whether a rollout has left a stage.
func passed(stage string, r view.RolloutView) bool {
	return r.State == remediation.RolloutDone || slices.Index(r.Stages, stage) < slices.Index(r.Stages, r.Stage)
}

func where(r view.RolloutView) string {
	if r.State == remediation.RolloutDone {
		return "done"
	}
	return "in stage " + r.Stage
}

// left says how a stage was left.
func (b *follow) left(r view.RolloutView) string {
	text := fmt.Sprintf("%s is over: the rollout is %s", stageWords(b.stage), where(r))
	switch {
	case b.looks == 0:
		text += "; none of it was seen"
	case b.lastText != "":
		text += "; when the stage was last seen, " + b.lastText
	}
	return text
}

// line prints the state of the stage: when more than the time has changed, and at
// each heartbeat.
func (c *commands) line(b *follow, text string) error {
	what := b.gist()
	if what == b.told && c.now().Sub(b.toldAt) < followHeartbeat {
		return nil
	}
	b.told, b.toldAt = what, c.now()
	if b.output == outputJSON {
		return c.printJSONLine(b.view)
	}
	return c.print(terminal.Hanging(terminal.MomentShort(c.now())+"  ", text))
}

// goodEnd prints the summary of a stage that was watched until it ended.
func (c *commands) goodEnd(b *follow, text string) error {
	if err := c.summary(b, resultPassed, text); err != nil {
		return err
	}
	b.end = errOver
	return b.end
}

// badEnd ends --follow with exit status 1 and the summary so far.
func (c *commands) badEnd(b *follow, result, text string) error {
	if b.output == outputJSON || b.looks > 0 {
		if err := c.summary(b, result, text); err != nil {
			return err
		}
	}
	if (result == resultTimeout || result == resultStopped) && b.lastText != "" {
		text += "; when it was last seen, " + b.lastText
	}
	b.end = negative("", "%s", terminal.Clean(text))
	return b.end
}
