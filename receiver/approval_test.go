package receiver

import (
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

// ask is the card of an approval, as both of its pages show it.
func (s *testService) ask(t *testing.T, id string) (cards []string) {
	t.Helper()
	for _, path := range []string{"/", "/incidents/" + id} {
		page := s.page(path, "eve")
		_, card, ok := strings.Cut(page, `<section class="card ask"`)
		if !ok {
			t.Fatalf("%s asks nothing:\n%s", path, page)
		}
		card, _, _ = strings.Cut(card, "</section>")
		cards = append(cards, card)
	}
	return cards
}

func TestAnApprovalShowsNoStaleValueAsPresent(t *testing.T) {
	s := newTestService(t)
	id := s.breach()
	s.asks(id)
	s.beat()
	s.pass(time.Minute)
	for _, card := range s.ask(t, id) {
		if !strings.Contains(card, `class="beyond">3.4%</strong>, <span data-at=`) {
			t.Errorf("the value's age is not shown:\n%s", card)
		}
	}
	s.mu.Lock()
	s.now = s.now.Add(4 * time.Minute) // and nothing polls
	s.mu.Unlock()
	for _, card := range s.ask(t, id) {
		if !strings.Contains(card, "3.4%</strong>") || !strings.Contains(card, ">4 min ago</span>; trigger is above 1%") {
			t.Errorf("an old value is shown without its age:\n%s", card)
		}
	}
	s.mu.Lock()
	s.away = remediation.ErrNoAnswer
	s.mu.Unlock()
	s.pass(time.Minute)
	for _, card := range s.ask(t, id) {
		if strings.Contains(card, "3.4%") || !strings.Contains(card, "not known: Prometheus does not answer; trigger is above 1%") {
			t.Errorf("Prometheus is away, and the card says\n%s", card)
		}
	}
}

func TestAnApprovalSaysWhereTheSnapshotIsThoughNeverRehearsed(t *testing.T) {
	s := newTestService(t)
	id := s.breach()
	s.asks(id)
	for _, card := range s.ask(t, id) {
		if !strings.Contains(card, "a snapshot of the whole database is taken first in /var/lib/backout/snapshots") || !strings.Contains(card, "snapshot's size are not known") && !strings.Contains(card, "snapshot&#39;s size are not known") {
			t.Errorf("it says\n%s", card)
		}
	}
}
