package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/locotoki/backout/remediation"
)

const (
	// fieldManager is who metadata.managedFields says owns what backout wrote.
	fieldManager = "backout"
	// timeout bounds one request, so that one that hangs leaves time for the next.
	timeout = 10 * time.Second
	// tries is how often a patch is sent that meets a change by others, or no answer.
	tries = 5
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 20

	jsonPatch = "application/json-patch+json"
)

// pause is the time before the n-th next try.
func pause(n int) time.Duration { return 250 * time.Millisecond << (n - 1) }

// cluster is the API server of one cluster.
type cluster struct {
	base string
	http *http.Client
}

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
func (k *cluster) do(ctx context.Context, method, path, contentType string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, k.base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := k.http.Do(req)
	if err != nil {
		return unanswered(whole, err)
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return unanswered(whole, err)
	}
	if res.StatusCode/100 != 2 {
		return failed(res.StatusCode, raw)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}

// unanswered words a request without an answer. A time limit of the request alone is
// not the caller's.
func unanswered(whole context.Context, err error) error {
	if whole.Err() != nil {
		return fmt.Errorf("reach the API server: %w: %w", err, whole.Err())
	}
	return fmt.Errorf("reach the API server: %w", noAnswer{err})
}

// noAnswer hides what it wraps: a request's own time limit must not count as the caller's.
type noAnswer struct{ err error }

func (e noAnswer) Error() string { return e.err.Error() }

// failed words an answer that is an error: a Status, or something in the way.
func failed(code int, raw []byte) error {
	var status struct{ Message string }
	if err := json.Unmarshal(raw, &status); err != nil || status.Message == "" {
		status.Message = fmt.Sprintf("the API server answers %d %s", code, http.StatusText(code))
	}
	return &statusError{code, status.Message}
}

// silent reports an error of a request without an answer, or without one that decides
// anything.
func silent(err error) bool {
	var none noAnswer
	code := answered(err)
	return code >= http.StatusInternalServerError || code == http.StatusTooManyRequests ||
		errors.As(err, &none) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// doubtful marks an error after which it is not known whether the API server did what it
// was asked.
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
