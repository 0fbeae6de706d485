// Package client calls the API of a backout server, for the commands.
//
// Invariants: the token goes to the address that was named and nowhere else, and over
// plain http to this machine only, unless the caller allows more. Each failure is an
// *Error that says what to try.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
	"github.com/locotoki/backout/trust"
)

const (
	// DefaultURL is where a server listens by default.
	DefaultURL = "http://127.0.0.1:9099"
	// maxAnswer is far above a page of audit entries with thousands of alerts each.
	maxAnswer = 256 << 20
	// askTimeout bounds one request to a server.
	askTimeout = 30 * time.Second
)

// maxTokenFile is the largest token file, in bytes.
const maxTokenFile = 4096

// Error is why a call has no result.
type Error struct {
	error
	// Unreachable: no server answered, which may be temporary.
	Unreachable bool
	// Negative: the server's answer is no, and the request was right.
	Negative bool
	// Try is what to do about it, or "".
	Try string
}

func (e *Error) Unwrap() error { return e.error }

// wrong is a mistake in how the server was called.
func wrong(try, format string, args ...any) error {
	return &Error{error: fmt.Errorf(format, args...), Try: try}
}

func unreachable(try, format string, args ...any) error {
	return &Error{error: fmt.Errorf(format, args...), Unreachable: true, Try: try}
}

// Client calls the API of one server.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// New returns a client of the server at an address, with the token in a file; "": without
// one. insecure lets the token go over plain http to other machines too.
func New(address, tokenFile string, insecure bool) (*Client, error) {
	base, err := url.Parse(address)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, wrong("--url="+DefaultURL, "--url: %q is not an http or https address", address)
	}
	if base.User != nil {
		return nil, wrong("--token-file=FILE", "--url: the address must not contain a user name or password")
	}
	cl := &Client{base: base, http: &http.Client{
		Timeout:   askTimeout,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a token goes to the address that was named, nowhere else
		},
	}}
	if tokenFile != "" {
		b, err := trust.ReadShared(tokenFile, maxTokenFile)
		if err != nil {
			return nil, wrong("the path of a file that holds a token of the server's configuration", "--token-file: %w", err)
		}
		if cl.token = strings.TrimSpace(string(b)); cl.token == "" {
			return nil, wrong("write the token into it, on one line", "--token-file: %s is empty", tokenFile)
		}
		if base.Scheme == "http" && !trust.Loopback(base.Hostname()) && !insecure {
			return nil, wrong("--url=https://..., or --insecure-http on a network that you trust",
				"--url: over http anyone on the path to %s can read the token", base.Host)
		}
		if strings.ContainsFunc(cl.token, unicode.IsControl) {
			return nil, wrong("write the token into it, on one line", "--token-file: %s holds more than one line", tokenFile)
		}
	}
	return cl, nil
}

// Ask sends a request and decodes the answer into into. query and body may be nil.
func (cl *Client) Ask(ctx context.Context, method, path string, query url.Values, body, into any) (err error) {
	u := cl.base.JoinPath(path)
	u.RawQuery = query.Encode()
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return fmt.Errorf("build request: %w", err)
	}
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	if cl.token != "" {
		req.Header.Set("Authorization", "Bearer "+cl.token)
	}
	resp, err := cl.http.Do(req)
	if err != nil {
		return cl.silent(method, err)
	}
	defer func() {
		if cerr := resp.Body.Close(); cerr != nil && err == nil {
			err = fmt.Errorf("server at %s: %w", cl.base, cerr)
		}
	}()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return cl.silent(method, err)
	case len(answer) > maxAnswer:
		return fmt.Errorf("server at %s: the answer is larger than %d bytes", cl.base, maxAnswer)
	case resp.StatusCode != http.StatusOK:
		return cl.refused(method, resp.StatusCode, answer)
	}
	dec := json.NewDecoder(bytes.NewReader(answer))
	dec.UseNumber() // an audit entry's numbers must come out as they went in
	if err = dec.Decode(into); err == nil {
		err = whole(answer, reflect.TypeOf(into).Elem())
	}
	if err != nil {
		return wrong("--url=ADDRESS of a backout server", "server at %s: the answer to %s %s is not from backout: %w", cl.base, method, path, err)
	}
	return nil
}

// whole refuses an answer without a key that every answer of its type has: any JSON object
// decodes, such as that of a login page.
func whole(answer []byte, t reflect.Type) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(answer, &object); err != nil {
		return err
	}
	for _, f := range reflect.VisibleFields(t) {
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "" || key == "-" || strings.Contains(options, "omit") {
			continue
		}
		if _, ok := object[key]; !ok {
			return fmt.Errorf("it has no %q", key)
		}
	}
	return nil
}

// ErrMayHaveChanged is in the error of a change that was interrupted before its answer came.
var ErrMayHaveChanged = errors.New("the server may have made the change")

// silent explains why there is no answer.
func (cl *Client) silent(method string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled) && method != http.MethodGet:
		return fmt.Errorf("%w: %w", ErrMayHaveChanged, context.Canceled)
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, syscall.ECONNREFUSED):
		return unreachable("start `backout serve`, or name another server with --url",
			"connection refused by %s; is `backout serve` running?", cl.base)
	case errors.As(err, &timeout) && timeout.Timeout():
		return unreachable("", "the server at %s did not answer in time", cl.base)
	}
	return unreachable("", "no answer from the server at %s: %w", cl.base, err)
}

// refused turns an answer other than 200 into a sentence.
func (cl *Client) refused(method string, status int, answer []byte) error {
	var body struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(answer, &body); err != nil || body.Error == "" {
		if status >= http.StatusBadGateway && status <= http.StatusGatewayTimeout {
			return unreachable("", "the proxy at %s answered %d %s: it reaches no backout server now", cl.base, status, http.StatusText(status))
		}
		return wrong("--url=ADDRESS of a backout server", "the server at %s answered %d %s, which is not an answer of backout",
			cl.base, status, http.StatusText(status))
	}
	message, try := hint.Cut(body.Error)
	switch status {
	case http.StatusUnauthorized:
		return wrong("--token-file=FILE, with a token that the server's configuration lists", "%s", message)
	case http.StatusForbidden:
		role := "commander"
		if method == http.MethodGet {
			role = "viewer or a commander"
		}
		return wrong(cmp.Or(try, "--token-file=FILE, with the token of a "+role), "%s", message)
	case http.StatusNotFound, http.StatusConflict:
		return &Error{error: errors.New(message), Negative: true, Try: try}
	case http.StatusBadRequest:
		return wrong(try, "%s", message)
	case http.StatusServiceUnavailable:
		return unreachable(try, "the server at %s cannot answer now: %s", cl.base, message)
	}
	return wrong(try, "the server at %s answered %d: %s", cl.base, status, message)
}

// Incidents is for the commands that read. The API returns the oldest first, so it reads all
// pages, and keeps the newest if the filter says so.
func (cl *Client) Incidents(ctx context.Context, f remediation.IncidentFilter) ([]view.IncidentView, error) {
	q := url.Values{"limit": {"1000"}}
	if f.Open {
		q.Set("status", "open")
	}
	if f.Closed {
		q.Set("status", "closed")
	}
	if f.Service != "" {
		q.Set("service", f.Service)
	}
	all := []view.IncidentView{}
	for {
		var page struct {
			Incidents []view.IncidentView `json:"incidents"`
			Next      string              `json:"next,omitempty"`
		}
		if err := cl.Ask(ctx, http.MethodGet, "api/v1/incidents", q, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Incidents...)
		if f.Newest && f.Limit > 0 && len(all) > f.Limit {
			all = all[len(all)-f.Limit:]
		}
		if page.Next == "" || page.Next == q.Get("after") {
			return all, nil
		}
		q.Set("after", page.Next)
	}
}

// Incident is for the commands that read.
func (cl *Client) Incident(ctx context.Context, id string) (v view.IncidentView, err error) {
	err = cl.Ask(ctx, http.MethodGet, "api/v1/incidents/"+url.PathEscape(id), nil, nil, &v)
	return v, err
}

// Plot is for the commands that read.
func (cl *Client) Plot(ctx context.Context, id, trigger string) (p view.Plot, err error) {
	err = cl.Ask(ctx, http.MethodGet, "api/v1/incidents/"+url.PathEscape(id)+"/plot", url.Values{"trigger": {trigger}}, nil, &p)
	return p, err
}

// Entries is for the commands that read.
func (cl *Client) Entries(ctx context.Context, f audit.Filter) ([]audit.Entry, error) {
	q := url.Values{"after": {strconv.FormatInt(f.After, 10)}, "limit": {strconv.Itoa(f.Limit)}}
	if f.Incident != "" {
		q.Set("incident", f.Incident)
	}
	if f.Kind != "" {
		q.Set("kind", string(f.Kind))
	}
	var list struct {
		Entries []audit.Entry `json:"entries"`
	}
	err := cl.Ask(ctx, http.MethodGet, "api/v1/audit", q, nil, &list)
	return list.Entries, err
}

// Head is for the commands that read.
func (cl *Client) Head(ctx context.Context) (seq int64, hash string, err error) {
	var head struct {
		Seq  int64  `json:"seq"`
		Hash string `json:"hash"`
	}
	err = cl.Ask(ctx, http.MethodGet, "api/v1/audit/head", nil, nil, &head)
	return head.Seq, head.Hash, err
}

// Rollouts is for the commands that read.
func (cl *Client) Rollouts(ctx context.Context) ([]view.RolloutView, error) {
	var list struct {
		Rollouts []view.RolloutView `json:"rollouts"`
	}
	err := cl.Ask(ctx, http.MethodGet, "api/v1/rollout", nil, nil, &list)
	return list.Rollouts, err
}

// Preflight returns the last preflight of a service; "": of the only one.
func (cl *Client) Preflight(ctx context.Context, service string) (v remediation.PreflightView, err error) {
	q := url.Values{}
	if service != "" {
		q.Set("service", service)
	}
	err = cl.Ask(ctx, http.MethodGet, "api/v1/preflight", q, nil, &v)
	return v, err
}

// Rehearsal is the latest rehearsal of a service.
func (cl *Client) Rehearsal(ctx context.Context, service string) (v remediation.RehearsalView, err error) {
	q := url.Values{}
	if service != "" {
		q.Set("service", service)
	}
	err = cl.Ask(ctx, http.MethodGet, "api/v1/rehearse", q, nil, &v)
	return v, err
}

// Rehearsals implements source; while one runs, only its results so far are known.
func (cl *Client) Rehearsals(ctx context.Context, service string) ([]remediation.Rehearsal, error) {
	v, err := cl.Rehearsal(ctx, service)
	if err == nil && v.Running {
		err = &Error{error: fmt.Errorf("a rehearsal of %s is running", v.Service), Negative: true, Try: "wait for it"}
	}
	return v.Rehearsals, err
}
