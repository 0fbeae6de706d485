package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// ErrNotSeen is wrapped if a stage of the loop did not come in time.
var ErrNotSeen = errors.New("not seen")

// story shows the stages of one breach, each as it is seen from outside.
type story struct {
	scenario
	stack  *stack
	out    *printer
	log    *log
	within time.Duration // how long a stage is waited for
	began  time.Time     // the first stage
	broken time.Time     // the breach

	incident string
	told     int64        // the last entry of the audit log that a stage has told of
	held     *audit.Entry // of the step that waits for an approval
	intent   *audit.Entry // of the step that was begun last
	noted    int          // how many entries have been looked through for notes
}

// stageWithin is how long the demo waits for a stage.
const stageWithin = 3 * time.Minute

// stage is one thing that must be seen.
type stage struct {
	name string
	// look returns when it happened and what is said about it; an error says what is there instead.
	look func(ctx context.Context) (at time.Time, said []string, err error)
}

// stages are those of a breach that is ended by the scenario's cure, and by no
// earlier step of the plan.
func (st *story) stages() []stage {
	out := []stage{
		{"breach", st.seeBreach},
		{"pending", st.seePending},
		{"firing", st.seeFiring},
		{"posted", st.seePosted},
		{"confirmed", st.seeConfirmed},
	}
	steps := st.planSteps()
	for i, r := range steps {
		out = append(out, st.stagesOf(r)...)
		if r.action == st.cure {
			break
		}
		out = append(out, st.untilNext(steps[i+1])...)
	}
	out = append(out,
		stage{"recovered", st.seeRecovered},
		stage{"closed", st.seeClosed},
	)
	if st.canary {
		out = append(out, stage{"over", st.seeOver})
	}
	return append(out, st.afterwards()...)
}

// tell breaks the service and waits until it is rolled back.
func (st *story) tell(ctx context.Context) error {
	if st.canary {
		st.began = time.Now()
		if err := st.see(ctx, st.forward()); err != nil {
			return err
		}
	}
	if err := st.breach(ctx, st.stack); err != nil {
		return err
	}
	st.broken = time.Now()
	if !st.canary {
		st.began = st.broken
	}
	return st.see(ctx, st.stages())
}

// see waits for one stage after another.
func (st *story) see(ctx context.Context, stages []stage) error {
	for _, g := range stages {
		var at time.Time
		var said []string
		err := await(ctx, st.within, 40*time.Millisecond, func(ctx context.Context) (err error) {
			if at, said, err = g.look(ctx); err != nil {
				st.notes(forever)
			}
			return err
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("stage %q was %w: %w", g.name, ErrNotSeen, err)
		}
		st.notes(st.told)
		st.out.stage(at.Sub(st.began), g.name, said[0], said[1:]...)
	}
	return st.out.err
}

const forever = int64(1) << 62

// notes tells, up to an entry, of what no stage waits for but a reader should see.
func (st *story) notes(upTo int64) {
	for ; st.noted < len(st.log.entries) && st.log.entries[st.noted].Seq <= upTo; st.noted++ {
		e := &st.log.entries[st.noted]
		at := e.Time.Sub(st.began)
		switch {
		case e.Incident != "" && e.Incident != st.incident: // a drill's
		case text(e, "words") != "":
			st.out.stage(at, "public", "the status page says: "+text(e, "words"))
		case e.Kind == audit.KindHeld && text(e, "reason") != string(remediation.HoldApproval):
			st.out.stage(at, "held", text(e, "reason")+": "+text(e, "why"))
		case e.Kind == audit.KindNotified:
			st.out.stage(at, "paged", text(e, "reason")+": "+text(e, "why"))
		}
	}
}

// entry waits for an audit entry of the story's incident, after what was told.
func (st *story) entry(ctx context.Context, fits func(e *audit.Entry) bool, what string) (*audit.Entry, error) {
	if err := st.log.refresh(ctx); err != nil {
		return nil, err
	}
	e := st.log.find(func(e *audit.Entry) bool { return e.Incident == st.incident && e.Seq > st.told && fits(e) })
	if e != nil {
		return e, nil
	}
	last := "it is empty"
	if n := len(st.log.entries); n > 0 {
		last = fmt.Sprintf("its last entry is %q", st.log.entries[n-1].Kind)
	}
	return nil, fmt.Errorf("the audit log has no %s of incident %s; %s", what, st.incident, last)
}

// kind waits for the next entry of a kind, and counts it as told.
func (st *story) kind(ctx context.Context, kind audit.Kind) (*audit.Entry, error) {
	e, err := st.entry(ctx, func(e *audit.Entry) bool { return e.Kind == kind }, string(kind)+" entry")
	if err == nil {
		st.told = e.Seq
	}
	return e, err
}

// of waits for the next entry of a kind about an action, and counts it as told.
func (st *story) of(ctx context.Context, kind audit.Kind, action string) (*audit.Entry, error) {
	e, err := st.entry(ctx, func(e *audit.Entry) bool { return e.Kind == kind && e.Action == action }, fmt.Sprintf("%s entry of %s", kind, action))
	if err == nil {
		st.told = e.Seq
	}
	return e, err
}

func (st *story) seeBreach(ctx context.Context) (time.Time, []string, error) {
	start := time.Now()
	res, err := st.stack.answers(ctx, st.probe)
	if err != nil {
		return time.Time{}, nil, err
	}
	if took := time.Since(start); res < http.StatusInternalServerError && (st.slow == 0 || took < st.slow) {
		return time.Time{}, nil, fmt.Errorf("%s still answers %d in %s", st.probe, res, took.Round(time.Millisecond))
	}
	return st.broken, []string{st.what,
		"What follows is read from Prometheus, backout's API and the service."}, nil
}

// seePending sees the condition become true, in the samples that Prometheus
// has, by the generated rule's own expression.
func (st *story) seePending(ctx context.Context) (time.Time, []string, error) {
	expr, err := st.stack.recording(ctx, "backout:trigger_value", st.trigger)
	if err != nil {
		return time.Time{}, nil, err
	}
	value, beyond, err := st.stack.query(ctx, fmt.Sprintf("(%s) > %s", expr, st.threshold))
	if err != nil {
		return time.Time{}, nil, err
	}
	if !beyond {
		return time.Time{}, nil, fmt.Errorf("%s is not above %s in Prometheus's samples", st.measure, st.value(st.threshold))
	}
	// When the newest sample was taken is when it became so.
	stamp, _, err := st.stack.query(ctx, `max(timestamp(up{job="social-intel"}))`)
	if err != nil {
		return time.Time{}, nil, err
	}
	seconds, err := strconv.ParseFloat(stamp, 64)
	if err != nil {
		return time.Time{}, nil, fmt.Errorf("the newest sample's time: %w", err)
	}
	return time.UnixMicro(int64(seconds * 1e6)), []string{fmt.Sprintf("%s over the last %s is %s, above %s", st.measure, st.window, st.value(value), st.value(st.threshold)),
		"The rule already looks at a whole window, so it needs no `for`: it fires at its next evaluation."}, nil
}

func (st *story) seeFiring(ctx context.Context) (time.Time, []string, error) {
	r, state, value, err := st.stack.alertOf(ctx, st.trigger)
	if err != nil {
		return time.Time{}, nil, err
	}
	if state != "firing" {
		return time.Time{}, nil, fmt.Errorf("no alert of trigger %s fires in Prometheus (state %q)", st.trigger, state)
	}
	return r.LastEvaluation, []string{fmt.Sprintf("%s: %s %s", r.Name, st.measure, st.value(value)),
		"Prometheus sends the alert to Alertmanager, which posts it immediately, without grouping."}, nil
}

func (st *story) seePosted(ctx context.Context) (time.Time, []string, error) {
	if err := st.log.refresh(ctx); err != nil {
		return time.Time{}, nil, err
	}
	e := st.log.find(func(e *audit.Entry) bool {
		opened := e.Kind == audit.KindOpened || e.Kind == audit.KindAttached
		return opened && text(e, "trigger") == st.trigger && e.Detail["drill"] == nil
	})
	if e == nil {
		return time.Time{}, nil, fmt.Errorf("no notification of trigger %s in the audit log", st.trigger)
	}
	st.incident, st.told = e.Incident, e.Seq
	received := st.log.find(func(r *audit.Entry) bool {
		return r.Kind == audit.KindReceived && names(r, text(e, "fingerprint"))
	})
	if received == nil {
		return time.Time{}, nil, fmt.Errorf("no received entry names fingerprint %s", text(e, "fingerprint"))
	}
	return received.Time, []string{fmt.Sprintf("backout committed Alertmanager's POST and opened incident %s", st.incident),
		"An alert alone is not enough: backout asks Prometheus for the value itself."}, nil
}

// names reports whether a received entry names an alert.
func names(e *audit.Entry, fingerprint string) bool {
	rows, _ := e.Detail["alerts"].([]any)
	for _, r := range rows {
		if row, ok := r.(map[string]any); ok && row["fingerprint"] == fingerprint {
			return true
		}
	}
	return false
}

func (st *story) seeConfirmed(ctx context.Context) (time.Time, []string, error) {
	e, err := st.entry(ctx, beginning(st.planSteps()[0].action), "intent of the first step")
	if err != nil {
		return time.Time{}, nil, err
	}
	if text(e, "value") == "" {
		return time.Time{}, nil, fatal(fmt.Errorf("the step ran without a value from Prometheus: %v", e.Detail["gates"]))
	}
	return e.Time, []string{fmt.Sprintf("Prometheus now says %s; the threshold is %s", st.value(text(e, "value")), st.value(text(e, "threshold"))),
		"The expression, the value and every gate's result are in the audit log."}, nil
}

func (st *story) seeRecovered(ctx context.Context) (time.Time, []string, error) {
	e, err := st.kind(ctx, audit.KindRecovered)
	if err != nil {
		return time.Time{}, nil, err
	}
	return e.Time, []string{"the breach has stopped: three polls in a row confirm it",
		"No further step runs. The incident closes once the rule has been quiet for a while."}, nil
}

func (st *story) seeClosed(ctx context.Context) (time.Time, []string, error) {
	e, err := st.kind(ctx, audit.KindClosed)
	if err != nil {
		return time.Time{}, nil, err
	}
	return e.Time, []string{fmt.Sprintf("incident %s is closed", st.incident),
		"One check is left: an operator's next command must not undo the rollback."}, nil
}
