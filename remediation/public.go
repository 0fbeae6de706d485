package remediation

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// PublicStatus is the state of an incident, in the words of status pages.
type PublicStatus string

// The statuses, as Atlassian's pages have them.
const (
	PublicInvestigating PublicStatus = "investigating"
	PublicIdentified    PublicStatus = "identified"
	PublicMonitoring    PublicStatus = "monitoring"
	PublicResolved      PublicStatus = "resolved"
)

// ComponentStatus is the state of one component of a status page.
type ComponentStatus string

// The statuses of a component.
const (
	Operational         ComponentStatus = "operational"
	DegradedPerformance ComponentStatus = "degraded_performance"
	PartialOutage       ComponentStatus = "partial_outage"
	MajorOutage         ComponentStatus = "major_outage"
	UnderMaintenance    ComponentStatus = "under_maintenance"
)

// ComponentStatuses are all of them, best first.
func ComponentStatuses() []ComponentStatus {
	return []ComponentStatus{Operational, UnderMaintenance, DegradedPerformance, PartialOutage, MajorOutage}
}

// Impact is how severe an incident is for the public.
type Impact string

// The impacts.
const (
	ImpactNone     Impact = "none"
	ImpactMinor    Impact = "minor"
	ImpactMajor    Impact = "major"
	ImpactCritical Impact = "critical"
)

// PublicIncident is all that the public knows about one incident: words for customers,
// and nothing internal.
type PublicIncident struct {
	// Incident is the id of the incident that it tells of.
	Incident string `json:"incident"`
	Service  string `json:"service"`
	// Name is the headline; it stays as it was first told.
	Name       string            `json:"name"`
	Status     PublicStatus      `json:"status"`
	Impact     Impact            `json:"impact"`
	Components []PublicComponent `json:"components"`
	// Updates are all that was told, oldest first.
	Updates []PublicUpdate `json:"updates"`
	Created time.Time      `json:"created"`
	Updated time.Time      `json:"updated"`
	// Resolved is nil until the incident is over.
	Resolved *time.Time `json:"resolved,omitempty"`
}

// PublicComponent is one affected component.
type PublicComponent struct {
	Name   string          `json:"name"`
	Status ComponentStatus `json:"status"`
	// Trouble is its status while the incident goes on.
	Trouble ComponentStatus `json:"trouble"`
}

// PublicUpdate is one update. Number counts an incident's updates from 1.
type PublicUpdate struct {
	Number int          `json:"number"`
	Time   time.Time    `json:"time"`
	Status PublicStatus `json:"status"`
	Words  string       `json:"words"`
}

// Trouble gives components a status ("": as it is, degraded where they are new)
// and takes the impact from all of them.
func (p *PublicIncident) Trouble(names []string, status ComponentStatus) {
	for _, name := range names {
		i := slices.IndexFunc(p.Components, func(c PublicComponent) bool { return c.Name == name })
		if i < 0 {
			i = len(p.Components)
			p.Components = append(p.Components, PublicComponent{Name: name, Trouble: DegradedPerformance})
		}
		if status != "" {
			p.Components[i].Trouble = status
		}
	}
	p.Impact = ImpactNone
	order := []Impact{ImpactNone, ImpactMinor, ImpactMajor, ImpactCritical}
	for i := range p.Components {
		c := &p.Components[i]
		c.Status = c.Trouble
		if x := c.Status.impact(); slices.Index(order, x) > slices.Index(order, p.Impact) {
			p.Impact = x
		}
	}
}

// impact is how grave it is that a component is so; "" for no status at all.
func (s ComponentStatus) impact() Impact {
	switch s {
	case Operational, UnderMaintenance:
		return ImpactNone
	case DegradedPerformance:
		return ImpactMinor
	case PartialOutage:
		return ImpactMajor
	case MajorOutage:
		return ImpactCritical
	}
	return ""
}

// Sayable reports whether every component has a status that pages know.
func (p *PublicIncident) Sayable() bool {
	return !slices.ContainsFunc(p.Components, func(c PublicComponent) bool { return c.Status.impact() == "" })
}

// PublicMessage is the body of a message to a status page or by mail: the incident as it is
// to be there, and the update that is new.
type PublicMessage struct {
	// Key names the incident for good, on a page that others use too.
	Key        string            `json:"key"`
	Name       string            `json:"name"`
	Impact     Impact            `json:"impact"`
	Components []PublicComponent `json:"components"`
	Update     PublicUpdate      `json:"update"`
	// NotifySubscribers: the page may write to those who asked for it.
	NotifySubscribers bool `json:"notify_subscribers"`
	// Mail is set where it goes by mail.
	Mail *PublicMail `json:"mail,omitempty"`
}

// Announcement is what a step announces to the public.
type Announcement struct {
	// Components are names as the page shows them.
	Components []string
	// Status is theirs from now on; "" leaves it as it is.
	Status ComponentStatus
	// Words are for customers; "" stands for the playbook's, or for ours.
	Words string
}

// Names lists components as a sentence does; instead stands for none.
func Names(list []string, instead string) string {
	switch n := len(list); n {
	case 0:
		return instead
	case 1:
		return list[0]
	default:
		return strings.Join(list[:n-1], ", ") + " and " + list[n-1]
	}
}

// shownNames is how many names Few shows.
const shownNames = 5

// Few names some of a list, and says how many more there are.
func Few(names []string) string {
	if more := len(names) - shownNames; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shownNames], ", "), more)
	}
	return strings.Join(names, ", ")
}

// PublicMail is what a message by mail has besides the update.
type PublicMail struct {
	// To is one address: the other recipients stay private, and what one
	// server refuses keeps no other from being told.
	To string `json:"to"`
	// First is the number of the update that was mailed first; all since then were.
	First int `json:"first"`
	// Since is when the public was first told of the incident, Page where it can be
	// read, "" where that is not known.
	Since time.Time `json:"since"`
	Page  string    `json:"page,omitempty"`
}

// Brief is what customer support knows about an open incident.
type Brief struct {
	Incident string `json:"incident"`
	Service  string `json:"service"`
	// Owner is who tells it on, "" where the playbook does not say.
	Owner string `json:"owner"`
	// Text is plain text to copy.
	Text string `json:"text"`
}

// FlagSwitch marks a kind whose steps switch a flag off.
type FlagSwitch interface {
	ActionKind
	// SwitchesOff names the flag that a step with these parameters switches off.
	SwitchesOff(params any) string
}

// CallView says that an incident is severe enough for a call.
type CallView struct {
	Severity int `json:"severity"`
	// URL is where it is, "" where the playbook does not say.
	URL string `json:"url,omitempty"`
}
