package page

import (
	"fmt"
	"html"
	"html/template"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// capital begins a word as a sentence begins.
func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// shownText is how much of a text from elsewhere a page shows.
const shownText = 400

// functions are what templates call.
func (p *Pages) functions() template.FuncMap {
	return template.FuncMap{
		"static": func(name string) (string, error) {
			if p.names[name] == "" {
				return "", fmt.Errorf("there is no static file %q", name)
			}
			return p.names[name], nil
		},
		"plain":   func(s any) string { return remediation.Plain(fmt.Sprint(s), shownText) },
		"lines":   func(s string) []string { return strings.Split(s, "\n") },
		"long":    func(s any) string { return remediation.Plain(fmt.Sprint(s), 8<<10) },
		"when":    when,
		"since":   since,
		"due":     due,
		"rfc":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"measure": func(v float64, u alerts.Unit) string { return remediation.Measure(v, u) },
		"span":    remediation.SpanOf,
		"words":   func(s any) string { return strings.ReplaceAll(remediation.Plain(fmt.Sprint(s), 60), "_", " ") },
		"short": func(s string) string {
			if s = remediation.Plain(s, 100); len(s) > 12 {
				return s[:12]
			}
			return s
		},
		"percent": remediation.Share,
		"counted": func(n int, noun string) string { return remediation.Counted(n, noun) },
		// A state as the name of a class.
		"tag": func(s any) string {
			return strings.Map(func(r rune) rune {
				if r == '_' || (r >= 'a' && r <= 'z') {
					return r
				}
				return -1
			}, remediation.Plain(fmt.Sprint(s), 20))
		},
		"isID": func(id string) bool { return BackTo.MatchString("/incidents/" + id) },
		"day":  publicMoment,
		"newestFirst": func(all []remediation.PublicUpdate) []remediation.PublicUpdate {
			all = slices.Clone(all)
			slices.Reverse(all)
			return all
		},
		"publicWord": func(s remediation.PublicStatus) string { return capital(string(s)) },
		"component": func(s remediation.ComponentStatus) string {
			if s == remediation.DegradedPerformance {
				return "Slow or partly unavailable"
			}
			return capital(strings.ReplaceAll(string(s), "_", " "))
		},
		// What a part needs, put together for it.
		"freezesOf": func(all []remediation.Freeze, csrf, back string, now time.Time, id string) any {
			return struct {
				Freezes        []remediation.Freeze
				CSRF, Back, ID string
				Now            time.Time
			}{all, csrf, back, id, now}
		},
		"freezeOf": func(service string, services []view.ServiceNow, csrf, back, id string) any {
			return struct {
				Service, CSRF, Back, ID string
				Services                []view.ServiceNow
			}{service, csrf, back, id, services}
		},
		"approvalOf": func(s view.Story, csrf, back string) any {
			return struct {
				Story      view.Story
				CSRF, Back string
			}{s, csrf, back}
		},
		"signalsOf": func(service, csrf string, now time.Time, n int, all []view.SignalNow) any {
			return struct {
				Service, CSRF string
				Now           time.Time
				N             int
				Signals       []view.SignalNow
			}{service, csrf, now, n, all}
		},
		"preflightOf": func(rollout any, csrf string, now time.Time, n int) any {
			return struct {
				Rollout any
				CSRF    string
				Now     time.Time
				N       int
			}{rollout, csrf, now, n}
		},
		"rolloutOf": func(service, csrf string, n int, verb, label, explain, button string) any {
			return rolloutForm{service, "", csrf, verb, label, explain, button, rolloutBack(verb), n}
		},
		"startOf": func(service, release, csrf string, n int) any {
			return rolloutForm{
				service, release, csrf, "start", "Start " + release,
				"Sets the traffic for the first stage and verifies it. It is refused while something is missing.", "Start", rolloutBack("start"), n,
			}
		},
		"abortOf": func(service, csrf string, n int) any {
			return rolloutForm{
				service, "", csrf, "abort", "Abort the rollout",
				"The rollback steps run now, in order, whatever Prometheus says. Each is verified. Steps that can lose data still need approval.",
				"Abort the rollout", rolloutBack("abort"), n,
			}
		},
		"verbOf": func(incident, csrf, verb, label, explain, button string) any {
			return struct {
				Incident, CSRF, Verb, Label, Explain, Button string
				Open                                         bool
			}{incident, csrf, verb, label, explain, button, false}
		},
	}
}

// rolloutForm is a form that changes a rollout; Release is what a start is for.
type rolloutForm struct {
	Service, Release, CSRF, Verb, Label, Explain, Button, Back string
	N                                                          int
}

// hover is the layout of a moment's title, which the script replaces by the reader's time.
const hover = "2 Jan 2006 15:04:05"

// when is a moment: its time of day, with the date where that is not today's.
func when(now time.Time, at any) template.HTML {
	t, ok := moment(at)
	if !ok {
		return "never"
	}
	layout := "15:04:05"
	if y, m, d := t.Date(); now.UTC().Format(time.DateOnly) != fmt.Sprintf("%04d-%02d-%02d", y, m, d) {
		layout = "2 Jan 2006 15:04:05"
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s UTC">%s UTC</time>`, //nolint:gosec // of a time
		t.Format(time.RFC3339), t.Format(hover), html.EscapeString(t.Format(layout))))
}

// since is how far a moment is from now; the script counts on.
func since(now time.Time, at any) template.HTML {
	t, ok := moment(at)
	if !ok {
		return "never"
	}
	return template.HTML(fmt.Sprintf(`<span data-at="%d" title="%s UTC">%s</span>`, t.UnixMilli(), t.Format(hover), remediation.Distance(now, t))) //nolint:gosec // of a time
}

// due is since of what comes next: it is now where its time has come.
func due(now time.Time, at any) template.HTML {
	if t, ok := moment(at); ok && t.Before(now) {
		return template.HTML(strings.Replace(string(since(now, at)), remediation.Distance(now, t), "now", 1)) //nolint:gosec // of a time
	}
	return since(now, at)
}

func moment(at any) (time.Time, bool) {
	switch at := at.(type) {
	case time.Time:
		return at.UTC(), !at.IsZero()
	case *time.Time:
		if at != nil {
			return at.UTC(), true
		}
	}
	return time.Time{}, false
}

// BackTo are the pages that a change leads back to.
var BackTo = regexp.MustCompile(`^/(incidents/[A-Za-z0-9_-]{1,64}|rollout|playbook)?$`)

// rolloutBack is the page that a form on the rollout's page leads to; an abort leads
// to its incident.
func rolloutBack(verb string) string {
	if verb == string(remediation.RolloutAbort) {
		return ""
	}
	return "/rollout"
}

// publicMoment is a moment for customers: date and minute.
func publicMoment(t time.Time) template.HTML {
	t = t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s">%s UTC</time>`, //nolint:gosec // of a time
		t.Format(time.RFC3339), t.Format("2 Jan 2006, 15:04")))
}
