package query

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// Bound is over which time, and from which volume on, a query is evaluated.
type Bound struct {
	Threshold float64
	Above     bool
	Window    model.Duration
	Sustained model.Duration
	MinVolume float64
	// Confidence, if it is not 0, compares the end of the value's Wilson score
	// interval that is nearer to the threshold.
	Confidence float64
}

// OfTrigger is the bound of a trigger that has an indicator.
func OfTrigger(t *alerts.Trigger) Bound {
	threshold, above := t.Bound()
	return Bound{Threshold: threshold, Above: above, Window: t.Window, Sustained: t.Sustained, MinVolume: t.MinVolume, Confidence: t.Confidence}
}

// OfAlert is the bound of an indicator's alert.
func OfAlert(a *alerts.AlertBound) Bound {
	b := Bound{Above: a.Above != nil, Window: a.Window, Sustained: a.Sustained, MinVolume: a.MinVolume}
	if b.Above {
		b.Threshold = *a.Above
	} else if a.Below != nil {
		b.Threshold = *a.Below
	}
	return b
}

// Words are the bound as a person says it.
func (b Bound) Words(u alerts.Unit) string {
	side, over := "below", "over"
	if b.Above {
		side = "above"
	}
	if b.Sustained > 0 {
		over = "for"
	}
	words := fmt.Sprintf("%s %s %s %s", side, Quantity(u, b.Threshold), over, Duration(b.Span()))
	if b.Confidence > 0 {
		words += fmt.Sprintf(" (confidence %s)", Number(b.Confidence))
	}
	return words
}

// Quantity is a threshold in a unit.
func Quantity(u alerts.Unit, f float64) string {
	switch u {
	case alerts.Ratio:
		return fmt.Sprintf("%.6g%%", f*100)
	case alerts.Percent:
		return Number(f) + "%"
	case alerts.Seconds:
		return Number(f) + " s"
	case alerts.Milliseconds:
		return Number(f) + " ms"
	case alerts.Bytes:
		return Number(f) + " B"
	case alerts.PerSecond:
		return Number(f) + " a second"
	case alerts.Count:
	}
	return Number(f)
}

// Beyond reports whether a value is beyond a threshold, on the bound's side.
func (b Bound) Beyond(v, threshold float64) bool {
	if b.Above {
		return v > threshold
	}
	return v < threshold
}

// comparison is the bound with a plain number.
func (b Bound) Comparison() string {
	if b.Above {
		return "> " + Number(b.Threshold)
	}
	return "< " + Number(b.Threshold)
}

// Span is how long the bound looks back, or must hold.
func (b Bound) Span() time.Duration { return time.Duration(max(b.Window, b.Sustained)) }

// JudgedOver is the shortest time over which an alert or a trigger judges an
// indicator; 0 if none does.
func JudgedOver(pb *alerts.Playbook, indicator string) (shortest time.Duration) {
	see := func(d time.Duration) {
		if d > 0 && (shortest == 0 || d < shortest) {
			shortest = d
		}
	}
	if ind := pb.Indicator(indicator); ind != nil && ind.Alert != nil {
		see(OfAlert(ind.Alert).Span())
	}
	for i := range pb.Triggers {
		if t := &pb.Triggers[i]; t.Indicator == indicator {
			see(t.Span())
		}
	}
	return shortest
}

// Sentence is a text as one more Sentence, or "".
func Sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return ""
	}
	return " " + strings.TrimRight(s, ".") + "."
}

// TriggerRecording is the metric of each trigger's value.
const TriggerRecording = "backout:trigger_value"
