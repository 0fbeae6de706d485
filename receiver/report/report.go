// Package report makes the post-incident report: what happened, how long each part
// took, who decided, and what is left to ask. It also draws a trigger's plot as SVG.
// cmd writes reports; the console and the API show plots.
//
// Its invariants:
//
//   - A report is made from the incident and its audit entries only: the same log
//     gives the same report.
//   - A text from outside is escaped: it can add neither Markdown nor markup.
//   - A plot needs no style sheet, script or font from elsewhere, and stays inside
//     its frame whatever the values are.
//   - A plot that cannot be had costs no report.
package report

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// Report is a post-incident report: an incident and its part of the audit log,
// put in the order in which people ask about it. Markdown writes it.
type Report struct {
	Incident view.IncidentView `json:"incident"`
	Made     time.Time         `json:"made"`
	// Summary are sentences.
	Summary   []string   `json:"summary"`
	Durations []Duration `json:"durations"`
	Actions   []Action   `json:"actions"`
	Holds     []Hold     `json:"holds"`
	People    []Decision `json:"people"`
	Questions []string   `json:"questions"`
	// Entries are the incident's, and the freezes and blindness of its time.
	Entries []audit.Entry `json:"entries"`
	Plots   []view.Plot   `json:"plots"`
}

// Duration is the time between two moments; Took is nil if one of them is unknown,
// and Note says why, or how exact it is.
type Duration struct {
	Name string          `json:"name"`
	Took *model.Duration `json:"took"`
	Note string          `json:"note"`
}

// Action is one try of a step, or of its undoing.
type Action struct {
	Step    string     `json:"step"`
	Undo    bool       `json:"undo"`
	Target  string     `json:"target"`
	Began   *time.Time `json:"began"` // nil where nothing had to be done
	Ended   *time.Time `json:"ended"`
	Outcome string     `json:"outcome"` // "" where none was recorded
	By      string     `json:"by"`      // who approved or asked for it
	Why     string     `json:"why"`
	Error   string     `json:"error"`
	Before  any        `json:"before"`
	After   any        `json:"after"`
}

// Hold is one reason for which no step ran.
type Hold struct {
	Time   time.Time          `json:"time"`
	Step   string             `json:"step"`
	Reason remediation.Reason `json:"reason"`
	Why    string             `json:"why"`
	Until  string             `json:"until"`
	// Lasted is how long it was before something else happened; nil: it goes on.
	Lasted *model.Duration `json:"lasted"`
}

// Decision is what a person did.
type Decision struct {
	Time  time.Time `json:"time"`
	Actor string    `json:"actor"`
	What  string    `json:"what"`
	Why   string    `json:"why"`
}

// Source is what a report is made from: a Service, a server's API, a store.
type Source interface {
	Incident(ctx context.Context, id string) (view.IncidentView, error)
	// Entries is called with a Limit of 1000 at most.
	Entries(ctx context.Context, f audit.Filter) ([]audit.Entry, error)
	Plot(ctx context.Context, id, trigger string) (view.Plot, error)
}

// pageLimit is how many entries the API gives in one answer.
const pageLimit = 1000

// maxPlots bounds the plots of a report.
const maxPlots = 6

// New reads all that a report of the incident needs.
func New(ctx context.Context, src Source, id string, now time.Time) (*Report, error) {
	inc, err := src.Incident(ctx, id)
	if err != nil {
		return nil, err
	}
	r := &Report{Incident: view.NonNil(inc), Made: now.UTC(), Plots: []view.Plot{}}
	if r.Entries, err = entriesOf(ctx, src, inc); err != nil {
		return nil, err
	}
	var seen []string
	for _, t := range inc.Triggers {
		if slices.Contains(seen, t.Trigger) || len(r.Plots) == maxPlots {
			continue
		}
		seen = append(seen, t.Trigger)
		p, err := src.Plot(ctx, id, t.Trigger)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil { // a signal has no plot, and no plot must cost the report
			r.Plots = append(r.Plots, p)
		}
	}
	r.actions()
	r.holds()
	r.people()
	r.durations()
	r.summary()
	r.questions()
	return r, nil
}

// entriesOf returns the incident's entries, and those of freezes and
// blindness in its time, oldest first.
func entriesOf(ctx context.Context, src Source, inc view.IncidentView) ([]audit.Entry, error) {
	all, err := everyEntry(ctx, src, audit.Filter{Incident: inc.ID})
	if err != nil {
		return nil, err
	}
	for _, kind := range []audit.Kind{audit.KindFrozen, audit.KindThawed, audit.KindBlind} {
		some, err := everyEntry(ctx, src, audit.Filter{Kind: kind})
		if err != nil {
			return nil, err
		}
		for _, e := range some {
			during := !e.Time.Before(inc.Opened) && (inc.Closed == nil || !e.Time.After(*inc.Closed))
			if during && (e.Service == "" || e.Service == inc.Service) {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b audit.Entry) int { return int(a.Seq - b.Seq) })
	return all, nil
}

func everyEntry(ctx context.Context, src Source, f audit.Filter) ([]audit.Entry, error) {
	all := []audit.Entry{}
	for f.Limit = pageLimit; ; {
		page, err := src.Entries(ctx, f)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) == 0 || page[len(page)-1].Seq <= f.After {
			return all, nil
		}
		f.After = page[len(page)-1].Seq
	}
}

// detailText returns the first of an entry's texts under the keys that is not empty.
func detailText(e audit.Entry, keys ...string) string {
	for _, k := range keys {
		if s, ok := e.Detail[k].(string); ok && s != "" {
			return s
		}
	}
	return ""
}

// actions pairs intents with their outcomes.
func (r *Report) actions() {
	r.Actions = []Action{}
	approved := map[string]string{}
	for _, e := range r.Entries {
		undo, _ := e.Detail["undo"].(bool)
		at := e.Time.UTC()
		switch e.Kind {
		case audit.KindApproved:
			approved[e.Step] = e.Actor
		case audit.KindIntent:
			a := Action{
				Step: e.Step, Undo: undo, Target: detailText(e, "target"), Began: &at, By: approved[e.Step],
				Before: e.Detail["before"], Why: detailText(e, "why", "reason"),
			}
			if undo {
				a.Before, a.After = nil, e.Detail["after"]
				if a.By = ""; e.Actor != "engine" {
					a.By = e.Actor
				}
				r.failed(e)
			}
			r.Actions = append(r.Actions, a)
		case audit.KindOutcome, audit.KindInDoubt:
			a := r.begun(e.Step, undo)
			if a == nil && e.Kind == audit.KindInDoubt && slices.ContainsFunc(r.Actions, func(a Action) bool { return a.Step == e.Step }) {
				continue // its verification: the effect has its outcome
			}
			if a == nil {
				r.Actions = append(r.Actions, Action{Step: e.Step, Undo: undo, Target: detailText(e, "target"), Before: e.Detail["before"]})
				a = &r.Actions[len(r.Actions)-1]
			}
			a.Error, a.Outcome = detailText(e, "error", "undo_error"), detailText(e, "outcome")
			if why := detailText(e, "why"); why != "" {
				a.Why = why
			}
			if e.Kind == audit.KindInDoubt {
				if a.Outcome = "in_doubt"; detailText(e, "seen") != string(remediation.Untouched) {
					continue // an outcome may still follow
				}
			}
			a.Ended = &at
			if after := e.Detail["after"]; after != nil {
				a.After = after
			}
		}
	}
}

// lost is the step that an action was the last try of, if it lost data, or may have.
func (r *Report) lost(i int) *view.StepView {
	same := func(a Action) bool { return !a.Undo && a.Step == r.Actions[i].Step }
	if r.Actions[i].Undo || slices.ContainsFunc(r.Actions[i+1:], same) {
		return nil
	}
	for n := range r.Incident.Steps {
		if s := &r.Incident.Steps[n]; s.ID == r.Actions[i].Step && s.LostData {
			return s
		}
	}
	return nil
}

// failed ends the step that an undoing undoes because it failed; one that was
// done is undone for having failed its verification.
func (r *Report) failed(undo audit.Entry) {
	why := detailText(undo, "error")
	if why == "" {
		return // someone asked for it
	}
	for i := len(r.Actions) - 1; i >= 0; i-- {
		if a := &r.Actions[i]; a.Step == undo.Step && !a.Undo {
			if at := undo.Time.UTC(); a.Ended == nil {
				a.Ended = &at
			}
			a.Outcome, a.Error = string(remediation.StepFailed), why
			return
		}
	}
}

// begun returns the last action of that step that has no end yet, or nil.
func (r *Report) begun(step string, undo bool) *Action {
	for i := len(r.Actions) - 1; i >= 0; i-- {
		if a := &r.Actions[i]; a.Step == step && a.Undo == undo {
			if a.Ended != nil {
				return nil
			}
			return a
		}
	}
	return nil
}

// holds tells what was held, and for how long.
func (r *Report) holds() {
	r.Holds = []Hold{}
	open := -1
	for _, e := range r.Entries {
		if e.Incident == "" || e.Kind == audit.KindNotified || e.Kind == audit.KindResolved {
			continue // neither ends a hold
		}
		if open >= 0 {
			d := model.Duration(e.Time.Sub(r.Holds[open].Time).Round(time.Millisecond))
			r.Holds[open].Lasted, open = &d, -1
		}
		if e.Kind == audit.KindHeld {
			r.Holds = append(r.Holds, Hold{
				Time: e.Time.UTC(), Step: e.Step, Reason: remediation.Reason(detailText(e, "reason")),
				Why: detailText(e, "why"), Until: detailText(e, "until"),
			})
			open = len(r.Holds) - 1
		}
	}
}

// people tells who did what, and why.
func (r *Report) people() {
	r.People = []Decision{}
	for _, e := range r.Entries {
		if e.Actor == "engine" || e.Actor == "alertmanager" || e.Actor == "" || e.Kind == audit.KindIntent {
			continue
		}
		what := view.Describe(e).Title
		if until := detailText(e, "until"); until != "" {
			what += ", until " + remediation.Readable(until)
		}
		r.People = append(r.People, Decision{Time: e.Time.UTC(), Actor: e.Actor, What: what, Why: detailText(e, "reason", "why")})
	}
}

// last returns the incident's last entry of a kind, or nil.
func (r *Report) last(kind audit.Kind) *audit.Entry {
	for i := len(r.Entries) - 1; i >= 0; i-- {
		if e := &r.Entries[i]; e.Kind == kind && e.Detail["undo"] != true {
			return e
		}
	}
	return nil
}

// recovered returns the recovery that the incident ended with. Where there is none, why says
// what came after the last one, "" if there was none at all.
func (r *Report) recovered() (e *audit.Entry, why string) {
	e, lasted := r.Incident.Recovery(r.last)
	switch {
	case lasted, e == nil:
		return e, ""
	case r.Incident.ByHand:
		return nil, "closed by a person " + r.Incident.ByHandWords()
	}
	return nil, "the recovery of " + r.at(e.Time) + " did not last"
}

// durations measures how long each part took.
func (r *Report) durations() {
	moment := func(e *audit.Entry) *time.Time {
		if e == nil {
			return nil
		}
		return &e.Time
	}
	opened, intent := r.reaction()
	last, unlasting := r.recovered()
	recovered, closed := moment(last), r.Incident.Closed
	breach, exact := r.breach(opened)
	add := func(name string, from, to *time.Time, note, missing string) {
		d := Duration{Name: name, Note: missing}
		if from != nil && to != nil && !to.Before(*from) {
			took := model.Duration(to.Sub(*from).Round(time.Millisecond))
			d.Took, d.Note = &took, note
		}
		r.Durations = append(r.Durations, d)
	}
	if measured := slices.ContainsFunc(r.Incident.Triggers, func(t view.TriggerView) bool { return t.Signal == "" }); measured || !r.Incident.Ordered() && len(r.Incident.Triggers) == 0 {
		add("breach to post", breach, opened, exact, exact)
	}
	add("post to intent", opened, intent, "", "no step started")
	note := ""
	if n := r.count(audit.KindRecovered); n > 1 {
		note = fmt.Sprintf("to the last of %d recoveries", n)
	}
	missing := cmp.Or(unlasting, "not recovered")
	if intent == nil {
		missing = "no step started"
	}
	add("intent to recovered", intent, recovered, note, missing)
	add("opened to closed", &r.Incident.Opened, closed, "", "not closed")
}

// reaction returns when the alert came that was first acted on, and when that
// action began: a reopening before the first intent is where it starts anew.
func (r *Report) reaction() (fired, intent *time.Time) {
	for i := range r.Entries {
		switch e := &r.Entries[i]; e.Kind {
		case audit.KindOpened, audit.KindReopened:
			fired = &e.Time
		case audit.KindIntent:
			if e.Detail["undo"] != true {
				return fired, &e.Time
			}
		}
	}
	return fired, nil
}

func (r *Report) count(kind audit.Kind) (n int) {
	for _, e := range r.Entries {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// breach returns when the value went beyond its threshold the last time before
// the incident was opened, by the first plot that knows, and how exact that is.
func (r *Report) breach(opened *time.Time) (*time.Time, string) {
	if opened == nil {
		return nil, "the log no longer has the incident's opening"
	}
	for _, p := range r.Plots {
		if p.Step == 0 {
			continue
		}
		var began, within, after *time.Time
		before := false
		for _, pt := range p.Points {
			beyond := pt.Value != p.Threshold && (pt.Value > p.Threshold) == p.Above
			if pt.Time.After(*opened) {
				if beyond {
					after = &pt.Time
				}
				break
			}
			if !beyond {
				within = &pt.Time
			}
			switch {
			case !beyond:
				began, before = nil, true
			case began == nil:
				at := pt.Time
				began = &at
			}
		}
		if began != nil && before {
			return began, fmt.Sprintf("%s, by Prometheus every %s", p.Trigger, remediation.Span(p.Step))
		}
		if began != nil && began.Sub(p.From) > time.Duration(p.Step) {
			return began, fmt.Sprintf("%s, whose first value is beyond its threshold, by Prometheus every %s", p.Trigger, remediation.Span(p.Step))
		}
		if began == nil && within != nil && after != nil { // it crossed between two points
			return within, fmt.Sprintf("at most: %s, by Prometheus every %s", p.Trigger, remediation.Span(p.Step))
		}
		if began == nil && within != nil {
			return nil, fmt.Sprintf("%s was within its threshold until then, by Prometheus every %s", p.Trigger, remediation.Span(p.Step))
		}
		if began != nil {
			return nil, p.Trigger + " was beyond its threshold before the plot begins"
		}
	}
	return nil, "Prometheus has no data of when the breach began"
}
