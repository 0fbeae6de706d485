package receiver

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
)

func TestARehearsalIsAskedForByACommanderAndReadByAViewer(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander), token(t, "vic", config.Viewer))
	if w := b.do(as(request("POST", "/api/v1/rehearse", `{"reason":"why"}`), "vic")); w.Code != 403 || len(b.service.changes) != 0 {
		t.Errorf("a viewer starts: %d %s; changes %v", w.Code, w.Body, b.service.changes)
	}
	if w := b.do(as(request("GET", "/api/v1/rehearse?service=shop", ""), "vic")); w.Code != 200 ||
		!strings.Contains(w.Body.String(), `"rehearsals":[]`) || !strings.Contains(w.Body.String(), `"plans":[]`) {
		t.Errorf("a viewer reads: %d %s", w.Code, w.Body)
	}
	if w := b.do(as(request("POST", "/api/v1/rehearse", `{"service":"shop","plan":"ladder","reason":"before T-3"}`), "eve")); w.Code != 200 ||
		!strings.Contains(w.Body.String(), `"running":true`) {
		t.Errorf("a commander starts: %d %s", w.Code, w.Body)
	}
	if w := b.do(as(request("POST", "/api/v1/rehearse", `{"plans":["ladder"]}`), "eve")); w.Code != 400 {
		t.Errorf("an unknown key: %d %s", w.Code, w.Body)
	}
	if w := b.do(as(request("GET", "/api/v1/rehearse?plan=ladder", ""), "vic")); w.Code != 400 {
		t.Errorf("an unknown parameter: %d %s", w.Code, w.Body)
	}
	if want := []string{"rehearse shop ladder eve before T-3"}; !slices.Equal(b.service.changes, want) {
		t.Errorf("changes are %q, want %q", b.service.changes, want)
	}
}

func TestTheIncidentsPageSaysHowLongAStepTookWhenItWasRehearsed(t *testing.T) {
	s := newTestService(t)
	took := func(index int, action string, d time.Duration) remediation.RehearsedStep {
		return remediation.RehearsedStep{
			Action: action, Target: "compose:/srv/shop/shop#" + action, Index: index, Tried: true,
			RehearsedPart: remediation.RehearsedPart{Result: remediation.Passed("x"), Took: model.Duration(d)},
		}
	}
	err := s.store.Update(t.Context(), func(tx remediation.Tx) error {
		return tx.PutRehearsal(remediation.Rehearsal{
			Service: "shop", Plan: "ladder", Finished: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC),
			Steps: []remediation.RehearsedStep{took(1, "flag_off", 3*time.Second), took(2, "image_retag", 14*time.Second)},
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	page := s.page("/incidents/"+s.breach(), "ann")
	if !strings.Contains(page, "took 14 s when rehearsed on 21 Nov 2026") {
		t.Errorf("the page does not say it of the step that is to come: %s", page)
	}
	if strings.Contains(page, "took 3 s") {
		t.Error("the page says it of a step that is over")
	}
}
