package engine

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// Overview is all that matters now.
func (e *Engine) Overview(ctx context.Context) (o view.Overview, err error) {
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		o, err = e.overview(tx)
		return err
	})
	if err != nil {
		return view.Overview{}, err
	}
	busy := map[string]bool{}
	for _, v := range o.Incidents {
		busy[v.Service] = busy[v.Service] || !v.Drill
	}
	var looks sync.WaitGroup
	for i := range o.Services {
		if s := &o.Services[i]; len(o.Services) <= view.ShownServices || busy[s.Service] || s.Rollout.Active() {
			looks.Go(func() { s.RunsView = e.runs(s.Service) })
			if !busy[s.Service] {
				looks.Go(func() { s.Unheard = e.unheard(s.Service) })
			}
		}
	}
	looks.Wait()
	return o, nil
}

func (e *Engine) overview(tx remediation.Tx) (view.Overview, error) {
	o := view.Overview{Time: e.Now().UTC(), Mode: e.Mode, Services: []view.ServiceNow{}}
	open, err := tx.Incidents(remediation.IncidentFilter{Open: true})
	if err != nil {
		return view.Overview{}, err
	}
	if o.Incidents, err = view.OfIncidents(tx, open); err != nil {
		return view.Overview{}, err
	}
	plans := e.Plans()
	all, err := readServices(tx, plans, o.Time)
	if err != nil {
		return view.Overview{}, err
	}
	if o.Needed, err = e.needed(tx, all, open); err != nil {
		return view.Overview{}, err
	}
	if o.Recent, err = view.Incidents(tx, remediation.IncidentFilter{Closed: true, Newest: true, Limit: view.ShownRecent}); err != nil {
		return view.Overview{}, err
	}
	slices.Reverse(o.Recent)
	if o.Freezes, err = e.FreezesIn(tx); err != nil {
		return view.Overview{}, err
	}
	if o.HeadSeq, o.HeadHash, err = tx.Head(); err != nil {
		return view.Overview{}, err
	}
	pending, err := tx.PendingMessages()
	if err != nil {
		return view.Overview{}, err
	}
	for channel, n := range pending {
		o.Undelivered += n
		heads, err := tx.FirstMessages(channel)
		if err != nil {
			return view.Overview{}, err
		}
		for _, m := range heads {
			if o.UndeliveredSince == nil || m.Created.Before(*o.UndeliveredSince) {
				o.UndeliveredSince = view.UTC(&m.Created)
			}
		}
	}
	if o.Dropped, o.DroppedLast, err = e.dropped.inLastDay(tx, o.HeadSeq, o.Time); err != nil {
		return view.Overview{}, err
	}
	o.Arrivals = e.Arrivals()
	o.Arrivals.Since = e.started.UTC()
	o.Audited, o.NotReloaded = e.audited.Load(), e.notReloaded.Load()
	if o.Replicas, o.Unheld, err = e.replicasNow(tx); err != nil {
		return view.Overview{}, err
	}
	for _, b := range plans {
		s := serviceNow(all, b, e.ShownPlan(tx, b, all.rollout(b.Service)), o.Time)
		if i := slices.IndexFunc(open, func(inc *remediation.Incident) bool { return inc.Service == b.Service && !inc.Drill }); i >= 0 {
			s.BackOut = view.BackOutOf(open[i])
		}
		s.NotReady = e.notReadyOf(b.Service)
		o.Services = append(o.Services, s)
	}
	slices.SortFunc(o.Services, func(a, b view.ServiceNow) int { return strings.Compare(a.Service, b.Service) })
	return o, nil
}

// drops remembers when messages were dropped, so that each look reads the entries since
// the one before only.
type drops struct {
	mu   sync.Mutex
	seq  int64 // read up to here
	each []time.Time
}

func (d *drops) inLastDay(tx remediation.Tx, head int64, now time.Time) (n int, last *time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	since := now.Add(-24 * time.Hour)
	if d.seq == 0 {
		first, err := audit.FirstAt(tx, since, head)
		if err != nil {
			return 0, nil, err
		}
		d.seq = first - 1
	}
	if d.seq < head {
		found, err := tx.Entries(audit.Filter{Kind: audit.KindNotified, Text: `"outcome":"` + remediation.OutcomeDropped + `"`, After: d.seq})
		if err != nil {
			return 0, nil, err
		}
		for _, en := range found {
			if view.Undelivered(en) {
				d.each = append(d.each, en.Time)
			}
		}
		d.seq = head
	}
	d.each = slices.DeleteFunc(d.each, func(t time.Time) bool { return t.Before(since) })
	if n = len(d.each); n > 0 {
		last = view.UTC(&d.each[n-1])
	}
	return n, last, nil
}

// serviceNow is what is known of a service; its rollout goes by the plan of.
func serviceNow(all *services, b, of *plan.Plan, now time.Time) view.ServiceNow {
	s := view.NewServiceNow(b)
	s.Rollout, s.Stages = all.rollout(b.Service), remediation.StageNames(of.Playbook)
	if stage := of.Stage(s.Rollout.Stage); stage != nil && s.Rollout.Active() {
		s.Traffic = stage.Traffic
	}
	beat := all.beats[b.Service]
	if !beat.Last.IsZero() {
		s.Watchdog, s.WatchdogHeard = view.UTC(&beat.Last), beat.Heard
	}
	if !beat.Away.IsZero() {
		s.PrometheusAway = view.UTC(&beat.Away)
	}
	for _, name := range remediation.SignalsOf(b.Playbook) {
		s.Signals = append(s.Signals, view.SignalNow{Name: name, Raised: all.signal(b.Service, name)})
	}
	for _, l := range limitsLeft(b, all.effects[b.Service], now) {
		if !slices.Contains(s.Tells, l.Action) {
			s.Limits = append(s.Limits, l)
		}
	}
	return s
}

// limitsLeft tells, for each kind of action in the playbook, how many steps
// per_service and per_target still allow, after the service's effects.
func limitsLeft(b *plan.Plan, effects []remediation.Effect, now time.Time) []view.LimitLeft {
	within := func(w time.Duration, match func(remediation.Effect) bool) (n int) {
		for _, ef := range effects {
			if ef.Counts() && !ef.Forward() && match(ef) && ef.Time.After(now.Add(-w)) {
				n++
			}
		}
		return n
	}
	all := b.Limits.PerService.Count - within(b.Limits.PerService.Window, func(remediation.Effect) bool { return true })
	out := []view.LimitLeft{}
	for _, p := range b.Plans {
		for _, s := range p.Steps {
			if slices.ContainsFunc(out, func(l view.LimitLeft) bool { return l.Action == s.Action }) {
				continue
			}
			target := b.Kinds[s.Action].Target(b.Playbook, s.Params)
			here := b.Limits.PerTarget.Count - within(b.Limits.PerTarget.Window, func(ef remediation.Effect) bool {
				return ef.Action == s.Action && ef.Target == target
			})
			out = append(out, view.LimitLeft{Action: s.Action, Left: max(min(all, here), 0), Most: min(b.Limits.PerService.Count, b.Limits.PerTarget.Count)})
		}
	}
	return out
}

// PublicPage is what customers read; past is how long resolved incidents are shown.
func (e *Engine) PublicPage(ctx context.Context, past time.Duration) (view.PublicPage, error) {
	p := view.PublicPage{Time: e.Now().UTC()}
	var all []remediation.PublicIncident
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		all, err = tx.PublicIncidents(p.Time.Add(-past))
		return err
	})
	if err != nil {
		return view.PublicPage{}, err
	}
	books := e.Plans()
	slices.SortFunc(books, func(a, b *plan.Plan) int { return strings.Compare(a.Service, b.Service) })
	example := map[string]bool{} // a service that is not here has no public
	for _, b := range books {
		if example[b.Service] = b.Example; b.Example || b.Communications == nil || b.Communications.StatusPage == nil {
			continue
		}
		for _, c := range b.Communications.StatusPage.Components {
			p.Part(c)
		}
	}
	for _, inc := range slices.Backward(all) {
		if example[inc.Service] {
			continue
		}
		open := inc.Resolved == nil
		for _, c := range inc.Components {
			part := p.Part(alerts.Component{Name: c.Name})
			if open && view.Worse(c.Status, part.Status) {
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
