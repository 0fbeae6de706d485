package terminal

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestABarSaysHowMuchIsLeftInOneLine(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		done, all int
		after     time.Duration
		want      string
	}{
		{0, 98, 0, "values [................] 0 of 98 queries"},
		{49, 98, 30 * time.Second, "values [########........] 49 of 98 queries, 30 s left"},
		{98, 98, time.Minute, "values [################] 98 of 98 queries"},
		{1, 12345, time.Second, "values [................] 1 of 12345 queries, 3 h 26 min left"},
		{0, 0, 0, "values [................] 0 of 0 queries"},
	} {
		got := counted{doing: "values", unit: "queries", done: tc.done, all: tc.all, began: began}.bar(began.Add(tc.after))
		if got != tc.want || Width(got+" (1h12m30s)") >= Columns {
			t.Errorf("%d of %d after %s is %q, want %q", tc.done, tc.all, tc.after, got, tc.want)
		}
	}
}

// screen is a terminal in memory.
type screen struct {
	mu sync.Mutex
	bytes.Buffer
}

func (*screen) Terminal() bool { return true }

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.Write(b)
}

func (s *screen) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.String()
}

func TestABarIsShownOnATerminalOnly(t *testing.T) {
	var w screen
	p := StartProgress(&w, 5*time.Millisecond, true)
	p.Count("values", 1, 2, "queries")
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(w.shown(), "values [########........] 1 of 2 queries") && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	p.Count("replay", 3, 4, "hours")
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(w.shown(), "\rreplay [############....] 3 of 4 hours") && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	p.Done()
	if got := w.shown(); !strings.Contains(got, "1 of 2 queries") || !strings.Contains(got, "3 of 4 hours") || strings.Contains(got, "\n") || !strings.HasSuffix(got, " \r") {
		t.Errorf("shown: %q", got)
	}
	var file bytes.Buffer
	p = StartProgress(&file, time.Nanosecond, true)
	p.Count("values", 1, 2, "queries")
	if p.Done(); file.Len() > 0 {
		t.Errorf("in a file: %q", file.String())
	}
}
