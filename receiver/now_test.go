package receiver

import (
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

func TestTheTopOfTheNowPageShowsTheModeAndTheBuiltInExample(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander))
	for _, example := range []bool{true, false} {
		for _, mode := range []remediation.Mode{remediation.Act, remediation.Observe} {
			o := crowd(1)
			o.Mode, o.Services[0].Example = mode, example
			b.service.overview = o
			r := as(request("GET", "/", ""), "eve")
			r.Header.Set("Accept", "text/html")
			body := b.do(r).Body.String()
			closed := body[strings.Index(body, `<details id="status">`)+len(`<details id="status">`):]
			closed, _, _ = strings.Cut(closed, "</summary>")
			if !strings.Contains(closed, "Mode: "+string(mode)+".") {
				t.Errorf("mode %s is hidden: %s", mode, closed)
			}
			if strings.Contains(body, "<strong>Built-in example:</strong>") != example {
				t.Errorf("example %v: the page is\n%s", example, body)
			}
		}
	}
}

func TestWhatComesNextIsNeverInThePast(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander))
	o := crowd(3)
	past := o.Time.Add(-7 * time.Second)
	for i := range o.Incidents {
		o.Incidents[i].Next.At = &past
	}
	b.service.overview = o
	r := as(request("GET", "/", ""), "eve")
	r.Header.Set("Accept", "text/html")
	body := b.do(r).Body.String()
	if n := strings.Count(body, `UTC">now</span>`); n < 6 || strings.Contains(body, ">7 s ago<") {
		t.Errorf("%d times now:\n%s", n, body)
	}
}

func TestTheHeadlineIsShortAndWhatItLeavesOutIsBelow(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander))
	page := func(o view.Overview) (headline, rest string) {
		b.service.overview = o
		r := as(request("GET", "/", ""), "eve")
		r.Header.Set("Accept", "text/html")
		_, after, _ := strings.Cut(b.do(r).Body.String(), `<h1 id="headline"`)
		headline, rest, _ = strings.Cut(after, "</h1>")
		return headline, rest
	}
	o := crowd(1)
	o.Incidents, o.Needed, o.Services[0].NotReady = nil, nil, []string{"image:shop: a long story"}
	name := o.Services[0].Service
	headline, rest := page(o)
	lines, _, _ := strings.Cut(rest, `<details id="status">`)
	if !strings.HasSuffix(headline, name+": a target is not ready") || !strings.Contains(lines, "a long story") {
		t.Errorf("the headline is %q, and below it\n%s", headline, lines)
	}
	o.Services[0].NotReady, o.Services[0].Unheard = nil, []view.Unheard{{Trigger: "error_rate", Value: 2, Threshold: 1, Above: true}}
	headline, rest = page(o)
	if !strings.Contains(headline, `class="wrong tone-bad"`) || !strings.Contains(headline, "error_rate is at 2, over its bound of 1") || !strings.Contains(rest, "Beyond its bound, and no incident is open") {
		t.Errorf("the headline is %q", headline)
	}
}

func TestALossFromBeforeARestartIsNotPutDownToTheRestart(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander))
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	first := now.Add(-48 * time.Hour)
	b.service.overview = view.Overview{Time: now, Mode: remediation.Act, Arrivals: remediation.Arrivals{Since: now.Add(-10 * time.Second)},
		Services: []view.ServiceNow{{Service: "shop", Playbook: "0123", Watchdog: &first, WatchdogMaxAge: 5 * time.Minute}}}
	r := as(request("GET", "/", ""), "eve")
	r.Header.Set("Accept", "text/html")
	page := b.do(r).Body.String()
	if !strings.Contains(page, "Prometheus or Alertmanager may be down") || strings.Contains(page, "can take") || strings.Contains(page, "Try: .") {
		t.Error(page)
	}
}
