// Package jsonhttp speaks to an HTTP API that takes and answers JSON and wants a secret
// in one header.
//
// The secret goes into that header and nowhere else: no redirect takes it along, and an
// answer that repeats it is told without it. One request is bounded in time, an answer in
// size. An answer other than a success is an *Error.
//
// Get and Change are for targets of actions. They wait where the service asks for it, and
// send again what met a conflict or a failure. Change looks before each try. A missing
// answer is remediation.InDoubt, which the engine resolves by looking.
package jsonhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

const (
	// timeout bounds one request, so that one that hangs leaves time for the next.
	timeout = 10 * time.Second
	// maxAnswer bounds what is read of an answer, maxSaid what is told of an error.
	maxAnswer = 16 << 20
	maxSaid   = 300
)

// Options are all that a Client needs.
type Options struct {
	// Name begins every error: launchdarkly.
	Name string
	// URL is the address before every path; Example is one for the hint.
	URL, Example string
	// Secret is what authorizes, SecretName what errors call it: token. Scheme precedes it
	// in the header, such as "OAuth ".
	Secret, SecretName, Scheme string
	// Header has what every request says in addition; a Content-Type only those with a body.
	Header map[string]string
	// Fresh: no connection is used twice. On one that was, net/http sends a cut-off GET
	// again by itself.
	Fresh bool
	// ResetMillis: X-Ratelimit-Reset says when to ask again, in milliseconds since 1970.
	// Many services write seconds there, or something else.
	ResetMillis bool
	// Said is what an error's body says, Try what a person can do about it; "" if unknown.
	// Both may be nil.
	Said func(body []byte) string
	Try  func(code int, said string) string

	Transport http.RoundTripper
	Now       func() time.Time
	// Wait returns after a time, or with an error once ctx ends.
	Wait func(ctx context.Context, d time.Duration) error
}

// Client speaks to one service.
type Client struct {
	o    Options
	base string
	http *http.Client
}

// New returns a client. It does not connect.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, hint.Add(fmt.Errorf("%s: the address is not http or https", o.Name), "%s", o.Example)
	case o.Secret == "" || strings.ContainsAny(o.Secret, "\r\n\x00"):
		return nil, fmt.Errorf("%s: the %s is empty or has more than one line", o.Name, o.SecretName)
	case o.Transport == nil || o.Now == nil || o.Wait == nil:
		return nil, fmt.Errorf("%s: transport, clock and wait are required", o.Name)
	}
	return &Client{o: o, base: strings.TrimRight(o.URL, "/"), http: &http.Client{
		Transport: o.Transport,
		// A redirect is not an answer: the secret does not follow.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Error is an answer other than a success.
type Error struct {
	Code int
	// After is how long the service asks to wait, if Asked.
	After time.Duration
	Asked bool
	text  string
}

func (e *Error) Error() string { return e.text }

// Once sends one request. in is its body and out takes the answer; either may be nil.
func (c *Client) Once(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s: encode request: %w", c.o.Name, err)
		}
		body = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return fmt.Errorf("%s: %w", c.o.Name, err)
	}
	req.Close = c.o.Fresh
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "backout")
	req.Header.Set("Content-Type", "application/json")
	for key, value := range c.o.Header {
		req.Header.Set(key, value)
	}
	if in == nil {
		req.Header.Del("Content-Type")
	}
	req.Header.Set("Authorization", c.o.Scheme+c.o.Secret)
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", c.o.Name, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return c.refused(method, path, res, text)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(text, out)
	}
	if err != nil { // it may have been done: the next try looks
		return fmt.Errorf("%s: %s %s: read the answer: %w", c.o.Name, method, path, err)
	}
	return nil
}

// refused says what an answer other than a success means.
func (c *Client) refused(method, path string, res *http.Response, body []byte) error {
	said := ""
	if c.o.Said != nil {
		said = c.o.Said(body)
	}
	if said == "" {
		said = string(body)
	}
	said = strings.ReplaceAll(strings.Join(strings.Fields(said), " "), c.o.Secret, "(the "+c.o.SecretName+")")
	said = strings.TrimRight(fmt.Sprintf("%s: %s %s: %d %s", c.o.Name, method, path, res.StatusCode, remediation.Plain(said, maxSaid)), " ")
	err := &Error{Code: res.StatusCode, text: said}
	err.After, err.Asked = c.after(res.Header)
	if c.o.Try != nil {
		if try := c.o.Try(res.StatusCode, said); try != "" {
			return hint.Add(err, "%s", try)
		}
	}
	return err
}

// after reads how long to wait: Retry-After has seconds or a date, X-Ratelimit-Reset a
// moment in milliseconds where the service means that. A moment that is past says nothing.
func (c *Client) after(h http.Header) (time.Duration, bool) {
	if n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	at, err := http.ParseTime(h.Get("Retry-After"))
	if err != nil && c.o.ResetMillis {
		var ms int64
		ms, err = strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64)
		at = time.UnixMilli(ms)
	}
	after := at.Sub(c.o.Now())
	return after, err == nil && after > 0
}

// ErrOdd is an answer that does not say what was asked for.
var ErrOdd = errors.New("unexpected answer")
