package observe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/alertmanager/api/v2/models"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// maxAlertsResponse holds some ten thousand alerts with long annotations.
const maxAlertsResponse = 64 << 20

// Alertmanager implements remediation.Alertmanager by the v2 API.
type Alertmanager struct {
	name    string
	alerts  string
	client  *http.Client
	timeout time.Duration
}

var _ remediation.Alertmanager = (*Alertmanager)(nil)

// NewAlertmanager returns a client of the Alertmanager at address, such as
// http://127.0.0.1:9093 (with the path prefix, where it has one).
func NewAlertmanager(address string, timeout time.Duration, transport http.RoundTripper) (*Alertmanager, error) {
	return newAlertmanager(address, timeout, bounded{next: transport, max: maxAlertsResponse})
}

func newAlertmanager(address string, timeout time.Duration, transport bounded) (*Alertmanager, error) {
	u, err := parseBase("alertmanager", address)
	if err != nil {
		return nil, err
	}
	if timeout <= 0 {
		return nil, fmt.Errorf("alertmanager: timeout %s must be above 0", timeout)
	}
	alerts := u.JoinPath("api", "v2", "alerts")
	// Suppressed alerts are asked for by name: they are what this is about.
	alerts.RawQuery = url.Values{
		"active": {"true"}, "silenced": {"true"}, "inhibited": {"true"}, "unprocessed": {"true"},
	}.Encode()
	return &Alertmanager{
		name:    "alertmanager at " + u.Redacted(),
		alerts:  alerts.String(),
		client:  &http.Client{Transport: transport, CheckRedirect: noRedirect},
		timeout: timeout,
	}, nil
}

// Silenced reports which of the given fingerprints Alertmanager knows, and whether a
// person has silenced each. An alert that is only inhibited or muted by a time interval
// is not silenced.
func (a *Alertmanager) Silenced(ctx context.Context, fingerprints []string) (map[string]bool, error) {
	wanted := make(map[string]bool, len(fingerprints))
	for _, f := range fingerprints {
		wanted[f] = true
	}
	if len(wanted) == 0 {
		return map[string]bool{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	silenced, err := a.silenced(ctx, wanted)
	if err != nil {
		return nil, fmt.Errorf("%s: list alerts: %w", a.name, cause(err))
	}
	return silenced, nil
}

func (a *Alertmanager) silenced(ctx context.Context, wanted map[string]bool) (_ map[string]bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.alerts, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := resp.Body.Close(); cerr != nil && err == nil {
			err = cerr
		}
	}()
	if resp.StatusCode != http.StatusOK {
		return nil, refusedByAlertmanager(resp.Status, resp.StatusCode)
	}
	if ct, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || ct != "application/json" {
		return nil, fmt.Errorf("answer is %q, not JSON; is this the base address of an Alertmanager?", resp.Header.Get("Content-Type"))
	}
	return readSilenced(resp.Body, wanted)
}

func refusedByAlertmanager(said string, status int) error {
	err := errors.New("it answers " + said)
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return hint.Add(err, "http_config or headers below alertmanager: in --config.file")
	case http.StatusNotFound:
		return fmt.Errorf("%w; is this the base address of an Alertmanager?", err)
	}
	return err
}

// readSilenced reads the list one alert at a time, so that ten thousand alerts
// of other services take no memory.
func readSilenced(r io.Reader, wanted map[string]bool) (map[string]bool, error) {
	dec := json.NewDecoder(r)
	begin, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("answer cannot be decoded: %w", err)
	}
	if begin != json.Delim('[') {
		return nil, fmt.Errorf("answer begins with %v, not with a list of alerts", begin)
	}
	found := map[string]bool{}
	for dec.More() {
		var alert models.GettableAlert
		if err := dec.Decode(&alert); err != nil {
			return nil, fmt.Errorf("alert cannot be decoded: %w", err)
		}
		if alert.Fingerprint == nil || alert.Status == nil {
			return nil, errors.New("an alert has no fingerprint or no status")
		}
		if wanted[*alert.Fingerprint] {
			found[*alert.Fingerprint] = len(alert.Status.SilencedBy) > 0
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("list of alerts is cut off: %w", err)
	}
	return found, nil
}
