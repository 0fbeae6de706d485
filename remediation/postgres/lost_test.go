package postgres

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
)

func TestAllThatIsCountedCanBeLost(t *testing.T) {
	w := newHarness(t)
	w.spec.Tables = []string{"forecasts", "public.recommendations"}
	w.apply()
	after := parsed(t, w.position(op, remediation.Wanted).Snapshot)
	if got := remediation.LostWords(after.Lost); got != "table public.forecasts (5 rows), table public.recommendations (1 row)" {
		t.Errorf("lost: %s", got)
	}
}

func TestRowsOfAnOlderReleaseDoNotTellWhatIsLost(t *testing.T) {
	w := newHarness(t)
	before, err := w.counted()
	if err != nil {
		t.Fatal(err)
	}
	w.exec("DELETE FROM posts")
	after, err := w.counted()
	if err != nil {
		t.Fatal(err)
	}
	if got := remediation.LostWords(lost(before, after)); got != "10 rows of public.posts" {
		t.Errorf("lost: %s", got)
	}
	if got := lost(before, bareRows(after)); got != nil {
		t.Errorf("lost: %s", remediation.LostWords(got))
	}
}

func TestATableThatBecameAnExtensionsIsNotLost(t *testing.T) {
	w := newHarness(t)
	before, err := w.counted()
	if err != nil {
		t.Fatal(err)
	}
	w.exec("ALTER EXTENSION plpgsql ADD TABLE posts")
	after, err := w.counted()
	if err != nil {
		t.Fatal(err)
	}
	w.exec("ALTER EXTENSION plpgsql DROP TABLE posts")
	if got := lost(before, after); got != nil {
		t.Errorf("lost: %s", remediation.LostWords(got))
	}
}

func (w *harness) counted() ([]rows, error) {
	return (&work{rollback: w.action(nil).(*rollback)}).countAll(w.t.Context(), w.admin)
}

func TestTheWayBackNamesATableInItsSchema(t *testing.T) {
	w := newHarness(t)
	w.exec("SET ROLE " + w.owner + `; CREATE SCHEMA "the other's";
		CREATE TABLE "the other's".forecasts AS SELECT 7 AS n; CREATE TABLE "the other's".gone AS SELECT 8 AS n;
		CREATE TABLE "the other's".posts AS SELECT 9 AS n; CREATE TABLE "the other's".channels AS SELECT 1 AS n, 2 AS m; RESET ROLE`)
	w.write("U2.0.0__rollback_analytics.sql", "DROP TRIGGER posts_judge ON posts; DROP FUNCTION judge(); ALTER TABLE posts DROP COLUMN sentiment; DROP TABLE recommendations, forecasts;"+`
		DROP TABLE "the other's".gone; ALTER TABLE "the other's".channels DROP COLUMN m;`)
	w.apply()
	state := w.state()
	after := parsed(t, w.position(op, remediation.Wanted).Snapshot)
	ways := remediation.WaysBack(after.Dump.Path, after.DSNFile, after.Database, after.Lost)
	for _, way := range ways[:len(ways)-1] {
		run(t, way.Command)
	}
	file := strings.TrimSuffix(after.Dump.Path, ".dump")
	load := "psql --quiet --set=ON_ERROR_STOP=1 --single-transaction --dbname=" + quoted(w.dsn()) + " --file="
	run(t, load+quoted(file+"-lost.sql"))
	const loaded = "SELECT concat_ws(' ', (SELECT count(*) FROM forecasts), (SELECT count(*) FROM recommendations), (SELECT sum(n) FROM \"the other's\".gone), (SELECT sum(n) FROM \"the other's\".forecasts))"
	if got := w.text(loaded); got != "5 1 8 7" {
		t.Errorf("loaded: %s", got)
	}
	w.exec(`DROP TABLE forecasts, recommendations, "the other's".gone`)
	if got := w.state(); got != state {
		t.Errorf("the database is\n%s\nand was\n%s", got, state)
	}

	// The tables that are changed load where they are not there.
	w.exec(`DROP TABLE posts, "the other's".channels`)
	run(t, load+quoted(file+"-changed.sql"))
	if got := w.text(`SELECT concat_ws(' ', (SELECT count(*) FROM channels), (SELECT count(*) FROM posts WHERE sentiment IS NULL), (SELECT sum(n) FROM "the other's".posts), (SELECT sum(m) FROM "the other's".channels))`); got != "2 10 9 2" {
		t.Errorf("loaded: %s", got)
	}
}
