package statuspage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

func logger(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// wait lets the fake's clock go on.
func (f *fake) wait(ctx context.Context, d time.Duration) error {
	f.pass(d)
	return ctx.Err()
}

const key = "shop/inc-1@1"

// message is one update of an incident about two components.
func message(n int, status remediation.PublicStatus, component remediation.ComponentStatus) remediation.Message {
	shown := component
	if status == remediation.PublicResolved {
		shown = remediation.Operational
	}
	return messageOf(remediation.PublicMessage{
		Key: key, Name: "Problems with Shop", Impact: remediation.ImpactMajor,
		Components: []remediation.PublicComponent{
			{Name: "Shop", Status: shown, Trouble: component}, {Name: "Analytics", Status: shown, Trouble: component},
		},
		Update: remediation.PublicUpdate{Number: n, Status: status, Words: fmt.Sprint("Words ", n)},
	})
}

func messageOf(m remediation.PublicMessage) remediation.Message {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return remediation.Message{Channel: Name, Key: "inc-1", Body: b}
}

// test is a fake page and a client of it.
type test struct {
	*testing.T
	*fake
	page *Page
	log  bytes.Buffer
}

func begin(t *testing.T, components ...string) *test {
	t.Helper()
	x := &test{T: t, fake: newFake(t, components...)}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	x.page = x.client(transport, &x.log)
	t.Cleanup(func() {
		if x.slow > 0 {
			t.Errorf("%d requests came within a second of another", x.slow)
		}
		if strings.Contains(x.log.String(), apiKey) {
			t.Error("the log tells the key")
		}
	})
	return x
}

// withKey is a client of the same page with another key, after a pause: no client knows of
// another's turns.
func (x *test) withKey(key string) *Page {
	x.Helper()
	p, err := New(Options{URL: x.url, Page: pageID, Key: key, Transport: http.DefaultTransport, Now: x.clock, Wait: x.wait, Logger: logger(&x.log)})
	if err != nil {
		x.Fatal(err)
	}
	x.rest()
	return p
}

func (x *test) rest() {
	x.Helper()
	if err := x.wait(x.Context(), pace); err != nil {
		x.Fatal(err)
	}
}

// deliver delivers one message and returns why not.
func (x *test) deliver(m remediation.Message) error {
	_, err := x.page.Deliver(x.Context(), m)
	if err != nil && strings.Contains(err.Error(), apiKey) {
		x.Error("the error tells the key")
	}
	return err
}

func (x *test) delivers(m remediation.Message) {
	x.Helper()
	if err := x.deliver(m); err != nil {
		x.Fatal(err)
	}
}

// shows checks what stands on the page: each incident's updates, newest incident
// first, and each component's status.
func (x *test) shows(incidents string, components ...remediation.ComponentStatus) {
	x.Helper()
	var got []string
	for _, in := range x.incidents {
		var ups []string
		for _, u := range in.Updates {
			ups = append(ups, u.Status)
		}
		got = append(got, in.ID+": "+strings.Join(ups, " "))
	}
	if s := strings.Join(got, "; "); s != incidents {
		x.Errorf("the page shows %q, want %q", s, incidents)
	}
	var states []remediation.ComponentStatus
	for _, c := range x.components {
		states = append(states, c.Status)
	}
	if !slices.Equal(states, components) {
		x.Errorf("the components are %v, want %v", states, components)
	}
}

var life = []remediation.Message{
	message(1, remediation.PublicIdentified, remediation.DegradedPerformance),
	message(2, remediation.PublicIdentified, remediation.PartialOutage),
	message(3, remediation.PublicMonitoring, remediation.PartialOutage),
	message(4, remediation.PublicResolved, remediation.PartialOutage),
}

func TestAnIncidentIsOpenedUpdatedAndResolved(t *testing.T) {
	x := begin(t, "Shop", "Other", "Analytics")
	x.delivers(life[0])
	x.shows("inc1: identified", remediation.DegradedPerformance, remediation.Operational, remediation.DegradedPerformance)
	x.delivers(life[1])
	x.delivers(life[2])
	x.shows("inc1: identified identified monitoring", remediation.PartialOutage, remediation.Operational, remediation.PartialOutage)
	x.delivers(life[3])
	x.shows("inc1: identified identified monitoring resolved", remediation.Operational, remediation.Operational, remediation.Operational)
	in := x.incidents[0]
	if in.Name != "Problems with Shop" || in.Impact != "major" || in.Updates[1].Body != "Words 2" || slices.Contains(in.notified, true) {
		t.Errorf("%+v", in)
	}
	want := []string{
		"GET /incidents/unresolved", "GET /components", "POST /incidents",
		"GET /incidents/unresolved", "PATCH /incidents/inc1", "GET /incidents/unresolved", "PATCH /incidents/inc1",
		"GET /incidents/unresolved", "PATCH /incidents/inc1",
	}
	if !slices.Equal(x.requests, want) {
		t.Errorf("asked %q, want %q", x.requests, want)
	}
}

func TestSubscribersAreWrittenToOnlyWhereThePlaybookSaysSo(t *testing.T) {
	x := begin(t)
	x.delivers(messageOf(remediation.PublicMessage{
		Key: key, Name: "a", Impact: remediation.ImpactMinor, NotifySubscribers: true,
		Update: remediation.PublicUpdate{Number: 1, Status: remediation.PublicIdentified, Words: "w"},
	}))
	if !slices.Equal(x.incidents[0].notified, []bool{true}) {
		t.Errorf("%+v", x.incidents[0])
	}
}

// TestACutAnswerDoublesNothing cuts every request of an incident's life off, before
// and after it has had its effect; the outbox then delivers the message again.
func TestACutAnswerDoublesNothing(t *testing.T) {
	const requests = 9
	for _, effect := range []bool{false, true} {
		for n := 1; n <= requests; n++ {
			x := begin(t, "Shop", "Analytics")
			x.then(n, answer{effect: effect})
			failed := 0
			for _, m := range life {
				for x.deliver(m) != nil {
					if failed++; failed > 1 {
						t.Fatalf("request %d cut (effect %v): it failed again", n, effect)
					}
				}
			}
			if failed != 1 {
				t.Errorf("request %d was cut, and nothing failed", n)
			}
			x.shows("inc1: identified identified monitoring resolved", remediation.Operational, remediation.Operational)
			if t.Failed() {
				t.Fatalf("request %d cut (effect %v): %v", n, effect, x.requests)
			}
		}
	}
}

func TestAServerInTroubleIsTriedAgain(t *testing.T) {
	for _, code := range []int{500, 502, 503, 504, 408} {
		for _, effect := range []bool{false, true} {
			x := begin(t, "Shop", "Analytics")
			x.then(3, answer{code: code, text: "<html>oops", effect: effect})
			err := x.deliver(life[0])
			if err == nil || !strings.Contains(err.Error(), fmt.Sprint(code)) || undeliverable(err) {
				t.Fatalf("%d: %v", code, err)
			}
			x.delivers(life[0])
			x.shows("inc1: identified", remediation.DegradedPerformance, remediation.DegradedPerformance)
		}
	}
}

// undeliverable reports whether an error says that trying again does not help.
func undeliverable(err error) bool {
	var never interface{ Undeliverable() }
	return errors.As(err, &never)
}

// rest is what an error asks for; -1 where it asks for none.
func rest(err error) time.Duration {
	var wait interface{ RetryAfter() time.Duration }
	if !errors.As(err, &wait) || undeliverable(err) {
		return -1
	}
	return wait.RetryAfter()
}

func TestARequestForRestIsPassedOn(t *testing.T) {
	for _, code := range []int{420, 429, 503} {
		for header, want := range map[string]time.Duration{"60": time.Minute, "Sun, 22 Nov 2026 03:05:00 GMT": 5 * time.Minute} {
			x := begin(t, "Shop", "Analytics")
			x.then(1, answer{code: code, text: `{"error":"slow down"}`, retryAfter: header})
			err := x.deliver(life[0])
			if rest(err) != want || !strings.Contains(err.Error(), "slow down") {
				t.Fatalf("%d %s: rest %s, want %s: %v", code, header, rest(err), want, err)
			}
			x.delivers(life[0])
		}
	}
	x := begin(t)
	x.then(1, answer{code: 429})
	if err := x.deliver(life[0]); rest(err) != restWithout {
		t.Errorf("429 without a time: %v", err)
	}
}

func TestWhatIsRefusedForGoodIsNotTriedAgain(t *testing.T) {
	for code, try := range map[int]string{400: "", 404: "statuspage.page", 422: "", 301: ""} {
		x := begin(t, "Shop", "Analytics")
		x.then(1, answer{code: code, text: `{"error":"no, ` + apiKey + "\x1b[31m" + strings.Repeat(" no", 500) + `"}`})
		err := x.deliver(life[0])
		if !undeliverable(err) || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), fmt.Sprint(code)) || !strings.Contains(err.Error(), try) || len(err.Error()) > 600 {
			t.Errorf("%d: %v", code, err)
		}
	}
	x := begin(t)
	if err := x.deliver(remediation.Message{Body: json.RawMessage(`[]`)}); !undeliverable(err) {
		t.Errorf("an odd message: %v", err)
	}
}

func TestTheKeyIsNotTakenElsewhere(t *testing.T) {
	x := begin(t)
	elsewhere := newFake(t)
	x.then(1, answer{code: http.StatusTemporaryRedirect, location: elsewhere.url + "/v1/pages/" + pageID + "/incidents/unresolved"})
	if err := x.deliver(life[0]); !undeliverable(err) || len(elsewhere.requests) > 0 {
		t.Errorf("followed to %v: %v", elsewhere.requests, err)
	}
}

func TestAKeyThatRanOutLosesNothing(t *testing.T) {
	x := begin(t, "Shop", "Analytics")
	x.delivers(life[0])
	for _, code := range []int{401, 403} {
		x.then(1, answer{code: code, text: `{"error":"no, ` + apiKey + `"}`})
		err := x.deliver(life[1])
		if err == nil || undeliverable(err) || !strings.Contains(err.Error(), "api_key_file") || strings.Contains(err.Error(), apiKey) {
			t.Errorf("%d: %v", code, err)
		}
	}
	if _, err := x.withKey("another").Deliver(t.Context(), life[1]); err == nil || undeliverable(err) {
		t.Errorf("a wrong key: %v", err)
	}
	x.rest()
	x.delivers(life[1])
}

func TestWhatSomebodyDeletedIsOpenedAgainOnlyWhileItGoesOn(t *testing.T) {
	gone := func(f *fake) { f.incidents = nil }
	byHand := func(f *fake) { f.incidents[0].Status = "resolved" }
	for name, c := range map[string]struct {
		remove    func(*fake)
		within    int // the request within which it happens; 0: before
		next      remediation.Message
		incidents string
		component remediation.ComponentStatus
	}{
		"deleted, and worse":              {gone, 0, life[1], "inc1: identified", remediation.PartialOutage},
		"deleted between look and update": {gone, 2, life[1], "inc1: identified", remediation.PartialOutage},
		"deleted, and stopped":            {gone, 0, life[2], "", remediation.DegradedPerformance},
		"deleted, and over":               {gone, 0, message(2, remediation.PublicResolved, remediation.DegradedPerformance), "", remediation.Operational},
		"deleted within the last update":  {gone, 2, message(2, remediation.PublicResolved, remediation.DegradedPerformance), "", remediation.Operational},
		"resolved by hand, and worse":     {byHand, 0, life[1], "inc2: identified; inc1: identified", remediation.PartialOutage},
		"resolved by hand, and stopped":   {byHand, 0, life[2], "inc1: identified", remediation.DegradedPerformance},
		"resolved by hand, and over":      {byHand, 0, message(2, remediation.PublicResolved, remediation.DegradedPerformance), "inc1: identified", remediation.Operational},
	} {
		t.Run(name, func(t *testing.T) {
			x := begin(t, "Shop", "Analytics")
			x.delivers(life[0])
			if c.within == 0 {
				c.remove(x.fake)
			} else {
				x.then(c.within, answer{first: c.remove})
			}
			x.delivers(c.next)
			x.shows(c.incidents, c.component, c.component)
		})
	}
}

func TestWhatComesBackAfterItWasResolvedIsANewIncident(t *testing.T) {
	x := begin(t, "Shop", "Analytics")
	for _, m := range life {
		x.delivers(m)
	}
	again := message(5, remediation.PublicInvestigating, remediation.Operational)
	x.delivers(again)
	x.delivers(again) // its answer was lost
	x.delivers(message(6, remediation.PublicIdentified, remediation.PartialOutage))
	x.shows("inc2: investigating identified; inc1: identified identified monitoring resolved", remediation.PartialOutage, remediation.PartialOutage)
}

func TestAComponentThatSomebodyChangedIsNotGivenBack(t *testing.T) {
	x := begin(t, "Shop", "Analytics")
	x.delivers(life[0])
	x.incidents = nil
	x.set("cmp1", remediation.MajorOutage)
	x.delivers(message(2, remediation.PublicResolved, remediation.DegradedPerformance))
	x.shows("", remediation.MajorOutage, remediation.Operational)
}

func TestAComponentThatThePageDoesNotHaveIsLoggedAndTheIncidentTold(t *testing.T) {
	x := begin(t, "Analytics", "Twice", "Twice")
	m := remediation.PublicMessage{
		Key: key, Name: strings.Repeat("ö", 300), Impact: remediation.ImpactMinor,
		Update: remediation.PublicUpdate{Number: 1, Status: remediation.PublicIdentified, Words: "w"},
	}
	for _, name := range []string{"Analytics", "Shop", "Twice"} {
		m.Components = append(m.Components, remediation.PublicComponent{Name: name, Status: remediation.PartialOutage})
	}
	x.delivers(messageOf(m))
	x.shows("inc1: identified", remediation.PartialOutage, remediation.Operational, remediation.Operational)
	if log := x.log.String(); !strings.Contains(log, "component=Shop") || !strings.Contains(log, "component=Twice") {
		t.Errorf("the log says %s", log)
	}
	// Once the page has it, it is found: not at once, but soon.
	x.components = append(x.components, component{ID: "late", Name: "Shop", Status: remediation.Operational})
	m.Update.Number = 2
	x.delivers(messageOf(m))
	x.shows("inc1: identified identified", remediation.PartialOutage, remediation.Operational, remediation.Operational, remediation.Operational)
	x.pass(11 * time.Minute)
	m.Update.Number = 3
	x.delivers(messageOf(m))
	x.shows("inc1: identified identified identified", remediation.PartialOutage, remediation.Operational, remediation.Operational, remediation.PartialOutage)
}

func TestAComponentThatIsGoneSinceIsLookedForAgain(t *testing.T) {
	x := begin(t, "Shop", "Analytics")
	x.delivers(life[0])
	x.components = []component{{ID: "new", Name: "Shop", Status: remediation.Operational}}
	x.delivers(life[1])
	x.shows("inc1: identified identified", remediation.PartialOutage)
}

func TestLongListsAreReadToTheirEnd(t *testing.T) {
	x := begin(t)
	for i := range 250 {
		x.components = append(x.components, component{ID: fmt.Sprint("c", i), Name: fmt.Sprint("Part ", i), Status: remediation.Operational})
		x.incidents = append(x.incidents, &fakeIncident{ID: fmt.Sprint("i", i), Status: "identified", Metadata: map[string]map[string]string{"backout": {"incident": "another"}}})
	}
	x.components = append(x.components, component{ID: "group", Name: "Shop", Group: true}, component{ID: "last", Name: "Shop", Status: remediation.Operational})
	x.incidents = append(x.incidents, &fakeIncident{
		ID: "mine", Status: "identified", Metadata: map[string]map[string]string{"backout": {"incident": key, "update": "1"}},
	})
	x.delivers(life[0])
	if last := x.incidents[250]; len(x.incidents) != 251 || len(last.Updates) != 0 {
		t.Errorf("the update is there already, and was told again: %+v", last)
	}
	x.delivers(life[1])
	if last := x.incidents[250]; len(x.incidents) != 251 || len(last.Updates) != 1 || x.component("last").Status != remediation.PartialOutage {
		t.Errorf("%+v", last)
	}
}

func TestAnAnswerThatIsNoneIsNotBelieved(t *testing.T) {
	for n := 1; n <= 2; n++ {
		x := begin(t, "Shop", "Analytics")
		x.then(n, answer{code: 200, text: "<html>maintenance</html>"})
		if err := x.deliver(life[0]); err == nil || undeliverable(err) {
			t.Errorf("request %d: %v", n, err)
		}
		if len(x.incidents) != 0 {
			t.Error("an incident was opened all the same")
		}
		x.delivers(life[0])
	}
}

func TestADeliveryEndsWithItsContext(t *testing.T) {
	x := begin(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x.page.Deliver(ctx, life[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestAHalfConfiguredPageIsRefused(t *testing.T) {
	for _, o := range []Options{{URL: "api.statuspage.io", Page: "a", Key: "b"}, {URL: "https://api.statuspage.io", Key: "b"}, {URL: "https://api.statuspage.io", Page: "a"}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}
