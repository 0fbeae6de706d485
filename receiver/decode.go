package receiver

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
)

// message is the part of Alertmanager's webhook body (version "4") that is
// acted on; what else is in it is ignored, since generations differ in it. The
// alerts are decoded one by one: in one pass over template.Data, a single bad
// time stamp would lose every alert beside it, and a repeated "alerts" key
// would mix the labels of two alerts into one that nobody sent.
type message struct {
	Version         string            `json:"version"`
	Receiver        string            `json:"receiver"`
	GroupKey        string            `json:"groupKey"`
	TruncatedAlerts uint64            `json:"truncatedAlerts"`
	Alerts          []json.RawMessage `json:"alerts"`
}

type alert struct {
	Status      string            `json:"status"`
	Fingerprint string            `json:"fingerprint"`
	Labels      map[string]string `json:"labels"`
}

// decode reads a notification. Every element of alerts becomes an Alert: an
// odd one with what could be read of it and the status that it claims, so that
// it is recorded and the engine can hold it; odd says what was wrong with each.
// Where a key is repeated in an object the last one wins, and repeated labels
// of one alert are one set.
func decode(data []byte) (n remediation.Notification, odd []string, err error) {
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		return n, nil, explain(err)
	}
	var lacking []string
	if m.Version == "" {
		lacking = append(lacking, "version")
	}
	if m.Alerts == nil {
		lacking = append(lacking, "alerts")
	}
	if m.GroupKey == "" {
		lacking = append(lacking, "groupKey")
	}
	switch {
	case len(lacking) > 0:
		return n, nil, fmt.Errorf("not a notification of Alertmanager: it lacks %s; the likely cause is a custom payload: in the webhook_configs of this receiver, take it out",
			strings.Join(lacking, ", "))
	case m.Version != "4":
		return n, nil, fmt.Errorf(`version is %q: only "4" is known, which Alertmanager 0.25 to 0.34 send`, m.Version)
	}
	n = remediation.Notification{
		Receiver:  m.Receiver,
		GroupKey:  m.GroupKey,
		Truncated: m.TruncatedAlerts,
		Alerts:    make([]remediation.Alert, len(m.Alerts)),
	}
	for i, raw := range m.Alerts {
		a, err := decodeAlert(raw)
		if err != nil {
			odd = append(odd, fmt.Sprintf("alerts[%d]: %v", i, err))
		}
		n.Alerts[i] = a
	}
	return n, odd, nil
}

// decodeAlert returns what could be read of an alert, also where it returns an
// error.
func decodeAlert(raw json.RawMessage) (remediation.Alert, error) {
	var a alert
	err := json.Unmarshal(raw, &a)
	switch {
	case err != nil:
		err = explain(err)
	case a.Status != string(model.AlertFiring) && a.Status != string(model.AlertResolved):
		err = fmt.Errorf("status %q is neither firing nor resolved", a.Status)
	case len(a.Labels) == 0:
		err = errors.New("it has no labels")
	}
	if a.Labels == nil {
		a.Labels = map[string]string{}
	}
	if a.Fingerprint == "" {
		a.Fingerprint = fingerprint(a.Labels)
	}
	return remediation.Alert{Status: a.Status, Fingerprint: a.Fingerprint, Labels: a.Labels}, err
}

// fingerprint is the one that Alertmanager gives to an alert with these labels.
func fingerprint(labels map[string]string) string {
	set := make(model.LabelSet, len(labels))
	for name, value := range labels {
		set[model.LabelName(name)] = model.LabelValue(value)
	}
	return set.Fingerprint().String()
}

// explain puts an error of encoding/json into words about the body.
func explain(err error) error {
	var te *json.UnmarshalTypeError
	if errors.As(err, &te) {
		where := te.Field
		if where == "" {
			where = "the body"
		}
		return fmt.Errorf("malformed: %s cannot be a JSON %s", where, te.Value)
	}
	var se *json.SyntaxError
	if errors.As(err, &se) {
		return fmt.Errorf("malformed JSON at byte %d: %w", se.Offset, err)
	}
	return fmt.Errorf("malformed: %w", err)
}
