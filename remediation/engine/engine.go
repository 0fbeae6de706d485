package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/incident"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/notify"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/preflight"
	"github.com/locotoki/backout/remediation/rollout"
	"github.com/locotoki/backout/remediation/view"
)

// Options are the Engine's dependencies and settings.
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
	// Limits are how many services of a realm may be rolled back without a person.
	Limits []remediation.RealmLimit
	// StatusPages are told what the built-in page shows.
	StatusPages []remediation.Channel
	// Sources are what a preflight asks; nil: it cannot tell what lies around.
	Sources remediation.Sources
	// Runtime says what a service runs; nil: Running cannot tell.
	Runtime remediation.Runtime
	// DrillPatience is how long a preflight's drill alert may take to come back;
	// 0: as long as is wise.
	DrillPatience time.Duration
	// Team are told, besides the audit log, what those who run a service must know:
	// each takes a TeamMessage.
	Team []remediation.Channel
	// Mail writes to those whom the playbook names once an incident lasts too
	// long: each takes a PublicMessage.
	Mail []remediation.Channel
	// Webhooks get audit entries as they are written.
	Webhooks []notify.Webhook
	// Replica, where set, makes this one of several processes that share Store. nil: no
	// other process writes it.
	Replica *Replica
	Now     func() time.Time
	// Steady is how long this process has run by a clock that nobody sets. Without
	// it the monotonic readings of Now's times tell.
	Steady func() time.Duration
	Logger *slog.Logger
}

// Engine accepts notifications and carries out playbooks. Everything that must not be
// lost is in the store; a new Engine on the same store continues where the last one
// stopped.
type Engine struct {
	*ledger.Ledger
	*gate.Gates
	*notify.Notifier
	*incident.Responder
	*preflight.Checker
	*rollout.Promoter

	history remediation.History
	runtime remediation.Runtime
	// replica is nil, and so is keeper, where no other process writes the store.
	replica *Replica
	keeper  *lease.Keeper
	running answers[remediation.Running]
	plots   answers[view.Plot]

	// mu guards what follows.
	mu sync.Mutex
	// inFlight is what someone works on, by key; failing the jobs whose last turns failed.
	inFlight map[string]bool
	failing  map[string]*failing
	// notReady is what the prechecks that run have found, one for each realm.
	notReady []*notReady

	// dropped are the messages that were given up.
	dropped drops
	// audited is the last verification of the audit log, nil before the first.
	audited atomic.Pointer[view.Audited]
	// loaded is when the present playbooks were loaded, notReloaded the last reload if it
	// failed.
	loaded      atomic.Pointer[time.Time]
	notReloaded atomic.Pointer[view.NotReloaded]
	// prometheusHealth is prometheus, which remembers when it last answered.
	prometheusHealth *prometheusHealth
	// started is when this process began to listen.
	started time.Time
	// clock notices that the wall clock was set.
	clock  clock
	steady func() time.Duration

	// pokes wake those who act when something may be due now, by realm.
	pokes map[string]chan struct{}
	wg    sync.WaitGroup
}

// New returns an engine and records its start in the audit log.
func New(ctx context.Context, o Options) (*Engine, error) {
	if o.Mode != remediation.Observe && o.Mode != remediation.Act {
		return nil, hint.Add(fmt.Errorf("unknown mode %q", o.Mode), "observe or act")
	}
	channels := slices.Concat(o.StatusPages, o.Team, o.Mail)
	for _, w := range o.Webhooks {
		channels = append(channels, w)
	}
	l := &ledger.Ledger{
		Store: lease.Fence(o.Store), Kinds: o.Kinds, Alertmanager: o.Alertmanager, Mode: o.Mode, NoLossy: o.NoLossy, Limits: o.Limits, Now: o.Now, Log: o.Logger,
		Metrics: ledger.NewMetrics(channels),
	}
	gates := &gate.Gates{Ledger: l}
	notifier, err := notify.New(gates, notify.Channels{StatusPages: o.StatusPages, Team: o.Team, Mail: o.Mail, Webhooks: o.Webhooks})
	if err != nil {
		return nil, err
	}
	e := &Engine{
		Ledger: l, Gates: gates, Notifier: notifier, history: o.History, runtime: o.Runtime, steady: o.Steady, started: o.Now(),
		Checker:          preflight.New(gates, o.Sources, o.DrillPatience, channels, o.StatusPages),
		prometheusHealth: newPrometheusHealth(o.Prometheus, o.Now, l.Safely), inFlight: map[string]bool{}, failing: map[string]*failing{}, pokes: map[string]chan struct{}{}, replica: o.Replica,
	}
	e.Responder = incident.New(gates, notifier, e.Plot)
	process := rand.Text()
	if o.Replica != nil {
		process = o.Replica.ID
	}
	e.Promoter = rollout.New(gates, e.Checker, e.runs, process, o.Replica != nil)
	l.Prometheus, l.WakeUp = e.prometheusHealth, e.wakeUp
	if o.Replica != nil {
		e.keeper = e.newKeeper(l.Store)
	} else if err := e.meetClock(ctx); err != nil {
		return nil, err
	}
	if err := e.load(ctx, o.Playbooks, audit.Entry{Actor: remediation.ActorEngine, Detail: map[string]any{}}); err != nil {
		return nil, err
	}
	return e, nil
}

// wakeUp tells Run, and the channels, that something may be due.
func (e *Engine) wakeUp() {
	e.Outbox.WakeUp()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, poke := range e.pokes {
		select {
		case poke <- struct{}{}:
		default:
		}
	}
}

// Reload replaces the playbooks for later incidents. Open incidents keep theirs. On an
// error nothing has changed.
func (e *Engine) Reload(ctx context.Context, pbs []*alerts.Playbook, r remediation.Reloaded) error {
	en := audit.Entry{Actor: r.Actor, Detail: map[string]any{"reload": true}}
	if r.Actor == "" {
		en.Actor, en.Detail["signal"] = remediation.ActorEngine, "SIGHUP"
	}
	en.Detail["changed"] = remediation.Anys(slices.Concat(r.Changed, e.changedBy(pbs)))
	return e.load(ctx, pbs, en)
}

// keepPlaybook notes in a service's active rollout that it goes by an edited playbook, so
// that it still does once that of the next release is loaded.
func (e *Engine) keepPlaybook(tx remediation.Tx, loaded *plan.Plan) error {
	r, err := remediation.RolloutOf(tx, loaded.Service)
	if err != nil || !r.Active() {
		return err
	}
	b, err := e.RolloutPlan(tx, loaded, r)
	switch {
	case errors.As(err, new(*ledger.UnreadableError)):
		e.Log.Warn("cannot read the playbook of an active rollout", "service", r.Service, "release", r.Release, "err", err)
		return nil
	case err != nil, b.Hash == r.Playbook:
		return err
	}
	r.Playbook = b.Hash
	return tx.PutRollout(r)
}

// changedBy says which playbooks would change.
func (e *Engine) changedBy(pbs []*alerts.Playbook) (changed []string) {
	was := map[string]string{}
	for _, b := range e.Plans() {
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
		b, err := plan.Compile(pb, e.Kinds)
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
					e.MeetTarget(kind.Target(pb, s.Params))
				}
			}
		}
		loaded = append(loaded, map[string]any{"service": pb.Service, "hash": pb.Hash, "release": pb.Release.Version})
	}
	err := e.Store.Update(ctx, func(tx remediation.Tx) error {
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
			if err := e.keepPlaybook(tx, books[pb.Service]); err != nil {
				return err
			}
			if has[pb.Service] {
				continue
			}
			// The watchdog's age counts from the first start.
			if err := tx.PutBeat(remediation.Beat{Service: pb.Service, Last: e.Now()}); err != nil {
				return err
			}
		}
		if e.replica == nil {
			if err := e.Notifier.DropUnknown(tx, nil); err != nil {
				return err
			}
		} else {
			en.Detail["replica"] = e.replica.Name
		}
		en.Kind, en.Detail["mode"], en.Detail["playbooks"] = audit.KindStarted, string(e.Mode), loaded
		return e.Append(tx, en)
	})
	if err != nil {
		return fmt.Errorf("record the playbooks: %w", err)
	}
	e.Load(books)
	now := e.Now().UTC()
	e.loaded.Store(&now)
	return nil
}

// NoteReload notes how a reload of the configuration and the playbooks ended, for the status.
func (e *Engine) NoteReload(err error) {
	if err == nil {
		e.notReloaded.Store(nil)
		return
	}
	e.notReloaded.Store(&view.NotReloaded{Error: err.Error(), Time: e.Now().UTC(), Runs: e.loaded.Load()})
}
