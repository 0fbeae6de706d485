package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/client"
	"github.com/locotoki/backout/cmd/backout/flags"
	"github.com/locotoki/backout/cmd/backout/follow"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

func (c *commands) addRollout() {
	rollout := c.app.Command("rollout", "Roll out a new release stage by stage.")
	c.addRolloutStart(rollout)
	c.addRolloutStatus(rollout)
	c.addRolloutPromote(rollout)
	c.addRolloutVerb(rollout, remediation.RolloutHold, "Keep a rollout in its stage: nothing promotes it. A breach is still rolled back.")
	c.addRolloutVerb(rollout, remediation.RolloutResume, "Resume a held rollout.")
	c.addRolloutVerb(rollout, remediation.RolloutAbort,
		"Roll the release back now. The plan's steps run in order, each verified, even if Prometheus is down. A step that loses data still needs approval.")
	c.addRolloutFinish(rollout)
	c.addRolloutReport(rollout)
}

func (c *commands) addRolloutStart(parent *kingpin.CmdClause) {
	clause := parent.Command("start", "Start a rollout: set the traffic of its first stage. With --declare, record one that people have started.")
	declare := clause.Flag("declare", "Record a rollout that is already in --stage. Nothing is checked first, and no flag is changed.").Bool()
	auto := clause.Flag("auto", "Promote to each next stage automatically, as soon as nothing is missing.").Bool()
	stage := clause.Flag("stage", "The stage, by its name in the playbook. Default: the first one.").String()
	release := clause.Flag("release", "The release. Default: the playbook's.").String()
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	reason := flags.Reason(clause)
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[view.RolloutView]())
	c.add(clause, func(ctx context.Context) error {
		body := map[string]any{"service": *service, "release": *release, "stage": *stage, "reason": *reason}
		if *auto {
			body["auto"] = true
		}
		if *declare {
			if *stage == "" {
				return wrong("--stage=NAME", "--declare needs --stage, the stage that the rollout is in")
			}
			body["declare"] = true
		}
		cl, err := server.client()
		if err != nil {
			return err
		}
		done, err := c.changeRollout(ctx, cl, "start", body)
		if err != nil {
			return err
		}
		if err := c.showRollout(done, *output); err != nil {
			return err
		}
		if done.State != remediation.RolloutActive && done.State != remediation.RolloutSoaking {
			return negative("backout audit list --kind=stage", "the rollout of %s did not start: its traffic could not be set", terminal.Clean(done.Service))
		}
		return nil
	})
}

func (c *commands) addRolloutPromote(parent *kingpin.CmdClause) {
	clause := parent.Command("promote", "Promote to the next stage if this one has lasted, its criteria are met and no gate is closed. Otherwise say what is missing.")
	force := clause.Flag("force", "Promote even if something is missing; needs --reason. An open incident and a freeze cannot be forced.").Bool()
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	reason := flags.Reason(clause)
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[view.RolloutView]())
	c.add(clause, func(ctx context.Context) error {
		body, err := forced(*service, *reason, *force)
		if err != nil {
			return err
		}
		cl, err := server.client()
		if err != nil {
			return err
		}
		before, err := cl.Rollouts(ctx)
		if err != nil {
			return err
		}
		done, err := c.changeRollout(ctx, cl, remediation.RolloutPromote, body)
		if err != nil {
			return err
		}
		if err := c.showRollout(done, *output); err != nil {
			return err
		}
		for _, was := range before {
			if was.Service == done.Service && was.Stage == done.Stage {
				return negative("backout audit list --kind=stage", "the rollout of %s is still in stage %s: its traffic could not be set", terminal.Clean(done.Service), terminal.Clean(done.Stage))
			}
		}
		return nil
	})
}

func (c *commands) addRolloutFinish(parent *kingpin.CmdClause) {
	clause := parent.Command("finish", "Finish a rollout after its last stage. The release stays, and nothing rolls it back any more.")
	force := clause.Flag("force", "Finish even if something is missing; needs --reason. An open incident cannot be forced.").Bool()
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	reason := flags.Reason(clause)
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[view.RolloutView]())
	c.add(clause, func(ctx context.Context) error {
		body, err := forced(*service, *reason, *force)
		if err != nil {
			return err
		}
		return c.rolloutVerb(ctx, server, remediation.RolloutFinish, body, *output)
	})
}

// forced is the body of a change that allows force, which needs a reason.
func forced(service, reason string, force bool) (map[string]any, error) {
	if force && reason == flags.Unsaid {
		return nil, wrong("--reason=WHY", "--force needs a reason: the audit log records it with what was missing")
	}
	body := map[string]any{"service": service, "reason": reason}
	if force {
		body["force"] = true
	}
	return body, nil
}

// addRolloutVerb adds a command that changes an active rollout.
func (c *commands) addRolloutVerb(parent *kingpin.CmdClause, verb remediation.RolloutVerb, help string) {
	clause := parent.Command(string(verb), help)
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	reason := flags.Reason(clause)
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[view.RolloutView]())
	c.add(clause, func(ctx context.Context) error {
		return c.rolloutVerb(ctx, server, verb, map[string]any{"service": *service, "reason": *reason}, *output)
	})
}

func (c *commands) rolloutVerb(ctx context.Context, server serverFlags, verb remediation.RolloutVerb, body map[string]any, output string) error {
	cl, err := server.client()
	if err != nil {
		return err
	}
	done, err := c.changeRollout(ctx, cl, verb, body)
	if err != nil {
		return err
	}
	if verb != remediation.RolloutAbort || done.Incident == "" || output == outputJSON {
		return c.showRollout(done, output)
	}
	done.Gates, done.PromotableAt = nil, nil // nothing is promoted any more
	held, outlook := "", ""                  // the abort is done, whether or not its first step can be seen
	if inc, err := c.begun(ctx, cl, done.Incident); err == nil {
		held, outlook = terminal.AbortHeld(inc, c.now()), "\n"+terminal.Outlook(inc, c.now())
	}
	if err := c.print(held); err != nil {
		return err
	}
	if err := c.showRollout(done, output); err != nil {
		return err
	}
	return c.print(outlook + fmt.Sprintf("\nFollow incident %s: backout incident show %s --follow\n", terminal.Clean(done.Incident), terminal.Clean(done.Incident)))
}

// begunTimeout bounds the wait for the first step of an abort.
const begunTimeout = 10 * time.Second

// begun returns an incident once a step of it has begun or is held, or as it is after a while.
func (c *commands) begun(ctx context.Context, cl *client.Client, id string) (inc view.IncidentView, err error) {
	ctx, stop := context.WithTimeout(ctx, begunTimeout)
	defer stop()
	look := func() error {
		now, err := cl.Incident(ctx, id)
		if err != nil {
			return err
		}
		if inc = now; inc.State != remediation.Acting || slices.ContainsFunc(inc.Steps, func(s view.StepView) bool { return s.Started != nil }) {
			return errOver
		}
		return nil
	}
	if err = look(); err == nil {
		err = c.again(ctx, look)
	}
	if errors.Is(err, errOver) {
		err = nil
	}
	return inc, err
}

// changeRollout requests a change, and waits until the traffic is set if that takes
// longer than one request.
func (c *commands) changeRollout(ctx context.Context, cl *client.Client, verb remediation.RolloutVerb, body map[string]any) (done view.RolloutView, err error) {
	service, _ := body["service"].(string)
	defer func() {
		err = continues(err, done.Service != "", "backout rollout status", cmp.Or(done.Service, service))
	}()
	say := c.progress()
	defer say.Done()
	say.Say("waiting for the server, which checks the service, Prometheus and the gates")
	if err := cl.Ask(ctx, http.MethodPost, "api/v1/rollout/"+string(verb), nil, body, &done); err != nil {
		return done, err
	}
	if done.Promotion == nil {
		return done, nil
	}
	say.Say("setting the traffic of %s to %s", terminal.Clean(done.Service), terminal.Clean(done.Promotion.Value))
	err = c.again(ctx, func() error {
		all, err := cl.Rollouts(ctx)
		if err != nil {
			return err
		}
		for _, r := range all {
			if r.Service == done.Service {
				done = r
			}
		}
		if done.Promotion == nil {
			return errOver
		}
		return nil
	})
	if errors.Is(err, errOver) {
		err = nil
	} else if err == nil {
		err = ctx.Err() // what ends the loop otherwise
	}
	return done, err
}

func (c *commands) showRollout(r view.RolloutView, output string) error {
	if output == outputJSON {
		return c.printJSON(r)
	}
	return c.print(terminal.Rollout(r, c.now(), c.screen()))
}

// rolloutPage is the answer of rollout status, as of the API.
type rolloutPage struct {
	Rollouts []view.RolloutView `json:"rollouts"`
}

func (c *commands) addRolloutStatus(parent *kingpin.CmdClause) {
	clause := parent.Command("status", "Show each service's rollout: its stage, the stage's state, and what is missing for the next one. "+
		"With --follow, watch until the stage has lasted and nothing is missing for the next step, then exit 0. Exit 1 if the release is rolled back or replaced, or if an incident opens. "+
		"If the server goes away, keep retrying.")
	service := clause.Flag("service", "Only this service.").String()
	watch := clause.Flag("follow", "Watch one stage until it ends, for a pipeline.").Bool()
	stage := clause.Flag("stage", "With --follow: the stage to watch. Default: the current one.").String()
	release := clause.Flag("release", "With --follow: the release that must be active. Default: the current one.").String()
	timeout := flags.Span(clause, "timeout", "With --follow: give up after this time, such as 26h, with exit status 1.")
	from, output := c.sourceFlags(clause), c.outputFlag(clause, reflect.TypeFor[rolloutPage](), reflect.TypeFor[view.RolloutView](), reflect.TypeFor[follow.Summary]())
	c.add(clause, func(ctx context.Context) error {
		if *stage != "" && !*watch {
			return wrong("--follow --stage="+terminal.Clean(*stage), "--stage goes with --follow")
		}
		if (*release != "" || *timeout > 0) && !*watch {
			return wrong("--follow", "--release and --timeout go with --follow")
		}
		if *watch && *from.dsn != "" {
			return wrong("--url=ADDRESS", "--follow needs a server: a database does not hold the state of a stage")
		}
		return from.with(ctx, func(src source) error {
			if *watch {
				return c.followRollout(ctx, src, follow.Options{Service: *service, Stage: *stage, Release: *release, Timeout: *timeout, Output: *output})
			}
			list, err := rolloutsOf(ctx, src, *service)
			if err != nil {
				return err
			}
			if *output == outputJSON {
				return c.printJSON(rolloutPage{list})
			}
			text := ""
			for i, r := range list {
				if i > 0 {
					text += "\n"
				}
				text += terminal.Rollout(r, c.now(), c.screen())
			}
			if len(list) == 0 {
				text = "No rollouts.\n"
			}
			return c.print(text)
		})
	})
}

// rolloutsOf lists the rollouts of one service, or of all if it is "".
func rolloutsOf(ctx context.Context, src source, service string) ([]view.RolloutView, error) {
	all, err := src.Rollouts(ctx)
	if err != nil {
		return nil, err
	}
	list := []view.RolloutView{}
	for _, r := range all {
		if service == "" || r.Service == service {
			list = append(list, r)
		}
	}
	if service != "" && len(list) == 0 {
		known := make([]string, len(all))
		for i, r := range all {
			known[i] = r.Service
		}
		if len(known) == 0 {
			return nil, negative("backout rollout start", "service %q has no rollout, nor has any other", service)
		}
		return nil, negative("backout rollout status", "service %q has no rollout; known: %s", service, terminal.Clean(strings.Join(known, ", ")))
	}
	return list, nil
}

// followHeartbeat is how often --follow reports that it is still watching.
const followHeartbeat = 15 * time.Minute
