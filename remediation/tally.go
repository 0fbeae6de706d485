package remediation

import "context"

// tally is a store whose transactions count what they did once it is committed:
// a commit that failed, and is tried again, counts once.
type tally struct{ Store }

// Update implements Store.
func (s tally) Update(ctx context.Context, fn func(tx Tx) error) error {
	var t *tallyTx
	err := s.Store.Update(ctx, func(tx Tx) error {
		t = &tallyTx{Tx: tx}
		return fn(t)
	})
	if err != nil {
		return err
	}
	for _, count := range t.counts {
		count()
	}
	return nil
}

// tallyTx keeps what is to be counted after the commit.
type tallyTx struct {
	Tx
	counts []func()
}

// counted counts once tx is committed; what only looked counts nothing.
func counted(tx Tx, count func()) {
	if t, ok := tx.(*tallyTx); ok {
		t.counts = append(t.counts, count)
	}
}
