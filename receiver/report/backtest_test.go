package report

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

func TestABacktestsFileSaysAllOfIt(t *testing.T) {
	const day = 24 * time.Hour
	worst, near := 0.043, 61.0
	plot := breachPlot()
	plot.To, plot.Marks = plot.From.Add(7*day), nil
	fired := view.BacktestAlert{
		Trigger: "error_rate", Indicator: "error_rate", Unit: "ratio", Threshold: 0.01, Above: true, Window: model.Duration(15 * time.Minute),
		Judged: model.Duration(7 * day), NoData: model.Duration(3 * time.Hour), Approximate: "its recordings are computed", Plot: plot,
		Nearest: &view.BacktestValue{Time: plotOpened.Add(day), Value: 0.0061, Percent: &near},
	}
	for i := range 20 {
		f := view.BacktestFiring{From: plotOpened.Add(time.Duration(i) * 7 * time.Hour), Lasted: model.Duration(4 * time.Minute), Worst: &worst, Incident: fmt.Sprintf("inc-%d", i+1)}
		to := f.From.Add(4 * time.Minute)
		if f.To = &to; i == 19 {
			f.To, f.Worst = nil, nil
		}
		fired.Firings = append(fired.Firings, f)
	}
	r := &view.Backtest{
		Service: "shop", Release: "v2", From: plot.From, To: plot.To, StagesFrom: view.StagesUnknown, Verdict: []string{"error_rate would have <b>fired</b>."},
		Alerts: []view.BacktestAlert{
			fired,
			{Trigger: "data_integrity", Judged: model.Duration(7 * day)},
			{Trigger: "alpha_errors", Indicator: "error_rate", Unit: "ratio", Threshold: 0.02, Above: true, Window: model.Duration(10 * time.Minute)},
		},
		Incidents: []view.BacktestIncident{{ID: "inc-1", Triggers: []string{"error_rate"}, Opened: plotOpened, Words: "ended by itself"}},
		Gaps:      []view.BacktestGap{{Of: "error_rate", From: plotOpened, To: plotOpened.Add(90 * time.Minute), Why: "many-to-many"}},
	}
	page, err := BacktestFile(r)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(page)), " ")
	for _, want := range []string{
		"2026-11-22 02:45:00 to 2026-11-29 02:45:00 UTC (7 d)", "would have &lt;b&gt;fired", "What a step would have changed is not known",
		"Prometheus has no rollout_stage of this time", `<td>error_rate</td><td>20</td><td>4 min</td><td>61%</td><td>3 h</td><td>7 d</td>`,
		"above 1% over 15 min. Judged for 7 d, without a value for 3 h. Nearest without firing: 0.61%, 61% of the bound, 2026-11-23 03:00:00.",
		"<td>2026-11-22 03:00:00</td><td>4 min</td><td>4.3%</td><td>inc-1</td>", "<td>4 min, still firing at the end</td><td>infinite</td><td>inc-20</td>",
		"each time is exact to one evaluation: its recordings are computed", "<h3>data_integrity</h3> <p> raised by a person. Judged for 7 d.", "<h3>alpha_errors</h3> <p> above 2% over 10 min.",
		"error_rate, 2026-11-22 03:00:00 for 1 h 30 min: many-to-many", "inc-1", "ended by itself",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the file does not say %q in %s", want, text)
		}
	}
	if n := strings.Count(text, `<line class="plot-mark"`); n != len(fired.Firings) {
		t.Errorf("%d firings are marked, of %d", n, len(fired.Firings))
	}
}

func TestTheFirstAlertIsTheOneToLookAtFirst(t *testing.T) {
	on, fired := model.Duration(time.Hour), []view.BacktestFiring{{}}
	all := []view.BacktestAlert{
		{Indicator: "quiet", Judged: on},
		{Indicator: "warned", Judged: on, Firings: fired},
		{Trigger: "quiet", Indicator: "x", Judged: on},
		{Trigger: "blind", Indicator: "x", Judged: on, NoData: on},
		{Trigger: "signal"},
		{Trigger: "fired", Indicator: "x", Judged: on, Firings: fired},
		{Trigger: "fired too", Indicator: "x", Judged: on, Firings: fired},
	}
	view.SortAlerts(all)
	var names []string
	for _, a := range all {
		names = append(names, a.Name())
	}
	if want := "fired, fired too, blind, alert of warned, quiet, signal, alert of quiet"; strings.Join(names, ", ") != want {
		t.Errorf("in the order %s, want %s", remediation.Names(names, ""), want)
	}
}
