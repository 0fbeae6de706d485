package slack

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/slack-go/slack"

	"github.com/locotoki/backout/remediation"
)

const (
	// mostSection is Slack's bound for the text of one section, in characters as
	// JavaScript counts. A message has 50 blocks and 40,000 characters at most: mostPart
	// bounds the sections of a part of an incident's message, mostReply those of a reply.
	mostSection = 3000
	mostPart    = 2
	mostReply   = 8
	// mostFallback bounds what a phone's notification shows.
	mostFallback = 600
	// mostValue and mostWords bound one value, and one sentence, from outside.
	mostValue = 120
	mostWords = 600
)

// size counts as Slack does: in UTF-16 units.
func size(s string) int {
	n := 0
	for _, r := range s {
		n += max(utf16.RuneLen(r), 1)
	}
	return n
}

// escaped writes what Slack reads as markup in its harmless form.
var escaped = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// cut escapes a text and ends it where it would grow longer than most; what was
// left out shows.
func cut(s string, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		e := escaped.Replace(string(r))
		if n += size(e); n > most-2 {
			b.WriteString(" …")
			break
		}
		b.WriteString(e)
	}
	return b.String()
}

// emoji is a name that Slack would show as a picture. Nearly all have a letter, which
// keeps the times of day out.
var emoji = regexp.MustCompile(`:((?:[0-9_+'-]*[a-zA-Z][a-zA-Z0-9_+'-]*|[+-]1|100|1234):)`)

// words shows a text from elsewhere among our own: the characters by which Slack
// formats become others that look alike.
func words(s string) string {
	s = emoji.ReplaceAllString(remediation.Plain(s, mostWords), "∶$1")
	runes := []rune(s)
	inWord := func(i int) bool {
		return i >= 0 && i < len(runes) && (unicode.IsLetter(runes[i]) || unicode.IsDigit(runes[i]) || runes[i] == '_')
	}
	for i, r := range runes {
		switch {
		case r == '*':
			runes[i] = '∗'
		case r == '~':
			runes[i] = '∼'
		case r == '`':
			runes[i] = '\''
		case r == '_' && (!inWord(i-1) || !inWord(i+1)):
			runes[i] = 'ˍ'
		}
	}
	return cut(string(runes), mostWords)
}

// code shows a name from elsewhere exactly.
func code(s string) string { return coded(s, mostValue) }

// command shows one of backout's own commands.
func command(s string) string { return coded(s, mostWords) }

func coded(s string, most int) string {
	if s = strings.TrimSpace(remediation.Plain(s, most)); s == "" {
		return ""
	}
	return "`" + cut(strings.ReplaceAll(s, "`", "'"), most) + "`"
}

// at shows a moment in the reader's own time zone.
func at(t time.Time) string {
	return fmt.Sprintf("<!date^%d^{date_short_pretty} at {time_secs}|%s>", t.Unix(), t.UTC().Format("2 Jan 15:04:05 UTC"))
}

// link is one to an address of ours or of the playbook's; "" where it is none.
func link(address, text string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return ""
	}
	safe := strings.NewReplacer("&", "&amp;", "<", "%3C", ">", "%3E", "|", "%7C").Replace(u.String())
	return "<" + safe + "|" + text + ">"
}

// mrkdwn is a text that Slack formats by our marks, and in which it finds nothing
// by itself.
func mrkdwn(text string) *slack.TextBlockObject {
	return slack.NewTextBlockObject(slack.MarkdownType, text, false, true)
}

func plain(text string) *slack.TextBlockObject {
	return slack.NewTextBlockObject(slack.PlainTextType, text, false, false)
}

// section is a block of whole lines, those that one can hold; rest are the others.
func section(lines []string) (block slack.Block, rest []string) {
	text := ""
	for i, l := range lines {
		next := l
		if i > 0 {
			next = text + "\n" + l
		}
		if size(next) > mostSection {
			if i == 0 { // none of ours is as long
				return slack.NewSectionBlock(mrkdwn(cut(remediation.Plain(l, mostSection), mostSection)), nil, nil), lines[1:]
			}
			return slack.NewSectionBlock(mrkdwn(text), nil, nil), lines[i:]
		}
		text = next
	}
	return slack.NewSectionBlock(mrkdwn(text), nil, nil), nil
}

// sections are all lines in as few blocks as they need, up to most; what is left out
// is counted.
func sections(lines []string, most int) (blocks []slack.Block) {
	for len(lines) > 0 {
		if len(blocks) == most-1 {
			if b, rest := section(lines); len(rest) == 0 {
				return append(blocks, b)
			}
			b, _ := section([]string{fmt.Sprintf("… and %d more in the audit log", len(lines))})
			return append(blocks, b)
		}
		var b slack.Block
		b, lines = section(lines)
		blocks = append(blocks, b)
	}
	return blocks
}

// small is a line of context below the rest.
func small(text string) slack.Block { return slack.NewContextBlock("", mrkdwn(text)) }

// tone is the colour of what is told; the words next to it say the same.
func tone(name string) string {
	switch name {
	case "bad":
		return "🔴"
	case "wait":
		return "🟡"
	case "good":
		return "🟢"
	case "act":
		return "🔵"
	case "human":
		return "👤"
	case "over":
		return "⚫"
	}
	return "⚪"
}
