package ledger

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/locotoki/backout/remediation"
)

// Metrics are the counters; what the store knows is read from it at each scrape.
type Metrics struct {
	Steps    *prometheus.CounterVec
	Holds    *prometheus.CounterVec
	Drift    *prometheus.CounterVec
	Duration *prometheus.HistogramVec
	Reaction prometheus.Histogram
	// Deliveries counts tries of messages, by channel and what became of them.
	Deliveries *prometheus.CounterVec
}

// NewMetrics makes them, each at 0 for what is known beforehand.
func NewMetrics(channels []remediation.Channel) *Metrics {
	m := &Metrics{
		Steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "backout_steps_total", Help: "Steps that ended, by action and outcome.",
		}, []string{"action", "outcome"}),
		Holds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "backout_holds_total", Help: "Holds that began, by reason.",
		}, []string{"reason"}),
		Drift: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "backout_drift_total", Help: "Targets that someone else has changed after a step.",
		}, []string{"action", "service"}),
		Duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "backout_step_duration_seconds", Help: "Intent to outcome of a step.",
			Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300},
		}, []string{"action"}),
		Reaction: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "backout_reaction_seconds", Help: "Notification accepted to the first intent of its incident.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 120},
		}),
		Deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "backout_outbox_deliveries_total", Help: "Tries to deliver a message, by channel and result: delivered, failed (tried again) or dropped.",
		}, []string{"channel", "result"}),
	}
	for _, r := range remediation.Reasons() {
		m.Holds.WithLabelValues(string(r)) // a first hold is an increase from 0
	}
	for _, c := range channels {
		for _, result := range []string{remediation.OutcomeDelivered, remediation.OutcomeFailed, remediation.OutcomeDropped} {
			m.Deliveries.WithLabelValues(c.Name(), result)
		}
	}
	return m
}
