package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
)

// maxRulesResponse holds some ten thousand rules.
const maxRulesResponse = 64 << 20

// Sources implements remediation.Sources for one Prometheus and one
// Alertmanager.
type Sources struct {
	prometheus   *Prometheus
	alertmanager string // named, for errors
	alerts       string // where alerts are posted
	clocks       []clockAt
	// poster leads to Alertmanager, with our credentials there; visitor to the
	// pages of anybody, with none.
	poster, visitor *http.Client
	timeout         time.Duration
	now             func() time.Time
}

type clockAt struct {
	of, address string
	client      *http.Client
}

var _ remediation.Sources = (*Sources)(nil)

// SourcesOptions are all that Sources need.
type SourcesOptions struct {
	Prometheus, Alertmanager string // base addresses
	Timeout                  time.Duration
	// Transport leads to pages of anybody; the other two carry what Prometheus
	// and Alertmanager ask of us, such as a token. One that is nil is Transport.
	Transport, PrometheusTransport, AlertmanagerTransport http.RoundTripper
	Now                                                   func() time.Time
	Logger                                                *slog.Logger
}

// NewSources returns them. It does not connect.
func NewSources(o SourcesOptions) (*Sources, error) {
	if o.PrometheusTransport == nil {
		o.PrometheusTransport = o.Transport
	}
	if o.AlertmanagerTransport == nil {
		o.AlertmanagerTransport = o.Transport
	}
	prom, err := prometheusAt(o.Prometheus, o.Timeout, bounded{next: o.PrometheusTransport, max: maxRulesResponse}, o.Logger)
	if err != nil {
		return nil, err
	}
	am, err := parseBase("alertmanager", o.Alertmanager)
	if err != nil {
		return nil, err
	}
	base, err := parseBase("prometheus", o.Prometheus)
	if err != nil {
		return nil, err
	}
	client := func(next http.RoundTripper) *http.Client {
		return &http.Client{Transport: bounded{next: next, max: maxRulesResponse}, CheckRedirect: noRedirect}
	}
	poster := client(o.AlertmanagerTransport)
	return &Sources{
		prometheus: prom, alertmanager: "alertmanager at " + am.Redacted(), alerts: am.JoinPath("api", "v2", "alerts").String(),
		clocks: []clockAt{
			{"prometheus", base.JoinPath("-", "ready").String(), client(o.PrometheusTransport)},
			{"alertmanager", am.JoinPath("-", "ready").String(), poster},
		},
		poster: poster, visitor: client(o.Transport),
		timeout: o.Timeout, now: o.Now,
	}, nil
}

// Rules implements remediation.Sources.
func (s *Sources) Rules(ctx context.Context) ([]remediation.LoadedRule, error) {
	asking, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	answer, err := s.prometheus.api.Rules(asking, nil)
	if err != nil {
		return nil, s.prometheus.failure(ctx, asking, err)
	}
	var out []remediation.LoadedRule
	for _, g := range answer.Groups {
		for _, r := range g.Rules {
			l := remediation.LoadedRule{Group: g.Name}
			switch r := r.(type) {
			case promv1.RecordingRule:
				l.Name, l.Expr, l.Labels, l.Error = r.Name, r.Query, plain(r.Labels), r.LastError
			case promv1.AlertingRule:
				l.Name, l.Expr, l.Labels, l.Error = r.Name, r.Query, plain(r.Labels), r.LastError
				l.Alert, l.Annotations, l.For = true, plain(r.Annotations), time.Duration(r.Duration*float64(time.Second))
			default:
				return nil, fmt.Errorf("%s: group %s has a rule of an unknown kind", s.prometheus.name, g.Name)
			}
			out = append(out, l)
		}
	}
	return out, nil
}

func plain(set model.LabelSet) map[string]string {
	out := make(map[string]string, len(set))
	for k, v := range maps.All(set) {
		out[string(k)] = string(v)
	}
	return out
}

// LabelValues implements remediation.Sources, over the last hour.
func (s *Sources) LabelValues(ctx context.Context, selector, label string) ([]string, error) {
	asking, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	now := s.now()
	values, _, _, err := s.prometheus.api.LabelValues(asking, label, []string{selector}, now.Add(-time.Hour), now.Add(time.Minute))
	if err != nil {
		return nil, s.prometheus.failure(ctx, asking, err)
	}
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out, nil
}

// ScrapeIntervals implements remediation.Sources.
func (s *Sources) ScrapeIntervals(ctx context.Context) (map[string]time.Duration, error) {
	return s.prometheus.ScrapeIntervals(ctx)
}

// Clocks implements remediation.Sources, by the Date of an answer. That has
// whole seconds, which are taken as half over.
func (s *Sources) Clocks(ctx context.Context) []remediation.Clock {
	out := make([]remediation.Clock, len(s.clocks))
	for i, c := range s.clocks {
		out[i].Of = c.of
		out[i].Ahead, out[i].Err = s.ahead(ctx, c)
	}
	return out
}

func (s *Sources) ahead(ctx context.Context, c clockAt) (time.Duration, error) {
	asked := s.now()
	status, header, err := s.request(ctx, c.client, http.MethodGet, c.address, nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%w: %s answers %d %s", remediation.ErrNoAnswer, c.address, status, http.StatusText(status))
	}
	if err != nil {
		return 0, err
	}
	answered := s.now()
	theirs, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0, errors.New("its answer has no Date")
	}
	middle := asked.Add(answered.Sub(asked) / 2)
	return theirs.Add(time.Second / 2).Sub(middle), nil
}

// RaiseAlert implements remediation.Sources.
func (s *Sources) RaiseAlert(ctx context.Context, labels map[string]string, until time.Time) error {
	body, err := json.Marshal([]map[string]any{{
		"labels": labels, "startsAt": s.now().UTC().Format(time.RFC3339Nano), "endsAt": until.UTC().Format(time.RFC3339Nano),
		"annotations": map[string]string{"summary": "A drill by backout's preflight. Nothing is wrong, and there is nothing to do."},
	}})
	if err != nil {
		return err
	}
	status, _, err := s.request(ctx, s.poster, http.MethodPost, s.alerts, body)
	if err == nil && status != http.StatusOK {
		err = refusedByAlertmanager(fmt.Sprintf("%d %s", status, http.StatusText(status)), status)
	}
	if err != nil {
		return fmt.Errorf("%s: post an alert: %w", s.alertmanager, err)
	}
	return nil
}

// Page implements remediation.Sources.
func (s *Sources) Page(ctx context.Context, address string) (int, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return 0, fmt.Errorf("%q is not an http or https address", address)
	}
	status, _, err := s.request(ctx, s.visitor, http.MethodGet, address, nil)
	return status, err
}

// request returns an answer's status and header; its body is read and dropped. No
// answer in time is remediation.ErrNoAnswer.
func (s *Sources) request(ctx context.Context, client *http.Client, method, address string, body []byte) (status int, header http.Header, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return 0, nil, cause(err)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %s", remediation.ErrNoAnswer, strings.TrimSpace(cause(err).Error()))
	}
	_, rerr := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	if err := errors.Join(rerr, resp.Body.Close()); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", remediation.ErrNoAnswer, err)
	}
	return resp.StatusCode, resp.Header, nil
}
