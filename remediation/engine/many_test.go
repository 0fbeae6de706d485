package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/view"
)

// fleetPrometheus says of each service what fakePrometheus says of shop.
type fleetPrometheus struct{ *fakePrometheus }

var fleetService = regexp.MustCompile(`svc\d+`)

func (p fleetPrometheus) Query(ctx context.Context, expr string) (float64, bool, error) {
	return p.fakePrometheus.Query(ctx, fleetService.ReplaceAllString(expr, "shop"))
}

// fleet starts an engine with n services svc0, svc1, ...; host names the machine of one.
func fleet(w *harness, n int, host func(i int) string, limits ...remediation.RealmLimit) {
	w.t.Helper()
	var pbs []*alerts.Playbook
	for i := range n {
		source := strings.ReplaceAll(string(w.pb.Source), "shop", fmt.Sprint("svc", i))
		if h := host(i); h != "" {
			source = strings.Replace(source, "compose: {", "compose: {host: "+h+", ", 1)
		}
		pbs = append(pbs, w.parse(source))
	}
	e, err := engine.New(w.ctx, engine.Options{
		Store: w.store, Playbooks: pbs, Prometheus: fleetPrometheus{w.prom}, Alertmanager: w.am, Limits: limits,
		Kinds: []remediation.ActionKind{
			&serviceKind{fakeKind{w, "flag_off", alerts.Reversible}}, &serviceKind{fakeKind{w, "restart", alerts.Disruptive}},
			&serviceKind{fakeKind{w, "image_retag", alerts.Disruptive}}, &serviceKind{fakeKind{w, "schema_rollback", alerts.Lossy}},
			&tellingKind{fakeKind{w, "status_page", alerts.Reversible}},
		},
		Mode: remediation.Act, Now: func() time.Time { return w.now }, Logger: slog.New(slog.DiscardHandler),
	})
	w.must(err)
	w.engine = e
}

func anyHost(int) string { return "" }

// stored is an incident as the store has it.
func (w *harness) stored(id string) (inc *remediation.Incident) {
	w.t.Helper()
	w.must(w.store.View(w.ctx, func(tx remediation.Tx) (err error) { inc, err = tx.Incident(id); return err }))
	return inc
}

// flagsOff counts the changes of the flags of a fleet.
func (w *harness) flagsOff(n int) (services, effects int) {
	for i := range n {
		if e := w.target(fmt.Sprintf("svc%d:flag_off", i)).effects; e > 0 {
			services++
			effects += e
		}
	}
	return services, effects
}

func TestAStormIsAcceptedAndEachServiceActedOnOnceWithinTheBlastRadius(t *testing.T) {
	const each = 5
	n := crashtest.Rounds(200)
	for name, c := range map[string]struct{ radius, want int }{"wide": {2 * n, n}, "narrow": {7, 7}} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, limits(fmt.Sprintf("per_target: 3/1h, per_service: 6/1h, blast_radius: %d/10m, cooldown: 10m, breaker: 3", c.radius)))
			fleet(w, n, anyHost)
			w.breach("error_rate")
			var posters sync.WaitGroup
			for p := range each {
				posters.Go(func() {
					for i := range n {
						got, err := w.engine.Accept(w.ctx, remediation.Notification{Receiver: "backout", GroupKey: "{}", Alerts: []remediation.Alert{{
							Status: "firing", Fingerprint: fmt.Sprintf("%d-%d", i, p),
							Labels: map[string]string{"alertname": "Rollback", "service": fmt.Sprint("svc", i), "trigger": "error_rate", "rollout": "v2", "instance": fmt.Sprint(p)},
						}}})
						if err != nil || got.Accepted != 1 || len(got.Incidents) != 1 {
							t.Errorf("alert %d of svc%d: %+v, %v", p, i, got, err)
						}
					}
				})
			}
			posters.Wait()
			w.tick()
			if services, effects := w.flagsOff(n); services != c.want || effects != c.want {
				t.Errorf("%d changes of %d services, want one of each of %d", effects, services, c.want)
			}
			o, err := w.engine.Overview(w.ctx)
			w.must(err)
			held := 0
			for _, v := range o.Incidents {
				if v.State == remediation.Waiting && v.Reason == remediation.HoldBlastRadius {
					held++
				}
			}
			if len(o.Incidents) != n || held != n-c.want {
				t.Errorf("%d incidents are open, %d of them held by the blast radius; want %d and %d", len(o.Incidents), held, n, n-c.want)
			}
			if len(o.Services) != n || o.Services[0].Service != "svc0" {
				t.Errorf("the overview has %d services", len(o.Services))
			}
		})
	}
}

func TestAFreezeOfEverythingHoldsEveryServiceUntilItEnds(t *testing.T) {
	const n = 20
	w := newHarness(t, limits("per_target: 3/1h, per_service: 6/1h, blast_radius: 99/10m, cooldown: 10m, breaker: 3"))
	fleet(w, n, anyHost)
	until := w.now.Add(3 * time.Minute)
	_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, By: "eve", Reason: "the network is down", Until: &until})
	w.must(err)
	w.breach("error_rate")
	for i := range n {
		w.post("firing", "error_rate", fmt.Sprint("fp", i), "service", fmt.Sprint("svc", i))
	}
	w.tick()
	w.pass(3*time.Minute - time.Second)
	if services, _ := w.flagsOff(n); services != 0 {
		t.Fatalf("%d services were acted on while all are frozen", services)
	}
	w.pass(time.Second + 2*S)
	if services, effects := w.flagsOff(n); services != n || effects != n {
		t.Fatalf("%d changes of %d services after the freeze", effects, services)
	}
}

func TestTheLimitOfARealm(t *testing.T) {
	two := remediation.RealmLimit{Services: alerts.Rate{Count: 2, Window: 20 * time.Minute}}
	perHost := func(i int) string { return []string{"", "web-1"}[i%2] } // svc1, svc3, svc5 are on web-1
	begin := func(t *testing.T, own ...remediation.RealmLimit) *harness {
		w := newHarness(t, limits("per_target: 3/1h, per_service: 6/1h, blast_radius: 99/10m, cooldown: 10m, breaker: 3"))
		fleet(w, 6, perHost, append(own, two)...)
		w.breach("error_rate")
		return w
	}
	fire := func(w *harness, i int) string {
		return w.fire("error_rate", fmt.Sprint("fp", i), "service", fmt.Sprint("svc", i))
	}
	t.Run("holds a further service, of that realm only, and says so", func(t *testing.T) {
		w := begin(t)
		until := w.now.Add(20 * time.Minute)
		fire(w, 1)
		fire(w, 3)
		held := fire(w, 5)
		w.is(held, remediation.Waiting, remediation.HoldBlastRadius)
		const why = "limit of 2/20m services in realm host:web-1: reached by svc1, svc3"
		if v := w.incident(held); !strings.HasPrefix(v.Why, why) || !strings.Contains(v.Why, "backout approve "+held+" 1-flag_off") || v.Until == nil || !v.Until.Equal(until) {
			t.Errorf("held until %v: %s", v.Until, v.Why)
		} else if v.OverLimit != "1-flag_off" {
			t.Errorf("a commander is offered to approve %q", v.OverLimit)
		}
		o, err := w.engine.Overview(w.ctx)
		w.must(err)
		if want := []view.Needed{{Service: "svc5", Reason: "blast_radius", Incident: held}}; !slices.Equal(o.Needed, want) {
			t.Errorf("a person is needed for %+v, want %+v", o.Needed, want)
		}
		if h := holds(w, held); len(h) != 1 || !strings.HasPrefix(h[0].Detail["why"].(string), why) {
			t.Errorf("held entries %+v", h)
		}
		w.is(fire(w, 0), remediation.Settling, "") // elsewhere
		w.is(fire(w, 2), remediation.Settling, "")
		w.is(fire(w, 4), remediation.Waiting, remediation.HoldBlastRadius)
		fleet(w, 6, perHost, two) // a new process counts on
		w.pass(until.Sub(w.now) - time.Second)
		if services, _ := w.flagsOff(6); services != 4 {
			t.Fatalf("%d services were acted on within the window", services)
		}
		w.pass(time.Second + S)
		if services, _ := w.flagsOff(6); services != 6 {
			t.Fatalf("%d services were acted on after the window", services)
		}
	})
	t.Run("lets a commander through, once, and writes who it was", func(t *testing.T) {
		w := begin(t)
		fire(w, 1)
		fire(w, 3)
		held := fire(w, 5)
		if err := w.change(held, view.Deny, "1-flag_off"); err == nil {
			t.Error("there is nothing to deny")
		}
		w.must(w.approveOver(held))
		w.tick()
		w.is(held, remediation.Settling, "")
		found := false
		for _, en := range w.entries(held) {
			found = found || en.Kind == audit.KindApproved && en.Detail["gate"] == remediation.GateRealm && en.Actor != remediation.ActorEngine
		}
		if !found {
			t.Errorf("no entry says who approved: %v", w.log(held))
		}
	})
	t.Run("asks a commander again once something else has held the step", func(t *testing.T) {
		for name, between := range map[string]func(w *harness, held string){
			"claimed and released": func(w *harness, held string) {
				w.must(w.change(held, view.Claim, ""))
				w.must(w.change(held, view.Release, ""))
			},
			"frozen and thawed": func(w *harness, held string) {
				_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, By: "eve", Reason: "wait"})
				w.must(err)
				w.tick()
				w.is(held, remediation.Waiting, remediation.HoldFrozen)
				_, err = w.engine.Thaw(w.ctx, "", "eve", "go on")
				w.must(err)
			},
			"closed": func(w *harness, held string) { w.must(w.change(held, view.Close, "")) },
		} {
			w := begin(t)
			fire(w, 1)
			fire(w, 3)
			held := fire(w, 5)
			w.must(w.approveOver(held))
			between(w, held)
			w.pass(5 * S)
			if services, _ := w.flagsOff(6); services != 2 {
				t.Errorf("%s: the approval before still lets the step run", name)
			}
			if s := w.stored(held).Steps[0]; len(s.Over) != 0 {
				t.Errorf("%s: the approval is still stored: %+v", name, s.Over)
			}
		}
	})
	t.Run("keeps a commander's approval while another limit holds, for the limit's window", func(t *testing.T) {
		w := newHarness(t, limits("per_target: 3/1h, per_service: 6/1h, blast_radius: 3/10m, cooldown: 10m, breaker: 3"))
		fleet(w, 6, perHost, two)
		w.breach("error_rate")
		fire(w, 1)
		fire(w, 3)
		held := fire(w, 5)
		w.pass(19 * time.Minute) // the hold is almost over, the approval is not
		w.must(w.approveOver(held))
		if over := w.stored(held).Steps[0].Over; len(over) != 1 || !over[0].Until.Equal(w.now.Add(two.Services.Window)) {
			t.Errorf("approved %+v at %v", over, w.now)
		}
		for range 3 { // in the other realm
			w.put(w.effect("svc0", w.now.Add(-10*time.Minute+10*time.Second), remediation.EffectDone))
			w.now = w.now.Add(time.Millisecond)
		}
		w.tick()
		if inc := w.stored(held); inc.LastHeldGate != "blast_radius" {
			t.Errorf("held by %s: %s", inc.LastHeldGate, inc.Why)
		}
		w.pass(30 * time.Second) // still within the realm's window
		w.is(held, remediation.Settling, "")
	})
	t.Run("does not count a service twice", func(t *testing.T) {
		w := begin(t)
		for _, service := range []string{"svc1", "svc3"} {
			w.put(remediation.Effect{Time: w.now.Add(-5 * time.Minute), Service: service, Action: "restart", Target: service, Incident: "inc-99", Step: service, Outcome: remediation.EffectDone})
		}
		w.is(fire(w, 1), remediation.Settling, "")
		w.is(fire(w, 5), remediation.Waiting, remediation.HoldBlastRadius)
	})
	t.Run("is its own where it has one", func(t *testing.T) {
		w := begin(t, remediation.RealmLimit{Realm: "host:web-1", Services: alerts.Rate{Count: 1, Window: time.Hour}})
		w.is(fire(w, 1), remediation.Settling, "")
		w.is(fire(w, 3), remediation.Waiting, remediation.HoldBlastRadius)
		w.is(fire(w, 0), remediation.Settling, "")
		w.is(fire(w, 2), remediation.Settling, "")
		w.is(fire(w, 4), remediation.Waiting, remediation.HoldBlastRadius)
	})
}
