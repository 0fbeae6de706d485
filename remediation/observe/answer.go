package observe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// answers is a RoundTripper that lets only Prometheus's own, complete JSON
// through: its success, or its word that the query is wrong. A login page, a
// redirect, a proxy's error and incomplete data are errors, for every address
// of the API alike.
type answers struct {
	next http.RoundTripper
	// query is that of the configured address; it is in every request.
	query string
}

// noRedirect keeps an http.Client at the address that was configured: a login
// page is not an answer, and a secret goes nowhere else.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// RoundTrip implements http.RoundTripper.
func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.query != "" {
		r = r.Clone(r.Context())
		r.URL.RawQuery = strings.Trim(r.URL.RawQuery+"&"+a.query, "&")
	}
	resp, err := a.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		if r.Method == http.MethodPost {
			return resp, nil // the API's client asks again by GET
		}
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if err := judge(resp, body); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// judge returns nil for an answer that Prometheus itself gave to the question.
func judge(resp *http.Response, body []byte) error {
	var said struct {
		Status    string          `json:"status"`
		Data      json.RawMessage `json:"data"`
		ErrorType string          `json:"errorType"`
		Error     string          `json:"error"`
		Warnings  []string        `json:"warnings"`
		// IsPartial is VictoriaMetrics's word for incomplete data.
		IsPartial bool `json:"isPartial"`
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Status != "success" && said.Status != "error" {
		return notPrometheus(resp)
	}
	if said.Status == "error" {
		switch resp.StatusCode {
		case http.StatusOK, http.StatusBadRequest, http.StatusUnprocessableEntity:
			return nil
		}
		err := fmt.Errorf("it answers %s: %s: %s", resp.Status, said.ErrorType, said.Error)
		if said.ErrorType == string(promv1.ErrTimeout) {
			return fmt.Errorf("%w: %w", remediation.ErrTooSlow, err)
		}
		return withRemedy(err, resp)
	}
	warnings := slices.DeleteFunc(said.Warnings, isInfo)
	switch {
	case resp.StatusCode/100 != 2:
		return notPrometheus(resp)
	case len(warnings) > 0:
		return fmt.Errorf("its answer is incomplete: %s", strings.Join(warnings, "; "))
	case said.IsPartial:
		return errors.New("its answer is incomplete: isPartial is true")
	case len(said.Data) == 0 || string(said.Data) == "null":
		return errors.New("its answer has no data")
	}
	return nil
}

// isInfo reports whether a warning is only a note about the query, such as a counter
// whose name does not end in _total. Prometheus 2.48 to 2.53, and Thanos, have them among
// the warnings; later ones have a list of infos.
func isInfo(warning string) bool {
	return strings.HasPrefix(warning, annotations.PromQLInfo.Error()+":")
}

func notPrometheus(resp *http.Response) error {
	err := fmt.Errorf("it answers %s, not Prometheus's JSON", resp.Status)
	if resp.StatusCode == http.StatusGatewayTimeout {
		return fmt.Errorf("%w: %w", remediation.ErrTooSlow, err)
	}
	return withRemedy(err, resp)
}

// withRemedy adds what may help against an answer of someone else.
func withRemedy(err error, resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return hint.Add(err, "http_config or headers below prometheus: in --config.file")
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return err
	}
	if to, lerr := resp.Location(); lerr == nil {
		return fmt.Errorf("%w (it points to %s)", err, (&url.URL{Scheme: to.Scheme, Host: to.Host, Path: to.Path}).String())
	}
	return fmt.Errorf("%w; is this the base address of a Prometheus?", err)
}
