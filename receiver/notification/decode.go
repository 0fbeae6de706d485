// Package notification decodes what Alertmanager posts to the webhook. receiver
// calls it with a body of bounded size and passes the result to the engine.
//
// Its invariants:
//
//   - Each element of "alerts" becomes one alert that can be recorded, or the whole
//     notification is refused: a malformed alert costs no other one.
//   - A fingerprint is computed from the labels, as Alertmanager does; what the body
//     says it is, is not believed.
//   - What is kept is bounded in alerts, labels and bytes, whatever the body holds.
package notification

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// What is kept of a notification is bounded by what it becomes, not only by its
// bytes: 7 MiB of "{}" are two million alerts.
const (
	// MaxAlerts is how many alerts a notification may have: one with more is
	// refused whole, since what was left out would not be committed.
	MaxAlerts = 10_000
	// maxLabels is how many labels of one alert are kept, besides readLabels; allLabels of all alerts
	// of a notification together.
	maxLabels = 64
	allLabels = 20 * MaxAlerts
	// maxValue, maxName and maxStatus bound one string, in bytes.
	maxValue  = 4 << 10
	maxName   = 256
	maxStatus = 64
	// maxOdd is how many odd alerts are described.
	maxOdd = 10
)

// ErrTooMany: a notification has more alerts or labels than are taken in.
var ErrTooMany = errors.New("too much in one notification")

// message is the part of Alertmanager's webhook body (version "4") that is
// acted on; what else is in it is ignored, since generations differ in it. The
// alerts are decoded one by one: in one pass over template.Data, a single bad
// time stamp would lose every alert next to it, and a repeated "alerts" key
// would mix the labels of two alerts into one that nobody sent.
type message struct {
	Version         string    `json:"version"`
	Receiver        string    `json:"receiver"`
	GroupKey        string    `json:"groupKey"`
	TruncatedAlerts uint64    `json:"truncatedAlerts"`
	Alerts          alertList `json:"alerts"`
}

// Body describes what message and decodeAlert read, for the API's description.
type Body struct {
	// Version is "4".
	Version  string `json:"version"`
	GroupKey string `json:"groupKey"`
	Receiver string `json:"receiver,omitempty"`
	// TruncatedAlerts counts the alerts that Alertmanager left out.
	TruncatedAlerts uint64 `json:"truncatedAlerts,omitempty"`
	// Alerts are recorded and answered with 200 even where one of them is malformed.
	Alerts []BodyAlert `json:"alerts"`
}

// BodyAlert is one alert of a Body.
type BodyAlert struct {
	// Status is firing or resolved.
	Status string            `json:"status"`
	Labels map[string]string `json:"labels"`
}

// alertList takes a list of alerts in as it is decoded: nothing in the body is
// kept but the result.
type alertList struct {
	given  bool
	alerts []remediation.Alert
	labels int      // of all alerts
	odd    []string // the first of them, and how many there are
	oddAll int
	// failed is why no more was read.
	failed error
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *alertList) UnmarshalJSON(b []byte) error {
	*l = alertList{failed: l.failed, alerts: []remediation.Alert{}} // the last list wins
	switch kindOf(b) {
	case "null":
		return nil
	case "array":
	default:
		return &json.UnmarshalTypeError{Value: kindOf(b), Field: "alerts"}
	}
	l.given = true
	if err := each(b, l.add); err != nil {
		l.failed = err
	}
	return nil
}

// add decodes one alert.
func (l *alertList) add(raw []byte) error {
	if len(l.alerts) == MaxAlerts {
		return hint.Add(fmt.Errorf("%w: more than %d alerts", ErrTooMany, MaxAlerts), "group_by in the route to this receiver, so that a notification has fewer")
	}
	a, err := decodeAlert(raw)
	if err != nil {
		if l.oddAll++; len(l.odd) < maxOdd {
			l.odd = append(l.odd, fmt.Sprintf("alerts[%d]: %v", len(l.alerts), err))
		}
	}
	if l.labels += len(a.Labels); l.labels > allLabels {
		return fmt.Errorf("%w: more than %d labels", ErrTooMany, allLabels)
	}
	l.alerts = append(l.alerts, a)
	return nil
}

// Decode reads a notification. Every element of alerts becomes an Alert: an
// odd one with what could be read of it and the status that it claims, so that
// it is recorded and the engine can hold it; odd says what was wrong with the
// first of them. Where a key is repeated in an object the last one wins, and
// repeated labels of one alert are one set. An alert's fingerprint is that of
// its labels: what the body says it is, is not believed.
func Decode(data []byte) (n remediation.Notification, odd []string, err error) {
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		return n, nil, Explain(err)
	}
	if m.Alerts.failed != nil {
		return n, nil, m.Alerts.failed
	}
	var lacking []string
	if m.Version == "" {
		lacking = append(lacking, "version")
	}
	if !m.Alerts.given {
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
		return n, nil, fmt.Errorf(`version is %.80q: only "4" is known, which Alertmanager 0.25 to 0.34 send`, m.Version)
	}
	if odd = m.Alerts.odd; m.Alerts.oddAll > len(odd) {
		odd = append(odd, fmt.Sprintf("and %d more", m.Alerts.oddAll-len(odd)))
	}
	return remediation.Notification{
		Receiver:  shortened(m.Receiver, maxValue),
		GroupKey:  shortened(m.GroupKey, maxValue),
		Truncated: m.TruncatedAlerts,
		Alerts:    m.Alerts.alerts,
	}, odd, nil
}

// labels are an alert's: sent as they were, and kept with long names and values
// shortened.
type labels struct {
	sent, kept map[string]string
}

// decodeAlert returns what could be read of an alert, also where it returns an
// error.
func decodeAlert(raw []byte) (remediation.Alert, error) {
	a := struct {
		Status string `json:"status"`
		Labels labels `json:"labels"`
	}{Labels: labels{map[string]string{}, map[string]string{}}}
	err := json.Unmarshal(raw, &a)
	switch {
	case errors.Is(err, errManyLabels):
	case err != nil:
		err = Explain(err)
	case a.Status != string(model.AlertFiring) && a.Status != string(model.AlertResolved):
		err = fmt.Errorf("status %.80q is neither firing nor resolved", a.Status)
	case len(a.Labels.kept) == 0:
		err = errors.New("it has no labels")
	}
	return remediation.Alert{Status: shortened(a.Status, maxStatus), Fingerprint: Fingerprint(a.Labels.sent), Labels: a.Labels.kept}, err
}

// Fingerprint is the one that Alertmanager gives to an alert with these labels.
func Fingerprint(labels map[string]string) string {
	set := make(model.LabelSet, len(labels))
	for name, value := range labels {
		set[model.LabelName(name)] = model.LabelValue(value)
	}
	return set.Fingerprint().String()
}

// readLabels are those that backout acts on: they are kept whatever comes before them.
var readLabels = []string{"alertname", "service", "trigger", "rollout", "severity", "drill"}

// errManyLabels: an alert has more labels than are kept.
var errManyLabels = fmt.Errorf("it has more than %d labels: the others are left out", maxLabels)

// UnmarshalJSON implements json.Unmarshaler. It adds to the labels: repeated ones
// of one alert are one set. What is not a string becomes "".
func (l *labels) UnmarshalJSON(b []byte) (err error) {
	switch kind := kindOf(b); kind {
	case "null":
		*l = labels{map[string]string{}, map[string]string{}}
		return nil
	case "object":
	default:
		return &json.UnmarshalTypeError{Value: kind, Field: "labels"}
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(b), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	var many error
	for dec.PeekKind() != '}' {
		token, terr := dec.ReadToken()
		if terr != nil {
			return terr
		}
		name, text := token.String(), ""
		kind := kindOf([]byte{byte(dec.PeekKind())})
		if kind == "string" {
			if token, terr = dec.ReadToken(); terr == nil {
				text = token.String()
			}
		} else {
			terr = dec.SkipValue()
			if kind != "null" && err == nil {
				err = &json.UnmarshalTypeError{Value: kind, Field: "labels"}
			}
		}
		if terr != nil {
			return terr
		}
		if _, again := l.sent[name]; !again && len(l.sent) >= maxLabels && !slices.Contains(readLabels, name) {
			many = errManyLabels
			continue
		}
		l.sent[name] = text
		l.kept[shortened(name, maxName)] = shortened(text, maxValue)
	}
	return cmp.Or(err, many)
}

// each calls fn with every element of a JSON array that is known to be valid. An
// element is a part of the array's bytes, which are not copied.
func each(array []byte, fn func(element []byte) error) error {
	depth, start, quoted := 0, -1, false
	end := func(i int) error {
		element := bytes.TrimSpace(array[start:i])
		if len(element) == 0 { // the array is empty
			return nil
		}
		return fn(element)
	}
	for i := 0; i < len(array); i++ {
		switch c := array[i]; {
		case quoted:
			switch c {
			case '\\':
				i++
			case '"':
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '[' || c == '{':
			if depth++; depth == 1 {
				start = i + 1
			}
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return end(i)
			}
		case c == ',' && depth == 1:
			if err := end(i); err != nil {
				return err
			}
			start = i + 1
		}
	}
	return nil
}

// shortened bounds a string: of a longer one its beginning is kept, its length and
// its SHA-256.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	sum, cut := sha256.Sum256([]byte(s)), most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%s... (%d bytes, sha256 %x)", s[:cut], len(s), sum)
}

// kindOf names the kind of a JSON value.
func kindOf(raw []byte) string {
	switch raw[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "bool"
	case 'n':
		return "null"
	}
	return "number"
}

// Explain puts an error of encoding/json into words about the body.
func Explain(err error) error {
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
