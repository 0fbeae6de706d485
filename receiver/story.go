package receiver

import (
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
