package store

import (
	"strings"
	"time"
)

// dialect is what the two databases say in different words.
type dialect struct {
	// contains is a condition: an entry's bytes contain a text, in either case of
	// ASCII letters.
	contains string
	// clock is a query of the database's clock in microseconds, "" where it is this
	// process's.
	clock string
	// ofService finds entries of a service by their index.
	ofService string
	// anyOf finds alerts by a list of fingerprints; "" where a query for each costs no
	// more.
	anyOf string
	// linger is how long a commit waits to be shared by as many calls as the one before; 0
	// where it costs too little for that.
	linger time.Duration
}

// query is a SELECT whose conditions depend on a filter. Its text holds no
// value, so that there are few texts to prepare.
type query struct {
	from  string
	words dialect // of a query of the audit log
	conds []string
	args  []any
}

func (q *query) where(cond string, args ...any) {
	q.conds = append(q.conds, cond)
	q.args = append(q.args, args...)
}

// text orders by a column, newest first where asked, and bounds the number of
// rows (0: not at all).
func (q *query) text(order string, newest bool, limit int) string {
	var b strings.Builder
	b.WriteString(q.from)
	for i, c := range q.conds {
		if i == 0 {
			b.WriteString(" WHERE ")
		} else {
			b.WriteString(" AND ")
		}
		b.WriteString(c)
	}
	b.WriteString(" ORDER BY " + order)
	if newest {
		b.WriteString(" DESC")
	}
	if limit > 0 {
		b.WriteString(" LIMIT ?")
		q.args = append(q.args, limit)
	}
	return b.String()
}
