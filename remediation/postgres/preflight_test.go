package postgres

import (
	"os"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
)

// prove runs every proof and returns what each came to; the database is the same
// afterwards.
func (w *harness) prove() map[string]remediation.Result {
	w.t.Helper()
	a := w.action(nil)
	before := w.everything()
	found := map[string]remediation.Result{}
	for _, p := range a.(remediation.SelfChecking).Checks() {
		found[p.ID] = p.Run(w.t.Context())
	}
	if after := w.everything(); after != before {
		w.t.Errorf("the proofs changed the database from\n%s\nto\n%s", before, after)
	}
	for id, f := range found {
		if strings.Contains(f.Evidence+f.Next, w.secret) || strings.Contains(f.Evidence+f.Next, w.secretURL()) {
			w.t.Errorf("%s tells the password: %+v", id, f)
		}
	}
	if left, err := os.ReadDir(w.snapshots); len(left) > 0 {
		w.t.Errorf("in the folder of the snapshots are %v (%v)", left, err)
	}
	return found
}

// everything is what a proof could change: tables, triggers, rows of the history and
// of the data, and who can log in.
func (w *harness) everything() string {
	return w.text(`SELECT concat_ws(' ', (SELECT string_agg(relname::text || relkind::text, ' ' ORDER BY oid) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
		(SELECT string_agg(tgname::text, ' ' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal),
		(SELECT string_agg(version || type, ' ' ORDER BY installed_rank) FROM flyway_schema_history),
		(SELECT count(*) FROM posts), (SELECT string_agg(rolname::text || rolcanlogin::text, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname LIKE current_database() || '%'))`)
}

func (w *harness) wants(found map[string]remediation.Result, id string, result remediation.Status, word string) {
	w.t.Helper()
	f, ok := found[id]
	if !ok || f.Status != result || !strings.Contains(f.Evidence, word) {
		w.t.Errorf("%s came to %+v; want %s, with %q", id, f, result, word)
	}
}

func TestASchemaThatCanBeRolledBackPassesItsChecks(t *testing.T) {
	w := newHarness(t)
	found := w.prove()
	w.wants(found, "schema/access", remediation.Pass, w.app+" can be disconnected")
	w.wants(found, "schema/scripts", remediation.Pass, "1 version above 1.0.0 (1 applied)")
	w.wants(found, "schema/tried", remediation.Pass, "1 script ran")
	w.wants(found, "schema/snapshot", remediation.Pass, "pg_dump can read the schema")
}

// The only test that judges this item: the slots are those of the whole server.
func TestNoReplicaPassesOnlyWhereTheServerWaitsForNone(t *testing.T) {
	w := newHarness(t)
	const noneShows = "no replica shows (none is connected, no replication slot waits for one, synchronous_standby_names is empty); one that streams without a slot and is away would not"
	w.wants(w.prove(), "replication/lag", remediation.Pass, noneShows)

	slot := w.name + "_slot"
	w.exec("SELECT pg_create_physical_replication_slot('" + slot + "')")
	t.Cleanup(func() { w.exec("SELECT pg_drop_replication_slot('" + slot + "')") })
	w.wants(w.prove(), "replication/lag", remediation.CannotTell, "no replica is connected to replication slot "+slot)

	// What would hold up every commit of the server, or needs a second one, the session finds
	// in tables of its own by the names of the server's.
	w.exec("CREATE SCHEMA seen; GRANT USAGE ON SCHEMA seen TO " + w.owner + `;
		CREATE TABLE seen.pg_replication_slots (slot_name name, slot_type text, active boolean);
		CREATE TABLE seen.pg_stat_replication (state text, replay_lag interval);
		CREATE TABLE seen.pg_settings (name text, setting text);
		CREATE FUNCTION seen.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM seen.pg_settings WHERE name = ''standby'')';
		GRANT SELECT ON ALL TABLES IN SCHEMA seen TO ` + w.owner + "; ALTER ROLE " + w.owner + " IN DATABASE " + w.name + " SET search_path = seen, pg_catalog, public")
	for _, c := range []struct {
		what, sql string
		status    remediation.Status
		says      string
	}{
		{"nothing", "", remediation.Pass, noneShows},
		{"a logical slot", "INSERT INTO seen.pg_replication_slots VALUES ('events', 'logical', false)", remediation.Pass, noneShows},
		{"a replica that is expected and away", "INSERT INTO seen.pg_settings VALUES ('synchronous_standby_names', 'FIRST 1 (b)')", remediation.CannotTell, "synchronous_standby_names expects FIRST 1 (b)"},
		{"that replica", "INSERT INTO seen.pg_stat_replication VALUES ('streaming', '2s')", remediation.Pass, "the lag is 2 s"},
		{"its slot", "INSERT INTO seen.pg_replication_slots VALUES ('b', 'physical', true)", remediation.Pass, "the lag is 2 s"},
		{"another one that is behind", "INSERT INTO seen.pg_stat_replication VALUES ('catchup', '9s')", remediation.Fail, "the lag is 9 s"},
		{"a third one that is away", "INSERT INTO seen.pg_replication_slots VALUES ('c', 'physical', false)", remediation.CannotTell, "replication slot c"},
		{"a standby", "TRUNCATE seen.pg_replication_slots, seen.pg_stat_replication, seen.pg_settings; INSERT INTO seen.pg_settings VALUES ('standby', '')", remediation.CannotTell, "this server is a standby"},
		{"a replica that is hidden", "TRUNCATE seen.pg_settings; INSERT INTO seen.pg_stat_replication VALUES (NULL, NULL)", remediation.CannotTell, "hidden from " + w.owner},
	} {
		w.exec(c.sql)
		if f := w.lag(); f.Status != c.status || !strings.Contains(f.Evidence, c.says) {
			t.Errorf("%s: %+v; want %s, with %q", c.what, f, c.status, c.says)
		}
	}
}

func (w *harness) lag() (f remediation.Result) {
	for _, p := range w.action(nil).(remediation.SelfChecking).Checks() {
		if p.ID == "replication/lag" {
			f = p.Run(w.t.Context())
		}
	}
	return f
}

// Before a release its versions are not applied yet: the way there is tried, too.
func TestARollbackIsTriedBeforeThePromotion(t *testing.T) {
	w := newHarness(t)
	w.write("V3__more.sql", "CREATE TABLE more (n int); INSERT INTO more SELECT 1;")
	w.wants(w.prove(), "schema/scripts", remediation.Fail, "version 3 has no undo script")
	w.write("U3__rollback.sql", "DROP TABLE mor;")
	w.wants(w.prove(), "schema/tried", remediation.Fail, `undo script U3__rollback.sql fails: `)
	w.write("U3__rollback.sql", "DROP TABLE more;")
	found := w.prove()
	w.wants(found, "schema/scripts", remediation.Pass, "2 versions above 1.0.0 (1 applied)")
	w.wants(found, "schema/tried", remediation.Pass, "3 scripts ran")
}

func TestEachDefectOfASchemaRollbackIsFound(t *testing.T) {
	for name, d := range map[string]struct {
		plant  func(w *harness)
		item   string
		result remediation.Status
		word   string
	}{
		"an undo script is missing":   {func(w *harness) { w.remove(undo2) }, "scripts", remediation.Fail, "has no undo script"},
		"an undo script fails":        {func(w *harness) { w.write(undo2, "DROP TABLE forecast;") }, "tried", remediation.Fail, `"forecast" does not exist`},
		"an undo script has a COMMIT": {func(w *harness) { w.write(undo2, "DROP TABLE forecasts; COMMIT;") }, "tried", remediation.Fail, "manages its own transaction"},
		"an undo script leaves a constraint broken": {func(w *harness) {
			w.exec("ALTER TABLE posts ADD COLUMN twin bigint REFERENCES posts DEFERRABLE INITIALLY DEFERRED")
			w.write(undo2, "UPDATE posts SET twin = -1;")
		}, "tried", remediation.Fail, "break a constraint"},
		"an undo script cannot run in a transaction": {func(w *harness) { w.write(undo2, "VACUUM posts;") }, "tried", remediation.CannotTell, "cannot run in a transaction"},
		"an undo script sets a sequence":             {func(w *harness) { w.write(undo2, "SELECT setval('posts_id_seq', 1);") }, "tried", remediation.CannotTell, "setval("},
		"an undo script waits without limit":         {func(w *harness) { w.write(undo2, "SET lock_timeout = 0; DROP TABLE forecasts;") }, "tried", remediation.CannotTell, "lock_timeout"},
		"an undo script writes a file":               {func(w *harness) { w.write(undo2, "COPY posts\nTO '/tmp/posts';") }, "tried", remediation.CannotTell, "COPY posts"},
		"the tables are in use": {func(w *harness) {
			w.write(undo2, "ALTER TABLE posts ADD COLUMN x int;")
			other := superuser(w.t, w.name)
			if _, err := other.Exec(w.t.Context(), "BEGIN; LOCK TABLE posts IN ACCESS SHARE MODE"); err != nil {
				w.t.Fatal(err)
			}
		}, "tried", remediation.CannotTell, "the tables are in use"},
		"a command cannot be tried":      {func(w *harness) { w.byCommand() }, "tried", remediation.CannotTell, "cannot be tried"},
		"the command is missing":         {func(w *harness) { w.byCommand(); w.remove("rollback_to_v1.sh") }, "scripts", remediation.Fail, "rollback_to_v1.sh"},
		"another script was applied":     {func(w *harness) { w.write("V2.0.0__analytics.sql", "SELECT 1;") }, "scripts", remediation.Fail, "is not what was applied"},
		"the application is a superuser": {func(w *harness) { w.exec("ALTER ROLE " + w.app + " SUPERUSER") }, "access", remediation.Fail, "is a superuser"},
		"the role is misspelt":           {func(w *harness) { w.spec.Roles = []string{"nobody_" + w.app} }, "access", remediation.Fail, "does not exist"},
		"there is no pg_dump":            {func(w *harness) { w.environ = []string{"PATH=" + w.dir} }, "snapshot", remediation.Fail, "pg_dump is not in PATH"},
		"a table cannot be dumped": {func(w *harness) {
			w.exec("CREATE TABLE hidden (); REVOKE ALL ON hidden FROM PUBLIC; ALTER TABLE hidden OWNER TO " + strings.SplitN(w.text("SELECT current_user"), " ", 2)[0])
		}, "snapshot", remediation.Fail, "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			d.plant(w)
			w.wants(w.prove(), "schema/"+d.item, d.result, d.word)
		})
	}
}

func TestADatabaseThatIsAwayTellsNothingOrFails(t *testing.T) {
	w := newHarness(t)
	if err := os.WriteFile(w.spec.DSNFile, []byte("postgres://x:y@127.0.0.1:1/z\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for id, f := range w.prove() {
		if f.Status == remediation.Pass {
			t.Errorf("%s passes: %+v", id, f)
		}
	}
}

func TestWhatAKilledPreflightLeavesIsRemoved(t *testing.T) {
	w := newHarness(t)
	a := w.action(nil)
	left := &work{rollback: a.(*rollback), op: proofName, m: &manifest{}}
	if err := os.MkdirAll(w.snapshots, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left.file(".pgpass"), []byte(w.secret), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.(remediation.Sweeper).Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if files, err := os.ReadDir(w.snapshots); err != nil || len(files) > 0 {
		t.Errorf("left are %v (%v)", files, err)
	}
}
