package slack

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/slack-go/slack"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// The ids of the buttons, which receiver's POST /slack/interactions knows.
const (
	actionApprove = "backout_approve"
	actionDeny    = "backout_deny"
)

// question is the value of a button: what is answered.
type question struct {
	Incident string `json:"incident"`
	Step     string `json:"step"`
	Question string `json:"question,omitempty"`
}

// incident is an incident's message: what broke, what was done, whether it helped,
// what comes next and when, and how to stop it.
func (c *Chat) incident(msg view.TeamMessage, r receipt) (fallback string, blocks []slack.Block) {
	s := msg.Story
	head := fmt.Sprintf("%s *%s: %s*", tone(s.Tone), words(s.Service), words(s.Headline))
	add := func(lines ...string) { blocks = append(blocks, sections(lines, mostPart)...) }
	add(append([]string{head}, asks(s)...)...)
	if s.Asks {
		blocks = append(blocks, c.answers(s)...)
	}
	add(broke(s)...)
	add(done(s)...)
	add(next(s)...)
	if s.State != remediation.Closed {
		add(stop(s))
	}
	if line := call(s); line != "" {
		add(line)
	}
	blocks = append(blocks, small(c.footer(s, r)))

	fallback = fmt.Sprintf("%s %s: %s", tone(s.Tone), words(s.Service), words(s.Headline))
	if len(s.Broke) > 0 {
		b := s.Broke[0]
		fallback += fmt.Sprintf(". %s %s, trigger is %s", words(b.Trigger), words(b.Value), words(b.Bound))
	}
	if size(fallback) > mostFallback {
		fallback = fmt.Sprintf("%s %s", tone(s.Tone), words(s.Headline))
	}
	return fallback, blocks
}

// asks puts the question that waits for an answer.
func asks(s *view.Story) []string {
	if !s.Asks || s.Next == nil {
		return nil
	}
	line := "*Approve or deny?* Run " + code(s.Next.Step)
	if st := stepOf(s, s.Next.Step); st != nil {
		line += " on " + code(st.Target) + " (" + words(st.Risk)
		if isLossy(st) {
			line += ": *data can be lost*"
		}
		line += ")"
	}
	line += "."
	if s.Until != nil {
		line += " Without an answer it is *skipped* " + at(*s.Until) + "."
	}
	lines := []string{line}
	if s.IncidentView.Why != "" {
		lines = append(lines, words(s.IncidentView.Why)+".")
	}
	return lines
}

// answers are the buttons, where answers come back to us.
func (c *Chat) answers(s *view.Story) []slack.Block {
	value, err := json.Marshal(question{s.ID, s.Next.Step, s.Asked.Question})
	if !c.buttons || err != nil || len(value) > 2000 {
		return []slack.Block{small(fmt.Sprintf("Answer in the console, or run %s", command("backout approve "+s.ID+" "+s.Next.Step+" --reason=WHY")))}
	}
	yes := slack.NewButtonBlockElement(actionApprove, string(value), plain("Approve"))
	yes.Style = slack.StylePrimary
	if st := stepOf(s, s.Next.Step); st == nil || isLossy(st) {
		yes.Style = slack.StyleDanger
	}
	return []slack.Block{slack.NewActionBlock("", yes, slack.NewButtonBlockElement(actionDeny, string(value), plain("Deny")))}
}

func stepOf(s *view.Story, id string) *view.StepView {
	for i := range s.Steps {
		if s.Steps[i].ID == id {
			return &s.Steps[i]
		}
	}
	return nil
}

func isLossy(st *view.StepView) bool { return st.Risk == alerts.Lossy.String() }

func broke(s *view.Story) []string {
	var lines []string
	for _, b := range s.Broke {
		value := words(b.Value)
		if b.Beyond {
			value = "*" + value + "*"
		}
		state := "over"
		if b.Active {
			state = "firing"
		}
		line := fmt.Sprintf("%s is %s, trigger is %s (%s", code(b.Trigger), value, words(b.Bound), state)
		if b.Alerts > 1 {
			line += fmt.Sprintf(", %d alerts", b.Alerts)
		}
		switch { // who answers must know how old the value is
		case s.Asks && b.Unanswered:
			line += ", Prometheus does not answer now"
		case s.Asks && b.Observed != nil:
			line += ", seen " + at(*b.Observed)
		}
		lines = append(lines, line+")")
	}
	if s.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more alerts", s.More))
	}
	return titled("What broke", lines, "its alerts are no longer known")
}

func done(s *view.Story) []string {
	var lines []string
	for _, st := range s.Done {
		line := code(st.ID) + " " + words(s.StateOf(st))
		if st.State == remediation.StepIntent && !st.Undoing {
			line = code(st.ID) + " is running"
		}
		switch {
		case st.Changed != nil:
			line += " " + at(*st.Finished) + ", changed outside backout since " + at(*st.Changed)
		case st.Finished != nil:
			line += " " + at(*st.Finished)
		case st.Started != nil:
			line += " since " + at(*st.Started)
		}
		lines = append(lines, line)
	}
	return append(titled("What was done", lines, "nothing yet"), "*Did it help?* "+words(s.Helped))
}

// titled puts a title before lines: on the same line where there is one of them.
func titled(title string, lines []string, none string) []string {
	switch len(lines) {
	case 0:
		return []string{"*" + title + "* " + none}
	case 1:
		return []string{"*" + title + "* " + lines[0]}
	}
	out := []string{"*" + title + "*"}
	for _, l := range lines {
		out = append(out, "• "+l)
	}
	return out
}

func next(s *view.Story) []string {
	var line string
	switch {
	case s.State == remediation.Closed:
		line = "*What comes next* nothing: it is closed"
		if s.Closed != nil {
			line += " " + at(*s.Closed)
		}
	case s.Next == nil && s.Stuck != "":
		line = "*What comes next* " + code(s.Stuck) + " is tried again " + words(s.Again())
	case s.Next == nil:
		line = "*What comes next* no steps are left; backout keeps watching"
	default:
		line = "*What comes next* " + strings.TrimSuffix(s.StepName(s.Next.Step), s.Next.Step) + code(s.Next.Step)
		if s.Next.At != nil {
			line += ", " + at(*s.Next.At) + " at the earliest"
		}
		line += ": " + words(s.Next.What)
		if len(s.Next.Unless) > 0 && !s.Asks {
			line += ". Not if " + words(strings.Join(s.Next.Unless, "; or "))
		}
	}
	lines := []string{line + "."}
	if s.Why != "" && !s.Asks {
		why := "*Why it waits* " + words(s.Why)
		if s.IncidentView.Why != "" {
			why += ": " + words(s.IncidentView.Why)
		}
		why += "."
		if s.WhyEnds != "" {
			why += " " + words(s.WhyEnds)
		}
		if s.Until != nil {
			why += " Until " + at(*s.Until) + "."
		}
		lines = append(lines, why)
	}
	return lines
}

// stop says how: an id and a service's name are of harmless characters.
func stop(s *view.Story) string {
	verb, means := "claim", "no step runs until you release it"
	switch {
	case s.ClaimedBy != "":
		verb, means = "release", "gives it back to backout"
	case s.State == remediation.Acting:
		means = "the running step ends first, then " + means
	}
	return fmt.Sprintf("*How to stop it* %s (%s), or %s", command("backout incident "+verb+" "+s.ID+" --reason=WHY"), means,
		command("backout freeze --service="+s.Service+" --reason=WHY"))
}

func call(s *view.Story) string {
	if !s.StartCall || s.State == remediation.Closed {
		return ""
	}
	line := fmt.Sprintf("📞 *Start an incident call* (severity %d)", s.Severity)
	if l := link(s.Call, "join it here"); l != "" {
		line += ": " + l
	}
	return line
}

// linked is a link to a page of the console, "" where people cannot reach it.
func (c *Chat) linked(path, text string) string {
	base := strings.TrimSuffix(c.console(), "/")
	if base == "" {
		return ""
	}
	return link(base+path, text)
}

func (c *Chat) footer(s *view.Story, r receipt) string {
	parts := []string{words(s.ID)}
	if l := c.linked("/incidents/"+s.ID, "Open "+words(s.ID)+" in the console"); l != "" {
		parts[0] = l
	}
	parts = append(parts, "release "+words(s.Rollout), "opened "+at(s.Opened))
	if r.Hash != "" {
		parts = append(parts, auditHead(r.Seq, r.Hash))
	}
	return strings.Join(parts, " · ")
}

// reply tells a thread what is new.
func (c *Chat) reply(msg view.TeamMessage) (fallback string, blocks []slack.Block) {
	lines := told(msg.Told)
	last := msg.Told[len(msg.Told)-1]
	blocks = sections(lines, mostReply)
	ends := false
	for _, l := range msg.Told {
		ends = ends || l.Kind == audit.KindClosed
	}
	if ends {
		head := fmt.Sprintf("%d:%s", last.Seq, last.Hash)
		text := fmt.Sprintf("The audit log's head is `%s`. To check later that nothing was changed or cut off:\n`backout audit verify --head=%s`", words(head), words(head))
		blocks = append(blocks, slack.NewSectionBlock(mrkdwn(text), nil, nil))
	} else {
		blocks = append(blocks, small(auditHead(last.Seq, last.Hash)))
	}
	return andMore(tone(msg.Told[0].Tone)+" "+words(msg.Told[0].Title), len(lines)-1), blocks
}

// auditHead is where the audit log ends, whole: as audit verify --head takes it.
func auditHead(seq int64, hash string) string {
	return "audit head " + code(fmt.Sprintf("%d:%s", seq, hash))
}

// plainNotice tells what concerns no incident.
func (c *Chat) plainNotice(service string, msg view.TeamMessage) (fallback string, blocks []slack.Block) {
	lines := told(msg.Told)
	last := msg.Told[len(msg.Told)-1]
	foot := auditHead(last.Seq, last.Hash)
	if service != "" {
		foot = words(service) + " · " + foot
	}
	if l := c.linked("/", "console"); l != "" {
		foot += " · " + l
	}
	return andMore(tone(msg.Told[0].Tone)+" "+words(msg.Told[0].Title), len(lines)-1), append(sections(lines, mostReply), small(foot))
}

func andMore(text string, more int) string {
	if more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

func told(all []remediation.TeamLine) []string {
	var lines []string
	for _, l := range all {
		line := fmt.Sprintf("%s *%s* %s by %s", tone(l.Tone), words(l.Title), at(l.Time), code(l.Actor))
		if l.Why != "" {
			line += ": " + words(l.Why)
		}
		lines = append(lines, line)
	}
	return lines
}
