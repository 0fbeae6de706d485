// Package webhook posts each new audit entry to an address, as a channel of package
// remediation, so that any tool can follow what backout does.
//
// A request follows Standard Webhooks (standardwebhooks.com): its body is the entry as
// JSON, and three headers let the receiver check it. webhook-id is the entry's
// number and hash, the same in every attempt; webhook-timestamp is the time of the
// attempt, in seconds; webhook-signature is v1, a comma and the base64 of the HMAC-SHA-256
// of id.timestamp.body. Entries come in their order: one that fails holds the next.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
)

// Prefix begins the name of every channel of this package.
const Prefix = "webhook:"

const (
	// timeout bounds one request.
	timeout = 15 * time.Second
	// maxSaid bounds what is reported of a refusal, in bytes.
	maxSaid = 300
)

// Options are all that a Hook needs.
type Options struct {
	// Name tells it from other webhooks.
	Name string
	// URL is where entries go, Secret signs them. A secret that begins with whsec_ is
	// base64, as Standard Webhooks has it; any other is used as it is.
	URL, Secret string
	Transport   http.RoundTripper
	Now         func() time.Time
}

// Hook is one address; it implements remediation.Channel.
type Hook struct {
	name, url string
	key       []byte
	client    *http.Client
	now       func() time.Time
}

// New checks the secret. It sends nothing.
func New(o Options) (*Hook, error) {
	key := []byte(o.Secret)
	if encoded, ok := strings.CutPrefix(o.Secret, "whsec_"); ok {
		var err error
		if key, err = base64.StdEncoding.DecodeString(encoded); err != nil || len(key) == 0 {
			return nil, fmt.Errorf("webhook %s: what follows whsec_ in the secret is not base64", o.Name)
		}
	}
	return &Hook{name: o.Name, url: o.URL, key: key, now: o.Now, client: &http.Client{
		Transport: o.Transport, Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Name implements remediation.Channel.
func (h *Hook) Name() string { return Prefix + h.name }

// Deliver implements remediation.Channel. The message's Key is not used: What is the id.
func (h *Hook) Deliver(ctx context.Context, m remediation.Message) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(m.Body))
	if err != nil {
		return "", remediation.Undeliverable(fmt.Errorf("webhook %s: %w", h.name, err))
	}
	at := strconv.FormatInt(h.now().Unix(), 10)
	mac := hmac.New(sha256.New, h.key)
	mac.Write([]byte(m.What + "." + at + "." + string(m.Body)))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "backout")
	req.Header.Set("webhook-id", m.What)
	req.Header.Set("webhook-timestamp", at)
	req.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	res, err := h.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("webhook %s: %w", h.name, unwrapped(err))
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, maxSaid))
	if res.StatusCode >= 200 && res.StatusCode <= 299 {
		return "", nil
	}
	err = fmt.Errorf("webhook %s: %d %s", h.name, res.StatusCode, remediation.Plain(strings.Join(strings.Fields(string(said)), " "), maxSaid))
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if n, perr := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 31); perr == nil {
			return "", remediation.RetryAfter(time.Duration(n)*time.Second, err)
		}
	case http.StatusBadRequest, http.StatusGone, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return "", remediation.Undeliverable(err)
	}
	return "", err // the receiver may answer otherwise later: it is tried again
}

// unwrapped leaves out the address, whose path may be a secret.
func unwrapped(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}
