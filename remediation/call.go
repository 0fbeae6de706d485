package remediation

import "github.com/locotoki/backout/alerts"

// CallView says that an incident is grave enough for a call.
type CallView struct {
	Severity int `json:"severity"`
	// URL is where it is, "" where the playbook does not say.
	URL string `json:"url,omitempty"`
}

// callFor is the call that an incident starts, nil where it starts none: a drill does
// not, nor one whose severity, its gravest trigger's, is not above what the playbook says.
func (b *book) callFor(inc *Incident) *CallView {
	if inc.Drill || b.Communications == nil || b.Communications.IncidentCall == nil {
		return nil
	}
	severity := 0
	for i := range inc.Triggers {
		if t := b.Trigger(inc.Triggers[i].Trigger); t != nil {
			severity = max(severity, t.Severity)
		}
	}
	if severity == 0 { // an abort
		severity = alerts.DefaultSeverity
	}
	call := b.Communications.IncidentCall
	if severity <= call.SeverityAbove {
		return nil
	}
	return &CallView{Severity: severity, URL: call.URL}
}
