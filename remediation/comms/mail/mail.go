// Package mail sends customers plain-text mail about long incidents by SMTP, as a channel
// of package remediation.
//
// Mail repeats what the status page says and nothing else. Each message goes to one
// address, so that nobody learns the others and a refused address does not stop them. A
// message that the server refuses permanently (5xx) is undeliverable; everything else,
// including a wrong password, is retried. The password is only sent through TLS, which is
// optional on loopback alone, and is in no error.
//
// SMTP has no idempotency: if the answer to a message is lost, it is sent again. It is then
// identical byte for byte, Message-ID and date included, so that mailboxes can detect the
// duplicate. The Message-ID is made of the incident and the update's number; References
// and In-Reply-To make a thread of an incident.
package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// Name is the channel's name in the outbox and the audit log.
const Name = "mail"

const (
	// timeout bounds connecting with signing in, and again the sending of a message.
	timeout = 20 * time.Second
	// mostSaid bounds what is told of a server's words.
	mostSaid = 300
)

// TLS is how the connection is encrypted.
type TLS string

// The ways: a connection that turns to TLS or is ended, one that begins with it, and
// none, to loopback only.
const (
	StartTLS TLS = "starttls"
	Implicit TLS = "implicit"
	None     TLS = "none"
)

// Options are all that a Post needs.
type Options struct {
	Host string
	Port int
	TLS  TLS
	// From is the sender, with a name or without.
	From string
	// Username is "" where the server asks for none; Password is never told.
	Username, Password string
	// Roots are the authorities that are trusted; nil: the system's.
	Roots *x509.CertPool
}

// Post is a mail server; it implements remediation.Accepter.
type Post struct {
	o    Options
	from *netmail.Address
	// domain is the sender's, secrets what no error may hold.
	domain  string
	secrets []string
}

var _ remediation.Accepter = (*Post)(nil)

// New returns a post. It does not connect.
func New(o Options) (*Post, error) {
	from, err := netmail.ParseAddress(o.From)
	switch {
	case err != nil:
		return nil, hint.Add(fmt.Errorf("mail: invalid sender %q", o.From), "Shop status <status@example.com>")
	case o.Host == "" || o.Port < 1 || o.Port > 65535:
		return nil, errors.New("mail: the server's host and port are required")
	case o.TLS != StartTLS && o.TLS != Implicit && o.TLS != None:
		return nil, hint.Add(fmt.Errorf("mail: unknown tls mode %q", o.TLS), "starttls, implicit or none")
	case o.TLS == None && !loopback(o.Host):
		return nil, hint.Add(fmt.Errorf("mail: without TLS, anyone between here and %s can read the mail", o.Host), "starttls")
	case o.TLS == None && o.Username != "":
		return nil, hint.Add(errors.New("mail: a password is never sent without TLS"), "starttls")
	case (o.Username == "") != (o.Password == ""):
		return nil, errors.New("mail: set username and password, or neither")
	}
	p := &Post{o: o, from: from, domain: from.Address[strings.LastIndexByte(from.Address, '@')+1:]}
	if o.Password != "" {
		plain := base64.StdEncoding.EncodeToString([]byte("\x00" + o.Username + "\x00" + o.Password))
		p.secrets = []string{o.Password, base64.StdEncoding.EncodeToString([]byte(o.Password)), plain}
	}
	return p, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Name implements remediation.Channel.
func (p *Post) Name() string { return Name }

// Accepts implements remediation.Accepter: the server answers, and takes the password.
func (p *Post) Accepts(ctx context.Context) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	if err := client.DialWithContext(ctx); err != nil {
		return p.unreached(err)
	}
	_ = client.Close() // it has said yes
	return nil
}

// Deliver implements remediation.Channel.
func (p *Post) Deliver(ctx context.Context, m remediation.Message) (string, error) {
	var body remediation.PublicMessage
	if err := json.Unmarshal(m.Body, &body); err != nil {
		return "", remediation.Undeliverable(fmt.Errorf("mail: decode message: %w", err))
	}
	if body.Mail == nil {
		return "", remediation.Undeliverable(errors.New("mail: the message has no recipient"))
	}
	letter, err := p.letter(body, m.Created)
	if err != nil {
		return "", remediation.Undeliverable(err)
	}
	client, err := p.client()
	if err != nil {
		return "", err
	}
	if err := client.DialWithContext(ctx); err != nil {
		return "", p.unreached(err)
	}
	err = client.Send(letter)
	_ = client.Close() // what became of the message is known already
	if err == nil || letter.IsDelivered() {
		return "", nil
	}
	var refused *gomail.SendError
	code := 0
	if errors.As(err, &refused) {
		code = refused.ErrorCode()
	}
	err = fmt.Errorf("mail to %s: %s", body.Mail.To, p.said(err))
	if code >= 500 {
		return "", remediation.Undeliverable(err)
	}
	return "", err
}

func (p *Post) client() (*gomail.Client, error) {
	o := []gomail.Option{
		gomail.WithPort(p.o.Port), gomail.WithTimeout(timeout), gomail.WithHELO(p.domain), gomail.WithoutNoop(),
		gomail.WithTLSConfig(&tls.Config{ServerName: p.o.Host, MinVersion: tls.VersionTLS12, RootCAs: p.o.Roots}),
	}
	switch p.o.TLS {
	case StartTLS:
		o = append(o, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case Implicit:
		o = append(o, gomail.WithSSL())
	case None:
		o = append(o, gomail.WithTLSPolicy(gomail.NoTLS))
	}
	if p.o.Username != "" {
		o = append(o, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(p.o.Username), gomail.WithPassword(p.o.Password))
	}
	client, err := gomail.NewClient(p.o.Host, o...)
	if err != nil {
		return nil, fmt.Errorf("mail: %s", p.said(err))
	}
	return client, nil
}

// unreached says why the server does not take anything.
func (p *Post) unreached(err error) error {
	try := ""
	switch text := err.Error(); {
	case strings.Contains(text, "does not support STARTTLS"):
		try = "port 587, or mail.tls: implicit with port 465"
	case strings.Contains(text, "AUTH failed"):
		try = "put the correct password into mail.password_file and restart backout"
	}
	return hint.Add(fmt.Errorf("mail server %s: %s", net.JoinHostPort(p.o.Host, fmt.Sprint(p.o.Port)), p.said(err)), "%s", try)
}

// said are an error's words without what is secret or would do harm where they are
// shown.
func (p *Post) said(err error) string {
	text := err.Error()
	for _, s := range p.secrets {
		text = strings.ReplaceAll(text, s, "(secret)")
	}
	return remediation.Plain(text, mostSaid)
}
