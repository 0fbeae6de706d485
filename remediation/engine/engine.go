package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// Options are all that an Engine needs.
type Options struct {
	Store        remediation.Store
	Playbooks    []*alerts.Playbook
	Kinds        []remediation.ActionKind
	Prometheus   remediation.Prometheus
	Alertmanager remediation.Alertmanager
	// History draws plots; without it they show what the audit log holds.
	History remediation.History
	Mode    remediation.Mode
	// NoLossy, where not "", is why lossy steps are held: no tokens, say.
	NoLossy string
	// StatusPages are told what the built-in page shows.
	StatusPages []remediation.Channel
	// Surroundings are what a preflight asks; nil: it cannot tell what lies around.
	Surroundings remediation.Surroundings
	// Runtime says what a service runs; nil: Running cannot tell.
	Runtime remediation.Runtime
	// DrillPatience is how long a preflight's drill alert may take to come back;
	// 0: as long as is wise.
	DrillPatience time.Duration
	// Team are told, beside the audit log, what those who run a service must know:
	// each takes a TeamMessage.
	Team []remediation.Channel
	// Mail writes to those whom the playbook names once an incident lasts too
	// long: each takes a PublicMessage.
	Mail []remediation.Channel
	Now  func() time.Time
	// Steady is how long this process has run by a clock that nobody sets. Without
	// it the monotonic readings of Now's times tell.
	Steady func() time.Duration
	Logger *slog.Logger
}

// Engine takes notifications in and carries playbooks out. All that it must
// not forget is in the store; a new Engine on the same store goes on where the
// last one was cut off.
type Engine struct {
	store        remediation.Store
	kinds        []remediation.ActionKind
	prometheus   remediation.Prometheus
	alertmanager remediation.Alertmanager
	history      remediation.History
	runtime      runtimes
	mode         remediation.Mode
	noLossy      string
	now          func() time.Time
	log          *slog.Logger
	metrics      *metrics
	outbox       *outbox
	proving      *proving
	// statusPages, team and mail are the outbox's channels, by what they take.
	statusPages, team, mail []remediation.Channel

	mu     sync.Mutex
	books  map[string]*plan.Plan // by service: what new incidents open with
	byHash map[string]*plan.Plan
	// inFlight is what somebody works on, by key; failing the jobs whose last turns failed.
	inFlight map[string]bool
	failing  map[string]*failing
	// auditOK is what the last verification of the audit log found.
	auditOK atomic.Int32
	// loggedHead is the audit log's head that the process's log has last.
	loggedHead reportedHead

	// ownIntents are the promotions whose intents this process has written, and not
	// yet begun, by their operation.
	ownIntents sync.Map
	// folders are the targets' project folders without symbolic links, by their names.
	folders sync.Map
	// sight is prometheus, which remembers when it last answered.
	sight *sight
	// clock notices that the wall clock was set.
	clock  clock
	steady func() time.Duration
	// watches holds the ends of the watches of targets, by key; watchTargets alone
	// uses it.
	watches map[string]context.CancelFunc

	// poke wakes Run when something may be due at once.
	poke chan struct{}
	wg   sync.WaitGroup
}

// New returns an engine and records its start in the audit log.
func New(ctx context.Context, o Options) (*Engine, error) {
	if o.Mode != remediation.Observe && o.Mode != remediation.Act {
		return nil, fmt.Errorf("mode %q: write observe or act", o.Mode)
	}
	out, err := newOutbox(slices.Concat(o.StatusPages, o.Team, o.Mail))
	if err != nil {
		return nil, err
	}
	e := &Engine{
		outbox: out, statusPages: o.StatusPages, team: o.Team, mail: o.Mail,
		kinds: o.Kinds, alertmanager: o.Alertmanager, history: o.History, runtime: runtimes{ask: o.Runtime},
		mode: o.Mode, noLossy: o.NoLossy, now: o.Now, log: o.Logger, metrics: newMetrics(out.channels),
		byHash: map[string]*plan.Plan{}, inFlight: map[string]bool{}, failing: map[string]*failing{}, watches: map[string]context.CancelFunc{}, poke: make(chan struct{}, 1),
	}
	e.store = notifyingStore{o.Store, e.notifyTeam}
	e.steady = o.Steady
	e.sight = newSight(o.Prometheus, o.Now, e.safely)
	e.prometheus = e.sight
	e.proving = newProving(o.Surroundings, o.DrillPatience)
	if err := e.meetClock(ctx); err != nil {
		return nil, err
	}
	if err := e.load(ctx, o.Playbooks, audit.Entry{Actor: actorEngine, Detail: map[string]any{}}); err != nil {
		return nil, err
	}
	return e, nil
}

// Reload replaces the playbooks that later incidents open with. Open
// incidents keep theirs. On error nothing has changed.
func (e *Engine) Reload(ctx context.Context, pbs []*alerts.Playbook, r remediation.Reloaded) error {
	en := audit.Entry{Actor: r.Actor, Detail: map[string]any{"reload": true}}
	if r.Actor == "" {
		en.Actor, en.Detail["signal"] = actorEngine, "SIGHUP"
	}
	en.Detail["changed"] = anys(slices.Concat(r.Changed, e.changedBy(pbs)))
	return e.load(ctx, pbs, en)
}

// changedBy says which playbooks would change.
func (e *Engine) changedBy(pbs []*alerts.Playbook) (changed []string) {
	was := map[string]string{}
	for _, b := range e.allBooks() {
		was[b.Service] = b.Hash
	}
	for _, pb := range pbs {
		switch hash := was[pb.Service]; hash {
		case pb.Hash:
		case "":
			changed = append(changed, fmt.Sprintf("playbook of %s added: %s", pb.Service, pb.Hash))
		default:
			changed = append(changed, fmt.Sprintf("playbook of %s is %s, was %s", pb.Service, pb.Hash, hash))
		}
		delete(was, pb.Service)
	}
	for _, service := range slices.Sorted(maps.Keys(was)) {
		changed = append(changed, fmt.Sprintf("playbook of %s removed: %s", service, was[service]))
	}
	return changed
}

// load takes playbooks over and writes the entry of that.
func (e *Engine) load(ctx context.Context, pbs []*alerts.Playbook, en audit.Entry) error {
	books := map[string]*plan.Plan{}
	loaded := []any{}
	for _, pb := range pbs {
		b, err := plan.Compile(pb, e.kinds)
		if err != nil {
			return err
		}
		if books[pb.Service] != nil {
			return fmt.Errorf("two playbooks for service %s", pb.Service)
		}
		books[pb.Service] = b
		for _, p := range b.Plans {
			for _, s := range p.Steps {
				if kind := b.Kinds[s.Action]; kind != nil {
					e.meetTarget(kind.Target(pb, s.Params))
				}
			}
		}
		loaded = append(loaded, map[string]any{"service": pb.Service, "hash": pb.Hash, "release": pb.Release.Version})
	}
	err := e.store.Update(ctx, func(tx remediation.Tx) error {
		beats, err := tx.Beats()
		if err != nil {
			return err
		}
		has := map[string]bool{}
		for _, beat := range beats {
			has[beat.Service] = true
		}
		for _, pb := range pbs {
			if err := tx.PutPlaybook(pb.Hash, pb.Source); err != nil {
				return err
			}
			if has[pb.Service] {
				continue
			}
			// The watchdog's age counts from the first start.
			if err := tx.PutBeat(remediation.Beat{Service: pb.Service, Last: e.now()}); err != nil {
				return err
			}
		}
		if err := e.dropUnknown(tx); err != nil {
			return err
		}
		en.Kind, en.Detail["mode"], en.Detail["playbooks"] = audit.KindStarted, string(e.mode), loaded
		return e.append(tx, en)
	})
	if err != nil {
		return fmt.Errorf("record the playbooks: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.books = books
	for _, b := range books {
		e.byHash[b.Hash] = b
	}
	return nil
}

// The actors of entries that no human made.
const (
	actorEngine       = "engine"
	actorAlertmanager = "alertmanager"
)

func (e *Engine) append(tx remediation.Tx, en audit.Entry) error {
	en.Time = e.now().UTC()
	if en.Detail == nil {
		en.Detail = map[string]any{}
	}
	written, err := tx.Append(en)
	if err == nil {
		tx.OnCommit(func() { e.logEntry(written) })
	}
	return err
}

func (e *Engine) bookOf(service string) *plan.Plan {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.books[service]
}

func (e *Engine) allBooks() []*plan.Plan {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*plan.Plan, 0, len(e.books))
	for _, b := range e.books {
		out = append(out, b)
	}
	return out
}

// wakeUp tells Run that something may be due.
func (e *Engine) wakeUp() {
	e.outbox.wakeUp()
	select {
	case e.poke <- struct{}{}:
	default:
	}
}

// pause waits, or returns early where ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// advance takes an incident as far as it goes now.
func (e *Engine) advance(ctx context.Context, id string) error {
	for turned := false; ctx.Err() == nil; turned = true {
		var inc *remediation.Incident
		err := e.store.View(ctx, func(tx remediation.Tx) (err error) {
			inc, err = tx.Incident(id)
			return err
		})
		if err != nil {
			return err
		}
		if inc.Wake.IsZero() || inc.Wake.After(e.now()) {
			if turned {
				return e.unstick(ctx, inc)
			}
			return nil
		}
		b, err := e.bookFor(ctx, inc)
		if cause := (*unreadableError)(nil); errors.As(err, &cause) {
			return e.unreadable(ctx, inc, cause)
		}
		if err != nil {
			return err
		}
		// ErrStale: somebody changed it meanwhile; what was seen no longer counts.
		if err := e.turn(ctx, b, inc); err != nil && !errors.Is(err, remediation.ErrStale) {
			return fmt.Errorf("incident %s (%s): %w", id, inc.State, err)
		}
	}
	return nil
}

// turn looks at what the incident's state asks for and commits one change.
func (e *Engine) turn(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	if inc.Restore != nil {
		return e.restore(ctx, b, inc)
	}
	if s := inc.Running(); s != nil {
		return e.resume(ctx, b, inc, s)
	}
	if inc.Drill && inc.State != remediation.Closed {
		return e.drill(ctx, b, inc)
	}
	if inc.Aborting() && inc.State != remediation.Closed {
		return e.abort(ctx, b, inc)
	}
	if inc.OnlySignals() && inc.State != remediation.Closed {
		return e.watchSignals(ctx, b, inc)
	}
	switch inc.State {
	case remediation.Confirming:
		return e.confirm(ctx, b, inc)
	case remediation.Waiting:
		return e.wait(ctx, b, inc)
	case remediation.Settling:
		return e.settle(ctx, b, inc)
	case remediation.Recovered:
		return e.watchRecovered(ctx, b, inc)
	case remediation.Exhausted:
		return e.watchExhausted(ctx, b, inc)
	case remediation.Closed:
		return e.watchClosed(ctx, b, inc)
	}
	return fmt.Errorf("state %q has no way on", inc.State)
}

// change is one transaction on one incident: the incident, its audit entries
// and all that belongs to them are written together or not at all.
type change struct {
	e   *Engine
	b   *plan.Plan
	tx  remediation.Tx
	inc *remediation.Incident
	now time.Time
}

// on is a transaction on an incident that tx has read.
func (e *Engine) on(tx remediation.Tx, b *plan.Plan, inc *remediation.Incident, now time.Time) *change {
	return &change{e: e, b: b, tx: tx, inc: inc, now: now}
}

// change runs fn on the incident as it was seen; where it is no longer as it
// was seen, it fails with ErrStale and nothing is written.
func (e *Engine) change(ctx context.Context, b *plan.Plan, seen *remediation.Incident, fn func(c *change) error) error {
	return e.store.Update(ctx, func(tx remediation.Tx) error {
		inc, err := tx.Incident(seen.ID)
		if err != nil {
			return err
		}
		if inc.Version != seen.Version {
			return remediation.ErrStale
		}
		c := e.on(tx, b, inc, e.now())
		if err := fn(c); err != nil {
			return err
		}
		return tx.PutIncident(inc)
	})
}

// record is change for what has happened already: it is written whatever else
// changed meanwhile, and even while the process is being stopped.
func (e *Engine) record(ctx context.Context, b *plan.Plan, id string, fn func(c *change) error) error {
	ctx = context.WithoutCancel(ctx)
	return e.store.Update(ctx, func(tx remediation.Tx) error {
		inc, err := tx.Incident(id)
		if err != nil {
			return err
		}
		c := e.on(tx, b, inc, e.now())
		if err := fn(c); err != nil {
			return err
		}
		return tx.PutIncident(inc)
	})
}

// audit adds an entry about the incident; s is the step it is about, or nil.
func (c *change) audit(kind audit.Kind, actor string, s *remediation.Step, detail map[string]any) error {
	en := audit.Entry{Kind: kind, Actor: actor, Service: c.inc.Service, Incident: c.inc.ID, Detail: detail}
	if s != nil {
		en.Step, en.Action = s.ID(), s.Action
	}
	return c.e.append(c.tx, en)
}

// enter moves the incident to a state that is not waiting, and looks again after d.
func (c *change) enter(s remediation.State, d time.Duration) {
	if c.inc.State != s {
		c.inc.Since = c.now
	}
	c.inc.State, c.inc.Reason, c.inc.Why, c.inc.Until = s, "", "", nil
	c.inc.Wake = c.now.Add(d)
}

// page raises a reason for which a human must come, once until it is cleared:
// the metric backout_needs_human carries it, and a generated alert pages on that.
func (c *change) page(reason, why string) error {
	for _, p := range c.inc.Paged {
		if p == reason {
			return nil
		}
	}
	c.inc.Paged = append(c.inc.Paged, reason)
	return c.audit(audit.KindNotified, actorEngine, nil, map[string]any{
		"metric": "backout_needs_human", "reason": reason, "why": why,
	})
}
