package statuspage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

const (
	// pace is the distance of two requests: the API takes one per second, as it
	// counts them.
	pace = 1100 * time.Millisecond
	// perPage is how many items an answer may hold; the API's most.
	perPage = 100
	// morePages bounds how far a list is read.
	morePages = 50
	// restWithout is how long a page rests that asked for it without a time.
	restWithout = 10 * time.Second
)

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
	err := p.api.Once(ctx, method, path, in, out)
	var e *jsonhttp.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Code == 420 || e.Code == http.StatusTooManyRequests:
		if !e.Asked {
			e.After = restWithout
		}
		return remediation.RetryAfter(e.After, err)
	case e.Code >= 500 && e.Asked:
		return remediation.RetryAfter(e.After, err)
	case e.Code >= 500 || e.Code == http.StatusRequestTimeout:
		return err
	case e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden:
		// A key that ran out in the midst of an incident: with another one the page must
		// still be told that it is over.
		return hint.Add(err, "put another key into statuspage.api_key_file and restart backout")
	case e.Code == http.StatusNotFound && (path == "/incidents" || strings.Contains(path, "?")):
		err = hint.Add(err, "check the page's id in statuspage.page")
	}
	return remediation.Undeliverable(err)
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
