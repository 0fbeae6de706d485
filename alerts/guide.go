package alerts

import (
	"strings"

	"github.com/prometheus/common/model"
)

// Guide is the part of a playbook about people: who is told, what people do before,
// during and after a rollout, and who does it. Every part is optional.
type Guide struct {
	// Communications says who is told of an incident, where and when.
	Communications *Communications `yaml:"communications,omitempty"`
	// Checklist is what must be done and signed off before the rollout starts.
	Checklist []ChecklistItem `yaml:"checklist,omitempty"`
	// Phases are the phases of the rollout, with the work that people do in each.
	Phases []Phase `yaml:"phases,omitempty"`
	// SuccessCriteria are what the rollout is evaluated by at its end, by area.
	SuccessCriteria []SuccessCriteria `yaml:"success_criteria,omitempty"`
	// PostRollout is the work after the rollout; the rollout report lists it.
	PostRollout []Task `yaml:"post_rollout,omitempty"`
	// Timeline is what happens on which day, counted from the start of the rollout.
	Timeline []TimelineEntry `yaml:"timeline,omitempty"`
	// Team are the roles in the rollout.
	Team []Member `yaml:"team,omitempty"`
	// Preflight adds checks to the preflight.
	Preflight *PreflightChecks `yaml:"preflight,omitempty"`
}

// Communications says who is told of an incident, where and when.
type Communications struct {
	// SlackChannel is the channel's name with its #.
	SlackChannel string `yaml:"slack_channel,omitempty"`
	// BusinessHours are the hours in which people watch the Slack channel.
	BusinessHours *BusinessHours `yaml:"business_hours,omitempty"`
	// Page says when the engineer on call is paged. Default: after_hours if
	// business_hours is given, otherwise never.
	Page Page `yaml:"page,omitempty"`
	// IncidentCall is the call that a severe incident starts.
	IncidentCall *IncidentCall `yaml:"incident_call,omitempty"`
	// StatusPage is what the public status page shows.
	StatusPage *StatusPage `yaml:"status_page,omitempty"`
	// Mail goes to customers once an incident has lasted for some time.
	Mail *Mail `yaml:"mail,omitempty"`
	// SupportBrief is what customer support is told.
	SupportBrief *SupportBrief `yaml:"support_brief,omitempty"`
}

// BusinessHours are the hours in which people watch the Slack channel.
type BusinessHours struct {
	// TimeZone is an IANA time zone.
	TimeZone string `yaml:"time_zone"`
	// Days are the days of the week. Default: monday to friday.
	Days []Weekday `yaml:"days"`
	// From is when they begin, as HH:MM in quotes.
	From Clock `yaml:"from"`
	// To is when they end, as HH:MM in quotes.
	To Clock `yaml:"to"`
}

// Weekday is a day's English name in lower case, as Alertmanager writes it.
type Weekday string

// The days of the week.
const (
	Monday    Weekday = "monday"
	Tuesday   Weekday = "tuesday"
	Wednesday Weekday = "wednesday"
	Thursday  Weekday = "thursday"
	Friday    Weekday = "friday"
	Saturday  Weekday = "saturday"
	Sunday    Weekday = "sunday"
)

// Clock is a time of day, 00:00 to 24:00.
type Clock string

// Page says when the engineer on call is paged.
type Page string

// The times of paging; outside of the business hours is the default.
const (
	PageAfterHours Page = "after_hours"
	PageAlways     Page = "always"
	PageNever      Page = "never"
)

// IncidentCall is the call that a severe incident starts.
type IncidentCall struct {
	// SeverityAbove is the severity above which an incident starts a call.
	SeverityAbove int `yaml:"severity_above"`
	// URL is the link to the call.
	URL string `yaml:"url,omitempty"`
}

// StatusPage is what the public status page shows of the service.
type StatusPage struct {
	// Components are the parts of the service as the page shows them.
	Components []Component `yaml:"components"`
	// Title is an incident's headline. Default: made of the components' names.
	Title string `yaml:"title,omitempty"`
	// Messages are what customers read if a step has no message of its own.
	Messages StatusMessages `yaml:"messages,omitempty"`
	// NotifySubscribers makes Atlassian Statuspage write to its subscribers.
	NotifySubscribers bool `yaml:"notify_subscribers,omitempty"`
	// URL is where customers read the page.
	URL string `yaml:"url,omitempty"`
}

// StatusMessages are the texts for each phase of an incident.
type StatusMessages struct {
	// Investigating is for trouble that may have come back after it was resolved. Default:
	// a built-in sentence, as for the other three.
	Investigating string `yaml:"investigating,omitempty"`
	// Identified is for trouble that continues or came back. Default: built in.
	Identified string `yaml:"identified,omitempty"`
	// Monitoring is for trouble that stopped and is watched. Default: built in.
	Monitoring string `yaml:"monitoring,omitempty"`
	// Resolved is for trouble that is over. Default: built in.
	Resolved string `yaml:"resolved,omitempty"`
}

// Component is one line of the status page.
type Component struct {
	// Name is the component's name as the page shows it.
	Name string `yaml:"name"`
	// Description says what it is, for customers.
	Description string `yaml:"description,omitempty"`
}

// Mail goes out once an incident has lasted for After.
type Mail struct {
	// After is how long an incident lasts before mail is sent.
	After model.Duration `yaml:"after"`
	// To are the addresses, without names.
	To []string `yaml:"to"`
}

// SupportBrief is what customer support is told.
type SupportBrief struct {
	// Owner is who briefs customer support.
	Owner string `yaml:"owner,omitempty"`
	// Points are what the brief must cover.
	Points []string `yaml:"points"`
	// Template is a Go text/template of the brief. Default: a built-in one.
	Template string `yaml:"template,omitempty"`
}

// Status is the state of a task that people do.
type Status string

// The statuses; StatusPending is the default.
const (
	StatusPending    Status = "pending"
	StatusInProgress Status = "in_progress"
	StatusDone       Status = "done"
)

// ChecklistItem is done before the rollout starts.
type ChecklistItem struct {
	// Item is what must be done.
	Item string `yaml:"item"`
	// Owner is who does it.
	Owner string `yaml:"owner"`
	// Status is how far it is.
	Status Status `yaml:"status"`
	// Notes are for the reader.
	Notes string `yaml:"notes,omitempty"`
}

// Blocks is what waits until people's work is signed off.
type Blocks string

// What work can block.
const (
	BlocksStart   Blocks = "start"
	BlocksFinish  Blocks = "finish"
	BlocksNothing Blocks = "nothing"
)

// Phase is one phase of the rollout.
type Phase struct {
	// Name is the phase's name.
	Name string `yaml:"name"`
	// When is the time of the phase, for the reader: its days, counted from the rollout's.
	When string `yaml:"when,omitempty"`
	// Blocks is what waits until every item of the phase is signed off: the rollout's
	// start, its finish, or nothing. Default: by when: nothing on the rollout's day (T, Day 0),
	// finish on a day after it (T+9, Day 0 + 3 days), else start.
	Blocks Blocks `yaml:"blocks"`
	// Tasks are the work in it.
	Tasks []Task `yaml:"tasks"`
}

// Task is a piece of work in steps that people do.
type Task struct {
	// Name is what must be done.
	Name string `yaml:"name"`
	// Items are its steps.
	Items []string `yaml:"items"`
}

// SuccessCriteria are what a rollout is evaluated by in one field, such as
// performance, adoption or business.
type SuccessCriteria struct {
	// Area is the field, such as performance.
	Area string `yaml:"area"`
	// Criteria are the criteria in it.
	Criteria []SuccessCriterion `yaml:"criteria"`
}

// SuccessCriterion is one of them.
type SuccessCriterion struct {
	// Text is the criterion in words.
	Text string `yaml:"text"`
	// Measure is how Prometheus measures it. Without it, somebody signs the criterion off.
	Measure *Criterion `yaml:"measure,omitempty"`
}

// TimelineEntry is what happens on one day, counted from the rollout's: T-7, T, T+10.
type TimelineEntry struct {
	// Day is T, T-7 or T+10; T is the day of the rollout. The start waits until what happens
	// on a day before it is signed off.
	Day string `yaml:"day"`
	// Activity is what happens on that day.
	Activity string `yaml:"activity"`
	// Owner is who does it.
	Owner string `yaml:"owner"`
	// Status is how far it is.
	Status Status `yaml:"status"`
}

// BeforeStart reports whether the day is before the rollout's: the start waits until what
// happens on it is signed off.
func (e TimelineEntry) BeforeStart() bool { return strings.HasPrefix(e.Day, "T-") }

// Member is a role in the rollout, and who has it.
type Member struct {
	// Role is the role, such as Rollout Lead.
	Role string `yaml:"role"`
	// Name is who has it.
	Name string `yaml:"name,omitempty"`
}
