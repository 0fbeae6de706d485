package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/locotoki/backout/deploy/demo/breakage"
)

// masterFlag turns the analytics on: 1 for everybody, 0.1 for a tenth of the
// requests, 0 or nothing for none.
const masterFlag = "FEATURE_ANALYTICS_ENABLED"

// firstVersion is the one that has no analytics to turn on.
const firstVersion = "v1.0.0"

type service struct {
	settings
	db      *database
	share   float64 // of the requests that get the feature
	broken  atomic.Pointer[breakage.Breakage]
	metrics *prometheus.Registry
	// Which of the requests get the feature, and which of those are broken how.
	featured, slow, failed, grave picker

	requests  *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	lag       prometheus.Gauge
	dbSeconds *prometheus.HistogramVec
	dbErrors  *prometheus.CounterVec
	p1        prometheus.Counter
}

func newService(set settings, db *database, reg *prometheus.Registry) (*service, error) {
	s := &service{
		settings: set, db: db,
		metrics: reg,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "si_requests_total", Help: "Requests by endpoint and status (success, error, api_error, db_error).",
		}, []string{"endpoint", "status"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "si_latency_seconds", Help: "Time to answer, by endpoint.", Buckets: []float64{.05, .1, .2, .4, .8, 2},
		}, []string{"endpoint"}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "si_worker_lag_seconds", Help: "How far the background workers are behind.",
		}),
		dbSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "si_db_query_seconds", Help: "Time of a database query, by operation.",
		}, []string{"operation"}),
		dbErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "si_db_errors_total", Help: "Failed database queries by type and operation.",
		}, []string{"type", "operation"}),
		p1: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "si_p1_errors_total", Help: "Errors of the highest priority.",
		}),
	}
	s.broken.Store(&breakage.Breakage{})
	usage, err := s.usage()
	if err != nil {
		return nil, err
	}
	for _, c := range append(usage, s.requests, s.latency, s.lag, s.dbSeconds, s.dbErrors, s.p1) {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	if set.version != firstVersion {
		share, err := strconv.ParseFloat(set.flags[masterFlag], 64)
		if err == nil {
			s.share = share
		}
	}
	return s, nil
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "healthy", "version": s.version})
	})
	mux.Handle("GET /health/metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"version": s.version})
	})
	mux.HandleFunc("GET /flags", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.flags) })
	mux.HandleFunc("GET /basic/views", s.counted(s.basic))
	mux.HandleFunc("GET /analytics/trends", s.counted(s.analytics))
	mux.HandleFunc("GET /analytics/forecast", s.counted(s.analytics))
	return mux
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A client that disconnected is not the service's fault.
	_ = json.NewEncoder(w).Encode(body)
}

// counted measures a request the way the real service does: by its path, and
// by a word for its end rather than by an HTTP code.
func (s *service) counted(work func(r *http.Request) (status string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		status := work(r)
		s.requests.WithLabelValues(r.URL.Path, status).Inc()
		s.latency.WithLabelValues(r.URL.Path).Observe(time.Since(start).Seconds())
		if status != "success" {
			answer(w, http.StatusInternalServerError, map[string]string{"error": status})
			return
		}
		answer(w, http.StatusOK, map[string]string{"endpoint": r.URL.Path})
	}
}

// basic counts a view, which both versions do.
func (s *service) basic(r *http.Request) string {
	return s.asked("insert", func() error { return s.db.record(r.Context()) })
}

// asked measures a question to the database and says how it ended.
func (s *service) asked(operation string, ask func() error) string {
	start := time.Now()
	err := ask()
	s.dbSeconds.WithLabelValues(operation).Observe(time.Since(start).Seconds())
	if err != nil {
		s.dbErrors.WithLabelValues(kindOf(err), operation).Inc()
		return "db_error"
	}
	return "success"
}

// kindOf names a database error the way the metric's label does.
func kindOf(err error) string {
	switch {
	case errors.Is(err, errAway):
		return "connection"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "query"
}

// analytics is what the flag turns on. Off, it falls back to basic metrics.
func (s *service) analytics(r *http.Request) string {
	b := s.broken.Load()
	featured := s.featured.picks(s.share)
	if (featured || b.DespiteFlag) && (b.Version == "" || b.Version == s.version) {
		if b.Latency > 0 && (b.Slow == 0 || s.slow.picks(b.Slow)) {
			select {
			case <-time.After(b.Latency):
			case <-r.Context().Done():
			}
		}
		if s.grave.picks(b.P1) {
			s.p1.Inc()
		}
		if s.failed.picks(b.Errors) {
			s.dbErrors.WithLabelValues("timeout", "aggregate").Inc()
			return "db_error"
		}
	}
	if !featured {
		return "success"
	}
	return s.asked("aggregate", func() error { return s.db.trend(r.Context()) })
}

// watchBreakage takes over what the breakage file says.
func (s *service) watchBreakage(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := breakage.Read(s.breakage)
		if err != nil {
			log.Warn("breakage is as before", "err", err)
		} else {
			s.broken.Store(&b)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
