package receiver

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

func TestTheAPIGivesAPlotToViewers(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Viewer))
	opened := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	b.service.plot = view.Plot{
		Incident: "inc-7", Trigger: "error_rate", Unit: "ratio", Threshold: 0.01, Above: true,
		From: opened.Add(-15 * time.Minute), To: opened.Add(25 * time.Minute), Step: model.Duration(15 * time.Second),
		Points: []remediation.Point{{Time: opened.Add(-15 * time.Minute), Value: 0.001}},
		Marks:  []view.Mark{{Time: opened, Kind: audit.KindOpened, Label: "opened"}},
	}
	const path = "/api/v1/incidents/inc-9/plot?trigger=latency"
	wantOK(t, b.do(as(request("GET", path, ""), "eve")), `{"incident":"inc-9","trigger":"latency","unit":"ratio","threshold":0.01,"above":true,`+
		`"from":"2026-11-22T02:45:00Z","to":"2026-11-22T03:25:00Z","step":"15s","note":"",`+
		`"points":[{"time":"2026-11-22T02:45:00Z","value":0.001}],"marks":[{"time":"2026-11-22T03:00:00Z","kind":"opened","label":"opened"}]}`)
	wantError(t, b.do(request("GET", path, "")), 401, "token")
	wantError(t, b.do(as(request("GET", path+"&step=1", ""), "eve")), 400, `unknown parameter "step"`)
	b.service.err = &remediation.RefusedError{Refusal: remediation.Missing, Message: "incident inc-9 has no trigger"}
	wantError(t, b.do(as(request("GET", path, ""), "eve")), 404, "has no trigger")
}
