package rules

import (
	"fmt"
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

// Where Alertmanager finds backout, and the files that hold its secrets.
const (
	webhookURL       = "http://127.0.0.1:9099/api/v1/webhook/alertmanager"
	webhookTokenFile = "/etc/backout/am.token"
	slackURLFile     = "/etc/backout/slack.url"
	pagerDutyKeyFile = "/etc/backout/pagerduty.key"
)

// The receivers' and the time interval's names.
const (
	toBackout     = "backout"
	toSlack       = "slack"
	toPager       = "pager"
	businessHours = "business-hours"
)

const (
	slackTitle = `[{{ .Status | toUpper }}] {{ .CommonLabels.service }}: {{ .CommonLabels.alertname }}`
	slackText  = `{{ range .Alerts }}{{ .Annotations.summary }}
{{ .Annotations.description }}
{{ if .Annotations.runbook_url }}<{{ .Annotations.runbook_url }}|runbook> {{ end }}{{ if .Annotations.dashboard }}dashboard: {{ .Annotations.dashboard }}{{ end }}
{{ end }}`
	pagerText = `{{ range .Alerts }}{{ .Annotations.summary }} {{ end }}`
)

// alertmanagerOf returns the routes: what rolls back goes to backout first, at
// once and alone; then to people. Nothing is inhibited: an inhibited alert's
// end is never sent. It names no service, so one file serves several playbooks.
func alertmanagerOf(pb *alerts.Playbook) amConfig {
	at, channel := seconds(0), "#incidents"
	page, hours := alerts.PageAfterHours, (*alerts.BusinessHours)(nil)
	if c := pb.Communications; c != nil {
		if c.SlackChannel != "" {
			channel = c.SlackChannel
		}
		if c.Page != "" {
			page = c.Page
		}
		hours = c.BusinessHours
	}
	// A beat that is late by one interval must not count as lost.
	beat := max(model.Duration(time.Second), pb.Watchdog.MaxAge/5)
	cfg := amConfig{
		Route: amRoute{
			Receiver: toSlack, GroupBy: []string{"service", "alertname"},
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
				{Receiver: toSlack, Matchers: []string{fmt.Sprintf("severity=%q", critical)}, GroupWait: &at, Continue: true},
			},
		},
		Receivers: []amReceiver{
			{Name: toBackout, Webhooks: []amWebhook{{
				URL: webhookURL, SendResolved: true,
				HTTP: amHTTP{amAuthorization{webhookTokenFile}},
			}}},
			{Name: toSlack, Slack: []amSlack{{URLFile: slackURLFile, Channel: channel, SendResolved: true, Title: slackTitle, Text: slackText}}},
		},
	}
	pager := amRoute{Receiver: toPager, Matchers: []string{fmt.Sprintf("severity=%q", critical)}, GroupWait: &at}
	if page == alerts.PageAfterHours && hours != nil {
		// Muted is not lost: what still fires at the end of the hours is paged then.
		pager.MuteTimeIntervals = []string{businessHours}
		cfg.TimeIntervals = []amTimeInterval{{Name: businessHours, Intervals: []amPeriod{intervalOf(hours)}}}
	}
	if page != alerts.PageNever {
		cfg.Route.Routes = append(cfg.Route.Routes, pager)
		cfg.Receivers = append(cfg.Receivers, amReceiver{Name: toPager, PagerDuty: []amPagerDuty{{KeyFile: pagerDutyKeyFile, Severity: critical, Description: pagerText}}})
	} else {
		cfg.Route.Routes[len(cfg.Route.Routes)-1].Continue = false
	}
	return cfg
}

func intervalOf(h *alerts.BusinessHours) amPeriod {
	p := amPeriod{Times: []amTimeRange{{string(h.From), string(h.To)}}, Location: h.TimeZone}
	for _, d := range h.Days {
		p.Weekdays = append(p.Weekdays, strings.ToLower(string(d)))
	}
	return p
}
