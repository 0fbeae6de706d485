// Package statuspage publishes updates on a page of Atlassian Statuspage, as a channel of
// package remediation.
//
// The page's API has no idempotency key, so each delivery starts by reading: the incident's
// metadata has our key and the number of the last update. An update that is already there
// is not sent again; an incident is opened only if none of ours is unresolved. If someone
// resolved or deleted it by hand, only an update that says that the problem continues opens
// it again; an update that says that it is over then only sets the components.
//
// The API takes one request a second per key: requests are paced, and an answer that asks
// to wait pauses the whole channel. Subscribers are notified only if the playbook says so.
package statuspage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// Name is the channel's name in the outbox and the audit log.
const Name = "statuspage"

// Options are all that a Page needs.
type Options struct {
	// URL is the API's address without its version: https://api.statuspage.io.
	URL string
	// Page is the page's id, Key an API key; it is never told.
	Page, Key string
	Transport http.RoundTripper
	Now       func() time.Time
	// Wait returns after a time, or with an error once ctx ends.
	Wait   func(ctx context.Context, d time.Duration) error
	Logger *slog.Logger
}

// Page is one status page; it implements remediation.Channel.
type Page struct {
	api  *jsonhttp.Client
	now  func() time.Time
	wait func(ctx context.Context, d time.Duration) error
	log  *slog.Logger

	mu sync.Mutex
	// next is when the next request may be sent.
	next time.Time
	// components are those of the page as read at readAt, by name.
	components map[string][]component
	readAt     time.Time
}

var _ remediation.Channel = (*Page)(nil)

// New returns a page. It does not connect.
func New(o Options) (*Page, error) {
	if o.Page == "" {
		return nil, errors.New("statuspage: the page's id is required")
	}
	api, err := jsonhttp.New(jsonhttp.Options{
		Name: Name, URL: strings.TrimSuffix(o.URL, "/") + "/v1/pages/" + url.PathEscape(o.Page), Example: "https://api.statuspage.io",
		Secret: o.Key, SecretName: "API key", Scheme: "OAuth ",
		Fresh:     true, // a GET that is sent again by itself would not wait for its turn
		Transport: o.Transport, Now: o.Now, Wait: o.Wait,
	})
	if err != nil {
		return nil, err
	}
	return &Page{api: api, now: o.Now, wait: o.Wait, log: o.Logger}, nil
}

// Name implements remediation.Channel.
func (p *Page) Name() string { return Name }

// incident is what is sent of one, and read back.
type incident struct {
	Name   string                    `json:"name,omitempty"` // when it is opened only
	Status remediation.PublicStatus  `json:"status"`
	Body   string                    `json:"body"`
	IDs    []string                  `json:"component_ids,omitempty"`
	States map[string]componentState `json:"components,omitempty"`
	Impact remediation.Impact        `json:"impact_override"`
	// Notify is the API's true by default, and so is always sent.
	Notify   bool            `json:"deliver_notifications"`
	Metadata map[string]mark `json:"metadata"`
}

type componentState = remediation.ComponentStatus

// mark is what we know an incident of ours by: it is in its metadata under
// ours, which takes objects only.
type mark struct {
	Incident string `json:"incident"`
	Update   string `json:"update"`
}

const ours = "backout"

// longestName is the API's, in characters.
const longestName = 255

// Deliver implements remediation.Channel.
func (p *Page) Deliver(ctx context.Context, m remediation.Message) (receipt string, err error) {
	var msg remediation.PublicMessage
	if err := json.Unmarshal(m.Body, &msg); err != nil {
		return "", remediation.Undeliverable(fmt.Errorf("statuspage: decode message: %w", err))
	}
	knew := p.knows()
	err = p.deliver(ctx, msg)
	var s *jsonhttp.Error
	if knew && errors.As(err, &s) && s.Code == http.StatusUnprocessableEntity {
		p.forget() // a component may be gone since
		err = p.deliver(ctx, msg)
	}
	return "", err
}

func (p *Page) deliver(ctx context.Context, msg remediation.PublicMessage) error {
	found, others, err := p.unresolved(ctx, msg.Key)
	if err != nil {
		return err
	}
	if len(others) > 0 {
		p.forget() // what others did to the components counts as it is now
	}
	if found != nil && found.update >= msg.Update.Number {
		return nil // it came before, and only its answer was lost
	}
	known, err := p.known(ctx, msg.Components)
	if err != nil {
		return err
	}
	in := incident{
		Status: msg.Update.Status, Body: msg.Update.Words, Impact: msg.Impact, Notify: msg.NotifySubscribers,
		Metadata: map[string]mark{ours: {Incident: msg.Key, Update: strconv.Itoa(msg.Update.Number)}},
		States:   map[string]componentState{},
	}
	for _, c := range msg.Components {
		if k, ok := known[c.Name]; ok {
			in.IDs = append(in.IDs, k.ID)
			if !others.keep(k, c.Status) {
				in.States[k.ID] = c.Status
			}
		}
	}
	if found != nil {
		err := p.call(ctx, http.MethodPatch, "/incidents/"+url.PathEscape(found.id), map[string]incident{"incident": in}, nil)
		var s *jsonhttp.Error
		if !errors.As(err, &s) || s.Code != http.StatusNotFound {
			return err
		}
		p.log.Warn("the incident was deleted from the status page", "incident", msg.Key)
	}
	switch msg.Update.Status {
	case remediation.PublicMonitoring:
		return nil // nothing there could be better
	case remediation.PublicResolved:
		return p.restore(ctx, msg.Components, others)
	}
	in.Name = msg.Name
	if r := []rune(in.Name); len(r) > longestName {
		in.Name = string(r[:longestName])
	}
	return p.call(ctx, http.MethodPost, "/incidents", map[string]incident{"incident": in}, nil)
}

// restore gives components back what we took from them, where the incident that
// would do so is gone. What someone has changed since is left alone.
func (p *Page) restore(ctx context.Context, told []remediation.PublicComponent, others onComponents) error {
	p.forget()
	known, err := p.known(ctx, told)
	if err != nil {
		return err
	}
	for _, c := range told {
		k, ok := known[c.Name]
		if !ok || k.Status != c.Trouble || k.Status == c.Status || others.keep(k, c.Status) {
			continue
		}
		err := p.call(ctx, http.MethodPatch, "/components/"+url.PathEscape(k.ID),
			map[string]map[string]componentState{"component": {"status": c.Status}}, nil)
		if err != nil {
			return err
		}
	}
	return nil
}

// ourIncident is an incident of ours, as the page has it.
type ourIncident struct {
	id     string
	update int
}

// onComponents are the ids of components that incidents other than ours are open on.
type onComponents map[string]bool

// severity orders what a component can be, the better first.
var severity = []componentState{
	remediation.Operational, underMaintenance, remediation.DegradedPerformance, remediation.PartialOutage, remediation.MajorOutage,
}

const underMaintenance componentState = "under_maintenance"

// keep reports whether a component stays as it is, since another's incident is open
// on it and we would show it better. What we do not know is not bettered either.
func (o onComponents) keep(k component, to componentState) bool {
	if !o[k.ID] && k.Status != underMaintenance {
		return false
	}
	at := slices.Index(severity, k.Status)
	return at < 0 || slices.Index(severity, to) < at
}

// unresolved looks for an incident of ours among those that go on, nil where there
// is none, and for the components of the others.
func (p *Page) unresolved(ctx context.Context, key string) (*ourIncident, onComponents, error) {
	var found *ourIncident
	others := onComponents{}
	err := p.pages(ctx, "/incidents/unresolved", func(raw json.RawMessage) error {
		in, err := readIncident(raw, key)
		if in != nil {
			found = in
			return err
		}
		var other struct {
			Components []component `json:"components"`
		}
		if json.Unmarshal(raw, &other) == nil {
			for _, c := range other.Components {
				others[c.ID] = true
			}
		}
		return err
	})
	return found, others, err
}

// readIncident returns an incident that has our key; nil for someone else's,
// whatever is in it.
func readIncident(raw json.RawMessage, key string) (*ourIncident, error) {
	var in struct {
		ID       string                     `json:"id"`
		Metadata map[string]json.RawMessage `json:"metadata"`
	}
	var m mark
	read := json.Unmarshal(raw, &in) == nil && json.Unmarshal(in.Metadata[ours], &m) == nil
	if !read || m.Incident != key || in.ID == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(m.Update)
	if err != nil {
		return nil, fmt.Errorf("statuspage: incident %s has the update %q in its metadata", in.ID, m.Update)
	}
	return &ourIncident{in.ID, n}, nil
}

// component is one of the page's.
type component struct {
	ID     string         `json:"id"`
	Name   string         `json:"name"`
	Status componentState `json:"status"`
	// Group: it only holds others.
	Group bool `json:"group"`
}

// componentsFresh is how old what is known of the components may be while a name
// is looked for that is not among them.
const componentsFresh = 10 * time.Minute

// known returns the page's components of those names. One that the page does not
// have, or has twice, is left out and logged: the incident is told all the same.
func (p *Page) known(ctx context.Context, told []remediation.PublicComponent) (map[string]component, error) {
	p.mu.Lock()
	all, age := p.components, p.now().Sub(p.readAt)
	p.mu.Unlock()
	missing := all == nil
	for _, c := range told {
		missing = missing || len(all[c.Name]) != 1 && age > componentsFresh
	}
	if missing && len(told) > 0 {
		all = map[string][]component{}
		err := p.pages(ctx, "/components", func(raw json.RawMessage) error {
			var c component
			if err := json.Unmarshal(raw, &c); err != nil || c.ID == "" {
				return fmt.Errorf("statuspage: cannot decode a component: %w", err)
			}
			if !c.Group {
				all[c.Name] = append(all[c.Name], c)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		p.components, p.readAt = all, p.now()
		p.mu.Unlock()
	}
	out := map[string]component{}
	for _, c := range told {
		if list := all[c.Name]; len(list) == 1 {
			out[c.Name] = list[0]
		} else {
			p.log.Warn("component not updated: the status page needs exactly one of that name", "component", c.Name, "found", len(list))
		}
	}
	return out, nil
}

// forget lets the components be read again.
func (p *Page) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.components = nil
}

// knows reports whether the components were read before.
func (p *Page) knows() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.components != nil
}
