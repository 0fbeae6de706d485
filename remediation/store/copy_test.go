package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
)

// odd are texts that the two databases keep differently.
var odd = []string{"plain", "a\x00b", `back\slash`, "größer \u2028", "<&>'\""}

// filled writes something into every table.
func filled(t *testing.T, s *Store) {
	t.Helper()
	at := time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)
	for i, x := range odd {
		err := s.Update(t.Context(), func(tx remediation.Tx) error {
			inc := &remediation.Incident{Service: x, State: remediation.Confirming, Opened: at, Wake: at}
			gone, kept := &remediation.Message{Channel: x, Key: x}, &remediation.Message{Channel: x, Key: x}
			_, err := tx.Append(audit.Entry{Time: at, Kind: audit.KindReceived, Actor: x, Service: x, Detail: map[string]any{"text": x, "list": []any{x, i, nil}}})
			err = errors.Join(err, tx.PutIncident(inc), tx.PutMessage(kept), tx.PutMessage(gone))
			err = errors.Join(err, tx.DeleteMessage(gone.ID),
				tx.PutAlert(remediation.AlertState{Fingerprint: x, Incident: inc.ID, Service: x, Trigger: x, Active: i%2 == 0, LastSeen: at}),
				tx.PutEffect(remediation.Effect{Incident: inc.ID, Step: x, Time: at, Service: x, Action: x, Target: x}),
				tx.PutFreeze(remediation.Freeze{Service: x, Scope: x}), tx.PutSignal(remediation.Signal{Service: x, Name: x}),
				tx.PutRollout(remediation.Rollout{Service: x}), tx.PutBeat(remediation.Beat{Service: x, Last: at, Heard: i == 1, Lost: i == 2}),
				tx.PutPlaybook(x, []byte("bytes \xff\x00"+x)), tx.PutPublicIncident(remediation.PublicIncident{Incident: inc.ID}),
				tx.PutReceipt(x, x, x), tx.PutPreflight(remediation.Preflight{Service: x}), tx.PutRehearsal(remediation.Rehearsal{Service: x, Plan: x}),
				tx.PutReplica(remediation.Replica{ID: x}), tx.PutLease(remediation.Lease{Realm: x, Holder: x, Epoch: int64(i), Until: at}), tx.PutKept(x, []byte("\x00\xff"+x)))
			if _, onceErr := tx.Once(x, x, time.Now().Add(time.Hour), 10); onceErr != nil {
				return errors.Join(err, onceErr)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sums are the checksums of all tables, and the head.
func sums(t *testing.T, s *Store) string {
	t.Helper()
	var b strings.Builder
	err := s.view(t.Context(), func(t *tx) error {
		h, err := t.c.lastHead()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, h)
		for _, table := range tables() {
			is := newSum(strings.Split(table.columns, ", "))
			err := t.rows(table.all(), nil, func(r row) error { _, err := is.add(r); return err })
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s %d %x\n", table.name, is.rows, is.sum)
			if is.rows == 0 {
				return fmt.Errorf("%s is empty: the test does not fill it", table.name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestACopyIsTheSameByteForByteThereAndBack(t *testing.T) {
	open := func(dsn string) *Store {
		t.Helper()
		s, err := Open(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeStore(t, s) })
		return s
	}
	first, there, back := open(sqliteDSN(t)), open(storetest.Postgres(t)), open(sqliteDSN(t))
	filled(t, first)
	want := sums(t, first)
	var head string
	for _, c := range []struct{ from, to *Store }{{first, there}, {there, back}} {
		done, err := Copy(t.Context(), c.from, c.to, func(string, int64) {})
		if err != nil {
			t.Fatal(err)
		}
		if got := sums(t, c.to); got != want {
			t.Fatalf("copied\n%s\nwant\n%s", got, want)
		}
		if seq, hash, err := verify(t, c.to); err != nil || seq != done.Seq || hash != done.Hash || seq != int64(len(odd)) || done.Rows["audit"] != seq {
			t.Errorf("verified up to %d %s (%v), copied %+v", seq, hash, err, done)
		}
		head = done.Hash
		if _, err := Copy(t.Context(), c.from, c.to, func(string, int64) {}); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("a second copy: %v", err)
		}
	}
	// All continue alike: the next numbers, the next entry.
	var after []string
	for _, s := range []*Store{first, there, back} {
		err := s.Update(t.Context(), func(tx remediation.Tx) error {
			inc, m := &remediation.Incident{Service: "next", State: remediation.Confirming}, &remediation.Message{Channel: "next"}
			e, err := tx.Append(audit.Entry{Kind: audit.KindStarted})
			err = errors.Join(err, tx.PutIncident(inc), tx.PutMessage(m))
			err = errors.Join(err, tx.PutAlert(remediation.AlertState{Fingerprint: "next", Incident: "inc-1"}),
				tx.PutEffect(remediation.Effect{Incident: "next"}), tx.PutPublicIncident(remediation.PublicIncident{Incident: "next"}))
			if e.Prev != head {
				return fmt.Errorf("the log continues behind %s", e.Prev)
			}
			after = append(after, fmt.Sprint(inc.ID, m.ID, e.Hash))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if after[0] != after[1] || after[0] != after[2] {
		t.Errorf("they continue with %v", after)
	}
	if got := sums(t, there); got != sums(t, first) || got != sums(t, back) {
		t.Error("they are not the same any more")
	}
}

func TestACopyThatFailsLeavesNothing(t *testing.T) {
	dsn := storetest.Postgres(t)
	from, to := openTemp(t), openShared(t, dsn)
	defer closeStore(t, to)
	filled(t, from)
	// What PostgreSQL cannot keep as a text: somebody changed the log.
	err := from.Update(t.Context(), script("UPDATE audit SET entry = x'00' WHERE seq = 3"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), from, to, func(string, int64) {}); err == nil {
		t.Fatal("an entry that cannot be kept was copied")
	}
	for _, table := range tables() {
		err := to.view(t.Context(), func(t *tx) error {
			return t.rows("SELECT 1 FROM "+table.name, nil, func(row) error { return errors.New(table.name + " has a row") })
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// The two schemas have the same tables and columns, so that a migration of the one is not
// forgotten in the other, nor in what Copy copies.
func TestTheTablesOfACopyAreAllThereAre(t *testing.T) {
	listed := map[string]int{}
	for _, t := range tables() {
		listed[t.name] = len(strings.Split(t.columns, ", "))
	}
	sqliteStore, pg := openTemp(t), openShared(t, storetest.Postgres(t))
	defer closeStore(t, pg)
	for query, s := range map[string]*Store{
		"SELECT m.name, count(*) FROM sqlite_schema m, pragma_table_info(m.name) WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' GROUP BY m.name":                                                sqliteStore,
		"SELECT table_name::text, count(*) FROM information_schema.columns WHERE table_schema = current_schema() AND table_name NOT IN ('audit_head', 'leases', 'schema_version') GROUP BY table_name": pg,
	} {
		has := map[string]int{}
		err := s.view(t.Context(), func(t *tx) error {
			return t.rows(query, nil, func(r row) error {
				var name string
				var n int
				err := r.scan(&name, &n)
				has[name] = n
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(has) != fmt.Sprint(listed) {
			t.Errorf("%s has %v, Copy copies %v", s.db, has, listed)
		}
	}
}
