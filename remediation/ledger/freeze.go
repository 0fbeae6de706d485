package ledger

import "github.com/locotoki/backout/remediation"

// FreezesIn returns the freezes that have not run out.
func (l *Ledger) FreezesIn(tx remediation.Tx) ([]remediation.Freeze, error) {
	all, err := tx.Freezes()
	if err != nil {
		return nil, err
	}
	out := []remediation.Freeze{}
	for _, f := range all {
		if !f.RanOut(l.Now()) {
			out = append(out, f)
		}
	}
	return out, nil
}
