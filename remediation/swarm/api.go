package swarm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

const (
	// timeout bounds one request, so that one that hangs leaves time for the next.
	timeout = 10 * time.Second
	// tries is how often an update is sent that meets a change by others, or no answer.
	tries = 5
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 20
)

// pause is the time before the n-th next try.
func pause(n int) time.Duration { return 250 * time.Millisecond << (n - 1) }

// statusError is an answer other than a success.
type statusError struct {
	code    int
	message string
}

func (e *statusError) Error() string { return e.message }

// answered returns the status of an answer that is an error; 0 if there is none, or no
// answer.
func answered(err error) int {
	var s *statusError
	if errors.As(err, &s) {
		return s.code
	}
	return 0
}

// do sends one request. in and out are JSON, and may be nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	version, err := c.apiVersion(ctx)
	if err != nil {
		return err
	}
	raw, header, err := c.request(ctx, method, "/v"+version+path, in)
	if now := header.Get("Api-Version"); now != "" && now != version {
		c.mu.Lock()
		c.version = now
		c.mu.Unlock()
		switch {
		case method == http.MethodGet:
			raw, _, err = c.request(ctx, method, "/v"+now+path, in)
		case err != nil: // the caller looks again, and changes what it sees by then
			err = fmt.Errorf("the Docker engine's API is %s by now, not %s: %w", now, version, noAnswer{err})
		}
	}
	if err == nil && out != nil {
		// As it is written: a number of nanoseconds has more digits than a float.
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		err = d.Decode(out)
	}
	return err
}

// apiVersion is the newest one that the engine speaks: of an older one, the answer lacks
// newer fields of a spec, which would then be lost. Every answer names it, since the engine
// may be upgraded, or put back, meanwhile.
func (c *Client) apiVersion(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == "" {
		_, header, err := c.request(ctx, http.MethodGet, "/_ping", nil)
		if err != nil {
			return "", hint.Add(err, "docker: {host: ...} in the configuration file")
		}
		if c.version = header.Get("Api-Version"); c.version == "" {
			return "", errors.New("the Docker engine does not name its API version")
		}
	}
	return c.version, nil
}

func (c *Client) request(ctx context.Context, method, path string, in any) (answer []byte, header http.Header, err error) {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return nil, nil, err
		}
		body = bytes.NewReader(raw)
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, nil, unanswered(whole, err)
	}
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, nil, unanswered(whole, err)
	}
	if res.StatusCode/100 != 2 {
		var said struct{ Message string }
		if err := json.Unmarshal(answer, &said); err != nil || said.Message == "" {
			said.Message = fmt.Sprintf("the Docker engine answers %d %s", res.StatusCode, http.StatusText(res.StatusCode))
		}
		return nil, res.Header, &statusError{res.StatusCode, said.Message}
	}
	return answer, res.Header, nil
}

// unanswered words a request without an answer. A time limit of the request alone is
// not the caller's.
func unanswered(whole context.Context, err error) error {
	if whole.Err() != nil {
		return fmt.Errorf("reach the Docker engine: %w: %w", err, whole.Err())
	}
	return fmt.Errorf("reach the Docker engine: %w", noAnswer{err})
}

// noAnswer hides what it wraps: a request's own time limit must not count as the caller's.
type noAnswer struct{ err error }

func (e noAnswer) Error() string { return e.err.Error() }

// silent reports an error of a request without an answer, or without one that decides
// anything.
func silent(err error) bool {
	var none noAnswer
	return answered(err) >= http.StatusInternalServerError || errors.As(err, &none) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// doubtful marks an error after which it is not known whether the manager did what it was
// asked.
func doubtful(err error) error {
	if !silent(err) {
		return err
	}
	return remediation.InDoubt(err)
}

// wait returns false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
