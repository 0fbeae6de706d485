package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// Overview is the current state of everything, from one transaction.
type Overview struct {
	Time time.Time        `json:"time"`
	Mode remediation.Mode `json:"mode"`
	// Incidents are the open ones, Recent the newest that are closed, newest first.
	Incidents []IncidentView       `json:"incidents"`
	Recent    []IncidentView       `json:"recent"`
	Freezes   []remediation.Freeze `json:"freezes"`
	// Services are those whose playbooks are loaded, by name.
	Services []ServiceNow `json:"services"`
	// Needed is what waits for a person, by service and reason.
	Needed []Needed `json:"needed"`
	// Undelivered counts the messages in the outbox; the oldest has waited since
	// UndeliveredSince.
	Undelivered      int        `json:"undelivered"`
	UndeliveredSince *time.Time `json:"undelivered_since"`
	// Dropped counts the messages of the last day that could never be delivered, the last
	// of them at DroppedLast.
	Dropped     int        `json:"dropped"`
	DroppedLast *time.Time `json:"dropped_last"`
	// HeadSeq and HeadHash are the audit log's last entry.
	HeadSeq  int64  `json:"head_seq"`
	HeadHash string `json:"head_hash"`
	// Arrivals is what Alertmanager sent to the process that answers.
	Arrivals remediation.Arrivals `json:"notifications"`
	// Audited is nil before the log was first verified.
	Audited *Audited `json:"audited"`
	// NotReloaded is the last reload if it failed, nil if not.
	NotReloaded *NotReloaded `json:"not_reloaded,omitempty"`
	// Replicas share the database, by name; empty where only one process can. Unheld are
	// the realms of playbooks in which none of them acts.
	Replicas []ReplicaNow `json:"replicas"`
	Unheld   []UnheldNow  `json:"unheld_realms"`
}

// ReplicaNow is one replica as it last described itself.
type ReplicaNow struct {
	Name    string           `json:"name"`
	Version string           `json:"version"`
	Mode    remediation.Mode `json:"mode"`
	Started time.Time        `json:"started"`
	Seen    time.Time        `json:"seen"`
	Live    bool             `json:"live"`
	// Stopped: it was told to stop, and is not missing.
	Stopped bool     `json:"stopped"`
	Realms  []string `json:"realms"` // in which it acts
	// Monitoring: Prometheus answered it within the last minute.
	Monitoring bool `json:"monitoring"`
	// Differs says in which way it differs from the replica that answers, "" if it does not.
	Differs string `json:"differs"`
}

// UnheldNow is a realm in which no replica acts, and the services that are in it.
type UnheldNow struct {
	Realm    string   `json:"realm"`
	Services []string `json:"services"`
}

// RealmWords names a realm for people.
func RealmWords(realm string) string {
	if realm == remediation.RealmDefault {
		return "the default realm"
	}
	return realm
}

// Needed says that a person must come, as the metric backout_needs_human does.
// Incident is "" if no incident is concerned.
type Needed struct {
	Service  string `json:"service"`
	Reason   string `json:"reason"`
	Incident string `json:"incident"`
}

// Compare orders by service, then by reason.
func (n Needed) Compare(m Needed) int {
	return cmp.Or(strings.Compare(n.Service, m.Service), strings.Compare(n.Reason, m.Reason))
}

// Audited is a verification of the whole audit log.
type Audited struct {
	OK   bool      `json:"ok"`
	Time time.Time `json:"time"`
}

// NotReloaded is a reload of the configuration and the playbooks that failed. Those that
// were loaded at Runs stay in force.
type NotReloaded struct {
	Error string     `json:"error"`
	Time  time.Time  `json:"time"`
	Runs  *time.Time `json:"runs"`
}

// ServiceNow is the state of one service.
type ServiceNow struct {
	Service string `json:"service"`
	// Playbook is the hash of its file (SHA-256, hexadecimal).
	Playbook string `json:"playbook"`
	// Example: it is the built-in one, since serve got no --playbook.file.
	Example bool                `json:"built_in_example"`
	Rollout remediation.Rollout `json:"rollout"`
	RunsView
	BackOut
	// Stages are the playbook's, in their order; Traffic is the present one's share.
	Stages  []string `json:"stages"`
	Traffic string   `json:"traffic"`
	// Watchdog is when its watchdog was last heard, or, if it never was, when backout first
	// started with the service. Older than
	// WatchdogMaxAge it means that nobody would hear of a breach.
	Watchdog       *time.Time    `json:"watchdog"`
	WatchdogHeard  bool          `json:"watchdog_heard"`
	WatchdogMaxAge time.Duration `json:"watchdog_max_age"`
	// PrometheusAway is since when Prometheus does not answer, nil where it does or
	// that is not longer than WatchdogMaxAge.
	PrometheusAway *time.Time `json:"prometheus_away"`
	// NotReady says which targets a step could not act on now, and why, as this process last
	// looked; empty where another replica acts.
	NotReady []string `json:"not_ready"`
	// Unheard are the triggers that are beyond their bounds without an open incident, for
	// longer than an alert needs to arrive.
	Unheard  []Unheard    `json:"unheard,omitempty"`
	Limits   []LimitLeft  `json:"limits"`
	Triggers []TriggerNow `json:"triggers"`
	// Signals are those that the playbook's triggers name, and who raised which.
	Signals []SignalNow `json:"signals"`
	// Tells are the actions that only tell people something, and change no target.
	Tells []string `json:"tells"`
	// Losses are what the steps that can lose data would lose.
	Losses []Loss `json:"losses,omitempty"`
	// Call is where the service's grave incidents are talked about, "" where the
	// playbook does not say; CallAbove is the severity above which one is.
	Call      string `json:"call,omitempty"`
	CallAbove *int   `json:"call_above,omitempty"`
	// Runbook is the address of what people do in an incident, "" where the playbook has
	// none.
	Runbook string `json:"runbook,omitempty"`
}

// Unheard is a trigger whose value is beyond its bound, and no incident is open.
type Unheard struct {
	Trigger   string      `json:"trigger"`
	Value     float64     `json:"value"`
	Threshold float64     `json:"threshold"`
	Above     bool        `json:"above"`
	Unit      alerts.Unit `json:"unit"`
	// Estimate is a TriggerView's.
	Estimate string `json:"estimate,omitempty"`
	// Since is when it went beyond, or when the time that was looked at began.
	Since time.Time `json:"since"`
	// Why says what became of its alert, "" where none arrived.
	Why string `json:"why,omitempty"`
}

// alertWords say why its alert opened no incident.
func (u Unheard) alertWords() string {
	return cmp.Or(u.Why, "its alert did not arrive, or is silenced")
}

func (u Unheard) words() string {
	side := "under"
	if u.Above {
		side = "over"
	}
	return fmt.Sprintf("%s is at %s, %s its bound of %s, and no incident is open", u.Trigger, remediation.Estimated(remediation.Measure(u.Value, u.Unit), u.Estimate), side, remediation.Measure(u.Threshold, u.Unit))
}

// SignalNow is one signal; Raised is nil where it is not.
type SignalNow struct {
	Name   string              `json:"name"`
	Raised *remediation.Signal `json:"raised"`
}

// Loss is what a step of this action on this target can lose.
type Loss struct {
	Action string `json:"action"`
	Target string `json:"target"`
	What   string `json:"what"`
}

// TriggerNow is how to read a trigger's values.
type TriggerNow struct {
	Name  string      `json:"name"`
	Unit  alerts.Unit `json:"unit"`
	Above bool        `json:"above"`
	// Estimate is a TriggerView's.
	Estimate string `json:"estimate,omitempty"`
	// Severity is how severe a breach of it is, 5 the most severe.
	Severity int `json:"severity"`
	// Signal: a person is the trigger, and no metric.
	Signal bool `json:"signal,omitempty"`
	// Dashboard is the address of its indicator's dashboard, "" where the playbook has none.
	Dashboard string `json:"dashboard,omitempty"`
}

// LimitLeft is how many steps of an action the limits still allow.
type LimitLeft struct {
	Action string `json:"action"`
	Left   int    `json:"left"`
	// Most is how many they allow at once.
	Most int `json:"most"`
}

// ShownRecent is how many closed incidents an overview has.
const ShownRecent = 5

// NewServiceNow is what the playbook says about reading a service's incidents.
func NewServiceNow(b *plan.Plan) ServiceNow {
	s := ServiceNow{
		Service: b.Service, Playbook: b.Hash, Example: b.Example, Limits: []LimitLeft{}, Stages: remediation.StageNames(b.Playbook), WatchdogMaxAge: time.Duration(b.Watchdog.MaxAge),
		Triggers: []TriggerNow{}, Signals: []SignalNow{}, NotReady: []string{}, Tells: []string{}, Runbook: b.RunbookURL,
	}
	if m := b.Communications; m != nil && m.IncidentCall != nil {
		s.Call, s.CallAbove = m.IncidentCall.URL, &m.IncidentCall.SeverityAbove
	}
	for _, t := range b.Triggers {
		now := TriggerNow{Name: t.Name, Above: t.Above != nil, Severity: t.Severity, Signal: t.Signal != "", Estimate: b.EstimateOf(t.Name)}
		if ind := b.Indicator(t.Indicator); ind != nil {
			now.Unit, now.Dashboard = ind.Unit, b.Dashboards[b.Board(ind)]
		}
		s.Triggers = append(s.Triggers, now)
	}
	for _, p := range b.Plans {
		for _, step := range p.Steps {
			if _, ok := b.Kinds[step.Action].(remediation.Communicator); ok && !slices.Contains(s.Tells, step.Action) {
				s.Tells = append(s.Tells, step.Action)
			}
		}
	}
	s.Losses = lossesOf(b)
	return s
}

// lossesOf are what the steps of a plan can lose, each once.
func lossesOf(b *plan.Plan) (all []Loss) {
	for _, p := range b.Plans {
		for _, step := range p.Steps {
			if kind, ok := b.Kinds[step.Action].(remediation.Losing); ok && step.Risk == alerts.Lossy {
				loss := Loss{step.Action, kind.Target(b.Playbook, step.Params), kind.Loses(b.Playbook, step.Params)}
				if !slices.Contains(all, loss) {
					all = append(all, loss)
				}
			}
		}
	}
	return all
}

// PublicPage is what the public status page shows.
type PublicPage struct {
	Time       time.Time
	Components []PublicPart
	// Open are the incidents that are not resolved, Past the recent ones;
	// both newest first.
	Open, Past []remediation.PublicIncident
}

// PublicPart is one component of the public page.
type PublicPart struct {
	Name, Description string
	Status            remediation.ComponentStatus
	// Since is when it was last told of, zero if not recently.
	Since time.Time
}

// Part returns the component of that name, adding it if it is new.
func (p *PublicPage) Part(c alerts.Component) *PublicPart {
	i := slices.IndexFunc(p.Components, func(have PublicPart) bool { return have.Name == c.Name })
	if i < 0 {
		i = len(p.Components)
		p.Components = append(p.Components, PublicPart{Name: c.Name, Description: c.Description, Status: remediation.Operational})
	}
	return &p.Components[i]
}

// Worse reports whether a component that is in both statuses is in a rather than b.
func Worse(a, b remediation.ComponentStatus) bool {
	order := remediation.ComponentStatuses()
	return slices.Index(order, a) > slices.Index(order, b)
}
