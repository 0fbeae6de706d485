package remediation

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// Plain makes a text from elsewhere harmless: what a reader would not see, or would
// see something else by (control sequences, marks that turn the direction), shows as its
// number; what is too long is cut, and says so. Templates escape the rest.
func Plain(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > most {
			fmt.Fprintf(&b, "… (%d more characters)", utf8.RuneCountInString(s)-most)
			break
		}
		switch {
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case !unicode.IsPrint(r): // control, format (direction marks, zero width), private, line separators
			fmt.Fprintf(&b, "[U+%04X]", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Counted is alerts.Counted.
func Counted[N int | int64](n N, noun string) string {
	return alerts.Counted(n, noun)
}

// Estimated adds to a value what it is, where it is not measured (plan.Plan.EstimateOf).
func Estimated(value, estimate string) string {
	if estimate == "" {
		return value
	}
	return value + " (" + estimate + ")"
}

// Measure writes a value with its unit, to four digits. A share below 0.00001% is 0%:
// what is left of a sum of samples, and no count of requests.
func Measure(v float64, u alerts.Unit) string {
	if least := map[alerts.Unit]float64{alerts.Ratio: 1e-7, alerts.Percent: 1e-5}[u]; math.Abs(v) < least {
		v = 0
	}
	short := func(v float64) string { return strconv.FormatFloat(roundTo(v, 4), 'f', -1, 64) }
	switch u {
	case alerts.Ratio:
		return short(v*100) + "%"
	case alerts.Percent:
		return short(v) + "%"
	case alerts.Seconds:
		if v != 0 && math.Abs(v) < 1 {
			return short(v*1000) + " ms"
		}
		return short(v) + " s"
	case alerts.Milliseconds:
		return short(v) + " ms"
	case alerts.Bytes:
		for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
			if math.Abs(v) < 1024 {
				return short(v) + " " + unit
			}
			v /= 1024
		}
		return short(v) + " TiB"
	case alerts.PerSecond:
		return short(v) + "/s"
	}
	return short(v)
}

// roundTo rounds to n significant digits.
func roundTo(v float64, n int) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', n, 64), 64)
	if err != nil {
		return v
	}
	return r
}

// Distance says how far t is from now, in two units at most; console.js says the
// same.
func Distance(now, t time.Time) string {
	d := t.Sub(now).Round(time.Second)
	switch {
	case d == 0:
		return "now"
	case d > 0:
		return "in " + inUnits(d)
	}
	return inUnits(-d) + " ago"
}

// Moment is a time as people read it in a text. What is kept, or watched for changes, has
// no distance from now next to it: that would soon be wrong.
func Moment(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04:05") + " UTC" }

// MomentFrom is a time as people read it in an answer of now.
func MomentFrom(now, t time.Time) string { return Moment(t) + " (" + Distance(now, t) + ")" }

// Readable is a text of an audit entry's detail as people read it: a time, which is there
// in the form for programs, as Moment has it.
func Readable(text string) string {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return Moment(t)
	}
	return text
}

// Share writes a share of the traffic as the playbook has it: "0.01" is 1%.
func Share(share string) string {
	v, err := strconv.ParseFloat(share, 64)
	if err != nil {
		return Plain(share, 20)
	}
	return Measure(v, alerts.Ratio)
}

// SpanOf is Span for a template, which knows no types.
func SpanOf(d any) (string, error) {
	switch d := d.(type) {
	case time.Duration:
		return Span(d), nil
	case model.Duration:
		return Span(d), nil
	}
	return "", fmt.Errorf("%T is not a duration", d)
}

// Span writes a duration, Go's or Prometheus's: "750 ms", "2.3 s", "3 min 45 s"; in two
// units at most.
func Span[D ~int64](span D) string {
	d := time.Duration(span)
	switch a := d.Abs(); {
	case a < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case a < 10*time.Second:
		return strconv.FormatFloat(d.Round(100*time.Millisecond).Seconds(), 'f', -1, 64) + " s"
	case d < 0:
		return "-" + inUnits(a)
	}
	return inUnits(d)
}

// inUnits writes a duration of a second or more in its two largest units.
func inUnits(d time.Duration) string {
	var said []string
	left := d.Round(time.Second)
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}} {
		n := left / u.of
		left -= n * u.of
		if n > 0 {
			said = append(said, fmt.Sprintf("%d %s", n, u.name))
		} else if len(said) == 1 {
			break
		}
		if len(said) == 2 {
			break
		}
	}
	return strings.Join(said, " ")
}

// Anys are strings as an audit entry's detail holds them.
func Anys(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
}
