package alerts

import (
	"fmt"

	"github.com/prometheus/common/model"
)

func (v *validator) indicators() {
	p := v.pb
	v.unique("indicators", len(p.Indicators), func(i int) string { return p.Indicators[i].Name })
	for i := range p.Indicators {
		ind, path := &p.Indicators[i], item("indicators", i)
		v.name(key(path, "name"), ind.Name, identifier, "write the indicator's name, such as error_rate")
		if v.need(key(path, "query"), ind.Query == "", "write a PromQL expression that gives one sample") {
			v.expression(key(path, "query"), key(path, "query"), ind.Query)
		}
		if v.need(key(path, "unit"), ind.Unit == "", "write unit: ratio, seconds, ...") {
			known(v, key(path, "unit"), ind.Unit, Ratio, Percent, Seconds, Milliseconds, Bytes, Count, PerSecond)
		}
		if at := key(path, "scrape_interval"); v.pos.has(at) && !v.isBad(at) && v.positive(at, ind.ScrapeInterval) && ind.ScrapeInterval < p.ScrapeInterval {
			v.at(at, fmt.Sprintf("%s (%s) is shorter than the playbook's scrape_interval (%s), which is how often backout polls", at, ind.ScrapeInterval, p.ScrapeInterval), "leave it out", "scrape_interval")
		}
		if a := ind.Alert; a != nil {
			at := key(path, "alert")
			v.bound(at, a.Above, a.Below)
			v.span(at, ind, a.Window, a.Sustained, a.MinVolume)
		}
		for j, b := range ind.Buckets {
			if j > 0 && b <= ind.Buckets[j-1] {
				v.at(item(key(path, "buckets"), j), fmt.Sprintf("%s: %v is not above %v", key(path, "buckets"), b, ind.Buckets[j-1]), "write the bounds in rising order")
			}
		}
	}
}

// bound reports a bound that is not exactly one of above and below.
func (v *validator) bound(path string, above, below *float64) {
	switch {
	case above != nil && below != nil:
		v.at(key(path, "below"), fmt.Sprintf("%s has both above and below", path), "keep one of them", key(path, "above"))
	case above == nil && below == nil:
		v.at(path, fmt.Sprintf("%s has neither above nor below", path), "write above: or below: and the threshold", key(path, "above"), key(path, "below"))
	}
}

// span reports a window that does not fit the indicator's query.
func (v *validator) span(path string, ind *Indicator, window, sustained model.Duration, minVolume float64) {
	w, s := key(path, "window"), key(path, "sustained")
	if v.isBad(w) || v.isBad(s) {
		return
	}
	switch hasW, hasS := v.pos.has(w) || window != 0, v.pos.has(s) || sustained != 0; {
	case hasW && hasS:
		v.at(s, fmt.Sprintf("%s has both window and sustained", path), "keep one of them: window for a query with $window, sustained for one without")
		return
	case !hasW && !hasS:
		v.at(path, fmt.Sprintf("%s has neither window nor sustained", path), "write window: 15m for a query with $window, sustained: 10m for one without")
		return
	case hasW:
		if v.positive(w, window) && ind != nil && ind.Query != "" && ind.Instant() {
			v.at(w, fmt.Sprintf("%s: the query of indicator %q holds no $window", w, ind.Name), "write sustained: instead, or [$window] in the query")
		}
	case hasS:
		if v.positive(s, sustained) && ind != nil && ind.Query != "" && !ind.Instant() {
			v.at(s, fmt.Sprintf("%s: the query of indicator %q holds $window", s, ind.Name), "write window: instead, or a fixed range in the query")
		}
		if minVolume != 0 {
			v.at(key(path, "min_volume"), fmt.Sprintf("%s: sustained values have no volume", key(path, "min_volume")), "leave it out")
		}
	}
	if minVolume < 0 {
		v.at(key(path, "min_volume"), key(path, "min_volume")+" is below 0", "write the minimum number of requests, such as 100")
	}
}

// indicator returns the named indicator, or reports that there is none.
func (v *validator) indicator(path, name string) *Indicator {
	if !v.need(path, name == "", "write an indicator's name") {
		return nil
	}
	ind := v.pb.Indicator(name)
	if ind == nil && !v.isBad("indicators") {
		names := make([]string, len(v.pb.Indicators))
		for i := range names {
			names[i] = v.pb.Indicators[i].Name
		}
		v.at(path, fmt.Sprintf("%s: there is no indicator %q", path, name), OneOf(name, names))
	}
	return ind
}

func (v *validator) triggers() {
	p := v.pb
	if v.need("triggers", len(p.Triggers) == 0, "write at least one condition that rolls back") {
		v.unique("triggers", len(p.Triggers), func(i int) string { return p.Triggers[i].Name })
	}
	for i := range p.Triggers {
		t, path := &p.Triggers[i], item("triggers", i)
		v.name(key(path, "name"), t.Name, identifier, "write the trigger's name, such as error_rate")
		if v.need(key(path, "plan"), t.Plan == "", "write the name of a plan") && p.Plan(t.Plan) == nil && !v.isBad("plans") {
			names := make([]string, len(p.Plans))
			for i := range names {
				names[i] = p.Plans[i].Name
			}
			v.at(key(path, "plan"), fmt.Sprintf("%s: there is no plan %q", key(path, "plan"), t.Plan), OneOf(t.Plan, names))
		}
		if at := key(path, "severity"); t.Severity < 1 || t.Severity > 5 {
			v.at(at, fmt.Sprintf("%s: invalid severity %d", at, t.Severity), "write 1 to 5 (5 is the most severe), or leave it out for 3")
		}
		signal, indicator := key(path, "signal"), key(path, "indicator")
		switch hasS, hasI := v.pos.has(signal), v.pos.has(indicator); {
		case hasS && hasI:
			v.at(signal, fmt.Sprintf("%s has both indicator and signal", path), "keep one of them, or make two triggers")
		case hasS:
			v.signal(t, path)
		case hasI:
			v.condition(t, path)
		default:
			v.at(path, fmt.Sprintf("%s has neither indicator nor signal", path), "write indicator: and a bound, or signal:", signal, indicator)
		}
	}
}

// signal checks a trigger that a person raises.
func (v *validator) signal(t *Trigger, path string) {
	v.name(key(path, "signal"), t.Signal, plainName, "write the signal's name, such as data-integrity")
	for _, name := range []string{"above", "below", "window", "sustained", "min_volume", "confidence", "recovery"} {
		if at := key(path, name); v.pos.has(at) {
			v.at(at, fmt.Sprintf("%s: a signal has no value to measure", at), "leave it out")
		}
	}
}

// condition judges a trigger that Prometheus measures.
func (v *validator) condition(t *Trigger, path string) {
	ind := v.indicator(key(path, "indicator"), t.Indicator)
	v.bound(path, t.Above, t.Below)
	v.span(path, ind, t.Window, t.Sustained, t.MinVolume)

	v.confidence(t, key(path, "confidence"))
	_, above := t.Bound()
	side, wrong, other := "above", key(path, "recovery.below"), t.Recovery.Below
	if !above {
		side, wrong, other = "below", key(path, "recovery.above"), t.Recovery.Above
	}
	if other != nil {
		v.at(wrong, fmt.Sprintf("%s is on the opposite side of the trigger's own bound, which is %s", wrong, side), fmt.Sprintf("write recovery.%s, or leave it out", side), key(path, "above"), key(path, "below"))
	}
	s, w := v.pb.ScrapeIntervalOf(ind), t.Recovery.Window
	at := key(path, "recovery.window")
	if v.isBad(key(path, "recovery")) || v.isBad(at) || !v.positive(at, w) {
		return
	}
	if w < 4*s {
		v.at(at, fmt.Sprintf("%s (%s) is shorter than four scrapes (%s): it would hold too few samples", at, w, 4*s), "write at least "+(4*s).String(), "scrape_interval")
	}
	r, at := t.Recovery.MinVolume, key(path, "recovery.min_volume")
	switch span := t.Span(); {
	case r < 0:
		v.at(at, at+" is below 0", "leave it out: it follows from the trigger's own")
	case t.Sustained > 0 && r > 0:
		v.at(at, fmt.Sprintf("%s: sustained values have no volume", at), "leave it out")
	case span > 0 && t.MinVolume >= 0 && r/float64(w) > t.MinVolume/float64(span):
		most := t.MinVolume * float64(w) / float64(span)
		v.at(at, fmt.Sprintf("%s (%v in %s) needs more requests than the trigger itself (%v in %s): few requests would look like a recovery", at, r, w, t.MinVolume, model.Duration(span)),
			fmt.Sprintf("write at most %d", int(most)), key(path, "window"), key(path, "min_volume"))
	}
}

// confidence judges how sure a trigger must be. Whether its query is a ratio of
// counts is for package rules to tell.
func (v *validator) confidence(t *Trigger, path string) {
	if !v.pos.has(path) {
		return
	}
	c := t.Confidence
	switch {
	case t.Sustained > 0:
		v.at(path, path+": a sustained value is not a ratio of counts", "leave it out: sustained requires every sample of the time")
	case c > 50 && c < 100:
		v.at(path, fmt.Sprintf("%s: %v is not between 0.5 and 1", path, c), fmt.Sprintf("write %v", c/100))
	case c <= 0.5 || c >= 1:
		v.at(path, fmt.Sprintf("%s: %v is not between 0.5 and 1", path, c), "write 0.95, or leave it out")
	}
}
