package slack

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

const (
	// timeout bounds one call of the API.
	timeout = 15 * time.Second
	// mostAnswer bounds what is read of an answer, mostSaid what is told of an error.
	mostAnswer = 8 << 20
	mostSaid   = 300
	// restWithout is how long we rest where Slack asks for it without a time.
	restWithout = 30 * time.Second
)

// errOddAnswer is an answer that says neither yes nor no.
var errOddAnswer = errors.New("unexpected answer")

// client goes nowhere but where it is sent: the token is for nobody else.
func client(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport: bounded{transport}, Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded cuts answers off that have no end.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, mostAnswer), res.Body}
	}
	return res, err
}

var (
	// notThere are the answers to an update of a message that is not there, or not ours
	// to change, any more.
	notThere = []string{"message_not_found", "cant_update_message", "edit_window_closed"}
	// notReached are those to anything in a channel that we cannot get at.
	notReached = []string{"channel_not_found", "not_in_channel", "is_archived", "is_inactive"}
	// notWritten are those that say that the message itself is wrong: it stays so.
	notWritten = []string{
		"invalid_blocks", "invalid_blocks_format", "msg_too_long", "msg_blocks_too_long", "no_text", "too_many_attachments",
		"invalid_attachments", "invalid_metadata_format", "invalid_metadata_schema", "metadata_too_large",
		"invalid_arguments", "invalid_arg_name", "invalid_array_arg", "invalid_charset", "invalid_form_data", "invalid_post_type",
		"markdown_text_conflict", "block_mismatch",
	}
)

func isAny(err error, codes []string) bool {
	var said slack.SlackErrorResponse
	return errors.As(err, &said) && slices.Contains(codes, said.Err)
}

// try says what a person can do about an error code of Slack's, "" where nothing.
func try(code string) string {
	switch code {
	case "channel_not_found", "not_in_channel":
		return "/invite the app into the channel of communications.slack_channel"
	case "is_archived", "is_inactive":
		return "unarchive the channel, or name another one in communications.slack_channel"
	case "invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive", "not_allowed_token_type":
		return "put the installed app's token (xoxb-...) into slack.token_file and restart backout"
	case "missing_scope", "no_permission":
		return "give the app the scopes chat:write, channels:read, channels:history, groups:read and groups:history, and install it again"
	case "restricted_action", "restricted_action_read_only_channel", "restricted_action_thread_only_channel", "restricted_action_non_threadable_channel":
		return "allow the app to post messages and threads in the channel's posting permissions"
	case "ekm_access_denied", "access_denied", "accesslimited", "team_access_not_granted", "enterprise_is_restricted", "two_factor_setup_required":
		return "ask the workspace's administrators to allow the app"
	}
	return ""
}

// fault says what an error of a call means for the message: whether it is tried
// again, and when.
func (c *Chat) fault(method string, err error) error {
	var limited *slack.RateLimitedError
	var status slack.StatusCodeError
	var said slack.SlackErrorResponse
	switch {
	case err == nil:
		return nil
	case errors.As(err, &limited):
		return remediation.RetryAfter(max(limited.RetryAfter, time.Second), fmt.Errorf("slack: %s: %w", method, err))
	case errors.As(err, &status):
		err = fmt.Errorf("slack: %s: answered with status %d", method, status.Code)
		switch {
		case status.Code == http.StatusTooManyRequests:
			return remediation.RetryAfter(restWithout, err)
		case status.Code < 500:
			return hint.Add(err, "check that slack.url, and any proxy, lead to Slack")
		}
		return err
	case errors.As(err, &said):
		return c.refused(method, said)
	}
	return fmt.Errorf("slack: %s: %w", method, err)
}

// refused is what an answer means that says no.
func (c *Chat) refused(method string, said slack.SlackErrorResponse) error {
	words := said.Err
	if said.Needed != "" {
		words += ", needed: " + said.Needed
	}
	if len(said.ResponseMetadata.Messages) > 0 {
		words += " (" + strings.Join(said.ResponseMetadata.Messages, "; ") + ")"
	}
	text := fmt.Sprintf("slack: %s: %s", method, remediation.Plain(strings.ReplaceAll(words, c.token, "(the token)"), mostSaid))
	err := hint.Add(&refusedError{text, said}, "%s", try(said.Err))
	switch {
	case said.Err == "ratelimited" || said.Err == "rate_limited":
		return remediation.RetryAfter(restWithout, err)
	case slices.Contains(notWritten, said.Err):
		return remediation.Undeliverable(err)
	}
	return err
}

// refusedError keeps the answer for those who ask for its code.
type refusedError struct {
	text string
	said slack.SlackErrorResponse
}

func (e *refusedError) Error() string { return e.text }

// Unwrap returns Slack's answer.
func (e *refusedError) Unwrap() error { return e.said }
