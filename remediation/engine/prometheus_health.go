package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
)

// prometheusHealth is a Prometheus that remembers when it last answered: anything that was
// asked of it and answered, also with an error of its own, shows that it is there.
type prometheusHealth struct {
	remediation.Prometheus
	now    func() time.Time
	safely func(what string, do func() error) error

	mu sync.Mutex
	// began is when this process began to ask; answered is the last answer since,
	// zero where there was none.
	began, answered time.Time
	why             error
	probed          time.Time
}

func newPrometheusHealth(p remediation.Prometheus, now func() time.Time, safely func(string, func() error) error) *prometheusHealth {
	return &prometheusHealth{Prometheus: p, now: now, safely: safely, began: now()}
}

// Query implements Prometheus.
func (s *prometheusHealth) Query(ctx context.Context, expr string) (v float64, ok bool, err error) {
	err = s.safely("the query to Prometheus", func() (err error) {
		v, ok, err = s.Prometheus.Query(ctx, expr)
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, remediation.ErrNoAnswer):
		s.why = err
	case ctx.Err() == nil: // else it was we who gave up
		s.answered, s.why = s.now(), nil
	}
	return v, ok, err
}

// probe asks Prometheus for nothing in particular, where that is due, so that its
// loss shows while there is nothing else to ask.
func (s *prometheusHealth) probe(ctx context.Context, every time.Duration) {
	s.mu.Lock()
	due := s.now().Sub(s.probed) >= every
	if due {
		s.probed = s.now()
	}
	s.mu.Unlock()
	if due {
		_, _, _ = s.Query(ctx, "vector(1)") // what it comes to is kept above
	}
}

// lost tells since when Prometheus has not answered, zero where that is not longer
// than patience; then whether it has answered recently, and the last error.
func (s *prometheusHealth) lost(patience time.Duration) (since time.Time, back bool, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.answered
	if last.IsZero() {
		last = s.began
	}
	if s.now().Sub(last) > patience {
		return last, false, s.why
	}
	return time.Time{}, !s.answered.IsZero(), nil
}

// last is when Prometheus last answered this process, zero where it never did, and what
// came instead since.
func (s *prometheusHealth) last() (answered time.Time, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil {
		why = s.why.Error()
	}
	return s.answered, why
}

// probePrometheus asks as often as the playbook with the shortest scrape interval has new
// samples.
func (e *Engine) probePrometheus(ctx context.Context) error {
	every := time.Duration(0)
	for _, b := range e.Plans() {
		if s := time.Duration(b.ScrapeInterval); every == 0 || s < every {
			every = s
		}
	}
	if every > 0 {
		e.prometheusHealth.probe(ctx, every)
	}
	return nil // an answer that does not come is for housekeeping to say
}

// noteMonitoring looks whether Prometheus has come or gone for a service since that was last
// written down, and returns the beat as it now is and the words for the audit log;
// detail is nil where nothing has changed. replicas returns the live ones.
func (e *Engine) noteMonitoring(replicas func() ([]remediation.Replica, error), beat remediation.Beat) (changed remediation.Beat, detail map[string]any, err error) {
	b := e.PlanOf(beat.Service)
	if b == nil {
		return beat, nil, nil
	}
	since, back, why, err := e.answeredByAny(replicas, time.Duration(b.Watchdog.MaxAge))
	if err != nil {
		return beat, nil, err
	}
	switch {
	case beat.Away.IsZero() && !since.IsZero():
		beat.Away = since
		detail = map[string]any{"blind": true, "what": remediation.BlindPrometheus, "why": fmt.Sprintf(
			"Prometheus has not answered since %s: nothing is promoted, and nothing is rolled back because of this", remediation.Moment(since))}
		if why != nil {
			detail["error"] = why.Error()
		}
	case !beat.Away.IsZero() && back:
		detail = map[string]any{"blind": false, "what": remediation.BlindPrometheus, "why": fmt.Sprintf(
			"Prometheus answers again, after %s", remediation.Span(e.Now().Sub(beat.Away)))}
		beat.Away = time.Time{}
	}
	return beat, detail, nil
}
