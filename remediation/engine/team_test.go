package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// chat is a channel of the team that keeps what it was told.
type chat struct {
	mu  sync.Mutex
	got []view.TeamMessage
	// receipts are those that each message came with.
	receipts []string
	// ids are those of the messages that told an entry, by its seq.
	ids map[int64][]int64
	// heads are where the audit log was said to end.
	heads []remediation.TeamLine
	down  error
}

func (*chat) Name() string { return "chat" }

func (c *chat) Deliver(_ context.Context, m remediation.Message) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down != nil {
		return "", c.down
	}
	var b view.TeamMessage
	if err := json.Unmarshal(m.Body, &b); err != nil {
		return "", err
	}
	if b.Story == nil && b.Told[0].Kind == "" {
		c.heads = append(c.heads, b.Told[0])
		return "", nil
	}
	c.got, c.receipts = append(c.got, b), append(c.receipts, m.Receipt)
	for _, l := range b.Told {
		if c.ids == nil {
			c.ids = map[int64][]int64{}
		}
		if !slices.Contains(c.ids[l.Seq], m.ID) { // a delivery that was not recorded is repeated
			c.ids[l.Seq] = append(c.ids[l.Seq], m.ID)
		}
	}
	return "at " + m.Key, nil
}

// told lists the titles of all that was told, in order.
func (c *chat) told() (titles []string) {
	for _, m := range c.got {
		for _, l := range m.Told {
			titles = append(titles, l.Title)
		}
	}
	return titles
}

// withTeam is a harness whose team has a chat.
func withTeam(t *testing.T, edit ...func(string) string) (*harness, *chat) {
	t.Helper()
	c := &chat{}
	w := newHarness(t, append(edit, replace("max_age: 5m", "max_age: 1h"), func(s string) string { return s + "communications: {slack_channel: \"#incidents\"}\n" })...)
	w.team = []remediation.Channel{c}
	w.start()
	return w, c
}

func TestTheTeamIsToldAsTheIncidentLives(t *testing.T) {
	w, c := withTeam(t)
	id := w.open()
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.calm("error_rate")
	w.pass(12 * time.Minute)
	w.is(id, remediation.Closed, "")
	if want := []string{"Rollout v2 alpha", "Outcome: 1-flag_off done", "Recovered", "Closed"}; !slices.Equal(c.told(), want) {
		t.Fatalf("the team was told %q, want %q", c.told(), want)
	}
	for i, m := range c.got[1:] {
		if m.Channel != "#incidents" || m.Story == nil || m.Story.ID != id {
			t.Fatalf("message %d: %+v", i, m)
		}
		if want := map[bool]string{true: "", false: "at " + id}[i == 0]; c.receipts[i+1] != want {
			t.Errorf("message %d came with receipt %q, want %q", i, c.receipts[i+1], want)
		}
		for _, l := range m.Told {
			if l.Seq == 0 || len(l.Hash) != 64 {
				t.Errorf("line %+v has no place in the log", l)
			}
		}
	}
	if last := c.got[len(c.got)-1].Story; last.State != remediation.Closed || last.Helped == "" || last.Broke[0].Bound != "above 1%" {
		t.Errorf("the last story: %+v", last)
	}
	if n := strings.Count(strings.Join(w.log(id), "\n"), "notified"); n != 1 {
		t.Errorf("%d entries of what the team was told, want that of the first message alone: %v", n, w.log(id))
	}
}

func TestTheTeamIsNotToldOfAnAlertThatProvesToBeNothing(t *testing.T) {
	w, c := withTeam(t)
	w.calm("error_rate")
	w.fire("error_rate", "fp1")
	w.pass(time.Minute)
	w.post("resolved", "error_rate", "fp1")
	w.pass(time.Minute)
	w.is("inc-1", remediation.Closed, "")
	if len(c.got) > 0 {
		t.Fatalf("the team was told %q", c.told())
	}
}

func TestTheTeamIsToldTheEndOfWhatItWasToldTheBeginningOf(t *testing.T) {
	w, c := withTeam(t)
	w.calm("error_rate")
	w.fire("error_rate", "fp1")
	w.must(w.change("inc-1", view.Claim, ""))
	w.must(w.change("inc-1", view.Close, ""))
	w.tick()
	if want := []string{"Claimed", "Closed"}; !slices.Equal(c.told(), want) {
		t.Fatalf("the team was told %q, want %q", c.told(), want)
	}
}

func TestTheTeamIsNotToldOfADrill(t *testing.T) {
	w, c := withTeam(t)
	w.breach("error_rate")
	w.fire("error_rate", "fp9", "drill", "true")
	w.pass(time.Minute)
	if len(c.got) > 0 {
		t.Fatalf("the team was told %q", c.told())
	}
}

func TestTheTeamIsToldWhatConcernsNoIncident(t *testing.T) {
	w, c := withTeam(t)
	freeze := remediation.Freeze{Scope: remediation.ScopeAll, By: "ann", Reason: "a release elsewhere"}
	if _, err := w.engine.PutFreeze(w.ctx, freeze); err != nil {
		t.Fatal(err)
	}
	w.tick()
	if len(c.got) != 1 || c.got[0].Story != nil || c.got[0].Channel != "#incidents" {
		t.Fatalf("the team was told %+v", c.got)
	}
	if l := c.got[0].Told[0]; l.Title != "Frozen all services" || l.Why != freeze.Reason || l.Actor != "ann" {
		t.Errorf("it was told %+v", l)
	}
}

func TestAChatThatIsDownDelaysNoStepAndIsToldLater(t *testing.T) {
	w, c := withTeam(t)
	c.down = context.DeadlineExceeded
	id := w.open()
	w.steps(id, remediation.StepDone, remediation.StepPending, remediation.StepPending)
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.start() // and nothing is forgotten
	c.down = nil
	w.pass(6 * time.Minute)
	got := slices.DeleteFunc(c.told(), func(title string) bool { return title == "Rollout v2 alpha" }) // of another key
	if len(got) < 2 || got[0] != "Outcome: 1-flag_off done" || got[1] != "Recovered" {
		t.Fatalf("the team was told %q", got)
	}
}

func TestWhereThePlaybookNamesNoChannelTheTeamIsToldNothing(t *testing.T) {
	c := &chat{}
	w := newHarness(t)
	w.team = []remediation.Channel{c}
	w.start()
	w.open()
	if len(c.got) > 0 {
		t.Fatalf("the team was told %q", c.told())
	}
}

func TestAnIncidentGraverThanThePlaybooksBoundStartsACall(t *testing.T) {
	for above, want := range map[int]bool{2: true, 3: false} {
		c := &chat{}
		w := newHarness(t, func(s string) string {
			return s + fmt.Sprintf("communications: {slack_channel: \"#incidents\", incident_call: {severity_above: %d, url: https://meet.example.com/shop}}\n", above)
		})
		w.team = []remediation.Channel{c}
		w.start()
		w.open()
		if s := c.got[1].Story; s.StartCall != want || (s.Call != "") != want || s.Severity != alerts.DefaultSeverity {
			t.Errorf("a call above %d: %+v", above, s)
		}
	}
}

func TestTheTeamIsToldOnceADayWhereTheAuditLogEnds(t *testing.T) {
	w, c := withTeam(t)
	w.tick()
	seq, hash, err := w.engine.Head(w.ctx)
	w.must(err)
	if got := c.heads; len(got) != 1 || got[0].Seq != seq || got[0].Hash != hash || !strings.Contains(got[0].Why, hash) {
		t.Fatalf("at the start the team was told %+v, want entry %d", got, seq)
	}
	w.declare("alpha") // it moves
	w.start()
	w.now = w.now.Add(23 * time.Hour)
	w.tick()
	if n := len(c.heads); n != 1 {
		t.Fatalf("told %d times within a day", n)
	}
	for range 3 {
		w.now = w.now.Add(2 * time.Hour)
		w.tick()
	}
	if n := len(c.heads); n != 2 {
		t.Fatalf("told %d times in a day and more, want 2", n)
	}
	for range 3 {
		w.now = w.now.Add(25 * time.Hour)
		w.tick()
	}
	if n := len(c.heads); n != 2 {
		t.Fatalf("told %d times, and it has not moved any more", n)
	}
}

// A reload concerns later incidents: those who run the service hear of this one to its end.
func TestTheTeamHearsOfAnOpenIncidentWhosePlaybookAReloadTookOut(t *testing.T) {
	w, c := withTeam(t, fullLadder)
	id := w.open()
	before := len(c.told())
	w.must(w.engine.Reload(w.ctx, []*alerts.Playbook{}, remediation.Reloaded{}))
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Close, ""))
	w.tick()
	if told := c.told()[before:]; !slices.Equal(told, []string{"Claimed", "Closed"}) {
		t.Fatalf("after the reload the team was told %q", told)
	}
	if last := c.got[len(c.got)-1]; last.Channel != "#incidents" || last.Story == nil || last.Story.ID != id {
		t.Errorf("the last message is %+v", last)
	}
}
