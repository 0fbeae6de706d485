package replicas

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/probe"
)

// served is a service of replicas that say their version and their flag.
func served(t *testing.T, says ...string) *Service {
	t.Helper()
	var all []Replica
	for i, said := range says {
		version, flag, _ := strings.Cut(said, " ")
		mux := http.NewServeMux()
		mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
		mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, version) })
		mux.HandleFunc("GET /flags", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, `{"FLAG": %q}`, flag) })
		server := httptest.NewServer(mux)
		t.Cleanup(server.Close)
		all = append(all, Replica{
			RunningReplica: remediation.RunningReplica{Name: fmt.Sprint("shop-", i), State: "running", Up: true, Image: "example.com:5000/shop:" + version},
			Address:        func(context.Context) (string, error) { return server.URL, nil },
			Env:            func(string) (string, bool) { return "started with", true },
		})
	}
	return &Service{Probe: probe.New(), Kind: "pod", List: func(context.Context) (Listed, error) {
		return Listed{"example.com:5000/shop:v1@sha256:00", len(all), all}, nil
	},
		Target: alerts.Target{Probe: alerts.Probe{Health: "/health", Version: "/version", Flags: "/flags", Timeout: 1}}}
}

func failed(checks []remediation.Check) (all []string) {
	for _, c := range checks {
		if !c.OK {
			all = append(all, c.Name+": "+c.Detail)
		}
	}
	return all
}

func TestEachReplicaIsVerified(t *testing.T) {
	for _, tc := range []struct {
		says []string
		want string // part of what fails
	}{
		{[]string{"v1 0", "v1 0"}, ""},
		{[]string{"v1 0", "v2 0"}, "pod shop-1 runs example.com:5000/shop:v2, not example.com:5000/shop:v1"},
	} {
		s := served(t, tc.says...)
		checks, err := s.Verify(t.Context(), "", "v1")
		if got := strings.Join(failed(checks), "\n"); err != nil || len(checks) != 3 || (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%q: %s, %v", tc.says, got, err)
		}
		if err := s.Runs(t.Context(), "", "v1"); (err == nil) != (tc.want == "") || err != nil && err.Error() != tc.want {
			t.Errorf("%q: %v", tc.says, err)
		}
	}
	s := served(t, "v1 0", "v1 0")
	seen, _ := s.List(t.Context())
	all := seen.Replicas
	all[1].Up, all[1].Why = false, "ImagePullBackOff"
	checks, err := s.Verify(t.Context(), "", "v1")
	if got := failed(checks); err != nil || !slices.Equal(got, []string{"health: pod shop-1: ImagePullBackOff"}) {
		t.Errorf("%q, %v", got, err)
	}
	if err := s.Ask(t.Context(), all[1], nil); err == nil || err.Error() != "pod shop-1: health: ImagePullBackOff" {
		t.Error(err)
	}
	if err := s.Ask(t.Context(), all[0], FlagOff(s.Probe, s.Target, alerts.Flag{Name: "FLAG", Off: "0"})); err != nil {
		t.Error(err)
	}
	if err := s.Ask(t.Context(), all[0], Version(s.Probe, s.Target, "v2")); !errors.Is(err, probe.ErrOtherwise) {
		t.Error(err)
	}
}

// A quota, or a node that is lost, leaves fewer.
func TestReplicasThatAreMissingCount(t *testing.T) {
	for wanted, want := range map[int]string{1: "2 of 2", 2: "2 of 2", 5: "2 of 5"} {
		s := served(t, "v1 0", "v1 0")
		seen, _ := s.List(t.Context())
		seen.Wanted = wanted
		s.List = func(context.Context) (Listed, error) { return seen, nil }
		checks, err := s.Verify(t.Context(), "", "v1")
		missing := map[int]string{5: "health: 2 of 5 pods exist"}[wanted]
		if got := strings.Join(failed(checks), ", "); err != nil || got != missing {
			t.Errorf("%d wanted: %q, %v", wanted, got, err)
		}
		if running, err := s.Running(t.Context(), nil); err != nil || running.String() != "v1 on "+want {
			t.Errorf("%d wanted: %s, %v", wanted, running, err)
		}
	}
}

// A rollout that has begun runs the other image soon, though no replica of it is there.
func TestAnImageThatTheNextReplicaDoesNotRunIsNotRun(t *testing.T) {
	s := served(t, "v1 0", "v1 0")
	seen, _ := s.List(t.Context())
	seen.Image = "example.com:5000/shop:v2"
	s.List = func(context.Context) (Listed, error) { return seen, nil }
	const want = "the next pod is to run example.com:5000/shop:v2, not example.com:5000/shop:v1"
	if err := s.Runs(t.Context(), "", "v1"); err == nil || err.Error() != want {
		t.Error(err)
	}
	if checks, err := s.Verify(t.Context(), "", "v1"); err != nil || !slices.Contains(failed(checks), "image: "+want) {
		t.Errorf("%+v, %v", checks, err)
	}
	seen.Image = "example.com:5000/shop:v1@sha256:00"
	seen.Replicas[0].Image = seen.Image // as Kubernetes names it
	if err := s.Runs(t.Context(), "", "v1"); err != nil {
		t.Error(err)
	}
}

// Right after a rollout, a replica of the old image may be ending still.
func TestAnImageThatChangesMeanwhileIsLookedAtAgain(t *testing.T) {
	s := served(t, "v1 0", "v1 0")
	s.Target.Probe.Timeout = model.Duration(time.Minute)
	was, _ := s.List(t.Context())
	looks := 0
	s.List = func(context.Context) (Listed, error) {
		seen := was
		seen.Replicas = slices.Clone(was.Replicas)
		if looks++; looks < 4 {
			seen.Replicas[1].Image = "example.com:5000/shop:v2"
		}
		return seen, nil
	}
	checks, err := s.Verify(t.Context(), "", "v1")
	if got := failed(checks); err != nil || len(got) > 0 || checks[0].Detail != "each pod runs example.com:5000/shop:v1" {
		t.Errorf("%q, %+v, %v", got, checks, err)
	}
}

func TestWhatReplicasSayIsOneWordWhereTheyAgree(t *testing.T) {
	flags := []alerts.Flag{{Name: "FLAG"}, {Name: "OTHER"}}
	for _, tc := range []struct {
		says []string
		want string
	}{
		{[]string{"v1 0", "v1 0"}, "v1 on 2 of 2, FLAG=0, OTHER=started with"},
		{[]string{"v1 0", "v1 1"}, "FLAG"},
	} {
		running, err := served(t, tc.says...).Running(t.Context(), flags)
		if err != nil || !strings.Contains(running.String(), tc.want) || running.Flags[0].Differs != (tc.says[0] != tc.says[1]) || !running.Flags[0].Served || running.Flags[1].Served {
			t.Errorf("%q: %s %+v, %v", tc.says, running, running.Flags, err)
		}
	}
	s := served(t, "v1 0")
	seen, _ := s.List(t.Context())
	seen.Replicas[0].Address = func(context.Context) (string, error) { return "", errors.New("no address yet") }
	running, err := s.Running(t.Context(), flags)
	if err != nil || running.Version != "v1" || running.Flags[0].Value != "started with" {
		t.Errorf("without an answer: %+v, %v", running, err)
	}
	if r := s.Knows(t.Context(), "FLAG"); r.Status != remediation.Fail || !strings.Contains(r.Evidence, "pod shop-0: no address yet") {
		t.Errorf("%+v", r)
	}
	if r := served(t, "v1 0", "v1 0").Knows(t.Context(), "FLAG"); r.Status != remediation.Pass {
		t.Errorf("%+v", r)
	}
}

func TestTheEndOfItsOwnTimeLeavesNoDoubtAndTheCallersDoes(t *testing.T) {
	late := func(ctx context.Context) error {
		<-ctx.Done()
		return hint.Add(fmt.Errorf("asked: %w", ctx.Err()), "look")
	}
	err := Insist(t.Context(), time.Millisecond, late)
	if text, try := hint.Of(err); remediation.IsInDoubt(err) || errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(text, "asked: ") || try != "look" {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := Insist(ctx, time.Minute, late); !remediation.IsInDoubt(err) {
		t.Errorf("%v", err)
	}
	for _, patience := range []time.Duration{time.Millisecond, time.Minute} { // of its own time, and of the caller's
		for err, doubt := range map[error]bool{errors.New("not healthy"): false, remediation.InDoubt(errors.New("the API server answers 503")): true} {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if got := Insist(ctx, patience, func(context.Context) error { return err }); remediation.IsInDoubt(got) != doubt {
				t.Errorf("%v ends as %v", err, got)
			}
		}
	}
	asked := false
	if err := Insist(t.Context(), time.Second, func(ctx context.Context) error {
		if !asked {
			asked = true
			return errors.New("not yet")
		}
		return late(ctx)
	}); err == nil || err.Error() != "not yet" {
		t.Errorf("cut off in mid-question, it says %v", err)
	}
	n := 0
	if err := Insist(t.Context(), time.Minute, func(context.Context) error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("asked %d times: %v", n, err)
	}
}

func TestAWatchReportsEachChangeOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	looks, reports := [][]string{nil, {"a"}, {"a", "b"}, {"b"}, {"a"}}, []string{}
	err := Watch(ctx, time.Millisecond, func(context.Context) ([]string, error) {
		if len(looks) == 0 {
			cancel()
			return nil, ctx.Err()
		}
		look := looks[0]
		looks = looks[1:]
		return look, nil
	}, func(what string) { reports = append(reports, what) })
	if err != nil || !slices.Equal(reports, []string{"a", "b", "a"}) {
		t.Errorf("%q, %v", reports, err)
	}
}

func TestAnImagesRepositoryIsItsNameWithoutTagAndDigest(t *testing.T) {
	for name, want := range map[string]string{
		"shop": "shop", "shop:v1": "shop", "registry.example.com:5000/team/shop": "registry.example.com:5000/team/shop",
		"registry.example.com:5000/team/shop:v1@sha256:00": "registry.example.com:5000/team/shop", "shop@sha256:00": "shop",
	} {
		if got := Repository(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestOnlyAnAnswerDenies(t *testing.T) {
	at := func(address string, up bool) Replica {
		return Replica{RunningReplica: remediation.RunningReplica{Name: address, Up: up}, Address: func(context.Context) (string, error) {
			if address == "" {
				return "", errors.New("it has no address yet")
			}
			return address, nil
		}}
	}
	answers := func(_ context.Context, address string) error {
		return map[string]error{"off": nil, "on": fmt.Errorf("it serves 1: %w", probe.ErrOtherwise), "silent": context.DeadlineExceeded}[address]
	}
	for name, c := range map[string]struct {
		all    []Replica
		denied bool
	}{
		"as wanted":     {[]Replica{at("off", true), at("silent", true), at("", true), at("on", false)}, false},
		"all confirm":   {[]Replica{at("off", true), at("on", false)}, false},
		"none is up":    {[]Replica{at("on", false)}, false},
		"one serves it": {[]Replica{at("off", true), at("silent", true), at("on", true)}, true},
	} {
		s := &Service{Kind: "pod", List: func(context.Context) (Listed, error) { return Listed{Replicas: c.all}, nil }}
		if denied, err := s.Denied(t.Context(), answers); denied != c.denied || err != nil {
			t.Errorf("%s: denied %t, %v", name, denied, err)
		}
		if err := s.Serves(t.Context(), answers); probe.Denied(err) != c.denied || (err == nil) != (name == "all confirm") {
			t.Errorf("%s: serves: %v", name, err)
		}
	}
	away := errors.New("no answer")
	s := &Service{Kind: "pod", List: func(context.Context) (Listed, error) { return Listed{}, away }}
	if denied, err := s.Denied(t.Context(), answers); denied || !errors.Is(err, away) {
		t.Errorf("the platform is away: denied %t, %v", denied, err)
	}
	if err := s.Serves(t.Context(), answers); !errors.Is(err, away) {
		t.Errorf("the platform is away: %v", err)
	}
}
