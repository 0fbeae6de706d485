// Package observe queries Prometheus for values and Alertmanager for silences, for the
// engine.
//
// Both clients get their address from the configuration, never from a notification. Every
// request has a time limit, every response a size limit. Neither keeps state between two
// requests or decides anything: an unexpected answer is an error.
package observe

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/locotoki/backout/hint"
)

// parseBase checks the base address of a server that is called name in errors.
func parseBase(name, address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("%s: address cannot be read: %w", name, cause(err))
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%s: address %q is not an http or https address with a host", name, u.Redacted())
	}
	if u.User != nil { // it would be shown with the address
		return nil, hint.Add(fmt.Errorf("%s: the address must not contain a user name or password", name), "http_config in --config.file")
	}
	return u, nil
}

// cause returns what a URL error wraps: the address is named already, and the
// query in it is of no use to a reader.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

var errTooLarge = errors.New("response is larger than the limit")

// bounded is a RoundTripper whose response bodies end with an error after max bytes.
type bounded struct {
	next http.RoundTripper
	max  int64
}

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: b.max, max: b.max}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left, max int64
}

// Read implements io.Reader. One byte more than allowed is asked for, so that
// a body of exactly max bytes passes.
func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		n = int(b.left)
		b.left = 0
		return n, fmt.Errorf("%w of %d bytes", errTooLarge, b.max)
	}
	b.left -= int64(n)
	return n, err
}
