// Package probe asks a running service over HTTP how it is: whether it is healthy, which
// version it is, which flags it serves, and whether a smoke check passes. Each question
// is one GET that follows no redirection; of an answer at most a MiB is read.
package probe

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

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

const (
	// Attempt bounds one request.
	Attempt = 2 * time.Second
	// Every is the pause between two.
	Every = 50 * time.Millisecond
	// maxAnswer is how much of an answer is read, in bytes; maxVersion is how long a
	// version may be, as a tag may.
	maxAnswer  = 1 << 20
	maxVersion = 128
)

var (
	// ErrOtherwise marks a service's own word that it is not as wanted.
	ErrOtherwise = errors.New("the service reports another state")
	// ErrUnlisted marks such a word where the service does not list the flag at all.
	ErrUnlisted = errors.New("does not list")
)

// otherwise words an answer that is not as wanted.
type otherwise struct{ error }

func (otherwise) Is(target error) bool { return target == ErrOtherwise }

func (o otherwise) Unwrap() error { return o.error }

// Denied reports a service's word that it serves another value than the wanted one.
func Denied(err error) bool { return errors.Is(err, ErrOtherwise) && !errors.Is(err, ErrUnlisted) }

// Together is what the answers of several replicas come to: the first that is Denied,
// otherwise the first error.
func Together(answers []error) (first error) {
	for _, err := range answers {
		if Denied(err) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// Client asks addresses. It is safe for concurrent use.
type Client struct{ http *http.Client }

// New returns a client that keeps no connection open.
func New() *Client {
	return &Client{&http.Client{
		Timeout:       Attempt,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Get returns what an address answers, if the answer's status is 2xx.
func (c *Client) Get(ctx context.Context, url string) ([]byte, error) {
	status, body, err := c.request(ctx, url)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("%s answers %d %s", url, status, http.StatusText(status))
	}
	return body, err
}

func (c *Client) request(ctx context.Context, url string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return res.StatusCode, body, errors.Join(err, res.Body.Close())
}

// Flags asks which flags a service serves: a JSON object of them.
func (c *Client) Flags(ctx context.Context, address string) (map[string]string, error) {
	body, err := c.Get(ctx, address)
	if err != nil {
		return nil, err
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, fmt.Errorf("%s: not a JSON object of flags: %w", address, err)
	}
	flags := make(map[string]string, len(raw))
	for name, v := range raw {
		flags[name] = scalar(v)
	}
	return flags, nil
}

// Knows checks that a service lists a flag among those that it serves.
func (c *Client) Knows(ctx context.Context, address, flag string) remediation.Result {
	body, err := c.Get(ctx, address)
	if err != nil {
		return remediation.Unknown("the service does not report its flags: "+err.Error(), "check that it runs")
	}
	var flags map[string]json.RawMessage
	if err := json.Unmarshal(body, &flags); err != nil {
		return remediation.Failed(address+" returns no JSON object of flags", "set probe: {flags: ...} to an address that does")
	}
	raw, ok := flags[flag]
	if !ok {
		return remediation.Failed(fmt.Sprintf("%s does not list %s", address, flag), "fix the flag's name under flags:, or the service")
	}
	return remediation.Passed(fmt.Sprintf("%s lists it as %s", address, scalar(raw)))
}

// scalar is a JSON scalar as an environment variable would have it.
func scalar(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// FlagIs says why a service does not serve a flag with a value, or returns nil. Different
// spellings of off, and of a number, are the same: a service may parse its variable.
func (c *Client) FlagIs(ctx context.Context, address, name, value string) error {
	flags, err := c.Flags(ctx, address)
	if err != nil {
		return fmt.Errorf("flags: %w", err)
	}
	got, ok := flags[name]
	if !ok {
		return otherwise{fmt.Errorf("flags: %s %w %s", address, ErrUnlisted, name)}
	}
	if !same(got, value) {
		return otherwise{fmt.Errorf("flags: %s serves %s=%s, want %s", address, name, got, value)}
	}
	return nil
}

// same reports whether two spellings are the same value of a flag.
func same(a, b string) bool {
	x, y, ok := numbers(a, b)
	return strings.EqualFold(a, b) || ok && x == y || off(a) && off(b)
}

// numbers returns two values as numbers, if both are.
func numbers(a, b string) (x, y float64, both bool) {
	x, aerr := strconv.ParseFloat(a, 64)
	y, berr := strconv.ParseFloat(b, 64)
	return x, y, aerr == nil && berr == nil
}

// off reports the usual spellings of off.
func off(s string) bool {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return n == 0
	}
	switch strings.ToLower(s) {
	case "false", "off", "no", "":
		return true
	}
	return false
}

// Raises reports whether going from one value to another gives a flag more of the
// traffic.
func Raises(from, to string) bool {
	if a, b, ok := numbers(from, to); ok {
		return b > a
	}
	return !off(to)
}

// VersionIs says why an address does not answer with a version, or returns nil. A v
// before the number may be left out.
func (c *Client) VersionIs(ctx context.Context, address, version string) error {
	body, err := c.Get(ctx, address)
	if err != nil {
		return err
	}
	said, ok := Version(body)
	if !ok {
		return fmt.Errorf("%s reports no version: its answer is neither one word nor JSON with the key version", address)
	}
	if strings.TrimPrefix(said, "v") != strings.TrimPrefix(version, "v") {
		return otherwise{fmt.Errorf("%s reports version %q, want %s", address, said, version)}
	}
	return nil
}

// Version is the version in an answer: one word, or JSON with the key version.
func Version(body []byte) (string, bool) {
	body = bytes.TrimSpace(body)
	var object struct {
		Version *string `json:"version"`
	}
	said := string(body)
	if err := json.Unmarshal(body, &object); err == nil && object.Version != nil {
		said = *object.Version
	} else {
		var quoted string
		if json.Unmarshal(body, &quoted) == nil {
			said = quoted
		}
	}
	return said, said != "" && len(said) <= maxVersion && !strings.ContainsAny(said, " \t\r\n{}<>")
}

// Smoke asks one smoke check, once. The error does not contain the answer: that is the
// service's data.
func (c *Client) Smoke(ctx context.Context, s alerts.SmokeCheck) error {
	status, body, err := c.request(ctx, s.URL)
	if err != nil {
		return err
	}
	want := s.Status
	if want == 0 {
		want = http.StatusOK
	}
	switch {
	case status != want:
		return fmt.Errorf("%s answers %d, want %d", s.URL, status, want)
	case !bytes.Contains(body, []byte(s.Contains)):
		return fmt.Errorf("%s answers %d without %q in it", s.URL, status, s.Contains)
	}
	return nil
}
