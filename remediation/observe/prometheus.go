package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// maxQueryResponse is far more than one sample needs; it bounds what an
// expression that matches a whole fleet by mistake can cost.
const maxQueryResponse = 1 << 20

// Prometheus implements remediation.Prometheus by instant queries, and
// remediation.History by range queries.
type Prometheus struct {
	name    string
	api     promv1.API
	timeout time.Duration
	log     *slog.Logger
}

var (
	_ remediation.Prometheus = (*Prometheus)(nil)
	_ remediation.History    = (*Prometheus)(nil)
)

// NewPrometheus returns a client of the Prometheus at address, such as
// http://127.0.0.1:9090. A query without an answer after timeout is given up. A
// query in the address, as ?partial_response=false, is sent with every request.
func NewPrometheus(address string, timeout time.Duration, transport http.RoundTripper, log *slog.Logger) (*Prometheus, error) {
	return prometheusAt(address, timeout, bounded{next: transport, max: maxQueryResponse}, log)
}

func prometheusAt(address string, timeout time.Duration, transport bounded, log *slog.Logger) (*Prometheus, error) {
	u, err := parseBase("prometheus", address)
	if err != nil {
		return nil, err
	}
	if timeout <= 0 {
		return nil, fmt.Errorf("prometheus: timeout %s must be above 0", timeout)
	}
	asker := answers{next: transport, query: u.RawQuery}
	u.RawQuery = "" // it may hold a secret, and is sent by asker
	client, err := api.NewClient(api.Config{
		Address: u.String(),
		Client:  &http.Client{Transport: asker, CheckRedirect: noRedirect},
	})
	if err != nil {
		return nil, fmt.Errorf("prometheus at %s: %w", u.Redacted(), cause(err))
	}
	return &Prometheus{
		name:    "prometheus at " + u.Redacted(),
		api:     promv1.NewAPI(client),
		timeout: timeout,
		log:     log,
	}, nil
}

// Query returns the present value of expr by the server's own clock: no time
// is sent, since this machine's may differ. The error wraps
// remediation.ErrNoAnswer where Prometheus itself gave no complete answer: it was
// silent, too slow or overloaded, it warned that data are missing, or someone
// else answered in its place.
func (p *Prometheus) Query(ctx context.Context, expr string) (value float64, ok bool, err error) {
	all, err := p.Vector(ctx, expr)
	if err != nil {
		return 0, false, err
	}
	value, ok, err = single(all)
	if err != nil {
		return 0, false, fmt.Errorf("%s: query %q: %w", p.name, expr, err)
	}
	return value, ok, nil
}

// Vector returns all samples that expr has at present; a scalar is one without labels.
// Its errors are those of Query.
func (p *Prometheus) Vector(ctx context.Context, expr string) (model.Vector, error) {
	asking, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	result, _, infos, err := p.api.Query(asking, expr, time.Time{}, promv1.WithTimeout(p.timeout))
	if err != nil {
		return nil, p.failure(ctx, asking, err)
	}
	for _, i := range infos {
		p.log.Debug("prometheus warns about a query", "expr", expr, "info", i)
	}
	switch v := result.(type) {
	case model.Vector:
		return v, nil
	case *model.Scalar:
		return model.Vector{{Value: v.Value, Timestamp: v.Timestamp}}, nil
	}
	return nil, fmt.Errorf("%s: query %q: result is a %s where a scalar or a vector is expected", p.name, expr, result.Type())
}

// ScrapeIntervals are the longest interval of each job's active targets. Its errors are those
// of Query; that a target has none, as before Prometheus 2.29, is another.
func (p *Prometheus) ScrapeIntervals(ctx context.Context) (map[string]time.Duration, error) {
	asking, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	targets, err := p.api.Targets(asking)
	if err != nil {
		return nil, p.failure(ctx, asking, err)
	}
	longest := map[string]time.Duration{}
	for _, t := range targets.Active {
		every, err := model.ParseDuration(t.DiscoveredLabels[model.ScrapeIntervalLabel])
		if err != nil {
			return nil, fmt.Errorf("%s: the scrape interval of %s: %w", p.name, t.ScrapeURL, err)
		}
		job := string(t.Labels[model.JobLabel])
		longest[job] = max(longest[job], time.Duration(every))
	}
	return longest, nil
}

// single takes the value out of a result; NaN, as from 0/0, counts as empty.
func single(all model.Vector) (value float64, ok bool, err error) {
	switch {
	case len(all) == 0:
		return 0, false, nil
	case len(all) > 1:
		return 0, false, hint.Add(fmt.Errorf("%d samples where one is expected", len(all)), "aggregate them in the expression")
	case all[0].Histogram != nil:
		return 0, false, errors.New("the sample is a native histogram, not a number")
	case math.IsNaN(float64(all[0].Value)):
		return 0, false, nil
	}
	return float64(all[0].Value), true, nil
}

// QueryRange returns the values of expr at from, from+step and so on up to to;
// NaN and infinities are left out. Its errors are those of Query.
func (p *Prometheus) QueryRange(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]remediation.Point, error) {
	points, err := p.Samples(ctx, expr, from, to, step)
	return slices.DeleteFunc(points, func(pt remediation.Point) bool { return math.IsInf(pt.Value, 0) }), err
}

// Samples is QueryRange with infinities, which fire an alert as any number does.
func (p *Prometheus) Samples(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]remediation.Point, error) {
	asking, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	result, _, _, err := p.api.QueryRange(asking, expr, promv1.Range{Start: from, End: to, Step: step}, promv1.WithTimeout(p.timeout))
	if err != nil {
		return nil, p.failure(ctx, asking, err)
	}
	points, err := line(result)
	if err != nil {
		return nil, fmt.Errorf("%s: query range %q: %w", p.name, expr, err)
	}
	return points, nil
}

// line takes the numbers out of a range's result.
func line(result model.Value) ([]remediation.Point, error) {
	matrix, ok := result.(model.Matrix)
	switch {
	case !ok:
		return nil, fmt.Errorf("result is a %s where a matrix is expected", result.Type())
	case len(matrix) == 0:
		return nil, nil
	case len(matrix) > 1:
		return nil, hint.Add(fmt.Errorf("%w: %d series where one is expected", remediation.ErrExecution, len(matrix)), "aggregate them in the expression")
	case len(matrix[0].Histograms) > 0:
		return nil, errors.New("the samples are native histograms, not numbers")
	}
	var points []remediation.Point
	for _, v := range matrix[0].Values {
		if f := float64(v.Value); !math.IsNaN(f) {
			points = append(points, remediation.Point{Time: v.Timestamp.Time().UTC(), Value: f})
		}
	}
	return points, nil
}

// failure says what went wrong, and whether the server has answered at all.
// ctx is the caller's, asking has our time limit.
func (p *Prometheus) failure(ctx, asking context.Context, err error) error {
	if ctx.Err() != nil { // the caller gave up: that says nothing about the server
		return fmt.Errorf("%s: %w", p.name, ctx.Err())
	}
	if errors.Is(err, errTooLarge) {
		return fmt.Errorf("%s: %w; aggregate in the expression", p.name, err)
	}
	if asking.Err() != nil {
		return fmt.Errorf("%s: %w: it took longer than %s", p.name, remediation.ErrTooSlow, p.timeout)
	}
	if errors.Is(err, remediation.ErrTooSlow) {
		return fmt.Errorf("%s: %w", p.name, cause(err))
	}
	var answer *promv1.Error
	if !errors.As(err, &answer) {
		return fmt.Errorf("%s: %w: %w", p.name, remediation.ErrNoAnswer, cause(err))
	}
	switch answer.Type {
	case promv1.ErrTimeout, promv1.ErrCanceled, promv1.ErrServer, promv1.ErrClient:
		return fmt.Errorf("%s: %w: %w", p.name, remediation.ErrNoAnswer, err)
	case promv1.ErrExec:
		return fmt.Errorf("%s: %w: %w", p.name, remediation.ErrExecution, err)
	}
	return fmt.Errorf("%s: %w", p.name, err)
}
