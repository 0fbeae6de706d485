package main

import (
	"net/http"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation/comms/webhook"
	"github.com/locotoki/backout/remediation/notify"
)

// webhooks are the addresses that follow the audit log. Building them sends nothing.
func webhooks(cfg *config.Config, transport http.RoundTripper, now func() time.Time) ([]notify.Webhook, error) {
	var all []notify.Webhook
	for _, w := range cfg.Webhooks {
		hook, err := webhook.New(webhook.Options{Name: w.Name, URL: w.URL, Secret: w.Secret.Reveal(), Transport: transport, Now: now})
		if err != nil {
			return nil, wrong("", "%w", err)
		}
		all = append(all, notify.Webhook{Channel: hook, Kinds: w.Kinds})
	}
	return all, nil
}
