package memory

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
)

const idPrefix = "inc-"

// number returns N of "inc-N".
func number(id string) (int, error) {
	s, ok := strings.CutPrefix(id, idPrefix)
	n, err := strconv.Atoi(s)
	if !ok || err != nil || n < 1 || s != strconv.Itoa(n) {
		return 0, fmt.Errorf("incident %.80q: %w (an id is like inc-7)", id, remediation.ErrNotFound)
	}
	return n, nil
}

// stored returns an incident's own row.
func (t *tx) stored(id string) (*remediation.Incident, error) {
	n, err := number(id)
	switch {
	case t.usable() != nil:
		return nil, t.usable()
	case err != nil:
		return nil, err
	case n > len(t.incidents):
		return nil, fmt.Errorf("incident %s: %w", id, remediation.ErrNotFound)
	}
	return t.incidents[n-1], nil
}

// Incident implements remediation.IncidentTable.
func (t *tx) Incident(id string) (*remediation.Incident, error) {
	inc, err := t.stored(id)
	if err != nil {
		return nil, err
	}
	return copyOf(inc), nil
}

// Incidents implements remediation.IncidentTable.
func (t *tx) Incidents(f remediation.IncidentFilter) ([]*remediation.Incident, error) {
	first, last := 1, len(t.incidents)
	for _, edge := range []struct {
		id  string
		set func(n int)
	}{{f.After, func(n int) { first = n + 1 }}, {f.Before, func(n int) { last = min(last, n-1) }}} {
		if edge.id == "" {
			continue
		}
		n, err := number(edge.id)
		if err != nil {
			return nil, fmt.Errorf("incidents after or before: %w", err)
		}
		edge.set(n)
	}
	var between []*remediation.Incident
	if first <= last {
		between = t.incidents[first-1 : last]
	}
	return t.those(between, f.Newest, f.Limit, func(inc *remediation.Incident) bool {
		closed := inc.State == remediation.Closed
		return (f.Service == "" || inc.Service == f.Service) && (f.Drill == nil || inc.Drill == *f.Drill) && (f.Open == f.Closed || closed == f.Closed)
	})
}

// those returns copies of the incidents that match, oldest first.
func (t *tx) those(from []*remediation.Incident, newest bool, limit int, matches func(*remediation.Incident) bool) ([]*remediation.Incident, error) {
	if err := t.usable(); err != nil {
		return nil, err
	}
	out := []*remediation.Incident{}
	for i := range from {
		inc := from[i]
		if newest {
			inc = from[len(from)-1-i]
		}
		if matches(inc) {
			out = append(out, copyOf(inc))
		}
		if limit > 0 && len(out) == limit {
			break
		}
	}
	if newest {
		slices.Reverse(out)
	}
	return out, nil
}

// Running implements remediation.IncidentTable.
func (t *tx) Running() ([]*remediation.Incident, error) {
	return t.those(t.incidents, false, 0, func(inc *remediation.Incident) bool { return inc.State != remediation.Closed && inc.Running() != nil })
}

// Paging implements remediation.IncidentTable.
func (t *tx) Paging() ([]*remediation.Incident, error) {
	newest := map[string]*remediation.Incident{}
	for _, inc := range t.incidents {
		if !inc.Drill {
			newest[inc.Service] = inc
		}
	}
	return t.those(t.incidents, false, 0, func(inc *remediation.Incident) bool { return newest[inc.Service] == inc && len(inc.NeedsHuman()) > 0 })
}

// PutIncident implements remediation.IncidentTable.
func (t *tx) PutIncident(inc *remediation.Incident) error {
	if err := t.writable(); err != nil {
		return err
	}
	n := len(t.incidents) + 1
	if inc.Version > 0 {
		was, err := t.stored(inc.ID)
		if err != nil {
			return err
		}
		if was.Version != inc.Version {
			return fmt.Errorf("put incident %s: version %d, stored is %d: %w", inc.ID, inc.Version, was.Version, remediation.ErrStale)
		}
		if n, err = number(inc.ID); err != nil {
			return err
		}
	}
	id := idPrefix + strconv.Itoa(n)
	if inc.State != remediation.Closed {
		for _, other := range t.incidents {
			if other.ID != id && other.Service == inc.Service && other.Drill == inc.Drill && other.State != remediation.Closed {
				return fmt.Errorf("put incident %s of service %q: %s is open already", id, inc.Service, other.ID)
			}
		}
	}
	inc.ID = id
	inc.Version++
	t.incidents = slices.Clone(t.incidents)
	if n > len(t.incidents) {
		t.incidents = append(t.incidents, nil)
	}
	t.incidents[n-1] = copyOf(inc)
	return nil
}

// Due implements remediation.IncidentTable.
func (t *tx) Due(now time.Time) (ids []string, next time.Time, err error) {
	var due []*remediation.Incident
	for _, inc := range t.incidents {
		switch {
		case inc.Wake.IsZero():
		case !inc.Wake.After(now):
			due = append(due, inc)
		case next.IsZero() || inc.Wake.Before(next):
			next = inc.Wake
		}
	}
	slices.SortStableFunc(due, func(a, b *remediation.Incident) int { return a.Wake.Compare(b.Wake) })
	for _, inc := range due {
		ids = append(ids, inc.ID)
	}
	return ids, next, t.usable()
}

// Alert implements remediation.AlertTable.
func (t *tx) Alert(fingerprint string) (remediation.AlertState, error) {
	return get(t, t.alerts, func(a *remediation.AlertState) bool { return a.Fingerprint == fingerprint })
}

// PutAlert implements remediation.AlertTable.
func (t *tx) PutAlert(a remediation.AlertState) error {
	return put(t, &t.alerts, func(o *remediation.AlertState) bool { return o.Fingerprint == a.Fingerprint }, a)
}

// Alerts implements remediation.AlertTable.
func (t *tx) Alerts(incident string) ([]remediation.AlertState, error) {
	return list(t, t.alerts, func(a *remediation.AlertState) bool { return a.Incident == incident }, nil)
}

// ActiveAlerts implements remediation.AlertTable.
func (t *tx) ActiveAlerts(incident string) (n int, lastSeen time.Time, err error) {
	for _, a := range t.alerts {
		if a.Incident != incident {
			continue
		}
		if a.Active {
			n++
		}
		if a.LastSeen.After(lastSeen) {
			lastSeen = a.LastSeen
		}
	}
	return n, lastSeen, t.usable()
}

// PutEffect implements remediation.LimitTable.
func (t *tx) PutEffect(e remediation.Effect) error {
	return put(t, &t.effects, func(o *remediation.Effect) bool { return o.Incident == e.Incident && o.Step == e.Step }, e)
}

func byTime(a, b remediation.Effect) int { return a.Time.Compare(b.Time) }

// Effects implements remediation.LimitTable.
func (t *tx) Effects(service string, since time.Time) ([]remediation.Effect, error) {
	return list(t, t.effects, func(e *remediation.Effect) bool {
		return (service == "" || e.Service == service) && !e.Time.Before(since)
	}, byTime)
}

// EffectsBack implements remediation.LimitTable.
func (t *tx) EffectsBack(service string, fn func(remediation.Effect) bool) error {
	all := t.effects
	if !slices.IsSortedFunc(all, byTime) {
		all = slices.Clone(all)
		slices.SortStableFunc(all, byTime)
	}
	for _, e := range slices.Backward(all) {
		if e.Service == service && !fn(e) {
			break
		}
	}
	return t.usable()
}

// PublicIncident implements remediation.PublicTable.
func (t *tx) PublicIncident(incident string) (remediation.PublicIncident, error) {
	return get(t, t.public, func(p *remediation.PublicIncident) bool { return p.Incident == incident })
}

// PutPublicIncident implements remediation.PublicTable.
func (t *tx) PutPublicIncident(p remediation.PublicIncident) error {
	return put(t, &t.public, func(o *remediation.PublicIncident) bool { return o.Incident == p.Incident }, p)
}

// PublicIncidents implements remediation.PublicTable.
func (t *tx) PublicIncidents(since time.Time) ([]remediation.PublicIncident, error) {
	return list(t, t.public, func(p *remediation.PublicIncident) bool { return p.Resolved == nil || !p.Resolved.Before(since) }, nil)
}

// PutMessage implements remediation.OutboxTable.
func (t *tx) PutMessage(m *remediation.Message) error {
	if err := t.writable(); err != nil {
		return err
	}
	if m.ID > 0 {
		if _, err := t.Message(m.ID); err != nil {
			return err
		}
	} else {
		t.messages++
		m.ID = t.messages
	}
	return put(t, &t.outbox, func(o *remediation.Message) bool { return o.ID == m.ID }, *m)
}

// Message implements remediation.OutboxTable.
func (t *tx) Message(id int64) (remediation.Message, error) {
	return get(t, t.outbox, func(m *remediation.Message) bool { return m.ID == id })
}

// FirstMessages implements remediation.OutboxTable.
func (t *tx) FirstMessages(channel string) ([]remediation.Message, error) {
	seen := map[string]bool{}
	return list(t, t.outbox, func(m *remediation.Message) bool {
		first := m.Channel == channel && !seen[m.Key]
		seen[m.Key] = seen[m.Key] || first
		return first
	}, func(a, b remediation.Message) int { return cmp.Compare(a.ID, b.ID) })
}

// DeleteMessage implements remediation.OutboxTable.
func (t *tx) DeleteMessage(id int64) error {
	return remove(t, &t.outbox, func(m *remediation.Message) bool { return m.ID == id })
}

// PendingMessages implements remediation.OutboxTable.
func (t *tx) PendingMessages() (map[string]int, error) {
	out := map[string]int{}
	for _, m := range t.outbox {
		out[m.Channel]++
	}
	return out, t.usable()
}

// Receipt implements remediation.OutboxTable.
func (t *tx) Receipt(channel, key string) (string, error) {
	r, err := get(t, t.receipts, func(r *receipt) bool { return r.Channel == channel && r.Key == key })
	return r.Value, err
}

// PutReceipt implements remediation.OutboxTable.
func (t *tx) PutReceipt(channel, key, value string) error {
	return put(t, &t.receipts, func(r *receipt) bool { return r.Channel == channel && r.Key == key }, receipt{channel, key, value})
}
