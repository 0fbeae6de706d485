package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// canaryStages are long enough to be refused in the first, and to breach the second.
var canaryStages = stages{"alpha": "10s", "beta": "1m", "gamma": "1m", "delta": "1m", "full": "1m"}

// forward are the stages of a rollout on its way to beta.
func (st *story) forward() []stage {
	return []stage{
		{"rehearsed", st.seeRehearsed},
		{"preflight", st.seePreflight},
		{"signed", st.seeSigned},
		{"started", st.seeStarted},
		{"refused", st.seeTooEarly},
		{"alpha", st.seeAlphaLasted},
		{"promoted", st.seePromoted},
		{"beta", st.seeBetaWell},
	}
}

// seeRehearsed rehearses the rollback plan, and says how long it took.
func (st *story) seeRehearsed(ctx context.Context) (time.Time, []string, error) {
	begun := time.Now()
	if _, err := st.stack.command(ctx, "rehearse", "--reason=before the rollout"); err != nil {
		return time.Time{}, nil, fatal(err)
	}
	return time.Now(), []string{fmt.Sprintf("backout rehearse: the whole rollback plan, without lasting effect, in %.1f s", time.Since(begun).Seconds()),
		"It started the image of " + oldVersion + " in a separate container, ran the undo scripts in a transaction",
		"that it rolled back, and sent a drill alert through Alertmanager."}, nil
}

// seePreflight checks that a rollback would work, and says what came of it.
func (st *story) seePreflight(ctx context.Context) (time.Time, []string, error) {
	s, begun := st.stack, time.Now()
	if err := s.runPreflight(ctx); err != nil {
		return time.Time{}, nil, fatal(err)
	}
	v, err := s.preflight(ctx)
	if err != nil {
		return time.Time{}, nil, fatal(err)
	}
	checks, passed := 0, 0
	said := []string{
		"", "Among them: Prometheus has loaded the generated rules, and each trigger's drill alert came back.",
	}
	for _, it := range v.Items {
		if it.Owner != "" {
			continue
		}
		checks++
		if it.Status == remediation.Pass {
			passed++
			continue
		}
		said = append(said, "Unknown: "+it.ID+": "+it.Evidence)
	}
	said[0] = fmt.Sprintf("backout preflight: %d of %d checks passed in %.1f s", passed, checks, time.Since(begun).Seconds())
	return time.Now(), said, nil
}

// seeSigned plays the people who sign off what no program can check.
func (st *story) seeSigned(ctx context.Context) (time.Time, []string, error) {
	v, err := st.stack.preflight(ctx)
	if err != nil {
		return time.Time{}, nil, fatal(err)
	}
	said := []string{"by Ada, played by this demo, for what no program can check:"}
	for _, it := range v.Items {
		if !it.Before || it.Status == remediation.Pass {
			continue
		}
		reason := "this is a demo"
		if it.Owner != "" {
			reason = "report 17"
		}
		if err := st.stack.sign(ctx, it.ID, reason); err != nil {
			return time.Time{}, nil, fatal(err)
		}
		said = append(said, fmt.Sprintf("backout preflight sign %s --by=Ada --reason='%s'", it.ID, reason))
	}
	return time.Now(), said, nil
}

func (st *story) seeStarted(ctx context.Context) (time.Time, []string, error) {
	if err := st.stack.begin(ctx); err != nil {
		return time.Time{}, nil, fatal(err)
	}
	said, err := st.seeShare(ctx, "0.01")
	return time.Now(), []string{"backout rollout start: stage alpha", said}, err
}

// seeShare asks the service itself for its share of the traffic.
func (st *story) seeShare(ctx context.Context, want string) (string, error) {
	value, err := st.stack.flag(ctx)
	if err == nil && value != want {
		err = fmt.Errorf("the service reports %s=%s", flagName, value)
	}
	if err != nil {
		return "", fatal(err)
	}
	return fmt.Sprintf("backout recreated the container; the service itself reports %s=%s.", flagName, value), nil
}

// seeTooEarly asks for the next stage too early.
func (st *story) seeTooEarly(ctx context.Context) (time.Time, []string, error) {
	if _, err := st.stack.command(ctx, "rollout", "promote"); err == nil {
		return time.Time{}, nil, fatal(fmt.Errorf("a stage that had only just begun was promoted"))
	}
	r, err := st.stack.rollout(ctx)
	if err != nil {
		return time.Time{}, nil, fatal(err)
	}
	said := []string{"backout rollout promote, immediately: exit status 1, because"}
	for _, g := range r.Gates {
		if !g.OK {
			said = append(said, "- "+g.Why)
		}
	}
	return time.Now(), said, nil
}

// open waits until every gate but those named is open, and returns what the criteria say.
func (st *story) open(ctx context.Context, but ...string) (said []string, err error) {
	r, err := st.stack.rollout(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range r.Gates {
		switch {
		case !g.OK && !strings.Contains(strings.Join(but, " "), g.Gate):
			return nil, fmt.Errorf("stage %s: %s", r.Stage, g.Why)
		case strings.HasPrefix(g.Gate, "criterion "):
			said = append(said, g.Why)
		}
	}
	return said, nil
}

func (st *story) seeAlphaLasted(ctx context.Context) (time.Time, []string, error) {
	criteria, err := st.open(ctx)
	return time.Now(), append([]string{"its minimum duration is over, and every gate to beta is open:"}, criteria...), err
}

func (st *story) seePromoted(ctx context.Context) (time.Time, []string, error) {
	if _, err := st.stack.command(ctx, "rollout", "promote", "--reason=alpha went well"); err != nil {
		return time.Time{}, nil, fatal(err)
	}
	said, err := st.seeShare(ctx, "0.1")
	return time.Now(), []string{"backout rollout promote: stage beta", said,
		"Beta is rolled back if the p95 latency exceeds 0.75 s, 1.5 times its target."}, err
}

func (st *story) seeBetaWell(ctx context.Context) (time.Time, []string, error) {
	criteria, err := st.open(ctx, "duration")
	if err != nil {
		return time.Time{}, nil, err
	}
	// What the preflight's drills left in the log is not this story's.
	if err := st.log.refresh(ctx); err != nil {
		return time.Time{}, nil, err
	}
	return time.Now(), append([]string{"healthy so far:"}, criteria...), nil
}

// seeOver sees that the rollout is over, and goes through what the audit log has of it.
func (st *story) seeOver(ctx context.Context) (time.Time, []string, error) {
	r, err := st.stack.rollout(ctx)
	if err == nil && (r.State != remediation.RolloutRolledBack || r.Stage != remediation.StageNone) {
		err = fatal(fmt.Errorf("the rollout is %s, stage %s", r.State, r.Stage))
	}
	if err == nil {
		err = st.log.refresh(ctx)
	}
	if err != nil {
		return time.Time{}, nil, err
	}
	said := []string{fmt.Sprintf("the rollout of %s is rolled back; its stage is %s", r.Release, r.Stage),
		"To try again, start a new rollout after a new preflight. The audit log has:"}
	for i := range st.log.entries {
		e := &st.log.entries[i]
		if what := st.trail(e); what != "" {
			said = append(said, fmt.Sprintf("%5d  %s  %-9s  %-12s  %s", e.Seq, e.Time.Format(time.TimeOnly), e.Kind, e.Actor, what))
		}
	}
	return time.Now(), said, nil
}

// trail is what an entry says about the rollout, "" if it is about something else.
func (st *story) trail(e *audit.Entry) string {
	switch {
	case e.Incident != "" && e.Incident != st.incident: // a drill's
	case e.Kind == audit.KindApproved && text(e, "item") != "":
		return text(e, "by") + " signed off " + text(e, "item")
	case e.Kind == audit.KindIntent && e.Incident == "":
		return e.Step + ": about to set the traffic to " + text(e, "value")
	case e.Kind == audit.KindVerified && e.Step == "":
		return "the preflight"
	case e.Kind == audit.KindVerified && e.Incident == "":
		return e.Step + ": the service is healthy with it"
	case e.Kind == audit.KindOpened:
		return e.Incident + ", by trigger " + text(e, "trigger")
	case e.Kind == audit.KindIntent:
		return fmt.Sprintf("%s: %s is %s, threshold %s", e.Step, st.measure, st.value(text(e, "value")), st.value(text(e, "threshold")))
	case e.Kind == audit.KindVerified, e.Kind == audit.KindRecovered, e.Kind == audit.KindClosed:
		return strings.TrimSpace(e.Incident + " " + e.Step)
	case e.Kind == audit.KindStage && text(e, "state") == remediation.RolloutRolledBack:
		return "the rollout is rolled back; its stage is " + text(e, "stage")
	}
	return ""
}
