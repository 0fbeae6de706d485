package rules

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
)

// stageRecording is 1 for the stage that a rollout is in.
const stageRecording = "backout:stage"

// stageRule records the stage. It bridges a restart of backout, and takes any
// number of exporters.
func stageRule(pb *alerts.Playbook) rule {
	bridge := max(time.Minute, 4*time.Duration(pb.ScrapeInterval))
	return rule{
		Record: stageRecording,
		Expr: fmt.Sprintf("max by (service, stage) (last_over_time(rollout_stage{service=%s}[%s])) == 1",
			strconv.Quote(pb.Service), duration(bridge)),
	}
}

// inStage selects the recording of any of the stages.
func inStage(pb *alerts.Playbook, stages []string) string {
	match := "stage=" + strconv.Quote(stages[0])
	if len(stages) > 1 {
		quoted := make([]string, len(stages))
		for i, s := range stages {
			quoted[i] = regexp.QuoteMeta(s)
		}
		match = "stage=~" + strconv.Quote(strings.Join(quoted, "|"))
	}
	return fmt.Sprintf("%s{service=%s,%s}", stageRecording, strconv.Quote(pb.Service), match)
}

// gated is the value over the samples that were taken in the given stages: each
// selector's series are recorded while in the stage, and the window is taken
// over those recordings. A sum gated after its increase would still count what
// happened before the stage.
func (q *query) gated(pb *alerts.Playbook, t *alerts.Trigger, stages []string) (string, []rule, error) {
	g := gate{query: q, stage: inStage(pb, stages), prefix: fmt.Sprintf("%s:%s:%s", stageRecording, legal(pb.Service), legal(t.Name)), names: map[string]string{}}
	if q.Instant() {
		return g.sustained()
	}
	text := q.at(time.Duration(q.window), q.minVolume)
	expr, err := parse(text)
	if err != nil {
		return "", nil, err
	}
	for _, s := range selectorsOf(expr) {
		if s.matrix == nil && !plain(s.vector) {
			return g.sampled(strings.TrimSpace(text[s.vector.PosRange.Start:s.vector.PosRange.End]))
		}
	}
	value, err := g.replace(text, func(selector) bool { return true })
	if err != nil {
		return "", nil, err
	}
	return single(q.worst(), value), g.rules, nil
}

// gate collects the recordings of one trigger.
type gate struct {
	*query
	stage  string
	prefix string
	names  map[string]string // by selector
	rules  []rule
}

// sustained records the instant value while in the stage.
func (g *gate) sustained() (string, []rule, error) {
	// A rate inside of it would look back to before the stage.
	text, err := g.replace(g.at(0, 0), func(s selector) bool { return s.matrix != nil })
	if err != nil {
		return "", nil, err
	}
	if text, err = fresh(text, g.scrape()); err != nil {
		return "", nil, err
	}
	name := g.prefix + ":value"
	g.rules = append(g.rules, rule{Record: name, Expr: fmt.Sprintf("%s\nand on () %s", single(g.worst(), text), g.stage)})
	fn := "min_over_time"
	if !g.above {
		fn = "max_over_time"
	}
	return single(g.worst(), overTime(fn, name, time.Duration(g.bound.sustained), g.scrape())), g.rules, nil
}

// sampled is for a query that compares the present with an earlier moment:
// which of the two was in the stage cannot be told from a recording. Where
// anything above zero is a breach, the query is recorded over a window of four
// scrapes that lies in the stage as a whole, and the most of those is taken.
func (g *gate) sampled(culprit string) (string, []rule, error) {
	threshold, ok := g.zeroBound()
	if !ok {
		return "", nil, fmt.Errorf("it counts only in a stage, but %q looks at another moment than the rest of the query, so that samples from before the stage cannot be told apart;"+
			" try: read only ranges such as [$window], or use above: 0 (it is %s)", culprit, threshold)
	}
	short := 4 * g.scrape()
	name := g.prefix + ":sample"
	g.rules = append(g.rules, rule{Record: name, Expr: fmt.Sprintf("%s\nand on () %s\nand on () %s offset %s",
		single("max", g.at(short, g.minVolume)), g.stage, g.stage, duration(short))})
	return fmt.Sprintf("max(max_over_time(%s[%s]))", name, duration(time.Duration(g.window))), g.rules, nil
}

func (g *gate) zeroBound() (string, bool) {
	if g.above && g.threshold == 0 {
		return "", true
	}
	word := "below"
	if g.above {
		word = "above"
	}
	return fmt.Sprintf("%s: %s", word, number(g.threshold)), false
}

// replace records the picked selectors' series while in the stage, and lets
// the text read the recordings instead.
func (g *gate) replace(text string, pick func(selector) bool) (string, error) {
	expr, err := parse(text)
	if err != nil {
		return "", err
	}
	var edits []edit
	for _, s := range selectorsOf(expr) {
		if !pick(s) {
			continue
		}
		pos := s.vector.PosRange
		what := strings.TrimSpace(text[pos.Start:pos.End])
		if s.vector.Name == "" {
			return "", fmt.Errorf("it counts only in a stage, but %q does not name its metric, so that it cannot be recorded; try: write the metric's name before the braces", what)
		}
		if s.vector.Timestamp != nil || s.vector.StartOrEnd != 0 {
			return "", fmt.Errorf("it counts only in a stage, but %q has the @ modifier, which reads a fixed moment; try: leave it out", what)
		}
		edits = append(edits, edit{int(pos.Start), int(pos.End), g.record(s.vector.Name, what)})
	}
	return apply(text, edits), nil
}

// record returns the name under which a selector's series are recorded. The
// metric's own name ends it: a histogram's _bucket stays one.
func (g *gate) record(metric, selector string) string {
	if name, ok := g.names[selector]; ok {
		return name
	}
	name := fmt.Sprintf("%s:%s", g.prefix, metric)
	for n := 2; g.taken(name); n++ {
		name = fmt.Sprintf("%s:%d:%s", g.prefix, n, metric)
	}
	g.names[selector] = name
	g.rules = append(g.rules, rule{Record: name, Expr: fmt.Sprintf("%s and on () %s", selector, g.stage)})
	return name
}

func (g *gate) taken(name string) bool {
	for _, n := range g.names {
		if n == name {
			return true
		}
	}
	return false
}

// legal makes a word fit for a metric's name.
func legal(word string) string {
	return regexp.MustCompile(`[^A-Za-z0-9_]`).ReplaceAllString(word, "_")
}
