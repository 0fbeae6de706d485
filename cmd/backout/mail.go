package main

import (
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/comms/mail"
)

// mails are the channels for customer mail. Building them sends nothing.
func mails(cfg *config.Config) ([]remediation.Channel, error) {
	m := cfg.Mail
	if m == nil {
		return nil, nil
	}
	post, err := mail.New(mail.Options{
		Host: m.Host, Port: m.Port, TLS: mail.TLS(m.TLS), From: m.From, Username: m.Username, Password: m.Password.Reveal(),
	})
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	return []remediation.Channel{post}, nil
}
