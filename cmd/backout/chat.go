package main

import (
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/comms/slack"
)

// teamPlaces are the destinations that a reload may change: the channels that the
// playbooks name, which a preflight checks, and the console that messages link to.
type teamPlaces struct {
	channels atomic.Pointer[[]string]
	console  atomic.Pointer[string]
}

// take applies what was loaded.
func (t *teamPlaces) take(set settings) {
	console := ""
	if set.config.ExternalURL != nil {
		console = set.config.ExternalURL.String()
	}
	t.console.Store(&console)
	var names []string
	for _, pb := range set.playbooks {
		if c := pb.Communications; c != nil && c.SlackChannel != "" && !slices.Contains(names, c.SlackChannel) {
			names = append(names, c.SlackChannel)
		}
	}
	t.channels.Store(&names)
}

func (t *teamPlaces) named() []string {
	if names := t.channels.Load(); names != nil {
		return *names
	}
	return nil
}

func (t *teamPlaces) address() string {
	if console := t.console.Load(); console != nil {
		return *console
	}
	return ""
}

// chats are the team channels. Building them sends nothing.
func chats(cfg *config.Config, places *teamPlaces, transport http.RoundTripper, logger *slog.Logger) ([]remediation.Channel, error) {
	s := cfg.Slack
	if s == nil {
		return nil, nil
	}
	chat, err := slack.New(slack.Options{
		URL: s.URL, Token: s.Token.Reveal(), Buttons: s.Answers() && len(cfg.Tokens) > 0, Console: places.address, Channels: places.named,
		Transport: transport, Logger: logger,
	})
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	return []remediation.Channel{chat}, nil
}
