package rules

import (
	"cmp"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// amConfig is Alertmanager's configuration, in the keys that 0.25 knows.
type amConfig struct {
	Route         amRoute          `yaml:"route"`
	TimeIntervals []amTimeInterval `yaml:"time_intervals,omitempty"`
	Receivers     []amReceiver     `yaml:"receivers"`
}

type amRoute struct {
	Receiver          string         `yaml:"receiver"`
	Matchers          []string       `yaml:"matchers,omitempty"`
	GroupBy           []string       `yaml:"group_by,omitempty,flow"`
	GroupWait         *seconds       `yaml:"group_wait,omitempty"`
	GroupInterval     model.Duration `yaml:"group_interval,omitempty"`
	RepeatInterval    model.Duration `yaml:"repeat_interval,omitempty"`
	MuteTimeIntervals []string       `yaml:"mute_time_intervals,omitempty,flow"`
	Continue          bool           `yaml:"continue,omitempty"`
	Routes            []amRoute      `yaml:"routes,omitempty"`
}

// seconds is a duration that may be 0s, which is not the same as none.
type seconds time.Duration

// MarshalYAML implements yaml.Marshaler.
func (s seconds) MarshalYAML() (any, error) { return model.Duration(s).String(), nil }

type amTimeInterval struct {
	Name      string     `yaml:"name"`
	Intervals []amPeriod `yaml:"time_intervals"`
}

type amPeriod struct {
	Weekdays []string      `yaml:"weekdays,flow"`
	Times    []amTimeRange `yaml:"times,flow"`
	Location string        `yaml:"location"`
}

type amTimeRange struct {
	Start string `yaml:"start_time"`
	End   string `yaml:"end_time"`
}

type amReceiver struct {
	Name      string        `yaml:"name"`
	Webhooks  []amWebhook   `yaml:"webhook_configs,omitempty"`
	Slack     []amSlack     `yaml:"slack_configs,omitempty"`
	PagerDuty []amPagerDuty `yaml:"pagerduty_configs,omitempty"`
}

type amWebhook struct {
	URL          string `yaml:"url"`
	SendResolved bool   `yaml:"send_resolved"`
	MaxAlerts    int    `yaml:"max_alerts"`
	HTTP         amHTTP `yaml:"http_config"`
}

type amHTTP struct {
	Authorization amAuthorization `yaml:"authorization"`
}

type amAuthorization struct {
	CredentialsFile string `yaml:"credentials_file"`
}

type amSlack struct {
	URLFile      string `yaml:"api_url_file"`
	Channel      string `yaml:"channel"`
	SendResolved bool   `yaml:"send_resolved"`
	Title        string `yaml:"title"`
	Text         string `yaml:"text"`
}

type amPagerDuty struct {
	KeyFile     string `yaml:"routing_key_file"`
	Severity    string `yaml:"severity"`
	Description string `yaml:"description"`
}

// The files that hold the secrets of Slack and PagerDuty, beside backout's token.
const (
	slackURLFile     = "slack.url"
	pagerDutyKeyFile = "pagerduty.key"
)

// The receivers' and the time interval's names.
const (
	toBackout     = "backout"
	toSlack       = "slack"
	toPager       = "pager"
	toPagerLow    = "pager-low-urgency"
	toNobody      = "nobody"
	businessHours = "business-hours"
)

const (
	slackTitle = `[{{ .Status | toUpper }}] {{ with .CommonLabels.service }}{{ . }}: {{ end }}{{ .CommonLabels.alertname }}`
	slackText  = `{{ range .Alerts }}{{ .Annotations.summary }}
{{ .Annotations.description }}
{{ if .Annotations.runbook_url }}<{{ .Annotations.runbook_url }}|runbook> {{ end }}{{ if .Annotations.dashboard }}dashboard: {{ .Annotations.dashboard }}{{ end }}
{{ end }}`
	pagerText = `{{ range .Alerts }}{{ .Annotations.summary }} {{ end }}`
)

// alertmanager returns the routes: what rolls back goes to backout first, at
// once and alone; then to those people that the playbook names. Nothing is
// inhibited: an inhibited alert's end is never sent. It names no service, so one
// file serves several playbooks.
func (s Settings) alertmanager(pb *alerts.Playbook) amConfig {
	at := seconds(0)
	// A beat that is late by one interval must not count as lost.
	beat := max(model.Duration(time.Second), pb.Watchdog.MaxAge/5)
	cfg := amConfig{
		Route: amRoute{
			Receiver: toNobody, GroupBy: []string{"service", "alertname"},
			GroupInterval: model.Duration(5 * time.Minute), RepeatInterval: model.Duration(4 * time.Hour),
			Routes: []amRoute{
				{
					Receiver: toBackout, Matchers: []string{`trigger!=""`}, GroupBy: []string{"..."}, GroupWait: &at,
					GroupInterval: model.Duration(15 * time.Second), RepeatInterval: model.Duration(5 * time.Minute), Continue: true,
				},
				{
					Receiver: toBackout, Matchers: []string{fmt.Sprintf("alertname=%q", watchdog), `service!=""`},
					GroupBy: []string{"..."}, GroupWait: &at, GroupInterval: beat, RepeatInterval: beat,
				},
			},
		},
		Receivers: []amReceiver{{Name: toBackout, Webhooks: []amWebhook{{
			URL: cmp.Or(s.WebhookURL, DefaultWebhookURL), SendResolved: true, HTTP: amHTTP{amAuthorization{s.tokenFile()}},
		}}}},
	}
	if c := pb.Communications; c != nil {
		s.people(&cfg, c)
	}
	if cfg.Route.Receiver == toNobody {
		cfg.Receivers = append(cfg.Receivers, amReceiver{Name: toNobody})
	}
	return cfg
}

// people adds the receivers that the playbook names, and their routes.
func (s Settings) people(cfg *amConfig, c *alerts.Communications) {
	secrets := path.Dir(s.tokenFile())
	to := func(r amReceiver, wait time.Duration, mute ...string) {
		w := seconds(wait)
		cfg.Receivers = append(cfg.Receivers, r)
		cfg.Route.Routes = append(cfg.Route.Routes, amRoute{
			Receiver: r.Name, Matchers: []string{fmt.Sprintf("severity=%q", critical)}, GroupWait: &w, MuteTimeIntervals: mute, Continue: true,
		})
	}
	pager := func(name, severity string) amReceiver {
		return amReceiver{Name: name, PagerDuty: []amPagerDuty{{KeyFile: path.Join(secrets, pagerDutyKeyFile), Severity: severity, Description: pagerText}}}
	}
	if c.SlackChannel != "" {
		cfg.Route.Receiver = toSlack
		to(amReceiver{Name: toSlack, Slack: []amSlack{{
			URLFile: path.Join(secrets, slackURLFile), Channel: c.SlackChannel, SendResolved: true, Title: slackTitle, Text: slackText,
		}}}, 0)
	}
	switch {
	case c.Page == alerts.PageAlways, c.Page == alerts.PageAfterHours && c.BusinessHours == nil:
		to(pager(toPager, critical), 0)
	case c.Page == alerts.PageAfterHours:
		// The two routes are alike but for the receiver, so to PagerDuty what they
		// send is one alert: its key is made of the route's matchers and the group.
		to(pager(toPagerLow, warning), 0)
		to(pager(toPager, critical), raiseAfter, businessHours)
		cfg.TimeIntervals = []amTimeInterval{{Name: businessHours, Intervals: []amPeriod{intervalOf(c.BusinessHours)}}}
	}
	cfg.Route.Routes[len(cfg.Route.Routes)-1].Continue = false
}

// raiseAfter lets the route of low urgency page first: PagerDuty then raises the
// urgency of what it has, and a later warning does not stand for the last word.
const raiseAfter = 5 * time.Second

// pagerNote stands at the head of a file that pages by the time of day.
const pagerNote = `# Two routes page for the same alert, and to PagerDuty it is one alert, since both routes have the same matchers and groups: keep them alike.
# The first one is never muted and pages with low urgency. The second one is muted in the business hours; outside of them it raises the urgency.
# Alertmanager sends no end of an alert through a muted route. Were there only that one, what begins at night and ends by day would stay open
# at PagerDuty, and the next night nobody would be woken. Let PagerDuty's service take its urgency from the severity (dynamic notifications).
`

func intervalOf(h *alerts.BusinessHours) amPeriod {
	p := amPeriod{Times: []amTimeRange{{string(h.From), string(h.To)}}, Location: h.TimeZone}
	for _, d := range h.Days {
		p.Weekdays = append(p.Weekdays, strings.ToLower(string(d)))
	}
	return p
}
