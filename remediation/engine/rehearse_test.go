package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/engine"
)

// rehearsalHarness is the shop, of whose actions image_retag and restart can be tried.
type rehearsalHarness struct {
	*provingHarness

	mu    sync.Mutex
	trial func(ctx context.Context, kind string) remediation.Result
	swept int
	// sweepErr is what sweeping comes to.
	sweepErr error
	// passed is what trials have taken so far.
	passed time.Duration
	said   lines  // what the engines log
	stop   func() // ends the engine that runs, and waits for it
}

// lines is a log that is read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// triable is a fake action that can be tried.
type triable struct {
	*target
	w    *rehearsalHarness
	kind string
}

func (a triable) Rehearse(ctx context.Context) remediation.Result {
	a.w.mu.Lock()
	trial := a.w.trial
	a.w.mu.Unlock()
	return trial(ctx, a.kind)
}

func (a triable) Sweep(context.Context) error {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.w.swept++
	return a.w.sweepErr
}

type triableKind struct {
	fakeKind
	w *rehearsalHarness
}

func (k *triableKind) Bind(*alerts.Playbook, any) (remediation.Action, error) {
	return triable{k.w.target(k.name), k.w, k.name}, nil
}

func newRehearsalHarness(t *testing.T) *rehearsalHarness {
	t.Helper()
	w := &rehearsalHarness{provingHarness: newUnrehearsedHarness(t)}
	w.trial = func(_ context.Context, kind string) remediation.Result {
		w.takes(12345 * time.Millisecond)
		return remediation.Passed(kind + " was tried")
	}
	w.begin()
	return w
}

// takes lets a trial take its time.
func (w *rehearsalHarness) takes(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.passed += d
}

// begin puts a new engine on the store, as a restart does, and lets it run.
func (w *rehearsalHarness) begin() {
	w.t.Helper()
	w.start()
	kinds := w.kinds()
	for i, k := range kinds {
		if k.Name() == "image_retag" || k.Name() == "restart" {
			kinds[i] = &triableKind{fakeKind{w.harness, k.Name(), k.Risk()}, w}
		}
	}
	began := w.now
	var err error
	w.engine, err = engine.New(w.ctx, engine.Options{
		Store: w.store, Playbooks: []*alerts.Playbook{w.pb}, Kinds: kinds, Prometheus: alwaysOne{new(around)}, Alertmanager: w.am, Mode: w.mode,
		Sources: w.around, DrillPatience: time.Second, Logger: slog.New(slog.NewTextHandler(&w.said, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now: func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return began.Add(w.passed)
		},
	})
	w.must(err)
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	e := w.engine
	go func() { ended <- e.Run(ctx) }()
	w.stop = sync.OnceFunc(func() { cancel(); w.must(<-ended) })
	w.t.Cleanup(w.stop)
}

func (w *rehearsalHarness) rehearse(plan string) remediation.RehearsalView {
	w.t.Helper()
	_, err := w.engine.StartRehearsal(w.ctx, "", plan, "eve", "because")
	w.must(err)
	return w.over()
}

// over waits for the end of what runs.
func (w *rehearsalHarness) over() (v remediation.RehearsalView) {
	w.t.Helper()
	w.until("the rehearsal ends", func() bool {
		var err error
		v, err = w.engine.Rehearsal(w.ctx, "")
		w.must(err)
		return !v.Running
	})
	return v
}

func (w *rehearsalHarness) until(what string, holds func() bool) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not within a minute", what)
		}
	}
}

// of is one plan's rehearsal.
func (w *rehearsalHarness) of(v remediation.RehearsalView, plan string) remediation.Rehearsal {
	w.t.Helper()
	for _, r := range v.Rehearsals {
		if r.Plan == plan {
			return r
		}
	}
	w.t.Fatalf("plan %s was not rehearsed: %+v", plan, v)
	return remediation.Rehearsal{}
}

// short is a rehearsal's steps in a few words.
func short(r remediation.Rehearsal) []string {
	var out []string
	for _, s := range r.Steps {
		word := "checked"
		if s.Tried {
			word = "tried"
		}
		out = append(out, fmt.Sprintf("%s %s %s %s", s.ID, word, s.Status, s.Took))
	}
	return out
}

// untouched fails the test where anything was really done.
func (w *rehearsalHarness) untouched() {
	w.t.Helper()
	for kind, target := range w.targets {
		if target.effects > 0 || target.undone > 0 {
			w.t.Errorf("%s was carried out", kind)
		}
	}
}

func TestARehearsalTriesWhatItCanInTheLaddersOrderAndChecksTheRest(t *testing.T) {
	t.Parallel()
	for _, mode := range []remediation.Mode{remediation.Act, remediation.Observe} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			w := newRehearsalHarness(t)
			w.stop()
			w.mode = mode
			w.begin()
			v := w.rehearse("")
			ladder, longer := w.of(v, "ladder"), w.of(v, "longer")
			if got, want := short(ladder), []string{"1-flag_off checked pass 0s", "2-image_retag tried pass 12s345ms", "3-schema_rollback checked pass 0s"}; !slices.Equal(got, want) {
				t.Errorf("the ladder's steps are %q, want %q", got, want)
			}
			if got, want := short(longer), []string{"1-status_page checked pass 0s", "2-flag_off checked pass 0s", "3-restart tried pass 12s345ms"}; !slices.Equal(got, want) {
				t.Errorf("the other plan's steps are %q, want %q", got, want)
			}
			if len(v.Rehearsals) != 2 || ladder.Status != remediation.Pass || ladder.Drill.Status != remediation.Pass || len(ladder.Incidents) != 1 || ladder.By != "eve" || ladder.Playbook != w.pb.Hash {
				t.Errorf("it came to %+v", v)
			}
			if !strings.HasPrefix(ladder.Steps[0].Evidence, "checked, not tried: ") || ladder.Steps[1].Evidence != "image_retag was tried" {
				t.Errorf("the steps say %+v", ladder.Steps)
			}
			w.untouched()
		})
	}
}

func TestTheTrailOfARehearsalIsThatOfItsDrill(t *testing.T) {
	t.Parallel()
	w := newRehearsalHarness(t)
	r := w.of(w.rehearse("ladder"), "ladder")
	inc := w.incident(r.Incidents[0])
	if !inc.Drill || inc.State != remediation.Closed {
		t.Errorf("its incident is %+v", inc)
	}
	for _, s := range inc.Steps {
		if s.State != remediation.StepSkipped {
			t.Errorf("%s of the drill is %s", s.ID, s.State)
		}
	}
	w.logs(inc.ID, "closed drill", "verified 1-flag_off", "verified 2-image_retag", "verified 3-schema_rollback", "verified")
	for _, e := range w.entries(inc.ID) {
		if e.Kind != audit.KindVerified {
			continue
		}
		if e.Detail["drill"] != true || e.Detail["what"] != "rehearsal" || e.Actor != "eve" || e.Detail["result"] != "pass" {
			t.Errorf("entry %d is %+v", e.Seq, e)
		}
		if e.Step == "2-image_retag" && (e.Detail["took"] != "12s345ms" || e.Detail["target"] != "fake:image_retag" || e.Detail["tried"] != true) {
			t.Errorf("the step's entry is %+v", e.Detail)
		}
		if e.Step == "" && e.Detail["reason"] != "because" {
			t.Errorf("the whole's entry is %+v", e.Detail)
		}
	}
}

func TestTheTimeOfARehearsalIsTheExpectedTimeOfALaterIncident(t *testing.T) {
	t.Parallel()
	w := newRehearsalHarness(t)
	finished := w.of(w.rehearse("ladder"), "ladder").Finished
	w.stop()
	w.begin() // the times outlive the process
	w.stop()
	id := w.open()
	for _, s := range w.incident(id).Steps {
		want := ""
		if s.Action == "image_retag" {
			want = "12 s"
			if s.Rehearsed == nil || !s.Rehearsed.Equal(finished) || s.ExpectedWords() != "took 12 s when rehearsed on 22 Nov 2026" {
				t.Errorf("it says %q, rehearsed %v", s.ExpectedWords(), s.Rehearsed)
			}
		}
		if s.Expected != want {
			t.Errorf("%s is expected to take %q, want %q", s.ID, s.Expected, want)
		}
	}
}

func TestOneRehearsalOrPreflightRunsAtATimeAndNoneDuringAnIncident(t *testing.T) {
	t.Parallel()
	w := newRehearsalHarness(t)
	goOn := make(chan struct{})
	w.trial = func(context.Context, string) remediation.Result { <-goOn; return remediation.Passed("tried") }
	if _, err := w.engine.StartRehearsal(w.ctx, "", "ladders", "eve", ""); !refusedAs(err, remediation.Missing) || !strings.Contains(err.Error(), "did you mean ladder?") {
		t.Errorf("an unknown plan: %v", err)
	}
	_, err := w.engine.StartRehearsal(w.ctx, "", "ladder", "eve", "")
	w.must(err)
	if _, err := w.engine.StartRehearsal(w.ctx, "shop", "longer", "ann", ""); !refusedAs(err, remediation.Conflict) || !strings.Contains(err.Error(), "for eve") {
		t.Errorf("a second rehearsal: %v", err)
	}
	if _, err := w.engine.StartPreflight(w.ctx, "shop", "ann", ""); !refusedAs(err, remediation.Conflict) {
		t.Errorf("a preflight beside it: %v", err)
	}
	w.until("the drill and the first step are shown", func() bool {
		v, err := w.engine.Rehearsal(w.ctx, "")
		w.must(err)
		return v.Running && v.Left == 2 && len(v.Rehearsals) == 1 && len(v.Rehearsals[0].Steps) == 1
	})
	close(goOn)
	w.over()

	w.stop()
	_, err = w.engine.StartPreflight(w.ctx, "shop", "ann", "") // it waits for an engine that runs
	w.must(err)
	if _, err := w.engine.StartRehearsal(w.ctx, "", "", "eve", ""); !refusedAs(err, remediation.Conflict) || !strings.Contains(err.Error(), "a preflight of shop is already running for ann") {
		t.Errorf("beside a preflight: %v", err)
	}
	w.begin()
	w.stop()
	id := w.open()
	if _, err := w.engine.StartRehearsal(w.ctx, "", "", "eve", ""); !refusedAs(err, remediation.Conflict) || !strings.Contains(err.Error(), id) {
		t.Errorf("with %s open: %v", id, err)
	}
}

func TestWhatFailsInARehearsalFailsItAndSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		plant func(w *rehearsalHarness)
		part  string // the step, or drill
		want  remediation.Status
		word  string
		next  string
	}{
		"no drill comes back": {func(w *rehearsalHarness) { w.around.deaf = true }, "drill", remediation.Fail, "no drill alert of error_rate arrived", "check that Alertmanager's configuration posts to this backout"},
		"a drill does not end": {func(w *rehearsalHarness) {
			release := make(chan struct{})
			w.t.Cleanup(func() { close(release) })
			w.target("schema_rollback").onLook = func(op string) {
				if strings.HasPrefix(op, "inc-") {
					<-release
				}
			}
		}, "drill", remediation.Fail, "is confirming after 1s", "the server's log"},
		"a trial fails": {func(w *rehearsalHarness) {
			w.trial = func(context.Context, string) remediation.Result { return remediation.Failed("there is no image", "") }
		}, "2-image_retag", remediation.Fail, "there is no image", "fix that, then backout rehearse --service=shop"},
		"a trial panics": {func(w *rehearsalHarness) {
			w.trial = func(context.Context, string) remediation.Result { panic("boo") }
		}, "2-image_retag", remediation.CannotTell, "internal error", "the server's log"},
		"a target cannot be looked at": {func(w *rehearsalHarness) {
			w.target("schema_rollback").lookErr = hint.Add(errors.New("dirty"), "mend it")
		},
			"3-schema_rollback", remediation.Fail, "checked, not tried: dirty", "mend it"},
		"an incident opens meanwhile": {func(w *rehearsalHarness) {
			w.trial = func(context.Context, string) remediation.Result {
				w.post("firing", "error_rate", "real")
				return remediation.Passed("tried")
			}
		}, "3-schema_rollback", remediation.CannotTell, "was opened meanwhile", "once it is closed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newRehearsalHarness(t)
			c.plant(w)
			r := w.of(w.rehearse("ladder"), "ladder")
			found := r.Drill.Result
			for _, s := range r.Steps {
				if s.ID == c.part {
					found = s.Result
				}
			}
			if found.Status != c.want || !strings.Contains(found.Evidence, c.word) || !strings.Contains(found.Next, c.next) {
				t.Errorf("%s came to %+v", c.part, found)
			}
			if r.Status != c.want || len(r.Steps) != 3 {
				t.Errorf("the whole came to %+v", r)
			}
			if at := remediation.RehearsedOf([]remediation.Rehearsal{r}, r.Playbook); (c.want == remediation.Fail) == (len(at) == 1) {
				t.Errorf("rehearsed is %v", at)
			}
			w.must(w.engine.Ready(w.ctx))
		})
	}
}

func TestARehearsalThatIsCutOffBeforeItsStepsIsNone(t *testing.T) {
	t.Parallel()
	w := newRehearsalHarness(t)
	reached := make(chan struct{})
	w.trial = func(ctx context.Context, _ string) remediation.Result {
		close(reached)
		<-ctx.Done()
		return remediation.ResultOf(ctx.Err())
	}
	_, err := w.engine.StartRehearsal(w.ctx, "", "ladder", "eve", "")
	w.must(err)
	<-reached
	w.stop()
	w.mu.Lock()
	w.swept = 0
	w.mu.Unlock()
	w.begin()
	w.until("what was left is taken away", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.swept > 0
	})
	v, err := w.engine.Rehearsal(w.ctx, "")
	if err != nil || v.Running || len(v.Rehearsals) > 0 {
		t.Errorf("kept is %+v (%v)", v, err)
	}
	es, err := w.engine.Entries(w.ctx, audit.Filter{Kind: audit.KindVerified})
	if err != nil || len(es) > 0 {
		t.Errorf("the audit log has %+v (%v)", es, err)
	}
	w.untouched()
}

func TestWhatCannotBeCleanedUpAfterARehearsalIsInTheLog(t *testing.T) {
	t.Parallel()
	w := newRehearsalHarness(t)
	w.stop()
	w.mu.Lock()
	w.sweepErr = errors.New("the engine is away")
	w.mu.Unlock()
	w.begin()
	w.until("the log says so", func() bool { return strings.Contains(w.said.String(), "the engine is away") })
}

func TestARehearsalOfAnotherPlaybookCountsNoMore(t *testing.T) {
	t.Parallel()
	all := []remediation.Rehearsal{
		{Plan: "a", Playbook: "old", Status: remediation.Pass, Finished: time.Unix(1, 0)},
		{Plan: "b", Playbook: "new", Status: remediation.Pass, Finished: time.Unix(2, 0)},
		{Plan: "c", Playbook: "new", Status: remediation.Fail, Finished: time.Unix(3, 0)},
	}
	if got := remediation.RehearsedOf(all, "new"); len(got) != 1 || !got["b"].Equal(time.Unix(2, 0)) {
		t.Errorf("rehearsed are %v", got)
	}
}
