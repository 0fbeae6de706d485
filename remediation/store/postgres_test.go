package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
)

// openShared opens a PostgreSQL store that others may write with.
func openShared(t testing.TB, dsn string) *Store {
	t.Helper()
	s, err := openOn(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTwoStoresShareAPostgreSQLDatabase(t *testing.T) {
	storetest.RunShared(t, func(t *testing.T) (one, two remediation.Store) {
		dsn := storetest.Postgres(t)
		return openShared(t, dsn), openShared(t, dsn)
	})
}

func TestATextReadsBackFromItsEscapes(t *testing.T) {
	for _, s := range []string{"", "plain", `\`, `\\`, `\0`, "\x00", "a\x00b", "\xff\xfe", `\xff`, "größer \U0001f6a8", "\xed\xa0\x80", `\x`, "x\\\x00\\"} {
		e := escape(s)
		if got, err := e.text(); got != s || err != nil {
			t.Errorf("%q is kept as %q, which reads as %q (%v)", s, e, got, err)
		}
		if strings.ContainsRune(string(e), 0) || !strings.Contains(strings.ToValidUTF8(string(e), "bad"), string(e)) {
			t.Errorf("%q is kept as %q", s, e)
		}
	}
	for _, bad := range []escaped{`\`, `a\n`, `\x1`, `\xzz`} {
		if s, err := bad.text(); err == nil {
			t.Errorf("%q reads as %q", bad, s)
		}
	}
}

func TestALongLabelIsNotLost(t *testing.T) {
	s, err := Open(t.Context(), storetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	// What a text's compression does not shorten, as long as a label may be.
	var long strings.Builder
	for i := 0; long.Len() < 4<<10; i++ {
		fmt.Fprintf(&long, "%x", uint64(i)*0x9e3779b97f4a7c15)
	}
	service := long.String()
	err = s.Update(t.Context(), func(tx remediation.Tx) error {
		_, err := tx.Append(audit.Entry{Kind: audit.KindHeld, Service: service})
		return errors.Join(err, tx.PutAlert(remediation.AlertState{Fingerprint: "f", Service: service, Trigger: service}))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(t.Context(), func(tx remediation.Tx) error {
		for f, want := range map[audit.Filter]int{{Service: service}: 1, {Service: service[:300]}: 0, {Service: service + "x"}: 0} {
			if es, err := tx.Entries(f); err != nil || len(es) != want {
				return fmt.Errorf("found %d entries, want %d (%w)", len(es), want, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestASharedStoreOpensOnlyWithTheDatabasesClock(t *testing.T) {
	u, err := url.Parse(storetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	network := storetest.NewNetwork(t, u.Host)
	var asked atomic.Int64
	network.Sent = func(b []byte) {
		if !bytes.Contains(b, []byte("clock_timestamp()) * 1000000")) {
			return
		}
		switch asked.Add(1) {
		case 1: // slow
			<-time.After(clockSlow + 100*time.Millisecond)
		case 3: // of the second store
			network.Gone.Store(true)
		}
	}
	u.Host = network.Address
	db, err := newPostgres(u.String())
	if err != nil {
		t.Fatal(err)
	}
	db.patience = 5 * time.Second
	before := time.Now()
	s, err := openSharedOn(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if now := s.Now(); now.Before(before.Add(clockSlow)) || now.After(time.Now()) {
		t.Errorf("after a slow answer, its clock says %s; it was opened from %s to %s", now, before, time.Now())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := openSharedOn(t.Context(), db); !errors.As(err, new(*remediation.StoreAwayError)) {
		t.Errorf("opened without an answer: %v", err)
	}
}

func TestAReaderDoesNotWaitForAServerThatIsGone(t *testing.T) {
	u, err := url.Parse(storetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	network := storetest.NewNetwork(t, u.Host)
	u.Host = network.Address
	db, err := newPostgres(u.String())
	if err != nil {
		t.Fatal(err)
	}
	db.patience = time.Second
	s, err := db.open(t.Context(), postgresMigrations(), shared)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	read := func(before func()) error {
		return s.View(t.Context(), func(tx remediation.Tx) error {
			if before != nil {
				before()
			}
			_, err := tx.Entries(audit.Filter{Limit: 10})
			return err
		})
	}
	if err := s.Update(t.Context(), whole("a")); err != nil {
		t.Fatal(err)
	}
	if err := read(nil); err != nil {
		t.Fatal(err)
	}
	for where, before := range map[string]func(){
		"before it begins": nil,
		"within it":        func() { network.Gone.Store(true) },
	} {
		network.Gone.Store(before == nil)
		ended := make(chan error, 1)
		go func() { ended <- read(before) }()
		select {
		case err := <-ended:
			if !errors.As(err, new(*remediation.StoreAwayError)) {
				t.Errorf("gone %s: %v", where, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("gone %s: a reader waits without end", where)
		}
	}
	network.Gone.Store(false)
	for range readers {
		if err := read(nil); err != nil {
			t.Errorf("it is back: %v", err)
		}
	}
}

func TestAReaderSaysThatASlowServerDoesNotAnswer(t *testing.T) {
	u, err := url.Parse(storetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	db, err := newPostgres(u.String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := db.open(t.Context(), postgresMigrations(), shared)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	db.patience = 200 * time.Millisecond
	read := func(ctx context.Context, query string) error {
		return s.View(ctx, func(t remediation.Tx) error {
			return t.(*tx).c.query(ctx, query, nil, func(row) error { return nil })
		})
	}
	away := func(err error) bool { return errors.As(err, new(*remediation.StoreAwayError)) }
	if err := read(t.Context(), "SELECT 1 FROM pg_sleep(60)"); !away(err) {
		t.Errorf("an answer that takes longer than the limit: %v", err)
	}
	if err := read(t.Context(), "SELECT 1 FROM no_such_table"); err == nil || away(err) {
		t.Errorf("a query that is wrong: %v", err)
	}
	db.patience = answerTimeout
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := read(ctx, "SELECT 1 FROM pg_sleep(60)"); !errors.Is(err, context.DeadlineExceeded) || away(err) {
		t.Errorf("a reader that wants no answer any more: %v", err)
	}
	for name, change := range map[string]func(){
		"the password is wrong":     func() { db.config.Password = "other" },
		"there is no such database": func() { db.config.Database = "no_such_database" },
	} {
		config := db.config.Copy()
		change()
		if _, err := db.connect(t.Context(), toRead); err == nil || away(err) {
			t.Errorf("%s: %v", name, err)
		}
		db.config = config
	}
	db.config.Port = 1
	db.config.Fallbacks = nil
	if _, err := db.connect(t.Context(), toRead); !away(err) {
		t.Errorf("nothing listens: %v", err)
	}
}

func TestTheServersCodesSayWhetherItMayAnswerInAMoment(t *testing.T) {
	for code, want := range map[string]bool{
		"57P03": true, "57P01": true, "53300": true, "08006": true, "57014": false, "28P01": false, "3D000": false, "42501": false,
	} {
		if got := transient(fmt.Errorf("connect: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s: %v", code, got)
		}
	}
}

func TestASecondServerIsRefusedUntilTheFirstIsGone(t *testing.T) {
	dsn := storetest.Postgres(t)
	quick := func() (*Store, error) {
		db, err := newPostgres(dsn)
		if err != nil {
			t.Fatal(err)
		}
		db.leaseTime = time.Second
		return db.open(t.Context(), postgresMigrations(), alone)
	}
	first, err := quick()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := quick(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by the server on %s, pid %d", hostname(t), os.Getpid())) {
		t.Fatalf("a second server: %v", err)
	}
	// A reader is not refused.
	r, err := OpenReadOnly(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, r)
	if err := first.Update(t.Context(), whole("first")); err != nil {
		t.Fatal(err)
	}
	closeStore(t, first) // it gives the lease back
	second, err := quick()
	if err != nil {
		t.Fatal(err)
	}
	// As if it was killed: nothing renews its lease, which runs out.
	l := second.db.(*postgres).lease
	l.stop()
	<-l.done
	third, err := quick()
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, third)
	if err := third.Update(t.Context(), whole("third")); err != nil {
		t.Fatal(err)
	}
	// It was only paused, and goes on.
	if err := second.Update(t.Context(), whole("late")); !errors.Is(err, ErrTakenOver) {
		t.Errorf("an Update of a server that was taken over: %v", err)
	}
	select {
	case <-l.lost:
	default:
		t.Error("it does not say that it was taken over")
	}
	closeStore(t, second)
	has(t, third, "first", "third")
	if epoch := third.db.(*postgres).lease.epoch.Load(); epoch != 3 {
		t.Errorf("the third holder's epoch is %d", epoch)
	}
}

func TestTheWaitForALeaseEndsWithItsContext(t *testing.T) {
	db, err := newPostgres(storetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	db.leaseTime = time.Hour
	s, err := db.open(t.Context(), postgresMigrations(), alone)
	if err != nil {
		t.Fatal(err)
	}
	l := s.db.(*postgres).lease
	l.stop() // as if it was killed
	<-l.done
	ended := make(chan error)
	const waits = 40 // some of which end while the database is asked
	for n := range waits {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond+time.Duration(n)*5*time.Millisecond)
		defer cancel()
		other := *db
		go func() {
			_, err := other.open(ctx, postgresMigrations(), alone)
			ended <- err
		}()
	}
	for range waits {
		select {
		case err := <-ended:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("it waits on")
		}
	}
	closeStore(t, s)
}

// over is a context whose time is over, and whose timer has not noticed.
type over struct{ context.Context }

func (over) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

func TestAConnectionThatIsNotMadeInTimeSaysSo(t *testing.T) {
	db, err := newPostgres(storetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	db.config.DialFunc = func(_ context.Context, network, _ string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrDeadlineExceeded}
	}
	if _, err := db.dial(over{t.Context()}, toWrite); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestALeaseThatRanOutWhileNobodyElseCameIsTakenAgain(t *testing.T) {
	db, err := newPostgres(storetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	s, err := db.open(t.Context(), postgresMigrations(), alone)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	expire := func() {
		t.Helper()
		err := s.Update(t.Context(), script("UPDATE leases SET until = clock_timestamp() - interval '1 second'"))
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		expire()
		if err := s.Update(t.Context(), whole(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	has(t, s, "0", "1", "2")
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// The documented roles: an owner of the schema, a server that may not change tables nor
// what is in the audit log, and a reader.
func TestTheLeastRightsSuffice(t *testing.T) {
	owner := storetest.Postgres(t)
	s, err := Open(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	u, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	schema := u.User.Username()
	page, err := os.ReadFile("../../docs/postgresql.md")
	if err != nil {
		t.Fatal(err)
	}
	_, grants, _ := strings.Cut(string(page), "```sql\n-- As an administrator, once:\n")
	grants, _, _ = strings.Cut(grants, "```")
	server, reader := schema+"_server", schema+"_reader"
	text := strings.NewReplacer("backout_server", server, "backout_reader", reader, "backout_owner", schema, "SCHEMA backout", "SCHEMA "+schema, "search_path = backout", "search_path = "+schema, "'...'", "'pass:word'").Replace(grants)
	_, text, _ = strings.Cut(text, "-- After the owner has created the tables")
	_, text, _ = strings.Cut(text, "\n")
	admin := storetest.Superuser(t)
	t.Cleanup(func() {
		storetest.Exec(t, admin, fmt.Sprintf("DROP OWNED BY %s, %s; DROP ROLE %[1]s, %s", server, reader))
	})
	storetest.Exec(t, admin, text)
	as := func(role string) string {
		v := *u
		v.User = url.UserPassword(role, "pass:word")
		return v.String()
	}
	if s, err = Open(t.Context(), as(server)); err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	if err := s.Update(t.Context(), whole("x")); err != nil {
		t.Fatal(err)
	}
	for _, forbidden := range []string{"UPDATE audit SET kind = 'x'", "DELETE FROM audit", "TRUNCATE audit", "DROP TABLE audit", "DELETE FROM audit_head", "CREATE TABLE " + schema + ".mine (a int)"} {
		if err := s.Update(t.Context(), script(forbidden)); err == nil || !strings.Contains(err.Error(), "permission denied") && !strings.Contains(err.Error(), "must be owner") {
			t.Errorf("%s: %v", forbidden, err)
		}
	}
	has(t, s, "x")
	r, err := OpenReadOnly(t.Context(), as(reader))
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, r)
	has(t, r, "x")
	c, err := pgx.Connect(t.Context(), strings.Replace(as(reader), "search_path="+schema, "", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background()) //nolint:errcheck // the test is over
	if _, err := c.Exec(t.Context(), "INSERT INTO "+schema+".receipts VALUES ('a', 'b', 'c')"); err == nil {
		t.Error("the reader writes")
	}
}

func TestNoErrorHoldsThePassword(t *testing.T) {
	dsn := storetest.Postgres(t)
	for name, change := range map[string]func(u *url.URL){
		"a wrong password":   func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "hush:hush") },
		"no server":          func(u *url.URL) { u.Host, u.User = "127.0.0.1:1", url.UserPassword("a", "hush:hush") },
		"a wrong port":       func(u *url.URL) { u.Host, u.User = "127.0.0.1:x", url.UserPassword("a", "hush:hush") },
		"a wrong parameter":  func(u *url.URL) { u.RawQuery, u.User = "sslmod=x", url.UserPassword("a", "hush:hush") },
		"a wrong mode":       func(u *url.URL) { u.RawQuery, u.User = "sslmode=hush:hush", url.UserPassword("a", "hush:hush") },
		"a wrong schema":     func(u *url.URL) { u.RawQuery, u.User = "search_path=Hush:hush", url.UserPassword("a", "hush:hush") },
		"no database":        func(u *url.URL) { u.Path, u.User = "", url.UserPassword("a", "hush:hush") },
		"a missing passfile": func(u *url.URL) { u.RawQuery, u.User = "passfile=/not/there", url.UserPassword("a", "hush:hush") },
	} {
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		change(u)
		for _, open := range []func(context.Context, string) (*Store, error){Open, OpenReadOnly} {
			if _, err := open(t.Context(), u.String()); err == nil || strings.Contains(strings.ToLower(err.Error()), "hush") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestAPasswordIsReadFromItsFile(t *testing.T) {
	dsn := storetest.Postgres(t)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	name := u.User.Username()
	u.User = url.User(name)
	file := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(file, []byte("*:*:*:"+name+`:pass\:word`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("passfile", file)
	u.RawQuery = q.Encode()
	if _, err := Open(t.Context(), u.String()); err == nil || !strings.Contains(err.Error(), "passfile") {
		t.Fatalf("a file that everyone can read: %v", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	for dsn, want := range map[string]bool{
		u.String(): false, "postgres://a:b@c/d": true, "postgres://a@c/d?password=b": true, "sqlite:a@b": false, "postgres://a:%zz@c/d": true,
	} {
		if got := HoldsPassword(dsn); got != want {
			t.Errorf("HoldsPassword(%q) is %t", dsn, got)
		}
	}
}

func TestAnotherProgramsSchemaIsLeftAlone(t *testing.T) {
	dsn := storetest.Postgres(t)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	schema := u.User.Username()
	storetest.Exec(t, storetest.Superuser(t), "CREATE TABLE "+schema+".theirs (a int)")
	for name, open := range map[string]func(context.Context, string) (*Store, error){"Open": Open, "OpenReadOnly": OpenReadOnly} {
		if _, err := open(t.Context(), dsn); err == nil || !strings.Contains(err.Error(), "another program's") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A role that may not create its schema learns what to ask for.
	u.RawQuery = "search_path=" + schema + "_none"
	if _, err := Open(t.Context(), u.String()); err == nil || !strings.Contains(err.Error(), "try: as an administrator: CREATE SCHEMA "+schema+`_none AUTHORIZATION "`+schema+`"`) {
		t.Errorf("no schema: %v", err)
	}
}

func TestPostgreSQLsMigrationsRunOnceForServersThatStartTogether(t *testing.T) {
	dsn := storetest.Postgres(t)
	errs := make(chan error)
	for range 4 {
		go func() {
			db, err := newPostgres(dsn)
			if err == nil {
				var s *Store
				if s, err = db.open(t.Context(), postgresMigrations(), shared); err == nil {
					err = s.Close()
				}
			}
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	db, err := newPostgres(dsn)
	if err != nil {
		t.Fatal(err)
	}
	next := append(postgresMigrations(), migration{"next.sql", "CREATE TABLE half (a int); DROP TABLE beats; INSERT INTO nowhere VALUES (1)"})
	n := len(postgresMigrations())
	if _, err := db.open(t.Context(), next, shared); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("from version %d to %d (next.sql)", n, n+1)) {
		t.Fatalf("got %v", err)
	}
	s := openShared(t, dsn) // the version before is whole
	if err := s.Update(t.Context(), whole("x")); err != nil {
		t.Error(err)
	}
	closeStore(t, s)
	next[n].sql = "CREATE TABLE half (a int)"
	if s, err = db.open(t.Context(), next, shared); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	for name, open := range map[string]func(context.Context, string) (*Store, error){"Open": Open, "OpenReadOnly": OpenReadOnly} {
		if _, err := open(t.Context(), dsn); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("version %d, this program knows %d; try: ", n+1, n)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
