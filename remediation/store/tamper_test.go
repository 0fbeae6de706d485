package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
)

// verify checks the whole audit log.
func verify(t *testing.T, s *Store) (seq int64, hash string, err error) {
	t.Helper()
	return audit.Verify(func(f audit.Filter) (page []audit.Entry, err error) {
		err = s.View(t.Context(), func(tx remediation.Tx) (err error) {
			page, err = tx.Entries(f)
			return err
		})
		return page, err
	})
}

func TestATamperedAuditLogIsNoticed(t *testing.T) { onBoth(t, tampered) }

func tampered(t *testing.T, _ string) {
	fresh, large := sqliteDSN, "hex(zeroblob(3000000))"
	if strings.HasSuffix(t.Name(), "PostgreSQL") {
		fresh, large = storetest.Postgres, "repeat('0', 6000000)"
	}
	changed := func(to string) string {
		if !strings.HasSuffix(t.Name(), "PostgreSQL") {
			to = "CAST(" + to + " AS BLOB)"
		}
		return "UPDATE audit SET entry = " + to + " WHERE seq = 8"
	}
	for name, c := range map[string]struct {
		query string
		seq   int64
		why   string
	}{
		"text":              {changed("replace(CAST(entry AS TEXT), '\"actor\":\"7\"', '\"actor\":\"8\"')"), 8, "hash"},
		"text, a lot":       {changed(`replace(CAST(entry AS TEXT), '"actor":"7"', '"actor":"' || ` + large + ` || '"')`), 8, "its content has"},
		"a lot of nothing":  {changed(large), 8, "its end is not"},
		"a lot of another":  {changed(`replace(CAST(entry AS TEXT), '"step":""', '"step":"' || ` + large + ` || '"')`), 8, "its end is not"},
		"spaces":            {changed("CAST(entry AS TEXT) || ' '"), 8, "canonical form"},
		"no JSON":           {changed("'\x01'"), 8, "invalid"},
		"hash":              {"UPDATE audit SET hash = (SELECT hash FROM audit WHERE seq = 7) WHERE seq = 8", 8, "hash"},
		"kind's column":     {"UPDATE audit SET kind = 'intent' WHERE seq = 8", 8, "columns"},
		"incident's":        {"UPDATE audit SET incident = '' WHERE seq = 8", 8, "columns"},
		"service's":         {"UPDATE audit SET service = 'b' WHERE seq = 8", 8, "columns"},
		"a missing entry":   {"DELETE FROM audit WHERE seq = 8", 8, "missing"},
		"a cut-off head":    {"DELETE FROM audit WHERE seq <= 8", 1, "begins with entry 9"},
		"a moved entry":     {"UPDATE audit SET seq = 100 WHERE seq = 8", 8, "missing"},
		"one after the end": {"INSERT INTO audit SELECT 21, kind, service, incident, hash, entry FROM audit WHERE seq = 8", 21, "columns"},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := fresh(t)
			s, err := openOn(dsn)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				err := s.Update(t.Context(), func(tx remediation.Tx) error {
					_, err := tx.Append(audit.Entry{Kind: audit.KindHeld, Actor: fmt.Sprint(i), Service: "a", Incident: "inc-1"})
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if seq, hash, err := verify(t, s); err != nil || seq != 20 || hash == audit.ZeroHash {
				t.Fatalf("before: %d %s %v", seq, hash, err)
			}
			closeStore(t, s)
			run(t, dsn, c.query)
			r, err := OpenReadOnly(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer closeStore(t, r)
			_, _, err = verify(t, r)
			var broken *audit.BrokenChainError
			if !errors.As(err, &broken) || broken.Seq != c.seq || !strings.Contains(broken.Why, c.why) {
				t.Fatalf("got %v, want entry %d and %q", err, c.seq, c.why)
			}
		})
	}
}

func TestALogPrunedToACheckpointVerifies(t *testing.T) { onBoth(t, pruned) }

func pruned(t *testing.T, dsn string) {
	s, err := openOn(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		err := s.Update(t.Context(), func(tx remediation.Tx) error {
			e := audit.Entry{Kind: audit.KindStarted}
			if i == 9 {
				seq, hash, err := tx.Head()
				if err != nil {
					return err
				}
				e.Kind, e.Detail = audit.KindCheckpoint, map[string]any{"seq": seq, "hash": hash}
			}
			_, err := tx.Append(e)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	run(t, dsn, "DELETE FROM audit WHERE seq < 10")
	if s, err = openOn(dsn); err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	if err := s.Update(t.Context(), func(tx remediation.Tx) error {
		_, err := tx.Append(audit.Entry{Kind: audit.KindStarted})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if seq, _, err := verify(t, s); err != nil || seq != 21 {
		t.Fatalf("head %d: %v", seq, err)
	}
}
