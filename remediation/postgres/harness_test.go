package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/remediation"
)

const op = "inc-7/3-schema_rollback@1700000000"

// harness is a database of its own with the schema of testdata/migrations, which
// an owner without superuser's rights takes back and an application uses.
type harness struct {
	t          *testing.T
	admin      *pgx.Conn // a superuser in the database
	name       string    // of the database; the roles are named after it
	owner, app string
	secret     string // the owner's password
	dir        string // migrations
	snapshots  string
	environ    []string
	spec       remediation.SchemaRollback
	tolerates  error

	mu  sync.Mutex
	log strings.Builder
}

func (w *harness) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func superuser(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	dsn := os.Getenv("BACKOUT_POSTGRES_DSN")
	if dsn == "" {
		t.Fatal("BACKOUT_POSTGRES_DSN names no PostgreSQL; try: make test, or deploy/dev/postgres.sh with go test ./remediation/postgres")
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal("BACKOUT_POSTGRES_DSN is no address of a PostgreSQL")
	}
	if database != "" {
		config.Database = database
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func random() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	t.Parallel() // they mostly wait for the server
	w := &harness{t: t, name: "backout_test_" + random(), secret: "s3cret:" + random() + `\%/?`, environ: os.Environ()}
	w.owner, w.app = w.name+"_owner", w.name+"_app"
	template.Do(func() { makeTemplate(t) })
	if template.name == "" {
		t.Fatal("there is no template: an earlier test says why")
	}
	cluster := superuser(t, "")
	t.Cleanup(func() {
		if err := drop(w.name, w.app, w.owner); err != nil {
			t.Error(err)
		}
	})
	for _, sql := range []string{
		"CREATE ROLE " + w.owner + " LOGIN CREATEROLE PASSWORD '" + w.secret + "'",
		"GRANT pg_signal_backend TO " + w.owner,
		"CREATE ROLE " + w.app + " LOGIN PASSWORD 'app'",
		"CREATE DATABASE " + w.name + " OWNER " + w.owner + " TEMPLATE " + template.name,
	} {
		if _, err := cluster.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	w.admin = superuser(t, w.name)
	var version int
	if err := w.admin.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		t.Fatal(err)
	}
	if version >= 160000 {
		w.exec("GRANT " + w.app + " TO " + w.owner + " WITH ADMIN OPTION")
	}
	w.dir, w.snapshots = filepath.Join(t.TempDir(), "migrations"), filepath.Join(t.TempDir(), "snapshots")
	if err := os.CopyFS(w.dir, os.DirFS("../../testdata/migrations")); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"V1.0.0__posts.sql", "V2.0.0__analytics.sql", "U2.0.0__rollback_analytics.sql"} {
		w.chmod(f, 0o644)
	}
	w.chmod("rollback_to_v1.sh", 0o755)
	dsn := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(dsn, []byte(w.dsn()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.spec = remediation.SchemaRollback{
		Service: "social-intel", Version: "v1.0.0", DSNFile: dsn, Roles: []string{w.app},
		Flyway:    &remediation.Flyway{Dir: w.dir, Version: "1.0.0"},
		Tolerated: func(context.Context) error { return w.tolerates },
	}
	w.exec("REASSIGN OWNED BY " + template.owner + " TO " + w.owner)
	w.grant()
	return w
}

// byCommand is for a playbook that names the script of rollout-playbook.md.
func (w *harness) byCommand() {
	w.spec.Flyway, w.spec.Command, w.spec.Dir = nil, []string{"./rollback_to_v1.sh"}, w.dir
	w.spec.Wanted = "SELECT to_regclass('public.forecasts') IS NULL"
}

// byShell is byCommand with a shell that is given the script.
func (w *harness) byShell() {
	w.byCommand()
	w.spec.Command = []string{"/bin/sh", "rollback_to_v1.sh"}
}

// drop removes a database and roles, when no test's context is left.
func drop(database string, roles ...string) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Getenv("BACKOUT_POSTGRES_DSN"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "DROP DATABASE IF EXISTS "+database+" WITH (FORCE)")
	for _, role := range roles {
		_, rerr := conn.Exec(ctx, "DROP ROLE IF EXISTS "+role)
		err = errors.Join(err, rerr)
	}
	return errors.Join(err, conn.Close(ctx))
}

// template is the filled database that each harness's is a copy of. The first test makes it, TestMain drops it.
var template struct {
	sync.Once
	name, owner string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if template.name != "" {
		if err := drop(template.name, template.owner); err != nil {
			fmt.Fprintln(os.Stderr, "cleaning up:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func makeTemplate(t *testing.T) {
	t.Helper()
	w := &harness{t: t, name: "backout_test_template_" + random(), dir: "../../testdata/migrations"}
	w.owner = w.name + "_owner"
	w.admin = superuser(t, "")
	w.exec("CREATE ROLE " + w.owner)
	w.exec("CREATE DATABASE " + w.name)
	w.admin = superuser(t, w.name)
	// The database's owner may create in it, but is a superuser: REASSIGN OWNED takes databases too.
	w.exec("GRANT CREATE ON SCHEMA public TO " + w.owner)
	w.load()
	w.exec("REVOKE CREATE ON SCHEMA public FROM " + w.owner)
	if err := w.admin.Close(t.Context()); err != nil { // nobody may be connected to what is copied
		t.Fatal(err)
	}
	template.name, template.owner = w.name, w.owner
}

func (w *harness) address(user, password string) string {
	u, err := url.Parse(os.Getenv("BACKOUT_POSTGRES_DSN"))
	if err != nil {
		w.t.Fatal("BACKOUT_POSTGRES_DSN is no address of a PostgreSQL")
	}
	u.User, u.Path = url.UserPassword(user, password), "/"+w.name
	return u.String()
}

func (w *harness) secretURL() string {
	return strings.SplitN(strings.SplitN(w.dsn(), ":", 3)[2], "@", 2)[0]
}

func (w *harness) dsn() string { return w.address(w.owner, w.secret) }

func (w *harness) chmod(name string, mode os.FileMode) {
	w.t.Helper()
	if err := os.Chmod(filepath.Join(w.dir, name), mode); err != nil {
		w.t.Fatal(err)
	}
}

func (w *harness) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *harness) exec(sql string) {
	w.t.Helper()
	if _, err := w.admin.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// text asks for one value.
func (w *harness) text(sql string) string {
	w.t.Helper()
	var text *string
	if err := w.admin.QueryRow(context.Background(), sql).Scan(&text); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	if text == nil {
		return ""
	}
	return *text
}

// fill makes the schema and some rows, which the application may use.
func (w *harness) fill() {
	w.t.Helper()
	w.load()
	w.grant()
}

func (w *harness) grant() {
	w.t.Helper()
	w.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO " + w.app)
}

// load makes the schema and some rows, by the owner's hand.
func (w *harness) load() {
	w.t.Helper()
	w.exec("SET ROLE " + w.owner + `;
		CREATE TABLE flyway_schema_history (
			installed_rank integer PRIMARY KEY, version varchar(50), description varchar(200) NOT NULL, type varchar(20) NOT NULL,
			script varchar(1000) NOT NULL, checksum integer, installed_by varchar(100) NOT NULL,
			installed_on timestamp NOT NULL DEFAULT now(), execution_time integer NOT NULL, success boolean NOT NULL)`)
	w.migrate("V1.0.0__posts.sql")
	w.exec(`INSERT INTO channels (name) VALUES ('a'), ('b');
		INSERT INTO posts (channel, body, seen) SELECT 1 + n % 2, 'post ' || n, timestamptz '2026-01-01' FROM generate_series(1, 10) n`)
	w.migrate("V2.0.0__analytics.sql")
	w.exec(`INSERT INTO forecasts SELECT 1, date '2026-01-01' + n, n FROM generate_series(1, 5) n;
		INSERT INTO recommendations (channel, text) VALUES (1, 'more');
		RESET ROLE`)
}

// reset empties the database and fills it again.
func (w *harness) reset() {
	w.t.Helper()
	w.exec("DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION " + w.owner + "; GRANT USAGE ON SCHEMA public TO " + w.app)
	w.exec("ALTER ROLE " + w.app + " LOGIN")
	w.fill()
}

// migrate applies a script and writes its row, as flyway migrate does.
func (w *harness) migrate(name string) {
	w.t.Helper()
	s, _, ok := named(filepath.Base(name))
	if !ok {
		w.t.Fatalf("%s is no script", name)
	}
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	w.exec("SET ROLE " + w.owner + "; BEGIN;\n" + string(text) + "\n; COMMIT")
	w.row(s.versionText, s.description, "SQL", name, fmt.Sprint(checksum(string(text))), true)
}

func (w *harness) row(version, description, kind, script, checksum string, success bool) {
	w.t.Helper()
	w.exec(fmt.Sprintf(`INSERT INTO public.flyway_schema_history (installed_rank, version, description, type, script, checksum, installed_by, execution_time, success)
		SELECT coalesce(max(installed_rank), 0) + 1, '%s', '%s', '%s', '%s', %s, 'flyway', 1, %v FROM public.flyway_schema_history`,
		version, description, kind, script, checksum, success))
}

// state is all of the database that a rollback may change.
func (w *harness) state() string {
	w.t.Helper()
	var b strings.Builder
	for _, sql := range []string{
		`SELECT string_agg(table_name || '.' || column_name || ' ' || data_type, E'\n' ORDER BY table_name, ordinal_position) FROM information_schema.columns WHERE table_schema = 'public'`,
		`SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = 'public'::regnamespace`,
		`SELECT string_agg(concat_ws(' ', installed_rank, version, description, type, script, checksum, installed_by, success), E'\n' ORDER BY installed_rank) FROM public.flyway_schema_history`,
		`SELECT 'login: ' || rolcanlogin FROM pg_roles WHERE rolname = '` + w.app + `'`,
	} {
		fmt.Fprintln(&b, w.text(sql))
	}
	for _, table := range strings.Fields(w.text("SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'flyway_schema_history'")) {
		fmt.Fprintln(&b, table, w.text("SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, ';' ORDER BY t::text)), '') FROM public."+table+" t"))
	}
	return strings.ReplaceAll(b.String(), w.name, "DB")
}

// lost reports whether version 2 is gone.
func (w *harness) lost() bool { return w.text("SELECT to_regclass('public.forecasts')::text") == "" }

func (w *harness) client(s *seams) *Client {
	w.t.Helper()
	c, err := New(Options{SnapshotDir: w.snapshots, Environ: w.environ, Logger: slog.New(slog.NewTextHandler(w, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	if s != nil {
		c.seams = *s
	}
	return c
}

func (w *harness) action(s *seams) remediation.Action {
	w.t.Helper()
	a, err := w.client(s).Rollback(w.spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// untouched looks, and wants the position for that.
func (w *harness) untouched() remediation.Look {
	w.t.Helper()
	return w.position(op, remediation.Untouched)
}

func (w *harness) position(op string, want remediation.Position) remediation.Look {
	w.t.Helper()
	look, err := w.action(nil).Look(w.t.Context(), op)
	if err != nil || look.Position != want {
		w.t.Fatalf("look: %s, %v, want %s", look.Position, err, want)
	}
	return look
}

// apply does all of it.
func (w *harness) apply() {
	w.t.Helper()
	a, before := w.action(nil), w.untouched().Snapshot
	if err := a.Apply(w.t.Context(), op, before); err != nil {
		w.t.Fatal(err)
	}
	if err := a.Verify(w.t.Context(), op); err != nil {
		w.t.Fatal(err)
	}
}

// refused wants a look to end with each of the words, and nothing to have been changed.
func (w *harness) refused(words ...string) {
	w.t.Helper()
	state := w.state()
	_, err := w.action(nil).Look(w.t.Context(), op)
	w.says(err, words...)
	if got := w.state(); got != state {
		w.t.Errorf("the refusal changed\n%s\nto\n%s", state, got)
	}
	if files, _ := os.ReadDir(w.snapshots); len(files) > 0 {
		w.t.Errorf("the refusal left %v", files)
	}
}

func (w *harness) says(err error, words ...string) {
	w.t.Helper()
	if err == nil {
		w.t.Fatalf("no error, want %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			w.t.Errorf("%v\nsays nothing of %q", err, word)
		}
	}
	w.tellsNothing(err.Error())
}

// tellsNothing wants no form of the password in a text.
func (w *harness) tellsNothing(text string) {
	w.t.Helper()
	for _, s := range w.secrets() {
		if strings.Contains(text, s) {
			w.t.Errorf("the password is told: %s", text)
		}
	}
}

func (w *harness) secrets() []string {
	return []string{w.secret, url.QueryEscape(w.secret), url.PathEscape(w.secret), w.secret[7:19]}
}

// login says why the application cannot log in.
func (w *harness) login() error {
	conn, err := pgx.Connect(w.t.Context(), w.address(w.app, "app"))
	if err != nil {
		return err
	}
	return errors.Join(conn.Close(w.t.Context()))
}

// files are the names in the folder of the snapshots, by their extensions.
func (w *harness) files() string {
	w.t.Helper()
	found := map[string]bool{}
	entries, err := os.ReadDir(w.snapshots)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		found[filepath.Ext(e.Name())] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(found)), " ")
}
