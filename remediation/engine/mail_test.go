package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// long is a playbook whose incidents are mailed after 30 minutes.
func long(s string) string {
	return s + "communications: {slack_channel: \"#incidents\", mail: {after: 30m, to: [a@example.com, b@example.com, a@example.com]}, " +
		"status_page: {components: [{name: Analytics}], url: https://status.example.com}}\n"
}

// withMail is a harness that tells a page, writes mail and has a team.
func withMail(t *testing.T, edit ...func(string) string) (w *harness, post *page, team *chat) {
	t.Helper()
	post, team = &page{name: "mail"}, &chat{}
	w = newHarness(t, announcing(append([]func(string) string{replace("max_age: 5m", "max_age: 9h"), long}, edit...)...)...)
	w.pages, w.mail, w.team = []remediation.Channel{&page{name: "statuspage"}}, []remediation.Channel{post}, []remediation.Channel{team}
	w.start()
	return w, post, team
}

// letters are the mails that went out: to whom, and what.
func (p *page) letters() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.got {
		out = append(out, fmt.Sprintf("%s %d %s first %d", m.Mail.To, m.Update.Number, m.Update.Status, m.Mail.First))
	}
	return out
}

func sent(t *testing.T, p *page, want ...string) {
	t.Helper()
	if got := p.letters(); !slices.Equal(got, want) {
		t.Fatalf("mailed\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func titles(team *chat, word string) (out []string) {
	for _, title := range team.told() {
		if strings.Contains(title, word) {
			out = append(out, title)
		}
	}
	return out
}

// stuck opens an incident that goes on: everything was done but what needs a yes.
func (w *harness) stuck() string {
	w.t.Helper()
	id := w.open()
	w.pass(29 * time.Minute)
	return id
}

func TestCustomersAreMailedOnceAnIncidentLastsAndThenToldOfEachFurtherUpdate(t *testing.T) {
	w, post, team := withMail(t)
	id := w.stuck()
	sent(t, post)
	w.pass(2 * time.Minute)
	first := []string{"a@example.com 2 identified first 2", "b@example.com 2 identified first 2"}
	sent(t, post, first...)
	m := post.got[0]
	told := w.public(id)
	if m.Update.Words != told.Updates[1].Words || m.Name != told.Name || m.Mail.Page != "https://status.example.com" || !m.Mail.Since.Equal(told.Created) {
		t.Errorf("the mail says %+v (%+v), the page %+v", m, m.Mail, told)
	}
	if got, want := titles(team, "mail"), []string{"Notified: customers by mail: the incident lasts longer than 30 min"}; !slices.Equal(got, want) {
		t.Errorf("the team was told %q, want %q", got, want)
	}
	w.start() // a restart mails nothing again
	w.pass(5 * time.Minute)
	sent(t, post, first...)

	w.calm("error_rate")
	w.pass(30 * time.Minute)
	w.is(id, remediation.Closed, "")
	all := append(first, "a@example.com 3 monitoring first 2", "b@example.com 3 monitoring first 2", "a@example.com 4 resolved first 2", "b@example.com 4 resolved first 2")
	sent(t, post, all...)

	w.post("resolved", "error_rate", "fp1") // and so does a reopened one, but for what is new
	w.breach("error_rate")
	w.fire("error_rate", "fp1")
	w.pass(5 * time.Minute)
	for _, l := range post.letters()[len(all):] {
		if strings.Contains(l, " 1 ") || strings.Contains(l, " 2 ") || strings.Contains(l, " 3 ") || strings.Contains(l, " 4 ") {
			t.Errorf("mailed again: %s", l)
		}
	}
	if len(post.letters()) == len(all) {
		t.Error("nothing was mailed of the reopened incident")
	}
}

func TestAShortIncidentIsNotMailed(t *testing.T) {
	w, post, team := withMail(t)
	id := w.open()
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.calm("error_rate")
	w.pass(2 * time.Hour)
	w.is(id, remediation.Closed, "")
	if got := titles(team, "mail"); len(post.letters()) != 0 || len(got) != 0 {
		t.Fatalf("mailed %q, the team was told %q", post.letters(), got)
	}
}

func TestWhatThePublicWasNotToldIsNotMailedAndTheTeamHearsOfItOnce(t *testing.T) {
	const says = "Notified: the team: no mail to customers, although the incident lasts longer than 30 min"
	for name, set := range map[string]func(w *harness){
		"observe mode":   func(w *harness) { w.mode = remediation.Observe },
		"no mail server": func(w *harness) { w.mail = nil },
	} {
		t.Run(name, func(t *testing.T) {
			w, post, team := withMail(t)
			set(w)
			w.start()
			id := w.open()
			w.pass(2 * time.Hour)
			w.start()
			w.pass(time.Minute)
			sent(t, post)
			if got := titles(team, "mail"); !slices.Equal(got, []string{says}) {
				t.Errorf("the team was told %q, want %q once; log: %v", got, says, w.log(id))
			}
			n := 0
			for _, e := range w.entries(id) {
				if e.Detail["channel"] == "mail" {
					n++
				}
			}
			if n != 1 {
				t.Errorf("the audit log says so %d times, want once", n)
			}
		})
	}
}

func TestAClaimedIncidentIsMailedOnceThePublicIsTold(t *testing.T) {
	w, post, team := withMail(t)
	w.declare("alpha")
	w.breach("error_rate")
	id := w.post("firing", "error_rate", "fp1").Incidents[0]
	w.must(w.change(id, view.Claim, ""))
	w.pass(40 * time.Minute)
	sent(t, post)
	if got := titles(team, "no mail"); len(got) != 1 {
		t.Fatalf("the team was told %q, want that no customer is mailed, once", got)
	}
	w.must(w.change(id, view.Release, ""))
	w.pass(time.Minute)
	if got := post.letters(); len(got) < 2 || !strings.HasPrefix(got[0], "a@example.com 1 identified") {
		t.Fatalf("mailed %q after the public was told; log: %v", got, w.log(id))
	}
}

func TestADrillIsNotMailed(t *testing.T) {
	w, post, team := withMail(t)
	w.declare("alpha")
	w.breach("error_rate")
	w.fire("error_rate", "fp1", "drill", "true")
	w.pass(2 * time.Hour)
	sent(t, post)
	if got := titles(team, "mail"); len(got) != 0 {
		t.Errorf("the team was told %q", got)
	}
}

func TestAnAddressThatIsRefusedKeepsNoOtherFromBeingMailed(t *testing.T) {
	w, post, _ := withMail(t)
	post.errs = []error{remediation.Undeliverable(errors.New("550 no such user"))}
	id := w.stuck()
	w.pass(2 * time.Minute)
	sent(t, post, "b@example.com 2 identified first 2")
	var said []string
	for _, e := range w.entries(id) {
		if e.Detail["channel"] == "mail" && e.Detail["outcome"] != nil {
			said = append(said, fmt.Sprint(e.Detail["what"], " ", e.Detail["outcome"], " ", e.Detail["error"]))
		}
	}
	want := []string{"update 2 to a@example.com: identified dropped 550 no such user", "update 2 to b@example.com: identified delivered <nil>"}
	if !slices.Equal(said, want) {
		t.Errorf("recorded %q, want %q", said, want)
	}
}
