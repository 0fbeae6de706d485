package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// planStep is what the story tells about one step of the rollback plan.
type planStep struct {
	action string
	begun  string // what the intent means
	done   string // what the outcome means
	// seen looks at the service itself, and says what it is like after the step.
	seen func(ctx context.Context, s *stack) (string, error)
}

// planSteps are the steps of the demo's plan that change something, in their order.
func (sc scenario) planSteps() []planStep {
	if sc.kubernetes {
		return []planStep{
			{
				action: "flag_off",
				begun:  "Recorded before anything changes. One patch carries the variable and the operation's id, and only if nobody changed the variable in between.",
				done:   "Kubernetes replaced the pods one by one; backout waited until each of them was ready.",
				seen:   seeFlagOff,
			},
			{
				action: "image_retag",
				begun:  "The Deployment gets the image of " + oldVersion + " by its name, never by a revision: that would turn the flag on again.",
				done:   "Every pod runs " + oldVersion + ", with the flag still off.",
				seen:   seeOldVersion,
			},
		}
	}
	return []planStep{
		{
			action: "flag_off",
			begun:  "Recorded before anything changes: .env comes first, then the container.",
			done:   "backout recreated the container with the flag off.",
			seen:   seeFlagOff,
		},
		{
			action: "image_retag",
			begun:  "The tag latest moves back to " + oldVersion + "; the image it names now keeps a tag of its own.",
			done:   "backout recreated the container from " + oldVersion + ", with the flag still off.",
			seen:   seeOldVersion,
		},
		{
			action: "schema_rollback",
			begun:  "backout first cuts the service off from its tables, and pg_dump takes a snapshot: without one, backout undoes nothing.",
			done:   "The undo scripts ran in one transaction; then backout gave the service its access back.",
			seen:   seeOldSchema,
		},
	}
}

// beginning reports whether an entry is the intent of an action.
func beginning(action string) func(e *audit.Entry) bool {
	return func(e *audit.Entry) bool { return e.Kind == audit.KindIntent && e.Action == action }
}

// stagesOf are the stages of one step.
func (st *story) stagesOf(r planStep) []stage {
	var asked []stage
	if r.action == "schema_rollback" {
		asked = []stage{
			{"held", func(ctx context.Context) (time.Time, []string, error) { return st.seeHeld(ctx, r) }},
			{"approved", st.seeApproved},
		}
	}
	return append(asked, []stage{
		{"intent", func(ctx context.Context) (time.Time, []string, error) { return st.seeIntent(ctx, r) }},
		{"outcome", func(ctx context.Context) (time.Time, []string, error) { return st.seeOutcome(ctx, r) }},
		{"verified", func(ctx context.Context) (time.Time, []string, error) { return st.seeVerified(ctx, r) }},
	}...)
}

// untilNext are the stages between a step that did not help and the next one.
func (st *story) untilNext(next planStep) []stage {
	return []stage{
		{"settled", st.seeSettled},
		{"escalated", func(ctx context.Context) (time.Time, []string, error) { return st.seeEscalated(ctx, next) }},
	}
}

// seeHeld sees that a step that loses data waits for an approval.
func (st *story) seeHeld(ctx context.Context, r planStep) (time.Time, []string, error) {
	e, err := st.entry(ctx, func(e *audit.Entry) bool {
		return e.Kind == audit.KindHeld && e.Action == r.action && text(e, "reason") == string(remediation.HoldApproval)
	}, "hold of "+r.action+" for an approval")
	if err != nil {
		return time.Time{}, nil, err
	}
	st.held, st.told = e, e.Seq
	return e.Time, []string{"waiting for an approval until " + text(e, "until") + ":", text(e, "why")}, nil
}

// seeApproved plays the commander, who approves.
func (st *story) seeApproved(ctx context.Context) (time.Time, []string, error) {
	const reason = "neither the flag nor the image helped"
	e, err := st.of(ctx, audit.KindApproved, st.held.Action)
	if err != nil {
		if _, err := st.stack.command(ctx, "approve", st.incident, st.held.Step, "--reason="+reason); err != nil {
			return time.Time{}, nil, err
		}
		return time.Time{}, nil, err
	}
	return e.Time, []string{"by the user " + e.Actor + ", played by this demo:",
		fmt.Sprintf("backout approve %s %s --reason='%s'", st.incident, st.held.Step, reason)}, nil
}

func (st *story) seeIntent(ctx context.Context, r planStep) (time.Time, []string, error) {
	e, err := st.entry(ctx, beginning(r.action), "intent of "+r.action)
	if err != nil {
		return time.Time{}, nil, err
	}
	gates, _ := e.Detail["gates"].([]any)
	st.intent, st.told = e, e.Seq
	return e.Time, []string{fmt.Sprintf("%s, all %d gates open", e.Step, len(gates)), r.begun}, nil
}

func (st *story) seeOutcome(ctx context.Context, r planStep) (time.Time, []string, error) {
	e, err := st.of(ctx, audit.KindOutcome, r.action)
	if err != nil {
		return time.Time{}, nil, err
	}
	if got := text(e, "outcome"); got != string(remediation.StepDone) {
		return time.Time{}, nil, fatal(fmt.Errorf("the outcome of %s is %q: %s", e.Step, got, text(e, "error")))
	}
	said := []string{fmt.Sprintf("%s done after %.1f s", e.Step, e.Time.Sub(st.intent.Time).Seconds()), r.done}
	if path, size, sum := snapshotOf(e); path != "" {
		said = append(said, fmt.Sprintf("Snapshot: %d bytes, SHA-256 %s, in", size, sum), path)
	}
	return e.Time, said, nil
}

func (st *story) seeVerified(ctx context.Context, r planStep) (time.Time, []string, error) {
	e, err := st.of(ctx, audit.KindVerified, r.action)
	if err != nil {
		return time.Time{}, nil, err
	}
	said, err := r.seen(ctx, st.stack)
	if err != nil {
		return time.Time{}, nil, err
	}
	if r.action != st.planSteps()[0].action {
		return e.Time, []string{said}, nil
	}
	return e.Time, []string{said, "Next, backout asks Prometheus whether the breach has stopped, over a short window."}, nil
}

// seeSettled sees that a step was given its time, and what was measured then.
func (st *story) seeSettled(ctx context.Context) (time.Time, []string, error) {
	e, err := st.kind(ctx, audit.KindSettled)
	if err != nil {
		return time.Time{}, nil, err
	}
	switch verdict := text(e, "verdict"); verdict {
	case string(remediation.Breaching):
	case string(remediation.HoldNoData):
		return e.Time, []string{"no data yet on whether " + e.Step + " helped, so no other step runs"}, nil
	default:
		return time.Time{}, nil, fatal(fmt.Errorf("after %s the breach is %s, and this scenario's is not to end before %s", e.Step, verdict, st.cure))
	}
	rows, _ := e.Detail["triggers"].([]any)
	i := slices.IndexFunc(rows, func(r any) bool {
		row, _ := r.(map[string]any)
		return row["trigger"] == st.trigger
	})
	if i < 0 {
		return time.Time{}, nil, fatal(fmt.Errorf("the settled entry does not name trigger %s: %v", st.trigger, e.Detail))
	}
	value, _ := rows[i].(map[string]any)["value"].(string)
	return e.Time, []string{fmt.Sprintf("%s over the last 5 s is %s, still above %s", st.measure, st.value(value), st.value(st.threshold)),
		e.Step + " did not stop the breach within its settle time. Only that leads to the next step."}, nil
}

func (st *story) seeEscalated(ctx context.Context, next planStep) (time.Time, []string, error) {
	e, err := st.entry(ctx, func(e *audit.Entry) bool {
		begun := e.Kind == audit.KindIntent || e.Kind == audit.KindHeld
		return e.Kind == audit.KindEscalated || begun && e.Action == next.action
	}, "escalated entry")
	if err != nil {
		return time.Time{}, nil, err
	}
	if e.Kind == audit.KindEscalated {
		st.told = e.Seq
	}
	return e.Time, []string{"the next step is " + e.Step}, nil
}

func seeFlagOff(ctx context.Context, s *stack) (string, error) {
	value, err := s.flag(ctx)
	if err == nil && value != "0" {
		err = fmt.Errorf("the service still reports %s=%s", flagName, value)
	}
	return fmt.Sprintf("%s reports %s=%s", s.itself(), flagName, value), err
}

func seeOldVersion(ctx context.Context, s *stack) (string, error) {
	version, err := s.version(ctx)
	if err == nil && version != oldVersion {
		err = fmt.Errorf("the service still reports version %s", version)
	}
	return s.itself() + " reports version " + version, err
}

// itself is who says what the service is like.
func (s *stack) itself() string {
	if s.pods != nil {
		return "each of the pods"
	}
	return "the service itself"
}

// snapshotOf is what an outcome says of the snapshot that was taken first; "" where there is none.
func snapshotOf(e *audit.Entry) (path string, size int64, sum string) {
	after, _ := e.Detail["after"].(map[string]any)
	dump, _ := after["dump"].(map[string]any)
	path, _ = dump["path"].(string)
	sum, _ = dump["sha256"].(string)
	if n, ok := dump["size"].(json.Number); ok {
		size, _ = n.Int64()
	}
	return path, size, sum
}

// seeOldSchema sees that the schema is the older one, and that it is written to.
func seeOldSchema(ctx context.Context, s *stack) (string, error) {
	version, err := s.schema(ctx)
	if err != nil {
		return "", err
	}
	if "v"+version != oldVersion {
		return "", fmt.Errorf("the schema is still at version %s", version)
	}
	status, err := s.answers(ctx, "/basic/views")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the service answers %d when it is to write a view", status)
	}
	return "the schema is at version " + version + ", and the service writes to it", err
}

// afterwards does what an operator might do next, and looks at it all once more.
func (st *story) afterwards() []stage {
	out := []stage{{"by hand", st.seeItStays}}
	if st.cure != st.planSteps()[0].action { // the release is gone, not just its feature
		out = append(out, stage{"verify", st.seeVerification})
	}
	return append(out, stage{"chain", st.seeChain})
}

// seeItStays starts the project again, and sees that every step that ran lasts.
func (st *story) seeItStays(ctx context.Context) (time.Time, []string, error) {
	if err := st.stack.up(ctx); err != nil {
		return time.Time{}, nil, fatal(err)
	}
	command := "docker-compose up -d"
	if st.kubernetes {
		command = "kubectl rollout restart deployment/social-intel"
	}
	said := []string{command}
	for _, r := range st.planSteps() {
		seen, err := r.seen(ctx, st.stack)
		if err != nil {
			return time.Time{}, nil, fatal(fmt.Errorf("after %s: %w", command, err))
		}
		said = append(said, "Afterwards "+seen+".")
		if r.action == st.cure {
			break
		}
	}
	return time.Now(), said, nil
}

// seeVerification has backout check what a release engineer would.
func (st *story) seeVerification(ctx context.Context) (time.Time, []string, error) {
	s := st.stack
	out, err := s.run(ctx, "verify", "--version="+oldVersion, "--config.file="+s.path("backout.yml"), "--playbook.file="+s.path("playbook.yaml"))
	if err != nil {
		return time.Time{}, nil, err
	}
	said := []string{"backout verify --version=" + oldVersion + " says:"}
	for line := range strings.Lines(out) {
		said = append(said, strings.TrimRight(line, "\n"))
	}
	return time.Now(), said, nil
}

func (st *story) seeChain(ctx context.Context) (time.Time, []string, error) {
	said, err := st.stack.verify(ctx)
	if err != nil {
		return time.Time{}, nil, err
	}
	return time.Now(), []string{"backout audit verify says " + strings.TrimSpace(said)}, nil
}

// verify runs `backout audit verify` on the server's database, with the head
// that the server names.
func (s *stack) verify(ctx context.Context) (string, error) {
	var head struct {
		Seq  int64
		Hash string
	}
	if err := s.ask(ctx, "backout", "/api/v1/audit/head", &head); err != nil {
		return "", err
	}
	return s.run(ctx, "audit", "verify", "--storage.dsn=sqlite:"+s.path("backout.db"), fmt.Sprintf("--head=%d:%s", head.Seq, head.Hash))
}
