package statuspage

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// The shape of Statuspage's /api/v2/summary.json.
type (
	Summary struct {
		Page         summaryPage        `json:"page"`
		Components   []summaryComponent `json:"components"`
		Incidents    []summaryIncident  `json:"incidents"`
		Maintenances []struct{}         `json:"scheduled_maintenances"`
		Status       summaryStatus      `json:"status"`
	}
	summaryPage struct {
		ID        string     `json:"id"`
		Name      string     `json:"name"`
		URL       string     `json:"url"`
		TimeZone  string     `json:"time_zone"`
		UpdatedAt *time.Time `json:"updated_at"`
	}
	summaryComponent struct {
		ID          string     `json:"id"`
		Name        string     `json:"name"`
		Status      string     `json:"status"`
		Description *string    `json:"description"`
		Position    int        `json:"position"`
		UpdatedAt   *time.Time `json:"updated_at"`
		PageID      string     `json:"page_id"`
		Group       bool       `json:"group"`
		GroupID     *string    `json:"group_id"`
	}
	summaryIncident struct {
		ID         string             `json:"id"`
		Name       string             `json:"name"`
		Status     string             `json:"status"`
		Impact     string             `json:"impact"`
		CreatedAt  time.Time          `json:"created_at"`
		UpdatedAt  time.Time          `json:"updated_at"`
		StartedAt  time.Time          `json:"started_at"`
		ResolvedAt *time.Time         `json:"resolved_at"`
		Monitoring *time.Time         `json:"monitoring_at"`
		PageID     string             `json:"page_id"`
		Updates    []summaryUpdate    `json:"incident_updates"`
		Components []summaryComponent `json:"components"`
	}
	summaryUpdate struct {
		ID         string    `json:"id"`
		IncidentID string    `json:"incident_id"`
		Status     string    `json:"status"`
		Body       string    `json:"body"`
		CreatedAt  time.Time `json:"created_at"`
		UpdatedAt  time.Time `json:"updated_at"`
		DisplayAt  time.Time `json:"display_at"`
	}
	summaryStatus struct {
		Indicator   string `json:"indicator"`
		Description string `json:"description"`
	}
)

// publicID names a thing for the public, without telling how it is named inside.
func publicID(kind, name string) string {
	sum := sha256.Sum256([]byte("backout status page\x00" + kind + "\x00" + name))
	return hex.EncodeToString(sum[:6])
}

// summarize writes a page in the shape that clients of Statuspage read: open
// incidents only, the newest update first.
func summarize(p view.PublicPage) Summary {
	id := publicID("page", "")
	s := Summary{
		Page:       summaryPage{ID: id, Name: "Status", URL: "/status", TimeZone: "Etc/UTC"},
		Components: []summaryComponent{}, Incidents: []summaryIncident{}, Maintenances: []struct{}{}, Status: overall(p),
	}
	if !p.Time.IsZero() {
		s.Page.UpdatedAt = &p.Time
	}
	for i, c := range p.Components {
		s.Components = append(s.Components, newSummaryComponent(c.Name, c.Description, c.Status, c.Since, i+1))
	}
	for _, inc := range p.Open {
		one := summaryIncident{
			ID: publicID("incident", inc.Incident+inc.Created.UTC().Format(time.RFC3339Nano)), Name: inc.Name, Status: string(inc.Status),
			Impact: string(inc.Impact), CreatedAt: inc.Created.UTC(), UpdatedAt: inc.Updated.UTC(), StartedAt: inc.Created.UTC(),
			ResolvedAt: inc.Resolved, PageID: id, Updates: []summaryUpdate{}, Components: []summaryComponent{},
		}
		for _, u := range inc.Updates {
			at := u.Time.UTC()
			if u.Status == remediation.PublicMonitoring {
				one.Monitoring = &at
			}
			one.Updates = append(one.Updates, summaryUpdate{
				ID: publicID("update", one.ID+fmt.Sprint(u.Number)), IncidentID: one.ID, Status: string(u.Status), Body: u.Words,
				CreatedAt: at, UpdatedAt: at, DisplayAt: at,
			})
		}
		slices.Reverse(one.Updates)
		for _, c := range inc.Components {
			one.Components = append(one.Components, newSummaryComponent(c.Name, "", c.Status, inc.Updated, len(one.Components)+1))
		}
		s.Incidents = append(s.Incidents, one)
	}
	return s
}

func newSummaryComponent(name, description string, status remediation.ComponentStatus, updated time.Time, position int) summaryComponent {
	c := summaryComponent{
		ID: publicID("component", name), Name: name, Status: string(status), Position: position, PageID: publicID("page", ""),
	}
	if description != "" {
		c.Description = &description
	}
	if !updated.IsZero() {
		updated = updated.UTC()
		c.UpdatedAt = &updated
	}
	return c
}

// overall says how all of it is, in Statuspage's words.
func overall(p view.PublicPage) summaryStatus {
	if len(p.Components) == 0 && len(p.Open) == 0 {
		return summaryStatus{"none", "No Components Are Listed Here"} // nothing is watched in public, so nothing is promised
	}
	order := []remediation.Impact{remediation.ImpactNone, remediation.ImpactMinor, remediation.ImpactMajor, remediation.ImpactCritical}
	worst := 0
	for _, inc := range p.Open {
		worst = max(worst, slices.Index(order, inc.Impact))
	}
	return []summaryStatus{
		{"none", "All Systems Operational"}, {"minor", "Minor Service Outage"},
		{"major", "Partial System Outage"}, {"critical", "Major Service Outage"},
	}[worst]
}

// statusView is what the page's template shows.
type statusView struct {
	view.PublicPage
	Overall summaryStatus
}
