package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

func (c *commands) addRollout() {
	rollout := c.app.Command("rollout", "A service's way to a new release, stage by stage.")
	c.addRolloutStart(rollout)
	c.addRolloutStatus(rollout)
	c.addRolloutPromote(rollout)
	c.addRolloutVerb(rollout, remediation.RolloutHold, "Keep a rollout in its stage: nothing promotes it. A breach is backed out as ever.")
	c.addRolloutVerb(rollout, remediation.RolloutResume, "Let a held rollout go on.")
	c.addRolloutVerb(rollout, remediation.RolloutAbort,
		"Back the release out now: the plan's steps in their order, each verified, also with Prometheus down. What loses data still asks for approval.")
	c.addRolloutFinish(rollout)
	c.addRolloutReport(rollout)
}

func (c *commands) addRolloutStart(parent *kingpin.CmdClause) {
	clause := parent.Command("start", "Start a rollout: its first stage's traffic is set. With --declare, record one that humans have started.")
	declare := clause.Flag("declare", "Say that the rollout is under way, in --stage; nothing is asked beforehand, and no flag is changed.").Bool()
	auto := clause.Flag("auto", "Go on to each next stage by itself, as soon as nothing is missing.").Bool()
	stage := clause.Flag("stage", "The stage, by its name in the playbook; the first one where not given.").String()
	release := clause.Flag("release", "The release; the playbook's where not given.").String()
	service := clause.Flag("service", "The service; needed where several playbooks are loaded.").String()
	reason := reasonFlag(clause)
	server, output := c.serverFlags(clause), outputFlag(clause)
	c.add(clause, func(ctx context.Context) error {
		body := map[string]any{"service": *service, "release": *release, "stage": *stage, "reason": *reason}
		if *auto {
			body["auto"] = true
		}
		if *declare {
			if *stage == "" {
				return wrong("--stage=NAME", "--declare needs the stage that the rollout is in")
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
			return negative("backout audit list --kind=stage", "the rollout of %s did not start: its traffic could not be set", clean(done.Service))
		}
		return nil
	})
}

func (c *commands) addRolloutPromote(parent *kingpin.CmdClause) {
	clause := parent.Command("promote", "Go on to the next stage, if the stage has lasted, its criteria hold and nothing speaks against it; otherwise say what is missing.")
	force := clause.Flag("force", "Go on although something is missing; needs --reason. An open incident and a freeze are not forced.").Bool()
	service := clause.Flag("service", "The service; needed where several playbooks are loaded.").String()
	reason := reasonFlag(clause)
	server, output := c.serverFlags(clause), outputFlag(clause)
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
				return negative("backout audit list --kind=stage", "the rollout of %s is in stage %s still: its traffic could not be set", clean(done.Service), clean(done.Stage))
			}
		}
		return nil
	})
}

func (c *commands) addRolloutFinish(parent *kingpin.CmdClause) {
	clause := parent.Command("finish", "End a rollout that has soaked: the release stays, and nothing backs it out any more.")
	force := clause.Flag("force", "End it although something is missing; needs --reason. An open incident is not forced.").Bool()
	service := clause.Flag("service", "The service; needed where several playbooks are loaded.").String()
	reason := reasonFlag(clause)
	server, output := c.serverFlags(clause), outputFlag(clause)
	c.add(clause, func(ctx context.Context) error {
		body, err := forced(*service, *reason, *force)
		if err != nil {
			return err
		}
		return c.rolloutVerb(ctx, server, remediation.RolloutFinish, body, *output)
	})
}

// forced is the body of a change that takes force, which must say why.
func forced(service, reason string, force bool) (map[string]any, error) {
	if force && reason == unsaid {
		return nil, wrong("--reason=WHY", "--force needs a reason: it goes into the audit log with what was missing")
	}
	body := map[string]any{"service": service, "reason": reason}
	if force {
		body["force"] = true
	}
	return body, nil
}

// addRolloutVerb adds a change of an active rollout.
func (c *commands) addRolloutVerb(parent *kingpin.CmdClause, verb remediation.RolloutVerb, help string) {
	clause := parent.Command(string(verb), help)
	service := clause.Flag("service", "The service; needed where several playbooks are loaded.").String()
	reason := reasonFlag(clause)
	server, output := c.serverFlags(clause), outputFlag(clause)
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
	if err := c.showRollout(done, output); err != nil {
		return err
	}
	if verb == remediation.RolloutAbort && done.Incident != "" && output != outputJSON {
		return c.print(fmt.Sprintf("\nIncident %s carries it out: backout incident show %s --follow\n", clean(done.Incident), clean(done.Incident)))
	}
	return nil
}

// changeRollout asks a server for a change, and waits until the traffic is set
// where that takes longer than one request.
func (c *commands) changeRollout(ctx context.Context, cl *client, verb remediation.RolloutVerb, body map[string]any) (done view.RolloutView, err error) {
	if err := cl.ask(ctx, http.MethodPost, "api/v1/rollout/"+string(verb), nil, body, &done); err != nil {
		return done, err
	}
	if done.Promotion == nil {
		return done, nil
	}
	say := c.progress()
	defer say.done()
	say.say("setting the traffic of %s to %s", clean(done.Service), clean(done.Promotion.Value))
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
	}
	return done, err
}

func (c *commands) showRollout(r view.RolloutView, output string) error {
	if output == outputJSON {
		return c.printJSON(r)
	}
	return c.print(rolloutText(r, c.now(), c.screen()))
}

func (c *commands) addRolloutStatus(parent *kingpin.CmdClause) {
	clause := parent.Command("status", "Show each service's rollout: its stage, how that does, and what is missing for the next one. "+
		"With --follow: until the stage has lasted and nothing is missing for what comes next (exit 0), or the release is backed out, another takes its place or an incident opens (1). "+
		"A server that goes away is waited for.")
	service := clause.Flag("service", "Of this service only.").String()
	follow := clause.Flag("follow", "Watch one stage to its end, for a pipeline.").Bool()
	stage := clause.Flag("stage", "With --follow: the stage to watch; the present one where not given.").String()
	release := clause.Flag("release", "With --follow: the release that must be the one being rolled out; the present one where not given.").String()
	timeout := spanFlag(clause, "timeout", "With --follow: give up after this time, such as 26h, with exit status 1.")
	from, output := c.sourceFlags(clause), outputFlag(clause)
	c.add(clause, func(ctx context.Context) error {
		if *stage != "" && !*follow {
			return wrong("--follow --stage="+clean(*stage), "--stage goes with --follow")
		}
		if (*release != "" || *timeout > 0) && !*follow {
			return wrong("--follow", "--release and --timeout go with --follow")
		}
		if *follow && *from.dsn != "" {
			return wrong("--url=ADDRESS", "--follow asks a server: how a stage does is not in a store")
		}
		return from.with(ctx, func(src source) error {
			if *follow {
				return c.followRollout(ctx, src, followed{service: *service, stage: *stage, release: *release, timeout: *timeout, output: *output})
			}
			list, err := rolloutsOf(ctx, src, *service)
			if err != nil {
				return err
			}
			if *output == outputJSON {
				return c.printJSON(map[string]any{"rollouts": list})
			}
			text := ""
			for i, r := range list {
				if i > 0 {
					text += "\n"
				}
				text += rolloutText(r, c.now(), c.screen())
			}
			if len(list) == 0 {
				text = "No rollouts.\n"
			}
			return c.print(text)
		})
	})
}

// rolloutsOf lists the rollouts of one service, or of all where it is "".
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
		return nil, negative("backout rollout status", "no rollout of service %q is known", service)
	}
	return list, nil
}

// followHeartbeat is how often a following says that it goes on.
const followHeartbeat = 15 * time.Minute
