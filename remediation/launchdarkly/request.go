package launchdarkly

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

const (
	// apiVersion is the one whose answers are read here; without it, the token's
	// own decides.
	apiVersion = "20220603"
	// tries is how often a request is sent that meets a conflict or a failure.
	tries = 5
	// timeout bounds one request, so that one that hangs leaves time for the next.
	timeout = 10 * time.Second
	// maxAnswer bounds what is read of an answer, maxSaid what is told of an error.
	maxAnswer = 16 << 20
	maxSaid   = 300
	// restWithout is how long is waited after a 429 that does not say: the limits
	// are of ten seconds. maxRest ends a wait that nobody can mean.
	restWithout = 10 * time.Second
	maxRest     = 10 * time.Minute
)

// pause is the time before the n-th next try.
func pause(n int) time.Duration { return 250 * time.Millisecond << (n - 1) }

// statusError is an answer other than a success.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

// again reports whether the same request may succeed a little later.
func (e *statusError) again() bool {
	return e.code == http.StatusConflict || e.code >= http.StatusInternalServerError
}

// get asks until there is a whole answer, or one that will stay what it is.
func (c *Client) get(ctx context.Context, path string, out any) error {
	var last error
	for n := range tries {
		if n > 0 {
			if err := c.wait(ctx, pause(n)); err != nil {
				return fmt.Errorf("%w: %w", last, err)
			}
		}
		text, err := c.send(ctx, http.MethodGet, path, nil)
		if err == nil {
			if err = json.Unmarshal(text, out); err == nil {
				return nil
			}
			err = fmt.Errorf("launchdarkly: read the answer: %w", err)
		}
		var s *statusError
		if ctx.Err() != nil || errors.As(err, &s) && !s.again() {
			return err
		}
		last = err
	}
	return last
}

// send sends one request, and once more each time that it comes too soon, which
// means that nothing was done.
func (c *Client) send(ctx context.Context, method, path string, in any) ([]byte, error) {
	for {
		text, rest, err := c.once(ctx, method, path, in)
		if rest == 0 {
			return text, err
		}
		if werr := c.wait(ctx, rest); werr != nil {
			return nil, &statusError{http.StatusTooManyRequests, fmt.Sprintf("%v; it asked to wait %s, and the timeout came first: %v", err, remediation.Span(rest), werr)}
		}
	}
}

// once sends one request; rest is how long to wait where it came too soon.
func (c *Client) once(ctx context.Context, method, path string, in any) (text []byte, rest time.Duration, err error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, 0, fmt.Errorf("launchdarkly: encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, 0, fmt.Errorf("launchdarkly: %w", err)
	}
	req.Header.Set("Authorization", c.token)
	req.Header.Set("LD-API-Version", apiVersion)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "backout")
	if in != nil {
		req.Header.Set("Content-Type", "application/json; domain-model=launchdarkly.semanticpatch")
	}
	res, err := c.client.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("launchdarkly: %w", err)
	}
	defer res.Body.Close()
	text, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	switch {
	case res.StatusCode == http.StatusTooManyRequests:
		return nil, c.restOf(res.Header), c.refused(method, path, res.StatusCode, text)
	case res.StatusCode < 200 || res.StatusCode > 299:
		return nil, 0, c.refused(method, path, res.StatusCode, text)
	case err != nil:
		return nil, 0, fmt.Errorf("launchdarkly: %s %s: read the answer: %w", method, path, err)
	}
	return text, 0, nil
}

// restOf reads how long to wait: seconds, or a moment in milliseconds.
func (c *Client) restOf(h http.Header) time.Duration {
	rest := restWithout
	if n, err := strconv.ParseInt(h.Get("Retry-After"), 10, 32); err == nil {
		rest = time.Duration(n) * time.Second
	} else if n, err := strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64); err == nil {
		rest = time.UnixMilli(n).Sub(c.now())
	}
	return min(max(rest, 100*time.Millisecond), maxRest)
}

// refused says what an answer other than a success means.
func (c *Client) refused(method, path string, code int, text []byte) error {
	said := string(text)
	var e struct{ Code, Message string }
	if err := json.Unmarshal(text, &e); err == nil && e.Code+e.Message != "" {
		said = e.Code + ": " + e.Message
	}
	said = strings.ReplaceAll(strings.Join(strings.Fields(said), " "), c.token, "(the token)")
	said = strings.TrimRight(fmt.Sprintf("launchdarkly: %s %s: %d %s", method, path, code, remediation.Plain(said, maxSaid)), " ")
	err := &statusError{code, said}
	if try := c.try(code, said); try != "" {
		return hint.Add(err, "%s", try)
	}
	return err
}

// try is what a person can do about an answer. An environment that requires
// approvals answers 405, which does not say so by itself.
func (c *Client) try(code int, said string) string {
	switch {
	case (code == http.StatusMethodNotAllowed || code == http.StatusForbidden) && strings.Contains(strings.ToLower(said), "approval"):
		return "switch the flag in LaunchDarkly, where this environment requires approvals, or let the token's role bypass them"
	case code == http.StatusUnauthorized:
		return "put another access token into launchdarkly.token_file, with a role that may see and switch the flag"
	case code == http.StatusForbidden:
		return "put an access token into launchdarkly.token_file whose role may see the flag and has updateOn in its environment"
	case code == http.StatusNotFound:
		return "fix launchdarkly.project or launchdarkly.key in the playbook's flags, or use a token that may see them"
	}
	return ""
}
