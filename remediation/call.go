package remediation

import (
	"errors"

	"github.com/locotoki/backout/alerts"
)

// CallView says that an incident is grave enough for a call.
type CallView struct {
	Severity int `json:"severity"`
	// URL is where it is, "" where the playbook does not say.
	URL string `json:"url,omitempty"`
}

// callOf is the call that an incident starts, nil where it starts none: a drill does
// not, nor one whose severity is not above what its playbook says.
func callOf(tx Tx, inc *Incident, v IncidentView) (*CallView, error) {
	if inc.Drill {
		return nil, nil
	}
	source, err := tx.Playbook(inc.PlaybookHash)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	g, err := alerts.ReadGravity(source)
	if err != nil || g.Call == nil {
		return nil, err
	}
	triggers := make([]string, len(v.Triggers))
	for i, t := range v.Triggers {
		triggers[i] = t.Trigger
	}
	if s := g.Severity(triggers); s > g.Call.SeverityAbove {
		return &CallView{Severity: s, URL: g.Call.URL}, nil
	}
	return nil, nil
}
