package mail

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/locotoki/backout/remediation"
)

const (
	// mostSubject and mostLine bound texts from elsewhere, in characters.
	mostSubject = 200
	mostLine    = 5000
	// mostReferences is how many earlier messages a letter names besides the first.
	mostReferences = 10
)

// letter writes one message. Nothing of it changes when it is written again.
func (p *Post) letter(body remediation.PublicMessage, written time.Time) (*gomail.Msg, error) {
	m := gomail.NewMsg(gomail.WithCharset(gomail.CharsetUTF8), gomail.WithEncoding(gomail.EncodingQP), gomail.WithNoDefaultUserAgent())
	m.FromMailAddress(p.from)
	if err := m.To(body.Mail.To); err != nil {
		return nil, fmt.Errorf("mail to %s: %w", remediation.Plain(body.Mail.To, mostSubject), err)
	}
	m.Subject(remediation.Plain(body.Name, mostSubject))
	m.SetDateWithValue(written.UTC())
	m.SetMessageIDWithValue(p.id(body.Key, body.Update.Number))
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	if first, n := body.Mail.First, body.Update.Number; n > first {
		references := []string{p.id(body.Key, first)}
		for i := max(first+1, n-mostReferences); i < n; i++ {
			references = append(references, p.id(body.Key, i))
		}
		for i, id := range references {
			references[i] = "<" + id + ">"
		}
		m.SetGenHeader(gomail.HeaderInReplyTo, references[len(references)-1])
		m.SetGenHeader(gomail.HeaderReferences, strings.Join(references, " "))
	}
	m.SetBodyString(gomail.TypeTextPlain, text(body))
	return m, nil
}

// id is a message's for good; an incident's key tells it from all others.
func (p *Post) id(key string, update int) string {
	sum := sha256.Sum256([]byte(key))
	return fmt.Sprintf("backout.%s.%d@%s", hex.EncodeToString(sum[:12]), update, p.domain)
}

// text is what customers read.
func text(body remediation.PublicMessage) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", remediation.Plain(body.Name, mostSubject))
	for _, line := range strings.Split(strings.TrimSpace(body.Update.Words), "\n") {
		b.WriteString(remediation.Plain(strings.TrimSuffix(line, "\r"), mostLine) + "\n")
	}
	fmt.Fprintf(&b, "\nStatus: %s\n", body.Update.Status)
	for _, c := range body.Components {
		fmt.Fprintf(&b, "%s: %s\n", remediation.Plain(c.Name, mostSubject), strings.ReplaceAll(string(c.Status), "_", " "))
	}
	fmt.Fprintf(&b, "Since: %s\nAs of: %s\n", moment(body.Mail.Since), moment(body.Update.Time))
	if body.Mail.Page != "" {
		fmt.Fprintf(&b, "\nThe status page: %s\n", remediation.Plain(body.Mail.Page, mostLine))
	}
	b.WriteString("\nThis message was sent automatically. Replies are not read.\n")
	return b.String()
}

func moment(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }
