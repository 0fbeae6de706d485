package postgres

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestAScriptIsSplitWhereTheServerWouldSplitIt(t *testing.T) {
	for script, want := range map[string][]string{
		"":                                  nil,
		" ;; \n-- a;\n/* b; /* c; */ d; */": nil,
		"SELECT 1; SELECT 2":                {"SELECT 1", "SELECT 2"},
		"SELECT ';'; -- ;\nSELECT 2;":       {"SELECT ';'", "SELECT 2"},
		`SELECT 'it''s;', E'\';', ";""";`:   {`SELECT 'it''s;', E'\';', ";"""`},
		`SELECT '\'; SELECT 2;`:             {`SELECT '\'`, "SELECT 2"},
		"SELECT nameE'a;'; x":               {"SELECT nameE'a;'", "x"},
		"DO $$ BEGIN; END; $$; SELECT $a$;$$;$a$; SELECT a$b; SELECT $1;":   {"DO $$ BEGIN; END; $$", "SELECT $a$;$$;$a$", "SELECT a$b", "SELECT $1"},
		"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3": {"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "SELECT 3"},
		"CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3": {
			"CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END", "SELECT 3"},
		"SELECT 'open; SELECT 2": {"SELECT 'open; SELECT 2"},
		"/* open; SELECT 2":      nil,
		"SELECT é, 1e5; x":       {"SELECT é, 1e5", "x"},
	} {
		var got []string
		for _, s := range split(script) {
			got = append(got, s.text)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n%q, want\n%q", script, got, want)
		}
	}
	if s := split("\n-- a\n\nSELECT\n1;\n /* \n */ SELECT 2"); s[0].line != 4 || s[1].line != 7 {
		t.Errorf("lines %d and %d", s[0].line, s[1].line)
	}
}

func TestStatementsThatNeedNoTransactionAreTold(t *testing.T) {
	for sql, want := range map[string]bool{
		"DROP INDEX CONCURRENTLY a": true, "create unique index concurrently on t (a)": true, "REINDEX (VERBOSE) TABLE CONCURRENTLY t": true,
		"ALTER TABLE t DETACH PARTITION p CONCURRENTLY": true, "VACUUM": true, "vacuum full t": true, "DROP DATABASE d": true, "CLUSTER": true,
		"ALTER SYSTEM SET a = 1": true, "DISCARD ALL": true, "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p": true,
		"DROP INDEX a": false, "CLUSTER t USING i": false, "REFRESH MATERIALIZED VIEW CONCURRENTLY v": false, "ALTER TYPE t ADD VALUE 'x'": false,
		`DROP TABLE "CONCURRENTLY"`: false, "DROP TABLE t -- CONCURRENTLY": false,
	} {
		if got := split(sql)[0].alone(); got != want {
			t.Errorf("%s: %v", sql, got)
		}
	}
}

func TestTransactionsOfAScriptsOwnAreRefused(t *testing.T) {
	for sql, want := range map[string]bool{
		"BEGIN": true, "start transaction": true, "COMMIT AND CHAIN": true, "END": true, "ROLLBACK": true, "abort": true, "PREPARE TRANSACTION 'x'": true,
		"\\set a 1": true, "COPY t FROM STDIN": true, "copy t (a) from stdin": true,
		"SAVEPOINT a": false, "ROLLBACK TO a": false, "ROLLBACK WORK TO SAVEPOINT a": false, "RELEASE a": false, "PREPARE p AS SELECT 1": false,
		"COPY t TO '/tmp/x'": false, "DO $$ BEGIN COMMIT; END $$": false, `SELECT '\d'`: false, "SET CONSTRAINTS ALL DEFERRED": false,
	} {
		if got := split(sql)[0].refused() != ""; got != want {
			t.Errorf("%s: %v", sql, got)
		}
	}
}

// 1715188512 is what Flyway itself writes for the script of its first tutorial.
func TestAChecksumIsFlyways(t *testing.T) {
	script := "create table PERSON (\n    ID int not null,\n    NAME varchar(100) not null\n);\n"
	for _, text := range []string{script, strings.TrimSuffix(script, "\n"), strings.ReplaceAll(script, "\n", "\r\n"), strings.ReplaceAll(script, "\n", "\r")} {
		if got := checksum(text); got != 1715188512 {
			t.Errorf("%q: %d", text, got)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "V1__a.sql"), []byte("\ufeff"+script), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := readScripts(dir)
	if err != nil || found.versions[0].checksum != 1715188512 {
		t.Errorf("with a byte order mark: %v, %+v", err, found)
	}
}

func TestVersionsAreNumbers(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"1", "1.0", 0}, {"2.0.0", "2", 0}, {"1_5", "1.5", 0}, {"10", "9", 1}, {"1.10", "1.9", 1}, {"1.0.1", "1", 1}, {"20260101120000", "3", 1}, {"0", "0.1", -1}} {
		a, errA := parseVersion(c.a)
		b, errB := parseVersion(c.b)
		if got := a.compare(b); got != c.want || errA != nil || errB != nil {
			t.Errorf("%s and %s: %d, %v %v", c.a, c.b, got, errA, errB)
		}
	}
	for _, text := range []string{"", "v1", "1.x", "-1", "99999999999999999999"} {
		if v, err := parseVersion(text); err == nil {
			t.Errorf("%q is %v", text, v)
		}
	}
}

func TestAHistoryKeepsWhatWasUndone(t *testing.T) {
	w := newHarness(t)
	w.row("2.0.0", "x", "UNDO_SQL", "U2.sql", "NULL", true)
	w.row("1.5", "out of order", "SQL", "V1.5.sql", "1", true)
	w.row("", "views", "SQL", "R__views.sql", "1", true)
	w.exec("UPDATE flyway_schema_history SET version = NULL WHERE version = ''")
	h, err := readHistory(t.Context(), w.admin)
	if err != nil {
		t.Fatal(err)
	}
	two := version{2}
	if h.current() != "1.5" || h.isApplied(two) || !h.known(two) || h.lastRank != 5 || len(h.above(version{1})) != 1 {
		t.Errorf("at %s of %+v", h.current(), h)
	}
	w.row("2.0.0", "again", "SQL", "V2.sql", "1", true)
	w.row("1.5", "missing", "DELETE", "V1.5.sql", "1", true)
	if h, err = readHistory(t.Context(), w.admin); err != nil || h.current() != "2.0.0" || h.isApplied(version{1, 5}) {
		t.Errorf("at %s, %v", h.current(), err)
	}
}

func TestAnAddressIsReadWithoutTellingIt(t *testing.T) {
	for text, want := range map[string]string{
		"postgres://u:s3cret@h/d": "PGDATABASE=d PGHOST=h PGPORT=5432 PGSSLMODE=prefer PGUSER=u",
		"postgresql://u:s3cret@h:5433/d?sslmode=verify-full&sslrootcert=/ca": "",
		"postgres://u:s3cret@/d?host=/run/pg&port=5434":                      "PGDATABASE=d PGHOST=/run/pg PGPORT=5434 PGSSLMODE=prefer PGUSER=u",
		"postgres://u:s3%3Acret@h:5433/d?sslmode=disable":                    "PGDATABASE=d PGHOST=h PGPORT=5433 PGSSLMODE=disable PGUSER=u",
	} {
		a, err := parseAddress(text)
		if want == "" {
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil || strings.Join(a.environ(), " ") != want {
			t.Errorf("%s: %v, %v", text, a, err)
		}
	}
	for _, text := range []string{
		"", "s3cret", "host=h password=s3cret", "mysql://u:s3cret@h/d", "postgres://u:s3cret@h", "postgres://u:s3cret@/d", "postgres://:s3cret@h/d",
		"postgres://u:s3cret@h,i/d", "postgres://u:s3cret@h:x/d", "postgres://u:s3cret@h/d\npostgres://u:s3cret@h/e", "postgres://u:s3cret@h/d?options=-c",
		"postgres://u:s3cret%zz@h/d",
	} {
		if _, err := parseAddress(text); err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "try: ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
