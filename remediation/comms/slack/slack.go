// Package slack posts a service's incidents to its team's Slack channel, as a channel of
// package remediation.
//
// An incident has one message there. Every change edits it, so that it always shows the
// current state; its thread has the events, one after another. What concerns no incident
// is a message of its own.
//
// Slack has no idempotency key. So each message carries its identity in its metadata, and
// is posted only after a search shows that it is not there yet: a lost answer or a crash
// posts nothing twice. An edit needs no search, since repeating it changes nothing. If
// someone deletes a message, the next change posts a new one.
//
// All text from outside is shown as plain text: it cannot mention anyone, link anywhere, or
// look like backout's own words.
package slack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/slack-go/slack"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// Name is the channel's name in the outbox and the audit log.
const Name = "slack"

// Options are all that a Chat needs.
type Options struct {
	// URL is where the API's methods are: https://slack.com/api.
	URL string
	// Token is a bot's token; it is never told.
	Token string
	// Buttons: the answers of people come back to POST /slack/interactions, so that
	// a message may ask. Without it says where else to answer.
	Buttons bool
	// Console returns where people reach the console, "" where they cannot.
	Console func() string
	// Channels are those that the playbooks name, with their #; Accepts looks whether
	// they can be reached.
	Channels  func() []string
	Transport http.RoundTripper
	Logger    *slog.Logger
}

// Chat is one Slack workspace; it implements remediation.Accepter.
type Chat struct {
	api      *slack.Client
	token    string
	buttons  bool
	console  func() string
	channels func() []string
	log      *slog.Logger

	mu sync.Mutex
	// self is who we are to Slack, nil while not known.
	self *slack.AuthTestResponse
	// ids are the channels that were looked up, by name without #.
	ids map[string]string
}

var _ remediation.Accepter = (*Chat)(nil)

// New returns a chat. It does not connect.
func New(o Options) (*Chat, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, hint.Add(errors.New("slack: invalid url"), "https://slack.com/api")
	case o.Token == "":
		return nil, errors.New("slack: a bot token is required")
	}
	return &Chat{
		api:   slack.New(o.Token, slack.OptionAPIURL(strings.TrimSuffix(o.URL, "/")+"/"), slack.OptionHTTPClient(client(o.Transport))),
		token: o.Token, buttons: o.Buttons, console: o.Console, channels: o.Channels, log: o.Logger,
		ids: map[string]string{},
	}, nil
}

// Name implements remediation.Channel.
func (c *Chat) Name() string { return Name }

// receipt is what is remembered of an incident: where its message stands.
type receipt struct {
	Channel string `json:"channel"`
	TS      string `json:"ts"`
	// Replied is the newest entry that the thread tells of.
	Replied string `json:"replied,omitempty"`
	// Seq and Hash are the newest entry that was told: the head of the audit log.
	Seq  int64  `json:"seq,omitempty"`
	Hash string `json:"hash,omitempty"`
}

// Deliver implements remediation.Channel.
func (c *Chat) Deliver(ctx context.Context, m remediation.Message) (string, error) {
	var msg view.TeamMessage
	if err := json.Unmarshal(m.Body, &msg); err != nil {
		return "", remediation.Undeliverable(fmt.Errorf("slack: decode message: %w", err))
	}
	if msg.Channel == "" || msg.Story == nil && len(msg.Told) == 0 {
		return "", remediation.Undeliverable(errors.New("slack: the message has no channel or no text"))
	}
	if msg.Story == nil {
		return "", c.notice(ctx, m, msg)
	}
	var r receipt
	if m.Receipt != "" {
		if err := json.Unmarshal([]byte(m.Receipt), &r); err != nil {
			c.log.Warn("the stored position of the incident's message is not readable; searching for it", "incident", m.Incident, "err", err)
			r = receipt{}
		}
	}
	err := c.tell(ctx, m, msg, &r)
	if r.TS == "" {
		return "", err
	}
	b, merr := json.Marshal(r)
	return string(b), errors.Join(err, merr)
}

// tell brings the incident's message up to date, then tells its thread what is new.
func (c *Chat) tell(ctx context.Context, m remediation.Message, msg view.TeamMessage, r *receipt) error {
	if n := len(msg.Told); n > 0 {
		r.Seq, r.Hash = msg.Told[n-1].Seq, msg.Told[n-1].Hash
	}
	posted, err := c.show(ctx, m, msg, r)
	if err != nil || len(msg.Told) == 0 || r.Replied == r.Hash {
		return err
	}
	mark := markOf(msg, r.Hash)
	if !posted {
		found, err := c.replied(ctx, r.Channel, r.TS, mark)
		if err != nil {
			return err
		}
		if found {
			r.Replied = r.Hash
			return nil
		}
	}
	text, blocks := c.reply(msg)
	if _, err := c.post(ctx, r.Channel, mark, text, blocks, slack.MsgOptionTS(r.TS)); err != nil {
		return err
	}
	r.Replied = r.Hash
	return nil
}

// show sees to it that the incident's message says how things stand; posted tells
// that it is new, and so has no thread yet.
func (c *Chat) show(ctx context.Context, m remediation.Message, msg view.TeamMessage, r *receipt) (posted bool, err error) {
	text, blocks := c.incident(msg, *r)
	mark := markOf(msg, "")
	var gone error
	if r.TS != "" {
		gone = c.update(ctx, r.Channel, r.TS, mark, text, blocks)
		if gone == nil || !isAny(gone, notThere) && !isAny(gone, notReached) {
			return false, gone
		}
	}
	id, err := c.channel(ctx, msg.Channel)
	if err != nil {
		return false, err
	}
	if isAny(gone, notReached) && id == r.Channel {
		return false, gone
	}
	if gone != nil {
		c.log.Warn("the incident's message is gone from slack; posting a new one", "incident", m.Incident, "err", gone)
	}
	ts, err := c.find(ctx, id, mark, msg.Story.Opened, r.TS)
	if err != nil {
		return false, err
	}
	if ts != "" { // it was posted, and only the answer, or this process, was lost
		r.Channel, r.TS, r.Replied = id, ts, ""
		return false, c.update(ctx, id, ts, mark, text, blocks)
	}
	if ts, err = c.post(ctx, id, mark, text, blocks); err != nil {
		return false, err
	}
	r.Channel, r.TS, r.Replied = id, ts, ""
	return true, nil
}

// notice tells what concerns no incident.
func (c *Chat) notice(ctx context.Context, m remediation.Message, msg view.TeamMessage) error {
	id, err := c.channel(ctx, msg.Channel)
	if err != nil {
		return err
	}
	mark := markOf(msg, msg.Told[len(msg.Told)-1].Hash)
	ts, err := c.find(ctx, id, mark, m.Created, "")
	if err != nil || ts != "" {
		return err
	}
	text, blocks := c.plainNotice(m.Service, msg)
	_, err = c.post(ctx, id, mark, text, blocks)
	return err
}

// eventType is what our messages' metadata are known by.
const eventType = "backout_incident"

// mark is what one message is, in its metadata: an incident's message has no
// Update, a reply the hash of the newest audit entry that it tells of.
type mark struct{ Incident, Update string }

func markOf(msg view.TeamMessage, update string) mark {
	if msg.Story == nil {
		return mark{Update: update}
	}
	// Incidents are counted anew in each store: the time tells them apart.
	s := msg.Story
	return mark{fmt.Sprintf("%s/%s@%d", s.Service, s.ID, s.Opened.UnixMilli()), update}
}

func (k mark) metadata() slack.SlackMetadata {
	return slack.SlackMetadata{EventType: eventType, EventPayload: map[string]any{"incident": k.Incident, "update": k.Update}}
}

// on reports whether a message carries the mark.
func (k mark) on(m slack.Message) bool {
	p := m.Metadata.EventPayload
	return m.Metadata.EventType == eventType && p["incident"] == k.Incident && p["update"] == k.Update
}

// post posts a message and returns where it stands.
func (c *Chat) post(ctx context.Context, channel string, k mark, text string, blocks []slack.Block, more ...slack.MsgOption) (ts string, err error) {
	at, ts, err := c.api.PostMessageContext(ctx, channel, append(more, shown(k, text, blocks),
		slack.MsgOptionDisableLinkUnfurl(), slack.MsgOptionDisableMediaUnfurl())...)
	if err == nil && (at != channel || !timestamp.MatchString(ts)) {
		err = errOddAnswer // it may have been posted: the next try looks
	}
	if err != nil {
		c.forget(err)
		return "", c.fault("chat.postMessage", err)
	}
	return ts, nil
}

// update replaces a message's content.
func (c *Chat) update(ctx context.Context, channel, ts string, k mark, text string, blocks []slack.Block) error {
	_, at, _, err := c.api.UpdateMessageContext(ctx, channel, ts, shown(k, text, blocks))
	if err == nil && at != ts {
		err = errOddAnswer
	}
	return c.fault("chat.update", err)
}

// shown is what a message shows. Slack looks for links and names by itself unless
// it is told not to, which for an update is not the default.
func shown(k mark, text string, blocks []slack.Block) slack.MsgOption {
	return slack.MsgOptionCompose(slack.MsgOptionText(text, false), slack.MsgOptionBlocks(blocks...),
		slack.MsgOptionMetadata(k.metadata()), slack.MsgOptionParse(false))
}

// scopes are what the token must allow.
var scopes = []string{"chat:write", "channels:read", "channels:history"}

// Accepts implements remediation.Accepter: Slack takes the token, and the channels of
// the playbooks can be read, which is needed before anything is posted there.
func (c *Chat) Accepts(ctx context.Context) error {
	self, err := c.api.AuthTestContext(ctx)
	if err != nil {
		return c.fault("auth.test", err)
	}
	if granted := self.Header.Get("X-OAuth-Scopes"); granted != "" {
		for _, s := range scopes {
			if !strings.Contains(","+strings.ReplaceAll(granted, " ", "")+",", ","+s+",") {
				return hint.Add(fmt.Errorf("slack: the token lacks the scope %s", s), "add it under OAuth & Permissions and install the app again")
			}
		}
	}
	var errs []error
	c.forgetAll()
	for _, name := range c.channels() {
		id, err := c.channel(ctx, name)
		if err == nil {
			_, err = c.history(ctx, id, time.Now(), "", 1)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("channel %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
