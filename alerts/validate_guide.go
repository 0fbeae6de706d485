package alerts

import (
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // the same zones on every machine
	"unicode/utf8"
)

var (
	slackChannel = regexp.MustCompile(`^#[^\s#]{1,80}$`)
	rolloutDay   = regexp.MustCompile(`^T([+-][0-9]{1,3})?$`)
	clock        = regexp.MustCompile(`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`)
)

// guide judges what people carry out.
func (v *validator) guide() {
	g := &v.pb.Guide
	for i, c := range g.Checklist {
		path := item("checklist", i)
		v.need(key(path, "item"), c.Item == "", "write what must be done")
		v.need(key(path, "owner"), c.Owner == "", "write who does it")
		known(v, key(path, "status"), c.Status, StatusPending, StatusInProgress, StatusDone)
	}
	for i, ph := range g.Phases {
		path := item("phases", i)
		v.need(key(path, "name"), ph.Name == "", "write the phase's name")
		known(v, key(path, "blocks"), ph.Blocks, BlocksStart, BlocksFinish, BlocksNothing)
		v.need(key(path, "tasks"), len(ph.Tasks) == 0, "write what is done in it")
		v.tasks(key(path, "tasks"), ph.Tasks)
	}
	v.tasks("post_rollout", g.PostRollout)
	for i, a := range g.SuccessCriteria {
		path := item("success_criteria", i)
		v.need(key(path, "area"), a.Area == "", "write the field, such as performance")
		v.need(key(path, "criteria"), len(a.Criteria) == 0, "write at least one criterion")
		for j, c := range a.Criteria {
			at := item(key(path, "criteria"), j)
			v.need(key(at, "text"), c.Text == "", "write the criterion in words")
			if c.Measure != nil {
				v.criterion(c.Measure, key(at, "measure"))
			}
		}
	}
	for i, e := range g.Timeline {
		path := item("timeline", i)
		if v.need(key(path, "day"), e.Day == "", "write the day, such as T-7") && !rolloutDay.MatchString(e.Day) {
			v.at(key(path, "day"), fmt.Sprintf("%s: invalid rollout day %q", key(path, "day"), e.Day), "write T, T-7 or T+10")
		}
		v.need(key(path, "activity"), e.Activity == "", "write what happens on that day")
		known(v, key(path, "status"), e.Status, StatusPending, StatusInProgress, StatusDone)
	}
	for i, m := range g.Team {
		v.need(key(item("team", i), "role"), m.Role == "", "write the role, such as Rollout Lead")
	}
	v.preflight(g.Preflight)
	if g.Communications != nil {
		v.communications(g.Communications)
	}
}

func (v *validator) tasks(path string, tasks []Task) {
	for i, t := range tasks {
		v.need(key(item(path, i), "name"), t.Name == "", "write what must be done")
	}
}

func (v *validator) communications(c *Communications) {
	const path = "communications"
	if at := key(path, "slack_channel"); c.SlackChannel != "" && !slackChannel.MatchString(c.SlackChannel) {
		v.at(at, fmt.Sprintf("%s: %q is not a Slack channel", at, c.SlackChannel), `write it with its #, in quotes: "#incidents"`)
	}
	known(v, key(path, "page"), c.Page, PageAfterHours, PageAlways, PageNever)
	if b := c.BusinessHours; b != nil {
		v.businessHours(b, key(path, "business_hours"))
	} else if v.pos.has(key(path, "page")) && c.Page == PageAfterHours {
		v.at(key(path, "page"), key(path, "page")+": after_hours, but no business hours are given", "write business_hours: too, or page: always", key(path, "business_hours"))
	}
	if k := c.IncidentCall; k != nil {
		at := key(path, "incident_call")
		v.need(key(at, "severity_above"), !v.pos.has(key(at, "severity_above")), "write severity_above: 2")
		if k.URL != "" {
			v.web(key(at, "url"), k.URL)
		}
	}
	if s := c.StatusPage; s != nil {
		at := key(path, "status_page.components")
		v.need(at, len(s.Components) == 0, "write at least one component, such as - name: Analytics API")
		v.unique(at, len(s.Components), func(i int) string { return s.Components[i].Name })
		for i, k := range s.Components {
			v.need(key(item(at, i), "name"), strings.TrimSpace(k.Name) == "", "write the component's name as the page shows it")
		}
		v.statusWords(s, key(path, "status_page"))
		if s.URL != "" {
			v.web(key(path, "status_page.url"), s.URL)
		}
	}
	if m := c.Mail; m != nil {
		at := key(path, "mail")
		v.positive(key(at, "after"), m.After)
		v.need(key(at, "to"), len(m.To) == 0, "write at least one address")
		for i, to := range m.To {
			if a, err := mail.ParseAddress(to); err != nil || a.Address != to {
				v.at(item(key(at, "to"), i), fmt.Sprintf("%s: %q is not a mail address", item(key(at, "to"), i), to), "write a plain address, such as support@example.com")
			}
		}
	}
	if b := c.SupportBrief; b != nil {
		v.supportBrief(b, key(path, "support_brief"))
	}
}

// What status pages take, in characters.
const (
	longestTitle   = 255
	longestMessage = 5000
)

func (v *validator) statusWords(s *StatusPage, path string) {
	at := key(path, "title")
	if n := utf8.RuneCountInString(strings.TrimSpace(s.Title)); v.pos.has(at) && (n == 0 || n > longestTitle || strings.ContainsAny(s.Title, "\r\n")) {
		v.at(at, fmt.Sprintf("%s: a headline is one line of 1 to %d characters", at, longestTitle), "write it like Analytics is slow, or leave it out")
	}
	m := s.Messages
	for name, words := range map[string]string{
		"investigating": m.Investigating, "identified": m.Identified, "monitoring": m.Monitoring, "resolved": m.Resolved,
	} {
		at := key(path, "messages."+name)
		if n := utf8.RuneCountInString(strings.TrimSpace(words)); v.pos.has(at) && (n == 0 || n > longestMessage) {
			v.at(at, fmt.Sprintf("%s has %d characters; 1 to %d are allowed", at, n, longestMessage), "write a sentence for customers, or leave it out")
		}
	}
}

func (v *validator) businessHours(b *BusinessHours, path string) {
	if _, err := time.LoadLocation(b.TimeZone); err != nil || b.TimeZone == "Local" {
		v.at(key(path, "time_zone"), fmt.Sprintf("%s: unknown time zone %q", key(path, "time_zone"), b.TimeZone), "write UTC, or an IANA name such as Europe/Vienna")
	}
	for i, d := range b.Days {
		known(v, item(key(path, "days"), i), d, Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday)
	}
	ok := true
	for name, c := range map[string]Clock{"from": b.From, "to": b.To} {
		if at := key(path, name); !clock.MatchString(string(c)) {
			ok = false
			v.at(at, fmt.Sprintf("%s: %q is not a time of day", at, c), `write it in quotes: "09:00"`)
		}
	}
	if ok && b.From >= b.To {
		v.at(key(path, "to"), fmt.Sprintf("%s: business hours end (%s) before they begin (%s)", path, b.To, b.From), "write the later time under to", key(path, "from"))
	}
}
