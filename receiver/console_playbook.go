package receiver

import (
	"html/template"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/receiver/report"
	"github.com/locotoki/backout/remediation/view"
)

// shownFirings is how many firings of a trigger the playbook's page lists, the newest.
const shownFirings = 10

// backtestCard is one trigger's backtest as the playbook's page shows it.
type backtestCard struct {
	view.BacktestAlert
	// Newest are the last firings, the newest first; Older is how many others there were.
	Newest []backtestFiring
	Older  int
	// Worst is the value farthest beyond the bound, nil where it did not fire or was
	// infinite.
	Worst *float64
	// Plot is for a desk, Upright the same for a phone.
	Plot, Upright template.HTML
}

// backtestFiring is a firing with what backout would have done about it.
type backtestFiring struct {
	view.BacktestFiring
	Words string
}

// backtestCards are the alerts of a backtest, in its order.
func backtestCards(r *view.Backtest) []backtestCard {
	words := map[string]string{}
	for _, inc := range r.Incidents {
		words[inc.ID] = inc.Words
	}
	var out []backtestCard
	for _, a := range r.Alerts {
		card := backtestCard{BacktestAlert: a, Older: max(len(a.Firings)-shownFirings, 0)}
		of := ""
		for _, f := range slices.Backward(a.Firings[card.Older:]) {
			told := backtestFiring{BacktestFiring: f}
			if f.Incident != of { // once for the firings that it joined
				of, told.Words = f.Incident, words[f.Incident]
			}
			card.Newest = append(card.Newest, told)
		}
		for _, f := range a.Firings {
			if w := f.Worst; w != nil && (card.Worst == nil || (*w > *card.Worst) == a.Above) {
				card.Worst = w
			}
		}
		if len(a.Plot.Points) > 0 {
			card.Plot, card.Upright = report.BacktestPlot(a, report.Wide), report.BacktestPlot(a, report.Narrow)
		}
		out = append(out, card)
	}
	return out
}

// Quiet says in few words how near it came, for an alert that did not fire.
func (c backtestCard) Quiet() string {
	switch {
	case c.Judged == 0:
		return "not judged"
	case c.Indicator == "":
		return "not raised"
	case c.Blind():
		return "no value at any time"
	case c.Nearest == nil || c.Nearest.Percent == nil:
		return "did not fire"
	}
	return "did not fire, reached " + view.Share(*c.Nearest.Percent) + " of its bound"
}

// playbookPage shows a service's playbook as it is understood, with the rules that are
// generated from it.
func (s *Server) playbookPage(c echo.Context, _ string) error {
	q, err := query(c, "service")
	if err != nil {
		return err
	}
	o, err := s.incidents.Overview(c.Request().Context())
	if err != nil {
		return err
	}
	data := struct {
		frame
		Services []view.ServiceNow
		Playbook *view.PlaybookView // nil where none is loaded
		Backtest backtestNow
		Alerts   []backtestCard
		// Outdated: the backtest is of an earlier playbook.
		Outdated bool
	}{frame: s.frame(c, "Playbook"), Services: o.Services}
	service := q.Get("service")
	if service == "" && len(o.Services) > 0 {
		service = o.Services[0].Service
	}
	if service != "" {
		p, err := s.incidents.Playbook(c.Request().Context(), service)
		if err != nil {
			return err
		}
		// The stamp comes first: a backtest that ends in between is another stamp, and the
		// page that waits for it is told.
		stamp, err := s.stampOf(o)
		if err != nil {
			return err
		}
		data.Playbook, data.Backtest = &p, s.backtests.of(service)
		if r := data.Backtest.Report; r != nil {
			data.Alerts, data.Outdated = backtestCards(r), r.Playbook != p.Hash
		}
		if data.Backtest.Running != "" { // the page follows it to its end
			data.Stamp = stamp
		}
	}
	return s.showPage(c, http.StatusOK, "playbook", data)
}
