package receiver

import (
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// storyOf is an incident as a commander asks for it.
func storyOf(v remediation.IncidentView, o remediation.Overview) remediation.Story {
	service, _ := serviceOf(o, v.Service)
	return remediation.NewStory(v, service, o.Time)
}

func serviceOf(o remediation.Overview, name string) (remediation.ServiceNow, bool) {
	for _, s := range o.Services {
		if s.Service == name {
			return s, true
		}
	}
	return remediation.ServiceNow{}, false
}

// event is a moment of the incident's timeline, with its evidence.
type event struct {
	remediation.TimelineEvent
	Evidence []evidenceLine
}

func newEvent(e audit.Entry) event {
	return event{remediation.Describe(e), evidenceOf(e.Detail)}
}

// evidenceLine is one key of an entry's detail.
type evidenceLine struct {
	// Value is plain text.
	Key, Value string
	// Gates, where the key is that, and Long, where the value is JSON.
	Gates []gateLine
	Long  bool
}

type gateLine struct {
	Gate, Why string
	Open      bool
}
