package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

const (
	// backtestSpan is how far back the playbook's page replays.
	backtestSpan = 7 * 24 * time.Hour
	// backtestLimit ends a backtest of a Prometheus that is too slow; what was read by
	// then is shown, unless an earlier one is complete.
	backtestLimit = 15 * time.Minute
)

// Backtester replays a service's playbook over the past of its Prometheus.
type Backtester interface {
	// Backtest takes minutes. It calls progress with what is done so far. Where ctx ends
	// before the end, it returns what there is, or an error.
	Backtest(ctx context.Context, service string, span time.Duration, progress func(words string)) (*view.Backtest, error)
}

// backtestNow is how the backtest of a service stands.
type backtestNow struct {
	// Report is of the last one that ended well: a complete one, where there is one.
	Report *view.Backtest
	// Failed says why the last one did not end well, "" where it did; At is when it ended.
	Failed string
	At     time.Time
	// Running is the service whose backtest is in progress, "" for none; Since is when it
	// began, Progress what it has done.
	Running  string
	Since    time.Time
	Progress string
}

// backtests runs one backtest at a time for all services, since each asks Prometheus
// hundreds of queries, and keeps each service's last result.
type backtests struct {
	tester Backtester
	log    *slog.Logger
	now    func() time.Time

	mu     sync.Mutex
	last   map[string]backtestNow // Running, Since and Progress are unused
	state  backtestNow            // only those three
	count  int                    // how many began or ended
	cancel context.CancelFunc     // of the one in progress
	ending bool
	wg     sync.WaitGroup
}

func newBacktests(tester Backtester, log *slog.Logger, now func() time.Time) *backtests {
	return &backtests{tester: tester, log: log, now: now, last: map[string]backtestNow{}}
}

// of is how a service's backtest stands.
func (b *backtests) of(service string) backtestNow {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.last[service]
	n.Running, n.Since, n.Progress = b.state.Running, b.state.Since, b.state.Progress
	return n
}

// changes is another number whenever a backtest has begun or ended.
func (b *backtests) changes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

// start begins a service's backtest; one of it that is in progress goes on.
func (b *backtests) start(service string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ending:
		return refuse(http.StatusServiceUnavailable, "backout is stopping")
	case b.state.Running == service:
		return nil
	case b.state.Running != "":
		return hint.Add(refuse(http.StatusConflict, "the backtest of %s is in progress, and one runs at a time", b.state.Running), "wait until it ends")
	}
	ctx, cancel := context.WithTimeout(context.Background(), backtestLimit)
	b.state, b.cancel = backtestNow{Running: service, Since: b.now().UTC()}, cancel
	b.count++
	b.wg.Add(1)
	go func() {
		defer b.wg.Done()
		defer cancel()
		r, err := b.run(ctx, service)
		b.done(service, r, err)
	}()
	return nil
}

// run is one backtest; a panic is an error.
func (b *backtests) run(ctx context.Context, service string) (r *view.Backtest, err error) {
	defer func() {
		if p := recover(); p != nil {
			b.log.Error("panic in a backtest", "service", service, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("internal error: the server's log has the details")
		}
	}()
	return b.tester.Backtest(ctx, service, backtestSpan, func(words string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.state.Progress = words
	})
}

func (b *backtests) done(service string, r *view.Backtest, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.last[service]
	n.Failed, n.At = "", b.now().UTC()
	switch {
	case errors.Is(err, remediation.ErrNoAnswer):
		n.Failed = "Prometheus gave no answer: " + withHint(err.Error(), err)
	case errors.Is(err, context.DeadlineExceeded):
		n.Failed = fmt.Sprintf("It took longer than %s, and had nothing to show by then.", remediation.Span(backtestLimit))
	case err != nil:
		n.Failed = withHint(err.Error(), err)
	case r.Missing != "" && n.Report != nil && n.Report.Missing == "":
		n.Failed = fmt.Sprintf("It did not end within %s; the last complete one is below.", remediation.Span(backtestLimit))
	default:
		n.Report = r
	}
	var panicked interface{ Stack() string }
	if errors.As(err, &panicked) {
		b.log.Error("panic in a backtest", "service", service, "err", err, "stack", panicked.Stack())
	} else if err != nil && !b.ending {
		b.log.Warn("the backtest failed", "service", service, "err", err)
	}
	b.last[service], b.state = n, backtestNow{}
	b.count++
}

// end cancels the one in progress, and begins no other.
func (b *backtests) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ending = true
	if b.cancel != nil {
		b.cancel()
	}
}

// postBacktest begins a backtest; how it goes is on the playbook's page.
func (s *Server) postBacktest(c echo.Context, _ string) error {
	form, err := fields(c, "service")
	if err != nil {
		return err
	}
	service := form.Get("service")
	if service == "" {
		return refuse(http.StatusBadRequest, "the form names no service")
	}
	if _, err := s.incidents.Playbook(c.Request().Context(), service); err != nil {
		return err
	}
	if err := s.backtests.start(service); err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.Redirect(http.StatusSeeOther, "/playbook?service="+url.QueryEscape(service)+"#backtest")
}
