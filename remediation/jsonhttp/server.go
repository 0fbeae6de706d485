package jsonhttp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/locotoki/backout/remediation"
)

// maxList bounds what is read of an answer of a Server, in bytes: it may be a list of all that there is.
const maxList = 64 << 20

// Server is an HTTP API whose connection says who we are.
type Server struct {
	// Name is what errors call it: the API server.
	Name string
	Base string
	HTTP *http.Client
}

// Call sends one request; in is its body as JSON, and may be nil. An answer other than a success is an *Error, and comes
// with its header.
func (s *Server) Call(ctx context.Context, method, path, contentType string, in any) (answer []byte, header http.Header, err error) {
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
	req, err := http.NewRequestWithContext(ctx, method, s.Base+path, body)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", cmp.Or(contentType, "application/json"))
	}
	res, err := s.HTTP.Do(req)
	if err != nil {
		return nil, nil, s.unanswered(whole, err)
	}
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxList))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, nil, s.unanswered(whole, err)
	}
	if res.StatusCode/100 == 2 {
		return answer, res.Header, nil
	}
	var said struct{ Message string }
	if err := json.Unmarshal(answer, &said); err != nil || said.Message == "" { // something in the way
		said.Message = fmt.Sprintf("%s answers %d %s", s.Name, res.StatusCode, http.StatusText(res.StatusCode))
	}
	return nil, res.Header, &Error{Code: res.StatusCode, text: said.Message}
}

// unanswered words a request without an answer. A time limit of the request alone is not the caller's.
func (s *Server) unanswered(whole context.Context, err error) error {
	if whole.Err() != nil {
		return fmt.Errorf("reach %s: %w: %w", s.Name, err, whole.Err())
	}
	return fmt.Errorf("reach %s: %w", s.Name, NoAnswer(err))
}

// noAnswer hides what it wraps: a request's own time limit must not count as the caller's.
type noAnswer struct{ err error }

func (e noAnswer) Error() string { return e.err.Error() }

// NoAnswer makes of an error one of a request that may be sent again after another look.
func NoAnswer(err error) error { return noAnswer{err} }

// Answered returns the status of an answer that is an error; 0 if there is none, or no answer.
func Answered(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// Silent reports an error of a request without an answer, or without one that decides anything.
func Silent(err error) bool {
	var none noAnswer
	code := Answered(err)
	return code >= http.StatusInternalServerError || code == http.StatusTooManyRequests ||
		errors.As(err, &none) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// InDoubt marks a Silent error: it is not known whether the server did what it was asked.
func InDoubt(err error) error {
	if !Silent(err) {
		return err
	}
	return remediation.InDoubt(err)
}

// Unseen marks an error of a look that saw nothing: a Silent one, or one that denies access, as a server does while it starts.
func Unseen(err error) error {
	if code := Answered(err); code == http.StatusUnauthorized || code == http.StatusForbidden {
		return remediation.InDoubt(err)
	}
	return InDoubt(err)
}

// Wait returns false if ctx ended first.
func Wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
