package alerts

import "github.com/prometheus/common/model"

// Guide is the part of a playbook that is about people: who is told, what is
// done by hand before, during and after a rollout, and who does it. Every part
// of it may be left out.
type Guide struct {
	Communications  *Communications   `yaml:"communications,omitempty"`
	Checklist       []ChecklistItem   `yaml:"checklist,omitempty"`
	Phases          []Phase           `yaml:"phases,omitempty"`
	SuccessCriteria []SuccessCriteria `yaml:"success_criteria,omitempty"`
	PostRollout     []Task            `yaml:"post_rollout,omitempty"`
	Timeline        []TimelineEntry   `yaml:"timeline,omitempty"`
	Team            []Member          `yaml:"team,omitempty"`
	Preflight       *PreflightChecks  `yaml:"preflight,omitempty"`
}

// Communications says who is told of an incident, where and when.
type Communications struct {
	// SlackChannel is the channel's name with its #.
	SlackChannel  string         `yaml:"slack_channel,omitempty"`
	BusinessHours *BusinessHours `yaml:"business_hours,omitempty"`
	// Page says when the engineer on call is paged.
	Page         Page          `yaml:"page,omitempty"`
	IncidentCall *IncidentCall `yaml:"incident_call,omitempty"`
	StatusPage   *StatusPage   `yaml:"status_page,omitempty"`
	Mail         *Mail         `yaml:"mail,omitempty"`
	SupportBrief *SupportBrief `yaml:"support_brief,omitempty"`
}

// BusinessHours are the hours in which people watch the Slack channel.
type BusinessHours struct {
	// TimeZone is an IANA name such as Europe/Vienna; UTC by default.
	TimeZone string    `yaml:"time_zone"`
	Days     []Weekday `yaml:"days"`
	From     Clock     `yaml:"from"`
	To       Clock     `yaml:"to"`
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

// IncidentCall is the call that a grave incident starts.
type IncidentCall struct {
	// SeverityAbove: a call is started for an incident of a higher severity.
	SeverityAbove int    `yaml:"severity_above"`
	URL           string `yaml:"url,omitempty"`
}

// StatusPage is what the public status page shows of the service.
type StatusPage struct {
	Components []Component `yaml:"components"`
	// Title is an incident's headline; made of the components by default.
	Title string `yaml:"title,omitempty"`
	// Messages are what customers read where a step has no words of its own.
	Messages StatusMessages `yaml:"messages,omitempty"`
	// NotifySubscribers: the page writes to those who asked for it.
	NotifySubscribers bool `yaml:"notify_subscribers,omitempty"`
	// URL is where customers read it.
	URL string `yaml:"url,omitempty"`
}

// StatusMessages are the words for each part of an incident's life.
type StatusMessages struct {
	// Investigating: it may have come back after it was solved.
	Investigating string `yaml:"investigating,omitempty"`
	// Identified: it goes on, or came back.
	Identified string `yaml:"identified,omitempty"`
	// Monitoring: it has stopped, and is watched.
	Monitoring string `yaml:"monitoring,omitempty"`
	Resolved   string `yaml:"resolved,omitempty"`
}

// Component is one line of the status page.
type Component struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description,omitempty"`
}

// Mail goes out once an incident has lasted for After.
type Mail struct {
	After model.Duration `yaml:"after"`
	To    []string       `yaml:"to"`
}

// SupportBrief is what customer support is told.
type SupportBrief struct {
	Owner  string   `yaml:"owner,omitempty"`
	Points []string `yaml:"points"`
	// Template renders a Brief, as Go's text/template; "" stands for the built-in one.
	Template string `yaml:"template,omitempty"`
}

// Status is how far a piece of people's work is.
type Status string

// The statuses; StatusPending is the default.
const (
	StatusPending    Status = "pending"
	StatusInProgress Status = "in_progress"
	StatusDone       Status = "done"
)

// ChecklistItem is done before the rollout starts.
type ChecklistItem struct {
	Item   string `yaml:"item"`
	Owner  string `yaml:"owner"`
	Status Status `yaml:"status"`
	Notes  string `yaml:"notes,omitempty"`
}

// Phase is one phase of the rollout.
type Phase struct {
	Name  string `yaml:"name"`
	When  string `yaml:"when,omitempty"`
	Tasks []Task `yaml:"tasks"`
}

// Task is a piece of work in steps that people do.
type Task struct {
	Name  string   `yaml:"name"`
	Items []string `yaml:"items"`
}

// SuccessCriteria are what a rollout is judged by in one field, such as
// performance, adoption or business.
type SuccessCriteria struct {
	Area     string             `yaml:"area"`
	Criteria []SuccessCriterion `yaml:"criteria"`
}

// SuccessCriterion is one of them; Measure is how Prometheus tells, where it can.
type SuccessCriterion struct {
	Text    string     `yaml:"text"`
	Measure *Criterion `yaml:"measure,omitempty"`
}

// TimelineEntry is what happens on one day, counted from the rollout's: T-7, T, T+10.
type TimelineEntry struct {
	Day      string `yaml:"day"`
	Activity string `yaml:"activity"`
	Owner    string `yaml:"owner"`
	Status   Status `yaml:"status"`
}

// Member is a role in the rollout, and who has it.
type Member struct {
	Role string `yaml:"role"`
	Name string `yaml:"name,omitempty"`
}
