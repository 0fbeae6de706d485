package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
)

// bake watches one stage of one rollout to its end.
type bake struct {
	service, stage, release string
	began                   time.Time
	last                    string
	told                    time.Time
}

// followRollout watches a stage until it has lasted with all of its criteria met,
// the rollout has gone on, or it has ended. A server that is away for a while ends
// nothing.
func (c *commands) followRollout(ctx context.Context, src source, service, stage, output string) error {
	b := &bake{service: service, stage: stage, began: c.now()}
	look := func() error {
		list, err := rolloutsOf(ctx, src, b.service)
		if err != nil {
			return err
		}
		if len(list) != 1 {
			return wrong("--service=NAME", "name the service: %d playbooks are loaded", len(list))
		}
		return c.bake(b, list[0], output)
	}
	err := look()
	if err == nil {
		err = c.again(ctx, look)
	}
	if errors.Is(err, errOver) {
		return nil
	}
	if err == nil && ctx.Err() != nil {
		return negative("", "stopped before stage %s was over", clean(b.stage))
	}
	return err
}

// bake looks once: errOver ends the following well, any other error badly.
func (c *commands) bake(b *bake, r remediation.RolloutView, output string) error {
	active := r.State == remediation.RolloutActive || r.State == remediation.RolloutSoaking
	switch {
	case !active && b.release == "" && r.State != remediation.RolloutDone:
		return c.badEnd(r, output, fmt.Sprintf("no rollout of %s is active: it is %s", r.Service, words(r.State)))
	case !active && r.State != remediation.RolloutDone:
		return c.badEnd(r, output, fmt.Sprintf("release %s of %s is %s", r.Release, r.Service, words(r.State)))
	case active && r.Incident != "":
		return c.badEnd(r, output, fmt.Sprintf("incident %s of %s is open: backout incident show %s", r.Incident, r.Service, r.Incident))
	}
	if b.stage == "" {
		b.stage = r.Stage
	}
	b.service, b.release = r.Service, r.Release
	if !slices.Contains(r.Stages, b.stage) {
		return wrong("one of "+clean(strings.Join(r.Stages, ", ")), "--stage: the playbook of %s has no stage %q", clean(r.Service), clean(b.stage))
	}
	if r.Stage != b.stage {
		if passed(b.stage, r) {
			return c.goodEnd(b, r, output, fmt.Sprintf("stage %s is over: the rollout is %s", b.stage, where(r)))
		}
		return c.line(b, r, output, fmt.Sprintf("waiting for stage %s: the rollout is %s", b.stage, where(r)))
	}
	var bad []string
	for _, cr := range r.Criteria {
		if !cr.OK {
			bad = append(bad, fmt.Sprintf("%s %s", cr.Name, valueOr(cr.Value, "has no value")))
		}
	}
	left := ""
	if r.PromotableAt != nil && r.PromotableAt.After(c.now()) {
		left = fmt.Sprintf("%s left, until %s", strings.TrimPrefix(distance(c.now(), *r.PromotableAt), "in "), moment(*r.PromotableAt))
	}
	met := fmt.Sprintf("%d of %d criteria met", len(r.Criteria)-len(bad), len(r.Criteria))
	if left == "" && len(bad) == 0 {
		return c.goodEnd(b, r, output, fmt.Sprintf("stage %s has lasted, and all of its criteria are met", b.stage))
	}
	if left == "" {
		left = "it has lasted"
	}
	if len(bad) > 0 {
		met += " (not: " + strings.Join(bad, ", ") + ")"
	}
	return c.line(b, r, output, fmt.Sprintf("stage %s: %s; %s", b.stage, left, met))
}

// passed tells whether a rollout has left a stage behind it.
func passed(stage string, r remediation.RolloutView) bool {
	return r.State == remediation.RolloutDone || slices.Index(r.Stages, stage) < slices.Index(r.Stages, r.Stage)
}

func where(r remediation.RolloutView) string {
	if r.State == remediation.RolloutDone {
		return "done"
	}
	return "in stage " + r.Stage
}

func words(state string) string { return strings.ReplaceAll(state, "_", " ") }

// line says how the stage does: when something else than the time has changed, and
// now and then.
func (c *commands) line(b *bake, r remediation.RolloutView, output, text string) error {
	what := fmt.Sprint(r.State, r.Stage, r.Held, r.Promotion != nil)
	for _, cr := range r.Criteria {
		what += fmt.Sprint(cr.Name, cr.OK, cr.Value == nil)
	}
	if what == b.last && c.now().Sub(b.told) < followHeartbeat {
		return nil
	}
	b.last, b.told = what, c.now()
	if output == outputJSON {
		return c.printJSONLine(r)
	}
	return c.print(hanging(momentShort(c.now())+"  ", text))
}

// goodEnd prints the summary of a stage that was watched to its end.
func (c *commands) goodEnd(b *bake, r remediation.RolloutView, output, text string) error {
	if output == outputJSON {
		if err := c.printJSONLine(r); err != nil {
			return err
		}
		return errOver
	}
	var s strings.Builder
	s.WriteString("\n" + wrap("", fmt.Sprintf("%s %s: %s", r.Service, r.Release, text)))
	fmt.Fprintf(&s, "  watched     %s to %s UTC\n", momentShort(b.began), momentShort(c.now()))
	if r.Stage == b.stage {
		if r.StageSince != nil {
			fmt.Fprintf(&s, "  stage       since %s (%s)\n", moment(*r.StageSince), distance(c.now(), *r.StageSince))
		}
		s.WriteString(criteriaText(r) + missingText(r))
		next := "backout rollout promote"
		if r.Next == "" {
			next = "backout rollout finish"
		}
		fmt.Fprintf(&s, "  then        %s\n", next)
	}
	if err := c.print(s.String()); err != nil {
		return err
	}
	return errOver
}

// badEnd ends the following with exit status 1.
func (c *commands) badEnd(r remediation.RolloutView, output, text string) error {
	if output == outputJSON {
		if err := c.printJSONLine(r); err != nil {
			return err
		}
	}
	return negative("", "%s", clean(text))
}
