package slack

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"github.com/locotoki/backout/hint"
)

const (
	// perPage is how many items are asked for at once; Slack recommends no more.
	perPage = 200
	// mostPages bounds how far back a message is looked for.
	mostPages = 25
	// skew is how far Slack's clock may be off from backout's.
	skew = 10 * time.Minute
)

// timestamp is what Slack knows a message by.
var timestamp = regexp.MustCompile(`^[0-9]{1,12}\.[0-9]{6}$`)

// me is who we are to Slack: what others post is never taken for ours.
func (c *Chat) me(ctx context.Context) (*slack.AuthTestResponse, error) {
	c.mu.Lock()
	self := c.self
	c.mu.Unlock()
	if self != nil {
		return self, nil
	}
	self, err := c.api.AuthTestContext(ctx)
	if err == nil && self.UserID == "" {
		err = errOddAnswer
	}
	if err != nil {
		return nil, c.fault("auth.test", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.self = self
	return self, nil
}

func isOurs(m slack.Message, self *slack.AuthTestResponse) bool {
	return m.User == self.UserID || m.BotID != "" && m.BotID == self.BotID
}

// channel returns the id of a channel that we are in.
func (c *Chat) channel(ctx context.Context, name string) (string, error) {
	bare := strings.TrimPrefix(name, "#")
	c.mu.Lock()
	id := c.ids[bare]
	c.mu.Unlock()
	if id != "" {
		return id, nil
	}
	cursor := ""
	for range mostPages {
		list, next, err := c.api.GetConversationsForUserContext(ctx, &slack.GetConversationsForUserParameters{
			Cursor: cursor, Types: []string{"public_channel", "private_channel"}, Limit: perPage, ExcludeArchived: true,
		})
		if err != nil {
			return "", c.fault("users.conversations", err)
		}
		for _, ch := range list {
			if ch.Name == bare && ch.ID != "" {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.ids[bare] = ch.ID
				return ch.ID, nil
			}
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	return "", hint.Add(fmt.Errorf("slack: the app is not in channel #%s, or the channel is archived", bare),
		"/invite it there, or set another communications.slack_channel in the playbook")
}

// forget lets channels be looked up again where one cannot be reached.
func (c *Chat) forget(err error) {
	if isAny(err, notReached) {
		c.forgetAll()
	}
}

func (c *Chat) forgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids = map[string]string{}
}

// find looks in a channel for our message with that mark, from since on; "": it
// is not there. The one at not, which is known to be gone, does not count.
func (c *Chat) find(ctx context.Context, channel string, k mark, since time.Time, not string) (ts string, err error) {
	self, err := c.me(ctx)
	if err != nil {
		return "", err
	}
	cursor := ""
	for range mostPages {
		page, err := c.history(ctx, channel, since.Add(-skew), cursor, perPage)
		if err != nil {
			return "", err
		}
		for _, m := range page.Messages {
			if isOurs(m, self) && k.on(m) && m.Timestamp != not && timestamp.MatchString(m.Timestamp) {
				return m.Timestamp, nil
			}
		}
		if cursor = page.ResponseMetaData.NextCursor; cursor == "" || !page.HasMore {
			return "", nil
		}
	}
	// Told twice is better than not at all.
	c.log.Warn("too many newer messages in the channel to find an earlier one; it may be posted twice", "channel", channel)
	return "", nil
}

func (c *Chat) history(ctx context.Context, channel string, oldest time.Time, cursor string, limit int) (*slack.GetConversationHistoryResponse, error) {
	page, err := c.api.GetConversationHistoryContext(ctx, &slack.GetConversationHistoryParameters{
		ChannelID: channel, Cursor: cursor, Limit: limit, IncludeAllMetadata: true, Oldest: fmt.Sprintf("%d.000000", max(oldest.Unix(), 0)),
	})
	if err == nil && !page.Ok {
		err = errOddAnswer
	}
	if err != nil {
		c.forget(err)
		return nil, c.fault("conversations.history", err)
	}
	return page, nil
}

// replied reports whether a thread has our reply with that mark.
func (c *Chat) replied(ctx context.Context, channel, thread string, k mark) (bool, error) {
	self, err := c.me(ctx)
	if err != nil {
		return false, err
	}
	cursor := ""
	for n := range mostPages {
		page, more, next, err := c.api.GetConversationRepliesContext(ctx, &slack.GetConversationRepliesParameters{
			ChannelID: channel, Timestamp: thread, Cursor: cursor, Limit: perPage, IncludeAllMetadata: true,
		})
		if err == nil && n == 0 && len(page) == 0 { // a thread begins with its first message
			err = errOddAnswer
		}
		if err != nil {
			return false, c.fault("conversations.replies", err)
		}
		for _, m := range page {
			if isOurs(m, self) && k.on(m) {
				return true, nil
			}
		}
		if cursor = next; cursor == "" || !more {
			return false, nil
		}
	}
	c.log.Warn("the thread is too long to find an earlier reply; it may be posted twice", "channel", channel, "thread", thread)
	return false, nil
}
