package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
)

// PublicIncident implements remediation.PublicTable.
func (t *tx) PublicIncident(incident string) (remediation.PublicIncident, error) {
	return body[remediation.PublicIncident](t, "what the public was told of "+incident, "SELECT body FROM public_incidents WHERE incident = ?", incident)
}

// PutPublicIncident implements remediation.PublicTable.
func (t *tx) PutPublicIncident(p remediation.PublicIncident) error {
	var at time.Time
	if p.Resolved != nil {
		at = *p.Resolved
	}
	resolved, err := nanos(at)
	if err != nil {
		return fmt.Errorf("put what the public is told of incident %.80q: %w", p.Incident, err)
	}
	return t.put("what the public is told of "+p.Incident, p, `INSERT INTO public_incidents (incident, resolved, body) VALUES (?, ?, ?)
		ON CONFLICT (incident) DO UPDATE SET resolved = excluded.resolved, body = excluded.body`, p.Incident, resolved)
}

// PublicIncidents implements remediation.PublicTable.
func (t *tx) PublicIncidents(since time.Time) ([]remediation.PublicIncident, error) {
	q, order := query{from: "SELECT body FROM public_incidents"}, "n"
	if at, err := nanos(since); err != nil {
		return nil, fmt.Errorf("public incidents since: %w", err)
	} else if at.Valid {
		// Few match, which the index finds; the plus keeps SQLite from walking all.
		q.where("(resolved IS NULL OR resolved >= ?)", at)
		order = "+n"
	}
	return bodies[remediation.PublicIncident](t, "public incidents", q.text(order, false, 0), q.args...)
}

// PutMessage implements remediation.OutboxTable.
func (t *tx) PutMessage(m *remediation.Message) error {
	if err := t.putMessage(m); err != nil {
		return fmt.Errorf("put message %d to %q: %w", m.ID, m.Channel, err)
	}
	return nil
}

func (t *tx) putMessage(m *remediation.Message) error {
	body, err := marshal(m)
	if err != nil {
		return err
	}
	if m.ID > 0 {
		if _, err := t.Message(m.ID); err != nil {
			return err
		}
		return t.exec("UPDATE outbox SET channel = ?, key = ?, body = ? WHERE n = ?", m.Channel, m.Key, body, m.ID)
	}
	if !t.write {
		return ErrReadOnly
	}
	n := t.head.message + 1
	if err := t.exec("INSERT INTO outbox (n, channel, key, body) VALUES (?, ?, ?, ?)", n, m.Channel, m.Key, body); err != nil {
		return err
	}
	m.ID, t.head.message = n, n
	return nil
}

// Message implements remediation.OutboxTable.
func (t *tx) Message(id int64) (remediation.Message, error) {
	var body []byte
	if err := t.row("SELECT body FROM outbox WHERE n = ?", []any{id}, &body); err != nil {
		return remediation.Message{}, fmt.Errorf("message %d: %w", id, err)
	}
	return messageOf(id, body)
}

func messageOf(id int64, body []byte) (remediation.Message, error) {
	var m remediation.Message
	if err := json.Unmarshal(body, &m); err != nil {
		return remediation.Message{}, fmt.Errorf("message %d as stored: %w", id, err)
	}
	m.ID = id
	return m, nil
}

// FirstMessages implements remediation.OutboxTable.
func (t *tx) FirstMessages(channel string) ([]remediation.Message, error) {
	out := []remediation.Message{}
	err := t.rows("SELECT n, body FROM outbox WHERE n IN (SELECT min(n) FROM outbox WHERE channel = ? GROUP BY key) ORDER BY n",
		[]any{channel}, func(r row) error {
			var n int64
			var body []byte
			if err := r.scan(&n, &body); err != nil {
				return err
			}
			m, err := messageOf(n, body)
			out = append(out, m)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("list messages to %q: %w", channel, err)
	}
	return out, nil
}

// DeleteMessage implements remediation.OutboxTable; deleting what is not there
// is not an error.
func (t *tx) DeleteMessage(id int64) error {
	if err := t.exec("DELETE FROM outbox WHERE n = ?", id); err != nil {
		return fmt.Errorf("delete message %d: %w", id, err)
	}
	return nil
}

// PendingMessages implements remediation.OutboxTable.
func (t *tx) PendingMessages() (map[string]int, error) {
	out := map[string]int{}
	err := t.rows("SELECT channel, count(*) FROM outbox GROUP BY channel", nil, func(r row) error {
		var channel string
		var n int
		err := r.scan(&channel, &n)
		out[channel] = n
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count messages: %w", err)
	}
	return out, nil
}

// Receipt implements remediation.OutboxTable.
func (t *tx) Receipt(channel, key string) (value string, err error) {
	if err := t.row("SELECT value FROM receipts WHERE channel = ? AND key = ?", []any{channel, key}, &value); err != nil {
		return "", fmt.Errorf("receipt of %.80q from %.80q: %w", key, channel, err)
	}
	return value, nil
}

// PutReceipt implements remediation.OutboxTable.
func (t *tx) PutReceipt(channel, key, value string) error {
	err := t.exec(`INSERT INTO receipts (channel, key, value) VALUES (?, ?, ?)
		ON CONFLICT (channel, key) DO UPDATE SET value = excluded.value`, channel, key, value)
	if err != nil {
		return fmt.Errorf("put receipt of %.80q from %.80q: %w", key, channel, err)
	}
	return nil
}
