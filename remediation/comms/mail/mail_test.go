package mail

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
)

func body(t *testing.T, k kept) string {
	t.Helper()
	b, err := io.ReadAll(quotedprintable.NewReader(k.Body))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

func TestAMailSaysWhatTheStatusPageSaysAndMakesAThread(t *testing.T) {
	for _, how := range []TLS{StartTLS, Implicit, None} {
		t.Run(string(how), func(t *testing.T) {
			s := serve(t, how)
			p := s.post()
			if err := p.Accepts(context.Background()); err != nil {
				t.Fatal(err)
			}
			for n := 2; n <= 4; n++ {
				if err := deliver(t, p, message(t, "a@example.com", n)); err != nil {
					t.Fatal(err)
				}
			}
			all := s.kept()
			if len(all) != 3 {
				t.Fatalf("%d mails were kept, want 3", len(all))
			}
			first := all[0]
			for name, want := range map[string]string{
				"From": `"Shop status" <status@shop.example>`, "To": "<a@example.com>", "Subject": "Problems with Analytics", "Auto-Submitted": "auto-generated",
				"Date": "Sun, 22 Nov 2026 04:00:00 +0000", "Content-Type": "text/plain; charset=UTF-8", "Cc": "", "Bcc": "", "In-Reply-To": "", "References": "",
			} {
				if got := first.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			const want = `Problems with Analytics

Wir arbeiten daran. 我们正在处理。

Status: identified
Analytics: partial outage
Since: 22 November 2026, 03:00 UTC
As of: 22 November 2026, 04:00 UTC

The status page: https://status.shop.example

This message was sent automatically. Replies are not read.
`
			if got := strings.TrimRight(body(t, first), "\n") + "\n"; got != want {
				t.Errorf("the mail says\n%s\nwant\n%s", got, want)
			}
			id := func(i int) string { return all[i].Header.Get("Message-Id") }
			if id(0) == id(1) || !strings.HasSuffix(id(0), "@shop.example>") {
				t.Errorf("ids %s and %s", id(0), id(1))
			}
			if got, want := all[2].Header.Get("In-Reply-To"), id(1); got != want {
				t.Errorf("In-Reply-To: %s, want %s", got, want)
			}
			if got, want := all[2].Header.Get("References"), id(0)+" "+id(1); got != want {
				t.Errorf("References: %s, want %s", got, want)
			}
		})
	}
}

func TestNothingGoesOverAConnectionThatDoesNotTurnToTLS(t *testing.T) {
	s := serve(t, None)
	err := deliver(t, s.post(func(o *Options) { o.TLS, o.Username, o.Password = StartTLS, "backout", password }), message(t, "a@example.com", 2))
	if err == nil || forGood(err) || !strings.Contains(err.Error(), "STARTTLS") || !strings.Contains(err.Error(), "try:") {
		t.Errorf("got %v, want a refusal that may pass and says what to try", err)
	}
	if n := len(s.kept()); n != 0 {
		t.Errorf("%d mails went out in the clear", n)
	}
}

func TestAServerWhoseCertificateIsNotTrustedGetsNothing(t *testing.T) {
	s := serve(t, StartTLS)
	err := deliver(t, s.post(func(o *Options) { o.Roots = nil }), message(t, "a@example.com", 2))
	if err == nil || forGood(err) || !strings.Contains(err.Error(), "certificate") || len(s.kept()) != 0 {
		t.Errorf("got %v, %d mails; want none", err, len(s.kept()))
	}
}

func TestAWrongPasswordIsTriedAgainAndNotTold(t *testing.T) {
	const wrong = "hunter2-hunter2"
	s := serve(t, StartTLS)
	p := s.post(func(o *Options) { o.Password = wrong })
	for _, err := range []error{deliver(t, p, message(t, "a@example.com", 2)), p.Accepts(context.Background())} {
		if err == nil || forGood(err) || !strings.Contains(err.Error(), "535") || !strings.Contains(err.Error(), "try:") {
			t.Fatalf("got %v, want one that is tried again and says what to do", err)
		}
		if strings.Contains(err.Error(), wrong) {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00backout\x00" + wrong))
	for _, secret := range []string{wrong, plain, base64.StdEncoding.EncodeToString([]byte(wrong))} {
		if got := p.said(fmt.Errorf("535 %s is wrong", secret)); strings.Contains(got, secret) {
			t.Errorf("a server that repeats the password is repeated: %s", got)
		}
	}
	if err := deliver(t, s.post(), message(t, "a@example.com", 2)); err != nil || len(s.kept()) != 1 {
		t.Errorf("with the right password: %v, %d mails", err, len(s.kept()))
	}
}

func TestAnAddressThatTheServerRefusesForGoodIsUndeliverable(t *testing.T) {
	s := serve(t, StartTLS)
	s.write("refuse/gone@example.com", "550 5.1.1 No such user\x1b[2J here")
	s.write("refuse/full@example.com", "452 4.2.2 Mailbox full")
	p := s.post()
	err := deliver(t, p, message(t, "gone@example.com", 2))
	if !forGood(err) || !strings.Contains(err.Error(), "mail to gone@example.com") || !strings.Contains(err.Error(), "550") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("got %v, want one that is for good, names the address and is cleaned", err)
	}
	if err := deliver(t, p, message(t, "full@example.com", 2)); err == nil || forGood(err) || !strings.Contains(err.Error(), "452") {
		t.Errorf("got %v, want one that may pass", err)
	}
	if err := deliver(t, p, message(t, "a@example.com", 2)); err != nil {
		t.Errorf("another address: %v", err)
	}
	if all := s.kept(); len(all) != 1 || all[0].to != "a@example.com" || strings.Contains(all[0].raw, "gone@") {
		t.Errorf("kept %+v, want the one mail", all)
	}
}

func TestAServerThatIsDownIsTriedAgain(t *testing.T) {
	s := serve(t, StartTLS)
	s.stop()
	p := s.post()
	if err := deliver(t, p, message(t, "a@example.com", 2)); err == nil || forGood(err) {
		t.Fatalf("got %v, want one that may pass", err)
	}
	s.start()
	if err := deliver(t, p, message(t, "a@example.com", 2)); err != nil || len(s.kept()) != 1 {
		t.Errorf("back again: %v, %d mails", err, len(s.kept()))
	}
}

func TestAMailWhoseAnswerWasLostIsTheSameWhenItComesAgain(t *testing.T) {
	s := serve(t, StartTLS)
	s.write("hang-up", "")
	if err := deliver(t, s.post(), message(t, "a@example.com", 3)); err == nil || forGood(err) {
		t.Fatalf("got %v, want one that may pass", err)
	}
	if err := deliver(t, s.post(), message(t, "a@example.com", 3)); err != nil {
		t.Fatal(err)
	}
	all := s.kept()
	if len(all) != 2 || all[0].raw != all[1].raw || all[0].Header.Get("Message-Id") == "" {
		t.Errorf("%d mails, want two that are the same:\n%v", len(all), all)
	}
}

func TestHostileNamesMakeNoHeaderAndNoLine(t *testing.T) {
	s := serve(t, StartTLS)
	m := message(t, "a@example.com", 2, func(b *remediation.PublicMessage) {
		b.Name = "Shop\r\nBcc: victim@example.com\r\n\r\n<script>\u202e" + strings.Repeat("x", 10_000)
		b.Components[0].Name = "API\r\n.\r\nMAIL FROM:<evil@example.com>\x1b[2J"
		b.Update.Words = "one\r\n.\r\nRCPT TO:<victim@example.com>\ntwo\x00"
		b.Mail.Page = "https://status.example\r\nEvil: yes"
	})
	if err := deliver(t, s.post(), m); err != nil {
		t.Fatal(err)
	}
	all := s.kept()
	if len(all) != 1 || all[0].to != "a@example.com" {
		t.Fatalf("kept %+v", all)
	}
	if all[0].Header.Get("Bcc") != "" || all[0].Header.Get("Evil") != "" {
		t.Errorf("a name made a header: %v", all[0].Header)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(all[0].Header.Get("Subject"))
	if err != nil || !strings.HasPrefix(subject, "Shop") || len([]rune(subject)) > 300 || strings.ContainsAny(subject, "\r\n\u202e") {
		t.Errorf("subject %q: %v", subject, err)
	}
	text := body(t, all[0])
	if strings.ContainsAny(text, "\x00\x1b\u202e\r") || strings.Contains(text, "\nMAIL FROM") || strings.Contains(text, "\nEvil") {
		t.Errorf("the text is not cleaned: %q", text)
	}
	if !strings.Contains(text, "one\n.\nRCPT TO:<victim@example.com>\ntwo[U+0000]\n") {
		t.Errorf("the words are not there: %q", text)
	}
}

func TestAnOddAddressIsUndeliverable(t *testing.T) {
	s := serve(t, None)
	for _, to := range []string{"", "a@example.com\r\nDATA", "no address", "a@example.com, b@example.com"} {
		if err := deliver(t, s.post(), message(t, to, 2)); !forGood(err) {
			t.Errorf("to %q: got %v, want one that is for good", to, err)
		}
	}
	if n := len(s.kept()); n != 0 {
		t.Errorf("%d mails were kept", n)
	}
}

func TestAPostThatWouldTellAPasswordIsNotBuilt(t *testing.T) {
	good := Options{Host: "mail.example.com", Port: 587, TLS: StartTLS, From: "status@example.com"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*Options){
		"no TLS beyond loopback":    func(o *Options) { o.TLS = None },
		"a password without TLS":    func(o *Options) { o.Host, o.TLS, o.Username, o.Password = "127.0.0.1", None, "u", "p" },
		"an unknown way":            func(o *Options) { o.TLS = "maybe" },
		"invalid sender":            func(o *Options) { o.From = "nobody" },
		"no port":                   func(o *Options) { o.Port = 0 },
		"a user without a password": func(o *Options) { o.Username = "u" },
	} {
		o := good
		edit(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
