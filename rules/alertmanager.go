package rules

import (
	"cmp"
	"fmt"
	"path"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
)

// amValues fill the template of Alertmanager's configuration.
type amValues struct {
	WebhookURL, TokenFile          string
	SlackURLFile, PagerDutyKeyFile string
	// Beat is how often the Watchdog is repeated.
	Beat model.Duration
	// Slack is the channel, "" for none. Pages: PagerDuty gets alerts; with Hours, with
	// low urgency within them.
	Slack string
	Pages bool
	Hours *alerts.BusinessHours
}

// The files that hold the secrets of Slack and PagerDuty, in the folder of backout's token.
const (
	slackURLFile     = "slack.url"
	pagerDutyKeyFile = "pagerduty.key"
)

// toBackout is the receiver that posts to backout.
const toBackout = "backout"

// alertmanager returns the routes: rollback triggers go to backout first, immediately
// and alone, then to the people that the playbook names. There are no inhibitions,
// since the end of an inhibited alert is never sent. The file names no service, so
// one file serves several playbooks.
func (s Settings) alertmanager(pb *alerts.Playbook) (File, error) {
	content, err := fillAlertmanager(s.amValues(pb))
	if err != nil {
		return File{}, fmt.Errorf("write Alertmanager's configuration: %w", err)
	}
	return File{Name: "deploy/alertmanager.yml", Content: content}, nil
}

func (s Settings) amValues(pb *alerts.Playbook) amValues {
	secrets := path.Dir(s.tokenFile())
	v := amValues{
		WebhookURL: cmp.Or(s.WebhookURL, DefaultWebhookURL), TokenFile: s.tokenFile(),
		SlackURLFile: path.Join(secrets, slackURLFile), PagerDutyKeyFile: path.Join(secrets, pagerDutyKeyFile),
		// A beat that is late by one interval must not count as lost.
		Beat: max(model.Duration(time.Second), pb.Watchdog.MaxAge/5),
	}
	if c := pb.Communications; c != nil {
		v.Slack, v.Pages = c.SlackChannel, c.Page == alerts.PageAlways || c.Page == alerts.PageAfterHours
		if c.Page == alerts.PageAfterHours {
			v.Hours = c.BusinessHours
		}
	}
	return v
}

// SecretFiles are what Alertmanager reads for the generated configuration: its token for
// backout, then what the playbook's people are told by.
func (s Settings) SecretFiles(pb *alerts.Playbook) []string {
	v := s.amValues(pb)
	files := []string{v.TokenFile}
	if v.Slack != "" {
		files = append(files, v.SlackURLFile)
	}
	if v.Pages {
		files = append(files, v.PagerDutyKeyFile)
	}
	return files
}

// amRoute is a route of Alertmanager, as far as it decides where alerts go, and when.
type amRoute struct {
	Receiver string    `yaml:"receiver"`
	Matchers []string  `yaml:"matchers"`
	Continue bool      `yaml:"continue"`
	Routes   []amRoute `yaml:"routes"`
	Pace     `yaml:",inline"`
}

// Pace is when Alertmanager sends what it knows of a group.
type Pace struct {
	GroupWait      model.Duration `yaml:"group_wait"`
	GroupInterval  model.Duration `yaml:"group_interval"`
	RepeatInterval model.Duration `yaml:"repeat_interval"`
}

// routes reads the routes that were generated for a playbook.
func routes(pb *alerts.Playbook) (amRoute, error) {
	f, err := Settings{}.alertmanager(pb)
	if err != nil {
		return amRoute{}, err
	}
	var config struct{ Route amRoute }
	err = yaml.Unmarshal(f.Content, &config)
	return config.Route, err
}

// PaceOf returns how the Alertmanager of a playbook sends an alert with these labels to
// backout, where each alert is a group of its own; ok is false if it does not.
func PaceOf(pb *alerts.Playbook, labels map[string]string) (p Pace, ok bool, err error) {
	root, err := routes(pb)
	if err != nil {
		return Pace{}, false, err
	}
	for i := range root.Routes {
		r := &root.Routes[i]
		if ok, err = r.matches(labels); err != nil || ok && r.Receiver == toBackout {
			return r.Pace, ok, err
		}
		if ok && !r.Continue {
			break
		}
	}
	return Pace{}, false, nil
}
