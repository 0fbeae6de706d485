package jsonhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/locotoki/backout/remediation"
)

const (
	// Tries is how often a request is sent that meets a conflict or a failure.
	Tries = 5
	// pace is the distance of two looks while a change is waited for.
	pace = 500 * time.Millisecond
	// restWithout is how long is waited after a 429 that does not say. maxRest ends a
	// wait that nobody can mean.
	restWithout = 10 * time.Second
	maxRest     = 10 * time.Minute
)

// Pause is the time before the n-th next try.
func Pause(n int) time.Duration { return 250 * time.Millisecond << (n - 1) }

// again reports whether the same request may succeed a little later.
func (e *Error) again() bool {
	return e.Code == http.StatusConflict || e.Code >= http.StatusInternalServerError
}

// Get asks until there is a whole answer, or one that will stay what it is.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	var last error
	for n := range Tries {
		if n > 0 {
			if err := c.o.Wait(ctx, Pause(n)); err != nil {
				return fmt.Errorf("%w: %w", last, err)
			}
		}
		err := c.send(ctx, http.MethodGet, path, nil, out)
		var e *Error
		switch {
		case err == nil, ctx.Err() != nil && last == nil, errors.As(err, &e) && !e.again():
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", last, err)
		}
		last = err
	}
	return last
}

// send sends one request, and once more each time that it comes too soon, which
// means that nothing was done.
func (c *Client) send(ctx context.Context, method, path string, in, out any) error {
	for {
		err := c.Once(ctx, method, path, in, out)
		var e *Error
		if !errors.As(err, &e) || e.Code != http.StatusTooManyRequests {
			return err
		}
		rest := restWithout
		if e.Asked {
			rest = min(max(e.After, 100*time.Millisecond), maxRest)
		}
		if werr := c.o.Wait(ctx, rest); werr != nil {
			return &Error{Code: e.Code, text: fmt.Sprintf("%v; it asked to wait %s, and the timeout came first: %v", err, remediation.Span(rest), werr)}
		}
	}
}

// Step is one request that changes something.
type Step struct {
	Method, Path string
	Body         any
	// More: what comes next shows in another look.
	More bool
}

// Change makes changes, each of them after a look: next looks and returns the next one, or
// nil if nothing is left to do. Its own errors are returned as they are. what begins the
// others.
func (c *Client) Change(ctx context.Context, what string, next func() (*Step, error)) error {
	last := fmt.Errorf("%s: it does not stay as it is set", what)
	for n := range Tries {
		step, err := next()
		if err != nil || step == nil {
			return err
		}
		err = c.send(ctx, step.Method, step.Path, step.Body, nil)
		if err == nil && !step.More {
			return nil
		}
		if err == nil {
			continue
		}
		last = fmt.Errorf("%s: %w", what, err)
		var e *Error
		if !errors.As(err, &e) || !e.again() || n == Tries-1 {
			break
		}
		if werr := c.o.Wait(ctx, Pause(n+1)); werr != nil {
			last = fmt.Errorf("%w: %w", last, werr)
			break
		}
	}
	return Doubtful(last)
}

// Await reads until judge says that the target is as wanted, or cannot be. If ctx ends
// first, the error says with open how the target was seen to be instead. If it was not seen
// in the end, the error is remediation.InDoubt.
func Await[T any](ctx context.Context, c *Client, read func(context.Context) (T, error), judge func(T) (wanted bool, open string, err error)) error {
	seen, unseen := "", error(nil)
	for {
		now, err := read(ctx)
		var e *Error
		switch {
		case err == nil:
			var wanted bool
			if wanted, seen, err = judge(now); wanted || err != nil {
				return err
			}
		case errors.As(err, &e) && !e.again(), errors.Is(err, ErrOdd): // it will stay so
			return remediation.InDoubt(err)
		case seen == "" || ctx.Err() == nil || errors.As(err, &e): // not that the time ended in mid-question
			seen, unseen = "", err
		}
		err = c.o.Wait(ctx, pace)
		switch {
		case err != nil && seen != "":
			return errors.New(seen + ": " + err.Error()) // as text: it was seen, which leaves no doubt
		case err != nil:
			return remediation.InDoubt(fmt.Errorf("%w: %w", unseen, err))
		}
	}
}

// Doubtful marks an error after which it is not known how the target is set: there was no
// answer, or none from the deciding side. The engine looks until it can see.
func Doubtful(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Code < http.StatusInternalServerError && e.Code != http.StatusTooManyRequests || errors.Is(err, ErrOdd) {
		return err
	}
	return remediation.InDoubt(err)
}
