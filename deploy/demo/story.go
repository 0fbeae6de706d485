package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/deploy/demo/breakage"
	"github.com/locotoki/backout/remediation"
)

// scenario is one way to break the service.
type scenario struct {
	breakage  breakage.Breakage
	trigger   string // of the demo's playbook
	threshold string // as that playbook has it
	what      string
	measure   string
	show      func(value float64) string
}

// Scenarios are the names of the ways in which the demo can break its service.
func Scenarios() []string { return []string{"errors", "latency"} }

func scenarioOf(name string) (scenario, error) {
	switch name {
	case "errors":
		return scenario{
			breakage.Breakage{Errors: 0.5}, "error_rate", "0.01", "half of the analytics requests fail from now on",
			"error rate", func(v float64) string { return fmt.Sprintf("%.1f%%", v*100) },
		}, nil
	case "latency":
		return scenario{
			breakage.Breakage{Latency: 1200 * time.Millisecond}, "p95_latency", "0.75", "analytics requests take 1.2s from now on",
			"p95 latency", func(v float64) string { return fmt.Sprintf("%.2fs", v) },
		}, nil
	}
	return scenario{}, fmt.Errorf("scenario %q is none: try: %s", name, strings.Join(Scenarios(), " or "))
}

// ErrNotSeen is wrapped where a stage of the loop was waited for in vain.
var ErrNotSeen = errors.New("not seen")

// story shows the stages of one breach, each as it is seen from outside.
type story struct {
	scenario
	stack  *stack
	out    *printer
	log    *log
	breach time.Time

	incident string
	flagOff  *remediation.Entry // the intent
	noted    int                // how many entries have been looked through for notes
}

// stage is one thing that must be seen, within a limit.
type stage struct {
	name  string
	limit time.Duration
	// look returns when it happened and what is said about it; an error says what is there instead.
	look func(ctx context.Context) (at time.Time, said []string, err error)
}

func (st *story) stages() []stage {
	return []stage{
		{"breach", time.Minute, st.seeBreach},
		{"pending", time.Minute, st.seePending},
		{"firing", time.Minute, st.seeFiring},
		{"posted", time.Minute, st.seePosted},
		{"confirmed", time.Minute, st.seeConfirmed},
		{"intent", time.Minute, st.seeIntent},
		{"outcome", 2 * time.Minute, st.seeOutcome},
		{"verified", 2 * time.Minute, st.seeVerified},
		{"recovered", 3 * time.Minute, st.seeRecovered},
		{"closed", 3 * time.Minute, st.seeClosed},
		{"flag off", time.Minute, st.seeFlagStaysOff},
		{"chain", time.Minute, st.seeChain},
	}
}

// tell breaks the service and waits for one stage after another.
func (st *story) tell(ctx context.Context) error {
	if err := st.stack.breakWith(st.breakage); err != nil {
		return err
	}
	st.breach = time.Now()
	for _, g := range st.stages() {
		var at time.Time
		var said []string
		err := await(ctx, g.limit, 40*time.Millisecond, func(ctx context.Context) (err error) {
			at, said, err = g.look(ctx)
			st.notes()
			return err
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("stage %q was %w: %w", g.name, ErrNotSeen, err)
		}
		st.out.stage(at.Sub(st.breach), g.name, said[0], said[1:]...)
	}
	return st.out.err
}

// notes tells of holds and pages, which the story does not expect but a reader should see.
func (st *story) notes() {
	for ; st.noted < len(st.log.entries); st.noted++ {
		switch e := &st.log.entries[st.noted]; e.Kind {
		case remediation.KindHeld:
			st.out.note("held", text(e, "reason")+": "+text(e, "why"))
		case remediation.KindNotified:
			st.out.note("paged", text(e, "reason")+": "+text(e, "why"))
		}
	}
}

// entry waits for an audit entry of the story's incident.
func (st *story) entry(ctx context.Context, kind remediation.Kind) (*remediation.Entry, error) {
	if err := st.log.refresh(ctx); err != nil {
		return nil, err
	}
	e := st.log.find(func(e *remediation.Entry) bool {
		return e.Kind == kind && e.Incident == st.incident && (st.flagOff == nil || e.Seq > st.flagOff.Seq)
	})
	if e != nil {
		return e, nil
	}
	last := "it is empty"
	if n := len(st.log.entries); n > 0 {
		last = fmt.Sprintf("its last entry is %q", st.log.entries[n-1].Kind)
	}
	return nil, fmt.Errorf("the audit log has no %q entry of incident %s; %s", kind, st.incident, last)
}

func (st *story) seeBreach(ctx context.Context) (time.Time, []string, error) {
	start := time.Now()
	res, err := st.get(ctx, st.stack.url("service")+"/analytics/trends")
	if err != nil {
		return time.Time{}, nil, err
	}
	if took := time.Since(start); res < http.StatusInternalServerError && took < st.breakage.Latency {
		return time.Time{}, nil, fmt.Errorf("/analytics/trends still answers %d in %s", res, took.Round(time.Millisecond))
	}
	return st.breach, []string{st.what,
		"Everything below is read from Prometheus, from backout's API and from the service."}, nil
}

func (st *story) get(ctx context.Context, url string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	res, err := st.stack.client.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
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
	return time.UnixMicro(int64(seconds * 1e6)), []string{fmt.Sprintf("%s over the last 15s is %s, above %s", st.measure, st.value(value), st.value(st.threshold)),
		"A sliding window needs no `for`: the rule fires when it is evaluated next."}, nil
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
		"Prometheus hands it to Alertmanager, which posts it without waiting for others."}, nil
}

func (st *story) seePosted(ctx context.Context) (time.Time, []string, error) {
	if err := st.log.refresh(ctx); err != nil {
		return time.Time{}, nil, err
	}
	e := st.log.find(func(e *remediation.Entry) bool {
		return (e.Kind == remediation.KindOpened || e.Kind == remediation.KindAttached) && text(e, "trigger") == st.trigger
	})
	if e == nil {
		return time.Time{}, nil, fmt.Errorf("no notification of trigger %s in the audit log", st.trigger)
	}
	st.incident = e.Incident
	received := st.log.find(func(r *remediation.Entry) bool {
		return r.Kind == remediation.KindReceived && names(r, text(e, "fingerprint"))
	})
	if received == nil {
		return time.Time{}, nil, fmt.Errorf("no received entry names fingerprint %s", text(e, "fingerprint"))
	}
	return received.Time, []string{fmt.Sprintf("Alertmanager's POST is committed; incident %s is open", st.incident),
		"backout believes no message: it asks Prometheus whether it is so."}, nil
}

// names tells whether a received entry names an alert.
func names(e *remediation.Entry, fingerprint string) bool {
	rows, _ := e.Detail["alerts"].([]any)
	for _, r := range rows {
		if row, ok := r.(map[string]any); ok && row["fingerprint"] == fingerprint {
			return true
		}
	}
	return false
}

func (st *story) seeConfirmed(ctx context.Context) (time.Time, []string, error) {
	e, err := st.entry(ctx, remediation.KindIntent)
	if err != nil {
		return time.Time{}, nil, err
	}
	if text(e, "value") == "" {
		return time.Time{}, nil, fatal(fmt.Errorf("the step ran without a value from Prometheus: %v", e.Detail["gates"]))
	}
	return e.Time, []string{fmt.Sprintf("Prometheus says %s now; the threshold is %s", st.value(text(e, "value")), st.value(text(e, "threshold"))),
		"The expression, the value and every gate's answer are in the audit log."}, nil
}

func (st *story) seeIntent(ctx context.Context) (time.Time, []string, error) {
	e, err := st.entry(ctx, remediation.KindIntent)
	if err != nil {
		return time.Time{}, nil, err
	}
	gates, _ := e.Detail["gates"].([]any)
	st.flagOff = e
	return e.Time, []string{fmt.Sprintf("%s, all %d gates open", e.Step, len(gates)),
		"Written down before anything is touched: .env first, then the container."}, nil
}

func (st *story) seeOutcome(ctx context.Context) (time.Time, []string, error) {
	e, err := st.entry(ctx, remediation.KindOutcome)
	if err != nil {
		return time.Time{}, nil, err
	}
	if got := text(e, "outcome"); got != string(remediation.StepDone) {
		return time.Time{}, nil, fatal(fmt.Errorf("the outcome of %s is %q: %s", e.Step, got, text(e, "error")))
	}
	return e.Time, []string{fmt.Sprintf("%s done, after %.1fs", e.Step, e.Time.Sub(st.flagOff.Time).Seconds()),
		"The container was recreated with the flag off."}, nil
}

func (st *story) seeVerified(ctx context.Context) (time.Time, []string, error) {
	e, err := st.entry(ctx, remediation.KindVerified)
	if err != nil {
		return time.Time{}, nil, err
	}
	value, err := st.stack.flag(ctx)
	if err != nil {
		return time.Time{}, nil, err
	}
	if value != "0" {
		return time.Time{}, nil, fmt.Errorf("the service still says %s=%s", flagName, value)
	}
	return e.Time, []string{fmt.Sprintf("the service itself says %s=%s", flagName, value),
		"Whether that ended the breach is a question for Prometheus, over a short window."}, nil
}

func (st *story) seeRecovered(ctx context.Context) (time.Time, []string, error) {
	e, err := st.entry(ctx, remediation.KindRecovered)
	if err != nil {
		return time.Time{}, nil, err
	}
	return e.Time, []string{"the breach has ended: three looks running say so",
		"No further step runs. It closes when the rule itself has been quiet for a while."}, nil
}

func (st *story) seeClosed(ctx context.Context) (time.Time, []string, error) {
	e, err := st.entry(ctx, remediation.KindClosed)
	if err != nil {
		return time.Time{}, nil, err
	}
	return e.Time, []string{fmt.Sprintf("incident %s is over", st.incident),
		"What is left to show: that a later command of an operator does not undo it."}, nil
}

// seeFlagStaysOff does what an operator might do next.
func (st *story) seeFlagStaysOff(ctx context.Context) (time.Time, []string, error) {
	if err := st.stack.up(ctx); err != nil {
		return time.Time{}, nil, fatal(err)
	}
	value, err := st.stack.flag(ctx)
	if err != nil {
		return time.Time{}, nil, err
	}
	if value != "0" {
		return time.Time{}, nil, fatal(fmt.Errorf("after docker-compose up -d the service says %s=%s", flagName, value))
	}
	return time.Now(), []string{"docker-compose up -d by hand leaves it off, since .env says so"}, nil
}

func (st *story) seeChain(ctx context.Context) (time.Time, []string, error) {
	said, err := st.stack.verify(ctx)
	if err != nil {
		return time.Time{}, nil, fatal(err)
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

// value writes what was measured for a person.
func (sc scenario) value(text string) string {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text
	}
	return sc.show(v)
}
