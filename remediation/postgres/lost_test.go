package postgres

import (
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
