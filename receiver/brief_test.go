package receiver

import (
	"net/http"
	"strings"
	"testing"
)

func TestAnIncidentsPageAndTheAPIShowItsSupportBrief(t *testing.T) {
	s := newTestService(t)
	s.declare()
	s.reads(0.03, 0.03)
	id := s.fire("fp1")
	page := s.page("/incidents/"+id, "ann")
	for _, want := range []string{`<details id="brief" class="card"><summary>Support brief</summary>`, "Support brief", "What customers see\n", "shop, " + id} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	w := s.browse("/api/v1/incidents/"+id+"/brief", "ann")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"text":"Support brief: shop, `+id) {
		t.Errorf("the API answers %d: %s", w.Code, w.Body)
	}
	if w := s.browse("/api/v1/incidents/inc-99/brief", "ann"); w.Code != http.StatusNotFound {
		t.Errorf("for an incident that is not there the API answers %d", w.Code)
	}
	if w := s.browse("/api/v1/incidents/"+id+"/brief", ""); w.Code != http.StatusUnauthorized {
		t.Errorf("without a token the API answers %d", w.Code)
	}
}
