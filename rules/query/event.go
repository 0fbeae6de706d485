package query

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// guardMark replaces $min_volume in a text whose guard is looked for: no query
// holds this number.
const guardMark = 918273645.5

// remembered is how long a series that vanished is known to have belonged to a
// target: a container that a step recreates begins without its counters.
const remembered = time.Hour

// Counts are the functions that count the events of a counter.
var Counts = []string{"rate", "irate", "increase"}

// Events is the expression of how many events the window held, before the volume
// guard: the operand of >= $min_volume. Where those series are gone it is 0 as long
// as a target of the job that exported them is up: it would have told.
// A query without a guard has only that zero, and only where it counts events.
// "": without a value nobody knows, as with every query of the present.
func (q *Query) Events(window time.Duration) (string, error) {
	if q.Instant() {
		return "", nil
	}
	text := q.At(window, guardMark)
	expr, err := Parse(text)
	if err != nil {
		return "", err
	}
	counted := guarded(expr)
	from, sum := expr, ""
	if counted != nil {
		from = counted
		at := counted.PositionRange()
		sum = fmt.Sprintf("sum(%s) or ", strings.TrimSpace(text[at.Start:at.End]))
	}
	var gone []string
	for _, s := range SelectorsOf(from) {
		if s.Matrix == nil || !slices.Contains(Counts, s.Call) {
			if counted == nil {
				return "", nil // not a count of events: without a value nobody knows
			}
			continue
		}
		one := (&parser.VectorSelector{Name: s.Vector.Name, LabelMatchers: s.Vector.LabelMatchers}).String()
		one = fmt.Sprintf("last_over_time(%s[%s])", one, Duration(remembered+time.Duration(q.Window)))
		if !slices.Contains(gone, one) {
			gone = append(gone, one)
		}
	}
	if len(gone) == 0 {
		return strings.TrimSuffix(sum, " or "), nil
	}
	return fmt.Sprintf("%s0 * max((up == 1) and on (job) (%s))", sum, strings.Join(gone, " or ")), nil
}

// guarded returns what an expression compares with its volume guard, or nil.
func guarded(expr parser.Expr) (operand parser.Expr) {
	isMark := func(e parser.Expr) bool {
		n, ok := e.(*parser.NumberLiteral)
		return ok && n.Val == guardMark
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		b, ok := n.(*parser.BinaryExpr)
		switch {
		case !ok || operand != nil || !b.Op.IsComparisonOperator():
		case isMark(b.RHS) && (b.Op == parser.GTE || b.Op == parser.GTR):
			operand = b.LHS
		case isMark(b.LHS) && (b.Op == parser.LTE || b.Op == parser.LSS):
			operand = b.RHS
		}
		return nil
	})
	return operand
}
