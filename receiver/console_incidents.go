package receiver

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

const (
	// incidentPageSize is how many incidents a page of the list has.
	incidentPageSize = 25
	// incidentBatch is how many a search reads at once, searchedIncidents how many it
	// looks at before it asks whether to go on.
	incidentBatch     = 100
	searchedIncidents = 500
)

// incidentFilter is what the form of the incidents' page holds.
type incidentFilter struct{ State, Service, Text string }

// address is the page of the incidents before one ("": the newest).
func (f incidentFilter) address(before string) string {
	v := url.Values{}
	for name, text := range map[string]string{"state": f.State, "service": f.Service, "text": f.Text, "before": before} {
		if text != "" {
			v.Set(name, text)
		}
	}
	if len(v) == 0 {
		return "/incidents"
	}
	return "/incidents?" + v.Encode()
}

// incidentsPage lists incidents, newest first.
func (s *Server) incidentsPage(c echo.Context, _ string) error {
	q, err := query(c, "state", "service", "text", "before")
	if err != nil {
		return err
	}
	f := incidentFilter{State: q.Get("state"), Service: q.Get("service"), Text: strings.TrimSpace(q.Get("text"))}
	search := remediation.IncidentFilter{Service: f.Service, Before: q.Get("before")}
	switch f.State {
	case "":
	case "open":
		search.Open = true
	case "closed":
		search.Closed = true
	default:
		return refuse(http.StatusBadRequest, "state %q is neither open nor closed", f.State)
	}
	if utf8.RuneCountInString(f.Text) > maxSearch {
		return refuse(http.StatusBadRequest, "the text to search for is longer than %d characters", maxSearch)
	}
	ctx := c.Request().Context()
	o, err := s.incidents.Overview(ctx)
	if err != nil {
		return err
	}
	data := struct {
		frame
		Filter           incidentFilter
		Services         []view.ServiceNow
		Found            []view.Story
		Filtered, Full   bool
		Before           string
		Newest, Older    string
		SearchedIncident string
	}{
		frame: s.frame(c, "Incidents"), Filter: f, Services: o.Services, Filtered: f != incidentFilter{}, Before: search.Before, Newest: f.address(""),
	}
	err = s.auditReads.take(ctx, func() (err error) {
		data.Found, data.SearchedIncident, err = s.findIncidents(ctx, search, f.Text, o)
		return err
	})
	if errors.Is(err, remediation.ErrNotFound) {
		return refuse(http.StatusBadRequest, "before %.80q is not the id of an incident", search.Before)
	}
	if err != nil {
		return err
	}
	if data.Full = len(data.Found) == incidentPageSize; data.SearchedIncident != "" {
		data.Older = f.address(data.SearchedIncident)
	}
	return s.showPage(c, http.StatusOK, "incidents", data)
}

// findIncidents returns the newest that match, newest first. Where there are older ones,
// searched is the last that was looked at.
func (s *Server) findIncidents(ctx context.Context, f remediation.IncidentFilter, text string, o view.Overview) (found []view.Story, searched string, err error) {
	f.Newest, f.Limit = true, incidentPageSize+1
	if text != "" {
		f.Limit = incidentBatch
	}
	for looked := 0; ; {
		list, err := s.incidents.Incidents(ctx, f)
		if err != nil {
			return nil, "", err
		}
		slices.Reverse(list)
		for _, v := range list {
			if len(found) == incidentPageSize || looked == searchedIncidents {
				return found, f.Before, nil
			}
			f.Before = v.ID
			looked++
			if st := storyOf(v, o); mentions(st, text) {
				found = append(found, st)
			}
		}
		if len(list) < f.Limit {
			return found, "", nil
		}
	}
}

// mentions reports whether what the list shows of an incident has a text in it; case
// does not matter.
func mentions(st view.Story, text string) bool {
	words := []string{st.ID, st.Service, st.Rollout, st.Headline, st.Helped, st.ClaimedBy, st.RestoredBy, st.AbortedBy}
	for _, b := range st.Broke {
		words = append(words, b.Trigger)
	}
	return strings.Contains(strings.ToLower(strings.Join(words, "\n")), strings.ToLower(text))
}
