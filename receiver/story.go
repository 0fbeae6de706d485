package receiver

import (
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// storyOf is an incident as a commander asks for it.
func storyOf(v view.IncidentView, o view.Overview) view.Story {
	service, _ := serviceOf(o, v.Service)
	return view.NewStory(v, service, o.Time)
}

func serviceOf(o view.Overview, name string) (view.ServiceNow, bool) {
	for _, s := range o.Services {
		if s.Service == name {
			return s, true
		}
	}
	return view.ServiceNow{}, false
}

// event is a moment of the incident's timeline, with its evidence.
type event struct {
	view.TimelineEvent
	Evidence []evidenceLine
}

func newEvent(e audit.Entry) event {
	return event{view.Describe(e), evidenceOf(e.Detail)}
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
