package postgres

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
)

// twoVersions has a version 2.1.0 with a schema of reports, whose undo script begins with
// settings, and whose forecasts are not those of version 2.0.0.
func twoVersions(t *testing.T, settings string) *harness {
	w := newHarness(t)
	w.write("V2.1.0__reports.sql", "CREATE SCHEMA reports; CREATE TABLE reports.summary (n int); CREATE TABLE reports.forecasts AS SELECT 1 AS n;")
	w.write("U2.1.0__reports.sql", settings+"\nDROP TABLE reports.summary;")
	w.write(undo2, "DROP TABLE IF EXISTS recommendations; DROP TABLE IF EXISTS forecasts;\n"+
		"CREATE TABLE seen AS SELECT current_user::text AS role, "+strings.Join(settingsSeen(), ", ")+";")
	w.exec("GRANT CREATE ON DATABASE " + w.name + " TO " + w.owner)
	w.migrate("V2.1.0__reports.sql")
	w.exec("RESET ROLE")
	return w
}

// settingsSeen are what a script sees of its session.
func settingsSeen() []string {
	var all []string
	for _, name := range []string{"search_path", "lock_timeout", "statement_timeout", "row_security", "standard_conforming_strings", "client_encoding", "application_name"} {
		all = append(all, "current_setting('"+name+"') AS "+name)
	}
	return all
}

func TestWhatAScriptSetsEndsWithIt(t *testing.T) {
	for name, settings := range map[string]string{
		"search_path":                   "SET search_path TO reports;",
		"search_path for a transaction": "SET LOCAL search_path TO reports;",
		"search_path by a function":     "SELECT pg_catalog.set_config('search_path', 'reports', false);",
		"search_path in a block":        "DO $$ BEGIN SET LOCAL search_path TO reports; END $$;",
		"the header of a dump": "SET statement_timeout = 0; SET lock_timeout = 0; SET client_encoding = 'SQL_ASCII'; SET standard_conforming_strings = off;\n" +
			"SELECT pg_catalog.set_config('search_path', '', false); SET row_security = off; SET application_name = 'pg_dump';",
	} {
		for kind, with := range map[string]func(w *harness){
			"together":   func(*harness) {},
			"one by one": func(w *harness) { w.write("U2.1.0__reports.sql.conf", "executeInTransaction=false\n") },
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				w := twoVersions(t, settings)
				with(w)
				w.apply()
				if got := w.text("SELECT count(*)::text FROM reports.forecasts"); got != "1" || !w.lost() {
					t.Errorf("%s rows in reports.forecasts, public.forecasts gone: %t", got, w.lost())
				}
				got := w.text("SELECT concat_ws('|', role, search_path, lock_timeout, statement_timeout, row_security, standard_conforming_strings, client_encoding) FROM seen")
				if want := w.owner + `|"$user", public|5s|5min|on|on|UTF8`; got != want {
					t.Errorf("the next script saw %s, want %s", got, want)
				}
				if got := w.text("SELECT application_name FROM seen"); !strings.HasPrefix(got, "backout ") {
					t.Errorf("the next script's session is called %s", got)
				}
			})
		}
	}
}

// A role that is left set could not even write Flyway's row.
func TestARoleThatAScriptSetsEndsWithIt(t *testing.T) {
	for _, kind := range []string{"together", "one by one"} {
		t.Run(kind, func(t *testing.T) {
			w := twoVersions(t, "")
			w.write("U2.1.0__reports.sql", "DROP TABLE reports.summary; SET ROLE pg_signal_backend;")
			if kind == "together" {
				w.wants(w.prove(), "schema/tried", remediation.Pass, "2 scripts ran")
			} else {
				w.write("U2.1.0__reports.sql.conf", "executeInTransaction=false\n")
			}
			w.apply()
			if got := w.text("SELECT role FROM seen"); got != w.owner {
				t.Errorf("the next script ran as %s", got)
			}
		})
	}
}

func TestWhatAScriptSetsEndsWithItInATrial(t *testing.T) {
	w := twoVersions(t, "SET search_path TO reports; RESET SESSION AUTHORIZATION;")
	w.write(undo2, "DROP TABLE forecasts; DROP TABLE recommendations;\n"+
		"DO $$ BEGIN IF current_setting('lock_timeout') <> '2s' OR current_setting('statement_timeout') <> '5s' THEN RAISE 'no limits'; END IF; END $$;")
	w.wants(w.prove(), "schema/tried", remediation.Pass, "2 scripts ran")
}

func TestASchemaOfItsOwnIsFoundAfterAScriptThatSetsAnother(t *testing.T) {
	w := twoVersions(t, "SET search_path TO reports;")
	w.exec("ALTER SCHEMA public RENAME TO social; CREATE SCHEMA public")
	a, before := w.action(nil), w.untouched().Snapshot
	if err := a.Apply(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := w.text("SELECT concat_ws(' ', to_regclass('reports.forecasts'), to_regclass('social.forecasts'), to_regclass('social.seen'))"); got != "reports.forecasts social.seen" {
		t.Errorf("there are %s", got)
	}
}
