package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/cmd/backout/follow"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

var errTimeUp = errors.New("the stage has lasted")

// followRollout watches a stage. It succeeds once nothing is missing for the next step
// or the rollout has left the stage. It fails if the release is rolled back or
// replaced, an incident opens, the timeout passes or somebody stops it. A server that
// becomes unreachable does not end it; one that is unreachable from the start does,
// since its address may be wrong.
func (c *commands) followRollout(ctx context.Context, src source, f follow.Options) error {
	b := &follow.Stage{Options: f, Began: c.now()}
	if f.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.Timeout, errTimeUp)
		defer cancel()
	}
	look := func() error {
		list, err := rolloutsOf(ctx, src, b.Service)
		if err != nil {
			return err
		}
		if len(list) != 1 {
			var names []string
			for _, r := range list {
				names = append(names, terminal.Clean(r.Service))
			}
			return wrong("--service=NAME, one of "+strings.Join(names, ", "), "name the service: %d playbooks are loaded", len(list))
		}
		return c.follow(b, list[0])
	}
	err := look()
	if err == nil {
		err = c.again(ctx, look)
	}
	if b.End != nil { // also where it was stopped in that moment
		err = b.End
	}
	switch {
	case errors.Is(err, errOver):
		return nil
	case b.End != nil || ctx.Err() == nil:
		return err
	case errors.Is(context.Cause(ctx), errTimeUp):
		return c.badEnd(b, follow.ResultTimeout, fmt.Sprintf("%s did not end within %s", follow.StageWords(b.Stage), model.Duration(f.Timeout)))
	}
	return c.badEnd(b, follow.ResultStopped, "stopped before "+follow.StageWords(b.Stage)+" was over")
}

// follow polls once: errOver ends --follow successfully, any other error is a failure.
func (c *commands) follow(b *follow.Stage, r view.RolloutView) error {
	known := b.Stage == "" || slices.Contains(r.Stages, b.Stage)
	switch {
	case !known && !b.Watching():
		return wrong("one of "+terminal.Clean(strings.Join(r.Stages, ", ")), "--stage: the playbook of %s has no stage %q", terminal.Clean(r.Service), terminal.Clean(b.Stage))
	case !known:
		return c.badEnd(b, follow.ResultFailed, fmt.Sprintf("the playbook of %s has no stage %s any more", r.Service, b.Stage))
	}
	if text := b.Lost(r); text != "" {
		b.View = r
		return c.badEnd(b, follow.ResultFailed, text)
	}
	b.See(r, c.now())
	if r.Stage != b.Stage || r.State == remediation.RolloutDone {
		if follow.Passed(b.Stage, r) {
			return c.goodEnd(b, b.Left(r))
		}
		return c.line(b, fmt.Sprintf("waiting for stage %s: the rollout is %s", b.Stage, follow.Where(r)))
	}
	if lacking := b.Lacking(c.now()); lacking != "" {
		return c.line(b, fmt.Sprintf("stage %s: %s", b.Stage, lacking))
	}
	return c.goodEnd(b, fmt.Sprintf("stage %s has lasted, all its criteria are met, and no gate is closed", b.Stage))
}

// line prints the state of the stage: when more than the time has changed, and at
// each heartbeat.
func (c *commands) line(b *follow.Stage, text string) error {
	what := b.Gist()
	if what == b.Told && c.now().Sub(b.ToldAt) < followHeartbeat {
		return nil
	}
	b.Told, b.ToldAt = what, c.now()
	if b.Output == outputJSON {
		return c.printJSONLine(b.View)
	}
	return c.print(terminal.Hanging(terminal.MomentShort(c.now())+"  ", text))
}

// goodEnd prints the summary of a stage that was watched until it ended.
func (c *commands) goodEnd(b *follow.Stage, text string) error {
	if err := c.summary(b, follow.ResultPassed, text); err != nil {
		return err
	}
	b.End = errOver
	return b.End
}

// badEnd ends --follow with exit status 1 and the summary so far.
func (c *commands) badEnd(b *follow.Stage, result, text string) error {
	if b.Output == outputJSON || b.Looks > 0 {
		if err := c.summary(b, result, text); err != nil {
			return err
		}
	}
	if (result == follow.ResultTimeout || result == follow.ResultStopped) && b.LastText != "" {
		text += "; when it was last seen, " + b.LastText
	}
	b.End = negative("", "%s", terminal.Clean(text))
	return b.End
}

// summary prints what was seen of the stage.
func (c *commands) summary(b *follow.Stage, result, text string) error {
	s := b.Summary(result, text, c.now())
	if b.Output == outputJSON {
		return c.printJSONLine(s)
	}
	return c.print(s.Text(c.screen()))
}
