package remediation

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/locotoki/backout/alerts"
)

// Overview is all that matters now, as one moment of the store has it.
type Overview struct {
	Time time.Time `json:"time"`
	Mode Mode      `json:"mode"`
	// Incidents are the open ones, Recent the newest that are closed, newest first.
	Incidents []IncidentView `json:"incidents"`
	Recent    []IncidentView `json:"recent"`
	Freezes   []Freeze       `json:"freezes"`
	// Services are those whose playbooks are loaded, by name.
	Services []ServiceNow `json:"services"`
	// Undelivered counts the messages in the outbox.
	Undelivered int `json:"undelivered"`
	// HeadSeq and HeadHash are the audit log's last entry.
	HeadSeq  int64  `json:"head_seq"`
	HeadHash string `json:"head_hash"`
}

// ServiceNow is how one service stands.
type ServiceNow struct {
	Service string  `json:"service"`
	Rollout Rollout `json:"rollout"`
	RunsView
	// Stages are the playbook's, in their order; Traffic is the present one's share.
	Stages  []string `json:"stages"`
	Traffic string   `json:"traffic"`
	// Watchdog is when its watchdog was last heard, nil where never. Older than
	// WatchdogMaxAge it means that nobody would hear of a breach.
	Watchdog       *time.Time    `json:"watchdog"`
	WatchdogMaxAge time.Duration `json:"watchdog_max_age"`
	// PrometheusAway is since when Prometheus does not answer, nil where it does or
	// that is not longer than WatchdogMaxAge.
	PrometheusAway *time.Time   `json:"prometheus_away"`
	Limits         []LimitLeft  `json:"limits"`
	Triggers       []TriggerNow `json:"triggers"`
	// Signals are those that the playbook's triggers name, and who raised which.
	Signals []SignalNow `json:"signals"`
	// Tells are the actions that only tell people something, and change no target.
	Tells []string `json:"tells"`
	// Call is where the service's grave incidents are talked about, "" where the
	// playbook does not say; CallAbove is the severity above which one is.
	Call      string `json:"call,omitempty"`
	CallAbove *int   `json:"call_above,omitempty"`
}

// SignalNow is one signal; Raised is nil where it is not.
type SignalNow struct {
	Name   string  `json:"name"`
	Raised *Signal `json:"raised"`
}

// TriggerNow is how a trigger's values are to be read.
type TriggerNow struct {
	Name  string      `json:"name"`
	Unit  alerts.Unit `json:"unit"`
	Above bool        `json:"above"`
	// Severity is how grave a breach of it is, 5 the gravest.
	Severity int `json:"severity"`
}

// LimitLeft is how many steps of an action the limits still allow.
type LimitLeft struct {
	Action string `json:"action"`
	Left   int    `json:"left"`
	// Most is how many they allow at once.
	Most int `json:"most"`
}

// shownRecent is how many closed incidents an overview has.
const shownRecent = 5

// Overview implements Service.
func (e *Engine) Overview(ctx context.Context) (o Overview, err error) {
	err = e.store.View(ctx, func(tx Tx) error {
		o, err = e.overview(tx)
		return err
	})
	var looks sync.WaitGroup
	for i := range o.Services {
		looks.Go(func() { o.Services[i].RunsView = e.runs(o.Services[i].Service) })
	}
	looks.Wait()
	return o, err
}

func (e *Engine) overview(tx Tx) (Overview, error) {
	o := Overview{Time: e.now().UTC(), Mode: e.mode, Services: []ServiceNow{}}
	var err error
	if o.Incidents, err = ViewIncidents(tx, IncidentFilter{Open: true}); err != nil {
		return Overview{}, err
	}
	if o.Recent, err = ViewIncidents(tx, IncidentFilter{Closed: true, Newest: true, Limit: shownRecent}); err != nil {
		return Overview{}, err
	}
	slices.Reverse(o.Recent)
	if o.Freezes, err = e.freezes(tx); err != nil {
		return Overview{}, err
	}
	if o.HeadSeq, o.HeadHash, err = tx.Head(); err != nil {
		return Overview{}, err
	}
	pending, err := tx.PendingMessages()
	if err != nil {
		return Overview{}, err
	}
	for _, n := range pending {
		o.Undelivered += n
	}
	for _, b := range e.allBooks() {
		s, err := e.serviceNow(tx, b)
		if err != nil {
			return Overview{}, err
		}
		o.Services = append(o.Services, s)
	}
	slices.SortFunc(o.Services, func(a, b ServiceNow) int { return compare(a.Service, b.Service) })
	return o, nil
}

func (e *Engine) serviceNow(tx Tx, b *book) (ServiceNow, error) {
	s := newServiceNow(b)
	var err error
	if s.Rollout, err = rolloutOf(tx, b.Service); err != nil {
		return ServiceNow{}, err
	}
	if stage := b.Stage(s.Rollout.Stage); stage != nil && s.Rollout.active() {
		s.Traffic = stage.Traffic
	}
	beat, err := beatOf(tx, b.Service)
	if err != nil {
		return ServiceNow{}, err
	}
	if !beat.Last.IsZero() {
		s.Watchdog = utc(&beat.Last)
	}
	if !beat.Away.IsZero() {
		s.PrometheusAway = utc(&beat.Away)
	}
	for _, name := range signalsOf(b.Playbook) {
		raised, err := signalOf(tx, b.Service, name)
		if err != nil {
			return ServiceNow{}, err
		}
		s.Signals = append(s.Signals, SignalNow{Name: name, Raised: raised})
	}
	limits, err := e.limitsLeft(tx, b)
	for _, l := range limits {
		if !slices.Contains(s.Tells, l.Action) {
			s.Limits = append(s.Limits, l)
		}
	}
	return s, err
}

// newServiceNow is what the playbook says of how a service's incidents are to be read.
func newServiceNow(b *book) ServiceNow {
	s := ServiceNow{
		Service: b.Service, Limits: []LimitLeft{}, Stages: stageNames(b.Playbook), WatchdogMaxAge: time.Duration(b.Watchdog.MaxAge),
		Triggers: []TriggerNow{}, Signals: []SignalNow{}, Tells: []string{},
	}
	if m := b.Communications; m != nil && m.IncidentCall != nil {
		s.Call, s.CallAbove = m.IncidentCall.URL, &m.IncidentCall.SeverityAbove
	}
	for _, t := range b.Triggers {
		now := TriggerNow{Name: t.Name, Above: t.Above != nil, Severity: t.Severity}
		if ind := b.Indicator(t.Indicator); ind != nil {
			now.Unit = ind.Unit
		}
		s.Triggers = append(s.Triggers, now)
	}
	for _, p := range b.Plans {
		for _, step := range p.Steps {
			if _, ok := b.kinds[step.Action].(Communicator); ok && !slices.Contains(s.Tells, step.Action) {
				s.Tells = append(s.Tells, step.Action)
			}
		}
	}
	return s
}

// limitsLeft tells, for each kind of action in the playbook, how many steps
// per_service and per_target still allow.
func (e *Engine) limitsLeft(tx Tx, b *book) ([]LimitLeft, error) {
	effects, err := tx.Effects(b.Service, e.now().Add(-max(b.Limits.PerService.Window, b.Limits.PerTarget.Window)))
	if err != nil {
		return nil, err
	}
	within := func(w time.Duration, match func(Effect) bool) (n int) {
		for _, ef := range effects {
			if ef.counts() && !ef.forward() && match(ef) && ef.Time.After(e.now().Add(-w)) {
				n++
			}
		}
		return n
	}
	all := b.Limits.PerService.Count - within(b.Limits.PerService.Window, func(Effect) bool { return true })
	out := []LimitLeft{}
	for _, p := range b.Plans {
		for _, s := range p.Steps {
			if slices.ContainsFunc(out, func(l LimitLeft) bool { return l.Action == s.Action }) {
				continue
			}
			target := b.kinds[s.Action].Target(b.Playbook, s.Params)
			here := b.Limits.PerTarget.Count - within(b.Limits.PerTarget.Window, func(ef Effect) bool {
				return ef.Action == s.Action && ef.Target == target
			})
			out = append(out, LimitLeft{Action: s.Action, Left: max(min(all, here), 0), Most: min(b.Limits.PerService.Count, b.Limits.PerTarget.Count)})
		}
	}
	return out, nil
}

// PublicPage is what the public status page shows.
type PublicPage struct {
	Time       time.Time
	Components []PublicPart
	// Open are the incidents that are not resolved, Past those that were of late;
	// both newest first.
	Open, Past []PublicIncident
}

// PublicPart is one component of the public page.
type PublicPart struct {
	Name, Description string
	Status            ComponentStatus
	// Since is when it was last told of, zero where never of late.
	Since time.Time
}

// PublicPage implements Service; past is how long what is resolved is shown.
func (e *Engine) PublicPage(ctx context.Context, past time.Duration) (PublicPage, error) {
	p := PublicPage{Time: e.now().UTC()}
	var all []PublicIncident
	err := e.store.View(ctx, func(tx Tx) (err error) {
		all, err = tx.PublicIncidents(p.Time.Add(-past))
		return err
	})
	if err != nil {
		return PublicPage{}, err
	}
	books := e.allBooks()
	slices.SortFunc(books, func(a, b *book) int { return compare(a.Service, b.Service) })
	for _, b := range books {
		if b.Communications == nil || b.Communications.StatusPage == nil {
			continue
		}
		for _, c := range b.Communications.StatusPage.Components {
			p.part(c)
		}
	}
	for _, inc := range slices.Backward(all) {
		open := inc.Resolved == nil
		for _, c := range inc.Components {
			part := p.part(alerts.Component{Name: c.Name})
			if open && worse(c.Status, part.Status) {
				part.Status = c.Status
			}
			if inc.Updated.After(part.Since) {
				part.Since = inc.Updated
			}
		}
		if open {
			p.Open = append(p.Open, inc)
		} else {
			p.Past = append(p.Past, inc)
		}
	}
	return p, nil
}

// part returns the component of that name, which is added where it is new.
func (p *PublicPage) part(c alerts.Component) *PublicPart {
	i := slices.IndexFunc(p.Components, func(have PublicPart) bool { return have.Name == c.Name })
	if i < 0 {
		i = len(p.Components)
		p.Components = append(p.Components, PublicPart{Name: c.Name, Description: c.Description, Status: Operational})
	}
	return &p.Components[i]
}

// worse tells whether a component that is in both statuses is in a rather than b.
func worse(a, b ComponentStatus) bool {
	order := ComponentStatuses()
	return slices.Index(order, a) > slices.Index(order, b)
}
