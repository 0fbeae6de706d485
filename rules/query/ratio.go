package query

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
)

// Ratio is a query that divides one count of events by another.
type Ratio struct {
	// events and total are the counts' expressions, total with its volume guard.
	events, Total string
	// Factor is what the ratio is multiplied by: 100 for a percentage.
	Factor float64
}

var errNoRatio = errors.New("its query does not divide a count by a count, such as sum(increase(errors[$window])) / sum(increase(requests[$window]))")

// RatioOf takes a query apart; the error is errNoRatio if it is not a ratio of counts.
func RatioOf(text string) (Ratio, error) {
	expr, err := Parse(text)
	if err != nil {
		return Ratio{}, err
	}
	r := Ratio{Factor: 1}
	div, ok := r.scaled(expr).(*parser.BinaryExpr)
	if !ok || div.Op != parser.DIV || !plainMatching(div.VectorMatching) {
		return Ratio{}, errNoRatio
	}
	var events, total counted
	left := r.scaled(div.LHS)
	if !events.add(left) || !total.add(div.RHS) || events.over != total.over || events.over == (counting{}) || events.births && events.over.fn != "increase" {
		return Ratio{}, errNoRatio
	}
	part := func(e parser.Expr) string {
		pos := Unwrapped(e).PositionRange()
		s := fmt.Sprintf("(%s)", strings.TrimSpace(text[pos.Start:pos.End]))
		if events.over.fn == "rate" {
			s = fmt.Sprintf("(%s * %s)", s, Number(events.over.span.Seconds()))
		}
		return s
	}
	r.events, r.Total = part(left), part(div.RHS)
	return r, nil
}

// Confident is a query's text over a window with its confidence, if it has one:
// the end of the Wilson score interval that is nearer to the threshold. A shorter
// window, as recovery has, is evaluated as if it went on at its pace for all of the
// trigger's: the same share at the same rate of requests is the same value.
func (q *Query) Confident(text string, window time.Duration) (string, error) {
	if q.Confidence == 0 {
		return text, nil
	}
	r, err := RatioOf(text)
	if err == nil {
		err = r.proportion(text, q)
	}
	if err != nil {
		if _, try := hint.Of(err); try == "" {
			err = hint.Add(err, "%s", tryConfidence)
		}
		return "", fmt.Errorf("confidence: %w", err)
	}
	return r.wilson(q.Confidence, q.Above, float64(q.Window)/float64(window)), nil
}

const tryConfidence = "sum(increase(errors[$window])) / sum(increase(requests[$window])) as its query, or a higher min_volume instead of confidence"

// proportion is the error of a ratio that is not one of events among all events.
func (r Ratio) proportion(text string, q *Query) error {
	expr, err := Parse(text)
	if err != nil {
		return err
	}
	for _, s := range SelectorsOf(expr) {
		for _, amount := range []string{"_sum", "_seconds_total", "_bytes_total"} {
			if strings.HasSuffix(s.Vector.Name, amount) {
				return fmt.Errorf("%s is an amount, not a count of events", s.Vector.Name)
			}
		}
	}
	whole := map[alerts.Unit]float64{alerts.Ratio: 1, alerts.Percent: 100}[q.Unit]
	switch {
	case whole == 0:
		return fmt.Errorf("its unit is %s, and a ratio of counts has the unit ratio or percent", q.Unit)
	case r.Factor != whole:
		return fmt.Errorf("its query multiplies the ratio by %s, and its unit is %s", Number(r.Factor), q.Unit)
	case q.Threshold <= 0 || q.Threshold >= whole:
		try := "a bound between 0 and " + Number(whole)
		if share := q.Threshold / 100; q.Unit == alerts.Ratio && share >= 0.01 && share < 1 { // as a percentage
			try = Number(share) + " as its bound"
		}
		return hint.Add(fmt.Errorf("its bound %s is not between 0 and %s", Number(q.Threshold), Number(whole)), "%s", try)
	}
	return nil
}

// wilson is the lower end of the ratio's Wilson score interval, or the upper one
// where a value below the bound is the breach, in PromQL. pace multiplies both
// counts. With e events of n and z standard deviations the ends are
//
//	(e + z²/2 ± z * sqrt(e - e²/n + z²/4)) / (n + z²)
//
// Extrapolation can make e a little larger than n, hence the clamp.
func (r Ratio) wilson(confidence float64, above bool, pace float64) string {
	z, side := math.Sqrt2*math.Erfinv(confidence), "+"
	if above {
		side = "-"
	}
	e, n := r.events, r.Total
	if pace != 1 {
		e, n = fmt.Sprintf("(%s * %s)", e, Number(Round(pace))), fmt.Sprintf("(%s * %s)", n, Number(Round(pace)))
	}
	of := func(f float64) string { return Number(Round(f)) }
	text := fmt.Sprintf("(\n  %[1]s + %[3]s\n  %[2]s %[4]s * sqrt(clamp_min(%[1]s - %[1]s ^ 2 / %[5]s, 0) + %[6]s)\n) / (%[5]s + %[7]s)",
		e, side, of(z*z/2), of(z), n, of(z*z/4), of(z*z))
	if r.Factor != 1 {
		text = fmt.Sprintf("%s * (%s)", Number(r.Factor), text)
	}
	return text
}

// scaled takes a multiplication by a number off an expression.
func (r *Ratio) scaled(e parser.Expr) parser.Expr {
	for {
		switch x := e.(type) {
		case *parser.ParenExpr:
			e = x.Expr
			continue
		case *parser.BinaryExpr:
			if n, ok := x.LHS.(*parser.NumberLiteral); ok && x.Op == parser.MUL && n.Val > 0 {
				r.Factor *= n.Val
				e = x.RHS
				continue
			}
			if n, ok := x.RHS.(*parser.NumberLiteral); ok && x.Op == parser.MUL && n.Val > 0 {
				r.Factor *= n.Val
				e = x.LHS
				continue
			}
		}
		return e
	}
}

func plainMatching(m *parser.VectorMatching) bool {
	return m == nil || m.Card == parser.CardOneToOne && len(m.MatchingLabels) == 0
}

// counting is by which function, and over which time, events are counted.
type counting struct {
	fn   string
	span time.Duration
}

// counted looks for what an expression counts.
type counted struct {
	over counting
	// births: what series are born with is counted too.
	births bool
}

// IsCount reports whether an expression is a sum of increases.
func IsCount(e parser.Expr) bool {
	var c counted
	return c.add(e) && c.over.fn == "increase"
}

// add reports whether an expression is a count, counted as those before it.
func (c *counted) add(e parser.Expr) bool {
	switch e := e.(type) {
	case *parser.ParenExpr:
		return c.add(e.Expr)
	case *parser.AggregateExpr:
		return e.Op == parser.SUM && c.add(e.Expr)
	case *parser.BinaryExpr:
		return c.binary(e)
	case *parser.Call:
		return c.call(e)
	}
	return false
}

func (c *counted) binary(e *parser.BinaryExpr) bool {
	number := func(e parser.Expr) bool { _, ok := e.(*parser.NumberLiteral); return ok }
	switch {
	case IsBirth(e):
		c.births = true
		return true
	case e.Op == parser.ADD || e.Op == parser.LOR:
		return c.add(e.LHS) && c.add(e.RHS)
	case e.Op == parser.LAND || e.Op == parser.LUNLESS:
		return c.add(e.LHS)
	case e.Op.IsComparisonOperator():
		return !e.ReturnBool && number(e.RHS) && c.add(e.LHS) // a guard, which takes values away and changes none
	case e.Op == parser.MUL:
		if n, ok := e.LHS.(*parser.NumberLiteral); ok && n.Val == 0 {
			return c.add(e.RHS) // nothing, where there is something to count
		}
	}
	return false
}

func (c *counted) call(e *parser.Call) bool {
	switch e.Func.Name {
	case "vector":
		n, ok := e.Args[0].(*parser.NumberLiteral)
		return ok && n.Val == 0
	case "increase", "rate":
		over := counting{fn: e.Func.Name}
		switch a := e.Args[0].(type) {
		case *parser.MatrixSelector:
			over.span = a.Range
		case *parser.SubqueryExpr:
			over.span = a.Range
		}
		if c.over == (counting{}) {
			c.over = over
		}
		return c.over == over
	}
	return false
}

// IsBirth tells what counts the events that series are born with: those that were
// not there at another moment, on targets that were scraped then, as in
//
//	(errors_total unless errors_total offset $window) and on (instance) (up offset $window == 1)
func IsBirth(e parser.Expr) bool {
	and, ok := Unwrapped(e).(*parser.BinaryExpr)
	if !ok || and.Op != parser.LAND || !looksBack(and.RHS) {
		return false
	}
	unless, ok := Unwrapped(and.LHS).(*parser.BinaryExpr)
	return ok && unless.Op == parser.LUNLESS && !looksBack(unless.LHS) && looksBack(unless.RHS)
}

// Unwrapped is e without the parentheses around it.
func Unwrapped(e parser.Expr) parser.Expr {
	for {
		p, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = p.Expr
	}
}

// looksBack reports whether an expression reads series, all of them at a moment
// before the present.
func looksBack(e parser.Expr) bool {
	found := SelectorsOf(e)
	return len(found) > 0 && !slices.ContainsFunc(found, func(s Selector) bool {
		return s.Matrix != nil || s.Vector.OriginalOffset <= 0 || s.Vector.Timestamp != nil || s.Vector.StartOrEnd != 0
	})
}
