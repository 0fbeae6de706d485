package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/store/storetest"
	"github.com/locotoki/backout/remediation/view"
)

// leaseLength is that of the replicas in these tests.
const leaseLength = 9 * time.Second

// pausing is a store as a replica sees it that may be stopped: nothing of it goes on then.
type pausing struct {
	remediation.Store
	mu      sync.Mutex
	stopped chan struct{} // nil: it goes
}

func (p *pausing) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = make(chan struct{})
}

func (p *pausing) goOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.stopped)
	p.stopped = nil
}

// swap puts another store behind it.
func (p *pausing) swap(s remediation.Store) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Store = s
}

func (p *pausing) now() remediation.Store {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Store
}

func (p *pausing) wait() {
	p.mu.Lock()
	stopped := p.stopped
	p.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
}

func (p *pausing) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	p.wait()
	return p.now().Update(ctx, fn)
}

func (p *pausing) View(ctx context.Context, fn func(remediation.Tx) error) error {
	p.wait()
	return p.now().View(ctx, fn)
}

// replica is one of the engines of a pair.
type replica struct {
	*engine.Engine
	store *pausing
	prom  *fakePrometheus
	end   func()
	// suspended is how long its machine was, in nanoseconds.
	suspended atomic.Int64
}

// pair is two replicas on one store, in a bubble of time. The first one acts.
type pair struct {
	*harness
	a, b *replica
}

// incident asks the second replica, which stays.
func (p *pair) incident(id string) view.IncidentView {
	p.t.Helper()
	v, err := p.b.Incident(p.ctx, id)
	p.must(err)
	return v
}

// replicas runs fn with a pair; set prepares the harness before each replica starts.
func replicas(t *testing.T, set func(w *harness, name string), fn func(p *pair), edit ...func(string) string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newHarness(t, edit...)
		w.clock = time.Now
		p := &pair{harness: w}
		p.a = p.begin("a", set)
		time.Sleep(time.Second)
		p.b = p.begin("b", set)
		w.engine = p.b.Engine
		time.Sleep(time.Second)
		settles()
		fn(p)
		p.a.end()
		p.b.end()
	})
}

// begin starts a replica, and lets it run.
func (p *pair) begin(name string, set func(w *harness, name string)) *replica {
	p.t.Helper()
	prom := *p.prom
	r := &replica{store: &pausing{Store: p.store}, prom: &prom}
	began := time.Now()
	p.replica = &engine.Replica{ID: name + "/" + time.Now().String(), Name: name, Lease: leaseLength, Boot: func() time.Duration {
		return time.Since(began) + time.Duration(r.suspended.Load())
	}}
	if set != nil {
		set(p.harness, name)
	}
	shared := p.prom
	p.prom = r.prom
	r.Engine = p.newEngine(r.store)
	p.prom = shared
	r.prom.value, r.prom.recovery = shared.value, shared.recovery
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Error(err)
		}
	})
	return r
}

// acts returns the name of the replica that acts in a realm, "" for none.
func (p *pair) acts(realm string) (name string) {
	p.t.Helper()
	o, err := p.b.Overview(p.ctx)
	p.must(err)
	for _, r := range o.Replicas {
		if slices.Contains(r.Realms, realm) {
			name = r.Name
		}
	}
	return name
}

// alert posts a firing alert to one replica.
func (r *replica) alert(p *pair, fingerprint string) string {
	p.t.Helper()
	acc, err := r.Accept(p.ctx, remediation.Notification{Receiver: "backout", GroupKey: "{}", Alerts: []remediation.Alert{{
		Status: "firing", Fingerprint: fingerprint,
		Labels: map[string]string{"alertname": "Rollback", "service": "shop", "trigger": "error_rate", "severity": "critical", "rollout": "v2"},
	}}})
	p.must(err)
	if len(acc.Incidents) == 0 {
		return ""
	}
	return acc.Incidents[0]
}

// count counts an incident's entries of a kind.
func (p *pair) count(incident string, kind audit.Kind) (n int) {
	p.t.Helper()
	all, err := p.b.Entries(p.ctx, audit.Filter{Kind: kind, Limit: 1000})
	p.must(err)
	for _, en := range all {
		if en.Incident == incident {
			n++
		}
	}
	return n
}

func slackTeam(c *chat) func(*harness, string) {
	return func(w *harness, _ string) { w.team = []remediation.Channel{c} }
}

const teamKeys = "communications: {slack_channel: \"#incidents\"}\n"

func TestAnAlertToBothReplicasIsOneIncidentOneEffectAndOneThread(t *testing.T) {
	c := &chat{}
	replicas(t, slackTeam(c), func(p *pair) {
		p.declare("alpha")
		p.breach("error_rate")
		var both sync.WaitGroup
		ids := make([]string, 2)
		for i, r := range []*replica{p.a, p.b} {
			both.Go(func() { ids[i] = r.alert(p, "fp1") })
		}
		both.Wait()
		time.Sleep(2 * time.Second)
		settles()
		if ids[0] != "inc-1" || ids[1] != "inc-1" {
			t.Errorf("the incidents are %q", ids)
		}
		if n := p.target("flag_off").effects; n != 1 {
			t.Errorf("%d effects", n)
		}
		if n := p.count("inc-1", audit.KindIntent); n != 1 {
			t.Errorf("%d intents; log %v", n, p.log("inc-1"))
		}
		told := c.told()
		seen := map[string]bool{}
		for _, title := range told {
			if strings.HasPrefix(title, "Outcome") && seen[title] {
				t.Errorf("the team was told %q", told)
			}
			seen[title] = true
		}
		if len(told) == 0 {
			t.Error("the team was told nothing")
		}
	}, func(s string) string { return s + teamKeys })
}

func TestAReplicaThatStopsInsideAStepIsReplacedAndItsOutcomeComesLate(t *testing.T) {
	for name, after := range map[string]bool{"before the effect": false, "after the effect": true} {
		t.Run(name, func(t *testing.T) {
			replicas(t, nil, func(p *pair) {
				p.declare("alpha")
				p.breach("error_rate")
				begun, goOn := make(chan struct{}), make(chan struct{})
				tg := p.target("flag_off")
				var once sync.Once
				tg.duringApply = func() {
					stops := false
					once.Do(func() { stops = true })
					if !stops {
						return
					}
					if after {
						tg.effects++
						tg.position = remediation.Wanted
					}
					p.a.store.stop()
					close(begun)
					<-goOn
				}
				var looks []time.Time
				id := p.a.alert(p, "fp1")
				<-begun
				stopped := time.Now()
				tg.onLook = func(string) { looks = append(looks, time.Now()) }
				for p.acts("") != "b" {
					time.Sleep(100 * time.Millisecond)
				}
				if took := time.Since(stopped); took > leaseLength+2*time.Second {
					t.Errorf("taken over after %s", took)
				}
				settles()
				if len(looks) == 0 {
					t.Fatal("the new holder did not look at the target")
				}
				if !after && tg.effects != 0 {
					t.Error("it did not wait for what the old holder may have sent")
				}
				time.Sleep(leaseLength + 5*time.Second)
				settles()
				if tg.effects != 1 {
					t.Errorf("%d effects; log %v", tg.effects, p.log(id))
				}
				before := p.log(id)
				close(goOn)
				p.a.store.goOn()
				time.Sleep(time.Second)
				settles()
				if n := p.count(id, audit.KindLateOutcome); n != 1 {
					t.Errorf("%d late outcomes; log %v", n, p.log(id))
				}
				if tg.effects != 1 || tg.undone != 0 {
					t.Errorf("%d effects, %d undone", tg.effects, tg.undone)
				}
				if rows := p.incident(id).Steps; rows[0].State != remediation.StepDone {
					t.Errorf("the step is %s; log before %v, now %v", rows[0].State, before, p.log(id))
				}
				if p.acts("") != "b" {
					t.Errorf("%q acts", p.acts(""))
				}
			})
		})
	}
}

// stopsInside lets the first replica stop inside flag_off, whose alert it got: the effect
// comes once goOn is called. again runs before each effect.
func (p *pair) stopsInside(again func()) (id string, goOn func()) {
	p.t.Helper()
	p.declare("alpha")
	p.breach("error_rate")
	begun, wait := make(chan struct{}), make(chan struct{})
	var stopped atomic.Bool
	p.target("flag_off").duringApply = func() {
		if stopped.CompareAndSwap(false, true) {
			p.a.store.stop()
			close(begun)
			<-wait
		}
		again()
	}
	id = p.a.alert(p, "fp1")
	<-begun
	return id, sync.OnceFunc(func() {
		close(wait)
		p.a.store.goOn()
	})
}

func TestAChangeThatComesAfterItsStepWasUndoneElsewhereCallsAPerson(t *testing.T) {
	replicas(t, nil, func(p *pair) {
		tg := p.target("flag_off")
		calls := 0
		id, goOn := p.stopsInside(func() {
			calls++
			tg.applyErr = errDisk // on the replica that took over, which calls first
			if calls > 1 {
				tg.applyErr = nil
			}
		})
		for p.incident(id).Steps[0].State != remediation.StepUndone {
			time.Sleep(time.Second)
		}
		settles()
		goOn()
		time.Sleep(time.Second)
		settles()
		called := 0
		for _, en := range p.entries(id) {
			if en.Kind == audit.KindNotified && strings.Contains(fmt.Sprint(en.Detail["why"]), "after its realm was taken over, and 1-flag_off is undone") {
				called++
			}
		}
		if n := p.count(id, audit.KindLateOutcome); n != 1 || called != 1 {
			t.Errorf("%d late outcomes, a person called %d times for it; log %v", n, called, p.log(id))
		}
	})
}

func TestTheCallForALateChangeOfAClosedIncidentEnds(t *testing.T) {
	replicas(t, nil, func(p *pair) {
		id, goOn := p.stopsInside(func() {})
		p.calm("error_rate")
		for p.incident(id).State != remediation.Closed {
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Hour)
		settles()
		paged := func() (n []string) {
			p.must(p.store.View(p.ctx, func(tx remediation.Tx) error {
				inc, err := tx.Incident(id)
				n = inc.Paged
				return err
			}))
			return n
		}
		goOn()
		time.Sleep(time.Minute)
		settles()
		if n := paged(); !slices.Equal(n, []string{"target"}) {
			t.Errorf("the late change pages for %v; log %v", n, p.log(id))
		}
		time.Sleep(2 * time.Hour)
		settles()
		if n := paged(); len(n) != 0 {
			t.Errorf("hours later nothing has taken the page for %v back", n)
		}
	})
}

func TestThatAnEarlierRequestIsAwaitedIsSaidOnce(t *testing.T) {
	replicas(t, nil, func(p *pair) {
		id, goOn := p.stopsInside(func() {})
		defer goOn()
		for p.count(id, audit.KindInDoubt) == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		for range 3 { // whatever wakes it
			p.must(p.store.Update(p.ctx, func(tx remediation.Tx) error {
				inc, err := tx.Incident(id)
				if err != nil {
					return err
				}
				inc.Wake = time.Now()
				return tx.PutIncident(inc)
			}))
			time.Sleep(2 * time.Second)
			settles()
		}
		if n := p.count(id, audit.KindInDoubt); n != 1 {
			t.Errorf("it is said %d times; log %v", n, p.log(id))
		}
		time.Sleep(leaseLength)
		settles()
		if tg := p.target("flag_off"); tg.effects != 1 {
			t.Errorf("%d effects; log %v", tg.effects, p.log(id))
		}
	})
}

func TestAReplicaThatIsStoppedInOrderHandsOverAtOnce(t *testing.T) {
	replicas(t, nil, func(p *pair) {
		if p.acts("") != "a" {
			t.Fatalf("%q acts", p.acts(""))
		}
		p.a.end()
		time.Sleep(leaseLength / 2)
		settles()
		if p.acts("") != "b" {
			t.Errorf("%q acts", p.acts(""))
		}
	})
}

func TestWhatAnOldHolderStillWritesIsRefused(t *testing.T) {
	replicas(t, nil, func(p *pair) {
		p.a.store.stop()
		for p.acts("") != "b" {
			time.Sleep(time.Second)
		}
		p.declare2(p.b)
		p.breach("error_rate")
		p.a.store.goOn()
		id := p.a.alert(p, "fp1") // a notification is taken by each
		time.Sleep(2 * time.Second)
		settles()
		if id == "" || p.target("flag_off").effects != 1 {
			t.Errorf("incident %q, %d effects", id, p.target("flag_off").effects)
		}
		var last int64
		all, err := p.b.Entries(p.ctx, audit.Filter{Kind: audit.KindLease, Limit: 100})
		p.must(err)
		for _, en := range all {
			epoch, err := strconv.ParseInt(fmt.Sprint(en.Detail["epoch"]), 10, 64)
			p.must(err)
			if en.Detail["realm"] == "" && epoch > 0 && epoch < last {
				t.Errorf("epoch %d after %d", epoch, last)
			}
			last = max(last, epoch)
		}
	})
}

func (p *pair) declare2(r *replica) {
	p.t.Helper()
	_, err := r.DeclareRollout(p.ctx, "", "", "alpha", "eve", "canary")
	p.must(err)
}

func TestAnApprovalOnTheOtherReplicaRunsTheStep(t *testing.T) {
	replicas(t, nil, func(p *pair) {
		p.declare("alpha")
		p.breach("error_rate")
		id := p.b.alert(p, "fp1")
		for p.incident(id).Reason != remediation.HoldApproval {
			time.Sleep(10 * time.Second)
			if time.Now().Year() > 2001 {
				t.Fatalf("no step waits for an approval; log %v", p.log(id))
			}
		}
		if _, err := p.b.ChangeIncident(p.ctx, id, view.Approve, "3-schema_rollback", "eve", "because"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		settles()
		if n := p.target("schema_rollback").effects; n != 1 {
			t.Errorf("%d effects; log %v", n, p.log(id))
		}
	})
}

func TestMonitoringIsLostOnceNoReplicaIsAnswered(t *testing.T) {
	beats := func(p *pair, d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Minute) {
			_, err := p.b.Accept(p.ctx, remediation.Notification{Receiver: "backout", GroupKey: "{}", Alerts: []remediation.Alert{{
				Status: "firing", Fingerprint: "watchdog", Labels: map[string]string{"alertname": "Watchdog", "service": "shop"},
			}}})
			p.must(err)
		}
	}
	lost := func(p *pair) bool {
		o, err := p.b.Overview(p.ctx)
		p.must(err)
		return o.Services[0].PrometheusAway != nil
	}
	replicas(t, nil, func(p *pair) {
		p.a.prom.err = remediation.ErrNoAnswer
		beats(p, 10*time.Minute)
		if lost(p) {
			t.Error("one replica without Prometheus is taken for blindness")
		}
		if p.acts("") != "b" {
			t.Errorf("%q acts, and Prometheus does not answer it", p.acts(""))
		}
		p.b.prom.err = remediation.ErrNoAnswer
		beats(p, 10*time.Minute)
		if !lost(p) {
			t.Error("both without Prometheus, and nobody says so")
		}
		p.a.prom.err = nil
		beats(p, 2*time.Minute)
		if lost(p) || p.acts("") != "a" {
			t.Errorf("Prometheus answers a again: lost %v, and %q acts", lost(p), p.acts(""))
		}
	})
}

func TestAReplicaThatIsUnfitLeavesOnlyWhatAnotherCanDoOnceItsStepHasEnded(t *testing.T) {
	for name, within := range map[string]time.Duration{"a short step": 90 * time.Second, "a step that takes as long as a snapshot": 30 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			replicas(t, func(w *harness, name string) {
				w.replica.Hosts = nil
				if name == "a" {
					w.replica.Hosts = []string{"web-1"}
				}
			}, func(p *pair) {
				p.declare("alpha")
				p.breach("error_rate")
				begun, goOn := make(chan struct{}), make(chan struct{})
				release := sync.OnceFunc(func() { close(goOn) })
				defer release()
				var first atomic.Bool
				p.target("flag_off").duringApply = func() {
					if first.CompareAndSwap(false, true) {
						close(begun)
						<-goOn
					}
				}
				id := p.a.alert(p, "fp1")
				<-begun
				p.a.prom.err = remediation.ErrNoAnswer
				time.Sleep(within)
				settles()
				if p.acts("") != "a" || p.acts("host:web-1") != "a" {
					t.Errorf("within a step %q acts, on the host %q", p.acts(""), p.acts("host:web-1"))
				}
				release()
				time.Sleep(leaseLength)
				settles()
				if p.acts("") != "b" || p.acts("host:web-1") != "a" {
					t.Errorf("then %q acts, on the host %q", p.acts(""), p.acts("host:web-1"))
				}
				time.Sleep(30 * time.Second)
				settles()
				if n := p.target("flag_off").effects; n != 1 {
					t.Errorf("%d effects; log %v", n, p.log(id))
				}
				if n := p.count(id, audit.KindLateOutcome); n != 0 {
					t.Errorf("%d late outcomes; log %v", n, p.log(id))
				}
				p.b.prom.err = remediation.ErrNoAnswer // nobody is better now
				p.a.prom.err = nil
				time.Sleep(2 * time.Minute)
				settles()
				if p.acts("") != "a" {
					t.Errorf("Prometheus answers a again, and %q acts", p.acts(""))
				}
			})
		})
	}
}

// slow is a chat whose first delivery takes until it is released.
type slow struct {
	*chat
	begun, goOn chan struct{}
	now, most   atomic.Int32
}

func (s *slow) Deliver(ctx context.Context, m remediation.Message) (string, error) {
	now := s.now.Add(1)
	defer s.now.Add(-1)
	s.most.Store(max(s.most.Load(), now))
	select {
	case <-s.begun:
	default:
		close(s.begun)
		<-s.goOn
	}
	return s.chat.Deliver(ctx, m)
}

func TestAChannelThatIsNotLeftAfterAllDeliversOneMessageAtATime(t *testing.T) {
	s := &slow{chat: &chat{}}
	replicas(t, func(w *harness, name string) {
		if w.team = []remediation.Channel{s}; name == "a" { // in the bubble of time
			s.begun, s.goOn = make(chan struct{}), make(chan struct{})
		}
	}, func(p *pair) {
		release := sync.OnceFunc(func() { close(s.goOn) })
		defer release()
		p.declare("alpha")
		p.breach("error_rate")
		p.a.alert(p, "fp1")
		<-s.begun
		p.a.prom.err = remediation.ErrNoAnswer
		time.Sleep(90 * time.Second)
		p.a.prom.err = nil
		time.Sleep(30 * time.Second)
		release()
		time.Sleep(time.Minute)
		settles()
		if n := s.most.Load(); n != 1 {
			t.Errorf("%d deliveries at a time", n)
		}
		if len(s.told()) < 2 {
			t.Errorf("after that the team was told %q", s.told())
		}
	}, func(s string) string { return s + teamKeys })
}

func TestAnIncidentOfAnotherRealmIsNotAdvanced(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.breach("error_rate")
	w.post("firing", "error_rate", "fp1")
	for _, realm := range []string{remediation.RealmOfHost("other"), remediation.RealmDefault} {
		l := remediation.Lease{Realm: realm, Holder: "a", Epoch: 1, Until: time.Now().Add(time.Hour)}
		w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error { return tx.PutLease(l) }))
		under, end := lease.With(w.ctx, lease.NewHold(l, "a", 0))
		defer end()
		w.must(w.engine.Advance(under, "inc-1"))
		want := 0
		if realm == remediation.RealmDefault {
			want = 1
		}
		if n := w.target("flag_off").effects; n != want {
			t.Errorf("realm %q: %d effects; log %v", realm, n, w.log("inc-1"))
		}
	}
}

func TestReplicasWithDifferentPlaybooksDoNotAct(t *testing.T) {
	replicas(t, nil, func(p *pair) {
		p.declare("alpha")
		p.breach("error_rate")
		var ak []alerts.ActionKind
		for _, k := range p.kinds() {
			ak = append(ak, k)
		}
		other, err := alerts.Parse("shop.yaml", []byte(strings.Replace(playbook, "per_target: 3/1h", "per_target: 4/1h", 1)), ak)
		p.must(err)
		p.must(p.b.Reload(p.ctx, []*alerts.Playbook{other}, remediation.Reloaded{Actor: "eve"}))
		time.Sleep(leaseLength)
		id := p.b.alert(p, "fp1")
		time.Sleep(10 * time.Second)
		settles()
		p.is(id, remediation.Waiting, remediation.HoldReplicas)
		if n := p.target("flag_off").effects; n != 0 {
			t.Errorf("%d effects", n)
		}
		o, err := p.a.Overview(p.ctx)
		p.must(err)
		if s := view.NewStatus(o); !slices.ContainsFunc(s.Lines, func(l view.StatusLine) bool {
			return l.Subject == "replica b" && l.Person && strings.Contains(l.Text, "playbooks differ")
		}) {
			t.Errorf("the status does not say so: %+v", s.Lines)
		}
		p.must(p.a.Reload(p.ctx, []*alerts.Playbook{other}, remediation.Reloaded{Actor: "eve"}))
		time.Sleep(time.Minute)
		settles()
		if n := p.target("flag_off").effects; n != 1 {
			t.Errorf("the playbooks are the same again: %d effects; log %v", n, p.log(id))
		}
	})
}

func TestAReplicaWithAnotherLeaseIsNamed(t *testing.T) {
	replicas(t, func(w *harness, name string) {
		if name == "a" {
			w.replica.Lease = time.Minute
		}
	}, func(p *pair) {
		o, err := p.b.Overview(p.ctx)
		p.must(err)
		if s := view.NewStatus(o); !slices.ContainsFunc(s.Lines, func(l view.StatusLine) bool {
			return l.Subject == "replica a" && l.Person && strings.Contains(l.Text, "its replica.lease is 1 min, and 9 s here")
		}) {
			t.Errorf("the status does not say so: %+v", s.Lines)
		}
	})
}

// named is a chat of another name.
type named struct {
	chat
	name string
}

func (c *named) Name() string { return c.name }

func TestARollingRestartWithANewChannelDropsNoMessage(t *testing.T) {
	was, added := &chat{}, &named{name: "added"}
	added.down = errDisk
	with := func(channels ...remediation.Channel) func(*harness, string) {
		return func(w *harness, _ string) { w.team = channels }
	}
	dropped := func(p *pair) (n int) {
		all, err := p.b.Entries(p.ctx, audit.Filter{Kind: audit.KindNotified, Limit: 1000})
		p.must(err)
		for _, en := range all {
			if en.Detail["outcome"] == remediation.OutcomeDropped {
				n++
			}
		}
		return n
	}
	replicas(t, func(w *harness, name string) {
		if w.team = []remediation.Channel{was}; name == "a" {
			w.team = append(w.team, added)
		}
	}, func(p *pair) {
		p.declare("alpha")
		p.breach("error_rate")
		p.a.alert(p, "fp1")
		time.Sleep(10 * time.Second)
		p.a.end() // b does not know the new channel, and acts
		time.Sleep(10 * time.Minute)
		settles()
		if n := dropped(p); n > 0 {
			t.Errorf("%d messages were dropped", n)
		}
		added.mu.Lock()
		added.down = nil
		added.mu.Unlock()
		p.a = p.begin("a", with(was, added))
		time.Sleep(time.Minute)
		settles()
		if len(added.told()) == 0 {
			t.Error("the new channel was told nothing")
		}
		added.mu.Lock()
		added.down = errDisk
		added.mu.Unlock()
		_, err := p.a.ChangeIncident(p.ctx, "inc-1", view.Claim, "", "eve", "because")
		p.must(err)
		time.Sleep(time.Minute)
		p.a.end() // for good
		time.Sleep(2 * time.Hour)
		settles()
		if n := dropped(p); n == 0 {
			t.Error("messages of a channel that nobody has any more are kept for good")
		}
	}, func(s string) string { return s + teamKeys })
}

func TestAReplicaThatIsCutOffAtAnyCommitIsReplaced(t *testing.T) {
	storetest.EveryCommit(t, 8, func(t *testing.T, commit int, when storetest.When) (crashed bool) {
		replicas(t, nil, func(p *pair) {
			p.declare("alpha")
			p.breach("error_rate")
			cut := storetest.Crashing(p.store, commit, when)
			p.a.store.swap(cut)
			id := p.b.alert(p, "fp1")
			for end := time.Now().Add(10 * time.Minute); time.Now().Before(end) && p.incident(id).Steps[0].State != remediation.StepDone; {
				time.Sleep(time.Second)
			}
			time.Sleep(2 * leaseLength)
			settles()
			tg := p.target("flag_off")
			if s := p.incident(id).Steps[0]; s.State != remediation.StepDone || tg.effects != 1 || tg.undone != 0 || tg.position != remediation.Wanted {
				t.Errorf("commit %d, %s: the step is %s, after %d effects and %d undone; log %v", commit, when, s.State, tg.effects, tg.undone, p.log(id))
			}
			crashed = cut.View(p.ctx, func(remediation.Tx) error { return nil }) != nil
			if crashed {
				time.Sleep(2 * leaseLength) // it may have been cut off a moment ago
				if p.acts("") != "b" {
					t.Errorf("commit %d, %s: %q acts", commit, when, p.acts(""))
				}
			}
			p.a.store.swap(p.store)
		})
		return crashed
	})
}

func TestAPromotionAskedOfOneReplicaIsRunByTheOther(t *testing.T) {
	replicas(t, nil, func(p *pair) {
		p.declare("alpha")
		_, err := p.b.ChangeRollout(p.ctx, remediation.RolloutChange{Service: "shop", Verb: remediation.RolloutPromote, Actor: "eve", Reason: "r", Force: true})
		p.must(err)
		time.Sleep(5 * time.Second)
		settles()
		rs, err := p.b.Rollouts(p.ctx)
		p.must(err)
		if rs[0].Stage != "beta" || p.flag.value != "0.1" {
			t.Errorf("the rollout is at %s, the flag %q", rs[0].Stage, p.flag.value)
		}
	})
}

func TestAPreflightAskedOfOneReplicaIsRunByTheOther(t *testing.T) {
	replicas(t, nil, func(p *pair) {
		if _, err := p.b.StartPreflight(p.ctx, "shop", "eve", "r"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		settles()
		v, err := p.b.Preflight(p.ctx, "shop")
		p.must(err)
		if v.Running || v.Finished == nil || v.By != "eve" {
			t.Errorf("the preflight is %+v", v)
		}
	})
}

func TestAPromotionIsRefusedWhereAnotherReplicaActsOnItsHost(t *testing.T) {
	replicas(t, func(w *harness, name string) {
		if name == "b" {
			w.replica.Hosts = []string{"web-2"}
		}
	}, func(p *pair) {
		p.declare("alpha")
		promote := remediation.RolloutChange{Service: "shop", Verb: remediation.RolloutPromote, Actor: "eve", Reason: "r", Force: true}
		if _, err := p.a.ChangeRollout(p.ctx, promote); err == nil || !strings.Contains(err.Error(), "another replica acts there") {
			t.Errorf("on another host: %v", err)
		}
		p.b.store.stop()
		time.Sleep(2 * leaseLength)
		if _, err := p.a.ChangeRollout(p.ctx, promote); err == nil || !strings.Contains(err.Error(), "no replica acts there now") {
			t.Errorf("on a host whose replica is gone: %v", err)
		}
		p.b.store.goOn()
		time.Sleep(leaseLength)
		_, err := p.b.ChangeRollout(p.ctx, promote)
		p.must(err)
	}, replace("project_dir: /srv/shop,", "host: web-2, project_dir: /srv/shop,"))
}

func TestAPromotionIsRefusedWhereNoReplicaActsOnItsHost(t *testing.T) {
	replicas(t, nil, func(p *pair) {
		p.declare("alpha")
		for _, r := range []*replica{p.a, p.b} {
			_, err := r.ChangeRollout(p.ctx, remediation.RolloutChange{Service: "shop", Verb: remediation.RolloutPromote, Actor: "eve", Reason: "r", Force: true})
			if err == nil || !strings.Contains(err.Error(), "host web-2, and no replica acts there now") {
				t.Errorf("a host that no replica lists: %v", err)
			}
		}
	}, replace("project_dir: /srv/shop,", "host: web-2, project_dir: /srv/shop,"))
}

func TestAProcessAloneActsOnAnyHost(t *testing.T) {
	w := newHarness(t, replace("project_dir: /srv/shop,", "host: web-2, project_dir: /srv/shop,"))
	w.start()
	w.declare("alpha")
	_, err := w.engine.ChangeRollout(w.ctx, remediation.RolloutChange{Service: "shop", Verb: remediation.RolloutPromote, Actor: "eve", Reason: "r", Force: true})
	w.must(err)
}

func TestARealmOfAHostIsActedInByAReplicaThere(t *testing.T) {
	replicas(t, func(w *harness, name string) {
		if name == "b" {
			w.replica.Hosts = []string{"web-2"}
		}
	}, func(p *pair) {
		if p.acts("") != "a" || p.acts("host:web-2") != "b" {
			t.Fatalf("%q and %q act", p.acts(""), p.acts("host:web-2"))
		}
		p.declare("alpha")
		p.breach("error_rate")
		p.b.store.stop() // a cannot act for it
		p.a.alert(p, "fp1")
		time.Sleep(time.Minute)
		settles()
		if n := p.target("flag_off").effects; n != 0 {
			t.Errorf("%d effects by a replica that is not there", n)
		}
		o, err := p.a.Overview(p.ctx)
		p.must(err)
		if len(o.Unheld) != 1 || o.Unheld[0].Realm != "host:web-2" {
			t.Errorf("realms in which nobody acts: %+v", o.Unheld)
		}
		p.b.store.goOn()
		time.Sleep(time.Minute)
		settles()
		if n := p.target("flag_off").effects; n != 1 {
			t.Errorf("%d effects", n)
		}
	}, replace("project_dir: /srv/shop,", "host: web-2, project_dir: /srv/shop,"))
}

func TestUpdatesOfAHolderAreFencedAndOthersAreNot(t *testing.T) {
	w := newHarness(t)
	fenced := lease.Fence(w.store)
	write := func(tx remediation.Tx) error { return tx.PutKept("x", []byte("y")) }
	if err := fenced.Update(t.Context(), write); err != nil {
		t.Errorf("without a lease: %v", err)
	}
	under, end := lease.With(t.Context(), lease.NewHold(remediation.Lease{Holder: "nobody", Epoch: 1}, "nobody", 0))
	defer end()
	if err := fenced.Update(under, write); !errors.Is(err, lease.ErrLost) {
		t.Errorf("under a lease that nobody has: %v", err)
	}
	if err := fenced.Update(lease.Outside(under), write); err != nil {
		t.Errorf("outside of it: %v", err)
	}
}

func TestWhatIsNotReadyInOneRealmStaysShownWhileAnotherIsLookedAt(t *testing.T) {
	replicas(t, func(w *harness, name string) {
		w.replica.Hosts = nil
		if name == "a" {
			w.replica.Hosts = []string{"web-2"} // and no playbook is in the default realm, which it holds too
		}
		w.target("flag_off").lookErr = errDisk
		w.target("flag_off").onLook = func(string) { time.Sleep(10 * time.Second) }
	}, func(p *pair) {
		time.Sleep(30 * time.Second)
		for range 12 {
			o, err := p.a.Overview(p.ctx)
			p.must(err)
			if n := o.Services[0].NotReady; len(n) != 1 || !strings.Contains(n[0], errDisk.Error()) {
				t.Fatalf("at %s it is shown as %q", time.Now(), n)
			}
			time.Sleep(10 * time.Second)
		}
	}, replace("project_dir: /srv/shop,", "host: web-2, project_dir: /srv/shop,"))
}

// showNotReady waits until every precheck has looked again, and checks how many targets
// that are not ready each replica shows.
func (p *pair) showNotReady(a, b int) {
	p.t.Helper()
	time.Sleep(2 * time.Minute)
	for _, c := range []struct {
		name string
		*replica
		want int
	}{{"a", p.a, a}, {"b", p.b, b}} {
		o, err := c.Overview(p.ctx)
		p.must(err)
		if n := o.Services[0].NotReady; len(n) != c.want {
			p.t.Errorf("replica %s shows %q, want %d", c.name, n, c.want)
		}
	}
}

func TestWhatIsNotReadyIsForgottenWithTheRealmThatAnotherReplicaTakes(t *testing.T) {
	replicas(t, func(w *harness, _ string) { w.target("flag_off").lookErr = errDisk }, func(p *pair) {
		p.showNotReady(1, 0)
		p.a.prom.err = remediation.ErrNoAnswer
		p.showNotReady(0, 1)
	})
}

func TestWhatIsNotReadyIsForgottenWithTheServiceThatMovedToAnotherRealm(t *testing.T) {
	replicas(t, func(w *harness, name string) {
		w.replica.Hosts = map[string][]string{"a": {"web-2"}, "b": {"web-3"}}[name]
		w.target("flag_off").lookErr = errDisk
	}, func(p *pair) {
		p.showNotReady(1, 0)
		p.target("flag_off").lookErr = nil
		p.moves()
		p.showNotReady(0, 0)
	}, replace("project_dir: /srv/shop,", "host: web-2, project_dir: /srv/shop,"))
}

func TestWhatIsNotReadyStaysShownWhenTheRealmItMovedFromIsLeft(t *testing.T) {
	replicas(t, func(w *harness, name string) {
		w.replica.Hosts = map[string][]string{"a": {"web-2", "web-3"}, "b": {"web-2"}}[name]
		w.target("flag_off").lookErr = errDisk
	}, func(p *pair) {
		time.Sleep(90 * time.Second)
		p.moves()
		time.Sleep(90 * time.Second)
		p.a.prom.err = remediation.ErrNoAnswer
		for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
			o, err := p.a.Overview(p.ctx)
			p.must(err)
			if n := o.Services[0].NotReady; len(n) != 1 {
				t.Fatalf("at %s it is shown as %q", time.Now(), n)
			}
		}
		if left, kept := p.acts("host:web-2"), p.acts("host:web-3"); left != "b" || kept != "a" {
			t.Errorf("web-2 is %q's, web-3 %q's", left, kept)
		}
	}, replace("project_dir: /srv/shop,", "host: web-2, project_dir: /srv/shop,"))
}

// moves loads the playbook with its service on web-3 in place of web-2.
func (p *pair) moves() {
	p.t.Helper()
	moved := p.parse(replace("host: web-2", "host: web-3")(string(p.pb.Source)))
	p.must(p.a.Reload(p.ctx, []*alerts.Playbook{moved}, remediation.Reloaded{}))
	p.must(p.b.Reload(p.ctx, []*alerts.Playbook{moved}, remediation.Reloaded{}))
}

func TestATargetIsNotShownAsNotReadyForWhatAStepIsDoingToIt(t *testing.T) {
	replicas(t, nil, func(p *pair) {
		flag, schema := p.target("flag_off"), p.target("schema_rollback")
		shown := func() []string {
			settles()
			o, err := p.a.Overview(p.ctx)
			p.must(err)
			return o.Services[0].NotReady
		}
		p.declare("alpha")
		p.breach("error_rate")
		begun, goOn := make(chan struct{}), make(chan struct{})
		release := sync.OnceFunc(func() { close(goOn) })
		defer release()
		flag.duringApply = sync.OnceFunc(func() { close(begun); <-goOn })
		p.a.alert(p, "fp1")
		<-begun
		flag.lookErr, schema.lookErr = errDisk, errors.New("an operation has its role")
		time.Sleep(3 * time.Minute)
		if got := shown(); len(got) != 1 || !strings.Contains(got[0], "an operation has its role") {
			t.Errorf("while a step changes one target, it and another are shown as %q", got)
		}
		flag.lookErr, schema.lookErr = nil, nil
		release()
		time.Sleep(10 * time.Second) // not a minute, as where nothing ends
		if got := shown(); len(got) > 0 {
			t.Errorf("after the step %q is shown", got)
		}
		flag.lookErr = errDisk
		time.Sleep(2 * time.Minute)
		if got := shown(); len(got) != 1 || !strings.Contains(got[0], errDisk.Error()) {
			t.Errorf("where no step changes it, it is shown as %q", got)
		}
	})
}
