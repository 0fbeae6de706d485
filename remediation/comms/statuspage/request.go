package statuspage

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
	// pace is the distance of two requests: the API takes one per second, as it
	// counts them.
	pace = 1100 * time.Millisecond
	// perPage is how many items an answer may hold; the API's most.
	perPage = 100
	// morePages bounds how far a list is read.
	morePages = 50
	// maxAnswer bounds what is read of an answer, maxSaid what is told of an error.
	maxAnswer = 8 << 20
	maxSaid   = 300
	// restWithout is how long a page rests that asked for it without a time.
	restWithout = 10 * time.Second
)

// statusError is an answer other than a success.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

// turn waits until the next request may be sent.
func (p *Page) turn(ctx context.Context) error {
	p.mu.Lock()
	now := p.now()
	at := now
	if p.next.After(now) {
		at = p.next
	}
	p.next = at.Add(pace)
	p.mu.Unlock()
	if at.After(now) {
		return p.wait(ctx, at.Sub(now))
	}
	return ctx.Err()
}

// call sends one request; out, where it is not nil, takes the answer.
func (p *Page) call(ctx context.Context, method, path string, in, out any) error {
	if err := p.turn(ctx); err != nil {
		return fmt.Errorf("statuspage: wait for a turn: %w", err)
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return remediation.Undeliverable(fmt.Errorf("statuspage: encode request: %w", err))
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.base+path, body)
	if err != nil {
		return remediation.Undeliverable(fmt.Errorf("statuspage: %w", err))
	}
	req.Header.Set("Authorization", "OAuth "+p.key)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "backout")
	// On a connection that was used before, a GET that is cut off would be sent
	// again by itself, without waiting for its turn.
	req.Close = true
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("statuspage: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return p.refused(method, path, res, text)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(text, out)
	}
	if err != nil { // it may have been done: the next try looks
		return fmt.Errorf("statuspage: %s %s: read the answer: %w", method, path, err)
	}
	return nil
}

// refused says what an answer other than a success means.
func (p *Page) refused(method, path string, res *http.Response, text []byte) error {
	said := strings.ReplaceAll(strings.Join(strings.Fields(string(text)), " "), p.key, "(the key)")
	said = fmt.Sprintf("statuspage: %s %s: %d %s", method, path, res.StatusCode, remediation.Plain(said, maxSaid))
	err := error(&statusError{res.StatusCode, strings.TrimRight(said, " ")})
	after, asked := retryAfter(res.Header.Get("Retry-After"), p.now())
	switch code := res.StatusCode; {
	case code == 420 || code == http.StatusTooManyRequests:
		if !asked {
			after = restWithout
		}
		return remediation.RetryAfter(after, err)
	case code >= 500 && asked:
		return remediation.RetryAfter(after, err)
	case code >= 500 || code == http.StatusRequestTimeout:
		return err
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		// A key that ran out in the midst of an incident: with another one the page must
		// still be told that it is over.
		return hint.Add(err, "put another key into statuspage.api_key_file and restart backout")
	case code == http.StatusNotFound && (path == "/incidents" || strings.Contains(path, "?")):
		err = hint.Add(err, "check the page's id in statuspage.page")
	}
	return remediation.Undeliverable(err)
}

// retryAfter reads a header that holds seconds or a date.
func retryAfter(text string, now time.Time) (time.Duration, bool) {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if t, err := http.ParseTime(text); err == nil {
		return max(t.Sub(now), 0), true
	}
	return 0, false
}

// pages reads a list to its end.
func (p *Page) pages(ctx context.Context, path string, each func(json.RawMessage) error) error {
	for n := 1; n <= morePages; n++ {
		var list []json.RawMessage
		if err := p.call(ctx, http.MethodGet, fmt.Sprintf("%s?page=%d&per_page=%d", path, n, perPage), nil, &list); err != nil {
			return err
		}
		for _, raw := range list {
			if err := each(raw); err != nil {
				return err
			}
		}
		if len(list) < perPage {
			return nil
		}
	}
	return remediation.Undeliverable(errors.New("statuspage: " + path + " has too many pages"))
}
