package alerts

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
)

// series warns about a query that may give more than one sample: the engine
// cannot use those.
func (l *linter) series(path, query string) {
	expr, err := l.pb.parse(query)
	if err != nil || single(expr) {
		// A Playbook that Load returned parses; another one is not linted here.
		return
	}
	l.at(path, fmt.Sprintf("%s may give more than one series", path), "put sum(...) or max(...) around it")
}

// single reports whether an expression always gives at most one sample.
func single(e parser.Expr) bool {
	switch e := e.(type) {
	case *parser.NumberLiteral:
		return true
	case *parser.ParenExpr:
		return single(e.Expr)
	case *parser.StepInvariantExpr:
		return single(e.Expr)
	case *parser.UnaryExpr:
		return single(e.Expr)
	case *parser.AggregateExpr:
		several := []parser.ItemType{parser.TOPK, parser.BOTTOMK, parser.COUNT_VALUES, parser.LIMITK, parser.LIMIT_RATIO}
		return !e.Without && len(e.Grouping) == 0 && !slices.Contains(several, e.Op)
	case *parser.BinaryExpr:
		if e.Op == parser.LOR {
			return single(e.LHS) && single(e.RHS)
		}
		return singleBinary(e)
	case *parser.Call:
		return singleCall(e)
	case *parser.MatrixSelector, *parser.SubqueryExpr, *parser.VectorSelector:
		return false
	}
	return false
}

func singleBinary(e *parser.BinaryExpr) bool {
	m := e.VectorMatching
	switch {
	case m == nil && e.LHS.Type() == parser.ValueTypeScalar:
		return single(e.RHS)
	case m == nil || e.Op == parser.LAND || e.Op == parser.LUNLESS || m.Card == parser.CardManyToOne:
		return single(e.LHS)
	case m.Card == parser.CardOneToMany:
		return single(e.RHS)
	}
	return single(e.LHS) || single(e.RHS)
}

// oneHistogram reports whether an expression always gives the buckets of one histogram.
func oneHistogram(e parser.Expr) bool {
	switch e := e.(type) {
	case *parser.ParenExpr:
		return oneHistogram(e.Expr)
	case *parser.BinaryExpr:
		return (e.Op == parser.LAND || e.Op == parser.LUNLESS) && oneHistogram(e.LHS)
	case *parser.AggregateExpr:
		return !e.Without && len(e.Grouping) == 1 && e.Grouping[0] == "le"
	}
	return false
}

func singleCall(c *parser.Call) bool {
	switch c.Func.Name {
	case "vector", "scalar", "time", "pi", "absent", "absent_over_time":
		return true
	case "histogram_quantile":
		return oneHistogram(c.Args[1]) || single(c.Args[1])
	}
	for _, arg := range c.Args {
		if s, ok := arg.(*parser.SubqueryExpr); ok {
			return single(s.Expr)
		}
		if t := arg.Type(); t == parser.ValueTypeVector || t == parser.ValueTypeMatrix {
			return single(arg)
		}
	}
	return true
}
