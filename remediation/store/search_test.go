package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/store/storetest"
)

var searchStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fillLog writes n entries, one a second.
func fillLog(t testing.TB, dsn string, n int) *Store {
	t.Helper()
	s, err := openOn(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	const batch = 10_000
	for from := 1; from <= n; from += batch {
		err := s.Update(context.Background(), func(tx remediation.Tx) error {
			for i := from; i < min(from+batch, n+1); i++ {
				e := audit.Entry{
					Time: searchStart.Add(time.Duration(i) * time.Second), Kind: []audit.Kind{"received", "held", "intent", "outcome"}[i%4],
					Actor: "engine", Service: fmt.Sprintf("service-%d", i%3), Incident: fmt.Sprintf("inc-%d", i/50),
					Detail: map[string]any{"why": fmt.Sprintf("the breach goes on, number %d", i), "expr": "sum(increase(requests_total[15m])) > 0.01",
						"gates": []any{map[string]any{"gate": "mode", "ok": true, "why": ""}, map[string]any{"gate": "freeze", "ok": false, "why": "frozen by eve"}}},
				}
				if i == 7 {
					e.Detail["why"] = "a Needle in the hay"
				}
				if _, err := tx.Append(e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func search(t testing.TB, s *Store, q audit.Query) (f audit.Page) {
	t.Helper()
	err := s.View(context.Background(), func(tx remediation.Tx) (err error) {
		f, err = audit.Search(tx, q)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestASearchPagesBackThroughAllThatFitsAndNothingElse(t *testing.T) {
	for _, dsn := range crashtest.Draw(t, []func(testing.TB) string{sqliteDSN, storetest.Postgres}) {
		pagesBack(t, dsn(t))
	}
}

func pagesBack(t *testing.T, dsn string) {
	t.Helper()
	const all = 22_000
	s := fillLog(t, dsn, all)
	at := func(i int) time.Time { return searchStart.Add(time.Duration(i) * time.Second) }
	for name, c := range map[string]struct {
		q    audit.Query
		fits func(i int) bool
	}{
		"all of it":            {audit.Query{}, func(int) bool { return true }},
		"a service":            {audit.Query{Service: "service-1"}, func(i int) bool { return i%3 == 1 }},
		"a kind":               {audit.Query{Kind: "held"}, func(i int) bool { return i%4 == 1 }},
		"an incident":          {audit.Query{Incident: "inc-3"}, func(i int) bool { return i/50 == 3 }},
		"a service and a kind": {audit.Query{Service: "service-1", Kind: "held"}, func(i int) bool { return i%12 == 1 }},
		"a text of a kind":     {audit.Query{Text: "needle", Kind: "outcome"}, func(i int) bool { return i == 7 }},
		"a text":               {audit.Query{Text: "NEEDLE in"}, func(i int) bool { return i == 7 }},
		"a time":               {audit.Query{From: at(100), To: at(200)}, func(i int) bool { return i >= 100 && i < 200 }},
		"a text in a time":     {audit.Query{Text: "number 15", From: at(1500), To: at(1600)}, func(i int) bool { return i >= 1500 && i < 1600 }},
		"before the first":     {audit.Query{To: at(0)}, func(int) bool { return false }},
		"after the last":       {audit.Query{From: at(all + 1)}, func(int) bool { return false }},
		"nothing":              {audit.Query{Text: "nowhere"}, func(int) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			q, next := c.q, all
			q.Limit = 500
			for pages := 0; ; pages++ {
				f := search(t, s, q)
				if len(f.Entries) > q.Limit || f.HeadSeq != all || pages > all {
					t.Fatalf("page %d: %d entries, head %d", pages, len(f.Entries), f.HeadSeq)
				}
				for _, e := range f.Entries {
					for next > int(e.Seq) {
						if c.fits(next) {
							t.Fatalf("entry %d fits, and is not found", next)
						}
						next--
					}
					if !c.fits(next) {
						t.Fatalf("entry %d does not fit, and is found", next)
					}
					next--
				}
				if f.Before == 0 {
					break
				}
				if cut := len(f.Entries) < q.Limit; cut != !f.SearchedAt.IsZero() || cut && !f.SearchedAt.Equal(at(int(f.Searched))) {
					t.Fatalf("the page was cut off: %t, at %d, which is said to be of %s", cut, f.Searched, f.SearchedAt)
				}
				if f.Before >= q.Before && q.Before != 0 {
					t.Fatalf("the page before %d goes on before %d", q.Before, f.Before)
				}
				q.Before = f.Before
			}
			for ; next > 0; next-- {
				if c.fits(next) {
					t.Fatalf("entry %d fits, and is not found", next)
				}
			}
		})
	}
}

// BenchmarkSearch is what one page of an audit log of a million entries costs.
func BenchmarkSearch(b *testing.B) {
	const all = 1_000_000
	s := fillLog(b, sqliteDSN(b), all)
	at := func(i int) time.Time { return searchStart.Add(time.Duration(i) * time.Second) }
	for name, q := range map[string]audit.Query{
		"newest":               {},
		"middle":               {Before: all / 2},
		"service":              {Service: "service-1"},
		"kind":                 {Kind: "held", Before: all / 2},
		"time":                 {From: at(300_000), To: at(600_000)},
		"service_kind":         {Service: "service-1", Kind: "held"},
		"service_kind_nothing": {Service: "service-1", Kind: "denied"},
		"service_kind_time":    {Service: "service-1", Kind: "held", From: at(300_000), To: at(600_000)},
		"incident":             {Incident: "inc-700"},
		"text":                 {Text: "number 5"},
		"text_nothing":         {Text: "nowhere to be found"},
		"text_kind":            {Text: "nowhere to be found", Kind: "held"},
		"text_service":         {Text: "nowhere to be found", Service: "service-1", Before: all / 2},
		"text_service_kind":    {Text: "nowhere to be found", Service: "service-1", Kind: "held"},
		"text_incident":        {Text: "needle", Incident: "inc-0"},
		"text_time":            {Text: "nowhere to be found", From: at(300_000), To: at(600_000)},
	} {
		q.Limit = 50
		b.Run(name, func(b *testing.B) {
			var worst time.Duration
			for b.Loop() {
				begun := time.Now()
				search(b, s, q)
				worst = max(worst, time.Since(begun))
			}
			b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
		})
	}
}
