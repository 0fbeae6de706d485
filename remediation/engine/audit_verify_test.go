package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/engine"
)

// forging is a transaction in which entry 2 was changed.
type forging struct{ remediation.Tx }

func (x forging) Entries(f audit.Filter) ([]audit.Entry, error) {
	all, err := x.Tx.Entries(f)
	for i := range all {
		if all[i].Seq == 2 {
			all[i].Actor = "nobody"
		}
	}
	return all, err
}

func TestTheAuditLogIsVerifiedAndItsMetricSaysSo(t *testing.T) {
	w := newHarness(t)
	w.open()
	says := func(want string) {
		t.Helper()
		if err := testutil.CollectAndCompare(w.engine, strings.NewReader(want), "backout_audit_ok"); err != nil {
			t.Error(err)
		}
	}
	says("")
	seq, _, err := engine.VerifyAudit(w.engine, w.ctx)
	if head, _, herr := w.engine.Head(w.ctx); err != nil || herr != nil || seq != head {
		t.Fatalf("verified up to %d of %d: %v", seq, head, err)
	}
	const help = "# HELP backout_audit_ok Whether the last verification found the audit log whole; absent before the first.\n# TYPE backout_audit_ok gauge\nbackout_audit_ok "
	says(help + "1\n")
	w.engine = w.newEngine(changing{w.store})
	var broken *audit.BrokenChainError
	if _, _, err := engine.VerifyAudit(w.engine, w.ctx); !errors.As(err, &broken) || broken.Seq != 2 {
		t.Errorf("a changed entry: %v", err)
	}
	says(help + "0\n")
}

type changing struct{ remediation.Store }

func (s changing) View(ctx context.Context, fn func(remediation.Tx) error) error {
	return s.Store.View(ctx, func(tx remediation.Tx) error { return fn(forging{tx}) })
}
