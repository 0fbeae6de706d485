package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/view"
)

// Replica is what this process is among those that share its store. Each takes
// notifications, approvals and forms; one at a time acts in a realm.
type Replica struct {
	// ID is of this run alone, Name what people call it.
	ID, Name string
	Version  string
	// Hosts are the machines whose targets this replica can act on (target.compose.host).
	Hosts []string
	// Lease is how long another replica waits after a holder's last sign of life.
	Lease time.Duration
	// Boot is a clock that goes on while the machine is suspended; nil: the system's.
	Boot func() time.Duration
}

const (
	// pollShared is how often a replica looks for what another has written.
	pollShared = time.Second
	// deliverAgain is how often a caller of deliverFrom looks whether the one before has
	// ended.
	deliverAgain = 100 * time.Millisecond
	// answerless is for how long Prometheus may leave a holder without an answer, at
	// least, before a replica that it answers takes over.
	answerless = 30 * time.Second
)

func (e *Engine) newKeeper(store remediation.Store) *lease.Keeper {
	boot := e.replica.Boot
	if boot == nil {
		boot = lease.BootTime
	}
	return &lease.Keeper{
		Boot: boot, Store: store, Length: e.replica.Lease, ID: e.replica.ID, Name: e.replica.Name, Log: e.Log,
		Self: e.self, Realms: e.realms, Unfit: e.unfit, Act: e.actIn, Changed: e.leaseChanged,
	}
}

// self is this replica's row.
func (e *Engine) self() remediation.Replica {
	answered, why := e.prometheusHealth.last()
	r := remediation.Replica{Version: e.replica.Version, Mode: e.Mode, Playbooks: map[string]string{}, Realms: e.realms(), Channels: []string{}, Answered: answered, Why: why}
	for _, b := range e.Plans() {
		r.Playbooks[b.Service] = b.Hash
	}
	for _, ch := range e.Outbox.Channels {
		r.Channels = append(r.Channels, ch.Name())
	}
	return r
}

// realms are those in which this replica can act: the default one, those of its hosts,
// and its channels.
func (e *Engine) realms() []string {
	out := []string{remediation.RealmDefault}
	for _, host := range e.replica.Hosts {
		out = append(out, remediation.RealmOfHost(host))
	}
	for _, ch := range e.Outbox.Channels {
		out = append(out, remediation.RealmOfChannel(ch.Name()))
	}
	return out
}

// unfit leaves the realms to other replicas that Prometheus answers, where it does not
// answer this one: without it no step is confirmed.
func (e *Engine) unfit(me remediation.Replica, others []remediation.Replica) (why string, fit []remediation.Replica) {
	patience := answerless
	for _, b := range e.Plans() {
		patience = max(patience, 2*time.Duration(b.ScrapeInterval))
	}
	answered := func(r remediation.Replica) bool { return me.Seen.Sub(r.Answered) <= patience }
	if answered(me) || me.Seen.Sub(me.Started) <= patience {
		return "", nil
	}
	for _, o := range others {
		if answered(o) {
			fit = append(fit, o)
		}
	}
	if len(fit) == 0 {
		return "", nil
	}
	return "Prometheus does not answer it, and answers " + fit[0].Name, fit
}

// leaseChanged writes who acts in a realm from now on. Channels act on no target.
func (e *Engine) leaseChanged(tx remediation.Tx, l, was remediation.Lease, why string) error {
	if slices.ContainsFunc(e.Outbox.Channels, func(ch remediation.Channel) bool { return remediation.RealmOfChannel(ch.Name()) == l.Realm }) {
		return nil
	}
	detail := map[string]any{"realm": l.Realm, "epoch": l.Epoch, "replica": e.replica.Name, "state": "taken"}
	if l.Holder == "" {
		detail["state"], detail["why"] = "given up", why
	}
	all, err := tx.Replicas()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(all, func(r remediation.Replica) bool { return r.ID == was.Holder && r.ID != e.replica.ID }); i >= 0 {
		detail["from"] = all[i].Name
	}
	return e.Append(tx, audit.Entry{Kind: audit.KindLease, Actor: remediation.ActorEngine, Detail: detail})
}

// actIn acts in a realm that this replica holds.
func (e *Engine) actIn(ctx context.Context, realm string) {
	for i, ch := range e.Outbox.Channels {
		if remediation.RealmOfChannel(ch.Name()) == realm {
			e.deliverFrom(ctx, ch, e.Outbox.Poke[i])
			return
		}
	}
	e.act(ctx, realm, e.dutiesIn(realm))
}

// deliverFrom delivers by one channel until ctx ends, one caller at a time: two would send
// a message twice.
func (e *Engine) deliverFrom(ctx context.Context, ch remediation.Channel, poke <-chan struct{}) {
	key := "deliver from/" + ch.Name()
	for e.busy(key) { // by what ends now
		if ctx.Err() != nil {
			return
		}
		ledger.Pause(ctx, deliverAgain)
	}
	defer e.free(key)
	for ctx.Err() == nil {
		err := e.Safely("deliver by "+ch.Name(), func() error { return e.Notifier.DeliverTo(ctx, ch, poke) })
		if err != nil && ctx.Err() == nil {
			e.Log.Error("housekeeping failed; retrying", "duty", "deliver by "+ch.Name(), "err", err)
		}
	}
}

// hereNow reports whether what concerns an incident is done in the realm of ctx: its own
// playbook decides once its service's is gone.
func (e *Engine) hereNow(ctx context.Context, id string) (bool, error) {
	if lease.From(ctx) == nil {
		return true, nil
	}
	var inc *remediation.Incident
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		inc, err = tx.Incident(id)
		return err
	})
	if err != nil {
		return false, err
	}
	return e.hereFor(ctx, inc)
}

// hereFor is hereNow for what was begun under a playbook: another may be loaded since.
func (e *Engine) hereFor(ctx context.Context, inc *remediation.Incident) (bool, error) {
	if lease.From(ctx) == nil {
		return true, nil
	}
	b, err := e.PlanFor(ctx, inc)
	if errors.As(err, new(*ledger.UnreadableError)) {
		return e.Here(ctx, nil), nil // the default realm's holder says so
	}
	if err != nil { // it passes: meanwhile another may be acting
		return false, err
	}
	return e.Here(ctx, b), nil
}

// liveIn reads the live replicas the first time that it is called.
func (e *Engine) liveIn(tx remediation.Tx) func() ([]remediation.Replica, error) {
	return sync.OnceValues(func() ([]remediation.Replica, error) { return remediation.LiveReplicas(tx, e.Now()) })
}

// answeredByAny is lost for all replicas: Prometheus is lost once it answers none.
func (e *Engine) answeredByAny(replicas func() ([]remediation.Replica, error), patience time.Duration) (since time.Time, back bool, why, err error) {
	since, back, why = e.prometheusHealth.lost(patience)
	if e.replica == nil || since.IsZero() {
		return since, back, why, nil
	}
	now := e.Now()
	live, err := replicas()
	if err != nil {
		return time.Time{}, false, nil, fmt.Errorf("read the replicas: %w", err)
	}
	for _, r := range live {
		if r.ID == e.replica.ID || r.Answered.IsZero() {
			continue
		}
		if now.Sub(r.Answered) <= patience {
			return time.Time{}, true, nil, nil
		}
		if r.Answered.After(since) {
			since = r.Answered
		}
	}
	return since, back, why, nil
}

// dropForgotten drops messages of channels that no replica has had for an hour.
func (e *Engine) dropForgotten(ctx context.Context) error {
	if e.replica == nil {
		return nil
	}
	unknown := false
	var others []string
	read := func(tx remediation.Tx) error {
		all, err := tx.Replicas()
		if err != nil {
			return err
		}
		others, unknown = nil, false
		for _, r := range all {
			others = append(others, r.Channels...)
		}
		pending, err := tx.PendingMessages()
		for channel := range pending {
			mine := slices.ContainsFunc(e.Outbox.Channels, func(ch remediation.Channel) bool { return ch.Name() == channel })
			unknown = unknown || !mine && !slices.Contains(others, channel)
		}
		return err
	}
	if err := e.Store.View(ctx, read); err != nil || !unknown {
		return err
	}
	return e.Store.Update(ctx, func(tx remediation.Tx) error {
		if err := read(tx); err != nil {
			return err
		}
		return e.Notifier.DropUnknown(tx, others)
	})
}

// replicasNow are the replicas that were seen in the last hour, and the realms in which
// none of them acts.
func (e *Engine) replicasNow(tx remediation.Tx) (all []view.ReplicaNow, unheld []view.UnheldNow, err error) {
	all, unheld = []view.ReplicaNow{}, []view.UnheldNow{}
	if e.replica == nil {
		return all, unheld, nil
	}
	now := e.Now()
	rows, err := tx.Replicas()
	if err != nil {
		return nil, nil, err
	}
	leases, err := tx.Leases()
	if err != nil {
		return nil, nil, err
	}
	holder := map[string]string{}
	for _, l := range leases {
		if l.Until.After(now) {
			holder[l.Realm] = l.Holder
		}
	}
	me := e.self()
	for _, r := range rows {
		if !r.Live(now) && slices.ContainsFunc(rows, func(o remediation.Replica) bool { return o.Name == r.Name && o.Started.After(r.Started) }) {
			continue // it was started again
		}
		n := view.ReplicaNow{
			Name: r.Name, Version: r.Version, Mode: r.Mode, Started: r.Started, Seen: r.Seen, Live: r.Live(now), Stopped: !r.Until.After(r.Seen), Realms: []string{},
			Monitoring: now.Sub(r.Answered) <= time.Minute,
		}
		for _, l := range leases {
			if holder[l.Realm] == r.ID {
				n.Realms = append(n.Realms, l.Realm)
			}
		}
		switch {
		case r.Mode != me.Mode:
			n.Differs = fmt.Sprintf("it runs with --mode=%s", r.Mode)
		case r.Lease > 0 && r.Lease != e.replica.Lease:
			n.Differs = fmt.Sprintf("its replica.lease is %s, and %s here: set the same on all replicas", remediation.Span(r.Lease), remediation.Span(e.replica.Lease))
		case !maps.Equal(r.Playbooks, me.Playbooks):
			n.Differs = "its playbooks differ: no step runs for a service whose playbook is not the same on all replicas"
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b view.ReplicaNow) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), a.Started.Compare(b.Started))
	})
	services := map[string][]string{}
	for _, b := range e.Plans() {
		if realm := remediation.RealmOfHost(b.Target.Compose.Host); holder[realm] == "" {
			services[realm] = append(services[realm], b.Service)
		}
	}
	for _, realm := range slices.Sorted(maps.Keys(services)) {
		slices.Sort(services[realm])
		unheld = append(unheld, view.UnheldNow{Realm: realm, Services: services[realm]})
	}
	return all, unheld, nil
}
