package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/rules/query"
)

// stageRecording is 1 for the stage that a rollout is in.
const stageRecording = "backout:stage"

// stageMetric is what backout exports: 1 for the present stage, 0 for the others.
const stageMetric = "rollout_stage"

// stageCarried is for how long a stage is known after the last scrape of backout.
const stageCarried = time.Hour

// stageRule records the stage, of any number of exporters. Only backout changes
// a stage, so while nobody exports one the last one continues: what happens while
// backout is down counts.
func stageRule(pb *alerts.Playbook) rule {
	exported := query.SelectorOf(stageMetric, "service", pb.Service)
	return rule{
		Record: stageRecording,
		Expr: fmt.Sprintf("max by (service, stage) (%[1]s) == 1\nor %[2]s\n  unless on (stage) %[1]s\n  unless on () (%[1]s == 1)\n  and on () last_over_time(%[1]s[%[3]s])",
			exported, query.SelectorOf(stageRecording, "service", pb.Service), query.Duration(stageCarried)),
	}
}

// inStage selects a metric's series, such as the stage's recording, of any of the
// stages.
func inStage(metric string, pb *alerts.Playbook, stages []string) string {
	match := "stage=" + strconv.Quote(stages[0])
	if len(stages) > 1 {
		quoted := make([]string, len(stages))
		for i, s := range stages {
			quoted[i] = regexp.QuoteMeta(s)
		}
		match = "stage=~" + strconv.Quote(strings.Join(quoted, "|"))
	}
	return fmt.Sprintf("%s{service=%s,%s}", metric, strconv.Quote(pb.Service), match)
}

// gated is the value over the samples that were taken in the given stages, and
// only while one of them continues: what a window still holds after its stage says
// nothing about the next one. Each selector's series are recorded while in the
// stage, and the window is taken over those recordings. A sum gated after its
// increase would still count what happened before the stage.
func gated(q *query.Query, pb *alerts.Playbook, t *alerts.Trigger, stages []string) (string, []rule, error) {
	g := gate{Query: q, stage: inStage(stageRecording, pb, stages), exported: inStage(stageMetric, pb, stages), prefix: fmt.Sprintf("%s:%s:%s", stageRecording, legal(pb.Service), legal(t.Name)), names: map[string]string{}}
	value, err := g.value()
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("%s\nand on () %s", value, g.stage), g.rules, nil
}

// gate collects the recordings of one trigger.
type gate struct {
	*query.Query
	// stage selects the recording of the stages, exported what backout says of them.
	stage, exported string
	prefix          string
	names           map[string]string // by selector
	rules           []rule
}

// value is the gated value while the stage continues, and after it.
func (g *gate) value() (string, error) {
	if g.Instant() {
		return g.sustained()
	}
	text := g.At(time.Duration(g.Window), g.MinVolume)
	expr, err := query.Parse(text)
	if err != nil {
		return "", err
	}
	if culprit := otherMoment(expr, g.zeroBound()); culprit != nil {
		return g.sampled(strings.TrimSpace(text[culprit.PosRange.Start:culprit.PosRange.End]))
	}
	if text, err = g.replace(text); err != nil {
		return "", err
	}
	return g.begun(text)
}

// begun keeps the first minutes of a stage, which are not a full window, from
// deciding. A count can only grow until the window is full. A ratio of counts is
// taken as if the rest of the window passed without an event: it is beyond the
// bound as soon as the whole window would be, whatever follows. Any other value
// is evaluated once the stage has lasted its window.
func (g *gate) begun(text string) (string, error) {
	expr, err := query.Parse(text)
	if err != nil {
		return "", err
	}
	judged, err := g.Confident(text, time.Duration(g.Window))
	if err != nil {
		return "", err
	}
	value := query.Single(g.Worst(), judged)
	// Scrapes that failed count for neither side. A backout that restarted within the
	// window may have a new instance, whose series alone would be 1 for all of it.
	over := fmt.Sprintf("(%s[%s])", g.exported, query.Duration(time.Duration(g.Window)))
	share := fmt.Sprintf("sum(sum by (stage) (sum_over_time%[1]s) / sum by (stage) (count_over_time%[1]s))", over)
	_, err = query.RatioOf(text)
	switch {
	case g.Above && query.IsCount(expr):
		return value, nil
	case g.Above && err == nil:
		return fmt.Sprintf("%s\n* on () clamp_max(%s, 1)", value, share), nil
	}
	return fmt.Sprintf("%s\nand on () %s >= 0.99", value, share), nil
}

// sustained records the instant value while in the stage. A rate inside of it is
// taken of the scraped series, since a recording holds a late scrape as a gap and
// a repeated value; so that it does not look back to before the stage, the stage
// must have been on at the range's length ago too.
func (g *gate) sustained() (string, error) {
	text := g.At(0, 0)
	expr, err := query.Parse(text)
	if err != nil {
		return "", err
	}
	var back time.Duration
	for _, s := range query.SelectorsOf(expr) {
		if err := fixedMoment(s.Vector, text); err != nil {
			return "", err
		}
		back = max(back, s.Back)
	}
	if text, err = query.Fresh(text, g.Scrape()); err != nil {
		return "", err
	}
	recording := g.sample(":value", query.Single(g.Worst(), text), back)
	return query.Single(g.Worst(), query.LastingOf(g.Least(), recording, time.Duration(g.Sustained), back, g.Scrape(), time.Duration(g.Playbook.ScrapeInterval))), nil
}

// sampled is for a query that compares the present with an earlier moment:
// a recording does not show which of the two was in the stage. Where
// anything above zero is a breach, the query is recorded over a window of four
// scrapes that lies in the stage as a whole, and the most of those is taken.
func (g *gate) sampled(culprit string) (string, error) {
	if !g.zeroBound() {
		return "", hint.Add(fmt.Errorf("it counts only in a stage, but %q looks at another moment than the rest of the query, so that it would include samples from before the stage", culprit),
			"read only ranges such as [$window], or use above: 0 (it is %s)", g.Comparison())
	}
	short := 4 * g.Scrape()
	sample := g.sample(":sample", query.Single("max", g.At(short, g.MinVolume)), short)
	return fmt.Sprintf("max(max_over_time(%s[%s]))", sample, query.Duration(time.Duration(g.Window))), nil
}

// sample records a value that looks back while all of that lies in the stage,
// and returns the selector of the recording.
func (g *gate) sample(suffix, value string, back time.Duration) string {
	expr := fmt.Sprintf("%s\nand on () %s", value, g.stage)
	if back > 0 {
		expr += fmt.Sprintf("\nand on () %s offset %s", g.stage, query.Duration(back))
	}
	return g.recorded(g.prefix+suffix, expr)
}

// ownerLabel distinguishes the recordings of two services whose names have the same
// legal form as a metric's, such as shop-eu and shop_eu. The label service may
// be one of the recorded series' own.
const ownerLabel = "backout_service"

// recorded adds a recording and returns its selector.
func (g *gate) recorded(name, expr string) string {
	g.rules = append(g.rules, rule{Record: name, Expr: expr, Labels: map[string]string{ownerLabel: g.Playbook.Service}})
	return query.SelectorOf(name, ownerLabel, g.Playbook.Service)
}

// zeroBound reports whether anything above zero is a breach.
func (g *gate) zeroBound() bool { return g.Above && g.Threshold == 0 }

// otherMoment returns a selector that reads another moment than the present, in a
// way that cannot be gated. What counts births does: a recording has
// no earlier sample until the stage has lasted that long, so the targets have
// none either, and no series counts as born. Where one event is a breach that is
// too late, so everyBirth tells that births must count from the beginning.
func otherMoment(expr parser.Expr, everyBirth bool) (culprit *parser.VectorSelector) {
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok || query.Plain(v) || culprit != nil {
			return nil
		}
		for _, p := range path {
			if e, ok := p.(parser.Expr); ok && !everyBirth && query.IsBirth(e) {
				return nil
			}
			if _, ok := p.(*parser.MatrixSelector); ok {
				return nil
			}
		}
		culprit = v
		return nil
	})
	return culprit
}

// replace records the selectors' series while in the stage, and lets the text
// read the recordings instead.
func (g *gate) replace(text string) (string, error) {
	expr, err := query.Parse(text)
	if err != nil {
		return "", err
	}
	var edits []query.Edit
	for _, s := range query.SelectorsOf(expr) {
		pos := s.Vector.PosRange
		what := strings.TrimSpace(text[pos.Start:pos.End])
		if s.Vector.Name == "" {
			return "", hint.Add(fmt.Errorf("it counts only in a stage, but %q does not name its metric, so that it cannot be recorded", what),
				"write the metric's name before the braces")
		}
		if err := fixedMoment(s.Vector, text); err != nil {
			return "", err
		}
		present := *s.Vector
		present.OriginalOffset, present.Offset = 0, 0
		with := g.record(s.Vector.Name, present.String())
		if o := s.Vector.OriginalOffset; o != 0 && s.Matrix == nil {
			with += " offset " + query.Duration(o)
		}
		edits = append(edits, query.Edit{Start: int(pos.Start), End: int(pos.End), With: with})
	}
	return query.Apply(text, edits), nil
}

// fixedMoment is the error of a selector that reads one.
func fixedMoment(v *parser.VectorSelector, text string) error {
	if v.Timestamp == nil && v.StartOrEnd == 0 {
		return nil
	}
	what := strings.TrimSpace(text[v.PosRange.Start:v.PosRange.End])
	return hint.Add(fmt.Errorf("it counts only in a stage, but %q has the @ modifier, which reads a fixed moment", what), "leave it out")
}

// record returns the selector of a recording of a selector's series. The metric's
// own name ends the recording's: a histogram's _bucket stays one.
func (g *gate) record(metric, selector string) string {
	if found, ok := g.names[selector]; ok {
		return found
	}
	name := fmt.Sprintf("%s:%s", g.prefix, metric)
	for n := 2; g.taken(name); n++ {
		name = fmt.Sprintf("%s:%d:%s", g.prefix, n, metric)
	}
	g.names[selector] = g.recorded(name, fmt.Sprintf("%s and on () %s", selector, g.stage))
	return g.names[selector]
}

func (g *gate) taken(name string) bool {
	return slices.ContainsFunc(g.rules, func(r rule) bool { return r.Record == name })
}

// legal makes a word fit for a metric's name.
func legal(word string) string {
	return regexp.MustCompile(`[^A-Za-z0-9_]`).ReplaceAllString(word, "_")
}
