package slack

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// hostile is what labels, reasons and names from elsewhere may hold.
var hostile = []string{
	"<!channel> <!here> <!everyone> <@U0ANN> <#C0GENERAL> <https://evil.example.com|Open in the console>",
	"@channel @here #general https://evil.example.com evil.example.com mailto:ann@example.com",
	"*bold* _it_ ~gone~ `code` ```pre``` >quote :white_check_mark: 🔴",
	"<script>alert(1)</script> &lt;!channel&gt; &amp;lt;",
	"\u202egnirts\u2066 \u200b\u200f\ufeff",
	"\x1b[2J\x00\x07\r\nsecond line\n> quoted\u2028\u2029",
	"\xff\xfe not text",
	strings.Repeat("<&>", 3400),
	strings.Repeat("\x1b", 10<<10),
	strings.Repeat("🦀", 10<<10),
	strings.Repeat("`", 10<<10),
	"",
}

// poisoned is a message of many lines of which every text from elsewhere is s.
func poisoned(s string, many int) remediation.Message {
	st := story(5, remediation.Waiting)
	st.Service, st.Rollout, st.ClaimedBy = s, s, s
	st.IncidentView.Why, st.Headline, st.Helped = s, s, s
	st.Call = "javascript:" + s
	for range many {
		st.Broke = append(st.Broke, view.Broken{Trigger: s, Value: s, Bound: s, Alerts: 3, Active: true})
	}
	for range many {
		st.Done = append(st.Done, view.StepView{ID: s, Action: s, Target: s, State: remediation.StepState(s)})
	}
	for i := range st.Steps {
		st.Steps[i].Target, st.Steps[i].Risk = s, s
	}
	st.Next.What, st.Next.Unless = s, []string{s, s, s}
	var lines []remediation.TeamLine
	for seq := range int64(many) {
		l := line(seq+1, audit.KindHeld, s, s)
		l.Actor, l.Tone = s, s
		lines = append(lines, l)
	}
	return message(st, lines...)
}

// The workspace fails a test where markup that is not ours, a character that nobody
// sees, or more than Slack takes, comes through.
func TestHostileTextShowsAsPlainText(t *testing.T) {
	for _, s := range hostile {
		x := begin(t)
		x.delivers(poisoned(s, 4))
		x.delivers(message(nil, line(1, audit.KindSignal, s, s)))
		x.delivers(poisoned(s, 4))
		if n := len(x.Incidents().Mains()); n != 2 {
			t.Errorf("%.30q: %d messages", s, n)
		}
		for _, m := range x.Incidents().Messages {
			for _, bad := range []string{":white_check_mark:", "*bold*", "_it_", "~gone~", "```", "<!channel", "javascript"} {
				if strings.Contains(m.Reads()+m.Text, bad) {
					// Inside of a name's `code` Slack formats nothing.
					if rest := withoutCode(m.Reads()); strings.Contains(rest+m.Text, bad) {
						t.Errorf("%.30q shows %s in %s", s, bad, m.Reads())
					}
				}
			}
		}
	}
}

func withoutCode(s string) string {
	var b strings.Builder
	for i, part := range strings.Split(s, "`") {
		if i%2 == 0 {
			b.WriteString(part)
		}
	}
	return b.String()
}

func TestWhatIsCutSaysSo(t *testing.T) {
	x := begin(t)
	x.delivers(poisoned(strings.Repeat("long ", 2000), 60))
	main := x.Incidents().Mains()[0]
	if got := main.Reads(); !strings.Contains(got, "more characters)") && !strings.Contains(got, " …") || !strings.Contains(got, "more in the audit log") {
		t.Errorf("the message hides what it leaves out: %s", got)
	}
	reply := x.Incidents().Thread(main.TS)[0]
	if !strings.Contains(reply.Reads(), "more in the audit log") || !strings.Contains(reply.Text, "(and 59 more)") {
		t.Errorf("the reply hides what it leaves out: %s; %.1000s", reply.Text, reply.Reads())
	}
}
