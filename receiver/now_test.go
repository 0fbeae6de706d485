package receiver

import (
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
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
